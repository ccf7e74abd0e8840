"""One process of several that work on a study: told what to do by its standard input, telling what it does by its output.

The first line of the input says what to do, and its end stops the work; events go to the output, one JSON object a line.
The storage's URL comes through the environment, because an argument would show in the list of processes.
``python -m archtuna.serving`` is one worker of a search.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from archtuna.errors import ArchtunaError, DataError
from archtuna.evaluate import Evaluator
from archtuna.interrupts import Interrupted, Stop
from archtuna.orders import Orders
from archtuna.registry import import_modules
from archtuna.storage import Attr, clock_of, default_url, storage_errors_named
from archtuna.study import Study
from archtuna.worker import Event, OnEvent, Worker, stationed

log = logging.getLogger("archtuna")


class _EventLog(logging.Handler):
    """Sends what the library logs to the process that watches the workers."""

    def __init__(self, emit: OnEvent) -> None:
        super().__init__(logging.INFO)
        self.send = emit

    def emit(self, record: logging.LogRecord) -> None:
        self.send({"event": "log", "level": record.levelno, "message": record.getMessage()})


Work = Callable[[Mapping[str, Any], OnEvent, Stop], str]
"""Does what it is told, telling of events, until it is done or stopped, and returns why it ended."""


def serve(work: Work) -> int:
    """Be told by standard input what to do, do it, and write events and why it ended to standard output."""
    message = json.loads(sys.stdin.readline())
    # Whatever else writes to standard output, such as a print in somebody's block, must not fall among the events.
    stream = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    lock = threading.Lock()

    def emit(event: Event) -> None:
        with lock, contextlib.suppress(BrokenPipeError):  # Nobody is left to be told; the end of stdin stops the work.
            stream.write(json.dumps(event) + "\n")
            stream.flush()

    stop = Stop()
    with stop.on_signals():
        threading.Thread(target=_end_with_parent, daemon=True).start()
        telling(work, message, emit, stop)
    return 0


def telling(work: Work, told: Mapping[str, Any], emit: OnEvent, stop: Stop) -> None:
    """Do what one is told to do, and tell as events what is logged, why it ended, or what is wrong."""
    log.addHandler(_EventLog(emit))
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        emit({"event": "done", "reason": work(told, emit, stop)})
    except ArchtunaError as error:
        emit({"event": "error", "message": str(error)})
    except Interrupted:
        emit({"event": "done", "reason": "interrupted"})


def _end_with_parent(grace: float = 20.0) -> None:
    """Stop when standard input closes, which it does however the watching process ends."""
    # Not through sys.stdin: a thread that waits in there when the interpreter ends is a fatal error.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace)
    os._exit(1)


@contextlib.contextmanager
def opened(told: Mapping[str, Any]) -> Iterator[tuple[Study, Evaluator, Orders, Callable[[], None]]]:
    """Open what a worker was told to work on, with its pictures, and take a share of the machine; see ``stationed``.

    Told of a storage, it need not have the run's folder, nor a clock that goes like that of the process which tells it.
    """
    sys.path[:0] = [path for path in told["path"] if path not in sys.path]
    import_modules(told["imports"])
    url, orders = told.get("storage"), Orders(**told["orders"])
    found = Study.open(told["run"]) if url is None else Study.join(url, told["study"])
    with storage_errors_named(url or default_url()), found as study:
        data = study.data(told.get("data"))
        if data.fingerprint != study.spec.data["fingerprint"]:
            raise DataError(
                f"the pictures of {data.source} changed since the study was made",
                hint="put the old ones back, or search anew: --out OTHER",
            )
        if url is not None:
            shared = study.optuna.user_attrs.get(Attr.ORDERS, {})
            orders = orders.joined(shared, clock_of(study.optuna._storage), time.time())
        with stationed(study, data, orders, told["evaluator"]) as (evaluator, prepare):
            yield study, evaluator, orders, prepare


def work(told: Mapping[str, Any], emit: OnEvent, stop: Stop) -> str:
    """Be a worker of a search."""
    with opened(told) as (study, evaluator, orders, prepare):
        sampler = told["sampler"]
        if isinstance(sampler, dict):
            sampler = pickle.loads(base64.b64decode(sampler["pickle"]))
        return Worker(study, evaluator, orders, emit, stop, sampler, prepare).run()


if __name__ == "__main__":
    sys.exit(serve(work))
