"""A cheap probabilistic model of what training reveals: a Gaussian process on the decisions of a network.

Its kernel is a product over the decisions, each with a relevance of its own, plus a product in which all count alike; the
first finds what matters, the second keeps doubt about what was not tried. Fitted by the marginal likelihood with priors
(Rasmussen & Williams 2006, equations 5.8 and 5.9); a few hundred points take milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.linalg import cho_solve, solve_triangular
from scipy.optimize import minimize
from scipy.special import ndtri

SAMPLES = 16
JITTER = 1e-6
ITERATIONS = 25

_NODES = ndtri((np.arange(SAMPLES) + 0.5) / SAMPLES)
NODES: np.ndarray = _NODES / np.sqrt(np.mean(_NODES**2))
"""Equally likely values of a standard normal, of exact mean and variance."""


# --- scale of a quality ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Warp:
    """Maps a quality, as a positive distance from the ideal, to the scale of the model and back.

    Attributes:
        forward: distances to the model's scale.
        back: the model's scale to distances.
    """

    forward: Callable[[np.ndarray], np.ndarray]
    back: Callable[[np.ndarray], np.ndarray]


LOG = Warp(lambda distance: np.log(np.maximum(distance, 1e-9)), np.exp)
"""Halving an error counts the same at every level."""


# --- decisions as coordinates ------------------------------------------------------------------------


@dataclass(frozen=True)
class Coordinates:
    """Networks as rows of numbers.

    Attributes:
        values: networks × decisions; NaN where a decision was not asked. Ordered ones lie in 0..1, categories are codes.
        ordered: whether each decision is ordered.
    """

    values: np.ndarray
    ordered: np.ndarray

    def distances(self, other: Coordinates) -> np.ndarray:
        """Return how far apart two sets of networks are in each decision, 0 to 1: decisions × networks × networks.

        Categories are equal or one apart; what was asked in one network only is one apart.
        """
        found = np.empty((len(self.ordered), len(self.values), len(other.values)), dtype=np.float32)
        for d, ordered in enumerate(self.ordered):
            a, b = self.values[:, d, None], other.values[None, :, d]
            gap = np.abs(a - b) if ordered else (a != b).astype(float)
            absent = np.isnan(a) | np.isnan(b)
            found[d] = np.where(absent, np.isnan(a) != np.isnan(b), gap) if absent.any() else gap
        return found


# --- the model ---------------------------------------------------------------------------------------

# Of log amplitude, log amplitude of the even part, log noise, log rate, log rate of the even part.
_PRIOR = np.log([1.0, 0.3, 0.01, 0.3, 0.2])
_SPREAD = np.array([1.5, 0.5, 2.0, 1.0, 0.3])
_BOUNDS = [(-6.0, 4.0), (-6.0, 4.0), (-11.5, 1.0), (-6.0, 3.0), (-5.0, 2.0)]
_RELEVANCE = 0.8
_N = len(_PRIOR)


@dataclass
class Surrogate:
    """A Gaussian process on ``Coordinates``.

    Attributes:
        parameters: hyperparameters of the last fit, on a log scale; the next fit starts from them.
    """

    parameters: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def fit(self, x: Coordinates, y: np.ndarray, noise: np.ndarray | None = None, *, tune: bool = True) -> Surrogate:
        """Fit to values.

        Args:
            x: networks.
            y: a value of each, on the model's scale.
            noise: further variance of each value, on the same scale.
            tune: whether hyperparameters are fitted too, or kept.
        """
        self.x, self.mean, self.scale = x, float(y.mean()), float(y.std()) + 1e-9
        z = (y - self.mean) / self.scale
        extra = np.zeros(len(y)) if noise is None else noise / self.scale**2
        apart = x.distances(x)
        if len(self.parameters) != _N + len(apart):
            self.parameters = np.concatenate([_PRIOR, np.zeros(len(apart))])
        if tune:
            bounds = [*_BOUNDS, *[(-3.0, 3.0)] * len(apart)]
            found = minimize(
                _loss, self.parameters, (apart, apart.sum(axis=0), z, extra), "L-BFGS-B", True, bounds=bounds,
                options={"maxiter": ITERATIONS},
            )  # fmt: skip
            self.parameters = found.x
        kernel = self._kernel(apart) + np.diag(np.exp(self.parameters[2]) + extra + JITTER)
        self._factor = np.linalg.cholesky(kernel)
        self._weights = cho_solve((self._factor, True), z)
        return self

    def predict(self, x: Coordinates) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of the values without noise, on the model's scale."""
        kernel = self._kernel(x.distances(self.x))
        mean = kernel @ self._weights
        explained = solve_triangular(self._factor, kernel.T, lower=True)
        variance = np.exp(self.parameters[0]) + np.exp(self.parameters[1]) - (explained**2).sum(axis=0)
        return self.mean + self.scale * mean, self.scale * np.sqrt(np.maximum(variance, 1e-8))

    def _kernel(self, apart: np.ndarray) -> np.ndarray:
        amplitude, even, _, rate, even_rate = np.exp(self.parameters[:_N])
        relevance = (rate * np.exp(self.parameters[_N:])).astype(np.float32)
        return amplitude * np.exp(-_weighted(relevance, apart)) + even * np.exp(-even_rate * apart.sum(axis=0))


def _weighted(weights: np.ndarray, apart: np.ndarray) -> np.ndarray:
    return (weights @ apart.reshape(len(apart), -1)).reshape(apart.shape[1:]).astype(float)


def _loss(
    p: np.ndarray, apart: np.ndarray, total: np.ndarray, z: np.ndarray, extra: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return the negative log posterior of the hyperparameters, and its gradient."""
    amplitude, even, noise, rate, even_rate = np.exp(p[:_N])
    relevance = rate * np.exp(p[_N:])
    product = amplitude * np.exp(-_weighted(relevance.astype(np.float32), apart))
    level = even * np.exp(-even_rate * total)
    off = (p[:_N] - _PRIOR) / _SPREAD
    prior = 0.5 * (off @ off + p[_N:] @ p[_N:] / _RELEVANCE**2)
    slope = np.concatenate([off / _SPREAD, p[_N:] / _RELEVANCE**2])
    try:
        factor = np.linalg.cholesky(product + level + np.diag(noise + extra + JITTER))
    except np.linalg.LinAlgError:
        return 1e10, np.zeros_like(p)
    inverse = cho_solve((factor, True), np.eye(len(z)))
    weights = inverse @ z
    loss = 0.5 * z @ weights + np.log(np.diag(factor)).sum() + prior
    outer = 0.5 * (inverse - np.outer(weights, weights))
    product *= outer
    level *= outer
    of_relevance = -relevance * (apart.reshape(len(apart), -1) @ product.ravel().astype(np.float32))
    gradient = [
        product.sum(),
        level.sum(),
        noise * np.trace(outer),
        of_relevance.sum(),
        -even_rate * (total * level).sum(),
    ]
    return float(loss), slope + np.concatenate([gradient, of_relevance])
