from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import archtuna as at
from archtuna.checkpoint import read_header
from archtuna.evaluate import FunctionEvaluator, TrainEvaluator
from archtuna.objective import objectives_of
from archtuna.report import front
from archtuna.siblings import TRAINING, is_comparable, name_of
from archtuna.space import Candidate
from archtuna.storage import Attr
from archtuna.study import Study
from searches import SPACE, TWO, arguments, climbing, instant
from studies import make_spec


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHTUNA_CACHE", str(tmp_path_factory.mktemp("cache")))


EVALUATED: list[str] = []


def counting(candidate: Candidate) -> dict[str, float]:
    EVALUATED.append(candidate.architecture.key)
    return instant(candidate)


def other_way(candidate: Candidate) -> dict[str, float]:
    return counting(candidate)


def lossless(candidate: Candidate) -> dict[str, float]:
    EVALUATED.append(candidate.architecture.key)
    return {"f1": instant(candidate)["f1"]}


def run(folder: Path, name: str, **changes: Any) -> tuple[Study, list[dict[str, Any]], list[str]]:
    """Run a study of a name in the storage that all share; return it, its events, and the networks it evaluated."""
    events: list[dict[str, Any]] = []
    EVALUATED.clear()
    given = {"storage": f"sqlite:///{folder}/all.db", "out": folder / name, "evaluator": counting, "trials": 8}
    take = lambda event: events.append(json.loads(json.dumps(event)))  # noqa: E731
    study = at.search(**arguments(folder, on_event=take, **{**given, **changes}))
    return study, events, list(EVALUATED)


def test_a_network_is_evaluated_once_in_a_storage(tmp_path: Path) -> None:
    first, _, evaluated = run(tmp_path, "first", space=TWO, trials=2)
    assert len(evaluated) == 2
    second, events, evaluated = run(tmp_path, "second", space=TWO, trials=2, objectives=("f1", "macs", "loss"))
    assert evaluated == []
    assert second.counts()["complete"] == 2
    told = {event["number"]: event["of"] for event in events if event["event"] == "reused"}
    assert sorted(of["number"] for of in told.values()) == [0, 1]
    for trial in second.trials():
        assert trial.reused == told[trial.number]
        there = first.candidate(told[trial.number]["number"])
        assert there.key == trial.key
        assert trial.metrics == there.metrics
        assert trial.epochs == there.epochs == 1
        assert trial.values == {"f1": there.metrics["f1"], "macs": trial.costs["macs"], "loss": there.metrics["loss"]}
    assert [event["event"] for event in events].count("complete") == 2
    assert [line["number"] for line in front(second)] == [trial.number for trial in second.front()] != []
    assert all(line["epochs"] == 1 for line in front(second))
    assert all(trial.reused is None for trial in first.trials())


def test_what_is_new_is_evaluated(tmp_path: Path) -> None:
    first, _, before = run(tmp_path, "first", space=SPACE, trials=6, sampler="random")
    second, _, after = run(tmp_path, "second", space=SPACE, trials=60, sampler="random", seed=1)
    reused = [trial for trial in second.trials() if trial.reused]
    assert second.counts()["complete"] == 60
    assert reused
    assert len(after) == 60 - len(reused)
    assert not set(before) & set(after)


@pytest.mark.parametrize(
    "changes",
    [
        {"fraction": 0.5},
        {"training": {"batch_size": 8}},
        {"objectives": ("loss", "params")},
        {"evaluator": other_way},
        {"evaluator": lambda candidate: counting(candidate)},
        {"space": TWO + "data: {fit: pad}\n"},
        {"space": TWO + "data: {split_seed: 5}\n"},
        {"input_size": 6},
    ],
)
def test_what_was_found_in_another_way_does_not_count(tmp_path: Path, changes: Mapping[str, Any]) -> None:
    run(tmp_path, "first", space=TWO, trials=2)
    study, _, evaluated = run(tmp_path, "second", **{"space": TWO, "trials": 2, **changes})
    assert len(evaluated) == 2
    assert all(trial.reused is None for trial in study.trials())


def test_a_study_that_two_evaluators_filled_serves_none(tmp_path: Path) -> None:
    run(tmp_path, "first", space=TWO, trials=1)
    run(tmp_path, "first", space=TWO, trials=2, evaluator=other_way)
    _, _, evaluated = run(tmp_path, "second", space=TWO, trials=2)
    assert len(evaluated) == 2


def test_a_quality_that_was_not_measured_is_not_made_up(tmp_path: Path) -> None:
    run(tmp_path, "first", space=TWO, trials=2, evaluator=lossless)
    study, _, evaluated = run(tmp_path, "second", space=TWO, trials=2, evaluator=lossless)
    assert evaluated == []
    with pytest.raises(at.ArchtunaError, match="gives no 'loss'"):
        run(tmp_path, "third", space=TWO, trials=2, evaluator=lossless, objectives=("f1", "loss"))


def test_limits_hold_for_what_is_reused(tmp_path: Path) -> None:
    first, _, _ = run(tmp_path, "first", space=TWO, trials=2)
    bound = min(trial.costs["params"] for trial in first.trials())
    study, events, evaluated = run(tmp_path, "second", space=TWO, trials=2, limits=(f"params <= {bound}",))
    assert evaluated == []
    assert study.counts() == {"complete": 1, "stopped": 0, "refused": 1, "failed": 0}
    assert events[-1]["reason"] == "exhausted"


def test_weights_come_along_where_the_trial_deserves_them(tmp_path: Path) -> None:
    changes = {"space": TWO, "trials": 2, "evaluator": None}
    first, _, _ = run(tmp_path, "first", **changes)
    gone = min(first.front(), key=lambda trial: trial.costs["params"])
    first.artifacts.weights(gone.number).unlink()
    second, _, _ = run(tmp_path, "second", **changes, objectives=("f1", "macs"))
    for trial in second.trials():
        assert trial.reused is not None
        source = first.artifacts.weights(trial.reused["number"])
        if trial.reused["number"] == gone.number:
            assert trial.checkpoint is None
        elif trial.checkpoint is not None:
            assert trial.checkpoint.read_bytes() == source.read_bytes()
            assert read_header(trial.checkpoint).architecture == trial.architecture
    assert any(trial.checkpoint for trial in second.trials())


def test_a_folder_that_another_study_took_over_gives_no_weights(tmp_path: Path) -> None:
    changes = {"space": TWO, "trials": 2, "evaluator": None}
    first, _, _ = run(tmp_path, "first", **changes)
    paths = [first.artifacts.weights(number) for number in (0, 1)]
    if not all(path.exists() for path in paths):
        pytest.fail("both are near the front")
    contents = [path.read_bytes() for path in paths]
    paths[0].write_bytes(contents[1])
    paths[1].write_bytes(b"no checkpoint")
    second, _, _ = run(tmp_path, "second", **changes)
    assert [trial.checkpoint for trial in second.trials()] == [None, None]
    assert all(trial.reused for trial in second.trials())


def test_names_of_evaluators() -> None:
    objectives = objectives_of(("f1",))
    assert name_of(FunctionEvaluator(instant, objectives)) == "searches:instant"
    assert name_of(FunctionEvaluator(lambda candidate: {}, objectives)) is None
    assert name_of(object.__new__(TrainEvaluator)) == TRAINING

    class Mine(FunctionEvaluator):
        pass

    assert name_of(Mine(instant, objectives)) is None


def test_the_seed_counts_where_it_chooses_pictures() -> None:
    whole, half = make_spec(), make_spec(fraction=0.5)
    assert is_comparable(whole, replace(whole, seed=7, limits=(), objectives=("f1", "macs")))
    assert is_comparable(half, half)
    assert not is_comparable(half, replace(half, seed=7))
    larger = replace(whole, space={**whole.space, "text": whole.space["text"].replace("size: 8", "size: 8|16")})
    assert not is_comparable(whole, larger), "pictures are derived from larger ones there"


def test_the_study_says_who_evaluates_and_where(tmp_path: Path) -> None:
    study, _, _ = run(tmp_path, "first", space=TWO, trials=1)
    assert study.optuna.user_attrs[Attr.EVALUATORS] == ["test_siblings:counting"]
    assert study.optuna.user_attrs[Attr.FOLDERS] == [str((tmp_path / "first").resolve())]


def test_what_was_stopped_elsewhere_is_not_a_result(tmp_path: Path) -> None:
    """A sampler of generations knows a stopped trial as a complete one."""
    nine = SPACE.replace("epochs: 3", "epochs: 9")
    given = {"space": nine, "evaluator": climbing, "trials": 60}
    first, _, _ = run(tmp_path, "first", sampler="nsga2", **given)
    stopped = {trial.key for trial in first.trials() if trial.state == "stopped"}
    second, _, _ = run(tmp_path, "second", sampler="random", seed=3, **given)
    met = [trial for trial in second.trials() if trial.state == "complete" and trial.key in stopped]
    assert met, "none of these was drawn again"
    assert all(trial.epochs == 9 and not trial.reused for trial in met)
    reused = [trial for trial in second.trials() if trial.reused]
    assert reused
    assert not any(trial.curve for trial in reused), "it is not the curve of the network before"
