"""Rows of a model file as templates: values and choices in, rows of an ``Architecture`` out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from archtuna.architecture import Row
from archtuna.choice import Answered, AnySlot, Choice, Pick, Slot, check
from archtuna.dialect import CLASSIC, Dialect, rows_of, scaled_depth
from archtuna.document import Value
from archtuna.errors import nearest
from archtuna.registry import BLOCKS, Block
from archtuna.signature import Bounds, Parameter
from archtuna.ways import Ways, answered, both, either, repeated, ways_of

MAX_REPEAT = 1_000
REPEAT = Parameter("repeat", int, bounds=Bounds(0, MAX_REPEAT))


@dataclass(frozen=True)
class Multiples:
    """The file's ``depth_multiple`` and ``width_multiple``, resolved."""

    depth: float = 1.0
    width: float = 1.0


Placed = tuple[AnySlot, Block | None]
"""The slot of an argument, and the block in whose list it stands; None for one that is named."""


@dataclass(frozen=True)
class RowTemplate:
    """One row with its choices.

    Attributes:
        name: its path as choices spell it, ``backbone.3``.
        place: where it stands.
        repeat, module: its first two items.
        positional: arguments of a list, in order.
        named: arguments by name; they win over positional ones.
        dialect: how its arguments are read.
        scaled: whether the file's multiples apply to it.
        listed: of the named arguments those that stand in a list in the file, with the block that the list was written for:
            they keep the meaning that they have there.
    """

    name: str
    place: Value
    repeat: Slot
    module: Slot
    positional: tuple[AnySlot, ...] = ()
    named: Mapping[str, AnySlot] = field(default_factory=dict)
    dialect: Dialect = CLASSIC
    scaled: bool = True
    listed: Mapping[str, Block] = field(default_factory=dict)
    _known: Answered[tuple[Row, ...]] = field(default_factory=Answered, init=False, repr=False, compare=False)

    @property
    def label(self) -> str:
        """What the row is, in a word."""
        return str(self.module.choice or self.module.value)

    def blocks(self) -> list[Block]:
        """The blocks that the module can be."""
        return [BLOCKS[str(value)] for value in self.module.candidates()]

    def slots(self, block: Block) -> dict[str, Placed]:
        """The slots that count when the module is ``block``, by argument, and the block in whose list each stands, if any."""
        given = self._written(block)
        return self.dialect.implied(block, given) | given

    def _written(self, block: Block) -> dict[str, Placed]:
        """The slots without those that others imply."""
        order = self.dialect.order(block, self._given())
        given: dict[str, Placed] = {p.name: (slot, block) for p, slot in zip(order, self.positional, strict=False) if p}
        for name, slot in self.named.items():
            parameter = self.dialect.parameter(block, name)
            if parameter:
                given[parameter.name] = (slot, self.listed.get(name))
        return given

    def _given(self) -> list[Any]:
        return [slot.value if isinstance(slot, Slot) else None for slot in self.positional]

    @property
    def can_vanish(self) -> bool:
        """Whether a choice may leave the row out."""
        return self.repeat.choice is not None and 0 in self.repeat.candidates()

    def copies(self, pick: Pick, multiples: Multiples) -> int:
        """Return how many copies there are, 0 where a choice of none was taken."""
        repeat = REPEAT.coerce(self.repeat.get(pick))
        if repeat == 0:
            return 0 if self.repeat.choice else 1
        return scaled_depth(repeat, multiples.depth if self.scaled else 1.0)

    def block(self, pick: Pick) -> Block:
        """Return the block that the module is."""
        return BLOCKS[str(self.module.get(pick))]

    def resolve(self, pick: Pick, multiples: Multiples, in_channels: Any) -> tuple[Row, ...]:
        """Return the rows that this one becomes, none where a choice of 0 copies was taken.

        Samplers look at thousands of networks that share most of their rows, so what became of a row is remembered.

        Args:
            pick: answers choices.
            multiples: of the file.
            in_channels: of what the row takes in.
        """
        resolve = partial(self._resolve, multiples=multiples, in_channels=in_channels)
        return self._known.get((multiples, in_channels), pick, resolve)

    def _resolve(self, pick: Pick, multiples: Multiples, in_channels: Any) -> tuple[Row, ...]:
        copies = self.copies(pick, multiples)
        if copies == 0:
            # Which module it would have been is asked all the same, in the order of the file.
            self.block(pick)
            return ()
        block = self.block(pick)
        arguments = self._arguments(block, pick, multiples)
        return tuple(rows_of(block, arguments, copies, in_channels))

    def _arguments(self, block: Block, pick: Pick, multiples: Multiples) -> dict[str, Any]:
        slots = self.slots(block)
        arguments: dict[str, Any] = {}
        for parameter in block.parameters:
            if parameter.name not in slots:
                default = parameter.default
                arguments[parameter.name] = default if default is None else parameter.coerce(default)
                continue
            slot, listed = slots[parameter.name]
            value = self._coerced(block, parameter, listed, slot.get(pick))
            if parameter.name == block.scaled_argument:
                width = multiples.width if self.scaled else 1.0
                value = self.dialect.width(value, width, positional=listed is not None)
            arguments[parameter.name] = value
        return arguments

    def _coerced(self, block: Block, parameter: Parameter, listed: Block | None, value: Any) -> Any:
        meant = self.dialect.value(listed or block, parameter.name, value, positional=listed is not None)
        if meant is None and not parameter.optional:
            meant = value  # A list for Conv leaves a padding of 0 open, and a pool cannot: there 0 is 0.
        return parameter.coerce(meant)

    def check(self) -> None:
        """Check every value that every argument can take under every module.

        Raises:
            SpecError: one is impossible, missing, or unknown to the block.
        """
        check(self.repeat, REPEAT.coerce)
        blocks = self.blocks()
        for name, slot in self.named.items():
            if not any(self.dialect.parameter(block, name) for block in blocks):
                known = sorted({p.name for block in blocks for p in block.parameters})
                hint = nearest(name, known) or f"known: {', '.join(known) or 'none'}"
                raise slot.place.error(f"unknown argument of {' and '.join(b.name for b in blocks)}", hint=hint)
        for block in blocks:
            self._check_block(block)
        self._check_names()

    def _check_names(self) -> None:
        """A list's place is named by its first block: under another one an argument of that name may be a second choice."""
        found: dict[str, Choice] = {}
        for choice in self.choices():
            if found.setdefault(choice.name, choice) != choice:
                raise self.place.error(
                    f"two choices are named '{choice.name}'", hint="write the row's arguments by name, not as a list"
                )

    def _check_block(self, block: Block) -> None:
        order = self.dialect.order(block, self._given())
        if len(self.positional) > len(order):
            names = ", ".join(p.name for p in order if p)
            raise self.place.error(
                f"{block.name} takes at most {len(order)} arguments, not {len(self.positional)}",
                hint=f"its arguments: {names}" if names else f"write [{self.repeat.value}, {block.name}, []]",
            )
        slots = self.slots(block)
        for parameter in block.parameters:
            if parameter.name in slots:
                slot, listed = slots[parameter.name]
                check(slot, partial(self._coerced, block, parameter, listed))
            elif parameter.required:
                raise self.place.error(
                    f"{block.name} needs '{parameter.name}' ({parameter.expected})",
                    hint=f"its arguments: {', '.join(p.name for p in block.parameters)}",
                )

    def choices(self) -> Iterator[Choice]:
        """Every choice of the row that can be asked, in the file's order: one that another took the place of never is."""
        counting = {id(slot) for block in self.blocks() for slot, _ in self.slots(block).values()}
        for slot in (self.repeat, self.module, *self.positional, *self.named.values()):
            if id(slot) in counting or slot is self.repeat or slot is self.module:
                yield from slot.choices()

    def ways(self, shared: set[str]) -> Ways:
        """How the row can be resolved, choices of these names being shared with others."""
        found: Ways = {}
        for block in self.blocks():
            arguments = ways_of((c for slot, _ in self.slots(block).values() for c in slot.choices()), shared)
            # Which module it would be is asked without copies too, what its arguments would be is not.
            copies = repeated(self.repeat, arguments, shared)
            found = either(found, both(answered(self.module.choice, block.name, 1, shared), copies))
        return found

    def varied(self, name: str, slot: AnySlot) -> RowTemplate:
        """Return this row with another value or choice for ``repeat``, ``module`` or an argument."""
        if name in ("repeat", "module"):
            assert isinstance(slot, Slot)
            return replace(self, repeat=slot) if name == "repeat" else self._with_module(slot)
        listed = {other: block for other, block in self.listed.items() if other != name}
        return replace(self, named={**self.named, name: slot}, listed=listed)

    def _with_module(self, slot: Slot) -> RowTemplate:
        """Name positional arguments by the module that the row had, because another one orders them differently."""
        written = self._written(self.blocks()[0])
        listed = {name: block for name, (_, block) in written.items() if block}
        names = {name: given for name, (given, _) in written.items()}
        return replace(self, module=slot, positional=(), named=names, listed=listed)

    def fixed(self, name: str) -> Any:
        """The value of an argument that no choice changes under a module that none changes; None otherwise."""
        if self.module.choice:
            return None
        block = self.blocks()[0]
        slot, _ = self.slots(block).get(name, (None, None))
        if slot is not None:
            return slot.value if isinstance(slot, Slot) and not slot.choice else None
        parameter = block.parameter(name)
        return None if parameter is None or parameter.required else parameter.default


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
    if not isinstance(stride, int):
        return ""
    if stride > 1:
        return "stride2"
    pointwise = block.parameter("kernel") is not None and row.fixed("kernel") == 1
    return "stride1" if block.wants_channels and not pointwise else ""
