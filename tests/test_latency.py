"""How long an exported network takes, or that nobody can say."""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from archtuna import full_speed
from archtuna import latency as module
from archtuna.checkpoint import save
from archtuna.cli import main
from archtuna.data import Preprocess
from archtuna.devices import quiet_machine
from archtuna.errors import LatencyError, MissingExtraError
from archtuna.exports import export
from archtuna.latency import Latency, device, interval_of_median, measure, onnx_of, reference_model
from archtuna.model import build
from archtuna.recipe import Recipe
from archtuna.space import SearchSpace
from steady import believe

SMALL = """
input_size: 16
backbone:
  - [1, Conv, {channels: 8, kernel: 3, stride: 2}]
  - [1, GlobalAvgPool, []]
  - [1, Flatten, []]
  - [1, Linear, [3]]
"""
LARGE = SMALL.replace("input_size: 16", "input_size: 96").replace(
    "channels: 8, kernel: 3, stride: 2", "channels: 64, kernel: 5, stride: 1"
)


@pytest.fixture(autouse=True)
def own_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(module, "WARM_UP_SECONDS", 0.02)
    monkeypatch.setattr(module, "ROUND_SECONDS", 0.002)


def checkpoint(folder: Path, text: str) -> Path:
    model = build(SearchSpace.read(text).default().architecture).eval()
    size = model.architecture.input_size
    preprocess = Preprocess(size, 3, "resize", None, (0.5,) * 3, (0.25,) * 3)
    path = folder / f"{size[0]}.safetensors"
    metrics = {"loss": 1.0, "accuracy": 0.5, "f1": 0.5}
    save(path, model, classes="abc", preprocess=preprocess, metrics=metrics, recipe=Recipe(), data={}, epoch=1)
    return path


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is believed however busy the tests keep it."""
    believe(monkeypatch)


def test_a_larger_network_and_a_larger_batch_take_longer(tmp_path: Path, steady: None) -> None:
    small, large = (onnx_of(checkpoint(tmp_path, text)) for text in (SMALL, LARGE))
    one, other, many = measure(small), measure(large), measure(small, batch=64)
    assert other.ms > 5 * one.ms
    assert many.ms > 2 * one.ms
    for found in (one, other, many):
        assert 0 < found.low <= found.ms <= found.high
        assert found.reference_ms > 0
    assert one.device == other.device
    assert one.device.fingerprint == other.device.fingerprint != many.device.fingerprint


def test_what_was_exported_is_what_is_measured(tmp_path: Path, steady: None) -> None:
    from archtuna.checkpoint import load

    path = checkpoint(tmp_path, SMALL)
    export(load(path), tmp_path / "model.onnx")
    assert onnx_of(tmp_path / "model.onnx") == onnx_of(path)


def test_the_interval_of_a_median_holds_it_as_often_as_it_says() -> None:
    draws = random.Random(0)
    inside = 0
    for _ in range(2_000):
        low, high = interval_of_median([draws.expovariate(1.0) for _ in range(31)])
        inside += low <= 0.6931 <= high
    assert 0.945 <= inside / 2_000 <= 0.985
    assert interval_of_median([1.0]) == (1.0, 1.0)
    assert interval_of_median([1.0, 2.0, 3.0]) == (1.0, 3.0)


N = module.ROUNDS


def scripted(monkeypatch: pytest.MonkeyPatch, references: list[list[float]]) -> None:
    """Let the reference take these seconds in the rounds of each attempt, and the network twice as many."""
    left = iter(references)

    def compared(*given: object) -> tuple[list[float], list[float]]:
        found = next(left)
        return [2 * seconds for seconds in found], found

    monkeypatch.setattr("archtuna.agent.compared", compared)


FULL, SLOW = [0.001] * N, [0.002] * N
MIXED = [*SLOW[: N - 11], *FULL[:11]]
"""Ten rounds that have full speed before and after them."""


def test_only_rounds_at_full_speed_count_and_a_busy_machine_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scripted(monkeypatch, [MIXED, SLOW, SLOW, SLOW, SLOW, MIXED, MIXED])
    waited: list[float] = []
    caplog.set_level("INFO", "archtuna")
    found = measure(reference_model(), sleep=waited.append)
    assert waited == [module.PAUSE] * 6
    assert (found.ms, found.reference_ms, found.ratio, found.rounds) == (2.0, 1.0, 2.0, 30)
    assert caplog.text.count("the machine is too busy to measure") == 1, "said once a measurement"


def test_a_machine_that_stays_busy_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [FULL] * 4 + [SLOW])
    measure(reference_model(), sleep=lambda seconds: None)
    with pytest.raises(
        LatencyError, match=rf"too busy to measure: it had full speed in 0 of {N} rounds\nhint: end what else"
    ):
        measure(reference_model(), patience=-1)


def test_on_a_device_that_nobody_knows_full_speed_is_looked_for_and_then_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited: list[float] = []
    scripted(monkeypatch, [SLOW, SLOW, SLOW, FULL, FULL, SLOW, FULL])
    first = measure(reference_model(), sleep=waited.append)
    assert (first.ms, len(waited)) == (2.0, 3), "the slow rounds before are no full speed, as the last shows"
    assert (measure(reference_model(), sleep=waited.append).ms, len(waited)) == (2.0, 3)
    assert (measure(reference_model(), sleep=waited.append).ms, len(waited)) == (2.0, 4)


def test_a_slow_network_on_a_quiet_device_that_nobody_knows_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [FULL] * 2)
    clock = iter([0.0, 25.0, 25.0, 70.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    found = module._believed(
        lambda left: module._timing(
            {"times": FULL, "references": FULL, "joules": None, "device": PLAIN},
            {"batch": 1, "threads": 1, "provider": "P", "rounds": N}, "pi3",
        ),
        "pi3", 60.0, lambda seconds: None,
    )  # fmt: skip
    assert found.rounds == 2 * N


PLAIN = {"processor": "A", "runtime": "onnxruntime 1", "system": "Linux"}


def test_a_device_that_became_slower_for_good_is_believed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [FULL] * 4 + [SLOW] * 4)
    measure(reference_model(), sleep=lambda seconds: None)
    now = time.time() + full_speed.FORGOTTEN + 1
    monkeypatch.setattr("archtuna.full_speed.time.time", lambda: now)
    assert measure(reference_model(), sleep=lambda seconds: None).ms == 4.0


def test_only_one_measures_at_a_time(steady: None) -> None:
    done: list[float] = []
    thread = threading.Thread(target=lambda: (measure(reference_model(), rounds=3), done.append(time.monotonic())))
    with quiet_machine():
        thread.start()
        time.sleep(0.5)
        assert not done
        released = time.monotonic()
    thread.join()
    assert done[0] >= released


def test_the_reference_is_always_the_same() -> None:
    first = reference_model()
    reference_model.cache_clear()
    assert reference_model() == first


def test_a_device_is_named_by_all_that_matters() -> None:
    here = device(1, 1)
    others = [
        replace(here, threads=2),
        replace(here, batch=2),
        replace(here, processor="other"),
        replace(here, runtime="x"),
    ]
    assert len({one.fingerprint for one in (here, *others)}) == 5
    assert here.processor
    assert here.runtime.startswith("onnxruntime ")


def test_what_cannot_be_measured_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LatencyError, match="does not run in ONNX Runtime"):
        measure(b"no model")
    with pytest.raises(LatencyError, match=r"has no 'NoneProvider' here\nhint: it has .*CPUExecutionProvider"):
        measure(reference_model(), provider="NoneProvider")
    with pytest.raises(LatencyError, match=r"none.onnx: cannot be read \(No such file"):
        onnx_of(tmp_path / "none.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"archtuna\[onnx\]"):
        measure(reference_model())


def test_the_command_line_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str], steady: None) -> None:
    path = checkpoint(tmp_path, SMALL)
    assert main(["latency", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["low"] <= found["ms"] <= found["high"]
    assert found["device"]["threads"] == found["device"]["batch"] == 1
    assert main(["latency", str(path), "--threads", "2", "--batch", "4"]) == 0
    out = capsys.readouterr().out
    assert "ms (" in out
    assert "for a batch of 4" in out
    assert "2 threads; device " in out


def test_a_latency_is_read_again_from_plain_data(steady: None) -> None:
    found = measure(reference_model(), rounds=3)
    assert Latency.from_dict(json.loads(json.dumps(found.to_dict()))) == found
