"""How far one network's latency moves from one measurement to the next, by how it is made of the rounds.

    python benchmarks/latency_repeat.py [--repeats 20] [--rounds 101] [--pause 1] [--networks micro mobilenetv3] [--out FILE]

The bar is a coefficient of variation under 3 % on an idle machine. Every measurement is a session of its own, as
`archtuna latency` makes it; all estimators are taken from the same rounds. What the machine did meanwhile is stated: how far
the reference network's quarters were apart, and how many measurements would have been believed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from archtuna import agent, latency
from archtuna.latency import QUIET, ROUND_SECONDS, ROUNDS, WARM_UP_SECONDS, exported, reference_model
from archtuna.model import build
from archtuna.space import SearchSpace
from archtuna.starter import starter

RESULTS = Path(__file__).parent / "results" / "latency_repeat.md"

Rounds = tuple[np.ndarray, np.ndarray]
ESTIMATORS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "median": lambda t, r: float(np.median(t)),
    "lower quarter": lambda t, r: float(np.quantile(t, 0.25)),
    "lower tenth": lambda t, r: float(np.quantile(t, 0.1)),
    "smallest": lambda t, r: float(t.min()),
    "median of the smallest of 3": lambda t, r: float(np.median(_blocks(t, 3).min(1))),
    "median of the smallest of 5": lambda t, r: float(np.median(_blocks(t, 5).min(1))),
    "median of ratios to the reference": lambda t, r: float(np.median(t / r)),
    "ratio of medians": lambda t, r: float(np.median(t) / np.median(r)),
    "ratio of lower quarters": lambda t, r: float(np.quantile(t, 0.25) / np.quantile(r, 0.25)),
    "ratio of the smallest": lambda t, r: float(t.min() / r.min()),
}


def _blocks(values: np.ndarray, size: int) -> np.ndarray:
    return values[: len(values) // size * size].reshape(-1, size)


def variation(values: Sequence[float]) -> float:
    return statistics.stdev(values) / statistics.mean(values)


def measured(content: bytes, repeats: int, rounds: int, pause: float) -> list[Rounds]:
    options = {
        "batch": 1, "threads": 1, "provider": "CPUExecutionProvider",
        "rounds": rounds, "warm_up": WARM_UP_SECONDS, "round_seconds": ROUND_SECONDS,
    }  # fmt: skip
    found = []
    for _ in range(repeats):
        with latency.quiet_machine():
            answer = agent.timed(options, reference_model(), content)
        found.append((np.array(answer["times"]), np.array(answer["references"])))
        time.sleep(pause)
    return found


def drift(references: np.ndarray) -> float:
    low, middle, high = np.quantile(references, [0.25, 0.5, 0.75])
    return float((high - low) / middle)


def table(name: str, found: list[Rounds], counts: Sequence[int]) -> list[str]:
    first = [(t[:ROUNDS], r[:ROUNDS]) for t, r in found]
    drifts = [drift(r) for _, r in first]
    ms = [1e3 * float(np.median(t)) for t, _ in first]
    believed = sum(one <= QUIET for one in drifts)
    lines = [
        f"**{name}**: {statistics.median(ms):.3f} ms in the median ({min(ms):.3f} to {max(ms):.3f});"
        f" the reference's quarters were {100 * statistics.median(drifts):.1f} % apart in the median"
        f" (up to {100 * max(drifts):.1f} %);"
        f" {believed} of {len(found)} would have been believed.",
        "",
        "| what is made of the rounds | " + " | ".join(f"{n} rounds" for n in counts) + " | believed ones only |",
        "|---|" + "---|" * (len(counts) + 1),
    ]
    for label, estimate in ESTIMATORS.items():
        moved = [variation([estimate(t[:n], r[:n]) for t, r in found]) for n in counts]
        quiet = [estimate(t, r) for (t, r), one in zip(first, drifts, strict=True) if one <= QUIET]
        last = f"{100 * variation(quiet):.2f} %" if len(quiet) > 2 else "-"
        lines.append(f"| {label} | " + " | ".join(f"{100 * one:.2f} %" for one in moved) + f" | {last} |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=101)
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between two measurements")
    parser.add_argument("--networks", nargs="+", default=["micro", "mobilenetv3"], help="ready spaces")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    counts = [n for n in (11, ROUNDS, 61, 101, 201) if n <= arguments.rounds]
    machine, loads = agent.describe(), " ".join(f"{one:.2f}" for one in os.getloadavg())
    lines = [
        "# One network measured again and again",
        "",
        f"{machine['processor']}, {machine['cores']} cores, {machine['runtime']}, torch {torch.__version__} for the export,"
        f" one thread, batch 1, {time.strftime('%Y-%m-%d')}; n = {arguments.repeats} measurements each, {arguments.pause:g} s"
        f" apart; load averages before them {loads}. Made by `python benchmarks/latency_repeat.py`.",
        "",
        "Coefficients of variation over the measurements; the last column is over those that would have been believed, of"
        f" {ROUNDS} rounds.",
        "",
    ]
    for name in arguments.networks:
        torch.manual_seed(0)
        content = exported(build(SearchSpace.read(starter(space=name, classes=10)).default().architecture), ".onnx")
        lines += table(name, measured(content, arguments.repeats, arguments.rounds, arguments.pause), counts)
    arguments.out.write_text("\n".join(lines).rstrip() + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
