"""One worker of a search: propose, evaluate, record, keep, until there is nothing left to do.

It holds a lease on the trial that it is in, and leaves a point where the training can be taken up after each epoch. Killed at
any moment, it loses nothing but the epoch that it was in: another worker goes on with the same trial.
"""

from __future__ import annotations

import errno
import logging
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from archtuna.artifacts import Points
from archtuna.devices import seated, sharing
from archtuna.errors import (
    ArchtunaError,
    CheckpointError,
    ExportError,
    LatencyError,
    MetricError,
    ModelRefused,
    ShapeError,
    StorageAway,
    StudyError,
    TrialError,
)
from archtuna.evaluate import Evaluator, Progress, Resumable, TrainEvaluator, evaluator_of
from archtuna.files import Unreachable
from archtuna.gauge import Gauge, Reading, refuse_unexportable
from archtuna.interrupts import Interrupted, Stop
from archtuna.leases import RENEWALS, Lease, LeaseLost, Pulse, held_by, is_of, take, this_worker, worker_of
from archtuna.ledger import COUNTED, recorded, state_of
from archtuna.measuring import Measuring
from archtuna.objective import values_of
from archtuna.orders import Orders, has_time, is_admitted, is_reached
from archtuna.proposer import Exhausted, GaveWay, Proposal, Proposer, Refused, verdict_on
from archtuna.rungs import RungTable, Stopped, curve_of, record_stopped
from archtuna.sampler import make_sampler, seed_of
from archtuna.schedule import Decision, decide
from archtuna.siblings import found_elsewhere, register
from archtuna.storage import (
    ERROR_CONSTRAINT,
    Attr,
    explain,
    storage_errors,
    storage_errors_named,
    with_retries,
)
from archtuna.study import Study

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from archtuna.architecture import Architecture
    from archtuna.data import Data
    from archtuna.space import Candidate

log = logging.getLogger("archtuna")

SAME_FAILURES = 3
"""Trials that may fail at the same place before the study ends with that error."""

FILES_PAUSE = 5.0
REPORT_PATIENCE = 5.0
"""Seconds that a report at a rung waits for a storage that is away; then training goes on, and the next one tells it."""

Event = dict[str, Any]
OnEvent = Callable[[Event], None]


# --- one evaluation ----------------------------------------------------------------------------------


def epochs_of(
    evaluator: Evaluator, candidate: Candidate, stop: Stop, paused: bytes | None = None
) -> Iterator[Progress]:
    """Yield the epochs of an evaluation; a stop that is asked for while one is computed raises ``Interrupted``.

    Args:
        evaluator: how the candidate gets its values.
        candidate: the network and its training values.
        stop: whether a stop was asked for.
        paused: the point at which an evaluation before this one was interrupted, for an evaluator that can go on there.

    Raises:
        StudyError: there is none.
        TrialError: the candidate cannot be evaluated.
    """
    if paused is not None and isinstance(evaluator, Resumable):
        epochs = iter(evaluator.resume(candidate, paused))
    else:
        epochs = iter(evaluator.evaluate(candidate))
    any_came = False
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
        prepare: called before each evaluation.
    """

    study: Study
    evaluator: Evaluator
    orders: Orders
    emit: OnEvent
    stop: Stop
    sampler: str | BaseSampler | None = None
    prepare: Callable[[], None] = lambda: None
    _front: list[int] = field(default_factory=list, init=False)
    _unsure: bool = field(default=True, init=False)
    _saved: bool = field(default=False, init=False)
    _curve: dict[int, Mapping[str, float]] = field(default_factory=dict, init=False)
    _lingers: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.me, self.ledger, self.artifacts = this_worker(), self.study.ledger, self.study.artifacts
        self.points = Points(self.artifacts)
        self.ledger.refresh()
        self._front = self.study.front_numbers()
        self._rungs = RungTable(self.study.objectives)
        self.pulse = Pulse(self.study.optuna, self.orders.lease)
        deploy = self.study.spec.deployment
        self.measuring = Measuring(self.study, Gauge(self.study.spec.measured, deploy), self.emit)
        self.measuring.learn(self.ledger)
        self.proposer = Proposer(
            ledger=self.ledger,
            space=self.study.space(),
            cost=self._costs,
            doubt=self.measuring.doubt,
            worker=self.me,
            lease=self.orders.lease,
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
        with storage_errors_named(), self.pulse:
            while True:
                ended = self._insist(self._ended, "read the study") or self._next()
                if ended and not (ended in ("trials", "exhausted") and self._waits_for_others()):
                    return ended

    def _costs(self, architecture: Architecture) -> Mapping[str, float]:
        """Return what is known, or expected, of a network before it is trained.

        Raises:
            ShapeError: it does not build, or cannot be deployed.
        """
        refuse_unexportable(architecture, self.study.spec.deployment.format)
        return {**self.evaluator.costs(architecture), **self.measuring.costs(architecture)}

    def _insist(self, action: Callable[[], Any], what: str) -> Any:
        """Do something with the storage, however long that is away, or hurry where a stop was asked for."""
        return with_retries(action, what=what, hurry=lambda: self.stop.requested)

    def _ended(self) -> str | None:
        """Read the study, tell what is new in it, and return why no trial is to begin, or None."""
        self.ledger.refresh()
        self.measuring.learn(self.ledger)
        self._tell_front()
        self._tell_taken()
        self._check_failures()
        if self.stop.requested:
            return "interrupted"
        if not has_time(time.time(), self.orders.deadline, self.ledger.seconds):
            return "time"
        return "trials" if is_reached(self.ledger.wanted, self.ledger.counts["waiting"], self.orders.trials) else None

    def _check_failures(self) -> None:
        """End the study with an error that trials of any worker met, again and again since it started."""
        for place, numbers in self.ledger.places.items():
            recent = [number for number in numbers if number >= self.orders.started]
            if len(recent) >= SAME_FAILURES:
                reason = self.ledger.trials[recent[-1]].user_attrs.get(Attr.REASON)
                raise StudyError(
                    f"{len(recent)} trials failed at the same place: {reason} ({place})",
                    hint=f"archtuna show RUN {recent[-1]} has the traceback",
                )

    def _waits_for_others(self) -> bool:
        """Wait a moment where trials are with other workers, to take them up should those die; return whether any are."""
        running = len(self.ledger.opened("running"))
        if not (self.orders.linger and running):
            return False
        if not self._lingers:
            self._lingers = True
            log.info("%d trials are with other workers: waiting, to go on with them should those workers die", running)
        with suppress(Interrupted):  # The next look at the study ends the work.
            self.stop.wait(self.orders.lease / RENEWALS)
        return True

    def _next(self) -> str | None:
        """Do one trial; return why the loop ends, or None to go on."""
        try:
            begun = self._insist(self._begin, "begin a trial")
        except Exhausted as error:
            log.info("%s", error)
            return "exhausted"
        if begun is None:
            return None
        lease, proposal = begun
        with self.pulse.holding(lease):
            try:
                return self._do(lease, proposal)
            except Exhausted as error:
                self._insist(partial(self._abandon, lease, str(error)), f"give trial {lease.number} up")
                return "exhausted"
            except Interrupted:
                self._insist(lease.hand_back, f"hand trial {lease.number} back")
                self.emit({"event": "handed-back", "number": lease.number})
                return "interrupted" if self.stop.requested else "time"
            except LeaseLost:
                self.artifacts.give_up(lease.number, lease.take)
                self.emit({"event": "lost", "number": lease.number})
                return None
            except BaseException:
                self._rescue(lease)
                raise

    def _do(self, lease: Lease, proposal: Proposal | None) -> str | None:
        if not is_admitted(self.ledger.wanted_before(lease.number), self.orders.trials):
            self._insist(partial(self._leave, lease, proposal), f"give trial {lease.number} up")
            # One that was counted before this may give way at the same moment, and then nobody else would go on. A
            # trial that waits stays in the queue, so it would be taken up for ever.
            return None if proposal else "trials"
        proposal = self._take_up(lease) if proposal is None else self._keep(lease, proposal)
        if proposal is not None:
            self._tell_trial(lease, proposal)
            self._evaluate(lease, proposal)
        return None

    def _begin(self) -> tuple[Lease, Proposal | None] | None:
        """Take up a trial that waits, or create one that has its network from the start; None where that is one too many."""
        # A connection that broke just after a trial was made leaves one that this worker does not know to be its own.
        if self._unsure:
            self.ledger.refresh()
            for trial in self.ledger.opened("running"):
                if is_of(trial, self.me):
                    Lease(self.study.optuna, trial, trial.user_attrs[Attr.WORKER]).hand_back()
            self.ledger.refresh()
        self._unsure = True
        lease = take(self.study.optuna, self.ledger.opened("waiting"), self.me, self.orders.lease)
        if lease is None and is_reached(self.ledger.wanted, 0, self.orders.trials):
            self._unsure = False
            return None  # The last that waited was taken by others in this moment.
        proposal = None if lease else self.proposer.propose()
        self.ledger.refresh()
        self._unsure = False
        if proposal is not None:
            born = self.ledger.find(proposal.trial_id)
            lease = Lease(self.study.optuna, born, held_by(self.me)[Attr.WORKER], self.orders.lease)
        assert lease is not None
        return lease, proposal

    def _leave(self, lease: Lease, proposal: Proposal | None) -> None:
        """Give up a trial beyond the number that is wanted; one that waited stays in the queue."""
        if proposal is None:
            lease.hand_back()
        else:
            self._abandon(lease, "one more than wanted")

    def _abandon(self, lease: Lease, reason: str, outcome: str = "duplicate", attrs: Mapping[str, Any] = {}) -> None:
        """End a trial without an evaluation."""
        lease.end(TrialState.FAIL, attrs={**attrs, Attr.OUTCOME: outcome, Attr.REASON: reason})

    def _rescue(self, lease: Lease) -> None:
        """Leave no running trial behind when an error ends the worker; the error matters more than one in here."""
        try:
            present = self.study.optuna._storage.get_trial(lease.trial._trial_id)
            if Attr.EVALUATION in present.user_attrs:
                lease.hand_back()
            else:
                self._abandon(lease, "not begun")
        except Exception as error:
            log.warning("trial %d stays running: %s", lease.number, explain(error))

    # proposing

    def _keep(self, lease: Lease, proposal: Proposal) -> Proposal | None:
        """Return a proposal again, or None where an earlier trial has its network and this one gave way."""
        twin = self.proposer.twin_of(proposal, lease.number)
        if twin is None:
            return proposal
        self._give_way(lease, GaveWay(twin))
        return None

    def _take_up(self, lease: Lease) -> Proposal | None:
        """Return what a trial that waited is to evaluate, or None where it ended without an evaluation."""
        try:
            return self.proposer.take_up(lease)
        except GaveWay as error:
            self._give_way(lease, error)
        except Refused as error:
            self._insist(partial(self._abandon, lease, str(error), "refused"), f"record trial {lease.number}")
            self._tell_refused(lease.number, None, str(error), {})
        except storage_errors():
            # Half written, it fits no other draw: it is given up, and another trial begun.
            self._insist(partial(self._abandon, lease, "the storage was away"), f"give trial {lease.number} up")
        return None

    def _give_way(self, lease: Lease, error: GaveWay) -> None:
        give_up = partial(self._abandon, lease, str(error), attrs={Attr.DUPLICATE_OF: error.number})
        self._insist(give_up, f"give trial {lease.number} up")
        self.emit({"event": "duplicate", "number": lease.number, "of": error.number})

    def _tell_trial(self, lease: Lease, proposal: Proposal) -> None:
        architecture = proposal.candidate.architecture
        self.emit(
            {
                "event": "trial",
                "number": lease.number,
                "key": architecture.key,
                "costs": dict(proposal.costs),
                "decisions": dict(proposal.candidate.decisions),
                "recipe": proposal.candidate.recipe.to_dict(),
                "epochs": proposal.candidate.recipe.epochs,
                "summary": summary_of(architecture),
            }
        )

    def _tell_taken(self) -> None:
        """Tell which trials were taken from workers that gave no sign of life."""
        for trial, became in self.pulse.taken():
            self.emit({"event": "taken-away", "number": trial.number, "from": worker_of(trial), "state": became})

    def _tell_refused(self, number: int, key: str | None, reason: str, costs: Mapping[str, float]) -> None:
        self.emit({"event": "refused", "number": number, "key": key, "reason": reason, "costs": dict(costs)})

    # evaluating

    def _evaluate(self, lease: Lease, proposal: Proposal) -> None:
        self._curve = {}  # A result that is taken over has none.
        try:
            measured = self._measure(lease, proposal)
            proposal = measured or proposal
            progress, attrs = self._found(lease, proposal) or (self._run(lease, proposal), {})
            proposal = measured or self._measure_at_last(lease, proposal)
        except Refused as refused:
            self._record_refused(lease, proposal, str(refused))
        except Stopped as stopped:
            self._record_stopped(lease, proposal, stopped)
        except MetricError as error:
            self._record_error(lease, error.__cause__ or error, error.message)
        except (TrialError, ShapeError) as error:
            self._record_failure(lease, getattr(error, "reason", "shape"), error.message)
        except (ArchtunaError, LeaseLost):
            raise
        except Exception as error:
            self._record_error(lease, error)
        else:
            self._record(lease, proposal, progress, attrs)

    def _found(self, lease: Lease, proposal: Proposal) -> tuple[Progress, Mapping[str, Any]] | None:
        """Return what another study of the storage found out, and where, or None."""
        found = self.elsewhere.get(proposal.evaluation)
        if found is None:
            return None
        self.emit({"event": "reused", "number": lease.number, "of": found.origin})
        return found.progress(proposal.candidate), {Attr.REUSED: found.origin}

    def _measure(self, lease: Lease, proposal: Proposal) -> Proposal | None:
        """Return a proposal with what its network was measured to take; None where that cannot be said now.

        Raises:
            Refused: it breaks a limit.
            TrialError: the network cannot be exported or run.
        """
        if not self.measuring.needed:
            return proposal
        reading = self._reading(lease, proposal)
        if reading is None:
            return None
        costs = {**proposal.costs, **reading.values}
        verdict = verdict_on(costs, self.study.limits)
        attrs = {Attr.COSTS: costs, Attr.READING: reading.to_dict()}
        write = partial(lease.write, attrs, constraints=verdict.constraints)
        self._insist(write, f"write down what trial {lease.number} takes")
        self.emit({"event": "measured", "number": lease.number, **reading.to_dict()})
        if verdict.reason is not None:
            raise Refused(verdict.reason)
        return replace(proposal, costs=costs, latencies=reading.latencies)

    def _reading(self, lease: Lease, proposal: Proposal) -> Reading | None:
        plain = lease.trial.user_attrs.get(Attr.READING)  # A worker that died had measured it.
        if plain is not None:
            return Reading.from_dict(plain)
        try:
            with self.stop.interruptible():
                return self.measuring.read(proposal.candidate.architecture)
        except ModelRefused as error:
            raise TrialError(error.message, reason="latency", hint=error.hint) from error
        except LatencyError as error:
            log.warning("trial %d is measured later: %s", lease.number, error.message)
        except ExportError as error:
            raise TrialError(error.message, reason="export", hint=error.hint) from error
        return None

    def _measure_at_last(self, lease: Lease, proposal: Proposal) -> Proposal:
        """Measure a network that is trained, however long that takes; a stop hands its trial back."""
        while True:
            measured = self._measure(lease, proposal)
            if measured is not None:
                return measured
            self.emit({"event": "waits", "number": lease.number, "reason": "it is trained and has to be measured"})
            self.stop.wait(FILES_PAUSE)
            if self.pulse.lost.is_set():
                raise LeaseLost

    def _record_refused(self, lease: Lease, proposal: Proposal, reason: str) -> None:
        """A network that was measured and breaks a limit: what it breaks is written already."""
        end = partial(lease.end, TrialState.PRUNED, attrs={Attr.OUTCOME: "refused", Attr.REASON: reason})
        self._insist(end, f"record trial {lease.number}")
        self.artifacts.forget(lease.number)
        self._tell_refused(lease.number, proposal.candidate.architecture.key, reason, proposal.costs)

    def _run(self, lease: Lease, proposal: Proposal) -> Progress:
        """Evaluate a candidate to its end, from where another worker left it, or raise Interrupted."""
        self.prepare()
        paused = self._with_files(lease, partial(self.artifacts.last_point, lease.number), "has to look where to go on")
        began = False
        reports: dict[str, Mapping[str, float]] = {}
        for progress in epochs_of(self.evaluator, proposal.candidate, self.stop, paused):
            if not began and (progress.taken_up or progress.epoch > 1):
                reports = self._go_on(lease, progress.epoch)
            else:
                self.emit({"event": "epoch", "number": lease.number, **told_of(progress)})
            began = True
            self._curve[progress.epoch] = progress.metrics
            self.pulse.trained(progress.epoch)
            if self.pulse.lost.is_set():
                raise LeaseLost
            if progress.epoch in self.study.spec.schedule.rungs(progress.epochs):
                reports[str(progress.epoch)] = {name: float(progress.best[name]) for name in self._rungs.names}
                self._report(lease, proposal, progress, reports)
            if progress.epoch < progress.epochs:
                self.points.keep(lease.number, lease.take, progress.pause)
                if self._overdue():
                    raise Interrupted
        return progress

    def _go_on(self, lease: Lease, epoch: int) -> dict[str, Mapping[str, float]]:
        """Tell that a trial goes on after an epoch that another worker trained; return what it reported until then."""
        self.emit({"event": "resumed", "number": lease.number, "epoch": epoch})
        try:
            self.pulse.began(epoch)
        except storage_errors() as error:
            log.debug("the storage is away: %s", explain(error))
        reported = lease.trial.user_attrs.get(Attr.RUNGS) or {}
        return {rung: values for rung, values in reported.items() if int(rung) < epoch}

    def _report(
        self, lease: Lease, proposal: Proposal, progress: Progress, reports: Mapping[str, Mapping[str, float]]
    ) -> None:
        """Report a trial at a rung, and raise Stopped where by what the others came to there it is not to go on."""
        judge = partial(self._judge, lease, proposal, progress, reports)
        try:
            decision = with_retries(judge, what=f"report on trial {lease.number}", seconds=REPORT_PATIENCE)
        except StorageAway as error:
            log.warning("trial %d goes on without a report: %s", lease.number, error.message)
            return
        if decision.stop:
            raise Stopped(decision, progress)

    def _judge(
        self, lease: Lease, proposal: Proposal, progress: Progress, reports: Mapping[str, Mapping[str, float]]
    ) -> Decision:
        lease.write({Attr.RUNGS: dict(reports)})
        self.ledger.refresh()
        recipe, level = proposal.candidate.recipe, len(reports) - 1
        peers = self._rungs.peers(self.ledger.trials, recipe.epochs, level, besides=lease.number)
        return decide(self._rungs.report(progress.epoch, progress.best, proposal.costs, float(recipe.lr or 1.0)), peers)

    def _overdue(self) -> bool:
        deadline = self.orders.deadline
        return self.stop.requested or (deadline is not None and time.time() > deadline + self.orders.grace)

    # recording

    def _record(
        self, lease: Lease, proposal: Proposal, progress: Progress, attrs: Mapping[str, Any] | None = None
    ) -> None:
        values = values_of(self.study.objectives, {**proposal.costs, **progress.best})
        number, named = lease.number, dict(zip(self.study.spec.objectives, values, strict=True))
        # Before the trial counts as complete: a kill between the two leaves a trial to be trained again, not a front
        # without weights.
        what = f"record trial {number}"
        deserves = partial(self.study.deserves_checkpoint, number, values, self.orders.near)
        if progress.save and self._insist(deserves, what):
            self._saved = True
            note = {"study": self.study.name, "number": number, "values": named}
            note |= {"latencies": proposal.latencies} if proposal.latencies else {}
            save = partial(progress.save, self.artifacts.staged(number, lease.take), note)
            self._with_files(lease, save, "is trained and has to keep its weights")
        attrs = {**(attrs or {}), Attr.RESULT: recorded(progress, self._curve)}
        if lease.trial.user_attrs.get(Attr.OUTCOME) is not None:  # A worker died while it recorded another one.
            attrs = {Attr.OUTCOME: None, **attrs}
        self._insist(partial(lease.end, TrialState.COMPLETE, values, attrs), what)
        self.artifacts.settle(number, lease.take)
        self.artifacts.forget(number)
        self.emit({"event": "complete", "number": number, "values": named, "seconds": progress.seconds})

    def _with_files(self, lease: Lease, action: Callable[[], Any], why: str) -> Any:
        """Do something with files; while the disk is full, or a store away, the trial waits, and a stop hands it back."""

        def tell(problem: str) -> None:
            log.warning("trial %d %s, and waits: %s", lease.number, why, problem)
            self.emit({"event": "waits", "number": lease.number, "reason": problem})

        return once_files_allow(action, self.stop, tell, self.pulse.lost.is_set)

    def _record_stopped(self, lease: Lease, proposal: Proposal, stopped: Stopped) -> None:
        progress, number = stopped.progress, lease.number
        values = values_of(self.study.objectives, {**proposal.costs, **progress.best})
        self._insist(partial(record_stopped, lease, stopped, values, self._curve), f"record trial {number}")
        self.artifacts.forget(number)
        self.emit(
            {
                "event": "stopped",
                "number": number,
                "epoch": progress.epoch,
                "epochs": progress.epochs,
                "reason": stopped.decision.reason,
            }
        )

    def _record_failure(self, lease: Lease, reason: str, message: str) -> None:
        """A network that cannot be trained: samplers learn to avoid its like."""
        text = f"{reason}: {message}"
        attrs = {Attr.OUTCOME: "failed", Attr.REASON: text}
        end = partial(lease.end, TrialState.PRUNED, attrs=attrs, constraints={ERROR_CONSTRAINT: 2.0})
        self._insist(end, f"record trial {lease.number}")
        self.artifacts.forget(lease.number)
        self.emit({"event": "failed", "number": lease.number, "reason": text})

    def _record_error(self, lease: Lease, error: BaseException, reason: str | None = None) -> None:
        """An error in somebody's code, which says nothing of the network: no sampler sees it."""
        text, reason = "".join(traceback.format_exception(error)), reason or f"{type(error).__name__}: {error}"
        attrs = {Attr.TRACEBACK: text, Attr.PLACE: _place_of(error)}
        self._insist(partial(self._abandon, lease, reason, "failed", attrs), f"record trial {lease.number}")
        self.artifacts.forget(lease.number)
        self.emit({"event": "failed", "number": lease.number, "reason": reason, "traceback": text})

    def _tell_front(self) -> None:
        """Tell the front where it is another than it was, and delete what has fallen far behind it."""
        front = self.study.front_numbers()
        is_new = front != self._front
        removed: list[int] = []
        with suppress(Unreachable):  # The next sweep does it.
            removed = self.study.sweep(self.orders.near, read=False) if is_new or self._saved else []
        self._front, self._saved = front, False
        if is_new:
            counts = {state: self.ledger.counts[state] for state in COUNTED}
            volume = self.study.hypervolume(read=False)
            self.emit({"event": "front", "numbers": front, "hypervolume": volume, "counts": counts})
        if removed:
            self.emit({"event": "checkpoints", "removed": removed, **self.study.disk(self.orders.near)})


def once_files_allow(
    action: Callable[[], Any], stop: Stop, tell: Callable[[str], None], is_lost: Callable[[], bool] = lambda: False
) -> Any:
    """Do something with files, again and again while the disk is full, or a store away.

    Args:
        action: what is done.
        stop: ends the wait.
        tell: is called with the problem when the wait begins.
        is_lost: whether what it is done for went to another worker.

    Raises:
        Interrupted: a stop was asked for.
        LeaseLost: it went to another worker.
    """
    told = False
    while True:
        try:
            return action()
        except (OSError, CheckpointError) as error:
            if not _may_pass(error):
                raise
            problem = str(error).splitlines()[0]
        if not told:
            told = True
            tell(problem)
        stop.wait(FILES_PAUSE)
        if is_lost():
            raise LeaseLost


def _may_pass(error: BaseException) -> bool:
    """Return whether an error says that a disk, or somebody's share of it, is full, or that an object store is away."""
    causes = (error, error.__cause__)
    return any(isinstance(e, Unreachable) or getattr(e, "errno", None) in (errno.ENOSPC, errno.EDQUOT) for e in causes)


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
        reference=[study.reference[o.name] for o in study.objectives],
        curve=partial(curve_of, study.objectives),
        failed=lambda trial: trial.state == TrialState.PRUNED and state_of(trial) == "failed",
    )
    if orders.index and given is not None and not isinstance(given, str):
        sampler.reseed_rng()  # Copies of one sampler would all draw the same.
    return sampler


@contextmanager
def stationed(study: Study, data: Data, orders: Orders, given: Any) -> Iterator[tuple[Evaluator, Callable[[], None]]]:
    """Take this worker's share of the machine; give what evaluates there, and what is called before each evaluation.

    Args:
        study: whose networks are evaluated.
        data: its pictures.
        orders: which worker this is, and where it is to train.
        given: what stands in for training, or None.
    """
    with sharing() as prepare, seated(orders.device, orders.index, orders.per_gpu) as device:
        yield _evaluator_for(study, data, device, given), prepare


def _evaluator_for(study: Study, data: Data, device: str | None, given: Any) -> Evaluator:
    if given is not None:
        return evaluator_of(given, study.objectives, len(data.classes))
    return TrainEvaluator(
        data,
        study.split(data),
        objectives=study.objectives,
        fraction=study.spec.fraction,
        fit=study.spec.data["fit"],
        via=study.space().largest_input_size(),
        seed=study.spec.seed or 0,
        device=device,
        deploy=study.spec.deployment,
    )
