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
from dataclasses import replace
from typing import Any

from archtuna.errors import ArchtunaError, DataError
from archtuna.evaluate import Evaluator
from archtuna.interrupts import Interrupted, Stop
from archtuna.orders import Orders
from archtuna.registry import import_blocks
from archtuna.storage import default_url, storage_errors_named
from archtuna.study import Study
from archtuna.worker import Event, OnEvent, Worker, evaluator_for

log = logging.getLogger("archtuna")


class _EventLog(logging.Handler):
    """Sends what the library logs to the process that watches the workers."""

    def __init__(self, emit: OnEvent) -> None:
        super().__init__(logging.INFO)
        self.send = emit

    def emit(self, record: logging.LogRecord) -> None:
        self.send({"event": "log", "level": record.levelno, "message": record.getMessage()})


def serve(work: Callable[[Mapping[str, Any], OnEvent, Stop], str]) -> int:
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

    log.addHandler(_EventLog(emit))
    log.setLevel(logging.INFO)
    log.propagate = False
    stop = Stop()
    with stop.on_signals():
        threading.Thread(target=_end_with_parent, daemon=True).start()
        try:
            emit({"event": "done", "reason": work(message, emit, stop)})
        except ArchtunaError as error:
            emit({"event": "error", "message": str(error)})
        except Interrupted:
            emit({"event": "done", "reason": "interrupted"})
    return 0


def _end_with_parent(grace: float = 20.0) -> None:
    """Stop when standard input closes, which it does however the watching process ends."""
    # Not through sys.stdin: a thread that waits in there when the interpreter ends is a fatal error.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace)
    os._exit(1)


@contextlib.contextmanager
def opened(message: Mapping[str, Any]) -> Iterator[tuple[Study, Evaluator, Orders]]:
    """Open what a worker was told to work on."""
    sys.path[:0] = [path for path in message["path"] if path not in sys.path]
    import_blocks(message["imports"])
    orders = Orders(**message["orders"])
    with storage_errors_named(default_url()), Study.open(message["run"]) as study:
        data = study.data(message.get("data"))
        if data.fingerprint != study.spec.data["fingerprint"]:
            raise DataError(f"the pictures of {data.source} changed since the study was made")
        yield study, evaluator_for(study, data, study.split(data), _with_device(orders), message["evaluator"]), orders


def _with_device(orders: Orders) -> Orders:
    """Give each worker a graphics card of its own where there are several and none was named."""
    import torch

    if orders.device is not None or torch.cuda.device_count() < 2:
        return orders
    return replace(orders, device=f"cuda:{orders.index % torch.cuda.device_count()}")


def _work(message: Mapping[str, Any], emit: OnEvent, stop: Stop) -> str:
    with opened(message) as (study, evaluator, orders):
        sampler = message["sampler"]
        if isinstance(sampler, dict):
            sampler = pickle.loads(base64.b64decode(sampler["pickle"]))
        return Worker(study, evaluator, orders, emit, stop, sampler).run()


if __name__ == "__main__":
    sys.exit(serve(_work))
