"""What a report says of the networks of a front: their rows, and what they answer on the validation pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from archtuna.errors import ArchtunaError
from archtuna.objective import Objective
from archtuna.page.answers import answers_of
from archtuna.report import layers

if TYPE_CHECKING:
    from archtuna.data import Data
    from archtuna.study import Study, Trial

RUN = 12
"""Networks of the front that are run on the validation pictures, spread over it; the knee point and the best always are."""

TOLD = 60
"""Networks of the front whose rows are told."""


def networks_of(
    study: Study, front: Sequence[Trial], knee: int | None, opened: Data | None, device: str | None
) -> tuple[dict[str, Any], list[str]]:
    """Return what is told of networks of a front, by number as text, and notes on what could not be.

    Args:
        study: which has the trials.
        front: its networks.
        knee: number of the knee point.
        opened: the study's pictures, or None where networks are not run.
        device: where they are run; None picks one.

    Returns:
        ``rows`` (the layer table), ``input`` (channels, height, width), ``key``, and what ``answers_of`` returns of those that
        were run.
    """
    found: dict[str, Any] = {}
    notes: list[str] = []
    split = None if opened is None else study.split(opened)
    running = {trial.number for trial in spread(front, RUN, knee, study.objectives)} if opened is not None else set()
    for trial in spread(front, TOLD, knee, study.objectives):
        network = trial.architecture
        told = {"rows": layers(network), "input": [network.input_channels, *network.input_size], "key": trial.key}
        found[str(trial.number)] = told
        if opened is None or split is None or trial.number not in running or trial.checkpoint is None:
            continue
        try:
            told |= answers_of(trial.checkpoint, opened, split, device)
        except ArchtunaError as error:
            notes.append(f"trial {trial.number} could not be run on the validation pictures: {error.message}")
    if running and len(front) > len(running):
        notes.append(f"{len(running)} of {len(front)} networks of the front were run on the validation pictures")
    return found, notes


def spread(front: Sequence[Trial], most: int, knee: int | None, objectives: Sequence[Objective]) -> list[Trial]:
    """Return some networks, spread over the front: the knee point, the best by each objective, and others between them."""
    if len(front) <= most:
        return list(front)
    wanted = [t for t in front if t.number == knee]
    for objective in objectives:
        wanted.append(min(front, key=lambda t: objective.sign * t.values[objective.name]))
    wanted += [front[round(i)] for i in np.linspace(0, len(front) - 1, most)]
    chosen = list(dict.fromkeys(t.number for t in wanted))[:most]
    return [t for t in front if t.number in chosen]
