"""Questions at a terminal, each with a default that Enter takes, and asked again where an answer makes no sense."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from archtuna.errors import ArchtunaError, SpecError, nearest

Answer = TypeVar("Answer")

USUAL = ("photos", "pictures", "images", "dataset", "data")
"""Names of folders that people keep pictures in."""


def are_possible(arguments: argparse.Namespace) -> bool:
    """Return whether somebody is there to be asked, and may be."""
    quiet = arguments.yes or arguments.json or arguments.study is not None
    return not quiet and sys.stdin.isatty() and sys.stdout.isatty()


def ask(question: str, default: str, read: Callable[[str], Answer]) -> Answer:
    """Return what a person answers, read; with the reason once more where it cannot be.

    Raises:
        KeyboardInterrupt: Ctrl-C, or the end of the input.
    """
    while True:
        try:
            text = input(f"{question} [{default}] ").strip() or default
        except EOFError:
            raise KeyboardInterrupt from None
        try:
            return read(text)
        except ArchtunaError as error:
            print("".join(f"  {line}\n" for line in str(error).splitlines()), end="")


def fill_in(arguments: argparse.Namespace) -> None:
    """Ask what no flag answered, and write the answers into the arguments."""
    from archtuna.beginning.advice import DEFAULT_TIME, objectives_said, seconds_asked

    print("Enter takes what stands in brackets, Ctrl-C leaves without writing anything.\n")
    if arguments.data is None and arguments.classes is None:
        arguments.data = ask(
            "Where are the pictures? A folder of class folders, an .npz file, or digits", _likely(), _pictures
        )
    if arguments.place is None and arguments.space is None:
        arguments.place = ask(_places(), "computer", place)
    if arguments.objectives is None:
        arguments.objectives = ask(
            "What counts? quality, size, speed, memory, or names of objectives", _usual_objectives(arguments),
            lambda text: ",".join(objectives_said(text, arguments.place)),
        )  # fmt: skip
    if arguments.data is not None and arguments.time is None:
        arguments.time = ask("How long may the search take?", DEFAULT_TIME, lambda text: (seconds_asked(text), text)[1])
    if arguments.workers is None:
        arguments.workers = ask(_cores(), "1", _workers)
    print()


def _likely() -> str:
    """Return the folder of this one that has folders of its own and a name that people give, or the built-in digits."""
    for name in USUAL:
        folder = Path(name)
        if folder.is_dir() and any(entry.is_dir() for entry in folder.iterdir()):
            return name
    return "digits"


def _pictures(text: str) -> str:
    from archtuna.data import Data

    given = text if len(text) < 2 or text[0] not in "'\"" or text[-1] != text[0] else text[1:-1]
    Data.open(given)
    return given


def place(text: str) -> str:
    """Return the place that a word, its beginning or its number means.

    Raises:
        SpecError: there is none.
    """
    from archtuna.beginning.advice import PLACES

    word = text.strip().lower()
    known = [name for number, name in enumerate(PLACES, 1) if word and (name.startswith(word) or word == str(number))]
    if len(known) != 1:
        raise SpecError(f"'{text}' is no place", hint=nearest(word, PLACES) or f"known: {', '.join(PLACES)}")
    return known[0]


def _places() -> str:
    from archtuna.beginning.advice import PLACES

    lines = [f"  {number} {name:16} {meaning}" for number, (name, meaning) in enumerate(PLACES.items(), 1)]
    return "\n".join(["Where will the network run?", *lines, " "])


def _usual_objectives(arguments: argparse.Namespace) -> str:
    from archtuna.beginning.advice import usual_objectives
    from archtuna.starter import named

    space = None if arguments.space is None else named(arguments.space)
    return ",".join(usual_objectives(arguments.place, space))


def _cores() -> str:
    from archtuna.devices import usable_cores

    return f"How many workers at once? This machine has {usable_cores()} cores for them"


def _workers(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 256:
        raise SpecError(f"'{text}' is no number of workers", hint="1 to 256")
    return int(text)
