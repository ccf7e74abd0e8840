"""What a trial costs besides training: ours against plain Optuna, by sampler, storage and trials in the study.

    python benchmarks/engine.py [--trials 100 1000 5000] [--count 20] [--storages sqlite postgresql] [--out FILE]
    python benchmarks/engine.py --twice [--workers 16] [--wanted 500] [--rounds 3] [--out FILE]

Ours is what a worker does: propose a network that is new, resolve the file, check shapes and costs, write the trial, record
four objectives, and keep the front. Plain Optuna is ``study.ask()``, 30 suggestions and ``study.tell()`` with four values;
it resolves nothing, checks nothing and knows no architecture. Both draw 30 decisions by the same sampler from studies of
the same trials, each through its own storage (plain Optuna's as it comes for the URL), and take turns, trial by trial.

With ``--twice`` many processes on one PostgreSQL server share a study of a small space, and every evaluation is noted by who
did it: how many networks were evaluated twice, and were there exactly as many evaluations as were asked for?
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.trial import FrozenTrial, create_trial

from archtuna.coding import coding_of
from archtuna.costs import costs_of
from archtuna.evaluate import FunctionEvaluator
from archtuna.interrupts import Stop
from archtuna.known_costs import flat
from archtuna.objective import objectives_of
from archtuna.orders import Orders
from archtuna.proposer import Draw, attributes_of, evaluation_of
from archtuna.sampler import OURS, make_sampler
from archtuna.space import Candidate, SearchSpace
from archtuna.spec import Spec, versions
from archtuna.storage import Attr, close_storage
from archtuna.study import Study
from archtuna.worker import Worker

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
sys.path.insert(0, str(ROOT / "tests"))

from crowds import crowd  # noqa: E402
from postgres import Server, running  # noqa: E402

OBJECTIVES = ("f1", "loss", "params", "macs")
SAMPLERS = ("random", "tpe", "nsga2", OURS)
WARM_UP = 3
ROW = "  - [1, InvertedResidualv3, [3|5|7, 2|3|4|6, {channels}, 0|1, 1, {stride}]]"
SPACE = "\n".join(
    [
        "input_size: 64",
        "backbone:",
        "  - [1, Conv, [16, 3, 2, null, 1, HardSwish]]",
        *(ROW.format(channels=16 + 8 * i, stride=2 if i in (2, 5, 8) else 1) for i in range(10)),
        "  - [1, GlobalAvgPool, []]",
        "  - [1, Flatten, []]",
        "  - [1, Linear, [6]]",
        "training: {epochs: 1}",
    ]
)
"""Ten blocks of three decisions: kernel, expansion, squeeze-and-excite."""


def values_of(decisions: Mapping[str, Any]) -> dict[str, float]:
    """Values that cost nothing to compute: qualities that rise with the costs, and differ as those of trainings do."""
    expansion = sum(v for k, v in decisions.items() if k.endswith("expansion"))
    kernel = sum(v for k, v in decisions.items() if k.endswith("kernel"))
    excited = sum(v for k, v in decisions.items() if k.endswith("se"))
    rng = random.Random(repr(sorted(decisions.items())))
    f1 = 1.0 - 1.0 / (1.0 + 0.02 * expansion + 0.01 * kernel) + rng.gauss(0.0, 0.02)
    loss = 2.0 / (1.0 + 0.01 * expansion + 0.05 * excited) + rng.gauss(0.0, 0.05)
    return {"f1": f1, "loss": loss, "params": 1e4 * expansion * kernel, "macs": 1e6 * kernel * kernel + 1e5 * expansion}


def quality(candidate: Candidate) -> dict[str, float]:
    found = values_of(candidate.decisions)
    return {"f1": found["f1"], "loss": found["loss"], "accuracy": found["f1"]}


# --- studies of some size ----------------------------------------------------------------------------


def finished(space: SearchSpace, number: int) -> list[FrozenTrial]:
    """Return complete trials of random networks, with all that ours keep."""
    rng, codings = random.Random(0), {choice.name: coding_of(choice) for choice in space.choices}
    made, seen = [], set()
    while len(made) < number:
        candidate = space.random(rng)
        evaluation = evaluation_of(candidate.architecture, candidate.recipe)
        if evaluation in seen:
            continue
        seen.add(evaluation)
        metrics, costs = quality(candidate), costs_of(candidate.architecture)
        result = {"metrics": metrics, "epochs": {"trained": 1, "kept": 1}, "seconds": 1.0}
        known = {**costs, **metrics}
        parameters = {name: codings[name].parameter(value) for name, value in candidate.decisions.items()}
        draw = Draw(candidate.decisions, parameters, candidate)
        made.append(
            create_trial(
                values=[float(known[name]) for name in OBJECTIVES],
                params=parameters,
                distributions={name: codings[name].distribution for name in parameters},
                user_attrs={**attributes_of(draw, costs), Attr.RESULT: result},
                # As a search by NSGA-II leaves them.
                system_attrs={"NSGAIISampler:generation": len(made) // 50},
            )
        )
    return made


def plain_of(trial: FrozenTrial) -> FrozenTrial:
    """Return the trial as plain Optuna would keep it: parameters and values."""
    return create_trial(
        values=trial.values, params=trial.params, distributions=trial.distributions, system_attrs=trial.system_attrs
    )


def spec_of(space: SearchSpace) -> Spec:
    reference = {"f1": (1.0, 0.0), "loss": (0.0, 2.0), "params": (0.0, 1e6), "macs": (0.0, 1e8)}
    return Spec(
        space={"text": space.text, "key": space.key},
        data={"source": "none", "fingerprint": "f" * 16, "split": {"seed": 0}, "classes": 6, "fit": "resize"},
        training={}, objectives=OBJECTIVES, limits=(), fraction=1.0, input_size=None, seed=0,
        reference=reference, versions=versions(),
    )  # fmt: skip


def fill(url: str, folder: Path, space: SearchSpace, trials: Sequence[FrozenTrial]) -> None:
    """Make both studies in one database, by the fast way for both."""
    with Study.create_or_open(folder, spec_of(space), name="ours", storage=url) as study:
        storage = study.optuna._storage
        directions = [o.direction for o in objectives_of(OBJECTIVES)]
        plain = optuna.create_study(study_name="plain", storage=storage, directions=directions)
        for trial in trials:
            storage.create_new_trial(study.optuna._study_id, trial)
            storage.create_new_trial(plain._study_id, plain_of(trial))


# --- one trial of each -------------------------------------------------------------------------------


class Ours:
    """A worker whose trials are done one at a time."""

    def __init__(self, url: str, folder: Path, sampler: str) -> None:
        self.study = Study.open(folder, storage=url)
        evaluator = FunctionEvaluator(quality, self.study.objectives, 6)
        self.worker = Worker(self.study, evaluator, Orders(), lambda event: None, Stop(), sampler)

    def trial(self) -> None:
        assert self.worker._ended() is None
        assert self.worker._next() is None

    def close(self) -> None:
        self.study.close()


class Plain:
    """Optuna as its documentation has it."""

    def __init__(self, url: str, sampler: str, space: SearchSpace) -> None:
        url = url.replace("postgresql://", "postgresql+psycopg://").replace("{", "{{").replace("}", "}}")
        self.codings = {choice.name: coding_of(choice) for choice in space.choices}
        network = flat({name: coding.distribution for name, coding in self.codings.items()}, self.costs)
        made = make_sampler(sampler, objectives=len(OBJECTIVES), seed=1, network=network)
        self.study = optuna.load_study(study_name="plain", storage=url, sampler=made)

    def costs(self, parameters: Mapping[str, Any]) -> list[float | None]:
        found = values_of({name: self.codings[name].value(value) for name, value in parameters.items()})
        return [found[name] if name in ("params", "macs") else None for name in OBJECTIVES]

    def trial(self) -> None:
        trial = self.study.ask()
        decisions = {n: c.value(trial._suggest(n, c.distribution)) for n, c in self.codings.items()}
        self.study.tell(trial, list(values_of(decisions).values()))

    def close(self) -> None:
        close_storage(self.study._storage)


def pairs(ours: Ours, plain: Plain, count: int) -> tuple[list[float], list[float]]:
    """Return the milliseconds of each trial of both, which take turns; the first few are not counted."""
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(WARM_UP + count):
        for side, times in zip((ours, plain), found, strict=True):
            start = time.perf_counter()
            side.trial()
            times.append(1e3 * (time.perf_counter() - start))
    return found[0][WARM_UP:], found[1][WARM_UP:]


# --- storages ----------------------------------------------------------------------------------------


class Sqlite:
    """Databases that are files."""

    name = "SQLite"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def url(self, name: str) -> str:
        return f"sqlite:///{self.folder / name}.db"

    def copy(self, source: str, name: str) -> None:
        shutil.copy(self.folder / f"{source}.db", self.folder / f"{name}.db")

    def drop(self, name: str) -> None:
        (self.folder / f"{name}.db").unlink()


class Postgresql:
    """Databases of a server on this machine."""

    name = "PostgreSQL"

    def __init__(self, server: Server) -> None:
        self.server = server

    def url(self, name: str) -> str:
        if name == "full":
            self._run(f'CREATE DATABASE "{name}"')
        return self.server.url(database=name)

    def copy(self, source: str, name: str) -> None:
        self._run(f'CREATE DATABASE "{name}" TEMPLATE "{source}"')

    def drop(self, name: str) -> None:
        self._run(f'DROP DATABASE "{name}" WITH (FORCE)')

    def _run(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(self.server.url(), autocommit=True) as connection:
            connection.execute(statement)


def measure(storage: Any, folder: Path, samplers: Sequence[str], sizes: Sequence[int], count: int) -> Iterator[str]:
    """Yield a line of the table for each sampler and size."""
    space = SearchSpace.read(SPACE)
    trials = finished(space, max(sizes))
    for size in sizes:
        run = folder / f"run-{size}"
        fill(storage.url("full"), run, space, trials[:size])
        for sampler in samplers:
            storage.copy("full", "copy")
            url = storage.url("copy")
            ours, plain = Ours(url, run, sampler), Plain(url, sampler, space)
            times = pairs(ours, plain, count)
            ours.close()
            plain.close()
            storage.drop("copy")
            yield line(storage.name, sampler, size, *times)
        storage.drop("full")


def line(storage: str, sampler: str, size: int, ours: Sequence[float], plain: Sequence[float]) -> str:
    ratios = [a / b for a, b in zip(ours, plain, strict=True)]
    cells = spread(ours, ".1f"), spread(plain, ".1f"), spread(ratios, ".2f"), f"{sum(ours) / sum(plain):.2f}"
    return f"| {storage} | {sampler} | {size:,} | {' | '.join(cells)} |"


def spread(values: Sequence[float], form: str) -> str:
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:{form}} ({low:{form}}–{high:{form}})"


@contextmanager
def opened(name: str, folder: Path) -> Iterator[Any]:
    if name == "sqlite":
        yield Sqlite(folder)
    else:
        with running() as server:
            yield Postgresql(server)


def cost(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield the lines of the benchmark of what a trial costs."""
    yield from (
        "# What a trial costs besides training",
        "",
        f"{machine()} {arguments.count} trials of each side by turns, after {WARM_UP} that are not counted; median "
        "(quartiles). Made by `python benchmarks/engine.py`.",
        "",
        "| storage | sampler | trials in the study | ours, ms | plain Optuna, ms | ratio | of all together |",
        "|---|---|---|---|---|---|---|",
    )
    for name in arguments.storages:
        with tempfile.TemporaryDirectory() as folder, opened(name, Path(folder)) as storage:
            yield from measure(storage, Path(folder), arguments.samplers, arguments.trials, arguments.count)


def twice(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield the lines of the benchmark of evaluating nothing twice."""
    yield from (
        "# Never twice, and exactly as many as asked for",
        "",
        f"{machine()} {arguments.workers} processes that begin at once on one PostgreSQL server, {arguments.wanted} trials of "
        "a space of 864 networks. Made by `python benchmarks/engine.py --twice`.",
        "",
        "| sampler | evaluations | networks | evaluated twice | complete | gave way | seconds | trials/s |",
        "|---|---|---|---|---|---|---|---|",
    )
    for sampler in arguments.samplers:
        for _ in range(arguments.rounds):
            with tempfile.TemporaryDirectory() as folder, running() as server:
                found = crowd(server.url(), Path(folder), arguments.workers, arguments.wanted, sampler)
            numbers = (
                sum(found.evaluated.values()), len(found.evaluated), found.twice, found.states["complete"],
                found.states["duplicate"], f"{found.seconds:.1f}", f"{arguments.wanted / found.seconds:.1f}",
            )  # fmt: skip
            yield f"| {sampler} | {' | '.join(map(str, numbers))} |"


def machine() -> str:
    return (
        f"Optuna {optuna.__version__}, SQLAlchemy {sqlalchemy.__version__}, Python {platform.python_version()}, "
        f"{platform.machine()} CPU, {os.cpu_count()} cores, load {os.getloadavg()[2]:.0f} by "
        f"other work, {time.strftime('%Y-%m-%d')}."
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 5000])
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS))
    parser.add_argument("--storages", nargs="+", default=["sqlite", "postgresql"])
    parser.add_argument("--twice", action="store_true")
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--wanted", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    out = arguments.out or RESULTS / ("twice.md" if arguments.twice else "engine.md")
    lines = []
    for found in (twice if arguments.twice else cost)(arguments):
        print(found, flush=True)
        lines.append(found)
    out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
