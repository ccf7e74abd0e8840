"""Blocks of the mobile families that came after MobileNetV3: ghost bottlenecks, ShuffleNetV2's unit, MixNet's block."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import Tensor, nn

from archtuna.blocks.convolution import ConvNormAct, activation_of, fold_joined
from archtuna.blocks.gates import ChannelAttention, SqueezeExcite
from archtuna.blocks.inverted_residual import Residual, make_divisible
from archtuna.registry import block
from archtuna.signature import RELU, Activation, Count, Positive


class GhostModule(nn.Module):
    """Half of the channels from a pointwise convolution, the other half from a depthwise one over those."""

    def __init__(self, in_channels: int, channels: int, activation: str | None) -> None:
        super().__init__()
        half = -(-channels // 2)
        self.channels = channels
        self.primary = ConvNormAct(in_channels, half, 1, activation=activation)
        self.cheap = ConvNormAct(half, half, 3, groups=half, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        primary = self.primary(x)
        return torch.cat((primary, self.cheap(primary)), 1)[:, : self.channels]


@block(
    scaled=True,
    paper="Han et al. 2020, arXiv:1911.11907",
    explain={
        "kernel": "of the depthwise convolution between the ghost modules, which stands only where the stride is above 1",
        "expansion": "hidden channels as a multiple of the input's, rounded to 8",
        "se": "a gate between the ghost modules",
        "attention": "which gate: squeeze-and-excite, or efficient channel attention over 3 channels",
        "shortcut": "its depthwise convolution where the shape changes: relu is 3x3 with ReLU, plain has the block's kernel",
    },
)
class GhostBottleneck(nn.Module):
    """GhostNet's block: two ghost modules, a depthwise convolution between them where it strides, and a shortcut."""

    def __init__(
        self,
        in_channels: int,
        kernel: Count,
        expansion: Positive,
        channels: Count,
        se: bool = False,
        stride: Count = 1,
        attention: Literal["se", "eca"] = "se",
        shortcut: Literal["relu", "plain"] = "relu",
    ) -> None:
        super().__init__()
        hidden = make_divisible(in_channels * expansion)
        gate = SqueezeExcite(hidden, hidden // 4, "ReLU", "Clamp") if attention == "se" else ChannelAttention(hidden, 3)
        self.layers = nn.Sequential(
            GhostModule(in_channels, hidden, "ReLU"),
            *([ConvNormAct(hidden, hidden, kernel, stride, groups=hidden)] if stride > 1 else []),
            *([gate] if se else []),
            GhostModule(hidden, channels, None),
        )
        relu = shortcut == "relu"
        self.shortcut = (
            nn.Identity()
            if stride == 1 and in_channels == channels
            else nn.Sequential(
                ConvNormAct(
                    in_channels, in_channels, 3 if relu else kernel, stride, groups=in_channels,
                    activation="ReLU" if relu else None,
                ),
                ConvNormAct(in_channels, channels, 1),
            )
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) + self.shortcut(x)


@block(
    scaled=True,
    paper="Ma et al. 2018, arXiv:1807.11164",
    explain={"channels": "even; null is the input's times the stride, and with stride 1 they are the input's"},
)
class ShuffleNetV2(nn.Module):
    """ShuffleNetV2's unit: half of the channels pass by, half go through convolutions, and both are shuffled."""

    def __init__(self, in_channels: int, channels: Count | None = None, stride: Count = 1) -> None:
        super().__init__()
        channels = in_channels * stride if channels is None else channels
        if channels % 2 or (stride == 1 and in_channels != channels):
            wanted = (
                "an even number of channels" if channels % 2 else f"with stride 1 its input's {in_channels} channels"
            )
            raise ValueError(f"has {wanted}, not {channels}")
        half = channels // 2
        self.splits = stride == 1
        through = half if self.splits else in_channels
        self.past = (
            nn.Identity()
            if self.splits
            else nn.Sequential(
                ConvNormAct(in_channels, in_channels, 3, stride, groups=in_channels),
                ConvNormAct(in_channels, half, 1, activation="ReLU"),
            )
        )
        self.layers = nn.Sequential(
            ConvNormAct(through, half, 1, activation="ReLU"),
            ConvNormAct(half, half, 3, stride, groups=half),
            ConvNormAct(half, half, 1, activation="ReLU"),
        )

    def forward(self, x: Tensor) -> Tensor:
        past, through = x.chunk(2, 1) if self.splits else (x, x)
        joined = torch.cat((self.past(past), self.layers(through)), 1)
        return joined.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)


class MixedDepthwise(nn.Module):
    """Shares channels among depthwise convolutions of several kernels; what does not divide goes to the first."""

    def __init__(self, channels: int, kernels: tuple[int, ...], stride: int) -> None:
        super().__init__()
        share = channels // len(kernels)
        if share < 1:
            raise ValueError(f"{channels} channels cannot be shared by {len(kernels)} kernels")
        self.shares = [channels - share * (len(kernels) - 1), *[share] * (len(kernels) - 1)]
        self.convs = nn.ModuleList(
            nn.Conv2d(n, n, kernel, stride, kernel // 2, groups=n, bias=False)
            for n, kernel in zip(self.shares, kernels, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        parts = x.split(self.shares, 1)
        return torch.cat([conv(part) for conv, part in zip(self.convs, parts, strict=True)], 1)


@block(
    scaled=True,
    paper="Tan & Le 2019, arXiv:1907.09595",
    explain={
        "kernels": "of the depthwise convolutions that share the hidden channels; 3+5+7 is a list as one value",
        "se": "squeeze-and-excite over the hidden channels, through a quarter of the input's",
    },
)
class MixNetBlock(Residual):
    """MixNet's block: 1x1 expansion, depthwise convolutions of several kernels side by side, 1x1 projection."""

    def __init__(
        self,
        in_channels: int,
        kernels: tuple[Count, ...],
        expansion: Positive,
        channels: Count,
        se: bool = False,
        stride: Count = 1,
        activation: Activation | None = RELU,
    ) -> None:
        super().__init__()
        hidden = round(in_channels * expansion)
        expand = [] if hidden == in_channels else [ConvNormAct(in_channels, hidden, 1, activation=activation)]
        gate = [SqueezeExcite(hidden, make_divisible(in_channels // 4), "SiLU", "Sigmoid")] if se else []
        self.layers = nn.Sequential(
            *expand,
            MixedDepthwise(hidden, kernels, stride),
            nn.BatchNorm2d(hidden),
            activation_of(activation),
            *gate,
            ConvNormAct(hidden, channels, 1),
        )
        self.residual = stride == 1 and in_channels == channels

    def for_inference(self) -> nn.Module:
        """Return this block with the norm behind its depthwise convolutions folded into them."""
        merged = copy.deepcopy(self)
        index = next(i for i, layer in enumerate(merged.layers) if isinstance(layer, MixedDepthwise))
        mixed, norm = merged.layers[index], merged.layers[index + 1]
        mixed.convs = nn.ModuleList(fold_joined(norm, list(mixed.convs)))  # type: ignore[arg-type]
        merged.layers[index + 1] = nn.Identity()
        return merged
