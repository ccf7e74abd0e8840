"""What a block reads and writes when it takes one picture, operation by operation.

A block is built and run once on the meta device, in evaluation mode and as an export simplifies it, while the operations of
torch that depend on its inputs are noted. ``memory`` says what is assumed of a runtime.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from archtuna.model import Shape, for_inference, make_unit, sample
from archtuna.registry import BLOCKS

Block = tuple[str, object, tuple[tuple[str, Any], ...], tuple[Shape, ...]]
"""A block in its place: its name, its class, its arguments, and its inputs' shapes."""


@dataclass(frozen=True)
class Step:
    """One operation that makes or changes something.

    Attributes:
        name: of torch's operation, without its namespace.
        reads: the buffers that it reads.
        makes: those that it writes first.
        over: those that it reads and may write over.
    """

    name: str
    reads: frozenset[int]
    makes: tuple[int, ...] = ()
    over: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Schedule:
    """The steps of a unit, in order.

    Attributes:
        steps: of its forward pass.
        bytes: of each buffer; the first are those of its inputs.
        output: the buffers of its output.
    """

    steps: tuple[Step, ...]
    bytes: tuple[int, ...]
    output: tuple[int, ...]

    def last_reads(self) -> dict[int, int]:
        """Return for each buffer the last step that reads it; what the unit gives is read after them all."""
        last = {b: index for index, step in enumerate(self.steps) for b in step.reads}
        return last | dict.fromkeys(self.output, len(self.steps))


@lru_cache(maxsize=65_536)
def schedule_of(
    module: str, target: object, arguments: tuple[tuple[str, Any], ...], shapes: tuple[Shape, ...]
) -> Schedule:
    try:
        return _traced(module, dict(arguments), shapes, "meta")
    except Exception:
        # As when it was surveyed: code from elsewhere may look at values, which tensors have on the CPU only.
        if not BLOCKS[module].is_foreign:
            raise
    with torch.random.fork_rng(devices=[]):
        return _traced(module, dict(arguments), shapes, "cpu")


def _traced(module: str, arguments: Mapping[str, Any], shapes: tuple[Shape, ...], device: str) -> Schedule:
    """Run a unit once, and note what it does."""
    with warnings.catch_warnings(action="ignore"), torch.no_grad():
        unit = for_inference(make_unit(module, arguments, shapes, device=device).eval())
        given = [sample(shape, device) for shape in shapes]
        with _Tracer(_tensors(given)) as tracer, _AsDeployed():
            output = unit(*given)
    return tracer.schedule(_tensors(output))


class _AsDeployed(TorchFunctionMode):
    """Writes out or draws together what torch does in other steps than a runtime, and not in every version the same."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in _ACTIVATIONS:
            # Any elementwise operation will do.
            return args[0].neg()
        if name == "scaled_dot_product_attention" and len(args) >= 3:
            q, k, v = args[:3]
            if q.shape[:-2] == k.shape[:-2]:
                return (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return func(*args, **(kwargs or {}))


_ACTIVATIONS = frozenset(("hardswish", "logsigmoid", "log_sigmoid", "prelu", "rrelu", "softsign", "tanhshrink"))
"""What torch does not mark as elementwise, or does in several steps."""


class _Tracer(TorchDispatchMode):
    """Notes the operations that depend on inputs. What lies at the same place in memory is one buffer."""

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self._buffers: dict[int, int] = {}
        self._bytes: list[int] = []
        self._steps: list[Step] = []
        # A tensor that is given back would leave its place to another one.
        self._held: list[Tensor] = []
        for x in inputs:
            self._new(x)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        operands = _tensors([args, list((kwargs or {}).values())])
        known = [x for x in operands if _storage(x) in self._buffers]
        if known:
            self._note(func, args, known, [x for x in _tensors(output) if _storage(x) not in self._buffers])
        return output

    def _note(self, func: Any, args: Sequence[Any], known: Sequence[Tensor], made: Sequence[Tensor]) -> None:
        if not made and not func._schema.is_mutable:
            return
        name = str(func).split(".")[1]
        if name == "constant_pad_nd" and not any(args[2:]):
            name = _PADDING
        # When nothing is trained, batch norm is a factor and a summand for each channel.
        elementwise = torch.Tag.pointwise in func.tags or name == "native_batch_norm"
        over = {_storage(x) for x in known if elementwise and made and _lies_alike(x, made[0])}
        # Whoever also reads it in another order would read what is overwritten already.
        over -= {_storage(x) for x in known if made and not _lies_alike(x, made[0])}
        reads = frozenset(map(self._buffer, known))
        # Results that share memory are one buffer.
        makes = tuple(map(self._new, {_storage(x): x for x in made}.values()))
        self._steps.append(Step(name, reads, makes, tuple(sorted(self._buffers[s] for s in over))))

    def _buffer(self, x: Tensor) -> int:
        return self._buffers[_storage(x)]

    def _new(self, x: Tensor) -> int:
        self._held.append(x)
        self._bytes.append(x.untyped_storage().nbytes())
        return self._buffers.setdefault(_storage(x), len(self._bytes) - 1)

    def schedule(self, output: Sequence[Tensor]) -> Schedule:
        """Return what was noted, with the tensors that the unit gave."""
        constants = [x for x in output if _storage(x) not in self._buffers]
        if constants:
            self._steps.append(Step("constant", frozenset(), tuple(map(self._new, constants))))
        buffers = tuple(map(self._buffer, output))
        steps = _without_padding(self._steps, buffers)
        return Schedule(tuple(_needed(steps, buffers)), tuple(self._bytes), buffers)


_PADDING = "zeros around"


def _without_padding(steps: Sequence[Step], output: Sequence[int]) -> list[Step]:
    """Return the steps without zeros around maps that only convolutions read."""
    same: dict[int, int] = {}
    for step in (s for s in steps if s.name == _PADDING):
        (padded,), (bare,) = step.makes, step.reads
        readers = {s.name for s in steps if padded in s.reads}
        if padded not in output and readers <= {"convolution"}:
            same[padded] = same.get(bare, bare)
    rest = (s for s in steps if not same.keys() & set(s.makes))
    return [replace(s, reads=frozenset(same.get(b, b) for b in s.reads)) for s in rest]


def _needed(steps: Sequence[Step], output: Sequence[int]) -> list[Step]:
    """Return the steps that lead to the output, with what is read of what they make."""
    needed, found = set(output), []
    for step in reversed(steps):
        makes = tuple(b for b in step.makes if b in needed)
        if makes or not step.makes:
            needed |= step.reads
            found.append(replace(step, makes=makes))
    return found[::-1]


def _lies_alike(x: Tensor, y: Tensor) -> bool:
    return x.dtype == y.dtype and x.shape == y.shape and x.stride() == y.stride()


def _storage(x: Tensor) -> int:
    return x.untyped_storage()._cdata


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return list(chain.from_iterable(map(_tensors, value)))
    return []
