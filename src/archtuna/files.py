"""Files that are either whole or not there."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_atomically(path: Path, content: bytes | memoryview, *, durable: bool = True) -> None:
    """Write ``content`` to ``path`` so that a reader, a crash or a full disk never meets half a file.

    The bytes go to a temporary file in the same folder, reach the disk, and take the name in one step. The folder is
    made where it is missing.

    Args:
        path: of the file.
        content: what is in it.
        durable: whether to wait until it would outlast a power cut.

    Raises:
        OSError: it cannot be written; what stood at ``path`` before still does, and nothing is left beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile: its files are readable by their owner alone, and runs are shared by the people of a group.
    temporary = path.with_name(f".{path.name[:100]}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make the new name outlast a power cut; only POSIX systems can open a folder for that."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
