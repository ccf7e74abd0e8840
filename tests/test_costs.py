import pytest

from archtuna.costs import costs_of
from archtuna.model import build
from archtuna.space import SearchSpace
from spaces import SEED


def seed(size=32):
    return SearchSpace.read(SEED, input_size=size).default().architecture


def test_the_seed_has_its_published_costs():
    costs = costs_of(seed(224))
    assert (costs["params"], costs["macs"]) == (4_210_998, 215_317_440)
    assert costs["size_mb"] == pytest.approx(16.95, abs=0.01)
    # 64 channels of 112x112 before and 64 of 56x56 behind the depthwise convolution of the second inverted residual.
    assert costs["peak_memory_mb"] == 4e-6 * (64 * 112**2 + 64 * 56**2)
    assert costs_of(seed(32))["macs"] == 7_081_920


def test_size_is_what_a_state_dict_stores():
    network = build(seed())
    stored = sum(t.numel() for t in network.state_dict().values() if t.is_floating_point())
    assert costs_of(seed())["size_mb"] == pytest.approx(4e-6 * stored)
