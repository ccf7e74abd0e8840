"""What a graphics card does: the same as the CPU, sooner. Skipped where there is none."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch

import archtuna as at
from archtuna import agent
from archtuna.cli import main
from archtuna.evaluate import TrainEvaluator
from archtuna.latency import device, measure_model
from archtuna.objective import objectives_of
from archtuna.training import train
from searches import pictures as files_of
from test_runtimes import LARGE, network
from test_training import CLASSES, FAST, pictures
from test_training import network as trainable

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

SPACE = """
input_channel: 1
input_size: 16
backbone:
  - [1, Conv, [8|16|24, 3, 2, null, 1, ReLU]]
  - [1..2, InvertedResidualv2, [16|32, 2, 1]]
  - [1, GlobalAvgPool, []]
  - [1, Flatten, []]
  - [1, Linear, [3]]
training: {epochs: 4, batch_size: 16, augment: none}
"""


def has_provider(name: str) -> bool:
    onnxruntime = pytest.importorskip("onnxruntime")
    return name in onnxruntime.get_available_providers()


def test_an_interrupted_training_goes_on_there() -> None:
    recipe = FAST.replace(epochs=4, optimizer="adamw", lr=0.01, ema=0.9, precision="auto")
    parts = pictures(64), pictures(32, seed=1)
    whole = [one.metrics for one in train(trainable(), *parts, recipe, classes=CLASSES, device="cuda")]
    begun = train(trainable(), *parts, recipe, classes=CLASSES, device="cuda")
    next(begun)
    state = next(begun).state()
    rest = train(trainable(), *parts, recipe, classes=CLASSES, device="cuda", resume=state)
    for one, other in zip(whole[2:], rest, strict=True):
        assert one["loss"] == pytest.approx(other.metrics["loss"], rel=0.05)


def test_too_little_memory_of_the_card_halves_the_batches(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A step that takes more than the card gives this process is done in pieces, and the memory is free afterwards."""
    text = SPACE.replace("input_size: 16", "input_size: 256").replace(
        "epochs: 4, batch_size: 16", "epochs: 1, batch_size: 256"
    )
    images = np.random.default_rng(0).integers(0, 256, (300, 256, 256), dtype=np.uint8)
    np.savez(tmp_path / "large.npz", x_train=images, y_train=np.arange(300) % 3)
    data = at.Data.open(str(tmp_path / "large.npz"))
    evaluator = TrainEvaluator(data, data.split(), objectives=objectives_of(("f1", "params")), device="cuda")
    candidate = at.SearchSpace.read(text).largest()
    torch.cuda.reset_peak_memory_stats()
    enough = [progress.parts for progress in evaluator.evaluate(candidate)]
    most = torch.cuda.max_memory_reserved()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.75 * most / torch.cuda.get_device_properties(0).total_memory)
    try:
        less = [progress.parts for progress in evaluator.evaluate(candidate)]
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert (enough, less) == ([1], [2])
    assert "with each batch in two pieces" in caplog.text


@pytest.mark.parametrize(("runtime", "provider"), [("torch", "cuda"), ("onnxruntime", "CUDAExecutionProvider")])
def test_a_network_is_measured_there(runtime: str, provider: str) -> None:
    if runtime == "onnxruntime" and not has_provider(provider):
        pytest.skip("this ONNX Runtime has no CUDA provider")
    found = [measure_model(network(LARGE), runtime=runtime, provider=provider) for _ in range(3)]
    assert all(one.device == device(runtime=runtime, provider=provider) for one in found)
    assert torch.cuda.get_device_name() in found[0].device.processor
    spread = statistics.stdev(one.ms for one in found) / statistics.fmean(one.ms for one in found)
    assert spread < 0.2
    if agent._card():
        # A card that computes takes some watts and no kilowatts.
        watts = [one.joules / (1e-3 * one.ms) for one in found if one.joules is not None]
        assert len(watts) == 3
        assert all(10 < one < 1500 for one in watts)


@pytest.mark.slow
def test_a_search_on_a_shared_card_measures_on_it_and_exports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, run = tmp_path / "search.yaml", tmp_path / "run"
    file.write_text(SPACE + "objectives: [f1, latency_ms]\ndeploy: {runtime: torch, provider: cuda}\n")
    command = ["search", str(file), "--data", files_of(tmp_path, 120), "--out", str(run), "--trials", "6"]
    assert main([*command, "--workers", "2", "--per-gpu", "2", "--seed", "0", "--json"]) == 0
    ended = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert ended["trials"]["failed"] == 0
    assert ended["trials"]["complete"] + ended["trials"]["stopped"] >= 6
    study = at.Study.open(run)
    for trial in study.front():
        assert torch.cuda.get_device_name() in str(trial.reading)
        assert math.isfinite(trial.values["latency_ms"])
        model = at.load(trial.checkpoint)
        assert next(model.parameters()).device.type == "cpu"
    pytest.importorskip("onnxruntime")
    target = tmp_path / "model.onnx"
    assert main(["export", str(study.front()[0].checkpoint), str(target)]) == 0
    assert target.is_file()
