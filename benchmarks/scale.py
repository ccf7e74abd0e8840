"""Trials per second of many workers on one PostgreSQL, ours against plain Optuna, and what one trial asks of the server.

    python benchmarks/scale.py [--workers 1 2 4 8 16] [--trials 100 1000 5000] [--seconds 15] [--out FILE]

Both do instant trials of 30 decisions and 4 objectives, drawn at random, in processes that begin at once on a study that has
so many trials already; see ``engine.py`` for what a trial is. Each side has the server for itself in turn.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from engine import SPACE as TEXT
from engine import (
    Ours,
    Plain,
    Postgresql,
    fill,
    finished,
    machine,
)
from optuna.trial import TrialState
from sqlalchemy import event

from archtuna.costs import costs_of
from archtuna.leases import Pulse, take, this_worker
from archtuna.space import SearchSpace
from archtuna.storage import engine_of
from postgres import running

RESULTS = Path(__file__).parent / "results" / "scale.md"


@contextmanager
def counting(storage: Any) -> Iterator[list[str]]:
    """Note every statement and commit that a storage sends inside."""
    engine, sent = engine_of(storage), list[str]()
    assert engine is not None

    def statement(connection: Any, cursor: Any, text: str, *rest: Any) -> None:
        sent.append(text)

    def commit(connection: Any) -> None:
        sent.append("COMMIT")

    event.listen(engine, "before_cursor_execute", statement)
    event.listen(engine, "commit", commit)
    yield sent
    event.remove(engine, "before_cursor_execute", statement)
    event.remove(engine, "commit", commit)


def per_trial(side: Ours | Plain) -> float:
    """Return how often one trial goes to the server, in the median of ten."""
    storage = side.study.optuna._storage if isinstance(side, Ours) else side.study._storage
    side.trial()
    counts = []
    for _ in range(10):
        with counting(storage) as sent:
            side.trial()
        counts.append(len(sent))
    return statistics.median(counts)


def per_beat(side: Ours) -> int:
    """Return how often the renewal of a lease, and the look at those of others that follows it, go to the server."""
    study = side.study.optuna
    study.enqueue_trial({})
    lease = take(study, study.get_trials(deepcopy=False, states=(TrialState.WAITING,)), this_worker())
    assert lease is not None
    pulse = Pulse(study)
    with pulse.holding(lease):
        pulse._renew()  # The first asks the server for its clock, too.
        with counting(study._storage) as sent:
            pulse._renew()
            pulse._look_around()
    return len(sent)


def reads(storage: Postgresql, folder: Path, running: int) -> tuple[float, float]:
    """Return the milliseconds of reading what is new, and of looking at all leases, beside so many running trials."""
    space = SearchSpace.read(TEXT)
    run = folder / f"run-running-{running}"
    trials = finished(space, 100 + running)
    fill(storage.url("full"), run, space, trials[:100])
    side = Ours(storage.server.url(database="full"), run, "random")
    for trial in trials[100:]:
        trial.state, trial.values, trial.datetime_complete = TrialState.RUNNING, None, None
        side.study.optuna._storage.create_new_trial(side.study.optuna._study_id, trial)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(12):
        for action, taken in zip((side.study.ledger.refresh, side.worker.pulse._look_around), times, strict=True):
            begun = time.perf_counter()
            action()
            taken.append(1e3 * (time.perf_counter() - begun))
    side.close()
    storage.drop("full")
    return statistics.median(times[0][2:]), statistics.median(times[1][2:])


def rate(make: Callable[[], Any], workers: int, seconds: float) -> float:
    """Return the trials a second of so many processes that work for some seconds."""
    context = multiprocessing.get_context("fork")
    gate, done = context.Barrier(workers), context.Array("i", workers)

    def work(index: int) -> None:
        side = make()
        side.trial()
        gate.wait()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            side.trial()
            done[index] += 1
        side.close()

    processes = [context.Process(target=work, args=(i,)) for i in range(workers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    return sum(done) / seconds


def rows(storage: Postgresql, folder: Path, options: argparse.Namespace) -> Iterator[str]:
    space = SearchSpace.read(TEXT)
    trials = finished(space, max(options.trials))
    costs_of(space.default().architecture)
    for size in options.trials:
        run = folder / f"run-{size}"
        fill(storage.url("full"), run, space, trials[:size])
        for workers in options.workers:
            found = {}
            for name in ("ours", "plain"):
                storage.copy("full", "copy")
                url = storage.url("copy")
                make = partial(Ours, url, run, "random") if name == "ours" else partial(Plain, url, "random", space)
                found[name] = rate(make, workers, options.seconds)
                storage.drop("copy")
            ours, plain = found["ours"], found["plain"]
            yield f"| {size:,} | {workers} | {ours:.1f} | {plain:.1f} | {ours / plain:.1f} |"
        storage.drop("full")


def trips(storage: Postgresql, folder: Path) -> str:
    space = SearchSpace.read(TEXT)
    run = folder / "run-trips"
    fill(storage.url("full"), run, space, finished(space, 100))
    url = storage.server.url(database="full")
    ours, plain = Ours(url, run, "random"), Plain(url, "random", space)
    found, beat = (per_trial(ours), per_trial(plain)), per_beat(ours)
    ours.close()
    plain.close()
    storage.drop("full")
    return (
        f"One trial goes to the server {found[0]:.0f} times with ours and {found[1]:.0f} times with plain Optuna; renewing a "
        f"lease and looking at those of others, four times in a lease's time, {beat} times."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 5000])
    parser.add_argument("--running", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    lines = [
        "# Trials per second of many workers",
        "",
        f"{machine()} Instant trials of 30 decisions and 4 objectives, random draws, PostgreSQL on the same machine, "
        f"{options.seconds:g} s of each. Made by `python benchmarks/scale.py`.",
        "",
    ]
    with tempfile.TemporaryDirectory() as folder, running() as server:
        storage = Postgresql(server)
        lines += [trips(storage, Path(folder)), ""]
        lines += ["| trials that run | reading what is new, ms | looking at all leases, ms |", "|---|---|---|"]
        for running_ones in options.running:
            new, leases = reads(storage, Path(folder), running_ones)
            lines.append(f"| {running_ones:,} | {new:.1f} | {leases:.1f} |")
            print(lines[-1], flush=True)
        lines.append("")
        lines += [
            "| trials in the study | workers | ours, a second | plain Optuna, a second | ratio |",
            "|---|---|---|---|---|",
        ]
        for line in rows(storage, Path(folder), options):
            print(line, flush=True)
            lines.append(line)
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
