from __future__ import annotations

from pathlib import Path

import pytest
from optuna.samplers import RandomSampler

from archtuna.bench import BUILT_IN, OURS, Replay, as_good_as, replay, replays, sampler_of, summary
from archtuna.errors import StudyError
from archtuna.tables import Case, Table, read_tables
from test_tables import own


class Mine(RandomSampler):
    """A sampler of one's own."""


@pytest.fixture
def table(tmp_path: Path) -> Table:
    own(tmp_path / "toy.npz")
    return read_tables(tmp_path)[0]


CASE = Case(("error", "ms"), {"error": 11.0})


@pytest.mark.parametrize("sampler", [*BUILT_IN, OURS, "test_bench:Mine"])
def test_every_sampler_can_be_replayed(table: Table, sampler: str) -> None:
    done = replay(table, CASE, sampler, seed=0, trials=11)
    assert len(done.scores) == 11
    assert list(done.scores) == sorted(done.scores)
    assert 0 < done.distinct <= 11
    assert 0.0 < done.scores[-1] <= 1.0


def test_ours_evaluates_every_network_once(table: Table) -> None:
    done = replay(table, CASE, OURS, seed=0, trials=11)
    assert done.distinct == 11
    assert done.scores[-1] == pytest.approx(1.0)


def test_replays_are_the_same_in_one_process_and_in_several(table: Table, tmp_path: Path) -> None:
    work = [("toy", CASE, "random", seed) for seed in range(2)]
    here, there = (list(replays(tmp_path, work, 6, workers)) for workers in (1, 2))
    assert [r.scores for r in here] == [r.scores for r in there]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tpe2", r"unknown sampler 'tpe2'\nhint: did you mean 'tpe'"),
        ("nowhere:Mine", "no sampler 'nowhere:Mine': No module"),
        ("test_bench:Nobody", "no sampler"),
    ],
)
def test_samplers_that_are_not_there(table: Table, name: str, text: str) -> None:
    with pytest.raises(StudyError, match=text):
        sampler_of(name, table, CASE, 0)


def test_the_summary_and_how_soon_one_is_as_good() -> None:
    def done(sampler: str, seed: int, *scores: float) -> Replay:
        return Replay("t", "c", sampler, seed, scores, 2, 0.4)

    seeds = [done("a", 0, 0.2, 0.4), done("a", 1, 0.4, 0.6), done("b", 0, 0.4, 0.45), done("b", 1, 0.4, 0.45)]
    first, second = summary(seeds)
    assert (first.sampler, first.n, first.mean, first.seconds) == ("a", 2, {2: pytest.approx(0.5)}, pytest.approx(0.2))
    assert first.spread[2] == pytest.approx(0.2 / 2**0.5)
    assert as_good_as(seeds, "c", "a", ["b"]) == (2, "b")
    assert as_good_as(seeds, "c", "b", ["a"]) is None
    assert as_good_as(seeds, "c", "x", ["a"]) is None
