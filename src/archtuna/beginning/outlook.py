"""How long a search will take, and what fits into the time there is: plain functions on what a trial run measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from archtuna.beginning.inventory import Inventory
from archtuna.schedule import SHORTEST

OVERHEAD = 0.5
"""Seconds of a core that a trial takes beside its epochs: proposing, building, recording."""
START = 20.0
"""Seconds of a core before the first epoch and in the first proposals, when no block has been looked at yet."""
SHARED = (0.93, 0.8)
"""What is left of a worker's speed beside others, in the median and at worst (benchmarks/results/workers.md)."""
STOPPED = 0.5
"""Share of the epochs that early stopping leaves at best, after the first trials (docs/stopping.md)."""
NEVER_STOPPED = 6
"""Trials before anybody knows what the rest of a training brings."""
END = 1.1
"""Share of its time after which a search is over at the latest."""
SHARED_WITH = 1.5
"""Seconds that a second of work takes from which on others are said to use the machine."""
UNKNOWN = 1.6
"""By what factor networks of a space differ from one of it, where only one was measured."""

ENOUGH = 15
"""Trials below which a search has hardly begun to choose."""
PLENTY = 60
"""Trials above which time goes into longer trainings first."""
MOST = 200
"""Trials beyond which more of them is seldom what is missing."""
SIDES = (224, 192, 160, 128, 96, 64, 48, 32)
KEEP = 64
"""Side below which pictures are shrunk only after everything else was tried."""


@dataclass(frozen=True)
class Room:
    """What may still be changed for the sake of the time.

    Attributes:
        side: of the largest input, in pixels; None where it was given and has to stay.
        smallest: side that the space needs at least.
        fraction: of the training pictures.
        least_fraction: below which too little would be left.
        epochs: of a training.
        usual_epochs: that the space comes with, to which a longer training is cut before pictures are left out.
        least_epochs: below which nothing is learnt.
    """

    side: int | None
    smallest: int
    fraction: float
    least_fraction: float
    epochs: int
    usual_epochs: int
    least_epochs: int


def least_fraction(found: Inventory) -> float:
    """Return the smallest share of the training pictures that still has 1,000 pictures and 50 of each class."""
    needed = max(1000 / (0.7 * found.pictures), 50 / (0.7 * found.smallest_class[1]))
    return next((share for share in (0.25, 0.5) if share >= needed), 1.0)


def tightened(room: Room, missing: float) -> Room:
    """Return smaller values for a search in which ``missing`` times as many trials should fit.

    The input shrinks first, to 64 pixels, because time goes with its square; then a long training to a usual one, then the
    pictures, then the epochs again, and at last the input once more. Values stay as large as they may.
    """
    room, missing = _shrunk(room, missing, max(KEEP, room.smallest))
    room, missing = _shortened(room, missing, room.usual_epochs)
    for share in (0.5, 0.25):
        if missing > 1 and room.least_fraction <= share < room.fraction:
            missing *= share / room.fraction
            room = replace(room, fraction=share)
    room, missing = _shortened(room, missing, room.least_epochs)
    return _shrunk(room, missing, room.smallest)[0]


def _shortened(room: Room, missing: float, least: int) -> tuple[Room, float]:
    if missing <= 1 or room.epochs <= least:
        return room, missing
    epochs = max(least, math.floor(room.epochs / missing))
    return replace(room, epochs=epochs), missing * epochs / room.epochs


def _shrunk(room: Room, missing: float, least: int) -> tuple[Room, float]:
    if room.side is None or missing <= 1 or room.side <= least:
        return room, missing
    sides = [side for side in SIDES if least <= side < room.side] or [room.side]
    side = next((side for side in sides if (side / room.side) ** 2 * missing <= 1), sides[-1])
    return replace(room, side=side), missing * (side / room.side) ** 2


# --- how long ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Timed:
    """What one network took in a trial run.

    Attributes:
        params, macs: of the network.
        size: of its input, (height, width).
        train: seconds a training picture.
        val: seconds a validation picture.
        pictures: training pictures that were measured, those of the warm-up left out.
    """

    params: float
    macs: float
    size: tuple[int, int]
    train: float
    val: float
    pictures: int


@dataclass(frozen=True)
class Pace:
    """What a trial run measured.

    Attributes:
        networks: of the space, small, middling and large by multiply-accumulates.
        decode: seconds a picture on one core.
        busy: seconds that pass for a second of a core's work; above 1 where others use this machine.
        device: trained on.
        threads: that a worker has.
        slots: workers that can run at full speed beside each other: cores, or graphics cards.
        cores: that this process may use.
        batch_size: pictures a step.
        seconds: that the trial run took.
    """

    networks: tuple[Timed, ...]
    decode: float
    busy: float
    device: str
    threads: int
    slots: int
    cores: int
    batch_size: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Outlook:
    """What is to be expected of a search.

    Attributes:
        start: seconds before the first epoch.
        epoch: seconds an epoch of the middling network.
        trial: seconds a trial in full: low, expected, high.
        fitting: trials that fit into the time: low, expected, high; the highest with early stopping at its best.
        trials: at which the search ends.
        search: seconds of the whole search: low, high.
    """

    start: float
    epoch: float
    trial: tuple[float, float, float]
    fitting: tuple[int, int, int]
    trials: int
    search: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def outlook(
    pace: Pace,
    *,
    pictures: int,
    train: int,
    val: int,
    epochs: int,
    workers: int,
    seconds: float,
    trials: int | None = None,
) -> Outlook:
    """Return what is to be expected of a search.

    The range of a trial is what the smaller and the larger two networks take, more where others use the machine, for
    nobody knows which networks a search will look at. Early stopping counts at its best in the high end of the trials, and
    not at all elsewhere.

    Args:
        pace: measured.
        pictures: of the whole set, which are decoded once.
        train, val: pictures an epoch.
        epochs: of a trial in full.
        workers: processes.
        seconds: of the search.
        trials: at which the search ends; by default as many as fit at best, within bounds.
    """
    start = START * pace.busy + pace.decode * pictures / pace.cores
    per_epoch = sorted(train * timed.train + val * timed.val for timed in pace.networks)
    low, middle, high = _trial(pace, per_epoch, epochs, workers)
    together = min(workers, pace.slots)
    most = together if pace.device == "cpu" else workers  # Of a shared card one may get more than one's share.
    # What runs when the time is over has a tenth of it to end, and the start may go faster where networks repeat.
    at_best = most * (END * seconds - start / 2) / low
    counts = (
        together * (seconds - start) / high,
        together * (seconds - start) / middle,
        _with_stopping(at_best, epochs),
    )
    fitting = max(0, int(counts[0])), max(0, round(counts[1])), max(0, math.ceil(counts[2]))
    wanted = trials or min(MOST, max(ENOUGH, fitting[2]))
    share = STOPPED if epochs >= SHORTEST else 1.0
    shortest = start / 2 + (min(wanted, NEVER_STOPPED) + share * max(0, wanted - NEVER_STOPPED)) * low / most
    search = min(shortest, seconds), min(start + wanted * high / together, END * seconds)
    return Outlook(
        start, per_epoch[len(per_epoch) // 2], (low, middle, high), fitting, wanted, (search[0], max(search))
    )


def _trial(pace: Pace, per_epoch: Sequence[float], epochs: int, workers: int) -> tuple[float, float, float]:
    """Return the seconds of a trial: of the smaller half of networks, of all, of the larger half."""
    half = (len(per_epoch) + 1) // 2
    smaller, larger = per_epoch[:half], per_epoch[-half:]
    means = [sum(part) / len(part) for part in (smaller, per_epoch, larger)]
    if len(per_epoch) == 1:
        means = [means[1] / UNKNOWN, means[1], means[1] * UNKNOWN]
    shared = (1.0, *SHARED) if workers > 1 else (1.0, 1.0, 1.0)
    low, middle, high = (OVERHEAD * pace.busy + epochs * mean / left for mean, left in zip(means, shared, strict=True))
    if pace.busy >= SHARED_WITH:  # The others may go home, or be twice as many tomorrow.
        others = min(2.0, pace.busy)
        return low / others, middle, high * others
    return low, middle, high


def _with_stopping(trials: float, epochs: int) -> int:
    saved = epochs >= SHORTEST and trials > NEVER_STOPPED
    return int(NEVER_STOPPED + (trials - NEVER_STOPPED) / STOPPED if saved else trials)


def said(seconds: float) -> str:
    """Write a duration as a person says it: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def lines_of(found: Outlook, pace: Pace, workers: int, seconds: float) -> list[str]:
    """Return an outlook in words, with what it was measured on."""
    low, middle, high = found.fitting
    macs = sorted(timed.macs for timed in pace.networks)
    middling = pace.networks[len(macs) // 2]
    lines = [
        f"Expected in {said(seconds)} with {_many(workers, 'worker')}: {_many(middle, 'trial')} in full, {low} to {high} with "
        "what nobody knows yet: which networks the search will look at, and what early stopping saves. A trial takes "
        f"{said(found.trial[0])} to {said(found.trial[2])}, an epoch of the middling network {said(found.epoch)}.",
        f"The search ends after {_range(found.search)}: with {found.trials} trials, or its time.",
        f"Measured in {said(pace.seconds)} on {pace.device}, {_many(pace.threads, 'thread')}, batches of {pace.batch_size}: "
        f"{_many(len(macs), 'network')} of {macs[0] / 1e6:.3g}M to {macs[-1] / 1e6:.3g}M macs at "
        f"{middling.size[0]}x{middling.size[1]}, {sum(timed.pictures for timed in pace.networks):,} training pictures "
        "without the warm-up.",
    ]
    if pace.busy >= SHARED_WITH:
        words = "It may be half of that tomorrow, or twice: the range has both."
        lines.append(f"Others use this machine: a second of work took {pace.busy:.1f} seconds. {words}")
    return lines


def _range(ends: tuple[float, float]) -> str:
    low, high = (said(end) for end in ends)
    return f"about {low}" if low == high else f"{low} to {high}"


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
