"""How work is interrupted: at once where that is safe, and never in the middle of writing."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any


class Interrupted(BaseException):
    """Ends the evaluation of a trial that is to be handed back; no ``except Exception`` of a user's code holds it up."""


class Stop:
    """Whether a stop was asked for, by a signal or by ``request``."""

    def __init__(self) -> None:
        self.requested = False
        self._interruptible = False
        self._asked = threading.Event()

    def request(self) -> None:
        """Ask for a stop, from another thread; the next look at ``requested`` ends the work."""
        self.requested = True
        self._asked.set()

    def wait(self, seconds: float) -> None:
        """Do nothing for a while, or until a stop is asked for.

        Raises:
            Interrupted: it was.
        """
        with self.interruptible():
            self._asked.wait(seconds)
        if self.requested:
            raise Interrupted

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let a signal raise ``Interrupted`` inside: for training, never for what writes to the storage."""
        self._interruptible = True
        try:
            if self.requested:
                raise Interrupted
            yield
        finally:
            self._interruptible = False

    @contextlib.contextmanager
    def on_signals(self, second: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Ask for a stop on SIGINT and SIGTERM; a second one calls ``second`` and kills the process at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(number: int, frame: Any) -> None:
            if self.requested:
                second()
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            self.requested = True
            if self._interruptible:
                raise Interrupted

        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
