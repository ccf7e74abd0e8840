"""The quirks of the two dialects in the wild: what a positional list, a width, a repeat and a name of theirs mean.

Nothing behind the reader knows them. ``CLASSIC`` also reads our own form, which is a row of it with named arguments: those
have no quirks of value (``padding: 0`` is no padding, widths are as written unless a multiple is set). What n copies in one
row are is a property of the block and the same in every form.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from archtuna.architecture import Row
from archtuna.blocks.inverted_residual import make_divisible
from archtuna.registry import Block, RepeatRule
from archtuna.signature import Parameter

_AUTO_PADDED = ("Conv", "DWConv", "FixedConv", "Focus", "CR", "FixedCR", "ConvResidual")
_FLAGGED = ("InvertedResidualv3", "ECAInvertedResidualv3")


class Dialect:
    """How a row's arguments are read; this one is the classic dialect and our own form."""

    name = "classic"

    def order(self, block: Block, given: Sequence[Any] = ()) -> tuple[Parameter | None, ...]:
        """Return what the elements of a positional list are; None stands for one that says nothing here.

        ``given`` is the list: some forks write a pool as [kernel, stride, ceil_mode], which the truth value gives away, and
        a shuffle unit as [stride] or with a kernel and an expansion in front that their code passes over.
        """
        names = _TORCH_ORDER.get(block.name)
        if block.name in _TORCH_ORDER and len(given) == 3 and isinstance(given[2], bool):
            names = ("kernel", "stride", "ceil_mode")
        if block.name == "ShuffleNetV2" and len(given) == 1 and given[0] in (1, 2):
            names = ("stride",)
        if block.name == "ShuffleNetV2" and len(given) == 4:
            names = (None, None, "channels", "stride")
        return _named(block, names)

    def parameter(self, block: Block, name: str) -> Parameter | None:
        """Return the argument that a name in a mapping means."""
        return block.parameter(name)

    def value(self, block: Block, name: str, value: Any, *, positional: bool) -> Any:
        """Return what a value means as a named argument of our own form."""
        if not positional:
            return value
        if name == "padding" and block.name in _AUTO_PADDED and value == 0:
            return None
        if name == "activation" and block.name in _FLAGGED and value in (0, 1):
            return "Hardswish" if value else "ReLU"
        return value

    def width(self, channels: int, multiple: float, *, positional: bool) -> int:
        """Return output channels under ``width_multiple``; positional ones are rounded at a multiple of one too."""
        return make_divisible(channels * multiple) if positional or multiple != 1 else channels

    def implied(self, block: Block, slots: Mapping[str, Any]) -> dict[str, Any]:
        """Return the slots that given ones imply; each with whether it stands in a list."""
        return {}


CLASSIC = Dialect()

ALIASES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "InvertedResidual": ("ShuffleNetV2", {}),
    "ShuffleInvertedResidual": ("ShuffleNetV2", {"stride": 2}),
}
"""Names that forks of the classic dialect gave to blocks of ours, and the arguments that they imply."""


@dataclass(frozen=True)
class Kindle(Dialect):
    """The kindle dialect; its channels are rounded up to multiples of ``divisor``."""

    divisor: int = 8
    name = "kindle"

    def order(self, block: Block, given: Sequence[Any] = ()) -> tuple[Parameter | None, ...]:
        return _named(block, (_TORCH_ORDER | _KINDLE_ORDER).get(block.name))

    def parameter(self, block: Block, name: str) -> Parameter | None:
        spellings = (name, *KINDLE_NAMES.get(name, ()))
        return next((found for found in map(block.parameter, spellings) if found), None)

    def value(self, block: Block, name: str, value: Any, *, positional: bool) -> Any:
        if name == "patch" and isinstance(value, tuple):
            return value[::-1]  # It writes a patch as [width, height].
        return None if name == "padding" and block.name in _AUTO_PADDED and value == 0 else value

    def width(self, channels: int, multiple: float, *, positional: bool) -> int:
        return math.ceil(channels * multiple / self.divisor) * self.divisor

    def implied(self, block: Block, slots: Mapping[str, Any]) -> dict[str, Any]:
        # Its Bottleneck has the activation on both convolutions.
        both = block.name == "Bottleneck" and "activation" in slots
        return {"widen_activation": slots["activation"]} if both else {}


def _named(block: Block, names: tuple[str | None, ...] | None) -> tuple[Parameter | None, ...]:
    return block.parameters if names is None else tuple(block.parameter(name) if name else None for name in names)


# Positional lists that differ from the order of our arguments. torch's pools have return_indices before ceil_mode.
_TORCH_ORDER: dict[str, tuple[str | None, ...]] = {
    "MaxPool": ("kernel", "stride", "padding", "dilation", None, "ceil_mode"),
    "AvgPool": ("kernel", "stride", "padding", "ceil_mode", "count_include_pad"),
}
_KINDLE_ORDER: dict[str, tuple[str | None, ...]] = {
    "UpSample": ("size", "scale", "mode", "align_corners"),
    "Bottleneck": ("channels", "shortcut", "groups", "expansion", "activation"),
    # The second place is that of the bottlenecks' number, which the row's repeat overwrites.
    "BottleneckCSP": ("channels", None, "shortcut", "groups", "expansion", "activation"),
    "C3": ("channels", None, "shortcut", "groups", "expansion", "activation"),
}
KINDLE_NAMES: Mapping[str, tuple[str, ...]] = {
    "out_channels": ("channels", "features"), "kernel_size": ("kernel",), "kernel_sizes": ("kernels",),
    "expand_ratio": ("expansion",), "scale_factor": ("scale",), "dimension": ("dim",), "patch_size": ("patch",),
    "n_repeat": ("repeats",), "model_name": ("model",), "feature_idx": ("index",),
}  # fmt: skip


def scaled_depth(repeat: int, multiple: float) -> int:
    """Return the copies of a row under ``depth_multiple``: one stays one, more are rounded half to even."""
    return max(round(repeat * multiple), 1) if repeat > 1 else repeat


def rows_of(block: Block, arguments: dict[str, Any], repeat: int, in_channels: Any) -> list[Row]:
    """Return the rows that ``repeat`` copies of a block are, each of equal copies that say what they are by themselves."""
    rows: list[Row] = []
    for same, count in _runs(block.repeat, arguments, repeat, in_channels):
        alike = count == 1 or _runs(block.repeat, same, count, in_channels) == [(same, count)]
        complete = block.complete(dict(same))
        rows += [Row(block.name, complete, count)] if alike else [Row(block.name, complete)] * count
    return rows


Run = tuple[dict[str, Any], int]


def _runs(rule: RepeatRule, arguments: dict[str, Any], repeat: int, in_channels: Any) -> list[Run]:
    """Return the copies of a row as runs of equal ones: their arguments, and how many."""
    if rule == "once":
        return [(arguments, 1)]
    if rule == "inside":
        return [({**arguments, "repeats": arguments["repeats"] * repeat}, 1)]
    change = {"channels": in_channels} if rule == "widen last" else {"stride": 1} if "stride" in rule else {}
    others = {**arguments, **change}
    if repeat == 1 or others == arguments:
        return [(arguments, repeat)]
    runs = [(others, repeat - 1), (arguments, 1)]
    return runs[::-1] if rule == "stride first" else runs
