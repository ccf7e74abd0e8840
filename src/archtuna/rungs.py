"""What trials report at rungs, what the study's others came to there, and what is recorded of one that is stopped."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields

import numpy as np
from optuna.samplers._ga import BaseGASampler
from optuna.trial import FrozenTrial, TrialState

from archtuna.evaluate import Progress
from archtuna.known_costs import Curve
from archtuna.leases import Lease
from archtuna.ledger import recorded
from archtuna.objective import Objective, oriented
from archtuna.schedule import Decision, Peers, Report
from archtuna.storage import STOPPED_CONSTRAINT, Attr


class Stopped(Exception):
    """Ends the evaluation of a trial that has no chance of the front."""

    def __init__(self, decision: Decision, progress: Progress) -> None:
        super().__init__(decision.reason)
        self.decision, self.progress = decision, progress


class RungTable:
    """The rungs of a study's trials; what is finished is read once.

    The hint that forecasts take beside the qualities is the learning rate, in logarithm: networks that learn at a high rate
    climb late, when a schedule lowers it. Costs and the loss say less of the end (``benchmarks/results/stopping.md``).

    Args:
        objectives: of the study.
    """

    def __init__(self, objectives: Sequence[Objective]) -> None:
        self.objectives = objectives
        self.qualities = [o for o in objectives if o.kind == "quality"]
        self.costs = [o for o in objectives if o.kind == "cost"]
        self.names = [o.name for o in self.qualities]
        self._read: set[int] = set()
        self._finished: dict[tuple[int, int], Peers] = defaultdict(lambda: self._at([], 0))

    def report(self, epoch: int, best: Mapping[str, float], costs: Mapping[str, float], lr: float) -> Report:
        """Return what a trial came to at a rung."""
        values = oriented([[best[name] for name in self.names]], self.qualities)[0]
        known = oriented([[costs[o.name] for o in self.costs]], self.costs)[0]
        return Report(epoch, values, np.array([math.log(lr)]), known, self.qualities)

    def peers(self, trials: Iterable[FrozenTrial], epochs: int, level: int, besides: int) -> Peers:
        """Return what other trials came to at a rung, whatever became of them since.

        Args:
            trials: the study's.
            epochs: of the training by its recipe; others are at another place of their schedule and are left out.
            level: which rung, from 0.
            besides: the trial that is compared with them.
        """
        fresh = [trial for trial in trials if trial.number not in self._read]
        finished = [trial for trial in fresh if trial.state.is_finished()]
        self._read.update(trial.number for trial in finished)
        self._keep(finished)
        running = [trial for trial in fresh if not trial.state.is_finished() and trial.number != besides]
        return _joined(self._finished[epochs, level], self._at(running, level, epochs))

    def _keep(self, finished: Sequence[FrozenTrial]) -> None:
        levels = max(map(_levels, finished), default=0)
        for epochs in {trial.user_attrs[Attr.RECIPE]["epochs"] for trial in finished if _levels(trial)}:
            for level in range(levels):
                known = self._finished[epochs, level]
                self._finished[epochs, level] = _joined(known, self._at(finished, level, epochs))

    def _at(self, trials: Iterable[FrozenTrial], level: int, epochs: int = 0) -> Peers:
        there = [(trial, trial.user_attrs) for trial in trials if _levels(trial) > level]
        there = [(trial, attrs) for trial, attrs in there if attrs[Attr.RECIPE]["epochs"] == epochs]
        at = [attrs[Attr.RUNGS][sorted(attrs[Attr.RUNGS], key=int)[level]] for _, attrs in there]
        return Peers(
            values=oriented([[one[name] for name in self.names] for one in at], self.qualities),
            hints=np.log([[attrs[Attr.RECIPE]["lr"]] for _, attrs in there]).reshape(len(there), 1),
            costs=oriented([[attrs[Attr.COSTS][o.name] for o in self.costs] for _, attrs in there], self.costs),
            finals=oriented([self._final(trial) for trial, _ in there], self.qualities),
        )

    def _final(self, trial: FrozenTrial) -> list[float]:
        if trial.state != TrialState.COMPLETE or trial.user_attrs.get(Attr.OUTCOME) == "stopped":
            return [np.nan] * len(self.qualities)
        return [v for v, o in zip(trial.values, self.objectives, strict=True) if o.kind == "quality"]


def _levels(trial: FrozenTrial) -> int:
    return len(trial.user_attrs.get(Attr.RUNGS) or ())


def _joined(a: Peers, b: Peers) -> Peers:
    return Peers(*(np.concatenate([getattr(a, f.name), getattr(b, f.name)]) for f in fields(Peers)))


def curve_of(objectives: Sequence[Objective], trial: FrozenTrial) -> Curve:
    """Return what a trial came to at each of its rungs: value by the objective's index."""
    at = trial.user_attrs.get(Attr.RUNGS) or {}
    return [
        {i: at[epoch][o.name] for i, o in enumerate(objectives) if o.name in at[epoch]} for epoch in sorted(at, key=int)
    ]


def record_stopped(
    lease: Lease, stopped: Stopped, values: Sequence[float], curve: Mapping[int, Mapping[str, float]] | None = None
) -> None:
    """End a trial that was stopped, in the way that samplers learn from and are not misled by.

    A pruned trial without a constraint would count among the good ones of TPE while few are complete; with one it is
    ordered among the bad, those that came far last. Genetic samplers look at complete trials only, so for them it is
    complete, with the values that it came to, and breaks the same constraint.

    Args:
        lease: on the trial.
        stopped: why, and what it came to.
        values: of the objectives, at the epoch that was kept.
        curve: metrics by epoch.

    Raises:
        LeaseLost: the trial is with another worker by now.
    """
    progress, decision = stopped.progress, stopped.decision
    attrs = {Attr.RESULT: recorded(progress, curve), Attr.OUTCOME: "stopped", Attr.REASON: decision.reason}
    constraints = {STOPPED_CONSTRAINT: violation_of(progress.epoch, progress.epochs, decision.quantile)}
    if isinstance(lease.study.sampler, BaseGASampler):
        lease.end(TrialState.COMPLETE, values, attrs, constraints=constraints)
    else:
        lease.end(TrialState.PRUNED, None, attrs, constraints=constraints)


def violation_of(epoch: int, epochs: int, quantile: float) -> float:
    """Return by how much a stopped trial breaks its constraint: less the longer it ran and the fewer were better."""
    return 1.0 - epoch / epochs + 0.5 * quantile
