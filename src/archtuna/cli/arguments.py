"""How commands take their arguments and print."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn, TextIO

from archtuna.errors import nearest
from archtuna.page.finite import finite


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes are two lines: what is wrong, and what helps."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, and say here what is not known: the command's own parser knows what may have been meant."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """Say a mistake in the arguments, and end with exit code 2."""
        print(f"{self.prog}: {_in_words(message)}\nhint: {self._hint(message)}", file=sys.stderr)
        raise SystemExit(2)

    def _hint(self, message: str) -> str:
        wrong = re.search(r"invalid choice: '(.*?)'|unrecognized arguments: (\S+)", message)
        if wrong:
            known = [*self._option_string_actions, *(name for a in self._actions for name in a.choices or ())]
            near = nearest(wrong[1] or wrong[2].partition("=")[0], known)
            if near:
                return near
            few = re.search(r"\(choose from (.*)\)", message)
            if few and len(few[1]) < 60:
                return f"known: {few[1]}".replace("'", "")
        return f"{self.prog} --help says what it takes"


def _in_words(message: str) -> str:
    """Return what argparse says of a mistake, without the list of everything that would be none."""
    return re.sub(r"^argument (\S+): invalid choice: ('.*?') \(choose from .*\)$", r"there is no \1 \2", message)


def verb(
    verbs: Any,
    name: str,
    run: Callable[[argparse.Namespace], int | None],
    text: str,
    *,
    examples: Sequence[str] = (),
    docs: str = "docs/cli.md",
) -> argparse.ArgumentParser:
    """Add a command.

    Args:
        verbs: what commands are added to.
        name: of the command.
        run: does it, and returns the exit code.
        text: what it does, beginning with a small letter.
        examples: command lines that show it.
        docs: the page that says more.
    """
    parser = verbs.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=epilog(examples, docs),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "--import", dest="imports", action="append", default=[], metavar="MODULE",
        help="import a Python module first, for the blocks and metrics that it registers; repeatable",
    )  # fmt: skip
    return parser


def epilog(examples: Sequence[str], docs: str) -> str:
    """Return what stands at the end of a command's help: examples, and where more is said."""
    head = "example:" if len(examples) == 1 else "examples:"
    return "\n".join([*([head, *(f"  {line}" for line in examples), ""] if examples else []), f"more: {docs}"])


def flag(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add arguments that several commands share."""
    shared: dict[str, tuple[Any, dict[str, Any]]] = {
        "json": (
            "--json",
            {"action": "store_true", "help": "print JSON for programs; docs/json.md says what is in it"},
        ),
        "data": (
            "--data",
            {
                "help": "pictures: a folder of class folders, an .npz file, or digits; by default those of the file or study"
            },
        ),
        "device": (
            "--device",
            {"help": "where to compute: cpu, cuda, cuda:1 or mps; by default the best that is free"},
        ),
        "per-gpu": (
            "--per-gpu",
            {"type": count, "default": 1, "metavar": "N", "help": "workers that may share a graphics card (1)"},
        ),
        "study": (
            "--study",
            {"metavar": "NAME", "help": "name of the study in its storage; a search names it like its folder"},
        ),
        "storage": (
            "--storage",
            {"metavar": "URL", "help": "the study's database; by default a file of the run, or $ARCHTUNA_STORAGE"},
        ),
        "artifacts": (
            "--artifacts",
            {"metavar": "URL", "help": "where weights go instead of RUN: s3://bucket/folder, or another folder"},
        ),
        "log": (
            "--log",
            {
                "action": "append",
                "default": [],
                "metavar": "LOGGER",
                "help": "log to tensorboard, mlflow or wandb, below RUN; repeatable",
            },
        ),
        "input-size": (
            "--input-size",
            {"type": size, "metavar": "N", "help": "side of the pictures in pixels, or HxW, instead of the file's"},
        ),
        "epochs": (
            "--epochs",
            {"type": count, "metavar": "N", "help": "epochs of each training, instead of the file's"},
        ),
        "run": ("folder", {"metavar": "RUN", "help": "folder of a search: what its --out named"}),
        "number": (
            "number",
            {"metavar": "NUMBER", "type": int, "help": "of a trial; archtuna front RUN lists the best"},
        ),
        "checkpoint": (
            "checkpoint",
            {"metavar": "CHECKPOINT", "help": "trained weights: a .safetensors file, or the URL of one"},
        ),
        "quiet": ("--quiet", {"action": "store_true", "help": "say nothing while it runs"}),
        "workers": (
            "--workers",
            {"type": count, "default": 1, "metavar": "N", "help": "processes on this machine (1)"},
        ),
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
    print(json.dumps(finite(value), allow_nan=False), flush=True)


def silence(stream: TextIO) -> None:
    """Let what a stream still holds, and what comes, go nowhere: at its end Python would complain of what it cannot write."""
    with contextlib.suppress(OSError):  # A stream that is no file cannot be sent elsewhere.
        number, nowhere = stream.fileno(), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)


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
