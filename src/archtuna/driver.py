"""A search: what was asked for, resolved into a study, and the workers that fill it, in this process or in several.

Started again with the same arguments a search goes on; the study is the only shared state.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import pickle
import queue
import random
import secrets
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from archtuna.coding import coding_of
from archtuna.errors import ShapeError, SpecError, StudyError, nearest
from archtuna.interrupts import Stop
from archtuna.leases import SECONDS, take_back
from archtuna.objective import Limit, limit_of, objectives_of
from archtuna.orders import Orders
from archtuna.repeater import Again, check_again, train_again
from archtuna.runs import read_record, stored_url
from archtuna.sampler import make_sampler
from archtuna.schedule import Schedule, schedule_of
from archtuna.settings import DATA, DEFAULT_OBJECTIVES, seconds_of
from archtuna.siblings import register_folder
from archtuna.space import SearchSpace
from archtuna.spec import Spec, reference_of, versions
from archtuna.storage import ENVIRONMENT, Attr, clock_of, default_url, named_url, scrub, storage_errors_named
from archtuna.study import NEAR, Study
from archtuna.worker import Event, OnEvent, Worker, evaluator_for

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage

    from archtuna.data import Data, Split

log = logging.getLogger("archtuna")

DEFAULT_TRIALS = 50
SCREENED = 10
"""Networks of a screened pool that a search begins with, instead of as many that are spread over the costs."""
CHECKED = 20
"""Networks that are looked at before a space is said not to fit the pictures."""


def search(
    space: str | Path | Mapping[str, Any] | SearchSpace,
    data: Any = None,
    *,
    out: str | Path | None = None,
    objectives: Sequence[str] | None = None,
    trials: int | None = None,
    time: float | str | None = None,
    workers: int | None = None,
    storage: str | BaseStorage | None = None,
    name: str | None = None,
    artifacts: str | None = None,
    sampler: str | BaseSampler | None = None,
    seed: int | None = None,
    screen: str | None = None,
    limits: Sequence[str | Limit] | None = None,
    epochs: int | None = None,
    input_size: int | tuple[int, int] | None = None,
    fraction: float | None = None,
    training: Mapping[str, Any] | None = None,
    device: str | None = None,
    near: int = NEAR,
    lease: float = SECONDS,
    repeats: int | None = None,
    stopping: bool | Schedule | None = None,
    evaluator: Any = None,
    on_event: OnEvent | None = None,
) -> Study:
    """Search a space of networks for the front of its best, and return the study.

    What is not given comes from the file's sections, and then from defaults. The same call again goes on where the last
    one ended. Ctrl-C ends it cleanly: running trials go back into the queue; a second one ends it at once.

    Args:
        space: a search file, its text, its plain data, or a ``SearchSpace``.
        data: whatever ``Data.open`` takes.
        out: the run's folder, made where it is missing; by default ``runs/`` and the name of the pictures' folder or file.
        objectives: names among loss, f1, accuracy, params, macs, size_mb; by default f1 and params.
        trials: evaluations that the study is to reach; 50 when no time is given either.
        time: seconds, or a text such as ``20m``, after which no trial begins; what runs then has a tenth of it to end.
        workers: processes on this machine; 0 makes the study and leaves the work to those that ``join`` it.
        storage: URL or Optuna storage; by default the run's own, or ``ARCHTUNA_STORAGE``.
        name: of the study in its storage; by default the folder's name.
        artifacts: where weights go instead of ``out``, for machines that share no disk: a URL such as
            ``s3://bucket/runs/photos``, with credentials in the environment.
        sampler: ``known-costs``, the name of one of Optuna's, or an Optuna sampler of your own.
        seed: of the search and of the part of the data that ``fraction`` takes.
        screen: ``synflow``, ``naswot`` or ``macs``: a new study begins with the networks of a random pool that score best
            untrained, each among those of like size; ``none`` by default.
        limits: such as ``params <= 500k``, kept by every network that is trained.
        epochs: of every training; short for ``training={"epochs": …}``.
        input_size: side in pixels, or (height, width), instead of the file's.
        fraction: stratified share of the training pictures to search on.
        training: training values instead of the file's.
        device: where to train.
        near: checkpoints kept behind the front.
        lease: seconds after which the trial of a worker that gives no sign of life is taken from it, to go on elsewhere.
        repeats: how many times the networks of the front are trained again afterwards, with other seeds (see ``repeat``);
            ``time`` is that of the search alone.
        stopping: whether trials without a chance of the front are stopped early (they are, by default), or a ``Schedule``.
        evaluator: what stands in for training: a function of a candidate that returns its metrics or yields them once per
            epoch, an ``Evaluator``, or ``module:name`` of one; several workers need the latter.
        on_event: told of each event, as a plain dictionary.

    Raises:
        SpecError: a mistake in the file or an argument.
        DataError: pictures that cannot be used.
        ShapeError: the default network does not build or does not end in one output per class.
        StudyError: the run was made with something else, or cannot be reached or written, or no network keeps the limits.
    """
    emit = on_event or (lambda event: None)
    plan = _plan(
        space, data, out=out, objectives=objectives, seed=seed, limits=limits, input_size=input_size,
        fraction=fraction, training={**(training or {}), **({} if epochs is None else {"epochs": epochs})},
        stopping=stopping,
    )  # fmt: skip
    settings = plan.space.settings.search
    workers = int(_first(workers, settings.get("workers"), 1))
    sampler = sampler if sampler is not None else settings.get("sampler")
    make_sampler(sampler, objectives=len(plan.spec.objectives), seed=None)
    screen = _screen(_first(screen, settings.get("screen"), "none"))
    _check_workers(workers, storage, evaluator, plan.space, least=0)
    budget = _budget(trials, time, settings)
    where = _where(storage, plan.out)
    study = Study.create_or_open(plan.out, plan.spec, name=name, storage=where, artifacts=artifacts)
    with storage_errors_named(where if isinstance(where, str) else None):
        returned = take_back(study.optuna)
        if screen is not None and not study.optuna.get_trials(deepcopy=False):
            _queue_screened(study, plan, screen, budget[0])
        orders = _orders(study, *budget, workers, near, device, lease)
        _publish(study, orders, sampler)
        _emit_start(emit, study, orders, plan.space, plan.data, plan.split, returned)
        if workers == 0:
            emit(_end_event(study, "created"))
            return study
        reason = _work(study, orders, sampler, evaluator, where, plan.space, plan.data, plan.split, emit)
        again = _first(repeats, settings.get("repeats"))
        if again and reason != "interrupted" and study.front():
            ended = _repeat(study, Again(again), plan.data, evaluator, orders, where, emit)
            reason = "interrupted" if ended == "interrupted" else reason
        emit(_end_event(study, reason))
    return study


def join(
    name: str,
    *,
    storage: str | None = None,
    data: Any = None,
    out: str | Path | None = None,
    workers: int = 1,
    device: str | None = None,
    evaluator: Any = None,
    linger: bool = True,
    on_event: OnEvent | None = None,
) -> Study:
    """Work on a search that was begun elsewhere, until it is over, and return its study.

    What is searched, on which pictures, how networks are trained and until when comes from the storage.

    Args:
        name: of the study in its storage.
        storage: URL; by default ``ARCHTUNA_STORAGE``.
        data: where the pictures are, should they lie elsewhere on this machine; they must be the same.
        out: folder for weights; by default the study's own, where this machine shares it, or none where they go into an
            object store.
        workers: processes on this machine.
        device: where to train.
        evaluator: what stands in for training in this search.
        linger: whether to stay, when nothing is left to begin, until the trials of other workers have ended, and go on with
            them should those workers die.
        on_event: told of each event, as a plain dictionary.

    Raises:
        StudyError: there is no such study, or it cannot be reached or written.
        DataError: these are other pictures.
    """
    emit = on_event or (lambda event: None)
    where = named_url(storage)
    study = Study.join(where, name, out)
    with storage_errors_named(where):
        space, pictures = study.space(), study.data(data)
        _check_workers(workers, where, evaluator, space)
        split = study.split(pictures)
        told = study.optuna.user_attrs.get(Attr.ORDERS, {})
        here = Orders(
            workers=workers, device=device, linger=linger, index=secrets.randbelow(2**31),
            started=len(study.optuna.get_trials(deepcopy=False)),
        )  # fmt: skip
        orders = here.joined(told, clock_of(study.optuna._storage), time.time())
        _emit_start(emit, study, orders, space, pictures, split, take_back(study.optuna))
        reason = _work(study, orders, told.get("sampler"), evaluator, where, space, pictures, split, emit)
        emit(_end_event(study, reason))
    return study


def _work(
    study: Study,
    orders: Orders,
    sampler: Any,
    evaluator: Any,
    where: Any,
    space: SearchSpace,
    data: Data,
    split: Split,
    emit: OnEvent,
) -> str:
    """Be the only worker of this machine, or start several; return why the work ended."""
    if orders.workers > 1:
        told = {"data": data.source}
        reason = _Crew(study, orders, sampler, evaluator, where, space, emit, told=told).run()
    else:
        stop = Stop()
        made = evaluator_for(study, data, split, orders, evaluator)
        with stop.on_signals():
            reason = Worker(study, made, orders, emit, stop, sampler).run()
    study.sweep(orders.near)
    return reason


def _publish(study: Study, orders: Orders, sampler: Any) -> None:
    """Write down what workers that join later are to know."""
    register_folder(study)
    shared = orders.shared(clock_of(study.optuna._storage), time.time())
    named = sampler if isinstance(sampler, str) else None
    study.optuna.set_user_attr(Attr.ORDERS, {**shared, "sampler": named})


def repeat(
    run: str | Path,
    seeds: int = 3,
    *,
    numbers: Sequence[int] | None = None,
    workers: int = 1,
    data: Any = None,
    storage: str | BaseStorage | None = None,
    device: str | None = None,
    near: int = NEAR,
    evaluator: Any = None,
    on_event: OnEvent | None = None,
) -> Study:
    """Train the networks of a run's front again with other seeds, and return the study, whose front has their means.

    A network that falls behind by its mean makes room for others, which are then trained again as well, until all of the
    front have their runs. Everything else is as in the search: its part of the training pictures, its epochs, its
    validation pictures; the test pictures are not touched. The same call again goes on where the last one ended, and
    several at once share the work.

    Args:
        run: the run's folder.
        seeds: runs that each network is to have, beside the one that the search chose it by.
        numbers: trials to train again in place of the front.
        workers: processes on this machine.
        data: where the pictures are, should they have moved.
        storage: where the study is when the folder does not say it.
        device: where to train.
        near: checkpoints kept behind the front.
        evaluator: what stood in for training in the search.
        on_event: told of each event, as a plain dictionary.

    Raises:
        StudyError: there is no such study or trial, or no trial is complete.
        DataError: these are other pictures.
    """
    emit = on_event or (lambda event: None)
    study = Study.open(run, storage=storage)
    _check_workers(workers, storage, evaluator, study.space())
    where = _where(storage, study.folder)
    with storage_errors_named(where if isinstance(where, str) else None):
        again = Again(seeds, None if numbers is None else tuple(numbers))
        check_again(study, again)
        orders = Orders(workers=workers, near=near, device=device)
        emit(_end_event(study, _repeat(study, again, study.data(data), evaluator, orders, where, emit)))
    return study


def _repeat(study: Study, again: Again, data: Data, evaluator: Any, orders: Orders, where: Any, emit: OnEvent) -> str:
    def by_crew(told: Mapping[str, Any]) -> str:
        return _Crew(study, orders, None, evaluator, where, study.space(), emit, "archtuna.repeater", told).run()

    return train_again(study, again, data, evaluator, orders, emit, by_crew)


@dataclass(frozen=True)
class _Plan:
    """Everything that a search was asked for, resolved."""

    out: Path
    space: SearchSpace
    spec: Spec
    data: Data
    split: Split


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _plan(
    given: Any,
    source: Any,
    *,
    out: str | Path | None,
    objectives: Sequence[str] | None,
    seed: int | None,
    limits: Sequence[str | Limit] | None,
    input_size: int | tuple[int, int] | None,
    fraction: float | None,
    training: Mapping[str, Any],
    stopping: bool | Schedule | None,
) -> _Plan:
    from archtuna.data import Data

    file = SearchSpace.read(given)
    settings = {name: file.settings.data.get(name, parameter.default) for name, parameter in DATA.items()}
    source = source if source is not None else settings["path"]
    if source is None:
        raise SpecError("no data", path="data", hint="name a folder of pictures, an .npz file or 'digits'")
    data = Data.open(source, strict=settings["strict"])
    split = data.split(val=settings["val"], test=settings["test"], seed=settings["split_seed"])
    size = _input_size(file, data, input_size)
    space = (file if size is None else file.with_input_size(size)).with_training(training)
    names = tuple(_first(objectives, file.settings.objectives, DEFAULT_OBJECTIVES))
    wanted = _first(limits, file.settings.limits, ())
    bounds = tuple(limit if isinstance(limit, Limit) else limit_of(limit) for limit in wanted)
    share = DATA["fraction"].coerce(_first(fraction, settings["fraction"]))
    _check_default(space, len(data.classes))
    spec = Spec(
        space={"text": file.text, "key": file.key},
        data={
            "source": data.source, "fingerprint": data.fingerprint, "split": split.to_dict(),
            "classes": len(data.classes), "fit": settings["fit"], "validation": len(split.val),
        },
        training=dict(training),
        objectives=names,
        limits=tuple(f"{limit.name} <= {limit.bound:.15g}" for limit in bounds),
        fraction=share,
        input_size=size,
        seed=_first(seed, file.settings.search.get("seed"), 0),
        reference=reference_of(objectives_of(names), len(data.classes), bounds, _largest(space)),
        versions=versions(),
        stopping=asdict(_schedule(stopping, file.settings.search)),
    )  # fmt: skip
    folder = Path(out).expanduser() if out is not None else Path("runs") / Path(data.source).stem
    return _Plan(folder, space, spec, data, split)


def _schedule(given: bool | Schedule | None, settings: Mapping[str, Any]) -> Schedule:
    """Return when trials are looked at: as given, as the file says, or the default."""
    if isinstance(given, Schedule):
        return given
    return schedule_of(settings if given is None else {**settings, "stopping": given})


def _input_size(space: SearchSpace, data: Data, given: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """Return the input size that stands in for the file's, or None where the file's holds."""
    if given is not None:
        height, width = (given, given) if isinstance(given, int) else given
        return int(height), int(width)
    if space.has_input_size:
        # Workers read the file's text, so a size that the caller gave the space beside it has to be recorded.
        written = SearchSpace.read(space.text + "\n")
        same = written.has_input_size and written.input_sizes() == space.input_sizes()
        return None if same else space.input_sizes()[0]
    side = default_side(data.native_size)
    return side, side


def default_side(native: tuple[int, int]) -> int:
    """Return the side of the input for pictures of a (median) size: the longer side up to a multiple of 32, 32 to 224."""
    return min(224, max(32, -(-max(native) // 32) * 32))


def _check_default(space: SearchSpace, classes: int) -> None:
    """Check that the space is for these pictures before any network is trained; what a choice breaks is refused later.

    Raises:
        ShapeError: neither the network of first options nor any of some random ones builds and ends in one output per
            class; the error is that of the first.
    """
    from archtuna.model import check_output

    draws, problem = random.Random(0), None
    for attempt in range(CHECKED):
        try:
            check_output((space.random(draws) if attempt else space.default()).architecture, classes)
            return
        except ShapeError as error:
            problem = problem or error
    assert problem is not None
    raise problem


def _largest(space: SearchSpace) -> Mapping[str, float]:
    from archtuna.costs import costs_of

    return costs_of(space.largest().architecture)


def _check_workers(workers: int, storage: Any, evaluator: Any, space: SearchSpace, least: int = 1) -> None:
    if workers < least:
        raise StudyError(f"{workers} workers", hint=f"at least {least}")
    if workers > 1 and storage is not None and not isinstance(storage, str):
        raise StudyError("several workers cannot share a storage object", hint="pass the storage as a URL")
    if workers > 1 and evaluator is not None and not isinstance(evaluator, str):
        raise StudyError("several workers cannot share an evaluator object", hint="pass it as 'module:name'")
    here = [name for name, module in space.origins.items() if module == "__main__"]
    if workers > 1 and here:
        raise StudyError(
            f"several workers cannot import the block '{here[0]}' from a script", hint="put it into a module of its own"
        )


def _screen(name: str) -> str | None:
    """Return the score of a screen, None for none."""
    from archtuna.screen import SCORES

    if name != "none" and name not in SCORES:
        raise StudyError(f"unknown screen '{name}'", hint=nearest(name, SCORES) or f"known: none, {', '.join(SCORES)}")
    return None if name == "none" else name


def _queue_screened(study: Study, plan: _Plan, screen: str, trials: int | None) -> None:
    """Queue what a new study begins with: the file's own network, and the best-scored of a random pool."""
    from archtuna.screen import first_candidates

    keep = SCREENED if trials is None else max(0, min(SCREENED, trials - 1))
    begun = time.monotonic()
    found = first_candidates(plan.space, screen, keep, limits=study.limits, seed=plan.spec.seed or 0)
    log.info("%d networks to begin with were chosen by %s in %.0f s", len(found), screen, time.monotonic() - begun)
    codings = {choice.name: coding_of(choice) for choice in plan.space.choices}
    for candidate in found:
        parameters = {name: codings[name].parameter(value) for name, value in candidate.decisions.items()}
        study.optuna.enqueue_trial(parameters)


def _where(storage: str | BaseStorage | None, out: Path) -> str | BaseStorage | None:
    """Return the storage: as given, as the run's folder says, or as the environment does."""
    if storage is not None:
        return storage
    record = read_record(out)
    return default_url() if record is None else stored_url(record, out)


def _budget(trials: int | None, seconds: Any, settings: Mapping[str, Any]) -> tuple[int | None, float | None]:
    """Return how many trials and how many seconds there are: as given, as the file says, or the default."""
    if trials is None and seconds is None:
        trials, seconds = settings.get("trials"), settings.get("time")
    limit = seconds_of(seconds)
    if trials is None and limit is None:
        trials = DEFAULT_TRIALS
    if trials is not None and trials < 1:
        raise StudyError(f"{trials} trials", hint="at least 1")
    return trials, limit


def _orders(
    study: Study, trials: int | None, limit: float | None, workers: int, near: int, device: str | None, lease: float
) -> Orders:
    deadline = None if limit is None else time.time() + limit
    return Orders(
        trials=trials, deadline=deadline, grace=max(10.0, 0.1 * (limit or 0.0)), workers=workers, near=near, device=device,
        started=len(study.optuna.get_trials(deepcopy=False)), lease=lease,
    )  # fmt: skip


def _emit_start(
    emit: OnEvent,
    study: Study,
    orders: Orders,
    space: SearchSpace,
    data: Data,
    split: Split,
    returned: Sequence[int],
) -> None:
    front = study.front()
    emit(
        {
            "event": "start",
            "name": study.name,
            "folder": str(study.folder),
            "storage": study.storage_url,
            "objectives": {o.name: o.direction for o in study.objectives},
            "limits": [str(limit) for limit in study.limits],
            "trials": orders.trials,
            "time": None if orders.deadline is None else orders.deadline - time.time(),
            "workers": orders.workers,
            "space_size": space.size,
            "pictures": {"train": len(split.train), "val": len(split.val), "classes": len(data.classes)},
            "counts": study.counts(),
            "front": [trial.number for trial in front],
            "values": {str(trial.number): dict(trial.values) for trial in front},
            "hypervolume": study.hypervolume(),
            "taken_back": list(returned),
        }
    )


def _end_event(study: Study, reason: str) -> Event:
    front = [trial.number for trial in study.front()]
    return {
        "event": "end",
        "reason": reason,
        "trials": study.counts(),
        "front": front,
        "hypervolume": study.hypervolume(),
        "disk": study.disk(),
    }


# --- several workers ---------------------------------------------------------------------------------


def usable_cores() -> int:
    """Return how many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Crew:
    """Several workers of one search, and the process that watches them."""

    def __init__(
        self,
        study: Study,
        orders: Orders,
        sampler: Any,
        evaluator: str | None,
        storage: Any,
        space: SearchSpace,
        emit: OnEvent,
        module: str = "archtuna.serving",
        told: Mapping[str, Any] | None = None,
    ) -> None:
        self.module, self.told = module, dict(told or {})
        # Blocks of one's own are imported where they are used; what names them is this process, not the study's file.
        self.imports = sorted(set(space.origins.values()))
        self.study, self.orders, self.emit, self.storage = study, orders, emit, storage
        self.evaluator, self.sampler = evaluator, sampler
        self.events: queue.Queue[tuple[int, Event | None]] = queue.Queue()
        self.stop = Stop()
        self.processes: dict[int, subprocess.Popen[str]] = {}
        self.errors: dict[int, deque[str]] = {}
        self.reasons: list[str] = []
        self.said: set[str] = set()
        self.problem: str | None = None
        self.deaths = 0
        self.signalled = False

    def run(self) -> str:
        """Start the workers, forward their events, and return why the search ended.

        Raises:
            StudyError: a worker found one, or workers keep dying.
        """
        with self.stop.on_signals(second=self._kill):
            try:
                for index in range(self.orders.workers):
                    self._start(index)
                while self.processes:
                    self._watch()
            finally:
                self._kill()
        take_back(self.study.optuna)
        if self.problem:
            message, _, hint = self.problem.partition("\nhint: ")
            raise StudyError(message, hint=hint or None)
        if self.stop.requested:
            return "interrupted"
        return next((r for r in ("interrupted", "exhausted", "time") if r in self.reasons), "trials")

    def _start(self, index: int) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", self.module],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8",
            env=self._environment(),
            # Ctrl-C in a terminal reaches a whole group of processes: here it is passed on, once, by this one.
            start_new_session=True,
        )  # fmt: skip
        assert process.stdin is not None
        self.processes[index], self.errors[index] = process, deque(maxlen=30)
        with contextlib.suppress(BrokenPipeError):  # It died at once: its end is reported like any other.
            process.stdin.write(self._message(index) + "\n")
            process.stdin.flush()
        for read, stream in ((self._read_events, process.stdout), (self._read_errors, process.stderr)):
            threading.Thread(target=read, args=(index, stream), daemon=True).start()
        self.emit({"event": "worker", "worker": index, "state": "alive", "pid": process.pid})

    def _environment(self) -> dict[str, str]:
        environment = {key: value for key, value in os.environ.items() if key != ENVIRONMENT}
        threads = str(max(1, usable_cores() // self.orders.workers))
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            environment[name] = threads
        if isinstance(self.storage, str):
            environment[ENVIRONMENT] = self.storage
        return environment

    def _message(self, index: int) -> str:
        sampler = self.sampler
        if sampler is not None and not isinstance(sampler, str):
            sampler = {"pickle": base64.b64encode(pickle.dumps(sampler)).decode()}
        orders = {**asdict(self.orders), "index": self.orders.index + index}
        message = {
            "run": str(self.study.folder.resolve()),
            "orders": orders,
            "sampler": sampler,
            "evaluator": self.evaluator,
            "imports": self.imports,
            **self.told,
        }
        return json.dumps({**message, "path": sys.path})

    def _read_events(self, index: int, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                try:
                    self.events.put((index, json.loads(line)))
                except ValueError:
                    self.errors[index].append(line.rstrip())
        self.events.put((index, None))

    def _read_errors(self, index: int, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                self.errors[index].append(line.rstrip())

    def _watch(self) -> None:
        """Take note of one event, and pass a stop on."""
        if self.stop.requested and not self.signalled:
            self.signalled = True
            for process in self.processes.values():
                process.terminate()
        try:
            index, event = self.events.get(timeout=0.1)
        except queue.Empty:
            return
        if event is None:
            self._ended(index)
        elif event["event"] == "log":
            self._forward(event)
        elif event["event"] == "done":
            self.reasons.append(event["reason"])
        elif event["event"] == "error":
            self._fail(event["message"])
        else:
            self.emit({**event, "worker": index})

    def _forward(self, event: Event) -> None:
        """Log what a worker logs, once: all of them read the same data and say the same of it."""
        if event["message"] not in self.said:
            self.said.add(event["message"])
            log.log(event["level"], event["message"])

    def _ended(self, index: int) -> None:
        process = self.processes.pop(index)
        code = process.wait()
        if process.stdin:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        if code == 0:
            self.emit({"event": "worker", "worker": index, "state": "done", "pid": process.pid})
            return
        url = self.storage if isinstance(self.storage, str) else None
        last = [scrub(line, url) for line in self.errors[index]]
        self.emit(
            {"event": "worker", "worker": index, "state": "dead", "pid": process.pid, "code": code, "stderr": last}
        )
        if self.stop.requested or self.problem:
            return
        take_back(self.study.optuna)
        self.deaths += 1
        if self.deaths > 2 * self.orders.workers:
            words = last[-1] if last else f"exit code {code}"
            self._fail(f"workers keep dying: {words}")
        else:
            self._start(index)

    def _fail(self, message: str) -> None:
        if self.problem is None:
            self.problem = message
            for process in self.processes.values():
                process.terminate()

    def _kill(self) -> None:
        for process in self.processes.values():
            process.kill()
