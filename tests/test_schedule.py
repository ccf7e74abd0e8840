from __future__ import annotations

import json
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archtuna.errors import SpecError
from archtuna.objective import objectives_of
from archtuna.schedule import ENOUGH, SHORTEST, STEP, Peers, Report, Schedule, decide, hopeful

F1 = objectives_of(("f1",))
SEVERAL = objectives_of(("loss", "f1"))


# rungs


@given(st.integers(1, 2000), st.none() | st.integers(1, 50), st.floats(1.1, 10))
def test_rungs_ascend_and_leave_some_epochs_to_save(epochs: int, first: int | None, factor: float) -> None:
    rungs = Schedule(first, factor).rungs(epochs)
    assert list(rungs) == sorted(set(rungs))
    assert all(1 <= rung < epochs for rung in rungs)
    assert not rungs or rungs[0] == (first or max(1, round(epochs / 25)))
    step = max(1, round(STEP * epochs))
    assert all(b - a <= step for a, b in pairwise(rungs))
    assert not rungs or step <= epochs - rungs[-1] < 2 * step


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


def peers(values: list[float], costs: list[float], finals: list[float], hints: Any = None) -> Peers:
    """Peers by f1, which is turned so that smaller is better."""
    n = len(values)
    told = np.zeros((n, 0)) if hints is None else np.array(hints, dtype=float).reshape(n, -1)
    return Peers(-np.array(values).reshape(n, 1), told, np.array(costs).reshape(n, 1), -np.array(finals).reshape(n, 1))


def report(f1: float, cost: float, *hints: float) -> Report:
    return Report(3, np.array([-f1]), np.array(hints), np.array([cost]), F1)


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
    some = [(0.3 + 0.02 * i, 0.0, 0.5 + 0.02 * i) for i in range(1 + ENOUGH)]
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


def test_slow_starters_are_known_by_what_is_the_same_in_others() -> None:
    """Networks of a low learning rate, here a hint, are far behind at the rung and ahead in the end."""
    draws = np.random.default_rng(0)
    slow = np.arange(40) % 2
    early, late = np.array([0.4 - 0.3 * slow, 0.6 + 0.2 * slow]) + draws.normal(0, 0.01, (2, 40))
    plain = peers(early.tolist(), [0.0] * 40, late.tolist())
    hinted = peers(early.tolist(), [0.0] * 40, late.tolist(), slow)
    assert not decide(report(0.1, 0.0, 1.0), hinted).stop
    assert decide(report(0.4, 0.0, 0.0), hinted).stop
    assert not decide(report(0.1, 0.0), plain).stop


def test_hints_that_are_the_same_for_all_or_follow_from_the_rest_change_nothing() -> None:
    draws = np.random.default_rng(0)
    early = draws.uniform(0.1, 0.5, 30)
    late = early + draws.normal(0.3, 0.02, 30)
    plain, now = hopeful(np.array([0.2]), early[:, None], late[:, None]), np.array([0.2, 7.0, -0.2])
    told = hopeful(now, np.column_stack([early, np.full(30, 7.0), -early]), late[:, None])
    assert told == pytest.approx(plain)


@pytest.mark.parametrize("lr", [0.1, 0.01, 0.002, 0.001, 0.0003])
def test_however_many_trials_share_a_hint_it_changes_nothing(lr: float) -> None:
    draws = np.random.default_rng(0)
    for n in range(8, 200):  # A mean of equal numbers is not always that number.
        early = draws.uniform(0.1, 0.5, n)
        late = early + draws.normal(0.3, 0.02, n)
        plain = hopeful(np.array([0.2]), early[:, None], late[:, None])
        told = hopeful(np.array([0.2, np.log(lr)]), np.column_stack([early, np.full(n, np.log(lr))]), late[:, None])
        assert told == pytest.approx(plain), n


def test_the_forecast_covers_what_happens() -> None:
    """With 2.4 standard deviations .8 % of normal ends are better than the hope, however few trials it is made from."""
    draws, beyond = np.random.default_rng(0), []
    for n in (8, 12, 50):
        for _ in range(2000):
            early = draws.normal(size=n + 1)
            late = 0.5 * early + draws.normal(size=n + 1)
            beyond.append(late[0] < hopeful(early[:1], early[1:, None], late[1:, None])[0])
    assert 0.005 < np.mean(beyond) < 0.012


CROWD = st.lists(st.tuples(*[st.floats(0, 1)] * 3, st.booleans()), min_size=1 + ENOUGH, max_size=40)


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
    draws = np.random.default_rng(0)
    ends = np.array([0.5, -0.8]) + draws.normal(0, 0.05, (40, 2))
    crowd = Peers(
        ends + np.array([0.5, 0.3]) + draws.normal(0, 0.01, (40, 2)), np.zeros((40, 0)), np.zeros((40, 0)), ends
    )
    for (loss, f1), stops in {(1.4, 0.2): True, (0.8, 0.2): False, (1.4, 0.8): False}.items():
        decision = decide(Report(3, np.array([loss, -f1]), np.zeros(0), np.zeros(0), SEVERAL), crowd)
        assert decision.stop == stops
        assert ("40 of 40 no dearer networks have a better loss and f1" in decision.reason) == stops


def test_what_is_unlike_all_others_is_not_stopped() -> None:
    values, ends = [0.3 + 0.02 * i for i in range(10)], [0.5 + 0.02 * i for i in range(10)]
    alike = peers(values, [0.0] * 10, ends, [0.01] * 10)
    assert decide(report(0.1, 0.0, 0.01), alike).stop
    assert not decide(report(0.1, 0.0, 0.02), alike).stop, "no other has this learning rate"
