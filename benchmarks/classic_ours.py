"""archtuna's search on the same, with parts of it switched off; ``classic.py`` measures it.

    python benchmarks/classic_ours.py SPACE PICTURES OUT [--time 120] [--seed 0] [--off loader,workers]

The parts, and what stands in for each that is off:

- ``loader``: the cache of decoded pictures; off, ``classic_way``'s ``DataLoader`` with two workers in each of ours.
- ``layout``: ``channels_last`` where that is faster; off, torch's default.
- ``workers``: two processes of one thread each; off, one of two threads.
- ``stopping``: of hopeless trials; off, all are trained in full.
- ``sampler``: ours; off, Optuna's default for several objectives.
- ``dedup``: what was evaluated is not evaluated again; off, no network is recognised.
"""

from __future__ import annotations

import argparse
import functools
import inspect
import json
import os
import sys
import time
import uuid
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import archtuna
from archtuna import Recipe

PARTS = ("loader", "layout", "workers", "stopping", "sampler", "dedup")
OBJECTIVES = ("f1", "loss", "accuracy", "params")
"""Of both ways. The first one chooses the epoch that is kept: F1, as in the classic way."""

RUN, OFF = "CLASSIC_BENCHMARK_RUN", "CLASSIC_BENCHMARK_OFF"
"""How a worker, a process of its own, learns what is switched off in it."""


# --- switches --------------------------------------------------------------------------------------------


def arguments_of(off: Collection[str], seed: int) -> dict[str, Any]:
    """Return the arguments of ``archtuna.search`` that switch parts off.

    Raises:
        LookupError: a part cannot be switched off, because the search does not have it.
    """
    found: dict[str, Any] = {"workers": 1 if "workers" in off else 2}
    if "layout" in off:
        found["training"] = {"channels_last": "false"}
    if "stopping" in off:
        found |= stopping_off()
    if "sampler" in off:
        from optuna.samplers import TPESampler

        found["sampler"] = TPESampler(seed=seed)
    if {"loader", "dedup"} & set(off):
        found["evaluator"] = "classic_ours:evaluator"
    return found


def stopping_off() -> dict[str, Any]:
    if "stopping" not in inspect.signature(archtuna.search).parameters:
        raise LookupError("the search has no argument 'stopping'")
    return {"stopping": False}


def missing(off: Collection[str]) -> str | None:
    """Return why these parts cannot be switched off, or None where they can."""
    try:
        arguments_of(off, 0)
    except LookupError as error:
        return str(error)
    return None


# --- inside a worker -------------------------------------------------------------------------------------


class Loaded:
    """The classic loader in the place of our batches."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, number: int) -> Iterator[Any]:
        return iter(self.loader)


def __getattr__(name: str) -> Any:
    """Make ``evaluator`` when a worker asks for it: the search's own, with parts switched off."""
    if name != "evaluator":
        raise AttributeError(name)
    from archtuna import Study, worker

    off = os.environ[OFF].split(",")
    if "dedup" in off:
        recognise_nothing()
    with Study.open(os.environ[RUN]) as study:
        data = study.data()
        made = worker.evaluator_for(study, data, study.split(data), worker.Orders(), None)
    if "loader" in off:
        made._batches = functools.partial(_classic_batches, made, Path(data.source))
    return made


def recognise_nothing() -> None:
    """Let no training be known from an earlier one, in this process: what names a training is its network and its recipe."""
    Recipe.key = property(lambda _: uuid.uuid4().hex[:16])  # type: ignore[method-assign]


def _classic_batches(made: Any, pictures: Path, architecture: Any, recipe: Any, model: Any) -> tuple[Any, Any, Any]:
    from classic_way import loader

    _, preprocess = made._pictures(architecture)
    size, batch_size = architecture.input_size, recipe.batch_size
    batches = (Loaded(loader(pictures, part, size, batch_size)) for part in ("train", "val"))
    return *batches, preprocess


# --- search ----------------------------------------------------------------------------------------------


def tell(event: dict[str, Any]) -> None:
    """Print an event as a line of JSON, with the time."""
    if event["event"] not in ("epoch", "log"):
        print(json.dumps({"at": time.time(), **event}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("space", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--time", type=float, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--off", default="", help=f"parts, with commas: {', '.join(PARTS)}")
    arguments = parser.parse_args()
    off = [part for part in arguments.off.split(",") if part]
    os.environ[RUN], os.environ[OFF] = str(arguments.out), arguments.off
    archtuna.search(
        arguments.space, arguments.pictures, out=arguments.out, objectives=OBJECTIVES, time=arguments.time,
        seed=arguments.seed, on_event=tell, **arguments_of(off, arguments.seed),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
