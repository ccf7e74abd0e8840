"""Runs as TensorBoard reads them: a folder for the study, and one for each trial, below ``RUN/tensorboard``."""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from archtuna.loggers.telling import About, Ending, front_table

_counted = itertools.count()


class _Events:
    """A file of events, written at once.

    torch's ``SummaryWriter`` writes in a thread for each file, where a full disk is a traceback that nobody catches; a logger
    has a thread of its own already.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}.{next(_counted)}"
        self._made, self._records = Event, RecordWriter(open(folder / name, "xb"))  # noqa: SIM115
        self._write(file_version="brain.Event:2")

    def add(self, *summaries: Any, step: int = 0) -> None:
        for summary in summaries:
            self._write(summary=summary, step=step)
        self._records.flush()

    def close(self) -> None:
        self._records.close()

    def _write(self, **content: Any) -> None:
        self._records.write(self._made(wall_time=time.time(), **content).SerializeToString())


class TensorBoardSink:
    """Writes runs for TensorBoard.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import summary

        self.folder, self._summary = folder / "tensorboard", summary
        self._study: _Events | None = None
        self._trials: dict[int, _Events] = {}
        self._values: dict[int, Mapping[str, Any]] = {}

    def open(self, about: About) -> None:
        self._study = _Events(self.folder / "study")
        lines = [f"- {name}: `{value}`" for name, value in about.facts.items()]
        self._study.add(self._text("study", "\n".join([f"**{about.name}**", "", *lines])))

    def begin(self, number: int, values: Mapping[str, Any]) -> None:
        if number not in self._trials:
            self._trials[number] = _Events(self.folder / f"trial-{number}")
        self._values[number] = values

    def curve(self, number: int | None, metrics: Mapping[str, float], step: int) -> None:
        events = self._study if number is None else self._trials.get(number)
        if events is not None:
            events.add(*self._scalars(metrics), step=step)

    def finish(self, number: int, ending: Ending) -> None:
        events, values = self._trials.pop(number), self._values.pop(number)
        events.add(*self._scalars(ending.metrics), step=ending.step)
        if values and ending.state not in ("paused", "lost"):
            events.add(self._text("trial", _described(ending.state, ending.note, values)))
            plain = {name: _plain(value) for name, value in {**values, "state": ending.state}.items()}
            objectives = {name: v for name, v in ending.metrics.items() if name.startswith(("objective/", "cost/"))}
            events.add(*self._summary.hparams(plain, objectives))
        events.close()

    def front(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if self._study is not None:
            self._study.add(self._text("front", front_table(rows)))

    def close(self, reason: str | None) -> None:
        for events in [*self._trials.values(), *([self._study] if self._study else [])]:
            events.close()

    def _scalars(self, metrics: Mapping[str, float]) -> list[Any]:
        return [self._summary.scalar(name, float(value)) for name, value in metrics.items()]

    def _text(self, name: str, content: str) -> Any:
        return self._summary.text(name, content)


def _plain(value: Any) -> str | float | int | bool:
    return value if isinstance(value, str | float | int | bool) else str(value)


def _described(state: str, note: str | None, values: Mapping[str, Any]) -> str:
    """Return what became of a trial, and of which, in Markdown."""
    said = f"**{state}**" + (f": {note}" if note else "")
    return "\n".join([said, "", *(f"- {name}: `{value}`" for name, value in values.items())])
