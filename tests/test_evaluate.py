from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from archtuna import checkpoint
from archtuna.costs import costs_of
from archtuna.data import Batches, Data, Preprocess
from archtuna.errors import ShapeError, StudyError, TrialError
from archtuna.evaluate import (
    EVALUATION_BATCH,
    Best,
    Evaluator,
    FunctionEvaluator,
    TrainEvaluator,
    evaluator_of,
    load_evaluator,
)
from archtuna.objective import objectives_of
from archtuna.settings import DeploySettings
from archtuna.space import SearchSpace
from archtuna.training import evaluate_batches
from searches import SPACE, TWO, instant, pictures

F1 = objectives_of(("f1", "params"))
LOSS = objectives_of(("params", "loss", "f1"))


def test_the_first_quality_chooses_the_epoch() -> None:
    best = Best(F1)
    taken = [best.improves(i, {"f1": f1, "loss": 1.0}) for i, f1 in enumerate((0.2, 0.5, 0.5, 0.4, 0.6), 1)]
    assert taken == [True, True, False, False, True]
    assert (best.epoch, best.metrics["f1"]) == (5, 0.6)
    best = Best(LOSS)
    assert [best.improves(i, {"f1": 0.0, "loss": loss}) for i, loss in enumerate((0.2, 0.5, 0.1), 1)] == [
        True,
        False,
        True,
    ]


def test_metrics_that_are_missing_or_no_numbers() -> None:
    with pytest.raises(StudyError, match="the evaluator gives no 'f1', it gives loss"):
        Best(F1).improves(1, {"loss": 0.1})
    with pytest.raises(TrialError, match="f1 became nan in epoch 3") as caught:
        Best(F1).improves(3, {"f1": math.nan})
    assert caught.value.reason == "nan"


def test_a_function_stands_in() -> None:
    candidate = SearchSpace.read(SPACE).default()
    evaluator = FunctionEvaluator(instant, F1)
    (progress,) = evaluator.evaluate(candidate)
    assert (progress.epoch, progress.epochs, progress.kept, progress.save) == (1, 1, 1, None)
    assert progress.best == progress.metrics == instant(candidate)
    assert evaluator.costs(candidate.architecture) == costs_of(candidate.architecture)


def test_a_function_may_yield_epochs() -> None:
    scores = [0.1, 0.4, 0.3]
    found = list(
        FunctionEvaluator(lambda c: ({"f1": s} for s in scores), F1).evaluate(SearchSpace.read(SPACE).default())
    )
    assert [(p.epoch, p.epochs, p.kept, p.best["f1"]) for p in found] == [
        (1, 3, 1, 0.1),
        (2, 3, 2, 0.4),
        (3, 3, 2, 0.4),
    ]


def test_outputs_must_be_the_classes() -> None:
    evaluator = FunctionEvaluator(instant, F1, classes=4)
    with pytest.raises(ShapeError, match="ends in 3 values, and the pictures have 4 classes"):
        evaluator.costs(SearchSpace.read(SPACE).default().architecture)


def test_evaluators_from_what_is_given() -> None:
    assert isinstance(evaluator_of("searches:instant", F1, 3), FunctionEvaluator)
    mine = FunctionEvaluator(instant, F1)
    assert evaluator_of(mine, F1, 3) is mine
    assert isinstance(mine, Evaluator)
    with pytest.raises(StudyError, match=r"7 is no evaluator"):
        evaluator_of(7, F1, 3)


@pytest.mark.parametrize("place", ["searches:nothing", "nowhere_at_all:instant", "searches", ":instant"])
def test_evaluators_that_are_not_there(place: str) -> None:
    with pytest.raises(StudyError, match=r"no evaluator '.*\nhint: write module:function"):
        load_evaluator(place)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Data:
    monkeypatch.setenv("ARCHTUNA_CACHE", str(tmp_path / "cache"))
    return Data.open(pictures(tmp_path, 120))


def trained(data: Data, **changes: Any) -> TrainEvaluator:
    return TrainEvaluator(data, data.split(), **{"objectives": F1, "device": "cpu", **changes})


def test_training_gives_every_epoch_and_a_checkpoint_of_the_best(data: Data, tmp_path: Path) -> None:
    candidate = SearchSpace.read(TWO).default()
    found = list(trained(data).evaluate(candidate))
    assert [p.epoch for p in found] == [1, 2, 3]
    last = found[-1]
    assert last.best == max((p.metrics for p in found), key=lambda m: m["f1"])
    assert last.metrics.keys() == {"loss", "accuracy", "f1"}
    path = tmp_path / "1.safetensors"
    assert last.save is not None
    last.save(path, {"number": 1})

    header = checkpoint.read_header(path)
    assert header.architecture == candidate.architecture
    assert header.epoch == last.kept
    assert dict(header.metrics) == last.best
    assert header.trial == {"number": 1}
    assert header.data["source"] == data.source
    model = checkpoint.load(path)
    preprocess = Preprocess.from_dict(header.preprocess)
    images = data.images(preprocess.size, channels=preprocess.channels, fit=preprocess.fit, via=preprocess.via)
    batches = Batches(images, data.split().val, preprocess, batch_size=EVALUATION_BATCH)
    again = evaluate_batches(model, batches, classes=3, device="cpu")
    assert again == pytest.approx(last.best, abs=1e-6)


def test_an_epoch_in_the_middle_is_a_valid_end(data: Data, tmp_path: Path) -> None:
    epochs = trained(data).evaluate(SearchSpace.read(TWO).default())
    first = next(epochs)
    metrics = dict(first.best)
    next(epochs)
    assert first.save is not None
    first.save(tmp_path / "0.safetensors", {})
    assert dict(checkpoint.read_header(tmp_path / "0.safetensors").metrics) == metrics


def test_training_repeats_bit_for_bit(data: Data) -> None:
    candidate = SearchSpace.read(TWO).default()
    first, second = ([dict(p.metrics) for p in trained(data).evaluate(candidate)] for _ in range(2))
    assert first == second


def test_a_fraction_searches_on_less_and_validates_on_all(data: Data) -> None:
    half, whole = trained(data, fraction=0.5), trained(data)
    assert len(half.training) < len(whole.training)
    assert set(half.training) < set(whole.training)
    assert len(list(half.evaluate(SearchSpace.read(TWO).default()))) == 3


def test_costs_check_the_classes(data: Data) -> None:
    other = SearchSpace.read(TWO.replace("Linear, [3]", "Linear, [5]")).default()
    with pytest.raises(ShapeError, match="5 values, and the pictures have 3 classes"):
        trained(data).costs(other.architecture)


def test_pictures_are_loaded_once_for_a_size(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator, loads = trained(data, via=(16, 16)), []
    real = Data.images

    def images(self: Data, size: tuple[int, int], **given: Any) -> Any:
        if "via" in given:  # Data asks itself for the largest size without one.
            loads.append((size, given["via"]))
        return real(self, size, **given)

    monkeypatch.setattr(Data, "images", images)
    for size in (8, 8, 16):
        candidate = SearchSpace.read(TWO, input_size=size).default()
        next(evaluator.evaluate(candidate))
    assert loads == [((8, 8), (16, 16)), ((16, 16), (16, 16))]


def test_a_diverging_training_is_a_trial_error(data: Data) -> None:
    candidate = SearchSpace.read(TWO.replace("epochs: 3", "lr: 1.0e+6, weight_decay: 1000, epochs: 3")).default()
    with pytest.raises(TrialError, match="loss became") as caught:
        list(trained(data).evaluate(candidate))
    assert caught.value.reason == "nan"


def test_with_int8_the_values_are_those_of_the_quantised_network_and_weights_stay_float(tmp_path: Path) -> None:
    from archtuna.answers import evaluate_onnx
    from archtuna.calibration import calibration_batches
    from archtuna.exports import artefact
    from archtuna.proving import proof_of

    data = Data.open(pictures(tmp_path))
    evaluator = TrainEvaluator(data, data.split(), objectives=F1, device="cpu", deploy=DeploySettings(precision="int8"))
    *before, end = evaluator.evaluate(SearchSpace.read(TWO).default())
    assert all(set(progress.best) == {"loss", "accuracy", "f1"} for progress in before)
    own = {name.removeprefix("float_"): value for name, value in end.best.items() if name.startswith("float_")}
    assert end.save is not None
    end.save(tmp_path / "a.safetensors", {})
    assert checkpoint.read_header(tmp_path / "a.safetensors").metrics == own
    model = checkpoint.load(tmp_path / "a.safetensors")
    again = artefact(model, precision="int8", calibration=calibration_batches(tmp_path / "a.safetensors"))
    proof = proof_of(tmp_path / "a.safetensors")
    found = evaluate_onnx(again.content, proof.batches, classes=3)
    assert {name: end.best[name] for name in found} == found
    assert found["loss"] != own["loss"]


def test_what_a_function_gives_are_plain_numbers_and_only_objectives_have_to_be_finite() -> None:
    function = lambda one: [{"f1": np.float32(0.5), "loss": torch.tensor(1.0), "recall_of_nobody": math.nan}]  # noqa: E731
    objectives = objectives_of(("f1", "params"))
    (progress,) = FunctionEvaluator(function, objectives).evaluate(SearchSpace.read(SPACE).default())
    assert progress.metrics == progress.best == {"f1": 0.5, "loss": 1.0}
    assert {type(value) for value in progress.metrics.values()} == {float}
    with pytest.raises(TrialError, match="f1 became nan in epoch 1"):
        list(FunctionEvaluator(lambda one: {"f1": math.nan}, objectives).evaluate(SearchSpace.read(SPACE).default()))


def test_an_exported_network_whose_answers_are_no_numbers_fails_its_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Data.open(pictures(tmp_path))
    deploy = DeploySettings(format="onnx", precision="int8")
    evaluator = TrainEvaluator(
        data, data.split(), objectives=objectives_of(("f1", "params")), device="cpu", deploy=deploy
    )
    monkeypatch.setattr("archtuna.answers.evaluate_onnx", lambda *given, **how: {"f1": math.nan, "loss": 1.0})
    with pytest.raises(TrialError, match="f1 is nan after the export to int8"):
        list(evaluator.evaluate(SearchSpace.read(SPACE).default()))
