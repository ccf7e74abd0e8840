"""Epochs of batches, ready for the model: cut from the cache, augmented and normalised together, never decoded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from archtuna.data.augment import crop_and_flip, cutout, flip, randaugment, take
from archtuna.data.images import Images
from archtuna.data.preprocess import Preprocess
from archtuna.devices import moved
from archtuna.errors import DataError
from archtuna.recipe import Recipe


class Batches:
    """The pictures of one part of a split, in batches, an epoch at a time.

    Without a recipe they are for evaluation: in order, unchanged. With one they are for training: shuffled, augmented.
    An epoch depends on the seed and its number alone, bit for bit on one device.

    Args:
        images: the cached pictures.
        indices: which of them.
        preprocess: normalises them; it is of the images' size and channels.
        batch_size: pictures a batch. While training, a last batch of a single picture joins the one before it, because
            batch norm cannot take it.
        device: where batches are augmented and handed out.
        recipe: for training: ``augment``, ``randaugment_*`` and ``cutout`` are read here.
        seed: of order and augmentation.
        channels_last: memory layout of a batch.

    Raises:
        DataError: there are no pictures, or the preprocessing is for others.
    """

    def __init__(
        self,
        images: Images,
        indices: np.ndarray,
        preprocess: Preprocess,
        *,
        batch_size: int,
        device: str | torch.device = "cpu",
        recipe: Recipe | None = None,
        seed: int = 0,
        channels_last: bool = False,
    ) -> None:
        self.images, self.preprocess, self.recipe = images, preprocess, recipe
        self.indices = np.asarray(indices, dtype=np.int64)
        self.batch_size, self.device, self.seed = batch_size, torch.device(device), seed
        self.channels_last = channels_last
        self._check()
        # A plain view: slicing a memory map itself takes many times as long.
        self._pixels = np.asarray(images.pixels)
        self._labels = torch.from_numpy(np.array(images.labels, dtype=np.int64))

    def _check(self) -> None:
        if not len(self.indices):
            raise DataError("there are no pictures to make batches of", hint="val: 0 or test: 0 leaves that part empty")
        if self.batch_size < 1:
            raise DataError(f"batch size {self.batch_size} must be 1 or more")
        made = (self.images.size, self.images.channels, self.images.fit, self.images.via)
        wanted = self.preprocess
        if made != (wanted.size, wanted.channels, wanted.fit, wanted.via or wanted.size):
            raise DataError(f"the pictures are {made}, the preprocessing is for {wanted.to_dict()}")

    @property
    def count(self) -> int:
        """Pictures an epoch."""
        return len(self.indices)

    @property
    def labels(self) -> np.ndarray:
        """The label of each of them, int64."""
        return self._labels.numpy()[self.indices]

    @property
    def training(self) -> bool:
        """Whether pictures are shuffled and augmented."""
        return self.recipe is not None

    def __len__(self) -> int:
        """Batches an epoch."""
        full, rest = divmod(self.count, self.batch_size)
        merged = self.training and rest == 1 and full > 0
        return full if merged else full + (rest > 0)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of an evaluation, whose epochs are all the same.

        Raises:
            TypeError: these are for training, where each epoch has a number.
        """
        if self.training:
            raise TypeError("batches for training differ between epochs: iterate over .epoch(number)")
        return self.epoch(0)

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of one epoch: pictures, float32 (N, C, H, W), and labels, int64 (N,)."""
        generator = torch.Generator().manual_seed(_seed_of(self.seed, number))
        order = self.indices
        if self.training:
            order = order[torch.randperm(self.count, generator=generator).numpy()]
        for position in range(len(self)):
            last = position == len(self) - 1
            start = position * self.batch_size
            chosen = order[start : None if last else start + self.batch_size]
            labels = moved(self._labels[torch.from_numpy(chosen)], self.device)
            yield self._batch(chosen, generator), labels

    def _batch(self, chosen: np.ndarray, generator: torch.Generator) -> Tensor:
        pixels = self._augmented(chosen, generator)
        batch = self.preprocess.normalise(pixels, channels_last=self.channels_last)
        if self.recipe is not None and self.recipe.cutout > 0:
            cutout(batch, self.recipe.cutout, generator)
        return batch

    def _augmented(self, chosen: np.ndarray, generator: torch.Generator) -> Tensor:
        recipe = self.recipe
        if recipe is not None and recipe.augment == "simple":
            return crop_and_flip(self._pixels, chosen, generator, self.device)
        batch = take(self._pixels, chosen, self.device)
        if recipe is None or recipe.augment == "none":
            return batch
        if recipe.augment == "randaugment":
            batch = randaugment(batch.float(), recipe.randaugment_ops, recipe.randaugment_magnitude, generator)
        return flip(batch, generator)


def _seed_of(seed: int, number: int) -> int:
    """A seed for one epoch that shares nothing with those of its neighbours."""
    digest = hashlib.sha256(f"archtuna epoch {seed}/{number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
