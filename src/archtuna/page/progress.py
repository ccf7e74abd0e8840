"""How much a search had found after each trial, and how much the same networks would have in any order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from archtuna.objective import hypervolume, nondominated

STEPS = 40
"""Places at which the hypervolume is taken."""

ORDERS, FEWER, MANY = 50, 15, 500
"""Random orders of the same trials that its course is compared with; fewer of more trials than the last."""


def progress(points: np.ndarray, ended: Sequence[float], ideal: np.ndarray, worst: np.ndarray) -> dict[str, Any]:
    """Return the hypervolume after numbers of trials, beside that of the same trials in random orders.

    What a search by chance would have found cannot be known from one study. What can be: had the very same networks come in
    random order, where would the hypervolume have been? A sampler that learns is early, so its curve lies above.

    Args:
        points: of complete trials in the order in which they ended, trials × objectives, smaller is better.
        ended: seconds after the study's start at which each ended.
        ideal, worst: of the box, as ``objective.hypervolume`` takes them.

    Returns:
        lists of equal length: ``trials``, ``seconds``, ``hypervolume``, and of the random orders ``mean``, ``low`` and
        ``high`` (5 % and 95 % of them); ``orders`` is how many there were.
    """
    n = len(points)
    places = sorted({round(place) for place in np.linspace(1, n, min(n, STEPS))}) if n else []
    draws = np.random.default_rng(0)
    orders = 0 if n < 2 else ORDERS if n <= MANY else FEWER
    shuffled = np.array([_course(points[draws.permutation(n)], places, ideal, worst) for _ in range(orders)])
    found: dict[str, Any] = {
        "trials": places,
        "seconds": [float(ended[place - 1]) for place in places],
        "hypervolume": _course(points, places, ideal, worst),
        "orders": len(shuffled),
    }
    if len(shuffled):
        low, high = np.quantile(shuffled, [0.05, 0.95], axis=0)
        found |= {"mean": shuffled.mean(axis=0).tolist(), "low": low.tolist(), "high": high.tolist()}
    return found


def _course(points: np.ndarray, places: Sequence[int], ideal: np.ndarray, worst: np.ndarray) -> list[float]:
    """Return the hypervolume of the first so many points, at each of some places."""
    front, done, values = points[:0], 0, []
    for place in places:
        front = np.vstack([front, points[done:place]])
        front, done = front[nondominated(front)], place
        values.append(hypervolume(front, ideal, worst))
    return values
