"""Pooling: local and global."""

from __future__ import annotations

from typing import Any

from torch import nn

from archtuna.registry import block
from archtuna.signature import Count, Padding, Side


def stride_of_kernel(arguments: dict[str, Any]) -> dict[str, Any]:
    """Write the stride of a pool that names none: its kernel."""
    if arguments["stride"] is None:
        arguments["stride"] = arguments["kernel"]
    return arguments


@block(repeat="each", canonical=stride_of_kernel)
class MaxPool(nn.MaxPool2d):
    """Largest value of each window; the stride is the kernel where none is given."""

    def __init__(
        self,
        kernel: Side,
        stride: Side | None = None,
        padding: Padding = 0,
        dilation: Count = 1,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(kernel, stride, padding, dilation, ceil_mode=ceil_mode)


@block(
    repeat="each",
    canonical=stride_of_kernel,
    explain={"count_include_pad": "whether the zeros of the padding count in the mean"},
)
class AvgPool(nn.AvgPool2d):
    """Mean of each window; the stride is the kernel where none is given."""

    def __init__(
        self,
        kernel: Side,
        stride: Side | None = None,
        padding: Padding = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(kernel, stride, padding, ceil_mode, count_include_pad)


@block(repeat="once")
class GlobalAvgPool(nn.AdaptiveAvgPool2d):
    """Mean over the whole map, or over a grid of ``output_size`` cells a side."""

    def __init__(self, output_size: Count = 1) -> None:
        super().__init__(output_size)


@block(repeat="once", unexportable=("executorch",))  # Its operator is not among those that every backend has.
class GlobalMaxPool(nn.AdaptiveMaxPool2d):
    """Largest value of the whole map, or of each of a grid of ``output_size`` cells a side."""

    def __init__(self, output_size: Count = 1) -> None:
        super().__init__(output_size)
