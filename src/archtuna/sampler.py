"""What to try next: an Optuna sampler's proposals, and the guarantees around them.

Whatever sampler draws, what is handed out was never evaluated, is not running elsewhere, builds, and keeps every limit.
Decisions are drawn without writing anything, judged, and only what stands is written to the trial. The file's own network,
every first option, comes first: it is what a search is to beat. After that

1. the sampler draws, up to ``SAMPLER_DRAWS`` times;
2. then networks of the study are changed in one or two decisions, with random ones between;
3. then the space is gone through in order, so that a small one is exhausted for certain and the search ends.

What breaks a limit is never trained. The first ``RECORDED`` refusals of a proposal are written down as pruned trials
with their constraints, from which samplers learn; further ones are dropped in memory.
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice, pairwise
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    _get_single_value,
)
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from archtuna.architecture import Architecture, Scalar
from archtuna.choice import Choice
from archtuna.errors import ShapeError, StudyError, nearest
from archtuna.objective import Limit, Objective, oriented, pareto_ranks
from archtuna.recipe import Recipe
from archtuna.space import Candidate, SearchSpace
from archtuna.storage import ERROR_CONSTRAINT, Attr

SAMPLER_DRAWS = 5
LOCAL_DRAWS = 300
ORDERED_DRAWS = 3_000
RECORDED = 3

Decisions = Mapping[str, Scalar]


class Exhausted(Exception):
    """The space holds nothing new; ``str`` says so for a person."""


class GaveWay(Exception):
    """The trial's network is taken by another trial, which goes on with it."""

    def __init__(self, number: int) -> None:
        super().__init__(f"trial {number} has the same network")
        self.number = number


class Refused(Exception):
    """A network that was asked for by name cannot be tried; ``str`` says why."""


def evaluation_of(architecture: Architecture, recipe: Recipe) -> str:
    """Return 16 hexadecimal digits for "this network trained this way", the identity of never evaluating twice."""
    return hashlib.sha256(f"{architecture.key}:{recipe.key}".encode()).hexdigest()[:16]


# --- choices as Optuna's distributions ------------------------------------------------------------


@dataclass(frozen=True)
class Coding:
    """How a choice's values are written as an Optuna parameter.

    Ordered choices reach the sampler as ordered numbers: ranges and whole numbers at equal distances as they are, other
    numbers (``16|24|40``) as their place, from 0, among the options in ascending order. The rest are categories.

    Attributes:
        distribution: the same for the same choice always, as Optuna demands within a study.
        places: the options in ascending order where the parameter is a place, else None.
        grid: the values of a range with a step, onto which a parameter is snapped, else None.
    """

    distribution: BaseDistribution
    places: tuple[Scalar, ...] | None = None
    grid: tuple[Scalar, ...] | None = None

    def value(self, parameter: Any) -> Scalar:
        """Return the choice's value for a parameter."""
        if self.places is not None:
            return self.places[int(parameter)]
        if self.grid is not None:
            return min(self.grid, key=lambda value: abs(value - parameter))
        return parameter

    def parameter(self, value: Scalar) -> Any:
        """Return the parameter for a value of the choice.

        Raises:
            ValueError: the choice has no such value.
        """
        parameter: Any = self.places.index(value) if self.places is not None else value
        if self.grid is not None:
            parameter = round(parameter, 12)  # The last of 0.1, 0.2, 0.30000000000000004 lies beyond the range's end.
        if not self.distribution._contains(self.distribution.to_internal_repr(parameter)):
            raise ValueError(f"{value!r} is not among the values")
        return parameter


def coding_of(choice: Choice) -> Coding:
    """Return how a choice is written as an Optuna parameter."""
    if choice.options is None:
        return _coding_of_range(choice)
    options = choice.options
    if not all(isinstance(o, int | float) and not isinstance(o, bool) for o in options):
        return Coding(CategoricalDistribution(options))
    ordered = tuple(sorted(options, key=float))  # type: ignore[arg-type]
    gaps = {b - a for a, b in pairwise(ordered)}  # type: ignore[operator]
    if all(isinstance(o, int) for o in ordered) and len(gaps) <= 1:
        return Coding(IntDistribution(ordered[0], ordered[-1], step=gaps.pop() if gaps else 1))  # type: ignore[arg-type]
    return Coding(IntDistribution(0, len(ordered) - 1), places=ordered)


def _coding_of_range(choice: Choice) -> Coding:
    low, high = choice.low, choice.high
    if choice.kind == "int":
        step = int(choice.step or 1)
        if choice.log:
            return Coding(IntDistribution(int(low), int(high), log=True))
        return Coding(IntDistribution(int(low), int(low) + (int(high) - int(low)) // step * step, step=step))
    if choice.step is None:
        return Coding(FloatDistribution(low, high, log=choice.log))
    grid = choice.values()
    # A range whose end is no multiple of its step ends at the last value before; optuna would warn of it.
    return Coding(FloatDistribution(low, round(float(grid[-1]), 12), step=choice.step), grid=grid)  # type: ignore


# --- samplers -------------------------------------------------------------------------------------

SAMPLERS: Mapping[str, str] = {
    "tpe": "TPESampler", "nsga2": "NSGAIISampler", "nsga3": "NSGAIIISampler", "random": "RandomSampler",
    "gp": "GPSampler", "qmc": "QMCSampler", "cmaes": "CmaEsSampler",
}  # fmt: skip
"""Optuna's samplers by the names that files and the command line use."""


def make_sampler(sampler: str | BaseSampler | None, *, objectives: int, seed: int | None) -> BaseSampler:
    """Return an Optuna sampler.

    Args:
        sampler: a name of ``SAMPLERS``, an Optuna sampler, which is returned as it is, or None for multivariate TPE,
            the best of Optuna's for several objectives with limits and conditional choices.
        objectives: how many the study has.
        seed: of its draws; see ``seed_of``.

    Raises:
        StudyError: an unknown name, or a sampler that cannot do several objectives or needs a package that is missing.
    """
    if isinstance(sampler, BaseSampler):
        return sampler
    name = "tpe" if sampler is None else str(sampler).lower()
    if name not in SAMPLERS:
        known = f"known: {', '.join(SAMPLERS)}"
        raise StudyError(f"unknown sampler '{sampler}'", hint=nearest(name, SAMPLERS) or known)
    if name == "cmaes" and objectives > 1:
        raise StudyError("the sampler cmaes knows one objective only", hint="use tpe, nsga2, nsga3 or gp")
    options: dict[str, Any] = {"seed": seed}
    if name == "tpe":
        options |= {"multivariate": True, "constant_liar": True, "warn_independent_sampling": False}
    elif name in ("gp", "qmc", "cmaes"):
        options |= {"warn_independent_sampling": False}
    with warnings.catch_warnings():
        # Optuna marks samplers as experimental, and the switch that quiets its advice on conditional choices as old.
        for category in (optuna.exceptions.ExperimentalWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        try:
            return getattr(optuna.samplers, SAMPLERS[name])(**options)
        except ImportError as error:
            missing = error.name or str(error)
    raise StudyError(f"the sampler {name} needs a package that is missing: {missing}", hint=f"pip install {missing}")


def seed_of(seed: int | None, worker: int, started: int) -> int | None:
    """Return the seed of one worker's draws: another for each worker and each time that a study goes on."""
    if seed is None:
        return None
    return int.from_bytes(hashlib.sha256(f"{seed}:{worker}:{started}".encode()).digest()[:4], "big") % 2**31


# --- asking ---------------------------------------------------------------------------------------


def ask(study: optuna.Study, worker: Mapping[str, Any]) -> optuna.Trial:
    """Take up a waiting trial, or create a new one, with its worker's name on it from its first moment.

    ``Study.ask`` has a moment in which a killed worker leaves a running trial that nobody can tell from a live one.
    """
    # What Study.ask does first: samplers may cache trials for the length of one trial.
    study._thread_local.cached_all_trials = None
    trial_id = _pop_waiting(study, worker)
    if trial_id is None:
        born = create_trial(state=TrialState.RUNNING, user_attrs={Attr.WORKER: dict(worker)})
        trial_id = study._storage.create_new_trial(study._study_id, template_trial=born)
    return optuna.Trial(study, trial_id)


def _pop_waiting(study: optuna.Study, worker: Mapping[str, Any]) -> int | None:
    storage = study._storage
    for trial in study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        try:
            # Named before it is taken, so that no moment without an owner follows, and after, in case another worker
            # wanted it too and named it in between.
            storage.set_trial_user_attr(trial._trial_id, Attr.WORKER, dict(worker))
            if storage.set_trial_state_values(trial._trial_id, state=TrialState.RUNNING):
                storage.set_trial_user_attr(trial._trial_id, Attr.WORKER, dict(worker))
                return trial._trial_id
        except optuna.exceptions.UpdateFinishedTrialError:
            continue
    return None


# --- proposing ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Proposal:
    """A trial that is ready to be evaluated."""

    trial: optuna.Trial
    candidate: Candidate
    costs: Mapping[str, float]

    @property
    def number(self) -> int:
        return self.trial.number


@dataclass(frozen=True)
class Draw:
    """Decisions, the parameters that write them down, and what they resolve to: None where the rows make no network."""

    decisions: Decisions
    parameters: Mapping[str, Any]
    evaluation: str
    candidate: Candidate | None
    problem: str = ""


@dataclass(frozen=True)
class Verdict:
    """What is known of a network before training: its costs, and by how much it breaks each limit."""

    costs: Mapping[str, float]
    constraints: Mapping[str, float]
    reason: str | None = None

    @property
    def violation(self) -> float:
        return sum(v for v in self.constraints.values() if v > 0)


Cost = Callable[[Architecture], Mapping[str, float]]


def judge(draw: Draw, cost: Cost, limits: Sequence[Limit]) -> Verdict:
    """Return whether a network may be trained: it builds, and keeps every limit."""
    if draw.candidate is None:
        return Verdict({}, {ERROR_CONSTRAINT: 2.0}, draw.problem)
    try:
        costs = dict(cost(draw.candidate.architecture))
    except ShapeError as error:
        return Verdict({}, {ERROR_CONSTRAINT: 2.0}, error.message)
    constraints = {limit.name: limit.violation(costs) for limit in limits}
    broken = [f"{costs[x.name]:,.6g} {x.name}, limit {x.bound:,g}" for x in limits if constraints[x.name] > 0]
    return Verdict(costs, constraints, "; ".join(broken) or None)


RefusedCallback = Callable[[int, str | None, str, Mapping[str, float]], None]


@dataclass
class Proposer:
    """Draws the next network of a study.

    Attributes:
        study: Optuna's study, with its sampler.
        space: where decisions come from.
        cost: what a network costs before training; raises ShapeError for one that does not build.
        limits: what must not be broken.
        objectives: of the study, in order.
        seed: of the draws that are not the sampler's.
        on_refused: told of each refusal that is written down: number, key, reason, costs.
    """

    study: optuna.Study
    space: SearchSpace
    cost: Cost
    objectives: Sequence[Objective]
    limits: Sequence[Limit] = ()
    seed: int | None = None
    on_refused: RefusedCallback = lambda number, key, reason, costs: None
    _refused: dict[str, Verdict] = field(default_factory=dict, init=False)
    _mildest: tuple[float, Decisions] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.codings: dict[str, Coding] = {choice.name: coding_of(choice) for choice in self.space.choices}
        self.random = random.Random(self.seed)
        self._uniform = optuna.samplers.RandomSampler(seed=self.seed)
        self._in_order: Iterator[Draw] | None = None
        self._values = {choice.name: choice.values() for choice in self.space.choices}

    def propose(self, trial: optuna.Trial) -> Proposal:
        """Give a trial its network: one that is new, builds and keeps the limits.

        Raises:
            Exhausted: there is none left.
            GaveWay: another worker took the same network at the same time, or the trial was queued with a known one.
            Refused: the trial was queued with a network that breaks a limit.
            StudyError: the limits refuse everything.
        """
        present = self.study._storage.get_trial(trial._trial_id)
        if Attr.EVALUATION in present.user_attrs:
            return self._take_up(trial)
        fixed = {**present.params, **present.system_attrs.get("fixed_params", {})}
        draw, verdict = self._find_queued(trial, fixed) if fixed else self._find(trial)
        assert draw.candidate is not None, "a draw without a network is refused"
        self._write(trial, draw, verdict)
        return Proposal(trial, draw.candidate, verdict.costs)

    def _take_up(self, trial: optuna.Trial) -> Proposal:
        """Return the proposal of a trial that was handed back."""
        decisions = trial.user_attrs[Attr.DECISIONS]
        candidate = self.space.resolve(lambda choice: decisions[choice.name])
        return Proposal(trial, candidate, self.cost(candidate.architecture))

    def _find(self, trial: optuna.Trial) -> tuple[Draw, Verdict]:
        known = self._known(trial)
        recorded = 0
        for draw in chain([] if known else [self._own()], self._draws(trial)):
            if draw.evaluation in known or draw.evaluation in self._refused:
                continue
            verdict = judge(draw, self.cost, self.limits)
            if verdict.reason is None:
                return draw, verdict
            self._remember(draw, verdict)
            if recorded < RECORDED:
                recorded += 1
                self._record(draw, verdict)
        raise self._nothing_left()

    def _find_queued(self, trial: optuna.Trial, fixed: Mapping[str, Any]) -> tuple[Draw, Verdict]:
        """Complete a trial that came with parameters; what those leave open is the sampler's."""
        known = self._known(trial)
        twin, verdict = None, None
        for draw in self._sampled(trial, fixed, SAMPLER_DRAWS):
            twin = known.get(draw.evaluation)
            verdict = judge(draw, self.cost, self.limits)
            if verdict.reason is None and twin is None:
                return draw, verdict
        if twin is not None:
            raise GaveWay(twin)
        raise Refused(verdict.reason if verdict else "its parameters do not fit the space")

    def _known(self, trial: optuna.Trial) -> dict[str, int]:
        """Return the number of the trial that has each evaluation: done, refused, running or waiting."""
        return {
            t.user_attrs[Attr.EVALUATION]: t.number
            for t in self.study.get_trials(deepcopy=False)
            if t.state != TrialState.FAIL and t.number != trial.number and Attr.EVALUATION in t.user_attrs
        }

    # draws

    def _draws(self, trial: optuna.Trial) -> Iterator[Draw]:
        yield from self._sampled(trial, {}, SAMPLER_DRAWS)
        yield from self._local(LOCAL_DRAWS)
        if self._in_order is None:
            self._in_order = self._every()
        yield from islice(self._in_order, ORDERED_DRAWS)

    def _own(self) -> Draw:
        """Return the file's own network, every first option: what a search is to beat comes first."""
        own = {choice.name: choice.default for choice in self.space.choices}
        return self._resolve(lambda name, distribution: self.codings[name].parameter(own[name]))

    def _sampled(self, trial: optuna.Trial, fixed: Mapping[str, Any], times: int) -> Iterator[Draw]:
        """Yield what the study's sampler draws for a trial; nothing is written to it."""
        sampler, study = self.study.sampler, self.study
        frozen = study._storage.get_trial(trial._trial_id)
        for attempt in range(times):
            relative = trial.relative_params
            if attempt:
                relative = sampler.sample_relative(study, frozen, trial.relative_search_space or {})
            yield self._resolve(partial(self._parameter, _scratch_copy(frozen), {**relative, **fixed}))

    def _parameter(self, trial: FrozenTrial, given: Mapping[str, Any], name: str, coded: BaseDistribution) -> Any:
        """Return one parameter as given or drawn on its own; the trial remembers it for samplers that look back."""
        if name in given:
            value = given[name]
        elif coded.single():
            value = _get_single_value(coded)
        else:
            value = self.study.sampler.sample_independent(self.study, trial, name, coded)
        trial.params[name], trial.distributions[name] = value, coded
        return value

    def _local(self, times: int) -> Iterator[Draw]:
        """Yield changed networks of the study, and every fourth time a random one."""
        parents = self._parents()
        for attempt in range(times):
            # While nothing keeps the limits, what breaks them least leads the way.
            leads = parents or ([self._mildest[1]] if self._mildest else [])
            if attempt % 4 == 3 or not leads:
                yield self._resolve(self._random_parameter)
            else:
                yield self._mutate(self.random.choice(leads))

    def _parents(self) -> list[Decisions]:
        done = [t for t in self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if t.values]
        done = [t for t in done if Attr.DECISIONS in t.user_attrs and t.user_attrs.get(Attr.OUTCOME) != "stopped"]
        if not done:
            return []
        ranks = pareto_ranks(oriented([t.values for t in done], self.objectives))
        return [t.user_attrs[Attr.DECISIONS] for t, rank in zip(done, ranks, strict=True) if rank == 0]

    def _mutate(self, parent: Decisions) -> Draw:
        names = [name for name in parent if name in self.codings and not self.codings[name].distribution.single()]
        edited = set(self.random.sample(names, min(len(names), self.random.choice((1, 2)))))

        def parameter(name: str, distribution: BaseDistribution) -> Any:
            if name not in parent:
                return self._random_parameter(name, distribution)
            old = self.codings[name].parameter(parent[name])
            if name not in edited:
                return old
            fresh = (self._random_parameter(name, distribution) for _ in range(16))
            return next((value for value in fresh if value != old), old)

        return self._resolve(parameter)

    def _random_parameter(self, name: str, distribution: BaseDistribution) -> Any:
        return self._uniform.sample_independent(self.study, _NO_TRIAL, name, distribution)

    def _every(self) -> Iterator[Draw]:
        """Yield every network of the space in order; ends at once where a choice is continuous."""
        path: list[tuple[tuple[Scalar, ...], int]] = []
        depth = 0

        def parameter(name: str, distribution: BaseDistribution) -> Any:
            nonlocal depth
            if depth == len(path):
                path.append((self._values[name] or (), 0))
            options, place = path[depth]
            depth += 1
            return self.codings[name].parameter(options[place])

        while all(self._values.values()):
            depth = 0
            yield self._resolve(parameter)
            del path[depth:]
            while path and path[-1][1] + 1 == len(path[-1][0]):
                path.pop()
            if not path:
                return
            path[-1] = (path[-1][0], path[-1][1] + 1)

    def _resolve(self, parameter: Callable[[str, BaseDistribution], Any]) -> Draw:
        """Resolve the space by parameters that are asked for one by one."""
        parameters: dict[str, Any] = {}
        decisions: dict[str, Scalar] = {}

        def pick(choice: Choice) -> Scalar:
            if choice.name not in decisions:
                coding = self.codings[choice.name]
                parameters[choice.name] = parameter(choice.name, coding.distribution)
                decisions[choice.name] = coding.value(parameters[choice.name])
            return decisions[choice.name]

        try:
            candidate = self.space.resolve(pick)
        except ShapeError as error:
            return Draw(decisions, parameters, _digest(decisions), None, error.message)
        return Draw(decisions, parameters, evaluation_of(candidate.architecture, candidate.recipe), candidate)

    # records

    def _remember(self, draw: Draw, verdict: Verdict) -> None:
        self._refused[draw.evaluation] = verdict
        if verdict.costs and (self._mildest is None or verdict.violation < self._mildest[0]):
            self._mildest = (verdict.violation, dict(draw.decisions))

    def _record(self, draw: Draw, verdict: Verdict) -> None:
        """Write a refusal down as a trial of its own: pruned, with the constraints that it breaks."""
        reason = verdict.reason or ""
        trial = create_trial(
            state=TrialState.PRUNED,
            params=dict(draw.parameters),
            distributions={name: self.codings[name].distribution for name in draw.parameters},
            user_attrs={**_attributes(draw, verdict.costs), Attr.OUTCOME: "refused", Attr.REASON: reason},
            constraints=dict(verdict.constraints),
        )
        storage = self.study._storage
        number = storage.get_trial(storage.create_new_trial(self.study._study_id, template_trial=trial)).number
        self.on_refused(number, draw.candidate.architecture.key if draw.candidate else None, reason, verdict.costs)

    def _write(self, trial: optuna.Trial, draw: Draw, verdict: Verdict) -> None:
        """Write a draw to its trial, the claim on its network last; give way where another trial has claimed it.

        Of two workers that claim at once both may give way, never both go on: the later claim sees the earlier one.
        """
        storage, trial_id = self.study._storage, trial._trial_id
        present = storage.get_trial(trial_id)
        for name, value in draw.parameters.items():
            if name not in present.params:
                distribution = self.codings[name].distribution
                storage.set_trial_param(trial_id, name, distribution.to_internal_repr(value), distribution)
        for name, violation in verdict.constraints.items():
            if name not in present.constraints:
                trial.set_constraint(name, violation)
        for key, content in _attributes(draw, verdict.costs).items():
            storage.set_trial_user_attr(trial_id, key, content)
        twin = self._known(trial).get(draw.evaluation)
        if twin is not None:
            raise GaveWay(twin)

    def _nothing_left(self) -> Exception:
        tried = any(
            t.state in (TrialState.COMPLETE, TrialState.RUNNING, TrialState.WAITING) and Attr.EVALUATION in t.user_attrs
            for t in self.study.get_trials(deepcopy=False)
        )
        if tried or not self._refused:
            return Exhausted("the space holds no network that was not tried")
        words = _refused_words(self._refused.values(), self.limits)
        return StudyError(words, hint="raise the limit, or offer smaller choices")


class _Nobody:
    """Stands where a sampler that looks at no trial wants one."""


_NO_TRIAL: Any = _Nobody()


def _digest(decisions: Decisions) -> str:
    text = json.dumps(decisions, sort_keys=True)
    return hashlib.sha256(f"decisions:{text}".encode()).hexdigest()[:16]


def _attributes(draw: Draw, costs: Mapping[str, float]) -> dict[str, Any]:
    """Return what a trial keeps of its network; the claim comes last."""
    network: dict[str, Any] = {}
    if draw.candidate is not None:
        architecture = draw.candidate.architecture
        network[Attr.KEY] = architecture.key
        network[Attr.ARCHITECTURE] = json.dumps(architecture.to_dict(), separators=(",", ":"))
        network[Attr.RECIPE] = draw.candidate.recipe.to_dict()
    return {**network, Attr.DECISIONS: dict(draw.decisions), Attr.COSTS: dict(costs), Attr.EVALUATION: draw.evaluation}


def _refused_words(refused: Collection[Verdict], limits: Sequence[Limit]) -> str:
    """Say why everything is refused: by how much the best misses each limit, or why nothing builds."""
    costs = [v.costs for v in refused if v.costs]
    if not costs:
        return f"none of {len(refused):,} networks of the space builds: {next(iter(refused)).reason}"
    smallest = {limit: min(c[limit.name] for c in costs) for limit in limits}
    out_of_reach = [limit for limit in limits if smallest[limit] > limit.bound] or list(limits)
    words = " and ".join(f"{x.name} <= {x.bound:,g} (the smallest has {smallest[x]:,.6g})" for x in out_of_reach)
    return f"none of {len(costs):,} networks that were drawn keeps {words}"


def _scratch_copy(trial: FrozenTrial) -> FrozenTrial:
    """Return a trial that samplers may look at while its parameters are drawn one by one."""
    scratch = copy.copy(trial)
    scratch._params, scratch._distributions = dict(trial.params), dict(trial.distributions)
    return scratch
