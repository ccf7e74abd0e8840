"""What it buys that a training on the CPU keeps the memory that a step frees, instead of giving it back to the system.

    python benchmarks/memory.py [--pairs 8] [--epochs 3] [--out benchmarks/results/memory.md]

Each run is a process of its own, by turns with and without (``archtuna.training.keep_memory``), so that whatever else the
machine does hits both. Networks and pictures are those of ``epoch.py``; the first epoch is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent


def one(case: int, keeps: bool, epochs: int) -> dict[str, float]:
    """Train in this process; return seconds and system time of an epoch, page faults of a step, and the most memory."""
    import epoch
    import torch

    from archtuna import training
    from archtuna.recipe import Recipe

    torch.set_num_threads(1)
    if not keeps:
        training._glibc = None
    recipe = Recipe(epochs=epochs + 1, batch_size=epoch.CASES[case].batch_size, lr=0.01)
    batches, validation = epoch.CASES[case].batches(recipe)
    steps, seconds, model = len(batches), [], epoch.CASES[case].network()
    course = training.train(model, batches, validation, recipe, classes=epoch.CLASSES, device="cpu")
    next(course)
    before = resource.getrusage(resource.RUSAGE_SELF)
    for _ in range(epochs):
        begun = time.perf_counter()
        next(course)
        seconds.append(time.perf_counter() - begun)
    after = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": statistics.median(seconds),
        "system": (after.ru_stime - before.ru_stime) / epochs,
        "faults": (after.ru_minflt - before.ru_minflt) / epochs / steps,
        "peak": after.ru_maxrss / 1024,
    }


def runs(case: int, pairs: int, epochs: int) -> list[tuple[dict[str, float], dict[str, float]]]:
    """Return what runs without and with came to, in pairs that take turns in which goes first."""
    found = []
    for i in range(pairs):
        order = (False, True) if i % 2 else (True, False)
        pair = {keeps: run(case, keeps, epochs) for keeps in order}
        found.append((pair[False], pair[True]))
    return found


def run(case: int, keeps: bool, epochs: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", str(case), "--epochs", str(epochs), *(["--keeps"] if keeps else [])]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout)


def line(name: str, found: list[tuple[dict[str, float], dict[str, float]]]) -> str:
    ratios = [kept["seconds"] / given["seconds"] for given, kept in found]
    low, middle, high = statistics.quantiles(ratios, n=4)

    def both(key: str, form: str) -> str:
        return " → ".join(f"{statistics.median(pair[i][key] for pair in found):{form}}" for i in (0, 1))

    return (
        f"| {name} | **{middle:.3f}** ({low:.3f}–{high:.3f}) | {both('seconds', '.3f')} | {both('system', '.3f')} "
        f"| {both('faults', ',.0f')} | {both('peak', ',.0f')} | {len(found)} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "memory.md")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--keeps", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(one(arguments.one, arguments.keeps, arguments.epochs)))
        return
    import epoch
    import torch

    lines = [
        "# Keeping memory between the steps of a training",
        "",
        "Medians over pairs of processes, without → with; the ratio with quartiles, below 1 keeping is faster. Page faults "
        "are those of one step, the peak is that of the process in MB.",
        "",
        f"torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()} CPU, glibc "
        f"{platform.libc_ver()[1]}, one thread, {time.strftime('%Y-%m-%d')}. Made by `python benchmarks/memory.py`.",
        "",
        "| network | time of an epoch, ratio | seconds | of these in the system | page faults | peak, MB | n |",
        "|---|---|---|---|---|---|---|",
    ]
    for i, case in enumerate(epoch.CASES):
        lines.append(line(case.name, runs(i, arguments.pairs, arguments.epochs)))
        print(lines[-1], flush=True)
    arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
