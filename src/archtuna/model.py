"""From an ``Architecture`` to an ``nn.Module``, and what is known of it before it sees data.

Shapes, parameters and multiply-accumulates come from running each block once on torch's ``meta`` device, where tensors
have shapes and no memory. The answer for a block at an input shape is remembered, so that a network costs the sum of
its new blocks: a search asks for thousands of networks that share nearly all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

import archtuna.blocks  # noqa: F401  (registers the zoo)
from archtuna.architecture import INPUT, PICTURE, Architecture, Row
from archtuna.blocks.pretrained import without_weights
from archtuna.errors import ArchtunaError, Misfit, ShapeError
from archtuna.registry import BLOCKS, Block, require_block

MAX_PARAMETERS = 2_000_000_000
MAX_ACTIVATIONS = 4_000_000_000

Shape = tuple[Any, ...]
"""One picture's tensor without the batch: ``(C, H, W)`` or ``(F,)``; a tuple of such where a block gives several maps."""


@dataclass(frozen=True)
class UnitFacts:
    """What one copy of a block is at its inputs' shapes.

    Attributes:
        inputs: the shape of each input.
        output: the shape of its output.
        params: trainable parameters.
        macs: multiply-accumulates of convolutions and matrix products for one picture.
        state: numbers that a checkpoint stores: parameters and batch-norm statistics.
    """

    inputs: tuple[Shape, ...]
    output: Shape
    params: int
    macs: int
    state: int


def survey(architecture: Architecture) -> list[tuple[int, UnitFacts]]:
    """Return ``(index of the row, facts)`` for every copy of a block, in order.

    Raises:
        ShapeError: a row does not fit what it takes in; the error knows the row, and names those that it takes from.
        UnknownNameError: a block is not registered here; the hint names the module that has it, where that is known.
    """
    for name in {row.module for row in architecture.rows} - BLOCKS.keys():
        require_block(name, architecture.origins)
    found: list[tuple[int, UnitFacts]] = []
    shapes: list[Shape] = [(architecture.input_channels, *architecture.input_size)]
    for (index, row), inputs in zip(architecture.units(), architecture.wires(), strict=True):
        given = tuple(shapes[i + 1] for i in inputs)
        try:
            facts = survey_row(row, given, index)
        except ShapeError as error:
            if len(inputs) == 1:
                raise
            sources = ["the picture" if i < 0 else _source(architecture, found[i][0]) for i in inputs]
            raise joined(error, sources, given) from None
        found.append((index, facts))
        shapes.append(facts.output)
    return found


def _source(architecture: Architecture, index: int) -> str:
    row = architecture.rows[index]
    return f"row {index} ('{row.name}', {row.module})" if row.name else f"row {index} ({row.module})"


def joined(error: ShapeError, sources: Sequence[str], shapes: Sequence[Shape]) -> ShapeError:
    """Return the error of a row that takes several inputs with what each of them gives."""
    gives = "; ".join(f"{source} gives {describe(shape)}" for source, shape in zip(sources, shapes, strict=True))
    return ShapeError(f"{error.message}: {gives}", row=error.row, hint=error.hint)


def survey_row(row: Row, shapes: tuple[Shape, ...], index: int | None = None) -> UnitFacts:
    """Return the facts of one copy of a row at its inputs' shapes (without the batch).

    Raises:
        ShapeError: the block does not fit them.
    """
    outcome = _survey_unit(row.module, BLOCKS[row.module].target, row.items, shapes)
    if isinstance(outcome, UnitFacts):
        return outcome
    message, hint = outcome
    where = "" if index is None else f"row {index} "
    raise ShapeError(f"{where}{row}: {message}", row=index, hint=hint)


@lru_cache(maxsize=65_536)
def _survey_unit(
    module: str, target: object, arguments: tuple[tuple[str, Any], ...], shapes: tuple[Shape, ...]
) -> UnitFacts | tuple[str, str | None]:
    """Return the facts, or the problem and its hint: a failure is remembered like a success.

    ``target`` is the block's class, so that nothing is remembered of a class that another has replaced.
    """
    entry = BLOCKS[module]
    miscounted = _wrong_number(entry, len(shapes))
    if miscounted:
        return miscounted
    # Somebody else's code may raise anything; a mistake in our own must not pass for a shape that does not fit.
    ours = (RuntimeError, ValueError, IndexError, TypeError, NotImplementedError)
    expected = ours if not entry.is_foreign and not module.startswith("nn.") else (Exception,)
    try:
        return _measured(module, dict(arguments), shapes, "meta")
    except expected as error:
        problem: Exception = error
    if entry.is_foreign:
        # Code that looks at values, not only at shapes, cannot run on the meta device.
        with suppress(Exception), torch.random.fork_rng(devices=[]):
            return _measured(module, dict(arguments), shapes, "cpu")
    if isinstance(problem, ArchtunaError):
        raise problem
    return _explain(problem, shapes)


def _wrong_number(entry: Block, given: int) -> tuple[str, str | None] | None:
    if entry.joins or given == entry.inputs:
        return None
    if entry.inputs == 1:
        return f"takes one input, not {given}", "join them first, with Add or Concat"
    return f"takes {entry.inputs} inputs, not {given}", "name each of them: {from: [a, b]}"


def _measured(
    module: str, arguments: dict[str, Any], shapes: tuple[Shape, ...], device: str
) -> UnitFacts | tuple[str, str | None]:
    """Build a unit and run it once."""
    unit = make_unit(module, arguments, shapes, device=device).eval()
    params = sum(p.numel() for p in unit.parameters() if p.requires_grad)
    if params > MAX_PARAMETERS:
        return f"{params:,} parameters in one block", "channels or kernel are too large"
    is_own = not (BLOCKS[module].is_foreign or module.startswith("nn."))
    with FlopCounterMode(display=False) as counter, torch.no_grad(), _Unchanged() if is_own else nullcontext():
        output = unit(*(sample(shape, device) for shape in shapes))
    problem = _vanished(output, shapes)
    if problem:
        return problem
    state = sum(t.numel() for t in unit.state_dict().values() if t.is_floating_point())
    return UnitFacts(shapes, _shape_of(output), params, counter.get_total_flops() // 2, state)


class _Unchanged(TorchFunctionMode):
    """Passes over norms and activations: they change no shape and multiply nothing that counts.

    On the meta device each of them goes through Python, and takes longer than all convolutions together. Somebody else's
    block is run as it is: what it does wrong in them shows here.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if args and getattr(func, "__name__", "") in _PASSED_OVER:
            return args[0]
        return func(*args, **(kwargs or {}))


_PASSED_OVER = frozenset((
    "batch_norm", "layer_norm", "group_norm", "instance_norm", "relu", "relu_", "relu6", "hardswish", "hardsigmoid", "sigmoid",
    "silu", "gelu", "mish", "elu", "leaky_relu", "tanh", "hardtanh", "softplus",
))  # fmt: skip


def sample(shape: Shape, device: str) -> Any:
    """Return a picture's worth of input: a tensor, or a list of them."""
    if shape and isinstance(shape[0], tuple):
        return [sample(part, device) for part in shape]
    return torch.empty((1, *shape), device=device) if device == "meta" else torch.zeros((1, *shape))


def _shape_of(output: Any) -> Shape:
    return tuple(output.shape[1:]) if isinstance(output, Tensor) else tuple(_shape_of(part) for part in output)


def _vanished(output: object, shapes: tuple[Shape, ...]) -> tuple[str, str | None] | None:
    parts = list(output) if isinstance(output, list | tuple) else [output]
    for part in parts:
        if not isinstance(part, Tensor):
            return f"gives {type(part).__name__}, not a tensor", None
        if part.dim() < 2:
            return f"gives a tensor of shape {list(part.shape)} for one picture: the first axis is the batch's", None
        if part.numel() == 0:
            return _too_small(shapes)
        if part.numel() > MAX_ACTIVATIONS:
            return f"an output of {part.numel():,} values for one picture", "a smaller input_size or fewer channels"
    return None if parts else ("gives nothing", None)


def _too_small(shapes: tuple[Shape, ...]) -> tuple[str, str]:
    size = " and ".join(map(describe, shapes))
    return (
        f"a map of {size} is too small: nothing would be left of it",
        "fewer rows with a stride, or a larger input_size",
    )


def _explain(error: Exception, shapes: tuple[Shape, ...]) -> tuple[str, str | None]:
    """Turn the words of torch, or of somebody's block, for a shape that does not fit into ours."""
    text, shape = str(error).strip(), shapes[0]
    first = text.splitlines()[0] if text else type(error).__name__
    vector = len(shape) == 1 and not isinstance(shape[0], tuple)
    if isinstance(error, Misfit) and len(shapes) > 1:
        return first, error.hint
    if isinstance(error, Misfit):
        return f"{first}, and its input is {'a vector' if vector else 'a map'} of {describe(shape)}", error.hint
    if re.search(r"[Kk]ernel size can't be greater|[Oo]utput size is too small|too small", first):
        return _too_small(shapes)
    if "must be divisible by groups" in first:
        return f"{shape[0]} input channels and the output channels must be divisible by groups", None
    if re.search(r"size of tensor a|must match|broadcast", first):
        hint = "an even kernel changes the size of a map: use an odd one"
        return f"the residual does not fit the input of {describe(shape)}", hint
    if vector and re.search(r"Expected \dD|expected \dD|input of size|non-empty \dD", first):
        return f"takes a map, and its input is a vector of {shape[0]} values", "move it before Flatten"
    what = first if isinstance(error, RuntimeError | ValueError) else f"{type(error).__name__}: {first}"
    return f"does not fit an input of {' and '.join(map(describe, shapes))} ({what})", None


def describe(shape: Shape) -> str:
    """Write a shape in words: ``16 channels, 8x8 pixels``."""
    if shape and isinstance(shape[0], tuple):
        return f"{len(shape)} maps ({'; '.join(map(describe, shape))})"
    if len(shape) == 1:
        return f"{shape[0]} values"
    if len(shape) == 2:
        return f"{shape[0]} tokens of {shape[1]} values"
    return f"{shape[0]} channels, {'x'.join(str(n) for n in shape[1:])} pixels"


def channels_of(shape: Shape) -> Any:
    """Return the channels of a shape; a tuple of them where it is several maps."""
    return tuple(map(channels_of, shape)) if isinstance(shape[0], tuple) else shape[0]


def make_unit(
    module: str, arguments: Mapping[str, Any], shapes: tuple[Shape, ...], *, device: str = "cpu"
) -> nn.Module:
    """Return one new block.

    Args:
        module: its name.
        arguments: all of its arguments.
        shapes: of its inputs, without the batch; their channels are what the block is told of them.
        device: where its weights go.

    Raises:
        UnknownNameError: no block has that name.
        ValueError, TypeError: what the block's constructor says of its arguments.
    """
    entry = BLOCKS[module]
    channels = tuple(map(channels_of, shapes))
    told = (
        {} if entry.channels_argument is None else {entry.channels_argument: channels if entry.joins else channels[0]}
    )
    with torch.device(device):
        unit = entry.target(**told, **arguments)
    if not isinstance(unit, nn.Module):
        raise TypeError(f"{entry.name} gives {type(unit).__name__}, not a torch.nn.Module")
    return unit


def for_inference(module: nn.Module) -> nn.Module:
    """Return the module with each block that can be simpler in evaluation mode replaced by what it says it then is.

    A block says so with a method ``for_inference()`` that returns a module of the same outputs.
    """
    if hasattr(module, "for_inference"):
        return module.for_inference()  # type: ignore[operator]
    for name, child in module.named_children():
        setattr(module, name, for_inference(child))
    return module


def check_output(architecture: Architecture, classes: int | None = None, *, output: Shape | None = None) -> int:
    """Return how many values the network gives for a picture, and check that they are one per class.

    Args:
        classes: how many classes the pictures have, where that is known.
        output: the shape of the network's output, where that is known.

    Raises:
        ShapeError: the network does not build, ends in a map, or in another number of values; the error knows the row.
    """
    if not architecture.rows:
        raise ShapeError("the network has no rows")
    row = len(architecture.rows) - 1
    output = survey(architecture)[-1][1].output if output is None else output
    if any(n != 1 for n in output[1:]):
        raise ShapeError(
            f"row {row} {architecture.rows[row]}: the network ends in a map of {describe(output)}, not in one value per class",
            row=row,
            hint="end it with GlobalAvgPool, Flatten and Linear",
        )
    if classes is not None and output[0] != classes:
        raise _wrong_classes(architecture, output[0], classes)
    return output[0]


def _wrong_classes(architecture: Architecture, outputs: int, classes: int) -> ShapeError:
    deciding = [i for i, row in enumerate(architecture.rows) if _WIDTHS & set(row.arguments)]
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


_WIDTHS = {"channels", "features", "expand1x1", "out_channels", "out_features", "classes", "num_classes"}


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
        self._steps = None if architecture.is_chain else _steps(architecture.wires())

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(N, classes)`` of pictures ``(N, C, H, W)``."""
        if self._steps is None:
            return self.layers(x).flatten(1)
        outputs: dict[int, Any] = {PICTURE: x}
        for index, (unit, (inputs, finished)) in enumerate(zip(self.layers, self._steps, strict=True)):
            outputs[index] = unit(*[outputs[i] for i in inputs])
            for i in finished:
                del outputs[i]
        return outputs[len(self.layers) - 1].flatten(1)


def _steps(wires: Sequence[tuple[int, ...]]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return for each unit what it takes, and which outputs nobody takes after it, so that their memory is given back."""
    last = {i: index for index, inputs in enumerate(wires) for i in inputs}
    last = {index: index for index in range(len(wires) - 1)} | last
    finished: dict[int, list[int]] = {}
    for i, index in last.items():
        finished.setdefault(index, []).append(i)
    return [(inputs, tuple(finished.get(index, ()))) for index, inputs in enumerate(wires)]


def _units(architecture: Architecture) -> Iterator[nn.Module]:
    for (_, row), (_, facts) in zip(architecture.units(), survey(architecture), strict=True):
        yield make_unit(row.module, row.arguments, facts.inputs)


def build(architecture: Architecture, *, pretrained: bool = True) -> Network:
    """Return a new network with random weights (torch's default initialisation, from the global generator).

    Args:
        architecture: what to build.
        pretrained: whether PreTrained rows load the weights that they begin with; False where others take their place.

    Raises:
        ShapeError: rows do not fit each other, or the network does not end in one value per class.
    """
    check_output(architecture)
    with nullcontext() if pretrained else without_weights():
        return Network(architecture)


@dataclass(frozen=True)
class TableRow:
    """One line of the layer table: ``n`` copies of a block, shapes without the batch.

    ``input`` is a tuple of shapes where the row takes several; ``name`` and ``sources`` are what the row is called and takes
    from, None where that is the row before.
    """

    idx: int
    n: int
    params: int
    module: str
    arguments: dict[str, Any]
    input: Shape
    output: Shape
    macs: int
    name: str | None = None
    sources: tuple[str, ...] | None = None


def table(architecture: Architecture) -> list[TableRow]:
    """Return the layer table: one line a row, costs of all its copies together.

    Raises:
        ShapeError: rows do not fit each other.
    """
    lines: list[TableRow] = []
    by_row: list[list[UnitFacts]] = [[] for _ in architecture.rows]
    for index, facts in survey(architecture):
        by_row[index].append(facts)
    names = architecture.names()
    for index, row in enumerate(architecture.rows):
        units = by_row[index]
        first = units[0].inputs
        lines.append(
            TableRow(
                idx=index,
                n=row.repeat,
                params=sum(f.params for f in units),
                module=row.module,
                arguments=dict(row.arguments),
                input=first[0] if len(first) == 1 else first,
                output=units[-1].output,
                macs=sum(f.macs for f in units),
                name=names[index],
                sources=None if row.inputs is None else tuple(INPUT if i < 0 else str(names[i]) for i in row.inputs),
            )
        )
    return lines
