"""A study's storage as Optuna's dashboard is to see it: what archtuna knows is laid over it, and nothing of that is written.

The dashboard shows notes, artifacts and attributes of a storage. Here they are made from the study when they are asked for: a
running study is not written, and no other reader meets attributes that are there for the dashboard alone. What people write
themselves, the notes, goes into the study; everything else is refused.
"""

from __future__ import annotations

import io
import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Container, Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from archtuna.files import Place
from archtuna.storage import STOPPED_CONSTRAINT
from archtuna.study import Study, Trial

FRESH = 2.0
"""Seconds for which what was read of a study is shown again."""

CHUNK = 2045
"""Characters of a note that the dashboard keeps in one attribute."""

_NOTE = re.compile(r"dashboard:(\d+:)?note_(ver|str:\d+)")


class ReadOnly(Exception):
    """Somebody wanted to change a study through its overlay."""


@dataclass(frozen=True)
class Shown:
    """What is shown of a trial beside what Optuna knows.

    Attributes:
        note: in Markdown; an empty one is not shown.
        attrs: by name, in the order in which they are shown.
        files: by the name under which they are downloaded: a place, or a text.
    """

    note: str
    attrs: Mapping[str, Any]
    files: Mapping[str, Place | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Described:
    """What is shown of a study at one moment.

    Attributes:
        study: of the whole.
        trials: of each, by number.
    """

    study: Shown
    trials: Mapping[int, Shown]


Describe = Callable[[Study, Sequence[Trial]], Described]
"""Says what is shown of a study and its trials."""


class Files:
    """The files of trials, by random names: a page of somebody else in the same browser cannot guess them."""

    def __init__(self) -> None:
        self._names: dict[tuple[int | None, str], str] = {}
        self._contents: dict[str, Place | str] = {}

    def attributes(self, number: int | None, files: Mapping[str, Place | str]) -> dict[str, str]:
        """Return the attributes by which the dashboard finds files of a trial, or of the study."""
        found = {}
        for name, content in files.items():
            key = self._names.setdefault((number, name), secrets.token_hex(16))
            self._contents[key] = content
            kind = "text/plain; charset=utf-8" if isinstance(content, str) else "application/octet-stream"
            told = {"artifact_id": key, "filename": name, "mimetype": kind, "encoding": None}
            found[f"artifacts:{key}"] = json.dumps(told)
        return found

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Open a file.

        Raises:
            ArtifactNotFound: it is not there, or no more.
        """
        content = self._contents.get(artifact_id)
        if isinstance(content, str):
            return io.BytesIO(content.encode())
        try:
            if content is not None:
                return content.open("rb")
        except OSError:
            pass
        raise ArtifactNotFound(f"the file {artifact_id} is not there")

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        raise ReadOnly("files")

    def remove(self, artifact_id: str) -> None:
        raise ReadOnly("files")


@dataclass(frozen=True)
class _Read:
    """What was read last, as it is shown; attributes are the study's, those for people and those for the dashboard."""

    at: float
    trials: list[FrozenTrial]
    by_id: Mapping[int, FrozenTrial]
    user_attrs: Mapping[str, Any]
    attrs: Mapping[str, Any]
    notes: Mapping[str, Any]


class Overlay(BaseStorage):
    """One study of a storage, with what archtuna knows laid over it.

    Args:
        study: the study.
        describe: says what is shown.
    """

    def __init__(self, study: Study, describe: Describe) -> None:
        self._study, self._describe = study, describe
        self._behind, self._id = study.optuna._storage, study.optuna._study_id
        self.files = Files()
        self._lock = threading.Lock()
        self._last: _Read | None = None

    # reading

    def _read(self) -> _Read:
        with self._lock:
            if self._last is None or time.monotonic() - self._last.at > FRESH:
                self._last = self._read_now()
            return self._last

    def _read_now(self) -> _Read:
        known = self._study.trials()
        told = self._describe(self._study, known)
        trials = [
            self._laid_over(frozen, trial, told.trials[trial.number])
            for frozen, trial in zip(self._study.ledger.trials, known, strict=True)
        ]
        notes = _chunks(None, told.study.note)
        for trial in trials:
            notes |= _chunks(trial._trial_id, told.trials[trial.number].note)
        names = {"study:metric_names": [objective.name for objective in self._study.objectives]}
        attrs = {**names, **self.files.attributes(None, told.study.files)}
        by_id = {trial._trial_id: trial for trial in trials}
        return _Read(time.monotonic(), trials, by_id, told.study.attrs, attrs, notes)

    def _laid_over(self, frozen: FrozenTrial, trial: Trial, shown: Shown) -> FrozenTrial:
        """Return a trial as the dashboard is to show it, which decides by states and values what is best."""
        laid = copy(frozen)
        others = {name: value for name, value in frozen.user_attrs.items() if not name.startswith("archtuna:")}
        laid.user_attrs = {**shown.attrs, **others}
        files = self.files.attributes(trial.number, shown.files)
        # It reads only the list that older versions of Optuna kept.
        broken = [value for name, value in frozen.constraints.items() if name != STOPPED_CONSTRAINT]
        laid._system_attrs = {**frozen._system_attrs, **files, **({"constraints": broken} if broken else {})}
        if frozen.state == TrialState.COMPLETE:
            is_best = trial.state == "complete" and trial.feasible
            laid.state = TrialState.COMPLETE if is_best else TrialState.PRUNED
            laid.values = [trial.values[o.name] for o in self._study.objectives] if is_best else None
        return laid

    def get_all_studies(self) -> list[FrozenStudy]:
        return [
            FrozenStudy(
                study_name=self._study.name,
                direction=None,
                directions=self.get_study_directions(self._id),
                user_attrs=self.get_study_user_attrs(self._id),
                system_attrs=self.get_study_system_attrs(self._id),
                study_id=self._id,
            )
        ]

    def _check(self, study_id: int) -> None:
        if study_id != self._id:
            raise KeyError(f"no study {study_id}")

    def get_study_id_from_name(self, study_name: str) -> int:
        if study_name != self._study.name:
            raise KeyError(study_name)
        return self._id

    def get_study_name_from_id(self, study_id: int) -> str:
        self._check(study_id)
        return self._study.name

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        self._check(study_id)
        return [StudyDirection[objective.direction.upper()] for objective in self._study.objectives]

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        self._check(study_id)
        return dict(self._read().user_attrs)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Return attributes of the study's own, and notes of ours wherever nobody wrote one."""
        self._check(study_id)
        read, own = self._read(), self._behind.get_study_system_attrs(study_id)
        written = {_of(name) for name in own if _NOTE.fullmatch(name)}
        notes = {name: value for name, value in read.notes.items() if _of(name) not in written}
        return {**own, **read.attrs, **notes}

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return deepcopy(self._read().by_id[trial_id])

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        self._check(study_id)
        found = [t for t in self._read().trials if states is None or t.state in states]
        return [_copied(trial) for trial in found] if deepcopy else found

    # writing

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Write a note of somebody's; nothing else of a study is changed."""
        self._check(study_id)
        if not _NOTE.fullmatch(key):
            raise ReadOnly(key)
        self._behind.set_study_system_attr(study_id, key, value)

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        raise ReadOnly("studies")

    def delete_study(self, study_id: int) -> None:
        raise ReadOnly("studies")

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        raise ReadOnly(key)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        raise ReadOnly("trials")

    def set_trial_param(self, trial_id: int, param_name: str, param_value_internal: float, distribution: Any) -> None:
        raise ReadOnly(param_name)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        raise ReadOnly("trials")

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        raise ReadOnly("trials")

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        raise ReadOnly(key)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        raise ReadOnly(key)


def _copied(trial: FrozenTrial) -> FrozenTrial:
    return deepcopy(trial)


def _of(name: str) -> str:
    """Return what an attribute of a note is of: ``dashboard:`` the study, ``dashboard:17:`` a trial."""
    return name[: name.index("note_")]


def _chunks(trial_id: int | None, note: str) -> dict[str, Any]:
    """Return the attributes that are a note. Its version is 0: the first that somebody writes is 1."""
    prefix = "dashboard:" if trial_id is None else f"dashboard:{trial_id}:"
    if not note:
        return {}
    parts = [note[begin : begin + CHUNK] for begin in range(0, len(note), CHUNK)]
    return {f"{prefix}note_ver": 0, **{f"{prefix}note_str:{i}": part for i, part in enumerate(parts)}}
