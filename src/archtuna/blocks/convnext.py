"""ConvNeXt's block and RepVGG's: convolutions of today without depthwise expansion."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from archtuna.blocks.convolution import ConvNormAct, activation_of
from archtuna.blocks.gates import Attention, NormOverChannels, drop_path_of, gate_of
from archtuna.registry import block
from archtuna.signature import RELU, Activation, Count, Fraction, NotNegative, Positive

GELU = Activation("GELU")


@block(
    scaled=True,
    paper="Liu et al. 2022, arXiv:2201.03545",
    explain={
        "expansion": "hidden channels as a multiple of the output's",
        "stride": "above 1, or where channels change, the paper's downsampling layer stands before the block",
        "attention": "a gate over the hidden channels",
        "layer_scale": "initial value of a learned scale of each channel of the branch, 0 for none",
    },
)
class ConvNeXtBlock(nn.Module):
    """ConvNeXt's block: a large depthwise convolution, layer norm, two pointwise ones around GELU, beside a residual."""

    def __init__(
        self,
        in_channels: int,
        channels: Count,
        kernel: Count = 7,
        expansion: Positive = 4.0,
        stride: Count = 1,
        activation: Activation | None = GELU,
        attention: Attention = "none",
        layer_scale: NotNegative = 1e-6,
        drop_path: Fraction = 0.0,
    ) -> None:
        super().__init__()
        hidden = max(1, round(channels * expansion))
        changes = stride != 1 or in_channels != channels
        self.downsample = (
            nn.Sequential(NormOverChannels(in_channels), nn.Conv2d(in_channels, channels, stride, stride))
            if changes
            else nn.Identity()
        )
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels),
            NormOverChannels(channels),
            nn.Conv2d(channels, hidden, 1),
            activation_of(activation),
            gate_of(attention, hidden, max(1, hidden // 4)),
            nn.Conv2d(hidden, channels, 1),
        )
        self.scale = nn.Parameter(torch.full((channels, 1, 1), layer_scale)) if layer_scale else None
        self.drop_path = drop_path_of(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x)
        y = self.layers(x)
        return x + self.drop_path(y if self.scale is None else y * self.scale)


@block(
    scaled=True,
    paper="Ding et al. 2021, arXiv:2101.03697",
    explain={"attention": "a gate behind the branches", "stride": "the identity branch needs 1"},
)
class RepVGGBlock(nn.Module):
    """RepVGG's block: 3x3, 1x1 and identity branches, each normalised, which an export merges into one 3x3 convolution."""

    def __init__(
        self,
        in_channels: int,
        channels: Count,
        stride: Count = 1,
        groups: Count = 1,
        activation: Activation | None = RELU,
        attention: Attention = "none",
    ) -> None:
        super().__init__()
        self.dense = ConvNormAct(in_channels, channels, 3, stride, groups=groups)
        self.point = ConvNormAct(in_channels, channels, 1, stride, groups=groups)
        self.identity = nn.BatchNorm2d(channels) if stride == 1 and in_channels == channels else None
        self.gate = gate_of(attention, channels, max(1, channels // 4))
        self.activation = activation_of(activation)

    def forward(self, x: Tensor) -> Tensor:
        y = self.dense(x) + self.point(x)
        if self.identity is not None:
            y = y + self.identity(x)
        return self.activation(self.gate(y))

    @torch.no_grad()
    def for_inference(self) -> nn.Module:
        """Return one convolution, gate and activation that give what this block gives in evaluation mode.

        Each branch is a 3x3 convolution with a bias once its batch norm is folded in (section 3.3 of the paper).
        """
        conv: nn.Conv2d = self.dense[0]  # type: ignore[assignment]
        weight, bias = _folded(conv.weight, self.dense[1])
        point, shift = _folded(self.point[0].weight, self.point[1])  # type: ignore[arg-type]
        weight, bias = weight + nn.functional.pad(point, (1, 1, 1, 1)), bias + shift
        if self.identity is not None:
            same = torch.zeros_like(conv.weight)
            index = torch.arange(len(same))
            same[index, index % same.shape[1], 1, 1] = 1.0
            kernel, shift = _folded(same, self.identity)
            weight, bias = weight + kernel, bias + shift
        merged = nn.Conv2d(conv.in_channels, conv.out_channels, 3, conv.stride, 1, groups=conv.groups)  # type: ignore[arg-type]
        merged.to(weight.device, weight.dtype)
        merged.weight.copy_(weight)
        merged.bias.copy_(bias)  # type: ignore[union-attr]
        return nn.Sequential(merged, self.gate, self.activation).train(self.training)


def _folded(weight: Tensor, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a convolution with the batch norm behind it folded in."""
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_var is not None
    assert norm.running_mean is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return weight * scale.view(-1, 1, 1, 1), norm.bias - norm.running_mean * scale
