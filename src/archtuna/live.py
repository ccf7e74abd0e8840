"""A search as a person watches it: the events of a study in, a display or plain lines out."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from archtuna.errors import number
from archtuna.objective import Objective, kind_of
from archtuna.report import arrow, columns, measured

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

ROWS = 12
BAR = 12


@dataclass
class Running:
    """A trial that is being evaluated."""

    costs: Mapping[str, float]
    epoch: int = 0
    epochs: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Watch:
    """What is known of a running search; ``take`` brings it up to date with an event.

    Attributes:
        title: what is searched.
        objectives: of the study.
        trials: how many are wanted, or None.
        seconds: how long it may take, or None.
    """

    title: str
    objectives: Sequence[Objective]
    trials: int | None = None
    seconds: float | None = None
    running: dict[tuple[int, int], Running] = field(default_factory=dict)
    values: dict[int, Mapping[str, float]] = field(default_factory=dict)
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("complete", "stopped", "refused", "failed"), 0)
    )
    front: list[int] = field(default_factory=list)
    hypervolume: float = 0.0
    last: str = ""
    repeats: int | None = None
    started: float = field(default_factory=time.monotonic)
    first: int = 0
    over: bool = False

    def take(self, event: Mapping[str, Any]) -> None:
        """Bring the state up to date."""
        kind, trial = event["event"], event.get("number")
        run = (trial or 0, event.get("seed", 0))
        if kind == "start":
            self.trials, self.seconds = event["trials"], event["time"]
            self._begin(event)
            self.first, self.started = self.done, time.monotonic()
        elif kind == "repeats":
            self.repeats = 0
            self._begin(event)
        elif kind in ("trial", "repeat"):
            self.running[run] = Running(event["costs"], epochs=event["epochs"])
        elif kind == "epoch":
            running = self.running.setdefault(run, Running({}))
            running.epoch, running.epochs, running.metrics = event["epoch"], event["epochs"], event["metrics"]
        elif kind in ("complete", "stopped", "refused", "failed"):
            self.running.pop(run, None)
            self.counts[kind] += 1
            if kind == "complete":
                self.values[event["number"]] = event["values"]
            elif event.get("reason"):
                self.last = f"trial {trial} {kind}: {str(event['reason']).splitlines()[0]}"
        elif kind == "measured":
            running = self.running.setdefault(run, Running({}))
            running.costs = {**running.costs, **event["values"]}
        elif kind == "probe":
            self.last = _probe_line(event)
        elif kind in ("duplicate", "handed-back"):
            self.running.pop(run, None)
        elif kind in ("repeated", "repeat-failed"):
            self.running.pop(run, None)
            self.repeats = (self.repeats or 0) + 1
            if kind == "repeated":
                self.values[event["number"]] = event["mean"]
            else:
                self.last = _failed_line(event)
        elif kind == "front":
            self.front, self.hypervolume = list(event["numbers"]), event["hypervolume"]
        elif kind == "end":
            self.over = True
        elif kind == "worker" and event["state"] == "dead":
            self.last = f"worker {event['worker']} died (exit {event['code']}); its trial goes back into the queue"

    def _begin(self, event: Mapping[str, Any]) -> None:
        self.counts.update(event["counts"])
        self.values.update({int(n): values for n, values in event["values"].items()})
        self.front, self.hypervolume = list(event["front"]), event["hypervolume"]

    @property
    def done(self) -> int:
        """Trials that count: all that were evaluated, whatever came of it."""
        return self.counts["complete"] + self.counts["stopped"] + self.counts["failed"]

    def left(self) -> float | None:
        """Seconds that are left, by the clock or by the pace so far, whichever ends first; None when nobody knows."""
        if self.over or self.repeats is not None:
            return None
        passed, done = time.monotonic() - self.started, self.done - self.first
        by_pace = passed / done * (self.trials - self.done) if self.trials and done else None
        by_clock = self.seconds - passed if self.seconds else None
        known = [max(0.0, estimate) for estimate in (by_pace, by_clock) if estimate is not None]
        return min(known) if known else None

    def summary(self) -> str:
        """One line on the whole search."""
        wanted = f"/{self.trials}" if self.trials else ""
        others = [f"{self.counts[state]} {state}" for state in ("stopped", "refused", "failed") if self.counts[state]]
        if self.repeats is not None:
            others.append(f"{_runs(self.repeats)} with other seeds")
        left = self.left()
        parts = [f"trials {self.done}{wanted}", *others, f"hypervolume {self.hypervolume:.4f}"]
        return ", ".join(parts) + (f", about {clock(left)} left" if left is not None else "")

    def running_lines(self) -> list[str]:
        """A line for each trial that is being evaluated: its epochs as a bar, its newest metrics, its costs."""
        lines = []
        for (trial, seed), state in sorted(self.running.items()):
            filled = round(BAR * state.epoch / state.epochs) if state.epochs else 0
            metrics = " ".join(f"{name} {value:.3f}" for name, value in state.metrics.items())
            costs = " ".join(
                f"{o.name} {number(state.costs[o.name])}" for o in self.objectives if o.name in state.costs
            )
            bar = "━" * filled + "╌" * (BAR - filled)
            again = f" seed {seed}" if self.repeats is not None else ""
            lines.append(f"  {trial:>4}{again} {bar} {state.epoch}/{state.epochs or '?'}  {metrics}  {costs}".rstrip())
        return lines

    def front_lines(self) -> list[str]:
        """The front as a table, shortened to what a screen shows."""
        known = [n for n in self.front if n in self.values]
        header = ("trial", *(f"{o.name} {arrow(o)}" for o in self.objectives))
        shown = known[:ROWS]
        rows = [(str(n), *(number(self.values[n][o.name]) for o in self.objectives)) for n in shown]
        more = [f"and {len(known) - ROWS} more"] if len(known) > ROWS else []
        return [*columns(header, rows), *more] if known else ["nothing yet"]

    def lines(self) -> list[str]:
        """The whole display."""
        running = ["", "running", *self.running_lines()] if self.running else []
        last = ["", self.last] if self.last else []
        return [self.title, self.summary(), *running, "", "front", *(f"  {line}" for line in self.front_lines()), *last]


def clock(seconds: float) -> str:
    """Write a duration as people say it: ``1:05`` or ``2:03:00``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def plain_lines(watch: Watch, event: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines that say an event where there is no terminal; epochs are not said."""
    kind, trial = event["event"], event.get("number")
    if kind == "start":
        yield f"{watch.title}: {watch.summary()}"
    elif kind == "complete":
        values = ", ".join(f"{name} {number(value)}" for name, value in event["values"].items())
        yield f"trial {trial} complete: {values}"
    elif kind == "repeats":
        what = "the front" if event["numbers"] is None else f"trials {', '.join(map(str, event['numbers']))}"
        yield f"{watch.title}: {what} again, {_runs(event['seeds'])} each with other seeds"
    elif kind == "repeated":
        yield _repeated_line(event)
    elif kind == "repeat-failed":
        yield _failed_line(event)
    elif kind == "front":
        yield f"front of {len(watch.front)}; {watch.summary()}"
    elif kind == "probe":
        yield _probe_line(event)
    elif kind in ("refused", "failed", "stopped"):
        yield f"trial {trial} {kind}: {str(event['reason']).splitlines()[0]}"
    elif kind == "worker" and event["state"] == "dead":
        yield watch.last
    elif kind == "end":
        yield f"ended ({event.get('reason', 'done')}): {watch.summary()}"


def _runs(n: int) -> str:
    return f"{n} run" if n == 1 else f"{n} runs"


def _repeated_line(event: Mapping[str, Any]) -> str:
    """Say what a run with another seed gave, and the mean that it makes."""
    shown = [
        f"{name} {number(value)}, mean {measured(event['mean'][name], (event['spread'] or {}).get(name), event['runs'])}"
        for name, value in event["values"].items()
        if kind_of(name) == "quality"
    ]
    return f"trial {event['number']} with seed {event['seed']}: {'; '.join(shown)}"


def _probe_line(event: Mapping[str, Any]) -> str:
    values = ", ".join(f"{name} {number(value)}" for name, value in event["values"].items())
    return f"one of the first networks, not trained, takes {values}"


def _failed_line(event: Mapping[str, Any]) -> str:
    reason = str(event["reason"]).splitlines()[0]
    return f"trial {event['number']} with seed {event['seed']} failed: {reason}"


class Display:
    """Shows a watch on a terminal and redraws it while events come; a context manager."""

    def __init__(self, watch: Watch, console: Console) -> None:
        from rich.live import Live

        self.watch = watch
        self._lock = threading.Lock()  # a thread of rich's redraws, another takes events
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=4, transient=True)

    def take(self, event: Mapping[str, Any]) -> None:
        """Bring the watch up to date."""
        with self._lock:
            self.watch.take(event)

    def _render(self) -> RenderableType:
        from rich.text import Text

        with self._lock:
            lines = self.watch.lines()
        return Text("\n".join(lines), no_wrap=True, overflow="ellipsis")

    def __enter__(self) -> Display:
        self._live.__enter__()
        return self

    def __exit__(self, *args: Any) -> None:
        self._live.__exit__(*args)
