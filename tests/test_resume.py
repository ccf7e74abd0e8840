from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from archtuna.checkpoint import load
from archtuna.data import Data
from archtuna.errors import TrialError
from archtuna.evaluate import Progress, Resumable, TrainEvaluator
from archtuna.objective import objectives_of
from archtuna.resume import pack, unpack
from archtuna.space import Candidate, SearchSpace
from searches import pictures

SPACE = """
input_channel: 1
input_size: 8
backbone:
  - [1, Conv, [16, 3, 2, null, 1, ReLU]]
  - [1, InvertedResidualv3, [3, 2, 16, 1, 1, 1]]
  - [1, Dropout, [0.2]]
  - [1, GlobalAvgPool, []]
  - [1, Flatten, []]
  - [1, Linear, [3]]
training: {epochs: 6, batch_size: 16, augment: simple}
"""
RECIPES = {
    "adamw": {"optimizer": "adamw", "lr": 0.01},
    "sgd": {"optimizer": "sgd", "lr": 0.05},
    "ema": {"ema": 0.9, "mixup": 0.4, "label_smoothing": 0.1},
    "cosine": {"schedule": "cosine", "class_weights": "balanced", "clip_norm": 1.0},
}


@pytest.fixture
def evaluator(tmp_path: Path) -> TrainEvaluator:
    data = Data.open(pictures(tmp_path, 90))
    return TrainEvaluator(data, data.split(), objectives=objectives_of(("f1", "params")), device="cpu")


def candidate(**training: Any) -> Candidate:
    return SearchSpace.read(SPACE).with_training(training).default()


def told(progress: Progress) -> tuple[Any, ...]:
    return progress.epoch, progress.epochs, progress.metrics, progress.kept, progress.best


def weights(progress: Progress, path: Path) -> dict[str, torch.Tensor]:
    assert progress.save is not None
    progress.save(path, {})
    return load(path).state_dict()


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_training_goes_on_as_if_nothing_had_happened(evaluator: TrainEvaluator, tmp_path: Path, recipe: str) -> None:
    one, point = candidate(**RECIPES[recipe]), b""
    undisturbed = list(evaluator.evaluate(one))
    for progress in islice(evaluator.evaluate(one), 3):
        assert progress.pause is not None
        point = bytes(progress.pause())
    assert isinstance(evaluator, Resumable)
    resumed = list(evaluator.resume(one, point))
    assert [told(p) for p in resumed] == [told(p) for p in undisturbed[2:]]
    expected = weights(undisturbed[-1], tmp_path / "a.safetensors")
    found = weights(resumed[-1], tmp_path / "b.safetensors")
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())
    assert weights(resumed[0], tmp_path / "c.safetensors").keys() == expected.keys()


def test_a_training_may_be_interrupted_again_and_again(evaluator: TrainEvaluator) -> None:
    one, point = candidate(), b""
    undisturbed, seen = [told(p) for p in evaluator.evaluate(one)], []
    epochs: Iterator[Progress] = iter(evaluator.evaluate(one))
    for _ in range(6):
        for progress in islice(epochs, 2):
            assert progress.pause is not None
            point = bytes(progress.pause())
            seen.append(told(progress))
        epochs = iter(evaluator.resume(one, point))
    assert list(dict.fromkeys(map(repr, seen))) == list(map(repr, undisturbed))
    (last,) = evaluator.resume(one, point)
    assert told(last) == undisturbed[-1], "a training that had ended ends again"
    assert last.seconds > 0


def test_a_point_that_is_damaged_or_of_another_training_is_as_if_it_were_not_there(evaluator: TrainEvaluator) -> None:
    one = candidate()
    first = next(iter(evaluator.evaluate(one)))
    assert first.pause is not None
    whole = bytes(first.pause())
    assert unpack(whole, one) is not None
    assert unpack(whole, candidate(lr=0.5)) is None
    for damaged in (b"", whole[:100], whole[: len(whole) // 2], b"x" * 1000, pickle.dumps({"format": 1})):
        assert unpack(damaged, one) is None
    assert told(next(iter(evaluator.resume(one, b"")))) == told(first)


def test_a_point_of_which_a_power_cut_left_zeros_is_as_if_it_were_not_there() -> None:
    one = candidate()
    whole = bytes(pack(one, {"x": torch.arange(1000), "y": torch.ones(500)}))
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist() if "/data/" in entry.filename}
        payloads = [archive.read(name) for name in sizes]
    assert len(payloads) == 2
    for payload in payloads:
        start = whole.index(payload)
        assert unpack(whole[:start] + bytes(len(payload)) + whole[start + len(payload) :], one) is None
    for at in range(0, len(whole), 97):  # Whatever a bit makes of it, nothing but the same is taken up.
        found = unpack(whole[:at] + bytes([whole[at] ^ 8]) + whole[at + 1 :], one)
        assert found is None or torch.equal(found["x"], torch.arange(1000))


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/archtuna-evil",)


def test_reading_a_point_runs_no_code(tmp_path: Path) -> None:
    point = tmp_path / "7-1.pt"
    torch.save({"format": 1, "evil": Evil()}, point)
    assert unpack(point.read_bytes(), candidate()) is None
    assert not Path("/tmp/archtuna-evil").exists()


def test_a_point_holds_tensors() -> None:
    one = candidate()
    found = unpack(bytes(pack(one, {"x": torch.ones(3)})), one)
    assert found is not None
    assert torch.equal(found["x"], torch.ones(3))


def test_too_little_memory_is_tried_again_with_halves_of_the_batches(
    evaluator: TrainEvaluator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from archtuna.training import _Run

    real, sizes = _Run._forward, []

    def forward(run: _Run, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        sizes.append(len(y))
        if len(y) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return real(run, x, y)

    monkeypatch.setattr(_Run, "_forward", forward)
    found = []
    for progress in evaluator.evaluate(candidate(epochs=2)):
        found.append(progress)
        if progress.epoch == 1:
            assert progress.pause is not None
            point = bytes(progress.pause())
    assert [p.epoch for p in found] == [1, 2]
    assert {p.parts for p in found} == {2}
    assert sizes[0] == 16
    assert max(sizes[1:]) == 8
    assert "once more from the start, with each batch in two pieces" in caplog.text
    assert [p.parts for p in evaluator.resume(candidate(epochs=2), point)] == [2, 2]
    monkeypatch.setattr(_Run, "_forward", lambda run, x, y: (_ for _ in ()).throw(MemoryError("none left")))
    with pytest.raises(TrialError, match="out of memory"):
        list(evaluator.evaluate(candidate(epochs=2)))
