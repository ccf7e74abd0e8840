import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moocore import hypervolume

from archtuna.improvement import Known, Uncertain, boxes, expected_improvement
from archtuna.objective import pareto_ranks


def front(seed: int, points: int, objectives: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).random((points, objectives))
    return drawn[pareto_ranks(drawn) == 0]


def dominated(points: np.ndarray, reference: np.ndarray) -> float:
    inside = points[(points < reference).all(axis=1)]
    return float(hypervolume(inside, ref=reference)) if len(inside) else 0.0


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), points=st.integers(0, 30), objectives=st.integers(1, 5))
def test_the_boxes_fill_what_is_not_dominated_once(seed: int, points: int, objectives: int) -> None:
    there, reference = front(seed, points, objectives), np.full(objectives, 1.1)
    lower, upper = boxes(there, reference)
    volume = np.prod(upper - np.maximum(lower, 0.0), axis=1).sum()
    assert volume == pytest.approx(1.1**objectives - dominated(there, reference), rel=1e-9)
    drawn = np.random.default_rng(seed + 1).random((200, objectives)) * 1.1
    covers = ((drawn[:, None] > lower) & (drawn[:, None] < upper)).all(axis=2).sum(axis=1)
    beaten = (there[None] <= drawn[:, None]).all(axis=2).any(axis=1)
    assert (covers == ~beaten).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), points=st.integers(0, 20), objectives=st.integers(1, 4), ties=st.booleans())
def test_known_candidates_are_worth_what_they_add(seed: int, points: int, objectives: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    there, reference = front(seed, points, objectives), np.ones(objectives)
    drawn = rng.random((6, objectives))
    if ties:  # Costs of networks are often equal.
        there, drawn = np.round(there, 1), np.round(drawn, 1)
    found = expected_improvement([Known(column) for column in drawn.T], there, reference)
    added = [dominated(np.vstack([there, one]), reference) - dominated(there, reference) for one in drawn]
    assert found == pytest.approx(added, abs=1e-9)


@pytest.mark.parametrize("qualities", [1, 2])
def test_uncertain_candidates_are_worth_the_mean_of_what_they_may_add(qualities: int) -> None:
    rng = np.random.default_rng(qualities)
    there, reference = front(3, 12, 3), np.ones(3)
    means, deviations = np.log([0.2, 0.5]), np.array([0.3, 0.6])
    costs = rng.random((2, 3 - qualities))
    uncertain = [Uncertain(-0.1, means, deviations) for _ in range(qualities)]
    found = expected_improvement([*uncertain, *map(Known, costs.T)], there, reference)
    for c in range(2):
        drawn = np.exp(means[c] + deviations[c] * rng.standard_normal((4000, qualities))) - 0.1
        each = [
            dominated(np.vstack([there, [*quality, *costs[c]]]), reference) - dominated(there, reference)
            for quality in drawn
        ]
        assert found[c] == pytest.approx(np.mean(each), abs=5 * np.std(each) / 4000**0.5)


def test_hope_fades_but_does_not_end() -> None:
    there = np.array([[0.2, 0.2]])
    far = Uncertain(0.0, np.log([0.4, 0.8]), np.array([0.1, 0.1]))
    near, further = expected_improvement([far, Known(np.array([0.2, 0.2]))], there, np.ones(2))
    assert near > further > 0.0


def test_what_is_beyond_the_reference_is_worth_nothing() -> None:
    quality = Uncertain(0.0, np.log([0.1, 0.1]), np.array([0.2, 0.2]))
    found = expected_improvement([quality, Known(np.array([1.2, 0.5]))], np.array([[0.2, 0.2]]), np.ones(2))
    assert found[0] == 0.0
    assert found[1] > 0.0
