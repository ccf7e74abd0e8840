import numpy as np
import pytest

from archtuna.surrogate import LOG, NODES, Coordinates, Surrogate, _loss


def networks(seed: int, n: int) -> tuple[Coordinates, np.ndarray]:
    """Six categories of four options and two ordered decisions; the third category acts with the fourth."""
    rng = np.random.default_rng(seed)
    codes, places = rng.integers(0, 4, (n, 6)).astype(float), rng.random((n, 2))
    y = 0.5 * codes[:, 0] + (codes[:, 2] == codes[:, 3]) - 2.0 * places[:, 0]
    return Coordinates(np.hstack([codes, places]), np.array([False] * 6 + [True] * 2)), y


def test_the_gradient_is_that_of_the_loss() -> None:
    x, y = networks(0, 25)
    apart = x.distances(x).astype(np.float64)
    z = (y - y.mean()) / y.std()
    at = np.concatenate([np.log([0.8, 0.4, 0.02, 0.2, 0.1]), np.linspace(-0.5, 0.5, 8)])
    arguments = (apart, apart.sum(axis=0), z, np.full(25, 0.01))
    _, slope = _loss(at, *arguments)
    steps = 1e-2 * np.eye(len(at))  # Distances are 32-bit numbers, too coarse for small steps.
    differences = [(_loss(at + s, *arguments)[0] - _loss(at - s, *arguments)[0]) / 2e-2 for s in steps]
    assert slope == pytest.approx(differences, abs=2e-3)


def test_it_predicts_what_it_has_not_seen_and_knows_how_well() -> None:
    x, y = networks(1, 120)
    new, truth = networks(2, 400)
    mean, deviation = Surrogate().fit(x, y).predict(new)
    assert np.sqrt(np.mean((mean - truth) ** 2)) < 0.5 * truth.std()
    inside = np.mean(np.abs(mean - truth) < 2.0 * deviation)
    assert 0.85 < inside <= 1.0


def test_it_is_sure_where_it_has_been_and_unsure_elsewhere() -> None:
    x, y = networks(3, 60)
    model = Surrogate().fit(x, y)
    mean, here = model.predict(x)
    assert mean == pytest.approx(y, abs=0.3)
    assert here.mean() < 0.5 * model.predict(networks(4, 60)[0])[1].mean()


def test_noise_of_a_value_makes_it_count_less() -> None:
    x, y = networks(5, 60)
    wrong = y.copy()
    wrong[0] += 5.0
    noise = np.zeros(60)
    noise[0] = 25.0
    trusting, doubting = Surrogate().fit(x, wrong), Surrogate().fit(x, wrong, noise)
    first = Coordinates(x.values[:1], x.ordered)
    assert abs(doubting.predict(first)[0][0] - y[0]) < abs(trusting.predict(first)[0][0] - y[0])


def test_a_fit_without_tuning_keeps_the_hyperparameters() -> None:
    x, y = networks(6, 40)
    model = Surrogate().fit(x, y)
    before = model.parameters.copy()
    model.fit(x, y + 1.0, tune=False)
    assert (model.parameters == before).all()


def test_a_decision_that_was_not_asked_is_one_apart_from_any_value() -> None:
    x = Coordinates(np.array([[np.nan, 0.0], [0.5, 0.0], [np.nan, 1.0]]), np.array([True, False]))
    apart = x.distances(x)
    assert apart[0].tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    assert apart[1].tolist() == [[0, 0, 1], [0, 0, 1], [1, 1, 0]]


def test_values_that_are_all_equal_are_no_problem() -> None:
    x, _ = networks(7, 10)
    mean, deviation = Surrogate().fit(x, np.full(10, 3.0)).predict(x)
    assert mean == pytest.approx(np.full(10, 3.0))
    assert np.isfinite(deviation).all()


def test_the_nodes_are_a_standard_normal() -> None:
    assert NODES.mean() == pytest.approx(0.0, abs=1e-12)
    assert np.mean(NODES**2) == pytest.approx(1.0)


def test_the_log_scale_goes_back() -> None:
    assert LOG.back(LOG.forward(np.array([0.1, 2.0]))) == pytest.approx([0.1, 2.0])
