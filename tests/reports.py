"""Runs whose reports are tested: small searches with made-up qualities, written within seconds."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import archtuna as at
from archtuna.errors import TrialError
from archtuna.space import Candidate
from searches import arguments, pictures, quality


def curved(candidate: Candidate) -> Iterator[dict[str, float]]:
    """Three epochs, each better than the one before."""
    for epoch in range(1, 4):
        f1 = quality(candidate) * (1.0 - 0.5**epoch)
        yield {"f1": f1, "accuracy": f1, "loss": 1.0 - f1}


def failing(candidate: Candidate) -> Iterator[dict[str, float]]:
    raise TrialError("the training loss became nan in epoch 1", reason="nan", hint="a lower lr")
    yield {}


def made(folder: Path, **changes: Any) -> at.Study:
    """Return a search of 14 networks by f1, loss, params and macs, some of which a limit refuses."""
    given = {"evaluator": curved, "trials": 14, "sampler": "random", "objectives": ["f1", "loss", "params", "macs"]}
    return at.search(**arguments(folder, **{**given, **changes}))


def many(trials: int, objectives: int = 4) -> dict[str, Any]:
    """Return the facts of a run of so many trials as ``facts_of`` would, at random, without the run."""
    from archtuna.objective import OBJECTIVES, nondominated, objectives_of, oriented
    from archtuna.page.importance import importances
    from archtuna.page.progress import progress

    draws = random.Random(0)
    names = ["f1", "params", "loss", "macs", "size_mb"][:objectives]
    found = objectives_of(names)
    told = []
    for number in range(trials):
        width, depth = draws.randint(1, 40), draws.randint(1, 9)
        f1 = 1 - 1 / (1 + width / 8 + depth) + draws.gauss(0, 0.02)
        values = {
            "f1": f1, "params": 900.0 * width * depth, "loss": 1.2 - f1, "macs": 4e4 * width * depth**1.5,
            "size_mb": 0.004 * width * depth,
        }  # fmt: skip
        state = "stopped" if number % 5 == 4 else "refused" if number % 7 == 6 else "complete"
        costs = {n: v for n, v in values.items() if OBJECTIVES[n].kind == "cost"}
        own = {n: values[n] for n in names}
        told.append(
            {
                "number": number, "state": state, "values": own if state == "complete" else {}, "costs": costs,
                "metrics": {} if state == "refused" else {"f1": f1, "loss": values["loss"], "accuracy": f1},
                "decisions": {f"backbone.{i}.{what}": draws.choice([1, 2, 3]) for i in range(8) for what in ("repeat", "kernel")}
                | {"backbone.0.width": width, "backbone.1.depth": depth, "training.augment": draws.choice(["none", "simple"])},
                "curve": {e: {"f1": f1 * (1 - 0.6**e), "loss": 1.2, "accuracy": f1} for e in range(1, 13)} if state != "refused" else {},
                "epochs": 12, "kept": 11, "planned": 12, "seconds": 20.0, "began": number * 3.0, "ended": number * 3.0 + 20,
                "runs": 1, "reason": None if state == "complete" else f"params {900 * width * depth} breaks params <= 200000",
            }
        )  # fmt: skip
    complete = [t for t in told if t["state"] == "complete"]
    points = oriented([[t["values"][n] for n in names] for t in complete], found)
    best = nondominated(points)
    for trial, is_best in zip(complete, best, strict=True):
        trial["front"] = bool(is_best)
    front = sorted((t["number"] for t in complete if t["front"]), key=lambda n: told[n]["costs"]["params"])
    ideal, worst = (
        points.min(axis=0) if len(points) else [0.0] * objectives,
        points.max(axis=0) if len(points) else [1.0] * objectives,
    )
    return {
        "format": 1, "name": "many", "made": "2026-01-01 00:00", "began": None, "version": "0", "folder": "runs/many",
        "counts": {"complete": len(complete)}, "running": 0, "limits": ["params <= 200000"],
        "objectives": [{"name": o.name, "direction": o.direction, "kind": o.kind, "meaning": o.meaning} for o in found],
        "costs": [], "trials": told, "front": front, "knee": front[len(front) // 2] if front else None, "errors": {},
        "doubtful": [], "rungs": [3, 6], "refused": [], "failed": [], "seconds": {"training, complete": 100.0}, "models": {},
        "progress": progress(points, [t["ended"] for t in complete], ideal, worst),
        "importance": importances([t["decisions"] for t in complete], {n: [t["values"][n] for t in complete] for n in names}),
        "data": {"source": "x", "fingerprint": "0", "fraction": 1.0, "seed": 0}, "versions": {},
        "commands": {name: "archtuna" for name in ("search", "show", "train", "export", "predict", "repeat")}, "notes": [],
    }  # fmt: skip


__all__ = ["curved", "failing", "made", "many", "pictures"]
