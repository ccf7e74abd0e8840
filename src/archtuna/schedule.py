"""When a trial is looked at during its training, and whether it goes on: pure functions on what trials came to at rungs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from archtuna.errors import SpecError
from archtuna.objective import Objective
from archtuna.signature import Bounds, parameters_of_dataclass

SHORTEST = 6
"""Trainings of fewer epochs are not stopped: too little is saved, and too little is known by then."""
STEP = 0.15
"""The longest way from rung to rung, and from the last one to the end, as a share of a training's epochs."""
ENOUGH = 4
"""How many more trials must have been trained in full than there are values that a forecast is made from."""
SPREADS = 2.4
"""How many standard deviations better than its forecast a trial might end."""


@dataclass(frozen=True)
class Schedule:
    """The rungs at which trials are compared; those without a chance of the front are stopped there.

    Attributes:
        first: epochs before the first rung; None is a 25th of a training's epochs, at least 1.
        factor: how many times as many epochs each further rung comes at, until rungs are 15 % of the epochs apart.
        off: whether no trial is stopped.
    """

    first: Annotated[int, Bounds(1, 100_000)] | None = None
    factor: Annotated[float, Bounds(1.1, 10)] = 2.0
    off: bool = False

    def __post_init__(self) -> None:
        for name, parameter in _PARAMETERS.items():
            try:
                object.__setattr__(self, name, parameter.coerce(getattr(self, name)))
            except ValueError as error:
                raise SpecError(str(error), path=f"stopping.{name}", value=getattr(self, name)) from None

    def rungs(self, epochs: int) -> tuple[int, ...]:
        """Return the epochs after which a training of so many is looked at, ascending; none where it is too short.

        >>> Schedule().rungs(27)
        (1, 2, 4, 8, 12, 16, 20)
        """
        if self.off or epochs < SHORTEST:
            return ()
        at, step, rungs = self.first or max(1, round(epochs / 25)), max(1, round(STEP * epochs)), []
        while at <= epochs - step:
            rungs.append(at)
            at += max(1, min(round(at * (self.factor - 1)), step))
        return tuple(rungs)

    def __str__(self) -> str:
        first = "a 25th of its epochs" if self.first is None else f"epoch {self.first}"
        return "off" if self.off else f"first at {first}, then at {self.factor:g} times as many"


def schedule_of(search: Mapping[str, Any]) -> Schedule:
    """Return the schedule that the ``search`` section of a file asks for."""
    return Schedule(first=search.get("first_rung"), off=not search.get("stopping", True))


_PARAMETERS = {p.name: p for p in parameters_of_dataclass(Schedule)}


# --- decisions ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Report:
    """What a trial came to at a rung.

    Attributes:
        epoch: of the rung.
        values: the best so far, one a quality; smaller is better here and below.
        hints: what else says something of the end, in no direction; there may be none.
        costs: the known costs that are objectives; there may be none.
        qualities: the objectives that ``values`` are of, for words.
    """

    epoch: int
    values: np.ndarray
    hints: np.ndarray
    costs: np.ndarray
    qualities: Sequence[Objective]


@dataclass(frozen=True)
class Peers:
    """What other trials came to at the same rung.

    Attributes:
        values: peers × qualities.
        hints: peers × hints.
        costs: peers × costs.
        finals: peers × qualities, at the end of a training in full; NaN where there was none.
    """

    values: np.ndarray
    hints: np.ndarray
    costs: np.ndarray
    finals: np.ndarray


@dataclass(frozen=True)
class Decision:
    """Whether a trial is stopped.

    Attributes:
        stop: whether it is.
        quantile: share of the no dearer peers that were better at the rung, 0 to 1.
        reason: why it is stopped, in words; empty otherwise.
    """

    stop: bool
    quantile: float = 0.0
    reason: str = ""


def decide(report: Report, peers: Peers) -> Decision:
    """Return whether a trial goes on.

    It is stopped when even a good rest of its training would leave it dominated. What the rest brings is read off the
    peers that were trained in full. Only networks that are no dearer in any known cost can dominate, so a cheap network
    has few to fear.

    Args:
        report: of the trial.
        peers: at the same rung.
    """
    no_dearer = (peers.costs <= report.costs).all(axis=1)
    full = np.isfinite(peers.finals).all(axis=1)
    now, at_rung = np.hstack([report.values, report.hints]), np.hstack([peers.values, peers.hints])
    if full.sum() < len(now) + ENOUGH:
        return Decision(False)
    best = hopeful(now, at_rung[full], peers.finals[full])
    best[0] = min(best[0], report.values[0])  # The kept epoch is the best by the first quality, which gets no worse.
    bar = peers.finals[full & no_dearer]
    above = (bar <= best).all(axis=1)
    if not above.any():
        return Decision(False)
    beaten = no_dearer & (peers.values <= report.values).all(axis=1)
    quantile = float(beaten.sum() / max(1, no_dearer.sum()))
    return Decision(True, quantile, _words(report, best, bar[above][0], int(beaten.sum()), int(no_dearer.sum())))


def hopeful(now: np.ndarray, at_rung: np.ndarray, finals: np.ndarray) -> np.ndarray:
    """Return what a trial would come to with a good rest of its training, one value a quality.

    A linear regression on trials that were trained in full forecasts the end, and ``SPREADS`` standard deviations of such a
    forecast are added. A rung that says little of the end gives a flat forecast and a wide spread: nobody is stopped there.

    Args:
        now: what the trial came to at the rung.
        at_rung: the same of the trials that were trained in full, trials × values.
        finals: what those ended with, trials × qualities.
    """
    # From one of them on, so that what is the same for all is 0 and not what a mean's rounding makes of it.
    now, at_rung = now - at_rung[0], at_rung - at_rung[0]
    n, mean, scale = len(finals), at_rung.mean(axis=0), np.maximum(at_rung.std(axis=0), 1e-9)
    left, sizes, right = np.linalg.svd((at_rung - mean) / scale, full_matrices=False)
    told = sizes > 1e-6 * max(1.0, sizes.max())  # What is the same for all, or follows from the rest, tells nothing.
    left, right, ahead = left[:, told], right[told], (now - mean) / scale
    place, slopes, free = right @ ahead / sizes[told], left.T @ finals, n - 1 - len(right)
    if np.abs(ahead - right.T @ (right @ ahead)).max() > 1e-3:
        return np.full(finals.shape[1], -np.inf)  # It differs in what is the same for all: nobody knows its end.
    rest = finals - finals.mean(axis=0) - left @ slopes
    spread = np.sqrt((rest**2).sum(axis=0) / free * (1 + 1 / n + place @ place))
    # Student's t where few trials tell the spread, by the first term of its expansion.
    return finals.mean(axis=0) + place @ slopes - (SPREADS + (SPREADS**3 + SPREADS) / (4 * free)) * spread


def _words(report: Report, best: np.ndarray, bar: np.ndarray, beaten: int, peers: int) -> str:
    signs = [o.sign for o in report.qualities]
    names = " and ".join(o.name for o in report.qualities)
    hopes, bars = (" and ".join(f"{s * v:.4f}" for s, v in zip(signs, x, strict=True)) for x in (best, bar))
    return (
        f"at epoch {report.epoch}, {beaten} of {peers} no dearer networks have a better {names}; "
        f"{hopes} at best in the end, and one of them has {bars}"
    )
