"""What size alone is taken to tell."""

import numpy as np
import pytest

from archtuna.guess import DEVIATION, SLOPE, Guess

SIZES = np.log(np.geomspace(1e3, 1e7, 40))


def test_one_network_sets_the_level_and_the_prior_the_slope():
    guess = Guess.fitted(np.array([10.0]), np.array([-1.0]))
    mean, deviation = guess.predict(np.array([10.0, 12.0]))
    assert mean == pytest.approx([-1.0, -1.0 + 2.0 * SLOPE])
    assert deviation[1] > deviation[0] > DEVIATION


def test_many_networks_set_the_slope():
    errors = 0.5 - 0.3 * SIZES + np.random.default_rng(0).normal(0.0, 0.05, len(SIZES))
    guess = Guess.fitted(SIZES, errors)
    assert guess.slope == pytest.approx(-0.3, abs=0.01)
    mean, deviation = guess.predict(SIZES)
    assert np.abs(mean - errors).max() < 0.2
    assert deviation.max() < DEVIATION / 2


def test_a_large_spread_is_seen():
    errors = np.random.default_rng(1).normal(0.0, 2.0, len(SIZES))
    assert Guess.fitted(SIZES, errors).deviation == pytest.approx(2.0, rel=0.3)
