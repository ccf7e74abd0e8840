"""One worker of the repeats: the networks of the front, trained again with other seeds until all of it have their runs.

Killed at any moment, it loses the epoch that it was in: another goes on with the run, now or at the next start.
``python -m archtuna.repeater`` is one of several, told what to do as ``archtuna.serving`` says.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import compress
from typing import TYPE_CHECKING, Any

from archtuna.artifacts import Points, run_name
from archtuna.errors import ArchtunaError, MetricError, ShapeError, StudyError, TrialError
from archtuna.evaluate import Evaluator, Progress
from archtuna.files import Unreachable
from archtuna.interrupts import Interrupted, Stop
from archtuna.leases import DEATHS, RENEWALS, SECONDS, Lease, LeaseLost, Pulse, may_be_gone, this_worker
from archtuna.ledger import recorded
from archtuna.objective import Objective, nondominated, oriented, values_of
from archtuna.orders import Orders
from archtuna.recipe import Recipe
from archtuna.repeats import Repeats, Run, Wanted, by_run, conditions_of, deaths, holder
from archtuna.selection import EMPTY
from archtuna.serving import opened, serve
from archtuna.space import Candidate
from archtuna.storage import Attr, storage_errors_named, with_retries
from archtuna.study import Study, Trial
from archtuna.worker import Event, OnEvent, epochs_of, once_files_allow, stationed, told_of

if TYPE_CHECKING:
    from archtuna.data import Data

log = logging.getLogger("archtuna")

SEEDS = 2**31
"""As many seeds as a recipe may have."""


@dataclass(frozen=True)
class Again:
    """What is to be trained again.

    Attributes:
        seeds: runs that each network is to have.
        numbers: trials, or None for the front.
    """

    seeds: int
    numbers: Sequence[int] | None = None


# --- decisions ---------------------------------------------------------------------------------------


def seeds_of(trial: Trial, seeds: int) -> list[int]:
    """Return the seeds of a trial's runs: those after its own."""
    own = int(trial.recipe.get("seed", 0))
    return [(own + 1 + i) % SEEDS for i in range(seeds)]


def lacking(trial: Trial, seeds: int) -> list[int]:
    """Return the seeds with which a trial has no result yet."""
    done = {run.seed for run in trial.again}
    return [seed for seed in seeds_of(trial, seeds) if seed not in done]


def contenders(trials: Sequence[Trial], objectives: Sequence[Objective], seeds: int) -> list[Trial]:
    """Return the networks that are on the front, or may be when they have their runs.

    A network that lacks runs counts with the better of its own run and of the mean so far. So one that came onto the front by
    luck is found out when it has its runs, those that it hid come forward and get theirs; and when none of these lacks a
    run, they are the front by means.

    Args:
        trials: of the study.
        objectives: of the study.
        seeds: runs that each network is to have.
    """
    done = [trial for trial in trials if trial.state == "complete" and trial.feasible]
    points = oriented([[_hoped(trial, o, seeds) for o in objectives] for trial in done], objectives)
    return list(compress(done, nondominated(points)))


def _hoped(trial: Trial, objective: Objective, seeds: int) -> float:
    mean = trial.values[objective.name]
    return min(mean, trial.own[objective.name], key=lambda v: objective.sign * v) if lacking(trial, seeds) else mean


def runs_to_do(trials: Sequence[Trial], seeds: int) -> list[tuple[Trial, int]]:
    """Return trials and seeds without a result: every trial's first run before any trial's second."""
    places = [
        (seeds_of(trial, seeds).index(seed), i) for i, trial in enumerate(trials) for seed in lacking(trial, seeds)
    ]
    return [(trials[i], seeds_of(trials[i], seeds)[place]) for place, i in sorted(places)]


# --- one worker --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Task:
    trial: Trial
    wanted: Wanted
    lease: Lease

    @property
    def claim(self) -> int:
        return self.lease.number

    @property
    def name(self) -> str:
        return run_name(self.trial.number, self.wanted.seed)

    @property
    def named(self) -> dict[str, int]:
        """What names the run in events."""
        return {"number": self.trial.number, "seed": self.wanted.seed}

    def __str__(self) -> str:
        return f"trial {self.trial.number} with seed {self.wanted.seed}"


@dataclass
class Repeater:
    """One process that trains networks again.

    Attributes:
        study: the search's.
        evaluator: how candidates get their values.
        again: what to do.
        emit: told of each event.
        stop: whether a stop was asked for.
        lease: seconds after which the run of a worker that gives no sign of life is taken from it.
        linger: whether to stay until the last run of any worker has ended, to go on with it should that worker die.
        prepare: called before each training.
    """

    study: Study
    evaluator: Evaluator
    again: Again
    emit: OnEvent
    stop: Stop
    lease: float = SECONDS
    linger: bool = False
    prepare: Callable[[], None] = lambda: None
    _front: list[int] = field(default_factory=list, init=False)
    _held: list[Run] = field(default_factory=list, init=False)
    _lingers: bool = field(default=False, init=False)

    def run(self) -> str:
        """Work until nothing is left to do, and return why: ``repeats`` or ``interrupted``.

        Raises:
            StudyError: an error in somebody's code, or the storage stayed away.
        """
        self.me, self._points = this_worker(), Points(self.study.artifacts)
        with storage_errors_named(), suppress(Interrupted):  # By a stop that was asked for while it waited.
            self.repeats = with_retries(partial(Repeats, self.study.optuna), what="open the repeats")
            with Pulse(self.repeats.beside, self.lease, self.repeats.bury) as self.pulse:
                self._front = self._with_files(self._numbers_of_front, "the worker has to read the front")
                while not self.stop.requested:
                    begin = partial(with_retries, self._take, what="begin a repeat")
                    task = self._with_files(begin, "the worker has to read the study")
                    if task is not None:
                        with self.pulse.holding(task.lease):
                            self._repeat(task)
                    elif not self._waits_for_others():
                        return "repeats"
        return "interrupted"

    def _numbers_of_front(self) -> list[int]:
        return [trial.number for trial in self.study.front()]

    def _take(self) -> _Task | None:
        """Claim a run that is free; None where none is left."""
        while True:
            self.repeats.end_those_of_the_dead(self.me)
            free = self._free()
            for trial, wanted in free:
                lease = self.repeats.claim(wanted, self.me, self.lease)
                if lease is not None:
                    return _Task(trial, wanted, lease)
            if not free:
                return None

    def _waits_for_others(self) -> bool:
        """Wait a moment where runs are with other workers, to begin them anew should those die; return whether any are.

        A worker that may have died before this machine was started again is waited for in any case: nobody else would be.
        """
        if not any(self.linger or may_be_gone(run.worker) for run in self._held):
            return False
        if not self._lingers:
            self._lingers = True
            log.info("%d runs are with other workers: waiting, to go on should those workers die", len(self._held))
        self.stop.wait(self.lease / RENEWALS)
        return True

    def _free(self) -> list[tuple[Trial, Wanted]]:
        """Return the runs that nobody holds, and take note of the claims on the others."""
        trials = self.study.trials()
        if self.again.numbers is None:
            trials = contenders(trials, self.study.objectives, self.again.seeds)
        else:
            trials = [trial for trial in trials if trial.number in self.again.numbers]
        claims = by_run(self.repeats.runs())
        todo = [(trial, self._wanted(trial, seed)) for trial, seed in runs_to_do(trials, self.again.seeds)]
        holders = [holder(claims.get(wanted, ())) for _, wanted in todo]
        self._held = [held for held in holders if held is not None and held.state == "running"]
        return [one for one, held in zip(todo, holders, strict=True) if held is None]

    def _wanted(self, trial: Trial, seed: int) -> Wanted:
        return Wanted(trial.number, seed, conditions_of(self.study.spec, trial.key, trial.recipe))

    def _repeat(self, task: _Task) -> None:
        try:
            self._check_deaths(task.wanted)
            self.prepare()
            progress = self._train(task)
            self._keep_weights(task, progress)
        except Interrupted:
            self._release(task)
            self.emit({"event": "handed-back", **task.named})
        except LeaseLost:
            self.study.artifacts.give_up(task.name, task.claim)
            self.emit({"event": "lost", **task.named})
        except MetricError:
            self._release(task)
            raise
        except (TrialError, ShapeError) as error:
            self._fail(task, f"{getattr(error, 'reason', 'shape')}: {error.message}")
        except ArchtunaError:
            self._release(task)
            raise
        except Exception as error:
            self._release(task)
            raise StudyError(f"{task} ended in {type(error).__name__}: {error}") from error
        else:
            self._record(task, progress)

    def _check_deaths(self, wanted: Wanted) -> None:
        died = with_retries(lambda: deaths(self.repeats.runs(), wanted), what="read the repeats")
        if died >= DEATHS:
            raise TrialError(f"{died} workers died while they trained it", reason="died")

    def _release(self, task: _Task) -> None:
        with_retries(partial(self.repeats.end, task.claim), what=f"give trial {task.trial.number} up")

    def _train(self, task: _Task) -> Progress:
        """Train to the end, or raise Interrupted."""
        trial, seed = task.trial, task.wanted.seed
        recipe = Recipe(**trial.recipe)
        candidate = Candidate(trial.architecture, recipe.replace(seed=seed), trial.decisions)
        self.emit({"event": "repeat", **task.named, "costs": dict(trial.costs), "epochs": recipe.epochs})
        last_point = partial(self.study.artifacts.last_point, task.name)
        paused = self._with_files(last_point, f"{task} has to look where to go on", task)
        for progress in epochs_of(self.evaluator, candidate, self.stop, paused):
            event = "resumed" if progress.taken_up else "epoch"
            self.emit({"event": event, **task.named, **told_of(progress)})
            if self.pulse.lost.is_set():
                raise LeaseLost
            if progress.epoch < progress.epochs:
                self._points.keep(task.name, task.claim, progress.pause)
        return progress

    def _values(self, task: _Task, progress: Progress) -> dict[str, float]:
        values = values_of(self.study.objectives, {**task.trial.costs, **progress.best})
        return dict(zip(self.study.spec.objectives, values, strict=True))

    def _keep_weights(self, task: _Task, progress: Progress) -> None:
        """Keep the weights of a network that was far behind the front once, so that its own were not kept."""
        number, save = task.trial.number, progress.save
        if save is None:
            return
        note = {"study": self.study.name, **task.named, "values": self._values(task, progress)}

        def keep() -> None:
            if self.study.artifacts.found(number) is None:
                save(self.study.artifacts.weights(number), note)

        self._with_files(keep, f"{task} is trained and has to keep its weights", task)

    def _record(self, task: _Task, progress: Progress) -> None:
        values, attrs = self._values(task, progress), {Attr.RESULT: recorded(progress)}
        complete = partial(self.repeats.complete, task.claim, list(values.values()), attrs)
        with_retries(complete, what=f"record {task}")
        self._forget(task)
        tell = partial(self._tell, task, values, progress.seconds)
        self._with_files(partial(with_retries, tell, what="read the front"), "the worker has to read the front")

    def _fail(self, task: _Task, reason: str) -> None:
        with_retries(partial(self.repeats.fail, task.claim, reason), what=f"record {task}")
        self._forget(task)
        self.emit({"event": "repeat-failed", **task.named, "reason": reason})

    def _forget(self, task: _Task) -> None:
        with suppress(Unreachable):  # It stays until somebody deletes what nothing needs any more.
            self.study.artifacts.forget(task.name)

    def _tell(self, task: _Task, values: Mapping[str, float], seconds: float) -> None:
        # All is read before anything is told: what cannot be read is tried again, and would be told twice.
        trial, front = self.study.candidate(task.trial.number), self._numbers_of_front()
        volume = self.study.hypervolume()
        told = {
            **task.named, "values": dict(values), "seconds": seconds,
            "mean": dict(trial.values), "spread": dict(trial.spread) if trial.spread else None, "runs": trial.runs,
        }  # fmt: skip
        self.emit({"event": "repeated", **told})
        if front != self._front:
            self._front = front
            self.emit({"event": "front", "numbers": front, "hypervolume": volume})

    def _with_files(self, action: Callable[[], Any], why: str, task: _Task | None = None) -> Any:
        """Do something with files; while the disk is full, or a store away, it waits.

        Args:
            action: what is done.
            why: in words, for people who are told that it waits.
            task: the run that waits, where it is one.

        Raises:
            Interrupted: a stop was asked for.
            LeaseLost: the run went to another worker.
        """

        def tell(problem: str) -> None:
            log.warning("%s, and waits: %s", why, problem)
            if task is not None:
                self.emit({"event": "waits", **task.named, "reason": problem})

        return once_files_allow(action, self.stop, tell, lambda: task is not None and self.pulse.lost.is_set())


# --- all of them -------------------------------------------------------------------------------------


def check_again(study: Study, again: Again) -> None:
    """Refuse what cannot be trained again.

    Raises:
        StudyError: no seeds, a trial that is not there or was not evaluated in full, or an empty front.
    """
    if again.seeds < 1:
        raise StudyError(f"{again.seeds} seeds are too few", hint="give at least 1")
    for trial in map(study.candidate, again.numbers or ()):
        if trial.state != "complete":
            raise StudyError(
                f"trial {trial.number} was not evaluated in full: it is {trial.state}",
                hint="archtuna front RUN lists some that were",
            )
    if again.numbers is None and not study.front():
        raise StudyError("the front is empty: no trial is complete", hint=EMPTY)


def train_again(
    study: Study,
    again: Again,
    data: Data,
    evaluator: Any,
    orders: Orders,
    emit: OnEvent,
    crew: Callable[[Mapping[str, Any]], str] | None = None,
) -> str:
    """Train again what is asked for, and return why that ended: ``repeats`` or ``interrupted``.

    Args:
        study: the search's.
        again: what to do.
        data: the study's pictures.
        evaluator: what stands in for training, or None.
        orders: how many workers, and where to train.
        emit: told of each event.
        crew: starts several workers, told so beside their orders, and returns why they ended; without it this process works.
    """
    emit(_start_event(study, again, orders))
    if crew is None:
        stop = Stop()
        with stop.on_signals(), stationed(study, data, orders, evaluator) as (made, prepare):
            reason = Repeater(study, made, again, emit, stop, orders.lease, orders.linger, prepare).run()
    else:
        reason = crew({"again": asdict(again), "data": data.source})
    study.sweep(orders.near)
    return "interrupted" if reason == "interrupted" else "repeats"


def _start_event(study: Study, again: Again, orders: Orders) -> Event:
    front = study.front()
    return {
        "event": "repeats",
        "name": study.name,
        "identity": study.identity,
        "folder": str(study.folder),
        "objectives": {o.name: o.direction for o in study.objectives},
        "seeds": again.seeds,
        "numbers": None if again.numbers is None else list(again.numbers),
        "workers": orders.workers,
        "counts": study.counts(),
        "front": [trial.number for trial in front],
        "values": {str(trial.number): dict(trial.values) for trial in front},
        "costs": {str(trial.number): dict(trial.costs) for trial in front},
        "hypervolume": study.hypervolume(),
    }


def work(told: Mapping[str, Any], emit: OnEvent, stop: Stop) -> str:
    """Be a worker of the repeats."""
    with opened(told) as (study, evaluator, orders, prepare):
        again = Again(**told["again"])
        return Repeater(study, evaluator, again, emit, stop, orders.lease, orders.linger, prepare).run()


if __name__ == "__main__":
    sys.exit(serve(work))
