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
from archtuna.schedule import ENOUGH, SHORTEST, Peers, Report, Schedule, decide, hopeful

F1 = objectives_of(("f1",))
SEVERAL = objectives_of(("loss", "f1"))


# rungs


@given(st.integers(1, 2000), st.none() | st.integers(1, 50), st.floats(1.2, 10))
def test_rungs_ascend_and_leave_some_epochs_to_save(epochs: int, first: int | None, factor: float) -> None:
    rungs = Schedule(first, factor).rungs(epochs)
    assert list(rungs) == sorted(set(rungs))
    assert all(1 <= rung < epochs for rung in rungs)
    assert not rungs or rungs[0] == (first or max(1, round(epochs / 9)))


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
