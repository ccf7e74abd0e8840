from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archtuna.errors import SpecError
from archtuna.objective import objectives_of
from archtuna.schedule import ENOUGH, SHORTEST, Peers, Report, Schedule, decide

F1 = objectives_of(("f1",))
SEVERAL = objectives_of(("loss", "f1"))


# rungs


@given(st.integers(1, 2000), st.none() | st.integers(1, 50), st.floats(1.1, 10))
def test_rungs_ascend_and_leave_some_epochs_to_save(epochs: int, first: int | None, factor: float) -> None:
    rungs = Schedule(first, factor).rungs(epochs)
    assert list(rungs) == sorted(set(rungs))
    assert all(1 <= rung < epochs for rung in rungs)
    assert not rungs or rungs[0] == (first or max(1, round(epochs / 15)))


def test_short_trainings_and_a_schedule_that_is_off_have_no_rungs() -> None:
    assert Schedule().rungs(SHORTEST - 1) == ()
    assert Schedule().rungs(SHORTEST) != ()
    assert Schedule(off=True).rungs(100) == ()
    assert Schedule(first=40).rungs(30) == ()


def test_a_schedule_is_plain_data_and_says_what_it_is() -> None:
    schedule = Schedule(first=2, factor=3)
    assert Schedule(**json.loads(json.dumps(asdict(schedule)))) == schedule
    assert str(schedule) == "first at epoch 2, then at 3 times as many"
    assert str(Schedule(off=True)) == "off"


@pytest.mark.parametrize(
    ("values", "words"),
    [({"first": 0}, "stopping.first: must be .*, not 0"), ({"factor": 1.0}, "stopping.factor: must be .*, not 1.0")],
)
def test_schedules_that_cannot_be(values: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        Schedule(**values)


# decisions


def peers(values: list[float], costs: list[float], finals: list[float]) -> Peers:
    """Peers by f1, which is turned so that smaller is better."""
    n = len(values)
    return Peers(-np.array(values).reshape(n, 1), np.array(costs).reshape(n, 1), -np.array(finals).reshape(n, 1))


def report(f1: float, cost: float) -> Report:
    return Report(3, np.array([-f1]), np.array([cost]), F1)


LADDER = peers([0.3 + 0.02 * i for i in range(10)], [100.0 * i for i in range(10)], [0.5 + 0.02 * i for i in range(10)])
"""Ten networks, each dearer and better than the one before, all of which gain .2."""


def test_a_hopeless_trial_is_stopped_and_told_why() -> None:
    decision = decide(report(0.25, 500.0), LADDER)
    assert decision.stop
    assert decision.quantile == 1.0
    assert decision.reason == (
        "at epoch 3, 6 of 6 no dearer networks have a better f1; 0.4500 at best in the end, and one of them has 0.5000"
    )


def test_only_the_no_dearer_count() -> None:
    assert not decide(report(0.25, -1.0), LADDER).stop, "the cheapest of all"
    assert decide(report(0.25, 0.0), LADDER).stop, "a peer of the same costs is no dearer"
    assert decide(report(0.35, 500.0), LADDER).quantile == 0.5
    assert not decide(report(0.45, 500.0), LADDER).stop, "dearer ones are better"


def test_the_first_few_trials_are_not_stopped() -> None:
    some = [(0.3 + 0.02 * i, 0.0, 0.5 + 0.02 * i) for i in range(ENOUGH)]
    assert decide(report(0.1, 0.0), peers(*map(list, zip(*some, strict=True)))).stop
    assert not decide(report(0.1, 0.0), peers(*map(list, zip(*some[1:], strict=True)))).stop
    running = peers([0.9] * 50, [0.0] * 50, [float("nan")] * 50)
    assert not decide(report(0.1, 0.0), running).stop
    assert not decide(report(0.1, 0.0), peers([], [], [])).stop


def test_a_rung_that_says_nothing_of_the_end_stops_nobody() -> None:
    draws = np.random.default_rng(0)
    early, late = draws.uniform(0.1, 0.2, 60), draws.uniform(0.6, 0.8, 60)
    blind = peers(early.tolist(), [0.0] * 60, late.tolist())
    assert not any(decide(report(f1, 0.0), blind).stop for f1 in early)
    telling = peers(early.tolist(), [0.0] * 60, (4 * early + draws.normal(0, 0.01, 60)).tolist())
    assert np.mean([decide(report(f1, 0.0), telling).stop for f1 in early]) > 0.5


CROWD = st.lists(st.tuples(*[st.floats(0, 1)] * 3, st.booleans()), min_size=ENOUGH, max_size=40)


@given(CROWD, st.floats(0, 1), st.floats(0, 1))
def test_what_is_better_already_than_every_no_dearer_end_is_never_stopped(
    crowd: list[tuple[float, float, float, bool]], f1: float, cost: float
) -> None:
    values, costs, gains, full = (list(column) for column in zip(*crowd, strict=True))
    finals = [v + g if done else float("nan") for v, g, done in zip(values, gains, full, strict=True)]
    ends = [end for end, c in zip(finals, costs, strict=True) if c <= cost and end == end]
    decision = decide(report(f1, cost), peers(values, costs, finals))
    assert 0 <= decision.quantile <= 1
    if all(f1 > end for end in ends):
        assert not decision.stop


def test_with_several_qualities_all_have_to_be_out_of_reach() -> None:
    ends = np.array([[0.9 - 0.05 * i, -0.5 - 0.03 * i] for i in range(10)])
    crowd = Peers(values=ends + np.array([0.5, 0.2]), costs=np.zeros((10, 0)), finals=ends)
    for (loss, f1), stops in {(1.6, 0.1): True, (0.8, 0.1): False, (1.6, 0.7): False}.items():
        decision = decide(Report(3, np.array([loss, -f1]), np.zeros(0), SEVERAL), crowd)
        assert decision.stop == stops
    assert (
        "no dearer networks have a better loss and f1"
        in decide(Report(3, np.array([1.6, -0.1]), np.zeros(0), SEVERAL), crowd).reason
    )
