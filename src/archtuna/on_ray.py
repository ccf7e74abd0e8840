"""Workers as actors of a Ray cluster: Ray places them, gives each its share of a graphics card, and starts them again.

An actor that dies comes back somewhere in the cluster and goes on with whatever waits in the study; nothing else of it is
needed. Its events are fetched by the process that watches.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from archtuna import repeater, serving
from archtuna.crew import REPEATS, SEARCH, Start, Tell
from archtuna.errors import MissingExtraError, StudyError
from archtuna.interrupts import Stop
from archtuna.storage import CONNECT_SECONDS
from archtuna.worker import Event

POLL, ANSWER = 0.5, 10.0
"""Seconds between two questions of what is new, and after which an actor that is to end and gives no answer is given up."""


WORK = {SEARCH: serving.work, REPEATS: repeater.work}


class _Actor:
    """What runs in the cluster. Its three methods are called side by side, so that a working one answers."""

    def __init__(self) -> None:
        self.told: deque[Event] = deque()
        self.ending = Stop()

    def work(self, module: str, told: Mapping[str, Any]) -> None:
        serving.telling(WORK[module], told, self.told.append, self.ending)

    def news(self) -> tuple[int, list[Event]]:
        """Return the process and its events since the last time."""
        return os.getpid(), [self.told.popleft() for _ in range(len(self.told))]

    def end(self) -> None:
        self.ending.request()


@contextlib.contextmanager
def actors(address: str, storage: str, cpus: float = 1.0, gpus: float | None = None) -> Iterator[Start]:
    """Give how workers are started as actors of a cluster.

    Args:
        address: of the cluster, as ``ray.init`` takes it: ``auto``, ``host:6379`` or ``ray://host:10001``.
        storage: URL of a storage that every machine of the cluster reaches.
        cpus: cores of a worker, for which Ray sets its threads.
        gpus: share of a graphics card of a worker; by default a whole one where the cluster has any.

    Raises:
        MissingExtraError: Ray is not installed.
        StudyError: there is no such cluster.
    """
    try:
        import ray
    except ImportError:
        raise MissingExtraError("Ray", "ray") from None
    was_there, problem = ray.is_initialized(), ""
    try:
        if not was_there:
            _knock(address)
            ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except Exception as error:  # Ray raises whatever its connection does.
        problem = str(error).strip().partition("\n")[0] or type(error).__name__
    if problem:
        raise StudyError(f"cannot reach the Ray cluster at {address}: {problem}", hint="ray start --head makes one")
    try:
        if gpus is None:
            gpus = 1.0 if ray.cluster_resources().get("GPU") else 0.0
        # Deaths are no failure of the work: it is taken up again, as often as it takes.
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": -1, "max_task_retries": -1, "max_concurrency": 3}
        yield partial(_Member, ray.remote(_Actor).options(**options), storage)
    finally:
        if not was_there:
            ray.shutdown()


def _knock(address: str) -> None:
    """See whether anybody listens: Ray tries for a quarter of an hour before it says that nobody does.

    Raises:
        OSError: nobody does.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()


class _Member:
    """An actor, as the process that watches sees it."""

    def __init__(self, actor: Any, storage: str, module: str, told: Mapping[str, Any], tell: Tell) -> None:
        import ray

        self.pid, self.last_words = 0, deque[str](maxlen=30)
        self.actor = actor.remote()
        # An argument of a call and not of the process: it shows in no list of processes and no environment.
        self.work = self.actor.work.remote(module, {**told, "storage": storage})
        self.ray, self.tell, self.code = ray, tell, 0
        self.asked: float | None = None
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        """Fetch events until the work has ended, or the actor that is to end gives no answer."""
        try:
            while not self._is_over():
                pass
        except Exception as error:  # Ray raises what the work raised, and errors of its own.
            self.code = 1
            self.last_words.extend(str(error).strip().splitlines())
        self.tell(None)

    def _is_over(self) -> bool:
        """Fetch what is new, and return whether that was all."""
        over = bool(self.ray.wait([self.work], timeout=POLL)[0])
        try:
            pid, events = self.ray.get(self.actor.news.remote(), timeout=ANSWER)
        except self.ray.exceptions.RayError:  # It is being started again, waits for a machine, or is no more.
            pid, events = self.pid, []
            if not over and self.asked is not None and time.monotonic() > self.asked + ANSWER:
                self.kill()
                return True
        if self.pid and pid != self.pid:
            self.tell({"event": "died", "pid": self.pid, "code": -9})
        self.pid = pid
        for event in events:
            self.tell(event)
        if over:
            self.ray.get(self.work)  # Raises what ended it.
        return over

    def stop(self) -> None:
        self.asked = time.monotonic()
        self.actor.end.remote()

    def kill(self) -> None:
        with contextlib.suppress(self.ray.exceptions.RayError):
            self.ray.kill(self.actor)

    def wait(self) -> int:
        return self.code
