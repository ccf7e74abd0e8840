"""What the workers of a search are told, and when one of them begins another trial."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from archtuna.leases import SECONDS
from archtuna.study import NEAR

FIT_SHARE = 0.75
"""A trial is not begun when less than this share of the median trial's time is left."""


@dataclass(frozen=True)
class Orders:
    """What a worker is told, as plain data.

    Attributes:
        trials: evaluations that the study is to reach, over all workers and starts, or None.
        deadline: seconds since the epoch after which no trial begins, or None.
        grace: seconds after the deadline in which running trials may end.
        index: of this worker, or of the first of several; no two have the same.
        workers: how many there are on this machine.
        started: trials that the study had when the search started; another start draws other random numbers.
        near: checkpoints kept behind the front.
        device: where to train, or None to pick.
        per_gpu: how many workers may share one graphics card.
        lease: seconds after which the trial of a worker that gives no sign of life is taken from it.
        linger: whether to stay until the last trial of any worker has ended, to go on with it should that worker die.
    """

    trials: int | None = None
    deadline: float | None = None
    grace: float = 30.0
    index: int = 0
    workers: int = 1
    started: int = 0
    near: int = NEAR
    device: str | None = None
    per_gpu: int = 1
    lease: float = SECONDS
    linger: bool = False

    def shared(self, clock: float, here: float) -> dict[str, Any]:
        """Return what holds for all workers of a study, as plain data for those that join it later.

        Args:
            clock, here: the time by the clock that all share, and by this machine's.
        """
        plain = {name: value for name, value in asdict(self).items() if name in SHARED}
        return plain | {"deadline": None if self.deadline is None else self.deadline + clock - here}

    def joined(self, shared: Mapping[str, Any], clock: float, here: float) -> Orders:
        """Return these orders with what ``shared`` returned, the deadline by this machine's clock."""
        given = {name: value for name, value in shared.items() if name in SHARED}
        found = replace(self, **given)
        return found if found.deadline is None else replace(found, deadline=found.deadline - clock + here)


SHARED = ("trials", "deadline", "grace", "near", "lease")
"""What all workers of a study are told alike."""


# --- when to begin another ---------------------------------------------------------------------------


def is_admitted(before: int, target: int | None) -> bool:
    """Return whether a trial is among the first ``target`` that count.

    Trial numbers are unique whatever the storage, so workers that ask this agree without a lock and the total is exact.

    Args:
        before: how many trials that count have a smaller number.
        target: how many evaluations are wanted, or None.
    """
    return target is None or before < target


def is_reached(wanted: int, waiting: int, target: int | None) -> bool:
    """Return whether no trial is left to begin: all that are wanted are done or with a worker.

    Args:
        wanted: how many trials count.
        waiting: how many of them wait for a worker.
        target: how many evaluations are wanted, or None.
    """
    return target is not None and not waiting and wanted >= target


def has_time(now: float, deadline: float | None, seconds: Sequence[float]) -> bool:
    """Return whether another trial may begin: the deadline is not past, and is not clearly too near.

    Args:
        now, deadline: in seconds on one clock.
        seconds: how long the study's trials took.
    """
    if deadline is None:
        return True
    needed = FIT_SHARE * statistics.median(seconds) if seconds else 0.0
    return now < deadline and deadline - now >= needed
