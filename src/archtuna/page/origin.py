"""What a run was made with, and the commands that make it again."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import numpy as np

from archtuna import document
from archtuna.errors import ArchtunaError
from archtuna.final import FULL
from archtuna.settings import TARGETS
from archtuna.storage import Attr

if TYPE_CHECKING:
    from archtuna.data import Data
    from archtuna.study import Study


def pictures_of(study: Study, data: Any) -> tuple[Data | None, list[str]]:
    """Return the study's pictures, or a note where they are not at hand.

    Raises:
        DataError: ``data`` names others.
    """
    try:
        return study.data(data), []
    except ArchtunaError as error:
        if data is not None:
            raise
        problem = error.message
    return None, [f"the pictures could not be opened ({problem}): archtuna report RUN --data says where they are"]


def data_of(study: Study, opened: Data | None) -> dict[str, Any]:
    """Return what the study's pictures are, and how they are split where they are at hand."""
    told = study.spec.data
    found: dict[str, Any] = {
        "source": str(told["source"]),
        "fingerprint": told["fingerprint"],
        "fraction": study.spec.fraction,
        "seed": study.spec.seed,
    }
    if opened is None:
        return found
    split = study.split(opened)
    parts = {"training": split.train, "validation": split.val, "test": split.test}
    counts = {name: np.bincount(opened.labels[i], minlength=len(opened.classes)).tolist() for name, i in parts.items()}
    return found | {
        "classes": list(opened.classes),
        "parts": counts,
        "split_seed": split.seed,
        "shares": list(split.shares),
        "channels": opened.channels,
        "native_size": list(opened.native_size),
        "broken": len(opened.broken),
    }


def commands_of(study: Study) -> dict[str, str]:
    """Return commands that people copy: to search again, and, with NUMBER and CHECKPOINT to be filled in, for a network."""
    spec, run = study.spec, shlex.quote(str(study.folder))
    words = [
        "archtuna search",
        f"{run}/search.yaml",
        "--data",
        shlex.quote(str(spec.data["source"])),
        "--out",
        f"{run}-again",
    ]
    words += ["--objectives", ",".join(spec.objectives), *(f'--limit "{text}"' for text in spec.limits)]
    orders = study.optuna.user_attrs.get(Attr.ORDERS) or {}
    given = {
        "--seed": spec.seed,
        "--epochs": spec.training.get("epochs"),
        "--fraction": spec.fraction if spec.fraction < 1 else None,
        "--input-size": "x".join(map(str, spec.input_size)) if spec.input_size else None,
        "--target": next((name for name, values in TARGETS.items() if values == dict(spec.deploy)), None),
        "--trials": orders.get("trials"),
        "--sampler": orders.get("sampler"),
        "--screen": study.optuna.user_attrs.get(Attr.SCREEN),
        "--first-rung": None if spec.schedule.off else spec.schedule.first,
    }
    words += [f"{flag} {value}" for flag, value in given.items() if value is not None]
    words += ["--no-stopping"] if spec.schedule.off else []
    longer = next((f" --epochs {FULL * int(trial.recipe['epochs'])}" for trial in study.front() if trial.recipe), "")
    commands = {
        "search": " ".join(words),
        "show": f"archtuna show {run} NUMBER",
        "train": f"archtuna train {run} NUMBER{longer} --seeds 3",
        "export": "archtuna export CHECKPOINT model.onnx",
        "predict": "archtuna predict CHECKPOINT new/*.jpg",
        "repeat": f"archtuna repeat {run} --seeds 3",
    }
    imports = "".join(f" --import {shlex.quote(module)}" for module in _modules_of(study))
    return {name: f"{command}{imports}" for name, command in commands.items()}


def _modules_of(study: Study) -> list[str]:
    """Return the modules of blocks and metrics of somebody's own, as the study's file and its record tell of them."""
    blocks = document.parse(study.spec.space["text"]).entries().get("blocks")
    modules = {*(blocks.plain().values() if blocks else ()), *(one["module"] for one in study.spec.metrics.values())}
    return sorted(modules - {"__main__"})
