import itertools
import random
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from archtuna.architecture import PICTURE, Architecture, Row
from archtuna.equality import graph_key
from archtuna.errors import ShapeError
from archtuna.model import Network, build
from archtuna.registry import BLOCKS, UnknownNameError, block
from archtuna.space import SearchSpace
from archtuna.starter import spaces, starter
from spaces import ALL, HEAD

CONV = "[1, Conv, [16, 3]]"
NAMED = "[1, Conv, {channels: 16, kernel: 3, name: x}]"
CONVOLUTION = {"channels": 8, "kernel": 3, "stride": 1, "padding": 1, "groups": 1, "activation": "ReLU"}
POOL = {"kernel": 1, "stride": 1, "padding": 0, "dilation": 1, "ceil_mode": False}


def resolved(*rows, size=16, head=HEAD):
    text = "".join(f"  - {row}\n" for row in rows)
    return SearchSpace.read(f"input_size: {size}\nbackbone:\n{text}{head}").default().architecture


def key(*rows, **more):
    return graph_key(resolved(*rows, **more))


# --- spellings ------------------------------------------------------------------------------------

EQUAL = {
    "an identity": ([CONV], [CONV, "[1, Identity, []]"]),
    "an identity repeated": ([CONV, "[1, nn.Identity, []]"], [CONV, "[3, Identity, []]"]),
    "a row of depth zero": ([CONV], [CONV, "[0|1, Conv, [32, 5]]"]),
    "a dropout of zero": ([CONV], [CONV, "[1, Dropout, [0]]", "[2, nn.Dropout2d, {p: 0.0}]"]),
    "another name of one block": ([CONV], ["[1, FixedConv, [16, 3]]"]),
    "an activation as a row": ([CONV], ["[1, Conv, [16, 3, 1, null, 1, null]]", "[1, nn.ReLU, []]"]),
    "an activation in place": ([CONV], ["[1, Conv, [16, 3, 1, null, 1, null]]", "[1, nn.ReLU, {inplace: true}]"]),
    "groups of one": ([CONV, "[1, Conv, [8, 3]]"], [CONV, "[1, Conv, {channels: 8, kernel: 3, groups: 1}]"]),
    "a depthwise convolution by groups": (
        [CONV, "[1, DWConv, [16, 3]]"],
        [CONV, "[1, Conv, [16, 3, 1, null, 16]]"],
    ),
    "an expansion of one": (
        [CONV, "[1, InvertedResidualv2, [16, 1]]"],
        [CONV, "[1, MV2Block, {channels: 16, expansion: 1, activation: ReLU6}]"],
    ),
    "an expansion that is rounded to one": (
        [CONV, "[1, InvertedResidualv3, {kernel: 3, expansion: 1, channels: 24}]"],
        [CONV, "[1, InvertedResidualv3, {kernel: 3, expansion: 1.1, channels: 24}]"],
    ),
    "a drop path of zero": (
        [CONV, "[1, MBConv, {expansion: 4, channels: 16}]"],
        [CONV, "[1, MBConv, {expansion: 4, channels: 16, drop_path: 0}]"],
    ),
    "a drop path without a residual": (
        [CONV, "[1, MBConv, {expansion: 4, channels: 24}]"],
        [CONV, "[1, MBConv, {expansion: 4, channels: 24, drop_path: 0.3}]"],
    ),
    "a shortcut where channels differ": (
        [CONV, "[1, Bottleneck, [24, true]]", "[1, ConvResidual, [8, 3]]"],
        [CONV, "[1, Bottleneck, [24, false]]", "[1, Conv, [8, 3]]"],
    ),
    "settings of a gate that is not there": (
        [CONV, "[1, GhostBottleneck, {kernel: 3, expansion: 2, channels: 16, se: false, attention: se}]"],
        [CONV, "[1, GhostBottleneck, {kernel: 5, expansion: 2, channels: 16, se: false, attention: eca}]"],
    ),
    "a reduction that is rounded": ([CONV, "[1, SE, {reduction: 4}]"], [CONV, "[1, SE, {reduction: 3.9}]"]),
    "settings of no bottlenecks": (
        [CONV, "[1, C3, {channels: 16, repeats: 0, groups: 1}]"],
        [CONV, "[1, C3, {channels: 16, repeats: 0, groups: 2, shortcut: false}]"],
    ),
    "settings of a shortcut that is not there": (
        [CONV, "[1, GhostBottleneck, {kernel: 3, expansion: 2, channels: 16, shortcut: relu}]"],
        [CONV, "[1, GhostBottleneck, {kernel: 3, expansion: 2, channels: 16, shortcut: plain}]"],
    ),
    "a block and its rows": (
        [CONV, "[1, Bottleneck, [16]]"],
        [NAMED, "[1, Conv, [8, 1]]", "[1, Conv, [16, 3]]", "[1, Add, [], {from: [previous, x]}]"],
    ),
    "a block without a residual and its rows": (
        [CONV, "[1, InvertedResidualv2, [24, 6]]"],
        [
            CONV,
            "[1, Conv, [96, 1, 1, null, 1, ReLU6]]",
            "[1, DWConv, [96, 3, 1, null, ReLU6]]",
            "[1, Conv, [24, 1, 1, null, 1, null]]",
        ],
    ),
    "a pointwise convolution": (
        [CONV, "[1, FusedMBConv, {expansion: 2, channels: 24, kernel: 1}]"],
        [CONV, "[1, Conv, [32, 1, 1, null, 1, SiLU]]", "[1, Conv, [24, 1, 1, null, 1, null]]"],
    ),
    "three branches and their rows": (
        [CONV, "[1, RepVGGBlock, [16, 1, 1]]"],
        [
            NAMED,
            "[1, Conv, {channels: 16, kernel: 3, activation: null, from: x, name: a}]",
            "[1, Conv, {channels: 16, kernel: 1, activation: null, from: x, name: b}]",
            "[1, Add, [], {from: [b, a], name: s}]",
            "[1, nn.BatchNorm2d, [], {from: x, name: n}]",
            "[1, Add, [], {from: [n, s]}]",
            "[1, nn.ReLU, []]",
        ],
    ),
    "the order of a sum": (
        [NAMED, "[1, Conv, [8, 1]]", "[1, Conv, [16, 3]]", "[1, Add, [], {from: [previous, x]}]"],
        [NAMED, "[1, Conv, [8, 1]]", "[1, Conv, [16, 3]]", "[1, Add, [], {from: [x, previous]}]"],
    ),
    "the order of branches": (
        [
            NAMED,
            "[1, Conv, {channels: 8, kernel: 1, from: x, name: a}]",
            "[1, Conv, {channels: 8, kernel: 3, from: x, name: b}]",
            "[1, Add, [], {from: [a, b]}]",
        ],
        [
            NAMED,
            "[1, Conv, {channels: 8, kernel: 3, from: x, name: b}]",
            "[2, Identity, {name: i}]",
            "[1, Conv, {channels: 8, kernel: 1, from: x, name: a}]",
            "[1, Add, [], {from: [i, a]}]",
        ],
    ),
    "an axis from the end": (
        [NAMED, "[1, Conv, [16, 1]]", "[1, Concat, {dim: 1}, {from: [previous, x]}]"],
        [NAMED, "[1, Conv, [16, 1]]", "[1, Concat, {dim: -3}, {from: [previous, x]}]"],
    ),
    "a class of torch": ([CONV, "[1, AvgPool, [2]]"], [CONV, "[1, nn.AvgPool2d, [2]]"]),
    "a pool whose windows fit": (
        [CONV, "[1, AvgPool, [2]]", "[1, MaxPool, [2]]"],
        [
            CONV,
            "[1, AvgPool, {kernel: 2, ceil_mode: true, count_include_pad: false}]",
            "[1, MaxPool, {kernel: 2, ceil_mode: true}]",
        ],
    ),
    "a stride with one window": ([CONV, "[1, MaxPool, [16]]"], [CONV, "[1, MaxPool, {kernel: 16, stride: 3}]"]),
    "a stride over one pixel": (
        [CONV, "[1, GlobalAvgPool, []]", "[1, Conv, [32, 1, 1]]"],
        [CONV, "[1, GlobalAvgPool, []]", "[1, Conv, [32, 1, 2]]"],
    ),
    "a dilation of one point": (
        [CONV, "[1, nn.Conv2d, [8, 1]]"],
        [CONV, "[1, nn.Conv2d, {out_channels: 8, kernel_size: 1, dilation: 2}]"],
    ),
    "a pool of one pixel": ([CONV], [CONV, "[1, MaxPool, [1]]", "[1, UpSample, {scale: 1}]"]),
    "the mean of one pixel": (
        [CONV, "[1, GlobalAvgPool, []]"],
        [CONV, "[2, GlobalAvgPool, []]", "[1, GlobalMaxPool, []]"],
    ),
    "a default of torch": ([CONV, "[1, nn.PReLU, []]"], [CONV, "[1, nn.PReLU, {init: 0.25}]"]),
}


def fill(network):
    """Give weights of one shape one set of values, so that two networks are compared in whatever order they name them."""
    for weights in network.parameters():
        with torch.no_grad():
            weights.copy_(torch.randn(weights.shape, generator=torch.Generator().manual_seed(weights.numel())) / 4)
    return network


def outputs(network, x):
    """What a network gives in evaluation mode, and in training mode with the lots that a seed draws."""
    with torch.no_grad():
        evaluated = network.eval()(x)
        torch.manual_seed(0)
        return torch.cat([evaluated, network.train()(x)])


def assert_equal_functions(one, other):
    first, second = fill(build(one)), fill(build(other))
    assert sorted(p.shape for p in first.parameters()) == sorted(p.shape for p in second.parameters())
    x = torch.randn(3, one.input_channels, *one.input_size)
    torch.testing.assert_close(outputs(first, x), outputs(second, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", EQUAL)
def test_equal_networks_have_one_key_in_any_spelling(name):
    one, other = (resolved(*rows) for rows in EQUAL[name])
    assert graph_key(one) == graph_key(other)
    assert_equal_functions(one, other)


def test_flattening_at_the_end_is_what_a_network_does_anyway():
    head = "  - [1, GlobalAvgPool, []]\n  - [1, FixedConv, [4, 1]]\n"
    assert key(CONV, head=head) == key(CONV, head=head + "  - [1, Flatten, []]\n")


DIFFERENT = {
    "a kernel": ([CONV], ["[1, Conv, [16, 5]]"]),
    "a dropout's share": ([CONV, "[1, Dropout, [0.1]]"], [CONV, "[1, Dropout, [0.2]]"]),
    "a drop path": (
        [CONV, "[1, MBConv, {expansion: 4, channels: 16}]"],
        [CONV, "[1, MBConv, {expansion: 4, channels: 16, drop_path: 0.3}]"],
    ),
    "a first value of a weight": ([CONV, "[1, nn.PReLU, []]"], [CONV, "[1, nn.PReLU, {init: 0.3}]"]),
    "a first value of a block's own weight": (
        [CONV, "[1, ConvNeXtBlock, {channels: 16}]"],
        [CONV, "[1, ConvNeXtBlock, {channels: 16, layer_scale: 0.1}]"],
    ),
    "a momentum": ([CONV, "[1, nn.BatchNorm2d, []]"], [CONV, "[1, nn.BatchNorm2d, {momentum: 0.2}]"]),
    "statistics that are not kept": (
        [CONV, "[1, nn.BatchNorm2d, []]"],
        [CONV, "[1, nn.BatchNorm2d, {track_running_stats: false}]"],
    ),
    "the order of a concatenation": (
        [NAMED, "[1, Conv, [16, 1]]", "[1, Concat, [], {from: [previous, x]}]"],
        [NAMED, "[1, Conv, [16, 1]]", "[1, Concat, [], {from: [x, previous]}]"],
    ),
    "two weights for one": (
        [
            NAMED,
            "[1, Conv, {channels: 8, kernel: 1, from: x, name: a}]",
            "[1, Conv, {channels: 8, kernel: 1, from: x, name: b}]",
            "[1, Add, [], {from: [a, b]}]",
        ],
        [NAMED, "[1, Conv, {channels: 8, kernel: 1, from: x, name: a}]", "[1, Add, [], {from: [a, a]}]"],
    ),
    "where a residual begins": (
        [
            NAMED,
            "[1, Conv, {channels: 16, kernel: 3, name: y}]",
            "[1, Conv, [16, 3]]",
            "[1, Add, {from: [previous, x]}]",
        ],
        [
            NAMED,
            "[1, Conv, {channels: 16, kernel: 3, name: y}]",
            "[1, Conv, [16, 3]]",
            "[1, Add, {from: [previous, y]}]",
        ],
    ),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_different_networks_have_different_keys(name):
    one, other = DIFFERENT[name]
    assert key(*one) != key(*other)


def test_the_picture_is_a_part_of_the_network():
    assert key(CONV, size=16) != key(CONV, size=18)
    grey = SearchSpace.read(f"input_channel: 1\ninput_size: 16\nbackbone:\n  - {CONV}\n{HEAD}").default().architecture
    assert graph_key(grey) != key(CONV)


def test_a_branch_that_leads_nowhere_is_built_and_counts():
    def rows(branch):
        stem, head = Row("Conv", CONVOLUTION), Row("Conv", CONVOLUTION, inputs=(0,))
        tail = Row("GlobalAvgPool", {"output_size": 1})
        return Architecture((stem, *([branch] if branch else []), head, tail), 3, (8, 8))

    kernels = [rows(Row("Conv", {**CONVOLUTION, "kernel": kernel}, inputs=(0,))) for kernel in (1, 3)]
    nothing = rows(Row("Identity", inputs=(0,)))
    assert len({graph_key(a) for a in (*kernels, nothing)}) == 3
    assert graph_key(nothing) == graph_key(rows(None))


def test_who_overwrites_what_others_take_is_known_by_rows_alone():
    def rows(place, *more):
        stem = Row("Conv", {**CONVOLUTION, "activation": None})
        over, other = Row("nn.ReLU", {"inplace": place}, inputs=(0,)), Row("Conv", CONVOLUTION, inputs=(0,))
        join = Row("Add", inputs=(1, 2))
        return Architecture((stem, over, other, join, *more, Row("GlobalAvgPool", {"output_size": 1})), 3, (8, 8))

    assert graph_key(rows(True)) != graph_key(rows(False))
    assert graph_key(rows(True)) != graph_key(rows(True, Row("Identity")))
    assert graph_key(rows(False)) == graph_key(rows(False, Row("Identity")))


def test_keys_are_the_same_in_every_process():
    yaml = resolved(NAMED, "[1, Bottleneck, [16]]", "[1, Add, [], {from: [previous, x]}]").to_yaml()
    code = f"from archtuna import Architecture as A; from archtuna.equality import graph_key; print(graph_key(A.from_yaml({yaml!r})))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == graph_key(Architecture.from_yaml(yaml))


def test_rows_that_do_not_fit_or_are_not_known_have_no_key():
    with pytest.raises(ShapeError, match="takes a vector"):
        graph_key(Architecture((Row("Linear", {"features": 4, "activation": None}),), 3, (8, 8)))
    with pytest.raises(UnknownNameError, match="'Mine' here; it is one of the module 'mine'"):
        graph_key(Architecture((Row("Mine"),), 3, (8, 8), {"Mine": "mine"}))


def test_a_foreign_block_is_what_its_name_and_arguments_say():
    @block(name="Twice")
    class Twice(nn.Module):
        """Doubles."""

        def __init__(self, factor: float = 2.0, unused: int = 0) -> None:
            super().__init__()
            self.factor = factor

        def forward(self, x):
            return x * self.factor

    try:
        keys = [key(CONV, f"[1, Twice, {arguments}]") for arguments in ("[]", "[2.0]", "[3.0]", "[2.0, 1]")]
        assert keys[0] == keys[1]
        assert len(set(keys)) == 3
    finally:
        BLOCKS._entries.pop("Twice")


# --- properties -----------------------------------------------------------------------------------


def edited(space, rng):
    """Two networks of a space that differ in one decision."""
    one = space.random(rng)
    asked = [c for c in space.choices if c.name in one.decisions and not c.name.startswith("training.")]
    choice = rng.choice(asked)
    value = rng.choice([value for value in choice.values() if value != one.decisions[choice.name]])
    return one.architecture, space.candidate({**one.decisions, choice.name: value}).architecture


def shapes(architecture):
    with torch.device("meta"):
        return [(p.shape, p.requires_grad) for p in Network(architecture).parameters()]


def seeded(architecture):
    torch.manual_seed(0)
    network = build(architecture)
    weights = [p.detach().clone() for p in network.state_dict().values()]
    torch.manual_seed(1)
    x = torch.randn(2, architecture.input_channels, *architecture.input_size)
    return [*weights, outputs(network, x)]


def are_equal(one, other):
    """Whether two networks that name their weights in one order begin alike and give the same: built, drawn and run."""
    if shapes(one) != shapes(other):
        return False
    pairs = zip(seeded(one), seeded(other), strict=True)
    return all(torch.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True) for a, b in pairs)


SPACES = {name: SearchSpace.read(starter(space=name, classes=4, input_size=32)) for name in spaces()}
SPACES |= {
    f"test {name}": SearchSpace.read(text, input_size=32 if name == "classic" else None) for name, text in ALL.items()
}
EDITS = dict.fromkeys(SPACES, 25) | {"test everything": 60, "test small": 60, "test graph": 60}


@pytest.mark.slow
@pytest.mark.parametrize("name", EDITS)
def test_an_edit_changes_the_key_exactly_when_it_changes_the_network(name):
    space, rng = SPACES[name], random.Random(name)
    for _ in range(EDITS[name]):
        try:
            one, other = edited(space, rng)
        except ShapeError:
            continue
        assert (graph_key(one) == graph_key(other)) == are_equal(one, other), one.differences(other)


@pytest.mark.slow
@pytest.mark.parametrize("name", EDITS)
def test_a_spelling_with_rows_that_do_nothing_has_the_key_of_the_network(name):
    space, rng = SPACES[name], random.Random(name)
    for _ in range(20):
        try:
            architecture = space.random(rng).architecture
        except ShapeError:
            continue
        assert graph_key(padded(architecture, rng)) == graph_key(architecture)


NOTHING = (Row("Identity"), Row("nn.Identity", {}, 3), Row("Dropout", {"p": 0.0}, 2), Row("MaxPool", POOL))


def padded(architecture, rng):
    """The same network with rows of nothing between its rows, and its copies as rows of their own."""
    rows, places = [], {PICTURE: PICTURE}
    for index, row in enumerate(architecture.rows):
        inputs = (index - 1,) if row.inputs is None else row.inputs
        rows.append(Row(row.module, row.arguments, 1, tuple(places[i] for i in inputs)))
        rows += [Row(row.module, row.arguments)] * (row.repeat - 1)
        # A pool needs a map, which all that stands before the pooling gives.
        kinds = NOTHING if index == 0 else NOTHING[:-1]
        rows += [rng.choice(kinds)] * rng.choice([0, 1, 2])
        places[index] = len(rows) - 1
    return Architecture(tuple(rows), architecture.input_channels, architecture.input_size)


OPERATIONS = {
    "conv1": Row("Conv", {**CONVOLUTION, "kernel": 1, "padding": 0}),
    "conv3": Row("Conv", CONVOLUTION),
    "pool": Row("AvgPool", {"kernel": 3, "stride": 1, "padding": 1, "ceil_mode": False, "count_include_pad": False}),
    "skip": Row("Identity"),
}


def cell(operations):
    """A network of one cell of NAS-Bench-201 (Dong & Yang 2020): four nodes, each the sum of what comes from those before it."""
    rows, nodes, left = [Row("Conv", CONVOLUTION)], [0], iter(operations)
    for node in range(1, 4):
        taken = []
        for source, operation in zip(nodes, itertools.islice(left, node), strict=True):
            rows.append(replace(OPERATIONS[operation], inputs=(source,)))
            taken.append(len(rows) - 1)
        if len(taken) > 1:
            rows.append(Row("Add", inputs=tuple(taken)))
        nodes.append(len(rows) - 1)
    return Architecture((*rows, Row("GlobalAvgPool", {"output_size": 1})), 3, (8, 8))


@pytest.mark.slow
def test_cells_of_one_key_give_the_same_and_cells_of_one_spelling_are_many():
    found = {}
    for operations in itertools.product(OPERATIONS, repeat=6):
        found.setdefault(graph_key(cell(operations)), []).append(operations)
    assert 1_000 < len(found) < 4**6 - 500
    several = [cells for cells in found.values() if len(cells) > 1]
    rng = random.Random(0)
    for cells in rng.sample(several, 60):
        one, other = rng.sample(cells, 2)
        assert cell(one).key != cell(other).key
        assert_equal_functions(cell(one), cell(other))
