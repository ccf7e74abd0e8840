"""Workers that are killed, frozen and cut off while they train, and what becomes of their study."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from archtuna.checkpoint import load
from archtuna.coding import coding_of
from archtuna.driver import search
from archtuna.storage import Attr
from archtuna.study import Study
from postgres import Server
from searches import pictures

SPACE = """
input_channel: 1
input_size: 8
backbone:
  - [1, Conv, [8|12|16|24, 1|3|5, 2, null, 1, ReLU|Hardswish]]
  - [1..2, InvertedResidualv2, [16|24, 1|2|3, 1]]
  - [1, GlobalAvgPool, []]
  - [1, Flatten, []]
  - [1, Linear, [3]]
training: {epochs: EPOCHS, batch_size: 16, lr: 0.01}
"""
"""288 networks."""


@dataclass
class Outcome:
    """What became of a study.

    Attributes:
        states: how many trials ended how.
        values: of the complete ones, by number.
        front: their numbers.
        completed: how often each trial was said to be complete, by whoever said so.
        events: how many of each kind all workers told.
        broken: checkpoints that do not load.
        takes: how many times trials were taken, in the most.
        done: what was done to the workers, by kind.
        seconds: wall time.
    """

    states: Mapping[str, int]
    values: Mapping[int, Mapping[str, float]]
    front: list[int]
    completed: Counter[int]
    events: Counter[str]
    broken: list[Path]
    takes: int
    done: Counter[str]
    seconds: float


@dataclass
class Crowd:
    """Workers of one study, each a process of its own, as one would start them by hand on several machines."""

    url: str
    folder: Path
    data: str
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> None:
        note = self.folder / f"events-{len(self.processes)}.jsonl"
        command = [sys.executable, "-m", "archtuna", "worker", "--study", "storm", "--data", self.data, "--json"]
        environment = os.environ | {"ARCHTUNA_STORAGE": self.url} | dict.fromkeys(("OMP_NUM_THREADS",), "1")
        with note.open("wb") as out, note.with_suffix(".err").open("wb") as err:
            process = subprocess.Popen(
                [*command, "--out", str(self.folder / "run")], stdout=out, stderr=err, env=environment
            )
        self.processes.append(process)

    def alive(self) -> list[subprocess.Popen[bytes]]:
        return [process for process in self.processes if process.poll() is None]

    def holders(self, study: Study) -> list[subprocess.Popen[bytes]]:
        """Return the workers that have a trial and have trained an epoch of it: three deaths without one end it, rightly."""
        pids = set()
        for trial in study.ledger.opened("running"):
            lease = trial.user_attrs.get(Attr.LEASE) or {}
            if lease.get("epoch", 0) > lease.get("began", 0):
                pids.add((trial.user_attrs.get(Attr.WORKER) or {}).get("pid"))
        return [process for process in self.alive() if process.pid in pids]

    def events(self) -> Iterator[dict[str, Any]]:
        for path in self.folder.glob("events-*.jsonl"):
            for line in path.read_text(errors="replace").splitlines():
                with contextlib.suppress(ValueError):  # The last line of one that was killed.
                    yield json.loads(line)


def queued(url: str, folder: Path, trials: int, epochs: int, lease: float, pictures_: int, seed: int = 0) -> str:
    """Make a study in which the networks to be trained are queued already; return where its pictures are."""
    data = pictures(folder, pictures_)
    text = SPACE.replace("EPOCHS", str(epochs))
    with search(
        text, data, out=folder / "run", storage=url, name="storm", trials=trials, workers=0, lease=lease,
        stopping=False, near=trials,
    ) as study:  # fmt: skip
        space, draws, seen = study.space(), random.Random(seed), set()
        while len(seen) < trials:
            candidate = space.random(draws)
            if candidate.architecture.key not in seen:
                seen.add(candidate.architecture.key)
                codings = {choice.name: coding_of(choice) for choice in space.choices}
                found = candidate.decisions.items()
                study.optuna.enqueue_trial({name: codings[name].parameter(value) for name, value in found})
    return data


def storm(
    server: Server,
    folder: Path,
    *,
    workers: int,
    trials: int,
    epochs: int = 8,
    pictures_: int = 1_500,
    lease: float = 6.0,
    kills: int = 0,
    every: float = 4.0,
    restart: bool = False,
    freeze: bool = False,
    seed: int = 0,
    limit: float = 900.0,
) -> Outcome:
    """Train queued networks on workers to which things happen.

    Args:
        server: of the study.
        folder: for the run, the pictures and what workers tell.
        workers: how many there are at any time.
        trials: networks.
        epochs, pictures_: of each training.
        lease: seconds.
        kills: workers that are killed, at most, while they train.
        every: seconds between two of them.
        restart: whether the server is restarted once after the first, without letting anybody finish.
        freeze: whether a worker is frozen once after that, for longer than its lease.
        seed: of the networks and of what happens.
        limit: seconds after which this is given up.
    """
    crowd = Crowd(server.url(), folder, queued(server.url(), folder, trials, epochs, lease, pictures_, seed))
    draws, done, begun = random.Random(seed), Counter[str](), time.monotonic()
    for _ in range(workers):
        crowd.start()
    kill_at, frozen = begun + every, None
    with Study.named("storm", storage=server.url()) as study:
        while True:
            time.sleep(0.2)
            now, ended = time.monotonic(), count(study)
            assert now - begun < limit, f"{ended} of {trials} trials in {limit} s: {study.ledger.counts}"
            if ended == trials and not crowd.alive():
                break
            for _ in range(workers - len(crowd.alive()) if ended < trials else 0):
                crowd.start()
            training = [p for p in crowd.holders(study) if frozen is None or p is not frozen[0]]
            if training and now > kill_at and done["kill"] < kills:
                kill_at = now + every * draws.uniform(0.5, 1.5)
                victim = draws.choice(training)
                victim.kill()
                victim.wait()
                done["kill"] += 1
            elif training and restart and not done["restart"] and done["kill"] >= min(1, kills):
                server.stop()
                server.start()
                done["restart"] += 1
            elif training and freeze and not done["freeze"] and done["restart"] >= restart:
                frozen = draws.choice(training), now + 2.5 * lease
                frozen[0].send_signal(signal.SIGSTOP)
                done["freeze"] += 1
            if frozen and now > frozen[1]:
                frozen[0].send_signal(signal.SIGCONT)
                frozen = None
        return outcome(crowd, study, done, time.monotonic() - begun)


def count(study: Study) -> int:
    """Return how many trials have ended, or -1 while the server is away."""
    try:
        study.ledger.refresh()
    except Exception:
        return -1
    return sum(study.ledger.counts[state] for state in ("complete", "stopped", "failed"))


def outcome(crowd: Crowd, named: Study, done: Counter[str], seconds: float) -> Outcome:
    with Study.open(crowd.folder / "run", storage=crowd.url) as study:
        # A trial that was one too many gave way, which is no outcome.
        trials = [trial for trial in study.trials() if trial.state != "duplicate"]
        broken = []
        for trial in trials:
            try:
                assert trial.checkpoint is not None
                load(trial.checkpoint)
            except Exception:
                broken.append(trial.checkpoint or Path(str(trial.number)))
        told = list(crowd.events())
        return Outcome(
            states=Counter(trial.state for trial in trials),
            values={trial.number: dict(trial.values) for trial in trials},
            front=[trial.number for trial in study.front()],
            completed=Counter(event["number"] for event in told if event["event"] == "complete"),
            events=Counter(event["event"] for event in told),
            broken=broken,
            takes=max(study.ledger.trials[trial.number].user_attrs[Attr.LEASE]["take"] for trial in trials),
            done=done,
            seconds=seconds,
        )
