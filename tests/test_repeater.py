from __future__ import annotations

import errno
import json
import logging
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archtuna import checkpoint
from archtuna.artifacts import Artifacts
from archtuna.costs import costs_of
from archtuna.crew import processes
from archtuna.data import Batches
from archtuna.driver import _repeat, repeat, search
from archtuna.errors import StudyError, TrialError
from archtuna.evaluate import FunctionEvaluator, Progress
from archtuna.files import Unreachable
from archtuna.interrupts import Stop
from archtuna.leases import this_worker
from archtuna.objective import objectives_of, oriented, pareto_ranks
from archtuna.orders import Orders
from archtuna.repeater import Again, Repeater, contenders, lacking, runs_to_do, seeds_of
from archtuna.repeats import Repeats, Wanted, conditions_of, read_runs
from archtuna.space import Candidate
from archtuna.study import Study
from postgres import PASSWORD, Server, server  # noqa: F401
from searches import TWO, arguments, buggy, noisy, pictures

OBJECTIVES = objectives_of(["f1", "params"])


# decisions


@dataclass
class Done:
    """What a trial was again."""

    seed: int
    f1: float


@dataclass
class Fake:
    """A trial, as far as deciding looks at one."""

    number: int
    own: dict[str, float]
    draws: list[float]
    state: str = "complete"
    feasible: bool = True
    recipe: dict[str, Any] = field(default_factory=dict)
    again: list[Done] = field(default_factory=list)

    @property
    def values(self) -> dict[str, float]:
        return {**self.own, "f1": float(np.mean([d.f1 for d in self.again]))} if self.again else self.own


def fakes(rows: list[tuple[int, int, list[int]]]) -> Any:
    return [
        Fake(i, {"f1": own / 20, "params": float(p)}, [d / 20 for d in draws]) for i, (own, p, draws) in enumerate(rows)
    ]


ROWS = st.lists(
    st.tuples(st.integers(0, 20), st.integers(1, 6), st.lists(st.integers(0, 20), min_size=3, max_size=3)),
    min_size=1, max_size=12,
)  # fmt: skip


@given(ROWS, st.integers(1, 3), st.randoms())
def test_when_nothing_is_left_to_do_the_front_by_means_has_all_its_runs(rows: Any, seeds: int, random: Any) -> None:
    """Whatever the runs give, and in whatever order they are done."""
    trials = fakes(rows)
    steps = 0
    while todo := runs_to_do(contenders(trials, OBJECTIVES, seeds), seeds):
        trial, seed = random.choice(todo)
        assert seed not in [done.seed for done in trial.again]
        trial.again.append(Done(seed, trial.draws[seed - 1]))  # type: ignore[attr-defined]
        steps += 1
    assert steps <= seeds * len(trials)
    points = oriented([[t.values[o.name] for o in OBJECTIVES] for t in trials], OBJECTIVES)
    front = [t for t, rank in zip(trials, pareto_ranks(points), strict=True) if rank == 0]
    assert [t.number for t in front if lacking(t, seeds)] == []


def test_a_lucky_network_is_found_out_and_makes_room() -> None:
    # The second is better than the third by luck, the fourth can never matter.
    trials = fakes([(10, 1, [10] * 3), (18, 3, [8, 9, 8]), (15, 4, [15] * 3), (2, 6, [2] * 3)])
    assert [t.number for t in contenders(trials, OBJECTIVES, 3)] == [0, 1]
    trials[1].again = [Done(1, 0.4)]
    assert [t.number for t in contenders(trials, OBJECTIVES, 3)] == [0, 1], "one bad run does not end it"
    trials[1].again = [Done(seed, 0.4) for seed in (1, 2, 3)]
    assert [t.number for t in contenders(trials, OBJECTIVES, 3)] == [0, 2]


def test_seeds_follow_the_own_one_and_every_first_run_comes_before_a_second() -> None:
    trials = fakes([(10, 1, [0] * 3), (18, 3, [0] * 3)])
    trials[1].recipe = {"seed": 7}
    assert seeds_of(trials[1], 3) == [8, 9, 10]
    trials[0].again = [Done(2, 0.5)]
    assert lacking(trials[0], 3) == [1, 3]
    assert [(t.number, seed) for t, seed in runs_to_do(trials, 3)] == [(0, 1), (1, 8), (1, 9), (0, 3), (1, 10)]
    trials[0].recipe = {"seed": 2**31 - 1}
    assert seeds_of(trials[0], 2) == [0, 1]


def test_the_run_that_a_network_was_chosen_by_flatters_it_and_its_mean_and_further_runs_do_not() -> None:
    """Fronts out of 50 networks; noise is half as large as the differences between networks (see docs/choosing.md)."""
    rng, noise = np.random.default_rng(0), 0.01
    errors = []
    for _ in range(1000):
        cost = rng.random(50)
        true = 0.9 + 0.04 * cost + rng.normal(0, 2 * noise, 50)
        own, further = true + rng.normal(0, noise, 50), true[:, None] + rng.normal(0, noise, (50, 3))
        front = pareto_ranks(np.stack([-own, cost], axis=1)) == 0
        means = own, np.column_stack([own, further[:, :2]]).mean(axis=1), further.mean(axis=1)
        errors.append([(mean - true)[front].mean() / noise for mean in means])
    flattered, mixed, honest = np.mean(errors, axis=0)
    assert flattered == pytest.approx(0.56, abs=0.05)
    assert mixed == pytest.approx(0.20, abs=0.03)
    assert honest == pytest.approx(0.0, abs=0.03)


# one worker


def recorded(folder: Path, **changes: Any) -> tuple[Study, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    given = {
        "evaluator": noisy,
        "trials": 12,
        "on_event": lambda e: events.append(json.loads(json.dumps(e))),
        **changes,
    }
    return search(**arguments(folder, **given)), events


def repeated(folder: Path, seeds: int = 3, **changes: Any) -> tuple[Study, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    given = {"evaluator": noisy, "on_event": lambda e: events.append(json.loads(json.dumps(e))), **changes}
    return repeat(folder / "run", seeds, **given), events


def test_the_front_is_trained_again_with_other_seeds_and_nothing_else_changed(tmp_path: Path) -> None:
    before, _ = recorded(tmp_path)
    own = {trial.number: trial.values for trial in before.trials()}
    study, events = repeated(tmp_path)
    front = study.front()
    assert [(t.number, t.runs) for t in front if t.runs != 3] == []
    for trial in study.trials():
        assert trial.own == own[trial.number]
        for run in trial.again:
            recipe = study.space().candidate(trial.decisions).recipe.replace(seed=run.seed)
            assert run.metrics == noisy(Candidate(trial.architecture, recipe, trial.decisions))
    assert {run.seed for trial in front for run in trial.again} == {1, 2, 3}
    names = [event["event"] for event in events]
    assert (names[0], names[-1]) == ("repeats", "end")
    assert names.count("repeat") == names.count("repeated") == sum(len(t.again) for t in study.trials())
    assert (events[-1]["reason"], events[-1]["front"]) == ("repeats", [t.number for t in front])
    last = next(event for event in reversed(events) if event["event"] == "repeated")
    trial = study.candidate(last["number"])
    assert (last["mean"], last["spread"], last["runs"]) == (trial.values, trial.spread, 3)


def test_the_same_again_does_nothing_and_more_seeds_go_on(tmp_path: Path) -> None:
    recorded(tmp_path)
    study, _ = repeated(tmp_path, 2)
    done = {(t.number, run.seed) for t in study.trials() for run in t.again}
    _, events = repeated(tmp_path, 2)
    assert [event["event"] for event in events] == ["repeats", "end"]
    study, events = repeated(tmp_path, 3)
    more = {(event["number"], event["seed"]) for event in events if event["event"] == "repeated"}
    assert more
    assert not more & done
    assert all(trial.runs == 3 for trial in study.front())


def test_trials_are_named_instead_of_the_front(tmp_path: Path) -> None:
    recorded(tmp_path)
    behind = next(
        t.number for t in Study.open(tmp_path / "run").trials() if t not in Study.open(tmp_path / "run").front()
    )
    study, _ = repeated(tmp_path, 1, numbers=[behind])
    assert {t.number: len(t.again) for t in study.trials() if t.again} == {behind: 1}


def test_what_cannot_be_trained_again_says_so(tmp_path: Path) -> None:
    study, _ = recorded(tmp_path, trials=2, limits=("params <= 2k",), sampler="random")
    with pytest.raises(StudyError, match="0 seeds are too few\nhint: give at least 1"):
        repeated(tmp_path, 0)
    with pytest.raises(StudyError, match="no trial 99"):
        repeated(tmp_path, numbers=[99])
    refused = next(trial.number for trial in study.trials() if trial.state == "refused")
    with pytest.raises(StudyError, match=f"trial {refused} was not evaluated in full: it is refused"):
        repeated(tmp_path, numbers=[refused])
    with pytest.raises(StudyError, match="several workers cannot share an evaluator object"):
        repeated(tmp_path, workers=2)
    with pytest.raises(StudyError, match="no study in"):
        repeat(tmp_path / "nothing")


def test_a_search_repeats_its_front_when_it_is_done(tmp_path: Path) -> None:
    study, events = recorded(tmp_path, repeats=2)
    names = [event["event"] for event in events]
    assert names.index("repeats") > max(i for i, name in enumerate(names) if name == "complete")
    assert names.count("end") == 1
    assert (events[-1]["reason"], events[-1]["front"]) == ("trials", [t.number for t in study.front()])
    assert all(trial.runs == 2 for trial in study.front())
    (tmp_path / "b").mkdir()
    text = TWO + "search: {trials: 2, repeats: 1}\n"
    study, _ = recorded(tmp_path / "b", space=text, trials=None)
    assert {len(trial.again) for trial in study.front()} == {1}


def test_a_seed_that_cannot_be_trained_is_recorded_and_not_tried_again(tmp_path: Path) -> None:
    def unstable(candidate: Candidate) -> dict[str, float]:
        if candidate.recipe.seed == 2:
            raise TrialError("the loss became nan in epoch 1", reason="nan")
        return noisy(candidate)

    recorded(tmp_path, space=TWO, trials=2)
    study, events = repeated(tmp_path, evaluator=unstable)
    failed = [event for event in events if event["event"] == "repeat-failed"]
    assert {event["seed"] for event in failed} == {2}
    assert {event["reason"] for event in failed} == {"nan: the loss became nan in epoch 1"}
    assert {(t.runs, len(t.again)) for t in study.front()} == {(2, 3)}
    assert [event["event"] for event in repeated(tmp_path)[1]] == ["repeats", "end"]


def test_a_bug_ends_it_and_leaves_the_run_free(tmp_path: Path) -> None:
    recorded(tmp_path, space=TWO, trials=2)
    with pytest.raises(StudyError, match=r"trial \d with seed 1 ended in KeyError: 'no such thing'"):
        repeated(tmp_path, evaluator=buggy)
    with pytest.raises(StudyError, match="the evaluator gives nothing"):
        repeated(tmp_path, evaluator=lambda candidate: iter(()))
    study, _ = repeated(tmp_path)
    assert {run.state for trial in study.front() for run in trial.again} == {"complete"}
    assert not [run for run in read_runs(study.optuna._storage, study.name) if run.state == "running"]


# waiting


HERE = {name: this_worker()[name] for name in ("host", "pid", "started")}


@pytest.mark.parametrize(
    ("worker", "linger", "done"),
    [
        ({"host": "elsewhere", "pid": 1, "started": 0.0}, True, True),
        ({"host": "elsewhere", "pid": 1, "started": 0.0}, False, False),
        ({**HERE, "boot": "the one before"}, False, True),
    ],
)
def test_the_run_of_a_worker_that_may_be_gone_is_waited_for(
    tmp_path: Path, worker: dict[str, Any], linger: bool, done: bool
) -> None:
    study, _ = recorded(tmp_path, space=TWO, trials=2)
    trial = study.front()[0]
    wanted = Wanted(trial.number, seeds_of(trial, 1)[0], conditions_of(study.spec, trial.key, trial.recipe))
    assert Repeats(study.optuna).claim(wanted, worker, 0.6) is not None
    made = FunctionEvaluator(noisy, study.objectives, 3)
    again = Again(1, [trial.number])
    assert Repeater(study, made, again, lambda event: None, Stop(), 0.6, linger).run() == "repeats"
    assert study.candidate(trial.number).repeats == done


def test_a_stop_ends_the_wait_for_others(tmp_path: Path) -> None:
    study, _ = recorded(tmp_path, space=TWO, trials=2)
    trial = study.front()[0]
    wanted = Wanted(trial.number, seeds_of(trial, 1)[0], conditions_of(study.spec, trial.key, trial.recipe))
    elsewhere = {"host": "elsewhere", "pid": 1, "started": 0.0}
    assert Repeats(study.optuna).claim(wanted, elsewhere, 60.0) is not None
    stop, made = Stop(), FunctionEvaluator(noisy, study.objectives, 3)
    threading.Timer(0.3, stop.request).start()
    again = Again(1, [trial.number])
    assert Repeater(study, made, again, lambda event: None, stop, linger=True).run() == "interrupted"


class Saving:
    """Gives every network weights to keep, in a way that the test chooses."""

    def __init__(self, save: Callable[[Any, Any], None]) -> None:
        self.save = save

    def costs(self, architecture: Any) -> dict[str, float]:
        return dict(costs_of(architecture))

    def evaluate(self, candidate: Candidate) -> Iterator[Progress]:
        best = noisy(candidate)
        yield Progress(epoch=1, epochs=1, metrics=best, kept=1, best=best, seconds=0.1, save=self.save)


def failing(error: OSError, times: int) -> Callable[..., None]:
    """Return a function that raises an error the first times that it is called."""
    left = [error] * times

    def act(*given: Any) -> None:
        if left:
            raise left.pop()

    return act


def test_repeats_wait_for_a_full_disk_and_a_store_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("archtuna.worker.FILES_PAUSE", 0.05)
    study, _ = recorded(tmp_path, space=TWO, trials=2)
    away, full = Unreachable(errno.EIO, "no answer"), OSError(errno.ENOSPC, "No space left on device")
    events: list[dict[str, Any]] = []
    for name in ("last_point", "kept", "forget", "found"):
        monkeypatch.setattr(Artifacts, name, once_away(getattr(Artifacts, name), away))
    with caplog.at_level(logging.WARNING, "archtuna"):
        repeater = Repeater(study, Saving(failing(full, 2)), Again(1), events.append, Stop())
        assert repeater.run() == "repeats"
    assert all(trial.repeats == 1 for trial in study.front())
    reasons = [event["reason"] for event in events if event["event"] == "waits"]
    assert len(reasons) == 2
    assert "no answer" in reasons[0]
    assert all(event["seed"] == 1 for event in events if event["event"] == "waits")
    assert "is trained and has to keep its weights, and waits" in caplog.text
    assert "has to look where to go on, and waits" in caplog.text
    assert "the worker has to read the front, and waits" in caplog.text
    assert "the worker has to read the study, and waits" in caplog.text


def once_away(real: Callable[..., Any], error: OSError) -> Callable[..., Any]:
    fail = failing(error, 1)

    def act(*given: Any) -> Any:
        fail()
        return real(*given)

    return act


def test_a_run_whose_weights_can_never_be_kept_is_free_again(tmp_path: Path) -> None:
    recorded(tmp_path, space=TWO, trials=2)
    denied = PermissionError(errno.EACCES, "Permission denied")
    with pytest.raises(StudyError, match=r"trial \d with seed 1 ended in PermissionError"):
        repeated(tmp_path, 1, evaluator=Saving(failing(denied, 9)))
    study = Study.open(tmp_path / "run")
    assert [run.state for run in read_runs(study.optuna._storage, study.name)] == ["over"]


def test_a_stop_hands_a_run_back_that_waits_for_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded(tmp_path, space=TWO, trials=2)
    stop = Stop()
    monkeypatch.setattr("archtuna.repeater.Stop", lambda: stop)

    def end(event: dict[str, Any]) -> None:
        if event["event"] == "waits":
            stop.request()

    full = OSError(errno.ENOSPC, "No space left on device")
    study = repeat(tmp_path / "run", 1, evaluator=Saving(failing(full, 9)), on_event=end)
    assert [run.state for run in read_runs(study.optuna._storage, study.name)] == ["over"]


# training


@pytest.mark.slow
def test_repeats_train_on_the_searchs_pictures_and_never_see_the_test_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []
    real = Batches.__init__

    def init(self: Batches, images: Any, indices: Any, *args: Any, **given: Any) -> None:
        seen.append(tuple(int(i) for i in indices))
        real(self, images, indices, *args, **given)

    monkeypatch.setattr(Batches, "__init__", init)
    study = search(TWO, pictures(tmp_path), out=tmp_path / "run", trials=2, fraction=0.5)
    parts, seen[:] = set(seen), []
    for trial in study.trials():
        study.artifacts.weights(trial.number).unlink()
    study = repeat(tmp_path / "run", 2)
    assert set(seen) == parts
    assert len(parts) == 2
    assert not {i for part in parts for i in part} & set(map(int, study.split(study.data()).test))
    trial = study.front()[0]
    assert len({run.metrics["loss"] for run in trial.again} | {trial.metrics["loss"]}) == 3
    header = checkpoint.read_header(study.artifacts.weights(trial.number))
    assert header.trial["seed"] == 1, "weights that were not kept are those of the first run with another seed"
    assert header.metrics == pytest.approx(trial.again[0].metrics)


# several, and killed ones


PROCESS = """
import sys, json
sys.path.insert(0, sys.argv[2])
from archtuna.driver import repeat
repeat(sys.argv[1], 2, evaluator="searches:slowly_noisy", workers=int(sys.argv[3]),
       on_event=lambda event: print(json.dumps(event), flush=True))
"""


@pytest.fixture
def marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the evaluator notes what it begins and ends."""
    folder = tmp_path / "marks"
    folder.mkdir()
    monkeypatch.setenv("ARCHTUNA_TEST_MARK", str(folder))
    return folder


def noted(marks: Path, what: str) -> Counter[str]:
    """How often each network was begun or ended with each seed."""
    return Counter(path.name.split("-", 1)[1].rsplit("-", 1)[0] for path in marks.glob(f"{what}-*"))


def start(folder: Path, workers: int = 1) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROCESS, str(folder / "run"), str(Path(__file__).parent), str(workers)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def until(process: subprocess.Popen[str], name: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["event"] == name:
            return
    raise AssertionError(process.stderr.read() if process.stderr else "")


def all_there(folder: Path) -> None:
    study = Study.open(folder / "run")
    assert [(t.number, t.runs) for t in study.front() if t.runs != 2] == []
    assert not [run for run in read_runs(study.optuna._storage, study.name) if run.state == "running"]


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_kill_loses_one_run_and_the_same_again_goes_on(tmp_path: Path, marks: Path, how: signal.Signals) -> None:
    recorded(tmp_path)
    with start(tmp_path) as process:
        until(process, "repeated")
        until(process, "epoch")
        process.send_signal(how)
        assert process.wait(timeout=60) == (-9 if how == signal.SIGKILL else 0)
    states = Counter(run.state for run in read_runs(Study.open(tmp_path / "run").optuna._storage, "run"))
    assert states["running"] == (1 if how == signal.SIGKILL else 0)
    with start(tmp_path) as process:
        _, problems = process.communicate(timeout=120)
        assert process.returncode == 0, problems
    all_there(tmp_path)
    assert set(noted(marks, "ended").values()) == {1}
    assert sorted(noted(marks, "begun").values())[-2:] == [1, 2], "one run was begun twice"


@pytest.mark.slow
@pytest.mark.parametrize("commands", [1, 2])
def test_two_workers_share_the_runs_and_none_is_done_twice(
    tmp_path: Path, marks: Path, monkeypatch: pytest.MonkeyPatch, commands: int
) -> None:
    """One command with two workers, and two commands at once."""
    recorded(tmp_path)
    monkeypatch.setenv("ARCHTUNA_TEST_MEET", "2")
    running = [start(tmp_path, workers=3 - commands) for _ in range(commands)]
    ends = [process.communicate(timeout=180) for process in running]
    assert [process.returncode for process in running] == [0] * commands, ends
    all_there(tmp_path)
    begun = noted(marks, "begun")
    assert set(begun.values()) == {1}
    assert begun == noted(marks, "ended")
    workers = {
        run.worker["pid"] for run in read_runs(Study.open(tmp_path / "run").optuna._storage, "run") if run.worker
    }
    assert len(workers) == 2


@pytest.mark.slow
def test_workers_that_linger_leave_no_run_undone(tmp_path: Path, marks: Path) -> None:
    """As those on Ray do: who finds nothing free waits for the others, and none is stopped in its run."""
    study, _ = recorded(tmp_path, space=TWO, trials=1)
    events: list[dict[str, Any]] = []
    orders, start = Orders(workers=2, linger=True), processes(None, 2)
    data, evaluator = study.data(), "searches:slowly_noisy"
    assert _repeat(study, Again(3), data, evaluator, orders, start, None, events.append) == "repeats"
    assert [(t.number, t.repeats) for t in study.front()] == [(0, 3)]
    assert "handed-back" not in [event["event"] for event in events]


@pytest.mark.slow
def test_a_run_that_kills_its_workers_fails(tmp_path: Path) -> None:
    study, _ = recorded(tmp_path, space=TWO, trials=2)
    number = study.front()[0].number
    study, events = repeated(tmp_path, 1, numbers=[number], workers=2, evaluator="searches:suicidal")
    failed = [event["reason"] for event in events if event["event"] == "repeat-failed"]
    assert failed == ["died: 3 workers died while they trained it"]
    assert [run.state for run in study.candidate(number).again] == ["failed"]


@pytest.mark.slow
def test_workers_share_repeats_in_postgresql(server: Server, tmp_path: Path) -> None:  # noqa: F811
    url = server.url()
    recorded(tmp_path, trials=4, storage=url)[0].close()
    study, _ = repeated(tmp_path, 2, storage=url, workers=2, evaluator="searches:noisy")
    with study:
        assert {trial.runs for trial in study.front()} == {2}
    assert PASSWORD not in (tmp_path / "run" / "study.json").read_text()


def test_an_interrupted_run_goes_on_after_its_last_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it comes to is what a run comes to that nobody interrupted, to the last bit."""
    for name in ("whole", "cut"):
        search(TWO, pictures(tmp_path), out=tmp_path / name, trials=1, training={"epochs": 4}, stopping=False).close()
    whole = repeat(tmp_path / "whole", 1)
    stop = Stop()
    monkeypatch.setattr("archtuna.repeater.Stop", lambda: stop)

    def end(event: dict[str, Any]) -> None:
        stop.requested |= event["event"] == "epoch" and event["epoch"] == 3

    cut = repeat(tmp_path / "cut", 1, on_event=end)
    assert list(cut.artifacts.points()) == ["0s1"]
    assert cut.garbage() == []
    monkeypatch.setattr("archtuna.repeater.Stop", Stop)
    events: list[dict[str, Any]] = []
    again = repeat(tmp_path / "cut", 1, on_event=events.append)
    told = [(event["event"], event["epoch"]) for event in events if event["event"] in ("resumed", "epoch")]
    assert told[0][0] == "resumed"
    assert told[-1] == ("epoch", 4)
    assert again.candidate(0).again[0].metrics == whole.candidate(0).again[0].metrics
    assert again.artifacts.points() == {}
    again.artifacts.keep_point("0s1", 9, b"late")
    assert [one.why for one in again.garbage()] == ["a point to go on from of a run that has ended"]
