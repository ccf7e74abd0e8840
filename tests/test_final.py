import shutil

import pytest

from archtuna.checkpoint import read_header
from archtuna.driver import search
from archtuna.errors import DataError, StudyError
from archtuna.final import Final, evaluate_checkpoint, evaluate_deployed, knee_checkpoint, train_in_full
from pictures import folder
from searches import TWO, pictures


@pytest.fixture(autouse=True)
def nothing_is_trained(request):
    if "study" in request.fixturenames:
        shutil.rmtree(request.getfixturevalue("study").folder / "trained", ignore_errors=True)


@pytest.mark.slow
def test_the_final_training_takes_all_training_pictures_and_reports_on_unseen_ones(study):
    trial = study.front()[0]
    seen = []
    final = train_in_full(
        study, trial.number, epochs=3, seeds=2, on_progress=lambda seed, p: seen.append((seed, p.epoch))
    )
    assert seen == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3)]
    assert [run["seed"] for run in final.seeds] == [0, 1]
    assert final.val["f1"] == max(run["val"]["f1"] for run in final.seeds)
    header = read_header(final.checkpoint)
    assert header.architecture == trial.architecture
    assert header.trial["number"] == trial.number
    assert evaluate_checkpoint(final.checkpoint, split="test") == {
        **{k: pytest.approx(v) for k, v in final.test.items()},
        "n": 12,
        "split": "test",
    }
    assert final.earlier is None
    assert [p.name for p in final.checkpoint.parent.iterdir()] == [f"{trial.number}.safetensors"]


@pytest.mark.slow
def test_an_earlier_full_training_is_kept_under_another_name(study):
    number = study.front()[-1].number
    made = [train_in_full(study, number, epochs=epochs) for epochs in (2, 1, 1)]
    folder = made[0].checkpoint.parent
    assert [final.earlier for final in made] == [
        None, folder / f"{number}.1.safetensors", folder / f"{number}.2.safetensors",
    ]  # fmt: skip
    epochs = [read_header(folder / f"{number}{n}.safetensors").recipe["epochs"] for n in (".1", ".2", "")]
    assert epochs == [2, 1, 1]


@pytest.mark.slow
def test_parts_are_the_ones_of_the_study_and_unknown_ones_are_named(study):
    checkpoint = knee_checkpoint(study)
    sizes = {split: evaluate_checkpoint(checkpoint, split=split)["n"] for split in ("train", "val", "test")}
    split = study.split(study.data())
    assert sizes == {"train": len(split.train), "val": len(split.val), "test": len(split.test)}
    assert not set(split.test) & ({*split.train} | {*split.val})
    with pytest.raises(DataError, match="no part is called 'tset'"):
        evaluate_checkpoint(checkpoint, split="tset")


@pytest.mark.slow
def test_other_pictures_are_refused_with_both_fingerprints(study, tmp_path):
    other = folder(tmp_path / "other", each=9)
    with pytest.raises(DataError, match=study.data().fingerprint):
        evaluate_checkpoint(knee_checkpoint(study), data=other)


@pytest.mark.slow
def test_a_trial_that_is_not_there_is_named(study):
    with pytest.raises(StudyError, match="99"):
        train_in_full(study, 99)


def test_spread_is_mean_and_sample_deviation(tmp_path):
    runs = tuple({"seed": i, "val": {"f1": 0.0}, "test": {"f1": v}} for i, v in enumerate((0.5, 0.7)))
    final = Final(tmp_path, {}, {}, runs)
    assert final.spread("test", "f1") == (pytest.approx(0.6), pytest.approx(0.1414, abs=1e-3))
    assert Final(tmp_path, {}, {}, runs[:1]).spread("test", "f1") == (0.5, 0.0)


@pytest.mark.slow
def test_a_search_for_int8_ends_in_a_report_of_the_quantised_network(tmp_path, monkeypatch):
    monkeypatch.setenv("ARCHTUNA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ARCHTUNA_STORAGE", raising=False)
    given = {"objectives": ["f1", "size_mb"], "target": "onnx-int8", "trials": 1, "training": {"epochs": 1}}
    study = search(TWO, pictures(tmp_path), out=tmp_path / "run", **given)
    (trial,) = study.front()
    assert trial.values["f1"] == trial.metrics["f1"]
    assert "float_f1" in trial.metrics
    assert trial.values["size_mb"] == trial.reading["bytes"] / 1e6
    final = train_in_full(study, trial.number, epochs=2)
    deployed = evaluate_deployed(final.checkpoint, study.spec.deployment, split="test")
    assert {name: final.test[name] for name in deployed} == deployed
    assert final.test["float_loss"] == pytest.approx(evaluate_checkpoint(final.checkpoint, split="test")["loss"])
    assert final.test["loss"] != final.test["float_loss"]
