"""What the point after each epoch costs, at which another worker could go on: share of an epoch's time, and bytes.

    python benchmarks/points.py [--epochs 8] [--out benchmarks/results/points.md]

Networks and pictures are those of ``epoch.py``. The point holds model, optimiser, schedule, average, random states and the
best weights so far; it is packed and written as a worker does it.
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

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import epoch  # noqa: E402

from archtuna import training  # noqa: E402
from archtuna.artifacts import Artifacts  # noqa: E402
from archtuna.recipe import Recipe  # noqa: E402
from archtuna.resume import pack  # noqa: E402
from archtuna.space import Candidate  # noqa: E402


def one(case: int, epochs: int, artifacts: Artifacts) -> tuple[list[float], list[float], int]:
    """Return the seconds of epochs, those of their points, and a point's bytes."""
    torch.set_num_threads(1)
    recipe = Recipe(epochs=epochs + 1, batch_size=epoch.CASES[case].batch_size, lr=0.01)
    batches, validation = epoch.CASES[case].batches(recipe)
    model = epoch.CASES[case].network()
    candidate = Candidate(model.architecture, recipe, {})
    course = training.train(model, batches, validation, recipe, classes=epoch.CLASSES, device="cpu")
    next(course)
    trained, kept, size = [], [], 0
    for _ in range(epochs):
        begun = time.perf_counter()
        done = next(course)
        ended = time.perf_counter()
        point = pack(candidate, {"training": done.state(), "weights": done.weights()})
        artifacts.keep_point(case, 1, point)
        trained.append(ended - begun)
        kept.append(time.perf_counter() - ended)
        size = len(point)
    return trained, kept, size


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "points.md")
    options = parser.parse_args()
    lines = [
        "# What a point to go on from costs",
        "",
        f"The median of {options.epochs} epochs, and the range; one thread. torch {torch.__version__}, Python "
        f"{platform.python_version()}, {platform.machine()} CPU, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}. "
        "Made by `python benchmarks/points.py`.",
        "",
        "| network | an epoch, s | its point, s | share | bytes |",
        "|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for case in range(len(epoch.CASES)):
            trained, kept, size = one(case, options.epochs, Artifacts(Path(folder)))
            share = statistics.median(kept) / statistics.median(trained)
            times = (f"{statistics.median(t):.3f} ({min(t):.3f}–{max(t):.3f})" for t in (trained, kept))
            lines.append(f"| {epoch.CASES[case].name} | {' | '.join(times)} | {share:.3f} | {size:,} |")
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
