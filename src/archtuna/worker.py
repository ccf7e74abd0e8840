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

import optuna
from filelock import FileLock
from optuna.trial import TrialState

from archtuna.errors import ArchtunaError, DataError, ShapeError, StudyError, TrialError
from archtuna.evaluate import Evaluator, Progress, TrainEvaluator, evaluator_of
from archtuna.registry import import_blocks
from archtuna.rungs import RungTable, Stopped, record_stopped
from archtuna.sampler import Exhausted, GaveWay, Proposal, Proposer, Refused, ask, make_sampler, seed_of
from archtuna.schedule import Decision, decide
from archtuna.storage import (
    ERROR_CONSTRAINT,
    Attr,
    default_url,
    explain,
    storage_errors,
    storage_errors_named,
    with_retries,
)
from archtuna.study import NEAR, Study, state_of

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

    from archtuna.data import Data, Split

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
                _fail(study, trial._trial_id, f"{deaths} workers died while they trained it")
            else:
                hand_back(study, trial._trial_id)
    return numbers


def hand_back(study: Study, trial_id: int) -> None:
    """Put a trial back into the queue; the next worker that is free takes it up."""
    storage = study.optuna._storage
    storage.set_trial_user_attr(trial_id, Attr.WORKER, None)
    storage.set_trial_state_values(trial_id, TrialState.WAITING)


def _fail(study: Study, trial_id: int, reason: str) -> None:
    """Record that a network cannot be trained, in the way that samplers learn from."""
    storage = study.optuna._storage
    storage.set_trial_user_attr(trial_id, Attr.OUTCOME, "failed")
    storage.set_trial_user_attr(trial_id, Attr.REASON, reason)
    trial = optuna.Trial(study.optuna, trial_id)
    if ERROR_CONSTRAINT not in trial.constraints:
        trial.set_constraint(ERROR_CONSTRAINT, 2.0)
    study.optuna.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)


# --- when to begin another ---------------------------------------------------------------------------


def is_admitted(number: int, states: Mapping[int, str], target: int | None) -> bool:
    """Return whether a trial is among the first ``target`` that count.

    Trial numbers are unique whatever the storage, so workers that ask this agree without a lock and the total is exact.

    Args:
        number: of the trial.
        states: of every trial, by number.
        target: how many evaluations are wanted, or None.
    """
    if target is None:
        return True
    return sum(1 for other, state in states.items() if other < number and _counts(state)) < target


def is_reached(states: Mapping[int, str], target: int | None) -> bool:
    """Return whether no trial is left to begin: all that are wanted are done or with a worker."""
    if target is None or "waiting" in states.values():
        return False
    return sum(map(_counts, states.values())) >= target


def _counts(state: str) -> bool:
    return state not in ("refused", "duplicate")


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


# --- one worker --------------------------------------------------------------------------------------


@dataclass
class Worker:
    """One process in the loop.

    Attributes:
        study: with the sampler of this worker set.
        evaluator: how candidates get their values.
        orders: what to do.
        emit: told of each event.
        stop: whether a stop was asked for.
    """

    study: Study
    evaluator: Evaluator
    orders: Orders
    emit: OnEvent
    stop: Stop
    _failures: list[str] = field(default_factory=list, init=False)
    _front: list[int] = field(default_factory=list, init=False)
    _unsure: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        self.me = this_worker()
        self._front = [trial.number for trial in self.study.front()]
        self._rungs = RungTable(self.study.objectives)
        self.proposer = Proposer(
            study=self.study.optuna,
            space=self.study.space(),
            cost=self.evaluator.costs,
            objectives=self.study.objectives,
            limits=self.study.limits,
            seed=seed_of(self.study.spec.seed, self.orders.index, self.orders.started + 1),
            on_refused=self._tell_refused,
        )

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
        if self.stop.requested:
            return "interrupted"
        trials = self._trials()
        seconds = [t.user_attrs[Attr.SECONDS] for t in trials if Attr.SECONDS in t.user_attrs]
        if not has_time(time.time(), self.orders.deadline, seconds):
            return "time"
        return "trials" if is_reached(_states(trials), self.orders.trials) else None

    def _trials(self) -> list[FrozenTrial]:
        return self.study.optuna.get_trials(deepcopy=False)

    def _next(self) -> str | None:
        """Do one trial; return why the loop ends, or None to go on."""
        trial = with_retries(self._ask, what="begin a trial")
        try:
            if not is_admitted(trial.number, _states(self._trials()), self.orders.trials):
                self._leave(trial)
                return "trials"
            proposal = self._propose(trial)
            if proposal is not None:
                self._evaluate(proposal)
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

    def _ask(self) -> optuna.Trial:
        # A connection that broke just after a trial was made leaves one that this worker does not know to be its own.
        if self._unsure:
            for trial in self._trials():
                if trial.state == TrialState.RUNNING and trial.user_attrs.get(Attr.WORKER) == self.me:
                    hand_back(self.study, trial._trial_id)
        self._unsure = True
        asked = ask(self.study.optuna, self.me)
        self._unsure = False
        return asked

    def _leave(self, trial: optuna.Trial) -> None:
        """Give up a trial beyond the number that is wanted; one that waited stays in the queue."""
        if trial.user_attrs.get(Attr.DECISIONS) or self._is_queued(trial):
            hand_back(self.study, trial._trial_id)
        else:
            self._abandon(trial, "one more than wanted")

    def _is_queued(self, trial: optuna.Trial) -> bool:
        return "fixed_params" in self.study.optuna._storage.get_trial_system_attrs(trial._trial_id)

    def _abandon(self, trial: optuna.Trial, reason: str, outcome: str = "duplicate", twin: int | None = None) -> None:
        """End a trial without an evaluation."""
        trial.set_user_attr(Attr.OUTCOME, outcome)
        trial.set_user_attr(Attr.REASON, reason)
        if twin is not None:
            trial.set_user_attr(Attr.DUPLICATE_OF, twin)
        self.study.optuna.tell(trial, state=TrialState.FAIL, skip_if_finished=True)

    def _rescue(self, trial: optuna.Trial) -> None:
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

    def _propose(self, trial: optuna.Trial) -> Proposal | None:
        """Return what to evaluate, or None when the trial ended without an evaluation."""
        try:
            proposal = self.proposer.propose(trial)
        except GaveWay as error:
            self._abandon(trial, str(error), twin=error.number)
            self.emit({"event": "duplicate", "number": trial.number, "of": error.number})
            return None
        except Refused as error:
            self._abandon(trial, str(error), outcome="refused")
            self._tell_refused(trial.number, None, str(error), {})
            return None
        except storage_errors():
            # Half written, it fits no other draw: it is given up, and another trial begun.
            with_retries(partial(self._abandon, trial, "the storage was away"), what=f"give trial {trial.number} up")
            return None
        architecture = proposal.candidate.architecture
        self.emit(
            {
                "event": "trial",
                "number": proposal.number,
                "key": architecture.key,
                "costs": dict(proposal.costs),
                "decisions": dict(proposal.candidate.decisions),
                "epochs": proposal.candidate.recipe.epochs,
                "summary": summary_of(architecture),
            }
        )
        return proposal

    def _tell_refused(self, number: int, key: str | None, reason: str, costs: Mapping[str, float]) -> None:
        self.emit({"event": "refused", "number": number, "key": key, "reason": reason, "costs": dict(costs)})

    # evaluating

    def _evaluate(self, proposal: Proposal) -> None:
        try:
            progress = self._run(proposal)
        except Stopped as stopped:
            self._failures.clear()
            self._record_stopped(proposal, stopped)
        except (TrialError, ShapeError) as error:
            self._record_failure(proposal, getattr(error, "reason", "shape"), error.message)
        except ArchtunaError:
            raise
        except Exception as error:
            self._record_error(proposal, error)
        else:
            self._failures.clear()
            self._record(proposal, progress)

    def _run(self, proposal: Proposal) -> Progress:
        """Evaluate a candidate to its end, or raise Interrupted."""
        epochs = iter(self.evaluator.evaluate(proposal.candidate))
        last: Progress | None = None
        reports: dict[str, dict[str, float]] = {}
        while True:
            with self.stop.interruptible():
                progress = next(epochs, None)
            if progress is None:
                break
            last = progress
            self.emit(
                {
                    "event": "epoch",
                    "number": proposal.number,
                    "epoch": last.epoch,
                    "epochs": last.epochs,
                    "metrics": dict(last.metrics),
                    "seconds": last.seconds,
                }
            )
            if self._overdue() and last.epoch < last.epochs:
                raise Interrupted
            if last.epoch in self.study.spec.schedule.rungs(last.epochs):
                reports[str(last.epoch)] = {name: float(last.best[name]) for name in self._rungs.names}
                judge = partial(self._judge, proposal, last, reports)
                decision = with_retries(judge, what=f"report on trial {proposal.number}")
                if decision.stop:
                    raise Stopped(decision, last)
        if last is None:
            raise StudyError("the evaluator gives nothing", hint="it must return metrics, or yield them once per epoch")
        return last

    def _judge(self, proposal: Proposal, progress: Progress, reports: Mapping[str, Mapping[str, float]]) -> Decision:
        """Report a trial at a rung, and decide by what the study's others came to there whether it goes on."""
        self.study.optuna._storage.set_trial_user_attr(proposal.trial._trial_id, Attr.RUNGS, dict(reports))
        recipe, level = proposal.candidate.recipe, len(reports) - 1
        peers = self._rungs.peers(self._trials(), recipe.epochs, level, besides=proposal.number)
        return decide(self._rungs.report(progress.epoch, progress.best, proposal.costs, float(recipe.lr or 1.0)), peers)

    def _overdue(self) -> bool:
        deadline = self.orders.deadline
        return self.stop.requested or (deadline is not None and time.time() > deadline + self.orders.grace)

    # recording

    def _record(self, proposal: Proposal, progress: Progress) -> None:
        known = {**proposal.costs, **progress.best}
        values = [float(known[o.name]) for o in self.study.objectives]
        number, named = proposal.number, dict(zip(self.study.spec.objectives, values, strict=True))
        # Before the trial counts as complete: a kill between the two leaves a trial to be trained again, not a front
        # without weights.
        what = f"record trial {number}"
        deserves = partial(self.study.deserves_checkpoint, number, values, self.orders.near)
        if progress.save and with_retries(deserves, what=what):
            progress.save(
                self.study.checkpoint_path(number), {"study": self.study.name, "number": number, "values": named}
            )
        with_retries(partial(self._write_result, proposal, progress, values), what=what)
        self.emit({"event": "complete", "number": number, "values": named, "seconds": progress.seconds})
        with_retries(self._tell_front, what="read the front")

    def _record_stopped(self, proposal: Proposal, stopped: Stopped) -> None:
        progress, number = stopped.progress, proposal.number
        known = {**proposal.costs, **progress.best}
        values = [float(known[o.name]) for o in self.study.objectives]
        write = partial(record_stopped, self.study.optuna, proposal.trial, stopped, values)
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

    def _write_result(self, proposal: Proposal, progress: Progress, values: Sequence[float]) -> None:
        storage, trial_id = self.study.optuna._storage, proposal.trial._trial_id
        present = storage.get_trial(trial_id)
        if present.state.is_finished():
            return  # An attempt before this one arrived, and only its answer was lost.
        if Attr.OUTCOME in present.user_attrs:
            storage.set_trial_user_attr(trial_id, Attr.OUTCOME, None)  # A worker died while it recorded another one.
        for key, value in (
            (Attr.METRICS, dict(progress.best)),
            (Attr.EPOCHS, {"trained": progress.epoch, "kept": progress.kept}),
            (Attr.SECONDS, progress.seconds),
        ):
            storage.set_trial_user_attr(trial_id, key, value)
        self.study.optuna.tell(proposal.trial, list(values), skip_if_finished=True)

    def _tell_front(self) -> None:
        removed = self.study.sweep(self.orders.near)
        front = [trial.number for trial in self.study.front()]
        if front != self._front:
            self._front = front
            self.emit({"event": "front", "numbers": front, "hypervolume": self.study.hypervolume()})
        if removed:
            self.emit({"event": "checkpoints", "removed": removed, **self.study.disk(self.orders.near)})

    def _record_failure(self, proposal: Proposal, reason: str, message: str) -> None:
        """A network that cannot be trained: samplers learn to avoid its like."""
        text = f"{reason}: {message}"
        with_retries(partial(_fail, self.study, proposal.trial._trial_id, text), what=f"record trial {proposal.number}")
        self.emit({"event": "failed", "number": proposal.number, "reason": text})

    def _record_error(self, proposal: Proposal, error: Exception) -> None:
        """An error in somebody's code, which says nothing of the network: no sampler sees it."""
        text, reason = "".join(traceback.format_exception(error)), f"{type(error).__name__}: {error}"

        def write() -> None:
            proposal.trial.set_user_attr(Attr.TRACEBACK, text)
            self._abandon(proposal.trial, reason, outcome="failed")

        with_retries(write, what=f"record trial {proposal.number}")
        self.emit({"event": "failed", "number": proposal.number, "reason": reason, "traceback": text})
        self._failures.append(_place_of(error))
        if self._failures[-SAME_FAILURES:] == [self._failures[-1]] * SAME_FAILURES:
            raise StudyError(
                f"{SAME_FAILURES} trials in a row failed at the same place: {reason} ({self._failures[-1]})",
                hint=f"the traceback is kept with trial {proposal.number}",
            )


def _states(trials: Sequence[FrozenTrial]) -> dict[int, str]:
    return {trial.number: state_of(trial) for trial in trials}


def _place_of(error: BaseException) -> str:
    """Return what makes two tracebacks the same: the error's class and the places that it went through."""
    frames = traceback.extract_tb(error.__traceback__)
    return " < ".join([type(error).__name__, *(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames))])


def summary_of(architecture: Any) -> str:
    """Return a network in a few words: ``18 blocks, 64x64 pixels``."""
    height, width = architecture.input_size
    return f"{sum(1 for _ in architecture.units())} blocks, {height}x{width} pixels"


def set_sampler(study: Study, sampler: str | BaseSampler | None, orders: Orders) -> None:
    seed = seed_of(study.spec.seed, orders.index, orders.started)
    study.optuna.sampler = make_sampler(sampler, objectives=len(study.objectives), seed=seed)
    if orders.index and sampler is not None and not isinstance(sampler, str):
        study.optuna.sampler.reseed_rng()  # Copies of one sampler would all draw the same.


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
            emit({"event": "done", "reason": _work(message, emit, stop)})
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
    sys.path[:0] = [path for path in message["path"] if path not in sys.path]
    import_blocks(message["imports"])
    orders = Orders(**message["orders"])
    with storage_errors_named(default_url()), Study.open(message["run"]) as study:
        data = study.data()
        if data.fingerprint != study.spec.data["fingerprint"]:
            raise DataError(f"the pictures of {data.source} changed since the study was made")
        sampler = message["sampler"]
        if isinstance(sampler, dict):
            sampler = pickle.loads(base64.b64decode(sampler["pickle"]))
        evaluator = evaluator_for(study, data, study.split(data), _with_device(orders), message["evaluator"])
        set_sampler(study, sampler, orders)
        return Worker(study, evaluator, orders, emit, stop).run()


def _with_device(orders: Orders) -> Orders:
    """Give each worker a graphics card of its own where there are several and none was named."""
    import torch

    if orders.device is not None or torch.cuda.device_count() < 2:
        return orders
    return replace(orders, device=f"cuda:{orders.index % torch.cuda.device_count()}")


if __name__ == "__main__":
    sys.exit(main())
