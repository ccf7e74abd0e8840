"""A search space: a model file with choices in it. A model file is a space with none.

``SearchSpace.resolve`` asks for each choice that matters, in the file's order, and returns a ``Candidate``: the network as
an ``Architecture`` and its training values as a ``Recipe``. A choice inside an alternative that was not taken is not asked.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from archtuna import document
from archtuna.architecture import FORMAT, Architecture, Row
from archtuna.choice import Choice, Pick, Slot, fixed, read_slot
from archtuna.document import Value
from archtuna.errors import ShapeError, SpecError, nearest
from archtuna.model import Shape, check_output, survey, survey_row
from archtuna.recipe import PARAMETERS as TRAINING
from archtuna.recipe import Recipe
from archtuna.rows import REPEAT, AnyTemplate, Multiples, RowTemplate, Template, read_row, selected
from archtuna.settings import DATA, SEARCH, Settings, limits_from, objectives_from, seconds_of
from archtuna.signature import Bounds, Parameter

log = logging.getLogger("archtuna")

DEFAULT_INPUT_SIZE = 224
MAX_UNITS = 5_000

KEYS = (
    "format", "input_channel", "input_size", "depth_multiple", "width_multiple", "backbone",
    "choices", "vary", "data", "training", "objectives", "limits", "search",
)  # fmt: skip
_FORMAT = Parameter("format", int, bounds=Bounds(1, FORMAT))
_CHANNELS = Parameter("input_channel", int, bounds=Bounds(1, 4))
_SIZE = Parameter("input_size", int, bounds=Bounds(1, 4096))
_MULTIPLE = Parameter("multiple", float, bounds=Bounds(0.01, 100))


@dataclass(frozen=True)
class Candidate:
    """One resolved point of a space.

    Attributes:
        architecture: the network.
        recipe: its training values.
        decisions: the value of every choice that was asked, by name, in order.
    """

    architecture: Architecture
    recipe: Recipe
    decisions: Mapping[str, Any]


@dataclass(frozen=True)
class SearchSpace:
    """A model file with its choices, read and checked.

    Attributes:
        rows: the backbone's rows as templates.
        head: the file's single values (input channels and size, multiples) as slots, by key.
        training: given training values as slots, by name.
        settings: what the file says of data, objectives, limits and search.
        text: the file as it was read.
        file: its name, or None.
        notes: what the reader passed over, for people.
    """

    rows: tuple[Template, ...]
    head: Mapping[str, Slot | tuple[Slot, Slot]]
    training: Mapping[str, Slot]
    settings: Settings
    text: str
    file: str | None
    notes: tuple[str, ...] = ()
    _plain: Any = field(default=None, repr=False)

    @classmethod
    def read(cls, source: str | Path | Mapping[str, Any] | SearchSpace, *, input_size: Any = None) -> SearchSpace:
        """Read a space from a file's path, from YAML text (of several lines) or from plain data.

        Args:
            source: what to read; a ``SearchSpace`` is returned as it is.
            input_size: side of the input in pixels, or (height, width), instead of the file's.

        Raises:
            SpecError: a mistake in the file, with file, line, path, value and hint.
        """
        if isinstance(source, SearchSpace):
            space = source
        elif isinstance(source, Mapping):
            text = json.dumps(source, indent=1)
            space = _read_space(document.from_plain(source), text)
        elif isinstance(source, str) and "\n" in source:
            space = _read_space(document.parse(source), source)
        else:
            value = document.read(source)
            space = _read_space(value, Path(source).read_text(encoding="utf-8-sig"))
        return space if input_size is None else space.with_input_size(input_size)

    @property
    def key(self) -> str:
        """16 hexadecimal digits that name the space: comments, order and spelling of keys do not count."""
        kept = {k: v for k, v in self._plain.items() if k in ("backbone", "choices", "vary", "training", *self.head)}
        kept |= {name: str(slot) for name, slot in self._sizes().items()}
        return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()[:16]

    @property
    def choices(self) -> tuple[Choice, ...]:
        """Every choice in the file's order, conditional ones included, shared ones once."""
        found: dict[str, Choice] = {}
        for choice in (
            *self._head_choices(),
            *(c for row in self.rows for c in row.choices()),
            *self._training_choices(),
        ):
            found.setdefault(choice.name, choice)
        return tuple(found.values())

    def _head_choices(self) -> Iterator[Choice]:
        for given in self.head.values():
            for slot in given if isinstance(given, tuple) else (given,):
                if slot.choice:
                    yield slot.choice

    def _training_choices(self) -> Iterator[Choice]:
        return (slot.choice for slot in self.training.values() if slot.choice)

    @property
    def size(self) -> int:
        """How many ways the networks of the space can be decided on (training values and continuous ranges not counted)."""
        counts: dict[str, int] = {}
        for row in self.rows:
            for choice in row.choices():
                counts[choice.name] = len(choice.values() or (None,))
        shared = {name for name in counts if name.startswith("choices.")}
        head = math.prod(
            len(choice.values() or (None,)) for choice in {c.name: c for c in self._head_choices()}.values()
        )
        return head * math.prod(counts[name] for name in shared) * math.prod(row.size(shared) for row in self.rows)

    @property
    def has_input_size(self) -> bool:
        """Whether the file, or the caller, says what the input's size is."""
        return "input_size" in self.head

    def input_sizes(self) -> tuple[tuple[int, int], ...]:
        """Every input size in play as (height, width)."""
        height, width = self._size_slots()

        def values(slot: Slot) -> tuple[int, ...]:
            return tuple(
                _SIZE.coerce(v) for v in ((slot.choice.values() or ()) if slot.choice else (slot.place.scalar,))
            )

        if height is width:
            return tuple((side, side) for side in values(height))
        return tuple((h, w) for h in values(height) for w in values(width))

    def largest_input_size(self) -> tuple[int, int]:
        """The largest input size in play, to which pictures are decoded once; smaller ones are derived from it."""
        return max(self.input_sizes(), key=math.prod)

    def with_input_size(self, size: Any) -> SearchSpace:
        """Return this space with a fixed input size: a side in pixels, or (height, width).

        Raises:
            SpecError: the size is no whole number from 1 to 4096.
        """
        return replace(
            self, head={**self.head, "input_size": _read_size(document.from_plain(size, path="input_size"), {})}
        )

    def with_training(self, values: Mapping[str, Any]) -> SearchSpace:
        """Return this space with fixed training values in place of the file's.

        Raises:
            SpecError: an unknown name or an impossible value.
        """
        slots = dict(self.training)
        for name, value in values.items():
            if name not in TRAINING:
                raise SpecError("unknown training value", path=f"training.{name}", hint=nearest(name, TRAINING))
            slots[name] = fixed(value, document.from_plain(value, path=f"training.{name}"))
            slots[name].check(TRAINING[name].coerce)
        return replace(self, training=slots)

    def resolve(self, pick: Pick) -> Candidate:
        """Return the candidate that a function's answers to the choices make; a choice is asked once.

        Raises:
            ShapeError: rows that do not fit each other, or no classifier at the end; the error names the row.
        """
        decisions: dict[str, Any] = {}

        def once(choice: Choice) -> Any:
            if choice.name not in decisions:
                decisions[choice.name] = pick(choice)
            return decisions[choice.name]

        # Training values are asked before rows can fail: samplers see every choice of a refused candidate.
        recipe = Recipe(**{name: slot.get(once) for name, slot in self.training.items()})
        architecture = self._architecture(once)
        return Candidate(architecture, recipe, decisions)

    def _architecture(self, pick: Pick) -> Architecture:
        size = self._size_slots()
        height, width = (_SIZE.coerce(slot.get(pick)) for slot in size)
        channels = _CHANNELS.coerce(self._head_value("input_channel", pick))
        multiples = Multiples(
            _MULTIPLE.coerce(self._head_value("depth_multiple", pick)),
            _MULTIPLE.coerce(self._head_value("width_multiple", pick)),
        )
        rows: list[Row] = []
        shape: Shape = (channels, height, width)
        problem: ShapeError | None = None
        for template in self.rows:
            # After a row that does not fit the rest is still asked, so that every choice has a value.
            resolved = template.resolve(pick, multiples, shape[0])
            if problem is not None:
                continue
            try:
                shape = self._follow(resolved, shape, len(rows), template)
            except ShapeError as error:
                problem = error
            rows += resolved
        if problem is not None:
            raise problem
        architecture = Architecture(tuple(rows), channels, (height, width))
        check_output(architecture)
        return architecture

    def _follow(self, rows: list[Row], shape: Shape, first: int, template: Template) -> Shape:
        """Return the shape behind these rows."""
        if first + sum(row.repeat for row in rows) > MAX_UNITS:
            raise ShapeError(f"more than {MAX_UNITS:,} blocks", row=first)
        try:
            for offset, row in enumerate(rows):
                for _ in range(row.repeat):
                    shape = survey_row(row, shape, first + offset).output
        except ShapeError as error:
            where = template.place.error(error.message)
            raise ShapeError(str(where), row=error.row, hint=error.hint) from None
        return shape

    def _head_value(self, key: str, pick: Pick) -> Any:
        slot = self.head[key]
        assert isinstance(slot, Slot)
        return slot.get(pick)

    def _size_slots(self) -> tuple[Slot, Slot]:
        given = self.head.get("input_size")
        if given is None:
            default = Slot(document.from_plain(DEFAULT_INPUT_SIZE), None)
            return default, default
        return given if isinstance(given, tuple) else (given, given)

    def _sizes(self) -> dict[str, Any]:
        return {"input_size": self.input_sizes()} if self.has_input_size else {}

    def default(self) -> Candidate:
        """The candidate of every first option.

        Raises:
            ShapeError: that one does not build.
        """
        return self.resolve(lambda choice: choice.default)

    def candidate(self, decisions: Mapping[str, Any]) -> Candidate:
        """The candidate of these decisions; what is not among them takes its first option.

        Raises:
            ShapeError: that one does not build.
        """
        return self.resolve(lambda choice: decisions.get(choice.name, choice.default))

    def random(self, rng: random.Random) -> Candidate:
        """A candidate of uniformly drawn options.

        Raises:
            ShapeError: the one that was drawn does not build.
        """
        return self.resolve(lambda choice: draw(choice, rng))

    def smallest(self) -> Candidate:
        """The candidate of fewest parameters (then multiply-accumulates) that single changes of a choice lead to."""
        return self._extreme(-1)

    def largest(self) -> Candidate:
        """The candidate of most parameters (then multiply-accumulates) that single changes of a choice lead to."""
        return self._extreme(1)

    def _extreme(self, sign: int) -> Candidate:
        """Climb from the numeric ends, one choice at a time, until no single change helps.

        Exact where choices add up independently, which they nearly do: a row's cost grows with each of its own values.
        """

        def cost(decisions: Mapping[str, Any]) -> tuple[int, int] | None:
            try:
                facts = [f for _, f in survey(self.candidate(decisions).architecture)]
            except ShapeError:
                return None
            return sign * sum(f.params for f in facts), sign * sum(f.macs for f in facts)

        ends = {c.name: c.extremes()[-1 if sign > 0 else 0] for c in self.choices}
        best, best_cost = ends, cost(ends)
        if best_cost is None:
            best, best_cost = {}, cost({})
        improved = True
        while improved:
            improved = False
            for choice in (c for c in self.choices if not c.name.startswith("training.")):
                for value in choice.extremes():
                    trial = {**best, choice.name: value}
                    found = cost(trial) if best.get(choice.name, choice.default) != value else None
                    if found is not None and (best_cost is None or found > best_cost):
                        best, best_cost, improved = trial, found, True
        return self.candidate(best)


def draw(choice: Choice, rng: random.Random) -> Any:
    """Draw one value of a choice, uniformly on its scale."""
    values = choice.values()
    if values is not None and not choice.log:
        return rng.choice(values)
    if not choice.log:
        return rng.uniform(choice.low, choice.high)
    drawn = math.exp(rng.uniform(math.log(choice.low), math.log(choice.high)))
    return min(max(round(drawn), int(choice.low)), int(choice.high)) if choice.kind == "int" else drawn


def _read_space(top: Value, text: str) -> SearchSpace:
    notes: list[str] = []
    entries = _top_entries(top, notes)
    if "backbone" not in entries:
        raise top.error(
            "no 'backbone'", hint="a model file lists its rows under backbone: [repeat, Module, [arguments]]"
        )
    if "format" in entries:
        fixed(entries["format"].scalar, entries["format"]).check(_FORMAT.coerce)
    shared = _read_shared(entries.get("choices"))
    rows = tuple(read_row(row, f"backbone.{i}", shared) for i, row in enumerate(entries["backbone"].items()))
    if not rows:
        raise entries["backbone"].error("no rows")
    rows = _apply_vary(rows, entries.get("vary"), shared)
    notes += _zero_repeats(rows)
    return SearchSpace(
        rows=rows,
        head=_read_head(entries, shared, top),
        training=_read_training(entries.get("training"), shared),
        settings=_read_settings(entries),
        text=text,
        file=top.file,
        notes=tuple(notes),
        _plain=top.plain(),
    )


def _top_entries(top: Value, notes: list[str]) -> dict[str, Value]:
    """Return the known keys. Files in the wild carry other keys as notes; only what looks like a typo is a mistake."""
    found: dict[str, Value] = {}
    for key, value in top.entries().items():
        if key in KEYS:
            found[key] = value
        elif key.lower() in ("input_size", "img_size"):
            found.setdefault("input_size", value)
        elif key == "head":
            raise value.error(
                "a section 'head' belongs to another dialect, which is not read yet", hint="put all rows under backbone"
            )
        elif nearest(key, KEYS, cutoff=0.8):
            raise SpecError(
                "unknown key", file=top.file, line=top.key_line(key), path=key, value=key, hint=nearest(key, KEYS)
            )
        else:
            notes.append(f"key '{key}' means nothing to archtuna and is passed over")
    return found


def _zero_repeats(rows: tuple[Template, ...]) -> list[str]:
    plain = [row for row in rows if isinstance(row, RowTemplate)]
    zero = [row.place.path for row in plain if row.repeat.choice is None and row.repeat.place.scalar == 0]
    return [
        f"{path}: a repeat of 0 counts as 1 in this format; write 0|1 for a row that may be left out" for path in zero
    ]


def _read_shared(section: Value | None) -> dict[str, Choice]:
    shared: dict[str, Choice] = {}
    for name, value in (section.entries() if section else {}).items():
        choice = read_slot(value, f"choices.{name}", {}).choice
        if choice is None:
            raise value.error(f"'{value.scalar}' is no choice", hint="write 3|5 or 1..4")
        shared[name] = choice
    return shared


def _read_head(
    entries: Mapping[str, Value], shared: Mapping[str, Choice], top: Value
) -> dict[str, Slot | tuple[Slot, Slot]]:
    head: dict[str, Slot | tuple[Slot, Slot]] = {}
    for key, parameter, default in (
        ("input_channel", _CHANNELS, 3),
        ("depth_multiple", _MULTIPLE, 1.0),
        ("width_multiple", _MULTIPLE, 1.0),
    ):
        slot = read_slot(entries[key], key, shared) if key in entries else fixed(default, top)
        slot.check(parameter.coerce)
        head[key] = slot
    if "input_size" in entries:
        head["input_size"] = _read_size(entries["input_size"], shared)
    return head


def _read_size(place: Value, shared: Mapping[str, Choice]) -> Slot | tuple[Slot, Slot]:
    if not place.is_list:
        slot = read_slot(place, "input_size", shared)
        slot.check(_SIZE.coerce)
        return slot
    sides = place.items()
    if len(sides) != 2:
        raise place.error(f"must be a side in pixels or [height, width], not {len(sides)} values")
    height, width = (read_slot(side, f"input_size.{i}", shared) for i, side in enumerate(sides))
    for slot in (height, width):
        slot.check(_SIZE.coerce)
    return height, width


def _read_training(section: Value | None, shared: Mapping[str, Choice]) -> dict[str, Slot]:
    slots: dict[str, Slot] = {}
    for name, value in (section.entries(TRAINING) if section else {}).items():
        slots[name] = read_slot(value, f"training.{name}", shared)
        slots[name].check(TRAINING[name].coerce)
    return slots


def _read_settings(entries: Mapping[str, Value]) -> Settings:
    search = _section(entries.get("search"), SEARCH)
    if "search" in entries and search.get("time") is not None:
        _placed(entries["search"].entries()["time"], seconds_of)
    objectives, limits = entries.get("objectives"), entries.get("limits")
    return Settings(
        data=_section(entries.get("data"), DATA),
        search=search,
        objectives=_placed(objectives, objectives_from) if objectives else None,
        limits=_placed(limits, limits_from) if limits else (),
    )


def _section(section: Value | None, schema: Mapping[str, Parameter]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in (section.entries(schema) if section else {}).items():
        # A duration of 90 seconds may be written as the number 90.
        content = (
            str(value.scalar) if schema[name].type is str and isinstance(value.scalar, int | float) else value.scalar
        )
        fixed(content, value).check(schema[name].coerce)
        found[name] = schema[name].coerce(content)
    return found


def _placed(place: Value, read: Any) -> Any:
    """Read plain data; a mistake in it points at its place."""
    try:
        return read(place.plain())
    except SpecError as error:
        raise place.error(error.message, hint=error.hint) from None


def _apply_vary(
    rows: tuple[Template, ...], section: Value | None, shared: Mapping[str, Choice]
) -> tuple[Template, ...]:
    if section is None:
        return rows
    for entry in section.items():
        rows = _vary(rows, entry, shared)
    return rows


def _vary(rows: tuple[Template, ...], entry: Value, shared: Mapping[str, Choice]) -> tuple[Template, ...]:
    given = entry.entries()
    if "rows" not in given:
        raise entry.error("no 'rows'", hint="write {rows: stride1, repeat: 1..5}")
    selectors = given["rows"].items() if given["rows"].is_list else [given["rows"]]
    changes = {name: value for name, value in given.items() if name != "rows"}
    if not changes:
        raise entry.error("nothing to vary", hint="write {rows: stride1, repeat: 1..5}")
    used: set[str] = set()

    def change(row: RowTemplate, index: int) -> RowTemplate:
        verdicts = [selected(row, index, selector) for selector in selectors]
        if all(verdict is False for verdict in verdicts):
            return row
        return _vary_row(row, changes, shared, named=True in verdicts, used=used)

    varied = tuple(
        replace(template, rows=tuple(change(row, i) for row in template.rows))
        if isinstance(template, AnyTemplate)
        else change(template, i)
        for i, template in enumerate(rows)
    )
    for name in changes.keys() - used:
        raise changes[name].error(
            f"no row that is meant has '{name}'" if used else "no row is meant",
            hint="rows: a module, a row number, a range of numbers, stride1, stride2 or all",
        )
    return varied


def _vary_row(
    row: RowTemplate, changes: Mapping[str, Value], shared: Mapping[str, Choice], *, named: bool, used: set[str]
) -> RowTemplate:
    """Apply a ``vary`` entry to one row: meant by a property it takes what it has, meant by name it must have all."""
    if "module" in changes:
        row = row.varied("module", read_slot(changes["module"], f"{row.name}.module", shared))
        used.add("module")
    for name, value in changes.items():
        known = any(block.parameter(name) for block in row.blocks())
        if name == "module" or (name == "repeat" and not named and row.blocks()[0].repeat == "once"):
            continue
        if name != "repeat" and not known and not named:
            continue
        slot = read_slot(value, f"{row.name}.{name}", shared)
        if name == "repeat":
            slot.check(REPEAT.coerce)
        row = row.varied(name, slot)
        used.add(name)
    row.check()
    return row
