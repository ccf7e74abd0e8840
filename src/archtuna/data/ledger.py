"""What is remembered about files between two openings, so that the second needs not read them again."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from archtuna.data.cache import build_once, cache_folder
from archtuna.errors import DataError

logger = logging.getLogger("archtuna")

VERSION = 1
_SETTLED_NS = 2_000_000_000

Stamp = tuple[int, int, int]


def stamp_of(path: str | os.PathLike[str]) -> Stamp:
    """Return what changes when a file's content does: its size, and the times of its last write and last change."""
    seen = os.stat(path)
    return seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns


class Ledger:
    """Facts about the files of one source, each valid while its file's stamp stays the same.

    Losing a ledger only costs time: one that is missing, damaged or cannot be written is no error.

    Args:
        source: the folder or file that the facts are about.
    """

    def __init__(self, source: Path) -> None:
        name = hashlib.sha256(os.fsencode(source)).hexdigest()[:24]
        self.path = cache_folder() / "ledgers" / f"{name}.json"
        self._known = _read(self.path)

    def recall(self, name: str, stamp: Stamp) -> Any:
        """Return what was noted about ``name`` under the same stamp, or None."""
        entry = self._known.get(name)
        return entry[1] if entry and entry[0] == list(stamp) else None

    def note(self, facts: Mapping[str, tuple[Stamp, Any]]) -> None:
        """Replace everything that is remembered by ``facts``: name → (stamp, fact)."""
        # A file that was written a moment ago may be written again within the clock's resolution: not trusted yet.
        limit = time.time_ns() - _SETTLED_NS
        kept = {name: [list(stamp), fact] for name, (stamp, fact) in facts.items() if max(stamp[1:]) < limit}
        if kept == self._known:
            return
        text = json.dumps({"version": VERSION, "facts": kept})
        try:
            build_once(self.path, lambda _: False, lambda part: _write(part, text), "what is known about the pictures")
        except DataError as error:
            logger.warning("the next opening will be as slow as this one: %s", error.message)
        self._known = kept


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text("ascii"))
        facts = document["facts"] if document["version"] == VERSION else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _write(path: Path, text: str) -> None:
    path.write_text(text, "ascii")
