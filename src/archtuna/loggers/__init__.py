"""Loggers that people use: a search in TensorBoard, MLflow or Weights & Biases, or told to an object of one's own.

Each trial is a run with its hyperparameters, its metrics epoch by epoch and what it came to; the study is a run, too, with
the hypervolume over trials and, in the end, the front.
"""

from __future__ import annotations

import contextlib
import importlib.util
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from archtuna.errors import MissingExtraError, SpecError, brief, nearest
from archtuna.loggers.aside import PATIENCE, Aside, Logger
from archtuna.loggers.telling import Telling

LOGGERS: Mapping[str, tuple[str, str]] = {
    "tensorboard": ("TensorBoard", "TensorBoardSink"),
    "mlflow": ("MLflow", "MlflowSink"),
    "wandb": ("Weights & Biases", "WandbSink"),
}
"""By name, which is also that of the module, the library and the extra: what people call it, and the class that writes."""


def logger_of(name: str, *, folder: str | Path) -> Logger:
    """Return a logger by its name, writing below the folder of a run unless its library's own variables say where.

    Args:
        name: ``tensorboard``, ``mlflow`` or ``wandb``.
        folder: of the run.

    Raises:
        SpecError: there is none of that name.
        MissingExtraError: its library is not installed.
    """
    check_loggers([name])
    made = getattr(import_module(f"archtuna.loggers.{name}"), LOGGERS[name][1])
    return Telling(made(Path(folder)))


def check_loggers(loggers: Sequence[str | Logger]) -> None:
    """Check that loggers are there, before a search begins.

    Raises:
        SpecError: an unknown name, or an object that takes no events.
        MissingExtraError: a library is not installed.
    """
    for one in loggers:
        if not isinstance(one, str):
            if not (callable(getattr(one, "take", None)) and callable(getattr(one, "close", None))):
                raise SpecError(f"no logger: {brief(one)}", path="loggers", hint="it needs take(event) and close()")
        elif one not in LOGGERS:
            hint = nearest(one, LOGGERS) or f"known: {', '.join(LOGGERS)}"
            raise SpecError(f"unknown logger '{one}'", path="loggers", value=one, hint=hint)
        elif not _is_installed(one):
            raise MissingExtraError(LOGGERS[one][0], one)


def _is_installed(library: str) -> bool:
    found = importlib.util.find_spec(library)
    return found is not None and found.origin is not None  # A folder of that name is a package, too, without an origin.


@contextlib.contextmanager
def told(
    loggers: Sequence[str | Logger], on_event: Callable[[dict[str, Any]], None] | None, folder: Path
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Give what tells loggers, and then ``on_event``, of an event; in the end the loggers are closed."""
    asides = [_aside(one, folder) for one in dict.fromkeys(loggers)]

    def emit(event: dict[str, Any]) -> None:
        for aside in asides:
            aside.take(event)
        if on_event is not None:
            on_event(event)

    try:
        yield emit
    finally:
        deadline = time.monotonic() + PATIENCE
        for aside in asides:
            aside.close(max(1.0, deadline - time.monotonic()))


def _aside(one: str | Logger, folder: Path) -> Aside:
    if isinstance(one, str):
        return Aside(LOGGERS[one][0], partial(logger_of, one, folder=folder))
    return Aside(type(one).__name__, lambda: one)
