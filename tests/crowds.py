"""Many workers on one study, each a process, and every evaluation noted, so that a second one of the same shows."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from archtuna.claims import evaluation_of
from archtuna.costs import costs_of
from archtuna.evaluate import FunctionEvaluator
from archtuna.interrupts import Stop
from archtuna.orders import Orders
from archtuna.space import Candidate, SearchSpace
from archtuna.storage import close_storage, open_storage
from archtuna.study import Study
from archtuna.worker import Worker
from searches import instant
from studies import make_spec

CROWDED = """
input_channel: 1
input_size: 8
backbone:
  - [1, Conv, [8|16|24|32, 1|3|5, 2, null, 1, ReLU|SiLU|Hardswish]]
  - [1..2, Conv, [16|24|32|40, 1|3|5]]
  - [1, GlobalAvgPool, []]
  - [1, Flatten, []]
  - [1, Linear, [3]]
training: {epochs: 1}
"""
"""864 networks: many workers that draw 500 of them meet often."""


@dataclass(frozen=True)
class Outcome:
    """What became of a crowd's study.

    Attributes:
        evaluated: how often each network was evaluated, over all processes.
        states: how many trials ended how.
        reasons: why each process ended.
        seconds: wall time.
    """

    evaluated: Counter[str]
    states: Counter[str]
    reasons: Counter[str]
    seconds: float

    @property
    def twice(self) -> int:
        return sum(1 for times in self.evaluated.values() if times > 1)


def crowd(url: str, folder: Path, workers: int, trials: int, sampler: str = "random", text: str = CROWDED) -> Outcome:
    """Let ``workers`` processes begin at once and do ``trials`` trials together."""
    space = SearchSpace.read(text)
    for choice in ({}, {"backbone.1.repeat": 2}):
        costs_of(space.candidate(choice).architecture)  # What is imported and measured here, the processes inherit.
    spec = make_spec(
        space={"text": text, "key": space.key}, limits=(), training={}, reference={"f1": (1, 0), "params": (0, 1e5)}
    )
    notes = folder / "notes"
    notes.mkdir()
    with Study.create_or_open(folder / "run", spec, name="crowd", storage=url):
        pass
    context = multiprocessing.get_context("fork")
    start, gate = time.perf_counter(), context.Barrier(workers)
    processes = [
        context.Process(target=_work, args=(url, folder, Orders(trials=trials, index=i), sampler, gate))
        for i in range(workers)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    seconds = time.perf_counter() - start
    evaluated = Counter(line for path in notes.glob("*.txt") for line in path.read_text().split())
    reasons = Counter(path.read_text() for path in notes.glob("*.end"))
    with Study.open(folder / "run", storage=url) as study:
        states = Counter(trial.state for trial in study.trials())
    return Outcome(evaluated, states, reasons, seconds)


def _work(url: str, folder: Path, orders: Orders, sampler: str, gate: Any) -> None:
    with Study.open(folder / "run", storage=url) as study:
        note = os.open(folder / "notes" / f"{orders.index}.txt", os.O_CREAT | os.O_APPEND | os.O_WRONLY)

        def evaluate(candidate: Candidate) -> dict[str, float]:
            os.write(note, f"{evaluation_of(candidate.architecture, candidate.recipe)}\n".encode())
            return instant(candidate)

        worker = Worker(
            study, FunctionEvaluator(evaluate, study.objectives, 3), orders, lambda event: None, Stop(), sampler
        )
        gate.wait()
        (folder / "notes" / f"{orders.index}.end").write_text(worker.run())


def at_once(
    workers: int, folder: Path, url: str | None, ready: Callable[[optuna.Study, int], Callable[[], None]]
) -> None:
    """Let threads, each with the study ``photos`` opened for itself, begin at the same moment, and wait for them.

    Args:
        workers: how many there are.
        folder, url: where the study is.
        ready: given the study and the thread's number, returns what the thread is to do when all are ready.
    """
    gate = threading.Barrier(workers)

    def work(number: int) -> None:
        storage = open_storage(url, folder)
        act = ready(optuna.load_study(study_name="photos", storage=storage), number)
        gate.wait(timeout=60)
        act()
        close_storage(storage)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
