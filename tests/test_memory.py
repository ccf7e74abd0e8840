import random

import pytest
import torch
from torch import nn

import archtuna as at
from archtuna import report
from archtuna.architecture import Architecture, Row
from archtuna.costs import costs_of
from archtuna.errors import ShapeError, SpecError
from archtuna.memory import peak_memory
from archtuna.registry import BLOCKS, block
from archtuna.space import SearchSpace
from archtuna.starter import spaces, starter
from archtuna.study import Study
from arena import counted_peak
from spaces import EVERYTHING, GRAPH
from studies import add, make_spec
from test_blocks import sample_arguments

# A picture of 3x16x16, and a map of 16x8x8, 1,024 numbers.
HEAD = "input_size: 16\nbackbone:\n  - [1, Conv, [16, 3, 2], {name: stem}]\n"
TAIL = "  - [1, GlobalAvgPool, []]\n  - [1, Flatten, []]\n  - [1, Linear, [3]]\n"


def network(*rows):
    return SearchSpace.read(HEAD + "".join(f"  - {row}\n" for row in rows) + TAIL).default().architecture


@pytest.mark.parametrize(
    ("rows", "numbers"),
    [
        # The picture beside the first map, 768 + 1,024, is less than two maps.
        (["[1, Conv, [24, 3]]"], 1024 + 1536),
        (["[3, Conv, [16, 3]]"], 2 * 1024),
        (["[1, Conv, [16, 3, 1, null, 1, Hardswish]]", "[1, SE, []]"], 2 * 1024),
        # The input waits beside hidden channels and output.
        (["[1, Bottleneck, [16, true, 1, 0.5]]"], 1024 + 512 + 1024),
        # Without, the picture beside the first map is the most.
        (["[1, Bottleneck, [16, false, 1, 0.5]]"], 768 + 1024),
        # The depthwise convolution reads and writes four times the channels; squeeze-and-excite adds no map.
        (["[1, InvertedResidualv3, [3, 4, 16, 1, HardSwish, 1]]"], 1024 + 4 * 1024 + 4 * 1024),
        (["[1, InvertedResidualv3, [3, 4, 24, 1, HardSwish, 1]]"], 4 * 1024 + 4 * 1024),
        (["[1, InvertedResidualv2, [24, 4, 2]]"], 1024 + 4 * 1024),
        # TensorFlow's padding on one side is a part of the convolution.
        (["[1, MBConv, [4, 24, 2, 3]]"], 4 * 1024 + 1024),
        (["[1, ConvNeXtBlock, {channels: 16, expansion: 4}]"], 1024 + 1024 + 4 * 1024),
        # Three branches that an export merges into one convolution.
        (["[1, RepVGGBlock, {channels: 16}]"], 2 * 1024),
        # Queries, keys and values of 64 tokens, and the weights of two heads before and behind the softmax.
        (["[1, TransformerBlock, {heads: 2}]"], 1024 + 3 * 1024 + 2 * 2 * 64 * 64),
    ],
)
def test_the_peak_is_what_is_counted_by_hand(rows, numbers):
    assert peak_memory(network(*rows)) == 4 * numbers


def test_what_a_later_row_takes_stays_alive():
    chain = network("[1, Conv, [16, 3]]", "[1, Conv, [16, 3]]", "[1, Conv, [16, 3]]")
    skip = network(
        "[1, Conv, [16, 3]]", "[1, Conv, [16, 3]]", "[1, Conv, [16, 3]]", "[1, Add, {from: [stem, previous]}]"
    )
    joined = network("[1, Conv, [16, 3]]", "[1, Conv, [16, 3]]", "[1, Concat, {from: [stem, previous]}]")
    assert peak_memory(chain) == 4 * 2 * 1024
    assert peak_memory(skip) == 4 * 3 * 1024
    assert peak_memory(joined) == 4 * (2 * 1024 + 2048)


def test_an_operation_does_not_write_over_what_is_taken_later():
    rows = ["[1, nn.ReLU, [], {name: active}]", "[1, Add, {from: [stem, active]}]"]
    alone = network("[1, nn.ReLU, []]")
    assert peak_memory(alone) == 4 * (768 + 1024)
    assert peak_memory(network(*rows)) == 4 * 2 * 1024


def test_another_name_for_a_map_is_no_second_map_and_keeps_it_alive():
    rows = ["[1, Identity, [], {name: same}]", "[2, Conv, [16, 3]]", "[1, Add, {from: [same, previous]}]"]
    assert peak_memory(network(*rows)) == 4 * 3 * 1024
    assert peak_memory(network(*rows)) == counted_peak(network(*rows))


def test_the_largest_activation_may_be_the_picture():
    text = "input_size: 64\nbackbone:\n  - [1, AvgPool, [64]]\n  - [1, Flatten, []]\n  - [1, Linear, [3]]\n"
    assert peak_memory(SearchSpace.read(text).default().architecture) == 4 * (3 * 64 * 64 + 3)


def test_it_is_a_cost_in_units_of_a_million_bytes():
    architecture = network("[1, Conv, [24, 3]]")
    assert costs_of(architecture)["peak_memory_mb"] == peak_memory(architecture) / 1e6


def test_a_study_from_before_there_was_this_cost_works_and_says_that_it_does_not_know_it(tmp_path):
    study = Study.create_or_open(tmp_path / "run", make_spec())
    for f1, params in ((0.5, 100), (0.8, 900)):
        add(study, f1, params)
    assert study.pick(max={"params": 500}).trial.values["params"] == 100
    assert "peak_memory_mb" not in report.shown(study.candidate(0))["costs"]
    with pytest.raises(SpecError, match="'peak_memory_mb' cannot be asked for\nhint: known here: f1, params"):
        study.pick(max={"peak_memory_mb": 1})


LIMITED = """
input_channel: 1
input_size: 8
backbone:
  - [1, Conv, {channels: 8|16|24|64|128|256, kernel: 3}]
  - [1, GlobalAvgPool, []]
  - [1, Flatten, []]
  - [1, Linear, [10]]
objectives: [f1, peak_memory_mb]
limits: [peak_memory_mb <= 0.007]
"""


def test_a_search_optimises_it_and_keeps_a_limit_on_it(tmp_path):
    study = at.search(LIMITED, "digits", trials=3, out=tmp_path / "run", evaluator=lambda candidate: {"f1": 0.5})
    assert study.spec.reference["peak_memory_mb"] == (0.0, 0.007)
    # A picture of 64 pixels and maps of 64 pixels; those of 64 channels and more would take over .016.
    assert {trial.values["peak_memory_mb"] for trial in study.trials() if trial.values} == {
        4 * 64 * (1 + channels) / 1e6 for channels in (8, 16, 24)
    }


def test_rows_that_do_not_fit_are_the_surveys_error():
    rows = (Row("Flatten"), Row("MaxPool", {"kernel": 2, "stride": 2, "padding": 0, "dilation": 1, "ceil_mode": False}))
    with pytest.raises(ShapeError, match=r"row 1 .*MaxPool.*does not fit an input of 768 values"):
        peak_memory(Architecture(rows, 3, (16, 16)))


@pytest.fixture
def own_blocks():
    before = dict(BLOCKS._entries)

    @block
    class Halves(nn.Module):
        """Gives the two halves of a map's channels."""

        def forward(self, x):
            return list(x.relu().chunk(2, 1))

    @block
    class Swap(nn.Module):
        """Joins the halves the other way round."""

        def forward(self, halves):
            one, two = halves
            return torch.cat((two, one), 1)

    @block
    class Peeking(nn.Module):
        """Looks at values, which tensors without memory do not have."""

        def forward(self, x):
            return x + x.flip(1) if x.sum().item() < 1e9 else x

    yield
    BLOCKS._entries.clear()
    BLOCKS._entries.update(before)


def test_a_block_of_ones_own_may_give_several_maps_or_look_at_values(own_blocks):
    # Both halves lie in one buffer, which the convolution has left.
    halves = network("[1, Halves, [], {name: halves}]", "[1, Swap, []]", "[1, Conv, [16, 3]]")
    assert peak_memory(halves) == 4 * 2 * 1024 == counted_peak(halves)
    twice = network(
        "[1, Halves, [], {name: halves}]", "[1, Swap, []]", "[1, Swap, {from: halves}]", "[1, Conv, [24, 3]]"
    )
    assert peak_memory(twice) == 4 * (1024 + 1536)
    state = torch.random.get_rng_state()
    assert peak_memory(network("[1, Peeking, []]")) == 4 * 2 * 1024
    assert torch.equal(state, torch.random.get_rng_state())


# --- against tensors that are really there ----------------------------------------------------------


def alone(entry):
    """A network of a block behind a convolution."""
    conv = Row("Conv", dict(channels=16, kernel=3, stride=1, padding=1, groups=1, activation="ReLU"))
    row = Row(entry.name, sample_arguments(entry), 1, (0, 1) if entry.joins else None)
    before = [conv, conv] if entry.joins else [conv, Row("Flatten")] if entry.name == "Linear" else [conv]
    after = [] if entry.name in ("Flatten", "Linear") else [Row("GlobalAvgPool", {"output_size": 1})]
    return Architecture((*before, row, *after), 3, (8, 8))


@pytest.mark.parametrize("name", ["InvertedResidualv3", "ConvNeXtBlock", "TransformerBlock", "RepVGGBlock", "Concat"])
def test_a_block_has_the_peak_of_the_tensors_of_its_run(name):
    assert peak_memory(alone(BLOCKS[name])) == counted_peak(alone(BLOCKS[name]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in BLOCKS if not name.startswith(("PreTrained", "nn.")) and not BLOCKS[name].is_foreign]
)
def test_every_block_has_the_peak_of_the_tensors_of_its_run(name):
    assert peak_memory(alone(BLOCKS[name])) == counted_peak(alone(BLOCKS[name]))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*spaces(), "everything", "graph"])
def test_random_networks_have_the_peak_of_the_tensors_of_their_run(name):
    texts = {"everything": EVERYTHING, "graph": GRAPH}
    space = SearchSpace.read(texts.get(name) or starter(space=name, classes=4, input_size=32))
    draws = random.Random(name)
    for _ in range(4):
        architecture = space.random(draws).architecture
        assert peak_memory(architecture) == counted_peak(architecture)
