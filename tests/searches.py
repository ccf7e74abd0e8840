"""Small spaces, pictures and evaluators for the tests of searches; workers import the evaluators by name."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from archtuna.errors import TrialError
from archtuna.space import Candidate

SPACE = """
input_channel: 1
input_size: 8
backbone:
  - [1, Conv, [8|16|24, 1|3|5, 2, null, 1, ReLU]]
  - any:
      - [0..2, DWConv, [16|40|56, 3|5, 1]]
      - [1..2, InvertedResidualv2, [16|32, 1|2|6, 1]]
  - [1, GlobalAvgPool, []]
  - [1, Flatten, []]
  - [1, Linear, [3]]
training: {epochs: 3, batch_size: 16, augment: none}
"""
"""225 networks, with choices that only some of them have."""

TWO = """
input_channel: 1
input_size: 8
backbone:
  - [1, Conv, [8|16, 3, 2, null, 1, ReLU]]
  - [1, GlobalAvgPool, []]
  - [1, Flatten, []]
  - [1, Linear, [3]]
training: {epochs: 3, batch_size: 16, augment: none}
"""


def pictures(folder: Path, n: int = 60) -> str:
    """Write grey 8×8 pictures of three brightnesses, and return the file's path."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % 3
    x = np.clip(60 + 60 * y[:, None, None] + rng.normal(0, 20, (n, 8, 8)), 0, 255).astype(np.uint8)
    path = folder / "pictures.npz"
    np.savez(path, x_train=x, y_train=y)
    return str(path)


def quality(candidate: Candidate) -> float:
    """A smooth function of the decisions, without noise."""
    units = [row.module for _, row in candidate.architecture.units()]
    channels = sum(v for k, v in candidate.decisions.items() if k.endswith("channels"))
    return 1.0 - 1.0 / (1.0 + channels / 20 + len(units))


def instant(candidate: Candidate) -> dict[str, float]:
    f1 = quality(candidate)
    return {"f1": f1, "accuracy": f1, "loss": 1.0 - f1}


def slow(candidate: Candidate) -> Iterator[dict[str, float]]:
    """Half a second in ten epochs, each better than the one before."""
    for epoch in range(10):
        time.sleep(0.05)
        f1 = quality(candidate) * (epoch + 1) / 10
        yield {"f1": f1, "accuracy": f1, "loss": 1.0 - f1}


def noisy(candidate: Candidate) -> dict[str, float]:
    """The smooth function with the noise of training: the same for a network and a seed, another for another."""
    noise = random.Random(f"{candidate.architecture.key}:{candidate.recipe.seed}").gauss(0.0, 0.03)
    f1 = quality(candidate) + noise
    return {"f1": f1, "accuracy": f1, "loss": 1.0 - f1}


def slowly_noisy(candidate: Candidate) -> Iterator[dict[str, float]]:
    """Notes when it begins and when it ends, in files of the folder that the environment names; half a second between.

    A process that is to meet others (``ARCHTUNA_TEST_MEET``) begins when as many are there.
    """
    folder, name = Path(os.environ["ARCHTUNA_TEST_MARK"]), f"{candidate.architecture.key}-{candidate.recipe.seed}"
    (folder / f"begun-{name}-{time.monotonic_ns()}").touch()
    (folder / f"worker-{os.getpid()}").touch()
    deadline = time.monotonic() + 60
    while (
        len(list(folder.glob("worker-*"))) < int(os.environ.get("ARCHTUNA_TEST_MEET", "1"))
        and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    for _ in range(5):
        time.sleep(0.1)
        yield noisy(candidate)
    (folder / f"ended-{name}-{time.monotonic_ns()}").touch()


def once_suicidal(candidate: Candidate) -> dict[str, float]:
    """Kills its own worker the first time that it is called in a run; the run's folder is in the environment."""
    mark = Path(os.environ["ARCHTUNA_TEST_MARK"])
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return instant(candidate)
    os.kill(os.getpid(), 9)
    raise AssertionError("unreachable")


def suicidal(candidate: Candidate) -> dict[str, float]:
    os.kill(os.getpid(), 9)
    raise AssertionError("unreachable")


def noting(candidate: Candidate) -> dict[str, float]:
    """Notes each evaluation in a file of its own, so that a second one of the same would show."""
    folder = Path(os.environ["ARCHTUNA_TEST_MARK"])
    (folder / f"{candidate.architecture.key}-{os.getpid()}-{time.monotonic_ns()}").touch()
    return instant(candidate)


def buggy(candidate: Candidate) -> dict[str, float]:
    raise KeyError("no such thing")


def diverging(candidate: Candidate) -> dict[str, float]:
    if candidate.decisions["backbone.0.kernel"] == 3:
        raise TrialError("the loss became nan in epoch 1", reason="nan")
    return instant(candidate)


def arguments(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return the arguments of a small search in a folder."""
    given = {"space": SPACE, "data": pictures(folder), "out": folder / "run", "evaluator": instant, "trials": 6}
    return {**given, **changes}


def climbing(candidate: Candidate) -> Iterator[dict[str, float]]:
    """Climbs for nine epochs; networks of the first row's kernel 1 come to half of what others do."""
    top = quality(candidate) * (0.5 if candidate.decisions["backbone.0.kernel"] == 1 else 1.0)
    for epoch in range(9):
        f1 = top * (epoch + 6) / 14
        yield {"f1": f1, "accuracy": f1, "loss": 1.0 - f1}
