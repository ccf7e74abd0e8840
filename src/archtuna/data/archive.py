"""Image sets as arrays: ``.npz`` files, the built-in digits, and data sets that live in memory."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from archtuna.data.cache import SOURCES, build_once, cache_folder
from archtuna.data.picture import as_array, channels_last, flatten, pixels_to_image, to_bytes
from archtuna.errors import DataError, nearest

PARTS = ("train", "val", "test")
_KEYS = tuple(f"{kind}_{part}" for part in PARTS for kind in ("x", "y"))
_HINT = "expected: x_train, y_train and optionally x_val, y_val, x_test, y_test, class_names"


@dataclass(frozen=True)
class Block:
    """The pictures of one part: uint8, (n, H, W, C), or flat with a shape a picture where sizes differ."""

    part: str
    load: Callable[[], np.ndarray]
    shapes: np.ndarray

    @cached_property
    def pixels(self) -> np.ndarray:
        found = self.load().reshape(-1)
        if len(found) != self.shapes.prod(axis=1, dtype=np.int64).sum():
            raise DataError("changed since the set was opened")
        return found

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum(self.shapes.prod(axis=1, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.shapes)

    def picture(self, index: int) -> np.ndarray:
        end = int(self._ends[index])
        shape = tuple(int(side) for side in self.shapes[index])
        return self.pixels[end - int(np.prod(shape)) : end].reshape(shape)


@dataclass(frozen=True)
class Arrays:
    """Pictures in memory, or in a file that is read when the first one is needed.

    Attributes:
        blocks: one for each part that the source prescribes.
        labels: int64 (n,), in the order of the blocks.
        classes: name of each label.
    """

    blocks: tuple[Block, ...]
    labels: np.ndarray
    classes: tuple[str, ...]

    def __iter__(self) -> Iterator[tuple[Block, int]]:
        return ((block, index) for block in self.blocks for index in range(len(block)))

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(f"x_{block.part}[{index}]" for block, index in self)

    @cached_property
    def parts(self) -> np.ndarray:
        return np.array([block.part for block in self.blocks for _ in range(len(block))])

    @cached_property
    def shapes(self) -> np.ndarray:
        return np.concatenate([block.shapes for block in self.blocks])

    def digests(self) -> list[str]:
        """32 hexadecimal digits a picture: of its shape and its pixels."""
        return [_digest(block.picture(index)) for block, index in self]

    def image(self, index: int, digest: str) -> Image.Image:
        """Return a picture that is still what its digest was made of.

        Raises:
            DataError: it is not, because the file is another now, or an array was written to.
        """
        for block in self.blocks:
            if index < len(block):
                picture = block.picture(index)
                if _digest(picture) != digest:
                    raise DataError("changed since the set was opened")
                return pixels_to_image(picture)
            index -= len(block)
        raise IndexError(index)


def open_digits() -> Arrays:
    """Return scikit-learn's handwritten digits: 1,797 grey pictures of 8×8, values 0..16 scaled to 0..255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int64)
    return Arrays((_stack("train", pixels),), labels, tuple(str(name) for name in digits.target_names))


def open_npz(path: Path) -> Arrays:
    """Return what an ``.npz`` file holds; pictures are read when the first one is needed.

    Raises:
        DataError: the file is damaged, lacks keys, or its arrays do not fit each other.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise DataError(f"{path}: is a single array", hint=_HINT)
            return _from_npz(path, file)
    except DataError:
        raise
    # numpy tells a damaged or foreign file by many exceptions, zlib's and zipfile's among them.
    except Exception as error:
        hint = "object arrays are refused: they can run code" if "allow_pickle" in str(error) else _HINT
        raise DataError(f"{path}: cannot be read as an .npz file: {_first_line(error)}", hint=hint) from error


def _from_npz(path: Path, file: Any) -> Arrays:
    keys = list(file.keys())
    for key in keys:
        if key.lower().startswith(("x_", "y_")) and key.removesuffix("_shapes") not in _KEYS:
            raise DataError(f"{path}: unknown key '{key}'", hint=nearest(key, _KEYS) or _HINT)
    for kind in ("x", "y"):
        if f"{kind}_train" not in keys:
            raise DataError(f"{path}: there is no '{kind}_train'; keys: {', '.join(keys) or 'none'}", hint=_HINT)
    blocks, labels = [], []
    for part in PARTS:
        x, y = f"x_{part}", f"y_{part}"
        if (x in keys) != (y in keys):
            raise DataError(f"{path}: '{x if x in keys else y}' stands without the other", hint=_HINT)
        if x in keys:
            given = _read_labels(file[y], f"{path}: {y}")
            blocks.append(_npz_block(path, file, part))
            if len(blocks[-1]) != len(given):
                raise DataError(f"{path}: {x} has {len(blocks[-1]):,} pictures, {y} {len(given):,} labels")
            labels.append(given)
    names = _read_names(file["class_names"], f"{path}: class_names") if "class_names" in keys else None
    return Arrays(tuple(blocks), *_encode(labels, names, str(path)))


def _npz_block(path: Path, file: Any, part: str) -> Block:
    key = f"x_{part}"
    shape, dtype = _header(path, key)
    if f"{key}_shapes" in file:
        shapes = file[f"{key}_shapes"]
        fits = shapes.ndim == 2 and shapes.shape[1] == 3 and shapes.dtype.kind in "iu" and (shapes > 0).all()
        if not (fits and dtype == np.uint8 and shape == (shapes.prod(axis=1).sum(),)):
            raise DataError(f"{path}: {key} does not fit {key}_shapes", hint="they are written by archtuna itself")
        return Block(part, lambda: _load(path, key), shapes)
    # A stand-in of the same shape that takes no memory: the pictures themselves are often not needed at all.
    layout = stack(np.broadcast_to(np.zeros((), dtype=np.uint8), shape), f"{path}: {key}", copy=False).shape
    shapes = np.tile(np.array(layout[1:]), (layout[0], 1))
    return Block(part, lambda: stack(_load(path, key), f"{path}: {key}"), shapes)


def _header(path: Path, key: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and type of an array in the file without reading it."""
    with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(member)
    if dtype.hasobject:
        raise DataError(f"{path}: {key} holds objects", hint="object arrays are refused: they can run code")
    return shape, dtype


def _load(path: Path, key: str) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as file:
            return file[key]
    except Exception as error:
        raise DataError(f"{path}: {key} cannot be read: {_first_line(error)}") from error


def stack(values: Any, name: str, *, copy: bool = True) -> np.ndarray:
    """Return pictures (n, H, W), (n, H, W, C) or (n, C, H, W) as uint8 (n, H, W, C).

    Raises:
        DataError: another shape or values that are not pixels.
    """
    array = as_array(values)
    if array.ndim not in (3, 4) or 0 in array.shape:
        hint = "give (n, H, W), (n, H, W, C) or (n, C, H, W)"
        raise DataError(f"{name}: pictures have shape {array.shape}", hint=hint)
    array = array[..., None] if array.ndim == 3 else array
    pixels = channels_last(array, first=hasattr(values, "detach"), name=name)
    return np.ascontiguousarray(to_bytes(pixels, name)) if copy else pixels


def _stack(part: str, pixels: np.ndarray) -> Block:
    return Block(part, lambda: pixels, np.tile(np.array(pixels.shape[1:]), (len(pixels), 1)))


def _read_labels(values: Any, name: str) -> np.ndarray:
    array = as_array(values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2:
        hint = "one-hot labels are given as numbers: y.argmax(axis=1)"
        raise DataError(f"{name}: labels have shape {array.shape}, not (n,)", hint=hint)
    if array.ndim != 1 or not len(array):
        raise DataError(f"{name}: labels have shape {array.shape}, not (n,)", hint="give one label for each picture")
    if array.dtype.kind == "f" and np.isfinite(array).all() and (array == np.rint(array)).all():
        array = array.astype(np.int64)
    if array.dtype.kind not in "iubU":
        raise DataError(f"{name}: labels are of type {array.dtype}", hint="give whole numbers or names")
    return array.astype(np.int64) if array.dtype.kind in "iub" else array


def _read_names(values: Any, name: str) -> tuple[str, ...]:
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "USiu":
        raise DataError(f"{name}: class names must be a list of texts")
    names = [value.decode() if isinstance(value, bytes) else str(value) for value in array.tolist()]
    if len(set(names)) != len(names):
        raise DataError(f"{name}: two classes have the same name", hint="give each class a name of its own")
    return tuple(names)


def _encode(labels: list[np.ndarray], names: tuple[str, ...] | None, place: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Number labels 0..k-1 and name the classes."""
    if len({array.dtype.kind for array in labels}) > 1:
        raise DataError(
            f"{place}: labels are numbers in one part and names in another", hint="use one of them everywhere"
        )
    joined = np.concatenate(labels)
    present = np.unique(joined)
    if names is None:
        names = tuple(str(value) for value in present.tolist())
        codes = np.searchsorted(present, joined)
    elif joined.dtype.kind == "U":
        unknown = sorted(set(present.tolist()) - set(names))
        if unknown:
            raise DataError(
                f"{place}: label '{unknown[0]}' is not among the class names", hint="add it to them, or correct it"
            )
        order = {name: code for code, name in enumerate(names)}
        codes = np.array([order[value] for value in joined.tolist()])
    else:
        if present[0] < 0 or present[-1] >= len(names):
            problem = f"labels are {present[0]}..{present[-1]}, but there are {len(names)} class names"
            raise DataError(f"{place}: {problem}", hint="give a name for each label, or none")
        codes = joined
    if len(names) < 2:
        raise DataError(f"{place}: there is only one class, '{names[0]}'", hint="a classifier needs two or more")
    used = np.bincount(codes, minlength=len(names))
    if not used.all():
        empty = names[int(used.argmin())]
        raise DataError(f"{place}: class '{empty}' has no pictures", hint="add some, or leave the class out")
    return codes.astype(np.int64), names


def from_pair(x: Any, y: Any) -> Arrays:
    """Return pictures and labels that are given as two arrays or tensors.

    Raises:
        DataError: they are not pictures and labels, or of different lengths.
    """
    pixels, labels = stack(x, "x"), _read_labels(y, "y")
    if len(pixels) != len(labels):
        raise DataError(
            f"x has {len(pixels):,} pictures, y {len(labels):,} labels", hint="give one label for each picture"
        )
    return Arrays((_stack("train", pixels),), *_encode([labels], None, "y"))


def from_dataset(dataset: Any) -> Arrays:
    """Return what a map-style data set holds: ``len(d)``, ``d[i] -> (picture, label)``, optionally ``d.classes``.

    Raises:
        DataError: it has no length, or an item is no pair of a picture and a label.
    """
    pictures, labels = [], []
    for index in range(len(dataset)):
        try:
            image, label = dataset[index]
        # Whatever the user's code raises, the item is named; the cause and its traceback stay attached.
        except Exception as error:
            hint = "each item must be a pair: (picture, label)"
            raise DataError(f"item {index} of the data set: {_first_line(error)}", hint=hint) from error
        pictures.append(_pixels_of(image, f"item {index} of the data set"))
        if not isinstance(label, str):
            label = as_array(label)
            if label.size != 1:
                hint = "one-hot labels are given as numbers: label.argmax()"
                raise DataError(f"item {index} of the data set: its label has shape {label.shape}", hint=hint)
            label = label.item()
        labels.append(label)
    if not pictures:
        raise DataError("the data set is empty", hint="give some pictures of each of two or more classes")
    given = getattr(dataset, "classes", None)
    names = tuple(str(name) for name in given) if isinstance(given, Sequence) and not isinstance(given, str) else None
    coded = _encode([_read_labels(np.array(labels), "labels of the data set")], names, "the data set")
    shapes = np.array([picture.shape for picture in pictures])
    flat = np.concatenate([picture.reshape(-1) for picture in pictures])
    return Arrays((Block("train", lambda: flat, shapes),), *coded)


def _pixels_of(image: Any, name: str) -> np.ndarray:
    if isinstance(image, Image.Image):
        plain = flatten(image, 3)
        grey = image.mode in ("1", "L", "LA") or image.mode.startswith(("I", "F"))
        return np.asarray(plain)[..., :1] if grey else np.asarray(plain)
    array = as_array(image)
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise DataError(f"{name}: a picture has shape {array.shape}", hint="give (H, W), (H, W, C) or (C, H, W)")
    array = array[..., None] if array.ndim == 2 else array
    return to_bytes(channels_last(array, first=hasattr(image, "detach"), name=name), name)


def keep(arrays: Arrays, fingerprint: str) -> Path:
    """Write arrays into the cache, where other processes can open them, and return the file's path.

    Raises:
        DataError: the cache cannot be written.
    """
    target = cache_folder() / SOURCES / f"{fingerprint}.npz"
    start, content = 0, {"class_names": np.array(arrays.classes)}
    for block in arrays.blocks:
        content[f"y_{block.part}"] = arrays.labels[start : start + len(block)]
        uniform = bool((block.shapes == block.shapes[0]).all())
        pixels = block.pixels
        content[f"x_{block.part}"] = pixels.reshape(-1, *block.shapes[0].tolist()) if uniform else pixels
        if not uniform:
            content[f"x_{block.part}_shapes"] = block.shapes
        start += len(block)
    build_once(target, zipfile.is_zipfile, lambda part: _save(part, content), "a copy of the data from memory")
    return target


def _save(path: Path, content: Mapping[str, np.ndarray]) -> None:
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **content)


def _digest(picture: np.ndarray) -> str:
    head = ",".join(str(side) for side in picture.shape).encode()
    return hashlib.sha256(head + b":" + picture.tobytes()).hexdigest()[:32]


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
