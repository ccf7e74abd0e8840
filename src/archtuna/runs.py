"""The folder of a run, and the record in it that says where its study is."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from archtuna.errors import StudyError
from archtuna.files import write_atomically
from archtuna.storage import DATABASE, MASK, default_url, explain, has_password, redact

FORMAT = 1

GIVEN = "ARCHTUNA_STORAGE_GIVEN"
"""Set where the environment's storage is the one that was opened already, whatever a record says: in workers."""

_FILE = re.compile(r"(?P<before>sqlite(?:\+\w+)?:///|journal://)(?P<path>(?!:memory:|file:)[^?]+)(?P<after>.*)")


def make_folder(folder: Path) -> None:
    """Make a run's folder.

    Raises:
        StudyError: it cannot be made or written.
    """
    try:
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = error.strerror or str(error)
    else:
        return
    raise StudyError(f"cannot write to the run's folder {folder}: {problem}", hint="choose another with --out")


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return what ``study.json`` says, or None where there is none.

    Raises:
        StudyError: it is damaged.
    """
    path = folder / "study.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {"name": str(record["name"]), "storage": record.get("storage"), "password": bool(record.get("password"))}
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        raise StudyError(f"{folder} is a file, not the folder of a run", hint="name a folder: runs/photos") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StudyError(f"{path} cannot be read ({explain(error)})", hint="restore it, or use another --out") from None


def stored_url(record: Mapping[str, Any], folder: Path) -> str | None:
    """Return the URL of a run's storage, or None for the folder's own database.

    The environment's URL is taken only for a password that the record does not have; it may be that of another study.

    Raises:
        StudyError: the URL has a password, which is not written down, and the environment does not give it; or it names a
            file that is not there.
    """
    if record["storage"] is None:
        return None
    given, stored = default_url(), str(record["storage"])
    if given is not None and (record["password"] or GIVEN in os.environ or _adds_password(given, stored)):
        return given
    if record["password"]:
        raise StudyError(
            f"the study of {folder} is in {stored}, and its password is not written down",
            hint="pass --storage, or set ARCHTUNA_STORAGE",
        )
    found = _there(stored, folder)
    if found is None:
        raise StudyError(
            f"the study of {folder} is in {stored}, and there is no such file",
            hint="restore it, or name it where it is now: --storage sqlite:////home/ada/shared.db",
        )
    return found


def _adds_password(given: str, stored: str) -> bool:
    """Return whether a URL is one that was written down, but for a password."""
    bare = re.sub(rf"[?&]\w+={re.escape(MASK)}|:{re.escape(MASK)}(?=@)", "", redact(given))
    return bare == stored != given


def _file_of(url: str, folder: Path = Path()) -> Path | None:
    """Return the file that a storage's URL names, a relative one from a folder (the current one); None of servers."""
    match = _FILE.fullmatch(url)
    return None if match is None else Path(os.path.abspath(folder / Path(match["path"]).expanduser()))


def _absolute(url: str, folder: Path = Path()) -> str:
    """Return a URL with the whole path of its file, so that it means the same in any folder."""
    path = _file_of(url, folder)
    return url if path is None else _FILE.sub(lambda match: f"{match['before']}{path}{match['after']}", url)


def _there(url: str, folder: Path) -> str | None:
    """Return the URL of a run's storage as it is to be opened; None for a file that is not there.

    Opening one that is not there would make an empty one. Until 0.1 the path was kept as it was given, from the folder in
    which the search was started: that is the current one, or one around the run.
    """
    for place in (Path(), *folder.resolve().parents):
        path = _file_of(url, place)
        if path is None or path.exists():
            return _absolute(url, place)
    return None


def check_there(url: str) -> None:
    """Refuse to read from a file that is not there: opening it would make an empty one.

    Raises:
        StudyError: the URL names such a file.
    """
    path = _file_of(url)
    if path is not None and not path.exists():
        raise StudyError(f"no study in {redact(url)}: there is no file {path}", hint="archtuna search makes one")


def write_record(folder: Path, name: str, url: str | None, *, local: bool, text: str) -> None:
    """Write where a study is and the search file as used, unless they are there already; never a password."""
    storage = None if local else redact(_absolute(url)) if url else "an Optuna storage object"
    # An object cannot be opened again from a text, just as a URL without its password cannot.
    secret = not local and (url is None or has_password(url))
    record = {"format": FORMAT, "name": name, "storage": storage, "password": secret}
    for path, content in ((folder / "study.json", json.dumps(record, indent=1) + "\n"), (folder / "search.yaml", text)):
        if not path.exists():
            write_atomically(path, content.encode())


def check_record(record: Mapping[str, Any] | None, folder: Path, name: str, url: str | None, *, own: bool) -> None:
    """Refuse a folder that belongs to a study elsewhere."""
    if record is None:
        return
    own = own or (url is not None and _file_of(url) == (folder / DATABASE).absolute())
    here = "its own database" if own else redact(_absolute(url)) if url else "an Optuna storage object"
    stored = record["storage"]
    there = (_there(stored, folder) or stored) if stored else "its own database"
    if here != there:
        raise StudyError(f"the study of {folder} is in {there}, not in {here}", hint="use another --out")
    if name != record["name"]:
        raise StudyError(f"the study of {folder} is '{record['name']}', not '{name}'", hint="use another --out")
