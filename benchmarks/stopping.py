"""Early stopping: learning curves of real networks, and what stopping saves on them.

    python benchmarks/stopping.py record [--networks 128] [--data cifar10_5k1k.npz]

``record`` trains networks of a space of 3·10^8 in full, without stopping any, and writes what each epoch came to.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"
CURVES = RESULTS / "stopping_curves.npz"
QUALITIES = ("loss", "f1", "accuracy")
COSTS = ("params", "macs", "size_mb")
EPOCHS = 27
SPACE = f"""
input_channel: 3
input_size: 24
backbone:
  - [1, Conv, [8|12|16|24, 3, 2, null, 1, ReLU|HardSwish]]
  - any:
      - [1..2, InvertedResidualv3, [3|5, 1|2|4, 12|16|24, 0|1, 1, 1|2]]
      - [1..2, Conv, [12|16|24, 3, 1|2]]
      - [1..2, DWConv, [16|24|32, 3|5, 1|2]]
  - any:
      - [1..3, InvertedResidualv3, [3|5, 2|3|4|6, 24|32|48, 0|1, 1, 2]]
      - [1..2, Conv, [24|32|48, 3, 2]]
      - [1..2, Bottleneck, [24|32|48]]
  - [1..3, InvertedResidualv3, [3|5, 2|3|4|6, 32|48|64, 0|1, 1, 2]]
  - [1, Conv, [48|64|96|128, 1, 1]]
  - [1, GlobalAvgPool, []]
  - [1, Flatten, []]
  - [1, Linear, [10]]
training: {{epochs: {EPOCHS}, batch_size: 64|128, optimizer: adamw, lr: 0.0005..0.02 log, augment: flip}}
"""


# --- record -----------------------------------------------------------------------------------------


def spread(low: float, high: float, networks: int, seed: int) -> Iterator[tuple[Any, dict[str, float]]]:
    """Yield random networks whose MACs lie evenly, on a logarithmic scale, between two bounds, in a random order."""
    from archtuna.costs import costs_of
    from archtuna.space import SearchSpace

    space, draws = SearchSpace.read(SPACE), random.Random(seed)
    places = [(i + 0.5) / networks for i in range(networks)]
    draws.shuffle(places)
    for place in places:
        wanted = math.log(low) + place * math.log(high / low)
        while True:
            candidate = space.random(draws)
            costs = dict(costs_of(candidate.architecture))
            if abs(math.log(costs["macs"]) - wanted) < 0.05:
                yield candidate, costs
                break


def record(data: Path, networks: int, seed: int, notes: Path) -> None:
    """Train each network in full and write its curve to ``notes``, a line a network; go on where an earlier call ended."""
    import torch

    from archtuna.data import Data
    from archtuna.evaluate import TrainEvaluator
    from archtuna.objective import objectives_of

    torch.set_num_threads(1)
    pictures = Data.open(data)
    evaluator = TrainEvaluator(pictures, pictures.split(), objectives=objectives_of(QUALITIES), device="cpu")
    done = len(notes.read_text().splitlines()) if notes.exists() else 0
    for i, (candidate, costs) in enumerate(spread(1.5e5, 1.5e6, networks, seed)):
        if i < done:
            continue
        start = time.process_time()
        curve = [[p.metrics[q] for q in QUALITIES] for p in evaluator.evaluate(candidate)]
        seconds = (time.process_time() - start) / EPOCHS
        line = {"curve": curve, "costs": costs, "seconds": seconds, "decisions": dict(candidate.decisions)}
        with notes.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(f"{i + 1}/{networks}: {costs['macs']:,} MACs, {seconds:.2f} s an epoch, {curve[-1]}", flush=True)


def pack(notes: Path, out: Path) -> None:
    """Write the curves as one small file."""
    lines = [json.loads(line) for line in notes.read_text().splitlines()]
    np.savez_compressed(
        out,
        curves=np.array([line["curve"] for line in lines], dtype=np.float32),
        costs=np.array([[line["costs"][c] for c in COSTS] for line in lines]),
        seconds=np.array([line["seconds"] for line in lines], dtype=np.float32),
        decisions=np.array([json.dumps(line["decisions"]) for line in lines]),
        space=SPACE,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    add = verbs.add_parser("record")
    add.add_argument("--data", type=Path, default=Path("cifar10_5k1k.npz"))
    add.add_argument("--networks", type=int, default=128)
    add.add_argument("--seed", type=int, default=0)
    add.add_argument("--notes", type=Path, default=Path("stopping_curves.jsonl"))
    arguments = parser.parse_args()
    if arguments.verb == "record":
        record(arguments.data, arguments.networks, arguments.seed, arguments.notes)
        pack(arguments.notes, CURVES)


if __name__ == "__main__":
    main()
