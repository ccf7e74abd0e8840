"""Blocks that take the outputs of two or more rows, and one that enlarges a map so that it meets another."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import Literal

import torch
from torch import Tensor, nn

from archtuna.errors import Misfit
from archtuna.registry import block
from archtuna.signature import Plain, Positive


@block(repeat="once")
class Add(nn.Module):
    """Adds the outputs of two or more rows of one shape; a map of one pixel is added to every pixel."""

    def forward(self, *inputs: Tensor) -> Tensor:
        largest = max((list(x.shape[1:]) for x in inputs), key=lambda shape: (len(shape), *shape[1:]))
        if not all(_meets(list(x.shape[1:]), largest) for x in inputs):
            raise Misfit(
                "its inputs do not meet", "give them one shape: a 1x1 Conv changes channels, a stride the map's size"
            )
        return reduce(add, inputs)


def _meets(shape: list[int], largest: list[int]) -> bool:
    """Whether a tensor can be added to the largest: it has its shape, or one pixel for each of its channels."""
    pixel = len(shape) == len(largest) and shape[0] == largest[0] and all(n == 1 for n in shape[1:])
    return pixel or shape == largest


@block(repeat="once", explain={"dim": "axis along which they are joined: 1 is that of channels"})
class Concat(nn.Module):
    """Joins the outputs of two or more rows, channels by default."""

    def __init__(self, dim: int = 1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, *inputs: Tensor) -> Tensor:
        axes = inputs[0].dim()
        if not -axes <= self.dim < axes or self.dim % axes == 0:
            raise Misfit(f"has no axis {self.dim} to join", "dim: 1 joins channels; 0 is the batch")
        # Lists are compared, not sets: the size of an axis may be a symbol while a network is exported.
        rests = [[n for i, n in enumerate(x.shape) if i not in (0, self.dim % axes)] for x in inputs]
        if any(x.dim() != axes for x in inputs) or any(rest != rests[0] for rest in rests):
            raise Misfit("its inputs do not meet", "all but the joined axis must agree: UpSample changes a map's size")
        return torch.cat(inputs, self.dim)


@block(
    repeat="once",
    explain={
        "size": "side in pixels, or [height, width], in place of the scale",
        "scale": "by how much each side grows",
        "mode": "how pixels between pixels are made",
        "align_corners": "whether corners stay where they are, for bilinear and bicubic",
    },
)
class UpSample(nn.Upsample):
    """Enlarges a map to a size or by a factor."""

    def __init__(
        self,
        size: Plain | None = None,
        scale: Positive | None = 2.0,
        mode: Literal["nearest", "nearest-exact", "bilinear", "bicubic"] = "nearest",
        align_corners: bool | None = None,
    ) -> None:
        super().__init__(size, None if size is not None else scale, mode, align_corners)  # type: ignore[arg-type]


__all__ = ["Add", "Concat", "UpSample"]
