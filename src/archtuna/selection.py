"""Choosing a network from a front, and telling a difference from noise. Pure functions on plain data.

Two trainings of one network differ. What is known of that is in an option's ``runs`` and ``spread``: how many trainings its
values are the means of, and their sample standard deviation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from archtuna.errors import SpecError, StudyError, brief, nearest, number
from archtuna.objective import BOUND, Objective, amount_of, kind_of, knee, objective_of, oriented

SHARES = ("accuracy", "f1")
"""Qualities that are shares of pictures, whose sampling error follows from how many pictures there are."""

EMPTY = "archtuna status RUN says how the search stands; the same search command goes on"
"""What helps where nothing is on the front."""

ERRORS_APART = 2.0
"""A difference of fewer standard errors of it may be chance."""


class Measured(Protocol):
    """Whatever has values and says how sure they are; a trial has, and an ``Option``."""

    @property
    def values(self) -> Mapping[str, float]:
        """By name; means where there were several runs."""

    @property
    def runs(self) -> int:
        """How many trainings the values are the means of."""

    @property
    def spread(self) -> Mapping[str, float] | None:
        """Sample standard deviation of each quality over the runs, or None of a single run."""


@dataclass(frozen=True)
class Option:
    """A network of a front, as choosing sees it.

    Attributes:
        number: of its trial.
        values: objectives and costs by name; means where there were several runs.
        runs: how many trainings the values are the means of.
        spread: sample standard deviation of each quality over the runs, or None of a single run.
    """

    number: int
    values: Mapping[str, float]
    runs: int = 1
    spread: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Bound:
    """What a chosen network must keep: at most or at least a value, of an objective or a cost."""

    name: str
    sign: Literal["<=", ">="]
    value: float

    def violation(self, values: Mapping[str, float]) -> float:
        """Return by what share of the bound a value breaks it; zero or less when it is kept."""
        beyond = values[self.name] - self.value
        return (beyond if self.sign == "<=" else -beyond) / (abs(self.value) or 1.0)

    def __str__(self) -> str:
        return f"{self.name} {self.sign} {int(self.value) if float(self.value).is_integer() else self.value!r}"


def bound_of(text: str, sign: Literal["<=", ">="]) -> Bound:
    """Read ``params=300k``; the units k, M and G are 10^3, 10^6 and 10^9.

    Raises:
        SpecError: the text is no such bound.
    """
    flag, example = ("max", "params=300k") if sign == "<=" else ("min", "f1=0.9")
    match = BOUND.fullmatch(text) if len(text) < 100 else None
    if not match or match["sign"] != "=":
        raise SpecError(f"{brief(text)} is not a bound", path=flag, value=text, hint=f"write for example: {example}")
    return Bound(match["name"], sign, amount_of(match, path=flag))


@dataclass(frozen=True)
class Selection:
    """Which option was chosen.

    Attributes:
        index: of the option.
        why: one line for people.
        left: how many options keep the bounds.
    """

    index: int
    why: str
    left: int


# --- noise -------------------------------------------------------------------------------------------


def is_noise(better: Measured, other: Measured, name: str) -> bool | None:
    """Return whether a difference of two means is within two standard errors of the difference.

    The standard error is Welch's (1947), ``sqrt(s1²/n1 + s2²/n2)``. None where one of the two was trained once only:
    nothing is known of its noise then.
    """
    if better.spread is None or other.spread is None:
        return None
    error = math.hypot(*(one.spread[name] / math.sqrt(one.runs) for one in (better, other) if one.spread))
    return abs(better.values[name] - other.values[name]) <= ERRORS_APART * error


def noise_marks(front: Sequence[Measured], quality: Objective) -> list[bool]:
    """Return for each network of a front whether what it is better by than the next cheaper one may be chance.

    Args:
        front: cheapest first.
        quality: the objective that is compared.
    """
    marks = [False] * len(front)
    for i in range(1, len(front)):
        gain = quality.sign * (front[i - 1].values[quality.name] - front[i].values[quality.name])
        marks[i] = gain > 0 and is_noise(front[i], front[i - 1], quality.name) is True
    return marks


def standard_error(option: Measured, name: str, pictures: int | None) -> tuple[float, str]:
    """Return the standard error of an option's quality, and in words where it comes from.

    Of several runs it is that of their mean. Of a single one, accuracy and F1 have that of a share of so many pictures,
    ``sqrt(p (1 - p) / n)``: exact for accuracy (Breiman et al. 1984, section 3.4.3), near it for the macro F1 of classes of
    one size, and too small for that of unequal ones.

    Args:
        option: whose value it is.
        name: of the quality.
        pictures: validation pictures, or None when nobody knows.

    Raises:
        StudyError: there was one run, and the value is no share of known pictures.
    """
    if option.spread is not None:
        return option.spread[name] / math.sqrt(option.runs), f"of {option.runs} runs"
    if name not in SHARES or not pictures:
        raise StudyError(
            f"the standard error of {name} is not known: the network was trained once",
            hint="archtuna repeat trains the networks of the front again, with other seeds",
        )
    share = min(max(option.values[name], 0.0), 1.0)
    return math.sqrt(share * (1.0 - share) / pictures), f"of a share of {pictures} validation pictures"


# --- choosing ----------------------------------------------------------------------------------------


def pick(
    options: Sequence[Option],
    objectives: Sequence[Objective],
    *,
    best: str | None = None,
    bounds: Sequence[Bound] = (),
    knee: bool = False,
    within_one_se: bool = False,
    smallest: str | None = None,
    pictures: int | None = None,
) -> Selection:
    """Choose one network of a front, among those that keep the bounds.

    Args:
        options: the front, cheapest first.
        objectives: of the study.
        best: what the chosen network is best at, by default the first quality.
        bounds: what it must keep.
        knee: choose the network nearest to the ideal instead, each objective scaled over those that keep the bounds.
        within_one_se: choose the smallest network that is within one standard error of the best instead
            (Breiman et al. 1984, section 3.4.3, the 1 SE rule).
        smallest: the cost that makes a network small, by default the first.
        pictures: validation pictures, for the standard error of networks that were trained once.

    Raises:
        StudyError: the front is empty, none keeps the bounds, two ways to choose are asked for at once, or the standard
            error is not known.
        SpecError: an unknown name.
    """
    if not options:
        raise StudyError("the front is empty: no trial is complete", hint=EMPTY)
    if knee and (within_one_se or best is not None):
        raise StudyError(
            "the knee point is best at nothing by itself", hint="leave out one of knee, best, within_one_se"
        )
    if smallest is not None and not within_one_se:
        raise StudyError(
            "what makes a network small counts within one standard error of the best", hint="add --within-one-se"
        )
    names = _names(options)
    for bound in bounds:
        _check_name(bound.name, names, "max" if bound.sign == "<=" else "min")
    left = [i for i, option in enumerate(options) if _keeps(option, bounds)]
    if not left:
        raise _nothing_left(options, bounds, objectives)
    if knee:
        return Selection(_knee(options, left, objectives), _KNEE, len(left))
    first = next(o.name for o in objectives if o.kind == "quality")
    target = _objective(best or first, names, "best", ("quality",) if within_one_se else ("quality", "cost"))
    chosen = _best(options, left, target)
    if not within_one_se:
        return Selection(chosen, f"the best {target.name}", len(left))
    small = smallest or next((o.name for o in objectives if o.kind == "cost"), "params")
    found, why = _smallest(options, left, chosen, target, _objective(small, names, "smallest", ("cost",)), pictures)
    return Selection(found, why, len(left))


_KNEE = "the knee point: nearest to the ideal, each objective scaled to 0..1"


def _names(options: Sequence[Option]) -> list[str]:
    return [name for name in options[0].values if all(name in option.values for option in options)]


def _check_name(name: str, names: Sequence[str], path: str) -> None:
    if name not in names:
        hint = nearest(name, names) or f"known here: {', '.join(names)}"
        raise SpecError(f"'{name}' cannot be asked for", path=path, value=name, hint=hint)


def _objective(name: str, names: Sequence[str], path: str, kinds: Sequence[str]) -> Objective:
    _check_name(name, [known for known in names if kind_of(known) in kinds], path)
    return objective_of(name)


def _keeps(option: Option, bounds: Sequence[Bound]) -> bool:
    return all(bound.violation(option.values) <= 0 for bound in bounds)


def _best(options: Sequence[Option], among: Sequence[int], objective: Objective) -> int:
    return min(among, key=lambda i: objective.sign * options[i].values[objective.name])


def _knee(options: Sequence[Option], among: Sequence[int], objectives: Sequence[Objective]) -> int:
    return among[knee(oriented([[options[i].values[o.name] for o in objectives] for i in among], objectives))]


def _smallest(
    options: Sequence[Option],
    among: Sequence[int],
    best: int,
    quality: Objective,
    cost: Objective,
    pictures: int | None,
) -> tuple[int, str]:
    """Return the smallest network within one standard error of the best, and why."""
    top = options[best].values[quality.name]
    error, source = standard_error(options[best], quality.name, pictures)
    near = [i for i in among if quality.sign * (options[i].values[quality.name] - top) <= error]
    words = f"within one standard error ({error:.2g}, {source}) of the best {quality.name}"
    why = f"the smallest by {cost.name} {words}, {top:.4g} of trial {options[best].number}"
    return _best(options, near, cost), why


def _nothing_left(options: Sequence[Option], bounds: Sequence[Bound], objectives: Sequence[Objective]) -> StudyError:
    broken = [sum(max(bound.violation(option.values), 0.0) for bound in bounds) for option in options]
    near = options[broken.index(min(broken))]
    told = dict.fromkeys([*(o.name for o in objectives), *(bound.name for bound in bounds)])
    values = ", ".join(f"{name} {number(near.values[name])}" for name in told)
    asked = " and ".join(map(str, bounds))
    return StudyError(
        f"none of the {len(options)} networks on the front keeps {asked}",
        hint=f"the nearest is trial {near.number}: {values}",
    )
