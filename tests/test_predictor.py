"""What networks are predicted to take, and whether the prediction knows how wrong it is."""

from __future__ import annotations

import random
import time
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from archtuna.errors import LatencyError
from archtuna.predictor import _PRIOR, MOST, Part, Predictor, _Counts, _design, _loss, _pairs

KINDS = ("convolution", "depthwise", "pool")
SPEED = {"convolution": 1e-6, "depthwise": 8e-6, "pool": 0.0}


def part(kind: str, macs: float, map_: float) -> Part:
    return Part((kind, macs, map_), kind, (macs if kind != "pool" else 0.0, map_))


def true_ms(one: Part) -> float:
    """A processor that is slower on small maps, which no proportion to a number says."""
    macs, values = one.numbers
    return SPEED[one.kind] * macs * (1 + 300 / values) + 2e-6 * values + 0.004


def network(draws: random.Random) -> tuple[Part, ...]:
    return tuple(
        part(draws.choice(KINDS), 1e3 * 2 ** draws.randint(3, 9), 2.0 ** draws.randint(7, 13))
        for _ in range(draws.randint(3, 15))
    )


def networks(n: int, seed: int, noise: float = 0.0) -> tuple[list[tuple[Part, ...]], np.ndarray]:
    draws = random.Random(seed)
    found = [network(draws) for _ in range(n)]
    ms = [(0.05 + sum(map(true_ms, one))) * draws.lognormvariate(0, noise) for one in found]
    return found, np.array(ms)


@pytest.fixture(scope="module")
def fitted() -> Predictor:
    return Predictor.fit(*networks(80, seed=0, noise=0.02))


@pytest.fixture(scope="module")
def others() -> tuple[list[tuple[Part, ...]], np.ndarray]:
    return networks(300, seed=1, noise=0.02)


def test_networks_that_nobody_measured_are_predicted(
    fitted: Predictor, others: tuple[list[tuple[Part, ...]], np.ndarray]
) -> None:
    mean, _ = fitted.predict(others[0])
    off = np.abs(mean / others[1] - 1)
    assert np.median(off) < 0.04
    assert np.mean(off < 0.1) > 0.9
    assert spearmanr(mean, others[1])[0] > 0.98


def test_it_predicts_better_than_its_numbers_alone(
    fitted: Predictor, others: tuple[list[tuple[Part, ...]], np.ndarray]
) -> None:
    counted = _Counts([[*one, *fitted._whole] for one in others[0]], fitted._kinds)
    straight = counted.counts @ _design(counted) @ fitted._roofline
    ours = np.abs(fitted.predict(others[0])[0] / others[1] - 1)
    assert ours.mean() < 0.6 * np.abs(straight / others[1] - 1).mean()


def test_it_knows_how_wrong_it_is(fitted: Predictor, others: tuple[list[tuple[Part, ...]], np.ndarray]) -> None:
    mean, deviation = fitted.predict(others[0])
    inside = np.abs(others[1] - mean) < 1.96 * deviation
    assert 0.88 < inside.mean() <= 1.0
    found = np.quantile(np.abs(mean / others[1] - 1), 0.9)
    assert 0.6 * found < fitted.error() < 1.8 * found
    assert fitted.error(0.5) < fitted.error(0.9)


def test_more_networks_make_it_surer(others: tuple[list[tuple[Part, ...]], np.ndarray]) -> None:
    few, many = (Predictor.fit(*networks(n, seed=0, noise=0.02)) for n in (8, 120))
    off = [np.mean(np.abs(one.predict(others[0])[0] / others[1] - 1)) for one in (few, many)]
    doubt = [np.mean(one.predict(others[0])[1] / others[1]) for one in (few, many)]
    assert off[1] < off[0]
    assert doubt[1] < doubt[0]


def test_a_part_that_was_measured_on_its_own_is_known() -> None:
    seen, ms = networks(12, seed=2)
    strange = Part("strange", "attention", (5e4, 4e3))
    told = Predictor.fit(seen, ms, parts=[([strange], 1.7), ([strange], 1.75), ([strange], 1.65)])
    without = Predictor.fit(seen, ms)
    network_ = [(*seen[0], strange)]
    wanted = ms[0] + 1.7
    (mean,), (deviation,) = told.predict(network_)
    assert abs(mean / wanted - 1) < 0.1
    assert abs(without.predict(network_)[0][0] / wanted - 1) > 0.3
    assert deviation / mean < without.predict(network_)[1][0] / wanted


def test_parts_that_take_next_to_nothing_do_not_mislead() -> None:
    seen, ms = networks(30, seed=2)
    tiny = [([one], true_ms(one)) for one in sorted({p for net in seen for p in net}, key=true_ms)[:60]]
    assert tiny[30][1] < 0.05 * np.median(ms)
    others, truth = networks(200, seed=3)
    with_tiny, without = (
        np.abs(Predictor.fit(seen, ms, parts=parts).predict(others)[0] / truth - 1) for parts in (tiny, [])
    )
    assert with_tiny.mean() < without.mean()


def test_what_was_measured_in_a_network_does_not_flatter_the_error_of_its_prediction() -> None:
    seen, ms = networks(24, seed=2, noise=0.3)
    own = [Part(("own", i), "convolution", (1e5, 1e4)) for i in range(len(seen))]
    seen = [(*network_, one) for network_, one in zip(seen, own, strict=True)]
    parts = [((one,), 0.5 * total) for one, total in zip(own, ms, strict=True)]
    assert Predictor.fit(seen, 1.5 * ms, parts=parts).error() > 0.1


def test_only_so_many_parts_on_their_own_are_learnt_from() -> None:
    seen, ms = networks(10, seed=2)
    parts = [((part("pool", 0.0, float(i)),), 1e-3 * i) for i in range(2_000)]
    assert len(Predictor.fit(seen, ms, parts=parts)._measured) == MOST


def test_a_network_that_takes_no_time_is_no_outlier() -> None:
    seen, ms = networks(30, seed=2)
    fitted = Predictor.fit([*seen, seen[0][:1]], [*ms, 0.0])
    others, truth = networks(200, seed=3)
    assert np.median(np.abs(fitted.predict(others)[0] / truth - 1)) < 0.1
    assert np.isfinite(fitted.error())


def test_a_kind_that_was_never_seen_is_doubted(fitted: Predictor) -> None:
    known = network(random.Random(5))
    unknown = tuple(replace(one, key=("new", one.key), kind="new") for one in known)
    (one, other), (sure, unsure) = fitted.predict([known, unknown])
    assert other > 0
    assert unsure / other > 2 * sure / one


def test_the_order_of_parts_does_not_matter_and_networks_do_not_influence_each_other(fitted: Predictor) -> None:
    first, second = network(random.Random(6)), network(random.Random(7))
    together = fitted.predict([first, second, first[::-1]])
    alone = fitted.predict([first])
    for many, one in zip(together, alone, strict=True):
        assert many[0] == pytest.approx(one[0])
        assert many[2] == pytest.approx(one[0])


def test_the_same_measurements_give_the_same_predictor(fitted: Predictor) -> None:
    again = Predictor.fit(*networks(80, seed=0, noise=0.02))
    one = [network(random.Random(8))]
    assert again.predict(one)[0][0] == fitted.predict(one)[0][0]


def test_ten_thousand_candidates_take_seconds_and_a_fit_less(fitted: Predictor) -> None:
    draws = random.Random(9)
    candidates = [network(draws) for _ in range(10_000)]
    begun = time.process_time()
    fitted.predict(candidates)
    # Five times what it takes here, for machines that are slower or busy.
    assert time.process_time() - begun < 10
    begun = time.process_time()
    Predictor.fit(*networks(200, seed=3))
    assert time.process_time() - begun < 10


def test_the_gradient_is_the_slope_of_the_loss() -> None:
    draws = np.random.default_rng(0)
    roots = draws.standard_normal((len(_PRIOR), 6, 6))
    kernels, y = roots @ roots.transpose(0, 2, 1), draws.standard_normal(6)
    at = draws.standard_normal(len(_PRIOR)) - 2
    _, slope = _loss(at, kernels, y)
    for i, step in enumerate(1e-5 * np.eye(len(at))):
        measured = (_loss(at + step, kernels, y)[0] - _loss(at - step, kernels, y)[0]) / 2e-5
        assert slope[i] == pytest.approx(measured, rel=1e-4, abs=1e-6)


def test_pairs_are_those_of_equal_groups() -> None:
    one, other = _pairs(np.array([0, 0, 3, 5, 5, 5]))
    assert sorted(zip(one.tolist(), other.tolist(), strict=True)) == sorted(
        [(a, b) for group in ([0, 1], [2], [3, 4, 5]) for a in group for b in group]
    )


def test_what_nothing_can_be_learnt_from_is_one_error() -> None:
    seen, ms = networks(4, seed=4)
    with pytest.raises(
        LatencyError, match="of 2 measured networks nothing follows for others\nhint: measure 3 or more"
    ):
        Predictor.fit(seen[:2], ms[:2])
    with pytest.raises(LatencyError, match="4 networks and 3 times do not belong together"):
        Predictor.fit(seen, ms[:3])
    with pytest.raises(LatencyError, match="nan ms is no time that a network takes"):
        Predictor.fit(seen, [1.0, 2.0, float("nan"), 1.0])
    with pytest.raises(LatencyError, match="-1.0 ms is no time"):
        Predictor.fit(seen, ms, parts=[(seen[0][:1], -1.0)])
    with pytest.raises(LatencyError, match="0.0 ms is no time"):
        Predictor.fit(seen, [0.0] * 4)
    with pytest.raises(LatencyError, match="parts have 1 or 2 numbers: all need as many"):
        Predictor.fit([*seen, (Part("odd", "odd", (1.0,)),)], [*ms, 1.0])
    with pytest.raises(LatencyError, match="parts have no numbers"):
        Predictor.fit([(), (), ()], [1.0, 2.0, 3.0])


def test_one_network_is_expected_to_take_what_it_is_predicted_to() -> None:
    seen, ms = networks(30, seed=5)
    others, _ = networks(20, seed=6)
    strange = (Part("never seen", "strange", tuple(3.0 for _ in seen[0][0].numbers)),)
    predictor = Predictor.fit(seen, ms)
    for network in [*seen, *others, [*others[0], *strange]]:
        assert predictor.expect(network) == pytest.approx(float(predictor.predict([network])[0][0]), rel=1e-9)
