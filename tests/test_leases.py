from __future__ import annotations

import errno
import json
import logging
import platform
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from archtuna.leases import (
    DEATHS,
    RENEWALS,
    Lease,
    LeaseLost,
    Pulse,
    Watch,
    any_may_be_gone,
    held_by,
    is_dead,
    is_of,
    lease_of,
    may_be_gone,
    take,
    take_away,
    take_back,
    this_worker,
)
from archtuna.ledger import state_of
from archtuna.storage import ERROR_CONSTRAINT, Attr, close_storage, open_storage
from crowds import at_once
from postgres import Server, server  # noqa: F401

ME, YOU = ({"host": "here", "pid": pid, "started": 1.0} for pid in (1, 2))
DEAD = {"host": platform.node(), "pid": 2**22 + 1, "started": 0.0}


@pytest.fixture(params=["database", "memory"])
def study(request: pytest.FixtureRequest, tmp_path: Path) -> optuna.Study:
    """A study in a database, and in a storage that knows no transactions."""
    storage = open_storage(None, tmp_path) if request.param == "database" else optuna.storages.InMemoryStorage()
    return optuna.create_study(storage=storage, study_name="photos", directions=["maximize", "minimize"])


def begun(study: optuna.Study, worker: dict[str, Any] = ME, seconds: float = 60.0, **attrs: Any) -> Lease:
    """Create a trial that a worker has begun."""
    born = create_trial(state=TrialState.RUNNING, user_attrs={**held_by(worker, seconds), **attrs})
    trial_id = study._storage.create_new_trial(study._study_id, template_trial=born)
    trial = study._storage.get_trial(trial_id)
    return Lease(study, trial, trial.user_attrs[Attr.WORKER], seconds)


def read(study: optuna.Study, number: int = 0) -> FrozenTrial:
    return study.get_trials()[number]


# writing


def test_a_holder_writes_all_at_once(study: optuna.Study) -> None:
    lease = begun(study)
    x = optuna.distributions.IntDistribution(1, 9)
    lease.write({"a": [1]}, constraints={"params": -0.5}, params={"x": (3, x)}, notes={"note": "n"})
    lease.write({"a": [2]})
    trial = read(study)
    assert (trial.user_attrs["a"], trial.params, trial.constraints) == ([2], {"x": 3}, {"params": -0.5})
    assert (trial.system_attrs["note"], trial.state) == ("n", TrialState.RUNNING)
    lease.end(TrialState.COMPLETE, [0.5, 100.0], {"b": 1}, constraints={"other": 0.1})
    trial = read(study)
    assert (trial.state, trial.values, trial.user_attrs["b"]) == (TrialState.COMPLETE, [0.5, 100.0], 1)
    assert trial.constraints == {"params": -0.5, "other": 0.1}
    assert trial.datetime_complete is not None


def test_who_lost_a_trial_cannot_write_into_it(study: optuna.Study) -> None:
    late = begun(study)
    assert take_away(study._storage, read(study)) == "waiting"
    lease = take(study, study.get_trials(), YOU)
    assert lease is not None
    assert (lease.number, lease.take) == (0, 2)
    for write in (
        lambda: late.write({"a": 1}),
        lambda: late.end(TrialState.COMPLETE, [0.1, 1.0], {"a": 1}),
        lambda: late.renew(1, 0, 1, 0.0),
    ):
        with pytest.raises(LeaseLost):
            write()
    late.hand_back()
    assert (read(study).state, "a" in read(study).user_attrs) == (TrialState.RUNNING, False)
    lease.end(TrialState.COMPLETE, [0.5, 100.0])
    with pytest.raises(LeaseLost):
        late.end(TrialState.COMPLETE, [0.1, 1.0])
    assert read(study).values == [0.5, 100.0]


def test_an_end_whose_answer_was_lost_may_be_written_again(study: optuna.Study) -> None:
    lease = begun(study)
    lease.end(TrialState.COMPLETE, [0.5, 100.0])
    lease.end(TrialState.COMPLETE, [0.5, 100.0])
    assert read(study).values == [0.5, 100.0]


def test_handing_back_keeps_number_and_network(study: optuna.Study) -> None:
    lease = begun(study, **{Attr.EVALUATION: "e"})
    lease.hand_back()
    lease.hand_back()
    trial = read(study)
    assert (trial.state, trial.user_attrs[Attr.WORKER]) == (TrialState.WAITING, None)
    assert trial.user_attrs[Attr.EVALUATION] == "e"


# taking


def test_waiting_trials_are_taken_in_order_and_once(study: optuna.Study) -> None:
    for x in (1, 2):
        study.enqueue_trial({"x": x})
    waiting = study.get_trials()
    first = take(study, waiting, ME)
    assert first is not None
    assert first.number == 0
    assert [t.state for t in study.get_trials()] == [TrialState.RUNNING, TrialState.WAITING]
    assert is_of(read(study), ME)
    assert not is_of(read(study), YOU)
    second = take(study, waiting, YOU)
    assert second is not None
    assert second.number == 1, "the first is another worker's now"
    assert take(study, waiting, ME) is None


def taken_by_several(folder: Path, url: str | None, workers: int, trials: int) -> Counter[int]:
    """Let several workers want all waiting trials at once, and count who got each."""
    storage = open_storage(url, folder)
    study = optuna.create_study(storage=storage, study_name="photos", directions=["maximize", "minimize"])
    for x in range(trials):
        study.enqueue_trial({"x": x})
    got: list[int] = []

    def ready(study: optuna.Study, pid: int) -> Callable[[], None]:
        def act() -> None:
            me = {**ME, "pid": pid}
            while (lease := take(study, study.get_trials(states=(TrialState.WAITING,)), me)) is not None:
                got.append(lease.number)

        return act

    at_once(workers, folder, url, ready)
    close_storage(storage)
    return Counter(got)


def test_of_several_workers_at_once_exactly_one_gets_a_trial(tmp_path: Path) -> None:
    assert taken_by_several(tmp_path, None, 4, 12) == Counter(range(12))


@pytest.mark.slow
def test_exactly_one_gets_a_trial_in_postgresql(server: Server, tmp_path: Path) -> None:  # noqa: F811
    assert taken_by_several(tmp_path, server.url(), 4, 12) == Counter(range(12))


# who is alive


def test_workers_that_are_alive_and_dead() -> None:
    me = this_worker()
    assert json.loads(json.dumps(me)) == me
    assert not is_dead(me)
    assert is_dead({**me, "started": me["started"] - 1000}), "the number was used again"
    assert not is_dead({**me, "host": "elsewhere", "pid": 2**22})
    assert not is_dead(None)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert is_dead({**me, "pid": gone.pid})
    older = {name: me[name] for name in ("host", "pid", "started")}
    assert not is_dead(older)
    assert is_dead({**older, "pid": gone.pid}), "of a version that wrote no more"


@pytest.mark.parametrize("elsewhere", [{"boot": "another"}, {"pids": "pid:[1]"}, {"boot": None, "pids": None}])
def test_of_another_place_with_the_same_host_name_only_the_lease_tells(
    study: optuna.Study, elsewhere: dict[str, Any]
) -> None:
    """Two containers on the host's network, two boards of one image: each has processes of the same numbers."""
    me = this_worker()
    there = {**me, "pid": 2**22 + 1, **elsewhere}
    assert is_dead({**there, "boot": me["boot"], "pids": me["pids"]})
    assert not is_dead(there)
    assert not is_dead({**there, "pid": me["pid"], "started": 0.0})
    begun(study, there)
    assert take_back(study) == []
    assert any_may_be_gone(study)
    assert [may_be_gone(worker) for worker in (me, DEAD, {**there, "host": "elsewhere"}, None)] == [False] * 4


def test_trials_of_the_dead_of_this_machine_are_taken_back_at_once(study: optuna.Study) -> None:
    leases = [begun(study, worker) for worker in (DEAD, this_worker(), {**DEAD, "host": "elsewhere"})]
    assert take_back(study) == [0]
    states = [read(study, lease.number).state.name for lease in leases]
    assert states == ["WAITING", "RUNNING", "RUNNING"]
    assert take_back(study) == []


def test_a_trial_that_kills_its_workers_fails(study: optuna.Study) -> None:
    begun(study, DEAD)
    for death in range(DEATHS):
        if death:
            assert take(study, study.get_trials(), DEAD) is not None
        assert take_back(study) == [0]
    trial = read(study)
    assert (trial.state.name, state_of(trial)) == ("PRUNED", "failed")
    assert trial.constraints == {ERROR_CONSTRAINT: 2.0}
    assert trial.user_attrs[Attr.REASON] == "3 workers died while they trained it"


def test_workers_that_die_further_and_further_on_are_not_the_trial_s_fault(study: optuna.Study) -> None:
    begun(study, DEAD)
    for epoch in range(6):
        assert take_back(study) == [0]
        lease = take(study, study.get_trials(), DEAD)
        assert lease is not None
        lease.renew(1, began=epoch, epoch=epoch, at=0.0)
    assert read(study).user_attrs[Attr.DEATHS]["count"] == 1


def test_a_trial_of_an_older_version_is_taken_back(study: optuna.Study) -> None:
    born = create_trial(state=TrialState.RUNNING, user_attrs={Attr.WORKER: DEAD, Attr.DEATHS: 1})
    study.add_trial(born)
    assert take_back(study) == [0]
    assert read(study).user_attrs[Attr.DEATHS]["count"] == 2
    assert Watch().stale([read(study)]) == []


# leases that run out


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def running(beat: int, take: int = 1, seconds: float = 60.0) -> list[FrozenTrial]:
    attrs = {Attr.WORKER: {**ME, "take": take}, Attr.LEASE: lease_of(take, seconds) | {"beat": beat}}
    trial = create_trial(state=TrialState.RUNNING, user_attrs=attrs)
    trial._trial_id = 7
    return [trial]


def test_a_lease_runs_out_when_it_is_not_renewed() -> None:
    clock = Clock()
    watch = Watch(clock)
    assert watch.stale(running(0)) == []
    for _ in range(RENEWALS - 1):
        clock.now += 15.0
        assert watch.stale(running(0)) == []
    clock.now += 15.0
    assert [trial._trial_id for trial in watch.stale(running(0))] == [7]
    assert watch.stale(running(1)) == [], "it was renewed after all"
    clock.now += 59.0
    assert watch.stale(running(1, take=2)) == [], "it is another worker's"


def test_what_nobody_could_see_does_not_count_as_silence() -> None:
    """This process slept, or the storage was away: the renewals of that time could not be seen."""
    clock = Clock()
    watch = Watch(clock)
    watch.stale(running(0))
    clock.now += 3_600.0
    assert watch.stale(running(0)) == []
    clock.now += 15.0
    assert watch.stale(running(0)) == []
    clock.now += 15.0
    assert watch.stale(running(0)) != []


# in the background


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def test_a_lease_is_renewed_while_it_is_held(study: optuna.Study) -> None:
    lease = begun(study, seconds=0.4)
    with Pulse(study, 0.4) as pulse:
        with pulse.holding(lease):
            pulse.began(3)
            pulse.trained(5)
            wait_for(lambda: read(study).user_attrs[Attr.LEASE]["epoch"] == 5)
            kept = read(study).user_attrs[Attr.LEASE]
            assert (kept["take"], kept["began"], kept["seconds"]) == (1, 3, 0.4)
            assert abs(kept["at"] - time.time()) < 30
            wait_for(lambda: read(study).user_attrs[Attr.LEASE]["beat"] > kept["beat"])
            assert not pulse.lost.is_set()
        lease.end(TrialState.COMPLETE, [0.5, 100.0])
    assert state_of(read(study)) == "complete"


def test_a_silent_worker_loses_its_trial_and_is_told_when_it_comes_back(study: optuna.Study) -> None:
    late = begun(study, seconds=0.4)
    with Pulse(study, 0.4) as pulse:
        wait_for(lambda: read(study).state == TrialState.WAITING)
        wait_for(lambda: not pulse._taken.empty())
        assert [(trial.number, became) for trial, became in pulse.taken()] == [(0, "waiting")]
        with pulse.holding(late):
            wait_for(pulse.lost.is_set)
        lease = take(study, study.get_trials(), YOU, 0.4)
        assert lease is not None
        with pulse.holding(lease):
            assert not pulse.lost.is_set()
            time.sleep(1.0)
            assert not pulse.lost.is_set(), "it is renewed"


def test_a_pulse_outlives_a_storage_that_goes_away(study: optuna.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    from optuna.exceptions import StorageInternalError

    def away(*given: Any, **named: Any) -> Any:
        raise StorageInternalError("no connection")

    lease = begun(study, seconds=0.4)
    with Pulse(study, 0.4) as pulse, pulse.holding(lease):
        with monkeypatch.context() as patched:
            patched.setattr("archtuna.leases.change", away)
            time.sleep(0.5)
        beat = read(study).user_attrs[Attr.LEASE]["beat"]
        wait_for(lambda: read(study).user_attrs[Attr.LEASE]["beat"] > beat)
        assert not pulse.lost.is_set()


def test_a_pulse_outlives_an_error_that_no_database_raises(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as those of a journal file on a network disk."""

    def stale(*given: Any, **named: Any) -> Any:
        raise OSError(errno.ESTALE, "Stale file handle")

    lease = begun(study, seconds=0.4)
    with caplog.at_level(logging.WARNING, "archtuna"), Pulse(study, 0.4) as pulse, pulse.holding(lease):
        with monkeypatch.context() as patched:
            patched.setattr("archtuna.leases.change", stale)
            time.sleep(0.5)
        beat = read(study).user_attrs[Attr.LEASE]["beat"]
        wait_for(lambda: read(study).user_attrs[Attr.LEASE]["beat"] > beat)
        assert not pulse.lost.is_set()
    assert caplog.text.count("leases could not be looked after, which is tried again") == 1
    assert "Stale file handle" in caplog.text
