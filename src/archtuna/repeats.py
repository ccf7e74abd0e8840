"""What was trained again with other seeds, in a study of Optuna's beside the search's own, in the same storage.

Each of its trials is a claim on one run: one trial of the search, one seed. A claim is created whole, with its worker's name
on it. Numbers of trials are given in order, one at a time, so whoever creates a claim sees every smaller one: of those
on one run the smallest that still counts holds it, and the others give way. A worker that dies leaves a claim that ends as
soon as somebody sees it, and the run is free again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState, create_trial

from archtuna.leases import Lease, held_by, is_dead
from archtuna.ledger import result_of
from archtuna.storage import Attr

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

    from archtuna.spec import Spec

SUFFIX = ":repeats"
"""What the name of a search's study gets, to name the study of its repeats."""

RUN = "archtuna:run"
DIED = "died"

State = Literal["complete", "failed", "running", "over"]


@dataclass(frozen=True, order=True)
class Wanted:
    """One run.

    Attributes:
        number: of the search's trial whose network is trained.
        seed: of initial weights, order and augmentation.
        conditions: what else it is trained with, as 16 hexadecimal digits.
    """

    number: int
    seed: int
    conditions: str


@dataclass(frozen=True)
class Run:
    """A claim on a run, and what came of it.

    Attributes:
        claim: its number, unique in the study of repeats.
        wanted: the run.
        state: ``complete``; ``failed``, for this network cannot be trained with this seed; ``running``; ``over`` without a
            result, so that the run is free again.
        metrics: on the validation pictures, at the kept epoch; empty unless complete.
        worker: host and process.
        died: whether its worker died.
        reason: why it failed.
        seconds: wall time.
    """

    claim: int
    wanted: Wanted
    state: State
    metrics: Mapping[str, float]
    worker: Mapping[str, Any] | None
    died: bool
    reason: str | None
    seconds: float | None

    @property
    def seed(self) -> int:
        return self.wanted.seed


def conditions_of(spec: Spec, key: str | None, recipe: Mapping[str, Any]) -> str:
    """Return what names the conditions of a trial's runs, so that those of a deleted study of the same name do not count.

    Args:
        spec: what the study was made with.
        key: of the trial's network.
        recipe: the trial's training values.
    """
    data = [spec.data.get(name) for name in ("fingerprint", "split", "fit")]
    told = [key, dict(recipe), data, spec.space["key"], spec.input_size, spec.fraction, spec.seed, spec.objectives]
    if spec.deployment.converts:
        told.append(spec.deployment.precision)
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


# --- decisions ---------------------------------------------------------------------------------------


def holder(claims: Iterable[Run]) -> Run | None:
    """Return the claim on a run that counts: the first with a result, else the first that runs; None of a free run."""
    ranks = {"complete": 0, "failed": 1, "running": 2}
    counting = [claim for claim in claims if claim.state in ranks]
    return min(counting, key=lambda claim: (ranks[claim.state], claim.claim), default=None)


def by_run(claims: Iterable[Run]) -> dict[Wanted, list[Run]]:
    """Return the claims on each run."""
    found: dict[Wanted, list[Run]] = {}
    for claim in claims:
        found.setdefault(claim.wanted, []).append(claim)
    return found


def results(claims: Iterable[Run]) -> dict[int, list[Run]]:
    """Return the runs that have a result, by the number of their trial, in the order of their seeds."""
    found: dict[int, list[Run]] = {}
    for wanted, rivals in sorted(by_run(claims).items()):
        held = holder(rivals)
        if held is not None and held.state != "running":
            found.setdefault(wanted.number, []).append(held)
    return found


def samples(runs: Sequence[Run], names: Iterable[str]) -> dict[str, list[float]]:
    """Return the values of runs for each name that all of them measured; nothing where none is complete."""
    done = [run.metrics for run in runs if run.state == "complete"]
    return {name: [m[name] for m in done] for name in names if done and all(name in m for m in done)}


def deaths(claims: Iterable[Run], wanted: Wanted) -> int:
    """Return how many workers died in a run."""
    return sum(claim.died for claim in claims if claim.wanted == wanted)


# --- the study of repeats ----------------------------------------------------------------------------


def read_runs(storage: BaseStorage, name: str) -> list[Run]:
    """Return every claim that was made for a study, by number; none where nothing was ever repeated.

    Args:
        storage: of both studies.
        name: of the search's.
    """
    try:
        study_id = storage.get_study_id_from_name(name + SUFFIX)
    except KeyError:
        return []
    return [_run(trial) for trial in storage.get_all_trials(study_id, deepcopy=False) if RUN in trial.user_attrs]


def _run(trial: FrozenTrial) -> Run:
    attrs, result = trial.user_attrs, result_of(trial)
    states: dict[str, State] = {"COMPLETE": "complete", "PRUNED": "failed", "RUNNING": "running"}
    return Run(
        claim=trial.number,
        wanted=Wanted(**attrs[RUN]),
        state=states.get(trial.state.name, "over"),
        metrics=result["metrics"],
        worker=attrs.get(Attr.WORKER),
        died=attrs.get(Attr.OUTCOME) == DIED,
        reason=attrs.get(Attr.REASON),
        seconds=result["seconds"],
    )


class Repeats:
    """The study of repeats of a search's study, for whoever writes to it.

    Args:
        study: the search's.
    """

    def __init__(self, study: optuna.Study) -> None:
        self.study, self.storage = study, study._storage
        name, directions = study.study_name + SUFFIX, study.directions
        self.beside = optuna.create_study(
            storage=self.storage, study_name=name, directions=directions, load_if_exists=True
        )
        self.id = self.beside._study_id

    def runs(self) -> list[Run]:
        """Return every claim, by number."""
        return read_runs(self.storage, self.study.study_name)

    def claim(self, wanted: Wanted, worker: Mapping[str, Any], seconds: float) -> Lease | None:
        """Return a claim that holds a run, or None where somebody else holds it.

        Args:
            wanted: the run.
            worker: who is to train it.
            seconds: how long the worker may give no sign of life.
        """
        born = {RUN: vars(wanted), **held_by(worker, seconds)}
        template = create_trial(state=TrialState.RUNNING, user_attrs=born)
        trial = self.storage.get_trial(self.storage.create_new_trial(self.id, template_trial=template))
        held = holder(run for run in self.runs() if run.wanted == wanted)
        if held is not None and held.claim == trial.number:
            return Lease(self.beside, trial, born[Attr.WORKER], seconds)
        self.end(trial.number)
        return None

    def bury(self, storage: BaseStorage, trial: FrozenTrial) -> str:
        """End the claim of a worker that gave no sign of life, as a trial of this study, and say what became of it."""
        self.end(trial.number, died=True)
        return "over"

    def end_those_of_the_dead(self, me: Mapping[str, Any]) -> None:
        """End the claims of the dead, and those of this worker, which works on none: the storage went away as it made them."""
        for run in self.runs():
            if run.state == "running" and is_dead(run.worker):
                self.end(run.claim, died=True)
            elif run.state == "running" and run.worker is not None and me.items() <= run.worker.items():
                self.end(run.claim)

    def end(self, claim: int, *, died: bool = False) -> None:
        """End a claim without a result; the run is free again."""
        self._finish(claim, TrialState.FAIL, {Attr.OUTCOME: DIED} if died else {})

    def fail(self, claim: int, reason: str) -> None:
        """Record that a network cannot be trained with a seed."""
        self._finish(claim, TrialState.PRUNED, {Attr.REASON: reason})

    def complete(self, claim: int, values: Sequence[float], attrs: Mapping[str, Any]) -> None:
        """Record what a run gave: the values of the objectives, and attributes by the names of ``Attr``."""
        self._finish(claim, TrialState.COMPLETE, attrs, values)

    def _finish(
        self, claim: int, state: TrialState, attrs: Mapping[str, Any], values: Sequence[float] | None = None
    ) -> None:
        trial_id = self.storage.get_trial_id_from_study_id_trial_number(self.id, claim)
        try:
            for key, value in attrs.items():
                self.storage.set_trial_user_attr(trial_id, key, value)
            self.storage.set_trial_state_values(trial_id, state, values)
        except UpdateFinishedTrialError:
            pass  # Another worker ended it first, or an attempt before this one arrived and only its answer was lost.
