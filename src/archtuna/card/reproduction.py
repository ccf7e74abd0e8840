"""The file and the commands that train a checkpoint's network again, and what stands against getting the same weights."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from archtuna.checkpoint import Header

FILE, RUN = "network.yaml", "reproduced"


def search_file(header: Header) -> str:
    """Return a search file that has one network: the checkpoint's, with its training values and its split.

    Where pictures went through a larger size on their way, that is the second option of ``input_size``: it is decoded to, and
    the first trial of a search is the network of first options.
    """
    conditions = conditions_of(header)
    shares = {name: header.data[name] for name in ("val", "test")}
    part = {"split_seed": header.data["seed"], "fraction": conditions["fraction"], "fit": header.preprocess["fit"]}
    search = {"trials": 1, "seed": conditions["seed"], "stopping": False}
    sections = {"training": header.recipe, "data": {**shares, **part}, "search": search}
    size = f"input_size: {_size(header.preprocess)}"
    network = re.sub(r"(?m)^input_size: .*$", size, header.architecture.to_yaml(), count=1)
    lines = [f"{name}: {_flow(values)}\n" for name, values in sections.items()]
    return "".join([network, *lines, f"objectives: [{json.dumps(conditions['kept_by'])}]\n"])


def conditions_of(header: Header) -> dict[str, Any]:
    """Return what the training depended on beside network, values and split, as recorded, or as it usually is.

    ``fraction`` and ``seed`` say on which part of the training pictures, ``kept_by`` which metric chose the epoch, and
    ``kept_from`` the module that it is from where it is somebody's own; ``device`` and ``threads`` are None where they were
    not recorded.
    """
    usual = {"fraction": 1.0, "seed": 0, "kept_by": "f1", "kept_from": None, "device": None, "threads": None}
    return {**usual, **header.data.get("training", {})}


def commands(header: Header) -> str:
    """Return the commands that train the network of ``FILE`` and measure it, for a shell."""
    conditions = conditions_of(header)
    modules = {*header.architecture.origins.values(), *([conditions["kept_from"]] if conditions["kept_from"] else [])}
    imports = [f"--import {shlex.quote(module)}" for module in sorted(modules)]
    threads = [f"OMP_NUM_THREADS={int(conditions['threads'])}"] if conditions["threads"] else []
    device = [f"--device {shlex.quote(conditions['device'])}"] if conditions["device"] else []
    where = f"--data {shlex.quote(pictures_name(header))} --out {RUN} --quiet"
    search = ["archtuna search", FILE, where, *device, *imports]
    evaluate = ["archtuna evaluate", f"{RUN}/checkpoints/0.safetensors", *imports]
    return "\n".join(" ".join(words) for words in ([*threads, *search], [*threads, *evaluate]))


def pictures_name(header: Header) -> str:
    """Return what the pictures are called: the name of their folder or file, without the path to it."""
    return Path(str(header.data.get("source") or "pictures")).name


def doubts(header: Header) -> list[str]:
    """Return what may make another training come out differently, one sentence each."""
    conditions, found = conditions_of(header), []
    if "training" not in header.data:
        found.append(
            "Which share of the training pictures was used, and which metric chose the epoch, was not recorded: "
            "all of them and the macro F1 are assumed."
        )
    if conditions["device"] is None or not str(conditions["device"]).startswith("cpu"):
        where = f"on {conditions['device']}" if conditions["device"] else "on a device that was not recorded"
        found.append(f"It was trained {where}: another training comes near these figures, and not to the same bits.")
    if header.architecture.origins:
        found.append(
            "Of the blocks that are not archtuna's own only their modules' names are known, not their versions."
        )
    if any(row.arguments.get("pretrained") is True for row in header.architecture.rows):
        found.append("It begins with weights that somebody else trained, which are loaded anew.")
    return found


def _size(preprocess: Mapping[str, Any]) -> str:
    sides = [str(side) for side in preprocess["size"]]
    if preprocess.get("via"):
        pairs = zip(preprocess["size"], preprocess["via"], strict=True)
        sides = [str(side) if side == larger else f"{side}|{larger}" for side, larger in pairs]
    return sides[0] if sides[0] == sides[1] else f"[{', '.join(sides)}]"


def _flow(values: Mapping[str, Any]) -> str:
    return "{" + ", ".join(f"{name}: {json.dumps(value)}" for name, value in values.items()) + "}"
