from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from archtuna import rdb
from archtuna.storage import close_storage, engine_of, open_storage
from postgres import Server, server  # noqa: F401

SPACE: dict[str, BaseDistribution] = {
    "a": FloatDistribution(1e-3, 1.0, log=True),
    "b": IntDistribution(1, 9, step=2),
    "c": CategoricalDistribution(("x", None, 3, True)),
    "d": CategoricalDistribution((1, 0)),
    "e": CategoricalDistribution((True, False)),
}


def trials() -> list[FrozenTrial]:
    """One trial of every kind."""
    params = [{"a": 0.5, "b": 3, "c": None, "d": 1, "e": True}, {"c": True, "d": 0, "e": False}, {"b": 9}, {}]
    given: list[dict[str, Any]] = [
        {"state": TrialState.RUNNING, "user_attrs": {"text": "é'", "none": None, "list": [1, {"x": 2.5}]}},
        {"values": [math.inf, -1.5], "system_attrs": {"k": {"z": 1}}, "constraints": {"params": -0.25, "macs": 0.5}},
        {"state": TrialState.PRUNED, "intermediate_values": {1: 0.5, 7: math.inf, 9: -math.inf}},
        {"state": TrialState.WAITING},
        {"state": TrialState.FAIL, "params": {}},
    ]
    made = []
    for number, what in enumerate(given):
        chosen = what.pop("params", params[number % 4])
        made.append(create_trial(params=chosen, distributions={n: SPACE[n] for n in chosen}, **what))
    return made


@pytest.fixture(params=["sqlite", "postgresql"])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[BaseStorage, BaseStorage]]:
    """Our storage and Optuna's own on one database."""
    url = f"sqlite:///{tmp_path}/study.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("server").url().replace("{", "{{").replace("}", "}}")
    ours = open_storage(url.replace("{{", "{").replace("}}", "}"), tmp_path)
    stock = RDBStorage(url.replace("postgresql://", "postgresql+psycopg://"))
    yield ours, stock
    for storage in (ours, stock):
        close_storage(storage)


_count = iter(range(1000))


def study_in(storage: BaseStorage) -> tuple[int, optuna.Study]:
    study = optuna.create_study(
        storage=storage, study_name=f"s{next(_count)}-{id(storage)}", directions=["minimize", "maximize"]
    )
    return study._study_id, study


def same(one: list[FrozenTrial], other: list[FrozenTrial]) -> None:
    for a, b in zip(one, other, strict=True):
        assert a == b
        assert list(a.params) == list(b.params)
        assert list(map(type, a.params.values())) == list(map(type, b.params.values()))
        assert repr(list(a.distributions.values())) == repr(list(b.distributions.values()))


def test_what_we_write_optuna_reads_and_the_other_way_round(both: tuple[BaseStorage, BaseStorage]) -> None:
    ours, stock = both
    by_us, _ = study_in(ours)
    by_optuna, _ = study_in(ours)
    for trial in trials():
        ours.create_new_trial(by_us, trial)
        stock.create_new_trial(by_optuna, trial)
    for study_id in (by_us, by_optuna):
        seen = stock.get_all_trials(study_id)
        same(ours.get_all_trials(study_id), seen)
        same([ours._backend.get_trial(t._trial_id) for t in seen], seen)  # type: ignore[attr-defined]
        assert [t.number for t in seen] == [0, 1, 2, 3, 4]
        for got, given in zip(seen, trials(), strict=True):
            assert (got.params, got.distributions, got.values) == (given.params, given.distributions, given.values)
            assert (got.user_attrs, got.system_attrs) == (given.user_attrs, given.system_attrs)
            assert got.intermediate_values == given.intermediate_values
            assert got.state == given.state
    states = (TrialState.WAITING, TrialState.FAIL)
    same(ours._backend.get_all_trials(by_us, states=states), stock.get_all_trials(by_us, states=states))  # type: ignore[attr-defined]


def test_a_trial_is_a_statement_a_table(tmp_path: Path) -> None:
    ours = open_storage(None, tmp_path)
    study_id, _ = study_in(ours)
    first = trials()[1]
    ours.create_new_trial(study_id, first)
    statements: list[str] = []
    from sqlalchemy import event

    event.listen(engine_of(ours), "before_cursor_execute", lambda c, cursor, text, *rest: statements.append(text))
    trial_id = ours.create_new_trial(study_id, first)
    # The study's row, the number, the trial, parameters, values and system attributes.
    assert len([s for s in statements if not s.startswith("BEGIN")]) == 6
    statements.clear()
    ours.set_trial_user_attr(ours.create_new_trial(study_id, trials()[0]), "k", 1)
    statements.clear()
    ours.get_all_trials(study_id)
    assert [s for s in statements if s.startswith("BEGIN")] == ["BEGIN"], "a read takes no lock"
    assert len(statements) == 7
    assert ours.get_trial(trial_id).number == 1
    close_storage(ours)


def test_values_are_told_once(both: tuple[BaseStorage, BaseStorage]) -> None:
    ours, stock = both
    study_id, study = study_in(ours)
    trial_id = ours.create_new_trial(study_id, trials()[0])
    assert ours.set_trial_state_values(trial_id, TrialState.COMPLETE, [1.0, -math.inf])
    same(ours.get_all_trials(study_id), stock.get_all_trials(study_id))
    assert study.trials[0].values == [1.0, -math.inf]
    assert study.trials[0].datetime_complete is not None
    with pytest.raises(UpdateFinishedTrialError):
        ours.set_trial_state_values(trial_id, TrialState.COMPLETE, [2.0, 2.0])
    assert stock.get_trial(trial_id).values == [1.0, -math.inf]


def test_another_distribution_is_refused(both: tuple[BaseStorage, BaseStorage]) -> None:
    ours, _ = both
    study_id, _ = study_in(ours)

    def trial(distribution: BaseDistribution, value: Any) -> FrozenTrial:
        return create_trial(state=TrialState.RUNNING, params={"c": value}, distributions={"c": distribution})

    ours.create_new_trial(study_id, trial(CategoricalDistribution(("x", "y")), "x"))
    for _ in range(2):
        with pytest.raises(ValueError, match="CategoricalDistribution does not support dynamic value space"):
            ours.create_new_trial(study_id, trial(CategoricalDistribution(("x", "z")), "x"))
    with pytest.raises(ValueError, match="Cannot set different distribution kind"):
        ours.create_new_trial(study_id, trial(IntDistribution(0, 1), 0))
    assert len(ours.get_all_trials(study_id)) == 1
    other, _ = study_in(ours)
    ours.create_new_trial(other, trial(IntDistribution(0, 1), 0))


def test_reading_in_pieces(both: tuple[BaseStorage, BaseStorage], monkeypatch: pytest.MonkeyPatch) -> None:
    """However many identities are named one by one, the same is read."""
    ours, stock = both
    study_id, study = study_in(ours)
    study_in(ours)[1].add_trials(trials())
    for known in (0, 2, 500):
        monkeypatch.setattr(rdb, "IDENTITIES", known)
        for trial in trials():
            ours.create_new_trial(study_id, trial)
        same(ours.get_all_trials(study_id), stock.get_all_trials(study_id))
        running = [t for t in study.get_trials() if t.state == TrialState.RUNNING]
        stock.set_trial_state_values(running[0]._trial_id, TrialState.COMPLETE, [1.0, 2.0])
        same(ours.get_all_trials(study_id), stock.get_all_trials(study_id))


def test_running_trials_come_with_what_is_asked_of_them(both: tuple[BaseStorage, BaseStorage]) -> None:
    ours, _ = both
    study_id, study = study_in(ours)
    for other in (study_in(ours)[1], study):
        other.add_trials(trials())
    born = create_trial(state=TrialState.RUNNING, user_attrs={"list": [2], "text": "x"})
    ours.create_new_trial(study_id, born)
    backend = getattr(ours, "_backend", ours)
    found = backend.running(study_id, ("list", "text"))  # type: ignore[attr-defined]
    expected = ours.get_all_trials(study_id, states=(TrialState.RUNNING,))
    assert [(t._trial_id, t.number, t.state, t.datetime_start) for t in found] == [
        (t._trial_id, t.number, t.state, t.datetime_start) for t in expected
    ]
    assert [t.user_attrs for t in found] == [{"list": [1, {"x": 2.5}], "text": "é'"}, {"list": [2], "text": "x"}]
    assert all(not t.params for t in found)


def test_what_is_not_there(both: tuple[BaseStorage, BaseStorage]) -> None:
    ours, _ = both
    study_id, _ = study_in(ours)
    assert ours.get_all_trials(study_id) == []
    with pytest.raises(KeyError):
        ours.get_all_trials(10**6)
    with pytest.raises(KeyError):
        ours.get_trial(10**6)
