"""What networks are expected to take, from those that were measured, so that candidates cost no measurement."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from archtuna.architecture import Architecture
from archtuna.block_table import BlockTable
from archtuna.predictor import FEWEST, Measured, Part, Predictor

GROWTH = 1.1
"""A prediction is made anew when so many times the networks are known as at the last time."""

BLOCKWISE = "latency_ms"
"""The cost of which single blocks are known, too."""

REMEMBERED = 20_000

PartsOf = Callable[[Architecture], Sequence[Part]]


class Forecast:
    """Predicts costs that have to be measured; what was measured is told as it was.

    Args:
        names: of the costs.
        parts_of: takes a network apart.
    """

    def __init__(self, names: Sequence[str], parts_of: PartsOf) -> None:
        self.names, self.parts_of = tuple(names), parts_of
        self._parts: list[Sequence[Part]] = []
        self._values: dict[str, Mapping[str, float]] = {}
        self._predictors: dict[str, Predictor] = {}
        self._errors: dict[str, float] = {}
        self._cache: dict[str, dict[str, float]] = {}
        self._table = BlockTable()
        self._fitted = 0

    def learn(
        self, architecture: Architecture, values: Mapping[str, float], units: Sequence[float] | None = None
    ) -> None:
        """Take note of what a network takes; of one that is known already nothing changes.

        Args:
            architecture: the network.
            values: by the cost's name.
            units: milliseconds of each copy of a block on this machine, where they are known.
        """
        if architecture.key not in self._values and all(name in values for name in self.names):
            self._values[architecture.key] = {name: float(values[name]) for name in self.names}
            self._parts.append(self.parts_of(architecture))
            if units is not None:
                self._table.note(architecture, units)

    def known(self, architecture: Architecture) -> Mapping[str, float] | None:
        """Return what a network was measured to take, or None."""
        return self._values.get(architecture.key)

    def costs(self, architecture: Architecture) -> Mapping[str, float]:
        """Return what a network takes, or is expected to.

        Raises:
            LatencyError: too few networks are known.
        """
        known = self.known(architecture)
        if known is not None:
            return known
        self._fit()
        if architecture.key not in self._cache:
            if len(self._cache) >= REMEMBERED:
                self._cache.clear()
            parts = self.parts_of(architecture)
            self._cache[architecture.key] = {name: self._predictors[name].expect(parts) for name in self.names}
        return self._cache[architecture.key]

    def error(self, name: str) -> float:
        """Return the relative error that nine of ten predictions stay within, by what was measured.

        It is 0 where too few networks are known to predict others: a space that has no more has none to predict.
        """
        if len(self._parts) < FEWEST:
            return 0.0
        self._fit()
        if name not in self._errors:
            self._errors[name] = self._predictors[name].error()
        return self._errors[name]

    def _fit(self) -> None:
        if self._predictors and len(self._parts) < GROWTH * self._fitted:
            return
        values = list(self._values.values())
        self._predictors = {
            name: Predictor.fit(self._parts, [v[name] for v in values], parts=self._blocks(name)) for name in self.names
        }
        self._fitted = len(self._parts)
        self._errors.clear()
        self._cache.clear()

    def _blocks(self, name: str) -> Measured:
        return self._table.measured() if name == BLOCKWISE else ()
