"""A study: what was asked for, what was tried, and the front of what was found.

The database is the only shared state. Beside it, the folder of a run holds the search file as used (``search.yaml``), where
the study is (``study.json``), the database itself when it is a local one (``study.db``) and ``checkpoints/``.

A study records what it was made with. Opened with anything else it refuses, and says what differs: values measured on other
data, by other training or in another space do not belong on one front.
"""

from __future__ import annotations

import json
import logging
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from archtuna.architecture import Architecture
from archtuna.errors import StudyError
from archtuna.objective import Objective, hypervolume, knee, limit_of, objectives_of, oriented, pareto_ranks
from archtuna.runs import check_record, make_folder, read_record, stored_url, write_record
from archtuna.spec import Spec, check_versions, space_of
from archtuna.storage import (
    STOPPED_CONSTRAINT,
    Attr,
    close_storage,
    open_storage,
    redact,
    storage_errors_named,
)

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

    from archtuna.data import Data, Split
    from archtuna.space import SearchSpace

log = logging.getLogger("archtuna")

FORMAT = 1
COUNTED = ("complete", "stopped", "refused", "failed")
NEAR = 10
"""How many checkpoints of trials behind the front are kept, nearest first."""

# --- trials ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trial:
    """What became of one network.

    Attributes:
        number: the trial's number, unique in the study.
        state: ``complete``; ``stopped`` early; ``refused`` before training; ``failed``; ``running``; ``waiting`` to be taken
            up again; ``duplicate`` of another trial, counted nowhere.
        values: objective values by name; empty unless complete.
        metrics: on the validation pictures, at the kept epoch.
        costs: known before training.
        key: the architecture's, or None where there is none.
        decisions: value of each choice by its name in the file.
        checkpoint: path of its weights, or None where they are not kept.
        epochs: epochs that were trained.
        kept: the epoch whose weights and metrics these are.
        reason: why it was refused, failed or gave way.
        seconds: wall time of its evaluation.
        worker: host and process, as text.
        recipe: its training values as plain data.
        feasible: whether it keeps the study's limits.
    """

    number: int
    state: str
    values: Mapping[str, float]
    metrics: Mapping[str, float]
    costs: Mapping[str, float]
    key: str | None
    decisions: Mapping[str, Any]
    checkpoint: Path | None
    epochs: int
    kept: int
    reason: str | None
    seconds: float | None
    worker: str | None
    recipe: Mapping[str, Any]
    feasible: bool = True
    traceback: str | None = field(default=None, repr=False)
    _architecture: str | None = field(default=None, repr=False)

    @cached_property
    def architecture(self) -> Architecture:
        """The network.

        Raises:
            StudyError: the trial has none (it was refused because its rows make no network, or was never drawn).
        """
        if self._architecture is None:
            raise StudyError(f"trial {self.number} has no network: it is {self.state} ({self.reason or 'no reason'})")
        return Architecture.from_dict(json.loads(self._architecture))


def state_of(trial: FrozenTrial) -> str:
    """Return our word for the state of one of Optuna's trials."""
    outcome = trial.user_attrs.get(Attr.OUTCOME)
    name = trial.state.name
    if name == "PRUNED" or (name == "COMPLETE" and outcome == "stopped"):
        return outcome or "stopped"
    if name == "FAIL":
        return "duplicate" if outcome == "duplicate" else outcome or "failed"
    return {"COMPLETE": "complete", "RUNNING": "running", "WAITING": "waiting"}[name]


def counts_of(states: Sequence[str]) -> dict[str, int]:
    """Return how many trials are in each state that counts as an outcome."""
    return {state: states.count(state) for state in COUNTED}


def trials_to_keep(points: np.ndarray, numbers: Sequence[int], near: int) -> set[int]:
    """Return the trials whose checkpoints are kept: the front, and the ``near`` nearest behind it.

    What is dominated never returns to the front, so deciding on an older view of the study deletes nothing that a newer
    one would keep on it.

    Args:
        points: complete and feasible trials × objectives, smaller is better.
        numbers: the trial of each point.
        near: how many behind the front, by rank and then by distance to it, each objective scaled to 0..1.
    """
    ranks = pareto_ranks(points)
    front = points[ranks == 0]
    kept = {number for number, rank in zip(numbers, ranks, strict=True) if rank == 0}
    span = np.ptp(points, axis=0) if len(points) else np.ones(points.shape[1])
    scale = np.where(span > 0, span, 1.0)
    behind = [
        (int(rank), float(np.linalg.norm((front - point) / scale, axis=1).min()), number)
        for point, number, rank in zip(points, numbers, ranks, strict=True)
        if rank > 0
    ]
    return kept | {number for _, _, number in sorted(behind)[:near]}


# --- the study ---------------------------------------------------------------------------------------


class Study:
    """A study and the folder of its run. Made by ``search``; opened for reading with ``Study.open``.

    Attributes:
        folder: the run's folder.
        name: the study's name in its storage.
        spec: what it was made with.
        objectives: in order.
        limits: bounds on costs.
        storage_url: with its password masked, or None for the folder's own database.
    """

    def __init__(self, folder: Path, study: optuna.Study, spec: Spec, storage: str | BaseStorage | None) -> None:
        self.folder, self.optuna, self.spec = folder, study, spec
        self.name = study.study_name
        self.objectives = objectives_of(spec.objectives)
        self.limits = tuple(limit_of(text) for text in spec.limits)
        self.storage_url = redact(storage) if isinstance(storage, str) else None
        if storage is None or isinstance(storage, str):
            # Connections end with the study, however its user lets go of it; a storage of the user's own is the user's.
            weakref.finalize(self, close_storage, study._storage)

    # opening

    @classmethod
    def open(cls, run: str | Path, *, storage: str | BaseStorage | None = None) -> Study:
        """Open a finished or running study from the folder of its run.

        Args:
            run: the folder.
            storage: where the study is when that is not the folder and the folder does not say it (a URL with a password
                is never written down); by default the variable ``ARCHTUNA_STORAGE``.

        Raises:
            StudyError: there is none, or it cannot be reached.
        """
        folder = Path(run).expanduser()
        record = read_record(folder)
        if record is None:
            raise StudyError(f"no study in {folder}", hint="archtuna search makes one: --out names its folder")
        where = storage if storage is not None else stored_url(record, folder)
        with _opened(where, folder) as opened:
            found = _load(opened, record["name"])
            if found is None:
                raise StudyError(f"{folder} speaks of a study '{record['name']}' that its storage does not have")
            spec = _spec_of(found)
            if spec is None:
                raise StudyError(f"the study '{record['name']}' was not made by archtuna")
        return cls(folder, found, spec, where)

    @classmethod
    def create_or_open(
        cls, run: str | Path, spec: Spec, *, name: str | None = None, storage: str | BaseStorage | None = None
    ) -> Study:
        """Create the study of a run, or open it where it was made with the same.

        Args:
            run: the folder, made where it is missing.
            spec: what the study is made with.
            name: its name in the storage, by default the folder's.
            storage: URL or Optuna storage, by default the folder's own database.

        Raises:
            StudyError: it was made with something else (the text lists what), or cannot be reached or written.
        """
        folder = Path(run).expanduser()
        make_folder(folder)
        url = storage if isinstance(storage, str) else None
        record = read_record(folder)
        name = name or (record["name"] if record else folder.resolve().name)
        check_record(record, folder, name, url, own=storage is None)
        with _opened(storage, folder) as opened:
            found = _create(opened, name, objectives_of(spec.objectives), spec)
            present = _spec_of(found)
            assert present is not None, "_create waits for it"
            _check_same(present, spec, name)
        for warning in check_versions(present.versions, spec.versions):
            log.warning(warning)
        write_record(folder, name, url, local=storage is None, text=present.space["text"])
        return cls(folder, found, present, storage)

    def close(self) -> None:
        """Give back the storage's connections."""
        close_storage(self.optuna._storage)

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # what was asked for

    def space(self) -> SearchSpace:
        """Return the search space, with the training values and the input size that were given beside the file."""
        return space_of(self.spec)

    def data(self, source: Any = None) -> Data:
        """Open the study's pictures, at ``source`` where they lie elsewhere than at the study's creation.

        Raises:
            DataError: they are not there, or are others.
        """
        from archtuna.data import Data

        return Data.open(self.spec.data["source"] if source is None else source)

    def split(self, data: Data) -> Split:
        """Return the study's split of its pictures.

        Raises:
            DataError: the pictures are others.
        """
        from archtuna.data import Split

        return Split.from_dict(self.spec.data["split"], data)

    # what was found

    def trials(self) -> list[Trial]:
        """Return every trial, by number."""
        kept = {int(path.stem): path for path in self.checkpoints()}
        return [self._trial(trial, kept) for trial in self.optuna.get_trials(deepcopy=False)]

    def candidate(self, number: int) -> Trial:
        """Return one trial.

        Raises:
            StudyError: there is none of that number.
        """
        trials = {trial.number: trial for trial in self.trials()}
        if number not in trials:
            last = max(trials, default=None)
            hint = "the study has no trials yet" if last is None else f"the study has trials 0 to {last}"
            raise StudyError(f"no trial {number}", hint=hint)
        return trials[number]

    def front(self) -> list[Trial]:
        """Return the complete trials within the limits that no other dominates, sorted by the first cost.

        A network that is there twice, because training values are searched too, is shown once, with its better quality.
        """
        done, points = self._complete()
        front = [trial for trial, rank in zip(done, pareto_ranks(points), strict=True) if rank == 0]
        cost = next((o for o in self.objectives if o.kind == "cost"), self.objectives[0])
        quality = next(o for o in self.objectives if o.kind == "quality")
        front.sort(key=lambda t: (cost.sign * t.values[cost.name], quality.sign * t.values[quality.name], t.number))
        best: dict[str | None, Trial] = {}
        for trial in sorted(front, key=lambda t: (quality.sign * t.values[quality.name], t.number)):
            best.setdefault(trial.key, trial)
        return [trial for trial in front if best[trial.key] is trial]

    def knee(self) -> Trial:
        """Return the trial of the front that is nearest to the ideal, each objective scaled over the front.

        Raises:
            StudyError: the front is empty.
        """
        front = self.front()
        if not front:
            raise StudyError("the front is empty: no trial is complete")
        return front[knee(self._points(front))]

    def hypervolume(self) -> float:
        """Return the share of the box between the study's reference and the ideal that its trials dominate, 0 to 1."""
        _, points = self._complete()
        pairs = np.array([self.spec.reference[o.name] for o in self.objectives])
        ideal, worst = oriented(pairs.T.tolist(), self.objectives)
        return hypervolume(points, ideal, worst) if len(points) else 0.0

    def counts(self) -> dict[str, int]:
        """Return how many trials are ``complete``, ``stopped``, ``refused`` and ``failed``."""
        return counts_of([state_of(trial) for trial in self.optuna.get_trials(deepcopy=False)])

    def _complete(self, trials: Sequence[Trial] | None = None) -> tuple[list[Trial], np.ndarray]:
        seen = self.trials() if trials is None else trials
        done = [trial for trial in seen if trial.state == "complete" and trial.feasible]
        return done, self._points(done)

    def _points(self, trials: Sequence[Trial]) -> np.ndarray:
        return oriented([[trial.values[o.name] for o in self.objectives] for trial in trials], self.objectives)

    def _trial(self, trial: FrozenTrial, kept: Mapping[int, Path]) -> Trial:
        attrs = trial.user_attrs
        worker = attrs.get(Attr.WORKER) or {}
        epochs = attrs.get(Attr.EPOCHS) or {}
        state = state_of(trial)
        # For a genetic sampler a stopped trial is a complete one, whose values are not those of a training in full.
        values = (trial.values or ()) if state == "complete" else ()
        return Trial(
            number=trial.number,
            state=state,
            values=dict(zip(self.spec.objectives, values, strict=False)),
            metrics=attrs.get(Attr.METRICS, {}),
            costs=attrs.get(Attr.COSTS, {}),
            key=attrs.get(Attr.KEY),
            decisions=attrs.get(Attr.DECISIONS, {}),
            checkpoint=kept.get(trial.number),
            epochs=epochs.get("trained", 0),
            kept=epochs.get("kept", 0),
            reason=attrs.get(Attr.REASON),
            seconds=attrs.get(Attr.SECONDS),
            worker=f"{worker['host']}:{worker['pid']}" if worker else None,
            recipe=attrs.get(Attr.RECIPE, {}),
            feasible=all(value <= 0 for name, value in trial.constraints.items() if name != STOPPED_CONSTRAINT),
            traceback=attrs.get(Attr.TRACEBACK),
            _architecture=attrs.get(Attr.ARCHITECTURE),
        )

    # checkpoints

    def checkpoint_path(self, number: int) -> Path:
        """Return where the weights of a trial are, if they are kept."""
        return self.folder / "checkpoints" / f"{number}.safetensors"

    def checkpoints(self) -> list[Path]:
        """Return the checkpoints that are there."""
        folder = self.folder / "checkpoints"
        return sorted(path for path in folder.glob("*.safetensors") if path.stem.isdigit()) if folder.is_dir() else []

    def deserves_checkpoint(self, number: int, values: Sequence[float], near: int = NEAR) -> bool:
        """Return whether a trial with these values would be kept, were it complete now."""
        done, points = self._complete()
        points = np.vstack([points, oriented([values], self.objectives)])
        return number in trials_to_keep(points, [*(trial.number for trial in done), number], near)

    def sweep(self, near: int = NEAR) -> list[int]:
        """Delete the checkpoints of finished trials that are not to be kept, and return their numbers."""
        trials = self.trials()
        done, points = self._complete(trials)
        kept = trials_to_keep(points, [trial.number for trial in done], near)
        open_ones = {trial.number for trial in trials if trial.state in ("running", "waiting")}
        gone = [path for path in self.checkpoints() if int(path.stem) not in kept | open_ones]
        for path in gone:
            path.unlink(missing_ok=True)  # Another worker may have been first.
        return [int(path.stem) for path in gone]

    def disk(self, near: int = NEAR) -> dict[str, Any]:
        """Return how much the kept checkpoints take and by which rule they are kept."""
        sizes = [path.stat().st_size for path in self.checkpoints()]
        rule = f"the front, and the {near} trials nearest behind it"
        return {"files": len(sizes), "bytes": sum(sizes), "rule": rule}

    def __repr__(self) -> str:
        return f"Study({str(self.folder)!r}, {self.counts()})"


# --- Optuna's study ----------------------------------------------------------------------------------


@contextmanager
def _opened(storage: str | BaseStorage | None, folder: Path) -> Iterator[BaseStorage]:
    """Open a storage, and close it again where it does not hold the study that was meant."""
    opened = open_storage(storage, folder)
    try:
        with storage_errors_named(storage if isinstance(storage, str) else None):
            yield opened
    except BaseException:
        if opened is not storage:
            close_storage(opened)
        raise


def _load(storage: BaseStorage, name: str) -> optuna.Study | None:
    import optuna

    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        return None


def _spec_of(study: optuna.Study) -> Spec | None:
    plain = study.user_attrs.get(Attr.SPEC)
    return None if plain is None else Spec.from_dict(plain)


def _create(
    storage: BaseStorage, name: str, objectives: Sequence[Objective], spec: Spec, wait: float = 10.0
) -> optuna.Study:
    """Create a study with its spec, or load it, whoever of several processes comes first."""
    import optuna

    try:
        study = optuna.create_study(storage=storage, study_name=name, directions=[o.direction for o in objectives])
    except optuna.exceptions.DuplicatedStudyError:
        study = optuna.load_study(study_name=name, storage=storage)
        deadline = time.monotonic() + wait
        while (
            Attr.SPEC not in study.user_attrs and not study.get_trials(deepcopy=False) and time.monotonic() < deadline
        ):
            time.sleep(0.1)
    if Attr.SPEC not in study.user_attrs:
        if study.get_trials(deepcopy=False):
            raise StudyError(f"the study '{name}' in this storage was not made by archtuna", hint="use another --out")
        study.set_user_attr(Attr.SPEC, spec.to_dict())
    # Optuna loads a study of other directions without a word.
    if [d.name.lower() for d in study.directions] != [o.direction for o in objectives]:
        made = _spec_of(study)
        there = ",".join(made.objectives) if made else "others"
        raise _other_study(name, [f"objectives: here {','.join(o.name for o in objectives)}, there {there}"])
    return study


def _check_same(present: Spec, spec: Spec, name: str) -> None:
    differences = spec.differences(present)
    if differences:
        raise _other_study(name, differences)


def _other_study(name: str, differences: Sequence[str]) -> StudyError:
    lines = "".join(f"\n  {line}" for line in differences)
    return StudyError(f"the study '{name}' was made with something else:{lines}", hint="use another --out")
