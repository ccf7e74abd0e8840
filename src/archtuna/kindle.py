"""Rows of the kindle dialect, ``[from, repeat, module, [arguments], {name: value}]``, read into sections.

``from`` counts: -1 is the row before, -k the k-th before, 0 and above a row by its number over backbone and head. In the head
nothing is scaled or rounded. ``YamlModule`` rows name files of rows, which are read with the model file and travel with it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from archtuna import document
from archtuna.choice import Choice, Slot, check, fixed, read_slot
from archtuna.dialect import Kindle
from archtuna.document import Value
from archtuna.reader import MAX_ROWS, check_inputs, read_module, with_arguments
from archtuna.registry import BLOCKS, block
from archtuna.rows import REPEAT, RowTemplate
from archtuna.signature import Bounds, Parameter
from archtuna.wiring import ENTRY, Group, Node, Section, Source, Template

MAX_NESTED = 8
DIVISOR = Parameter("channel_divisor", int, bounds=Bounds(1, 4096))

_ARGUMENT = re.compile(r"arg(\d+)")
_DETECTION = ("YOLOHead", "Detect", "YOLOv5Head")
# kindle builds these once, whatever the row's repeat says.
_ONCE = (
    "Bottleneck", "SPP", "SPPF", "MobileViTBlock", "Identity", "UpSample", "PreTrained", "PreTrainedFeatureMap",
)  # fmt: skip


def is_kindle(backbone: Value) -> bool:
    """Return whether rows are of this dialect: the module is the third item of four."""
    if not backbone.is_list:
        return False
    rows = [row.items() for row in backbone.items() if row.is_list]
    return any(len(row) >= 4 and row[2].is_scalar and isinstance(row[2].scalar, str) for row in rows)


_CROSS_STAGE = ("C3", "BottleneckCSP")


@dataclass
class Files:
    """Files of rows that a model file names, as they were read; kept, so that a study carries them with it.

    Attributes:
        folder: where the model file lies, or None for text that came from memory.
        texts: the files by the names that rows use.
    """

    folder: Path | None = None
    texts: dict[str, str] = field(default_factory=dict)

    def read(self, name: str, place: Value) -> Value:
        """Read a file of rows.

        Raises:
            SpecError: there is none, or it is no YAML that archtuna reads.
        """
        if name not in self.texts:
            places = [folder / name for folder in (self.folder, Path()) if folder is not None]
            found = next((path for path in places if path.is_file()), None)
            if found is None:
                looked = " and ".join(dict.fromkeys(str(path.parent.absolute()) for path in places))
                raise place.error(f"no such file: {name}", hint=f"looked in {looked}")
            self.texts[name] = document.text_of(found)
        return document.parse(self.texts[name], file=name)


@dataclass
class _Reading:
    """What is the same for all rows of one model file."""

    shared: Mapping[str, Choice]
    files: Files
    custom: tuple[str, ...]
    notes: list[str]
    rows: int = 0


@dataclass(frozen=True)
class _Scope:
    """What is the same for the rows of one list."""

    reading: _Reading
    dialect: Kindle
    shared: Mapping[str, Choice]
    scaled: bool = True
    nested: int = 0


def read_kindle(entries: Mapping[str, Value], shared: Mapping[str, Choice], files: Files, notes: list[str]) -> Section:
    """Read backbone and head.

    Args:
        entries: the file's top-level keys.
        shared: its ``choices``.
        files: where ``YamlModule`` rows find theirs.
        notes: takes up what was passed over.

    Raises:
        SpecError: a mistake in a row, or code that the user has not agreed to.
    """
    reading = _Reading(shared, files, _agreed(entries.get("custom_module_paths")), notes)
    scope = _Scope(reading, _dialect(entries, Kindle(8)), shared)
    rows = _named_rows(entries["backbone"], "backbone", scope)
    if "head" in entries and not _is_null(entries["head"]):
        rows += _named_rows(entries["head"], "head", replace(scope, dialect=Kindle(1), scaled=False))
    if not rows:
        raise entries["backbone"].error("no rows")
    return _section(rows)


def _dialect(entries: Mapping[str, Value], usual: Kindle) -> Kindle:
    """Return the dialect of a file of rows: with its own divisor of channels, if it names one."""
    if "channel_divisor" not in entries:
        return usual
    place = entries["channel_divisor"]
    check(fixed(place.scalar, place), DIVISOR.coerce)
    return Kindle(DIVISOR.coerce(place.scalar))


def _agreed(place: Value | None) -> tuple[str, ...]:
    """Return the Python modules that the file wants to take blocks from, when the user has imported all of them."""
    if place is None or _is_null(place):
        return ()
    names = [str(item.scalar) for item in (place.items() if place.is_list else [place])]
    missing = [name for name in names if name not in sys.modules]
    if missing:
        flags = " ".join(f"--import {name}" for name in missing)
        raise place.error(
            f"the file wants to run code: its blocks are in {', '.join(missing)}",
            hint=f"no file runs code by itself; read those modules, then agree with {flags}",
        )
    return tuple(names)


def _is_null(place: Value) -> bool:
    return place.is_scalar and place.scalar is None


def _named_rows(rows: Value, name: str, scope: _Scope) -> list[tuple[Value, str, _Scope]]:
    return [(row, f"{name}.{i}", scope) for i, row in enumerate(rows.items())]


def _section(rows: list[tuple[Value, str, _Scope]]) -> Section:
    reading = rows[0][2].reading
    reading.rows += len(rows)
    if reading.rows > MAX_ROWS:
        raise rows[0][0].error(f"more than {MAX_ROWS:,} rows, those of YamlModule files among them")
    templates = tuple(_template(row, name, index, scope) for index, (row, name, scope) in enumerate(rows))
    return Section(templates, tuple(None for _ in templates))


def _template(place: Value, name: str, index: int, scope: _Scope) -> Template:
    items = place.items()
    if len(items) not in (4, 5):
        raise place.error(
            f"a row of this file has 4 or 5 items, not {len(items)}", hint="[from, repeat, module, [arguments]]"
        )
    taken = _sources(items[0].at(f"{place.path}.from"), name, index, scope)
    repeat = read_slot(items[1].at(f"{place.path}.repeat"), f"{name}.repeat", scope.shared)
    check(repeat, REPEAT.coerce)
    module = items[2].at(f"{place.path}.module")
    if module.is_scalar and module.scalar == "YamlModule":
        return _yaml_module(place, items, name, repeat, taken, scope)
    row = _row(place, items, name, repeat, module, scope)
    single = len(taken) == 1 and items[0].is_list
    # A Concat of one row is written as a list of one, and passes it on.
    if not (single and all(found.joins for found in row.blocks())):
        check_inputs(row, taken)
    return Node(row, taken)


def _row(place: Value, items: list[Value], name: str, repeat: Slot, module: Value, scope: _Scope) -> RowTemplate:
    if module.is_scalar and module.scalar in _DETECTION:
        raise module.error(
            f"{module.scalar} is a detection head, and archtuna builds classifiers: detection is not read",
            hint="end the network with GlobalAvgPool, Flatten and Linear",
        )
    _adopt(module, scope.reading.custom)
    slot = read_module(module, f"{name}.module", scope.shared)
    if slot.value in _ONCE and repeat.choice is None and repeat.value != 1:
        scope.reading.notes.append(f"{place.path}: kindle builds {slot.value} once, not {repeat.value} times")
        repeat = fixed(1, repeat.place)
    row = RowTemplate(name, place, repeat, slot, dialect=scope.dialect, scaled=scope.scaled)
    row = _without_rest(with_arguments(row, items[3], scope.shared), scope)
    if slot.value in _CROSS_STAGE and repeat.choice is None and repeat.value == 0:
        row = replace(row, named={"repeats": fixed(0, repeat.place)})
    if len(items) == 5 and not _is_null(items[4]):
        if not items[4].is_mapping:
            raise items[4].error("the fifth item of a row is a mapping of arguments", hint="{activation: SiLU}")
        row = with_arguments(row, items[4], scope.shared)
    row.check()
    return row


def _without_rest(row: RowTemplate, scope: _Scope) -> RowTemplate:
    """Pass over what kindle passes over, and say so."""
    name, given = row.label, len(row.positional)
    if name in _CROSS_STAGE and given > 1:
        scope.reading.notes.append(
            f"{row.place.path}: kindle passes over the second argument of {name}; name what is meant: {{shortcut: false}}"
        )
    taken = 0 if name == "GlobalAvgPool" else max(len(row.dialect.order(block)) for block in row.blocks())
    if given > taken:
        scope.reading.notes.append(f"{row.place.path}: kindle passes over what follows {taken} arguments of {name}")
    return replace(row, positional=row.positional[:taken])


def _sources(place: Value, name: str, index: int, scope: _Scope) -> tuple[Source, ...]:
    items = place.items() if place.is_list else [place]
    if not items:
        raise place.error("'from' names no row")
    paths = [f"{name}.from.{i}" for i in range(len(items))] if place.is_list else [f"{name}.from"]
    return tuple(_source(item, path, index, scope) for item, path in zip(items, paths, strict=True))


def _source(place: Value, name: str, index: int, scope: _Scope) -> Source:
    slot = read_slot(place, name, scope.shared)
    return Source(slot, {value: _target(value, place, index) for value in slot.values()})


def _target(value: Any, place: Value, index: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise place.error(f"must be the number of a row, not {value!r}", hint="-1 is the row before, 0 the first row")
    target = index + value if value < 0 else value
    if target >= index:
        raise place.error(f"row {index} cannot take from row {value}", hint="a row takes from rows above it")
    if target < 0 and value != -1:
        raise place.error(f"row {index} has no row {-value} before it", hint="-1 is the row before")
    return target if target >= 0 else ENTRY


def _adopt(module: Value, custom: tuple[str, ...]) -> None:
    """Register a class of the modules that the user agreed to, as kindle finds it: by its name."""
    name = module.scalar if module.is_scalar else None
    if not isinstance(name, str) or name in BLOCKS:
        return
    import torch

    for path in custom:
        found = getattr(sys.modules[path], name, None)
        if isinstance(found, type) and issubclass(found, torch.nn.Module):
            block(found, name=name, scaled="out_channels", origin=path)


# --- files of rows ------------------------------------------------------------------------------------


def _yaml_module(
    place: Value, items: list[Value], name: str, repeat: Slot, taken: tuple[Source, ...], scope: _Scope
) -> Group:
    if len(taken) > 1:
        raise place.error("YamlModule takes one row", hint="join them first, with Add or Concat")
    if scope.nested >= MAX_NESTED:
        raise place.error(f"files of rows name each other more than {MAX_NESTED} deep", hint="does one name itself?")
    given = items[3].items()
    if not given or not given[0].is_scalar or not isinstance(given[0].scalar, str):
        raise place.error("YamlModule names a file first", hint="[-1, 1, YamlModule, [block.yaml, 3, 64]]")
    top = scope.reading.files.read(given[0].scalar, given[0])
    entries = top.entries()
    if "module" not in entries:
        raise top.error("no 'module'", hint="a file of rows lists them under module:, and its arguments under args:")
    defaults = entries["args"].items() if "args" in entries else []
    if len(given) - 1 > len(defaults):
        raise place.error(f"{given[0].scalar} takes at most {len(defaults)} arguments, not {len(given) - 1}")
    texts, shared = _arguments([*given[1:], *defaults[len(given) - 1 :]], name, scope)
    rows = entries["module"].substituted(texts)
    _check_filled(rows, len(defaults))
    dialect = _dialect(entries, scope.dialect)
    _agreed(entries.get("custom_module_paths"))
    inner = _Scope(scope.reading, dialect, shared, scope.scaled, scope.nested + 1)
    named = _named_rows(rows, f"{name}.module", inner)
    if "head" in entries:
        head = replace(inner, dialect=Kindle(1), scaled=False)
        named += _named_rows(entries["head"].substituted(texts), f"{name}.head", head)
    section = _section(named)
    return Group(section, repeat, place, taken, scope.scaled, whole=True)


def _arguments(given: list[Value], name: str, scope: _Scope) -> tuple[dict[str, Value], dict[str, Choice]]:
    """Return what stands for ``arg0`` and the rest: a choice among them is one decision, wherever it stands."""
    texts: dict[str, Value] = {}
    shared = dict(scope.shared)
    for i, value in enumerate(given):
        texts[f"arg{i}"] = value
        choice = read_slot(value, f"{name}.arg{i}", scope.shared).choice if value.is_scalar else None
        if choice is not None:
            key = f"arg{i}_of_{re.sub(r'[^0-9A-Za-z_]', '_', name)}"
            shared[key] = choice
            texts[f"arg{i}"] = value.with_content(f"${key}")
    return texts, shared


def _check_filled(rows: Value, count: int) -> None:
    """Check that no argument is left open."""
    for value in _scalars(rows):
        match = _ARGUMENT.fullmatch(value.scalar) if isinstance(value.scalar, str) else None
        if match:
            raise value.error(f"'{value.scalar}' has no value", hint=f"the file lists {count} under args:")


def _scalars(value: Value) -> Iterator[Value]:
    if value.is_scalar:
        yield value
    for below in value.items() if value.is_list else value.entries().values() if value.is_mapping else ():
        yield from _scalars(below)
