from __future__ import annotations

from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from archtuna.choice import Choice
from archtuna.coding import coding_of


def categorical(*options: Any) -> Choice:
    return Choice("c", "categorical", options)


@pytest.mark.parametrize(
    ("choice", "distribution"),
    [
        (categorical(3, 5, 7), IntDistribution(3, 7, step=2)),
        (categorical(7, 3, 5), IntDistribution(3, 7, step=2)),
        (categorical(0, 1), IntDistribution(0, 1)),
        (categorical(4), IntDistribution(4, 4)),
        (categorical(16, 24, 40), IntDistribution(0, 2)),
        (categorical(0.5, 1.0, 1.5), IntDistribution(0, 2)),
        (categorical(1, 2.5), IntDistribution(0, 1)),
        (categorical("ReLU", "Hardswish"), CategoricalDistribution(("ReLU", "Hardswish"))),
        (categorical(None, 1), CategoricalDistribution((None, 1))),
        (categorical(True, False), CategoricalDistribution((True, False))),
        (Choice("c", "int", None, 1, 5, 1), IntDistribution(1, 5)),
        (Choice("c", "int", None, 16, 64, 8), IntDistribution(16, 64, step=8)),
        (Choice("c", "int", None, 1, 6, 2), IntDistribution(1, 5, step=2)),
        (Choice("c", "int", None, 8, 512, 1, True), IntDistribution(8, 512, log=True)),
        (Choice("c", "float", None, 0.01, 0.3, None, True), FloatDistribution(0.01, 0.3, log=True)),
        (Choice("c", "float", None, 0.0, 0.5), FloatDistribution(0.0, 0.5)),
        (Choice("c", "float", None, 0.1, 0.35, 0.1), FloatDistribution(0.1, 0.3, step=0.1)),
    ],
)
def test_choices_reach_the_sampler_as_what_they_are(choice: Choice, distribution: Any) -> None:
    coding = coding_of(choice)
    assert coding.distribution == distribution
    for value in choice.values() or (choice.low, choice.high):
        back = coding.value(coding.parameter(value))
        assert back == value
        assert type(back) is type(value)


def test_a_value_that_is_no_option_has_no_parameter() -> None:
    for choice in (categorical(3, 5, 7), categorical(16, 24, 40), categorical("a", "b")):
        with pytest.raises(ValueError, match=r"not among|not in"):
            coding_of(choice).parameter(4)


def test_a_stepped_float_is_snapped_to_the_files_value() -> None:
    choice = Choice("c", "float", None, 0.1, 0.5, 0.1)
    assert coding_of(choice).value(0.30000000000000004) == choice.values()[2]  # type: ignore[index]
