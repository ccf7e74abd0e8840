"""How a search stands: who works on what, what was done, and how long it will go on."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from archtuna.errors import number
from archtuna.leases import is_dead, worker_of
from archtuna.ledger import COUNTED
from archtuna.live import clock
from archtuna.report import columns, measuring_lines
from archtuna.storage import Attr, clock_of

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from archtuna.study import Study

RECENT = 3600.0
"""Seconds over which the rate is taken."""


def status(study: Study) -> dict[str, Any]:
    """Return how a study stands, as plain data: what ``archtuna status --json`` prints."""
    study.ledger.refresh()
    ledger, now = study.ledger, clock_of(study.optuna._storage)
    orders = study.optuna.user_attrs.get(Attr.ORDERS, {})
    done = sum(ledger.counts[state] for state in ("complete", "stopped", "failed"))
    rate, deadline = _rate(ledger.trials), orders.get("deadline")
    wanted = orders.get("trials")
    by_pace = 3600.0 * max(0, wanted - done) / rate if wanted and rate else None
    by_clock = None if deadline is None else max(0.0, deadline - now)
    front = study.front()
    return {
        "name": study.name,
        "storage": study.storage_url,
        "folder": str(study.folder),
        "trials": {state: ledger.counts[state] for state in (*COUNTED, "running", "waiting")},
        "wanted": wanted,
        "rate": rate,
        "left": min((seconds for seconds in (by_pace, by_clock) if seconds is not None), default=None),
        "workers": [_worker(trial, now) for trial in ledger.opened("running")],
        "front": len(front),
        "hypervolume": study.hypervolume() if front else 0.0,
        "measuring": study.measuring(),
    }


def _worker(trial: FrozenTrial, now: float) -> dict[str, Any]:
    """Return who has a trial and how far it is."""
    lease = trial.user_attrs.get(Attr.LEASE) or {}
    silent = max(0.0, now - lease["at"]) if "at" in lease else None
    gone = is_dead(trial.user_attrs.get(Attr.WORKER)) or (silent is not None and silent > lease["seconds"])
    return {
        "worker": worker_of(trial),
        "number": trial.number,
        "epoch": lease.get("epoch", 0),
        "epochs": trial.user_attrs.get(Attr.RECIPE, {}).get("epochs"),
        "take": lease.get("take", 1),
        "silent": silent,
        "stale": gone,
    }


def _rate(trials: Iterable[FrozenTrial]) -> float | None:
    """Return how many trials end an hour, by those of the last hour in which any ended; None where fewer than two did."""
    ends = sorted(
        trial.datetime_complete.timestamp()
        for trial in trials
        if trial.datetime_complete and trial.user_attrs.get(Attr.OUTCOME) not in ("duplicate", "refused")
    )
    recent = [end for end in ends if end > ends[-1] - RECENT] if ends else []
    span = recent[-1] - recent[0] if recent else 0.0
    return 3600.0 * (len(recent) - 1) / span if span > 0 else None


def status_lines(found: dict[str, Any]) -> list[str]:
    """Return what ``status`` found, as text."""
    counts = ", ".join(f"{count} {state}" for state, count in found["trials"].items() if count) or "no trials yet"
    wanted = f" of {found['wanted']} wanted" if found["wanted"] else ""
    lines = [f"{found['name']} in {found['storage'] or found['folder']}", f"trials{wanted}: {counts}"]
    pace = [f"{number(found['rate'])} trials an hour"] if found["rate"] else []
    pace += [f"about {clock(found['left'])} left"] if found["left"] is not None else []
    lines += [", ".join(pace)] if pace else []
    lines += [f"front of {found['front']}, hypervolume {found['hypervolume']:.4f}"]
    lines += measuring_lines(found["measuring"])
    if not found["workers"]:
        return [*lines, "no trial is with a worker"]
    rows = [
        (
            str(one["number"]), one["worker"] or "?", f"{one['epoch']}/{one['epochs'] or '?'}", str(one["take"]),
            "-" if one["silent"] is None else f"{one['silent']:.0f} s", "stale" if one["stale"] else "",
        )
        for one in found["workers"]
    ]  # fmt: skip
    header = ("trial", "worker", "epoch", "take", "heard of", "")
    lines += ["", *columns(header, rows, left=("worker", ""))]
    if any(one["stale"] for one in found["workers"]):
        lines += ["", "a stale trial goes on with the next worker that is free: archtuna worker"]
    return lines


def watched(study: Study, seconds: float = 2.0) -> Iterable[list[str]]:
    """Yield the lines of a study's status again and again, until nothing runs or waits and all that is wanted is done."""
    while True:
        found = status(study)
        yield status_lines(found)
        open_ones = found["trials"]["running"] + found["trials"]["waiting"]
        if not open_ones and found["left"] in (None, 0.0):
            return
        time.sleep(seconds)
