from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from archtuna.architecture import Architecture
from archtuna.claims import evaluation_of
from archtuna.costs import costs_of
from archtuna.errors import ShapeError, StudyError
from archtuna.leases import Lease, take
from archtuna.ledger import Ledger, state_of
from archtuna.model import check_output
from archtuna.objective import limit_of, objectives_of
from archtuna.proposer import (
    RECORDED,
    Exhausted,
    GaveWay,
    Proposal,
    Proposer,
    Refused,
)
from archtuna.sampler import make_sampler
from archtuna.space import SearchSpace
from archtuna.storage import ERROR_CONSTRAINT, Attr
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
    return Proposer(Ledger(study, OBJECTIVES), SearchSpace.read(space), cost, ME, limits=bounds, seed=0, **changes)


def propose(proposer: Proposer) -> Proposal:
    """Do what a worker does: take up a trial that waits, or create one."""
    proposer.ledger.refresh()
    lease = take(proposer.study, proposer.ledger.opened("waiting"), ME)
    if lease is None:
        return proposer.propose()
    proposer.ledger.refresh()
    return proposer.take_up(lease)


def trial_of(proposer: Proposer, proposal: Proposal) -> optuna.trial.FrozenTrial:
    proposer.ledger.refresh()
    return proposer.ledger.find(proposal.trial_id)


def finish(proposer: Proposer, proposal: Proposal) -> None:
    values = [quality(proposal.candidate), float(proposal.costs["params"])]
    trial = trial_of(proposer, proposal)
    Lease(proposer.study, trial, trial.user_attrs[Attr.WORKER]).end(TrialState.COMPLETE, values)


def end(proposer: Proposer, proposal: Proposal, state: TrialState) -> None:
    """End a proposal's trial without values."""
    proposer.study._storage.set_trial_state_values(proposal.trial_id, state)


def evaluate(proposer: Proposer, times: int) -> list[Proposal]:
    found = []
    for _ in range(times):
        found.append(propose(proposer))
        finish(proposer, found[-1])
    return found


def test_networks_that_are_equal_in_another_spelling_are_proposed_once() -> None:
    spellings = TWO.replace("  - [1, GlobalAvgPool, []]", "  - [1|2|3, Identity, []]\n  - [1, GlobalAvgPool, []]")
    assert SearchSpace.read(spellings).size == 6
    proposer = make(spellings)
    assert len({p.candidate.architecture.key for p in evaluate(proposer, 2)}) == 2
    with pytest.raises(Exhausted):
        propose(proposer)


def test_what_an_older_version_evaluated_is_not_evaluated_again() -> None:
    proposer = make(TWO)
    old = evaluate(proposer, 1)[0]
    kept = proposer.study._storage._get_trial(old.trial_id).user_attrs  # type: ignore[attr-defined]
    kept[Attr.EVALUATION] = "0123456789abcdef"
    proposer = Proposer(Ledger(proposer.study, OBJECTIVES), SearchSpace.read(TWO), cost, ME, seed=0)
    assert evaluate(proposer, 1)[0].candidate.architecture.key != old.candidate.architecture.key
    with pytest.raises(Exhausted):
        propose(proposer)


def test_evaluations_differ_by_network_and_by_training() -> None:
    space = SearchSpace.read(SPACE)
    one, other = space.default(), space.candidate({"backbone.0.channels": 24})
    assert evaluation_of(one.architecture, one.recipe) != evaluation_of(other.architecture, one.recipe)
    assert evaluation_of(one.architecture, one.recipe) != evaluation_of(one.architecture, one.recipe.replace(lr=0.3))
    assert evaluation_of(one.architecture, one.recipe) == evaluation_of(one.architecture, one.recipe.replace())


def test_a_proposal_is_written_whole() -> None:
    proposer = make(limits=("params <= 5k",))
    proposal = propose(proposer)
    trial = proposer.study.trials[0]
    assert trial.state == TrialState.RUNNING
    assert trial.user_attrs[Attr.WORKER] == {**ME, "take": 1}
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
        propose(proposer)


def test_a_space_is_exhausted_to_the_last_network() -> None:
    keys = {d.candidate.architecture.key for d in make()._every() if d.candidate is not None}
    assert len(keys) == SearchSpace.read(SPACE).size
    proposer = make()
    assert {p.candidate.architecture.key for p in evaluate(proposer, len(keys))} == keys
    with pytest.raises(Exhausted, match="no network that was not tried"):
        propose(proposer)


def test_a_space_that_was_not_gone_through_is_not_said_to_be_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, draws in (("LOCAL_DRAWS", 0), ("ORDERED_DRAWS", 2)):
        monkeypatch.setattr(f"archtuna.proposer.{name}", draws)
    proposer = make(limits=("params <= 100",))
    evaluate(proposer, 1)
    with pytest.raises(Exhausted, match="none of the last 2 networks keeps the limits and was not tried"):
        evaluate(proposer, 50)


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
        propose(proposer)


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
        propose(proposer)


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
        propose(proposer)


def test_a_network_for_other_classes_is_refused() -> None:
    proposer = make(TWO.replace("[3]", "[3|4]"))
    evaluate(proposer, 2)
    with pytest.raises(Exhausted, match="no network"):
        propose(proposer)
    refused = [t for t in proposer.study.trials if state_of(t) == "refused"]
    assert len(refused) == 2
    for trial in refused:
        assert "4 values, and the pictures have 3 classes" in trial.user_attrs[Attr.REASON]


def test_what_runs_elsewhere_is_taken() -> None:
    proposer = make(TWO)
    first = propose(proposer)
    second = propose(proposer)
    assert first.candidate.architecture != second.candidate.architecture
    with pytest.raises(Exhausted, match="no network"):
        propose(proposer)


def test_of_two_that_create_the_same_at_once_the_later_gives_way() -> None:
    one = make(TWO)
    other = Proposer(Ledger(one.study, OBJECTIVES), one.space, cost, ME)
    # Neither knows of the other: both have read the empty study.
    first, second = one.propose(), other.propose()
    assert first.candidate == second.candidate
    numbers = [trial_of(one, first).number, trial_of(other, second).number]
    assert numbers == [0, 1]
    assert one.twin_of(first, 0) is None
    assert other.twin_of(second, 1) == 0


def test_a_queued_trial_whose_network_is_created_meanwhile_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its claim is late, and its number small: were the smaller to win, both would go on."""
    queued, other = make(TWO), make(TWO)
    other.ledger = Ledger(queued.study, OBJECTIVES)
    other.study = queued.study
    queued.study.enqueue_trial({"backbone.0.channels": 8})
    write, made = queued._write, []

    def late(*args: Any) -> None:
        made.append(other.propose())
        write(*args)

    monkeypatch.setattr(queued, "_write", late)
    with pytest.raises(GaveWay, match="trial 1 has the same network"):
        propose(queued)
    assert trial_of(other, made[0]).number == 1
    assert other.twin_of(made[0], 1) == 0, "before the other has ended, both give way"
    queued.study.tell(0, state=TrialState.FAIL)
    other.ledger.refresh()
    assert other.twin_of(made[0], 1) is None


def test_a_failed_bug_may_be_tried_again_but_a_refusal_not() -> None:
    proposer = make(TWO.replace("8|16", "8"))
    proposal = propose(proposer)
    end(proposer, proposal, TrialState.FAIL)
    again = propose(proposer)
    assert again.candidate.architecture == proposal.candidate.architecture
    end(proposer, again, TrialState.PRUNED)
    with pytest.raises(Exhausted, match="no network"):
        propose(proposer)


def test_a_trial_that_was_handed_back_keeps_its_network() -> None:
    proposer = make(limits=("params <= 5k",))
    proposal = propose(proposer)
    proposer.study._storage.set_trial_state_values(proposal.trial_id, TrialState.WAITING)
    before = proposer.study.trials[0]
    again = propose(proposer)
    assert again.trial_id == proposal.trial_id
    assert again.candidate == proposal.candidate
    after = proposer.study.trials[0]
    assert (after.params, after.constraints) == (before.params, before.constraints)


def test_a_queued_trial_is_taken_as_it_is() -> None:
    proposer = make()
    # 16|40|56 has no equal distances: the parameter is a place.
    proposer.study.enqueue_trial({"backbone.0.channels": 24, "backbone.0.kernel": 5})
    proposal = propose(proposer)
    assert proposal.candidate.decisions["backbone.0.channels"] == 24
    assert proposal.candidate.decisions["backbone.0.kernel"] == 5
    assert proposer.study.trials[0].params["backbone.0.channels"] == 24


def test_a_queued_trial_that_is_known_or_breaks_a_limit() -> None:
    proposer = make(TWO, limits=("params <= 150",))
    proposer.study.enqueue_trial({"backbone.0.channels": 8})
    finish(proposer, propose(proposer))
    proposer.study.enqueue_trial({"backbone.0.channels": 8})
    with pytest.raises(GaveWay, match="trial 0"):
        propose(proposer)
    proposer.study.enqueue_trial({"backbone.0.channels": 16})
    with pytest.raises(Refused, match="227 params, limit 150"):
        propose(proposer)


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
        propose(proposer)


class Stubborn(optuna.samplers.RandomSampler):
    """Draws one network over and over."""

    drawn = 0

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
        return {}

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
        self.drawn += 1
        return {"backbone.0.channels": 24, "backbone.0.kernel": 5}

    def sample_independent(self, study: Any, trial: Any, name: str, distribution: Any) -> Any:
        return distribution.choices[0] if hasattr(distribution, "choices") else distribution.high


def test_what_a_sampler_draws_once_more_is_changed_a_little() -> None:
    sampler = Stubborn(seed=0)
    proposer = make(sampler=sampler)
    _, drawn, *others = (p.candidate.decisions for p in evaluate(proposer, 8))
    for one in others:
        assert sum(one[name] != value for name, value in drawn.items() if name in one) <= 2
    assert sampler.drawn <= 7 + 3, "hardly more than once for each but the file's own network"
