"""Inverted residuals of MobileNetV2, MobileNetV3 and EfficientNet."""

from __future__ import annotations

import math
from functools import partial

from torch import Tensor, nn

from archtuna.blocks.convolution import ConvNormAct, activation_of
from archtuna.blocks.gates import Attention, ChannelAttention, SqueezeExcite, drop_path_of, gate_of
from archtuna.registry import block
from archtuna.signature import RELU, Activation, Count, Fraction, Positive

MOBILENETV2 = "Sandler et al. 2018, arXiv:1801.04381"


def make_divisible(value: float, divisor: int = 8) -> int:
    """Round to a multiple of ``divisor``, at least one, never below 90 % of ``value`` (MobileNet's reference code)."""
    rounded = max(divisor, math.floor((value + divisor / 2) / divisor) * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


class Residual(nn.Module):
    """Runs ``self.layers`` and adds the input where ``self.residual`` says so."""

    layers: nn.Sequential
    residual: bool

    def __init__(self, drop_path: float = 0.0) -> None:
        super().__init__()
        self.drop_path = drop_path_of(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.layers(x)) if self.residual else self.layers(x)


def _hidden(in_channels: int, expansion: float, hidden: int) -> int:
    if hidden < 1:
        raise ValueError(f"{in_channels} input channels times expansion {expansion:g} leave no hidden channel")
    return hidden


class _Inverted(Residual):
    """MobileNetV2's layers under any activation."""

    def __init__(
        self, in_channels: int, channels: int, expansion: float, stride: int, activation: str | None, drop_path: float
    ) -> None:
        super().__init__(drop_path)
        hidden = _hidden(in_channels, expansion, round(in_channels * expansion))
        expand = [] if expansion == 1 else [ConvNormAct(in_channels, hidden, 1, activation=activation)]
        self.layers = nn.Sequential(
            *expand,
            ConvNormAct(hidden, hidden, 3, stride, groups=hidden, activation=activation),
            ConvNormAct(hidden, channels, 1),
        )
        self.residual = stride == 1 and in_channels == channels


_inverted = partial(block, scaled=True, later=("drop_path",))


@_inverted(paper=MOBILENETV2)
class InvertedResidualv2(_Inverted):
    """MobileNetV2's block: 1x1 expansion, 3x3 depthwise with stride, 1x1 projection, ReLU6."""

    def __init__(
        self, in_channels: int, channels: Count, expansion: Positive, stride: Count = 1, drop_path: Fraction = 0.0
    ) -> None:
        super().__init__(in_channels, channels, expansion, stride, "ReLU6", drop_path)


@block(scaled=True, paper=MOBILENETV2)
class MV2Block(_Inverted):
    """MobileNetV2's block with an activation of one's choice."""

    def __init__(
        self,
        in_channels: int,
        channels: Count,
        stride: Count = 1,
        expansion: Positive = 4.0,
        activation: Activation | None = RELU,
    ) -> None:
        super().__init__(in_channels, channels, expansion, stride, activation, 0.0)


@_inverted(paper="Howard et al. 2019, arXiv:1905.02244")
class InvertedResidualv3(Residual):
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
        drop_path: Fraction = 0.0,
    ) -> None:
        super().__init__(drop_path)
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


def _same(kernel: int, stride: int) -> tuple[list[nn.Module], int]:
    """Return what pads a map as TensorFlow does: a layer where both sides differ, or the convolution's own padding."""
    total = max(kernel - stride, 0)
    before, after = total // 2, total - total // 2
    return ([], before) if before == after else ([nn.ZeroPad2d((before, after, before, after))], 0)


@block(
    scaled=True,
    paper="Tan & Le 2019, arXiv:1905.11946",
    later=("se", "drop_path"),
    explain={
        "se": "squeeze-and-excite over the hidden channels, through a quarter of the input's",
    },
)
class MBConv(Residual):
    """EfficientNet's block: 1x1 expansion, depthwise, squeeze-and-excite, 1x1 projection, SiLU.

    Padded as TensorFlow pads a map that the stride divides.
    """

    def __init__(
        self,
        in_channels: int,
        expansion: Positive,
        channels: Count,
        stride: Count = 1,
        kernel: Count = 3,
        se: bool = True,
        drop_path: Fraction = 0.0,
    ) -> None:
        super().__init__(drop_path)
        hidden = _hidden(in_channels, expansion, round(in_channels * expansion))
        expand = [] if hidden == in_channels else [ConvNormAct(in_channels, hidden, 1, activation="SiLU")]
        pad, padding = _same(kernel, stride)
        self.layers = nn.Sequential(
            *expand,
            *pad,
            ConvNormAct(hidden, hidden, kernel, stride, padding, groups=hidden, activation="SiLU"),
            *([SqueezeExcite(hidden, max(1, in_channels // 4), "SiLU", "Sigmoid")] if se else []),
            ConvNormAct(hidden, channels, 1),
        )
        self.residual = stride == 1 and in_channels == channels


@block(
    scaled=True,
    paper="Tan & Le 2021, arXiv:2104.00298",
    explain={
        "attention": "a gate behind the first convolution; squeeze-and-excite goes through a quarter of the input's channels",
    },
)
class FusedMBConv(Residual):
    """EfficientNetV2's fused block: one full convolution expands, a 1x1 projects, SiLU.

    Padded as TensorFlow pads a map that the stride divides. The projection is there at an expansion of 1, too, where the
    original has one convolution alone.
    """

    def __init__(
        self,
        in_channels: int,
        expansion: Positive,
        channels: Count,
        stride: Count = 1,
        kernel: Count = 3,
        attention: Attention = "none",
        drop_path: Fraction = 0.0,
    ) -> None:
        super().__init__(drop_path)
        hidden = _hidden(in_channels, expansion, round(in_channels * expansion))
        pad, padding = _same(kernel, stride)
        gate = [] if attention == "none" else [gate_of(attention, hidden, max(1, in_channels // 4))]
        self.layers = nn.Sequential(
            *pad,
            ConvNormAct(in_channels, hidden, kernel, stride, padding, activation="SiLU"),
            *gate,
            ConvNormAct(hidden, channels, 1),
        )
        self.residual = stride == 1 and in_channels == channels


ECA_PAPER = "Wang et al. 2020, arXiv:1910.03151"


@block(scaled=True, paper=ECA_PAPER, explain={"attention_kernel": "channels that a gate looks at, odd"})
class ECAInvertedResidualv2(InvertedResidualv2):
    """An InvertedResidualv2 with efficient channel attention at the end of its branch."""

    def __init__(
        self, in_channels: int, channels: Count, expansion: Positive, stride: Count = 1, attention_kernel: Count = 3
    ) -> None:
        super().__init__(in_channels, channels, expansion, stride)
        self.layers.append(ChannelAttention(channels, attention_kernel))


@block(scaled=True, paper=ECA_PAPER, explain={"kernel": "of the depthwise convolution and of the attention, odd"})
class ECAInvertedResidualv3(InvertedResidualv3):
    """An InvertedResidualv3 with efficient channel attention at the end of its branch."""

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
        super().__init__(in_channels, kernel, expansion, channels, se, activation, stride)
        self.layers.append(ChannelAttention(channels, kernel))
