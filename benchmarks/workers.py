"""What a second worker on a second core buys: trials a minute of a real search with one worker and with two.

    python benchmarks/workers.py [--trials 8] [--epochs 6] [--rounds 3] [--out benchmarks/results/workers.md]

The networks of a search are alike but for their learning rate, so that each costs the same. One worker has one thread, then
both; two have one each. The clock runs from the first trial that begins to the last that ends; the runs take turns.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).parent
SPACE = """
input_channel: 3
input_size: 48
backbone:
  - [1, Conv, [16, 3, 2, null, 1, HardSwish]]
  - [2, InvertedResidualv3, [3, 2, 24, 0, 0, 2]]
  - [2, InvertedResidualv3, [5, 3, 40, 1, 1, 2]]
  - [1, Conv, [96, 1, 1, null, 1, HardSwish]]
  - [1, GlobalAvgPool, []]
  - [1, Flatten, []]
  - [1, Linear, [6]]
training: {batch_size: 32, lr: 1e-3..1e-2 log}
"""
WAYS = {"one worker, one thread": (1, 1), "one worker, both threads": (1, 2), "two workers, a thread each": (2, 1)}


def pictures(folder: Path, n: int = 1_200) -> str:
    rng = np.random.default_rng(0)
    y = np.arange(n) % 6
    x = np.clip(40 * y[:, None, None, None] + rng.normal(20, 20, (n, 48, 48, 3)), 0, 255).astype(np.uint8)
    np.savez(folder / "pictures.npz", x_train=x, y_train=y)
    return str(folder / "pictures.npz")


def rate(folder: Path, data: str, workers: int, threads: int, trials: int, epochs: int) -> float:
    """Return trials a minute."""
    from archtuna import search

    times: list[float] = []

    def note(event: dict[str, Any]) -> None:
        if event["event"] in ("trial", "complete"):
            times.append(time.monotonic())

    torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    study = search(
        SPACE, data, out=folder, trials=trials, workers=workers, epochs=epochs, stopping=False, sampler="random",
        device="cpu", on_event=note,
    )  # fmt: skip
    assert study.counts()["complete"] == trials
    study.close()
    return 60.0 * trials / (times[-1] - times[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "workers.md")
    options = parser.parse_args()
    found: dict[str, list[float]] = {name: [] for name in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        data = pictures(Path(folder))
        for round_ in range(options.rounds):
            for name, (workers, threads) in WAYS.items():
                # As many for each worker, so that the end, when one has nothing left to do, weighs the same.
                trials = options.trials * workers
                run = Path(folder) / f"{round_}-{workers}-{threads}"
                found[name].append(rate(run, data, workers, threads, trials, options.epochs))
                print(f"{name}: {found[name][-1]:.2f} trials a minute", flush=True)
    base = found["one worker, one thread"]
    lines = [
        "# A second worker on a second core",
        "",
        f"Real training, {options.epochs} epochs of 1,200 pictures of 48x48 a trial, {options.trials} trials a worker; "
        f"the median of {options.rounds} rounds, and the range. torch {torch.__version__}, Python "
        f"{platform.python_version()}, {platform.machine()} CPU, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}. Made by "
        "`python benchmarks/workers.py`.",
        "",
        "| | trials a minute | against one worker with one thread |",
        "|---|---|---|",
    ]
    for name, rates in found.items():
        ratios = [a / b for a, b in zip(rates, base, strict=True)]
        lines.append(f"| {name} | {_spread(rates)} | {_spread(ratios)} |")
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


if __name__ == "__main__":
    sys.exit(main())
