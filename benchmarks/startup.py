"""How fast the command line answers, and what reading and checking a candidate costs.

    python benchmarks/startup.py [--repeats 20] [--out FILE]

The bar for `archtuna --help` is 0.3 s. A bare Python takes turns with it, because the machine is shared.
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from archtuna.costs import costs_of
from archtuna.space import SearchSpace

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "startup.md"


def timed(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def row(name: str, seconds: list[float]) -> str:
    low, middle, high = min(seconds), statistics.median(seconds), max(seconds)
    return f"| {name} | {1000 * middle:.1f} | {1000 * low:.1f}–{1000 * high:.1f} | {len(seconds)} |"


def candidates(count: int) -> list[float]:
    """Seconds of resolving one random network and counting its parameters and MACs, once the blocks are known."""
    space = SearchSpace.read(ROOT / "examples" / "digits.yaml")
    rng, seconds = random.Random(0), []
    for _ in range(2 * count):
        start = time.perf_counter()
        costs_of(space.random(rng).architecture)
        seconds.append(time.perf_counter() - start)
    return seconds[count:]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    bare, helped = [], []
    for _ in range(arguments.repeats):
        bare.append(timed([sys.executable, "-c", "pass"]))
        helped.append(timed([sys.executable, "-m", "archtuna", "--help"]))
    lines = [
        "# Answering times",
        "",
        f"torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()} CPU, "
        f"{time.strftime('%Y-%m-%d')}. Made by `python benchmarks/startup.py`.",
        "",
        "| what | median, ms | range | n |",
        "|---|---|---|---|",
        row("a bare Python", bare),
        row("`archtuna --help`", helped),
        row("resolve and check one network of `examples/digits.yaml`, warm", candidates(2000)),
    ]
    arguments.out.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
