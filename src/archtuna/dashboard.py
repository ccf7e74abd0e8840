"""Optuna's dashboard on a study, on this machine alone, with what archtuna knows: networks, weights, the front by name."""

from __future__ import annotations

import errno
import importlib.util
import json
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from archtuna.architecture import Architecture
from archtuna.card.markdown import fence, inline, table
from archtuna.errors import ArchtunaError, MissingExtraError, number
from archtuna.overlay import Described, Overlay, Shown
from archtuna.report import layers, quality, reading_lines, shape
from archtuna.study import Study, Trial

HOST, PORT = "127.0.0.1", 8080

NOTES = 500
"""Trials that get a note: the front, and then the newest. The dashboard looks through all notes for each trial."""

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


# --- what is shown -----------------------------------------------------------------------------------


def describe(study: Study, trials: Sequence[Trial]) -> Described:
    """Return what the dashboard shows of a study and its trials, beside what Optuna knows."""
    front = study.front()
    roles = _roles(study, front)
    newest = [trial.number for trial in reversed(trials) if trial.number not in roles]
    noted = {*roles, *newest[: max(0, NOTES - len(roles))]}
    shown = {t.number: _trial(study, t, roles.get(t.number), t.number in noted) for t in trials}
    return Described(_study(study, front, roles), shown)


def _roles(study: Study, front: Sequence[Trial]) -> dict[int, str]:
    """Return for each trial of the front its place there, and what it is best at."""
    if not front:
        return {}
    best: dict[int, list[str]] = {trial.number: [] for trial in front}
    best[study.knee().number].append("knee point")
    for objective in study.objectives:
        first = min(front, key=lambda trial: objective.sign * trial.values[objective.name])
        best[first.number].append(f"best {objective.name}")
    return {
        n: f"{place} of {len(front)}{': ' if names else ''}{', '.join(names)}"
        for place, (n, names) in enumerate(best.items(), 1)
    }


def _trial(study: Study, trial: Trial, role: str | None, noted: bool) -> Shown:
    attrs: dict[str, Any] = {"front": role} if role else {}
    attrs |= {"state": trial.state, **{name: value for name, value in trial.costs.items() if name not in trial.values}}
    attrs |= {"epochs": trial.epochs} if trial.epochs else {}
    attrs |= {"reason": trial.reason.splitlines()[0]} if trial.reason else {}
    files: dict[str, Any] = {}
    if trial.checkpoint is not None:
        files[f"{study.name}-{trial.number}.safetensors"] = trial.checkpoint
    if role is not None:
        files[f"{study.name}-{trial.number}.yaml"] = trial.architecture.to_yaml()
    return Shown("\n".join(_note(study, trial, role)) if noted else "", attrs, files)


def _note(study: Study, trial: Trial, role: str | None) -> Iterator[str]:
    """Yield the note of a trial, in Markdown."""
    yield f"**Trial {trial.number}: {trial.state}**" + (f", on the front ({role})" if role else "")
    if trial.reason:
        yield from ("", *fence(trial.reason, ""))
    facts = {name: quality(trial, name) for name in trial.values}
    facts |= {name: number(value) for name, value in trial.costs.items() if name not in facts}
    if trial.epochs:
        facts["kept epoch"] = f"{trial.kept} of {trial.epochs}"
    facts |= {f"{name}, validation": f"{v:.4f}" for name, v in trial.metrics.items() if name not in trial.values}
    if facts:
        yield from ("", *table(("", "value"), [(inline(name), inline(value)) for name, value in facts.items()]))
    yield from (f"- {inline(line)}" for line in reading_lines(trial.reading))
    if trial.decisions:
        yield from ("", f"Decisions: {inline(_arguments(trial.decisions))}")
    if trial._architecture is not None:
        yield from ("", f"Network `{trial.key}`", "", *_network(trial._architecture))
    run = shlex.quote(str(study.folder))
    show = f"archtuna show {run} {trial.number}"
    yield from ("", *fence(f"{show}\narchtuna train {run} {trial.number}" if role else show, "sh"))


@lru_cache(maxsize=4 * NOTES)
def _network(architecture: str) -> tuple[str, ...]:
    """Return a network's layer table; where one of its blocks is not known here, its rows as they are written."""
    network = Architecture.from_dict(json.loads(architecture))
    try:
        rows = layers(network)
    except ArchtunaError as error:
        return (f"{inline(error.message)} (`--import` names its module):", "", *fence(network.to_yaml(), "yaml"))
    header = ("idx", "module", "arguments", "n", "out", "params", "macs")
    cells = [
        (
            str(row["idx"]), inline(row["module"]), inline(_arguments(row["arguments"])), str(row["n"]),
            shape(row["out"]), f"{row['params']:,}", f"{row['macs']:,}",
        )
        for row in rows
    ]  # fmt: skip
    return tuple(table(header, cells, left=3))


def _arguments(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={v if isinstance(v, str) else json.dumps(v)}" for name, v in values.items())


def _study(study: Study, front: Sequence[Trial], roles: Mapping[int, str]) -> Shown:
    counts = ", ".join(f"{count} {state}" for state, count in study.counts().items() if count) or "no trials yet"
    names = [objective.name for objective in study.objectives]
    page = f"/dashboard/studies/{study.optuna._study_id}/trials?numbers="
    rows = [
        (f"[{t.number}]({page}{t.number})", inline(roles[t.number]), *(inline(quality(t, n)) for n in names))
        for t in front
    ]
    folder = study.folder
    run = shlex.quote(str(folder))
    note = [
        f"**{inline(study.name)}**: {counts}, hypervolume {study.hypervolume():.4f}", "",
        *(table(("trial", "on the front", *names), rows, left=2) if rows else ["no network was evaluated in full yet"]), "",
        f"Limits: {inline(', '.join(map(str, study.limits)) or 'none')}. Pictures: {inline(study.spec.data['source'])}.", "",
        *fence(f"archtuna front {run}\narchtuna pick {run}\narchtuna status {run} --watch", "sh"),
    ]  # fmt: skip
    attrs = {"objectives": ", ".join(names), "limits": ", ".join(map(str, study.limits)), "folder": str(folder)}
    return Shown("\n".join(note), attrs, {"search.yaml": study.spec.space["text"]})


# --- how it is served --------------------------------------------------------------------------------


def application(study: Study) -> Application:
    """Return the dashboard of a study as a WSGI application, which changes nothing but the notes that people write.

    Raises:
        MissingExtraError: optuna-dashboard is not installed.
    """
    if importlib.util.find_spec("optuna_dashboard") is None:
        raise MissingExtraError("optuna-dashboard", "dashboard")
    from optuna_dashboard import wsgi

    overlay = Overlay(study, describe)
    return _guarded(wsgi(overlay, artifact_store=overlay.files))


def _guarded(inner: Application) -> Application:
    """Refuse what would change the study, and pages of others that reach this machine under a name of theirs."""

    def guarded(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        host = environ.get("HTTP_HOST", HOST).rpartition(":")[0] or environ.get("HTTP_HOST", HOST)
        if host not in (HOST, "localhost"):
            return _refused(start, "this dashboard is for the machine that it runs on")
        reads = environ["REQUEST_METHOD"] in ("GET", "HEAD")
        is_note = environ["REQUEST_METHOD"] == "PUT" and environ["PATH_INFO"].rstrip("/").endswith("/note")
        if not (reads or is_note):
            return _refused(start, "archtuna's dashboard writes notes and changes nothing else of a study")
        return inner(environ, start)

    return guarded


def _refused(start: Callable[..., Any], why: str) -> Iterable[bytes]:
    start("403 Forbidden", [("Content-Type", "application/json")])
    return [f'{{"reason": "{why}"}}'.encode()]


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of each request."""


class Server(ThreadingMixIn, WSGIServer):
    """Answers on loopback, each request in a thread: browsers open connections that they do not use."""

    daemon_threads = True

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        return f"http://{HOST}:{self.server_port}/dashboard"


def server_of(study: Study, port: int | None = None) -> Server:
    """Return a server of a study's dashboard that listens already; ``serve_forever`` answers.

    Args:
        study: the study.
        port: to listen at; by default 8080, or any that is free.

    Raises:
        ArchtunaError: the port is taken.
        MissingExtraError: optuna-dashboard is not installed.
    """
    made = application(study)
    for one in (PORT, 0) if port is None else (port,):
        try:
            return make_server(HOST, one, made, server_class=Server, handler_class=_Handler)
        except OSError as error:
            problem = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror or error})"
            if port is None and one:
                continue
            break
    raise ArchtunaError(f"port {port} {problem}", hint="name another, or none: any that is free is taken")
