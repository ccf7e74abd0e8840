from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState, create_trial

from archtuna.leases import held_by, lease_of, this_worker
from archtuna.status import status, status_lines, summary_line, watched
from archtuna.storage import Attr
from archtuna.study import Study
from archtuna.terminal import Screen
from studies import add, make_spec

ELSEWHERE = {"host": "gpu-7", "pid": 42, "started": 1.0}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study.create_or_open(tmp_path / "photos", make_spec(limits=()))


def running(study: Study, worker: dict[str, Any], silent: float | None, **lease: Any) -> None:
    """Add a trial that a worker has, who was heard of so many seconds ago."""
    told = lease_of(1) | lease | ({} if silent is None else {"at": time.time() - silent})
    attrs = {**held_by(worker), Attr.LEASE: told, Attr.RECIPE: {"epochs": 12}}
    study.optuna.add_trial(create_trial(state=TrialState.RUNNING, user_attrs=attrs))


def test_nothing_yet(study: Study) -> None:
    found = status(study)
    assert (found["workers"], found["rate"], found["left"], found["wanted"]) == ([], None, None, None)
    assert status_lines(found)[1:] == [
        "trials: no trials yet",
        "hypervolume 0.0000",
        "",
        "no trial is with a worker",
        "",
        "front: nothing yet",
    ]
    assert summary_line(found) == "trials: no trials yet, front of 0, hypervolume 0.0000"


def test_who_works_on_what_and_who_is_not_heard_of(study: Study) -> None:
    for f1, params in ((0.5, 100.0), (0.6, 200.0), (0.4, 300.0)):
        add(study, f1, params)
    running(study, this_worker(), 5.0, epoch=3)
    running(study, ELSEWHERE, 500.0, epoch=7, take=2)
    running(study, ELSEWHERE, None)
    study.optuna.set_user_attr(Attr.ORDERS, {"trials": 10, "deadline": time.time() + 60.0, "sampler": None})
    found = status(study)
    assert found["trials"] == {"complete": 3, "stopped": 0, "refused": 0, "failed": 0, "running": 3, "waiting": 0}
    assert [one["stale"] for one in found["workers"]] == [False, True, False]
    assert [one["worker"] for one in found["workers"]][1:] == ["gpu-7:42"] * 2
    assert [(one["number"], one["epoch"], one["epochs"], one["take"]) for one in found["workers"]] == [
        (3, 3, 12, 1), (4, 7, 12, 2), (5, 0, 12, 1),
    ]  # fmt: skip
    assert found["left"] <= 60.0
    lines = status_lines(found, Screen(160))
    assert lines[1].startswith("trials of 10 wanted: 3 complete, 3 running")
    assert "left" in lines[1]
    assert any("gpu-7:42" in line and "7/12" in line and "stale, heard of 8:20 ago, take 2" in line for line in lines)
    assert "a stale trial goes on with the next worker that is free: the same archtuna search again" in lines
    shared = status_lines({**found, "storage": "postgresql://ada@db/nets"}, Screen(160))
    assert "a stale trial goes on with the next worker that is free: archtuna worker" in shared
    assert lines[-3:] == [
        "trial  f1 (max)  params (min)",
        "   1*    0.6000           200",
        "   0     0.5000           100",
    ]
    assert found["growth"] == sorted(found["growth"])
    assert len(found["growth"]) == 3
    assert any(line.startswith("hypervolume from ") and line.endswith("over 3 trials") for line in lines)


@pytest.mark.parametrize("width", [40, 80, 160])
@pytest.mark.parametrize("height", [12, 24])
def test_a_status_fits_any_window(study: Study, width: int, height: int) -> None:
    for number in range(20):
        add(study, 0.5 + number / 100, 100.0 * (number + 1))
    for index in range(6):
        running(study, {**ELSEWHERE, "host": "gpu-node-7.cluster.example.com"}, 5.0, epoch=index)
    lines = status_lines(status(study), Screen(width, height, unicode=False))
    assert len(lines) < height
    assert max(map(len, lines)) <= width
    assert "".join(lines).isascii()
    assert any("5/12" in line for line in status_lines(status(study), Screen(width)))


def test_the_best_so_far_is_what_a_trial_reported(study: Study) -> None:
    attrs = {**held_by(this_worker()), Attr.RUNGS: {"2": {"f1": 0.4}, "10": {"f1": 0.7}}, Attr.RECIPE: {"epochs": 12}}
    study.optuna.add_trial(create_trial(state=TrialState.RUNNING, user_attrs=attrs))
    found = status(study)
    assert found["workers"][0]["metrics"] == {"f1": 0.7}
    assert any("0.7000" in line for line in status_lines(found))


def test_the_rate_is_that_of_the_last_hour(study: Study) -> None:
    from datetime import datetime, timedelta

    now = datetime.now()
    for minutes in (600, 30, 20, 10):
        add(study, 0.5, 100.0)
        trial = study.optuna._storage.get_all_trials(study.optuna._study_id, deepcopy=False)[-1]
        trial.datetime_complete = now - timedelta(minutes=minutes)
    study.ledger.refresh()
    assert status(study)["rate"] == pytest.approx(6.0)


def test_watching_ends_with_the_search(study: Study) -> None:
    add(study, 0.5, 100.0)
    study.optuna.set_user_attr(Attr.ORDERS, {"trials": 1, "deadline": None, "sampler": None})
    assert len(list(watched(study, seconds=0.01))) == 1


def test_watching_goes_on_where_nobody_has_begun_yet(study: Study) -> None:
    study.optuna.set_user_attr(Attr.ORDERS, {"trials": 1, "deadline": None, "sampler": None})
    seen = watched(study, seconds=0.01)
    assert [next(seen)["wanted"] for _ in range(3)] == [1, 1, 1]
    study.optuna.set_user_attr(Attr.ORDERS, {"trials": 1, "deadline": time.time() - 1, "sampler": None})
    assert len(list(seen)) == 1
