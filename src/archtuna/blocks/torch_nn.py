"""Every class of ``torch.nn`` as a block: ``nn.Conv2d``, ``nn.GELU``, ``nn.BatchNorm2d``."""

from __future__ import annotations

import inspect
from dataclasses import replace

from torch import nn

from archtuna.registry import BLOCKS, Block, inputs_of
from archtuna.signature import REQUIRED, Parameter, Plain

PREFIX = "nn."
_CHANNELS = ("in_channels", "in_features", "num_features")
# What holds other modules, and what makes as many layers as a number says and takes sequences, is no row of a network.
_NOT_BLOCKS = (
    nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict, nn.RNNBase, nn.Transformer,
    nn.TransformerEncoder, nn.TransformerDecoder,
)  # fmt: skip
_NOT_WRITTEN = ("self", "device", "dtype")


def describe(name: str) -> Block | None:
    """Return the block of a class of ``torch.nn``, None where there is none of that name.

    Its arguments are torch's, in torch's order; what the input's channels tell (``in_channels``, ``in_features`` or
    ``num_features`` in first place) is not written.
    """
    target = getattr(nn, name.removeprefix(PREFIX), None)
    if not (isinstance(target, type) and issubclass(target, nn.Module)) or issubclass(target, _NOT_BLOCKS):
        return None
    parameters = [
        p
        for p in inspect.signature(target).parameters.values()
        if p.name not in _NOT_WRITTEN and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    told = parameters[0].name if parameters and parameters[0].name in _CHANNELS else None
    described = [
        Parameter(p.name, Plain, p.default, optional=p.default is not REQUIRED)
        for p in parameters
        if p.name != told and (p.default is REQUIRED or _is_plain(p.default))
    ]
    return Block(
        name=name,
        target=target,
        parameters=tuple(replace(p, default=_tupled(p.default)) for p in described),
        meaning=f"torch.nn.{target.__name__} as it is, its input's channels filled in.",
        inputs=inputs_of(target),
        channels_argument=told,
    )


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _tupled(value: object) -> object:
    return tuple(map(_tupled, value)) if isinstance(value, list | tuple) else value


def _names() -> list[str]:
    return [f"{PREFIX}{name}" for name in dir(nn) if describe(f"{PREFIX}{name}") is not None]


BLOCKS.add_family(PREFIX, describe, _names)
