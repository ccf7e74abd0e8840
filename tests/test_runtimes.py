"""What runs a network to be measured."""

from __future__ import annotations

import os
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import nn

from archtuna import agent
from archtuna import latency as module
from archtuna.errors import LatencyError, MissingExtraError
from archtuna.latency import device, measure, measure_model
from archtuna.model import build
from archtuna.runtimes import RUNTIMES, reference_network, runtime_of
from archtuna.space import SearchSpace
from archtuna.targets import Target
from steady import believe
from test_latency import LARGE, SMALL


@pytest.fixture(autouse=True)
def steady(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    believe(monkeypatch)
    monkeypatch.setattr(module, "WARM_UP_SECONDS", 0.02)
    monkeypatch.setattr(module, "ROUND_SECONDS", 0.002)


def network(text: str = SMALL) -> nn.Module:
    return build(SearchSpace.read(text).default().architecture)


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime"])
def test_a_larger_network_takes_longer_in_every_runtime(runtime: str) -> None:
    small, large = (measure_model(network(text), runtime=runtime, rounds=5) for text in (SMALL, LARGE))
    assert large.ms > 5 * small.ms
    assert small.device == large.device == device(runtime=runtime)
    assert small.device.runtime.startswith(f"{runtime} ")


@pytest.mark.slow
def test_a_compiled_network_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WARM_UP_SECONDS", 0.0)
    found = measure_model(network(), runtime="torch-compile", rounds=3)
    assert found.device == device(runtime="torch-compile")
    assert found.device.runtime == f"torch-compile {torch.__version__}"
    assert found.ms > 0


@pytest.mark.slow
@pytest.mark.skipif(find_spec("executorch") is None, reason="ExecuTorch is not installed")
def test_an_executorch_program_is_measured() -> None:
    found = measure_model(network(), runtime="executorch", rounds=3)
    assert found.device.runtime.startswith("executorch ")
    assert found.ms > 0
    with pytest.raises(LatencyError, match=r"takes one picture at a time\nhint: measure it with a batch of 1"):
        measure_model(network(), runtime="executorch", batch=2)
    with pytest.raises(LatencyError, match="the model does not run in ExecuTorch"):
        measure(b"garbage", runtime="executorch")


def test_the_network_and_the_threads_are_as_they_were() -> None:
    model, before = network().train(), torch.get_num_threads()
    parameters = {name: value.clone() for name, value in model.state_dict().items()}
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    assert measure_model(model, runtime="torch", threads=2, rounds=2).device.threads == 2
    assert model.training
    assert all(torch.equal(value, parameters[name]) for name, value in model.state_dict().items())
    assert torch.get_num_threads() == before
    assert cores is None or os.sched_getaffinity(0) == cores


def test_the_reference_is_always_the_same() -> None:
    first, again = (reference_network().state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_every_runtime_is_its_own_device() -> None:
    known = [name for name in RUNTIMES if name != "executorch" or find_spec("executorch")]
    assert len({device(runtime=name).fingerprint for name in known}) == len(known)


def test_what_cannot_be_measured_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LatencyError, match=r"unknown runtime 'torch-compiled'\nhint: did you mean 'torch-compile'"):
        measure(b"", runtime="torch-compiled")
    with pytest.raises(
        LatencyError, match=r"unknown runtime 'x'\nhint: known: onnxruntime, torch, torch-compile, executorch"
    ):
        runtime_of("x")
    with pytest.raises(LatencyError, match=r"torch runs no files\nhint: measure_model takes a network"):
        measure(b"", runtime="torch")
    with pytest.raises(LatencyError, match=r"torch has no 'tpu' here\nhint: it has cpu, and cuda"):
        measure_model(network(), runtime="torch", provider="tpu")
    with pytest.raises(LatencyError, match="pi4 measures with ONNX Runtime alone, not with torch"):
        measure_model(network(), runtime="torch", on=Target("pi4", "http://pi4:8765"))

    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError("a mistake")

    with pytest.raises(LatencyError, match="the network does not run in torch: a mistake"):
        measure_model(Broken(), runtime="torch")


def test_a_provider_that_a_runtime_has_not_is_one_error_at_once() -> None:
    if not torch.cuda.is_available():
        with pytest.raises(LatencyError, match="torch has no 'cuda' here"):
            device(runtime="torch", provider="cuda")
    with pytest.raises(LatencyError, match="ExecuTorch has no 'Vulkan' here\nhint: it has xnnpack"):
        device(runtime="executorch", provider="Vulkan")


@pytest.mark.skipif(find_spec("executorch") is not None, reason="ExecuTorch is installed")
def test_a_runtime_that_is_not_installed_says_the_command() -> None:
    with pytest.raises(
        MissingExtraError, match=r"executorch is not installed\nhint: pip install 'archtuna\[executorch\]'"
    ):
        measure(b"", runtime="executorch")
    with pytest.raises(MissingExtraError, match="executorch is not installed"):
        device(runtime="executorch")


def test_energy_is_of_the_machine_where_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert measure_model(network(), runtime="torch", rounds=2).joules is None
    monkeypatch.setattr(
        agent, "energy_counters", lambda *_: nullcontext([(iter(range(0, 10**9, 10**6)).__next__, 1e-6, 1 << 40)])
    )
    monkeypatch.setattr(agent, "ENERGY_SECONDS", 0.0)
    assert measure_model(network(), runtime="torch", rounds=2).joules == pytest.approx(1 / 3)
