"""Small pictures for the tests of image sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("blue", "green", "red")


def picture(seed: int, size: tuple[int, int] = (20, 30), channels: int = 3) -> Image.Image:
    """A smooth picture of (height, width), different for every seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BILINEAR)
    return image if channels == 3 else image.convert("L")


def save(path: Path, image: Image.Image, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def class_folders(root: Path, each: int = 8, suffix: str = ".png", classes: tuple[str, ...] = CLASSES) -> Path:
    """A folder of class folders of ``each`` pictures."""
    for code, name in enumerate(classes):
        for index in range(each):
            save(root / name / f"{index}{suffix}", picture(1000 * code + index))
    return root


def arrays(count: int = 30, classes: int = 3, size: tuple[int, int] = (8, 8)) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (n, H, W, 3) and labels that every library version makes alike."""
    shape = (count, *size, 3)
    values = np.arange(np.prod(shape), dtype=np.uint64) * np.uint64(2654435761) >> np.uint64(7)
    return (values % np.uint64(256)).astype(np.uint8).reshape(shape), np.arange(count) % classes
