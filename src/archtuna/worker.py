"""One worker of a search: propose, evaluate, record, keep, until there is nothing left to do.

Killed at any moment, it loses nothing but the epochs of the trial that it was in, which the next start takes up again.

``python -m archtuna.worker`` is one worker of several. It reads what to do from the first line of its standard input, and
ends when that closes; it writes events to its standard output, one JSON object a line. The storage's URL comes through the
environment, because an argument would show in the list of processes.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import pickle
import platform
import signal
import statistics
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from archtuna.errors import ArchtunaError, DataError, ShapeError, StudyError, TrialError
from archtuna.evaluate import Evaluator, Progress, TrainEvaluator, evaluator_of
from archtuna.ledger import recorded
from archtuna.objective import values_of
from archtuna.proposer import (
    Exhausted,
    GaveWay,
    Proposal,
    Proposer,
    Refused,
    pop_waiting,
    set_constraint,
    tell,
)
from archtuna.registry import import_blocks
from archtuna.rungs import RungTable, Stopped, curve_of, record_stopped
from archtuna.sampler import make_sampler, seed_of
from archtuna.schedule import Decision, decide
from archtuna.siblings import Found, found_elsewhere, register
from archtuna.storage import (
    ERROR_CONSTRAINT,
    Attr,
    default_url,
    explain,
    storage_errors,
    storage_errors_named,
    with_retries,
)
from archtuna.study import NEAR, Study

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

    from archtuna.data import Data, Split
    from archtuna.space import Candidate

log = logging.getLogger("archtuna")

SAME_FAILURES = 3
DEATHS = 3
FIT_SHARE = 0.75
"""A trial is not begun when less than this share of the median trial's time is left."""

Event = dict[str, Any]
OnEvent = Callable[[Event], None]


@dataclass(frozen=True)
class Orders:
    """What a worker is told, as plain data.

    Attributes:
        trials: evaluations that the study is to reach, over all workers and starts, or None.
        deadline: seconds since the epoch after which no trial begins, or None.
        grace: seconds after the deadline in which running trials may end.
        index: of this worker, from 0.
        workers: how many there are.
        started: trials that the study had when the search started; another start draws other random numbers.
        near: checkpoints kept behind the front.
        device: where to train, or None to pick.
    """

    trials: int | None = None
    deadline: float | None = None
    grace: float = 30.0
    index: int = 0
    workers: int = 1
    started: int = 0
    near: int = NEAR
    device: str | None = None


# --- who is alive ------------------------------------------------------------------------------------


def this_worker() -> dict[str, Any]:
    """Return what names this process, on this machine and after its number is used again."""
    import psutil

    process = psutil.Process()
    return {"host": platform.node(), "pid": process.pid, "started": process.create_time()}


def is_dead(worker: Mapping[str, Any] | None) -> bool:
    """Return whether a worker of this machine is certainly gone; of one elsewhere nothing is known."""
    import psutil

    if not worker or worker.get("host") != platform.node():
        return False
    try:
        process = psutil.Process(int(worker["pid"]))
        # Clocks that are set in between move a process's start a little.
        return process.status() == psutil.STATUS_ZOMBIE or abs(process.create_time() - float(worker["started"])) > 2.0
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


def take_back(study: Study) -> list[int]:
    """Hand the trials of dead workers of this machine back to be taken up again, and return their numbers.

    A trial that was with ``DEATHS`` workers when they died is not tried again: it fails.
    """
    storage, numbers = study.optuna._storage, []
    # Two processes that did this at once could hand a trial back that a third has taken up in between.
    with FileLock(study.folder / ".take-back.lock", timeout=60):
        for trial in study.optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if not is_dead(trial.user_attrs.get(Attr.WORKER)):
                continue
            numbers.append(trial.number)
            deaths = trial.user_attrs.get(Attr.DEATHS, 0) + 1
            storage.set_trial_user_attr(trial._trial_id, Attr.DEATHS, deaths)
            if deaths >= DEATHS:
                _fail(study, trial, f"{deaths} workers died while they trained it")
            else:
                hand_back(study, trial._trial_id)
    return numbers


def hand_back(study: Study, trial_id: int) -> None:
    """Put a trial back into the queue; the next worker that is free takes it up."""
    storage = study.optuna._storage
    storage.set_trial_user_attr(trial_id, Attr.WORKER, None)
    storage.set_trial_state_values(trial_id, TrialState.WAITING)


def _fail(study: Study, trial: FrozenTrial, reason: str) -> None:
    """Record that a network cannot be trained, in the way that samplers learn from."""
    storage = study.optuna._storage
    with contextlib.suppress(UpdateFinishedTrialError):  # An attempt before this one arrived after all.
        storage.set_trial_user_attr(trial._trial_id, Attr.OUTCOME, "failed")
        storage.set_trial_user_attr(trial._trial_id, Attr.REASON, reason)
        set_constraint(study.optuna, trial, ERROR_CONSTRAINT, 2.0)
        tell(study.optuna, trial, TrialState.PRUNED)


# --- when to begin another ---------------------------------------------------------------------------


def is_admitted(before: int, target: int | None) -> bool:
    """Return whether a trial is among the first ``target`` that count.

    Trial numbers are unique whatever the storage, so workers that ask this agree without a lock and the total is exact.

    Args:
        before: how many trials that count have a smaller number.
        target: how many evaluations are wanted, or None.
    """
    return target is None or before < target


def is_reached(wanted: int, waiting: int, target: int | None) -> bool:
    """Return whether no trial is left to begin: all that are wanted are done or with a worker.

    Args:
        wanted: how many trials count.
        waiting: how many of them wait for a worker.
        target: how many evaluations are wanted, or None.
    """
    return target is not None and not waiting and wanted >= target


def has_time(now: float, deadline: float | None, seconds: Sequence[float]) -> bool:
    """Return whether another trial may begin: the deadline is not past, and is not clearly too near.

    Args:
        now, deadline: in seconds on one clock.
        seconds: how long the study's trials took.
    """
    if deadline is None:
        return True
    needed = FIT_SHARE * statistics.median(seconds) if seconds else 0.0
    return now < deadline and deadline - now >= needed


class Interrupted(BaseException):
    """Ends the evaluation of a trial that is to be handed back; no ``except Exception`` of a user's code holds it up."""


class Stop:
    """Whether a stop was asked for, by a signal or by ``request``."""

    def __init__(self) -> None:
        self.requested = False
        self._interruptible = False

    def request(self) -> None:
        self.requested = True

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let a signal raise ``Interrupted`` inside: for training, never for what writes to the storage."""
        self._interruptible = True
        try:
            if self.requested:
                raise Interrupted
            yield
        finally:
            self._interruptible = False

    @contextlib.contextmanager
    def on_signals(self, second: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Ask for a stop on SIGINT and SIGTERM; a second one calls ``second`` and kills the process at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(number: int, frame: Any) -> None:
            if self.requested:
                second()
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            self.requested = True
            if self._interruptible:
                raise Interrupted

        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def epochs_of(evaluator: Evaluator, candidate: Candidate, stop: Stop) -> Iterator[Progress]:
    """Yield the epochs of an evaluation; a stop that is asked for while one is computed raises ``Interrupted``.

    Raises:
        StudyError: there is none.
        TrialError: the candidate cannot be evaluated.
    """
    epochs, any_came = iter(evaluator.evaluate(candidate)), False
    while True:
        with stop.interruptible():
            progress = next(epochs, None)
        if progress is None:
            break
        any_came = True
        yield progress
    if not any_came:
        raise StudyError("the evaluator gives nothing", hint="it must return metrics, or yield them once per epoch")


def told_of(progress: Progress) -> Event:
    """Return what is told of an epoch, whoever trains."""
    told = {name: getattr(progress, name) for name in ("epoch", "epochs", "seconds")}
    return {**told, "metrics": dict(progress.metrics)}


# --- one worker --------------------------------------------------------------------------------------


@dataclass
class Worker:
    """One process in the loop.

    Attributes:
        study: what to work on.
        evaluator: how candidates get their values.
        orders: what to do.
        emit: told of each event.
        stop: whether a stop was asked for.
        sampler: which draws; see ``make_sampler``.
    """

    study: Study
    evaluator: Evaluator
    orders: Orders
    emit: OnEvent
    stop: Stop
    sampler: str | BaseSampler | None = None
    _failures: list[str] = field(default_factory=list, init=False)
    _front: list[int] = field(default_factory=list, init=False)
    _unsure: bool = field(default=True, init=False)
    _saved: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.me, self.ledger = this_worker(), self.study.ledger
        self.ledger.refresh()
        self._front = self.study.front_numbers()
        self._rungs = RungTable(self.study.objectives)
        self.proposer = Proposer(
            ledger=self.ledger,
            space=self.study.space(),
            cost=self.evaluator.costs,
            worker=self.me,
            limits=self.study.limits,
            seed=seed_of(self.study.spec.seed, self.orders.index, self.orders.started + 1),
            on_refused=self._tell_refused,
        )
        self.study.optuna.sampler = sampler_for(self.proposer, self.study, self.sampler, self.orders)
        register(self.study, self.evaluator)
        self.elsewhere = found_elsewhere(self.study, self.evaluator)

    def run(self) -> str:
        """Work until there is nothing left to do, and return why: ``trials``, ``time``, ``exhausted`` or ``interrupted``.

        Raises:
            StudyError: the limits refuse everything, one error ends trial after trial, or the storage stayed away.
        """
        with storage_errors_named():
            while True:
                ended = with_retries(self._ended, what="read the study") or self._next()
                if ended:
                    return ended

    def _ended(self) -> str | None:
        """Read the study, tell what is new in it, and return why no trial is to begin, or None."""
        self.ledger.refresh()
        self._tell_front()
        if self.stop.requested:
            return "interrupted"
        if not has_time(time.time(), self.orders.deadline, self.ledger.seconds):
            return "time"
        return "trials" if is_reached(self.ledger.wanted, self.ledger.counts["waiting"], self.orders.trials) else None

    def _next(self) -> str | None:
        """Do one trial; return why the loop ends, or None to go on."""
        try:
            trial, proposal = with_retries(self._begin, what="begin a trial")
        except Exhausted:
            return "exhausted"
        try:
            if not is_admitted(self.ledger.wanted_before(trial.number), self.orders.trials):
                self._leave(trial, proposal)
                # One that was counted before this may give way at the same moment, and then nobody else would go on. A
                # trial that waits stays in the queue, so it would be taken up for ever.
                return None if proposal else "trials"
            proposal = self._take_up(trial) if proposal is None else self._keep(trial, proposal)
            if proposal is not None:
                self._tell_trial(trial, proposal)
                self._evaluate(trial, proposal)
            return None
        except Exhausted as error:
            self._abandon(trial, str(error))
            return "exhausted"
        except Interrupted:
            with_retries(partial(hand_back, self.study, trial._trial_id), what=f"hand trial {trial.number} back")
            self.emit({"event": "handed-back", "number": trial.number})
            return "interrupted" if self.stop.requested else "time"
        except BaseException:
            self._rescue(trial)
            raise

    def _begin(self) -> tuple[FrozenTrial, Proposal | None]:
        """Take up a trial that waits, or create one that has its network from the start."""
        # A connection that broke just after a trial was made leaves one that this worker does not know to be its own.
        if self._unsure:
            self.ledger.refresh()
            for trial in self.ledger.opened("running"):
                if trial.user_attrs.get(Attr.WORKER) == self.me:
                    hand_back(self.study, trial._trial_id)
            self.ledger.refresh()
        self._unsure = True
        waiting = pop_waiting(self.study.optuna, self.ledger.opened("waiting"), self.me)
        proposal = None if waiting else self.proposer.propose()
        self.ledger.refresh()
        self._unsure = False
        return self.ledger.find(proposal.trial_id if proposal else waiting._trial_id), proposal  # type: ignore[union-attr]

    def _leave(self, trial: FrozenTrial, proposal: Proposal | None) -> None:
        """Give up a trial beyond the number that is wanted; one that waited stays in the queue."""
        if proposal is None:
            hand_back(self.study, trial._trial_id)
        else:
            self._abandon(trial, "one more than wanted")

    def _abandon(self, trial: FrozenTrial, reason: str, outcome: str = "duplicate", twin: int | None = None) -> None:
        """End a trial without an evaluation."""
        found = {Attr.OUTCOME: outcome, Attr.REASON: reason} | ({} if twin is None else {Attr.DUPLICATE_OF: twin})
        with contextlib.suppress(UpdateFinishedTrialError):  # An attempt before this one arrived after all.
            for key, value in found.items():
                self.study.optuna._storage.set_trial_user_attr(trial._trial_id, key, value)
            tell(self.study.optuna, trial, TrialState.FAIL)

    def _rescue(self, trial: FrozenTrial) -> None:
        """Leave no running trial behind when an error ends the worker; the error matters more than one in here."""
        try:
            present = self.study.optuna._storage.get_trial(trial._trial_id)
            if present.state == TrialState.RUNNING and Attr.EVALUATION in present.user_attrs:
                hand_back(self.study, trial._trial_id)
            elif present.state == TrialState.RUNNING:
                self._abandon(trial, "not begun")
        except Exception as error:
            log.warning("trial %d stays running: %s", trial.number, explain(error))

    # proposing

    def _keep(self, trial: FrozenTrial, proposal: Proposal) -> Proposal | None:
        """Return a proposal again, or None where an earlier trial has its network and this one gave way."""
        twin = self.proposer.twin_of(proposal, trial.number)
        if twin is None:
            return proposal
        self._give_way(trial, GaveWay(twin))
        return None

    def _take_up(self, trial: FrozenTrial) -> Proposal | None:
        """Return what a trial that waited is to evaluate, or None where it ended without an evaluation."""
        try:
            return self.proposer.take_up(trial)
        except GaveWay as error:
            self._give_way(trial, error)
        except Refused as error:
            self._abandon(trial, str(error), outcome="refused")
            self._tell_refused(trial.number, None, str(error), {})
        except storage_errors():
            # Half written, it fits no other draw: it is given up, and another trial begun.
            with_retries(partial(self._abandon, trial, "the storage was away"), what=f"give trial {trial.number} up")
        return None

    def _give_way(self, trial: FrozenTrial, error: GaveWay) -> None:
        give_up = partial(self._abandon, trial, str(error), twin=error.number)
        with_retries(give_up, what=f"give trial {trial.number} up")
        self.emit({"event": "duplicate", "number": trial.number, "of": error.number})

    def _tell_trial(self, trial: FrozenTrial, proposal: Proposal) -> None:
        architecture = proposal.candidate.architecture
        self.emit(
            {
                "event": "trial",
                "number": trial.number,
                "key": architecture.key,
                "costs": dict(proposal.costs),
                "decisions": dict(proposal.candidate.decisions),
                "epochs": proposal.candidate.recipe.epochs,
                "summary": summary_of(architecture),
            }
        )

    def _tell_refused(self, number: int, key: str | None, reason: str, costs: Mapping[str, float]) -> None:
        self.emit({"event": "refused", "number": number, "key": key, "reason": reason, "costs": dict(costs)})

    # evaluating

    def _evaluate(self, trial: FrozenTrial, proposal: Proposal) -> None:
        found = self.elsewhere.get(proposal.evaluation)
        if found is not None:
            return self._reuse(trial, proposal, found)
        try:
            progress = self._run(trial, proposal)
        except Stopped as stopped:
            self._failures.clear()
            self._record_stopped(trial, proposal, stopped)
        except (TrialError, ShapeError) as error:
            self._record_failure(trial, getattr(error, "reason", "shape"), error.message)
        except ArchtunaError:
            raise
        except Exception as error:
            self._record_error(trial, error)
        else:
            self._failures.clear()
            self._record(trial, proposal, progress)

    def _reuse(self, trial: FrozenTrial, proposal: Proposal, found: Found) -> None:
        """Record what another study of the storage found out."""
        self.emit({"event": "reused", "number": trial.number, "of": found.origin})
        self._record(trial, proposal, found.progress(proposal.candidate), {Attr.REUSED: found.origin})

    def _run(self, trial: FrozenTrial, proposal: Proposal) -> Progress:
        """Evaluate a candidate to its end, or raise Interrupted."""
        reports: dict[str, dict[str, float]] = {}
        for progress in epochs_of(self.evaluator, proposal.candidate, self.stop):
            self.emit({"event": "epoch", "number": trial.number, **told_of(progress)})
            if self._overdue() and progress.epoch < progress.epochs:
                raise Interrupted
            if progress.epoch in self.study.spec.schedule.rungs(progress.epochs):
                reports[str(progress.epoch)] = {name: float(progress.best[name]) for name in self._rungs.names}
                judge = partial(self._judge, trial, proposal, progress, reports)
                decision = with_retries(judge, what=f"report on trial {trial.number}")
                if decision.stop:
                    raise Stopped(decision, progress)
        return progress

    def _judge(
        self, trial: FrozenTrial, proposal: Proposal, progress: Progress, reports: Mapping[str, Mapping[str, float]]
    ) -> Decision:
        """Report a trial at a rung, and decide by what the study's others came to there whether it goes on."""
        self.study.optuna._storage.set_trial_user_attr(trial._trial_id, Attr.RUNGS, dict(reports))
        self.ledger.refresh()
        recipe, level = proposal.candidate.recipe, len(reports) - 1
        peers = self._rungs.peers(self.ledger.trials, recipe.epochs, level, besides=trial.number)
        return decide(self._rungs.report(progress.epoch, progress.best, proposal.costs, float(recipe.lr or 1.0)), peers)

    def _overdue(self) -> bool:
        deadline = self.orders.deadline
        return self.stop.requested or (deadline is not None and time.time() > deadline + self.orders.grace)

    # recording

    def _record(
        self, trial: FrozenTrial, proposal: Proposal, progress: Progress, attrs: Mapping[str, Any] | None = None
    ) -> None:
        values = values_of(self.study.objectives, {**proposal.costs, **progress.best})
        number, named = trial.number, dict(zip(self.study.spec.objectives, values, strict=True))
        # Before the trial counts as complete: a kill between the two leaves a trial to be trained again, not a front
        # without weights.
        what = f"record trial {number}"
        deserves = partial(self.study.deserves_checkpoint, number, values, self.orders.near)
        if progress.save and with_retries(deserves, what=what):
            self._saved = True
            progress.save(
                self.study.checkpoint_path(number), {"study": self.study.name, "number": number, "values": named}
            )
        attrs = {**(attrs or {}), Attr.RESULT: recorded(progress)}
        with_retries(partial(self._write_result, trial, attrs, values), what=what)
        self.emit({"event": "complete", "number": number, "values": named, "seconds": progress.seconds})

    def _record_stopped(self, trial: FrozenTrial, proposal: Proposal, stopped: Stopped) -> None:
        progress, number = stopped.progress, trial.number
        values = values_of(self.study.objectives, {**proposal.costs, **progress.best})
        write = partial(record_stopped, self.study.optuna, trial, stopped, values)
        with_retries(write, what=f"record trial {number}")
        self.emit(
            {
                "event": "stopped",
                "number": number,
                "epoch": progress.epoch,
                "epochs": progress.epochs,
                "reason": stopped.decision.reason,
            }
        )

    def _write_result(self, trial: FrozenTrial, attrs: Mapping[str, Any], values: Sequence[float]) -> None:
        with contextlib.suppress(UpdateFinishedTrialError):  # An attempt before this one arrived after all.
            if trial.user_attrs.get(Attr.OUTCOME) is not None:  # A worker died while it recorded another one.
                attrs = {Attr.OUTCOME: None, **attrs}
            for key, value in attrs.items():
                self.study.optuna._storage.set_trial_user_attr(trial._trial_id, key, value)
            tell(self.study.optuna, trial, TrialState.COMPLETE, values)

    def _tell_front(self) -> None:
        """Tell the front where it is another than it was, and delete what has fallen far behind it."""
        front = self.study.front_numbers()
        is_new = front != self._front
        removed = self.study.sweep(self.orders.near, read=False) if is_new or self._saved else []
        self._front, self._saved = front, False
        if is_new:
            self.emit({"event": "front", "numbers": front, "hypervolume": self.study.hypervolume(read=False)})
        if removed:
            self.emit({"event": "checkpoints", "removed": removed, **self.study.disk(self.orders.near)})

    def _record_failure(self, trial: FrozenTrial, reason: str, message: str) -> None:
        """A network that cannot be trained: samplers learn to avoid its like."""
        text = f"{reason}: {message}"
        with_retries(partial(_fail, self.study, trial, text), what=f"record trial {trial.number}")
        self.emit({"event": "failed", "number": trial.number, "reason": text})

    def _record_error(self, trial: FrozenTrial, error: Exception) -> None:
        """An error in somebody's code, which says nothing of the network: no sampler sees it."""
        text, reason = "".join(traceback.format_exception(error)), f"{type(error).__name__}: {error}"

        def write() -> None:
            with contextlib.suppress(UpdateFinishedTrialError):
                self.study.optuna._storage.set_trial_user_attr(trial._trial_id, Attr.TRACEBACK, text)
            self._abandon(trial, reason, outcome="failed")

        with_retries(write, what=f"record trial {trial.number}")
        self.emit({"event": "failed", "number": trial.number, "reason": reason, "traceback": text})
        self._failures.append(_place_of(error))
        if self._failures[-SAME_FAILURES:] == [self._failures[-1]] * SAME_FAILURES:
            raise StudyError(
                f"{SAME_FAILURES} trials in a row failed at the same place: {reason} ({self._failures[-1]})",
                hint=f"the traceback is kept with trial {trial.number}",
            )


def _place_of(error: BaseException) -> str:
    """Return what makes two tracebacks the same: the error's class and the places that it went through."""
    frames = traceback.extract_tb(error.__traceback__)
    return " < ".join([type(error).__name__, *(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames))])


def summary_of(architecture: Any) -> str:
    """Return a network in a few words: ``18 blocks, 64x64 pixels``."""
    height, width = architecture.input_size
    return f"{sum(1 for _ in architecture.units())} blocks, {height}x{width} pixels"


def sampler_for(proposer: Proposer, study: Study, given: str | BaseSampler | None, orders: Orders) -> BaseSampler:
    """Return a worker's sampler, seeded for this worker and this start."""
    seed = seed_of(study.spec.seed, orders.index, orders.started)
    sampler = make_sampler(
        given,
        objectives=len(study.objectives),
        seed=seed,
        network=partial(proposer.point, study.objectives),
        reference=[study.spec.reference[o.name] for o in study.objectives],
        curve=partial(curve_of, study.objectives),
    )
    if orders.index and given is not None and not isinstance(given, str):
        sampler.reseed_rng()  # Copies of one sampler would all draw the same.
    return sampler


def evaluator_for(study: Study, data: Data, split: Split, orders: Orders, given: Any) -> Evaluator:
    if given is not None:
        return evaluator_of(given, study.objectives, len(data.classes))
    return TrainEvaluator(
        data,
        split,
        objectives=study.objectives,
        fraction=study.spec.fraction,
        fit=study.spec.data["fit"],
        via=study.space().largest_input_size(),
        seed=study.spec.seed or 0,
        device=orders.device,
    )


# --- one of several workers --------------------------------------------------------------------------


class _EventLog(logging.Handler):
    """Sends what the library logs to the process that watches the workers."""

    def __init__(self, emit: OnEvent) -> None:
        super().__init__(logging.INFO)
        self.send = emit

    def emit(self, record: logging.LogRecord) -> None:
        self.send({"event": "log", "level": record.levelno, "message": record.getMessage()})


def main() -> int:
    """Be one of several workers."""
    return serve(_work)


def serve(work: Callable[[Mapping[str, Any], OnEvent, Stop], str]) -> int:
    """Be told by standard input what to do, do it, and write events and why it ended to standard output."""
    message = json.loads(sys.stdin.readline())
    # Whatever else writes to standard output, such as a print in somebody's block, must not fall among the events.
    stream = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    lock = threading.Lock()

    def emit(event: Event) -> None:
        with lock, contextlib.suppress(BrokenPipeError):  # Nobody is left to be told; the end of stdin stops the work.
            stream.write(json.dumps(event) + "\n")
            stream.flush()

    log.addHandler(_EventLog(emit))
    log.setLevel(logging.INFO)
    log.propagate = False
    stop = Stop()
    with stop.on_signals():
        threading.Thread(target=_end_with_parent, daemon=True).start()
        try:
            emit({"event": "done", "reason": work(message, emit, stop)})
        except ArchtunaError as error:
            emit({"event": "error", "message": str(error)})
        except Interrupted:
            emit({"event": "done", "reason": "interrupted"})
    return 0


def _end_with_parent(grace: float = 20.0) -> None:
    """Stop when standard input closes, which it does however the watching process ends."""
    # Not through sys.stdin: a thread that waits in there when the interpreter ends is a fatal error.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace)
    os._exit(1)


def _work(message: Mapping[str, Any], emit: OnEvent, stop: Stop) -> str:
    with opened(message) as (study, evaluator, orders):
        sampler = message["sampler"]
        if isinstance(sampler, dict):
            sampler = pickle.loads(base64.b64decode(sampler["pickle"]))
        return Worker(study, evaluator, orders, emit, stop, sampler).run()


@contextlib.contextmanager
def opened(message: Mapping[str, Any]) -> Iterator[tuple[Study, Evaluator, Orders]]:
    """Open what a worker was told to work on."""
    sys.path[:0] = [path for path in message["path"] if path not in sys.path]
    import_blocks(message["imports"])
    orders = Orders(**message["orders"])
    with storage_errors_named(default_url()), Study.open(message["run"]) as study:
        data = study.data(message.get("data"))
        if data.fingerprint != study.spec.data["fingerprint"]:
            raise DataError(f"the pictures of {data.source} changed since the study was made")
        yield study, evaluator_for(study, data, study.split(data), _with_device(orders), message["evaluator"]), orders


def _with_device(orders: Orders) -> Orders:
    """Give each worker a graphics card of its own where there are several and none was named."""
    import torch

    if orders.device is not None or torch.cuda.device_count() < 2:
        return orders
    return replace(orders, device=f"cuda:{orders.index % torch.cuda.device_count()}")


if __name__ == "__main__":
    sys.exit(main())
