"""Attention between the places of a map, and blocks that are built from it."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from archtuna.blocks.convolution import ConvNormAct, activation_of
from archtuna.blocks.gates import drop_path_of
from archtuna.blocks.inverted_residual import make_divisible
from archtuna.errors import Misfit
from archtuna.registry import block
from archtuna.signature import Activation, Bounds, Count, Fraction, Positive, Side

Depth = Annotated[int, Bounds(1, 256)]
SILU, GELU = Activation("SiLU"), Activation("GELU")


class SelfAttention(nn.Module):
    """Multi-head self-attention over the last but one axis (Vaswani et al. 2017, arXiv:1706.03762).

    Args:
        channels: of each token.
        heads: how many.
        head_channels: channels of each head; by default they share the tokens' among them.
        bias: of the projection to queries, keys and values.
        dropout: share of the output set to zero while training.
    """

    def __init__(
        self, channels: int, heads: int, head_channels: int | None = None, *, bias: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if head_channels is None and channels % heads:
            raise ValueError(f"{channels} channels cannot be shared by {heads} heads")
        hidden = channels if head_channels is None else heads * head_channels
        self.heads = heads
        self.to_qkv = nn.Linear(channels, 3 * hidden, bias=bias)
        # One head as wide as a token needs no projection back.
        projects = not (heads == 1 and head_channels == channels)
        self.to_out = nn.Sequential(nn.Linear(hidden, channels), nn.Dropout(dropout)) if projects else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Take and return tokens (… × tokens × channels)."""
        q, k, v = (_by_head(t, self.heads) for t in self.to_qkv(x).chunk(3, dim=-1))
        attended = functional.scaled_dot_product_attention(q, k, v)
        return self.to_out(attended.transpose(-3, -2).flatten(-2))


class TransformerLayer(nn.Module):
    """Attention and a two-layer perceptron, each behind a layer norm and beside a residual.

    Args:
        channels: of each token.
        hidden: of the perceptron.
        attention: over the tokens.
        dropout: behind both layers of the perceptron.
        activation: between them.
        drop_path: share of pictures that pass each branch by while training.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        attention: nn.Module,
        *,
        dropout: float = 0.0,
        activation: str | None = "GELU",
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.drop_path = drop_path_of(drop_path)
        self.attention_norm, self.attention = nn.LayerNorm(channels), attention
        self.mlp_norm = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden),
            activation_of(activation),
            nn.Dropout(dropout),
            nn.Linear(hidden, channels),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Take and return tokens (… × tokens × channels)."""
        x = x + self.drop_path(self.attention(self.attention_norm(x)))
        return x + self.drop_path(self.mlp(self.mlp_norm(x)))


@block(
    repeat="each",
    paper="Mehta & Rastegari 2022, arXiv:2110.02178",
    explain={
        "conv_channels": "channels of a token",
        "mlp_channels": "hidden channels of a transformer layer",
        "depth": "transformer layers",
        "patch": "side of a patch in pixels, by which the map's sides must be divisible",
        "activation": "of the convolutions; the transformer has SiLU",
    },
)
class MobileViTBlock(nn.Module):
    """MobileViT's block: convolutions around a transformer that looks from patch to patch, the input joined at the end."""

    HEAD_CHANNELS = 32

    def __init__(
        self,
        in_channels: int,
        conv_channels: Count,
        mlp_channels: Count,
        depth: Depth,
        kernel: Count = 3,
        patch: Side = 2,
        dropout: Fraction = 0.0,
        activation: Activation | None = SILU,
    ) -> None:
        super().__init__()
        self.patch = (patch, patch) if isinstance(patch, int) else patch
        self.local = ConvNormAct(in_channels, in_channels, kernel, activation=activation)
        self.widen = ConvNormAct(in_channels, conv_channels, 1, activation=activation)
        self.transformer = nn.Sequential(
            *(
                TransformerLayer(
                    conv_channels,
                    mlp_channels,
                    SelfAttention(conv_channels, 1, self.HEAD_CHANNELS, bias=False, dropout=dropout),
                    dropout=dropout,
                    activation="SiLU",
                )
                for _ in range(depth)
            )
        )
        self.narrow = ConvNormAct(conv_channels, in_channels, 1, activation=activation)
        self.join = ConvNormAct(2 * in_channels, in_channels, kernel, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        y, (p, q) = self.widen(self.local(x)), self.patch
        height, width = y.shape[-2:]
        if height % p or width % q:
            raise Misfit(f"cuts its map into patches of {p}x{q} pixels", "a patch that divides the sides of the map")
        # Tokens at the same place of every patch look at each other: (N·p·q) × patches × channels.
        y = y.unflatten(-1, (width // q, q)).unflatten(-3, (height // p, p))
        y = y.permute(0, 3, 5, 2, 4, 1).flatten(3, 4).flatten(0, 2)
        y = self.transformer(y)
        y = y.unflatten(0, (-1, p, q)).unflatten(3, (height // p, width // q))
        y = y.permute(0, 5, 3, 1, 4, 2).flatten(4, 5).flatten(2, 3)
        return self.join(torch.cat((self.narrow(y), x), 1))


@block(
    repeat="once",
    scaled=True,
    paper="Dosovitskiy et al. 2021, arXiv:2010.11929; positions as in Beyer et al. 2022, arXiv:2205.01580",
    explain={
        "patch": "side of a patch in pixels; what is left over at the edges is not seen",
        "position": "sincos adds sines and cosines of a token's place, which have no parameters and fit any size",
    },
)
class PatchEmbedding(nn.Module):
    """Cuts a map into patches and makes each of them a token; the tokens stay a map, of one pixel a patch."""

    def __init__(
        self, in_channels: int, channels: Count, patch: Side, position: Literal["sincos", "none"] = "sincos"
    ) -> None:
        super().__init__()
        if position == "sincos" and channels % 4:
            raise ValueError(f"sincos needs channels in fours, not {channels}")
        self.project = nn.Conv2d(in_channels, channels, patch, patch)
        self.position = position

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(x)
        return x + sincos(x) if self.position == "sincos" else x


def sincos(x: Tensor) -> Tensor:
    """Return the positions of a map's pixels (C × H × W): a quarter of the channels each for sine and cosine of x and y."""
    channels, height, width = x.shape[1:]
    rates = 10_000.0 ** -(torch.arange(channels // 4, device=x.device, dtype=x.dtype) / max(channels // 4 - 1, 1))
    across = torch.arange(width, device=x.device, dtype=x.dtype) * rates[:, None]
    down = torch.arange(height, device=x.device, dtype=x.dtype) * rates[:, None]
    along = [wave[:, None, :].expand(-1, height, -1) for wave in (across.sin(), across.cos())]
    return torch.cat([*along, *(wave[:, :, None].expand(-1, -1, width) for wave in (down.sin(), down.cos()))])


@block(
    repeat="each",
    paper="Dosovitskiy et al. 2021, arXiv:2010.11929",
    explain={
        "expansion": "hidden channels of the perceptron as a multiple of the block's",
    },
)
class TransformerBlock(nn.Module):
    """A transformer layer over the pixels of a map: self-attention, then a perceptron, each behind a layer norm."""

    def __init__(
        self,
        in_channels: int,
        heads: Count,
        expansion: Positive = 4.0,
        activation: Activation | None = GELU,
        dropout: Fraction = 0.0,
        drop_path: Fraction = 0.0,
    ) -> None:
        super().__init__()
        hidden = max(1, round(in_channels * expansion))
        attention = SelfAttention(in_channels, heads, dropout=dropout)
        self.layer = TransformerLayer(
            in_channels, hidden, attention, dropout=dropout, activation=activation, drop_path=drop_path
        )

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.layer(x.flatten(2).transpose(1, 2))
        return tokens.transpose(1, 2).unflatten(2, x.shape[2:])


@block(
    repeat="once",
    paper="Lee et al. 2019, arXiv:1810.00825; Zhai et al. 2022, arXiv:2106.04560",
)
class AttentionPool(nn.Module):
    """Pools a map to one vector by attention: one learned query looks at all pixels, behind a layer norm."""

    def __init__(self, in_channels: int, heads: Count = 1) -> None:
        super().__init__()
        if in_channels % heads:
            raise ValueError(f"{in_channels} channels cannot be shared by {heads} heads")
        self.heads = heads
        self.norm = nn.LayerNorm(in_channels)
        self.query = nn.Parameter(torch.zeros(1, 1, in_channels))
        nn.init.trunc_normal_(self.query, std=0.02)
        self.to_kv = nn.Linear(in_channels, 2 * in_channels)
        self.to_out = nn.Linear(in_channels, in_channels)

    def forward(self, x: Tensor) -> Tensor:
        k, v = (_by_head(t, self.heads) for t in self.to_kv(self.norm(x.flatten(2).transpose(1, 2))).chunk(2, dim=-1))
        q = _by_head(self.query, self.heads).expand(x.shape[0], -1, -1, -1)
        return self.to_out(functional.scaled_dot_product_attention(q, k, v).transpose(-3, -2).flatten(1))


def _by_head(x: Tensor, heads: int) -> Tensor:
    """Share the channels of tokens among heads: … × tokens × C to … × heads × tokens × C/heads."""
    return x.unflatten(-1, (heads, -1)).transpose(-3, -2)


@block(
    repeat="widen last",
    scaled=True,
    paper="Srinivas et al. 2021, arXiv:2101.11605",
    explain={
        "feature_size": "side of the map, or [height, width]: positions are learned for it, and it fits no other",
        "stride": "2 halves the map behind the attention",
        "heads": "of the attention; the channels must be divisible by them",
        "qk_ratio": "channels of queries and keys as a multiple of the block's, where dim_head is null",
        "dim_head": "channels of queries and keys a head; null takes qk_ratio of the block's channels, rounded to 8",
        "bias": "of the projection to queries, keys and values",
        "scale_positions": "whether positions are divided by the root of dim_head, too",
    },
)
class BottleneckAttn(nn.Module):
    """Bottleneck transformer's attention: every pixel looks at every other, with learned relative positions; no norm."""

    def __init__(
        self,
        in_channels: int,
        channels: Count,
        feature_size: Side,
        stride: Count = 1,
        heads: Count = 4,
        dim_head: Count | None = None,
        qk_ratio: Positive = 1.0,
        bias: bool = False,
        scale_positions: bool = False,
    ) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels cannot be shared by {heads} heads")
        self.size = (feature_size, feature_size) if isinstance(feature_size, int) else feature_size
        self.heads, self.scale_positions = heads, scale_positions
        self.width = dim_head or make_divisible(channels * qk_ratio) // heads
        if self.width < 1:
            raise ValueError(f"{heads} heads leave no channel for queries")
        self.widths = [heads * self.width, heads * self.width, channels]
        self.to_qkv = nn.Conv2d(in_channels, sum(self.widths), 1, bias=bias)
        self.rows = nn.Parameter(torch.empty(2 * self.size[0] - 1, self.width))
        self.columns = nn.Parameter(torch.empty(2 * self.size[1] - 1, self.width))
        for table in (self.rows, self.columns):
            nn.init.trunc_normal_(table, std=self.width**-0.5)
        self.pool = nn.AvgPool2d(2, 2) if stride == 2 else nn.Identity()
        if stride > 2:
            raise ValueError(f"the stride is 1 or 2, not {stride}")

    def forward(self, x: Tensor) -> Tensor:
        if tuple(x.shape[2:]) != tuple(self.size):
            size = "x".join(map(str, self.size))
            raise Misfit(f"has learned positions for {size} pixels", "feature_size must be that of the map")
        q, k, v = (
            t.flatten(2).unflatten(1, (self.heads, -1)).transpose(-2, -1) for t in self.to_qkv(x).split(self.widths, 1)
        )
        scale = self.width**-0.5
        positions = self._positions(q)
        logits = q @ k.transpose(-2, -1) * scale + (positions * scale if self.scale_positions else positions)
        y = (logits.softmax(-1) @ v).transpose(-2, -1).flatten(1, 2)
        return self.pool(y.unflatten(-1, self.size))

    def _positions(self, q: Tensor) -> Tensor:
        """Return what relative positions add to the logits (N × heads × pixels × pixels)."""
        height, width = self.size
        q = q.unflatten(2, (height, width))
        across = _relative(q, self.columns)[:, :, :, None].expand(-1, -1, -1, height, -1, -1)
        down = _relative(q.transpose(2, 3), self.rows)[:, :, :, None].expand(-1, -1, -1, width, -1, -1)
        # Both become N × heads × row × column × row' × column'.
        return (across.permute(0, 1, 2, 4, 3, 5) + down.permute(0, 1, 4, 2, 5, 3)).flatten(4, 5).flatten(2, 3)


def _relative(q: Tensor, table: Tensor) -> Tensor:
    """Return the product of each query with the table's entry for each distance along the last but one axis.

    Args:
        q: N × heads × lines × places × channels.
        table: (2·places − 1) × channels, by distance from −(places − 1).

    Returns:
        N × heads × lines × places × places'.
    """
    places = q.shape[3]
    steps = torch.arange(places, device=q.device)
    scores = q @ table.t()
    return scores.gather(-1, (steps[None, :] - steps[:, None] + places - 1).expand(*scores.shape[:-1], -1))
