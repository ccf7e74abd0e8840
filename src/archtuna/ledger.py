"""What a process knows of a study, read step by step, and ready for what the loop asks of it.

``refresh`` is one read of the storage. Optuna's cache reads only trials that are new or were unfinished; only these are
looked at here as well, so that a trial costs the same whether it is the tenth or the ten thousandth.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from archtuna.claims import evaluation_in
from archtuna.objective import Objective, hypervolume, nondominated, oriented
from archtuna.storage import STOPPED_CONSTRAINT, Attr

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from archtuna.evaluate import Progress

COUNTED = ("complete", "stopped", "refused", "failed")
"""The states that are an outcome, in the order in which they are told."""

NOT_WANTED = ("refused", "duplicate")
"""The states of trials that do not count among the evaluations that were asked for."""


# --- one trial ---------------------------------------------------------------------------------------


def state_of(trial: FrozenTrial) -> str:
    """Return our word for the state of one of Optuna's trials."""
    outcome = trial.user_attrs.get(Attr.OUTCOME)
    name = trial.state.name
    if name == "PRUNED" or (name == "COMPLETE" and outcome == "stopped"):
        return outcome or "stopped"
    if name == "FAIL":
        return "duplicate" if outcome == "duplicate" else outcome or "failed"
    return {"COMPLETE": "complete", "RUNNING": "running", "WAITING": "waiting"}[name]


def result_of(trial: FrozenTrial) -> Mapping[str, Any]:
    """Return what a trial's evaluation gave: ``metrics``, ``epochs`` (``trained`` and ``kept``) and ``seconds``.

    A ``curve`` is there where one was recorded, metrics by epoch. Studies of older versions keep the three apart.
    """
    attrs = trial.user_attrs
    if Attr.RESULT in attrs:
        return attrs[Attr.RESULT]
    return {
        "metrics": attrs.get(Attr.METRICS, {}),
        "epochs": attrs.get(Attr.EPOCHS) or {},
        "seconds": attrs.get(Attr.SECONDS),
    }


def take_of(trial: FrozenTrial) -> int:
    """Return how many times a trial was taken by a worker, which names what its last worker wrote; see ``leases``."""
    return int((trial.user_attrs.get(Attr.WORKER) or {}).get("take", 1))


def recorded(progress: Progress, curve: Mapping[int, Mapping[str, float]] | None = None) -> dict[str, Any]:
    """Return what a trial keeps of where its evaluation ended; ``result_of`` reads it.

    Args:
        progress: at its end.
        curve: metrics by epoch, as far as the worker that ended it saw them.
    """
    points = {
        str(epoch): {name: float(f"{value:.5g}") for name, value in at.items()} for epoch, at in (curve or {}).items()
    }
    return {
        "metrics": dict(progress.best),
        "epochs": {"trained": progress.epoch, "kept": progress.kept},
        "seconds": progress.seconds,
        **({"parts": progress.parts} if progress.parts > 1 else {}),
        **({"waited": round(progress.waited, 3)} if progress.waited else {}),
        **({"curve": points} if points else {}),
    }


def is_feasible(trial: FrozenTrial) -> bool:
    """Return whether a trial keeps every limit that was written on it."""
    return all(value <= 0 for name, value in trial.constraints.items() if name != STOPPED_CONSTRAINT)


# --- fronts ------------------------------------------------------------------------------------------


class Front:
    """The points that no other dominates, kept as points come.

    Attributes:
        numbers: of their trials, in the order in which they came.
        points: one row each, smaller is better.
    """

    def __init__(self, objectives: int) -> None:
        self.numbers: list[int] = []
        self.points = np.zeros((0, objectives))
        self._volume: tuple[tuple[Any, ...], float] | None = None

    def add(self, numbers: Sequence[int], points: np.ndarray) -> bool:
        """Add trials and drop what they dominate; return whether the front is another now."""
        every = np.vstack([self.points, points])
        stays = nondominated(every)
        if not stays[len(self.numbers) :].any():
            return False
        self.numbers = [n for n, is_in in zip([*self.numbers, *numbers], stays, strict=True) if is_in]
        self.points, self._volume = every[stays], None
        return True

    def hypervolume(self, ideal: Sequence[float], reference: Sequence[float]) -> float:
        """Return the share of the box between ``reference`` and ``ideal`` that is dominated; see ``objective``."""
        box = (*ideal, *reference)
        if self._volume is None or self._volume[0] != box:
            self._volume = box, hypervolume(self.points, ideal, reference)
        return self._volume[1]


# --- the ledger --------------------------------------------------------------------------------------


class Ledger:
    """A study's trials and what follows from them, as of the last ``refresh``.

    Attributes:
        study: Optuna's.
        objectives: in order.
        trials: Optuna's trials by number; only to be read.
        known: for each evaluation the smallest number of a trial that has it and did not fail.
        counts: how many trials are in each state, by our words.
        unwanted: numbers, ascending, of the trials that do not count among the evaluations that were asked for.
        seconds: wall times of the complete trials, ascending.
        numbers: of the complete trials within the limits, in the order in which they were seen.
        front: the best of those.
        places: the trials that failed with an error in somebody's code, by the place of the error.
    """

    def __init__(self, study: optuna.Study, objectives: Sequence[Objective]) -> None:
        self.study, self.objectives = study, tuple(objectives)
        self.trials: Sequence[FrozenTrial] = []
        self.known: dict[str, int] = {}
        self.counts: Counter[str] = Counter()
        self.unwanted: list[int] = []
        self.seconds: list[float] = []
        self.numbers: list[int] = []
        self.front = Front(len(self.objectives))
        self.places: dict[str, list[int]] = {}
        self._points = np.zeros((0, len(self.objectives)))
        self._holders: dict[str, list[int]] = {}
        self._open: dict[int, tuple[str, str | None]] = {}

    def refresh(self) -> None:
        """Read what is new."""
        seen = len(self.trials)
        self.trials = self.study._storage.get_all_trials(self.study._study_id, deepcopy=False)
        done: list[FrozenTrial] = []
        for number in [*self._open, *range(seen, len(self.trials))]:
            trial = self.trials[number]
            self._take(number, trial)
            if state_of(trial) == "complete":
                done.append(trial)
        if done:
            self._complete(done)

    @property
    def points(self) -> np.ndarray:
        """The values of the trials in ``numbers``, one row each, turned so that smaller is better."""
        return self._points

    @property
    def wanted(self) -> int:
        """How many trials count among the evaluations that were asked for: done, begun, or waiting."""
        return len(self.trials) - len(self.unwanted)

    @property
    def tried(self) -> bool:
        """Whether any network was evaluated or is with a worker, or waits for one."""
        return bool(self.counts["complete"] or any(evaluation for _, evaluation in self._open.values()))

    def wanted_before(self, number: int) -> int:
        """Return how many of the trials that count have a smaller number."""
        return number - bisect_left(self.unwanted, number)

    def other_than(self, number: int, evaluation: str) -> int | None:
        """Return the smallest number of another trial that has an evaluation and did not fail."""
        return next((n for n in self._holders.get(evaluation, ()) if n != number), None)

    def find(self, trial_id: int) -> FrozenTrial:
        """Return the trial of an identity in the storage, the newest ones being looked at first."""
        return next(trial for trial in reversed(self.trials) if trial._trial_id == trial_id)

    def opened(self, state: str) -> list[FrozenTrial]:
        """Return the trials that are ``running`` or ``waiting``, by number."""
        return [self.trials[number] for number in sorted(self._open) if self._open[number][0] == state]

    def _take(self, number: int, trial: FrozenTrial) -> None:
        """Book one trial that is new or was unfinished."""
        state = state_of(trial)
        evaluation = None if trial.state.name == "FAIL" else evaluation_in(trial.user_attrs)
        before, claimed = self._open.pop(number, (None, None))
        if before is not None:
            self.counts[before] -= 1
        self.counts[state] += 1
        if claimed != evaluation:
            self._release(claimed, number)
            self._claim(evaluation, number)
        if not trial.state.is_finished():
            self._open[number] = state, evaluation
        elif state in NOT_WANTED:
            insort(self.unwanted, number)
        elif place := trial.user_attrs.get(Attr.PLACE):
            self.places.setdefault(place, []).append(number)

    def _claim(self, evaluation: str | None, number: int) -> None:
        if evaluation is not None:
            holders = self._holders.setdefault(evaluation, [])
            insort(holders, number)
            self.known[evaluation] = holders[0]

    def _release(self, evaluation: str | None, number: int) -> None:
        if evaluation is not None:
            holders = self._holders[evaluation]
            holders.remove(number)
            if holders:
                self.known[evaluation] = holders[0]
            else:
                del self.known[evaluation], self._holders[evaluation]

    def _complete(self, trials: Collection[FrozenTrial]) -> None:
        for trial in trials:
            seconds = result_of(trial)["seconds"]
            if seconds is not None:
                insort(self.seconds, seconds)
        kept = [trial for trial in trials if is_feasible(trial)]
        if kept:
            numbers, rows = [trial.number for trial in kept], oriented([t.values for t in kept], self.objectives)
            self.numbers += numbers
            self._points = np.vstack([self._points, rows])
            self.front.add(numbers, rows)
