"""What distinct blocks take, gathered from profiles of networks."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

import archtuna as at
from archtuna.block_table import BlockTable, keys_of
from archtuna.errors import LatencyError
from archtuna.latency import Device
from archtuna.parts import parts_of
from archtuna.predictor import Predictor
from archtuna.profiles import Profile
from archtuna.space import SearchSpace

TEXT = """
input_size: 16
backbone:
  - [1, Conv, {channels: 8, kernel: 3, stride: 2, activation: ReLU}]
  - [2, InvertedResidualv3, {kernel: 3, expansion: 2, channels: 8, se: 0, activation: ReLU, stride: 1}]
  - [1, GlobalAvgPool, []]
  - [1, Flatten, []]
  - [1, Linear, [3]]
"""
HERE = Device("processor", "onnxruntime 1", "CPUExecutionProvider", 1, 1, "Linux")


def profile(*units: float) -> Profile:
    return Profile(units, 0.1, sum(units) + 0.1, sum(units) + 0.2, 10, HERE)


@pytest.fixture(scope="module")
def architecture() -> at.Architecture:
    return SearchSpace.read(TEXT).default().architecture


@pytest.fixture
def table(architecture: at.Architecture) -> BlockTable:
    table = BlockTable()
    table.add(architecture, profile(1.0, 2.0, 3.0, 0.1, 0.0, 0.2))
    return table


def test_equal_blocks_share_one_time(table: BlockTable, architecture: at.Architecture) -> None:
    keys = keys_of(architecture)
    assert keys[1] == keys[2]
    assert len(table.times) == len(set(keys)) == 5
    assert (table.times[keys[1]].ms, table.times[keys[1]].n) == (2.5, 2)
    table.add(architecture, profile(4.0, 2.5, 2.5, 0.1, 0.0, 0.2))
    assert (table.times[keys[0]].ms, table.times[keys[0]].n) == (2.5, 2)


def test_it_is_plain_data_and_comes_back(table: BlockTable) -> None:
    again = BlockTable.from_dict(json.loads(json.dumps(table.to_dict())))
    assert again == table
    assert again.measured() == table.measured()
    assert BlockTable.from_dict(BlockTable().to_dict()) == BlockTable()


def test_a_predictor_learns_from_it(table: BlockTable, architecture: at.Architecture) -> None:
    other = (
        SearchSpace.read(TEXT.replace("channels: 8", "channels: 16").replace("[2, I", "[1, I")).default().architecture
    )
    networks = [parts_of(architecture), parts_of(other), parts_of(other)[:-1]]
    fitted = Predictor.fit(networks, [6.4, 3.0, 2.9], parts=table.measured())
    mean, deviation = fitted.predict(networks[:1])
    assert mean[0] == pytest.approx(6.4, rel=0.3)
    assert deviation[0] > 0


def test_what_does_not_take_time_is_no_observation(table: BlockTable) -> None:
    assert len(table.measured()) == len(table.times) - 1


def test_times_of_another_device_are_refused(table: BlockTable, architecture: at.Architecture) -> None:
    there = replace(profile(1, 1, 1, 1, 1, 1), device=replace(HERE, threads=2))
    with pytest.raises(
        LatencyError,
        match=f"times of device {there.device.fingerprint} do not belong among those of {HERE.fingerprint}",
    ):
        table.add(architecture, there)


def test_what_is_no_table_is_one_error() -> None:
    with pytest.raises(LatencyError, match=r"this is no table of blocks \(KeyError: 'format'\)"):
        BlockTable.from_dict({})
    with pytest.raises(
        LatencyError, match="is of format 9, this archtuna reads up to 1\nhint: pip install --upgrade archtuna"
    ):
        BlockTable.from_dict({"format": 9})
    with pytest.raises(LatencyError, match="this is no table of blocks"):
        BlockTable.from_dict({"format": 1, "fingerprint": None, "times": {"a": {"ms": "x", "n": 1, "parts": []}}})
