"""Our sampler: model only what training reveals, take the costs as they are.

Optuna's samplers treat every objective as unknown. In architecture search most are not: parameters, multiply-accumulates
and size follow from the network. ``KnownCostSampler`` fits a Gaussian process to each quality, takes each candidate's costs
as they are, and proposes the candidate that is expected to enlarge the dominated hypervolume most (the grey-box view of
Astudillo & Frazier 2022, section 3, with the improvement of ``improvement``). Candidates are changed networks of the front
and random ones. The first networks are spread over the range of costs, or expected to be worth most by their size; some later
ones are drawn at random, and some are changed networks of the front when improvement stalls, because a model alone can be
wrong with confidence.

Networks that failed in training teach where others will: what is expected of a candidate counts as far as it is likely to be
trained to its end (the constrained improvement of Gardner et al. 2014, equation 6).

It is an ordinary Optuna sampler. What was evaluated, is running or breaks a limit is never proposed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import compress
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from scipy.special import ndtr

from archtuna.guess import Guess
from archtuna.improvement import Known, Uncertain, expected_improvement
from archtuna.objective import hypervolume, nondominated, pareto_ranks
from archtuna.surrogate import Coordinates, Surrogate

Pick = Callable[[str, BaseDistribution], Any]

POOL = 100
"""Random candidates from which the start and the explorations are taken."""

START = 6
"""Networks that are begun before a model is asked."""

CANDIDATES = 400
EXPLORE = 0.1
STALL = 10
MODELLED = 500
GROWTH = 1.2
CLIMBS = 3

CHANCE, HOPELESS = -1, 0.01
"""Among the surrogates, which have the indices of objectives, that of what fails; and the least chance that a network has."""


@dataclass(frozen=True)
class Point:
    """One network, as far as it is known before training.

    Attributes:
        key: equal for equal networks.
        costs: what is known of the objectives: value by the objective's index, in the study's own terms.
        facts: further positive numbers that may tell the quality, such as parameters.
        feasible: whether it builds and keeps every limit.
    """

    key: Hashable
    costs: Mapping[int, float] = field(default_factory=dict)
    facts: tuple[float, ...] = ()
    feasible: bool = True


Network = Callable[[Pick], Point]

Curve = Sequence[Mapping[int, float]]
"""What a trial came to at each rung that it reached: value by the objective's index, in the study's own terms."""


@dataclass(frozen=True)
class Candidate:
    """A point with the parameters that make it."""

    point: Point
    parameters: Mapping[str, Any]
    distributions: Mapping[str, BaseDistribution]

    @cached_property
    def places(self) -> dict[str, float]:
        """Where each parameter lies, as the model sees it."""
        return {name: _place(distribution, self.parameters[name]) for name, distribution in self.distributions.items()}


def flat(
    distributions: Mapping[str, BaseDistribution], costs: Callable[[Mapping[str, Any]], Sequence[float | None] | None]
) -> Network:
    """Return the network function of a space in which every parameter is always asked.

    Args:
        distributions: of every parameter, by name.
        costs: for a choice of all parameters a value for each objective, None where only training tells it; None for a
            choice that is not to be tried.
    """

    def network(pick: Pick) -> Point:
        parameters = {name: pick(name, distribution) for name, distribution in distributions.items()}
        known = costs(parameters)
        key = tuple(parameters.items())
        if known is None:
            return Point(key, feasible=False)
        return Point(key, {i: float(value) for i, value in enumerate(known) if value is not None})

    return network


class KnownCostSampler(BaseSampler):
    """Proposes networks by expected hypervolume improvement, with the costs taken as known.

    Args:
        network: asks its parameters one by one and returns what is known of the network they make; ``flat`` makes one from
            distributions. It must give the same for the same parameters.
        reference: for each objective the ideal and the worst value that counts, in the study's own terms; None guesses both
            from what was seen.
        seed: of its draws.
        curve: what a trial came to at its rungs, from which the end of one that was stopped early is forecast.
        failed: whether a trial is one whose network could not be trained: it ran out of memory, or its loss became no number.
    """

    def __init__(
        self,
        network: Network,
        *,
        reference: Sequence[tuple[float, float]] | None = None,
        seed: int | None = None,
        curve: Callable[[FrozenTrial], Curve] = lambda trial: (),
        failed: Callable[[FrozenTrial], bool] = lambda trial: False,
    ) -> None:
        self.network, self.reference, self.curve, self.failed = network, reference, curve, failed
        self._random = random.Random(seed)
        self._trials: dict[int, Candidate | None] = {}
        self._surrogates: dict[int, Surrogate] = {}
        self._tuned = 0
        self._next: Candidate | None = None

    # what Optuna calls

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        self._next = self.propose(study, trial.number)
        return dict(self._next.distributions) if self._next else {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        chosen, self._next = self._next or self.propose(study, trial.number), None
        return dict(chosen.parameters) if chosen else {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return _random_value(param_distribution, self._random)

    def reseed_rng(self) -> None:
        self._random = random.Random()

    # proposing

    def propose(self, study: optuna.Study, number: int | None = None) -> Candidate | None:
        """Return the next network, or None where none that is new and feasible was found.

        Args:
            study: what was tried.
            number: a trial to leave out of account: the one that is proposed for.
        """
        view = self._view(study, number)
        if view.begun < START or len(view.done) < 3:
            return self._start(view)
        if self._random.random() < EXPLORE * min(1.0, 100 / view.begun):  # Later there is less to be wrong about.
            return next(iter(self._new(self._random_draws(POOL // 2), view)), None) or self._start(view)
        if view.stalled() >= STALL and self._random.random() < 0.2:
            changed = self._new((self._changed(parent, 1) for parent in self._parents(view, 20)), view)
            if changed:
                return self._random.choice(changed)
        return self._best(view)

    def _view(self, study: optuna.Study, number: int | None) -> _View:
        view = _View(study.directions, self.reference)
        for trial in study.get_trials(deepcopy=False):
            if trial.number == number or trial.state in (TrialState.FAIL, TrialState.WAITING) or not trial.params:
                continue
            candidate = self._of_trial(trial)
            if candidate is not None and self.failed(trial):
                view.add_failed(candidate)
            elif candidate is not None:
                view.add(trial, candidate, self.curve(trial))
        return view

    def _of_trial(self, trial: FrozenTrial) -> Candidate | None:
        """Return a trial's network, or None where its parameters make none here."""
        if trial.number not in self._trials:
            try:
                found = self._draw(lambda name, distribution: trial.params[name])
            except (KeyError, ValueError):
                if not trial.state.is_finished():
                    return None  # Its parameters are still being suggested.
                found = None
            self._trials[trial.number] = found
        return self._trials[trial.number]

    def _start(self, view: _View) -> Candidate | None:
        """Return a random network for the model to begin with.

        By turns it is the one that is worth most by its size, and the one whose costs are farthest from all that was begun:
        the first is where the hypervolume grows, the second keeps the model from guessing beyond what it saw.
        """
        pool = self._new(self._random_draws(POOL), view)
        if not pool or not _facts_of(pool[0].point):
            return pool[0] if pool else None
        chance = _Chance(view, self._surrogates).of(pool)
        if view.begun % 2 and view.done and view.reference is not None and view.qualities():
            return pool[int(np.argmax(_First(view).score(pool) * chance))]
        return self._spread(view, pool, chance)

    def _spread(self, view: _View, pool: Sequence[Candidate], chance: np.ndarray) -> Candidate:
        """Return the network whose costs are farthest from those of every network that was begun."""
        begun = [c for c in (*view.candidates, *view.stopped, *view.pending, *view.failed) if c.point.feasible]
        levels = _sizes([*pool, *begun])
        low, high = np.quantile(levels[: len(pool)], (0.02, 0.98))
        levels = np.clip(levels, low, high)
        if not begun:
            return pool[int(np.argmin(np.abs(levels - np.median(levels))))]
        gaps = np.abs(levels[: len(pool), None] - levels[None, len(pool) :]).min(axis=1)
        return pool[int(np.argmax(gaps * chance))]

    def _best(self, view: _View) -> Candidate | None:
        """Return the candidate of the greatest expected improvement."""
        model, chance = self._fit(view), _Chance(view, self._surrogates)
        pool = self._new(self._candidates(view), view)
        if not pool:
            return self._start(view)
        scores = model.score(pool) * chance.of(pool)
        keys = {candidate.point.key for candidate in pool}
        for _ in range(CLIMBS):
            leaders = [pool[i] for i in np.argsort(-scores, kind="stable")[:5]]
            edits = (self._changed(leader, 1) for leader in leaders for _ in range(12))
            fresh = [c for c in self._new(edits, view) if c.point.key not in keys]
            if not fresh:
                break
            keys.update(candidate.point.key for candidate in fresh)
            found = model.score(fresh) * chance.of(fresh)
            risen = found.max() > scores.max()
            pool, scores = [*pool, *fresh], np.concatenate([scores, found])
            if not risen:
                break
        if scores.max() <= 0.0:
            return self._random.choice(pool)
        return pool[int(np.argmax(scores))]

    def _fit(self, view: _View) -> _Model:
        """Fit a surrogate to each quality; hyperparameters again whenever the trials have grown by a fifth."""
        tune = len(view.done) >= GROWTH * self._tuned or len(view.done) < self._tuned
        self._tuned = len(view.done) if tune else self._tuned
        return _Model(view, self._surrogates, tune)

    # draws

    def _draw(self, pick: Pick) -> Candidate:
        """Return the network of the parameters that ``pick`` gives."""
        parameters: dict[str, Any] = {}
        distributions: dict[str, BaseDistribution] = {}

        def recorded(name: str, distribution: BaseDistribution) -> Any:
            if name not in parameters:
                parameters[name], distributions[name] = pick(name, distribution), distribution
            return parameters[name]

        return Candidate(self.network(recorded), parameters, distributions)

    def _new(self, draws: Iterable[Candidate], view: _View) -> list[Candidate]:
        """Return the draws that are feasible and were neither evaluated nor begun, each once."""
        found: dict[Hashable, Candidate] = {}
        for candidate in draws:
            if candidate.point.feasible and candidate.point.key not in view.taken:
                found.setdefault(candidate.point.key, candidate)
        return list(found.values())

    def _random_draws(self, times: int) -> Iterator[Candidate]:
        """Yield random networks, every second one with all its ordered choices leaning to the same end.

        Of many independent choices the sum is nearly always in the middle; leaning ones reach the cheap and the dear.
        """
        for i in range(times):
            lean = self._random.gauss(0.0, 2.0) if i % 2 else 0.0
            yield self._draw(partial(self._random_pick, lean))

    def _random_pick(self, lean: float, name: str, distribution: BaseDistribution) -> Any:
        return _random_value(distribution, self._random, lean)

    def _changed(self, parent: Candidate, times: int) -> Candidate:
        """Return a network with so many decisions changed; decisions that come up by that are random."""
        old = parent.parameters
        edited = set(self._random.sample(list(old), min(times, len(old))))

        def pick(name: str, distribution: BaseDistribution) -> Any:
            if name not in old:
                return _random_value(distribution, self._random)
            return _other_value(distribution, old[name], self._random) if name in edited else old[name]

        return self._draw(pick)

    def _crossed(self, one: Candidate, other: Candidate) -> Candidate:
        """Return a network with each decision from one of two; decisions that neither has are random."""

        def pick(name: str, distribution: BaseDistribution) -> Any:
            sources = [p.parameters for p in (one, other) if name in p.parameters]
            return self._random.choice(sources)[name] if sources else _random_value(distribution, self._random)

        return self._draw(pick)

    def _candidates(self, view: _View) -> Iterator[Candidate]:
        parents = self._parents(view, CANDIDATES)
        for i, parent in enumerate(parents):
            if i % 8 == 7:
                yield self._crossed(parent, self._random.choice(parents))
            else:
                yield self._changed(parent, 1 + (i % 3 == 2))
        yield from self._random_draws(CANDIDATES // 4)

    def _parents(self, view: _View, times: int) -> list[Candidate]:
        front = view.front()
        return [self._random.choice(front) for _ in range(times)]


# --- what was tried ----------------------------------------------------------------------------------


class _View:
    """What a study knows at one moment, smaller always better.

    Attributes:
        taken: keys of networks that were evaluated, refused, stopped or are running.
        candidates, done, curves: complete networks, their values, and what they came to at their rungs.
        stopped, cut: networks that were stopped early, and what they came to until then.
        failed: networks that could not be trained.
        pending: networks that are running.
    """

    def __init__(self, directions: Sequence[StudyDirection], reference: Sequence[tuple[float, float]] | None) -> None:
        self.signs = np.array([1.0 if d == StudyDirection.MINIMIZE else -1.0 for d in directions])
        self.reference = reference
        self.taken: set[Hashable] = set()
        self.candidates: list[Candidate] = []
        self.done: list[np.ndarray] = []
        self.curves: list[Curve] = []
        self.stopped: list[Candidate] = []
        self.cut: list[Curve] = []
        self.failed: list[Candidate] = []
        self.pending: list[Candidate] = []

    def add(self, trial: FrozenTrial, candidate: Candidate, curve: Curve) -> None:
        self.taken.add(candidate.point.key)
        if trial.state == TrialState.RUNNING:
            self.pending.append(candidate)
        elif trial.state == TrialState.PRUNED and curve:
            self.stopped.append(candidate)
            self.cut.append(curve)
        elif trial.state == TrialState.COMPLETE and trial.values is not None:
            values = np.array(trial.values, dtype=float) * self.signs
            if not np.isfinite(values).all():
                self.failed.append(candidate)  # Optuna takes an infinite value, from which nothing else can be learnt.
                return
            self.curves.append(curve)
            self.candidates.append(candidate)
            self.done.append(values)

    def add_failed(self, candidate: Candidate) -> None:
        self.taken.add(candidate.point.key)
        self.failed.append(candidate)

    @property
    def begun(self) -> int:
        """How many networks are complete, stopped, failed or running."""
        return len(self.done) + len(self.stopped) + len(self.failed) + len(self.pending)

    def points(self) -> np.ndarray:
        return np.array(self.done).reshape(-1, len(self.signs))

    def front(self) -> list[Candidate]:
        return list(compress(self.candidates, nondominated(self.points())))

    def qualities(self) -> list[int]:
        """Return the objectives that only training tells."""
        known = set(self.candidates[0].point.costs)
        return [i for i in range(len(self.signs)) if i not in known]

    def worst(self) -> np.ndarray:
        """Return the worst value of each objective that counts."""
        points = self.points()
        if self.reference is not None:
            return self.signs * np.array([worst for _, worst in self.reference])
        # A few hopeless networks must not make everything count.
        best, middle = points.min(axis=0), np.median(points, axis=0)
        found = np.minimum(points.max(axis=0), middle + 3.0 * (middle - best))
        for i in set(range(len(self.signs))) - set(self.qualities()):
            found[i] = points[:, i].max()
        return found + 1e-9 * np.abs(found)

    def ideal(self) -> np.ndarray:
        """Return a value of each objective that none can beat."""
        if self.reference is not None:
            return self.signs * np.array([ideal for ideal, _ in self.reference])
        return np.array([_ideal_of(column, sign) for column, sign in zip(self.points().T, self.signs, strict=True)])

    def stalled(self) -> int:
        """Return how many of the last networks did not enlarge the dominated hypervolume by a thousandth."""
        points, worst = self.points(), self.worst()
        best = points.min(axis=0)
        last = hypervolume(points, best, worst)
        n = len(points)
        return next(
            (k for k in range(1, min(n, STALL + 1)) if hypervolume(points[: n - k], best, worst) < 0.999 * last), STALL
        )


def _ideal_of(oriented: np.ndarray, sign: float) -> float:
    """Guess the best value that there can be: 0 for what is positive and minimised, 1 or 100 for shares and per cents."""
    if sign > 0 and oriented.min() >= 0:
        return 0.0
    highest, lowest = -oriented.min(), -oriented.max()
    if sign < 0 and lowest >= 0 and highest <= 100:
        return -1.0 if highest <= 1 else -100.0
    return float(oriented.min() - 0.5 * np.ptp(oriented) - 1e-9)


# --- the model of the qualities ----------------------------------------------------------------------


class _Belief:
    """What is expected of the qualities of networks, and so what a candidate is worth.

    Attributes:
        front: complete networks, and running ones as they are expected to come out, where they count.
        floor: of each objective the least distance from the ideal that the scale tells apart.
    """

    def __init__(self, view: _View) -> None:
        self.view, self.worst, self.ideal = view, view.worst(), view.ideal()
        points = view.points()
        self.front = points[(points < self.worst).all(axis=1)]
        away = points - self.ideal
        nearest = np.where(away > 0, away, np.inf).min(axis=0, initial=np.inf)
        self.floor = np.where(np.isfinite(nearest), nearest / 2, 1e-9)

    def predict(self, candidates: Sequence[Candidate]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Return mean and standard deviation of each quality on the model's scale."""
        raise NotImplementedError

    def scaled(self, i: int, oriented: np.ndarray) -> np.ndarray:
        """Return values of a quality on the model's scale, on which halving an error counts the same at every level.

        What is perfect counts as half of the least error that was seen: on no scale would it be an outlier more.
        """
        return np.log(np.maximum(oriented - self.ideal[i], self.floor[i]))

    def take_in(self, pending: Sequence[Candidate]) -> dict[int, np.ndarray]:
        """Take running networks for what is expected of them, so that others are proposed beside them; return that."""
        costs = [[c.point.costs.get(i, math.nan) for i in range(len(self.worst))] for c in pending]
        believed = np.array(costs) * self.view.signs
        means = {i: mean for i, (mean, _) in self.predict(pending).items()}
        for i, mean in means.items():
            believed[:, i] = np.exp(mean) + self.ideal[i]
        self.front = np.concatenate([self.front, believed[(believed < self.worst).all(axis=1)]])
        return means

    def score(self, candidates: Sequence[Candidate]) -> np.ndarray:
        """Return the expected improvement of each candidate."""
        expected = self.predict(candidates)
        objectives: list[Known | Uncertain] = []
        for i in range(len(self.worst)):
            if i in expected:
                objectives.append(Uncertain(self.ideal[i], *expected[i]))
            else:
                objectives.append(Known(self.view.signs[i] * np.array([c.point.costs[i] for c in candidates])))
        return expected_improvement(objectives, self.front[nondominated(self.front)], self.worst)


class _First(_Belief):
    """What is expected before decisions are modelled: it goes by size alone."""

    def __init__(self, view: _View) -> None:
        super().__init__(view)
        points, sizes = view.points(), _sizes(view.candidates)
        self.guesses = {i: Guess.fitted(sizes, self.scaled(i, points[:, i])) for i in view.qualities()}
        if view.pending:
            self.take_in(view.pending)

    def predict(self, candidates: Sequence[Candidate]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        sizes = _sizes(candidates)
        return {i: guess.predict(sizes) for i, guess in self.guesses.items()}


class _Model(_Belief):
    """What surrogates of the qualities expect."""

    def __init__(self, view: _View, surrogates: dict[int, Surrogate], tune: bool) -> None:
        super().__init__(view)
        kept = _modelled(view.points())
        cut = range(max(0, len(view.stopped) - MODELLED // 2), len(view.stopped))
        known = [*(view.candidates[i] for i in kept), *(view.stopped[i] for i in cut)]
        self.frame = _Frame(known)
        x, points = self.frame.coordinates(known), view.points()
        self.models: dict[int, Surrogate] = {}
        self.seen: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for i in view.qualities():
            ends = self._forecasts(i, [view.cut[c] for c in cut])
            y = np.array([*self.scaled(i, points[kept, i]), *(mean for mean, _ in ends)])
            self.seen[i] = y, np.array([*np.zeros(len(kept)), *(variance for _, variance in ends)])
            self.models[i] = surrogates.setdefault(i, Surrogate()).fit(x, *self.seen[i], tune=tune)
        if view.pending:
            self._believe(x, view.pending)

    def _forecasts(self, i: int, curves: Sequence[Curve]) -> list[tuple[float, float]]:
        """Return mean and variance of where each stopped network would have ended, on the model's scale.

        Complete networks tell how far it is from a network's last rung to the end.
        """
        levels = {len(curve) - 1 for curve in curves}
        ways = {level: self._way(i, level) for level in levels}
        found = []
        for curve in curves:
            mean, variance = ways[len(curve) - 1]
            found.append((float(self.scaled(i, self.view.signs[i] * curve[-1][i])) + mean, variance))
        return found

    def _way(self, i: int, level: int) -> tuple[float, float]:
        """Return mean and variance of what is left from a rung to the end, a great variance where few have told."""
        reached = [n for n, curve in enumerate(self.view.curves) if len(curve) > level]
        if len(reached) < 3:
            return 0.0, 1.0
        at = self.view.signs[i] * np.array([self.view.curves[n][level][i] for n in reached])
        ways = self.scaled(i, self.view.points()[reached, i]) - self.scaled(i, at)
        return float(np.median(ways)), float(np.var(ways)) + 1e-4

    def predict(self, candidates: Sequence[Candidate]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        x = self.frame.coordinates(candidates)
        return {i: model.predict(x) for i, model in self.models.items()}

    def _believe(self, x: Coordinates, pending: Sequence[Candidate]) -> None:
        there = self.frame.coordinates(pending)
        both = Coordinates(np.concatenate([x.values, there.values]), x.ordered)
        for i, mean in self.take_in(pending).items():
            y, noise = self.seen[i]
            y, noise = np.concatenate([y, mean]), np.concatenate([noise, np.zeros(len(mean))])
            self.models[i].fit(both, y, noise, tune=False)


class _Chance:
    """How likely networks are to be trained to their end, by those that were and those that failed."""

    def __init__(self, view: _View, surrogates: dict[int, Surrogate]) -> None:
        trained = [*view.candidates, *view.stopped][-MODELLED // 2 :]
        failed = view.failed[-MODELLED // 2 :]
        self.model: Surrogate | None = None
        if trained and failed:
            known = [*trained, *failed]
            self.frame = _Frame(known)
            outcomes = np.array([1.0] * len(trained) + [0.0] * len(failed))
            self.model = surrogates.setdefault(CHANCE, Surrogate()).fit(self.frame.coordinates(known), outcomes)

    def of(self, candidates: Sequence[Candidate]) -> np.ndarray:
        """Return a probability for each: that its outcome is nearer to the trained ones'."""
        if self.model is None:
            return np.ones(len(candidates))
        mean, deviation = self.model.predict(self.frame.coordinates(candidates))
        return np.maximum(ndtr((mean - 0.5) / deviation), HOPELESS)


class _Frame:
    """Where networks lie among others: their decisions, and their costs on a log scale.

    Args:
        known: the others.
    """

    def __init__(self, known: Sequence[Candidate]) -> None:
        facts = _fact_table(known)
        self.center, self.spread = facts.mean(axis=0), facts.std(axis=0) + 1e-9
        self.names, self.ordered = _names(known)

    def coordinates(self, candidates: Sequence[Candidate]) -> Coordinates:
        """Return networks as rows of numbers."""
        rows = [[c.places.get(name, math.nan) for name in self.names] for c in candidates]
        decisions = np.array(rows, dtype=float).reshape(len(candidates), len(self.names))
        facts = (_fact_table(candidates) - self.center) / (4.0 * self.spread)
        ordered = np.concatenate([self.ordered, np.ones(facts.shape[1], dtype=bool)])
        return Coordinates(np.hstack([decisions, facts]), ordered)


def _modelled(points: np.ndarray) -> np.ndarray:
    """Return which networks the model is fitted to: all, or the best ranked and the latest of many."""
    if len(points) <= MODELLED:
        return np.arange(len(points))
    ranks = pareto_ranks(points)
    order = np.lexsort((-np.arange(len(points)), ranks))
    best = order[: MODELLED // 2]
    rest = np.setdiff1d(np.arange(len(points)), best)
    return np.sort(np.concatenate([best, rest[-(MODELLED - len(best)) :]]))


def _names(candidates: Sequence[Candidate]) -> tuple[list[str], np.ndarray]:
    """Return the decisions that differ among networks, and whether each is ordered."""
    found: dict[str, BaseDistribution] = {}
    for candidate in candidates:
        found.update(candidate.distributions)
    names = [name for name in sorted(found) if not found[name].single()]
    return names, np.array([not isinstance(found[name], CategoricalDistribution) for name in names], dtype=bool)


def _sizes(candidates: Sequence[Candidate]) -> np.ndarray:
    """Return the logarithm of each network's size: the mean over all that is known of it."""
    return np.array([np.mean(np.log(_facts_of(candidate.point))) for candidate in candidates])


def _facts_of(point: Point) -> tuple[float, ...]:
    known = (*point.costs.values(), *point.facts)
    return tuple(max(abs(value), 1e-9) for value in known)


def _fact_table(candidates: Sequence[Candidate]) -> np.ndarray:
    return np.log(np.array([_facts_of(c.point) for c in candidates], dtype=float).reshape(len(candidates), -1))


# --- values of one decision --------------------------------------------------------------------------


def _place(distribution: BaseDistribution, value: Any) -> float:
    """Return the place of a value: the code of a category, else 0 to 1 on the distribution's scale."""
    if isinstance(distribution, CategoricalDistribution):
        return float(distribution.to_internal_repr(value))
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high = distribution.low, distribution.high
    if high <= low:
        return 0.0
    if distribution.log:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def _value(distribution: IntDistribution | FloatDistribution, place: float) -> Any:
    """Return the value at a place of 0 to 1."""
    low, high = distribution.low, distribution.high
    raw = low * (high / low) ** place if distribution.log else low + place * (high - low)
    if isinstance(distribution, IntDistribution):
        step = distribution.step or 1
        return min(max(low + round((raw - low) / step) * step, low), high)
    if distribution.step is not None:
        return min(low + round((raw - low) / distribution.step) * distribution.step, high)
    return min(max(raw, low), high)


def _random_value(distribution: BaseDistribution, rng: random.Random, lean: float = 0.0) -> Any:
    """Return a random value; a positive lean prefers high ones, a negative one low ones, among ordered values."""
    if isinstance(distribution, CategoricalDistribution):
        return rng.choice(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    if isinstance(distribution, IntDistribution) and not distribution.log:
        count = (distribution.high - distribution.low) // (distribution.step or 1) + 1
        if count <= 64:
            weights = [math.exp(lean * i / max(1, count - 1)) for i in range(count)]
            return distribution.low + rng.choices(range(count), weights)[0] * (distribution.step or 1)
    place = rng.random()
    if lean:  # The inverse of the cumulative distribution of exp(lean x) on 0..1.
        place = math.log1p(place * math.expm1(lean)) / lean
    return _value(distribution, place)


def _other_value(distribution: BaseDistribution, value: Any, rng: random.Random) -> Any:
    """Return another value of a decision: a near one as often as any, where there is an order."""
    if distribution.single():
        return value
    for _ in range(16):
        if isinstance(distribution, CategoricalDistribution) or rng.random() < 0.5:
            found = _random_value(distribution, rng)
        else:
            assert isinstance(distribution, IntDistribution | FloatDistribution)
            found = _value(distribution, min(max(_place(distribution, value) + rng.gauss(0.0, 0.15), 0.0), 1.0))
        if found != value:
            return found
    return value
