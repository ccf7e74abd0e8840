import pytest
import torch
from torch import nn

from archtuna.operations import reached, recording
from archtuna.registry import BLOCKS, block
from test_blocks import sample_arguments

MAP = (16, 8, 8)


def recorded(name, arguments=None, shape=MAP):
    entry = BLOCKS[name]
    arguments = sample_arguments(entry) if arguments is None else arguments
    return recording(name, entry.target, tuple(arguments.items()), (shape,) * (2 if entry.joins else 1))


def is_seen_through(name, arguments=None, shape=MAP):
    return not recorded(name, arguments, shape).output.text.startswith(f"{name} [")


@pytest.mark.parametrize("name", [name for name in BLOCKS if not name.startswith("PreTrained")])
def test_every_block_is_seen_through(name):
    assert is_seen_through(name, shape=(16,) if name == "Linear" else MAP)


def test_weights_that_somebody_trained_are_a_name_and_arguments():
    assert not is_seen_through("PreTrained", {"model": "resnet18", "pretrained": True})


def test_a_recording_has_the_settings_the_weights_and_how_they_begin():
    texts = [step.text for step in reached(recorded("Linear", {"features": 4, "activation": None}, (16,)).output)]
    # In the order of addmm's operands; the bound of a linear layer's weights is the root of 1/16.
    assert texts == [
        "empty.memory_format [[4]] ",
        "uniform.default [%, -0.25, 0.25] ",
        "parameter True %",
        "input 0",
        "empty.memory_format [[4, 16]] ",
        "uniform.default [%, -0.24999999999999997, 0.24999999999999997] ",
        "parameter True %",
        "t.default [%] ",
        "addmm.default [%, %, %] ",
    ]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("Identity", {}), ("Dropout", {"p": 0.0}), ("UpSample", {"size": None, "scale": 1.0, "mode": "bilinear"})],
)
def test_what_leaves_its_input_as_it_is_is_no_operation(name, arguments):
    found = recorded(name, arguments)
    assert found.output is found.inputs[0]


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_what_resamples_to_the_same_size_is_an_operation(mode):
    rounded = recorded("UpSample", {"size": None, "scale": 1.2, "mode": mode}, (16, 3, 3))
    assert rounded.output is not rounded.inputs[0]


def test_weights_that_are_drawn_where_nothing_shows_are_known_by_their_owner():
    texts = [step.text for step in reached(recorded("AttentionPool", {"heads": 4}).output)]
    assert "parameter True AttentionPool.query %" in texts
    assert texts.count("parameter True %") == len(list(nn.LayerNorm(4).parameters())) + 2 * 2


def test_a_divisor_of_ones_own_is_no_identity():
    settings = {"kernel_size": 1, "stride": None, "padding": 0, "ceil_mode": False, "count_include_pad": True}
    plain, halved = (recorded("nn.AvgPool2d", {**settings, "divisor_override": n}) for n in (None, 2))
    assert plain.output is plain.inputs[0]
    assert halved.output is not halved.inputs[0]


def test_recording_draws_no_lots_of_the_process():
    state = torch.random.get_rng_state()
    recorded("Dropout", {"p": 0.123})
    recorded("Conv", {"channels": 24, "kernel": 3, "stride": 1, "padding": 1, "groups": 1, "activation": "RReLU"})
    assert torch.equal(state, torch.random.get_rng_state())


def test_what_changes_its_input_in_place_says_so():
    assert recorded("nn.ReLU", {"inplace": True}).overwrites
    assert not recorded("nn.ReLU", {"inplace": False}).overwrites
    texts = [recorded("nn.ReLU", {"inplace": inplace}).output.text for inplace in (True, False)]
    assert texts[0] == texts[1]


class Own(nn.Module):
    """Passes for a block of archtuna's own."""

    __module__ = "archtuna.made_up"

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(in_channels, 1, 1))


class Unused(Own):
    """Has a weight that it does not use."""

    __module__ = "archtuna.made_up"

    def forward(self, x):
        return x.relu()


class Hidden(Own):
    """Changes a view of its map in place, and gives the map."""

    __module__ = "archtuna.made_up"

    def forward(self, x):
        y = x * self.weight
        y[:, :1].relu_()
        return y


class Values(Own):
    """Multiplies by numbers that its operations do not show."""

    __module__ = "archtuna.made_up"

    def forward(self, x):
        return x * self.weight * torch.tensor([1.0, 2.0], device="cpu").sum()


class Constant(Own):
    """Does not look at its input."""

    __module__ = "archtuna.made_up"

    def forward(self, x):
        return torch.ones(x.shape, device=x.device) * self.weight


class Plain(Own):
    """Multiplies by its weight, in place of a copy."""

    __module__ = "archtuna.made_up"

    def forward(self, x):
        y = x.clone()
        y *= self.weight
        return y


@pytest.mark.parametrize(
    ("target", "seen"), [(Unused, False), (Hidden, False), (Values, False), (Constant, False), (Plain, True)]
)
def test_what_operations_do_not_show_is_a_name_and_arguments(target, seen):
    block(target, origin="archtuna.made_up")
    try:
        assert is_seen_through(target.__name__, {}) == seen
    finally:
        BLOCKS._entries.pop(target.__name__)


def test_code_from_elsewhere_is_not_looked_into():
    block(Plain, name="Elsewhere", origin="somewhere")
    try:
        assert not is_seen_through("Elsewhere", {})
    finally:
        BLOCKS._entries.pop("Elsewhere")
