"""What ``--json`` prints, as JSON Schemas, a file each in ``schemas/``: keys may come to it, none goes or changes."""

from __future__ import annotations

import json
from typing import Any

from archtuna.errors import nearest

SAME = {"worker": "search", "repeat": "search"}
"""Commands that print what another one prints."""


def outputs() -> list[str]:
    """Return the commands that have ``--json``, by name; ``device-list`` is ``archtuna device list``."""
    found = [file.name.removesuffix(".json") for file in _folder().iterdir() if file.name.endswith(".json")]
    return sorted([*found, *SAME])


def schema_of(name: str) -> dict[str, Any]:
    """Return the schema of what a command prints with ``--json``; where it prints a line for each thing, of one line.

    Raises:
        UnknownNameError: there is no such command, or it has no ``--json``.
    """
    if name not in outputs():
        hint = nearest(name, outputs()) or f"known: {', '.join(outputs())}"
        from archtuna.registry import UnknownNameError

        raise UnknownNameError(f"no command with --json is named '{name}'", hint=hint)
    return json.loads((_folder() / f"{SAME.get(name, name)}.json").read_text(encoding="utf-8"))


def _folder() -> Any:
    from importlib.resources import files

    return files("archtuna") / "cli" / "schemas"
