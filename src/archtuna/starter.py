"""A search file to begin with."""

from __future__ import annotations

from typing import Any

from archtuna.errors import SpecError

_TEXT = """\
# A search file of archtuna: a model file with choices in it.
# a|b|c chooses, lo..hi and lo..hi/step range, `lo..hi log` is logarithmic. `archtuna blocks` lists the modules.

input_channel: {channels}
input_size: {size}
depth_multiple: 1.0
width_multiple: 0.5|0.75|1.0

backbone:  # [repeat, Module, [arguments]] or [repeat, Module, {{name: value}}]
{rows}
  - [1, GlobalAvgPool, []]
  - [1, Flatten, []]
  - [1, Linear, [{classes}]]

data: {{{path}val: 0.15, test: 0.15}}  # the search never sees the test part; `archtuna train` reports on it

training:
  epochs: 12
  batch_size: 64
  optimizer: adamw
  lr: 0.0005..0.005 log
  label_smoothing: 0.05
  augment: simple

objectives: [f1, params]
limits: [params <= 1M]
search: {{trials: 40}}
"""


def starter(*, data: Any = None, classes: int | None = None, input_size: Any = None) -> str:
    """Return a commented search file for a set of pictures.

    Args:
        data: what ``Data.open`` takes; its classes, channels and size are looked up.
        classes: instead of the data's.
        input_size: side in pixels or (height, width), instead of one that fits the data.

    Raises:
        SpecError: neither says how many classes there are.
        DataError: the data cannot be opened.
    """
    channels, size = 3, 64
    if data is not None:
        from archtuna.data import Data
        from archtuna.driver import default_side

        pictures = Data.open(data)
        classes = classes or len(pictures.classes)
        channels, size = pictures.channels, default_side(pictures.native_size)
    if classes is None:
        raise SpecError("how many classes?", hint="name the pictures with --data, or say --classes N")
    side = input_size or size
    text = f"[{side[0]}, {side[1]}]" if isinstance(side, tuple) else str(side)
    smallest = min(side) if isinstance(side, tuple) else side
    path = "" if data is None else f"path: {_quoted(str(data))}, "
    return _TEXT.format(channels=channels, size=text, rows="\n".join(_rows(smallest)), classes=classes, path=path)


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
