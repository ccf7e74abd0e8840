"""Pictures that a small network can learn to tell apart in a few epochs."""

from pathlib import Path

import numpy as np
from PIL import Image

KINDS = ("dots", "stripes", "waves")


def photograph(kind: int, seed: int, size: int = 24) -> Image.Image:
    """A noisy picture of one kind: one of three textures in one of three tints."""
    rng = np.random.default_rng((kind, seed))
    y, x = np.mgrid[:size, :size] + rng.integers(0, 8, 2)[:, None, None]
    texture = [(x // 3 + y // 3) % 2, (x // 3) % 2, np.sin(y / 2) > 0][kind]
    tint = np.full(3, 90.0)
    tint[kind] = 170.0
    pixels = 60 * texture[..., None] + tint + rng.normal(0, 25, (size, size, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def folder(root: Path, each: int = 24) -> Path:
    """Class folders of JPEG files, ``each`` a class."""
    for kind, name in enumerate(KINDS):
        (root / name).mkdir(parents=True, exist_ok=True)
        for seed in range(each):
            photograph(kind, seed).save(root / name / f"{seed:03}.jpg", quality=92)
    return root
