"""Gates that scale channels (squeeze-and-excite, ECA), normalisation over channels, and stochastic depth."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor, nn

from archtuna.blocks.convolution import Bottleneck, activation_of
from archtuna.registry import block
from archtuna.signature import RELU, Activation, Count, Positive

Attention = Literal["none", "se", "eca"]
"""Which gate a block has: none, squeeze-and-excite, or efficient channel attention."""


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from all of them (Hu et al. 2018, arXiv:1709.01507).

    Args:
        channels: of the map.
        reduced: channels in between.
        activation: between the two projections.
        gate: the activation that brings any number to 0..1; ``Clamp`` cuts it off there.
    """

    def __init__(self, channels: int, reduced: int, activation: str | None = "ReLU", gate: str = "Sigmoid") -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, reduced, 1)
        self.activation = activation_of(activation)
        self.expand = nn.Conv2d(reduced, channels, 1)
        self.gate = nn.Hardtanh(0.0, 1.0) if gate == "Clamp" else activation_of(gate)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.expand(self.activation(self.reduce(self.pool(x)))))


class ChannelAttention(nn.Module):
    """Scales each channel by a gate computed from its neighbours (Wang et al. 2020, arXiv:1910.03151)."""

    def __init__(self, channels: int, kernel: int | None = None) -> None:
        super().__init__()
        kernel = eca_kernel(channels) if kernel is None else kernel
        if kernel % 2 == 0:
            raise ValueError(f"the attention's kernel {kernel} is even and would change the number of channels")
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.conv = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.conv(self.pool(x).flatten(2).transpose(1, 2)).sigmoid()
        return x * gate.transpose(1, 2).unsqueeze(-1)


def eca_kernel(channels: int) -> int:
    """Return ECA's kernel for a number of channels: odd, near (log2 C + 1) / 2 (equation 12 of the paper)."""
    kernel = int(abs((math.log2(channels) + 1) / 2))
    return kernel if kernel % 2 else kernel + 1


def gate_of(attention: str, channels: int, reduced: int) -> nn.Module:
    """Return a block's gate over ``channels``; squeeze-and-excite goes through ``reduced`` of them."""
    if attention == "se":
        return SqueezeExcite(channels, reduced, "ReLU", "Hardsigmoid")
    return ChannelAttention(channels) if attention == "eca" else nn.Identity()


@block(
    repeat="widen last",
    scaled=True,
    paper="Wang et al. 2020, arXiv:1910.03151",
    explain={"expansion": "hidden channels as a share of the output's"},
)
class ECABottleneck(Bottleneck):
    """A Bottleneck with efficient channel attention (3 channels) at the end of its branch."""

    def __init__(
        self,
        in_channels: int,
        channels: Count,
        shortcut: bool = True,
        groups: Count = 1,
        expansion: Positive = 0.5,
        activation: Activation | None = RELU,
    ) -> None:
        super().__init__(in_channels, channels, shortcut, groups, expansion, activation)
        self.gate = ChannelAttention(channels, 3)


class DropPath(nn.Module):
    """Leaves a residual branch out for a share of the pictures while training (Huang et al. 2016, arXiv:1603.09382)."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.share == 0:
            return x
        kept = 1 - self.share
        mask = x.new_empty((x.shape[0], *(1,) * (x.dim() - 1))).bernoulli_(kept)
        return x * mask / kept

    def extra_repr(self) -> str:
        return f"{self.share:g}"


def drop_path_of(share: float) -> nn.Module:
    return DropPath(share) if share else nn.Identity()


class NormOverChannels(nn.LayerNorm):
    """Layer norm over the channels of each pixel of a map."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__(channels, eps)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


@block(
    repeat="each",
    paper="Ba et al. 2016, arXiv:1607.06450; as in Liu et al. 2022, arXiv:2201.03545",
    explain={"eps": "added to the variance"},
)
class LayerNorm2d(NormOverChannels):
    """Normalises the channels of each pixel."""

    def __init__(self, in_channels: int, eps: Positive = 1e-6) -> None:
        super().__init__(in_channels, eps)


@block(
    repeat="each", paper="Hu et al. 2018, arXiv:1709.01507",
    explain={"reduction": "by what the channels are divided in between", "gate": "from 0 to 1"},
)  # fmt: skip
class SE(SqueezeExcite):
    """Squeeze-and-excite as a row of its own: scales each channel by a gate computed from all of them."""

    def __init__(
        self,
        in_channels: int,
        reduction: Positive = 4.0,
        activation: Activation | None = RELU,
        gate: Literal["Sigmoid", "Hardsigmoid"] = "Hardsigmoid",
    ) -> None:
        super().__init__(in_channels, max(1, int(in_channels / reduction)), activation, gate)


@block(
    repeat="each", paper="Wang et al. 2020, arXiv:1910.03151",
    explain={"kernel": "channels that a gate looks at, odd; null takes it from their number"},
)  # fmt: skip
class ECA(ChannelAttention):
    """Efficient channel attention as a row of its own: scales each channel by a gate computed from its neighbours."""

    def __init__(self, in_channels: int, kernel: Count | None = None) -> None:
        super().__init__(in_channels, kernel)
