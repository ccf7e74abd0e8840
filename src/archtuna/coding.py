"""How a choice of a file is written as a parameter of Optuna's, and read back."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from archtuna.architecture import Scalar
from archtuna.choice import Choice


@dataclass(frozen=True)
class Coding:
    """How a choice's values are written as an Optuna parameter.

    Ordered choices reach the sampler as ordered numbers: ranges and whole numbers at equal distances as they are, other
    numbers (``16|24|40``) as their place, from 0, among the options in ascending order. The rest are categories.

    Attributes:
        distribution: the same for the same choice always, as Optuna demands within a study.
        places: the options in ascending order where the parameter is a place, else None.
        grid: the values of a range with a step, onto which a parameter is snapped, else None.
    """

    distribution: BaseDistribution
    places: tuple[Scalar, ...] | None = None
    grid: tuple[Scalar, ...] | None = None

    def value(self, parameter: Any) -> Scalar:
        """Return the choice's value for a parameter."""
        if self.places is not None:
            return self.places[int(parameter)]
        if self.grid is not None:
            return min(self.grid, key=lambda value: abs(value - parameter))
        return parameter

    def parameter(self, value: Scalar) -> Any:
        """Return the parameter for a value of the choice.

        Raises:
            ValueError: the choice has no such value.
        """
        parameter: Any = self.places.index(value) if self.places is not None else value
        if self.grid is not None:
            parameter = round(parameter, 12)  # The last of 0.1, 0.2, 0.30000000000000004 lies beyond the range's end.
        if not self.distribution._contains(self.distribution.to_internal_repr(parameter)):
            raise ValueError(f"{value!r} is not among the values")
        return parameter


def coding_of(choice: Choice) -> Coding:
    """Return how a choice is written as an Optuna parameter."""
    if choice.options is None:
        return _coding_of_range(choice)
    options = choice.options
    if not all(isinstance(o, int | float) and not isinstance(o, bool) for o in options):
        return Coding(CategoricalDistribution(options))
    ordered = tuple(sorted(options, key=float))  # type: ignore[arg-type]
    gaps = {b - a for a, b in pairwise(ordered)}  # type: ignore[operator]
    if all(isinstance(o, int) for o in ordered) and len(gaps) <= 1:
        return Coding(IntDistribution(ordered[0], ordered[-1], step=gaps.pop() if gaps else 1))  # type: ignore[arg-type]
    return Coding(IntDistribution(0, len(ordered) - 1), places=ordered)


def _coding_of_range(choice: Choice) -> Coding:
    low, high = choice.low, choice.high
    if choice.kind == "int":
        step = int(choice.step or 1)
        if choice.log:
            return Coding(IntDistribution(int(low), int(high), log=True))
        return Coding(IntDistribution(int(low), int(low) + (int(high) - int(low)) // step * step, step=step))
    if choice.step is None:
        return Coding(FloatDistribution(low, high, log=choice.log))
    grid = choice.values()
    # A range whose end is no multiple of its step ends at the last value before; optuna would warn of it.
    return Coding(FloatDistribution(low, round(float(grid[-1]), 12), step=choice.step), grid=grid)  # type: ignore
