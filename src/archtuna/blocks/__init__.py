"""The zoo: one family of blocks per file. Importing this package registers all of them.

A block is one ``nn.Module`` class. Its constructor takes ``in_channels`` first, where it needs them, then the arguments
in the order in which the classic dialect lists them.
"""

from archtuna.blocks import (
    attention,
    convnext,
    convolution,
    cross_stage,
    gates,
    ghost,
    head,
    inverted_residual,
    join,
    pooling,
    pretrained,
    torch_nn,
)

__all__ = [
    "attention",
    "convnext",
    "convolution",
    "cross_stage",
    "gates",
    "ghost",
    "head",
    "inverted_residual",
    "join",
    "pooling",
    "pretrained",
    "torch_nn",
]
