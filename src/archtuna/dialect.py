"""The classic dialect's quirks: what a positional list, a repeat and a multiple mean. Nothing behind the reader knows them.

Named arguments have no quirks of value (``padding: 0`` is no padding, widths are as written unless a multiple is set);
what n copies in one row are is a property of the block and the same in both forms.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

from archtuna.architecture import Row
from archtuna.blocks.inverted_residual import make_divisible
from archtuna.registry import Block

_AUTO_PADDED = ("Conv", "DWConv", "FixedConv")


def from_position(block: Block, name: str, value: Any) -> Any:
    """Return what a value in a positional list means as a named argument."""
    if name == "padding" and block.name in _AUTO_PADDED and value == 0:
        return None
    if name == "activation" and block.name == "InvertedResidualv3" and value in (0, 1):
        return "Hardswish" if value else "ReLU"
    return value


def scaled_depth(repeat: int, multiple: float) -> int:
    """Return the copies of a row under ``depth_multiple``: one stays one, more are rounded half to even."""
    return max(round(repeat * multiple), 1) if repeat > 1 else repeat


def scaled_width(channels: int, multiple: float, *, positional: bool) -> int:
    """Return output channels under ``width_multiple``; positional ones are rounded at a multiple of one too."""
    return make_divisible(channels * multiple) if positional or multiple != 1 else channels


def rows_of(block: Block, arguments: dict[str, Any], repeat: int, in_channels: int) -> list[Row]:
    """Return the rows that ``repeat`` copies of a block are, each of equal copies that say what they are by themselves."""
    copies = _copies(block, arguments, repeat, in_channels)
    rows: list[Row] = []
    for same, run in groupby(copies):
        count = len(list(run))
        alike = _copies(block, same, count, in_channels) == [same] * count
        rows += [Row(block.name, same, count)] if alike else [Row(block.name, same)] * count
    return rows


def _copies(block: Block, arguments: dict[str, Any], repeat: int, in_channels: int) -> list[dict[str, Any]]:
    if block.repeat == "once":
        return [arguments]
    if block.repeat == "stride first":
        return [arguments] + [{**arguments, "stride": 1}] * (repeat - 1)
    if block.repeat == "stride last":
        return [{**arguments, "stride": 1}] * (repeat - 1) + [arguments]
    if block.repeat == "widen last":
        return [{**arguments, "channels": in_channels}] * (repeat - 1) + [arguments]
    return [arguments] * repeat
