"""Eight workers on one PostgreSQL, killed every few seconds, frozen, their server restarted: what is lost?

    python benchmarks/chaos.py [--workers 8] [--trials 60] [--every 4] [--out benchmarks/results/chaos.md]

The same queued networks are trained twice, once in peace by two workers. Every trial has to end exactly once, with the same
result to the last bit, and every checkpoint has to load.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from postgres import running  # noqa: E402
from storms import Outcome, storm  # noqa: E402


def row(name: str, found: Outcome) -> str:
    done = ", ".join(f"{count} {kind}" for kind, count in sorted(found.done.items())) or "nothing"
    numbers = (
        found.states.get("complete", 0), sum(n for state, n in found.states.items() if state != "complete"),
        sum(1 for n in found.completed.values() if n > 1), len(found.broken), found.events["resumed"],
        found.events["taken-away"], found.events["lost"], found.takes, f"{found.seconds:.0f}",
    )  # fmt: skip
    return f"| {name} | {done} | {' | '.join(map(str, numbers))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--every", type=float, default=4.0)
    parser.add_argument("--lease", type=float, default=8.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "chaos.md")
    options = parser.parse_args()
    shared = {"trials": options.trials, "epochs": options.epochs, "seed": options.seed, "limit": 3_600.0}
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("in peace", "disturbed"):
            (Path(folder) / name).mkdir()
        with running() as server:
            found["in peace"] = storm(server, Path(folder) / "in peace", workers=2, **shared)
        with running() as server:
            found["disturbed"] = storm(
                server, Path(folder) / "disturbed", workers=options.workers, kills=10**6, every=options.every, restart=True,
                freeze=True, lease=options.lease, **shared,
            )  # fmt: skip
    calm, wild = found["in peace"], found["disturbed"]
    same = sum(calm.values[number] == wild.values.get(number) for number in calm.values)
    lines = [
        "# Workers that are killed, frozen and cut off",
        "",
        f"{options.trials} queued networks of {options.epochs} epochs on PostgreSQL; disturbed: {options.workers} workers, "
        f"one of which is killed with `kill -9` about every {options.every:g} s and replaced, the server restarted once in "
        f"immediate mode, one worker frozen for 2.5 times its lease of {options.lease:g} s. In peace: 2 workers.",
        "",
        f"torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()} CPU, {os.cpu_count()} cores, "
        f"{time.strftime('%Y-%m-%d')}. Made by `python benchmarks/chaos.py`.",
        "",
        "| run | what happened | complete | other states | said complete twice | checkpoints that do not load | gone on with "
        "elsewhere | leases run out | trials lost to others | most takes of a trial | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *(row(name, outcome) for name, outcome in found.items()),
        "",
        f"Results equal to the last bit: {same} of {len(calm.values)}. Fronts of {len(calm.front)} and {len(wild.front)} "
        f"networks, {'the same' if calm.front == wild.front else 'not the same'}.",
    ]
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
