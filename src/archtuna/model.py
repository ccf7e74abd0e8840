"""From an ``Architecture`` to an ``nn.Module``, and what is known of it before it sees data.

Shapes, parameters and multiply-accumulates come from running each block once on torch's ``meta`` device, where tensors
have shapes and no memory. The answer for a block at an input shape is remembered, so that a network costs the sum of
its new blocks: a search asks for thousands of networks that share nearly all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import archtuna.blocks  # noqa: F401  (registers the zoo)
from archtuna.architecture import Architecture, Row
from archtuna.blocks.head import TAKES_VECTOR
from archtuna.errors import ArchtunaError, ShapeError
from archtuna.registry import BLOCKS

MAX_PARAMETERS = 2_000_000_000
MAX_ACTIVATIONS = 4_000_000_000

Shape = tuple[int, ...]


@dataclass(frozen=True)
class UnitFacts:
    """What one copy of a block is at one input shape.

    Attributes:
        input: shape of one picture's input, without the batch: ``(C, H, W)`` or ``(F,)``.
        output: likewise for its output.
        params: trainable parameters.
        macs: multiply-accumulates of convolutions and matrix products for one picture.
        state: numbers that a checkpoint stores: parameters and batch-norm statistics.
    """

    input: Shape
    output: Shape
    params: int
    macs: int
    state: int


def survey(architecture: Architecture) -> list[tuple[int, UnitFacts]]:
    """Return ``(index of the row, facts)`` for every copy of a block, in order.

    Raises:
        ShapeError: a row does not fit what comes before it; the error knows the row.
    """
    found: list[tuple[int, UnitFacts]] = []
    shape: Shape = (architecture.input_channels, *architecture.input_size)
    for index, row in architecture.units():
        facts = survey_row(row, shape, index)
        found.append((index, facts))
        shape = facts.output
    return found


def survey_row(row: Row, shape: Shape, index: int | None = None) -> UnitFacts:
    """Return the facts of one copy of a row at an input shape (without the batch).

    Raises:
        ShapeError: the block does not fit the shape.
    """
    outcome = _survey_unit(row.module, tuple(row.arguments.items()), shape)
    if isinstance(outcome, UnitFacts):
        return outcome
    message, hint = outcome
    where = "" if index is None else f"row {index} "
    raise ShapeError(f"{where}{Row(row.module, row.arguments)}: {message}", row=index, hint=hint)


@lru_cache(maxsize=65_536)
def _survey_unit(
    module: str, arguments: tuple[tuple[str, Any], ...], shape: Shape
) -> UnitFacts | tuple[str, str | None]:
    """Return the facts, or the problem and its hint: a failure is remembered like a success."""
    try:
        unit = make_unit(module, dict(arguments), shape[0], device="meta").eval()
        params = sum(p.numel() for p in unit.parameters() if p.requires_grad)
        if params > MAX_PARAMETERS:
            return f"{params:,} parameters in one block", "channels or kernel are too large"
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            output = unit(torch.empty((1, *shape), device="meta"))
    except (RuntimeError, ValueError, IndexError, TypeError, NotImplementedError) as error:
        if isinstance(error, ArchtunaError):
            raise
        return _explain(str(error), shape)
    problem = _vanished(output, shape)
    if problem:
        return problem
    state = sum(t.numel() for t in unit.state_dict().values() if t.is_floating_point())
    return UnitFacts(shape, tuple(output.shape[1:]), params, counter.get_total_flops() // 2, state)


def _vanished(output: object, shape: Shape) -> tuple[str, str | None] | None:
    if not isinstance(output, Tensor):
        return f"gives {type(output).__name__}, not a tensor", None
    if output.numel() == 0:
        return _TOO_SMALL.format(_size(shape)), _TOO_SMALL_HINT
    if output.numel() > MAX_ACTIVATIONS:
        return f"an output of {output.numel():,} values for one picture", "a smaller input_size or fewer channels"
    return None


_TOO_SMALL = "a map of {} is too small: nothing would be left of it"
_TOO_SMALL_HINT = "fewer rows with a stride, or a larger input_size"


def _explain(problem: str, shape: Shape) -> tuple[str, str | None]:
    """Turn torch's words for a shape that does not fit into ours."""
    first = problem.strip().splitlines()[0] if problem.strip() else "does not fit"
    if re.search(r"[Kk]ernel size can't be greater|[Oo]utput size is too small|too small", first):
        return _TOO_SMALL.format(_size(shape)), _TOO_SMALL_HINT
    if "must be divisible by groups" in first:
        return f"{shape[0]} input channels and the output channels must be divisible by groups", None
    if re.search(r"size of tensor a|must match|broadcast", first):
        hint = "an even kernel changes the size of a map: use an odd one"
        return f"the residual does not fit the input of {_size(shape)}", hint
    if first == TAKES_VECTOR:
        return f"{first}, and its input is a map of {_size(shape)}", "put GlobalAvgPool and Flatten before it"
    if re.search(r"Expected \dD|expected \dD|input of size|non-empty \dD", first) and len(shape) == 1:
        return f"takes a map, and its input is a vector of {shape[0]} values", "move it before Flatten"
    return f"does not fit an input of {_size(shape)} ({first})", None


def _size(shape: Shape) -> str:
    if len(shape) == 1:
        return f"{shape[0]} values"
    return f"{shape[0]} channels, {'x'.join(str(n) for n in shape[1:])} pixels"


def make_unit(module: str, arguments: Mapping[str, Any], in_channels: int, *, device: str = "cpu") -> nn.Module:
    """Return one new block.

    Raises:
        UnknownNameError: no block has that name.
        ValueError, TypeError: what the block's constructor says of its arguments.
    """
    entry = BLOCKS[module]
    inputs = {"in_channels": in_channels} if entry.wants_channels else {}
    with torch.device(device):
        return entry.target(**inputs, **arguments)


def check_output(architecture: Architecture, classes: int | None = None) -> int:
    """Return how many values the network gives for a picture, and check that they are one per class.

    Args:
        classes: how many classes the pictures have, where that is known.

    Raises:
        ShapeError: the network does not build, ends in a map, or in another number of values; the error knows the row.
    """
    facts = survey(architecture)
    if not facts:
        raise ShapeError("the network has no rows")
    row, output = len(architecture.rows) - 1, facts[-1][1].output
    if any(n != 1 for n in output[1:]):
        raise ShapeError(
            f"row {row} {architecture.rows[row]}: the network ends in a map of {_size(output)}, not in one value per class",
            row=row,
            hint="end it with GlobalAvgPool, Flatten and Linear",
        )
    if classes is not None and output[0] != classes:
        raise _wrong_classes(architecture, output[0], classes)
    return output[0]


def _wrong_classes(architecture: Architecture, outputs: int, classes: int) -> ShapeError:
    deciding = [
        i for i, row in enumerate(architecture.rows) if {"channels", "features", "expand1x1"} & set(row.arguments)
    ]
    row = deciding[-1] if deciding else len(architecture.rows) - 1
    rounded = outputs % 8 == 0 and outputs - 8 < classes < outputs and BLOCKS[architecture.rows[row].module].scaled
    hint = f"end it with Linear [{classes}]"
    if rounded:
        hint = f"{architecture.rows[row].module} rounds channels to multiples of 8; use FixedConv or Linear [{classes}]"
    return ShapeError(
        f"row {row} {architecture.rows[row]}: the network ends in {outputs} values, and the pictures have {classes} classes",
        row=row,
        hint=hint,
    )


class Network(nn.Module):
    """A network built from an ``Architecture``.

    Attributes:
        architecture: what it was built from; checkpoints and exports carry it.
        layers: one module per copy of a block. Names in the state dict count copies, not rows, so that architectures with
            one key have one set of names.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.layers = nn.Sequential(*_units(architecture))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(N, classes)`` of pictures ``(N, C, H, W)``."""
        return self.layers(x).flatten(1)


def _units(architecture: Architecture) -> Iterator[nn.Module]:
    for (_, row), (_, facts) in zip(architecture.units(), survey(architecture), strict=True):
        yield make_unit(row.module, row.arguments, facts.input[0])


def build(architecture: Architecture) -> Network:
    """Return a new network with random weights (torch's default initialisation, from the global generator).

    Raises:
        ShapeError: rows do not fit each other, or the network does not end in one value per class.
    """
    check_output(architecture)
    return Network(architecture)


@dataclass(frozen=True)
class TableRow:
    """One line of the layer table: ``n`` copies of a block, shapes without the batch."""

    idx: int
    n: int
    params: int
    module: str
    arguments: dict[str, Any]
    input: Shape
    output: Shape
    macs: int


def table(architecture: Architecture) -> list[TableRow]:
    """Return the layer table: one line a row, costs of all its copies together.

    Raises:
        ShapeError: rows do not fit each other.
    """
    lines: list[TableRow] = []
    units = survey(architecture)
    for index, row in enumerate(architecture.rows):
        facts = [f for i, f in units if i == index]
        params, macs = sum(f.params for f in facts), sum(f.macs for f in facts)
        first, last = facts[0], facts[-1]
        lines.append(
            TableRow(index, row.repeat, params, row.module, dict(row.arguments), first.input, last.output, macs)
        )
    return lines
