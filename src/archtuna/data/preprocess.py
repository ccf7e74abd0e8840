"""From a picture to what a network takes, exactly as in training: the part of a model that is not in its weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from archtuna.data.images import Images
from archtuna.data.picture import Fit, Size, check_form, from_array, read, render, shrink
from archtuna.errors import DataError


@dataclass(frozen=True)
class Preprocess:
    """What is done to a picture before a network sees it.

    Attributes:
        size: height and width of the result.
        channels: 1 (grey) or 3 (colour).
        fit: ``resize`` (stretched) or ``pad`` (shape kept, black around).
        via: the size that pictures are brought to first, or null for none.
        mean, std: of each channel, in units of 0..1.
    """

    size: Size
    channels: int
    fit: Fit
    via: Size | None
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        # Lists, as JSON has them, are taken for tuples: an object that was read back equals the one that was written.
        for name in ("size", "via", "mean", "std"):
            value = getattr(self, name)
            object.__setattr__(self, name, tuple(value) if value is not None else None)
        object.__setattr__(self, "via", None if self.via == self.size else self.via)
        if len(self.mean) != self.channels or len(self.std) != self.channels or not all(s > 0 for s in self.std):
            raise DataError(f"mean {self.mean} and std {self.std} do not fit {self.channels} channels")
        check_form(self.size, self.channels, self.fit, self.via or self.size)

    @classmethod
    def of(cls, images: Images, indices: np.ndarray) -> Preprocess:
        """Return the preprocessing of an image set, normalised by the pictures at ``indices`` (those of training)."""
        mean, std = images.statistics(indices)
        return cls(images.size, images.channels, images.fit, images.via, tuple(mean), tuple(std))

    def __call__(self, image: Image.Image | str | os.PathLike[str] | np.ndarray | torch.Tensor) -> torch.Tensor:
        """Return a picture as float32 (C, H, W), equal bit for bit to what training saw of it.

        Only of a JPEG of more than two million pixels that was decoded before it came here, the result may differ by
        two of 255 levels: a file as large as that is decoded in a coarser, faster way.

        Args:
            image: a PIL image, the path of a file, or an array or tensor of uint8, or floats 0 to 1:
                (H, W), (H, W, C) or (C, H, W).

        Raises:
            DataError: the file is no picture or broken, or the array is none of these.
        """
        pixels = torch.from_numpy(self.render(image)).permute(2, 0, 1)
        return self.normalise(pixels[None])[0]

    def render(self, image: Image.Image | str | os.PathLike[str] | np.ndarray | torch.Tensor) -> np.ndarray:
        """Return a picture as uint8 (H, W, C), as it lies in the cache."""
        first = self.via or self.size
        if isinstance(image, str | os.PathLike):
            image = read(image, first)
        elif not isinstance(image, Image.Image):
            image = from_array(image)
        pixels = render(image, first, channels=self.channels, fit=self.fit)
        return shrink(pixels, self.size)

    def normalise(self, batch: torch.Tensor, *, channels_last: bool = False) -> torch.Tensor:
        """Return pixels 0..255 (N, C, H, W) of any type and layout as float32 of mean 0 and deviation 1.

        Args:
            channels_last: the memory layout of the result; neither costs an extra copy.
        """
        layout = torch.channels_last if channels_last else torch.contiguous_format
        result = torch.empty(batch.shape, dtype=torch.float32, device=batch.device, memory_format=layout)
        result.copy_(batch)
        scale = 1.0 / (255.0 * np.asarray(self.std))
        shift = -np.asarray(self.mean) / np.asarray(self.std)
        # Two rounded operations, never a fused one, give the same bits for one picture and for a batch of any size.
        if channels_last:
            # Rows of whole pixels: four times as fast as broadcasting three values over the last axis.
            width = batch.shape[3]
            rows = result.permute(0, 2, 3, 1).view(-1, width * self.channels)
            rows.mul_(_tensor(np.tile(scale, width), batch)).add_(_tensor(np.tile(shift, width), batch))
            return result
        return result.mul_(_tensor(scale, batch)[:, None, None]).add_(_tensor(shift, batch)[:, None, None])

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that JSON keeps exactly."""
        return {
            "size": list(self.size), "channels": self.channels, "fit": self.fit,
            "via": list(self.via) if self.via else None, "mean": list(self.mean), "std": list(self.std),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocess:
        """Return the preprocessing that ``to_dict`` described.

        Raises:
            DataError: a value is missing or makes no sense.
        """
        try:
            return cls(
                (int(values["size"][0]), int(values["size"][1])), int(values["channels"]), values["fit"],
                tuple(int(side) for side in values["via"]) if values["via"] else None,  # type: ignore[arg-type]
                tuple(float(value) for value in values["mean"]), tuple(float(value) for value in values["std"]),
            )  # fmt: skip
        except (KeyError, TypeError, IndexError, ValueError, OverflowError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"this is no preprocessing: {dict(values)!r}") from error


def _tensor(values: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32, device=like.device)
