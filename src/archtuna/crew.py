"""Several workers of one search, and the process that watches them, wherever they run."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import pickle
import queue
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import IO, TYPE_CHECKING, Any, Protocol

from archtuna.devices import threads_of
from archtuna.errors import StudyError
from archtuna.interrupts import Stop
from archtuna.leases import take_back
from archtuna.orders import Orders
from archtuna.runs import GIVEN
from archtuna.space import SearchSpace
from archtuna.storage import ENVIRONMENT, scrub
from archtuna.study import Study
from archtuna.worker import Event, OnEvent

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

log = logging.getLogger("archtuna")


class Member(Protocol):
    """A worker that somebody started.

    Attributes:
        pid: of its process.
        last_words: what it said last that is no event.
    """

    pid: int
    last_words: deque[str]

    def stop(self) -> None:
        """Ask it to hand its trial back and to end."""

    def kill(self) -> None:
        """End it at once."""

    def wait(self) -> int:
        """Return its exit code, once it has ended."""


Tell = Callable[[Event | None], None]
Start = Callable[[str, Mapping[str, Any], Tell], Member]
"""Starts a worker that does the work of a module, told what to do; it tells of its events, and of None when it has ended."""

SEARCH, REPEATS = "archtuna.serving", "archtuna.repeater"
"""The modules whose ``work`` a worker may do."""


class Crew:
    """Several workers of one search.

    Args:
        study: what they work on.
        orders: theirs; each gets an index of its own.
        start: how one is started.
        module: whose work they do.
        emit: told of each event.
        told: what they are told besides; see ``serving``.
        url: of the storage, so that its password is kept out of what they said last.
    """

    def __init__(
        self,
        study: Study,
        orders: Orders,
        start: Start,
        module: str,
        emit: OnEvent,
        told: Mapping[str, Any],
        url: str | None = None,
    ) -> None:
        self.study, self.orders, self.emit, self.told, self.url = study, orders, emit, told, url
        self.start = partial(start, module)
        self.events: queue.Queue[tuple[int, Event | None]] = queue.Queue()
        self.stop = Stop()
        self.members: dict[int, Member] = {}
        self.reasons: list[str] = []
        self.said: set[str] = set()
        self.problem: str | None = None
        self.deaths = 0
        self.ending = False

    def run(self) -> str:
        """Start the workers, forward their events, and return why the search ended.

        Raises:
            StudyError: a worker found one, or workers keep dying.
        """
        with self.stop.on_signals(second=self._kill):
            try:
                for index in range(self.orders.workers):
                    self._start(index)
                while self.members:
                    if not self.ending and (self.stop.requested or self._is_over()):
                        self.ending = True
                        if self.stop.requested:
                            self.emit({"event": "stopping"})
                        self._stop()
                    self._watch()
            finally:
                self._kill()
        take_back(self.study.optuna)
        if self.problem:
            message, _, hint = self.problem.partition("\nhint: ")
            raise StudyError(message, hint=hint or None)
        if self.stop.requested:
            return "interrupted"
        return next((r for r in ("interrupted", "exhausted", "time") if r in self.reasons), "trials")

    def _start(self, index: int) -> None:
        orders = {**asdict(self.orders), "index": self.orders.index + index}
        member = self.start({**self.told, "orders": orders}, lambda event: self.events.put((index, event)))
        self.members[index] = member
        self.emit({"event": "worker", "worker": index, "state": "alive", "pid": member.pid})

    def _watch(self) -> None:
        """Take note of one event."""
        try:
            index, event = self.events.get(timeout=0.1)
        except queue.Empty:
            return
        if event is None:
            self._ended(index)
        elif event["event"] == "log":
            self._forward(event)
        elif event["event"] == "done":
            if event["reason"] != "interrupted" or not self.ending or self.stop.requested:
                self.reasons.append(event["reason"])
        elif event["event"] == "error":
            self._fail(event["message"])
        elif event["event"] == "died":
            self._died(index, event["pid"], event["code"])
        else:
            if event["event"] in ("complete", "stopped"):
                self.deaths = 0  # Machines that are taken away again and again are no fault, as long as it gets on.
            self.emit({**event, "worker": index})

    def _is_over(self) -> bool:
        """Return whether nothing is left to do for members that may never answer again, as those of a lost machine."""
        deadline = self.orders.deadline
        late = deadline is not None and time.time() > deadline + self.orders.grace
        return self.orders.linger and (
            late or any(reason in ("trials", "exhausted", "repeats") for reason in self.reasons)
        )

    def _forward(self, event: Event) -> None:
        """Log what a worker logs, once: all of them read the same data and say the same of it."""
        if event["message"] not in self.said:
            self.said.add(event["message"])
            log.log(event["level"], event["message"])

    def _ended(self, index: int) -> None:
        member = self.members.pop(index)
        code = member.wait()
        if code == 0:
            self.emit({"event": "worker", "worker": index, "state": "done", "pid": member.pid})
            return
        self._died(index, member.pid, code, member)
        if not (self.ending or self.problem):
            self._start(index)

    def _died(self, index: int, pid: int, code: int, member: Member | None = None) -> None:
        """Take note of a death; whoever started the worker may have started it again."""
        last = [scrub(line, self.url) for line in (member or self.members[index]).last_words]
        self.emit({"event": "worker", "worker": index, "state": "dead", "pid": pid, "code": code, "stderr": last})
        if self.stop.requested or self.problem:
            return
        take_back(self.study.optuna)
        self.deaths += 1
        if self.deaths > 2 * self.orders.workers:
            problem = last[-1] if last else f"exit code {code}"
            self._fail(
                f"workers keep dying: {problem}\nhint: --workers 1 works in this process, and shows the whole error"
            )

    def _fail(self, message: str) -> None:
        if self.problem is None:
            self.problem = message
            self._stop()

    def _stop(self) -> None:
        for member in self.members.values():
            member.stop()

    def _kill(self) -> None:
        for member in self.members.values():
            member.kill()


def what_to_do(
    study: Study, space: SearchSpace, data: str, evaluator: Any, sampler: str | BaseSampler | None = None
) -> dict[str, Any]:
    """Return what every worker is told, as plain data.

    Args:
        study: the search's.
        space: its space, with blocks of one's own.
        data: where the pictures are.
        evaluator: import path of what stands in for training, or None.
        sampler: which draws.
    """
    if sampler is not None and not isinstance(sampler, str):
        sampler = {"pickle": base64.b64encode(pickle.dumps(sampler)).decode()}  # type: ignore[assignment]
    return {
        "run": str(study.folder.resolve()),
        "study": study.name,
        "data": data,
        "sampler": sampler,
        "evaluator": evaluator,
        # Blocks of one's own are imported where they are used; what names them is this process, not the study's file.
        "imports": sorted({*space.origins.values(), *(o.origin for o in study.objectives if o.origin)}),
        "path": sys.path,
    }


# --- on this machine ---------------------------------------------------------------------------------


def processes(storage: Any, workers: int) -> Start:
    """Return how workers are started as processes of this machine.

    Args:
        storage: URL, or None for the run's own.
        workers: how many share the machine.
    """
    inherited = {key: value for key, value in os.environ.items() if key not in (ENVIRONMENT, GIVEN)}
    environment = inherited | threads_of(workers)
    if isinstance(storage, str):
        environment |= {ENVIRONMENT: storage, GIVEN: "1"}
    return partial(_Process, environment)


class _Process:
    """A worker that is a process of this machine, told what to do by its standard input."""

    def __init__(self, environment: Mapping[str, str], module: str, told: Mapping[str, Any], tell: Tell) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8",
            env=dict(environment),
            # Ctrl-C in a terminal reaches a whole group of processes: here it is passed on, once, by the one that watches.
            start_new_session=True,
        )  # fmt: skip
        self.pid, self.last_words = self.process.pid, deque[str](maxlen=30)
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # It died at once: its end is reported like any other.
            self.process.stdin.write(json.dumps(told) + "\n")
            self.process.stdin.flush()
        threading.Thread(target=self._read_events, args=(self.process.stdout, tell), daemon=True).start()
        threading.Thread(target=self._read_errors, args=(self.process.stderr,), daemon=True).start()

    def _read_events(self, stream: IO[str], tell: Tell) -> None:
        with stream:
            for line in stream:
                try:
                    event = json.loads(line)
                except ValueError:
                    self.last_words.append(line.rstrip())
                else:
                    tell(event)
        tell(None)

    def _read_errors(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                self.last_words.append(line.rstrip())

    def stop(self) -> None:
        self.process.terminate()

    def kill(self) -> None:
        self.process.kill()

    def wait(self) -> int:
        code = self.process.wait()
        if self.process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        return code
