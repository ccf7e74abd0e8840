"""A search file to begin with: one for any pictures, or one of the ready spaces in ``spaces/``.

Ready spaces are commented search files in which ``CLASSES``, ``CHANNELS``, ``SIZE`` and ``DATA`` stand for what the pictures
say. The head of such a file describes it in two sentences, which ``spaces`` reads and the tests hold to.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from archtuna.errors import SpecError, nearest
from archtuna.registry import UnknownNameError

_TEXT = """\
# A search file of archtuna: a model file with choices in it.
# a|b|c chooses, lo..hi and lo..hi/step range, `lo..hi log` is logarithmic. `archtuna blocks` lists the modules.

input_channel: CHANNELS
input_size: SIZE
depth_multiple: 1.0
width_multiple: 0.5|0.75|1.0

backbone:  # [repeat, Module, [arguments]] or [repeat, Module, {name: value}]
ROWS
  - [1, GlobalAvgPool, []]
  - [1, Flatten, []]
  - [1, Linear, [CLASSES]]

data: DATA  # the search never sees the test part; `archtuna train` reports on it

training:
  epochs: 12
  batch_size: 64
  optimizer: adamw
  lr: 0.0005..0.005 log
  label_smoothing: 0.05
  augment: simple

objectives: [f1, params]
limits: [params <= 1M]
search: {trials: 40}
"""
_SIDE = 64
_UNITS: Mapping[str, float] = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}
_COST = r"([\d.]+)([kMG]?)"
_HEAD = re.compile(
    r"# (?P<meaning>.+)\n"
    r"# (?P<costs>.+) MACs \(10 classes, 3 channels, input_size (?P<size>\S+)\)\. For (?P<smallest>\d+) pixels or more\.\n"
)


@dataclass(frozen=True)
class ReadySpace:
    """A search space that comes with the package.

    Attributes:
        name: what it is called.
        meaning: one sentence.
        params: parameters of its smallest and its largest network, to two digits, for 10 classes and 3 channels.
        macs: multiply-accumulates of these at its own input size.
        input_size: its own side in pixels as a file writes it; a choice where the size is searched.
        smallest: the smallest side that it is for.
        text: the file, with what the pictures say left open.
    """

    name: str
    meaning: str
    params: tuple[int, int]
    macs: tuple[int, int]
    input_size: str
    smallest: int
    text: str

    @property
    def searches_size(self) -> bool:
        return not self.input_size.isdigit()


def spaces() -> dict[str, ReadySpace]:
    """Return the ready spaces by name."""
    found = sorted((files("archtuna") / "spaces").iterdir(), key=lambda file: file.name)
    names = [file.name.removesuffix(".yaml") for file in found]
    return {name: _read(name, file.read_text(encoding="utf-8")) for name, file in zip(names, found, strict=True)}


def _read(name: str, text: str) -> ReadySpace:
    """Read the head of a ready space."""
    head = _HEAD.match(text)
    assert head is not None, f"{name}.yaml does not begin with its two sentences"
    costs = [round(float(number) * _UNITS[unit]) for number, unit in re.findall(_COST, head["costs"])]
    return ReadySpace(
        name=name,
        meaning=head["meaning"],
        params=(costs[0], costs[1]),
        macs=(costs[2], costs[3]),
        input_size=head["size"],
        smallest=int(head["smallest"]),
        text=text,
    )


def short(cost: float) -> str:
    """Write a cost as limits are written, with two digits: ``74k``, ``6.8M``."""
    rounded = float(f"{cost:.2g}")
    unit = max((unit for unit in _UNITS if _UNITS[unit] <= max(rounded, 1)), key=_UNITS.__getitem__)
    return f"{rounded / _UNITS[unit]:g}{unit}"


def starter(*, data: Any = None, classes: int | None = None, input_size: Any = None, space: str | None = None) -> str:
    """Return a commented search file for a set of pictures.

    Args:
        data: what ``Data.open`` takes; its classes, channels and size are looked up.
        classes: instead of the data's.
        input_size: side in pixels or (height, width), instead of one that fits the data. A ready space that searches the
            size does so unless one is given.
        space: a ready space; by default rows are made that fit the size.

    Raises:
        UnknownNameError: no ready space has that name.
        SpecError: neither says how many classes there are, or the size is below what the space is for.
        DataError: the data cannot be opened.
    """
    ready = None if space is None else _named(space)
    channels, size = 3, _SIDE if ready is None else ready.input_size
    if data is not None:
        from archtuna.data import Data
        from archtuna.driver import default_side

        pictures = Data.open(data)
        classes = classes or len(pictures.classes)
        channels = pictures.channels
        if ready is None or not ready.searches_size:
            size = default_side(pictures.native_size)
    if classes is None:
        raise SpecError("how many classes?", hint="name the pictures with --data, or say --classes N")
    sides = input_size if isinstance(input_size, tuple) else (input_size or size,)
    if ready is not None and input_size is not None:
        _check_side(ready, min(sides))
    path = "" if data is None else f"path: {_quoted(str(data))}, "
    given = {
        "CLASSES": str(classes),
        "CHANNELS": str(channels),
        "SIZE": f"[{sides[0]}, {sides[1]}]" if len(sides) == 2 else str(sides[0]),
        "DATA": f"{{{path}val: 0.15, test: 0.15}}",
    }
    if ready is None:
        given["ROWS"] = "\n".join(_rows(min(sides)))
    return re.sub(rf"\b({'|'.join(given)})\b", lambda found: given[found[0]], _TEXT if ready is None else ready.text)


def _named(name: str) -> ReadySpace:
    known = spaces()
    if name not in known:
        hint = nearest(name, known) or f"known: {', '.join(known)}"
        raise UnknownNameError(f"no ready space is named '{name}'", hint=hint)
    return known[name]


def _check_side(space: ReadySpace, side: int) -> None:
    if side < space.smallest:
        hint = f"--input-size {space.smallest}, or no --space for rows that fit the size"
        raise SpecError(f"the space '{space.name}' is for {space.smallest} pixels or more, not {side}", hint=hint)


def _rows(side: int) -> list[str]:
    """Return rows that halve the map until about four pixels a side are left, so that it never vanishes."""
    stride, channels = (2 if side >= 32 else 1), 24
    rows = [f"  - [1, Conv, [16, 3, {stride}, null, 1, HardSwish]]"]
    side //= stride
    while side > 4 and channels <= 96:
        rows.append(f"  - [1..3, InvertedResidualv3, [3|5, 2..6, {channels}, 0|1, 0|1, 2]]")
        side, channels = side // 2, channels * 2 if channels < 48 else channels + 48
    return rows


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
