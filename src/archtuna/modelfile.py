"""A model or search file from top to bottom: its keys, its single values, its rows, ``vary``, and its other sections."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from archtuna import document
from archtuna.architecture import FORMAT
from archtuna.choice import AnySlot, Choice, Slot, check, fixed, read_argument, read_slot
from archtuna.document import Value
from archtuna.errors import SpecError, nearest
from archtuna.kindle import Files, is_kindle, read_kindle
from archtuna.reader import read_section
from archtuna.recipe import PARAMETERS as TRAINING
from archtuna.registry import UnknownNameError, require_block
from archtuna.rows import REPEAT, RowTemplate, selected
from archtuna.settings import DATA, DEPLOY, SEARCH, Settings, deploy_of, limits_from, objectives_from, seconds_of
from archtuna.signature import Bounds, Parameter
from archtuna.wiring import Section

KEYS = (
    "format", "input_channel", "input_size", "depth_multiple", "width_multiple", "backbone",
    "choices", "vary", "data", "training", "objectives", "limits", "search", "deploy", "modules", "blocks",
)  # fmt: skip
MAX_VARY = 100
MAX_VARIED = 50_000
MAX_KEYS = 500
KINDLE_KEYS = ("head", "channel_divisor", "custom_module_paths")
NETWORK_KEYS = ("backbone", "choices", "vary", "training", "head", "channel_divisor")
CHANNELS = Parameter("input_channel", int, bounds=Bounds(1, 4))
SIZE = Parameter("input_size", int, bounds=Bounds(1, 4096))
MULTIPLE = Parameter("multiple", float, bounds=Bounds(0.01, 100))
_FORMAT = Parameter("format", int, bounds=Bounds(1, FORMAT))


@dataclass(frozen=True)
class ModelFile:
    """What a model or search file says.

    Attributes:
        section: the network's rows as templates, and how they are connected.
        head: the file's single values (input channels and size, multiples) as slots, by key.
        training: given training values as slots, by name.
        settings: what the file says of data, objectives, limits and search.
        text: the file as it was read, and behind it, under ``modules``, files of rows that it names.
        file: its name, or None.
        notes: what the reader passed over, for people.
        modules: the files of rows that it names, by name.
        origins: the Python modules of blocks in it that are not archtuna's own, by name.
        plain: the file as plain data.
    """

    section: Section
    head: Mapping[str, Slot | tuple[Slot, Slot]]
    training: Mapping[str, Slot]
    settings: Settings
    text: str
    file: str | None
    notes: tuple[str, ...] = ()
    modules: Mapping[str, str] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    plain: Any = field(default=None, repr=False)


def read_model_file(top: Value, text: str, files: Files) -> ModelFile:
    """Read a model or search file.

    Args:
        top: the file as data.
        text: the file as text.
        files: where it finds files of rows that it names.

    Raises:
        SpecError: a mistake in it.
    """
    notes: list[str] = []
    entries = _top_entries(top, notes)
    if "backbone" not in entries:
        raise top.error(
            "no 'backbone'", hint="a model file lists its rows under backbone: [repeat, Module, [arguments]]"
        )
    if "format" in entries:
        check(fixed(entries["format"].scalar, entries["format"]), _FORMAT.coerce)
    shared = _read_shared(entries.get("choices"))
    if "modules" in entries:
        files.texts.update({name: _text(value) for name, value in entries["modules"].entries().items()})
    _require_blocks(entries.get("blocks"))
    if is_kindle(entries["backbone"]):
        section = read_kindle(entries, shared, files, notes)
    else:
        _refuse_kindle_keys(entries)
        section = read_section(entries["backbone"], "backbone", shared)
    section = _apply_vary(section, entries.get("vary"), shared)
    notes += [*_zero_repeats(section), *_suspicions(section), *_cut_off(section), *_loose(section)]
    origins = {b.name: b.origin for row in section.plain() for b in row.blocks() if b.is_foreign}
    return ModelFile(
        section=section,
        head=_read_head(entries, shared, top),
        training=_read_training(entries.get("training"), shared),
        settings=_read_settings(entries),
        text=_with_sections(text, entries, modules=files.texts, blocks=origins),
        file=top.file,
        notes=tuple(notes),
        modules=dict(files.texts),
        origins=origins,
        plain=top.plain(),
    )


def _with_sections(text: str, entries: Mapping[str, Value], **sections: Mapping[str, str]) -> str:
    """Return the file with what it needs from elsewhere behind it, so that a study can be opened without its folder."""
    fresh = {key: dict(content) for key, content in sections.items() if content and key not in entries}
    if not fresh:
        return text
    longer = "\n".join([text.rstrip() + "\n", *(f"{key}: {yaml_of(content)}\n" for key, content in fresh.items())])
    try:
        document.parse(longer)
    except SpecError:  # The file is one mapping in braces, or ends in a way that lets nothing follow.
        return yaml_of({**document.parse(text).plain(), **fresh}, indent=1) + "\n"
    return longer


def yaml_of(plain: Any, indent: int | None = None) -> str:
    """Write plain data as JSON that is YAML too: JSON has two escapes for an emoji, of which YAML knows neither."""
    return "".join(map(_escaped, json.dumps(plain, indent=indent, ensure_ascii=False)))


def _escaped(character: str) -> str:
    if character == "\n" or " " <= character <= "~":
        return character
    return f"\\u{ord(character):04x}" if character <= "\uffff" else f"\\U{ord(character):08x}"


def _require_blocks(section: Value | None) -> None:
    """Check that what the file says its blocks come from is there: it is told, and never imported."""
    for name, place in (section.entries() if section else {}).items():
        try:
            require_block(name, {name: _text(place)})
        except UnknownNameError as error:
            raise place.error(error.message, hint=error.hint) from None


def _text(place: Value) -> str:
    text = place.scalar
    if not isinstance(text, str):
        raise place.error("must be a text")
    return text


def _refuse_kindle_keys(entries: Mapping[str, Value]) -> None:
    for key in KINDLE_KEYS:
        if key in entries:
            raise entries[key].error(
                f"'{key}' belongs to rows of the form [from, repeat, module, [arguments]], and this file has others",
                hint="put all rows under backbone" if key == "head" else f"remove {key}",
            )


def _top_entries(top: Value, notes: list[str]) -> dict[str, Value]:
    """Return the known keys. Files in the wild carry other keys as notes; only what looks like a typo is a mistake."""
    found: dict[str, Value] = {}
    entries = top.entries()
    if len(entries) > MAX_KEYS:
        raise top.error(f"{len(entries):,} keys; at most {MAX_KEYS} are read")
    for key, value in entries.items():
        if key in KEYS or key in KINDLE_KEYS:
            found[key] = value
        elif key.lower() in ("input_size", "img_size"):
            found.setdefault("input_size", value)
        elif key == "module":
            raise top.error("this is a file of rows", hint="name it in a model file: [-1, 1, YamlModule, [this file]]")
        elif nearest(key, KEYS, cutoff=0.8):
            raise SpecError(
                "unknown key", file=top.file, line=top.key_line(key), path=key, value=key, hint=nearest(key, KEYS)
            )
        else:
            notes.append(f"key '{key}' means nothing to archtuna and is passed over")
    return found


def _zero_repeats(section: Section) -> list[str]:
    return [
        f"{row.place.path}: a repeat of 0 counts as 1 in this format; write 0|1 for a row that may be left out"
        for row in section.plain()
        if row.repeat.choice is None and row.repeat.value == 0
    ]


def _suspicions(section: Section) -> list[str]:
    """Return what looks like arguments in each other's place: forks of the classic dialect disagree on their order."""
    notes = []
    for row in section.plain():
        for block in row.blocks():
            listed = {name: _largest(slot) for name, (slot, own) in row.slots(block).items() if own is block}
            problem = _mixed_up(listed)
            if problem:
                order = ", ".join(p.name for p in row.dialect.order(block) if p)
                notes.append(
                    f"{row.place.path}: {problem} looks like a mix-up: {block.name} takes [{order}]; "
                    "arguments by name settle it"
                )
    return notes


def _mixed_up(listed: Mapping[str, float]) -> str | None:
    """Return in words what two arguments of an inverted residual say that hardly anyone means."""
    if "expansion" not in listed:
        return None
    expansion, channels = listed["expansion"], listed.get("channels", 0)
    if "channels" in listed and expansion >= 8 and channels < min(8, expansion):
        return f"an expansion of {expansion:g} with {channels:g} channels"
    stride, kernel = listed.get("stride", 1), listed.get("kernel", 3)
    if stride > 1 and (kernel < stride or kernel == 1):
        return f"a stride of {stride:g} with a kernel of {kernel:g}"
    return None


def _largest(slot: AnySlot) -> float:
    return max((value for value in slot.candidates() if isinstance(value, int | float)), default=0.0)


def _cut_off(section: Section) -> list[str]:
    """Return a note where an activation stands on the logits: it was left to its default."""
    last = next((row for row in reversed(list(section.plain())) if row.label not in ("Flatten", "GlobalAvgPool")), None)
    if last is None or last.module.choice or not last.blocks()[0].parameter("activation"):
        return []
    activation = last.fixed("activation")
    cuts = (
        last.label in ("FixedConv", "Linear", "Conv") and isinstance(activation, str) and activation.lower() == "relu"
    )
    return [f"{last.place.path}: ReLU cuts the logits off below zero; null is no activation"] if cuts else []


def _loose(section: Section) -> list[str]:
    return [f"{template.place.path}: nothing takes what this row gives" for template in section.loose]


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
        ("input_channel", CHANNELS, 3),
        ("depth_multiple", MULTIPLE, 1.0),
        ("width_multiple", MULTIPLE, 1.0),
    ):
        slot = read_slot(entries[key], key, shared) if key in entries else fixed(default, top)
        check(slot, parameter.coerce)
        head[key] = slot
    if "input_size" in entries:
        head["input_size"] = read_size(entries["input_size"], shared)
    return head


def read_size(place: Value, shared: Mapping[str, Choice]) -> Slot | tuple[Slot, Slot]:
    """Read a side in pixels, or [height, width].

    Raises:
        SpecError: it is neither.
    """
    if not place.is_list:
        slot = read_slot(place, "input_size", shared)
        check(slot, SIZE.coerce)
        return slot
    sides = place.items()
    if len(sides) != 2:
        raise place.error(f"must be a side in pixels or [height, width], not {len(sides)} values")
    height, width = (read_slot(side, f"input_size.{i}", shared) for i, side in enumerate(sides))
    for slot in (height, width):
        check(slot, SIZE.coerce)
    return height, width


def _read_training(section: Value | None, shared: Mapping[str, Choice]) -> dict[str, Slot]:
    slots: dict[str, Slot] = {}
    for name, value in (section.entries(TRAINING) if section else {}).items():
        slots[name] = read_slot(value, f"training.{name}", shared)
        check(slots[name], TRAINING[name].coerce)
    return slots


def _read_settings(entries: Mapping[str, Value]) -> Settings:
    search = _section(entries.get("search"), SEARCH)
    if "search" in entries and search.get("time") is not None:
        _placed(entries["search"].entries()["time"], seconds_of)
    objectives, limits = entries.get("objectives"), entries.get("limits")
    deploy = _section(entries.get("deploy"), DEPLOY)
    if deploy:
        _placed(entries["deploy"], lambda _: deploy_of(deploy))
    return Settings(
        data=_section(entries.get("data"), DATA),
        search=search,
        deploy=deploy,
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
        check(fixed(content, value), schema[name].coerce)
        found[name] = schema[name].coerce(content)
    return found


def _placed(place: Value, read: Any) -> Any:
    """Read plain data; a mistake in it points at its place."""
    try:
        return read(place.plain())
    except SpecError as error:
        raise place.error(error.message, hint=error.hint) from None


def _apply_vary(section: Section, place: Value | None, shared: Mapping[str, Choice]) -> Section:
    if place is None:
        return section
    entries = place.items()
    if len(entries) > MAX_VARY:
        raise place.error(f"{len(entries):,} entries; at most {MAX_VARY} are read")
    rows = sum(1 for _ in section.plain())
    if len(entries) * rows > MAX_VARIED:
        raise place.error(f"{len(entries):,} entries over {rows:,} rows", hint="write the choices into the rows")
    for entry in entries:
        section = _vary(section, entry, shared)
    for row in section.plain():
        row.check()
    return section


def _vary(section: Section, entry: Value, shared: Mapping[str, Choice]) -> Section:
    given = entry.entries()
    if "rows" not in given:
        raise entry.error("no 'rows'", hint="write {rows: stride1, repeat: 1..5}")
    selectors = given["rows"].items() if given["rows"].is_list else [given["rows"]]
    if len(selectors) > MAX_VARY:
        raise given["rows"].error(f"{len(selectors):,} selectors; at most {MAX_VARY} are read", hint="a range: 1..15")
    changes = {name: value for name, value in given.items() if name != "rows"}
    if not changes:
        raise entry.error("nothing to vary", hint="write {rows: stride1, repeat: 1..5}")
    used: set[str] = set()

    def change(index: int, row: RowTemplate) -> RowTemplate:
        verdicts = [selected(row, index, selector) for selector in selectors]
        if all(verdict is False for verdict in verdicts):
            return row
        return _vary_row(row, changes, shared, named=True in verdicts, used=used)

    varied = replace(
        section, templates=tuple(template.mapped(partial(change, i)) for i, template in enumerate(section.templates))
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
        known = any(row.dialect.parameter(block, name) for block in row.blocks())
        if name == "module" or (name == "repeat" and not named and row.blocks()[0].repeat == "once"):
            continue
        if name != "repeat" and not known and not named:
            continue
        read = read_slot if name == "repeat" else read_argument
        slot = read(value, f"{row.name}.{name}", shared)
        if name == "repeat":
            check(slot, REPEAT.coerce)
        row = row.varied(name, slot)
        used.add(name)
    return row
