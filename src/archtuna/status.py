"""How a search stands: who works on what, what was done, and how long it will go on."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from archtuna.leases import is_dead, worker_of
from archtuna.ledger import COUNTED
from archtuna.objective import objectives_of
from archtuna.panels import (
    Network,
    Worker,
    clock,
    fitted,
    front_table,
    growth_lines,
    most_workers,
    pace_left,
    worker_lines,
)  # fmt: skip
from archtuna.report import measuring_lines
from archtuna.storage import Attr, clock_of
from archtuna.terminal import USUAL, Screen, flowing, paragraph, shortened

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
        "objectives": [o.name for o in study.objectives],
        "networks": [
            {"number": t.number, "values": dict(t.values), "costs": dict(t.costs), "seconds": t.seconds} for t in front
        ],
        "growth": study.growth(),
    }


def _worker(trial: FrozenTrial, now: float) -> dict[str, Any]:
    """Return who has a trial and how far it is."""
    attrs = trial.user_attrs
    lease = attrs.get(Attr.LEASE) or {}
    silent = max(0.0, now - lease["at"]) if "at" in lease else None
    gone = is_dead(attrs.get(Attr.WORKER)) or (silent is not None and silent > lease["seconds"])
    epochs, rungs = attrs.get(Attr.RECIPE, {}).get("epochs"), attrs.get(Attr.RUNGS) or {}
    first_take = lease.get("take", 1) == 1 and trial.datetime_start is not None
    took = now - trial.datetime_start.timestamp() - (silent or 0.0) if first_take and trial.datetime_start else 0.0
    left = pace_left(took, lease.get("epoch", 0), (epochs or 0) - lease.get("epoch", 0)) if took > 0 else None
    return {
        "worker": worker_of(trial),
        "number": trial.number,
        "epoch": lease.get("epoch", 0),
        "epochs": epochs,
        "take": lease.get("take", 1),
        "silent": silent,
        "stale": gone,
        "left": None if left is None else max(0.0, left - (silent or 0.0)),
        "metrics": dict(rungs[max(rungs, key=int)]) if rungs else {},
        "costs": dict(attrs.get(Attr.COSTS, {})),
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


# --- as text -----------------------------------------------------------------------------------------


def status_lines(found: Mapping[str, Any], screen: Screen = USUAL) -> list[str]:
    """Return what ``status`` found as text, in as many lines as a screen has."""
    place = found["storage"] or found["folder"]
    above = [shortened(f"{found['name']} in {place}", screen), *flowing(_pieces(found), screen)]
    if len(found["growth"]) > 1:
        above += growth_lines(found["growth"], screen)
    else:
        above += [f"hypervolume {found['hypervolume']:.4f}"]
    for line in measuring_lines(found["measuring"]):
        above += paragraph(line, screen)
    above += ["", *_worker_lines(found["workers"], found["objectives"], screen, found["storage"] is not None), ""]
    networks = [Network(one["number"], one["values"], one["costs"], one["seconds"]) for one in found["networks"]]
    objectives = objectives_of(found["objectives"])
    return fitted(above, [], lambda rows: front_table(networks, objectives, screen, rows, found["folder"]), screen)


def summary_line(found: Mapping[str, Any]) -> str:
    """Return how a search stands in one line, for a log."""
    return ", ".join([*_pieces(found), f"front of {found['front']}", f"hypervolume {found['hypervolume']:.4f}"])


def _pieces(found: Mapping[str, Any]) -> list[str]:
    counts = [f"{count} {state}" for state, count in found["trials"].items() if count] or ["no trials yet"]
    wanted = f" of {found['wanted']} wanted" if found["wanted"] else ""
    pace = [f"{found['rate']:{'.3g' if found['rate'] < 100 else ',.0f'}} trials an hour"] if found["rate"] else []
    pace += [f"about {clock(found['left'])} left"] if found["left"] else []
    return [f"trials{wanted}: {counts[0]}", *counts[1:], *pace]


def _worker_lines(
    workers: Iterable[Mapping[str, Any]], objectives: Iterable[str], screen: Screen, shared: bool
) -> list[str]:
    every = list(workers)
    if not every:
        return ["no trial is with a worker"]
    chosen = objectives_of(list(objectives))
    quality = next(o.name for o in chosen if o.kind == "quality")
    told = any(quality in one["metrics"] for one in every)
    rows = [
        Worker(
            one["worker"] or "?", str(one["number"]), one["epoch"], one["epochs"] or 0,
            {quality: one["metrics"].get(quality)} if told else {}, one["left"], costs=one["costs"], note=_note(one),
        )
        for one in every[: most_workers(screen)]
    ]  # fmt: skip
    lines = worker_lines(rows, chosen, screen)
    lines += [f"and {len(every) - len(rows)} more workers"] if len(every) > len(rows) else []
    if any(one["stale"] for one in every):
        how = "archtuna worker" if shared else "the same archtuna search again"
        lines += paragraph(f"a stale trial goes on with the next worker that is free: {how}", screen)
    return lines


def _note(one: Mapping[str, Any]) -> str:
    """Return what is out of the ordinary with a worker: how long it has been silent, how often its trial was begun."""
    silent = f"heard of {clock(one['silent'])} ago" if one["silent"] is not None and one["stale"] else ""
    again = f"take {one['take']}" if one["take"] > 1 else ""
    return ", ".join(note for note in ("stale" if one["stale"] else "", silent, again) if note)


def watched(study: Study, seconds: float = 2.0) -> Iterator[dict[str, Any]]:
    """Yield a study's status again and again, until nothing runs or waits and all that is wanted is done."""
    while True:
        found = status(study)
        yield found
        if is_over(found):
            return
        time.sleep(seconds)


def is_over(found: Mapping[str, Any]) -> bool:
    """Return whether a search has come to its end: nothing is open, and its trials are done or its time is up."""
    trials = found["trials"]
    if trials["running"] or trials["waiting"]:
        return False
    done = trials["complete"] + trials["stopped"] + trials["failed"]
    is_reached = found["wanted"] is not None and done >= found["wanted"]
    return is_reached or found["left"] == 0.0 or (found["wanted"] is None and found["left"] is None)
