"""Files that are either whole or not there, in a folder or in an object store.

A *place* is where a file is: a path, or for a URL such as ``s3://bucket/runs/photos`` a place in an object store, which speaks
like a path (``universal_pathlib``, over fsspec).
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from archtuna.errors import ArchtunaError, MissingExtraError

if TYPE_CHECKING:
    from upath import UPath

    Place: TypeAlias = Path | UPath
else:
    Place = Any


class Unreachable(OSError):
    """An object store does not answer; a path's own errors say more."""


# --- places ------------------------------------------------------------------------------------------


def place_of(text: str | os.PathLike[str] | Place) -> Place:
    """Return a path, or for a URL the place in an object store; a place is returned as it is.

    Raises:
        MissingExtraError: what speaks to that kind of store is not installed.
        ArchtunaError: there is no such kind.
    """
    if not isinstance(text, str):
        return Path(text) if isinstance(text, os.PathLike) else text
    scheme, separator, rest = text.partition("://")
    if not separator:
        return Path(text)
    if scheme == "file":
        return Path(rest)
    problem = ""
    try:
        from upath import UPath

        # A listing that this process keeps does not know what the others write.
        place = UPath(text, use_listings_cache=False)
        place.fs  # noqa: B018 - made here, so that what is missing is missed here
        return place
    except ImportError:
        raise MissingExtraError(f"what reads and writes {scheme}://", "stores") from None
    except ValueError as error:
        problem = str(error)
    raise ArchtunaError(f"cannot use {text}: {problem}", hint="a folder, or a URL such as s3://bucket/folder")


def is_remote(place: Place) -> bool:
    """Return whether a place is in an object store."""
    return not isinstance(place, Path)


@contextmanager
def answering(place: Place) -> Iterator[None]:
    """Turn what a store's driver raises inside when it gets no answer into ``Unreachable``."""
    try:
        yield
        return
    except (OSError, ArchtunaError):
        raise
    except Exception as error:  # Drivers raise errors of their own families, so no narrower class would do.
        if not is_remote(place):
            raise
        problem = str(error) or type(error).__name__
    raise Unreachable(errno.EIO, problem, str(place))


# --- files -------------------------------------------------------------------------------------------


def write_atomically(place: Place, content: bytes | memoryview, *, durable: bool = True) -> None:
    """Write ``content`` to ``place`` so that a reader, a crash or a full disk never meets half a file.

    In a folder the bytes go to a temporary file beside it, reach the disk, and take the name in one step; the folder is made
    where it is missing. An object store shows objects only when they are whole.

    Args:
        place: of the file.
        content: what is in it.
        durable: whether to wait until it would outlast a power cut.

    Raises:
        OSError: it cannot be written; what stood there before still does, and nothing is left beside it.
    """
    if isinstance(place, Path):
        _write_file(place, content, durable)
        return
    with answering(place):
        place.fs.pipe_file(place.path, bytes(content))


def write_whole(place: Place, content: bytes, *, hint: str | None = None) -> None:
    """Write what a person asked for, as ``write_atomically`` does.

    Args:
        place: of the file.
        content: what is in it.
        hint: what helps where it cannot be written.

    Raises:
        ArchtunaError: it cannot be written.
    """
    try:
        write_atomically(place, content)
    except OSError as error:
        problem = error.strerror or str(error)
    else:
        return
    raise ArchtunaError(f"{place}: cannot be written ({problem})", hint=hint)


def _write_file(path: Path, content: bytes | memoryview, durable: bool) -> None:
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


def read_bytes(place: Place) -> bytes:
    """Return what is in a file.

    Raises:
        OSError: there is none, or it cannot be read.
    """
    with answering(place):
        return place.read_bytes()


def listing(folder: Place) -> dict[str, int]:
    """Return the sizes in bytes of the files in a folder by their names, sorted; nothing where there is no such folder.

    Raises:
        OSError: it cannot be read.
    """
    found = {}
    if isinstance(folder, Path):
        with suppress(FileNotFoundError), os.scandir(folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # Gone since.
                    if entry.is_file():
                        found[entry.name] = entry.stat().st_size
    else:
        with answering(folder), suppress(FileNotFoundError):
            entries = folder.fs.ls(folder.path, detail=True)
            found = {e["name"].rpartition("/")[2]: int(e["size"] or 0) for e in entries if e["type"] == "file"}
    return dict(sorted(found.items()))


def rename(source: Place, target: Place) -> None:
    """Give a file another name in the same folder, over whatever has it.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be done.
    """
    if isinstance(source, Path):
        os.replace(source, str(target))
        return
    with answering(source):
        source.fs.cp_file(str(source), str(target))
        source.fs.rm_file(source.path)


def delete(place: Place) -> None:
    """Delete a file, should it be there.

    Raises:
        OSError: it cannot be done.
    """
    with answering(place), suppress(FileNotFoundError):
        place.unlink()
