"""The folder of a run, and the record in it that says where its study is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from archtuna.errors import StudyError
from archtuna.files import write_atomically
from archtuna.storage import default_url, explain, has_password, redact

FORMAT = 1


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

    Raises:
        StudyError: the URL has a password, which is not written down, and the environment does not give it.
    """
    if record["storage"] is None:
        return None
    given = default_url()
    if given is not None:
        return given
    if record["password"]:
        raise StudyError(
            f"the study of {folder} is in {record['storage']}, and its password is not written down",
            hint="pass --storage, or set ARCHTUNA_STORAGE",
        )
    return str(record["storage"])


def write_record(folder: Path, name: str, url: str | None, *, local: bool, text: str) -> None:
    """Write where a study is and the search file as used, unless they are there already; never a password."""
    storage = None if local else redact(url) if url else "an Optuna storage object"
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
    here = "its own database" if own else redact(url) if url else "an Optuna storage object"
    there = record["storage"] or "its own database"
    if here != there:
        raise StudyError(f"the study of {folder} is in {there}, not in {here}", hint="use another --out")
    if name != record["name"]:
        raise StudyError(f"the study of {folder} is '{record['name']}', not '{name}'", hint="use another --out")
