"""Interactive programs on a terminal of their own, driven key by key."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path


class Terminal:
    """A program on a terminal of its own, whose window can be resized and whose keys can be pressed.

    Args:
        command: the program and its arguments.
        folder: where it starts.
        environment: of it, in place of this process's.
        columns, lines: of the window.
    """

    def __init__(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str], columns: int = 80, lines: int = 24
    ) -> None:
        self.keys, theirs = pty.openpty()
        self.resize(columns, lines)
        self.process = subprocess.Popen(
            command, cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs, env=dict(environment),
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(theirs)
        self.seen = ""
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # That is how the end of a terminal reads on Linux.
            while select.select([self.keys], [], [], 120)[0] and (data := os.read(self.keys, 65536)):
                self.seen += data.decode(errors="replace")

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.keys, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys: str) -> int:
        """Press keys, and return where in what was seen their effect begins."""
        at = len(self.seen)
        os.write(self.keys, keys.encode())
        return at

    def wait_for(self, pattern: str, since: int = 0, seconds: float = 120) -> int:
        """Return where in what was seen a pattern ends, once it is there."""
        deadline = time.monotonic() + seconds
        while not (found := re.compile(pattern).search(self.seen, since)):
            assert time.monotonic() < deadline, f"{pattern} was not seen:\n{self.seen[since:][-3000:]}"
            assert self.process.poll() is None, self.seen[-3000:]
            time.sleep(0.05)
        return found.end()

    def end(self, seconds: float = 60) -> int:
        """Wait for the program's end, and return its exit code."""
        code = self.process.wait(seconds)
        self.reader.join(10)
        os.close(self.keys)
        return code

    def kill(self) -> None:
        """End the program at once."""
        self.process.kill()
        self.end()


def plain(text: str) -> str:
    """Return what was seen without what moves the cursor and colours."""
    return re.sub(r"\x1b\[[\d;?]*[A-Za-z]|\x1b[=>]", "", text)
