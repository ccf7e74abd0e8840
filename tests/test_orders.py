from __future__ import annotations

import optuna
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState, create_trial

from archtuna.ledger import Ledger, state_of
from archtuna.objective import objectives_of
from archtuna.orders import Orders, has_time, is_admitted, is_reached
from archtuna.storage import Attr

STATES = st.lists(
    st.sampled_from(["complete", "stopped", "failed", "running", "waiting", "refused", "duplicate"]), max_size=40
)


def ledger_of(states: list[str]) -> Ledger:
    """A ledger of trials in these states."""
    study = optuna.create_study(directions=["maximize", "minimize"])
    raw = {"complete": "COMPLETE", "running": "RUNNING", "waiting": "WAITING", "stopped": "PRUNED", "refused": "PRUNED"}
    for state in states:
        attrs = {Attr.OUTCOME: state} if state in ("refused", "failed", "duplicate") else {}
        kind = TrialState[raw.get(state, "FAIL")]
        values = [0.5, 1.0] if state == "complete" else None
        study.add_trial(create_trial(state=kind, values=values, user_attrs=attrs))
    ledger = Ledger(study, objectives_of(("f1", "params")))
    ledger.refresh()
    assert [state_of(trial) for trial in ledger.trials] == states
    return ledger


@given(STATES, st.integers(1, 20))
def test_exactly_the_wanted_number_is_admitted(states: list[str], target: int) -> None:
    """However many workers ask, and in whatever order, the trials that count are the first ``target`` of them."""
    ledger = ledger_of(states)
    counting = [n for n, state in enumerate(states) if state not in ("refused", "duplicate")]
    assert [n for n in counting if is_admitted(ledger.wanted_before(n), target)] == counting[:target]
    assert ledger.wanted == len(counting)


def test_without_a_target_everything_is_admitted() -> None:
    assert is_admitted(1000, None)
    assert not is_reached(1000, 0, None)


def test_a_target_is_reached_by_what_runs_but_not_by_what_waits() -> None:
    assert is_reached(2, 0, 2)
    assert not is_reached(1, 0, 2)
    assert not is_reached(2, 1, 2)


def test_time_for_another() -> None:
    assert has_time(0.0, None, [1e9])
    assert has_time(0.0, 10.0, [])
    assert not has_time(10.0, 10.0, [])
    assert has_time(2.0, 10.0, [10.0, 10.0, 1.0])
    assert not has_time(3.0, 10.0, [10.0, 10.0, 1.0])


def test_those_who_join_later_are_told_the_same_on_their_own_clock() -> None:
    orders = Orders(trials=50, deadline=1_000.0, grace=20.0, workers=3, started=7, near=4, device="cuda:1", lease=30.0)
    shared = orders.shared(clock=503.0, here=500.0)
    joined = Orders(index=9, workers=1, started=11, device="cpu").joined(shared, clock=600.0, here=590.0)
    assert joined == Orders(
        trials=50, deadline=993.0, grace=20.0, index=9, workers=1, started=11, near=4, device="cpu", lease=30.0
    )
    assert Orders(trials=5).joined({"trials": 6, "deadline": None, "sampler": "tpe"}, 0.0, 0.0).trials == 6
