"""A search as a person watches it: the events of a study in, lines for a screen or for a log out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from archtuna.errors import number
from archtuna.objective import OBJECTIVES, Objective, kind_of
from archtuna.panels import (
    Network,
    Worker,
    clock,
    fitted,
    front_table,
    growth_lines,
    most_workers,
    pace_left,
    worker_lines,
)  # fmt: skip
from archtuna.report import measured
from archtuna.terminal import USUAL, Screen, flowing, paragraph, shortened


@dataclass
class Running:
    """A trial that is being evaluated.

    Attributes:
        costs: known of its network.
        epoch, epochs: that were trained, and of how many.
        metrics: of the last epoch.
        best: of each metric, the best of the epochs so far.
        worker: who has it.
        network: what it is, in a few words.
        since: when its training began here, in seconds of a monotonic clock, after the epoch ``begun``.
        heard: when its last epoch ended.
    """

    costs: Mapping[str, float]
    epoch: int = 0
    epochs: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    worker: int = 0
    network: str = ""
    since: float = field(default_factory=time.monotonic)
    begun: int = 0
    heard: float = field(default_factory=time.monotonic)

    def ended(self, event: Mapping[str, Any]) -> None:
        """Take note of an epoch."""
        self.epoch, self.epochs, self.metrics = event["epoch"], event["epochs"], event["metrics"]
        self.heard = time.monotonic()
        for name, value in self.metrics.items():
            known = OBJECTIVES.get(name)
            choose = min if known is not None and known.direction == "minimize" else max
            self.best[name] = choose(value, self.best.get(name, value))

    def left(self) -> float | None:
        """Seconds until its last epoch ends, at the pace of those before; None while nobody knows."""
        return pace_left(self.heard - self.since, self.epoch - self.begun, self.epochs - self.epoch, self.heard)


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
    workers: set[int] = field(default_factory=set)
    values: dict[int, Mapping[str, float]] = field(default_factory=dict)
    known: dict[int, dict[str, Any]] = field(default_factory=dict)
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("complete", "stopped", "refused", "failed"), 0)
    )
    front: list[int] = field(default_factory=list)
    hypervolume: float = 0.0
    growth: list[float] = field(default_factory=list)
    folder: str = ""
    last: str = ""
    repeats: int | None = None
    started: float = field(default_factory=time.monotonic)
    first: int = 0
    over: bool = False
    ending: bool = False

    def take(self, event: Mapping[str, Any]) -> None:
        """Bring the state up to date."""
        kind, run = event["event"], (event.get("number") or 0, event.get("seed", 0))
        if kind in ("start", "repeats"):
            self._begin(event)
        elif kind in ("trial", "repeat"):
            self._run_of(event, costs=event["costs"], epochs=event["epochs"], network=event.get("summary", ""))
        elif kind == "epoch":
            self._run_of(event).ended(event)
        elif kind == "resumed":
            running = self._run_of(event)
            running.epoch = running.begun = event["epoch"]
            running.since = time.monotonic()
        elif kind == "measured":
            running = self._run_of(event)
            running.costs = {**running.costs, **event["values"]}
        elif kind in ("complete", "stopped", "refused", "failed"):
            self._end_of(run, event)
        elif kind in ("duplicate", "handed-back", "lost"):
            self.running.pop(run, None)
        elif kind in ("repeated", "repeat-failed"):
            self.running.pop(run, None)
            self.repeats = (self.repeats or 0) + 1
            if kind == "repeated":
                self.values[event["number"]] = event["mean"]
        elif kind == "front":
            self.front, self.hypervolume = list(event["numbers"]), event["hypervolume"]
            self.growth[-1:] = [self.hypervolume]
        elif kind == "worker":
            self._worker(event)
        elif kind == "stopping":
            self.ending = True
        elif kind == "end":
            self.over = True
        self.last = news_of(event) or self.last

    def _begin(self, event: Mapping[str, Any]) -> None:
        self.counts.update(event["counts"])
        self.values.update({int(n): values for n, values in event["values"].items()})
        self.known.update({int(n): {"costs": costs} for n, costs in event.get("costs", {}).items()})
        self.front, self.hypervolume = list(event["front"]), event["hypervolume"]
        self.growth, self.folder = list(event.get("growth", ())), event.get("folder", "")
        if event["event"] == "repeats":
            self.repeats = 0
            return
        self.trials, self.seconds = event["trials"], event["time"]
        self.first, self.started = self.done, time.monotonic()

    def _run_of(self, event: Mapping[str, Any], **given: Any) -> Running:
        """Return the trial that an event is of; what is given begins it anew."""
        run, worker = (event["number"], event.get("seed", 0)), event.get("worker", 0)
        self.workers.add(worker)
        if given or run not in self.running:
            self.running[run] = Running(given.pop("costs", {}), worker=worker, **given)
        return self.running[run]

    def _end_of(self, run: tuple[int, int], event: Mapping[str, Any]) -> None:
        running = self.running.pop(run, None)
        self.counts[event["event"]] += 1
        if event["event"] != "complete":
            return
        self.values[run[0]] = event["values"]
        self.growth.append(self.hypervolume)
        self.known[run[0]] = {
            "costs": running.costs if running else {}, "seconds": event.get("seconds"),
            "network": running.network if running else "",
        }  # fmt: skip

    def _worker(self, event: Mapping[str, Any]) -> None:
        if event["state"] == "alive":
            self.workers.add(event["worker"])
            return
        self.workers.discard(event["worker"])
        for run in [run for run, running in self.running.items() if running.worker == event["worker"]]:
            del self.running[run]

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

    def pieces(self) -> list[str]:
        """What there is to say on the whole search, piece by piece."""
        wanted = f"/{self.trials}" if self.trials else ""
        others = [f"{self.counts[state]} {state}" for state in ("stopped", "refused", "failed") if self.counts[state]]
        if self.repeats is not None:
            others.append(f"{_runs(self.repeats)} with other seeds")
        left = self.left()
        return [f"trials {self.done}{wanted}", *others, *([f"about {clock(left)} left"] if left else [])]

    def summary(self) -> str:
        """One line on the whole search."""
        *pieces, last = self.pieces()
        volume = f"hypervolume {self.hypervolume:.4f}"
        return ", ".join([*pieces, volume, last] if last.endswith(" left") else [*pieces, last, volume])

    def running_lines(self, screen: Screen) -> list[str]:
        """A row for each worker: its trial, the epochs as a bar, the best so far, how long it will go on, the costs."""
        runs = [(state.worker, *run, state) for run, state in sorted(self.running.items())]
        shown = sorted(runs, key=lambda run: run[:3])[: most_workers(screen)]
        quality = next(o.name for o in self.objectives if o.kind == "quality")
        again = self.repeats is not None
        rows = [
            Worker(
                f"{worker}", f"{trial}{f' seed {seed}' if again else ''}", state.epoch, state.epochs,
                {quality: state.best.get(quality)}, state.left(), {**state.metrics}, state.costs, state.network,
            )
            for worker, trial, seed, state in shown
        ]  # fmt: skip
        idle = [f"worker {one} has no trial yet" for one in sorted(self.workers - {run[0] for run in runs})]
        more = [f"and {len(runs) - len(shown)} more workers"] if len(runs) > len(shown) else []
        idle = [] if self.ending else flowing(idle[:4], screen)
        return [*(worker_lines(rows, self.objectives, screen) if rows else []), *more, *idle]

    def front_lines(self, screen: Screen = USUAL, rows: int | None = None) -> list[str]:
        """The front as a table, shortened to what a screen shows."""
        options = [
            Network(n, self.values[n], **self.known.get(n, {})) for n in self.front if self.values.get(n) is not None
        ]
        return front_table(options, self.objectives, screen, rows, self.folder)

    def lines(self, screen: Screen = USUAL) -> list[str]:
        """The whole display, in as many lines as a screen has."""
        head = [shortened(self.title, screen), *flowing(self.pieces(), screen)]
        head += growth_lines(self.growth, screen) if len(self.growth) > 1 else []
        running = self.running_lines(screen)
        work = ["", *running] if running else []
        last = ["", *paragraph("ending: trials that run go back into the queue; Ctrl-C again ends at once", screen)]
        if not self.ending:
            last = ["", *paragraph(self.last, screen)] if self.last else []
        above = [*head, *work, ""]
        return fitted(above, last, lambda rows: self.front_lines(screen, rows), screen)


# --- plain lines -------------------------------------------------------------------------------------


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
    elif kind == "front":
        yield f"front of {len(watch.front)}; {watch.summary()}"
    elif kind == "end":
        yield f"ended ({event.get('reason', 'done')}): {watch.summary()}"
    elif news := news_of(event):
        yield news


def news_of(event: Mapping[str, Any]) -> str | None:
    """Return the line that says what a person is to know of an event, None where that is nothing."""
    kind, trial = event["event"], event.get("number")
    reason = str(event.get("reason") or "").splitlines()
    if kind in ("stopped", "refused", "failed", "waits") and reason:
        return f"trial {trial} {kind}: {reason[0]}"
    if kind == "repeat-failed":
        return f"trial {trial} with seed {event['seed']} failed: {reason[0]}"
    if kind == "probe":
        values = ", ".join(f"{name} {number(value)}" for name, value in event["values"].items())
        return f"one of the first networks, not trained, takes {values}"
    if kind == "resumed" and "seed" not in event:
        return f"trial {trial} goes on after epoch {event['epoch']}"
    if kind == "taken-away":
        return f"trial {trial} was taken from {event['from'] or 'a worker'}, which gives no sign of life"
    if kind == "worker" and event["state"] == "dead":
        return f"worker {event['worker']} died (exit {event['code']}); its trial goes back into the queue"
    return None


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
