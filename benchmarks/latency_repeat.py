"""How far one network's latency moves from one measurement to the next.

    python benchmarks/latency_repeat.py [--repeats 20] [--pause 1] [--networks micro mobilenetv3 resnet] [--out FILE]

The bar is a coefficient of variation under 3 % on an idle machine. Every measurement is made as `archtuna latency` makes it;
right after it as many rounds again are taken as they come, to show what counting only rounds at full speed is worth.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np

from archtuna import agent, latency
from archtuna.gauge import untrained
from archtuna.latency import exported, reference_model
from archtuna.space import SearchSpace
from archtuna.starter import starter

RESULTS = Path(__file__).parent / "results" / "latency_repeat.md"


def content_of(space: str) -> bytes:
    return exported(untrained(SearchSpace.read(starter(classes=10, space=space)).default().architecture), ".onnx")


def variation(values: Sequence[float]) -> str:
    return f"{100 * statistics.stdev(values) / statistics.mean(values):.1f} %"


def as_they_come(content: bytes) -> float:
    """Return the median milliseconds of as many rounds as an attempt has."""
    options = {
        "batch": 1, "threads": 1, "provider": "CPUExecutionProvider", "rounds": latency.ROUNDS,
        "warm_up": latency.WARM_UP_SECONDS, "round_seconds": latency.ROUND_SECONDS,
    }  # fmt: skip
    with latency.quiet_machine():
        return 1e3 * float(np.median(agent.timed(options, reference_model(), content)["times"]))


def row(space: str, repeats: int, pause: float) -> str:
    content, made, plain, seconds = content_of(space), [], [], []
    for _ in range(repeats):
        begun = time.monotonic()
        made.append(latency.measure(content, patience=300))
        seconds.append(time.monotonic() - begun)
        plain.append(as_they_come(content))
        time.sleep(pause)
    ms = [one.ms for one in made]
    print(space, variation(ms), variation(plain), flush=True)
    cells = [
        space, f"{statistics.median(ms):.3f} ms ({min(ms):.3f}–{max(ms):.3f})", f"**{variation(ms)}**",
        variation([one.ratio for one in made]), variation(plain), f"{statistics.median(seconds):.1f} ({max(seconds):.1f})",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--pause", type=float, default=1.0)
    parser.add_argument("--networks", nargs="+", default=["micro", "mobilenetv3", "resnet"])
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    machine = agent.describe()
    rows = [row(space, given.repeats, given.pause) for space in given.networks]
    lines = [
        "# One network measured again and again",
        "",
        f"{machine['processor']}, {os.cpu_count()} cores, {machine['runtime']}, one thread, batch 1, {date.today()}; default "
        f"networks of the ready spaces, n = {given.repeats} measurements each, {given.pause:g} s apart; load averages before "
        f"them {load}. Made by `python benchmarks/latency_repeat.py`.",
        "",
        "| network | median (range) | coefficient of variation | of the ratio to the reference "
        "| of as many rounds as they come | seconds a measurement (most) |",
        "|---|---|---|---|---|---|",
        *rows,
    ]
    given.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
