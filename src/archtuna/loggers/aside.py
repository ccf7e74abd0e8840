"""A logger beside a search, which it can neither stop nor slow."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from archtuna.errors import first_line

log = logging.getLogger("archtuna")

BEHIND = 10_000
"""Events that may wait for a logger; one that is further behind is left out."""

PATIENCE = 30.0
"""Seconds that a search which has ended waits for its loggers."""


class Logger(Protocol):
    """Takes the events of a search, one after the other, and in a thread of its own."""

    def take(self, event: Mapping[str, Any]) -> None:
        """Take an event, a plain dictionary; ``event["event"]`` says what happened. It is not to be changed."""

    def close(self) -> None:
        """Write what is left: no event follows."""


class Aside:
    """Tells a logger of events in a thread of its own; one that fails is left out, with one warning.

    Args:
        name: of the logger, for the warning.
        make: makes it, in that thread: its library may take seconds to load, or ask a server.
    """

    def __init__(self, name: str, make: Callable[[], Logger]) -> None:
        self.name, self._make = name, make
        self._events: queue.Queue[Mapping[str, Any] | None] = queue.Queue(BEHIND)
        self._is_out = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"logger {name}", daemon=True)
        self._thread.start()

    def take(self, event: Mapping[str, Any]) -> None:
        """Put an event into the queue, without waiting."""
        if not self._is_out.is_set():
            self._put(dict(event))

    def close(self, seconds: float = PATIENCE) -> None:
        """Wait until the logger has written everything, but no longer than this."""
        self._put(None)
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._leave_out(f"it is not done {seconds:.0f} s after the search's end")

    def _put(self, event: Mapping[str, Any] | None) -> None:
        try:
            self._events.put_nowait(event)
        except queue.Full:
            self._leave_out(f"it is {BEHIND} events behind")

    def _leave_out(self, why: str) -> None:
        if not self._is_out.is_set():
            self._is_out.set()
            log.warning("the logger %s failed and is left out: %s", self.name, why)

    def _work(self) -> None:
        logger: Logger | None = None
        try:
            logger = self._make()
            while (event := self._events.get()) is not None and not self._is_out.is_set():
                logger.take(event)
            logger.close()
        except BaseException as error:  # Libraries raise errors of their own families, and some of them SystemExit.
            self._leave_out(f"{type(error).__name__}: {first_line(error)}")
            if logger is not None:
                with contextlib.suppress(BaseException):
                    logger.close()
