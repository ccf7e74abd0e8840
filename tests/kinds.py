"""Sets of pictures of every kind that people have, small and quick to make."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from data_pictures import class_folders, picture, save
from pictures import folder


def npz(root: Path) -> str:
    """Thirty pictures of 12×20 with a validation part that is prescribed."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 12, 20, 3), dtype=np.uint8)
    labels = np.arange(40) % 4
    path = root / "set.npz"
    np.savez(path, x_train=pixels[:28], y_train=labels[:28], x_val=pixels[28:], y_val=labels[28:])
    return str(path)


def grey(root: Path) -> str:
    for code, name in enumerate(("a", "b")):
        for index in range(8):
            save(root / "grey" / name / f"{index}.png", picture(100 * code + index, (28, 28), channels=1))
    return str(root / "grey")


def imbalanced(root: Path) -> str:
    for code, (name, count) in enumerate({"common": 40, "rare": 5}.items()):
        for index in range(count):
            save(root / "uneven" / name / f"{index}.png", picture(1000 * code + index, (300, 400)))
    return str(root / "uneven")


def tiny(root: Path) -> str:
    """Two pictures a class: one to learn from and one to choose by."""
    return str(class_folders(root / "tiny", each=2))


def mixed(root: Path) -> str:
    """Proportions that differ, a broken picture, copies, and names that no comment could hold."""
    for code, name in enumerate(("x\ny", "z: #")):
        for index in range(6):
            save(root / "mixed" / name / f"{index}.jpg", picture(50 * code + index, (20 + 30 * index, 60)))
    (root / "mixed" / "z: #" / "bro\nken.jpg").write_bytes(b"no picture")
    Image.open(root / "mixed" / "z: #" / "0.jpg").save(root / "mixed" / "z: #" / "a.png")
    Image.open(root / "mixed" / "z: #" / "0.jpg").save(root / "mixed" / "z: #" / "b.png")
    return str(root / "mixed")


KINDS: dict[str, Callable[[Path], str]] = {
    "folder": lambda root: str(folder(root / "photos", each=12)),
    "npz": npz,
    "digits": lambda root: "digits",
    "grey": grey,
    "imbalanced": imbalanced,
    "tiny": tiny,
    "mixed": mixed,
}
