"""Markdown from any text: what a name or a path holds stays text, in a line, a table's cell, a fence or front matter.

Source: CommonMark 0.31 (backslash escapes, fenced code), GitHub's tables, YAML 1.2 (double-quoted scalars).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

_SPECIAL = re.compile(r"[\\`*_{}\[\]<>#|~&!$+]")
_LISTED = re.compile(r"^(\d*)([.)\-=:])(?=[\s\-=]|$)")


def inline(text: object) -> str:
    """Return a text that a reader sees as it is: on one line, with every sign that Markdown knows escaped."""
    line = " ".join(_printable(str(text)).split())
    return _LISTED.sub(r"\1\\\2", _SPECIAL.sub(r"\\\g<0>", line))


def table(header: Sequence[str], rows: Iterable[Sequence[object]], left: int = 1) -> list[str]:
    """Return a table, all but its first columns to the right.

    Args:
        header: of each column.
        rows: cells, escaped where they need to be.
        left: how many columns are to the left.
    """
    marks = [*["---"] * left, *["---:"] * (len(header) - left)]
    return [f"| {' | '.join(map(str, cells))} |" for cells in (header, marks, *rows)]


def fence(text: str, language: str) -> list[str]:
    """Return a text as a block of code, whatever runs of backticks are in it."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    mark = "`" * max(3, longest + 1)
    return [f"{mark}{language}", *text.rstrip("\n").split("\n"), mark]


def quoted(text: object) -> str:
    """Return a text as a scalar of YAML."""
    return "".join(c if c.isprintable() else _escaped(c) for c in json.dumps(str(text), ensure_ascii=False))


def _escaped(sign: str) -> str:
    return f"\\U{ord(sign):08X}"


def _printable(text: str) -> str:
    """Return a text without signs that no file can hold or no reader can see."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
