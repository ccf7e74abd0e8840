"""How much a search had found after each trial."""

import numpy as np
import pytest

from archtuna.page.progress import progress

IDEAL, WORST = np.zeros(2), np.ones(2)


def test_the_hypervolume_grows_with_trials_and_ends_where_every_order_ends() -> None:
    points = np.random.default_rng(0).random((30, 2))
    found = progress(points, list(range(30)), IDEAL, WORST)
    assert found["trials"][0] == 1
    assert found["trials"][-1] == 30
    assert found["seconds"][-1] == 29.0
    assert found["hypervolume"] == sorted(found["hypervolume"])
    assert found["hypervolume"][0] == pytest.approx(np.prod(1 - points[0]))
    for name in ("mean", "low", "high"):
        assert found[name][-1] == pytest.approx(found["hypervolume"][-1])
    for low, mean, high in zip(found["low"], found["mean"], found["high"], strict=True):
        assert low - 1e-9 <= mean <= high + 1e-9


def test_a_search_that_finds_the_best_first_is_above_its_trials_in_random_order() -> None:
    points = np.random.default_rng(0).random((40, 2))
    best_first = points[np.argsort(points.sum(axis=1))]
    found = progress(best_first, list(range(40)), IDEAL, WORST)
    assert found["hypervolume"][3] > found["high"][3]
    last_first = progress(best_first[::-1], list(range(40)), IDEAL, WORST)
    assert last_first["hypervolume"][3] < last_first["low"][3]


@pytest.mark.parametrize("n", [0, 1])
def test_of_no_trial_or_one_there_are_no_orders(n: int) -> None:
    found = progress(np.full((n, 2), 0.5), [1.0] * n, IDEAL, WORST)
    assert found["orders"] == 0
    assert found["hypervolume"] == [0.25] * n


def test_of_thousands_of_trials_some_places_are_told() -> None:
    found = progress(np.random.default_rng(0).random((2_000, 4)), list(range(2_000)), np.zeros(4), np.ones(4))
    assert len(found["trials"]) == len(found["mean"]) <= 40
    assert found["trials"][-1] == 2_000
