"""Which operators a network runs."""

from __future__ import annotations

from collections import Counter

import pytest
from torch import nn

import archtuna as at
from archtuna.costs import costs_of
from archtuna.errors import ShapeError
from archtuna.parts import parts_of, parts_of_units
from archtuna.registry import BLOCKS
from archtuna.space import SearchSpace
from archtuna.starter import spaces, starter

TEXT = """
input_size: 16
backbone:
  - [1, Conv, {channels: 8, kernel: 3, stride: 2, activation: ReLU}]
  - [2, InvertedResidualv3, {kernel: 5, expansion: 4, channels: 8, se: 1, activation: HardSwish, stride: 1}]
  - [1, GlobalAvgPool, []]
  - [1, Flatten, []]
  - [1, Linear, [3]]
"""


@pytest.fixture(scope="module")
def architecture() -> at.Architecture:
    return SearchSpace.read(TEXT).default().architecture


def test_the_operators_of_a_network_are_its_parts(architecture: at.Architecture) -> None:
    kinds = Counter(part.kind for part in parts_of(architecture))
    assert kinds["convolution kxk, few in"] == kinds["relu of convolution, few in"] == 1
    assert kinds["depthwise convolution kxk"] == kinds["hardsigmoid of convolution"] == 2
    assert kinds["hardswish"] == kinds["add"] == 2
    assert kinds["mean"] == 3
    assert kinds["addmm"] == 1
    assert not [kind for kind in kinds if "norm" in kind or "view" in kind or "flatten" in kind]


@pytest.mark.parametrize("name", [name for name in spaces() if name != "classic"])
def test_their_multiply_accumulates_and_weights_are_the_network_s(name: str) -> None:
    network = SearchSpace.read(starter(classes=10, space=name, input_size=64)).smallest().architecture
    parts, costs = parts_of(network), costs_of(network)
    assert sum(part.numbers[0] for part in parts) == costs["macs"]
    # Norms that are folded away have weights too.
    assert 0.6 * costs["params"] < sum(part.numbers[1] for part in parts) <= costs["size_mb"] * 1e6 / 4


def test_copies_of_a_block_have_equal_parts(architecture: at.Architecture) -> None:
    units = parts_of_units(architecture)
    assert len(units) == 6
    assert units[1] == units[2] != units[0]
    assert tuple(part for unit in units for part in unit) == parts_of(architecture)


def test_numbers_are_those_of_one_picture(architecture: at.Architecture) -> None:
    first = parts_of(architecture)[0]
    assert first.numbers == (8 * 8 * 8 * 27, 8 * 27, 3 * 16 * 16, 8 * 8 * 8)


def test_what_differs_only_in_its_groups_or_stride_is_another_part() -> None:
    def conv(**more: object) -> at.Architecture:
        values = ", ".join(f"{name}: {value}" for name, value in more.items())
        text = (
            f"input_size: 8\nbackbone:\n  - [1, nn.Conv2d, {{out_channels: 9, kernel_size: 3, padding: 1, {values}}}]\n"
        )
        return SearchSpace.read(f"{text}  - [1, GlobalAvgPool, []]\n  - [1, Flatten, []]\n").default().architecture

    found = [parts_of(conv(stride=s, groups=g))[0] for s, g in ((1, 1), (2, 1), (1, 3))]
    assert len({part.key for part in found}) == 3
    assert [part.kind for part in found[::2]] == [
        "convolution kxk, few in and odd out",
        "depthwise convolution kxk, few in and odd out",
    ]


def test_a_block_that_needs_values_is_one_part(monkeypatch: pytest.MonkeyPatch) -> None:
    class Looking(nn.Module):
        """Looks at its input."""

        def __init__(self, channels: int = 3):
            super().__init__()
            self.conv = nn.Conv2d(3, channels, 1)

        def forward(self, x):
            return self.conv(x) if x.sum().item() > -1e9 else x

    monkeypatch.setattr(BLOCKS, "_entries", dict(BLOCKS._entries))
    at.block(Looking)
    text = "input_size: 8\nbackbone:\n  - [1, Looking, []]\n  - [1, GlobalAvgPool, []]\n  - [1, Flatten, []]\n"
    parts = parts_of(SearchSpace.read(text).default().architecture)
    assert parts[0].kind == "Looking"
    assert parts[0].numbers == (3 * 3 * 64, 12, 192, 192)


def test_rows_that_do_not_fit_are_said(architecture: at.Architecture) -> None:
    convolution, flatten = architecture.rows[0], architecture.rows[-2]
    with pytest.raises(ShapeError, match="row 1 .*takes a map"):
        parts_of(at.Architecture((flatten, convolution), 3, (8, 8)))
