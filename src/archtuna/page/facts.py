"""All that a report says of a run, as plain data."""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from archtuna import __version__
from archtuna.errors import StudyError
from archtuna.objective import Objective, oriented
from archtuna.page.drawing import is_wide
from archtuna.page.importance import importances
from archtuna.page.networks import networks_of
from archtuna.page.origin import commands_of, data_of, pictures_of
from archtuna.page.progress import progress
from archtuna.selection import noise_marks, standard_error

if TYPE_CHECKING:
    from archtuna.study import Study, Trial

FORMAT = 1
"""Of ``report.json``; keys may be added to it, not changed."""


def facts_of(study: Study, *, data: Any = None, device: str | None = None, pictures: bool = True) -> dict[str, Any]:
    """Return all that a report says of a run, as plain data; what cannot be known now is left out, and a note says why.

    Args:
        study: of the run, which may be running.
        data: where the pictures are, should they have moved.
        device: where networks of the front are run on the validation pictures; None picks one.
        pictures: whether they are run at all, and their mistakes shown.

    Returns:
        ``format``, ``name``, ``made``, ``began``, ``version``, ``folder``, ``counts``, ``running``, ``objectives``,
        ``limits``, ``costs`` (names beside the objectives that differ on the front), ``trials``, ``front`` (numbers,
        cheapest first), ``knee``, ``errors`` (standard errors of the first quality), ``doubtful`` (leads that may be
        chance), ``progress``, ``importance``, ``rungs``, ``refused``, ``failed``, ``seconds``, ``models`` (see
        ``networks_of``), ``data``, ``versions``, ``commands`` and ``notes``.

    Raises:
        DataError: ``data`` names other pictures than the study's.
    """
    trials, front = study.trials(), study.front()
    shown = {trial.number: trial for trial in front}
    trials = [shown.get(trial.number, trial) for trial in trials]
    begun, times = _times(study)
    opened, notes = pictures_of(study, data)
    knee = study.knee().number if front else None
    networks, more = networks_of(study, front, knee, opened if pictures else None, device)
    complete = sorted(
        (t for t in trials if t.state == "complete" and t.feasible and t.number in times),
        key=lambda t: times[t.number][1],
    )
    return {
        "format": FORMAT, "name": study.name, "made": time.strftime("%Y-%m-%d %H:%M"), "version": __version__,
        "began": time.strftime("%Y-%m-%d %H:%M", time.localtime(begun)) if begun else None,
        "folder": str(study.folder),
        "counts": study.counts(),
        "running": sum(trial.state in ("running", "waiting") for trial in trials),
        "objectives": [_objective(o) for o in study.objectives],
        "limits": list(study.spec.limits),
        "costs": _common_costs(front, study.objectives),
        "trials": [_trial(t, times.get(t.number), t.number in shown) for t in trials if t.state != "duplicate"],
        "front": [trial.number for trial in front], "knee": knee,
        "errors": _errors(study, front), "doubtful": _doubtful(study, front),
        "progress": _progress(study, complete, times),
        "importance": _importance(study, complete),
        "rungs": _rungs(study, trials),
        "refused": _reasons(trials, "refused"), "failed": _reasons(trials, "failed"),
        "seconds": _seconds(study, trials),
        "models": networks,
        "data": data_of(study, opened), "versions": dict(study.spec.versions),
        "commands": commands_of(study), "notes": notes + more,
    }  # fmt: skip


def _objective(objective: Objective) -> dict[str, Any]:
    return {name: getattr(objective, name) for name in ("name", "direction", "kind", "meaning")}


def _times(study: Study) -> tuple[float | None, dict[int, tuple[float, float]]]:
    """Return when the study began, as a time stamp, and of each ended trial the seconds since then when it began and ended."""
    found = {
        trial.number: (trial.datetime_start.timestamp(), trial.datetime_complete.timestamp())
        for trial in study.ledger.trials
        if trial.datetime_start and trial.datetime_complete
    }
    begun = min((start for start, _ in found.values()), default=None)
    return begun, {n: (start - (begun or 0.0), end - (begun or 0.0)) for n, (start, end) in found.items()}


def _trial(trial: Trial, times: tuple[float, float] | None, on_front: bool) -> dict[str, Any]:
    """Return a trial; what it does not have is left out, because there may be thousands."""
    curve = {epoch: dict(at) for epoch, at in sorted(trial.curve.items())}
    told = {
        "number": trial.number, "state": trial.state, "front": on_front, "values": dict(trial.values),
        "metrics": dict(trial.metrics), "costs": dict(trial.costs), "decisions": dict(trial.decisions),
        "key": trial.key, "epochs": trial.epochs, "kept": trial.kept, "planned": trial.recipe.get("epochs"),
        "reason": trial.reason.splitlines()[0] if trial.reason else None, "seconds": trial.seconds,
        "began": times and round(times[0], 1), "ended": times and round(times[1], 1), "worker": trial.worker,
        "runs": trial.runs, "spread": trial.spread and dict(trial.spread), "curve": curve,
        "checkpoint": str(trial.checkpoint) if trial.checkpoint else None,
        "infeasible": not trial.feasible, "latencies": trial.reading and dict(trial.reading.get("latencies", {})),
        "reused": trial.reused and dict(trial.reused),
    }  # fmt: skip
    return {name: value for name, value in told.items() if value is not None and value is not False and value != {}}


def _common_costs(front: Sequence[Trial], objectives: Sequence[Objective]) -> list[str]:
    """Return the costs beside the objectives that differ among networks of the front."""
    asked = {o.name for o in objectives}
    names = [name for name in (front[0].costs if front else ()) if all(name in t.costs for t in front)]
    return [name for name in names if name not in asked and len({t.costs[name] for t in front}) > 1]


def _errors(study: Study, front: Sequence[Trial]) -> dict[str, Any]:
    """Return the standard error of the first quality of each network, as far as it is known."""
    quality = next(o for o in study.objectives if o.kind == "quality")
    found = {}
    for trial in front:
        try:
            error, source = standard_error(trial, quality.name, study.spec.data.get("validation"))
        except StudyError:
            continue
        found[str(trial.number)] = {"error": error, "source": source}
    return found


def _doubtful(study: Study, front: Sequence[Trial]) -> list[int]:
    """Return the networks whose lead over the next cheaper one may be chance."""
    quality = next(o for o in study.objectives if o.kind == "quality")
    return [t.number for t, mark in zip(front, noise_marks(front, quality), strict=True) if mark]


def _progress(study: Study, complete: Sequence[Trial], times: Mapping[int, tuple[float, float]]) -> dict[str, Any]:
    pairs = np.array([study.reference[o.name] for o in study.objectives])
    ideal, worst = oriented(pairs.T.tolist(), study.objectives)
    # A sampler learned from a trial's own value; means of runs with other seeds came afterwards.
    points = oriented([[t.own[o.name] for o in study.objectives] for t in complete], study.objectives)
    return progress(points, [times[t.number][1] for t in complete], ideal, worst)


def _importance(study: Study, complete: Sequence[Trial]) -> list[dict[str, Any]]:
    decisions = [dict(trial.decisions) for trial in complete]
    values = {o.name: [t.own[o.name] for t in complete] for o in study.objectives}
    # Of costs over orders of magnitude the largest would be all that there is to explain.
    wide = {o.name for o in study.objectives if o.kind == "cost" and is_wide(values[o.name])}
    return importances(
        decisions, {name: np.log(found).tolist() if name in wide else found for name, found in values.items()}
    )


def _rungs(study: Study, trials: Iterable[Trial]) -> list[int]:
    epochs = max((t.recipe.get("epochs", 0) for t in trials), default=0)
    return list(study.spec.schedule.rungs(epochs)) if epochs else []


def _reasons(trials: Iterable[Trial], state: str) -> list[dict[str, Any]]:
    """Return why trials ended in a state, most frequent first; reasons that differ in numbers only are one."""
    grouped: dict[str, list[Trial]] = defaultdict(list)
    for trial in trials:
        if trial.state == state:
            first = (trial.reason or "no reason was recorded").splitlines()[0]
            grouped[re.sub(r"\d[\d.,e+-]*[kMG]?", "#", first)].append(trial)
    return [
        {"example": found[0].reason or "", "count": len(found), "numbers": [t.number for t in found[:20]]}
        for found in sorted(grouped.values(), key=len, reverse=True)
    ]


def _seconds(study: Study, trials: Iterable[Trial]) -> dict[str, float]:
    """Return where the workers' time went."""
    spent: Counter[str] = Counter()
    for trial in trials:
        if trial.seconds and trial.reused is None:
            spent[f"training, {trial.state}"] += trial.seconds  # type: ignore[assignment]
        for run in trial.again:
            spent["training, other seeds"] += getattr(run, "seconds", None) or 0.0  # type: ignore[assignment]
    measuring = study.measuring()
    if measuring:
        spent["measuring"] += measuring["seconds"]
        spent["waiting for measurements"] += measuring["waited"]
    return {name: float(value) for name, value in spent.items() if value > 0}
