"""What a search file should say, and why: proposals from what the pictures are and where the network is to run.

Plain functions on plain data. Every proposal carries its reason, which becomes a comment of the file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from archtuna.beginning.inventory import Inventory
from archtuna.errors import SpecError
from archtuna.settings import objectives_from, seconds_of
from archtuna.starter import ReadySpace, short, size_text

PLACES = {
    "computer": "this computer",
    "phone": "a phone or a small board",
    "microcontroller": "a microcontroller",
    "server": "a server with a graphics card",
}
"""Where a network may run, by the name that ``--for`` takes."""

WORDS = {"size": "params", "speed": "latency_ms", "latency": "latency_ms", "memory": "peak_memory_mb", "quality": "f1"}
"""What people say for an objective."""
AWAY = ("phone", "microcontroller")
"""Places that are not where this runs: a latency measured here would be another one."""

DEFAULT_TIME = "30m"
AS_ASKED = "as asked for"
UNEVEN = 3.0
"""From so many pictures of the largest class for one of the smallest on, classes are weighed."""
MANY = 10_000
"""Pictures from which on ConvNeXt-like networks are proposed for a server: large kernels learn late."""
FEW = 100
"""Pictures of the smallest class below which stronger augmentation is tried too."""
STEPS = 600
"""Steps that a training has at least: with fewer hardly anything is learnt, whatever the network."""
LARGE = 1.5
"""How far proportions may differ, as the ratio of the 95 % to the 5 % quantile, before pictures are padded."""


@dataclass(frozen=True)
class Wishes:
    """What somebody answered, or gave as flags; None where nothing was said.

    Attributes:
        place: one of ``PLACES``.
        objectives: names.
        time: for the whole search, such as ``30m``.
        workers: processes.
        input_size: side in pixels, or (height, width).
    """

    place: str | None = None
    objectives: tuple[str, ...] | None = None
    time: str | None = None
    workers: int | None = None
    input_size: int | tuple[int, int] | None = None


@dataclass(frozen=True)
class Proposal:
    """A value for the file, and why; the reason is empty where there is none but habit."""

    value: Any
    reason: str = ""


Advice = dict[str, Proposal]
"""Proposals by the name that they have in the file."""


def objectives_said(text: str, place: str | None = None) -> tuple[str, ...]:
    """Return the objectives that a person means; ``size`` is ``params``, ``latency`` is ``latency_ms``, and so on.

    Where the network runs elsewhere, latency becomes ``macs``: measured here it would be another.

    Raises:
        SpecError: a name is unknown or stands twice, or none is a quality.
    """
    away = {"speed": "macs", "latency": "macs"} if place in AWAY else {}
    words = [word.strip().lower() for word in text.split(",") if word.strip()]
    return objectives_from([away.get(word, WORDS.get(word, word)) for word in words])


def usual_objectives(place: str | None, space: ReadySpace | None) -> tuple[str, ...]:
    """Return the objectives for a place, or where none was named those that a space comes with."""
    if place in ("phone", "microcontroller", "server"):
        return ("f1", "params", "macs")
    return _own_line(space, "objectives", "f1, params")


def space_for(place: str | None, found: Inventory | None) -> Proposal:
    """Return the name of the ready space for a place, or None for rows that fit the pictures' size."""
    if place == "microcontroller":
        return Proposal("micro", "small maps, ReLU alone, made for int8: what microcontrollers run well")
    if place == "phone":
        return Proposal("mobilenetv3", "depthwise convolutions, made for the processors of phones and small boards")
    if place == "server":
        if found is not None and found.pictures >= MANY:
            return Proposal(
                "convnext", f"large kernels for a graphics card, and {found.pictures:,} pictures to learn them"
            )
        few = f"; under {MANY:,} pictures large kernels would learn too little"
        return Proposal("resnet", f"dense convolutions, which a graphics card is fast at{few if found else ''}")
    return Proposal(None, "rows that halve the map until it is small, cheap enough for a processor")


def advise(
    wishes: Wishes,
    found: Inventory | None,
    space: ReadySpace | None,
    training: Mapping[str, str],
    sizes: Sequence[tuple[int, int]],
    *,
    without_test: bool = False,
) -> Advice:
    """Return what the file should say.

    Args:
        wishes: what was asked for.
        found: what the pictures are; None where none were named.
        space: the ready space, or None for rows that fit.
        training: the training values that the space comes with, as texts.
        sizes: input sizes of the space as it comes.
        without_test: whether a class has too few pictures for a test part.
    """
    size = _input_size(wishes, found, space, sizes)
    advice: Advice = {
        "objectives": _objectives(wishes, found, space),
        "limits": limits_for(wishes.place, space, sizes, size.value if size else None),
        "workers": Proposal(wishes.workers or 1),
    }
    if wishes.time is not None:
        advice["time"] = Proposal(wishes.time)
    if size is not None:
        advice["input_size"] = size
    if found is None:
        return advice
    advice["fit"] = _fit(found)
    if without_test:
        advice["test"] = Proposal(
            0, "a class has too few different pictures for three parts: nothing is left to report on"
        )
    advice["batch_size"] = _batch_size(found, int(training["batch_size"]), wishes.place)
    advice["epochs"] = _epochs(found, int(training["epochs"]), advice["batch_size"].value)
    advice["augment"] = _augment(found, training["augment"])
    advice["class_weights"] = _class_weights(found)
    return advice


# --- one value each ----------------------------------------------------------------------------------


def _objectives(wishes: Wishes, found: Inventory | None, space: ReadySpace | None) -> Proposal:
    names = wishes.objectives or usual_objectives(wishes.place, space)
    uneven = found is not None and found.imbalance >= UNEVEN
    if found is not None and uneven and "accuracy" in names and "f1" not in names:
        share = max(found.classes.values()) / found.pictures
        reason = f"always answering the largest class has an accuracy of {share:.2f}; f1 counts every class alike"
    elif found is not None and uneven and "f1" in names:
        reason = f"f1 counts every class alike, and the largest has {found.imbalance:.3g} times the smallest's pictures"
    elif "f1" in names:
        reason = "f1 counts every class alike"
    else:
        reason = ""
    if wishes.place in AWAY and "macs" in names:
        reason += (
            "; macs stand in for latency until the device is named: archtuna device add pi4 …, then latency_ms@pi4"
        )
    elif "latency_ms" in names:
        reason += (
            "; latency_ms is measured on this computer, of the exported network (extra onnx), before it is trained"
        )
    return Proposal(tuple(names), reason.removeprefix("; "))


def _own_line(space: ReadySpace | None, key: str, default: str) -> tuple[str, ...]:
    """Return the list that a space's own file has under a key."""
    lines = [] if space is None else [line for line in space.text.splitlines() if line.startswith(f"{key}: [")]
    text = lines[0].partition("[")[2].partition("]")[0] if lines else default
    return tuple(part.strip() for part in text.split(","))


def limits_for(
    place: str | None, space: ReadySpace | None, sizes: Sequence[tuple[int, int]], size: str | None
) -> Proposal:
    """Return bounds for a place, or those that a space comes with.

    Args:
        place: one of ``PLACES``, or None.
        space: the ready space, or None for rows that fit.
        sizes: input sizes of the space as it comes.
        size: the input's, as the file says it; None where it says what the space says.
    """
    own = _own_line(space, "limits", "params <= 1M")
    if place == "phone":
        return Proposal(
            ("params <= 4M", "macs <= 300M"), "16 MB of weights; MobileNetV3-Large at 224 pixels has 219M macs"
        )
    if place == "microcontroller":
        reason = (
            "in int8 60 kB of flash and 128 kB of memory for activations, which peak_memory_mb counts as 32-bit floats"
        )
        return Proposal(("params <= 60k", "macs <= 5M", "peak_memory_mb <= 0.5"), reason)
    usual = math.sqrt(math.prod(max(sizes, key=math.prod)))
    side = usual if size is None else _side(size)
    if space is None or side <= usual or not any(limit.startswith("macs") for limit in own):
        return Proposal(own, "what breaks a limit is never trained")
    # The limits of a space are for its own largest input, and multiply-accumulates grow with the picture.
    grown = tuple(_grown(limit, (side / usual) ** 2) for limit in own)
    return Proposal(
        grown, f"what breaks a limit is never trained; macs are those of {usual:.0f} pixels, grown to {side:.0f}"
    )


def _side(size: str) -> float:
    """Return the side of a square with as many pixels as the largest input that a file says: ``64|96`` or ``[64, 96]``."""
    sides = [int(side) for side in re.findall(r"\d+", size)]
    return math.sqrt(math.prod(sides)) if size.startswith("[") else float(max(sides))


def _grown(limit: str, factor: float) -> str:
    name, _, bound = limit.partition(" <= ")
    units = {"k": 1e3, "M": 1e6, "G": 1e9}
    return limit if name != "macs" else f"macs <= {short(float(bound[:-1]) * units[bound[-1]] * factor)}"


def _default_side(native: tuple[int, int]) -> int:
    from archtuna.driver import default_side  # Here, because it brings Optuna.

    return default_side(native)


def _input_size(
    wishes: Wishes, found: Inventory | None, space: ReadySpace | None, sizes: Sequence[tuple[int, int]]
) -> Proposal | None:
    """Return the input's size, or None where it is the one that the space comes with."""
    if wishes.input_size is not None:
        return Proposal(size_text(wishes.input_size), AS_ASKED)
    if found is None:
        return None
    height, width = found.native
    side = _default_side(found.native)
    why = f"pictures are {height}x{width} in the median"
    if side < max(height, width):
        why += f"; more than {side} pixels costs much and gains little"
    elif side > max(height, width):
        why += f"; {side} leaves room for the strides"
    if space is None or not space.searches_size:
        return Proposal(str(side), why)
    kept = sorted({height for height, _ in sizes if height <= side}) or [max(side, space.smallest)]
    why = f"{why}; searched together with the network" if len(kept) > 1 else why
    return Proposal("|".join(map(str, kept)), why)


def _fit(found: Inventory) -> Proposal:
    low, high = found.shapes["5 %"], found.shapes["95 %"]
    if high / low >= LARGE:
        return Proposal(
            "pad", f"proportions differ (width over height {low:.2g} to {high:.2g}): stretching would distort"
        )
    return Proposal("resize", "proportions are alike: all are stretched alike")


def _batch_size(found: Inventory, usual: int, place: str | None) -> Proposal:
    if place == "server" and found.pictures >= MANY:
        return Proposal(2 * usual, "large batches keep a graphics card busy")
    trained = 0.7 * found.pictures
    fitting = 2 ** math.floor(math.log2(max(8.0, trained / 10)))
    if fitting >= usual:
        return Proposal(usual)
    return Proposal(fitting, f"ten steps an epoch or more with about {trained:,.0f} training pictures")


def _epochs(found: Inventory, usual: int, batch: int) -> Proposal:
    steps = max(1, math.ceil(0.7 * found.pictures / batch))
    needed = min(5 * usual, math.ceil(STEPS / steps))
    if needed <= usual:
        return Proposal(usual)
    return Proposal(needed, f"few pictures: an epoch is {steps} steps, and {STEPS} or so are needed to learn anything")


def _augment(found: Inventory, usual: str) -> Proposal:
    if found.channels == 1 and max(found.native) <= 32:
        return Proposal(
            "none|simple", "small and grey, perhaps characters, which mirrored are others: the search tries both"
        )
    name, fewest = found.smallest_class
    if fewest < FEW:
        reason = f"{name} has {fewest} pictures: more augmentation may help, the search tries both"
        return Proposal("simple|randaugment", reason)
    return Proposal(usual)


def _class_weights(found: Inventory) -> Proposal:
    if found.imbalance < UNEVEN:
        return Proposal("none", f"classes are even enough ({found.imbalance:.3g} to 1)")
    name, fewest = found.smallest_class
    return Proposal("balanced", f"{name} has {fewest} pictures, the largest class {found.imbalance:.3g} times as many")


def seconds_asked(text: str) -> float:
    """Return the seconds of a duration that somebody gave.

    Raises:
        SpecError: it is none, or under ten seconds.
    """
    seconds = seconds_of(text)
    if seconds is None or seconds < 10:
        raise SpecError(f"'{text}' is too short for a search", path="time", value=text, hint="write for example 30m")
    return seconds
