"""Rows of the classic dialect and of our own form, read into sections.

A row is ``[repeat, Module, arguments]``. In our own form it may have a fourth item, ``{name: …, from: …}``, which may also
stand among named arguments, and may be written as a mapping: ``{repeat, module, arguments, name, from}``, ``{any: [row, …]}``
for alternatives, ``{rows: [row, …], repeat}`` for rows that are repeated together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from archtuna.architecture import INPUT
from archtuna.choice import Choice, Slot, check, fixed, read_argument, read_slot
from archtuna.dialect import ALIASES
from archtuna.document import Value
from archtuna.errors import brief, nearest
from archtuna.registry import BLOCKS
from archtuna.rows import REPEAT, RowTemplate
from archtuna.wiring import ENTRY, Alternatives, Group, Node, Section, Source, Template

PREVIOUS = "previous"
MAX_ROWS = 3_000
_NAME = re.compile(r"[A-Za-z_][\w-]*")
_CONNECTION = ("name", "from")
_FORMS = {
    "module": ("repeat", "module", "arguments", "name", "from"),
    "row": ("row", "name", "from"),
    "any": ("any", "name", "from"),
    "rows": ("rows", "repeat", "name", "from"),
}


@dataclass(frozen=True)
class _Parts:
    """A row as it is written, before its values are looked at."""

    place: Value
    form: str
    repeat: Value | None = None
    module: Value | None = None
    arguments: Value | None = None
    inner: Value | None = None
    label: str | None = None
    taken: Value | None = None


def read_section(rows: Value, name: str, shared: Mapping[str, Choice]) -> Section:
    """Read a list of rows.

    Args:
        rows: the list.
        name: what choices in it are called by: ``backbone``.
        shared: the file's ``choices``.

    Raises:
        SpecError: one of them is no row.
    """
    items = rows.items()
    if not items:
        raise rows.error("no rows")
    if len(items) > MAX_ROWS:
        raise rows.error(f"{len(items):,} rows; at most {MAX_ROWS:,} are read")
    parts = [_parts(item) for item in items]
    below = _labels(parts)
    templates: list[Template] = []
    labels: dict[str, int] = {}
    for index, part in enumerate(parts):
        scope = _Scope(shared, labels, below, index)
        templates.append(_template(part, f"{name}.{index}", scope))
        if part.label is not None:
            labels[part.label] = index
    return Section(tuple(templates), tuple(part.label for part in parts))


@dataclass(frozen=True)
class _Scope:
    """What a row can name: shared choices, rows above it, and, for a better error, rows below."""

    shared: Mapping[str, Choice]
    labels: Mapping[str, int]
    below: Sequence[str]
    index: int


def _parts(place: Value) -> _Parts:
    if place.is_mapping:
        return _mapped_parts(place)
    items = place.items()
    if len(items) not in (3, 4) or (len(items) == 4 and not items[3].is_mapping):
        raise place.error(f"a row has 3 items, not {len(items)}", hint="write [repeat, Module, [arguments]]")
    repeat, module, arguments = items[:3]
    more = items[3].at(place.path).entries(_CONNECTION) if len(items) == 4 else {}
    arguments, among = _without_connection(place, module, arguments)
    return _connected(_Parts(place, "row", repeat, module, arguments), more, among)


def _without_connection(place: Value, module: Value, arguments: Value) -> tuple[Value, dict[str, Value]]:
    """Return arguments without the name and the connection that may stand among them, and these."""
    if not arguments.is_mapping:
        return arguments, {}
    given = arguments.at(place.path).entries()
    own = {key: place for key, place in given.items() if key in _CONNECTION and not _has_argument(module, key)}
    return arguments.without(own), own


def _connected(parts: _Parts, *given: Mapping[str, Value]) -> _Parts:
    """Return the row with its name and what it takes in, from the one place where they stand."""
    for key in _CONNECTION:
        if sum(key in more for more in given) > 1:
            raise parts.place.error(f"'{key}' stands twice")
    more = {key: value for one in given for key, value in one.items()}
    return replace(parts, label=_label(more.get("name")), taken=more.get("from"))


def _has_argument(module: Value, name: str) -> bool:
    known = module.scalar if module.is_scalar else None
    return isinstance(known, str) and known in BLOCKS and BLOCKS[known].parameter(name) is not None


def _mapped_parts(place: Value) -> _Parts:
    keys = place.entries()
    form = next((form for form in _FORMS if form in keys), None)
    if form is None:
        known = ", ".join(_FORMS)
        raise place.error(
            f"a row written as a mapping has one of {known}",
            hint="write [repeat, Module, [arguments]], {module: Conv, arguments: [8, 3]} or {any: [row, row]}",
        )
    entries = place.entries(_FORMS[form])
    more = {key: entries[key] for key in _CONNECTION if key in entries}
    if form == "row":
        inner = _parts(entries["row"])
        label, taken = _label(more.get("name")), more.get("from")
        if (label and inner.label) or (taken and inner.taken):
            raise place.error("'name' and 'from' stand twice")
        return replace(inner, label=label or inner.label, taken=taken or inner.taken)
    if form == "module" and "arguments" in entries:
        arguments, among = _without_connection(place, entries["module"], entries["arguments"])
        return _connected(_Parts(place, "row", entries.get("repeat"), entries["module"], arguments), more, among)
    if form == "module":
        return _connected(_Parts(place, "row", entries.get("repeat"), entries["module"]), more)
    return _connected(_Parts(place, form, entries.get("repeat"), inner=entries[form]), more)


def _label(place: Value | None) -> str | None:
    if place is None:
        return None
    label = place.scalar
    if not isinstance(label, str) or not _NAME.fullmatch(label) or label in (INPUT, PREVIOUS):
        raise place.error(
            f"'{label}' cannot name a row", hint=f"letters, digits, _ and -; '{INPUT}' and '{PREVIOUS}' have a meaning"
        )
    return label


def _labels(parts: Sequence[_Parts]) -> list[str]:
    labels: list[str] = []
    for part in parts:
        if part.label in labels:
            raise part.place.error(f"two rows are named '{part.label}'")
        labels += [part.label] if part.label else []
    return labels


def _template(part: _Parts, name: str, scope: _Scope) -> Template:
    taken = _sources(part.taken, name, scope)
    if part.form == "any":
        return _alternatives(part, name, scope, taken)
    member = _member(part, name, scope, taken)
    if isinstance(member, Node):
        check_inputs(member.row, taken)
    return member


def _member(part: _Parts, name: str, scope: _Scope, taken: tuple[Source, ...]) -> Node | Group:
    if part.form == "rows":
        assert part.inner is not None
        section = read_section(part.inner, f"{name}.rows", scope.shared)
        return Group(section, _repeat(part, name, scope), part.place, taken)
    return Node(_row(part, name, scope), taken)


def _alternatives(part: _Parts, name: str, scope: _Scope, taken: tuple[Source, ...]) -> Alternatives:
    assert part.inner is not None
    alternatives = part.inner.items()
    if len(alternatives) < 2:
        raise part.place.error("'any' lists at least two rows")
    members, labels = [], []
    for i, place in enumerate(alternatives):
        inner = _parts(place)
        if inner.form == "any" or (inner.label and inner.form == "row"):
            what = "'any' inside 'any'" if inner.form == "any" else "a name"
            raise place.error(
                f"{what} has no place in an alternative", hint="name the whole: {name: x, any: [row, row]}"
            )
        path = f"{name}.any.{i}"
        member = _member(inner, path, scope, _sources(inner.taken, path, scope))
        if isinstance(member, Node):
            check_inputs(member.row, member.taken or taken)
        members.append(member)
        labels.append(inner.label or (member.row.label if isinstance(member, Node) else "rows"))
    options = tuple(label if labels.count(label) == 1 else f"{label}#{i}" for i, label in enumerate(labels))
    return Alternatives(Choice(f"{name}.any", "categorical", options), tuple(members), part.place, taken)


def check_inputs(row: RowTemplate, taken: Sequence[Source]) -> None:
    """Check that a row names as many rows as its block takes.

    Raises:
        SpecError: it names more or fewer.
    """
    for block in row.blocks():
        given = max(1, len(taken))
        if block.joins and given < 2:
            raise row.place.error(f"{block.name} takes two or more rows", hint="name them: {from: [a, b]}")
        if block.inputs is not None and given != block.inputs:
            wanted = "one row" if block.inputs == 1 else f"{block.inputs} rows"
            hint = "join them first, with Add or Concat" if given > 1 else "name them: {from: [a, b]}"
            raise row.place.error(f"{block.name} takes {wanted}, not {given}", hint=hint)


def _sources(place: Value | None, name: str, scope: _Scope) -> tuple[Source, ...]:
    if place is None:
        return ()
    if not place.is_list:
        return (_source(place, f"{name}.from", scope),)
    items = place.items()
    if not items:
        raise place.error("'from' names no row")
    return tuple(_source(item, f"{name}.from.{i}", scope) for i, item in enumerate(items))


def _source(place: Value, name: str, scope: _Scope) -> Source:
    slot = read_slot(place, name, scope.shared)
    return Source(slot, {value: _target(value, place, scope) for value in slot.values()})


def _target(value: Any, place: Value, scope: _Scope) -> int | None:
    if value is None:
        return None
    if value == INPUT:
        return ENTRY
    if value in (PREVIOUS, -1):
        return scope.index - 1
    if value in scope.labels:
        return scope.labels[value]
    if value in scope.below:
        raise place.error(f"'{value}' stands below this row or is it", hint="a row takes from rows above it")
    if not isinstance(value, str):
        raise place.error(f"rows are named, not counted: {value!r}", hint="give the row a name: {name: stem}")
    known = f"named above: {', '.join(scope.labels) or 'none'}; also {INPUT} and {PREVIOUS}"
    raise place.error(f"no row is named '{value}'", hint=nearest(value, [*scope.labels, INPUT, PREVIOUS]) or known)


def _repeat(part: _Parts, name: str, scope: _Scope) -> Slot:
    if part.repeat is None:
        return fixed(1, part.place)
    slot = read_slot(part.repeat.at(f"{part.place.path}.repeat"), f"{name}.repeat", scope.shared)
    check(slot, REPEAT.coerce)
    return slot


def _row(part: _Parts, name: str, scope: _Scope) -> RowTemplate:
    assert part.module is not None
    place = part.module.at(f"{part.place.path}.module")
    alias, implied = ALIASES.get(str(place.scalar), (place.scalar, {}))
    module = read_module(place.with_content(alias), f"{name}.module", scope.shared)
    named = {key: fixed(value, place) for key, value in implied.items()}
    row = RowTemplate(name, part.place, _repeat(part, name, scope), module, named=named)
    row = with_arguments(row, part.arguments, scope.shared)
    row.check()
    return row


def read_module(place: Value, name: str, shared: Mapping[str, Choice]) -> Slot:
    """Read the name of a block, or a choice of several.

    Raises:
        SpecError: no block has that name.
    """
    slot = read_slot(place, name, shared)
    check(slot, lambda value: _known_module(place, value))
    return slot


def _known_module(place: Value, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be the name of a block, not {value!r}")
    if value not in BLOCKS:
        hint = BLOCKS.hint_for(value) or "`archtuna blocks` lists them; --import MODULE adds those of a module of yours"
        raise place.error(f"no block is named {brief(value)}", hint=hint)
    return value


def with_arguments(row: RowTemplate, place: Value | None, shared: Mapping[str, Choice]) -> RowTemplate:
    """Return the row with its arguments, read from a list or a mapping.

    Raises:
        SpecError: they are neither, or one of them is no value.
    """
    if place is None:
        return row
    if place.is_mapping:
        entries = place.at(row.place.path).entries()
        named = {name: read_argument(value, f"{row.name}.{name}", shared) for name, value in entries.items()}
        return replace(row, named={**row.named, **named})
    if place.is_scalar:
        raise place.error(
            "arguments are a list or a mapping", hint="write [repeat, Module, [arguments]], with [] for none"
        )
    order = row.dialect.order(row.blocks()[0])
    slots = []
    for i, value in enumerate(place.items()):
        parameter = order[i] if i < len(order) else None
        label = parameter.name if parameter else str(i)
        slots.append(read_argument(value.at(f"{row.place.path}.{label}"), f"{row.name}.{label}", shared))
    return replace(row, positional=tuple(slots))
