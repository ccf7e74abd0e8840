"""Typed, bounded parameters read from a signature: the schema of blocks, training values and file sections.

A constructor's annotations say what a value may be::

    def __init__(self, in_channels: int, channels: Count, kernel: Count, expansion: Positive = 0.5): ...

``Parameter.coerce`` turns what a file holds into exactly one spelling (``2`` and ``2.0`` for a float are ``2.0``), which
is what makes the keys of architectures canonical.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

REQUIRED: Any = inspect.Parameter.empty


@dataclass(frozen=True)
class Bounds:
    """Inclusive limits of a number; with ``above`` the lower one is excluded."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False

    def admits(self, value: float) -> bool:
        return (value > self.low if self.above else value >= self.low) and value <= self.high

    def __str__(self) -> str:
        low = "" if self.low == -math.inf else f"above {self.low:g}" if self.above else f"at least {self.low:g}"
        high = "" if self.high == math.inf else f"at most {self.high:g}"
        return " and ".join(part for part in (low, high) if part)


# A bound on every size keeps a typo such as 100000 channels from taking all memory before anyone can read the error.
Count = Annotated[int, Bounds(1, 65_536)]
Index = Annotated[int, Bounds(0, 65_536)]
Positive = Annotated[float, Bounds(0, 1e6, above=True)]
NotNegative = Annotated[float, Bounds(0, 1e6)]
Fraction = Annotated[float, Bounds(0, 1)]
Activation = typing.NewType("Activation", str)
RELU = Activation("ReLU")

# Names of torch.nn's classes that need no argument, by lower case; the last three are the classic dialect's spellings.
ACTIVATIONS: Mapping[str, str] = {
    name.lower(): name
    for name in (
        "CELU", "ELU", "GELU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyReLU", "LogSigmoid",
        "LogSoftmax", "Mish", "PReLU", "ReLU", "ReLU6", "RReLU", "SELU", "SiLU", "Sigmoid", "Softmax", "Softplus",
        "Softshrink", "Softsign", "Tanh", "Tanhshrink",
    )
} | {"hardswish": "Hardswish", "hardsigmoid": "Hardsigmoid", "swish": "SiLU"}  # fmt: skip


@dataclass(frozen=True)
class Parameter:
    """One named value: its type, whether it may be null, its bounds or options, and its default."""

    name: str
    type: type
    default: Any = REQUIRED
    optional: bool = False
    bounds: Bounds | None = None
    options: tuple[Any, ...] = ()

    @property
    def required(self) -> bool:
        return self.default is REQUIRED

    def coerce(self, value: object) -> Any:
        """Return ``value`` as this parameter's one spelling.

        Raises:
            ValueError: the value is of another type or out of bounds; the text says what is expected.
        """
        if value is None:
            if self.optional:
                return None
            raise ValueError(f"must be {self.expected}, not null")
        if self.options:
            return self._coerce_option(value)
        if self.type is Activation:
            return self._coerce_activation(value)
        converted = _CONVERTERS[self.type](value)
        if converted is None or (self.bounds and not self.bounds.admits(converted)):
            raise ValueError(f"must be {self.expected}, not {value!r}")
        return converted

    def _coerce_option(self, value: object) -> Any:
        for option in self.options:
            if str(option).lower() == str(value).lower():
                return option
        raise ValueError(f"must be {self.expected}, not {value!r}")

    def _coerce_activation(self, value: object) -> str | None:
        name = str(value).lower()
        if name == "identity":
            return None
        if name in ACTIVATIONS:
            return ACTIVATIONS[name]
        hint = ": write null for no activation" if name == "none" else ""
        raise ValueError(f"must be {self.expected}, not {value!r}{hint}")

    @property
    def expected(self) -> str:
        """What a value must be, in words."""
        if self.options:
            words = "one of " + ", ".join(str(option) for option in self.options)
        else:
            words = " of ".join(part for part in (_WORDS[self.type], str(self.bounds or "")) if part)
        return f"{words} or null" if self.optional else words


def parameters_of(target: Callable[..., Any], *, skip: tuple[str, ...] = ()) -> tuple[Parameter, ...]:
    """Return the parameters of a class or function, in order, without those named in ``skip``.

    Raises:
        TypeError: an annotation that no file could fill (``*args`` and ``**kwargs`` are passed over).
    """
    function = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = list(inspect.signature(target).parameters.values())
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return tuple(
        _read(p.name, hints.get(p.name, type(p.default)), p.default)
        for p in parameters
        if p.name not in skip and p.kind not in kinds
    )


def parameters_of_dataclass(target: type) -> tuple[Parameter, ...]:
    """Return the fields of a dataclass as parameters."""
    hints = typing.get_type_hints(target, include_extras=True)
    return tuple(
        _read(field.name, hints[field.name], REQUIRED if field.default is dataclasses.MISSING else field.default)
        for field in dataclasses.fields(target)
    )


def _read(name: str, annotation: Any, default: Any) -> Parameter:
    bounds, options, optional = None, (), default is None
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        members = [a for a in typing.get_args(annotation) if a is not type(None)]
        if len(members) != 1:
            raise TypeError(f"parameter '{name}': {annotation} is not one type")
        optional, annotation = True, members[0]
    if typing.get_origin(annotation) is Annotated:
        annotation, *extra = typing.get_args(annotation)
        bounds = next((e for e in extra if isinstance(e, Bounds)), None)
    if typing.get_origin(annotation) is Literal:
        options, annotation = typing.get_args(annotation), str
    if annotation not in _CONVERTERS and annotation is not Activation:
        raise TypeError(f"parameter '{name}': {annotation} cannot be written in a file (int, float, bool, str can)")
    return Parameter(name, annotation, default, optional, bounds, options)


def _to_int(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if math.isfinite(value) and value == int(value) else None


def _to_float(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _to_bool(value: object) -> bool | None:
    # YAML 1.1, in which most files were written, read these words as truth values.
    word = {"yes": True, "on": True, "no": False, "off": False}.get(value.lower()) if isinstance(value, str) else None
    return bool(value) if isinstance(value, bool | int) and value in (0, 1) else word


def _to_str(value: object) -> str | None:
    return value if isinstance(value, str) else None


_CONVERTERS: Mapping[type, Callable[[object], Any]] = {int: _to_int, float: _to_float, bool: _to_bool, str: _to_str}
_WORDS: Mapping[type, str] = {
    int: "a whole number", float: "a number", bool: "true or false (1 or 0)", str: "a text",
    Activation: "the name of an activation such as ReLU, Hardswish or SiLU",
}  # fmt: skip
