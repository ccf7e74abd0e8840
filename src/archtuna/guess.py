"""What is expected of networks before their decisions can be modelled: errors fall with size, as a power of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SLOPE, SLOPE_DEVIATION = -0.15, 0.1
"""Of the logarithm of an error over that of size, before anything was trained."""

DEVIATION, TRUST = 0.4, 3.0
"""By how much networks of one size differ, on the same scale, and how many networks that guess is worth."""


@dataclass(frozen=True)
class Guess:
    """A line through logarithms of sizes and errors: Bayesian linear regression with a prior on its slope.

    That error is a power of a network's size, down to some limit, is found again and again (Rosenfeld et al. 2020,
    arXiv:1909.12673).

    Attributes:
        center, mean: of the sizes and of the errors that were seen.
        slope, precision: of the line, and how sure it is.
        deviation: of networks about the line.
        count: networks that were seen.
    """

    center: float
    mean: float
    slope: float
    precision: float
    deviation: float
    count: int

    @classmethod
    def fitted(cls, sizes: np.ndarray, errors: np.ndarray) -> Guess:
        """Return what networks tell, at least one.

        Args:
            sizes, errors: of each, as logarithms.
        """
        center, mean = float(sizes.mean()), float(errors.mean())
        off, y = sizes - center, errors - mean
        precision = 1.0 / SLOPE_DEVIATION**2 + float(off @ off) / DEVIATION**2
        slope = (SLOPE / SLOPE_DEVIATION**2 + float(off @ y) / DEVIATION**2) / precision
        rest = float(((y - slope * off) ** 2).sum())
        deviation = np.sqrt((TRUST * DEVIATION**2 + rest) / (TRUST + len(sizes)))
        return cls(center, mean, slope, precision, float(deviation), len(sizes))

    def predict(self, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of the logarithms of the errors of networks of these sizes."""
        off = sizes - self.center
        spread = self.deviation**2 * (1.0 + 1.0 / self.count) + off**2 / self.precision
        return self.mean + self.slope * off, np.sqrt(spread)
