"""Where in a network an export first differs from its model, or first fails."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from archtuna.exports.formats import Format, Source, Units, tensors
from archtuna.exports.inference import plain_copy
from archtuna.exports.proof import farthest, near


@dataclass(frozen=True)
class UnitDifference:
    """How far one copy of a block is from the model's, when all before it are exported too.

    Attributes:
        unit: its index among all copies.
        row: the index of its row.
        place: row, name, block and copy in words.
        difference: largest absolute difference of a value.
        scale: largest absolute value in the model.
    """

    unit: int
    row: int
    place: str
    difference: float
    scale: float


def compare_units(format: Format, source: Source, pictures: Tensor) -> Iterator[UnitDifference]:
    """Yield how far the output of each unit is from the model's, from an export that returns all of them.

    Args:
        format: in which the copy is written.
        source: what was exported; its ``model`` has ``layers``.
        pictures: on which the outputs are compared.

    Raises:
        Exception: whatever the format's writer or runtime raises.
    """
    wanted, places = _outputs(source, pictures), unit_places(source)
    every = tuple(range(len(wanted)))
    copy = replace(source, model=plain_copy(source.model), units=every)
    found = list(format.open(format.write(copy), copy)(pictures))
    for unit, (values, (row, place)) in enumerate(zip(wanted, places, strict=True)):
        pairs = [farthest(found.pop(0), value) for value in values]
        yield UnitDifference(unit, row, place, *max(pairs, key=_share))


def _share(pair: tuple[float, float]) -> float:
    difference, scale = pair
    return math.inf if math.isnan(difference) else difference / (scale + 1e-7)


def first_difference(format: Format, source: Source, pictures: Tensor, tolerance: float | None) -> str:
    """Return in words where an export first differs from its model on pictures."""
    if not hasattr(source.model, "layers"):
        return ""
    try:
        differences = list(compare_units(format, source, pictures))
    except Exception:  # Whatever a format's writer raises: the difference itself is told all the same.
        return "; which layer it is cannot be told, because a copy that gives every layer's output does not export"
    for unit in differences:
        if not near(unit.difference, unit.scale, tolerance):
            return f"; it first differs at {unit.place}, by {unit.difference:.2g} with values of up to {unit.scale:.2g}"
    return "; in a copy that gives every layer's output no layer differs"


def first_failing(format: Format, source: Source) -> str:
    """Return in words the first unit with which a network cannot be written, or "" where that cannot be told."""
    if not format.partial or not hasattr(source.model, "layers"):
        return ""
    places = unit_places(source)
    low, high = 0, len(places)
    while low < high:  # The network up to a unit is written or not; with one that cannot be, nor can any longer one.
        middle = (low + high) // 2
        low, high = (middle + 1, high) if _writes(format, source, middle) else (low, middle)
    return f"; it first fails at {places[low][1]}" if low < len(places) else ""


def _writes(format: Format, source: Source, unit: int) -> bool:
    part = replace(source, model=plain_copy(source.model), units=(unit,))
    try:
        format.open(format.write(part), part)(source.example)
    except Exception:
        return False
    return True


def unit_places(source: Source) -> list[tuple[int, str]]:
    """Return for each copy of a block the index of its row, and its place in words."""
    found: list[tuple[int, str]] = []
    copies: dict[int, int] = {}
    for index, row in source.architecture.units():
        copies[index] = copies.get(index, 0) + 1
        name = f"'{row.name}', " if row.name else ""
        copy = f", copy {copies[index]} of {row.repeat}" if row.repeat > 1 else ""
        found.append((index, f"row {index} ({name}{row.module}){copy}"))
    return found


def _outputs(source: Source, pictures: Tensor) -> list[list[Tensor]]:
    """Return the tensors that each unit of the model gives."""
    wires = source.architecture.wires()
    units = Units(source.model.layers, wires, (len(wires) - 1,))  # type: ignore[arg-type]
    with torch.inference_mode():
        return [tensors(output) for output in units.outputs(pictures)]
