"""Replays searches on benchmark tables, so that anyone can check how good a sampler is and compare one of their own."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler

from archtuna.errors import DataError, SpecError, StudyError, nearest
from archtuna.known_costs import Point
from archtuna.sampler import OURS, make_sampler
from archtuna.tables import Case, Scores, Table, read_tables

BUDGETS = (25, 50, 100, 200, 400, 800)
BUILT_IN = ("random", "nsga2", "tpe-default", "tpe")
"""Optuna's samplers that are compared when none are named, ours beside them."""


@dataclass(frozen=True)
class Replay:
    """One search of one case.

    Attributes:
        table, case, sampler, seed: what was replayed.
        scores: after each trial, 0 to 1 (``tables.Scores``).
        distinct: different networks among the trials.
        seconds: wall time of all proposals.
    """

    table: str
    case: str
    sampler: str
    seed: int
    scores: tuple[float, ...]
    distinct: int
    seconds: float


def replay(table: Table, case: Case, sampler: str, seed: int, trials: int) -> Replay:
    """Search a table once: plain ask and tell, with nothing around the sampler.

    Raises:
        StudyError: there is no such sampler.
        DataError: the case names a column that the table lacks.
    """
    distributions, points, scores = distributions_of(table), case.points(table), Scores(table, case)
    study = optuna.create_study(
        directions=["minimize"] * len(case.objectives), sampler=sampler_of(sampler, table, case, seed)
    )
    rows: list[int] = []
    found: list[float] = []
    seconds = 0.0
    for _ in range(trials):
        start = time.perf_counter()
        trial = study.ask(distributions)
        seconds += time.perf_counter() - start
        rows.append(table.row([trial.params[name] for name in table.decisions]))
        study.tell(trial, points[rows[-1]].tolist())
        found.append(scores.of(rows))
    return Replay(table.name, case.name, sampler, seed, tuple(found), len(set(rows)), seconds)


def distributions_of(table: Table) -> dict[str, BaseDistribution]:
    """Return a table's decisions as Optuna's distributions."""
    return {
        name: IntDistribution(0, size - 1) if ordered else CategoricalDistribution(list(range(size)))
        for name, ordered, size in zip(table.decisions, table.ordered, table.sizes, strict=True)
    }


def sampler_of(name: str, table: Table, case: Case, seed: int) -> BaseSampler:
    """Return a sampler by name: ``known-costs``, one of Optuna's, or a class as ``module:Class``.

    Raises:
        StudyError: there is none.
    """
    if name == "tpe-default":
        return optuna.samplers.TPESampler(seed=seed)
    if ":" in name:
        return _own_sampler(name, seed)
    return make_sampler(
        name,
        objectives=len(case.objectives),
        seed=seed,
        network=_network(table, case),
        reference=[(0.0, float(worst)) for worst in case.reference(table)],
    )


def _own_sampler(place: str, seed: int) -> BaseSampler:
    module, _, name = place.partition(":")
    try:
        return getattr(importlib.import_module(module), name)(seed=seed)
    except (ImportError, AttributeError, TypeError) as error:
        raise StudyError(f"no sampler '{place}': {error}", hint="write module:Class; it is called with seed=") from None


def _network(table: Table, case: Case) -> Callable[[Any], Point]:
    distributions, points = distributions_of(table), case.points(table)
    known = [i for i, name in enumerate(case.objectives) if name in table.known]

    def network(pick: Callable[[str, BaseDistribution], Any]) -> Point:
        row = table.row([pick(name, distribution) for name, distribution in distributions.items()])
        return Point(row, {i: float(points[row, i]) for i in known})

    return network


# --- many replays -------------------------------------------------------------------------------------

Work = tuple[str, Case, str, int]
"""A table's name, what is searched in it, a sampler's name and a seed."""


def worst_of(texts: Sequence[str]) -> dict[str, float]:
    """Read ``column=50``.

    Raises:
        SpecError: a text is something else.
    """
    found = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            found[name.strip()] = float(number)
        except ValueError:
            raise SpecError(f"'{text}' is no column with a value", path="worst", hint="write error=50") from None
    return found


def plan(
    folder: Path,
    samplers: Sequence[str] | None,
    seeds: Sequence[int],
    *,
    tables: Sequence[str] = (),
    objectives: Sequence[str] = (),
    worst: Mapping[str, float] | None = None,
    report: str | None = None,
) -> list[Work]:
    """Return what is to be replayed: every sampler and seed on every case.

    Args:
        folder: that holds the tables.
        samplers: by name, see ``sampler_of``; None for Optuna's and ours.
        seeds: of each sampler.
        tables: names of those that are wanted, or none for all.
        objectives: columns to minimise instead of each table's own cases.
        worst: by column the worst value that counts.
        report: with one objective, the column that is told of the best network.

    Raises:
        DataError: there is no such table or column.
        StudyError: there is no such sampler.
    """
    found, samplers = _tables(str(folder)), samplers or (*BUILT_IN, OURS)
    for name in tables:
        if name not in found:
            raise DataError(
                f"no table '{name}' in {folder}", hint=nearest(name, found) or f"there is {', '.join(found)}"
            )
    work: list[Work] = []
    for table in [found[name] for name in tables or found]:
        cases = (Case(tuple(objectives), worst or {}, report),) if objectives else table.cases
        for case in cases:
            Scores(table, case)
            for sampler in samplers:
                sampler_of(sampler, table, case, 0)
            work += [(table.name, case, sampler, seed) for sampler in samplers for seed in seeds]
    return work


def replays(folder: Path, work: Sequence[Work], trials: int, workers: int) -> Iterator[Replay]:
    """Yield the replays of (table, case, sampler, seed) as they are done, in order.

    Args:
        folder: that holds the tables.
        work: what to replay.
        trials: of each.
        workers: processes.
    """
    jobs = [(str(folder), table, case, sampler, seed, trials) for table, case, sampler, seed in work]
    pool: Any = nullcontext() if workers == 1 else ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    with pool as executor:
        yield from executor.map(_replay, jobs) if isinstance(executor, Executor) else map(_replay, jobs)


def _replay(job: tuple[str, str, Case, str, int, int]) -> Replay:
    folder, table, case, sampler, seed, trials = job
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return replay(_tables(folder)[table], case, sampler, seed, trials)


@cache
def _tables(folder: str) -> dict[str, Table]:
    return {table.name: table for table in read_tables(folder)}


@dataclass(frozen=True)
class Line:
    """What the seeds of one sampler on one case came to.

    Attributes:
        mean, spread: by budget, mean and sample standard deviation of the score.
        distinct: mean number of different networks.
        seconds: of one proposal, on average.
        n: seeds.
    """

    table: str
    case: str
    sampler: str
    mean: Mapping[int, float]
    spread: Mapping[int, float]
    distinct: float
    seconds: float
    n: int


def summary(done: Sequence[Replay]) -> list[Line]:
    """Return a line for each sampler of each case, in the order in which they come."""
    groups: dict[tuple[str, str, str], list[Replay]] = {}
    for one in done:
        groups.setdefault((one.table, one.case, one.sampler), []).append(one)
    return [_line(*names, same) for names, same in groups.items()]


def _line(table: str, case: str, sampler: str, same: Sequence[Replay]) -> Line:
    curves = np.array([one.scores for one in same])
    budgets = [b for b in BUDGETS if b <= curves.shape[1]] or [curves.shape[1]]
    spread = curves.std(axis=0, ddof=1) if len(same) > 1 else np.zeros(curves.shape[1])
    return Line(
        table,
        case,
        sampler,
        {b: float(curves[:, b - 1].mean()) for b in budgets},
        {b: float(spread[b - 1]) for b in budgets},
        float(np.mean([one.distinct for one in same])),
        float(np.mean([one.seconds / len(one.scores) for one in same])),
        len(same),
    )


def as_good_as(done: Sequence[Replay], case: str, sampler: str, others: Sequence[str]) -> tuple[int, str] | None:
    """Return after how many trials a sampler's mean is what the best of others reached in the end, and which that is.

    None where it never is, or where the case has no such replays.
    """
    curves = {
        name: np.array([one.scores for one in done if one.case == case and one.sampler == name]).mean(axis=0)
        for name in {one.sampler for one in done if one.case == case}
    }
    rivals = [name for name in others if name in curves]
    if sampler not in curves or not rivals:
        return None
    best = max(rivals, key=lambda name: curves[name][-1])
    reached = np.flatnonzero(curves[sampler] >= curves[best][-1])
    return (int(reached[0]) + 1, best) if len(reached) else None


def plain(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Return lines as plain data."""
    return [asdict(line) for line in lines]
