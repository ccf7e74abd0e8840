import numpy as np
import pytest

from archtuna.intervals import bootstrapped, wilson
from archtuna.metrics import accuracy, macro_f1


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    # Brown, Cai & DasGupta (2001), equation 4, worked out by hand with z = 1.959964.
    [(8, 10, 0.490162, 0.943318), (0, 10, 0.0, 0.277533), (10, 10, 0.722467, 1.0), (0, 0, 0.0, 1.0)],
)
def test_a_share_has_wilsons_interval(hits, n, low, high):
    assert wilson(hits, n) == (pytest.approx(low, abs=1e-6), pytest.approx(high, abs=1e-6))


def test_the_interval_of_a_metric_is_that_of_resampled_pictures():
    matrix = np.array([[40, 10, 0], [5, 30, 5], [0, 2, 8]])
    truth, predicted = (np.repeat(side.ravel(), matrix.ravel()) for side in np.indices(matrix.shape))
    draws, scores = np.random.default_rng(1), []
    for _ in range(2000):
        chosen = draws.integers(0, len(truth), len(truth))
        scores.append(macro_f1(np.histogram2d(truth[chosen], predicted[chosen], bins=(range(4), range(4)))[0]))
    wanted = np.quantile(scores, [0.025, 0.975])
    assert bootstrapped(matrix) == pytest.approx(tuple(wanted), abs=0.015)
    assert bootstrapped(matrix)[0] < macro_f1(matrix) < bootstrapped(matrix)[1]
    assert bootstrapped(matrix, accuracy) == pytest.approx(wilson(78, 100), abs=0.03)


def test_the_same_seed_draws_the_same_pictures():
    matrix = np.array([[90, 13, 8], [31, 70, 2], [4, 5, 6]])
    before = matrix.copy()
    assert bootstrapped(matrix, seed=3) == bootstrapped(matrix, seed=3)
    assert bootstrapped(matrix, seed=3) != bootstrapped(matrix, seed=4)
    assert (matrix == before).all()


def test_what_was_always_right_has_no_width():
    assert bootstrapped(np.diag([5, 3])) == (1.0, 1.0)
