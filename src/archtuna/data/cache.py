"""The cache on disk: where it is, how a file in it is built exactly once, how it is cleaned."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from archtuna.errors import DataError

logger = logging.getLogger("archtuna")

DERIVED = ("images", "ledgers")
"""Folders that are rebuilt from their sources when they are gone."""
SOURCES = "sources"
"""Copies of data that came from memory; nothing can rebuild these."""


def cache_folder() -> Path:
    """Return the cache's folder: ``$ARCHTUNA_CACHE``, or ``archtuna`` in the platform's own place for caches."""
    if chosen := os.environ.get("ARCHTUNA_CACHE"):
        return Path(chosen).expanduser().absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "archtuna"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "archtuna" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "archtuna"


def clear_cache(*, sources: bool = False) -> int:
    """Delete what the cache holds and return the bytes that this freed.

    Processes that have a cache file open keep it until they close it. A build that runs meanwhile ends with an error.

    Args:
        sources: also delete the copies of data sets that came from memory; a study that was made with one can then
            not be continued in another process.
    """
    freed = 0
    for name in (*DERIVED, SOURCES) if sources else DERIVED:
        folder = cache_folder() / name
        freed += sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
        shutil.rmtree(folder, ignore_errors=True)
    return freed


def build_once(target: Path, ready: Callable[[Path], bool], write: Callable[[Path], None], what: str) -> None:
    """Make ``target`` with ``write`` unless it is ready; of several processes one builds and the others wait.

    Args:
        target: the file to make; its folder is created.
        ready: whether a file that exists is whole.
        write: writes the file at the path that it is given, a temporary one beside the target.
        what: for messages: ``the cache of 2,527 pictures (124 MB)``.

    Raises:
        DataError: the file cannot be written; nothing half-written stays.
    """
    if ready(target):
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target, what):
            if ready(target):
                return
            # Whoever holds the lock is the only builder: what lies here was left by one that was killed.
            for stale in target.parent.glob(f".{target.name}.*.part"):
                stale.unlink(missing_ok=True)
            # Not tempfile: its files are readable by their owner alone, and a group may share a cache.
            part = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
            try:
                write(part)
                os.replace(part, target)
            finally:
                part.unlink(missing_ok=True)
    except OSError as error:
        hint = "free some space there, or set ARCHTUNA_CACHE to a folder on another disk"
        raise DataError(f"{target.parent}: cannot write {what}: {error.strerror or error}", hint=hint) from error


def _locked(target: Path, what: str) -> FileLock:
    """Return the lock to enter; a first try tells whether that will take a while."""
    lock = FileLock(target.with_name(f"{target.name}.lock"))
    try:
        lock.acquire(timeout=0.2)
        lock.release()
    except Timeout:
        logger.info("waiting for another process that makes %s", what)
    return lock
