"""The command line at a pseudo-terminal, in a fork of a process that has loaded its libraries; see ``forked``."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from forked import _context


class Conversation:
    """What a command shows at a terminal, and a hand that types.

    Attributes:
        shown: everything so far, with line ends as Python has them.
    """

    def __init__(self, master: int, process: Any) -> None:
        self.master, self.process, self.shown = master, process, ""

    def expect(self, text: str, seconds: float = 60.0) -> str:
        """Wait until ``text`` is shown after what was expected before, and return what came until then."""
        start, ends = len(self.shown), time.monotonic() + seconds
        start = getattr(self, "_seen", 0)
        while text not in self.shown[start:]:
            if time.monotonic() > ends or not self._read(0.2):
                raise AssertionError(f"{text!r} was not shown, but:\n{self.shown[start:]}")
        self._seen = self.shown.index(text, start) + len(text)
        return self.shown[start : self._seen]

    def answer(self, question: str, text: str) -> None:
        self.expect(question)
        self.type(f"{text}\n")

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def leave(self, key: str) -> int:
        """Type a key that ends the command, and return the exit code.

        A signal that comes between a prompt and the reading behind it is looked at when that returns, so that a person
        presses the key once more.
        """
        for _ in range(3):
            self.type(key)
            self._watch(10.0)
            if self.process.exitcode is not None:
                break
        return self.end()

    def end(self, seconds: float = 90.0) -> int:
        """Return the exit code, everything having been shown."""
        self._watch(seconds)
        assert self.process.exitcode is not None, f"still running:\n{self.shown}"
        return int(self.process.exitcode)

    def _watch(self, seconds: float) -> None:
        """Take in what is shown until the command has ended, for so long at most."""
        ends = time.monotonic() + seconds
        while self._read(0.1) and time.monotonic() < ends:
            pass
        self.process.join(max(1.0, ends - time.monotonic()))

    def _read(self, seconds: float) -> bool:
        """Take in what is there; return whether more may come."""
        if not select.select([self.master], [], [], seconds)[0]:
            return self.process.is_alive()
        try:
            found = os.read(self.master, 65_536)
        except OSError:  # Linux says so when nobody has the other end any more.
            return False
        self.shown += found.decode().replace("\r\n", "\n")
        return bool(found)


@contextlib.contextmanager
def at_terminal(*arguments: Any, cwd: Path) -> Iterator[Conversation]:
    """Run a command at a terminal of its own."""
    master, slave = pty.openpty()
    words = [str(argument) for argument in arguments]
    process = _context.Process(target=_run, args=(words, str(cwd), dict(os.environ), os.ttyname(slave)))
    process.start()
    conversation = Conversation(master, process)
    try:
        conversation.expect("\a")
        os.close(slave)
        yield conversation
    finally:
        if process.is_alive():
            process.kill()
        process.join()
        os.close(master)


def _run(words: list[str], cwd: str, env: dict[str, str], terminal: str) -> None:
    from archtuna.cli import main

    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    os.setsid()  # The leader of a session that opens a terminal has it to itself, with Ctrl-C.
    opened = os.open(terminal, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(opened, number)
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    os.write(1, b"\a")
    code: Any = 1
    try:
        code = main(words)
    except SystemExit as end:
        code = end.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0)
