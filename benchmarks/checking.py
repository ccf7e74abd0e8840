"""How many candidates a minute are checked on one core: resolved, shaped, and their parameters and MACs known.

    python benchmarks/checking.py [--count 2000] [--rounds 5] [--out FILE]

These ways take turns on the same candidates of the published MobileNetV3 file, each stride-1 block repeated one to five times:
from a space that was read once (what a search does), the same with the key of the rows or that of the graph, by which a search
knows what it has evaluated, from the text of a model file each (what reading costs besides), and without memory, by building
the whole network and running it once on the meta device. The bar is 10,000 a minute.
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from archtuna.architecture import Architecture
from archtuna.costs import costs_of
from archtuna.equality import graph_key
from archtuna.model import Network
from archtuna.space import SearchSpace

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "checking.md"
sys.path.insert(0, str(ROOT / "tests"))

from spaces import ALL, CLASSIC  # noqa: E402

WAYS = ("read once", "read once, with the rows' key", "read once, with the graph's key", "each from its text", "whole")

Check = Callable[[], tuple[float, float]]


def whole(architecture: Architecture) -> tuple[float, float]:
    """Parameters and MACs of a network that is built and run as a whole, with nothing remembered."""
    model = Network(architecture).to("meta").eval()
    picture = torch.empty((1, architecture.input_channels, *architecture.input_size), device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(picture)
    return sum(p.numel() for p in model.parameters()), counter.get_total_flops() // 2


def costs(architecture: Architecture) -> tuple[float, float]:
    found = costs_of(architecture)
    return found["params"], found["macs"]


def costs_and(key: Callable[[Architecture], str], architecture: Architecture) -> tuple[float, float]:
    key(architecture)
    return costs(architecture)


def rows_key(architecture: Architecture) -> str:
    return architecture.key


def per_minute(checks: list[Check]) -> tuple[float, list[tuple[float, float]]]:
    # The process's own time: the machine is shared.
    start = time.process_time()
    found = [check() for check in checks]
    return 60 * len(checks) / (time.process_time() - start), found


def rates(text: str, count: int, rounds: int, size: int | None) -> dict[str, list[float]]:
    """Candidates a minute of each way, by round; every round has fresh candidates, and all ways must agree on them."""
    space, rng = SearchSpace.read(text, input_size=size), random.Random(0)
    for _ in range(count):
        costs_and(graph_key, space.random(rng).architecture)
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        decisions = [space.random(rng).decisions for _ in range(count)]
        networks = [space.candidate(d).architecture for d in decisions]
        texts = [network.to_yaml() for network in networks]
        few = networks[: max(3, count // 200)]
        once, first = per_minute([lambda d=d: costs(space.candidate(d).architecture) for d in decisions])
        rows, with_rows = per_minute(
            [lambda d=d: costs_and(rows_key, space.candidate(d).architecture) for d in decisions]
        )
        graphs, with_graphs = per_minute(
            [lambda d=d: costs_and(graph_key, space.candidate(d).architecture) for d in decisions]
        )
        read, second = per_minute([lambda t=t: costs(SearchSpace.read(t).default().architecture) for t in texts])
        slow, third = per_minute([lambda n=n: whole(n) for n in few])
        assert first == second == with_rows == with_graphs
        assert first[: len(few)] == third
        for name, rate in zip(found, (once, rows, graphs, read, slow), strict=True):
            found[name].append(rate)
    return found


def row(space: str, way: str, values: list[float], slow: list[float]) -> str:
    ratios = statistics.median(a / b for a, b in zip(values, slow, strict=True))
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"| {space} | {way} | {middle:,.0f} | {low:,.0f}–{high:,.0f} | {ratios:,.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        "# Checking candidates",
        "",
        f"torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()} CPU, one thread, CPU time, "
        f"{time.strftime('%Y-%m-%d')}. {arguments.rounds} rounds of {arguments.count:,} fresh random networks each. "
        "Made by `python benchmarks/checking.py`.",
        "",
        "| space | way | networks a minute, median | range | times the whole network's rate |",
        "|---|---|---|---|---|",
    ]
    spaces = {
        "published MobileNetV3, 5^11 networks, 224 px": (CLASSIC, 224),
        "graphs of nine rows": (ALL["graph"], None),
    }
    for name, (text, size) in spaces.items():
        found = rates(text, arguments.count, arguments.rounds, size)
        lines += [row(name, way, values, found["whole"]) for way, values in found.items()]
    arguments.out.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
