"""Plain convolutions, depthwise convolutions, bottlenecks and Fire modules."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from archtuna.registry import block
from archtuna.signature import RELU, Activation, Count, Padding, Positive, Side


def activation_of(name: str | None) -> nn.Module:
    """Return a new activation by its ``torch.nn`` class name, identity for None."""
    if name is None:
        return nn.Identity()
    if name in ("Softmax", "LogSoftmax"):
        return getattr(nn, name)(dim=1)
    return getattr(nn, name)()


def half(kernel: int | tuple[int, int]) -> int | tuple[int, int]:
    """Return the padding that keeps the size of a map under an odd kernel."""
    return kernel // 2 if isinstance(kernel, int) else (kernel[0] // 2, kernel[1] // 2)


class ConvNormAct(nn.Sequential):
    """A convolution without bias, batch norm (eps 1e-5, momentum 0.1) and an activation."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | None = None,
        groups: int = 1,
        activation: str | None = None,
    ) -> None:
        padding = half(kernel) if padding is None else padding
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, channels, kernel, stride, padding, groups=groups, bias=False),
            nn.BatchNorm2d(channels),
        ]
        super().__init__(*layers, *([activation_of(activation)] if activation else []))


@torch.no_grad()
def fold_joined(norm: nn.BatchNorm2d, convs: Sequence[nn.Conv2d]) -> list[nn.Conv2d]:
    """Return convolutions whose joined outputs a batch norm behind the join normalised, with their share of it folded in."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    parts = [
        t.split([conv.out_channels for conv in convs])
        for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    ]
    folded = []
    for conv, mean, variance, weight, bias in zip(convs, *parts, strict=True):
        kernel, shift = fuse_conv_bn_weights(conv.weight, conv.bias, mean, variance, norm.eps, weight, bias)
        new = copy.deepcopy(conv)
        new.weight, new.bias = kernel, shift
        folded.append(new)
    return folded


def same_padding(arguments: dict[str, Any]) -> dict[str, Any]:
    """Write the padding that keeps the size of a map where none is given."""
    if arguments["padding"] is None:
        arguments["padding"] = half(arguments["kernel"])
    return arguments


@block(repeat="stride last", scaled=True, canonical=same_padding)
class Conv(ConvNormAct):
    """Convolution, batch norm, activation."""

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
        super().__init__(in_channels, channels, kernel, stride, padding, groups, activation)


@block(repeat="stride last", canonical=same_padding)
class FixedConv(Conv):
    """A Conv whose channels are neither rounded nor scaled; it ends a network in exactly n classes."""


@block(repeat="stride last", scaled=True, canonical=same_padding)
class ConvResidual(Conv):
    """A Conv with its input added behind the activation where stride and channels allow it."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return x + y if y.shape == x.shape else y


@block(repeat="stride last", scaled=True, canonical=same_padding)
class CR(nn.Sequential):
    """A convolution with bias and an activation, without norm."""

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
        padding = half(kernel) if padding is None else padding  # type: ignore[assignment]
        conv = nn.Conv2d(in_channels, channels, kernel, stride, padding, groups=groups)  # type: ignore[arg-type]
        super().__init__(conv, activation_of(activation))


@block(repeat="stride last", canonical=same_padding)
class FixedCR(CR):
    """A CR whose channels are neither rounded nor scaled."""


@block(repeat="stride last", scaled=True, canonical=same_padding)
class DWConv(ConvNormAct):
    """A Conv in gcd(inputs, outputs) groups: depthwise where both are equal; there is no pointwise part."""

    def __init__(
        self,
        in_channels: int,
        channels: Count,
        kernel: Side,
        stride: Side = 1,
        padding: Padding | None = None,
        activation: Activation | None = RELU,
    ) -> None:
        super().__init__(in_channels, channels, kernel, stride, padding, math.gcd(in_channels, channels), activation)


@block(
    repeat="widen last",
    scaled=True,
    paper="He et al. 2016, arXiv:1512.03385",
    later=("widen_activation",),
    explain={"expansion": "hidden channels as a share of the output's", "widen_activation": "of the 3x3 convolution"},
)
class Bottleneck(nn.Module):
    """A 1x1 convolution that narrows, a 3x3 that widens, and the input added where channels agree."""

    def __init__(
        self,
        in_channels: int,
        channels: Count,
        shortcut: bool = True,
        groups: Count = 1,
        expansion: Positive = 0.5,
        activation: Activation | None = RELU,
        widen_activation: Activation | None = RELU,
    ) -> None:
        super().__init__()
        hidden = narrowed(channels, expansion)
        self.narrow = ConvNormAct(in_channels, hidden, 1, activation=activation)
        self.widen = ConvNormAct(hidden, channels, 3, groups=groups, activation=widen_activation)
        self.gate: nn.Module = nn.Identity()
        self.residual = shortcut and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.gate(self.widen(self.narrow(x)))
        return x + y if self.residual else y


def narrowed(channels: int, expansion: float) -> int:
    """Return the hidden channels of a bottleneck.

    Raises:
        ValueError: there are none.
    """
    hidden = int(channels * expansion)
    if hidden < 1:
        raise ValueError(f"channels {channels} times expansion {expansion:g} leaves no hidden channel")
    return hidden


@block(
    repeat="widen last",
    scaled=True,
    paper="He et al. 2016, arXiv:1512.03385",
    explain={"expansion": "hidden channels as a share of the output's", "groups": "of the 3x3 convolution"},
)
class ResBottleneck(nn.Module):
    """ResNet's bottleneck: 1x1, 3x3 (always ReLU) and 1x1 convolutions, and the input added where channels agree."""

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
        hidden = narrowed(channels, expansion)
        self.layers = nn.Sequential(
            ConvNormAct(in_channels, hidden, 1, activation=activation),
            ConvNormAct(hidden, hidden, 3, groups=groups, activation="ReLU"),
            ConvNormAct(hidden, channels, 1, activation=activation),
        )
        self.residual = shortcut and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


@block(
    paper="Iandola et al. 2016, arXiv:1602.07360",
    explain={
        "squeeze": "channels of the squeeze",
        "expand1x1": "channels from the 1x1 convolution",
        "expand3x3": "channels from the 3x3 convolution; the output has both",
    },
)
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
