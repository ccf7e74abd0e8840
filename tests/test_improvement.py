import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moocore import hypervolume

from archtuna.improvement import boxes, expected_improvement
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
def test_a_candidate_is_worth_the_mean_of_what_its_samples_add(
    seed: int, points: int, objectives: int, ties: bool
) -> None:
    rng = np.random.default_rng(seed)
    there, reference = front(seed, points, objectives), np.ones(objectives)
    if ties:  # Costs of networks are often equal.
        there = np.round(there, 1)
    quality = rng.random((3, 5))  # three candidates, five samples of their quality; the rest is known
    costs = np.round(rng.random((3, objectives - 1)), 1)
    found = expected_improvement([quality, *costs.T[:, :, None]], there, reference)
    for c in range(3):
        each = [
            dominated(np.vstack([there, [q, *costs[c]]]), reference) - dominated(there, reference) for q in quality[c]
        ]
        assert found[c] == pytest.approx(np.mean(each), abs=1e-9)


def test_two_qualities_are_taken_as_independent() -> None:
    one, other = np.array([[0.2, 0.6]]), np.array([[0.1, 0.9]])
    found = expected_improvement([one, other], np.zeros((0, 2)), np.ones(2))
    assert found == pytest.approx([np.mean([0.8, 0.4]) * np.mean([0.9, 0.1])])


def test_what_is_dominated_or_beyond_the_reference_is_worth_nothing() -> None:
    there = np.array([[0.2, 0.2]])
    quality, cost = np.array([[0.3], [0.1], [0.1]]), np.array([[0.3], [1.2], [0.5]])
    found = expected_improvement([quality, cost], there, np.ones(2))
    assert found[:2] == pytest.approx([0.0, 0.0])
    assert found[2] == pytest.approx(0.1 * 0.5)
