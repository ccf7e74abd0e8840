"""The events of a search as runs: one of the study, and one of each trial that was begun."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from archtuna.errors import number as written

ENDED = ("complete", "stopped", "failed")
"""The states of trials that count among those that were evaluated, whatever came of it."""


@dataclass(frozen=True)
class About:
    """What a study is.

    Attributes:
        name: of the study.
        identity: what names it wherever it is logged from, so that a search that goes on goes on with its runs.
        facts: what was asked for, as plain data.
        joined: whether this process only helps a search that another began, which tells of the study's end.
    """

    name: str
    identity: str
    facts: Mapping[str, Any]
    joined: bool = False


@dataclass(frozen=True)
class Ending:
    """What became of a trial.

    Attributes:
        state: ``complete``, ``stopped``, ``refused``, ``failed``; ``paused`` where it goes on later, ``lost`` where another
            worker has it now.
        metrics: its objectives and costs, by name with what they are before it: ``objective/f1``.
        step: the epoch, or the number of runs, that they belong to.
        note: a line for people, or None.
    """

    state: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    step: int = 0
    note: str | None = None


class Sink(Protocol):
    """Where runs are written. Each method may raise whatever its library raises."""

    def open(self, about: About) -> None:
        """Begin, or go on with, the run of the study."""

    def begin(self, number: int, values: Mapping[str, Any]) -> None:
        """Begin, or go on with, the run of a trial that has these hyperparameters."""

    def curve(self, number: int | None, metrics: Mapping[str, float], step: int) -> None:
        """Write a point of curves, of a trial's or, without a number, of the study's."""

    def finish(self, number: int, ending: Ending) -> None:
        """End the run of a trial."""

    def front(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write the front as it is at the end, a row a trial."""

    def close(self, reason: str | None) -> None:
        """End the run of the study; ``reason`` is why the search ended, or None where nobody said so."""


class Telling:
    """A logger that tells a sink of runs.

    Args:
        sink: where they are written.
    """

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self._about: About | None = None
        self._open: dict[int, dict[str, float]] = {}
        self._epochs: dict[int, int] = {}
        self._notes: dict[int, str] = {}
        self._values: dict[str, Mapping[str, float]] = {}
        self._counts: dict[str, int] = {}
        self._last: tuple[Any, ...] = ()
        self._reason: str | None = None

    def take(self, event: Mapping[str, Any]) -> None:
        """Tell what an event says; those that a run does not show are passed over."""
        known = getattr(self, f"_on_{str(event['event']).replace('-', '_')}", None)
        if known is not None:
            known(event)

    def close(self) -> None:
        """End every run; trials that are open may go on later."""
        for number in list(self._open):
            self._finish(number, "paused", {})
        if self._about is not None:
            self.sink.close(self._reason)

    @property
    def _done(self) -> int:
        return sum(self._counts.get(state, 0) for state in ENDED)

    # the study

    def _on_start(self, event: Mapping[str, Any]) -> None:
        self._counts, self._values = dict(event["counts"]), dict(event["values"])
        self._last = self._point(event["hypervolume"], event["front"])
        if self._about is None:
            facts = ("objectives", "limits", "trials", "time", "workers", "space_size", "pictures", "seeds")
            told = {name: event[name] for name in facts if event.get(name) is not None}
            self._about = About(event["name"], event["identity"], told, event.get("joined", False))
            self.sink.open(self._about)
        if event["event"] == "start" and not self._done:
            self._study(event["hypervolume"], event["front"])

    _on_repeats = _on_start

    def _on_front(self, event: Mapping[str, Any]) -> None:
        self._counts.update(event.get("counts", {}))
        self._changed(event["hypervolume"], event["numbers"])

    def _on_end(self, event: Mapping[str, Any]) -> None:
        self._counts.update(event["trials"])
        self._values.update(event["values"])
        self._changed(event["hypervolume"], event["front"])
        self._reason = event["reason"]
        self.sink.front([{"trial": number, **self._values.get(str(number), {})} for number in event["front"]])

    def _point(self, hypervolume: float, front: Sequence[int]) -> tuple[Any, ...]:
        return self._done, hypervolume, tuple(front)

    def _changed(self, hypervolume: float, front: Sequence[int]) -> None:
        """Write the study's curves unless nothing has changed: several workers tell of one front."""
        if self._last != self._point(hypervolume, front):
            self._study(hypervolume, front)

    def _study(self, hypervolume: float, front: Sequence[int]) -> None:
        self._last = self._point(hypervolume, front)
        counts = {f"study/{state}": float(n) for state, n in self._counts.items()}
        curves = {"study/hypervolume": hypervolume, "study/front": float(len(front)), **counts}
        self.sink.curve(None, curves, self._done)

    # trials

    def _on_trial(self, event: Mapping[str, Any]) -> None:
        number = event["number"]
        recipe = {f"training.{name}": value for name, value in event["recipe"].items()}
        about = {"network": event["summary"], "key": event["key"]}
        if number not in self._open:
            self.sink.begin(number, {**recipe, **event["decisions"], **about})
        self._open[number] = dict(event["costs"])

    def _on_epoch(self, event: Mapping[str, Any]) -> None:
        if "seed" in event:
            return  # Of another training of the network: what it comes to is told when it has ended.
        self._epochs[event["number"]] = event["epoch"]
        metrics = {f"epoch/{name}": value for name, value in event["metrics"].items()}
        self.sink.curve(event["number"], metrics, event["epoch"])

    def _on_measured(self, event: Mapping[str, Any]) -> None:
        self._open.setdefault(event["number"], {}).update(event["values"])

    def _on_reused(self, event: Mapping[str, Any]) -> None:
        of = event["of"]
        self._notes[event["number"]] = f"the evaluation of trial {of['number']} of the study {of['study']}"

    def _on_complete(self, event: Mapping[str, Any]) -> None:
        self._values[str(event["number"])] = event["values"]
        metrics = {f"objective/{name}": value for name, value in event["values"].items()}
        self._ended(event, {**metrics, "seconds": event["seconds"]})

    def _on_stopped(self, event: Mapping[str, Any]) -> None:
        self._ended(event, {})

    _on_refused = _on_failed = _on_stopped

    def _ended(self, event: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Count a trial, and end its run; most that are refused have none, for nothing of them was begun."""
        state, number = event["event"], event["number"]
        self._counts[state] = self._counts.get(state, 0) + 1
        if number in self._open:
            self._finish(number, state, metrics, event.get("reason"))

    def _on_handed_back(self, event: Mapping[str, Any]) -> None:
        if "seed" not in event and event["number"] in self._open:
            self._finish(event["number"], "paused", {})

    def _on_lost(self, event: Mapping[str, Any]) -> None:
        if "seed" not in event and event["number"] in self._open:
            self._finish(event["number"], "lost", {})

    def _on_repeated(self, event: Mapping[str, Any]) -> None:
        """Write what a network comes to with other seeds beside what the search had of it."""
        number, spread = event["number"], event["spread"] or {}
        self._values[str(number)] = event["mean"]
        found = {f"repeat/{name}": event["mean"][name] for name in spread or event["mean"]}
        found |= {f"repeat/{name}_spread": value for name, value in spread.items()}
        self.sink.begin(number, {})
        self.sink.finish(number, Ending("complete", {**found, "repeat/runs": float(event["runs"])}, event["runs"]))

    def _finish(self, number: int, state: str, metrics: Mapping[str, float], reason: str | None = None) -> None:
        costs = {f"cost/{name}": float(value) for name, value in self._open.pop(number).items()}
        epoch, note = self._epochs.pop(number, 0), self._notes.pop(number, None)
        self.sink.finish(number, Ending(state, {**costs, **metrics}, epoch, reason or note))


def front_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a front as a table in Markdown.

    >>> print(front_table([{"trial": 3, "f1": 0.91, "params": 1234.0}]))
    | trial | f1 | params |
    | ---: | ---: | ---: |
    | 3 | 0.91 | 1,234 |
    """
    if not rows:
        return "no network was evaluated in full yet"
    header = list(rows[0])
    cells = [[str(row["trial"]), *(written(row[name]) for name in header[1:] if name in row)] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, ["---:"] * len(header), *cells))
