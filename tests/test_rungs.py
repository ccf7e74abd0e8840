from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState, create_trial

from archtuna.driver import search
from archtuna.objective import objectives_of
from archtuna.rungs import RungTable, violation_of
from archtuna.storage import STOPPED_CONSTRAINT, Attr
from archtuna.study import Study, state_of
from searches import arguments, climbing

OBJECTIVES = objectives_of(("f1", "params"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHTUNA_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("ARCHTUNA_STORAGE", raising=False)


def trial(number: int, rungs: dict[str, dict[str, float]], values: list[float] | None = None, **attrs: Any) -> Any:
    state = TrialState.RUNNING if values is None else TrialState.COMPLETE
    recipe = {"lr": 0.01 * (number + 1), "epochs": 27}
    kept = {Attr.RUNGS: rungs, Attr.COSTS: {"params": 10.0 * number, "macs": 1.0}, Attr.RECIPE: recipe, **attrs}
    made = create_trial(state=state, values=values, user_attrs=kept)
    made.number = number
    return made


# the table


def test_peers_are_those_that_came_to_the_rung_whatever_became_of_them() -> None:
    trials = [
        trial(0, {"2": {"f1": 0.1}, "10": {"f1": 0.3}}, [0.5, 0.0]),
        trial(1, {"2": {"f1": 0.2}}),
        trial(2, {"10": {"f1": 0.4}, "2": {"f1": 0.2}}),
        trial(3, {"2": {"f1": 0.2}, "10": {"f1": 0.1}}, [0.1, 30.0], **{Attr.OUTCOME: "stopped"}),
        trial(4, {}),
    ]
    table = RungTable(OBJECTIVES)
    first = table.peers(trials, 27, level=0, besides=1)
    assert first.values.tolist() == [[-0.1], [-0.2], [-0.2]]
    second = table.peers(trials, 27, level=1, besides=7)
    assert second.values.tolist() == [[-0.3], [-0.1], [-0.4]]
    assert second.costs.tolist() == [[0.0], [30.0], [20.0]]
    assert np.array_equal(second.finals, [[-0.5], [np.nan], [np.nan]], equal_nan=True)
    assert RungTable(OBJECTIVES).peers([], 27, level=0, besides=0).values.shape == (0, 1)


def test_trainings_of_other_lengths_are_not_compared() -> None:
    longer = {Attr.RECIPE: {"lr": 0.1, "epochs": 50}}
    trials = [trial(0, {"2": {"f1": 0.1}}, [0.5, 0.0]), trial(1, {"2": {"f1": 0.2}}, [0.6, 0.0], **longer)]
    trials += [trial(2, {"2": {"f1": 0.3}}, **longer), trial(3, {"2": {"f1": 0.4}})]
    table = RungTable(OBJECTIVES)
    for _ in range(2):
        assert table.peers(trials, 27, 0, besides=7).values.tolist() == [[-0.1], [-0.4]]
        assert table.peers(trials, 50, 0, besides=7).values.tolist() == [[-0.2], [-0.3]]


def test_the_hint_is_the_learning_rate() -> None:
    table = RungTable(OBJECTIVES)
    report = table.report(4, {"f1": 0.5, "loss": 1.0}, {"params": 30.0, "macs": 7.0}, lr=0.02)
    assert (report.epoch, report.values.tolist(), report.costs.tolist()) == (4, [-0.5], [30.0])
    assert report.hints == pytest.approx([np.log(0.02)])
    peers = table.peers([trial(1, {"1": {"f1": 0.1}}), trial(2, {"1": {"f1": 0.1}})], 27, 0, besides=0)
    assert peers.hints == pytest.approx(np.log([[0.02], [0.03]]))


def test_what_is_finished_is_read_once_and_what_runs_again() -> None:
    table, done, running = RungTable(OBJECTIVES), trial(0, {"2": {"f1": 0.1}}, [0.5, 0.0]), trial(1, {"2": {"f1": 0.1}})
    table.peers([done, running], 27, 0, besides=7)
    changed = [trial(0, {"2": {"f1": 0.9}}, [0.9, 0.0]), trial(1, {"2": {"f1": 0.9}})]
    assert table.peers(changed, 27, 0, besides=7).values.tolist() == [[-0.1], [-0.9]]


def test_a_study_without_costs_compares_everyone() -> None:
    table = RungTable(objectives_of(("loss",)))
    assert table.report(2, {"loss": 0.7}, {"params": 3.0}, lr=0.1).costs.shape == (0,)
    assert table.peers([trial(0, {"2": {"loss": 0.1}}, [0.5])], 27, 0, besides=7).costs.shape == (1, 0)


def test_a_stop_breaks_its_constraint_less_the_later_it_came() -> None:
    assert violation_of(3, 27, 0.5) > violation_of(9, 27, 0.5) > violation_of(26, 27, 0.5) > 0
    assert violation_of(9, 27, 0.9) > violation_of(9, 27, 0.2)


# a search


def searched(folder: Path, **changes: Any) -> tuple[Study, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    given = {"evaluator": climbing, "epochs": 9, "trials": 40, "sampler": "random", **changes}
    return search(
        **arguments(folder, on_event=lambda event: events.append(json.loads(json.dumps(event))), **given)
    ), events


def test_hopeless_trials_are_stopped_and_the_rest_is_as_without(tmp_path: Path) -> None:
    for name in ("on", "off"):
        (tmp_path / name).mkdir()
    study, events = searched(tmp_path / "on")
    whole, _ = searched(tmp_path / "off", stopping=False)
    counts = study.counts()
    assert counts["stopped"] >= 8
    assert counts["complete"] + counts["stopped"] == 40
    assert whole.counts()["complete"] == 40
    assert [t.values for t in study.front()] == [t.values for t in whole.front()]
    assert study.hypervolume() == whole.hypervolume()
    stops = [event for event in events if event["event"] == "stopped"]
    assert len(stops) == counts["stopped"]
    for event in stops:
        trial = study.candidate(event["number"])
        assert (trial.state, trial.epochs, trial.values) == ("stopped", event["epoch"], {})
        assert trial.reason == event["reason"]
        assert f"at epoch {event['epoch']}, " in trial.reason
        assert trial.feasible
        assert trial.metrics["f1"] > 0
        assert trial.checkpoint is None
        kept = study.optuna.trials[event["number"]]
        assert list(map(int, kept.user_attrs[Attr.RUNGS])) == [
            rung for rung in study.spec.schedule.rungs(9) if rung <= event["epoch"]
        ]
        assert kept.constraints[STOPPED_CONSTRAINT] > 0
        assert kept.intermediate_values == {}
        assert state_of(kept) == "stopped"


@pytest.mark.parametrize(("sampler", "state"), [("tpe", "PRUNED"), ("nsga2", "COMPLETE"), ("nsga3", "COMPLETE")])
def test_each_sampler_gets_what_it_learns_from_and_goes_on(tmp_path: Path, sampler: str, state: str) -> None:
    study, _ = searched(tmp_path, sampler=sampler, trials=60)
    stopped = [t for t in study.optuna.trials if state_of(t) == "stopped"]
    assert stopped
    assert {t.state.name for t in stopped} == {state}
    assert {t.number for t in study.optuna.best_trials}.isdisjoint(t.number for t in stopped)
    assert {t.state for t in study.front()} == {"complete"}


def test_a_study_from_before_there_was_a_schedule_stops_nothing(tmp_path: Path) -> None:
    study, _ = searched(tmp_path, trials=2, stopping=False)
    plain = study.optuna.user_attrs[Attr.SPEC]
    del plain["stopping"]
    study.optuna.set_user_attr(Attr.SPEC, plain)
    study.close()
    went_on, _ = searched(tmp_path)
    assert went_on.spec.schedule.off
    assert went_on.counts() == {"complete": 40, "stopped": 0, "refused": 0, "failed": 0}


def test_one_objective_without_costs(tmp_path: Path) -> None:
    study, _ = searched(tmp_path, objectives=["f1"], trials=30)
    assert study.counts()["stopped"] > 10
    assert study.optuna.best_trial.number == study.front()[0].number


def test_several_workers_share_the_rungs(tmp_path: Path) -> None:
    study, events = searched(tmp_path, evaluator="searches:climbing", workers=2)
    assert study.counts()["complete"] + study.counts()["stopped"] == 40
    assert {event["worker"] for event in events if event["event"] == "stopped"} == {0, 1}


def test_optuna_reads_the_constraint_of_a_stop() -> None:
    assert STOPPED_CONSTRAINT.startswith("archtuna:")
    study = optuna.create_study()
    asked = study.ask()
    asked.set_constraint(STOPPED_CONSTRAINT, 0.5)
    study.tell(asked, state=TrialState.PRUNED)
    assert study.trials[0].constraints == {STOPPED_CONSTRAINT: 0.5}
