"""Runs as Weights & Biases keeps them: a group of runs, one of the study and one of each trial, below ``RUN/wandb``."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from archtuna.errors import ArchtunaError
from archtuna.loggers.telling import About, Ending

STUDY = "study"

SECONDS_TO_BEGIN = 20
"""How long a run may take to begin: less than a search that has ended waits for its loggers."""


class WandbSink:
    """Writes runs for Weights & Biases, whose own variables say to whom, and whether at once (``WANDB_MODE=offline``).

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        import wandb

        self._wandb, self._folder = wandb, Path(os.environ.get("WANDB_DIR") or folder)
        self._runs: dict[int | str, Any] = {}
        # Left alone, the library would ask for a key in the middle of a search's display.
        is_online = wandb.setup().settings.mode not in ("offline", "disabled", "dryrun")
        if is_online and not wandb.login(prompt=False, verify=False):
            raise ArchtunaError("nobody is logged in", hint="wandb login, or WANDB_MODE=offline")

    def open(self, about: About) -> None:
        self._about = about
        # Two processes cannot write one run: those that join a search have one of their own beside the study's.
        here = f"{socket.gethostname()}-{os.getpid()}"
        name, title = (f"{STUDY}-{here}", f"{about.name}, {here}") if about.joined else (STUDY, about.name)
        self._runs[STUDY] = self._run(name, title, about.facts)

    def _run(self, name: int | str, title: str, values: Mapping[str, Any]) -> Any:
        return self._wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "archtuna",
            group=self._about.name,
            job_type="study" if isinstance(name, str) else "trial",
            name=title,
            id=f"{self._about.identity}-{name}",
            resume="allow",
            dir=str(self._folder),
            config=dict(values),
            reinit="create_new",
            settings=self._wandb.Settings(silent=True, console="off", init_timeout=SECONDS_TO_BEGIN),
        )

    def begin(self, number: int, values: Mapping[str, Any]) -> None:
        if number not in self._runs:
            self._runs[number] = self._run(number, f"trial {number}", values)

    def curve(self, number: int | None, metrics: Mapping[str, float], step: int) -> None:
        run = self._runs.get(STUDY if number is None else number)
        if run is not None:
            run.log(dict(metrics), step=step)

    def finish(self, number: int, ending: Ending) -> None:
        run = self._runs.pop(number)
        if ending.state != "lost":
            run.summary.update(
                {**ending.metrics, "state": ending.state, **({"note": ending.note} if ending.note else {})}
            )
        run.finish(exit_code=1 if ending.state == "failed" else 0)

    def front(self, rows: Sequence[Mapping[str, Any]]) -> None:
        columns: list[Any] = list(rows[0]) if rows else ["trial"]
        table = self._wandb.Table(columns=columns, data=[[row.get(name) for name in columns] for row in rows])
        self._runs[STUDY].log({"front": table})

    def close(self, reason: str | None) -> None:
        run = self._runs.pop(STUDY, None)
        if run is not None:
            run.summary.update({"ended": reason or "failed"})
            run.finish(exit_code=1 if reason is None else 0)
