"""The listing of a folder of class folders: which files are pictures, of which class, in which part."""

from __future__ import annotations

import logging
import os
import time
import unicodedata
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from archtuna.data.ledger import Ledger, Stamp, stamp_of
from archtuna.data.picture import SUFFIXES, Seen, Size, inspect, quiet_decoders, read
from archtuna.devices import usable_cores
from archtuna.errors import DataError

logger = logging.getLogger("archtuna")

PARTS: Mapping[str, str] = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""Names of folders that prescribe a part of the split, in lower case."""

TOGETHER = 4096
"""Pictures that are handed to the readers at once."""

NOTED_SECONDS = 60.0
"""How often a long reading is noted, so that one that is interrupted need not begin anew."""


class Entry(NamedTuple):
    """A picture file: its name relative to the source (with ``/``, NFC), its path, class and part."""

    name: str
    path: str
    label: str
    part: str


def list_pictures(root: Path) -> tuple[list[str], list[Entry]]:
    """Return the class names and every picture file of a folder, both sorted; nothing is opened.

    Raises:
        DataError: the folder has no classes, only one, an empty one, or pictures outside of class folders.
    """
    parts = _part_folders(root)
    entries: list[Entry] = []
    classes: set[str] = set()
    for folder, part in parts or [(root, "")]:
        names = _class_folders(root, folder)
        if part in ("", "train"):
            classes.update(names)
        elif unknown := sorted(set(names) - classes):
            raise DataError(f"{folder}: class '{unknown[0]}' does not occur in train", hint=_known(classes))
        for label, place in names.items():
            entries += [Entry(_relative(root, file), file, label, part) for file in _walk(place)]
    _check_classes(root, classes, entries)
    return sorted(classes), sorted(entries)


def look_at(root: Path, entries: list[Entry]) -> list[tuple[Seen, Stamp]]:
    """Return what each picture file is like, and its stamp; only those that are new or changed since then are read."""
    ledger = Ledger(root)
    stamps = {entry.name: _stamp(entry.path) for entry in entries}
    recalled = {name: ledger.recall(name, stamp) for name, stamp in stamps.items()}
    seen = {name: Seen(*fact) for name, fact in recalled.items() if fact is not None}
    missing = [entry for entry in entries if entry.name not in seen]
    if missing:
        logger.info("reading %s of %s pictures in %s", f"{len(missing):,}", f"{len(entries):,}", root)
        noted = time.monotonic()
        with quiet_decoders(), ThreadPoolExecutor(usable_cores()) as pool:
            for start in range(0, len(missing), TOGETHER):
                some = missing[start : start + TOGETHER]
                seen.update(zip((entry.name for entry in some), pool.map(inspect, [e.path for e in some]), strict=True))
                if time.monotonic() - noted > NOTED_SECONDS:
                    _note(ledger, stamps, seen)
                    noted = time.monotonic()
    _note(ledger, stamps, seen)
    return [(seen[entry.name], stamps[entry.name]) for entry in entries]


def read_unchanged(path: str, stamp: Stamp, digest: str, size: Size) -> Image.Image:
    """Return a picture that is still what it was when ``look_at`` saw it.

    Raises:
        DataError: it is not, or cannot be read.
    """
    image = read(path, size)
    # Looked at afterwards: what was read is not newer than that. A stamp changes with a file's rights, too.
    if _stamp(path) != stamp and inspect(path).digest != digest:
        raise DataError("changed since the set was opened")
    return image


def _note(ledger: Ledger, stamps: Mapping[str, Stamp], seen: Mapping[str, Seen]) -> None:
    """Remember what was read; a picture that could not be is read again, since that may pass."""
    ledger.note({name: (stamps[name], list(fact)) for name, fact in seen.items() if fact.reason is None})


def _part_folders(root: Path) -> list[tuple[Path, str]]:
    """Train first, then the others; empty when the folder prescribes no parts."""
    found = [(entry, PARTS[entry.name.lower()]) for entry in _folders(root) if entry.name.lower() in PARTS]
    parts = [part for _, part in found]
    if "train" not in parts:
        if len(found) > 1:
            names = ", ".join(folder.name for folder, _ in found)
            logger.warning("%s: without a folder 'train' these are classes, not parts: %s", root, names)
        return []
    train = next(folder for folder, part in found if part == "train")
    others = [e.name for e in _folders(root) if e.name.lower() not in PARTS and next(_walk(e), None)]
    if others and not _folders(train):
        return []  # A class of that name: there are pictures in it, and in folders beside it.
    if others:
        raise DataError(
            f"{root}: beside {train.name} there are folders with pictures that are no part: {', '.join(others[:5])}",
            hint="parts are train, val and test: move the others away, or rename them",
        )
    for part in parts:
        if parts.count(part) > 1:
            names = ", ".join(folder.name for folder, p in found if p == part)
            raise DataError(f"{root}: several folders are the {part} part: {names}", hint="keep one of them")
    return sorted(found, key=lambda pair: ("train", "val", "test").index(pair[1]))


def _class_folders(root: Path, folder: Path) -> dict[str, Path]:
    names = {unicodedata.normalize("NFC", entry.name): entry for entry in _folders(folder)}
    if names:
        return names
    loose = any(_is_picture(entry) for entry in _scan(folder))
    if loose:
        hint = f"put each picture into a folder named after its class, such as {folder.name}/cat/1.jpg"
        raise DataError(f"{folder}: there are pictures, but no class folders", hint=hint)
    raise DataError(f"{folder}: there are no class folders", hint=f"make {root.name}/<class>/<picture> of it")


def _check_classes(root: Path, classes: set[str], entries: list[Entry]) -> None:
    if empty := sorted(classes - {entry.label for entry in entries}):
        raise DataError(f"{root}: class '{empty[0]}' has no pictures", hint="put pictures into it, or remove it")
    if len(classes) == 1:
        (label,) = classes
        inside = [folder.name for folder in _folders(root / label)] if (root / label).is_dir() else []
        hint = f"did you mean {root / label}?" if len(inside) > 1 else "a classifier needs two classes or more"
        raise DataError(f"{root}: there is only one class, '{label}'", hint=hint)


def _known(classes: set[str]) -> str:
    return f"classes of train: {', '.join(sorted(classes)[:20])}"


def _scan(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}") from error


def _hidden(name: str) -> bool:
    return name.startswith((".", "__"))


def _folders(folder: Path) -> list[Path]:
    return [Path(entry.path) for entry in _scan(folder) if not _hidden(entry.name) and _is_folder(entry)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_picture(entry: os.DirEntry[str]) -> bool:
    if _hidden(entry.name) or os.path.splitext(entry.name)[1].lower() not in SUFFIXES:
        return False
    try:
        # A dangling link is listed, so that it is named as broken; a pipe or device is not.
        return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))
    except OSError:  # a link to itself
        return True


def _walk(folder: Path) -> Iterator[str]:
    """Yield the picture files below a folder, following links, each real folder once."""
    visited: set[tuple[int, int]] = set()
    waiting = [os.fspath(folder)]
    while waiting:
        place = waiting.pop()
        seen = os.stat(place)
        if (seen.st_dev, seen.st_ino) in visited:
            continue
        visited.add((seen.st_dev, seen.st_ino))
        entries = _scan(place)
        yield from (entry.path for entry in entries if _is_picture(entry))
        waiting += reversed([entry.path for entry in entries if not _hidden(entry.name) and _is_folder(entry)])


def _stamp(path: str) -> Stamp:
    try:
        return stamp_of(path)
    except OSError:  # reading it will give the reason
        return 0, 0, 0


def _relative(root: Path, file: str) -> str:
    return unicodedata.normalize("NFC", Path(os.path.relpath(file, root)).as_posix())
