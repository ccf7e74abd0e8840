from __future__ import annotations

import optuna
import pytest

from archtuna.errors import StudyError
from archtuna.known_costs import KnownCostSampler
from archtuna.sampler import OURS, SAMPLERS, make_sampler, seed_of


def test_samplers_by_name() -> None:
    for name in set(SAMPLERS) - {"cmaes", "gp"}:
        assert isinstance(make_sampler(name, objectives=2, seed=1), getattr(optuna.samplers, SAMPLERS[name]))
    for name in (None, OURS):
        assert isinstance(make_sampler(name, objectives=2, seed=1), KnownCostSampler)
    mine = optuna.samplers.RandomSampler()
    assert make_sampler(mine, objectives=2, seed=1) is mine


def test_samplers_that_cannot_be() -> None:
    with pytest.raises(StudyError, match=r"unknown sampler 'nsga4'\nhint: did you mean 'nsga"):
        make_sampler("nsga4", objectives=2, seed=0)
    with pytest.raises(StudyError, match=r"unknown sampler 'x'\nhint: known: known-costs, tpe"):
        make_sampler("x", objectives=2, seed=0)
    with pytest.raises(StudyError, match="cmaes knows one objective only"):
        make_sampler("cmaes", objectives=2, seed=0)


def test_every_worker_and_every_start_draws_otherwise() -> None:
    seeds = {seed_of(0, worker, started) for worker in range(4) for started in (0, 10)}
    assert len(seeds) == 8
    assert seed_of(0, 1, 2) == seed_of(0, 1, 2)
    assert seed_of(None, 1, 2) is None
