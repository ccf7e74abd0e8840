import contextlib
import random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archtuna import model
from archtuna.architecture import Architecture, Row
from archtuna.errors import ShapeError
from archtuna.model import Network, build, check_output, survey, table
from archtuna.space import SearchSpace
from archtuna.starter import spaces, starter
from spaces import ALL, SEED


def seed(size=32):
    return SearchSpace.read(SEED, input_size=size).default().architecture


def test_the_table_has_a_line_a_row_and_adds_up():
    lines = table(seed())
    assert len(lines) == 21
    assert sum(line.params for line in lines) == 4_210_998
    assert sum(line.macs for line in lines) == 7_081_920
    assert (lines[2].module, lines[2].n, lines[2].input, lines[2].output) == (
        "InvertedResidualv3",
        1,
        (16, 16, 16),
        (24, 8, 8),
    )


def test_a_head_without_flatten_gives_one_value_per_class():
    network = build(SearchSpace.read(ALL["small"]).default().architecture)
    assert network(torch.zeros(2, 3, 16, 16)).shape == (2, 4)


@given(st.integers(0, 10**6), st.integers(1, 40))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_input_size_builds_or_names_a_row(seed_value, size):
    space = SearchSpace.read(ALL["everything"], input_size=size)
    try:
        architecture = space.random(random.Random(seed_value)).architecture
    except ShapeError as error:
        assert "backbone[" in str(error)
        return
    assert check_output(architecture) == 6


@pytest.mark.parametrize("name", sorted(spaces()))
def test_passing_over_norms_and_activations_changes_no_shape_and_no_cost(name, monkeypatch):
    space = SearchSpace.read(starter(classes=10, input_size=64, space=name))
    drawn = [space.random(random.Random(i)).architecture for i in range(12)]
    quick = [survey(architecture) for architecture in drawn]
    monkeypatch.setattr(model, "_Unchanged", contextlib.nullcontext)
    model._survey_unit.cache_clear()
    assert [survey(architecture) for architecture in drawn] == quick


def test_state_dicts_of_one_key_have_one_set_of_names():
    conv = {"channels": 8, "kernel": 3, "stride": 1, "padding": 1, "groups": 1, "activation": "ReLU"}
    tail = (Row("GlobalAvgPool", {"output_size": 1}),)
    one = Architecture((Row("Conv", conv, 2), *tail), 3, (8, 8))
    two = Architecture((Row("Conv", conv), Row("Conv", conv), *tail), 3, (8, 8))
    assert list(Network(one).state_dict()) == list(Network(two).state_dict())


def row(module, **arguments):
    return Row(module, arguments)


CONV = {"channels": 8, "kernel": 3, "stride": 1, "padding": 0, "groups": 1, "activation": "ReLU"}


@pytest.mark.parametrize(
    ("rows", "index", "message"),
    [
        (
            [Row("Conv", CONV), Row("Conv", {**CONV, "kernel": 9})],
            1,
            "row 1 .*a map of 8 channels, 4x4 pixels is too small",
        ),
        (
            [row("MaxPool", kernel=8, stride=8, padding=0, dilation=1, ceil_mode=False)],
            0,
            "too small: nothing would be left",
        ),
        ([row("Linear", features=4, activation=None)], 0, "takes a vector, and its input is a map"),
        ([row("Flatten"), Row("Conv", CONV)], 1, "takes a map, and its input is a vector"),
        (
            [Row("Conv", {**CONV, "groups": 3, "channels": 9}), Row("Conv", {**CONV, "groups": 5, "channels": 10})],
            1,
            "divisible by groups",
        ),
        (
            [row("InvertedResidualv3", kernel=4, expansion=2.0, channels=3, se=False, activation="ReLU", stride=1)],
            0,
            "the residual does not fit .*\nhint: an even kernel",
        ),
        (
            [Row("Conv", CONV)],
            0,
            "ends in a map of 8 channels, 4x4 pixels, not in one value per class\nhint: end it with GlobalAvgPool",
        ),
        (
            [row("Bottleneck", channels=1, shortcut=True, groups=1, expansion=0.1, activation=None)],
            0,
            "leaves no hidden channel",
        ),
    ],
)
def test_rows_that_do_not_fit_are_named_before_training(rows, index, message):
    with pytest.raises(ShapeError, match=message) as caught:
        build(Architecture(tuple(rows), 3, (6, 6)))
    assert caught.value.row == index


def test_a_classifier_that_ends_in_the_wrong_number_is_named():
    with pytest.raises(
        ShapeError,
        match=r"row 20 \[1, Linear, .*ends in 6 values, and the pictures have 10 classes\nhint: end it with Linear \[10\]",
    ):
        check_output(seed(), classes=10)
    rounded = (
        SearchSpace.read({"backbone": [[1, "Conv", [6, 1, 1]], [1, "GlobalAvgPool", []]]}, input_size=8)
        .default()
        .architecture
    )
    with pytest.raises(ShapeError, match="Conv rounds channels to multiples of 8; use FixedConv"):
        check_output(rounded, classes=6)


def test_a_block_too_large_for_any_memory_is_refused_without_building_it():
    huge = Row("Conv", {**CONV, "channels": 65_536, "kernel": 3})
    with pytest.raises(ShapeError, match="parameters in one block"):
        survey(Architecture((huge, huge), 3, (32, 32)))
