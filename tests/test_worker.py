from __future__ import annotations

import json
import platform
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import _CachedStorage
from optuna.trial import TrialState, create_trial

from archtuna.costs import costs_of
from archtuna.driver import search
from archtuna.errors import DataError, StudyError
from archtuna.evaluate import Progress
from archtuna.leases import this_worker
from archtuna.proposer import Proposal, Proposer
from archtuna.rdb import WholeTrials
from archtuna.storage import ERROR_CONSTRAINT, Attr
from archtuna.study import Study
from archtuna.worker import Worker
from searches import arguments, buggy, diverging, instant, slow


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHTUNA_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("ARCHTUNA_STORAGE", raising=False)


def recorded(folder: Path, **changes: Any) -> tuple[Study, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    study = search(**arguments(folder, on_event=lambda event: events.append(json.loads(json.dumps(event))), **changes))
    return study, events


@pytest.fixture
def study(tmp_path: Path) -> Study:
    study, _ = recorded(tmp_path, trials=1)
    return study


def begin(study: Study, worker: dict[str, Any]) -> int:
    """Create a trial that a worker has begun, and return its number."""
    study.optuna.add_trial(create_trial(state=TrialState.RUNNING, user_attrs={Attr.WORKER: worker}))
    return len(study.optuna.trials) - 1


DEAD = {"host": platform.node(), "pid": 2**22 + 1, "started": 0.0}


# the loop


def test_a_search_tells_what_it_does(tmp_path: Path) -> None:
    study, events = recorded(tmp_path, limits=("params <= 2k",), sampler="random")
    names = [event["event"] for event in events]
    assert names[0] == "start"
    assert names[-1] == "end"
    assert names.count("trial") == names.count("complete") == 6
    assert {"epoch", "front", "refused"} <= set(names)
    assert events[-1]["trials"]["complete"] == 6
    assert events[-1]["front"] == [t.number for t in study.front()]
    assert events[-1]["hypervolume"] == study.hypervolume() > 0
    assert events[-1]["reason"] == "trials"
    fronts = [event["hypervolume"] for event in events if event["event"] == "front"]
    assert fronts == sorted(fronts)
    assert study.counts()["refused"] == names.count("refused")
    for trial in study.trials():
        assert trial.state in ("complete", "refused")
    assert study.candidate(0).metrics == instant(study.candidate(0))  # type: ignore[arg-type]


def saving(candidate: Any) -> Iterator[Progress]:
    """An evaluation with weights to keep."""
    metrics = instant(candidate)
    yield Progress(1, 1, metrics, 1, metrics, 0.1, save=lambda path, note: Path(path).write_bytes(b"weights"))


class Saving:
    costs = staticmethod(costs_of)
    evaluate = staticmethod(saving)


def test_a_trial_too_many_is_made_up_for_where_another_gives_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker's trial counts when this one leaves its own, and gives way in that moment: somebody has to go on."""
    others: list[int] = []
    propose, leave = Proposer.propose, Worker._leave

    def beside_another(proposer: Proposer) -> Proposal:
        if not others:
            born = create_trial(state=TrialState.RUNNING, user_attrs={Attr.WORKER: this_worker() | {"pid": 1}})
            others.append(proposer.study._storage.create_new_trial(proposer.study._study_id, template_trial=born))
        return propose(proposer)

    def while_the_other_gives_way(worker: Worker, *given: Any) -> None:
        storage = worker.study.optuna._storage
        storage.set_trial_user_attr(others[0], Attr.OUTCOME, "duplicate")
        storage.set_trial_state_values(others[0], TrialState.FAIL)
        leave(worker, *given)

    monkeypatch.setattr(Proposer, "propose", beside_another)
    monkeypatch.setattr(Worker, "_leave", while_the_other_gives_way)
    study, _ = recorded(tmp_path, trials=1)
    assert study.counts()["complete"] == 1
    assert [trial.state for trial in study.trials()] == ["duplicate", "duplicate", "complete"]


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2"])
def test_a_trial_costs_a_few_reads_and_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: str) -> None:
    calls: Counter[str] = Counter()
    cached = ("get_all_trials", "get_trial", "create_new_trial", "set_trial_user_attr", "set_trial_state_values")
    for home, name in [(WholeTrials, "change_trial"), *((_CachedStorage, name) for name in cached)]:
        real = getattr(home, name)

        def call(self: Any, *args: Any, _name: str = name, _real: Any = real, **given: Any) -> Any:
            calls[_name] += 1
            return _real(self, *args, **given)

        monkeypatch.setattr(home, name, call)
    seen = []
    search(**arguments(tmp_path, trials=30, sampler=sampler, evaluator=Saving(),
                       on_event=lambda event: event["event"] == "complete" and seen.append(Counter(calls))))  # fmt: skip
    for before, after in pairwise(seen):
        spent = after - before
        assert spent["get_all_trials"] == 3, "after the last trial, after this one's birth, before its weights"
        assert spent["get_trial"] == spent["set_trial_user_attr"] == spent["set_trial_state_values"] == 0
        assert spent["create_new_trial"] == spent["change_trial"] == 1


def test_the_same_again_does_nothing_and_more_goes_on(tmp_path: Path) -> None:
    recorded(tmp_path)
    study, events = recorded(tmp_path)
    assert [event["event"] for event in events] == ["start", "end"]
    study, _ = recorded(tmp_path, trials=10)
    assert study.counts()["complete"] == 10
    assert len({trial.key for trial in study.trials()}) == 10


def test_the_same_seed_finds_the_same(tmp_path: Path) -> None:
    keys = []
    for name in "ab":
        (tmp_path / name).mkdir()
        study, _ = recorded(tmp_path / name, trials=15)
        keys.append([trial.key for trial in study.trials()])
    assert keys[0] == keys[1]


def test_an_exhausted_space_ends_the_search(tmp_path: Path) -> None:
    from searches import TWO

    study, events = recorded(tmp_path, space=TWO, trials=50)
    assert events[-1]["reason"] == "exhausted"
    assert study.counts() == {"complete": 2, "stopped": 0, "refused": 0, "failed": 0}
    assert not study.optuna.get_trials(states=(TrialState.RUNNING, TrialState.WAITING))


def test_limits_that_refuse_everything_end_it(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"keeps params <= 10 \(the smallest has \d+\)"):
        recorded(tmp_path, limits=("params <= 10",))
    study = Study.open(tmp_path / "run")
    assert not study.optuna.get_trials(states=(TrialState.RUNNING, TrialState.WAITING))


def test_a_deadline(tmp_path: Path) -> None:
    start = time.monotonic()
    study, events = recorded(tmp_path, evaluator=slow, trials=None, time=2.0)
    assert events[-1]["reason"] == "time"
    assert 1 <= study.counts()["complete"] <= 4
    assert time.monotonic() - start < 20
    assert not study.optuna.get_trials(states=(TrialState.RUNNING,))


def test_what_runs_beyond_the_grace_is_handed_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archtuna.worker.Worker._overdue", lambda self: True)
    study, events = recorded(tmp_path, evaluator=slow, time=1000.0)
    assert events[-1]["reason"] == "time"
    assert [t.state for t in study.trials()] == ["waiting"]
    monkeypatch.undo()
    monkeypatch.setenv("ARCHTUNA_CACHE", str(tmp_path / "cache"))
    before = study.candidate(0)
    study, events = recorded(tmp_path, evaluator=slow, trials=2)
    assert study.counts()["complete"] == 2
    assert study.candidate(0).key == before.key


def test_a_network_that_cannot_be_trained_fails_and_teaches(tmp_path: Path) -> None:
    study, events = recorded(tmp_path, evaluator=diverging, trials=12)
    failed = [trial for trial in study.trials() if trial.state == "failed"]
    assert failed
    assert study.counts()["complete"] + len(failed) == 12
    assert failed[0].reason == "nan: the loss became nan in epoch 1"
    raw = study.optuna.trials[failed[0].number]
    assert (raw.state, raw.constraints[ERROR_CONSTRAINT]) == (TrialState.PRUNED, 2.0)
    assert any(event["event"] == "failed" and event["reason"].startswith("nan") for event in events)


def test_a_bug_keeps_its_traceback_and_stops_the_study_the_third_time(tmp_path: Path) -> None:
    with pytest.raises(
        StudyError, match=r"3 trials failed at the same place: KeyError: 'no such thing' .*searches.py:\d+"
    ):
        recorded(tmp_path, evaluator=buggy)
    study = Study.open(tmp_path / "run")
    assert [trial.state for trial in study.trials()] == ["failed"] * 3
    assert "KeyError: 'no such thing'" in (study.candidate(1).traceback or "")
    assert study.optuna.trials[0].state == TrialState.FAIL


def test_an_error_of_the_data_hands_the_trial_back(tmp_path: Path) -> None:
    def vanished(candidate: Any) -> dict[str, float]:
        raise DataError("the pictures are gone")

    with pytest.raises(DataError, match="the pictures are gone"):
        recorded(tmp_path, evaluator=vanished)
    assert [t.state for t in Study.open(tmp_path / "run").trials()] == ["waiting"]


def test_an_evaluator_without_a_word(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="the evaluator gives nothing"):
        recorded(tmp_path, evaluator=lambda candidate: iter(()))


class Flaky:
    """Lets a storage's method work and then lose its answer, or fail before it does anything, as often as told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, home: type, method: str, fails: Any) -> None:
        self.real, self.fails = getattr(home, method), iter(fails)
        flaky = self

        def call(storage: Any, *args: Any, **given: Any) -> Any:
            fate = next(flaky.fails, None)
            if fate == "before":
                raise StorageInternalError("no connection")
            done = flaky.real(storage, *args, **given)
            if fate == "after":
                raise StorageInternalError("the connection broke after the commit")
            return done

        monkeypatch.setattr(home, method, call)


def test_a_result_outlives_a_storage_that_goes_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Flaky(monkeypatch, WholeTrials, "change_trial", ["after", "before", "before", None, "after"])
    study, _ = recorded(tmp_path, trials=4)
    assert [t.state for t in study.trials()] == ["complete"] * 4
    assert all(t.metrics and t.epochs == 1 for t in study.trials())


def test_a_storage_that_goes_away_while_a_trial_is_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Flaky(monkeypatch, _CachedStorage, "create_new_trial", ["before", "after", None, "after"])
    study, _ = recorded(tmp_path, trials=4)
    assert [t.state for t in study.trials()] == ["complete"] * 4
    assert len({t.key for t in study.trials()}) == 4


def test_a_storage_that_goes_away_while_a_queued_trial_is_written(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study.optuna.enqueue_trial({"backbone.0.kernel": 5})
    Flaky(monkeypatch, WholeTrials, "change_trial", [None, "before"])
    again, _ = recorded(tmp_path, trials=2)
    assert [t.state for t in again.trials()] == ["complete", "duplicate", "complete"]


def test_a_trial_without_an_answer_is_not_left_running(study: Study, tmp_path: Path) -> None:
    """A connection that breaks when a trial was just made leaves one that nobody evaluates."""
    begin(study, this_worker())
    again, _ = recorded(tmp_path, trials=3)
    assert [t.state for t in again.trials()] == ["complete"] * 3


def test_queued_trials_beyond_the_wanted_number_wait(study: Study, tmp_path: Path) -> None:
    for kernel in (1, 3, 5):
        study.optuna.enqueue_trial({"backbone.0.kernel": kernel})
    again, _ = recorded(tmp_path, trials=2)
    assert [t.state for t in again.trials()] == ["complete", "complete", "waiting", "waiting"]


def test_a_last_trial_that_others_take_is_not_made_up_for(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from archtuna.leases import take

    def by_another(study: Any, waiting: Any, worker: Any, seconds: float) -> None:
        take(study, waiting, {"host": "elsewhere", "pid": 1, "started": 0.0}, seconds)

    study.optuna.enqueue_trial({"backbone.0.kernel": 5})
    monkeypatch.setattr("archtuna.worker.take", by_another)
    again, _ = recorded(tmp_path, trials=2)
    assert [t.state for t in again.trials()] == ["complete", "running"]


def test_a_queued_network_that_is_known_gives_way(study: Study, tmp_path: Path) -> None:
    study.optuna.enqueue_trial(study.optuna.trials[0].params)
    again, events = recorded(tmp_path, trials=2)
    assert [t.state for t in again.trials()] == ["complete", "duplicate", "complete"]
    assert {"event": "duplicate", "number": 1, "of": 0} in events
    assert again.optuna.trials[1].user_attrs[Attr.DUPLICATE_OF] == 0


INTERRUPTED = """
import sys, json
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from searches import arguments
from archtuna.costs import costs_of
from archtuna.driver import search
study = search(**arguments(Path(sys.argv[1]), evaluator="searches:slow", trials=50, workers=int(sys.argv[3])),
               on_event=lambda event: print(json.dumps(event), flush=True))
"""


def start(folder: Path, workers: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", INTERRUPTED, str(folder), str(Path(__file__).parent), str(workers)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def until(process: subprocess.Popen[str], wanted: int, name: str = "complete") -> list[dict[str, Any]]:
    """Read events until there were enough of one name."""
    assert process.stdout is not None
    events: list[dict[str, Any]] = []
    for line in process.stdout:
        events.append(json.loads(line))
        if sum(event["event"] == name for event in events) == wanted:
            return events
    raise AssertionError(process.stderr.read() if process.stderr else "")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_ends_cleanly_and_the_same_goes_on(tmp_path: Path, workers: int) -> None:
    with start(tmp_path, workers) as process:
        events = until(process, 2) + until(process, 3, "epoch")
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        events += [json.loads(line) for line in process.stdout]
        assert process.wait(timeout=60) == 0
    assert events[-1]["reason"] == "interrupted"
    assert sum(event["event"] == "handed-back" for event in events) >= 1
    study = Study.open(tmp_path / "run")
    done = study.counts()["complete"]
    waiting = {t.number: t.key for t in study.trials() if t.state == "waiting"}
    assert not [t for t in study.trials() if t.state == "running"]
    again, _ = recorded(tmp_path, trials=done + len(waiting))
    assert again.counts()["complete"] == done + len(waiting)
    assert {n: again.candidate(n).key for n in waiting} == waiting


@pytest.mark.slow
def test_kill_9_of_the_watching_process_leaves_no_orphans_and_loses_nothing(tmp_path: Path) -> None:
    with start(tmp_path, 2) as process:
        until(process, 2)
        children = psutil.Process(process.pid).children()
        assert len(children) == 2
        process.kill()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []
    again, _ = recorded(tmp_path, trials=6)
    assert again.counts()["complete"] == 6
    assert not [t for t in again.trials() if t.state in ("running", "waiting")]
    assert len({t.key for t in again.trials() if t.state == "complete"}) == 6


@pytest.mark.slow
def test_kill_9_of_a_single_worker_and_the_same_command_again(tmp_path: Path) -> None:
    with start(tmp_path, 1) as process:
        until(process, 1)
        until(process, 2, "epoch")
        process.kill()
    study = Study.open(tmp_path / "run")
    running = [t for t in study.trials() if t.state == "running"]
    assert len(running) == 1
    again, events = recorded(tmp_path, trials=study.counts()["complete"] + 1)
    assert events[0]["taken_back"] == [running[0].number]
    assert again.candidate(running[0].number).state == "complete"
    assert again.candidate(running[0].number).key == running[0].key
