from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial

from archtuna.ledger import Front, Ledger, result_of, state_of
from archtuna.objective import hypervolume, nondominated, objectives_of, pareto_ranks
from archtuna.storage import Attr, close_storage, open_storage

OBJECTIVES = objectives_of(("f1", "params"))


@pytest.mark.parametrize(
    ("state", "outcome", "word"),
    [
        ("COMPLETE", None, "complete"), ("RUNNING", None, "running"), ("WAITING", None, "waiting"), ("PRUNED", None, "stopped"),
        ("PRUNED", "refused", "refused"), ("PRUNED", "failed", "failed"), ("FAIL", None, "failed"),
        ("FAIL", "duplicate", "duplicate"), ("FAIL", "refused", "refused"),
    ],
)  # fmt: skip
def test_states(state: str, outcome: str | None, word: str) -> None:
    attrs = {} if outcome is None else {Attr.OUTCOME: outcome}
    values = [1.0] if state == "COMPLETE" else None
    assert state_of(create_trial(state=TrialState[state], values=values, user_attrs=attrs)) == word


def test_results_of_this_and_of_older_versions() -> None:
    three = {Attr.METRICS: {"f1": 0.5}, Attr.EPOCHS: {"trained": 3, "kept": 2}, Attr.SECONDS: 1.5}
    one = {Attr.RESULT: {"metrics": {"f1": 0.5}, "epochs": {"trained": 3, "kept": 2}, "seconds": 1.5}}
    old, new = (create_trial(value=0.5, user_attrs=attrs) for attrs in (three, one))
    assert result_of(old) == result_of(new) == one[Attr.RESULT]
    assert result_of(create_trial(state=TrialState.RUNNING)) == {"metrics": {}, "epochs": {}, "seconds": None}


POINTS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)), max_size=25)


@given(POINTS, st.integers(1, 5))
def test_a_front_that_grows_is_the_front_of_all(points: list[tuple[int, int, int]], step: int) -> None:
    every, front = np.array(points, dtype=float).reshape(-1, 3), Front(3)
    for start in range(0, len(every), step):
        batch = every[start : start + step]
        before = sorted(front.numbers)
        changed = front.add(range(start, start + len(batch)), batch)
        assert changed == (sorted(front.numbers) != before)
    assert sorted(front.numbers) == np.flatnonzero(pareto_ranks(every) == 0).tolist()
    assert front.points.tolist() == [every[n].tolist() for n in front.numbers]
    ideal, worst = [0.0] * 3, [6.0] * 3
    assert front.hypervolume(ideal, worst) == pytest.approx(hypervolume(every, ideal, worst) if len(every) else 0.0)


def test_equal_points_share_a_front() -> None:
    assert nondominated(np.array([[1.0, 1], [1, 1], [2, 0], [2, 1]])).tolist() == [True, True, True, False]


@pytest.fixture(params=["memory", "journal", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "memory":
        opened: BaseStorage = InMemoryStorage()
    elif request.param == "journal":
        opened = JournalStorage(JournalFileBackend(str(tmp_path / "journal.log")))
    else:
        opened = open_storage(None, tmp_path)
    yield opened
    close_storage(opened)


def study_in(storage: BaseStorage) -> optuna.Study:
    return optuna.create_study(storage=storage, directions=["maximize", "minimize"])


def begin(study: optuna.Study, evaluation: str | None, state: TrialState = TrialState.RUNNING) -> int:
    attrs = {} if evaluation is None else {Attr.EVALUATION: evaluation}
    return study._storage.create_new_trial(study._study_id, create_trial(state=state, user_attrs=attrs))


def test_a_trial_from_its_beginning_to_its_end(storage: BaseStorage) -> None:
    study = study_in(storage)
    ledger = Ledger(study, OBJECTIVES)
    ledger.refresh()
    assert not ledger.tried
    assert len(ledger.trials) == ledger.wanted == 0
    first, second = begin(study, "a"), begin(study, "a")
    ledger.refresh()
    assert ledger.tried
    assert ledger.known == {"a": 0}
    assert ledger.other_than(0, "a") == 1
    assert ledger.other_than(1, "a") == 0
    assert [t.number for t in ledger.opened("running")] == [0, 1]
    storage.set_trial_user_attr(first, Attr.OUTCOME, "duplicate")
    storage.set_trial_state_values(first, TrialState.FAIL)
    ledger.refresh()
    assert ledger.known == {"a": 1}
    assert ledger.other_than(1, "a") is None
    assert (ledger.unwanted, ledger.wanted) == ([0], 1)
    storage.set_trial_user_attr(second, Attr.RESULT, {"metrics": {}, "epochs": {}, "seconds": 2.0})
    storage.set_trial_state_values(second, TrialState.COMPLETE, [0.5, 10.0])
    ledger.refresh()
    assert ledger.points.tolist() == [[-0.5, 10.0]]
    assert ledger.numbers == ledger.front.numbers == [1]
    assert ledger.seconds == [2.0]
    assert +ledger.counts == {"duplicate": 1, "complete": 1}
    assert ledger.opened("running") == []
    assert ledger.find(second).number == 1


def test_a_claim_that_comes_late(storage: BaseStorage) -> None:
    study = study_in(storage)
    ledger = Ledger(study, OBJECTIVES)
    queued, other = begin(study, None, TrialState.WAITING), begin(study, "a")
    ledger.refresh()
    assert ledger.known == {"a": 1}
    assert ledger.counts["waiting"] == 1
    storage.set_trial_state_values(queued, TrialState.RUNNING)
    storage.set_trial_user_attr(queued, Attr.EVALUATION, "a")
    ledger.refresh()
    assert ledger.known == {"a": 0}
    assert ledger.other_than(0, "a") == 1
    storage.set_trial_state_values(queued, TrialState.FAIL)
    storage.set_trial_state_values(other, TrialState.FAIL)
    ledger.refresh()
    assert ledger.known == {}
    assert not ledger.tried


def test_what_breaks_a_limit_is_not_on_the_front(storage: BaseStorage) -> None:
    study = study_in(storage)
    ledger = Ledger(study, OBJECTIVES)
    study.add_trial(create_trial(values=[0.5, 10.0], constraints={"params": -0.1}))
    study.add_trial(create_trial(values=[0.9, 5.0], constraints={"params": 0.1}))
    study.add_trial(create_trial(values=[0.4, 20.0]))
    ledger.refresh()
    assert ledger.numbers == [0, 2]
    assert ledger.front.numbers == [0]
    assert ledger.counts["complete"] == 3


LIVES = st.lists(
    st.tuples(st.integers(0, 7), st.sampled_from("abc"), st.sampled_from(["begin", "end", "fail", "wait"]))
)


@settings(max_examples=60, deadline=None)
@given(LIVES)
def test_reading_step_by_step_is_reading_at_once(lives: list[tuple[int, str, str]]) -> None:
    study = study_in(InMemoryStorage())
    storage, ledger, ids = study._storage, Ledger(study, OBJECTIVES), []
    for place, evaluation, what in lives:
        running = [i for i in ids if not storage.get_trial(i).state.is_finished()]
        if what == "begin" or not running:
            ids.append(begin(study, evaluation))
        else:
            trial = running[place % len(running)]
            values = [0.1 * place, float(place)] if what == "end" else None
            state = {"end": TrialState.COMPLETE, "fail": TrialState.FAIL, "wait": TrialState.WAITING}[what]
            storage.set_trial_state_values(trial, state, values)
        ledger.refresh()
    at_once = Ledger(study, OBJECTIVES)
    at_once.refresh()
    for name in ("known", "unwanted", "seconds", "wanted", "tried"):
        assert getattr(ledger, name) == getattr(at_once, name), name
    assert +ledger.counts == +at_once.counts
    assert sorted(ledger.numbers) == sorted(at_once.numbers)
    assert sorted(ledger.front.numbers) == sorted(at_once.front.numbers)


def test_a_refresh_is_one_read_and_looks_only_at_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_in(InMemoryStorage())
    for number in range(50):
        study.add_trial(create_trial(values=[number / 50, 1.0]))
    begin(study, "a")
    reads, looked = [], []
    real, take = study._storage.get_all_trials, Ledger._take
    monkeypatch.setattr(study._storage, "get_all_trials", lambda *a, **k: reads.append(a) or real(*a, **k))
    monkeypatch.setattr(Ledger, "_take", lambda self, number, trial: looked.append(number) or take(self, number, trial))
    ledger = Ledger(study, OBJECTIVES)
    ledger.refresh()
    assert (len(reads), looked) == (1, list(range(51)))
    looked.clear()
    begin(study, "b")
    ledger.refresh()
    assert (len(reads), looked) == (2, [50, 51])
