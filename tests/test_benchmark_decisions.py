"""What ``benchmarks/decisions.py`` takes for a quality, and that it runs."""

import random
import statistics
from pathlib import Path

import pytest

from archtuna.sampler import OURS

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="the benchmarks are not in a source distribution")


@pytest.fixture
def decisions(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import decisions

    return decisions


def candidates(space, count, seed=0):
    draws = random.Random(seed)
    return [space.random(draws) for _ in range(count)]


def test_its_spaces_have_thirty_conditional_decisions_and_more(decisions):
    for name in decisions.SPACES:
        space = decisions.ready(name)
        asked = [len(candidate.decisions) for candidate in candidates(space, 50)]
        assert len(space.choices) >= 30
        assert name != "classic" or min(asked) < max(asked) <= len(space.choices), "some are asked at times only"


def test_a_quality_is_the_same_for_the_same_seed_and_another_for_another(decisions):
    space = decisions.ready("micro")
    drawn = candidates(space, 40)
    one, same, other = (decisions.Quality(space, seed) for seed in (1, 1, 2))
    assert [one.error(c) for c in drawn] == [same.error(c) for c in drawn]
    assert [one.error(c) for c in drawn] != [other.error(c) for c in drawn]


def test_errors_are_shares_and_fall_with_size(decisions):
    space = decisions.ready("micro")
    quality, drawn = decisions.Quality(space, 3), candidates(space, 300)
    errors = [quality.error(c) for c in drawn]
    assert 0.0 < min(errors) < max(errors) < 1.0
    drawn.sort(key=quality._sizes)
    small, large = ([quality.error(c) for c in part] for part in (drawn[:75], drawn[-75:]))
    assert statistics.mean(large) < statistics.mean(small)


def test_each_training_has_noise_of_its_own(decisions):
    space = decisions.ready("micro")
    quality, (one,) = decisions.Quality(space, 0), candidates(space, 1)
    trained = [quality.error(one, training=number) for number in range(400)]
    error = quality.error(one)
    assert statistics.stdev(trained) == pytest.approx(quality.NOISE * error * (1 - error), rel=0.15)
    assert trained[7] == quality.error(one, training=7)


def test_searches_are_scored_by_the_best_of_their_seed(decisions):
    done = [decisions.search(decisions.Work("micro", "params", name, 0, 14)) for name in ("random", OURS)]
    assert all(one.distinct <= 14 and len(one.shares) == 14 for one in done)
    scored = decisions.replays(done)
    assert max(one.scores[-1] for one in scored) == 1.0
    assert [one.scores[-1] < 1.0 for one in scored].count(True) == 1
    text = "\n".join(decisions.report(done))
    assert "micro: error x params" in text
    assert "in each seed, until ours has what the best of the others has" in text
