"""How far a metric of so many pictures can be trusted: confidence intervals of accuracy and macro F1."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from archtuna.metrics import macro_f1

LEVEL = 0.95
RESAMPLES = 2_000

Interval = tuple[float, float]


def wilson(hits: int, n: int, level: float = LEVEL) -> Interval:
    """Return the confidence interval of a share, ``hits`` of ``n``; all of 0 to 1 where nothing was counted.

    It holds its level for few pictures and for shares near 0 and 1 as well (Wilson 1927; Brown, Cai & DasGupta 2001).
    """
    from scipy.stats import binomtest

    if n == 0:
        return 0.0, 1.0
    found = binomtest(hits, n).proportion_ci(level, method="wilson")
    return float(found.low), float(found.high)


def bootstrapped(
    matrix: np.ndarray,
    metric: Callable[[np.ndarray], float] = macro_f1,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the percentile interval of a metric over resampled pictures (Efron & Tibshirani 1993, chapter 13).

    To draw pictures with replacement is to draw the cells of their confusion matrix.

    Args:
        matrix: how often class ``i`` was taken for class ``j``, of one picture at least.
        metric: of such a matrix.
        level: of the interval.
        resamples: how many sets of pictures are drawn, each as large as theirs.
        seed: of the draws.
    """
    cells = np.flatnonzero(matrix)
    shares = matrix.ravel()[cells] / matrix.sum()
    draws, drawn, values = np.random.default_rng(seed), np.zeros_like(matrix), []
    for counts in draws.multinomial(int(matrix.sum()), shares, size=resamples):
        drawn.ravel()[cells] = counts
        values.append(metric(drawn))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
