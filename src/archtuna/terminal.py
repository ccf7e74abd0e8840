"""What fits a terminal: tables that give way column by column, values with units, bars, sparklines, in signs that it has."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from archtuna.objective import kind_of

_SPARKS = {True: "▁▂▃▄▅▆▇█", False: ".:-=+*#@"}
_UNITS = {"ms": " ms", "mb": " MB", "mj": " mJ"}
_GAP = "  "
FILE = 1_000
"""Columns of what is written into files, which have no end."""


@dataclass(frozen=True)
class Screen:
    """What a text is written for.

    Attributes:
        width: columns.
        height: lines, or None where as many may be written as there are.
        unicode: whether it shows more than ASCII.
    """

    width: int = 80
    height: int | None = None
    unicode: bool = True

    @property
    def dots(self) -> str:
        """What stands for something that was left out."""
        return "…" if self.unicode else "..."


USUAL, ENDLESS = Screen(), Screen(FILE)


def screen_of(stream: Any, environment: Mapping[str, str] = os.environ) -> Screen:
    """Return what a stream writes on: the window's size where it is a terminal, room for much where it is not."""
    unicode = speaks_unicode(stream, environment)
    if not stream.isatty():
        return Screen(FILE, unicode=unicode)
    size = os.get_terminal_size(stream.fileno())
    return Screen(size.columns, size.lines or None, unicode) if size.columns else Screen(unicode=unicode)


def can_redraw(stream: Any, environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether a person watches a stream on a terminal that can be redrawn: no file, no pipe, no CI."""
    return stream.isatty() and environment.get("TERM") != "dumb" and not environment.get("CI")


def speaks_unicode(stream: Any, environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether a terminal shows more than ASCII, as its locale says."""
    if "utf" not in (getattr(stream, "encoding", None) or "").lower():
        return False
    told = environment.get("PYTHONIOENCODING", "") + environment.get("PYTHONUTF8", "")
    locale = environment.get("LC_ALL") or environment.get("LC_CTYPE", "")
    # Python itself puts this into the environment of a process that began without any, whatever the terminal shows.
    if not environment.get("LC_ALL") and locale in ("C.UTF-8", "C.utf8"):
        locale = ""
    locale = locale or environment.get("LANG", "")
    return told == "1" or "utf" in f"{told} {locale}".lower()


# --- values ------------------------------------------------------------------------------------------


def value_of(name: str, value: float) -> str:
    """Write the value of an objective or cost in as few signs as a person compares: ``412k``, ``3.1 ms``, ``0.8123``."""
    base = name.partition("@")[0]
    if kind_of(name) == "quality":
        return f"{value:.4f}" if abs(value) < 100 else f"{value:.4g}"
    unit = _UNITS.get(base.rpartition("_")[2])
    return f"{_digits(value)}{unit}" if unit else amount(value)


def amount(value: float) -> str:
    """Write a count with three digits and the units of limits: ``812``, ``412k``, ``3.91M``."""
    rounded = abs(float(f"{value:.3g}"))
    factor, unit = next(
        (pair for pair in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if rounded >= pair[0]),
        (1.0, ""),
    )
    return f"{_digits(value / factor)}{unit}"


def _digits(value: float) -> str:
    """Write a number with three significant digits and without an exponent where it is no tiny one."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:.3g}"


# --- lines -------------------------------------------------------------------------------------------


def shortened(text: str, screen: Screen) -> str:
    """Return a line that fits, its middle left out where it is too long: the ends of a path tell most."""
    if len(text) <= screen.width:
        return text
    kept = max(0, screen.width - len(screen.dots))
    return text[: kept // 3] + screen.dots + text[len(text) - (kept - kept // 3) :]


def flowing(pieces: Iterable[str], screen: Screen) -> list[str]:
    """Return pieces with commas between in as few lines as they need, and none of them cut."""
    lines: list[str] = []
    for piece in pieces:
        if lines and len(lines[-1]) + len(piece) + 2 <= screen.width:
            lines[-1] += f", {piece}"
        else:
            lines.append(shortened(piece, screen))
    return lines


def paragraph(text: str, screen: Screen, most: int = 2) -> list[str]:
    """Return a sentence in at most so many lines."""
    return textwrap.wrap(text, screen.width, max_lines=most, placeholder=f" {screen.dots}", break_on_hyphens=False)


def bar(share: float, width: int, screen: Screen) -> str:
    """Return a bar of which a share, 0 to 1, is done."""
    full, rest = "━╌" if screen.unicode else "#."
    filled = max(0, min(width, round(width * share)))
    return full * filled + rest * (width - filled)


def sparkline(values: Sequence[float], width: int, screen: Screen) -> str:
    """Return how values went from the first to the last, in at most so many signs, from their lowest to their highest."""
    signs = _SPARKS[screen.unicode]
    if len(values) > width:  # Each sign shows what the values had come to at the end of its share of them.
        values = [values[round((i + 1) * len(values) / width) - 1] for i in range(width)]
    low, span = min(values, default=0.0), max(values, default=0.0) - min(values, default=0.0)
    return "".join(signs[round((len(signs) - 1) * (value - low) / span) if span else 0] for value in values)


def spread_over(count: int, most: int, keep: Collection[int] = ()) -> list[int]:
    """Return which of so many rows are shown where only ``most`` fit: both ends, those to keep, and others between evenly."""
    if count <= most:
        return list(range(count))
    picked = {round(i * (count - 1) / max(1, most - 1)) for i in range(most)}
    for index in sorted(set(keep) - picked):
        others = picked - set(keep) - {0, count - 1} or picked - set(keep)
        if others:
            picked.remove(min(others, key=lambda other: abs(other - index)))
            picked.add(index)
    return sorted(picked)


# --- tables ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        head: its name.
        cells: of all rows.
        short: its name where there is little room.
        left: whether it is aligned to the left.
        extra: whether it is shown only where there is room.
    """

    head: str
    cells: Sequence[str]
    short: str = ""
    left: bool = False
    extra: bool = False

    @property
    def width(self) -> int:
        return max(len(self.head), *map(len, self.cells)) if self.cells else len(self.head)


def table(columns: Iterable[Column], screen: Screen) -> list[str]:
    """Return a table that fits: extra columns go first, then long names, then the last columns, which is said."""
    columns = list(columns)
    shown = [column for column in columns if not column.extra]
    for column in columns:
        if column.extra and _wide([*shown, column]) <= screen.width:
            shown.append(column)
    if _wide(shown) > screen.width:
        shown = [Column(column.short or column.head, column.cells, left=column.left) for column in shown]
    if _wide(shown) > screen.width:
        shown = [Column(_head_over(column, screen), column.cells, left=column.left) for column in shown]
    left_out = 0
    while _wide(shown) > screen.width and len(shown) > 1:
        shown, left_out = shown[:-1], left_out + 1
    lines = [_row([column.head for column in shown], shown)]
    lines += [_row(cells, shown) for cells in zip(*(column.cells for column in shown), strict=True)]
    more = "1 more column" if left_out == 1 else f"{left_out} more columns"
    return [*lines, *([f"({more} in a wider window)"] if left_out else [])]


def _wide(columns: Sequence[Column]) -> int:
    return sum(column.width for column in columns) + len(_GAP) * (len(columns) - 1)


def _head_over(column: Column, screen: Screen) -> str:
    """Return a column's name in as many signs as its cells have, or in six."""
    width = max([6, *map(len, column.cells)])
    return column.head if len(column.head) <= width else column.head[: width - len(screen.dots)] + screen.dots


def _row(cells: Sequence[str], columns: Sequence[Column]) -> str:
    placed = (
        cell.ljust(column.width) if column.left else cell.rjust(column.width)
        for cell, column in zip(cells, columns, strict=True)
    )
    return _GAP.join(placed).rstrip()
