"""What each block of an exported network takes."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import archtuna as at
from archtuna import profiles, report
from archtuna.checkpoint import save
from archtuna.cli import main
from archtuna.data import Preprocess
from archtuna.errors import LatencyError, MissingExtraError
from archtuna.latency import exported, reference_model
from archtuna.model import build
from archtuna.profiles import Profile, profile
from archtuna.recipe import Recipe
from archtuna.space import SearchSpace

TEXT = """
input_size: 32
backbone:
  - [1, Conv, {channels: 16, kernel: 3, stride: 1, activation: HardSwish}]
  - [2, InvertedResidualv3, {kernel: 3, expansion: 2, channels: 16, se: 1, activation: HardSwish, stride: 1}]
  - [1, Conv, {channels: 160, kernel: 5, stride: 1, activation: ReLU}]
  - [1, nn.Conv2d, {out_channels: 8, kernel_size: 1}]
  - [1, nn.ReLU, []]
  - [1, GlobalAvgPool, []]
  - [1, Flatten, []]
  - [1, Linear, [3]]
"""


@pytest.fixture(scope="module")
def network() -> tuple[bytes, at.Architecture]:
    architecture = SearchSpace.read(TEXT).default().architecture
    return exported(build(architecture).eval(), ".onnx"), architecture


@pytest.fixture(autouse=True)
def own_machine(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def found(network: tuple[bytes, at.Architecture]) -> Profile:
    return profile(*network, runs=20)


def test_the_milliseconds_of_blocks_add_up_to_those_of_the_network(
    found: Profile, network: tuple[bytes, at.Architecture]
) -> None:
    assert len(found.units) == 9
    assert sum(found.units) + found.rest == pytest.approx(found.ms)
    assert found.rest > -1e-9
    assert found.ms > 0
    rows = found.rows(network[1])
    assert len(rows) == 8
    assert rows[1] == found.units[1] + found.units[2]
    assert sum(rows) == pytest.approx(sum(found.units))


def test_the_block_that_multiplies_most_takes_longest(found: Profile) -> None:
    assert found.units[3] == max(found.units)
    assert found.units[3] > 0.5 * sum(found.units)


@pytest.fixture
def owners(network: tuple[bytes, at.Architecture], tmp_path) -> dict[str, int | None]:
    watched = profiles._Watched(network[0], tmp_path, 1, 1, "CPUExecutionProvider")
    watched.timed(3)
    events = watched.events()
    assert {len(times) for times in events.values()} == {3}
    found = profiles._owners(watched.graph(), profiles._Source(network[0]), list(events))
    assert found.keys() == events.keys()
    return found


def test_every_node_is_its_block_s(owners: dict[str, int | None]) -> None:
    assert set(owners.values()) - {None} == set(range(9)) - {5}, "an activation that is fused has no node"
    assert sum(owner is None for owner in owners.values()) <= 1


def test_a_fused_activation_is_the_convolution_s_and_a_map_that_is_laid_out_anew_its_block_s(
    owners: dict[str, int | None],
) -> None:
    assert [name.partition("_token")[0] for name, owner in owners.items() if owner == 6] == [
        "mean_2_nchwc",
        "ReorderOutput",
    ]
    assert [name for name, owner in owners.items() if owner == 4] != []


def test_a_larger_batch_takes_longer_and_is_another_device(
    network: tuple[bytes, at.Architecture], found: Profile
) -> None:
    many = profile(*network, batch=8, runs=10)
    assert many.ms > 2 * found.ms
    assert many.device.fingerprint != found.device.fingerprint


def test_nothing_is_left_behind(network: tuple[bytes, at.Architecture], tmp_path) -> None:
    profile(*network, runs=2)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir() and list(path.glob("*.json"))] == []


def test_it_is_plain_data(found: Profile) -> None:
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["units"] == list(found.units)
    assert plain["fingerprint"] == found.device.fingerprint


def test_the_table_has_what_a_row_takes_beside_what_it_costs(
    found: Profile, network: tuple[bytes, at.Architecture]
) -> None:
    head, *rows, rest, total, device = report.profile_lines(network[1], found)
    assert head.split() == ["idx", "n", "module", "arguments", "out", "params", "macs", "ms", "share"]
    assert len(rows) == 8
    assert rows[1].split()[:3] == ["1", "2", "InvertedResidualv3"]
    assert rows[1].split()[-2] == f"{found.rows(network[1])[1]:.3f}"
    assert f"{found.rest:.3f}" in rest
    assert total.startswith(
        f"{found.ms:.3f} ms for a batch of 1, {found.profiled_ms:.3f} ms while it was profiled, 20 runs"
    )
    assert found.device.fingerprint in device


def test_the_command_line_says_it(
    tmp_path, capsys: pytest.CaptureFixture[str], network: tuple[bytes, at.Architecture]
) -> None:
    model, path = build(network[1]).eval(), tmp_path / "model.safetensors"
    preprocess = Preprocess((32, 32), 3, "resize", None, (0.5,) * 3, (0.25,) * 3)
    metrics = {"loss": 1.0, "accuracy": 0.5, "f1": 0.5}
    save(path, model, classes="abc", preprocess=preprocess, metrics=metrics, recipe=Recipe(), data={}, epoch=1)
    assert main(["profile", str(path), "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert sum(row["ms"] for row in plain["rows"]) + plain["rest"] == pytest.approx(plain["ms"])
    assert plain["rows"][1]["n"] == 2
    assert plain["device"]["threads"] == 1
    assert main(["profile", str(path), "--runtime", "torch"]) == 1
    assert "'torch' does not tell what each row takes\nhint: onnxruntime does" in capsys.readouterr().err


def test_times_that_are_more_than_the_run_are_scaled_to_it(
    network: tuple[bytes, at.Architecture], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiles._Watched, "timed", lambda self, runs: ([1e-3] * runs, [1e-3] * runs))
    monkeypatch.setattr(profiles._Watched, "events", lambda self: {"node_addmm": [5.0], "getitem_nchwc": [3.0, 3.0]})
    monkeypatch.setattr(profiles, "_owners", lambda graph, source, events: {"getitem_nchwc": 3, "node_addmm": None})
    monkeypatch.setattr(profiles._Watched, "graph", lambda self: None)
    short = profile(*network, runs=2)
    assert short.units[3] == pytest.approx(1e-3 * 3 / 8)
    assert short.rest == pytest.approx(1e-3 * 5 / 8)


def test_names_of_every_exporter_say_the_block() -> None:
    def node(name: str, scopes: str = "") -> SimpleNamespace:
        entries = [SimpleNamespace(key="pkg.torch.onnx.name_scopes", value=scopes)] if scopes else []
        return SimpleNamespace(name=name, metadata_props=entries)

    assert profiles._unit_of(node("node_Conv_3", "['', 'layers', 'layers.12', 'layers.12.layers.0']")) == 12
    assert profiles._unit_of(node("/layers/layers.7/layers.7.0/Conv")) == 7
    assert profiles._unit_of(node("node_Reshape_9", "['', 'flatten']")) is None
    assert profiles._unit_of(node("sublayers.5")) is None


def test_what_cannot_be_profiled_is_one_error(
    network: tuple[bytes, at.Architecture], monkeypatch: pytest.MonkeyPatch
) -> None:
    content, architecture = network
    with pytest.raises(LatencyError, match="does not run in ONNX Runtime"):
        profile(b"no model", architecture)
    with pytest.raises(LatencyError, match="'NoneProvider'"):
        profile(content, architecture, provider="NoneProvider")
    with pytest.raises(
        LatencyError, match="has nodes of 0 blocks, and the architecture has 9\nhint: profile a file that"
    ):
        profile(reference_model(), architecture)
    with pytest.raises(LatencyError, match="has nodes of 9 blocks, and the architecture has 2"):
        profile(content, replace(architecture, rows=architecture.rows[:1] * 2))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"archtuna\[onnx\]"):
        profile(content, architecture)


def test_the_lower_quarter_is_what_a_busy_machine_leaves() -> None:
    assert profiles._low([1.0, 1.0, 1.1, 9.0, 30.0]) == 1.0
    assert isinstance(profiles._low(np.ones(3)), float)
