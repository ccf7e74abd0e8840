"""The pictures that a network is calibrated with before it is quantised: some of those that it was trained on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from archtuna.errors import DataError

if TYPE_CHECKING:
    import numpy as np

    from archtuna.data import Images, Preprocess, Split
    from archtuna.files import Place

PICTURES = 256
"""How many suffice: four times as many gained nothing (benchmarks/results/int8.md)."""

BATCH = 32
"""Pictures at once; every activation of a batch is in memory."""


def calibration_batches(
    path: str | Place, *, data: Any = None, pictures: int = PICTURES, seed: int = 0
) -> list[np.ndarray]:
    """Return training pictures of a checkpoint in batches (n × C × H × W, float32), normalised as its network takes them.

    Args:
        path: the checkpoint; it carries the split and where its pictures were.
        data: where the pictures are, should they have moved.
        pictures: about how many; each class has its share, and one at least.
        seed: of the choice.

    Raises:
        CheckpointError: the file is no checkpoint.
        DataError: these are other pictures than it was trained on.
    """
    from archtuna.checkpoint import read_header
    from archtuna.data import Split

    header = read_header(path)
    opened = header.open_data(data)
    images, preprocess = header.images(opened)
    return calibration_of(images, Split.from_dict(header.data, opened), preprocess, pictures=pictures, seed=seed)


def calibration_of(
    images: Images, split: Split, preprocess: Preprocess, *, pictures: int = PICTURES, seed: int = 0
) -> list[np.ndarray]:
    """Return pictures of a split's training part in batches (n × C × H × W, float32), normalised, not augmented.

    Args:
        images: the cached pictures.
        split: of them.
        preprocess: normalises them.
        pictures: about how many; each class has its share, and one at least.
        seed: of the choice.

    Raises:
        DataError: no pictures are asked for, or the preprocessing is for others.
    """
    from archtuna.data import Batches

    if pictures < 1:
        raise DataError(f"{pictures} pictures cannot calibrate a network", hint="some hundred suffice")
    # A split that was reduced for the search is not reduced further: the choice is made as of a whole one.
    whole = replace(split, part=None)
    chosen = whole.subset(min(1.0, pictures / len(split.train)), seed).train
    return [x.numpy() for x, _ in Batches(images, chosen, preprocess, batch_size=BATCH)]
