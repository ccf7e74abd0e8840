"""Blocks of the YOLO family that classifiers use too: cross-stage partial stages, pyramid pooling, Focus."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from archtuna.blocks.convolution import Bottleneck, ConvNormAct, activation_of, fold_joined, narrowed, same_padding
from archtuna.errors import Misfit
from archtuna.registry import block
from archtuna.signature import RELU, Activation, Count, Index, Padding, Positive, Side

CSP = "Wang et al. 2020, arXiv:1911.11929"


@block(repeat="stride last", scaled=True, canonical=same_padding)
class Focus(nn.Module):
    """Folds each 2x2 pixels into channels, four times as many, and applies a Conv."""

    def __init__(
        self,
        in_channels: int,
        channels: Count,
        kernel: Side,
        stride: Side = 1,
        padding: Padding | None = None,
        groups: Count = 1,
        activation: Activation | None = RELU,
    ) -> None:
        super().__init__()
        self.conv = ConvNormAct(4 * in_channels, channels, kernel, stride, padding, groups, activation)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] % 2 or x.shape[-2] % 2:
            raise Misfit("folds pixels in pairs", "an even input_size")
        corners = [x[..., i::2, j::2] for j in range(2) for i in range(2)]
        return self.conv(torch.cat(corners, 1))


MOST = 256
"""Bottlenecks in a stage, so that a slip of the pen does not take minutes to build."""


class _CrossStage(nn.Module):
    """Half of the hidden channels go through bottlenecks, the others past them."""

    def __init__(
        self, channels: int, repeats: int, shortcut: bool, groups: int, expansion: float, activation: str | None
    ) -> None:
        super().__init__()
        if repeats > MOST:
            raise ValueError(f"holds at most {MOST} bottlenecks, not {repeats:,}")
        self.hidden = narrowed(channels, expansion)
        self.bottlenecks = nn.Sequential(
            *(
                Bottleneck(self.hidden, self.hidden, shortcut, groups, 1.0, activation, activation)  # type: ignore[arg-type]
                for _ in range(repeats)
            )
        )


_EXPLAIN = {
    "shortcut": "whether bottlenecks add their input",
    "groups": "of their 3x3 convolution",
    "expansion": "hidden channels as a share of the output's",
    "repeats": "bottlenecks; the row's repeat multiplies them",
}


@block(repeat="inside", scaled=True, paper=CSP, explain=_EXPLAIN)
class BottleneckCSP(_CrossStage):
    """Cross-stage partial stage: bottlenecks on one path, a 1x1 convolution on the other, joined, normalised and projected."""

    def __init__(
        self,
        in_channels: int,
        channels: Count,
        shortcut: bool = True,
        groups: Count = 1,
        expansion: Positive = 0.5,
        activation: Activation | None = RELU,
        repeats: Index = 1,
    ) -> None:
        super().__init__(channels, repeats, shortcut, groups, expansion, activation)
        self.enter = ConvNormAct(in_channels, self.hidden, 1, activation=activation)
        self.leave = nn.Conv2d(self.hidden, self.hidden, 1, bias=False)
        self.past = nn.Conv2d(in_channels, self.hidden, 1, bias=False)
        self.norm = nn.BatchNorm2d(2 * self.hidden)
        self.activation = activation_of(activation)
        self.project = ConvNormAct(2 * self.hidden, channels, 1, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat((self.leave(self.bottlenecks(self.enter(x))), self.past(x)), 1)
        return self.project(self.activation(self.norm(y)))

    def for_inference(self) -> nn.Module:
        """Return this block with its norm folded into the two convolutions whose outputs are joined before it."""
        merged = copy.deepcopy(self)
        merged.leave, merged.past = fold_joined(self.norm, [self.leave, self.past])
        merged.norm = nn.Identity()  # type: ignore[assignment]
        return merged


@block(repeat="inside", scaled=True, paper=CSP, explain=_EXPLAIN)
class C3(_CrossStage):
    """Cross-stage partial stage with three 1x1 convolutions, each with norm and activation."""

    def __init__(
        self,
        in_channels: int,
        channels: Count,
        shortcut: bool = True,
        groups: Count = 1,
        expansion: Positive = 0.5,
        activation: Activation | None = RELU,
        repeats: Index = 1,
    ) -> None:
        super().__init__(channels, repeats, shortcut, groups, expansion, activation)
        self.enter = ConvNormAct(in_channels, self.hidden, 1, activation=activation)
        self.past = ConvNormAct(in_channels, self.hidden, 1, activation=activation)
        self.project = ConvNormAct(2 * self.hidden, channels, 1, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(torch.cat((self.bottlenecks(self.enter(x)), self.past(x)), 1))


def _half(in_channels: int) -> int:
    if in_channels < 2:
        raise ValueError("one input channel leaves no hidden channel")
    return in_channels // 2


@block(repeat="each", scaled=True, paper="He et al. 2015, arXiv:1406.4729", explain={"kernels": "sides of the windows"})
class SPP(nn.Module):
    """Spatial pyramid pooling: a map and its maxima over windows of several sizes, joined between two 1x1 convolutions."""

    def __init__(
        self,
        in_channels: int,
        channels: Count,
        kernels: tuple[Count, ...] = (5, 9, 13),
        activation: Activation | None = RELU,
    ) -> None:
        super().__init__()
        hidden = _half(in_channels)
        self.narrow = ConvNormAct(in_channels, hidden, 1, activation=activation)
        self.pools = nn.ModuleList(nn.MaxPool2d(kernel, 1, kernel // 2) for kernel in kernels)
        self.project = ConvNormAct(hidden * (len(kernels) + 1), channels, 1, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        x = self.narrow(x)
        return self.project(torch.cat([x, *(pool(x) for pool in self.pools)], 1))


@block(
    repeat="each", scaled=True, paper="Jocher 2020 (YOLOv5)",
    explain={"activation": "of the first convolution; the second has ReLU"},
)  # fmt: skip
class SPPF(nn.Module):
    """Spatial pyramid pooling by one window that is applied three times in a row."""

    def __init__(
        self, in_channels: int, channels: Count, kernel: Count = 5, activation: Activation | None = RELU
    ) -> None:
        super().__init__()
        hidden = _half(in_channels)
        self.narrow = ConvNormAct(in_channels, hidden, 1, activation=activation)
        self.pool = nn.MaxPool2d(kernel, 1, kernel // 2)
        self.project = ConvNormAct(4 * hidden, channels, 1, activation="ReLU")

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.narrow(x)]
        for _ in range(3):
            maps.append(self.pool(maps[-1]))
        return self.project(torch.cat(maps, 1))
