"""A search file to begin with: one for any pictures, or one of the ready spaces in ``spaces/``.

Ready spaces are commented search files in which ``CLASSES``, ``CHANNELS``, ``SIZE`` and ``DATA`` stand for what the pictures
say. The head of such a file describes it in two sentences, which ``spaces`` reads and the tests hold to.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
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
    ready = None if space is None else named(space)
    channels: int = 3
    size: Any = _SIDE if ready is None else ready.input_size
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
    if ready is not None and input_size is not None:
        check_side(ready, min(input_size) if isinstance(input_size, tuple) else input_size)
    return filled(ready, classes=classes, channels=channels, size=size_text(input_size or size), data=data)


def filled(space: ReadySpace | None, *, classes: int, channels: int, size: str, data: Any = None) -> str:
    """Return a search file for pictures of which everything is known.

    Args:
        space: a ready space, or None for rows that fit the size.
        size: as a file writes it: ``64``, ``[64, 96]``, or a choice.
        data: where the pictures are.
    """
    path = "" if data is None else f"path: {_quoted(str(data))}, "
    given = {"CLASSES": str(classes), "CHANNELS": str(channels), "SIZE": size}
    given["DATA"] = f"{{{path}val: 0.15, test: 0.15}}"
    if space is None:
        given["ROWS"] = "\n".join(_rows(min(int(side) for side in re.findall(r"\d+", size))))
    text = _TEXT if space is None else space.text
    return re.sub(rf"\b({'|'.join(given)})\b", lambda found: given[found[0]], text)


def size_text(size: int | tuple[int, int] | str) -> str:
    """Write an input size as a file does: a side in pixels, (height, width), or what is written already."""
    return f"[{size[0]}, {size[1]}]" if isinstance(size, tuple) else str(size)


def training_of(text: str) -> dict[str, str]:
    """Return the training values of a search file of ours, as texts."""
    section = text.partition("\ntraining:\n")[2].partition("\n\n")[0]
    return dict(re.findall(r"^  (\w+): (.+?)(?:  #.*)?$", section, re.MULTILINE))


def with_advice(
    text: str, advice: Mapping[str, Any], *, data: Any, about: Sequence[str], outlook: Sequence[str]
) -> str:
    """Return a search file of ours with other values below its rows, each with its reason as a comment.

    Args:
        text: of ``filled``.
        advice: proposals, each with a ``value`` and a ``reason``, by their names in the file.
        data: where the pictures are.
        about: sentences on the pictures.
        outlook: sentences on how long it will take.
    """
    head, _, rest = text.partition("\ndata: ")
    noted = _comment(about, indent="# ", more="#   ")
    head = head.replace("\ninput_channel:", f"\n{noted}\ninput_channel:" if about else "\ninput_channel:", 1)
    if "input_size" in advice:
        head = head.replace("\ninput_size:", f"\n{_why(advice['input_size'])}input_size:", 1)
    usual = training_of(text)
    values = {name: str(advice[name].value) if name in advice else value for name, value in usual.items()}
    if "class_weights" in advice:
        values["class_weights"] = advice["class_weights"].value
    training = [f"{_why(advice.get(name), '  ')}  {name}: {value}\n" for name, value in values.items()]
    parts = [
        head, "\n", *_data_lines(advice, data), "\ntraining:\n", *training, "\n",
        f"{_why(advice['objectives'])}objectives: [{', '.join(advice['objectives'].value)}]\n",
        f"{_why(advice['limits'])}limits: [{', '.join(advice['limits'].value)}]\n",
        f"\n{_comment(outlook)}" if outlook else "", _search_line(advice, rest),
    ]  # fmt: skip
    return "".join(parts)


def _data_lines(advice: Mapping[str, Any], data: Any) -> list[str]:
    values = [] if data is None else [f"path: {_quoted(str(data))}"]
    values += ["val: 0.15", f"test: {advice['test'].value if 'test' in advice else 0.15}"]
    values += [f"{name}: {advice[name].value}" for name in ("fit", "fraction") if name in advice]
    why = [_why(advice.get(name)) for name in ("test", "fit", "fraction")]
    note = "" if "test" in advice else "# the search never sees the test part; `archtuna train` reports on it\n"
    return [note, *why, f"data: {{{', '.join(values)}}}\n"]


def _search_line(advice: Mapping[str, Any], rest: str) -> str:
    usual = re.search(r"^search: \{trials: (\d+)\}", rest, re.MULTILINE)
    values = {"time": advice["time"].value} if "time" in advice else {}
    values["trials"] = advice["trials"].value if "trials" in advice else usual[1] if usual else 40
    if advice["workers"].value > 1:
        values["workers"] = advice["workers"].value
    why = "".join(_why(advice.get(name)) for name in ("time", "trials"))
    return f"{why}search: {{{', '.join(f'{name}: {value}' for name, value in values.items())}}}\n"


def _why(proposal: Any, indent: str = "") -> str:
    reason = "" if proposal is None else proposal.reason
    return _comment([reason], indent=f"{indent}# ") if reason else ""


def _comment(sentences: Sequence[str], *, indent: str = "# ", more: str | None = None) -> str:
    """Return sentences as lines of a comment; names of files in them may hold anything."""
    wrapped = [
        textwrap.fill(
            _printable(text), 118, initial_indent=indent, subsequent_indent=more or indent, break_on_hyphens=False
        )
        for text in sentences
    ]
    return "".join(f"{text}\n" for text in wrapped)


def _printable(text: str) -> str:
    """Return a text without what would end a comment, or could not be written."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def named(name: str) -> ReadySpace:
    """Return the ready space of a name.

    Raises:
        UnknownNameError: there is none.
    """
    known = spaces()
    if name not in known:
        hint = nearest(name, known) or f"known: {', '.join(known)}"
        raise UnknownNameError(f"no ready space is named '{name}'", hint=hint)
    return known[name]


def check_side(space: ReadySpace, side: int) -> None:
    """Check that a space is for inputs of a side.

    Raises:
        SpecError: it is for larger ones.
    """
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
    if not text.isprintable():
        from archtuna.modelfile import yaml_of

        return yaml_of(text)
    return "'" + text.replace("'", "''") + "'"
