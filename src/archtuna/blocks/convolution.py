"""Plain convolutions, depthwise convolutions, bottlenecks and Fire modules."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from archtuna.registry import block
from archtuna.signature import RELU, Activation, Count, Index, Positive


def activation_of(name: str | None) -> nn.Module:
    """Return a new activation by its ``torch.nn`` class name, identity for None."""
    if name is None:
        return nn.Identity()
    if name in ("Softmax", "LogSoftmax"):
        return getattr(nn, name)(dim=1)
    return getattr(nn, name)()


class ConvNormAct(nn.Sequential):
    """A convolution without bias, batch norm (eps 1e-5, momentum 0.1) and an activation."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: int,
        stride: int = 1,
        padding: int | None = None,
        groups: int = 1,
        activation: str | None = None,
    ) -> None:
        padding = kernel // 2 if padding is None else padding
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, channels, kernel, stride, padding, groups=groups, bias=False),
            nn.BatchNorm2d(channels),
        ]
        super().__init__(*layers, *([activation_of(activation)] if activation else []))


def same_padding(arguments: dict[str, Any]) -> dict[str, Any]:
    """Write the padding that keeps the size of a map where none is given."""
    if arguments["padding"] is None:
        arguments["padding"] = arguments["kernel"] // 2
    return arguments


@block(repeat="stride last", scaled=True, canonical=same_padding)
class Conv(ConvNormAct):
    """Convolution, batch norm, activation."""

    def __init__(
        self,
        in_channels: int,
        channels: Count,
        kernel: Count,
        stride: Count = 1,
        padding: Index | None = None,
        groups: Count = 1,
        activation: Activation | None = RELU,
    ) -> None:
        super().__init__(in_channels, channels, kernel, stride, padding, groups, activation)


@block(repeat="stride last", canonical=same_padding)
class FixedConv(Conv):
    """A Conv whose channels are neither rounded nor scaled; it ends a network in exactly n classes."""


@block(repeat="stride last", scaled=True, canonical=same_padding)
class DWConv(ConvNormAct):
    """A Conv in gcd(inputs, outputs) groups: depthwise where both are equal; there is no pointwise part."""

    def __init__(
        self,
        in_channels: int,
        channels: Count,
        kernel: Count,
        stride: Count = 1,
        padding: Index | None = None,
        activation: Activation | None = RELU,
    ) -> None:
        super().__init__(in_channels, channels, kernel, stride, padding, math.gcd(in_channels, channels), activation)


@block(repeat="widen last", scaled=True, paper="He et al. 2016, arXiv:1512.03385")
class Bottleneck(nn.Module):
    """A 1x1 convolution that narrows, a 3x3 that widens (always ReLU), and the input added where channels agree."""

    def __init__(
        self,
        in_channels: int,
        channels: Count,
        shortcut: bool = True,
        groups: Count = 1,
        expansion: Positive = 0.5,
        activation: Activation | None = RELU,
    ) -> None:
        super().__init__()
        hidden = int(channels * expansion)
        if hidden < 1:
            raise ValueError(f"channels {channels} times expansion {expansion:g} leaves no hidden channel")
        self.narrow = ConvNormAct(in_channels, hidden, 1, activation=activation)
        self.widen = ConvNormAct(hidden, channels, 3, groups=groups, activation="ReLU")
        self.residual = shortcut and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.widen(self.narrow(x))
        return x + y if self.residual else y


@block(paper="Iandola et al. 2016, arXiv:1602.07360")
class Fire(nn.Module):
    """SqueezeNet's module: a 1x1 squeeze feeds a 1x1 and a 3x3 convolution whose outputs are joined; biased, no norm."""

    def __init__(self, in_channels: int, squeeze: Count, expand1x1: Count, expand3x3: Count) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(in_channels, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand1x1, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand3x3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x).relu()
        return torch.cat((self.expand1x1(x), self.expand3x3(x)), dim=1).relu()
