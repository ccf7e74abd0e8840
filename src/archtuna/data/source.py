"""An image set: where samples are, their labels and classes. Nothing is decoded until somebody asks."""

from __future__ import annotations

import hashlib
import logging
import os
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from archtuna.data.archive import Arrays, from_dataset, from_pair, keep, open_digits, open_npz
from archtuna.data.folder import Entry, list_pictures, look_at, read_unchanged
from archtuna.data.images import Images, cached_pixels
from archtuna.data.ledger import Ledger, stamp_of
from archtuna.data.picture import Fit, Size, check_form, render, shrink
from archtuna.data.split import Split, cut
from archtuna.errors import DataError, nearest

logger = logging.getLogger("archtuna")

BUILT_IN = ("digits",)
_FINGERPRINT_VERSION = 1


@dataclass(frozen=True, eq=False)
class Data:
    """An image set. Make one with ``Data.open``.

    Attributes:
        source: what another process can open: ``digits``, an absolute path; for data from memory a copy in the cache.
        classes: the name of each label.
        labels: int64 (n,).
        names: of each sample, for messages: its relative path, or ``x_train[17]``.
        part: of each sample, what the source prescribes: ``train``, ``val``, ``test``, or an empty text.
        channels: 1 when all pictures are grey, else 3.
        native_size: median height and median width.
        broken: name and reason of each picture that cannot be used and was left out.
        fingerprint: 16 hexadecimal digits of names, contents and labels; equal on every machine.
        digests: 32 hexadecimal digits of each sample's content; exact copies have the same.
        sizes: int64 (n, 2), height and width of each sample as it is looked at.
        grey: bool (n,), whether a sample has no colour.
    """

    source: str
    classes: tuple[str, ...]
    labels: np.ndarray
    names: Sequence[str]
    part: np.ndarray
    channels: int
    native_size: Size
    broken: tuple[tuple[str, str], ...]
    fingerprint: str
    digests: tuple[str, ...]
    sizes: np.ndarray
    grey: np.ndarray
    _picture: Callable[[int, Size], Image.Image] = field(repr=False)

    @classmethod
    def open(cls, source: Any, *, strict: bool = False) -> Data:
        """Open an image set.

        Args:
            source: ``digits`` (scikit-learn's); the path of a folder of class folders, with or without ``train``,
                ``val`` and ``test`` above them; the path of an ``.npz`` with ``x_train``, ``y_train`` and so on; a
                map-style data set of (picture, label); a pair of tensors or arrays; or a ``Data``, returned as it is.
            strict: refuse a set with a picture that cannot be decoded, instead of leaving it out.

        Raises:
            DataError: the source does not exist or is no image set; the text says what to change.
        """
        if isinstance(source, Data):
            return source
        if isinstance(source, str | os.PathLike):
            return _open_path(os.fspath(source), strict)
        if isinstance(source, tuple | list) and len(source) == 2 and all(hasattr(half, "shape") for half in source):
            return _from_memory(from_pair(*source))
        if hasattr(source, "__len__") and hasattr(source, "__getitem__"):
            return _from_memory(from_dataset(source))
        hint = "give a path, 'digits', a data set with a length, or a pair (x, y)"
        raise DataError(f"a {type(source).__name__} is no image set", hint=hint)

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple[Callable[..., Data], tuple[str]]:
        # Another process opens the source by itself: cheaper than sending lists of names, and nothing can be stale.
        return Data.open, (self.source,)

    def split(self, *, val: float = 0.15, test: float = 0.15, seed: int = 0) -> Split:
        """Cut the set into train, validation and test, stratified by class.

        Parts that the source prescribes stay as they are; a missing one is cut from train. Exact copies of a picture
        never lie in two parts.

        Args:
            val, test: their shares of each class; 0 leaves one out.

        Raises:
            DataError: shares out of range, or a class with too few pictures.
        """
        return cut(self, val=val, test=test, seed=seed)

    def images(self, size: Size, *, channels: int, fit: Fit = "resize", via: Size | None = None) -> Images:
        """Return all pictures at one size from the cache, decoding them when this is the first time.

        Args:
            size: height and width.
            channels: 1 (grey) or 3 (colour).
            fit: ``resize`` stretches a picture, ``pad`` keeps its shape and fills with black.
            via: the largest size in play, which decoding goes to; this one is derived from it. A derived picture
                differs a little from one that was decoded to its size, so a model's preprocessing includes ``via``.

        Raises:
            DataError: a size, channels or fit that cannot be; a picture that changed since opening; a full disk.
        """
        height, width = (int(side) for side in size)
        size, via = (height, width), (int(via[0]), int(via[1])) if via else (height, width)
        check_form(size, channels, fit, via)
        if via == size:
            pixels = self._cached(size, channels, fit, via, lambda i: self.decode(i, size, channels=channels, fit=fit))
        else:
            large = self.images(via, channels=channels, fit=fit).pixels
            pixels = self._cached(size, channels, fit, via, lambda i: shrink(large[i], size))
        return Images(pixels, self.labels, size, channels, fit, via)

    def _cached(self, size: Size, channels: int, fit: Fit, via: Size, draw: Callable[[int], np.ndarray]) -> np.ndarray:
        return cached_pixels(self.fingerprint, len(self), size, channels, fit, via, draw)

    def decode(self, index: int, size: Size, *, channels: int, fit: Fit = "resize") -> np.ndarray:
        """Return one picture, decoded now, as uint8 of shape (height, width, channels).

        Raises:
            DataError: it changed since opening.
        """
        try:
            return render(self._picture(index, size), size, channels=channels, fit=fit)
        except DataError as error:
            hint = "it was another when the set was opened: open the set again"
            raise DataError(f"{self.names[index]}: {error.message}", hint=hint) from error


def _open_path(source: str, strict: bool) -> Data:
    path = Path(source).expanduser()
    if source == "digits" and not path.exists():
        return _from_arrays(open_digits(), "digits")
    if path.is_dir():
        return _open_folder(path.resolve(), strict)
    if path.is_file() and path.suffix.lower() == ".npz":
        return _open_npz(path.resolve())
    if path.is_file():
        hint = "unpack it first" if path.suffix.lower() in (".zip", ".tar", ".gz", ".tgz") else None
        raise DataError(f"{source}: neither a folder nor an .npz file", hint=hint or "give a folder of class folders")
    hint = nearest(source, BUILT_IN) or "give a folder of class folders, an .npz file, or digits"
    raise DataError(f"{source}: no such file or folder", hint=hint)


def _open_folder(root: Path, strict: bool) -> Data:
    classes, entries = list_pictures(root)
    seen = list(zip(entries, look_at(root, entries), strict=True))
    broken = tuple((entry.name, fact.reason) for entry, (fact, _) in seen if fact.reason)
    _report_broken(root, broken, len(entries), strict)
    whole = [(entry, fact) for entry, (fact, _) in seen if not fact.reason]
    stamps = [stamp for _, (fact, stamp) in seen if not fact.reason]
    codes = {name: code for code, name in enumerate(classes)}
    kept: list[Entry] = [entry for entry, _ in whole]
    if missing := sorted(set(classes) - {entry.label for entry in kept}):
        raise DataError(f"{root}: every picture of class '{missing[0]}' is broken", hint="replace them, or the class")
    digests = tuple(fact.digest for _, fact in whole)
    paths = [entry.path for entry in kept]
    sizes, grey = np.array([fact[1:3] for _, fact in whole], dtype=np.int64), np.array([f.grey for _, f in whole])
    labels = np.array([codes[entry.label] for entry in kept], dtype=np.int64)
    return Data(
        source=str(root),
        classes=tuple(classes),
        labels=labels,
        names=tuple(entry.name for entry in kept),
        part=np.array([entry.part for entry in kept]),
        channels=1 if grey.all() else 3,
        native_size=_median(sizes),
        broken=broken,
        fingerprint=_fingerprint([entry.name for entry in kept], digests, labels, classes),
        digests=digests,
        sizes=sizes,
        grey=grey,
        _picture=lambda index, size: read_unchanged(paths[index], stamps[index], digests[index], size),
    )


def _report_broken(root: Path, broken: Sequence[tuple[str, str | None]], total: int, strict: bool) -> None:
    if not broken:
        return
    shown = "; ".join(f"{name} ({reason})" for name, reason in broken[:5])
    shown += f"; and {len(broken) - 5} more" if len(broken) > 5 else ""
    if strict:
        hint = "remove or replace them, or leave out --strict to skip them"
        raise DataError(f"{root}: {len(broken)} of {total} pictures are broken: {shown}", hint=hint)
    logger.warning("%s: %d of %d pictures are broken and skipped: %s", root, len(broken), total, shown)


def _open_npz(path: Path) -> Data:
    arrays = open_npz(path)
    ledger, stamp = Ledger(path), stamp_of(path)
    digests = ledger.recall(path.name, stamp)
    if digests is None:
        digests = arrays.digests()
        ledger.note({path.name: (stamp, digests)})
    return _from_arrays(arrays, str(path), digests)


def _from_memory(arrays: Arrays) -> Data:
    data = _from_arrays(arrays, "memory")
    return _from_arrays(arrays, str(keep(arrays, data.fingerprint)), list(data.digests))


def _from_arrays(arrays: Arrays, source: str, digests: list[str] | None = None) -> Data:
    digests = arrays.digests() if digests is None else digests
    sizes, grey = arrays.shapes[:, :2].astype(np.int64), arrays.shapes[:, 2] == 1
    return Data(
        source=source,
        classes=arrays.classes,
        labels=arrays.labels,
        names=arrays.names,
        part=arrays.parts,
        channels=1 if grey.all() else 3,
        native_size=_median(sizes),
        broken=(),
        fingerprint=_fingerprint(arrays.names, digests, arrays.labels, arrays.classes),
        digests=tuple(digests),
        sizes=sizes,
        grey=grey,
        _picture=lambda index, _: arrays.image(index, digests[index]),
    )


def _median(sizes: np.ndarray) -> Size:
    height, width = np.median(sizes, axis=0)
    return int(height), int(width)


def _fingerprint(names: Sequence[str], digests: Sequence[str], labels: np.ndarray, classes: Sequence[str]) -> str:
    total = hashlib.sha256(f"archtuna data {_FINGERPRINT_VERSION}".encode())
    for text in classes:
        total.update(_portable(text))
    for name, digest, label in zip(names, digests, labels.tolist(), strict=True):
        total.update(_portable(name) + f"{digest}{label}".encode())
    return total.hexdigest()[:16]


def _portable(text: str) -> bytes:
    """One spelling of a name on every file system, ended by a byte that no name has."""
    return unicodedata.normalize("NFC", text).encode("utf-8", "surrogateescape") + b"\0"
