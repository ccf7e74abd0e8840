"""What it takes an export to know of a network, measured for real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from archtuna import agent, latency, measuring
from archtuna.architecture import Architecture
from archtuna.driver import search
from archtuna.errors import LatencyError
from archtuna.exports import artefact
from archtuna.gauge import HERE, Gauge, Reading, untrained
from archtuna.settings import DeploySettings
from archtuna.space import SearchSpace
from searches import arguments
from steady import believe

ROWS = """
input_channel: 3
input_size: 16
backbone:
  - [1, Conv, [32, 3, 2, null, 1, ReLU]]
  - [{n}, Conv, [32, 3, 1, null, 1, ReLU]]
  - [1, GlobalAvgPool, []]
  - [1, Flatten, []]
  - [1, Linear, [4]]
"""


def network(n: int = 2) -> Architecture:
    return SearchSpace.read(ROWS.replace("{n}", str(n))).default().architecture


@pytest.fixture(autouse=True, scope="module")
def steady() -> Iterator[None]:
    """A machine that is believed however busy the tests keep it, and short measurements."""
    with pytest.MonkeyPatch.context() as patch:
        believe(patch)
        patch.setattr(latency, "WARM_UP_SECONDS", 0.01)
        patch.setattr(latency, "ROUND_SECONDS", 0.001)
        yield


@pytest.fixture(scope="module")
def reading() -> Reading:
    names = ["latency_ms", "size_mb"]
    return Gauge(names, DeploySettings(format="onnx")).read(network(), patience=300)


def test_it_tells_latency_and_size_with_interval_and_device(reading: Reading) -> None:
    assert (
        reading.bytes == len(artefact(untrained(network()), "onnx").content) == round(1e6 * reading.values["size_mb"])
    )
    told = reading.latencies[HERE]
    assert 0 < told["low"] <= told["ms"] == reading.values["latency_ms"] <= told["high"]
    assert told["device"]["runtime"].startswith("onnxruntime")
    assert reading.seconds > 0
    assert reading.units is not None
    assert len(reading.units) == 6
    assert reading.units[1] > reading.units[4], "a convolution of 32 channels, and flattening"
    assert reading.fingerprints == Gauge(["latency_ms"], DeploySettings()).fingerprints()
    assert reading.fingerprints != Gauge(["latency_ms"], DeploySettings(threads=2)).fingerprints()


def test_a_reading_is_plain_data(reading: Reading) -> None:
    assert Reading.from_dict(json.loads(json.dumps(reading.to_dict()))) == reading


def test_an_untrained_network_is_always_the_same_and_nothing_in_it_vanishes() -> None:
    before = torch.random.get_rng_state()
    model = untrained(network(40))
    assert torch.equal(before, torch.random.get_rng_state())
    again = untrained(network(40))
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    assert not model.training
    assert {m.momentum for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {0.1}
    seen: list[float] = []
    for layer in model.layers:
        layer.register_forward_hook(lambda module, inputs, output: seen.append(float(output.detach().std())))
    model(torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(1)))
    assert len(seen) == 44
    assert min(seen[:-3]) > 0.1, "activations of forty layers keep their size"


def test_eight_bits_are_a_smaller_file() -> None:
    sizes = [
        Gauge(["size_mb"], DeploySettings(format="onnx", precision=precision)).read(network(4), patience=0).bytes
        for precision in ("fp32", "fp16", "int8")
    ]
    assert sizes[0] > 1.5 * sizes[1] > 1.5 * sizes[2]


def test_torch_runs_a_network_without_an_export(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archtuna.exports.deployed", None)
    gauge = Gauge(["latency_ms"], DeploySettings(runtime="torch"))
    reading = gauge.read(network(), patience=300)
    assert reading.values["latency_ms"] > 0
    assert reading.bytes is None
    assert reading.latencies[HERE]["device"]["runtime"].startswith("torch")


def test_a_device_that_nobody_named_is_one_error() -> None:
    with pytest.raises(LatencyError, match="pi4"):
        Gauge(["latency_ms@pi4"], DeploySettings()).read(network(), patience=0)


def test_energy_that_a_machine_does_not_tell_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archtuna.agent.energy_counters", lambda *_: nullcontext([]))
    with pytest.raises(
        LatencyError, match="this machine does not tell how much energy it takes\nhint: leave energy_mj out"
    ):
        Gauge(["energy_mj"], DeploySettings()).read(network(), patience=300)


# --- in a search -------------------------------------------------------------------------------------


@pytest.fixture
def pi4(monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[str]]:
    """A device by the name pi4: an agent on loopback."""
    secret = "a secret of many characters"
    process = subprocess.Popen(
        [sys.executable, agent.__file__, "serve", "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, agent.TOKEN: secret},
    )  # fmt: skip
    assert process.stdout is not None
    url = process.stdout.readline().split()[-1]
    monkeypatch.setenv("ARCHTUNA_DEVICES", json.dumps({"pi4": {"url": url}}))
    monkeypatch.setenv(agent.TOKEN, secret)
    yield process
    process.terminate()
    process.communicate(timeout=20)


@pytest.mark.slow
def test_a_search_measures_on_a_device_of_ones_own_and_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pi4: subprocess.Popen[str]
) -> None:
    monkeypatch.setenv("ARCHTUNA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ARCHTUNA_STORAGE", raising=False)
    monkeypatch.setattr(measuring, "PROBES", 3)
    given: dict[str, Any] = {"objectives": ["f1", "latency_ms", "latency_ms@pi4"], "trials": 1}
    study = search(**arguments(tmp_path, **given))
    for trial in study.trials():
        assert trial.reading is not None
        here, there = trial.reading["latencies"][HERE], trial.reading["latencies"]["pi4"]
        assert (trial.values["latency_ms"], trial.values["latency_ms@pi4"]) == (here["ms"], there["ms"])
        assert here["fingerprint"] == there["fingerprint"], "which is the same machine here"
    pi4.terminate()
    pi4.wait(20)
    monkeypatch.setenv("ARCHTUNA_DEVICES", "{}")
    with pytest.raises(LatencyError, match="pi4"):
        search(**arguments(tmp_path, **{**given, "trials": 2}))
