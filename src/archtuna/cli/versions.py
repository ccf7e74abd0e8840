"""The command that says what is installed, for reports of what went wrong: versions."""

from __future__ import annotations

import argparse
import platform
import re
from importlib import metadata
from typing import Any

from archtuna import __version__
from archtuna.cli.arguments import flag, print_json, print_lines, verb

OURS = ("test", "docs")
"""Extras of those who work on archtuna itself."""


def versions(verbs: Any) -> None:
    parser = verb(
        verbs, "versions", _run_versions, "print the versions of everything that archtuna uses, for bug reports",
        examples=("archtuna versions", "archtuna versions --json"),
        docs="docs/install.md",
    )  # fmt: skip
    flag(parser, "json")


def _run_versions(arguments: argparse.Namespace) -> None:
    found = installed()
    if arguments.json:
        print_json(found)
    else:
        print_lines(_lines(found))


def installed() -> dict[str, Any]:
    """Return the versions of archtuna, Python, the machine, and of what archtuna and each of its extras need.

    Nothing is imported: what is not installed is None, and without a package's own record (a folder on ``PYTHONPATH``)
    nobody says what it needs.
    """
    needs = _requirements()
    extras = sorted({extra for _, extra in needs if extra and extra not in OURS})
    return {
        "archtuna": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name, extra in needs if not extra},
        "extras": {e: {name: _version(name) for name, extra in needs if extra == e} for e in extras},
    }


def _requirements() -> list[tuple[str, str | None]]:
    try:
        lines = metadata.requires("archtuna") or []
    except metadata.PackageNotFoundError:
        return []
    pairs = []
    for line in lines:
        name = re.match(r"[\w.-]+", line)
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", line)
        if name and name[0] != "archtuna":
            pairs.append((name[0], extra[1] if extra else None))
    return pairs


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _lines(found: dict[str, Any]) -> list[str]:
    rows = [(name, found[name]) for name in ("archtuna", "python", "platform")]
    rows += [(name, version or "missing") for name, version in found["packages"].items()]
    for extra, packages in found["extras"].items():
        have = ", ".join(f"{name} {version}" for name, version in packages.items() if version)
        lack = ", ".join(name for name, version in packages.items() if not version)
        rows.append((f"[{extra}]", have + ("; " if have and lack else "") + (f"without {lack}" if lack else "")))
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {value}" for name, value in rows]
