import pytest
import torch
from torch import nn

from archtuna.blocks.inverted_residual import make_divisible
from archtuna.model import _survey_unit, make_unit
from archtuna.registry import BLOCKS, block
from archtuna.signature import Activation, Count


def sample_arguments(entry):
    """Small arguments for any block, from its own schema."""
    values = {}
    for p in entry.parameters:
        if not p.required:
            values[p.name] = p.default
        elif p.type is int:
            small = {"kernel": 3, "kernels": (3, 5), "patch": 2, "heads": 4, "feature_size": 8}
            values[p.name] = small.get(p.name, 16)
        else:
            values[p.name] = 2.0
    return entry.canonical({p.name: p.coerce(values[p.name]) for p in entry.parameters})


@pytest.mark.parametrize("name", [name for name in BLOCKS if not name.startswith("PreTrained")])
def test_every_block_runs_trains_and_matches_its_facts(name):
    entry = BLOCKS[name]
    assert entry.meaning
    arguments = sample_arguments(entry)
    shape = (16,) if name == "Linear" else (16, 8, 8)
    unit = make_unit(name, arguments, (shape,))
    x = torch.randn(2, *shape, requires_grad=True)
    y = unit(x)
    y.sum().backward()
    facts = _survey_unit(name, entry.target, tuple(arguments.items()), (shape,))
    assert tuple(y.shape[1:]) == facts.output
    assert sum(p.numel() for p in unit.parameters()) == facts.params
    assert all(p.grad is not None for p in unit.parameters())


@pytest.mark.parametrize("name", list(BLOCKS))
def test_every_block_and_argument_says_what_it_is(name):
    entry = BLOCKS[name]
    assert entry.meaning.endswith(".")
    assert [p.name for p in entry.parameters if not entry.meaning_of(p.name)] == []
    assert not entry.is_foreign
    # A sentence about an argument that is gone would mislead.
    assert set(entry.arguments_meaning) <= {p.name for p in entry.parameters}


# Parameters by hand: weights of each convolution, 2 per channel of a batch norm, biases where the paper has them.
@pytest.mark.parametrize(
    ("name", "arguments", "channels", "params"),
    [
        ("Conv", {"channels": 32, "kernel": 3}, 16, 16 * 32 * 9 + 64),
        ("Conv", {"channels": 32, "kernel": 3, "groups": 4}, 16, 16 * 32 * 9 // 4 + 64),
        ("FixedConv", {"channels": 6, "kernel": 1}, 16, 16 * 6 + 12),
        ("DWConv", {"channels": 24, "kernel": 3}, 16, 2 * 24 * 9 + 48),
        ("Bottleneck", {"channels": 32}, 32, 32 * 16 + 32 + 16 * 32 * 9 + 64),
        ("Fire", {"squeeze": 4, "expand1x1": 8, "expand3x3": 8}, 16, 16 * 4 + 4 + 4 * 8 + 8 + 4 * 8 * 9 + 8),
        ("Linear", {"features": 10}, 16, 170),
        ("InvertedResidualv2", {"channels": 16, "expansion": 1}, 16, 16 * 9 + 32 + 16 * 16 + 32),
        (
            "InvertedResidualv2",
            {"channels": 24, "expansion": 6, "stride": 2},
            16,
            16 * 96 + 192 + 96 * 9 + 192 + 96 * 24 + 48,
        ),
        ("InvertedResidualv3", {"kernel": 3, "expansion": 1, "channels": 16}, 16, 16 * 9 + 32 + 256 + 32),
        (
            "InvertedResidualv3",
            {"kernel": 5, "expansion": 4, "channels": 40, "se": True},
            16,
            16 * 64 + 128 + 64 * 25 + 128 + (64 * 16 + 16 + 16 * 64 + 64) + 64 * 40 + 80,
        ),
        (
            "MBConv",
            {"expansion": 6, "channels": 24, "stride": 2, "kernel": 5},
            16,
            16 * 96 + 192 + 96 * 25 + 192 + (96 * 4 + 4 + 4 * 96 + 96) + 96 * 24 + 48,
        ),
    ],
)
def test_parameters_equal_a_count_by_hand(name, arguments, channels, params):
    unit = make_unit(name, arguments, ((channels, 8, 8),), device="meta")
    assert sum(p.numel() for p in unit.parameters()) == params


@pytest.mark.parametrize(
    ("name", "arguments", "channels", "residual"),
    [
        ("InvertedResidualv2", {"channels": 16, "expansion": 2, "stride": 1}, 16, True),
        ("InvertedResidualv2", {"channels": 16, "expansion": 2, "stride": 2}, 16, False),
        ("InvertedResidualv3", {"kernel": 3, "expansion": 2, "channels": 24}, 16, False),
        ("MBConv", {"expansion": 1, "channels": 16, "stride": 1}, 16, True),
        ("Bottleneck", {"channels": 16, "shortcut": False}, 16, False),
        ("Bottleneck", {"channels": 16}, 16, True),
    ],
)
def test_residuals_stand_where_shapes_agree(name, arguments, channels, residual):
    assert make_unit(name, arguments, ((channels, 8, 8),), device="meta").residual is residual


@pytest.mark.parametrize(
    ("value", "rounded"),
    [(6, 8), (20, 24), (27, 32), (45, 48), (100, 104), (8, 8), (12, 16), (10, 16), (0.5, 8), (91, 88)],
)
def test_widths_round_as_mobilenet_does(value, rounded):
    assert make_divisible(value) == rounded


@pytest.mark.parametrize(("kernel", "stride", "out"), [(3, 1, 8), (3, 2, 4), (5, 2, 4), (1, 2, 4), (2, 1, 8)])
def test_mbconv_keeps_or_halves_a_map(kernel, stride, out):
    unit = make_unit("MBConv", {"expansion": 2, "channels": 8, "stride": stride, "kernel": kernel}, ((8, 8, 8),))
    assert unit(torch.zeros(1, 8, 8, 8)).shape[-1] == out


def test_mbconv_pads_more_on_the_right_and_below():
    pads = [
        m
        for m in make_unit("MBConv", {"expansion": 1, "channels": 8, "stride": 2, "kernel": 3}, ((8, 8, 8),)).modules()
        if isinstance(m, nn.ZeroPad2d)
    ]
    assert pads[0].padding == (0, 1, 0, 1)


def test_ones_own_block_is_a_class_whose_signature_is_its_schema():
    @block(name="TestOnly")
    class Own(nn.Module):
        """Does a thing."""

        def __init__(self, in_channels: int, channels: Count, stride: Count = 1, activation: Activation | None = None):
            super().__init__()

    try:
        entry = BLOCKS["TestOnly"]
        assert (entry.repeat, entry.scaled, entry.meaning) == ("stride first", False, "Does a thing.")
        assert [p.name for p in entry.parameters] == ["channels", "stride", "activation"]
    finally:
        del BLOCKS._entries["TestOnly"]
