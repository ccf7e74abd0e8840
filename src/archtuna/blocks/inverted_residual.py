"""Inverted residuals of MobileNetV2, MobileNetV3 and EfficientNet."""

from __future__ import annotations

import math

from torch import Tensor, nn

from archtuna.blocks.convolution import ConvNormAct, activation_of
from archtuna.registry import block
from archtuna.signature import RELU, Activation, Count, Positive


def make_divisible(value: float, divisor: int = 8) -> int:
    """Round to a multiple of ``divisor``, at least one, never below 90 % of ``value`` (MobileNet's reference code)."""
    rounded = max(divisor, math.floor((value + divisor / 2) / divisor) * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from all of them (Hu et al. 2018, arXiv:1709.01507)."""

    def __init__(self, channels: int, reduced: int, activation: str, gate: str) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, reduced, 1)
        self.activation = activation_of(activation)
        self.expand = nn.Conv2d(reduced, channels, 1)
        self.gate = activation_of(gate)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.expand(self.activation(self.reduce(self.pool(x)))))


class _Residual(nn.Module):
    """Runs ``self.layers`` and adds the input where ``self.residual`` says so."""

    layers: nn.Module
    residual: bool

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


def _hidden(in_channels: int, expansion: float, hidden: int) -> int:
    if hidden < 1:
        raise ValueError(f"{in_channels} input channels times expansion {expansion:g} leave no hidden channel")
    return hidden


@block(scaled=True, paper="Sandler et al. 2018, arXiv:1801.04381")
class InvertedResidualv2(_Residual):
    """MobileNetV2's block: 1x1 expansion, 3x3 depthwise with stride, 1x1 projection, ReLU6."""

    def __init__(self, in_channels: int, channels: Count, expansion: Positive, stride: Count = 1) -> None:
        super().__init__()
        hidden = _hidden(in_channels, expansion, round(in_channels * expansion))
        expand = [] if expansion == 1 else [ConvNormAct(in_channels, hidden, 1, activation="ReLU6")]
        self.layers = nn.Sequential(
            *expand,
            ConvNormAct(hidden, hidden, 3, stride, groups=hidden, activation="ReLU6"),
            ConvNormAct(hidden, channels, 1),
        )
        self.residual = stride == 1 and in_channels == channels


@block(scaled=True, paper="Howard et al. 2019, arXiv:1905.02244")
class InvertedResidualv3(_Residual):
    """MobileNetV3's block: 1x1 expansion, depthwise with stride, optional squeeze-and-excite, 1x1 projection."""

    def __init__(
        self,
        in_channels: int,
        kernel: Count,
        expansion: Positive,
        channels: Count,
        se: bool = False,
        activation: Activation | None = RELU,
        stride: Count = 1,
    ) -> None:
        super().__init__()
        hidden = make_divisible(in_channels * expansion)
        act = activation_of(activation)
        gate: list[nn.Module] = (
            [SqueezeExcite(hidden, make_divisible(hidden // 4), "ReLU", "Hardsigmoid")] if se else []
        )
        depthwise = ConvNormAct(hidden, hidden, kernel, stride, groups=hidden)
        if hidden == in_channels:
            inner = [depthwise, act, *gate]
        else:
            inner = [ConvNormAct(in_channels, hidden, 1), act, depthwise, *gate, activation_of(activation)]
        self.layers = nn.Sequential(*inner, ConvNormAct(hidden, channels, 1))
        self.residual = stride == 1 and in_channels == channels


@block(scaled=True, paper="Tan & Le 2019, arXiv:1905.11946")
class MBConv(_Residual):
    """EfficientNet's block: 1x1 expansion, depthwise with TensorFlow's padding, squeeze-and-excite, 1x1 projection, SiLU."""

    def __init__(
        self, in_channels: int, expansion: Positive, channels: Count, stride: Count = 1, kernel: Count = 3
    ) -> None:
        super().__init__()
        hidden = _hidden(in_channels, expansion, round(in_channels * expansion))
        expand = [] if hidden == in_channels else [ConvNormAct(in_channels, hidden, 1, activation="SiLU")]
        total = max(kernel - stride, 0)
        before, after = total // 2, total - total // 2
        pad = [] if before == after else [nn.ZeroPad2d((before, after, before, after))]
        self.layers = nn.Sequential(
            *expand,
            *pad,
            ConvNormAct(hidden, hidden, kernel, stride, 0 if pad else before, groups=hidden, activation="SiLU"),
            SqueezeExcite(hidden, max(1, in_channels // 4), "SiLU", "Sigmoid"),
            ConvNormAct(hidden, channels, 1),
        )
        self.residual = stride == 1 and in_channels == channels
