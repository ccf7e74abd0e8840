"""By how much a candidate is expected to enlarge the dominated hypervolume, its costs being known. Pure functions on numpy.

Smaller is better throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

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


@dataclass(frozen=True)
class Known:
    """An objective whose value is known for each candidate."""

    values: np.ndarray

    def shortfall(self, ends: np.ndarray) -> np.ndarray:
        """Return by how much each candidate stays below each end, zero where it does not: candidates × ends."""
        return np.maximum(ends - self.values[:, None], 0.0)


@dataclass(frozen=True)
class Uncertain:
    """An objective of which each candidate's distance from an ideal is log-normal.

    Attributes:
        ideal: the value that none can beat.
        mean, deviation: of the logarithm of the distance.
    """

    ideal: float
    mean: np.ndarray
    deviation: np.ndarray

    def shortfall(self, ends: np.ndarray) -> np.ndarray:
        """Return by how much each candidate is expected to stay below each end: candidates × ends.

        What Black & Scholes (1973, equation 13) give for a put, without interest.
        """
        room = np.maximum(ends - self.ideal, 1e-300)
        mean, deviation = self.mean[:, None], self.deviation[:, None]
        place = (np.log(room) - mean) / deviation
        return room * ndtr(place) - np.exp(mean + deviation**2 / 2.0) * ndtr(place - deviation)


def expected_improvement(
    objectives: Sequence[Known | Uncertain], front: np.ndarray, reference: np.ndarray
) -> np.ndarray:
    """Return the expected growth of the hypervolume for each candidate.

    The sum over the boxes of what a candidate cuts from each, which is a product over the objectives because qualities
    are taken as independent given the model (Yang, Emmerich, Deutz & Bäck 2019, equation 11). With one objective it is
    the expected improvement.

    Args:
        objectives: what is known of each for all candidates.
        front: points × objectives.
        reference: the worst value of each objective that counts.
    """
    lower, upper = boxes(front, reference)
    below = [_Below(objective, lower[:, j], upper[:, j]) for j, objective in enumerate(objectives)]
    candidates = len(below[0].table)
    total, step = np.zeros(candidates), max(1, ELEMENTS // max(1, candidates))
    for start in range(0, len(lower), step):
        part = slice(start, start + step)
        total += np.prod([each.cut(part) for each in below], axis=0).sum(axis=1)
    return total


class _Below:
    """What candidates are expected to cut from the intervals of one objective; most intervals share their ends."""

    def __init__(self, objective: Known | Uncertain, lower: np.ndarray, upper: np.ndarray) -> None:
        ends, place = np.unique(np.concatenate([lower, upper]), return_inverse=True)
        self.lower, self.upper = place[: len(lower)], place[len(lower) :]
        # An open interval is cut from its upper end.
        self.table = np.where(np.isfinite(ends), objective.shortfall(np.where(np.isfinite(ends), ends, 0.0)), 0.0)

    def cut(self, part: slice) -> np.ndarray:
        """Return the expected length, candidates × intervals."""
        return self.table[:, self.upper[part]] - self.table[:, self.lower[part]]
