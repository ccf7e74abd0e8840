"""How commands take their arguments and print."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
from collections.abc import Callable, Iterable
from typing import Any, TextIO


def verb(verbs: Any, name: str, run: Callable[[argparse.Namespace], int | None], text: str) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(run=run)
    parser.add_argument(
        "--import", dest="imports", action="append", default=[], metavar="MODULE",
        help="import a Python module for the blocks that it registers; repeatable",
    )  # fmt: skip
    return parser


def flag(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add arguments that several commands share."""
    shared: dict[str, tuple[Any, dict[str, Any]]] = {
        "json": ("--json", {"action": "store_true", "help": "print JSON"}),
        "data": ("--data", {"help": "folder of class folders, .npz file, or digits"}),
        "device": ("--device", {"help": "cpu, cuda, cuda:1 or mps; by default the best one present that is free"}),
        "per-gpu": (
            "--per-gpu",
            {"type": count, "default": 1, "metavar": "N", "help": "workers that may share a graphics card (1)"},
        ),
        "study": ("--study", {"metavar": "NAME", "help": "name of the study in its storage"}),
        "storage": ("--storage", {"help": "database URL; by default the run's own file, or $ARCHTUNA_STORAGE"}),
        "artifacts": (
            "--artifacts",
            {"metavar": "URL", "help": "where weights go instead of RUN: s3://bucket/folder, or another folder"},
        ),
        "input-size": ("--input-size", {"type": size, "metavar": "N", "help": "side of the input in pixels, or HxW"}),
        "epochs": ("--epochs", {"type": count, "metavar": "N", "help": "epochs of a training"}),
        "run": ("folder", {"metavar": "RUN", "help": "folder of a search"}),
        "number": ("number", {"metavar": "NUMBER", "type": int, "help": "number of a trial"}),
        "checkpoint": ("checkpoint", {"metavar": "CHECKPOINT", "help": "a .safetensors file, or the URL of one"}),
    }
    for name in names:
        flag, options = shared[name]
        parser.add_argument(flag, **options)


def count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above zero")
    return int(text)


def count_or_zero(text: str) -> int:
    return 0 if text == "0" else count(text)


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a share above 0 and up to 1")
    return value


def size(text: str) -> int | tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"'{text}' is not a side in pixels (64) or HxW (64x96)")
    return int(parts[0]) if len(parts) == 1 else (int(parts[0]), int(parts[1]))


def numbers(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of trials, such as 3,7")
    return [int(part) for part in parts]


def print_lines(lines: Iterable[str]) -> None:
    print("\n".join(lines))


def print_json(value: Any) -> None:
    print(json.dumps(value), flush=True)


def redrawing(lines: Callable[[Any], list[str]], stream: TextIO, closing: contextlib.ExitStack) -> bool:
    """Show lines on a stream and redraw them until ``closing``; return whether it is a terminal where that can be done."""
    from archtuna.terminal import can_redraw

    if not can_redraw(stream):
        return False
    from rich.console import Console

    from archtuna.display import Display

    closing.enter_context(Display(lines, Console(file=stream)))
    return True


def say_notes(notes: Iterable[str]) -> None:
    for note in notes:
        logging.getLogger("archtuna").warning("note: %s", note)
