"""Runs as MLflow keeps them: one of the study, with those of the trials below it, in ``RUN/mlflow`` or on a server."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from archtuna.loggers.telling import About, Ending, front_table

LONGEST, MOST = 6_000, 100
"""Characters of a parameter's value, and parameters that are sent at once: MLflow takes no more."""

STATUS = {"complete": "FINISHED", "stopped": "FINISHED", "refused": "FINISHED", "paused": "KILLED", "failed": "FAILED"}

_NOT_IN_NAMES = re.compile(r"[^\w\-./ :]")


class MlflowSink:
    """Writes runs for MLflow, to ``MLFLOW_TRACKING_URI`` or else into a database of the run's own.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        uri, self._files = os.environ.get("MLFLOW_TRACKING_URI"), None
        if not uri:
            own = (folder / "mlflow").resolve()
            own.mkdir(parents=True, exist_ok=True)
            uri, self._files = f"sqlite:///{own / 'mlflow.db'}", (own / "artifacts").as_uri()
            os.environ.setdefault(
                "MLFLOW_DISABLE_TELEMETRY", "true"
            )  # What stays in a folder is nobody else's business.
        # A server's address may hold a password, and standard output is that of the search.
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        if logging.getLogger("mlflow").level == logging.NOTSET:
            logging.getLogger("mlflow").setLevel(logging.WARNING)
        from mlflow.tracking import MlflowClient

        logging.getLogger("mlflow").setLevel(max(logging.WARNING, logging.getLogger("mlflow").level))
        self.client = MlflowClient(tracking_uri=uri)
        self._runs: dict[int | None, str] = {}

    def open(self, about: About) -> None:
        self._about = about
        self._experiment = self._experiment_of(os.environ.get("MLFLOW_EXPERIMENT_NAME") or about.name)
        self._runs[None] = self._run(None, about.name, about.facts)

    def _experiment_of(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                return self.client.create_experiment(name, artifact_location=self._files)
            except MlflowException:
                found = self.client.get_experiment_by_name(name)  # Another process was first.
                if found is None:
                    raise
        return found.experiment_id

    def _run(self, number: int | None, name: str, values: Mapping[str, Any]) -> str:
        """Return a trial's run, or the study's, from a search before this one where there is one."""
        trial = "study" if number is None else str(number)
        wanted = f"tags.`archtuna.study` = '{self._about.identity}' and tags.`archtuna.trial` = '{trial}'"
        found = self.client.search_runs([self._experiment], wanted, order_by=["attributes.start_time"])
        if found:
            self.client.update_run(found[0].info.run_id, status="RUNNING")
            return found[0].info.run_id
        tags = {"archtuna.study": self._about.identity, "archtuna.trial": trial}
        if number is not None:
            tags["mlflow.parentRunId"] = self._runs[None]
        run = self.client.create_run(self._experiment, run_name=name, tags=tags).info.run_id
        self._parameters(run, values)
        return run

    def _parameters(self, run: str, values: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        given = [Param(_name(name), str(value)[:LONGEST]) for name, value in values.items()]
        for begin in range(0, len(given), MOST):
            self.client.log_batch(run, params=given[begin : begin + MOST])

    def begin(self, number: int, values: Mapping[str, Any]) -> None:
        if number not in self._runs:
            self._runs[number] = self._run(number, f"trial {number}", values)

    def curve(self, number: int | None, metrics: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        if metrics and number in self._runs:
            now = int(time.time() * 1000)
            points = [Metric(_name(name), float(value), now, step) for name, value in metrics.items()]
            self.client.log_batch(self._runs[number], metrics=points)

    def finish(self, number: int, ending: Ending) -> None:
        self.curve(number, ending.metrics, ending.step)
        run = self._runs.pop(number)
        if ending.state == "lost":
            return  # Whoever has the trial now says how it ends.
        self.client.set_tag(run, "archtuna.state", ending.state)
        if ending.note:
            self.client.set_tag(run, "mlflow.note.content", ending.note)
        self.client.set_terminated(run, STATUS[ending.state])

    def front(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.client.log_text(self._runs[None], front_table(rows), "front.md")
        self.client.log_dict(self._runs[None], {"front": [dict(row) for row in rows]}, "front.json")

    def close(self, reason: str | None) -> None:
        status = {None: "FAILED", "interrupted": "KILLED"}.get(reason, "FINISHED")
        if None in self._runs and not self._about.joined:
            self.client.set_terminated(self._runs[None], status)


def _name(text: str) -> str:
    """Return a name with signs that MLflow takes: ``latency_ms@pi4`` has one that it does not."""
    return _NOT_IN_NAMES.sub("_", text)[:250]
