"""What a block does, as the operations of torch that it runs: those that make its weights, and those of its forward pass.

A block is built and run once on the meta device, in training mode, while every operation is recorded. What leaves a tensor as
it is does not become an operation, and settings without effect at a tensor's shape are recorded as the plain ones.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from archtuna.model import Shape, make_unit
from archtuna.registry import BLOCKS

BATCH = 2
"""Pictures in a recorded run: batch norm refuses one picture of one pixel while training."""

HERE = ("archtuna", "torch")
"""Whose code does nothing but run operations."""

Arguments = tuple[tuple[str, Any], ...]


@dataclass(frozen=True, eq=False, slots=True)
class Operation:
    """One operation, which is also its result.

    Attributes:
        text: its name and settings, with ``%`` for each operand.
        operands: the operations whose results it takes.
        follows: whether it depends on the block's input, and is no weight or other constant.
    """

    text: str
    operands: tuple[Operation, ...] = ()
    follows: bool = False


@dataclass(frozen=True)
class Recording:
    """What a block does.

    Attributes:
        inputs: what stands for its inputs.
        output: its last operation.
        overwrites: whether it changes the values of an input in place.
    """

    inputs: tuple[Operation, ...]
    output: Operation
    overwrites: bool = False


class _Opaque(Exception):
    """What a block does does not show in its operations."""


@lru_cache(maxsize=65_536)
def recording(module: str, target: object, arguments: Arguments, shapes: tuple[Shape, ...]) -> Recording:
    """Return what a block does to inputs of these shapes.

    A block with code from elsewhere, and one that cannot be run on the meta device, is one operation with its name and
    arguments for text: it may look at values, draw lots, or begin with weights that somebody trained.

    Args:
        module: its name.
        target: its class, so that nothing is remembered of a class that another has replaced.
        arguments: all of its arguments by name.
        shapes: of its inputs, without the batch.
    """
    inputs = tuple(Operation(f"input {i}", (), True) for i in range(len(shapes)))
    if not BLOCKS[module].is_foreign:
        # Any class of torch.nn may be a block, and has its own way of saying that it does not run like this.
        with suppress(Exception):
            return _record(module, dict(arguments), shapes, inputs)
    return Recording(inputs, Operation(f"{module} {sorted(arguments)}", inputs, True))


def _record(
    module: str, arguments: Mapping[str, Any], shapes: tuple[Shape, ...], inputs: tuple[Operation, ...]
) -> Recording:
    with warnings.catch_warnings(action="ignore"), _Recorder() as recorder, torch.no_grad():
        unit = make_unit(module, arguments, shapes, device="meta")
        if any(type(part).__module__.partition(".")[0] not in HERE for part in unit.modules()):
            raise _Opaque
        weights = list(recorder.take_weights(unit))
        given = [torch.empty((BATCH, *shape), device="meta") for shape in shapes]
        for x, operation in zip(given, inputs, strict=True):
            recorder.set(x, operation)
        output = recorder.get(unit(*given))
    steps = reached(output)
    # Weights that nothing uses are no operation, and cost all the same.
    if not output.follows or _UNKNOWN in steps or not {*weights} <= {*steps}:
        raise _Opaque
    overwrites = any(recorder.get(x) is not operation for x, operation in zip(given, inputs, strict=True))
    return Recording(inputs, output, overwrites)


def reached(output: Operation) -> list[Operation]:
    """Return what an operation comes from, each behind what it takes, itself last."""
    found: dict[Operation, None] = {}
    waiting = [output]
    while waiting:
        missing = [operation for operation in waiting[-1].operands if operation not in found]
        waiting += reversed(missing)
        if not missing:
            found[waiting.pop()] = None
    return list(found)


_UNKNOWN = Operation("unknown")
"""Stands for a tensor that was not made by a recorded operation, or whose values changed through another one."""


class _Recorder(TorchDispatchMode):
    """Follows tensors from operation to operation. What has the same place in memory is the same value."""

    def __init__(self) -> None:
        super().__init__()
        self._found: dict[int, dict[tuple[Any, ...], Operation]] = {}
        self._kept: list[Tensor] = []

    def get(self, x: Tensor) -> Operation:
        return self._found.get(_storage(x), {}).get(_place(x), _UNKNOWN)

    def set(self, x: Tensor, operation: Operation) -> None:
        # A tensor that is given back would leave its place to another one.
        self._kept.append(x)
        self._found.setdefault(_storage(x), {})[_place(x)] = operation

    def take_weights(self, unit: nn.Module) -> Iterator[Operation]:
        """Mark parameters and buffers as such, and return those that count as weights of a network."""
        for part in unit.modules():
            for name, x in chain(part.named_parameters(recurse=False), part.named_buffers(recurse=False)):
                made = self.get(x)
                if not made.text.startswith(_WEIGHTS):
                    kind = f"parameter {x.requires_grad}" if isinstance(x, nn.Parameter) else "buffer"
                    # Some ways to draw weights are left out on the meta device; whose they are then stands for them.
                    owner = "" if made.operands else f"{type(part).__qualname__}.{name} "
                    self.set(x, Operation(f"{kind} {owner}%", (made,)))
                if x.is_floating_point():
                    yield self.get(x)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        name = str(func).removeprefix("aten.")
        results = list(_tensors(output))
        if _changes_nothing(name, args, results):
            self.set(results[0], self.get(args[0]))
        else:
            self._note(name, _settled(name, args, results), kwargs, _changed(func, args, kwargs), results)
        return output

    def _note(
        self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], changed: list[Tensor], results: list[Tensor]
    ) -> None:
        operands: list[Operation] = []
        settings = {key: value for key, value in kwargs.items() if key not in ("device", "pin_memory")}
        text = f"{name.replace('_.', '.') if changed else name} {self._text(args, operands)} {self._text(settings, operands)}"
        made = Operation(text, tuple(operands), any(operation.follows for operation in operands))
        places = {_place(x) for x in changed}
        for x in changed:
            self._found.get(_storage(x), {}).clear()
        everything = results + [x for x in changed if _place(x) not in {_place(y) for y in results}]
        for index, x in enumerate(everything):
            # A tensor whose place is known is another name for the same values.
            if _place(x) in places or self.get(x) is _UNKNOWN:
                self.set(x, made if len(everything) == 1 else Operation(f"item {index} %", (made,), made.follows))

    def _text(self, value: Any, operands: list[Operation]) -> str:
        """Write settings, and collect the operands that stand among them."""
        if isinstance(value, Tensor):
            operands.append(self.get(value))
            return "%"
        if isinstance(value, Mapping):
            return " ".join(f"{key}={self._text(value[key], operands)}" for key in sorted(value))
        if isinstance(value, list | tuple):
            return f"[{', '.join(self._text(item, operands) for item in value)}]"
        return repr(value)


_WEIGHTS = ("parameter ", "buffer ")


def _storage(x: Tensor) -> int:
    return x.untyped_storage()._cdata


def _place(x: Tensor) -> tuple[Any, ...]:
    return _storage(x), x.storage_offset(), tuple(x.shape), x.stride(), x.dtype


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        yield from chain.from_iterable(map(_tensors, value))


def _changed(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """Return the tensors among the arguments whose values an operation changes in place."""
    if not func._schema.is_mutable:
        return []
    given = {a.name: value for a, value in zip(func._schema.arguments, args, strict=False)} | dict(kwargs)
    written = [a.name for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    return list(_tensors([given.get(name) for name in written]))


# --- what changes nothing -------------------------------------------------------------------------

_POOLS = ("max_pool2d_with_indices.default", "avg_pool2d.default")
_RESIZE = ("_adaptive_avg_pool2d.", "adaptive_avg_pool2d.", "adaptive_max_pool2d.")


def _changes_nothing(name: str, args: Sequence[Any], results: Sequence[Tensor]) -> bool:
    """Whether an operation gives its input as it is: over one pixel, to the same size, or with nothing to add."""
    if not results or not args or not isinstance(args[0], Tensor) or args[0].shape != results[0].shape:
        return False
    if name in _POOLS:
        return all(side == 1 for side in _sides(args[1])) and not any(args[6:])
    if name == "mean.dim":
        return all(args[0].shape[axis] == 1 for axis in args[1])
    if name == "constant_pad_nd.default":
        return not any(args[1])
    if name.startswith("upsample_"):  # Torch takes steps of the scale that it was given, also where the size stays.
        return all(scale == 1.0 for scale in _numbers(args[2:]))
    return name.startswith(_RESIZE)


def _numbers(value: Any) -> list[float]:
    """Return the numbers in nested arguments; what is left out and truth values are none."""
    if isinstance(value, list | tuple):
        return [number for item in value for number in _numbers(item)]
    return [float(value)] if isinstance(value, int | float) and not isinstance(value, bool) else []


def _settled(name: str, args: Sequence[Any], results: Sequence[Tensor]) -> Sequence[Any]:
    """Return an operation's arguments with those that have no effect at these shapes as if nobody had given them."""
    if name == "convolution.default" and not args[6]:
        x, weight, bias, strides, padding, dilation, *rest = args
        return x, weight, bias, _steps(strides, results[0]), padding, _steps(dilation, weight), *rest
    if name in _POOLS:
        return _settled_pool(name, *args, out=results[0])
    if name == "cat.default":
        return args[0], (args[1] if len(args) > 1 else 0) % args[0][0].dim()
    return args


def _steps(steps: Iterable[int], windows: Tensor) -> list[int]:
    """Return the steps from one window, or one point of a window, to the next: 1 where there is one only."""
    sides = windows.shape[2:]
    given = list(steps)
    return [1 if n == 1 else step for n, step in zip(sides, given * (len(sides) // len(given)), strict=True)]


def _sides(value: Any) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    return (pair[0], pair[-1])


def _settled_pool(
    name: str, x: Tensor, kernel: Any, stride: Any = (), padding: Any = 0, *rest: Any, out: Tensor
) -> Sequence[Any]:
    averages = name.startswith("avg")
    defaults = (False, True, None) if averages else (1, False)
    given = (*rest, *defaults[len(rest) :])
    dilation, ceil, *more = (1, *given) if averages else given
    sides, strides, pads, gaps = map(_sides, (kernel, stride or kernel, padding, dilation))
    spans = [gap * (side - 1) + 1 for side, gap in zip(sides, gaps, strict=True)]
    whole = [
        (n + 2 * pad - span) // step + 1 for n, pad, span, step in zip(x.shape[-2:], pads, spans, strides, strict=True)
    ]
    # A window that hangs over the edge is the only one for which these two count.
    ceil = ceil and whole != list(out.shape[-2:])
    if averages and not ceil and not any(pads):
        more[0] = True
    steps = [1 if n == 1 else step for n, step in zip(out.shape[-2:], strides, strict=True)]
    gaps = tuple(1 if side == 1 else gap for side, gap in zip(sides, gaps, strict=True))  # type: ignore[assignment]
    return x, sides, steps, pads, gaps, ceil, *more
