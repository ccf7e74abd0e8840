"""What to try next: a sampler's proposals, and the guarantees around them.

Whatever sampler draws, what is handed out was never evaluated, is not running elsewhere, builds, and keeps every limit.
Decisions are drawn without writing anything and judged; what stands becomes a trial, written whole. The file's own network,
every first option, comes first: it is what a search is to beat. After that

1. the sampler draws, up to ``SAMPLER_DRAWS`` times, and what it draws once more is changed in one or two decisions;
2. then networks of the front are changed in one or two decisions, with random ones between;
3. then the space is gone through in order, so that a small one is exhausted for certain and the search ends.

What breaks a limit is never trained. The first ``RECORDED`` refusals of a proposal are written down as pruned trials
with their constraints, from which samplers learn; further ones are dropped in memory.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import chain, islice
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, _get_single_value
from optuna.trial import FrozenTrial, TrialState, create_trial

from archtuna.architecture import Architecture, Scalar
from archtuna.choice import Choice
from archtuna.claims import evaluation_in, evaluation_of
from archtuna.coding import Coding, coding_of
from archtuna.draft import Draft
from archtuna.errors import ShapeError, StudyError
from archtuna.known_costs import Pick, Point
from archtuna.leases import SECONDS, Lease, held_by
from archtuna.ledger import Ledger
from archtuna.objective import Limit, Objective
from archtuna.space import Candidate, SearchSpace
from archtuna.storage import ERROR_CONSTRAINT, Attr

SAMPLER_DRAWS = 5
CHANGES = 10
"""How often a network that the sampler draws once more is changed before it draws another: TPE of a thousand trials draws
known networks nearly always, and each draw costs as much as the first."""

LOCAL_DRAWS = 300
ORDERED_DRAWS = 20_000
RECORDED = 3

FACTS = ("params", "macs")
"""Costs that tell something of a network's quality, whether they are objectives or not."""

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


# --- proposing ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Proposal:
    """A trial that is ready to be evaluated.

    Attributes:
        trial_id: in the storage.
        candidate: its network and training values.
        costs: known before training.
        evaluation: what it claims, see ``claims``.
        latencies: that its network was measured to have, by the device's name, as ``Latency.to_dict`` says.
    """

    trial_id: int
    candidate: Candidate
    costs: Mapping[str, float]
    evaluation: str
    latencies: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Draw:
    """Decisions, the parameters that write them down, and what they resolve to: None where the rows make no network."""

    decisions: Decisions
    parameters: Mapping[str, Any]
    candidate: Candidate | None
    problem: str = ""

    @cached_property
    def evaluation(self) -> str:
        """What the draw would claim, see ``claims``."""
        if self.candidate is None:
            return self.spelling
        return evaluation_of(self.candidate.architecture, self.candidate.recipe)

    @cached_property
    def spelling(self) -> str:
        """What is the same for the same rows, trained the same way: far cheaper to find out than ``evaluation``."""
        if self.candidate is None:
            return _digest(self.decisions)
        return f"{self.candidate.architecture.key}:{self.candidate.recipe.key}"


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


Doubt = Callable[[str], float | None]
"""Takes the name of a cost and returns the relative error of what is expected of it, None where it is known."""


def judge(draw: Draw, cost: Cost, limits: Sequence[Limit], doubt: Doubt = lambda name: None) -> Verdict:
    """Return whether a network may be trained: it builds, and keeps every limit.

    Of what is only expected a limit is broken where it is broken in spite of the doubt; the rest is for a measurement to say.
    """
    if draw.candidate is None:
        return Verdict({}, {ERROR_CONSTRAINT: 2.0}, draw.problem)
    try:
        costs = dict(cost(draw.candidate.architecture))
    except ShapeError as error:
        return Verdict({}, {ERROR_CONSTRAINT: 2.0}, error.message)
    return verdict_on(costs, limits, doubt)


def verdict_on(costs: Mapping[str, float], limits: Sequence[Limit], doubt: Doubt = lambda name: None) -> Verdict:
    """Return what the costs of a network come to against limits; see ``judge``."""
    constraints: dict[str, float] = {}
    broken: list[str] = []
    for limit in limits:
        error = doubt(limit.name)
        violation = replace(limit, bound=limit.bound * (1.0 + (error or 0.0))).violation(costs)
        if error is None or violation > 0:
            constraints[limit.name] = violation
        if violation > 0:
            about = "" if error is None else "about "
            broken.append(f"{about}{costs[limit.name]:,.6g} {limit.name}, limit {limit.bound:,g}")
    return Verdict(costs, constraints, "; ".join(broken) or None)


RefusedCallback = Callable[[int, str | None, str, Mapping[str, float]], None]


@dataclass
class Proposer:
    """Draws the next network of a study.

    Attributes:
        ledger: what is known of the study; its study's sampler draws.
        space: where decisions come from.
        cost: what a network costs before training; raises ShapeError for one that does not build.
        worker: who proposes; named on each trial from its first moment.
        lease: how long its hold on a trial lasts without being renewed, in seconds.
        limits: what must not be broken.
        doubt: of costs that are only expected; see ``judge``.
        seed: of the draws that are not the sampler's.
        on_refused: told of each refusal that is written down: number, key, reason, costs.
    """

    ledger: Ledger
    space: SearchSpace
    cost: Cost
    worker: Mapping[str, Any]
    lease: float = SECONDS
    limits: Sequence[Limit] = ()
    doubt: Doubt = lambda name: None
    seed: int | None = None
    on_refused: RefusedCallback = lambda number, key, reason, costs: None
    _refused: dict[str, Verdict] = field(default_factory=dict, init=False)
    _mildest: tuple[float, Decisions] | None = field(default=None, init=False)
    _respelt: set[str] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        self.study = self.ledger.study
        self.codings: dict[str, Coding] = {choice.name: coding_of(choice) for choice in self.space.choices}
        self.random = random.Random(self.seed)
        self._uniform = optuna.samplers.RandomSampler(seed=self.seed)
        self._in_order: Iterator[Draw] | None = None
        self._is_through = False
        self._values = {choice.name: choice.values() for choice in self.space.choices}

    def propose(self) -> Proposal:
        """Create a trial with a network that is new, builds and keeps the limits, by what the ledger knows.

        Another worker may create one with the same network at the same time: see ``twin_of``.

        Raises:
            Exhausted: there is none left.
            StudyError: the limits refuse everything.
        """
        draft = Draft(self.study, self.ledger.trials)
        draw, verdict = self._find(draft)
        assert draw.candidate is not None, "a draw without a network is refused"
        trial_id = self._create(TrialState.RUNNING, draw, verdict, held_by(self.worker, self.lease), draft.notes)
        return Proposal(trial_id, draw.candidate, verdict.costs, draw.evaluation)

    def take_up(self, lease: Lease) -> Proposal:
        """Give a trial that waited its network: the one that it was handed back with, or one that fits its parameters.

        Raises:
            Exhausted: it came without parameters, and no network is left.
            GaveWay: another trial has the same network.
            Refused: it was queued with a network that breaks a limit.
            StudyError: the limits refuse everything.
            LeaseLost: it is with another worker by now.
        """
        trial = lease.trial
        if Attr.EVALUATION in trial.user_attrs:
            return self._take_up_again(trial)
        draft = Draft(self.study, self.ledger.trials, trial)
        fixed = {**trial.params, **trial.system_attrs.get("fixed_params", {})}
        draw, verdict = self._find_queued(draft, fixed) if fixed else self._find(draft)
        assert draw.candidate is not None, "a draw without a network is refused"
        self._write(lease, draw, verdict, draft.notes)
        return Proposal(trial._trial_id, draw.candidate, verdict.costs, draw.evaluation)

    def _take_up_again(self, trial: FrozenTrial) -> Proposal:
        decisions = trial.user_attrs[Attr.DECISIONS]
        candidate = self.space.resolve(lambda choice: decisions[choice.name])
        costs = self.cost(candidate.architecture)
        return Proposal(trial._trial_id, candidate, costs, evaluation_in(trial.user_attrs) or "")

    def twin_of(self, proposal: Proposal, number: int) -> int | None:
        """Return the trial that goes on with a proposal's network instead, or None where the proposal may.

        A trial that is created whole claims its network at that moment, so the smallest number goes first, and what is in
        the ledger after the next refresh is all that can have a smaller one.
        """
        holder = self.ledger.known.get(proposal.evaluation, number)
        return holder if holder < number else None

    def judge(self, draw: Draw) -> Verdict:
        """Return what is known of a draw's network before training, and why it may not be trained where it may not."""
        return judge(draw, self.cost, self.limits, self.doubt)

    def point(self, objectives: Sequence[Objective], parameter: Pick) -> Point:
        """Return what is known before training of the network that parameters make, for samplers that use it.

        Networks are told apart by their rows. Of equal networks in another spelling only those are known that came up.
        """
        draw = self.draw(parameter)
        verdict = self.judge(draw)
        known = {i: verdict.costs[o.name] for i, o in enumerate(objectives) if o.name in verdict.costs}
        facts = tuple(verdict.costs[name] for name in FACTS if name in verdict.costs)
        feasible = verdict.reason is None and draw.spelling not in self._respelt
        return Point(draw.spelling, known, facts, feasible)

    def _find(self, draft: Draft) -> tuple[Draw, Verdict]:
        known = self.ledger.known
        recorded = 0
        for draw in chain([] if known else [self._own()], self._draws(draft)):
            if draw.evaluation in known or draw.evaluation in self._refused:
                self._respelt.add(draw.spelling)
                continue
            verdict = self.judge(draw)
            if verdict.reason is None:
                return draw, verdict
            self._remember(draw, verdict)
            if recorded < RECORDED:
                recorded += 1
                self._record(draw, verdict)
        raise self._nothing_left()

    def _find_queued(self, draft: Draft, fixed: Mapping[str, Any]) -> tuple[Draw, Verdict]:
        """Complete a trial that came with parameters; what those leave open is the sampler's."""
        twin, verdict = None, None
        for draw in self._sampled(draft, fixed, SAMPLER_DRAWS):
            twin = self.ledger.known.get(draw.evaluation)
            verdict = self.judge(draw)
            if verdict.reason is None and twin is None:
                return draw, verdict
        if twin is not None:
            raise GaveWay(twin)
        raise Refused(verdict.reason if verdict else "its parameters do not fit the space")

    # draws

    def _draws(self, draft: Draft) -> Iterator[Draw]:
        for draw in self._sampled(draft, {}, SAMPLER_DRAWS):
            yield draw
            if draw.evaluation in self.ledger.known:
                yield from (self._mutate(draw.decisions) for _ in range(CHANGES))
        yield from self._local(LOCAL_DRAWS)
        if self._in_order is None:
            self._in_order = self._every()
        yield from islice(self._in_order, ORDERED_DRAWS)

    def _own(self) -> Draw:
        """Return the file's own network, every first option: what a search is to beat comes first."""
        own = {choice.name: choice.default for choice in self.space.choices}
        return self.draw(lambda name, distribution: self.codings[name].parameter(own[name]))

    def _sampled(self, draft: Draft, fixed: Mapping[str, Any], times: int) -> Iterator[Draw]:
        """Yield what the study's sampler draws for a trial."""
        for _ in range(times):
            yield self.draw(partial(self._parameter, draft, {**draft.relative(), **fixed}))

    def _parameter(self, draft: Draft, given: Mapping[str, Any], name: str, coded: BaseDistribution) -> Any:
        """Return one parameter as given or drawn on its own."""
        if name in given:
            value = given[name]
        elif coded.single():
            value = _get_single_value(coded)
        else:
            value = draft.independent(name, coded)
        draft.remember(name, value, coded)
        return value

    def _local(self, times: int) -> Iterator[Draw]:
        """Yield changed networks of the study, and every fourth time a random one."""
        parents = self._parents()
        for attempt in range(times):
            # While nothing keeps the limits, what breaks them least leads the way.
            leads = parents or ([self._mildest[1]] if self._mildest else [])
            if attempt % 4 == 3 or not leads:
                yield self.draw(self._random_parameter)
            else:
                yield self._mutate(self.random.choice(leads))

    def _parents(self) -> list[Decisions]:
        attrs = [self.ledger.trials[number].user_attrs for number in self.ledger.front.numbers]
        return [kept[Attr.DECISIONS] for kept in attrs if Attr.DECISIONS in kept]

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

        return self.draw(parameter)

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
            yield self.draw(parameter)
            del path[depth:]
            while path and path[-1][1] + 1 == len(path[-1][0]):
                path.pop()
            if not path:
                self._is_through = True
                return
            path[-1] = (path[-1][0], path[-1][1] + 1)

    def draw(self, parameter: Pick) -> Draw:
        """Return what parameters make of the space; each is asked for once, by its choice's name, when it counts."""
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
            return Draw(decisions, parameters, None, error.message)
        return Draw(decisions, parameters, candidate)

    # records

    def _remember(self, draw: Draw, verdict: Verdict) -> None:
        self._refused[draw.evaluation] = verdict
        if verdict.costs and (self._mildest is None or verdict.violation < self._mildest[0]):
            self._mildest = (verdict.violation, dict(draw.decisions))

    def _record(self, draw: Draw, verdict: Verdict) -> None:
        """Write a refusal down as a trial of its own: pruned, with the constraints that it breaks."""
        reason, storage = verdict.reason or "", self.study._storage
        attrs = {Attr.OUTCOME: "refused", Attr.REASON: reason}
        number = storage.get_trial(self._create(TrialState.PRUNED, draw, verdict, attrs)).number
        self.on_refused(number, draw.candidate.architecture.key if draw.candidate else None, reason, verdict.costs)

    def _create(
        self, state: TrialState, draw: Draw, verdict: Verdict, attrs: Mapping[str, Any], notes: Mapping[str, Any] = {}
    ) -> int:
        """Create a trial with all that belongs to it at once, and return its identity in the storage."""
        trial = create_trial(
            state=state,
            params=dict(draw.parameters),
            distributions={name: self.codings[name].distribution for name in draw.parameters},
            user_attrs={**attrs, **attributes_of(draw, verdict.costs)},
            system_attrs=dict(notes),
            constraints=dict(verdict.constraints),
        )
        return self.study._storage.create_new_trial(self.study._study_id, template_trial=trial)

    def _write(self, lease: Lease, draw: Draw, verdict: Verdict, notes: Mapping[str, Any]) -> None:
        """Write a draw to a trial that exists; give way where another trial has its network.

        Such a claim is late for its number. Of two workers that claim at once both may give way, never both go on: the
        later claim sees the earlier one.
        """
        trial = lease.trial
        open_ones = {name: value for name, value in draw.parameters.items() if name not in trial.params}
        lease.write(
            attributes_of(draw, verdict.costs),
            constraints=verdict.constraints,
            params={name: (value, self.codings[name].distribution) for name, value in open_ones.items()},
            notes=notes,
        )
        self.ledger.refresh()
        twin = self.ledger.other_than(trial.number, draw.evaluation)
        if twin is not None:
            raise GaveWay(twin)

    def _nothing_left(self) -> Exception:
        if self.ledger.tried or not self._refused:
            if self._is_through or not self._refused:
                return Exhausted("the space holds no network that was not tried")
            return Exhausted(f"none of the last {ORDERED_DRAWS:,} networks keeps the limits and was not tried")
        words = _refused_words(self._refused.values(), self.limits)
        return StudyError(words, hint="raise the limit, or offer smaller choices")


class _Nobody:
    """Stands where a sampler that looks at no trial wants one."""


_NO_TRIAL: Any = _Nobody()


def _digest(decisions: Decisions) -> str:
    text = json.dumps(decisions, sort_keys=True)
    return hashlib.sha256(f"decisions:{text}".encode()).hexdigest()[:16]


def attributes_of(draw: Draw, costs: Mapping[str, float]) -> dict[str, Any]:
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
