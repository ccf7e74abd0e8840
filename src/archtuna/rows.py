"""Rows of a model file as templates: values and choices in, rows of an ``Architecture`` out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from archtuna.architecture import Row
from archtuna.choice import Choice, Pick, Slot, read_slot
from archtuna.dialect import from_position, rows_of, scaled_depth, scaled_width
from archtuna.document import Value
from archtuna.errors import nearest
from archtuna.registry import BLOCKS, Block
from archtuna.signature import Bounds, Parameter

MAX_REPEAT = 1_000
REPEAT = Parameter("repeat", int, bounds=Bounds(0, MAX_REPEAT))


@dataclass(frozen=True)
class Multiples:
    """The file's ``depth_multiple`` and ``width_multiple``, resolved."""

    depth: float = 1.0
    width: float = 1.0


@dataclass(frozen=True)
class RowTemplate:
    """One row with its choices.

    Attributes:
        name: its path as choices spell it, ``backbone.3``.
        place: where it stands.
        repeat, module: its first two items.
        positional: arguments of a list, in order.
        named: arguments by name; they win over positional ones.
    """

    name: str
    place: Value
    repeat: Slot
    module: Slot
    positional: tuple[Slot, ...] = ()
    named: Mapping[str, Slot] = field(default_factory=dict)

    def blocks(self) -> list[Block]:
        """The blocks that the module can be."""
        values = self.module.choice.values() if self.module.choice else (self.module.place.scalar,)
        return [BLOCKS[str(value)] for value in values or ()]

    def slots(self, block: Block) -> dict[str, tuple[Slot, bool]]:
        """The slots that count when the module is ``block``, by argument, and whether they are positional."""
        given = {p.name: (slot, True) for p, slot in zip(block.parameters, self.positional, strict=False)}
        return given | {name: (slot, False) for name, slot in self.named.items() if block.parameter(name)}

    def resolve(self, pick: Pick, multiples: Multiples, in_channels: int) -> list[Row]:
        """Return the rows that this one becomes, none where a choice of 0 copies was taken."""
        repeat = REPEAT.coerce(self.repeat.get(pick))
        block = BLOCKS[str(self.module.get(pick))]
        if repeat == 0:
            if self.repeat.choice:
                return []
            repeat = 1
        arguments = self._arguments(block, pick, multiples)
        return rows_of(block, arguments, scaled_depth(repeat, multiples.depth), in_channels)

    def _arguments(self, block: Block, pick: Pick, multiples: Multiples) -> dict[str, Any]:
        slots = self.slots(block)
        arguments: dict[str, Any] = {}
        for parameter in block.parameters:
            if parameter.name not in slots:
                arguments[parameter.name] = (
                    parameter.coerce(parameter.default) if parameter.default is not None else None
                )
                continue
            slot, positional = slots[parameter.name]
            value = _coerced(block, parameter, positional, slot.get(pick))
            if parameter.name == "channels" and block.scaled:
                value = scaled_width(value, multiples.width, positional=positional)
            arguments[parameter.name] = value
        return block.canonical(arguments)

    def check(self) -> None:
        """Check every value that every argument can take under every module.

        Raises:
            SpecError: one is impossible, missing, or unknown to the block.
        """
        self.repeat.check(REPEAT.coerce)
        blocks = self.blocks()
        for name, slot in self.named.items():
            if not any(block.parameter(name) for block in blocks):
                known = sorted({p.name for block in blocks for p in block.parameters})
                hint = nearest(name, known) or f"known: {', '.join(known) or 'none'}"
                raise slot.place.error(f"unknown argument of {' and '.join(b.name for b in blocks)}", hint=hint)
        for block in blocks:
            self._check_block(block)

    def _check_block(self, block: Block) -> None:
        if len(self.positional) > len(block.parameters):
            names = ", ".join(p.name for p in block.parameters)
            raise self.place.error(
                f"{block.name} takes at most {len(block.parameters)} arguments, not {len(self.positional)}",
                hint=f"its arguments: {names}" if names else f"write [{self.repeat.place.scalar}, {block.name}, []]",
            )
        slots = self.slots(block)
        for parameter in block.parameters:
            if parameter.name in slots:
                slot, positional = slots[parameter.name]
                slot.check(partial(_coerced, block, parameter, positional))
            elif parameter.required:
                raise self.place.error(
                    f"{block.name} needs '{parameter.name}' ({parameter.expected})",
                    hint=f"its arguments: {', '.join(p.name for p in block.parameters)}",
                )

    def choices(self) -> Iterator[Choice]:
        """Every choice of the row, in the order in which they are asked."""
        for slot in (self.repeat, self.module, *self.positional, *self.named.values()):
            if slot.choice:
                yield slot.choice

    def size(self, shared: set[str]) -> int:
        """How many ways the row can be resolved, choices of these shared names not counted."""

        def ways(slot: Slot) -> int:
            if slot.choice is None or slot.choice.name in shared:
                return 1
            values = slot.choice.values()
            return len(values) if values is not None else 1

        per_block = [math.prod(ways(slot) for slot, _ in self.slots(block).values()) for block in self.blocks()]
        copies = self.repeat.choice.values() if self.repeat.choice else None
        inside = sum(per_block)
        # A row of no copies is one way, whatever its arguments; the module is asked first and counts.
        if copies and 0 in copies:
            return (ways(self.repeat) - 1) * inside + len(per_block)
        return ways(self.repeat) * inside

    def varied(self, name: str, slot: Slot) -> RowTemplate:
        """Return this row with another value or choice for ``repeat``, ``module`` or an argument."""
        if name == "repeat":
            return replace(self, repeat=slot)
        return self._with_module(slot) if name == "module" else replace(self, named={**self.named, name: slot})

    def _with_module(self, slot: Slot) -> RowTemplate:
        """Name positional arguments by the module that the row had, because another one orders them differently."""
        names = {name: given for name, (given, _) in self.slots(self.blocks()[0]).items()}
        return replace(self, module=slot, positional=(), named=names)

    def fixed(self, name: str) -> Any:
        """The value of an argument that no choice changes under a module that none changes; None otherwise."""
        if self.module.choice:
            return None
        block = self.blocks()[0]
        slot, _ = self.slots(block).get(name, (None, False))
        if slot is not None:
            return None if slot.choice else slot.place.scalar
        parameter = block.parameter(name)
        return None if parameter is None or parameter.required else parameter.default


def _coerced(block: Block, parameter: Parameter, positional: bool, value: Any) -> Any:
    return parameter.coerce(from_position(block, parameter.name, value) if positional else value)


@dataclass(frozen=True)
class AnyTemplate:
    """Alternatives that are whole rows."""

    choice: Choice
    place: Value
    rows: tuple[RowTemplate, ...]

    def resolve(self, pick: Pick, multiples: Multiples, in_channels: int) -> list[Row]:
        assert self.choice.options is not None
        taken = self.choice.options.index(pick(self.choice))
        return self.rows[taken].resolve(pick, multiples, in_channels)

    def choices(self) -> Iterator[Choice]:
        yield self.choice
        for row in self.rows:
            yield from row.choices()

    def size(self, shared: set[str]) -> int:
        return sum(row.size(shared) for row in self.rows)


Template = RowTemplate | AnyTemplate


def read_row(place: Value, name: str, shared: Mapping[str, Choice]) -> Template:
    """Read one element of ``backbone``.

    Raises:
        SpecError: it is no row.
    """
    if place.is_mapping:
        return _read_any(place, name, shared)
    return _read_plain(place, name, shared)


def _read_any(place: Value, name: str, shared: Mapping[str, Choice]) -> AnyTemplate:
    entries = place.entries(("any",))
    alternatives = entries["any"].items() if "any" in entries else []
    if len(alternatives) < 2:
        raise place.error("'any' lists at least two rows")
    rows = tuple(_read_plain(row, f"{name}.any.{i}", shared) for i, row in enumerate(alternatives))
    labels = [str(row.module.choice or row.module.place.scalar) for row in rows]
    options = tuple(label if labels.count(label) == 1 else f"{label}#{i}" for i, label in enumerate(labels))
    return AnyTemplate(Choice(f"{name}.any", "categorical", options), place, rows)


def _read_plain(place: Value, name: str, shared: Mapping[str, Choice]) -> RowTemplate:
    items = place.items()
    if len(items) != 3:
        kindle = len(items) in (4, 5) and (
            items[0].is_list or (items[0].is_scalar and isinstance(items[0].scalar, int))
        )
        raise place.error(
            f"a row has 3 items, not {len(items)}",
            hint="rows of the form [from, repeat, Module, …] are of another dialect, which is not read yet"
            if kindle
            else "write [repeat, Module, [arguments]]",
        )
    repeat = read_slot(items[0].at(f"{place.path}.repeat"), f"{name}.repeat", shared)
    module = _read_module(items[1].at(f"{place.path}.module"), f"{name}.module", shared)
    row = RowTemplate(name, place, repeat, module)
    row = replace(row, **_read_arguments(items[2], row, shared))
    row.check()
    return row


def _read_module(place: Value, name: str, shared: Mapping[str, Choice]) -> Slot:
    slot = read_slot(place, name, shared)
    slot.check(lambda value: _known_module(place, value))
    return slot


def _known_module(place: Value, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be the name of a block, not {value!r}")
    if value not in BLOCKS:
        raise place.error(f"no block is named '{value}'", hint=nearest(value, BLOCKS) or "`archtuna blocks` lists them")
    return value


def _read_arguments(place: Value, row: RowTemplate, shared: Mapping[str, Choice]) -> dict[str, Any]:
    if place.is_mapping:
        entries = place.at(row.place.path).entries()
        return {"named": {name: read_slot(v, f"{row.name}.{name}", shared) for name, v in entries.items()}}
    if place.is_scalar:
        raise place.error(
            "arguments are a list or a mapping", hint="write [repeat, Module, [arguments]], with [] for none"
        )
    names = [p.name for p in row.blocks()[0].parameters]
    slots = []
    for i, value in enumerate(place.items()):
        label = names[i] if i < len(names) else str(i)
        slots.append(read_slot(value.at(f"{row.place.path}.{label}"), f"{row.name}.{label}", shared))
    return {"positional": tuple(slots)}


def selected(row: RowTemplate, index: int, selector: Value) -> bool | None:
    """Return whether a ``vary`` entry means this row: True by name or number, None by a property, else False.

    Raises:
        SpecError: the selector is of no known form.
    """
    term = selector.scalar
    if isinstance(term, int) and not isinstance(term, bool):
        return term == index
    if not isinstance(term, str):
        raise selector.error("must be a module, a row number, stride1, stride2 or all")
    if term == "all":
        return None
    if term in ("stride1", "stride2"):
        return None if _strides(row) == term else False
    if ".." in term:
        low, _, high = term.partition("..")
        if not (low.strip().isdigit() and high.strip().isdigit()):
            raise selector.error(f"'{term}' is no range of rows", hint="write 1..15")
        return None if int(low) <= index <= int(high) else False
    if term not in BLOCKS:
        known = [*BLOCKS, "stride1", "stride2", "all"]
        raise selector.error(
            f"no rows are named '{term}'", hint=nearest(term, known) or "a module, a row number, stride1 or all"
        )
    return any(block.name == term for block in row.blocks())


def _strides(row: RowTemplate) -> str:
    """Classify a row: ``stride1`` keeps the size of a map and sees neighbours, ``stride2`` makes it smaller.

    A pointwise convolution only projects channels; it is no block to repeat, and the classic recipe leaves it alone.
    """
    if row.module.choice:
        return ""
    block = row.blocks()[0]
    if block.parameter("stride") is None:
        return "stride1" if block.wants_channels and block.repeat != "once" else ""
    stride = row.fixed("stride")
    if stride is None:
        return ""
    if stride > 1:
        return "stride2"
    pointwise = block.parameter("kernel") is not None and row.fixed("kernel") == 1
    return "stride1" if block.wants_channels and not pointwise else ""
