"""The model as it is exported: a copy for evaluation on the CPU, simpler where blocks can be."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from archtuna.architecture import PICTURE, Architecture
from archtuna.errors import ExportError
from archtuna.exports.formats import Source, tapped, tensors
from archtuna.exports.proof import farthest, near
from archtuna.model import for_inference

FOLDED = 1e-4
"""How far a unit's output may move, as a share of its largest, where batch norms are folded; folding only rounds otherwise."""


def plain_copy(model: nn.Module) -> nn.Module:
    """Return the model in evaluation mode on the CPU, sharing nothing with the one that was given."""
    copied = copy.deepcopy(model).to(device="cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return copied.eval().requires_grad_(False)


def graph_of(source: Source) -> nn.Module:
    """Return what a tracer follows: the model or its units, each block merged, pixels normalised where that is asked for.

    Batch norms are folded into the convolutions before them within each unit, so that units keep their outputs.
    """
    merged = for_inference(copy.deepcopy(source.model)).eval()
    if isinstance(layers := getattr(merged, "layers", None), nn.Sequential):
        _fold_units(layers, source)
    module = tapped(merged, source)
    if source.options.with_preprocess:
        module = FromPixels(module, preprocess_of(source.model))
    return module.eval().requires_grad_(False)


@torch.no_grad()
def _fold_units(units: nn.Sequential, source: Source) -> None:
    """Fold the batch norms of each unit, in place, where its output stays what it is.

    Only running a unit shows in which order it runs what is in it: a block of one's own may take a ``Sequential`` apart.
    """
    wires = source.architecture.wires()
    last = {i: unit for unit, inputs in enumerate(wires) for i in inputs}
    outputs: dict[int, Any] = {PICTURE: source.example[:1]}
    for index in range(len(units) if source.units is None else source.units[-1] + 1):
        given = [outputs[i] for i in wires[index]]
        folded = copy.deepcopy(units[index])
        found = _run(folded, copy.deepcopy(given)) if fold_norms(folded) else None
        outputs[index] = units[index](*given)
        if found is not None and _is_alike(found, outputs[index]):
            units[index] = folded
        for i in wires[index]:
            if last[i] == index:
                outputs.pop(i, None)


def _run(unit: nn.Module, given: Sequence[Any]) -> Any:
    try:
        return unit(*given)
    except Exception:  # Somebody's own code may look at the norm that was folded.
        return None


def _is_alike(found: Any, wanted: Any) -> bool:
    pairs = list(zip(tensors(found), tensors(wanted), strict=True))
    return all(a.shape == b.shape and near(*farthest(a, b), FOLDED) for a, b in pairs)


def fold_norms(module: nn.Module) -> int:
    """Fold batch norms into the convolutions right before them in each ``Sequential``, in place; return how many.

    Tracing takes time for every operation, and not every runtime folds them by itself.
    """
    count = sum(map(fold_norms, module.children()))
    if not isinstance(module, nn.Sequential):
        return count
    for index, (conv, norm) in enumerate(pairwise(module)):
        if type(conv) is nn.Conv2d and type(norm) is nn.BatchNorm2d and _is_bare(conv, norm):
            module[index], module[index + 1] = fuse_conv_bn_eval(conv, norm), nn.Identity()
            count += 1
    return count


def _is_bare(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> bool:
    """Return whether nothing is added to the two, and the norm has statistics that stay."""
    hooked = any(m._forward_hooks or m._forward_pre_hooks for m in (conv, norm))
    return norm.running_var is not None and not hooked


def preprocess_of(model: nn.Module) -> Any:
    """Return the model's preprocessing.

    Raises:
        ExportError: it has none.
    """
    if not hasattr(model, "preprocess"):
        raise ExportError("the model has no preprocessing to put into the file", hint="load it from a checkpoint")
    return model.preprocess


class FromPixels(nn.Module):
    """Normalises pixels (n × H × W × C, uint8, at the network's size) and runs a network on them.

    Args:
        module: the network.
        preprocess: has ``mean`` and ``std`` of each channel, in units of 0..1.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, module: nn.Module, preprocess: Any) -> None:
        super().__init__()
        self.module = module
        scale, shift = scale_and_shift(preprocess)
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, pixels: Tensor) -> Any:
        return self.module(pixels.permute(0, 3, 1, 2).float() * self.scale + self.shift)


def scale_and_shift(preprocess: Any) -> tuple[Tensor, Tensor]:
    """Return what pixels are multiplied by and what is added (C × 1 × 1), rounded as ``Preprocess.normalise`` does."""
    mean, std = np.asarray(preprocess.mean), np.asarray(preprocess.std)
    pair = (torch.tensor(values, dtype=torch.float32)[:, None, None] for values in (1 / (255 * std), -mean / std))
    return next(pair), next(pair)


def to_pixels(images: Tensor, preprocess: Any) -> Tensor:
    """Return the pixels (n × H × W × C, uint8) that were normalised to these pictures (n × C × H × W)."""
    scale, shift = scale_and_shift(preprocess)
    return ((images - shift) / scale).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def given(source: Source, images: Tensor) -> Tensor:
    """Return what a source's file is given for preprocessed pictures: these, or the pixels that they were."""
    return to_pixels(images, preprocess_of(source.model)) if source.options.with_preprocess else images.contiguous()


def random_pictures(model: nn.Module, *, pixels: bool = False) -> Callable[[int], Tensor]:
    """Return what makes ``n`` random pictures for the model, spread like normalised ones and always the same.

    Args:
        pixels: whether they are to be such as 8-bit pixels can be.

    Raises:
        ExportError: the model has no architecture, or no preprocessing for pixels.
    """
    architecture = getattr(model, "architecture", None)
    if not isinstance(architecture, Architecture):
        raise ExportError(f"{type(model).__name__} has no architecture", hint="build networks with archtuna.build")
    shape = (architecture.input_channels, *architecture.input_size)

    def make(n: int) -> Tensor:
        generator = torch.Generator().manual_seed(n)
        if not pixels:
            return torch.randn((n, *shape), generator=generator)
        scale, shift = scale_and_shift(preprocess_of(model))
        return torch.randint(0, 256, (n, *shape), generator=generator).float() * scale + shift

    return make
