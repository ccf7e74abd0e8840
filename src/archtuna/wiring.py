"""How rows are connected: sections of rows, each of which takes the outputs of rows above it.

A section is resolved from its last row backwards: a row asks for what it takes in before it asks for its own values. So only
what leads to the output is resolved, a choice between two branches asks nothing of the one that was not taken, and rows come
out in an order that does not depend on how the file lists its branches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from archtuna.architecture import PICTURE, Row
from archtuna.choice import Choice, Pick, Slot
from archtuna.document import Value
from archtuna.errors import ShapeError
from archtuna.model import Shape, channels_of, joined, survey_row
from archtuna.rows import REPEAT, Multiples, RowTemplate, scaled_depth
from archtuna.ways import Ways, both, either, repeated, ways_of

MAX_UNITS = 3_000
MAX_STEPS = 20_000
MAX_KINDS = 1_000
"""Blocks that differ in arguments or shapes: each takes a millisecond or two to find out about, and no network has as many."""
ENTRY = -1
"""Stands for what a section takes in, where rows say what they take in."""


@dataclass(frozen=True)
class Source:
    """One of the inputs of a row.

    Attributes:
        slot: what the file says, a choice perhaps.
        targets: for every value that can stand there the row of the section, by index, ``ENTRY``, or None for no input.
    """

    slot: Slot
    targets: Mapping[Any, int | None]

    def get(self, pick: Pick) -> int | None:
        return self.targets[self.slot.get(pick)]


class Builder:
    """Collects resolved rows, and follows shapes through them."""

    def __init__(self, picture: Shape) -> None:
        self.rows: list[Row] = []
        self.problem: ShapeError | None = None
        self._shapes: list[Shape] = []
        self._places: list[str] = []
        self._picture = picture
        self._units = 0
        self._steps = 0
        self._kinds: set[int] = set()

    def step(self) -> None:
        """Count a row that is resolved: groups in groups multiply, also where their rows are left out."""
        self._steps += 1
        if self._steps > MAX_STEPS and self.problem is None:
            self.problem = ShapeError(
                f"more than {MAX_STEPS:,} rows, counted as often as their groups repeat", hint="repeat less"
            )

    def shape(self, end: int) -> Shape:
        """Return the shape that a row gives; that of what went in where an earlier row did not fit."""
        return self._picture if end == PICTURE else self._shapes[end]

    def add(self, rows: Iterable[Row], inputs: tuple[int, ...], template: RowTemplate, label: str | None) -> int:
        """Append rows, the first of which takes these inputs, and return the index of the last."""
        end = inputs[0]
        for row in rows if self.problem is None else ():
            shape, end = self._follow(row, inputs, template), len(self.rows)
            wired = None if inputs == (end - 1,) else inputs  # None takes the row before: most do, and it is quicker.
            as_it_is = wired is None and label is None
            self.rows.append(row if as_it_is else Row(row.module, row.arguments, row.repeat, wired, label))
            self._shapes.append(shape)
            self._places.append(template.place.path + (f" ('{label}', {row.module})" if label else f" ({row.module})"))
            inputs = (end,)
        return end

    def _follow(self, row: Row, inputs: tuple[int, ...], template: RowTemplate) -> Shape:
        """Return the shape behind a row. After a problem the rest is still asked for its choices, and shapes mean nothing."""
        index, shapes = len(self.rows), tuple(map(self.shape, inputs))
        self._units += row.repeat
        if self._units > MAX_UNITS and self.problem is None:
            self.problem = ShapeError(f"more than {MAX_UNITS:,} blocks", row=index, hint="repeat less")
        if self.problem is not None:
            return shapes[0]
        try:
            for _ in range(row.repeat):
                facts = survey_row(row, shapes, index)
                self._kinds.add(id(facts))
                shapes = (facts.output,)
            if len(self._kinds) > MAX_KINDS:
                raise ShapeError(f"more than {MAX_KINDS:,} different blocks", row=index, hint="repeat less")
            return shapes[0]
        except ShapeError as error:
            sources = ["the picture" if i == PICTURE else self._places[i] for i in inputs]
            told = joined(error, sources, shapes) if len(shapes) > 1 else error
            self.problem = ShapeError(str(template.place.error(told.message)), row=told.row, hint=told.hint)
            return shapes[0]


def _ways_of(sources: Iterable[Source], shared: set[str]) -> Ways:
    return ways_of((choice for source in sources for choice in source.slot.choices()), shared)


@dataclass(frozen=True)
class Node:
    """A row of a section, with what it takes in.

    Attributes:
        row: the row.
        taken: what it takes in; nothing for the row before.
    """

    row: RowTemplate
    taken: tuple[Source, ...] = ()

    @property
    def place(self) -> Value:
        return self.row.place

    def sources(self, pick: Pick) -> tuple[Source, ...]:
        return self.taken

    def is_left_out(self, pick: Pick) -> bool:
        return self.row.can_vanish and self.row.repeat.get(pick) == 0

    def all_sources(self) -> Iterator[tuple[Source, ...]]:
        yield self.taken

    def emit(
        self, pick: Pick, multiples: Multiples, builder: Builder, inputs: tuple[int, ...], label: str | None
    ) -> int:
        builder.step()
        channels = tuple(channels_of(builder.shape(i)) for i in inputs)
        rows = self.row.resolve(pick, multiples, channels[0] if len(channels) == 1 else channels)
        # What joins nothing is nothing: one input is passed on.
        if not rows or (len(inputs) == 1 and self.row.block(pick).joins):
            return inputs[0]
        return builder.add(rows, inputs, self.row, label)

    def plain(self) -> Iterator[RowTemplate]:
        yield self.row

    def choices(self) -> Iterator[Choice]:
        yield from (choice for source in self.taken for choice in source.slot.choices())
        yield from self.row.choices()

    def ways(self, shared: set[str]) -> Ways:
        return both(_ways_of(self.taken, shared), self.row.ways(shared))

    def mapped(self, change: Callable[[RowTemplate], RowTemplate]) -> Node:
        return replace(self, row=change(self.row))


@dataclass(frozen=True)
class Group:
    """Rows that are repeated together; what it takes in goes to the first of them.

    Attributes:
        section: the rows.
        repeat: how often.
        taken: what it takes in; nothing for the row before.
        place: where it stands.
        scaled: whether the file's multiples apply to it.
        whole: whether the depth multiple applies to its own repeat alone, and never to the repeats inside.
    """

    section: Section
    repeat: Slot
    place: Value
    taken: tuple[Source, ...] = ()
    scaled: bool = True
    whole: bool = False

    def sources(self, pick: Pick) -> tuple[Source, ...]:
        return self.taken

    def is_left_out(self, pick: Pick) -> bool:
        return self.repeat.choice is not None and self.repeat.get(pick) == 0

    def all_sources(self) -> Iterator[tuple[Source, ...]]:
        yield self.taken

    def emit(
        self, pick: Pick, multiples: Multiples, builder: Builder, inputs: tuple[int, ...], label: str | None
    ) -> int:
        repeat = REPEAT.coerce(self.repeat.get(pick))
        depth = multiples.depth if self.scaled else 1.0
        copies = 0 if repeat == 0 and self.repeat.choice else scaled_depth(max(repeat, 1), depth)
        # Where the multiple has scaled the repeat of the whole, a second time would be twice.
        inside = multiples if not self.whole and repeat <= 1 else Multiples(1.0, multiples.width)
        end = inputs[0]
        for n in range(copies):
            if n and builder.problem is not None:
                break  # Every choice in it was asked once, and there is no network to build.
            end = self.section.emit(pick, inside, builder, end, label if n == copies - 1 else None)
        return end

    def plain(self) -> Iterator[RowTemplate]:
        yield from self.section.plain()

    def choices(self) -> Iterator[Choice]:
        yield from (choice for source in self.taken for choice in source.slot.choices())
        yield from self.repeat.choices()
        yield from self.section.choices()

    def ways(self, shared: set[str]) -> Ways:
        return both(_ways_of(self.taken, shared), repeated(self.repeat, self.section.ways(shared), shared))

    def mapped(self, change: Callable[[RowTemplate], RowTemplate]) -> Group:
        return replace(self, section=self.section.mapped(change))


@dataclass(frozen=True)
class Alternatives:
    """Rows, or groups of them, one of which is taken.

    Attributes:
        choice: which; its options name the members in order.
        members: the alternatives; what one of them takes in by itself stands in for ``taken``.
        taken: what the others take in; nothing for the row before.
        place: where it stands.
    """

    choice: Choice
    members: tuple[Node | Group, ...]
    place: Value
    taken: tuple[Source, ...] = ()

    def _member(self, pick: Pick) -> Node | Group:
        assert self.choice.options is not None
        return self.members[self.choice.options.index(pick(self.choice))]

    def sources(self, pick: Pick) -> tuple[Source, ...]:
        return self._member(pick).sources(pick) or self.taken

    def is_left_out(self, pick: Pick) -> bool:
        return self._member(pick).is_left_out(pick)

    def all_sources(self) -> Iterator[tuple[Source, ...]]:
        yield from (member.taken or self.taken for member in self.members)

    def emit(
        self, pick: Pick, multiples: Multiples, builder: Builder, inputs: tuple[int, ...], label: str | None
    ) -> int:
        return self._member(pick).emit(pick, multiples, builder, inputs, label)

    def plain(self) -> Iterator[RowTemplate]:
        for member in self.members:
            yield from member.plain()

    def choices(self) -> Iterator[Choice]:
        yield self.choice
        yield from (choice for source in self.taken for choice in source.slot.choices())
        for member in self.members:
            yield from member.choices()

    def ways(self, shared: set[str]) -> Ways:
        own = _ways_of(self.taken, shared)
        found: Ways = {}
        for member in self.members:
            ways = member.ways(shared)
            found = either(found, ways if member.taken else both(own, ways))
        return found

    def mapped(self, change: Callable[[RowTemplate], RowTemplate]) -> Alternatives:
        return replace(self, members=tuple(member.mapped(change) for member in self.members))


@dataclass(frozen=True)
class Section:
    """Rows that are connected to each other; the last one's output is the section's.

    Attributes:
        templates: the rows, in the file's order.
        labels: what each is called, or None.
    """

    templates: tuple[Template, ...]
    labels: tuple[str | None, ...] = field(default=())

    def emit(
        self, pick: Pick, multiples: Multiples, builder: Builder, entry: int = PICTURE, label: str | None = None
    ) -> int:
        """Add the rows that lead to the output to the builder, and return the index of the one that gives it."""
        ends: dict[int, int] = {ENTRY: entry}
        waiting = [*self._loose, len(self.templates) - 1]
        waiting.reverse()
        while waiting:
            index = waiting[-1]
            if index in ends:
                waiting.pop()
                continue
            sources = self._sources(index, pick)
            missing = [i for i in sources if i not in ends]
            if missing:
                waiting += reversed(missing)
                continue
            waiting.pop()
            inputs = tuple(ends[i] for i in sources)
            name = self.labels[index] or (label if index == len(self.templates) - 1 else None)
            ends[index] = self.templates[index].emit(pick, multiples, builder, inputs, name)
        return ends[len(self.templates) - 1]

    def _sources(self, index: int, pick: Pick) -> tuple[int, ...]:
        """Return the rows that a row takes in: those that are chosen, or the one before it."""
        template = self.templates[index]
        given = [source.get(pick) for source in template.sources(pick)]
        taken = tuple(i for i in given if i is not None) or (index - 1,)
        # What only stands in for a row that is left out is all that has to be there.
        return taken[:1] if len(taken) > 1 and template.is_left_out(pick) else taken

    @cached_property
    def _loose(self) -> tuple[int, ...]:
        """The rows that nothing can ever take from, the last one left out: they are built as the file has them."""
        used = {ENTRY, len(self.templates) - 1}
        for index, template in enumerate(self.templates):
            for sources in template.all_sources():
                used |= {i for source in sources for i in source.targets.values() if i is not None}
                if not sources:
                    used.add(index - 1)
        return tuple(i for i in range(len(self.templates)) if i not in used)

    @property
    def loose(self) -> list[Template]:
        """The rows that nothing can ever take from."""
        return [self.templates[i] for i in self._loose]

    def plain(self) -> Iterator[RowTemplate]:
        """Every row, those of groups and alternatives included."""
        for template in self.templates:
            yield from template.plain()

    def choices(self) -> Iterator[Choice]:
        """Every choice in the file's order, shared ones as often as they stand there."""
        for template in self.templates:
            yield from template.choices()

    def ways(self, shared: set[str]) -> Ways:
        """How the rows can be resolved, choices of these names being shared with others."""
        found: Ways = {frozenset(): 1}
        for template in self.templates:
            found = both(found, template.ways(shared))
        return found

    def mapped(self, change: Callable[[RowTemplate], RowTemplate]) -> Section:
        """The same with each of its rows changed."""
        return replace(self, templates=tuple(template.mapped(change) for template in self.templates))


Template = Node | Group | Alternatives
"""What stands at one place of a section. Each can say

- ``sources(pick)``: what it takes in, after the choices that decide on it; nothing for the row before;
- ``all_sources()``: what it can take in, for each of its alternatives;
- ``is_left_out(pick)``: whether a choice of no copies was taken: then its first input stands in for it;
- ``emit(…)``: adds its rows to a builder, and returns the index of the row that gives its output;
- ``plain()``, ``choices()``, ``ways(shared)``, ``mapped(change)``: its rows, its choices in the order in which they are
  asked, the ways to resolve it, and itself with each row changed.
"""
