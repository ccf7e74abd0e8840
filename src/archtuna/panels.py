"""The pieces of a display of a search, shared by who follows its events and who reads its storage: lines that fit a screen."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from archtuna.objective import Objective, kind_of, knee, oriented
from archtuna.report import arrow
from archtuna.terminal import Column, Screen, bar, flowing, shortened, sparkline, spread_over, table, value_of

ROWS = 12
"""Networks of a front that are shown, in a window of fewer than ``WIDE`` columns."""
MANY_ROWS, WIDE = 20, 120
FEWEST = 3


@dataclass(frozen=True)
class Network:
    """A network of a front, as it is shown.

    Attributes:
        number: of its trial.
        values: of the objectives.
        costs: known of it, more than are objectives.
        seconds: that its evaluation took.
        network: what it is, in a few words.
    """

    number: int
    values: Mapping[str, float]
    costs: Mapping[str, float] = field(default_factory=dict)
    seconds: float | None = None
    network: str = ""


@dataclass(frozen=True)
class Worker:
    """What a worker does, as it is shown: its trial, its epochs, the best metric, seconds left, and what else is known."""

    name: str
    trial: str
    epoch: int
    epochs: int
    best: Mapping[str, float | None]
    left: float | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    costs: Mapping[str, float] = field(default_factory=dict)
    network: str = ""
    note: str = ""


def fitted(
    above: Sequence[str], below: Sequence[str], front: Callable[[int | None], list[str]], screen: Screen
) -> list[str]:
    """Return the lines of a display: the front, told how many rows it may have, takes what the others leave."""
    if screen.height is None:
        return [*above, *front(None), *below]
    # One line stays free for the cursor; beside its rows a front has a title, a head, and a line on the others.
    rows = screen.height - 1 - len(above) - len(below) - 3
    lines = [*above, *front(max(FEWEST, rows)), *below]
    if len(lines) > screen.height - 1:
        lines = [line for line in lines if line]
    return lines[: max(1, screen.height - 1)]


def growth_lines(growth: Sequence[float], screen: Screen) -> list[str]:
    """Return how the hypervolume grew as one line whose ends are told."""
    ends = f"hypervolume from {growth[0]:.4f} ", f" to {growth[-1]:.4f}"
    over = f" over {len(growth)} trials"
    if sum(map(len, (*ends, over))) + 12 > screen.width:
        ends, over = (f"{growth[0]:.4f} ", f" {growth[-1]:.4f} hypervolume"), ""
    room = max(1, min(60, screen.width - len(over) - sum(map(len, ends))))
    return [ends[0] + sparkline(growth, room, screen) + ends[1] + over]


def worker_lines(workers: Sequence[Worker], objectives: Sequence[Objective], screen: Screen) -> list[str]:
    """Return a row for each worker: epochs as a bar, the best metric so far, how long it will go on."""
    size, room = (6, 9) if screen.width < 60 else (16, 16) if screen.width < WIDE else (24, 40)
    counts = [f"{one.epoch}/{one.epochs or '?'}" for one in workers]
    longest = max(map(len, counts))
    bars = [
        f"{bar(one.epoch / one.epochs if one.epochs else 0.0, size, screen)} {count:>{longest}}"
        for one, count in zip(workers, counts, strict=True)
    ]
    columns = [
        Column("worker", [shortened(one.name, Screen(room, unicode=screen.unicode)) for one in workers]),
        Column("trial", [one.trial for one in workers]),
        Column("epoch", bars, left=True),
    ]
    for name in dict.fromkeys(name for one in workers for name in one.best):
        columns.append(Column(f"best {name}", [_or_dash(name, one.best.get(name)) for one in workers], short=name))
    columns.append(Column("left", ["-" if one.left is None else clock(one.left) for one in workers]))
    if any(one.note for one in workers):
        columns.append(Column("", [one.note for one in workers], left=True))
    names = [o.name for o in objectives if o.kind == "cost" and any(o.name in one.costs for one in workers)]
    columns += [Column(name, [_or_dash(name, one.costs.get(name)) for one in workers], extra=True) for name in names]
    for name in dict.fromkeys(name for one in workers for name in one.metrics):
        columns.append(Column(f"{name} now", [_or_dash(name, one.metrics.get(name)) for one in workers], extra=True))
    if any(one.network for one in workers):
        columns.append(Column("network", [one.network for one in workers], left=True, extra=True))
    return table(columns, screen)


def front_table(
    networks: Sequence[Network],
    objectives: Sequence[Objective],
    screen: Screen,
    rows: int | None = None,
    folder: str = "",
) -> list[str]:
    """Return a front as a table, best by the first objective first, and at most so many rows that are spread over it.

    Args:
        networks: in any order.
        objectives: of the study.
        screen: to write for.
        rows: how many may be shown, or None for the usual number.
        folder: of the run, for the command that shows all.
    """
    if not networks:
        return ["front: nothing yet"]
    first, most = objectives[0], MANY_ROWS if screen.width >= WIDE else ROWS
    chosen = networks[knee(oriented([[one.values[o.name] for o in objectives] for one in networks], objectives))]
    networks = sorted(networks, key=lambda one: (first.sign * one.values[first.name], one.number))
    best = networks.index(chosen)
    shown = [(i, networks[i]) for i in spread_over(len(networks), min(most, rows or most), keep=(best,))]
    columns = [Column("trial", [f"{one.number}{'*' if i == best else ' '}" for i, one in shown])]
    columns += [
        Column(f"{o.name} {arrow(o)}", [value_of(o.name, one.values[o.name]) for _, one in shown], short=o.name)
        for o in objectives
    ]
    columns += _extra_columns([one for _, one in shown], [o.name for o in objectives])
    left = len(networks) - len(shown)
    more = f"and {left} more, between these: archtuna front {folder or 'RUN'}"
    count = "1 network" if len(networks) == 1 else f"{len(networks)} networks"
    legend = f"front of {count}, best {first.name} first; * knee point"
    return [*flowing(legend.split(", "), screen), *table(columns, screen), *([shortened(more, screen)] if left else [])]


def _extra_columns(networks: Sequence[Network], objectives: Sequence[str]) -> list[Column]:
    """Return what else is known of networks, for windows that have room for it."""
    names = [n for n in dict.fromkeys(n for one in networks for n in one.costs) if n not in objectives and kind_of(n)]
    columns = [Column(n, [_or_dash(n, one.costs.get(n)) for one in networks], extra=True) for n in names]
    if any(one.seconds for one in networks):
        columns.append(Column("took", [clock(one.seconds) if one.seconds else "-" for one in networks], extra=True))
    if any(one.network for one in networks):
        columns.append(Column("network", [one.network or "-" for one in networks], left=True, extra=True))
    return columns


def _or_dash(name: str, value: float | None) -> str:
    return "-" if value is None else value_of(name, value)


def most_workers(screen: Screen) -> int:
    return 16 if screen.height is None else max(2, (screen.height - 12) // 2)


def pace_left(took: float, done: int, to_do: int, heard: float | None = None) -> float | None:
    """Return the seconds that so many epochs will take at the pace of those before, which ended at ``heard``."""
    if done < 1 or to_do < 0:
        return None
    since = 0.0 if heard is None else time.monotonic() - heard
    return max(0.0, took / done * to_do - since)


def clock(seconds: float) -> str:
    """Write a duration as people say it: ``1:05`` or ``2:03:00``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
