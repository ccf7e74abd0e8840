"""What networks are expected to take."""

import pytest

from archtuna.architecture import Architecture
from archtuna.costs import costs_of
from archtuna.errors import LatencyError
from archtuna.forecast import Forecast
from archtuna.parts import parts_of as parts_of_network
from archtuna.predictor import Part
from archtuna.space import SearchSpace


class Chain:
    """A network of so many equal blocks, as far as a forecast looks at one."""

    def __init__(self, blocks):
        self.key, self.blocks = f"chain-{blocks}", blocks


def parts_of(chain):
    return [Part("block", "block", (1.0,))] * chain.blocks


@pytest.fixture
def forecast():
    forecast = Forecast(["latency_ms", "size_mb"], parts_of)
    for blocks in (1, 2, 4, 8):
        forecast.learn(Chain(blocks), {"latency_ms": 2.0 * blocks, "size_mb": 0.5 * blocks, "other": 1.0})
    return forecast


def test_what_was_measured_is_told_as_it_was(forecast):
    assert forecast.costs(Chain(4)) == {"latency_ms": 8.0, "size_mb": 2.0}
    assert forecast.known(Chain(4)) == forecast.costs(Chain(4))
    forecast.learn(Chain(4), {"latency_ms": 9.0, "size_mb": 2.0})
    assert forecast.costs(Chain(4))["latency_ms"] == 8.0, "the first measurement stands"


def test_what_was_not_measured_is_expected_by_its_parts(forecast):
    assert forecast.known(Chain(6)) is None
    expected = forecast.costs(Chain(6))
    assert expected["latency_ms"] == pytest.approx(12.0, rel=0.1)
    assert expected["size_mb"] == pytest.approx(3.0, rel=0.1)
    assert 0 <= forecast.error("latency_ms") < 0.5


def test_it_learns_from_every_tenth_network_more(forecast):
    before = forecast.costs(Chain(6))["latency_ms"]
    for blocks in (16, 32, 64, 5, 7):
        forecast.learn(Chain(blocks), {"latency_ms": 4.0 * blocks, "size_mb": 0.5 * blocks})
    assert forecast.costs(Chain(6))["latency_ms"] > before + 1.0


def test_a_reading_that_lacks_a_cost_teaches_nothing_and_too_few_are_an_error():
    forecast = Forecast(["latency_ms"], parts_of)
    forecast.learn(Chain(1), {"size_mb": 1.0})
    assert forecast.known(Chain(1)) is None
    forecast.learn(Chain(1), {"latency_ms": 1.0})
    with pytest.raises(LatencyError, match="fewer than|three|networks"):
        forecast.costs(Chain(2))


def network(channels: int) -> Architecture:
    rows = f"[[1, Conv, [{channels}, 3, 2]], [1, GlobalAvgPool, []], [1, Flatten, []], [1, Linear, [4]]]"
    return SearchSpace.read(f"input_size: 16\nbackbone: {rows}\n").default().architecture


def test_what_single_blocks_take_sharpens_what_is_expected():
    """Networks alike in all but one block teach nothing of it; its own time does."""
    plain, blockwise = (Forecast(["latency_ms"], parts_of_network) for _ in range(2))
    for channels in (8, 16, 24, 48):
        ms = costs_of(network(channels))["macs"] / 1e6
        plain.learn(network(channels), {"latency_ms": ms + 5.0})
        blockwise.learn(network(channels), {"latency_ms": ms + 5.0}, [ms, 4.0, 0.0, 1.0])
    truth = costs_of(network(32))["macs"] / 1e6 + 5.0
    off = [abs(forecast.costs(network(32))["latency_ms"] - truth) for forecast in (plain, blockwise)]
    assert off[1] < 0.05 * truth
    with pytest.raises(ValueError, match="zip"):
        blockwise.learn(network(40), {"latency_ms": 1.0}, [1.0])
