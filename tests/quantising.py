"""A small network of many kinds of blocks, as ONNX, and pictures for it."""

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import torch

from archtuna.exports import export
from archtuna.model import build
from archtuna.space import SearchSpace

SIDE = 16
MIXED = f"""
input_size: {SIDE}
backbone:
  - [1, Conv, {{channels: 8, kernel: 3, stride: 2, activation: Hardswish}}]
  - [1, InvertedResidualv3, {{kernel: 3, expansion: 2, channels: 12, se: true, activation: ReLU}}]
  - [1, ConvNeXtBlock, {{channels: 12, kernel: 3, expansion: 2}}]
  - [1, TransformerBlock, {{heads: 2, expansion: 2}}]
  - [1, GlobalAvgPool, []]
  - [1, Flatten, []]
  - [1, Linear, [4]]
"""


def onnx_of(folder: Path, text: str, seed: int = 0) -> bytes:
    torch.manual_seed(seed)
    model = build(SearchSpace.read(text).default().architecture)
    side = model.architecture.input_size[0]
    with torch.no_grad():
        for _ in range(3):  # Batch norms know what pictures are like, as those of a trained network do.
            model.train()(torch.randn(32, 3, side, side))
    model.classes = tuple("abcd")  # type: ignore[assignment]
    return Path(export(model.eval(), folder / "model.onnx").file).read_bytes()


def pictures(n: int, seed: int, side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 3, side, side)).astype(np.float32)


CALIBRATION = [pictures(32, seed) for seed in range(2)]


@cache
def mixed() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return onnx_of(Path(folder), MIXED)
