"""By how much a candidate is expected to enlarge the dominated hypervolume, its costs being known. Pure functions on numpy.

Smaller is better throughout; a quality is a sample of equally likely values, a cost is one value.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

ELEMENTS = 4_000_000
"""Numbers that one step of ``expected_improvement`` holds at once: 32 MB."""


def boxes(front: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return disjoint boxes that fill what a front leaves undominated below a reference.

    They follow from the front's local upper bounds (Klamroth, Lacour & Vanderpooten 2015, algorithm 3) and their defining
    points (Lacour, Klamroth & Fonseca 2017, section 3): about 2n boxes for three objectives, n squared for four and five.

    Args:
        front: points × objectives.
        reference: the worst value of each objective that counts.

    Returns:
        Lower ends, minus infinity where a box is open, and upper ends, both boxes × objectives.
    """
    m = len(reference)
    upper = np.array([reference], dtype=float)
    # definers[b, k] is the point that bounds box b in objective k.
    definers = np.full((1, m, m), -np.inf)
    definers[0, range(m), range(m)] = reference
    for point in front:
        hit = (point < upper).all(axis=1)
        if not hit.any():
            continue
        parts, bounds = [upper[~hit]], [definers[~hit]]
        for j in range(m):
            others = np.delete(definers[hit][:, :, j], j, axis=1).max(axis=1, initial=-np.inf)
            split = point[j] >= others
            cut, by = upper[hit][split], definers[hit][split]
            cut[:, j], by[:, j] = point[j], point
            parts.append(cut)
            bounds.append(by)
        upper, definers = np.concatenate(parts), np.concatenate(bounds)
    lower = np.full_like(upper, -np.inf)
    for j in range(1, m):
        lower[:, j] = definers[:, :j, j].max(axis=1)
    filled = (upper > lower).all(axis=1)
    return lower[filled], upper[filled]


def expected_improvement(values: Sequence[np.ndarray], front: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the expected growth of the hypervolume for each candidate.

    The sum over the boxes of what a candidate cuts from each, which is a product over the objectives because qualities
    are taken as independent given the model (Yang, Emmerich, Deutz & Bäck 2019, equation 11). With one objective it is
    the expected improvement.

    Args:
        values: for each objective candidates × samples; one sample where the value is known.
        front: points × objectives.
        reference: the worst value of each objective that counts.
    """
    lower, upper = boxes(front, reference)
    candidates = len(values[0])
    if not len(lower):
        return np.zeros(candidates)
    step = max(1, ELEMENTS // max(1, candidates))
    total = np.zeros(candidates)
    for start in range(0, len(lower), step):
        part = slice(start, start + step)
        volume = np.ones((candidates, len(lower[part])))
        for j, samples in enumerate(values):
            volume *= _cut(samples, lower[part, j], upper[part, j])
        total += volume.sum(axis=1)
    return total


def _cut(samples: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Return the mean length that is cut from each interval (candidates × intervals)."""
    ends, place = np.unique(np.concatenate([lower, upper]), return_inverse=True)
    below = np.zeros((len(samples), len(ends)))  # mean of (end - sample) where that is positive
    finite = np.isfinite(ends)
    for column in samples.T:
        below[:, finite] += np.maximum(ends[finite] - column[:, None], 0.0)
    below /= samples.shape[1]
    return below[:, place[len(lower) :]] - below[:, place[: len(lower)]]
