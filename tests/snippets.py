"""What stands in pages between fences: found, and run as a reader would run it."""

from __future__ import annotations

import multiprocessing
import os
import re
import shlex
import subprocess
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from forked import archtuna

FENCE = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^>]+) -->\n+)?^(?P<indent> *)```(?P<language>\w+)\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
SAVED = re.compile(r"[Ss]aved\s+as\s+`(?P<name>[\w.]+)`")
"""How a page says what a reader calls the search file above."""


@dataclass(frozen=True)
class Snippet:
    """A fenced block of a page.

    Attributes:
        language: as the fence says.
        text: between the fences.
        line: of the page, on which it begins.
        reason: why it is not run, or None.
        name: of the file that it is, or None.
    """

    language: str
    text: str
    line: int
    reason: str | None
    name: str | None


def snippets(page: str) -> Iterator[Snippet]:
    """Yield the fenced blocks of a page that name a language, in order."""
    for match in FENCE.finditer(page):
        text = textwrap.dedent(match["text"])
        line = page.count("\n", 0, match.start("language")) + 1
        yield Snippet(
            match["language"], text, line, match["reason"], _name(match["language"], text, page[match.end() :])
        )


def _name(language: str, text: str, rest: str) -> str | None:
    """Return the file that a block is: a first line with its name, or what the words below it say."""
    if language == "python":
        first = re.match(r"# ([\w.]+\.py)\n", text)
        return first and first[1]
    saved = SAVED.search(rest.partition("```")[0]) if language == "yaml" else None
    return saved and saved["name"]


def commands(text: str) -> list[str]:
    """Return the commands of a block: continued lines joined, comments left out."""
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [line for line in (re.sub(r"(^|\s+)#.*", "", line).strip() for line in lines) if line]


def run(command: str, folder: Path, first: Callable[[], object] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder; one of archtuna's alone in a fork, before which ``first`` is called there."""
    if not re.search(r"[$|>;&*?]", command):
        program, *words = shlex.split(command)
        assert program == "archtuna"
        return archtuna(*words, cwd=folder, first=first)
    command = command.replace("archtuna", f"{sys.executable} -m archtuna", 1)
    return subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True)


class Interpreter:
    """A Python of its own, in which the blocks of a page run one after the other, as in one session."""

    def __init__(self, folder: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        self._here, there = context.Pipe()
        self._child = context.Process(target=_serve, args=(there, str(folder), dict(os.environ)))
        self._child.start()
        there.close()

    def run(self, text: str) -> str | None:
        """Run a block, and return the traceback of its error, or None."""
        self._here.send(text)
        return self._here.recv()

    def close(self) -> None:
        self._here.close()
        self._child.join()


def _serve(pipe: Connection, folder: str, env: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    sys.path.insert(0, folder)
    names: dict[str, object] = {"__name__": "__main__"}
    while True:
        try:
            text = pipe.recv()
        except EOFError:
            os._exit(0)
        try:
            exec(compile(text, "<page>", "exec"), names)
            pipe.send(None)
        except Exception:
            pipe.send(traceback.format_exc())
