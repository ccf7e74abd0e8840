import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score
from torch.nn import functional

from archtuna.errors import DataError
from archtuna.metrics import Tally, accuracy, confusion, macro_f1

ANSWERS = st.integers(2, 9).flatmap(
    lambda classes: st.tuples(
        st.just(classes),
        st.lists(st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1)), min_size=1, max_size=60),
    )
)


@given(ANSWERS)
@settings(max_examples=200, deadline=None)
def test_scores_equal_scikit_learn(case: tuple[int, list[tuple[int, int]]]) -> None:
    classes, pairs = case
    truth, predicted = np.array(pairs).T
    matrix = confusion(truth, predicted, classes)
    assert macro_f1(matrix) == pytest.approx(f1_score(truth, predicted, average="macro", zero_division=0), abs=1e-12)
    assert accuracy(matrix) == pytest.approx(accuracy_score(truth, predicted), abs=1e-12)


def test_confusion_counts_truth_by_answer() -> None:
    assert confusion(np.array([0, 0, 1, 2]), np.array([0, 2, 1, 2]), 3).tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 1]]


def test_nothing_scores_nothing() -> None:
    assert macro_f1(np.zeros((3, 3), dtype=int)) == 0.0
    assert accuracy(np.zeros((3, 3), dtype=int)) == 0.0


def test_tally_of_batches_equals_all_at_once() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((101, 5), generator=generator)
    labels = torch.randint(0, 5, (101,), generator=generator)
    tally = Tally(5)
    for start in range(0, 101, 8):
        tally.add(logits[start : start + 8], labels[start : start + 8])
    found = tally.metrics()
    assert found["loss"] == pytest.approx(functional.cross_entropy(logits.double(), labels).item(), abs=1e-7)
    predicted = logits.argmax(1)
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    assert found["f1"] == pytest.approx(f1_score(labels, predicted, average="macro", zero_division=0))


def test_tally_of_nothing_is_an_error() -> None:
    with pytest.raises(DataError, match="no pictures to evaluate"):
        Tally(3).metrics()


def test_a_loss_that_is_not_finite_stays_visible() -> None:
    tally = Tally(2)
    tally.add(torch.tensor([[float("nan"), 0.0]]), torch.tensor([0]))
    assert np.isnan(tally.metrics()["loss"])
