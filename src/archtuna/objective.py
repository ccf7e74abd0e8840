"""What a search optimises and what it must not break: objectives, limits, fronts. Pure functions on plain data."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from archtuna.errors import SpecError, brief, nearest

Direction = Literal["minimize", "maximize"]


@dataclass(frozen=True)
class Objective:
    """One value of a candidate and the direction that is better.

    Attributes:
        name: as users write it.
        direction: ``minimize`` or ``maximize``, as Optuna spells it.
        kind: a ``quality`` is known after training, a ``cost`` before.
        meaning: one line for people.
        is_measured: whether it takes a device to know a cost: it does not follow from the network alone.
        device: name of the device that it is measured on; None where that is this machine, or it is not measured.
        best, worst: values between which a quality counts for the hypervolume; None where it depends on the study.
        origin: the Python module that a metric of one's own is of; empty for ours.
    """

    name: str
    direction: Direction
    kind: Literal["quality", "cost"]
    meaning: str
    is_measured: bool = False
    device: str | None = None
    best: float | None = None
    worst: float | None = None
    origin: str = ""

    @property
    def base(self) -> str:
        """The name without the device."""
        return self.name.partition("@")[0]

    @property
    def sign(self) -> float:
        """1 when smaller is better, -1 when larger is."""
        return 1.0 if self.direction == "minimize" else -1.0


OBJECTIVES: dict[str, Objective] = {
    o.name: o
    for o in (
        Objective("loss", "minimize", "quality", "cross-entropy on the validation pictures, in nats", best=0.0),
        Objective("f1", "maximize", "quality", "macro F1 on the validation pictures, 0 to 1", best=1.0, worst=0.0),
        Objective(
            "accuracy", "maximize", "quality", "accuracy on the validation pictures, 0 to 1", best=1.0, worst=0.0
        ),
        Objective("params", "minimize", "cost", "trainable parameters"),
        Objective(
            "macs", "minimize", "cost", "multiply-accumulates of convolutions and matrix products for one picture"
        ),
        Objective(
            "size_mb", "minimize", "cost", "bytes of the weights as 32-bit floats, or of what is deployed, in 10^6"
        ),
        Objective(
            "peak_memory_mb", "minimize", "cost", "bytes of activations that are alive at once for one picture, in 10^6"
        ),
        Objective("latency_ms", "minimize", "cost", "milliseconds of the exported network for a batch", True),
        Objective("energy_mj", "minimize", "cost", "millijoules of the exported network for a batch", True),
    )
}
"""Those of archtuna, and the metrics of one's own that ``own_metrics`` adds."""

DEVICE_NAME = r"[\w.-]{1,64}"


def objective_of(name: str, *, path: str = "objectives") -> Objective:
    """Return the objective of a name; ``latency_ms@pi4`` is ``latency_ms``, measured on the device ``pi4``.

    Raises:
        SpecError: there is none, or it is not measured on devices.
    """
    base, at, device = name.partition("@")
    if base not in OBJECTIVES:
        hint = nearest(base, OBJECTIVES) or f"known: {', '.join(OBJECTIVES)}; a metric of your own: --import its module"
        raise SpecError(f"unknown objective '{name}'", path=path, value=name, hint=hint)
    known = OBJECTIVES[base]
    if not at:
        return known
    if not known.is_measured:
        raise SpecError(f"'{base}' is the same on every device", path=path, value=name, hint=f"write {base}")
    if not re.fullmatch(DEVICE_NAME, device):
        raise SpecError(f"'{device}' is not the name of a device", path=path, value=name, hint="write latency_ms@pi4")
    return replace(known, name=name, meaning=f"{known.meaning}, on {device}", device=device)


def kind_of(name: str) -> str | None:
    """Return whether a name is that of a ``quality`` or of a ``cost``, None where it is no objective's."""
    try:
        return objective_of(name).kind
    except SpecError:
        return None


def objectives_of(names: Sequence[str]) -> tuple[Objective, ...]:
    """Return the objectives of these names, in order.

    Raises:
        SpecError: an unknown or repeated name, or none that training reveals.
    """
    found: list[Objective] = []
    for name in names:
        objective = objective_of(name)
        if objective in found:
            raise SpecError(f"objective '{name}' stands twice", path="objectives", value=name, hint="name each once")
        found.append(objective)
    if not any(o.kind == "quality" for o in found):
        raise SpecError(
            "no objective says how right a network is",
            path="objectives",
            hint=f"add one of {', '.join(o.name for o in OBJECTIVES.values() if o.kind == 'quality')}",
        )
    return tuple(found)


@dataclass(frozen=True)
class Limit:
    """A bound on a cost, known before training: ``params <= 500k``."""

    name: str
    bound: float

    def violation(self, costs: Mapping[str, float]) -> float:
        """Return by what share of the bound the cost exceeds it; zero or less when it is kept.

        The share has no unit, so that violations of several limits can be added up (Optuna does).
        """
        return costs[self.name] / self.bound - 1.0

    def __str__(self) -> str:
        return f"{self.name} <= {int(self.bound) if self.bound.is_integer() else self.bound!r}"


BOUND = re.compile(
    rf"\s*(?P<name>\w+(?:@{DEVICE_NAME})?)\s*"
    r"(?P<sign><=|>=|==|<|>|=)\s*(?P<number>[\d.]+(?:e[+-]?\d+)?)\s*(?P<unit>[kKmMgG]?)\s*"
)
"""A name, a sign and a number with a unit: ``params <= 500k``."""

_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}


def limit_of(text: str) -> Limit:
    """Read ``params <= 500k``; the units k, M and G are 10^3, 10^6 and 10^9.

    Raises:
        SpecError: the text is no limit, or not on a cost.
    """
    match = BOUND.fullmatch(str(text)) if len(str(text)) < 100 else None
    if not match:
        raise SpecError(
            f"{brief(str(text))} is not a limit", path="limits", value=text, hint="write for example: params <= 500k"
        )
    name = match["name"]
    if match["sign"] not in ("<=", "<"):
        raise SpecError(
            f"'{text}': only <= can be a limit", path="limits", value=text, hint="write for example: params <= 500k"
        )
    costs = [o.name for o in OBJECTIVES.values() if o.kind == "cost"]
    if kind_of(name) != "cost":
        hint = nearest(name, costs) or f"limits are checked before training: {', '.join(costs)}"
        raise SpecError(f"'{name}' cannot be limited", path="limits", value=text, hint=hint)
    bound = amount_of(match, path="limits")
    if not (math.isfinite(bound) and bound > 0):
        raise SpecError(
            "a limit must be above zero", path="limits", value=text, hint="write for example: params <= 500k"
        )
    return Limit(name, bound)


def amount_of(match: re.Match[str], *, path: str) -> float:
    """Return the number of a match of ``BOUND``, its unit counted in.

    Raises:
        SpecError: its digits are no number.
    """
    try:
        return float(match["number"]) * _UNITS[match["unit"].lower()]
    except ValueError:
        raise SpecError(f"'{match['number']}' is not a number", path=path, value=match[0]) from None


def values_of(objectives: Sequence[Objective], known: Mapping[str, float]) -> list[float]:
    """Return the values of objectives, in order, out of everything that is known of a network: costs and metrics."""
    return [float(known[o.name]) for o in objectives]


def oriented(values: Sequence[Sequence[float]], objectives: Sequence[Objective]) -> np.ndarray:
    """Return values as a matrix (points × objectives) in which smaller is always better; there may be no objectives."""
    matrix = np.asarray(values, dtype=float).reshape(len(values), len(objectives))
    return matrix * np.array([o.sign for o in objectives])


def pareto_ranks(points: np.ndarray) -> np.ndarray:
    """Return the non-domination rank of each point (points × objectives, smaller is better): 0 is the front.

    Equal points share a rank (Deb et al. 2002, NSGA-II, section III-A).
    """
    from moocore import pareto_rank

    return np.asarray(pareto_rank(points)) if len(points) else np.zeros(0, dtype=int)


def nondominated(points: np.ndarray) -> np.ndarray:
    """Return which points no other dominates (points × objectives, smaller is better); of equal points all or none."""
    from moocore import is_nondominated

    return np.asarray(is_nondominated(points, keep_weakly=True)) if len(points) else np.zeros(0, dtype=bool)


def knee(points: np.ndarray) -> int:
    """Return the index of the point nearest to the ideal, each objective scaled to 0..1 over the points.

    Of points that are as near, as the two of a front of two are, it is the one that is best in the first objective.

    Args:
        points: a front, points × objectives, smaller is better, at least one point.
    """
    span = np.ptp(points, axis=0)
    scaled = (points - points.min(axis=0)) / np.where(span > 0, span, 1.0)
    return int(np.lexsort((points[:, 0], np.linalg.norm(scaled, axis=1).round(9)))[0])


def hypervolume(
    points: np.ndarray, ideal: Sequence[float] | np.ndarray, reference: Sequence[float] | np.ndarray
) -> float:
    """Return the share of the box between ``reference`` and ``ideal`` that the points dominate, 0 to 1.

    Args:
        points: points × objectives, smaller is better; what lies beyond the reference counts nothing.
        ideal: the best value of each objective, which no point beats.
        reference: the worst value of each objective that still counts.
    """
    from moocore import hypervolume as volume

    best, worst = np.asarray(ideal, dtype=float), np.asarray(reference, dtype=float)
    scaled = (points - best) / np.where(worst > best, worst - best, 1.0)
    inside = scaled[(scaled < 1.0).all(axis=1)].clip(min=0.0)
    return float(volume(inside, ref=np.ones(len(best)))) if len(inside) else 0.0
