"""A study: what was asked for, what was tried, and the front of what was found.

The database is the only shared state. Beside it, the folder of a run holds the search file as used (``search.yaml``), where
the study is (``study.json``), the database itself when it is a local one (``study.db``) and ``checkpoints/``, unless these are
in an object store.

A study records what it was made with. Opened with anything else it refuses, and says what differs: values measured on other
data, by other training or in another space do not belong on one front.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import secrets
import statistics
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from archtuna.architecture import Architecture
from archtuna.artifacts import Artifacts, Training, run_name
from archtuna.errors import SpecError, StudyError, nearest
from archtuna.files import Place, listing, place_of
from archtuna.growth import Growth
from archtuna.leases import worker_of
from archtuna.ledger import COUNTED, Ledger, is_feasible, result_of, state_of, take_of
from archtuna.objective import Objective, hypervolume, limit_of, nondominated, objectives_of, oriented, pareto_ranks
from archtuna.own_metrics import make_known
from archtuna.repeats import Run, conditions_of, read_runs, results, samples
from archtuna.runs import check_record, check_there, make_folder, read_record, stored_url, write_record
from archtuna.selection import Bound, Option, pick
from archtuna.spec import Spec, check_versions, space_of, versions
from archtuna.storage import (
    Attr,
    close_storage,
    has_password,
    named_url,
    open_storage,
    redact,
    storage_errors_named,
    url_of,
)

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

    from archtuna.data import Data, Split
    from archtuna.space import SearchSpace

log = logging.getLogger("archtuna")

LOST = "restore the storage (study.db, or the database), or search anew with another --out"
NEAR = 10
"""How many checkpoints of trials behind the front are kept, nearest first, where a search does not say."""

# --- trials ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trial:
    """What became of one network.

    Attributes:
        number: the trial's number, unique in the study.
        state: ``complete``; ``stopped`` early; ``refused`` before training; ``failed``; ``running``; ``waiting`` to be taken
            up again; ``duplicate`` of another trial, counted nowhere.
        values: objective values by name; empty unless complete. Where the network was trained again with other seeds, its
            qualities are the means of those runs: the own run is not among them, because it was chosen for its value, and
            what is chosen as the best of many is better than it would be again.
        own: the values of the own run, by which samplers go and which its checkpoint has.
        again: the runs with other seeds.
        metrics: on the validation pictures, at the kept epoch.
        costs: known before training.
        key: the architecture's, or None where there is none.
        decisions: value of each choice by its name in the file.
        checkpoint: where its weights are, a path or a place in an object store, or None where they are not kept.
        epochs: epochs that were trained.
        kept: the epoch whose weights and metrics these are.
        reason: why it was refused, failed or gave way.
        seconds: wall time of its evaluation.
        curve: metrics on the validation pictures by epoch, as far as they were recorded: a worker that took the trial over
            knows its own epochs only.
        worker: host and process, as text.
        recipe: its training values as plain data.
        feasible: whether it keeps the study's limits.
        reading: what was measured of its network, as ``gauge.Reading.to_dict`` says, or None.
        reused: ``study`` and ``number`` of the trial whose evaluation this is, where another study had it already.
    """

    number: int
    state: str
    values: Mapping[str, float]
    metrics: Mapping[str, float]
    costs: Mapping[str, float]
    key: str | None
    decisions: Mapping[str, Any]
    checkpoint: Place | None
    epochs: int
    kept: int
    reason: str | None
    seconds: float | None
    worker: str | None
    recipe: Mapping[str, Any]
    feasible: bool = True
    reading: Mapping[str, Any] | None = None
    reused: Mapping[str, Any] | None = None
    own: Mapping[str, float] = field(default_factory=dict)
    again: tuple[Run, ...] = ()
    curve: Mapping[int, Mapping[str, float]] = field(default_factory=dict, repr=False)
    traceback: str | None = field(default=None, repr=False)
    _architecture: str | None = field(default=None, repr=False)

    @property
    def repeats(self) -> int:
        """How many runs with other seeds have a value."""
        return sum(run.state == "complete" for run in self.again)

    @property
    def runs(self) -> int:
        """How many trainings ``values`` are the means of."""
        return max(1, self.repeats)

    @cached_property
    def spread(self) -> Mapping[str, float] | None:
        """Sample standard deviation of each quality over the runs with other seeds, or None where there are not two."""
        if self.repeats < 2:
            return None
        return {name: statistics.stdev(values) for name, values in samples(self.again, self.own).items()}

    @cached_property
    def architecture(self) -> Architecture:
        """The network.

        Raises:
            StudyError: the trial has none (it was refused because its rows make no network, or was never drawn).
        """
        if self._architecture is None:
            raise StudyError(f"trial {self.number} has no network: it is {self.state} ({self.reason or 'never begun'})")
        return Architecture.from_dict(json.loads(self._architecture))


@dataclass(frozen=True)
class Garbage:
    """A file that nothing needs any more.

    Attributes:
        path: of the file, or its place in an object store.
        bytes: its size.
        why: why it is not needed, for people.
    """

    path: Place
    bytes: int
    why: str


@dataclass(frozen=True)
class Picked:
    """A network that was chosen from the front.

    Attributes:
        trial: the network's.
        why: one line for people.
        left: how many networks of the front keep the bounds.
        front: how many there are.
    """

    trial: Trial
    why: str
    left: int
    front: int


def trials_to_keep(points: np.ndarray, numbers: Sequence[int], near: int) -> set[int]:
    """Return the trials whose checkpoints are kept: the front, and the ``near`` nearest behind it.

    What is dominated never returns to the front, so deciding on an older view of the study deletes nothing that a newer
    one would keep on it. Only means of further runs can bring a network back; one without weights then keeps those of its
    first.

    Args:
        points: complete and feasible trials × objectives, smaller is better.
        numbers: the trial of each point.
        near: how many behind the front, by rank and then by distance to it, each objective scaled to 0..1.
    """
    ranks, named = pareto_ranks(points), np.asarray(numbers, dtype=int)
    kept, behind = set(named[ranks == 0].tolist()), np.flatnonzero(ranks > 0)
    if not len(behind) or near < 1:
        return kept
    # Only as many ranks are measured as hold that many trials.
    last = np.sort(ranks[behind])[min(near, len(behind)) - 1]
    span = np.ptp(points, axis=0)
    scaled = points / np.where(span > 0, span, 1.0)
    front = scaled[ranks == 0]
    nearest = [
        (int(ranks[i]), float(np.linalg.norm(front - scaled[i], axis=1).min()), int(named[i]))
        for i in behind[ranks[behind] <= last]
    ]
    return kept | {number for _, _, number in sorted(nearest)[:near]}


# --- the study ---------------------------------------------------------------------------------------


class Study:
    """A study and the folder of its run. Made by ``search``; opened for reading with ``Study.open``.

    Attributes:
        folder: the run's folder.
        name: the study's name in its storage.
        spec: what it was made with.
        objectives: in order.
        limits: bounds on costs.
        artifacts: the files of its trials.
        ledger: what this process knows of its trials.
        storage_url: with its password masked, or None for the folder's own database.
    """

    def __init__(self, folder: Path, study: optuna.Study, spec: Spec, storage: str | BaseStorage | None) -> None:
        self.folder, self.optuna, self.spec = folder, study, spec
        elsewhere = study.user_attrs.get(Attr.ARTIFACTS)
        self.artifacts = Artifacts(place_of(elsewhere) if elsewhere else folder)
        self.name = study.study_name
        make_known(spec.metrics)
        self.objectives = objectives_of(spec.objectives)
        self.limits = tuple(limit_of(text) for text in spec.limits)
        self.ledger = Ledger(study, self.objectives)
        self._in_order: tuple[list[int], list[int]] = ([], [])
        self._growth = Growth(len(self.objectives))
        self._repeated_front: set[int] | None = None
        self._probes: list[Mapping[str, Any]] = []
        self.storage_url = redact(storage) if isinstance(storage, str) else None
        if storage is None or isinstance(storage, str):
            # Connections end with the study, however its user lets go of it; a storage of the user's own is the user's.
            weakref.finalize(self, close_storage, study._storage)

    @property
    def identity(self) -> str:
        """What names the study wherever it is opened from; studies of older versions are named by where they are."""
        where = f"{self.storage_url or self.folder.resolve()}:{self.name}"
        return self.optuna.user_attrs.get(Attr.IDENTITY) or hashlib.sha256(where.encode()).hexdigest()[:12]

    @property
    def reference(self) -> Mapping[str, tuple[float, float]]:
        """For each objective the ideal and the worst value that counts for the hypervolume.

        Of a cost that has to be measured the worst is that of the study's first networks; before they are measured nothing
        counts.
        """
        missing = [o.name for o in self.objectives if o.name not in self.spec.reference]
        if missing and not self._probes:
            self._probes = (self.optuna.user_attrs.get(Attr.MEASURED) or {}).get("probes", [])
        worst = {name: (0.0, max((p["values"][name] for p in self._probes), default=0.0)) for name in missing}
        return {**worst, **self.spec.reference}

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
        if isinstance(storage, str):
            check_there(storage)
        with _opened(where, folder) as opened:
            found = _load(opened, record["name"])
            if found is None:
                raise StudyError(
                    f"{folder} speaks of a study '{record['name']}' that its storage does not have", hint=LOST
                )
            spec = _spec_of(found)
            if spec is None:
                raise StudyError(f"the study '{record['name']}' was not made by archtuna", hint="use another --out")
        return cls(folder, found, spec, where)

    @classmethod
    def create_or_open(
        cls,
        run: str | Path,
        spec: Spec,
        *,
        name: str | None = None,
        storage: str | BaseStorage | None = None,
        artifacts: str | None = None,
    ) -> Study:
        """Create the study of a run, or open it where it was made with the same.

        Args:
            run: the folder, made where it is missing.
            spec: what the study is made with.
            name: its name in the storage, by default the folder's.
            storage: URL or Optuna storage, by default the folder's own database.
            artifacts: where weights go instead of the folder: a URL such as ``s3://bucket/runs/photos``, or another folder.

        Raises:
            StudyError: it was made with something else (the text lists what), or cannot be reached or written.
        """
        folder = Path(run).expanduser()
        make_folder(folder)
        artifacts = None if artifacts is None else _checked_artifacts(artifacts)
        url = url_of(storage)
        record = read_record(folder)
        name = name or (record["name"] if record else folder.resolve().name)
        check_record(record, folder, name, url, own=storage is None)
        with _opened(storage, folder) as opened:
            found = _create(opened, name, objectives_of(spec.objectives), spec, artifacts)
            present = _spec_of(found)
            assert present is not None, "_create waits for it"
            _check_same(present, spec, name)
            _check_artifacts(found, artifacts)
        for warning in check_versions(present.versions, spec.versions):
            log.warning(warning)
        write_record(folder, name, url, local=storage is None, text=present.space["text"])
        return cls(folder, found, present, storage)

    @classmethod
    def join(cls, storage: str, name: str, run: str | Path | None = None) -> Study:
        """Open a study by its name, from a machine that need not have its folder yet.

        Args:
            storage: URL.
            name: of the study.
            run: folder for the files of its trials; by default the study's own, where this machine shares it, or
                ``runs/`` and the name where they are in an object store.

        Raises:
            StudyError: there is none of that name, its folder is not here, or the storage cannot be reached.
        """
        found, spec = _find(storage, name)
        folder = Path(run).expanduser() if run is not None else _folder_here(found)
        check_record(read_record(folder), folder, name, storage, own=False)
        for warning in check_versions(spec.versions, versions()):
            log.warning(warning)
        make_folder(folder)
        write_record(folder, name, storage, local=False, text=spec.space["text"])
        return cls(folder, found, spec, storage)

    @classmethod
    def named(cls, name: str, *, storage: str | None = None) -> Study:
        """Open a study for reading by its name, wherever its folder is.

        Args:
            name: of the study.
            storage: URL; by default the variable ``ARCHTUNA_STORAGE``.

        Raises:
            StudyError: there is none of that name, or the storage cannot be reached.
        """
        where = named_url(storage)
        found, spec = _find(where, name)
        folders = found.user_attrs.get(Attr.FOLDERS) or [name]
        return cls(Path(folders[0]), found, spec, where)

    def close(self) -> None:
        """Give back the storage's connections."""
        close_storage(self.optuna._storage)

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # what was asked for

    def space(self) -> SearchSpace:
        """Return the search space, with the training values and the input size that were given beside the file.

        Raises:
            SpecError: a block of somebody's own is not imported here.
        """
        try:
            return space_of(self.spec)
        except SpecError as error:
            error.file = error.file or str(self.folder / "search.yaml")  # As used: the lines are its lines.
            raise

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
        self.ledger.refresh()
        for number in self._finished(self.artifacts.takes()):
            self._settled(number)
        kept, again = self.artifacts.kept(), self._again()
        return [self._trial(trial, kept.get(trial.number), again.get(trial.number, ())) for trial in self.ledger.trials]

    def candidate(self, number: int) -> Trial:
        """Return one trial.

        Raises:
            StudyError: there is none of that number.
        """
        self.ledger.refresh()
        count = len(self.ledger.trials)
        if not 0 <= number < count:
            hint = f"the study has trials 0 to {count - 1}" if count else "the study has no trials yet"
            raise StudyError(f"no trial {number}", hint=hint)
        return self._found(number, self._again().get(number, ()))

    def front(self) -> list[Trial]:
        """Return the complete trials within the limits that no other dominates, sorted by the first cost.

        Where networks were trained again with other seeds, their means are compared. A network that is there twice, because
        training values are searched too, is shown once, with its better quality.
        """
        self.ledger.refresh()
        return self._front()

    def _front(self) -> list[Trial]:
        again = self._again()
        if not again:
            return [self._found(number) for number in self.front_numbers()]
        means = self._means(again)
        best = nondominated(means)
        numbers = [number for number, is_best in zip(self.ledger.numbers, best, strict=True) if is_best]
        return [self._found(number, again.get(number, ())) for number in self._sorted_front(numbers, means[best])]

    def front_numbers(self) -> list[int]:
        """Return the numbers of the front's trials in the order of ``front``, as of the ledger's last refresh."""
        known = self.ledger.front.numbers
        if self._in_order[0] is not known:
            self._in_order = known, self._sorted_front(known, self.ledger.front.points)
        return list(self._in_order[1])

    def _sorted_front(self, numbers: Sequence[int], rows: np.ndarray) -> list[int]:
        points = dict(zip(numbers, rows.tolist(), strict=True))
        quality = next(i for i, o in enumerate(self.objectives) if o.kind == "quality")
        cost = next((i for i, o in enumerate(self.objectives) if o.kind == "cost"), 0)
        best: dict[str | None, int] = {}
        for number in sorted(numbers, key=lambda n: (points[n][quality], n)):
            best.setdefault(self.ledger.trials[number].user_attrs.get(Attr.KEY), number)
        return sorted(best.values(), key=lambda n: (points[n][cost], points[n][quality], n))

    def knee(self) -> Trial:
        """Return the trial of the front that is nearest to the ideal, each objective scaled over the front.

        Raises:
            StudyError: the front is empty.
        """
        return self.pick(knee=True).trial

    def pick(
        self,
        *,
        best: str | None = None,
        max: Mapping[str, float] | None = None,
        min: Mapping[str, float] | None = None,
        knee: bool = False,
        within_one_se: bool = False,
        smallest: str | None = None,
    ) -> Picked:
        """Choose one network of the front, by default the best by the first quality.

        Args:
            best: what it is to be best at, an objective or a cost.
            max, min: bounds that it must keep, by objective or cost: ``max={"params": 300_000}``.
            knee: choose the one nearest to the ideal instead, each objective scaled over those that keep the bounds.
            within_one_se: choose the smallest within one standard error of the best instead (Breiman et al. 1984).
            smallest: the cost that makes a network small, by default the first among the objectives.

        Raises:
            StudyError: the front is empty, or none of it keeps the bounds, or the standard error is not known.
            SpecError: an unknown name.
        """
        front = self.front()
        bounds = [Bound(name, "<=", value) for name, value in (max or {}).items()]
        bounds += [Bound(name, ">=", value) for name, value in (min or {}).items()]
        options = [Option(t.number, {**t.values, **t.costs}, t.runs, t.spread) for t in front]
        chosen = pick(
            options, self.objectives, best=best, bounds=bounds, knee=knee, within_one_se=within_one_se, smallest=smallest,
            pictures=self.spec.data.get("validation"),
        )  # fmt: skip
        return Picked(front[chosen.index], chosen.why, chosen.left, len(front))

    def hypervolume(self, *, read: bool = True) -> float:
        """Return the share of the box between the study's reference and the ideal that its trials dominate, 0 to 1.

        Values are those of ``front``, so it may fall when a network is trained again and was lucky the first time.

        Args:
            read: whether to read first what is new in the study and its repeats; without it trials have their own values.
        """
        ideal, worst = self._box()
        if read:
            self.ledger.refresh()
            again = self._again()
            if again:
                return hypervolume(self._means(again), ideal, worst)
        return self.ledger.front.hypervolume(ideal, worst) if self.ledger.numbers else 0.0

    def growth(self) -> list[float]:
        """Return the hypervolume after each complete trial within the limits, by the values of its own run."""
        self.ledger.refresh()
        return self._growth.after(self.ledger.points, *self._box())

    def _box(self) -> tuple[list[float], list[float]]:
        """Return the ideal and the worst that counts, turned so that smaller is better."""
        pairs = np.array([self.reference[o.name] for o in self.objectives])
        ideal, worst = oriented(pairs.T.tolist(), self.objectives).tolist()
        return ideal, worst

    def counts(self) -> dict[str, int]:
        """Return how many trials are ``complete``, ``stopped``, ``refused`` and ``failed``."""
        self.ledger.refresh()
        return {state: self.ledger.counts[state] for state in COUNTED}

    def measuring(self) -> dict[str, Any] | None:
        """Return what measuring networks came to, or None where nothing has to be measured.

        ``networks`` that were measured, the ``seconds`` that it took, exports included, those for which trainings ``waited``
        meanwhile, and the ``devices`` by name.
        """
        if not self.spec.measured:
            return None
        self.ledger.refresh()
        record = self.optuna.user_attrs.get(Attr.MEASURED) or {"probes": [], "devices": {}}
        readings = [*record["probes"], *(t.user_attrs.get(Attr.READING) or {} for t in self.ledger.trials)]
        took = [reading["seconds"] for reading in readings if reading.get("seconds")]
        waited = sum(result_of(trial).get("waited", 0.0) for trial in self.ledger.trials)
        devices = {name: one["described"] for name, one in record["devices"].items()}
        return {"networks": len(took), "seconds": sum(took), "waited": waited, "devices": devices}

    def _points(self, trials: Sequence[Trial]) -> np.ndarray:
        return oriented([[trial.values[o.name] for o in self.objectives] for trial in trials], self.objectives)

    def _again(self) -> dict[int, list[Run]]:
        return results(read_runs(self.optuna._storage, self.name))

    def _means(self, again: Mapping[int, Sequence[Run]]) -> np.ndarray:
        """Return the ledger's points with means in the rows of networks that were repeated."""
        points = self.ledger.points.copy()
        for row, number in enumerate(self.ledger.numbers):
            if number in again:
                points[row] = self._points([self._trial(self.ledger.trials[number], None, again[number])])
        return points

    def _found(self, number: int, again: Sequence[Run] = ()) -> Trial:
        path = self.artifacts.found(number) or self._settled(number)
        return self._trial(self.ledger.trials[number], path, again)

    def _trial(self, trial: FrozenTrial, checkpoint: Place | None, again: Sequence[Run] = ()) -> Trial:
        attrs, result, state = trial.user_attrs, result_of(trial), state_of(trial)
        # For a genetic sampler a stopped trial is a complete one, whose values are not those of a training in full.
        values = (trial.values or ()) if state == "complete" else ()
        own = dict(zip(self.spec.objectives, values, strict=False))
        if again:
            conditions = conditions_of(self.spec, attrs.get(Attr.KEY), attrs.get(Attr.RECIPE, {}))
            again = [run for run in again if run.wanted.conditions == conditions]
        return Trial(
            number=trial.number,
            state=state,
            values=own | {name: statistics.fmean(values) for name, values in samples(again, own).items()},
            own=own,
            again=tuple(again),
            metrics=result["metrics"],
            costs=attrs.get(Attr.COSTS, {}),
            key=attrs.get(Attr.KEY),
            decisions=attrs.get(Attr.DECISIONS, {}),
            checkpoint=checkpoint,
            epochs=result["epochs"].get("trained", 0),
            kept=result["epochs"].get("kept", 0),
            reason=attrs.get(Attr.REASON),
            seconds=result["seconds"],
            curve={int(epoch): at for epoch, at in result.get("curve", {}).items()},
            worker=worker_of(trial),
            recipe=attrs.get(Attr.RECIPE, {}),
            feasible=is_feasible(trial),
            reading=attrs.get(Attr.READING),
            reused=attrs.get(Attr.REUSED),
            traceback=attrs.get(Attr.TRACEBACK),
            _architecture=attrs.get(Attr.ARCHITECTURE),
        )

    # checkpoints

    @property
    def near(self) -> int:
        """How many checkpoints behind the front its search keeps."""
        return int((self.optuna.user_attrs.get(Attr.ORDERS) or {}).get("near", NEAR))

    def deserves_checkpoint(self, number: int, values: Sequence[float], near: int) -> bool:
        """Return whether a trial with these values would be kept, were it complete now."""
        self.ledger.refresh()
        points = np.vstack([self.ledger.points, oriented([values], self.objectives)])
        return number in trials_to_keep(points, [*self.ledger.numbers, number], near)

    def sweep(self, near: int, *, read: bool = True) -> list[int]:
        """Delete the checkpoints of finished trials that are not to be kept, and return their numbers.

        Args:
            near: how many behind the front are kept.
            read: whether to read first what is new in the study.
        """
        if read:
            self.ledger.refresh()
        if read or self._repeated_front is None:
            self._repeated_front = {trial.number for trial in self._front()}
        self._settle()
        finished = self._finished(self.artifacts.kept())
        in_question = finished - set(self.ledger.front.numbers) - self._repeated_front
        gone = in_question and in_question - trials_to_keep(self.ledger.points, self.ledger.numbers, near)
        self.artifacts.remove(gone)
        return sorted(gone)

    def _settle(self) -> None:
        """Finish what workers that died left half done: weights take their place, and points of ended trials go."""
        points = (int(name) for name in self.artifacts.points() if name.isdigit())
        for number in self._finished([*self.artifacts.takes(), *points]):
            self._settled(number)
            self.artifacts.forget(number)

    def _settled(self, number: int) -> Place | None:
        """Return where the weights are that a complete trial's last worker staged; None where there are none."""
        trial = self.ledger.trials[number]
        return self.artifacts.settle(number, take_of(trial)) if state_of(trial) == "complete" else None

    def _finished(self, numbers: Iterable[int]) -> set[int]:
        """Return those of some trials that have ended; one that began after the last read has not."""
        open_ones = {trial.number for state in ("running", "waiting") for trial in self.ledger.opened(state)}
        return {number for number in numbers if number < len(self.ledger.trials)} - open_ones

    def garbage(self, *, age: float = 3600.0) -> list[Garbage]:
        """Return the files of the run that nothing needs any more.

        Args:
            age: seconds after which a file that was never finished is nobody's.
        """
        self.ledger.refresh()
        near = self.near
        kept, takes, points = self.artifacts.kept(), self.artifacts.takes(), self.artifacts.points()
        wanted = trials_to_keep(self.ledger.points, self.ledger.numbers, near) | {t.number for t in self._front()}
        count = len(self.ledger.trials)
        ended = self._finished([*kept, *takes, *(int(name) for name in points if name.isdigit())])
        found = []
        for number, path in kept.items():
            if number >= count:
                found.append((path, "weights of a trial that the study does not have"))
            elif number in ended - wanted:
                found.append((path, f"weights of a trial that is not among the front and the {near} nearest behind it"))
        repeated = {run_name(number, run.seed) for number, runs in self._again().items() for run in runs}

        def is_over(training: Training) -> bool:
            number = int(training) if str(training).isdigit() else None
            return training in repeated if number is None else number >= count or number in ended

        found += _left_over("unfinished weights", takes, self.artifacts.staged, is_over)
        found += _left_over("a point to go on from", points, self.artifacts.point, is_over)
        found += [(path, "half a file of a writer that died") for path in self.artifacts.torn(age)]
        sizes = {path: size for folder in {path.parent for path, _ in found} for path, size in _sizes_in(folder)}
        return [Garbage(path, sizes[path], why) for path, why in found if path in sizes]

    def disk(self, near: int | None = None) -> dict[str, Any]:
        """Return how much the kept checkpoints take and by which rule they are kept.

        Args:
            near: how many behind the front are kept, where that need not be asked of the study.
        """
        near = self.near if near is None else near
        sizes = self.artifacts.sizes().values()
        rule = f"the front, and the {near} {'trial' if near == 1 else 'trials'} nearest behind it"
        return {"files": len(sizes), "bytes": sum(sizes), "rule": rule}

    def __repr__(self) -> str:
        return f"Study({str(self.folder)!r}, {self.counts()})"


# --- Optuna's study ----------------------------------------------------------------------------------


@contextmanager
def _opened(storage: str | BaseStorage | None, folder: Path) -> Iterator[BaseStorage]:
    """Open a storage, and close it again where it does not hold the study that was meant."""
    opened = open_storage(storage, folder)
    try:
        with storage_errors_named(url_of(storage)):
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


def _find(storage: str, name: str) -> tuple[optuna.Study, Spec]:
    check_there(storage)
    with _opened(storage, Path()) as opened:
        found = _load(opened, name)
        spec = None if found is None else _spec_of(found)
        if found is None or spec is None:
            raise StudyError(f"no study '{name}' in {redact(storage)}", hint=_known_studies(opened, name))
    return found, spec


def _known_studies(storage: BaseStorage, name: str) -> str:
    names = [study.study_name for study in storage.get_all_studies() if Attr.SPEC in study.user_attrs]
    return nearest(name, names) or (f"there are: {', '.join(names[:10])}" if names else "archtuna search makes one")


def _left_over(
    what: str,
    files: Mapping[Any, Sequence[int]],
    place: Callable[[Any, int], Place],
    is_over: Callable[[Training], bool],
) -> Iterator[tuple[Place, str]]:
    """Yield what trainings left on the way that nobody goes on from, and why.

    Args:
        what: it is.
        files: the takes that left one, by training.
        place: of one.
        is_over: whether a training has ended.
    """
    for training, takes in files.items():
        kind = "trial" if str(training).isdigit() else "run"
        for take in takes:
            if is_over(training):
                yield place(training, take), f"{what} of a {kind} that has ended"
            elif take < max(takes):
                yield place(training, take), f"{what} of a worker that has lost the {kind}"


def _sizes_in(folder: Place) -> list[tuple[Place, int]]:
    return [(folder / name, size) for name, size in listing(folder).items()]


def _checked_artifacts(given: str) -> str:
    """Return where weights are to go as it is written down, having seen that it can be written.

    Raises:
        StudyError: it cannot, or there are credentials in it.
    """
    if has_password(given):
        raise StudyError(
            "credentials in a URL would be written down", hint="put those of the store into the environment"
        )
    place = place_of(given.rstrip("/"))
    if isinstance(place, Path):
        place = place.expanduser().resolve()
    Artifacts(place).check()
    return str(place)


def _check_artifacts(study: optuna.Study, given: str | None) -> None:
    there = study.user_attrs.get(Attr.ARTIFACTS)
    if given is not None and given != there:
        raise StudyError(
            f"the weights of the study '{study.study_name}' are in {there or 'its folder'}, not in {given}",
            hint="use another --out",
        )


def _folder_here(study: optuna.Study) -> Path:
    """Return the folder of a study, where this machine has it, too, or needs none."""
    folders = [Path(folder) for folder in study.user_attrs.get(Attr.FOLDERS, ())]
    for folder in folders:
        with contextlib.suppress(StudyError):
            record = read_record(folder)
            if record is not None and record["name"] == study.study_name:
                return folder
    if study.user_attrs.get(Attr.ARTIFACTS):
        return Path("runs") / study.study_name
    places = f" ({', '.join(map(str, folders))})" if folders else ""
    raise StudyError(
        f"the folder of the study '{study.study_name}'{places} is not on this machine",
        hint="name one with --out; weights then stay on this machine, unless the search has --artifacts",
    )


def _spec_of(study: optuna.Study) -> Spec | None:
    plain = study.user_attrs.get(Attr.SPEC)
    return None if plain is None else Spec.from_dict(plain)


def _create(
    storage: BaseStorage,
    name: str,
    objectives: Sequence[Objective],
    spec: Spec,
    artifacts: str | None = None,
    wait: float = 10.0,
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
        if artifacts is not None:
            study.set_user_attr(Attr.ARTIFACTS, artifacts)
        study.set_user_attr(Attr.IDENTITY, secrets.token_hex(6))
        study.set_user_attr(Attr.SPEC, spec.to_dict())  # Last: who sees it takes the study for complete.
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
