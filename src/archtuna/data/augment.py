"""Random changes to whole batches of pictures: crop, flip, RandAugment, cutout.

Every draw comes from a generator on the CPU, so that one seed means the same on every device. Pictures arrive in a
random order; therefore "the first k of a batch" is as good as "k drawn at random", and far faster to take.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from archtuna.devices import moved

CROP_AREA = (0.35, 1.0)
"""Share of the picture's area that a random crop keeps."""
CROP_RATIO = (3 / 4, 4 / 3)
"""Width to height of a random crop, relative to the picture's."""
CROP_GROUP = 8
"""Pictures that share the size, not the place, of a crop. One resize then serves all of them: four times as fast as one
for each picture, while the distribution for each single picture is the same."""

_GREY_LEVEL = 128.0


def take(pixels: np.ndarray, indices: np.ndarray, device: torch.device) -> Tensor:
    """Return the pictures at ``indices`` of (n, H, W, C) as a batch (N, C, H, W) of uint8."""
    return moved(torch.from_numpy(pixels[indices]), device).permute(0, 3, 1, 2)


def crop_and_flip(pixels: np.ndarray, indices: np.ndarray, generator: torch.Generator, device: torch.device) -> Tensor:
    """Return random resized crops (Szegedy et al. 2015), half of them mirrored, of the pictures at ``indices``.

    Args:
        pixels: uint8 (n, H, W, C).

    Returns:
        pixels 0..255 (N, C, H, W), at the pictures' own size.
    """
    count, (height, width) = len(indices), pixels.shape[1:3]
    boxes = _crop_sizes(math.ceil(count / CROP_GROUP), height, width, generator)
    places = torch.rand(count, 2, generator=generator, dtype=torch.float64).numpy()
    groups = []
    for number, (tall, wide) in enumerate(boxes):
        members = indices[number * CROP_GROUP : (number + 1) * CROP_GROUP]
        room = (height - tall + 1, width - wide + 1)
        corners = (places[number * CROP_GROUP : (number + 1) * CROP_GROUP] * room).astype(int)
        crops = np.empty((len(members), tall, wide, pixels.shape[3]), dtype=np.uint8)
        for place, (index, (top, left)) in enumerate(zip(members.tolist(), corners.tolist(), strict=True)):
            crops[place] = pixels[index, top : top + tall, left : left + wide]
        batch = moved(torch.from_numpy(crops), device).permute(0, 3, 1, 2)
        groups.append(flip(_resize(batch, (height, width)), generator))
    return torch.cat(groups)


def _crop_sizes(groups: int, height: int, width: int, generator: torch.Generator) -> list[tuple[int, int]]:
    draws = torch.rand(groups, 2, generator=generator, dtype=torch.float64)
    area = CROP_AREA[0] + draws[:, 0] * (CROP_AREA[1] - CROP_AREA[0])
    low, high = math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1])
    ratio = torch.exp(low + draws[:, 1] * (high - low))
    tall = ((area / ratio).sqrt() * height).round().clamp(1, height).int().tolist()
    wide = ((area * ratio).sqrt() * width).round().clamp(1, width).int().tolist()
    return list(zip(tall, wide, strict=True))


def _resize(batch: Tensor, size: tuple[int, int]) -> Tensor:
    # Only the CPU interpolates bytes as they are, with its fastest kernel.
    batch = batch if batch.device.type == "cpu" else batch.float()
    return F.interpolate(batch, size=size, mode="bilinear", align_corners=False)


def flip(batch: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each picture with probability one half; those that are come first in the batch."""
    count = int((torch.rand(len(batch), generator=generator) < 0.5).sum())
    return torch.cat([batch[:count].flip(3), batch[count:]]) if count else batch


def cutout(batch: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Set a rectangle in each picture to zero, in place (DeVries & Taylor 2017); its centre lies anywhere.

    Args:
        batch: normalised (N, C, H, W), of which zero is the set's mean colour.
        share: side of the rectangle as a share of the picture's.
    """
    inside = []
    for axis in (2, 3):
        side = batch.shape[axis]
        length = round(share * side)
        first = torch.randint(0, side, (len(batch), 1), generator=generator) - length // 2
        place = torch.arange(side)
        inside.append(((place >= first) & (place < first + length)).to(batch.device))
    return batch.masked_fill_(inside[0][:, None, :, None] & inside[1][:, None, None, :], 0.0)


def randaugment(batch: Tensor, operations: int, magnitude: float, generator: torch.Generator) -> Tensor:
    """Apply to each picture some operations that are drawn at random (Cubuk et al. 2020, section 3).

    Args:
        batch: float pixels 0..255 (N, C, H, W).
        operations: how many a picture, one after the other.
        magnitude: strength, 0 to 10.
    """
    strength = magnitude / 10
    batch = batch.contiguous()  # sums over a picture take twice as long with the channels last
    for _ in range(operations):
        drawn = torch.randint(len(OPERATIONS), (len(batch),), generator=generator)
        signs = torch.randint(2, (len(batch),), generator=generator) * 2.0 - 1.0
        # Sorted by operation, each one's pictures lie side by side: two copies a round instead of two an operation.
        order = drawn.argsort(stable=True)
        counts = torch.bincount(drawn, minlength=len(OPERATIONS)).tolist()
        pieces = batch[order.to(batch.device)].split(counts)
        ways = signs[order].to(batch.device)[:, None, None, None].split(counts)
        changed = [
            operation(piece, strength, way).clamp_(0.0, 255.0) if len(piece) else piece
            for operation, piece, way in zip(OPERATIONS.values(), pieces, ways, strict=True)
        ]
        batch = torch.cat(changed)[order.argsort().to(batch.device)]
    return batch


Operation = Callable[[Tensor, float, Tensor], Tensor]
"""(float pixels 0..255 (N, C, H, W), strength 0..1, sign ±1 (N, 1, 1, 1)) -> pixels; free to exceed 0..255."""


def _identity(batch: Tensor, strength: float, sign: Tensor) -> Tensor:
    return batch


def _grey(batch: Tensor) -> Tensor:
    """Luminance of ITU-R BT.601, as Pillow takes it."""
    if batch.shape[1] == 1:
        return batch
    weights = torch.tensor([0.299, 0.587, 0.114], device=batch.device)[:, None, None]
    return (batch * weights).sum(dim=1, keepdim=True)


def _blend(batch: Tensor, other: Tensor, strength: float, sign: Tensor) -> Tensor:
    """Move away from ``other``, or towards it, by up to nine tenths of the distance."""
    return other + (batch - other) * (1.0 + 0.9 * strength * sign)


def _brightness(batch: Tensor, strength: float, sign: Tensor) -> Tensor:
    return batch * (1.0 + 0.9 * strength * sign)


def _contrast(batch: Tensor, strength: float, sign: Tensor) -> Tensor:
    return _blend(batch, _grey(batch).mean(dim=(1, 2, 3), keepdim=True), strength, sign)


def _colour(batch: Tensor, strength: float, sign: Tensor) -> Tensor:
    return _blend(batch, _grey(batch), strength, sign)


def _sharpness(batch: Tensor, strength: float, sign: Tensor) -> Tensor:
    if min(batch.shape[2:]) < 3:
        return batch
    # Pillow's SMOOTH, a 3×3 box with a centre of 5, leaves the border alone. Shifted sums beat a convolution here.
    across = batch[..., :-2] + batch[..., 1:-1] + batch[..., 2:]
    box = across[..., :-2, :] + across[..., 1:-1, :] + across[..., 2:, :]
    smooth = batch.clone()
    smooth[:, :, 1:-1, 1:-1].mul_(4.0).add_(box).div_(13.0)
    return _blend(batch, smooth, strength, sign)


def _posterize(batch: Tensor, strength: float, sign: Tensor) -> Tensor:
    """Keep 8 bits of each level at strength 0, 4 at strength 1."""
    step = 2.0 ** round(4 * strength)
    return (batch / step).floor() * step


def _solarize(batch: Tensor, strength: float, sign: Tensor) -> Tensor:
    """Invert what is brighter than 256 at strength 0, everything at strength 1."""
    return batch + (batch >= 256.0 * (1.0 - strength)) * (255.0 - 2.0 * batch)


def _autocontrast(batch: Tensor, strength: float, sign: Tensor) -> Tensor:
    low, high = (value[..., None] for value in batch.flatten(2).aminmax(dim=2, keepdim=True))
    # Less than one level is the rounding of an earlier operation, not a picture.
    varied = high - low >= 1.0
    scale = torch.where(varied, 255.0 / (high - low), 1.0)
    return (batch - torch.where(varied, low, 0.0)).mul_(scale)


def _equalize(batch: Tensor, strength: float, sign: Tensor) -> Tensor:
    """Spread the levels of each channel evenly, by Pillow's table: ``(sum below + step / 2) // step``."""
    shape = batch.shape
    levels = batch.round().long().reshape(shape[0] * shape[1], -1)
    counts = torch.zeros(len(levels), 256, dtype=torch.long, device=batch.device)
    counts.scatter_add_(1, levels, torch.ones_like(levels))
    step = (levels.shape[1] - counts.gather(1, levels.amax(dim=1, keepdim=True))) // 255
    table = ((counts.cumsum(1) - counts) + step // 2) // step.clamp(min=1)
    spread = table.clamp(0, 255).gather(1, levels).to(batch.dtype)
    return torch.where(step > 0, spread, batch.reshape(levels.shape)).reshape(shape)


def _geometric(matrix: Callable[[float, Tensor], tuple[Tensor, ...]]) -> Operation:
    """Make an operation of the first two rows of a matrix that maps places of the result to places of the picture."""

    def operation(batch: Tensor, strength: float, sign: Tensor) -> Tensor:
        flat = sign.reshape(-1)
        theta = torch.stack([value.expand(len(flat)) for value in matrix(strength, flat)], dim=1).view(-1, 2, 3)
        # In units of half a side; a rotation of a picture that is not square needs both sides' ratio.
        ratio = batch.shape[2] / batch.shape[3]
        theta = theta * torch.tensor([[1.0, ratio, 1.0], [1 / ratio, 1.0, 1.0]], device=batch.device)
        grid = F.affine_grid(theta, list(batch.shape), align_corners=False)
        # What comes in from outside is mid-grey: zero of a shifted scale.
        return F.grid_sample(batch - _GREY_LEVEL, grid, align_corners=False) + _GREY_LEVEL

    return operation


def _rotate(strength: float, sign: Tensor) -> tuple[Tensor, ...]:
    angle = sign * (math.radians(30) * strength)
    zero = torch.zeros_like(sign)
    return angle.cos(), -angle.sin(), zero, angle.sin(), angle.cos(), zero


def _shear_x(strength: float, sign: Tensor) -> tuple[Tensor, ...]:
    one, zero = torch.ones_like(sign), torch.zeros_like(sign)
    return one, sign * 0.3 * strength, zero, zero, one, zero


def _shear_y(strength: float, sign: Tensor) -> tuple[Tensor, ...]:
    one, zero = torch.ones_like(sign), torch.zeros_like(sign)
    return one, zero, zero, sign * 0.3 * strength, one, zero


def _translate_x(strength: float, sign: Tensor) -> tuple[Tensor, ...]:
    one, zero = torch.ones_like(sign), torch.zeros_like(sign)
    return one, zero, sign * 0.9 * strength, zero, one, zero


def _translate_y(strength: float, sign: Tensor) -> tuple[Tensor, ...]:
    one, zero = torch.ones_like(sign), torch.zeros_like(sign)
    return one, zero, zero, zero, one, sign * 0.9 * strength


OPERATIONS: Mapping[str, Operation] = {
    "identity": _identity, "autocontrast": _autocontrast, "equalize": _equalize, "rotate": _geometric(_rotate),
    "solarize": _solarize, "colour": _colour, "posterize": _posterize, "contrast": _contrast,
    "brightness": _brightness, "sharpness": _sharpness, "shear_x": _geometric(_shear_x),
    "shear_y": _geometric(_shear_y), "translate_x": _geometric(_translate_x), "translate_y": _geometric(_translate_y),
}  # fmt: skip
"""The fourteen operations of the paper, by name."""
