from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from archtuna.architecture import Architecture
from archtuna.choice import Choice
from archtuna.costs import costs_of
from archtuna.errors import ShapeError, StudyError
from archtuna.model import check_output
from archtuna.objective import limit_of, objectives_of
from archtuna.sampler import (
    RECORDED,
    SAMPLERS,
    Exhausted,
    GaveWay,
    Proposal,
    Proposer,
    Refused,
    ask,
    coding_of,
    evaluation_of,
    make_sampler,
    seed_of,
)
from archtuna.space import SearchSpace
from archtuna.storage import ERROR_CONSTRAINT, Attr
from archtuna.study import state_of
from searches import SPACE, TWO, quality

ME = {"host": "here", "pid": 1, "started": 0.0}
OBJECTIVES = objectives_of(("f1", "params"))


def cost(architecture: Architecture) -> Mapping[str, float]:
    check_output(architecture, 3)
    return costs_of(architecture)


def make(space: str = SPACE, sampler: Any = "random", limits: tuple[str, ...] = (), **changes: Any) -> Proposer:
    drawn = make_sampler(sampler, objectives=2, seed=0)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=drawn)
    bounds = [limit_of(text) for text in limits]
    return Proposer(study, SearchSpace.read(space), cost, OBJECTIVES, bounds, seed=0, **changes)


def finish(proposer: Proposer, proposal: Proposal) -> None:
    proposer.study.tell(proposal.trial, [quality(proposal.candidate), proposal.costs["params"]])


def evaluate(proposer: Proposer, times: int) -> list[Proposal]:
    found = []
    for _ in range(times):
        found.append(proposer.propose(ask(proposer.study, ME)))
        finish(proposer, found[-1])
    return found


def categorical(*options: Any) -> Choice:
    return Choice("c", "categorical", options)


@pytest.mark.parametrize(
    ("choice", "distribution"),
    [
        (categorical(3, 5, 7), IntDistribution(3, 7, step=2)),
        (categorical(7, 3, 5), IntDistribution(3, 7, step=2)),
        (categorical(0, 1), IntDistribution(0, 1)),
        (categorical(4), IntDistribution(4, 4)),
        (categorical(16, 24, 40), IntDistribution(0, 2)),
        (categorical(0.5, 1.0, 1.5), IntDistribution(0, 2)),
        (categorical(1, 2.5), IntDistribution(0, 1)),
        (categorical("ReLU", "Hardswish"), CategoricalDistribution(("ReLU", "Hardswish"))),
        (categorical(None, 1), CategoricalDistribution((None, 1))),
        (categorical(True, False), CategoricalDistribution((True, False))),
        (Choice("c", "int", None, 1, 5, 1), IntDistribution(1, 5)),
        (Choice("c", "int", None, 16, 64, 8), IntDistribution(16, 64, step=8)),
        (Choice("c", "int", None, 1, 6, 2), IntDistribution(1, 5, step=2)),
        (Choice("c", "int", None, 8, 512, 1, True), IntDistribution(8, 512, log=True)),
        (Choice("c", "float", None, 0.01, 0.3, None, True), FloatDistribution(0.01, 0.3, log=True)),
        (Choice("c", "float", None, 0.0, 0.5), FloatDistribution(0.0, 0.5)),
        (Choice("c", "float", None, 0.1, 0.35, 0.1), FloatDistribution(0.1, 0.3, step=0.1)),
    ],
)
def test_choices_reach_the_sampler_as_what_they_are(choice: Choice, distribution: Any) -> None:
    coding = coding_of(choice)
    assert coding.distribution == distribution
    for value in choice.values() or (choice.low, choice.high):
        back = coding.value(coding.parameter(value))
        assert back == value
        assert type(back) is type(value)


def test_a_value_that_is_no_option_has_no_parameter() -> None:
    for choice in (categorical(3, 5, 7), categorical(16, 24, 40), categorical("a", "b")):
        with pytest.raises(ValueError, match=r"not among|not in"):
            coding_of(choice).parameter(4)


def test_a_stepped_float_is_snapped_to_the_files_value() -> None:
    choice = Choice("c", "float", None, 0.1, 0.5, 0.1)
    assert coding_of(choice).value(0.30000000000000004) == choice.values()[2]  # type: ignore[index]


def test_samplers_by_name() -> None:
    for name in set(SAMPLERS) - {"cmaes", "gp"}:
        assert type(make_sampler(name, objectives=2, seed=1)).__name__ == SAMPLERS[name]
    assert make_sampler(None, objectives=2, seed=1)._multivariate  # type: ignore[attr-defined]
    mine = optuna.samplers.RandomSampler()
    assert make_sampler(mine, objectives=2, seed=1) is mine


def test_samplers_that_cannot_be() -> None:
    with pytest.raises(StudyError, match=r"unknown sampler 'nsga4'\nhint: did you mean 'nsga"):
        make_sampler("nsga4", objectives=2, seed=0)
    with pytest.raises(StudyError, match=r"unknown sampler 'x'\nhint: known: tpe"):
        make_sampler("x", objectives=2, seed=0)
    with pytest.raises(StudyError, match="cmaes knows one objective only"):
        make_sampler("cmaes", objectives=2, seed=0)


def test_every_worker_and_every_start_draws_otherwise() -> None:
    seeds = {seed_of(0, worker, started) for worker in range(4) for started in (0, 10)}
    assert len(seeds) == 8
    assert seed_of(0, 1, 2) == seed_of(0, 1, 2)
    assert seed_of(None, 1, 2) is None


def test_what_an_older_version_evaluated_is_not_evaluated_again() -> None:
    space = SearchSpace.read(TWO)
    proposer = make(TWO)
    old = evaluate(proposer, 1)[0]
    trial_id = proposer.study.trials[0]._trial_id
    claim = hashlib.sha256(f"{old.candidate.architecture.key}:{old.candidate.recipe.key}".encode()).hexdigest()[:16]
    proposer.study._storage._get_trial(trial_id).user_attrs[Attr.EVALUATION] = claim  # type: ignore[attr-defined]
    assert proposer.study.trials[0].user_attrs[Attr.EVALUATION] == claim
    assert evaluate(proposer, 1)[0].candidate.architecture.key != old.candidate.architecture.key
    with pytest.raises(Exhausted):
        proposer.propose(ask(proposer.study, ME))
    assert space.size == 2


def test_networks_that_are_equal_in_another_spelling_are_proposed_once() -> None:
    spellings = TWO.replace("  - [1, GlobalAvgPool, []]", "  - [1|2|3, Identity, []]\n  - [1, GlobalAvgPool, []]")
    assert SearchSpace.read(spellings).size == 6
    proposer = make(spellings)
    assert len({p.candidate.architecture.key for p in evaluate(proposer, 2)}) == 2
    with pytest.raises(Exhausted):
        proposer.propose(ask(proposer.study, ME))


def test_evaluations_differ_by_network_and_by_training() -> None:
    space = SearchSpace.read(SPACE)
    one, other = space.default(), space.candidate({"backbone.0.channels": 24})
    assert evaluation_of(one.architecture, one.recipe) != evaluation_of(other.architecture, one.recipe)
    assert evaluation_of(one.architecture, one.recipe) != evaluation_of(one.architecture, one.recipe.replace(lr=0.3))
    assert evaluation_of(one.architecture, one.recipe) == evaluation_of(one.architecture, one.recipe.replace())


def test_a_trial_has_its_worker_from_birth() -> None:
    study = optuna.create_study()
    trial = ask(study, ME)
    assert study.trials[0].state == TrialState.RUNNING
    assert study.trials[0].user_attrs == {Attr.WORKER: ME}
    study.tell(trial, state=TrialState.FAIL)


def test_waiting_trials_are_taken_up_first() -> None:
    study = optuna.create_study()
    study.enqueue_trial({"x": 1})
    trial = ask(study, ME)
    assert trial.number == 0
    assert trial.user_attrs[Attr.WORKER] == ME
    assert ask(study, ME).number == 1


def test_a_proposal_is_written_whole() -> None:
    proposer = make(limits=("params <= 5k",))
    (proposal,) = evaluate(proposer, 1)
    trial = proposer.study.trials[0]
    architecture = proposal.candidate.architecture
    assert trial.user_attrs[Attr.KEY] == architecture.key
    assert trial.user_attrs[Attr.EVALUATION] == evaluation_of(architecture, proposal.candidate.recipe)
    assert trial.user_attrs[Attr.DECISIONS] == dict(proposal.candidate.decisions)
    assert trial.params.keys() == proposal.candidate.decisions.keys()
    assert trial.user_attrs[Attr.COSTS]["params"] == proposal.costs["params"]
    assert trial.constraints == {"params": proposal.costs["params"] / 5000 - 1}


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2", "nsga3", "qmc"])
def test_no_evaluation_twice_with_any_sampler(sampler: str) -> None:
    proposer = make(sampler=sampler)
    found = evaluate(proposer, 40)
    assert len({p.candidate.architecture.key for p in found}) == 40
    assert not any(t.state == TrialState.RUNNING for t in proposer.study.trials)


def test_the_same_seed_proposes_the_same() -> None:
    first, second = ([p.candidate.architecture.key for p in evaluate(make(sampler="tpe"), 20)] for _ in range(2))
    assert first == second


def test_a_small_space_is_exhausted_exactly() -> None:
    proposer = make(TWO, sampler="tpe")
    assert len({p.candidate.architecture.key for p in evaluate(proposer, 2)}) == 2
    with pytest.raises(Exhausted, match="no network that was not tried"):
        proposer.propose(ask(proposer.study, ME))


def test_a_space_is_exhausted_to_the_last_network() -> None:
    keys = {d.candidate.architecture.key for d in make()._every() if d.candidate is not None}
    assert len(keys) == SearchSpace.read(SPACE).size
    proposer = make()
    assert {p.candidate.architecture.key for p in evaluate(proposer, len(keys))} == keys
    with pytest.raises(Exhausted, match="no network that was not tried"):
        proposer.propose(ask(proposer.study, ME))


def test_a_searched_training_value_makes_another_evaluation() -> None:
    proposer = make(TWO.replace("{epochs: 3", "{lr: 0.01|0.1, epochs: 3"))
    found = evaluate(proposer, 4)
    assert len({p.candidate.architecture.key for p in found}) == 2
    assert len({evaluation_of(p.candidate.architecture, p.candidate.recipe) for p in found}) == 4


def test_a_model_file_without_choices_is_tried_once() -> None:
    proposer = make(TWO.replace("8|16", "8"))
    (proposal,) = evaluate(proposer, 1)
    assert proposal.candidate.decisions == {}
    with pytest.raises(Exhausted, match="no network"):
        proposer.propose(ask(proposer.study, ME))


def test_limits_hold_and_refusals_teach() -> None:
    told: list[tuple[int, str | None, str, Mapping[str, float]]] = []
    proposer = make(limits=("params <= 1k", "macs <= 10k"), on_refused=lambda *args: told.append(args))
    found = evaluate(proposer, 8)
    assert all(p.costs["params"] <= 1000 and p.costs["macs"] <= 10_000 for p in found)
    refused = [t for t in proposer.study.trials if t.state == TrialState.PRUNED]
    assert refused
    assert [t.number for t in refused] == [number for number, *_ in told]
    assert len(refused) <= RECORDED * 8
    for trial in proposer.study.trials:
        assert list(trial.constraints) == ["params", "macs"]
    for trial in refused:
        assert state_of(trial) == "refused"
        assert max(trial.constraints.values()) > 0
        assert trial.params.keys() == trial.user_attrs[Attr.DECISIONS].keys()
        assert ", limit " in trial.user_attrs[Attr.REASON]
    assert not any(t.constraints["params"] > 0 for t in proposer.study.best_trials)


def test_a_tight_limit_is_reached_by_following_the_mildest() -> None:
    proposer = make(limits=("params <= 120",))
    smallest = costs_of(proposer.space.smallest().architecture)["params"]
    assert smallest <= 120
    (found,) = evaluate(proposer, 1)
    assert found.costs["params"] <= 120


def test_limits_that_refuse_everything_say_by_how_much() -> None:
    proposer = make(limits=("params <= 20", "macs <= 100M"))
    smallest = costs_of(proposer.space.smallest().architecture)["params"]
    with pytest.raises(
        StudyError, match=rf"none of \d+ networks that were drawn keeps params <= 20 \(the smallest has {smallest}\)"
    ):
        proposer.propose(ask(proposer.study, ME))


VANISHING = """
input_channel: 1
input_size: 4
backbone:
  - [1..4, MaxPool, [2]]
  - [1, Conv, [8|16, 1, 1]]
  - [1, GlobalAvgPool, []]
  - [1, Flatten, []]
  - [1, Linear, [3]]
"""


def test_networks_that_do_not_build_are_refused_whole() -> None:
    proposer = make(VANISHING)
    found = evaluate(proposer, 4)
    assert {p.candidate.decisions["backbone.0.repeat"] for p in found} == {1, 2}
    refused = [t for t in proposer.study.trials if state_of(t) == "refused"]
    assert refused
    for trial in refused:
        assert trial.constraints == {ERROR_CONSTRAINT: 2.0}
        assert trial.params.keys() == {"backbone.0.repeat", "backbone.1.channels"}
        assert "too small" in trial.user_attrs[Attr.REASON]
        assert Attr.KEY not in trial.user_attrs


def test_nothing_builds() -> None:
    proposer = make(VANISHING.replace("1..4", "3|4"))
    with pytest.raises(StudyError, match=r"none of 4 networks of the space builds: .*too small"):
        proposer.propose(ask(proposer.study, ME))


def test_a_network_for_other_classes_is_refused() -> None:
    proposer = make(TWO.replace("[3]", "[3|4]"))
    evaluate(proposer, 2)
    with pytest.raises(Exhausted, match="no network"):
        proposer.propose(ask(proposer.study, ME))
    refused = [t for t in proposer.study.trials if state_of(t) == "refused"]
    assert len(refused) == 2
    for trial in refused:
        assert "4 values, and the pictures have 3 classes" in trial.user_attrs[Attr.REASON]


def test_what_runs_elsewhere_is_taken() -> None:
    proposer = make(TWO)
    first = proposer.propose(ask(proposer.study, ME))
    second = proposer.propose(ask(proposer.study, ME))
    assert first.candidate.architecture != second.candidate.architecture
    with pytest.raises(Exhausted, match="no network"):
        proposer.propose(ask(proposer.study, ME))


def test_of_two_that_draw_the_same_at_once_the_later_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    proposer = make(TWO)
    first = proposer.propose(ask(proposer.study, ME))
    # What a worker sees that draws just before the first one's claim arrives, and claims just after.
    seen = [{}, proposer._known]

    def known(trial: optuna.Trial) -> dict[str, int]:
        answer = seen.pop(0)
        return answer if isinstance(answer, dict) else answer(trial)

    decisions = dict(first.candidate.decisions)
    draw = next(d for d in proposer._every() if d.decisions == decisions)
    monkeypatch.setattr(proposer, "_known", known)
    monkeypatch.setattr(proposer, "_draws", lambda trial: iter([draw]))
    with pytest.raises(GaveWay, match="trial 0 has the same network") as caught:
        proposer.propose(ask(proposer.study, ME))
    assert caught.value.number == 0


def test_a_failed_bug_may_be_tried_again_but_a_refusal_not() -> None:
    proposer = make(TWO.replace("8|16", "8"))
    proposal = proposer.propose(ask(proposer.study, ME))
    proposer.study.tell(proposal.trial, state=TrialState.FAIL)
    again = proposer.propose(ask(proposer.study, ME))
    assert again.candidate.architecture == proposal.candidate.architecture
    proposer.study.tell(again.trial, state=TrialState.PRUNED)
    with pytest.raises(Exhausted, match="no network"):
        proposer.propose(ask(proposer.study, ME))


def test_a_trial_that_was_handed_back_keeps_its_network() -> None:
    proposer = make(limits=("params <= 5k",))
    proposal = proposer.propose(ask(proposer.study, ME))
    proposer.study._storage.set_trial_state_values(proposal.trial._trial_id, TrialState.WAITING)
    before = proposer.study.trials[0]
    again = proposer.propose(ask(proposer.study, ME))
    assert again.number == proposal.number
    assert again.candidate == proposal.candidate
    after = proposer.study.trials[0]
    assert (after.params, after.constraints) == (before.params, before.constraints)


def test_a_queued_trial_is_taken_as_it_is() -> None:
    proposer = make()
    # 16|40|56 has no equal distances: the parameter is a place.
    proposer.study.enqueue_trial({"backbone.0.channels": 24, "backbone.0.kernel": 5})
    proposal = proposer.propose(ask(proposer.study, ME))
    assert proposal.candidate.decisions["backbone.0.channels"] == 24
    assert proposal.candidate.decisions["backbone.0.kernel"] == 5
    assert proposer.study.trials[0].params["backbone.0.channels"] == 24


def test_a_queued_trial_that_is_known_or_breaks_a_limit() -> None:
    proposer = make(TWO, limits=("params <= 150",))
    proposer.study.enqueue_trial({"backbone.0.channels": 8})
    finish(proposer, proposer.propose(ask(proposer.study, ME)))
    proposer.study.enqueue_trial({"backbone.0.channels": 8})
    with pytest.raises(GaveWay, match="trial 0"):
        proposer.propose(ask(proposer.study, ME))
    proposer.study.enqueue_trial({"backbone.0.channels": 16})
    with pytest.raises(Refused, match="227 params, limit 150"):
        proposer.propose(ask(proposer.study, ME))


def test_the_files_own_network_comes_first_where_it_keeps_the_limits() -> None:
    proposer = make()
    first, second = evaluate(proposer, 2)
    assert first.candidate.decisions == proposer.space.default().decisions
    assert second.candidate.architecture != first.candidate.architecture
    wide = SPACE.replace("8|16|24", "24|8|16")
    own = costs_of(SearchSpace.read(wide).default().architecture)["params"]
    (kept,) = evaluate(make(wide, limits=(f"params <= {own - 1}",)), 1)
    assert kept.costs["params"] < own


def test_parameters_stay_in_the_joint_space_of_tpe() -> None:
    proposer = make(sampler="tpe", limits=("params <= 3k",))
    evaluate(proposer, 15)
    joint = proposer.study.sampler.infer_relative_search_space(proposer.study, proposer.study.trials[-1])
    assert {"backbone.0.channels", "backbone.0.kernel", "backbone.1.any"} <= joint.keys()


def test_the_user_error_of_costs_is_not_swallowed() -> None:
    def broken(architecture: Architecture) -> Mapping[str, float]:
        raise ShapeError("row 0: no")

    proposer = make(TWO)
    proposer.cost = broken
    with pytest.raises(StudyError, match=r"none of 2 networks of the space builds: row 0: no"):
        proposer.propose(ask(proposer.study, ME))
