"""Optuna's tree-structured Parzen estimator, made to cost what is new in a study and not the whole of it.

The same draws as Optuna's ``TPESampler`` of the same seed, only sooner:

- what a finished trial says is read into numbers once, not for every draw;
- the best trials are told from the rest by compiled ranks and hypervolumes (moocore), not by numpy in a loop;
- a second draw for one trial, because the first was known already, takes the next best of the candidates that were
  compared for the first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.samplers._tpe.sampler import (
    _get_infeasible_trial_score,
    _get_reference_point,
    _split_pruned_trials,
    _split_trials,
    default_gamma,
    default_gamma_multiobjective,
)
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from archtuna.objective import pareto_ranks

Trials = list[FrozenTrial]


class Tpe(TPESampler):
    """Optuna's TPE for one study, which may become long."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._table = _Table()
        self._violations: dict[int, float] = {}
        self._greedy = _Greedy(np.zeros((0, 1)), np.zeros(1))
        self._drawn_for: FrozenTrial | None = None
        self._groups: tuple[Trials, Trials] | None = None
        self._estimators: dict[tuple[str, ...], tuple[Any, Any]] = {}
        self._left: dict[tuple[str, ...], deque[dict[str, Any]]] = {}

    def _sample(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        if trial is not self._drawn_for:
            self._drawn_for, self._groups, self._estimators, self._left = trial, None, {}, {}
        left = self._left.setdefault(tuple(search_space), deque())
        if not left:
            left.extend(self._candidates(study, trial, search_space))
        return left.popleft()

    def _candidates(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> Iterator[dict[str, Any]]:
        """Yield fresh draws from the good trials' density, the best by Optuna's criterion first."""
        names = tuple(search_space)
        if self._groups is None:
            self._groups = self._good_and_bad(study, trial)
        if names not in self._estimators:
            good, bad = self._groups
            self._estimators[names] = (
                self._build_parzen_estimator(study, search_space, good, handle_below=True),
                self._build_parzen_estimator(study, search_space, bad, handle_below=False),
            )
        good_density, bad_density = self._estimators[names]
        drawn = good_density.sample(self._rng.rng, self._n_ei_candidates)
        order = np.argsort(-self._compute_acquisition_func(drawn, good_density, bad_density), kind="stable")
        for place in order:
            yield {name: d.to_external_repr(drawn[name][place].item()) for name, d in search_space.items()}

    # which trials are good

    def _good_and_bad(self, study: Study, trial: FrozenTrial) -> tuple[Trials, Trials]:
        """Return the best trials of a study, and the rest, each by number."""
        states = [TrialState.COMPLETE, TrialState.PRUNED, *([TrialState.RUNNING] if self._constant_liar else [])]
        seen = study._get_trials(deepcopy=False, states=states, use_cache=not self._constant_liar)
        trials = [other for other in seen if other.number != trial.number]
        several = study._is_multi_objective()
        if self._gamma is None:
            self._gamma = default_gamma_multiobjective if several else default_gamma
        count = self._gamma(sum(other.state != TrialState.RUNNING for other in trials))
        return self._split(study, trials, count) if several else _split_trials(study, trials, count)

    def _split(self, study: Study, trials: Trials, count: int) -> tuple[Trials, Trials]:
        """Split trials of several objectives as Optuna does: complete before stopped before what breaks limits."""
        complete: Trials = []
        pruned: Trials = []
        infeasible: Trials = []
        running: Trials = []
        for trial in trials:
            if trial.state == TrialState.RUNNING:
                running.append(trial)
            elif self._violation(trial) > 0:
                infeasible.append(trial)
            else:
                (complete if trial.state == TrialState.COMPLETE else pruned).append(trial)
        good, bad = self._split_complete(study, complete, count)
        good_pruned, bad_pruned = _split_pruned_trials(pruned, study, max(0, count - len(good)))
        room = max(0, count - len(good) - len(good_pruned))
        infeasible.sort(key=self._violation)
        good, bad = good + good_pruned + infeasible[:room], bad + bad_pruned + infeasible[room:] + running
        return sorted(good, key=_number), sorted(bad, key=_number)

    def _violation(self, trial: FrozenTrial) -> float:
        """Return by how much a finished trial breaks its limits."""
        if trial.number not in self._violations:
            self._violations[trial.number] = _get_infeasible_trial_score(trial)
        return self._violations[trial.number]

    def _split_complete(self, study: Study, trials: Trials, count: int) -> tuple[Trials, Trials]:
        if not 0 < count < len(trials):
            return (trials, []) if count else ([], trials)
        signs = [-1.0 if d == StudyDirection.MAXIMIZE else 1.0 for d in study.directions]
        is_good = self._best(np.array([trial.values for trial in trials]) * signs, count)
        good = [trial for trial, is_in in zip(trials, is_good, strict=True) if is_in]
        return good, [trial for trial, is_in in zip(trials, is_good, strict=True) if not is_in]

    def _best(self, points: np.ndarray, count: int) -> np.ndarray:
        """Return which ``count`` points are best: whole ranks, and of the last one what adds most hypervolume."""
        ranks = pareto_ranks(points)
        last = int(np.sort(ranks)[count - 1])
        chosen = ranks < last
        tied, room = np.flatnonzero(ranks == last), count - int(chosen.sum())
        if room < len(tied):
            reference = _get_reference_point(points[tied])
            if not self._greedy.is_of(points[tied], reference):
                self._greedy = _Greedy(points[tied], reference)
            tied = tied[self._greedy.first(room)]
        chosen[tied] = True
        return chosen

    # what trials say

    def _get_internal_repr(
        self, trials: Trials, search_space: dict[str, BaseDistribution], study: Study
    ) -> dict[str, np.ndarray]:
        names = list(search_space)
        rows = np.empty((len(trials), len(names)))
        finished = [place for place, trial in enumerate(trials) if trial.state.is_finished()]
        rows[finished] = self._table.rows([trials[place] for place in finished], names)
        for place in set(range(len(trials))) - set(finished):
            params = self._get_params(trials[place], study)
            rows[place] = [d.to_internal_repr(params[n]) if n in params else np.nan for n, d in search_space.items()]
        rows = rows[~np.isnan(rows).any(axis=1)]
        return {name: rows[:, column] for column, name in enumerate(names)}


def _number(trial: FrozenTrial) -> int:
    return trial.number


class _Table:
    """The parameters of finished trials as numbers: a row a trial, a column a parameter, NaN where a trial has none."""

    def __init__(self) -> None:
        self._columns: dict[str, int] = {}
        self._cells = np.full((256, 0), np.nan)
        self._known: set[int] = set()

    def rows(self, trials: Sequence[FrozenTrial], names: Sequence[str]) -> np.ndarray:
        """Return the numbers of trials, a column for each name."""
        for trial in trials:
            if trial.number not in self._known:
                self._add(trial)
        numbers = [trial.number for trial in trials]
        found = np.full((len(trials), len(names)), np.nan)
        known = [place for place, name in enumerate(names) if name in self._columns]
        found[:, known] = self._cells[np.ix_(numbers, [self._columns[names[place]] for place in known])]
        return found

    def _add(self, trial: FrozenTrial) -> None:
        for name in trial.params:
            self._columns.setdefault(name, len(self._columns))
        high, wide = self._cells.shape
        if trial.number >= high or len(self._columns) > wide:
            larger = np.full((max(high, 2 * trial.number), len(self._columns)), np.nan)
            larger[:high, :wide] = self._cells
            self._cells = larger
        for name, value in trial.params.items():
            self._cells[trial.number, self._columns[name]] = trial.distributions[name].to_internal_repr(value)
        self._known.add(trial.number)


class _Greedy:
    """Points of one rank in the order in which each adds most to the hypervolume of those before it.

    A point's gain only falls as others are chosen, so that old gains are bounds, and few have to be computed anew (Guerreiro
    et al. 2016, "Greedy Hypervolume Subset Selection in Low Dimensions").

    Args:
        points: points × objectives, smaller is better.
        reference: worse than all of them in each objective.
    """

    def __init__(self, points: np.ndarray, reference: np.ndarray) -> None:
        self._points, self._reference = points, reference
        self._unique, self._places = np.unique(points, axis=0, return_index=True)
        self._volumes = np.prod(reference - self._unique, axis=1)
        self._bounds = self._volumes.copy()
        self._order: list[int] = []

    def is_of(self, points: np.ndarray, reference: np.ndarray) -> bool:
        """Return whether these are the points and the reference that it was made with."""
        return np.array_equal(points, self._points) and np.array_equal(reference, self._reference)

    def first(self, count: int) -> np.ndarray:
        """Return the places of the first ``count`` points; equal points come once before any comes twice."""
        if count > len(self._unique):
            others = np.setdiff1d(np.arange(len(self._points)), self._places)
            return np.concatenate([self._places, others[: count - len(self._unique)]])
        if not np.isfinite(self._reference).all():
            return self._places[:count]
        while len(self._order) < count:
            self._choose()
        return self._places[self._order[:count]]

    def _choose(self) -> None:
        from moocore import hypervolume

        chosen, exact = self._unique[self._order], np.full(len(self._unique), not self._order)
        while not exact[best := int(np.argmax(self._bounds))]:
            covered = hypervolume(np.maximum(chosen, self._unique[best]), ref=self._reference)
            self._bounds[best], exact[best] = self._volumes[best] - covered, True
        self._order.append(best)
        shared = np.prod(self._reference - np.maximum(self._unique, self._unique[best]), axis=1)
        self._bounds = np.minimum(self._bounds, self._volumes - shared)
        self._bounds[self._order] = -np.inf
