"""What a network is made of when it runs: the operators of its blocks, each at its shapes.

Blocks run once on torch's ``meta`` device, in the form that they are exported in, and every operator that computes something
is one ``Part``. What a runtime folds away is left out: batch norms behind convolutions, and changes of shape only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from archtuna.architecture import Architecture
from archtuna.model import Shape, UnitFacts, for_inference, make_unit, sample, survey
from archtuna.predictor import Part
from archtuna.registry import BLOCKS

BLOCK = 8
"""Channels that processors compute at once: 8 numbers fill a register of AVX2, and what ONNX Runtime lays out in blocks has to
be a multiple of it or takes another way."""

_CONVOLUTION = "convolution"
_NORMS = ("batch_norm", "batch_norm_with_update", "batch_norm_legit", "batch_norm_legit_no_training")
_FREE = {"dropout", "clone", "empty", "detach", "contiguous", "to_copy", "unsafe_view", "zeros", "ones", "lift_fresh"}


def parts_of(architecture: Architecture) -> tuple[Part, ...]:
    """Return the operators of a network, those of each block after those of the block before.

    The numbers of each are multiply-accumulates, numbers of weights, numbers read and numbers written, for one picture.

    Raises:
        ShapeError: rows do not fit each other.
    """
    return tuple(chain.from_iterable(parts_of_units(architecture)))


def parts_of_units(architecture: Architecture) -> list[tuple[Part, ...]]:
    """Return the operators of each copy of a block.

    Raises:
        ShapeError: rows do not fit each other.
    """
    found = zip(architecture.units(), survey(architecture), strict=True)
    return [_traced(row.module, BLOCKS[row.module].target, row.items, facts) for (_, row), (_, facts) in found]


@lru_cache(maxsize=65_536)
def _traced(module: str, target: object, arguments: tuple[tuple[str, Any], ...], facts: UnitFacts) -> tuple[Part, ...]:
    """Return the operators of a block; one that does not run without values is a single part."""
    try:
        unit = for_inference(make_unit(module, dict(arguments), facts.inputs, device="meta").eval())
        with torch.no_grad(), _Trace(unit) as trace:
            unit(*(sample(shape, "meta") for shape in facts.inputs))
    except Exception:
        # Somebody else's code may need values; the survey of it did not fail, so its facts are known.
        numbers = (facts.macs, facts.params, sum(map(_size, facts.inputs)), _size(facts.output))
        return (Part(f"{module} {dict(arguments)} {facts.inputs}", module, tuple(map(float, numbers))),)
    return tuple(trace.parts)


def _size(shape: Shape) -> int:
    if shape and isinstance(shape[0], tuple):
        return sum(map(_size, shape))
    return math.prod(shape)


class _Trace(TorchDispatchMode):
    """Writes down the operators that run within it."""

    def __init__(self, unit: nn.Module) -> None:
        super().__init__()
        self.parts: list[Part] = []
        self._weights = {id(tensor) for tensor in (*unit.parameters(), *unit.buffers())}
        # Tensors that convolutions gave, kept alive for as long as their numbers are asked for.
        self._convolved: dict[int, tuple[str, Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__.strip("_").removeprefix("native_").removesuffix("_")
        given = list(_tensors(args))
        if func.is_view or name in _FREE or not given:
            return output
        source = self._convolved.get(id(given[0]))
        if name in _NORMS and source is not None:
            first = output[0] if isinstance(output, tuple) else output
            self._convolved[id(first)] = (source[0], first)
            return output
        self._add(func, name, args, kwargs, given, output, source)
        return output

    def _add(self, func: Any, name: str, args: Any, kwargs: Any, given: list[Tensor], output: Any, source: Any) -> None:
        weights = [one for one in given if id(one) in self._weights]
        read = [one for one in given if id(one) not in self._weights]
        # Of several outputs the first is the map; the others are for the way back.
        written = list(_tensors((output,)))[:1]
        count = flop_registry.get(func.overloadpacket)
        macs = 0 if count is None else count(*args, **(kwargs or {}), out_val=output) // 2
        kind = name
        if name == _CONVOLUTION:
            kind = _form(args)
            self._convolved[id(output)] = (kind, output)
        elif source is not None and len(read) == 1 and written[0].shape == read[0].shape:
            # Whether an activation is computed at once with the convolution depends on that one's channels, not on its form.
            kind = f"{name} of {_CONVOLUTION}{''.join(source[0].partition(',')[1:])}"
        elif read[0].dim() == 4:
            kind = f"{name}{_odd(read[0].shape[1])}"
        shapes = [tuple(one.shape[1:]) for one in (*read, *written)]
        numbers = (macs, *(sum(one.numel() for one in some) for some in (weights, read, written)))
        self.parts.append(Part(f"{kind} {shapes} {macs}", kind, tuple(map(float, numbers))))


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _form(args: Sequence[Any]) -> str:
    """Return which kind of convolution the arguments of one ask for."""
    channels, weight, groups = args[0].shape[1], args[1], args[8]
    form = "convolution" if groups == 1 else "depthwise convolution" if groups == channels else "grouped convolution"
    size = "1x1" if math.prod(weight.shape[2:]) == 1 else "kxk"
    into = channels if groups == channels else weight.shape[1]
    return f"{form} {size}{_odd(into, weight.shape[0])}"


def _odd(*channels: int) -> str:
    """Return what to say of channels into and out of an operator that do not fill registers."""
    said = [
        f"{'few' if n < BLOCK else 'odd'} {way}" for n, way in zip(channels, ("in", "out"), strict=False) if n % BLOCK
    ]
    return f", {' and '.join(said)}" if said else ""
