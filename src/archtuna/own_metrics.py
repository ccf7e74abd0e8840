"""Metrics of one's own: functions of a network's answers that may be objectives beside loss, F1 and accuracy."""

from __future__ import annotations

import inspect
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from archtuna.errors import MetricError, StudyError
from archtuna.objective import OBJECTIVES, Direction, Objective
from archtuna.registry import import_hint

if TYPE_CHECKING:
    import numpy as np

FUNCTIONS: dict[str, Callable[..., float]] = {}
"""By name. A metric that a study only tells of is among the objectives, and not here."""

_NAME = re.compile(r"(?!(?:n|split)$|float_)[A-Za-z]\w{0,39}", re.ASCII)


def metric(
    target: Callable[..., float] | str | None = None,
    *,
    best: float,
    worst: float,
    name: str | None = None,
    meaning: str | None = None,
    origin: str | None = None,
) -> Any:
    """Register a function as a metric: it is measured after every epoch, told with every trial, and may be an objective.

    Returns the function unchanged::

        @archtuna.metric(best=1.0, worst=0.0)
        def worst_recall(logits, labels):
            \"\"\"Recall of the class that is recognised worst.\"\"\"
            right = logits.argmax(axis=1) == labels
            return min(right[labels == c].mean() for c in set(labels.tolist()))

    It is given all validation pictures at once: logits (n × classes, float32) and labels (n, int64), as NumPy arrays.

    Args:
        target: the function; or the name alone of a metric that a loop of one's own yields, which nothing else measures.
        best: the value that cannot be beaten; whether more or less is better follows from it.
        worst: the worst value that still counts for the hypervolume.
        name: as files write it; by default the function's.
        meaning: one line for people; by default the first of the function's docstring.
        origin: the Python module that registers it; by default the caller's.

    Raises:
        ValueError: the name is taken or cannot be one, or the values are not two different numbers.
    """
    origin = origin or str(sys._getframe(1).f_globals.get("__name__", "?"))
    if target is None:
        return partial(metric, best=best, worst=worst, name=name, meaning=meaning, origin=origin)
    function = None if isinstance(target, str) else target
    called = name or (target if isinstance(target, str) else target.__name__)
    if not _NAME.fullmatch(called):
        raise ValueError(
            f"'{called}' cannot be a metric's name: letters, digits and _, and not float_ at its beginning"
        )
    if not (math.isfinite(best) and math.isfinite(worst) and best != worst):
        raise ValueError(f"the best and the worst value of '{called}' are to be two numbers, not {best} and {worst}")
    told = meaning or (function and inspect.getdoc(function)) or called
    made = _objective(called, best, worst, told.split("\n\n")[0].replace("\n", " ").rstrip("."), origin)
    known = OBJECTIVES.get(called)
    if known is not None and known.origin != made.origin:
        raise ValueError(f"a metric named '{called}' exists already ({known.origin or 'archtuna'})")
    OBJECTIVES[called] = made
    if function is not None:
        FUNCTIONS[called] = function
    return target


def _objective(name: str, best: float, worst: float, meaning: str, origin: str) -> Objective:
    direction: Direction = "maximize" if best > worst else "minimize"
    return Objective(name, direction, "quality", meaning, best=float(best), worst=float(worst), origin=origin)


def described(objectives: Sequence[Objective]) -> dict[str, dict[str, Any]]:
    """Return what a study keeps of the metrics of one's own among its objectives, for those who only read it."""
    return {
        o.name: {"best": o.best, "worst": o.worst, "meaning": o.meaning, "module": o.origin}
        for o in objectives
        if o.origin
    }


def make_known(told: Mapping[str, Mapping[str, Any]]) -> None:
    """Let the names that a study tells of be objectives here, too: to read a study, nobody has to import anything.

    Raises:
        StudyError: a metric of this name is another one here.
    """
    for name, plain in told.items():
        made = _objective(name, plain["best"], plain["worst"], plain["meaning"], plain["module"])
        known = OBJECTIVES.get(name)
        if name not in FUNCTIONS and (known is None or known.origin):
            OBJECTIVES[name] = made
        elif known is None or (known.best, known.worst) != (made.best, made.worst):
            raise StudyError(
                f"the study's metric '{name}' goes from {made.worst:g} to {made.best:g}, and is another one here",
                hint="give one of them another name",
            )


def require(objectives: Sequence[Objective]) -> None:
    """Check that every metric of one's own among some objectives has a function here.

    Raises:
        StudyError: its module is not imported, or a loop of one's own is to yield it.
    """
    for objective in objectives:
        if objective.origin and objective.name not in FUNCTIONS:
            raise StudyError(
                f"the metric '{objective.name}' of the module '{objective.origin}' cannot be measured here",
                hint=_remedy(objective.origin),
            )


def _remedy(module: str) -> str:
    """Return what makes a metric of a module measurable that has no function here."""
    if module in sys.modules and module != "__main__":
        return f"a loop of your own is to yield it: pass evaluator='{module}:NAME'"
    return import_hint(module, "metric")


def measured(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return every registered metric of a network's answers.

    Args:
        logits: n × classes, float32.
        labels: n.

    Raises:
        MetricError: a function fails, or returns no number.
    """
    found = {}
    for name, function in FUNCTIONS.items():
        try:
            found[name] = float(function(logits, labels))
        except Exception as error:  # Somebody else's code may fail in any way.
            raise MetricError(
                f"the metric '{name}' fails with {type(error).__name__}: {error}",
                hint=f"it was given logits {list(logits.shape)} and {len(labels)} labels",
            ) from error
    return found
