"""Typed, bounded parameters read from a signature: the schema of blocks, training values and file sections.

A constructor's annotations say what a value may be::

    def __init__(self, in_channels: int, channels: Count, kernel: Count, expansion: Positive = 0.5): ...

``Parameter.coerce`` turns what a file holds into exactly one spelling (``2`` and ``2.0`` for a float are ``2.0``), which
is what makes the keys of architectures canonical.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from archtuna.errors import Misfit, brief, nearest

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
PAIR = "or a pair"
Side = Annotated[int, Bounds(1, 65_536), PAIR]
"""A kernel or stride: one number for both axes, or [height, width]."""
Padding = Annotated[int, Bounds(0, 65_536), PAIR]
Positive = Annotated[float, Bounds(0, 1e6, above=True)]
NotNegative = Annotated[float, Bounds(0, 1e6)]
Fraction = Annotated[float, Bounds(0, 1)]
Plain = typing.NewType("Plain", object)
"""Whatever a file can hold: a number, a text, a truth value, null, or a list of these."""

MAX_LIST = 64
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
    """One named value: its type, whether it may be null, its bounds or options, and its default.

    ``many`` is for a list of such values; ``pair`` for one value that may also be written as two, for height and width.
    """

    name: str
    type: type
    default: Any = REQUIRED
    optional: bool = False
    bounds: Bounds | None = None
    options: tuple[Any, ...] = ()
    many: bool = False
    pair: bool = False

    @property
    def required(self) -> bool:
        return self.default is REQUIRED

    def coerce(self, value: object) -> Any:
        """Return ``value`` as this parameter's one spelling.

        Raises:
            Misfit: the value is of another type or out of bounds; the text says what is expected.
        """
        if value is None:
            if self.optional:
                return None
            raise Misfit(f"must be {self.expected}, not null")
        if self.many:
            return tuple(self._coerce_one(one) for one in self._items(value))
        if self.pair and isinstance(value, list | tuple) and len(value) in (1, 2):
            height, width = map(self._coerce_one, (value[0], value[-1]))
            return height if height == width else (height, width)
        return self._coerce_one(value)

    def _coerce_one(self, value: object) -> Any:
        if self.options:
            return self._coerce_option(value)
        if self.type is Activation:
            return self._coerce_activation(value)
        converted = _CONVERTERS[self.type](value)
        if converted is None or (self.bounds and not self.bounds.admits(converted)):
            hint = "write null for none" if value == "None" and self.optional else None
            raise Misfit(f"must be {self.expected}, not {brief(value)}", hint)
        return converted

    def _items(self, value: object) -> list[object]:
        """Return the elements of a list; ``3+5+7`` is one written as a single value, so that it can be an option."""
        if isinstance(value, str) and "+" in value:
            value = [_number(part) for part in value.split("+")]
        items = list(value) if isinstance(value, list | tuple) else [value]
        if not 0 < len(items) <= MAX_LIST:
            raise Misfit(f"must be {self.expected}, not {len(items)} values")
        return items

    def _coerce_option(self, value: object) -> Any:
        for option in self.options:
            if str(option).lower() == str(value).lower():
                return option
        raise Misfit(f"must be {self.expected}, not {brief(value)}", nearest(value, map(str, self.options)))

    def _coerce_activation(self, value: object) -> str | None:
        name = str(value).lower()
        if name == "identity":
            return None
        if name in ACTIVATIONS:
            return ACTIVATIONS[name]
        hint = "write null for no activation" if name == "none" else nearest(name, ACTIVATIONS.values())
        raise Misfit(f"must be {self.expected}, not {brief(value)}", hint)

    @property
    def expected(self) -> str:
        """What a value must be, in words."""
        if self.options:
            words = "one of " + ", ".join(str(option) for option in self.options)
        else:
            words = " of ".join(part for part in (_WORDS[self.type], str(self.bounds or "")) if part)
        words = (
            f"a list, each {words}" if self.many else f"{words}, or two for height and width" if self.pair else words
        )
        return f"{words} or null" if self.optional else words


def parameters_of(target: Callable[..., Any], *, skip: tuple[str, ...] = ()) -> tuple[Parameter, ...]:
    """Return the parameters of a class or function that a file can fill, in order, without those named in ``skip``.

    ``*args``, ``**kwargs`` and parameters that no file could hold but have a default (``norm_layer=nn.BatchNorm2d``) are
    passed over. One without an annotation takes the type of its default, or whatever a file can hold.

    Raises:
        TypeError: a required parameter is annotated with something that no file could hold.
    """
    function = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except NameError:  # A name that is imported for type checkers only; what defaults say has to do.
        hints = {}
    found = []
    for p in inspect.signature(target).parameters.values():
        if p.name in skip or p.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            continue
        try:
            found.append(_read(p.name, hints.get(p.name, _type_of(p.default)), p.default))
        except TypeError:
            if p.default is REQUIRED:
                raise
    return tuple(found)


def _type_of(default: Any) -> Any:
    """Return the type that a default tells of a parameter without an annotation."""
    if default is REQUIRED or default is None:
        return Plain
    if isinstance(default, list | tuple) and default and isinstance(default[0], int | float | str):
        return tuple[type(default[0]), ...]  # type: ignore[misc]
    return type(default)


def parameters_of_dataclass(target: type) -> tuple[Parameter, ...]:
    """Return the fields of a dataclass as parameters."""
    hints = typing.get_type_hints(target, include_extras=True)
    return tuple(
        _read(field.name, hints[field.name], REQUIRED if field.default is dataclasses.MISSING else field.default)
        for field in dataclasses.fields(target)
    )


def _read(name: str, annotation: Any, default: Any) -> Parameter:
    bounds, options, optional, many, pair = None, (), default is None, False, False
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        members = [a for a in typing.get_args(annotation) if a is not type(None)]
        optional = optional or len(members) < len(typing.get_args(annotation))
        annotation = members[0] if len(members) == 1 else _common(name, members)
    if typing.get_origin(annotation) in (tuple, list, collections.abc.Sequence):
        many, annotation = True, typing.get_args(annotation)[0]
    if typing.get_origin(annotation) is Annotated:
        annotation, *extra = typing.get_args(annotation)
        bounds, pair = next((e for e in extra if isinstance(e, Bounds)), None), PAIR in extra
    if typing.get_origin(annotation) is Literal:
        options, annotation = typing.get_args(annotation), str
    if annotation in (Any, object):
        annotation = Plain
    if annotation is Plain:
        return Parameter(name, Plain, default, optional=True)
    if annotation not in _CONVERTERS:
        raise TypeError(
            f"parameter '{name}': {annotation} cannot be written in a file (int, float, bool, str and lists of them can)"
        )
    default = tuple(default) if many and isinstance(default, list) else default
    return Parameter(name, annotation, default, optional, bounds, options, many, pair)


def _common(name: str, members: list[Any]) -> Any:
    """Return what stands for a union such as ``int | tuple[int, int]``: anything plain, when each member is."""
    for member in members:
        _read(name, member, REQUIRED)
    return Plain


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


def _to_plain(value: object) -> Any:
    if isinstance(value, list | tuple):
        items = [_to_plain(item) for item in value]
        return tuple(items) if len(items) <= MAX_LIST else None
    if isinstance(value, float) and value.is_integer():
        return int(value)  # One spelling, of which Python and torch think alike.
    # nan is no value of a network, and no two of them are equal.
    return value if isinstance(value, int | str) or (isinstance(value, float) and math.isfinite(value)) else None


def _number(text: str) -> object:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text.strip()


_CONVERTERS: Mapping[Any, Callable[[object], Any]] = {
    int: _to_int, float: _to_float, bool: _to_bool, str: _to_str, Plain: _to_plain, Activation: str,
}  # fmt: skip
_WORDS: Mapping[Any, str] = {
    int: "a whole number", float: "a number", bool: "true or false (1 or 0)", str: "a text",
    Plain: "a number, a text, a truth value or a list of these",
    Activation: "the name of an activation such as ReLU, Hardswish or SiLU",
}  # fmt: skip
