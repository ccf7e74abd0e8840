"""What a report says of a run, whatever became of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import archtuna as at
from archtuna.errors import ArchtunaError
from archtuna.page.facts import facts_of
from archtuna.page.origin import commands_of
from reports import failing, made


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> at.Study:
    return made(tmp_path_factory.mktemp("facts"), limits=["params <= 2500"])


def test_trials_front_and_counts_are_those_of_the_study(run: at.Study) -> None:
    found = facts_of(run)
    assert json.loads(json.dumps(found, allow_nan=False)) is not None
    assert found["counts"] == run.counts()
    assert found["front"] == [t.number for t in run.front()]
    assert found["knee"] == run.knee().number
    by_number = {t["number"]: t for t in found["trials"]}
    for trial in run.trials():
        told = by_number[trial.number]
        assert told["state"] == trial.state
        assert told.get("values", {}) == dict(trial.values)
        assert told.get("front", False) == (trial.number in found["front"])
    best = by_number[found["front"][0]]
    assert sorted(best["curve"]) == [1, 2, 3]
    assert best["curve"][3]["f1"] == pytest.approx(best["values"]["f1"], rel=1e-4)
    assert best["ended"] >= best["began"] >= 0


def test_why_networks_were_refused_is_told_once_for_reasons_that_differ_in_numbers(run: at.Study) -> None:
    found = facts_of(run)["refused"]
    assert sum(one["count"] for one in found) == run.counts()["refused"]
    assert len(found) <= 1
    for one in found:
        assert "params" in one["example"]
        assert run.candidate(one["numbers"][0]).state == "refused"


def test_hypervolume_importance_and_time_are_told(run: at.Study) -> None:
    found = facts_of(run)
    assert found["progress"]["hypervolume"][-1] == pytest.approx(run.hypervolume())
    assert found["progress"]["trials"][-1] == run.counts()["complete"]
    assert {one["objective"] for one in found["importance"]} == {"f1", "loss", "params", "macs"}
    assert list(found["seconds"]) == ["training, complete"]


def test_rows_of_the_front_and_the_parts_of_the_pictures_are_told(run: at.Study) -> None:
    found = facts_of(run)
    trial = run.front()[0]
    model = found["models"][str(trial.number)]
    assert sum(row["params"] for row in model["rows"]) == trial.costs["params"]
    assert "confusion" not in model, "an evaluator of one's own leaves no weights"
    assert [sum(part) for part in found["data"]["parts"].values()] == [42, 9, 9]
    assert found["data"]["classes"] == ["0", "1", "2"]


def test_the_command_that_searches_again_does(run: at.Study, tmp_path: Path) -> None:
    from archtuna.cli import main

    command = facts_of(run)["commands"]["search"]
    assert "--objectives f1,loss,params,macs" in command
    assert '--limit "params <= 2500"' in command
    import shlex

    words = [
        word.replace("14", "1") if i and before == "--trials" else word
        for i, (before, word) in enumerate(_pairs(shlex.split(command)[1:]))
    ]
    words[words.index("--out") + 1] = str(tmp_path / "again")
    assert main([*words, "--epochs", "1"]) == 0
    assert at.Study.open(tmp_path / "again").spec.limits == run.spec.limits


def _pairs(words: list[str]) -> list[tuple[str, str]]:
    return list(zip(["", *words], words, strict=False))


def test_networks_that_were_trained_are_run_on_the_validation_pictures(study: at.Study) -> None:
    found = facts_of(study, device="cpu")
    for trial in study.front():
        model = found["models"][str(trial.number)]
        assert model["accuracy"] == pytest.approx(trial.metrics["accuracy"])
        assert model["f1"] == pytest.approx(trial.metrics["f1"])
        wrong = model["n"] - sum(row[i] for i, row in enumerate(model["confusion"]))
        assert len(model["mistakes"]) == min(8, wrong)
        for mistake in model["mistakes"]:
            assert mistake["truth"] != mistake["answer"]
            assert mistake["picture"].startswith("data:image/jpeg;base64,")
            assert 1 / 3 <= mistake["probability"] <= 1
            assert mistake["name"].startswith(f"{mistake['truth']}/")
        assert model["mistakes"] == sorted(model["mistakes"], key=lambda one: -one["probability"])
        assert found["errors"][str(trial.number)]["error"] > 0
    without = facts_of(study, pictures=False)
    assert all("confusion" not in model for model in without["models"].values())


def test_pictures_that_are_gone_are_a_note_and_others_an_error(study: at.Study, tmp_path: Path) -> None:
    opened = at.Study.open(study.folder)
    opened.spec = replace(opened.spec, data={**opened.spec.data, "source": str(tmp_path / "gone")})
    found = facts_of(opened)
    assert any("archtuna report RUN --data says where they are" in note for note in found["notes"])
    assert "parts" not in found["data"]
    with pytest.raises(ArchtunaError, match="no such file or folder"):
        facts_of(opened, data=str(tmp_path / "nowhere"))


@pytest.mark.parametrize("objectives", [["f1"], ["f1", "params"], ["f1", "loss", "accuracy", "params", "macs"]])
def test_a_run_may_have_one_to_five_objectives(tmp_path: Path, objectives: list[str]) -> None:
    found = facts_of(made(tmp_path, objectives=objectives, trials=4))
    assert [o["name"] for o in found["objectives"]] == objectives
    assert found["front"]


def test_a_run_of_which_every_trial_failed_says_why(tmp_path: Path) -> None:
    found = facts_of(made(tmp_path, evaluator=failing, trials=3))
    assert found["front"] == []
    assert found["knee"] is None
    assert found["progress"]["hypervolume"] == []
    assert [(one["count"], one["example"]) for one in found["failed"]] == [
        (3, "nan: the training loss became nan in epoch 1")
    ]


def test_a_run_without_trials_is_one(tmp_path: Path) -> None:
    found = facts_of(made(tmp_path, workers=0))
    assert found["trials"] == []
    assert found["began"] is None


def test_the_command_that_searches_again_says_all_that_chose_the_networks(tmp_path: Path) -> None:
    given = {"trials": 1, "seed": 3}
    for name in ("a b", "never", "late"):
        (tmp_path / name).mkdir()
    plain = facts_of(made(tmp_path / "a b", sampler=None, **given))["commands"]
    assert f"--out '{tmp_path}/a b/run'-again" in plain["search"]
    assert not any(flag in plain["search"] for flag in ("--sampler", "--no-stopping", "--first-rung", "--import"))
    never = facts_of(made(tmp_path / "never", sampler="tpe", stopping=False, **given))["commands"]["search"]
    assert "--sampler tpe" in never
    assert "--no-stopping" in never
    late = facts_of(made(tmp_path / "late", stopping=at.Schedule(first=2), **given))["commands"]["search"]
    assert "--first-rung 2" in late
    assert "--no-stopping" not in late


def test_commands_name_the_modules_of_ones_own_blocks_and_metrics(run: at.Study) -> None:
    opened = at.Study.open(run.folder)
    text = opened.spec.space["text"] + "\nblocks: {Fancy: my.blocks, Other: my.blocks}\n"
    metric = {"mine": {"best": 1.0, "worst": 0.0, "meaning": "", "module": "my.metrics"}}
    opened.spec = replace(opened.spec, space={**opened.spec.space, "text": text}, metrics=metric)
    commands = commands_of(opened)
    for name in ("search", "train", "export"):
        assert commands[name].endswith(" --import my.blocks --import my.metrics")
