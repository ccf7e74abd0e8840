"""Who has a trial: a lease that its holder renews, and writes that only the holder can make.

A worker that takes a trial writes its name on it, with a number that rises whenever the trial is taken: together they are the
holder. The holder renews its lease (Gray & Cheriton 1989) by counting up a number; whoever sees that number stand still for
the lease's time, by its own clock, takes the trial away. So clocks need not agree. What a holder writes it writes in one
transaction that first looks whether it still is the holder: a worker that was cut off or frozen and comes back late cannot
write into a trial that it lost.

That holds for relational databases. Optuna's other storages have no such transaction; there a moment is left between looking
and writing.
"""

from __future__ import annotations

import logging
import os
import platform
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from archtuna.rdb import WholeTrials
from archtuna.storage import ERROR_CONSTRAINT, Attr, backend_of, clock_of, explain, storage_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage

log = logging.getLogger("archtuna")

SECONDS = 60.0
"""How long a lease holds that is not renewed."""

RENEWALS = 4
"""How many times a lease is renewed in that time."""

DEATHS = 3
"""Workers that may die with a trial at one epoch before it is given up."""

Worker = Mapping[str, Any]


class LeaseLost(Exception):
    """The trial is with another worker by now, or has ended."""


# --- one transaction ---------------------------------------------------------------------------------


def change(
    storage: BaseStorage,
    trial_id: int,
    expected: Callable[[TrialState, Mapping[str, Any]], bool],
    *,
    attrs: Mapping[str, Any] = {},
    notes: Mapping[str, Any] = {},
    params: Mapping[str, tuple[Any, BaseDistribution]] = {},
    state: TrialState | None = None,
    values: Sequence[float] | None = None,
) -> bool:
    """Write to a trial, all at once, if it is as expected at that moment; return whether it was.

    Args:
        expected: told the trial's state, and the attributes that say who has it.
        attrs, notes: Optuna's user and system attributes.
        params: value and distribution of each.
        state, values: to be given to the trial.
    """
    backend = backend_of(storage)
    if isinstance(backend, WholeTrials):
        return backend.change_trial(
            trial_id, expected, looks_at=(Attr.WORKER, Attr.LEASE), user_attrs=attrs, system_attrs=notes, params=params,
            state=state, values=values,
        )  # fmt: skip
    trial = storage.get_trial(trial_id)
    if not expected(trial.state, trial.user_attrs):
        return False
    try:
        for name, (value, distribution) in params.items():
            storage.set_trial_param(trial_id, name, distribution.to_internal_repr(value), distribution)
        for key, value in notes.items():
            storage.set_trial_system_attr(trial_id, key, value)
        for key, value in attrs.items():
            storage.set_trial_user_attr(trial_id, key, value)
        return state is None or storage.set_trial_state_values(trial_id, state, values)
    except UpdateFinishedTrialError:
        return False


# --- holding a trial ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lease:
    """A worker's hold on a trial.

    Attributes:
        study: Optuna's, of the trial.
        trial: as it was when it was taken.
        holder: the worker, and how many times the trial was taken.
        seconds: how long the lease holds without being renewed.
    """

    study: optuna.Study
    trial: FrozenTrial
    holder: Mapping[str, Any]
    seconds: float = SECONDS

    @property
    def number(self) -> int:
        return self.trial.number

    @property
    def take(self) -> int:
        return int(self.holder["take"])

    def write(
        self,
        attrs: Mapping[str, Any] = {},
        *,
        constraints: Mapping[str, float] = {},
        params: Mapping[str, tuple[Any, BaseDistribution]] = {},
        notes: Mapping[str, Any] = {},
    ) -> None:
        """Write to the trial.

        Args:
            attrs: user attributes.
            constraints: by how much each is broken; one that was written before stays.
            params: value and distribution of parameters that the trial has not got yet.
            notes: Optuna's system attributes.

        Raises:
            LeaseLost: it is not the worker's any more.
        """
        self._change(attrs=attrs, notes={**notes, **self._new(constraints)}, params=params)

    def end(
        self,
        state: TrialState,
        values: Sequence[float] | None = None,
        attrs: Mapping[str, Any] = {},
        *,
        constraints: Mapping[str, float] = {},
    ) -> None:
        """End the trial, as ``Study.tell`` does; what an attempt before this one wrote stays.

        Raises:
            LeaseLost: it is not the worker's any more.
        """
        try:
            self.study.sampler.after_trial(self.study, self.trial, state, values)
        finally:
            self._change(attrs=attrs, notes=self._new(constraints), state=state, values=values)

    def hand_back(self) -> None:
        """Put the trial back into the queue, where it still is the worker's; the next that is free takes it up."""
        change(
            self.study._storage,
            self.trial._trial_id,
            self._is_held,
            attrs={Attr.WORKER: None},
            state=TrialState.WAITING,
        )

    def renew(self, beat: int, began: int, epoch: int, at: float) -> None:
        """Say that the worker is alive.

        Args:
            beat: a number that no renewal before had.
            began: the epoch after which the worker took the trial up.
            epoch: the last that it trained.
            at: the time by the storage's clock; nothing is decided by it, people are told.

        Raises:
            LeaseLost: it is not the worker's any more.
        """
        told = {"beat": beat, "began": began, "epoch": epoch, "at": round(at, 1)}
        self._change(attrs={Attr.LEASE: lease_of(self.take, self.seconds) | told})

    def _new(self, constraints: Mapping[str, float]) -> dict[str, float]:
        return {f"constraints:{k}": v for k, v in constraints.items() if k not in self.trial.constraints}

    def _is_held(self, state: TrialState, attrs: Mapping[str, Any]) -> bool:
        return state == TrialState.RUNNING and attrs.get(Attr.WORKER) == self.holder

    def _change(self, **written: Any) -> None:
        ended = False

        def expected(state: TrialState, attrs: Mapping[str, Any]) -> bool:
            nonlocal ended
            # An attempt before this one arrived, and only its answer was lost.
            ended = state.is_finished() and attrs.get(Attr.WORKER) == self.holder
            return self._is_held(state, attrs)

        if not change(self.study._storage, self.trial._trial_id, expected, **written) and not ended:
            raise LeaseLost(f"trial {self.number} is with another worker")


def lease_of(take: int, seconds: float = SECONDS) -> dict[str, Any]:
    """Return what a trial keeps of a lease that has just begun; see ``Lease.renew``."""
    return {"take": take, "seconds": seconds, "beat": 0, "began": 0, "epoch": 0}


def held_by(worker: Worker, seconds: float = SECONDS) -> dict[str, Any]:
    """Return the attributes of a trial that is created by the worker who trains it."""
    return {Attr.WORKER: {**worker, "take": 1}, Attr.LEASE: lease_of(1, seconds)}


def worker_of(trial: FrozenTrial) -> str | None:
    """Return host and process of the worker that a trial names, for people; None where it names none."""
    worker = trial.user_attrs.get(Attr.WORKER) or {}
    return f"{worker['host']}:{worker['pid']}" if worker else None


def is_of(trial: FrozenTrial, worker: Worker) -> bool:
    """Return whether a trial names a worker as the one who has it, or had it when it ended."""
    named = trial.user_attrs.get(Attr.WORKER) or {}
    return {name: named.get(name) for name in worker} == dict(worker)


def take(study: optuna.Study, waiting: Iterable[FrozenTrial], worker: Worker, seconds: float = SECONDS) -> Lease | None:
    """Take the first of some waiting trials that no other worker takes."""
    for trial in waiting:
        times = _lease(trial).get("take", 0) + 1
        holder = {**worker, "take": times}
        taken = {Attr.WORKER: holder, Attr.LEASE: lease_of(times, seconds)}

        def waits(state: TrialState, attrs: Mapping[str, Any], times: int = times) -> bool:
            return state == TrialState.WAITING and (attrs.get(Attr.LEASE) or {}).get("take", 0) < times

        if change(study._storage, trial._trial_id, waits, attrs=taken, state=TrialState.RUNNING):
            return Lease(study, trial, holder, seconds)
    return None


def _lease(trial: FrozenTrial) -> Mapping[str, Any]:
    return trial.user_attrs.get(Attr.LEASE) or {}


# --- who is alive ------------------------------------------------------------------------------------


def this_worker() -> dict[str, Any]:
    """Return what names this process, on this machine and after its number is used again."""
    import psutil

    process = psutil.Process()
    return {"host": platform.node(), "pid": process.pid, "started": process.create_time(), **_where_numbers_hold()}


def _where_numbers_hold() -> dict[str, str | None]:
    """Return what tells apart the places in which a process's number means something: machines, their starts, containers.

    Machines and containers may have the same host name. A system that does not say it has None.
    """
    boot = pids = None
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with suppress(OSError):
        pids = os.readlink("/proc/self/ns/pid")
    return {"boot": boot, "pids": pids}


def _has_numbers_of_here(worker: Worker) -> bool:
    """Return whether a worker's number is one of this place; older versions wrote the host's name alone."""
    here = {"host": platform.node(), **_where_numbers_hold()}
    return all(worker[name] == value for name, value in here.items() if name in worker)


def is_dead(worker: Worker | None) -> bool:
    """Return whether a worker of this machine is certainly gone; of one elsewhere nothing is known.

    Elsewhere is another container of this machine, too, and this machine before it was started again.
    """
    import psutil

    if not worker or "host" not in worker or not _has_numbers_of_here(worker):
        return False
    try:
        process = psutil.Process(int(worker["pid"]))
        # Clocks that are set in between move a process's start a little.
        return process.status() == psutil.STATUS_ZOMBIE or abs(process.create_time() - float(worker["started"])) > 2.0
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


def may_be_gone(worker: Worker | None) -> bool:
    """Return whether a worker has this host's name and nothing else is known of it: only its lease can tell.

    It may have been here before the machine, or the container, was started again.
    """
    return worker is not None and worker.get("host") == platform.node() and not _has_numbers_of_here(worker)


def any_may_be_gone(study: optuna.Study) -> bool:
    """Return whether a trial is with a worker that may be gone without anybody knowing."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return any(may_be_gone(trial.user_attrs.get(Attr.WORKER)) for trial in running)


# --- taking a trial away -----------------------------------------------------------------------------


def take_back(study: optuna.Study) -> list[int]:
    """Take the trials of dead workers of this machine away at once, and return their numbers."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    dead = [trial for trial in running if is_dead(trial.user_attrs.get(Attr.WORKER))]
    return [trial.number for trial in dead if take_away(study._storage, trial) is not None]


def take_away(storage: BaseStorage, trial: FrozenTrial) -> str | None:
    """Take a trial from a worker that does not renew its lease, as the trial was read.

    It goes back into the queue; one with which ``DEATHS`` workers died before they finished another epoch fails.

    Returns:
        ``waiting`` or ``failed``; None where its worker came back, or somebody else was first.
    """
    began, before = _lease(trial).get("began", 0), _deaths(trial)
    count = before["count"] + 1 if began <= before["began"] else 1
    written: dict[str, Any] = {
        "attrs": {Attr.DEATHS: {"count": count, "began": began}, Attr.WORKER: None},
        "state": TrialState.WAITING,
    }
    if count >= DEATHS:
        reason = f"{count} workers died while they trained it"
        written = {
            "attrs": {**written["attrs"], Attr.OUTCOME: "failed", Attr.REASON: reason},
            "notes": {f"constraints:{ERROR_CONSTRAINT}": 2.0},
            "state": TrialState.PRUNED,
        }
        del written["attrs"][Attr.WORKER]
    names = (Attr.WORKER, Attr.LEASE)

    def as_read(state: TrialState, attrs: Mapping[str, Any]) -> bool:
        return state == TrialState.RUNNING and all(attrs.get(n) == trial.user_attrs.get(n) for n in names)

    if not change(storage, trial._trial_id, as_read, **written):
        return None
    return "failed" if count >= DEATHS else "waiting"


def _deaths(trial: FrozenTrial) -> Mapping[str, int]:
    kept = trial.user_attrs.get(Attr.DEATHS) or 0
    return {"count": kept, "began": 0} if isinstance(kept, int) else kept  # A number alone until 0.1.


def _held(study: optuna.Study) -> list[FrozenTrial]:
    """Return the running trials with what says who has them."""
    backend = backend_of(study._storage)
    if isinstance(backend, WholeTrials):
        return backend.running(study._study_id, (Attr.WORKER, Attr.LEASE, Attr.DEATHS))
    return study._storage.get_all_trials(study._study_id, deepcopy=False, states=(TrialState.RUNNING,))


class Watch:
    """Sees which leases are not renewed, by the clock of this process alone."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._silent: dict[int, tuple[Any, float]] = {}
        self._looked: float | None = None

    def stale(self, running: Iterable[FrozenTrial]) -> list[FrozenTrial]:
        """Return the trials whose leases have run out, of all that run at this moment."""
        now = self.clock()
        passed = 0.0 if self._looked is None else now - self._looked
        self._looked = now
        found, seen = [], {}
        for trial in running:
            lease = _lease(trial)
            if "seconds" not in lease:
                continue
            mark = trial.user_attrs.get(Attr.WORKER), lease["beat"]
            before, silent = self._silent.get(trial._trial_id, (None, 0.0))
            # While this process slept, or the storage was away, nobody's renewal could be seen.
            silent = silent + min(passed, 2 * lease["seconds"] / RENEWALS) if before == mark else 0.0
            seen[trial._trial_id] = mark, silent
            if silent >= lease["seconds"]:
                found.append(trial)
        self._silent = seen
        return found


# --- in the background -------------------------------------------------------------------------------


class Pulse:
    """Renews a worker's lease and takes trials away from workers that do not, in a thread of its own.

    Args:
        study: Optuna's.
        seconds: how long a lease holds.
        take_away: takes a trial from a worker that gave no sign of life, and says what became of it.
    """

    def __init__(
        self,
        study: optuna.Study,
        seconds: float = SECONDS,
        take_away: Callable[[BaseStorage, FrozenTrial], str | None] = take_away,
    ) -> None:
        self.study, self.seconds, self.take_away = study, seconds, take_away
        self.lost, self._over = threading.Event(), threading.Event()
        self._lock, self._watch = threading.Lock(), Watch()
        self._lease: Lease | None = None
        self._beat, self._at = 0, (0, 0)
        self._ahead: float | None = None
        self._taken: queue.SimpleQueue[tuple[FrozenTrial, str]] = queue.SimpleQueue()

    def __enter__(self) -> Pulse:
        self._over.clear()
        self._thread = threading.Thread(target=self._run, name="archtuna-pulse", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(timeout=min(5.0, self.seconds))

    @contextmanager
    def holding(self, lease: Lease) -> Iterator[None]:
        """Keep a lease alive inside; ``lost`` is set where it is lost all the same."""
        with self._lock:
            self.lost.clear()
            self._lease, self._at = lease, (0, 0)
        try:
            yield
        finally:
            with self._lock:
                self._lease = None

    def began(self, epoch: int) -> None:
        """Take note, and tell the others at once, that the trial goes on after an epoch."""
        self._at = epoch, epoch
        self._renew()

    def trained(self, epoch: int) -> None:
        """Take note that an epoch was trained; the next renewal tells it."""
        self._at = self._at[0], epoch

    def taken(self) -> Iterator[tuple[FrozenTrial, str]]:
        """Yield the trials that were taken away since the last call, and what became of each."""
        while not self._taken.empty():
            yield self._taken.get()

    def _run(self) -> None:
        failing = False
        while not self._over.wait(self.seconds / RENEWALS):
            try:
                self._renew()
                self._look_around()
                failing = False
            except storage_errors() as error:
                # The next time is soon; whoever needs the storage says that it is away.
                log.debug("the storage is away: %s", explain(error))
            except Exception as error:
                # Such as a journal file on a network disk. Without this thread the trial would be trained on and lost.
                if not failing:
                    log.warning("leases could not be looked after, which is tried again: %s", explain(error))
                failing = True
        self.study._storage.remove_session()

    def _renew(self) -> None:
        with self._lock:
            lease, self._beat = self._lease, self._beat + 1
            if lease is None:
                return
            if self._ahead is None:
                self._ahead = clock_of(self.study._storage) - time.time()
            try:
                lease.renew(self._beat, *self._at, at=time.time() + self._ahead)
            except LeaseLost:
                self.lost.set()

    def _look_around(self) -> None:
        for trial in self._watch.stale(_held(self.study)):
            became = self.take_away(self.study._storage, trial)
            if became is not None:
                self._taken.put((trial, became))
