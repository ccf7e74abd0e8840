"""How the hypervolume of a study grew, trial by trial, kept as trials come."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from archtuna.ledger import Front


class Growth:
    """The hypervolume after each trial; each ``after`` looks only at trials that are new.

    Args:
        objectives: how many there are.
    """

    def __init__(self, objectives: int) -> None:
        self.objectives = objectives
        self._box: tuple[float, ...] | None = None
        self._front = Front(objectives)
        self._volumes: list[float] = []

    def after(self, points: np.ndarray, ideal: Sequence[float], reference: Sequence[float]) -> list[float]:
        """Return the share of the box that is dominated after each point.

        Args:
            points: all so far in the order in which they came, points × objectives, smaller is better.
            ideal, reference: of the box; see ``objective.hypervolume``. Another box than the last time counts anew.
        """
        box = (*ideal, *reference)
        if box != self._box:
            self._box, self._front, self._volumes = box, Front(self.objectives), []
        for number in range(len(self._volumes), len(points)):
            is_new = self._front.add([number], points[number : number + 1])
            self._volumes.append(self._front.hypervolume(ideal, reference) if is_new else self._volumes[-1])
        return list(self._volumes)
