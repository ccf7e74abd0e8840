"""One network as plain data: every argument named, every default written out, so that one network has one key.

An ``Architecture`` is what a search space resolves to, what a checkpoint carries and what ``build`` builds. Reading one
needs no torch and no block: an old file keeps its meaning when a default changes, because no default is left to fill in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

from archtuna.errors import CheckpointError

FORMAT = 2
"""Version of the plain form. A reader refuses a newer one and keeps reading the older ones: 1 has chains of single values,
2 has graphs and lists besides. A network is written in the oldest form that can hold it."""

PICTURE = -1
"""Stands for the picture where rows say what they take in; ``input`` in files."""

Scalar = int | float | bool | str | None
Plain = Scalar | tuple["Plain", ...]


@dataclass(frozen=True)
class Row:
    """``repeat`` equal copies of a block, one behind the other.

    Attributes:
        module: the block's registered name.
        arguments: every argument of the block by name, in the order of its signature.
        repeat: how many copies, at least 1.
        inputs: the rows whose outputs the first copy takes, by index, ``PICTURE`` among them; None for the row before.
        name: what people call the row; no part of what the network is.
    """

    module: str
    arguments: Mapping[str, Plain] = field(default_factory=dict)
    repeat: int = 1
    inputs: tuple[int, ...] | None = None
    name: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "arguments", MappingProxyType(dict(self.arguments)))

    @cached_property
    def items(self) -> tuple[tuple[str, Plain], ...]:
        """The arguments in a form that is hashable."""
        return tuple(self.arguments.items())

    def __hash__(self) -> int:
        return hash((self.module, self.repeat, self.inputs, frozenset(self.items)))

    def __reduce__(self) -> tuple[type[Row], tuple[Any, ...]]:
        return Row, (self.module, dict(self.arguments), self.repeat, self.inputs, self.name)

    def __str__(self) -> str:
        return f"[{self.repeat}, {self.module}, {_flow(self.arguments)}]"


@dataclass(frozen=True, eq=False)
class Architecture:
    """A network without choices: frozen, hashable, equal to every other spelling of itself.

    The last row's output is the network's.

    Attributes:
        rows: blocks in an order in which each stands behind what it takes in.
        input_channels: channels of a picture, 1 (grey) or 3 (colour).
        input_size: height and width of a picture in pixels.
        origins: the Python modules that define blocks which are not archtuna's own, by the blocks' names; said to whoever
            lacks them, never imported, and no part of what the network is.

    Raises:
        ValueError: a row takes from itself or from a row below it.
    """

    rows: tuple[Row, ...]
    input_channels: int
    input_size: tuple[int, int]
    origins: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if any(row.inputs is not None for row in self.rows):
            object.__setattr__(self, "rows", tuple(_connected(row, i) for i, row in enumerate(self.rows)))

    @cached_property
    def key(self) -> str:
        """16 hexadecimal digits that name the network, equal for every spelling and different for every other network.

        How copies are grouped into rows does not count; the input's shape does, because weights are trained for it.
        """
        units: list[list[Any]] = []
        for (_, row), inputs in zip(self.units(), self.wires(), strict=True):
            follows = inputs == (len(units) - 1,)
            units.append([row.module, dict(row.arguments), *([] if follows else [inputs])])
        # The 1 is the first format's number, which stays: a key is for ever.
        text = json.dumps([1, self.input_channels, *self.input_size, units], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def units(self) -> Iterator[tuple[int, Row]]:
        """Yield ``(index of the row, row)`` for every single copy of a block, in order."""
        for index, row in enumerate(self.rows):
            for _ in range(row.repeat):
                yield index, row

    def wires(self) -> list[tuple[int, ...]]:
        """Return for each unit the units whose outputs it takes, by index, ``PICTURE`` among them."""
        wires: list[tuple[int, ...]] = []
        ends: list[int] = []
        for row in self.rows:
            before = len(wires) - 1
            wires.append((before,) if row.inputs is None else tuple(i if i < 0 else ends[i] for i in row.inputs))
            wires += [(len(wires) - 1 + n,) for n in range(row.repeat - 1)]
            ends.append(len(wires) - 1)
        return wires

    @property
    def is_chain(self) -> bool:
        """Whether each row takes the output of the one before it, and nothing else."""
        return all(row.inputs is None for row in self.rows)

    def __eq__(self, other: object) -> bool:
        return self.key == other.key if isinstance(other, Architecture) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.key)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that ``from_dict`` and ``json`` understand; rows that others name carry a name."""
        names = self.names()
        rows = []
        for index, row in enumerate(self.rows):
            more: dict[str, Any] = {} if names[index] is None else {"name": names[index]}
            if row.inputs is not None:
                taken = [INPUT if i == PICTURE else names[i] for i in row.inputs]
                more["from"] = taken[0] if len(taken) == 1 else taken
            arguments = {name: _listed(value) for name, value in row.arguments.items()}
            rows.append([row.repeat, row.module, arguments, *([more] if more else [])])
        return {
            "format": self._format(),
            "input_channel": self.input_channels,
            "input_size": list(self.input_size),
            **({"blocks": dict(self.origins)} if self.origins else {}),
            "backbone": rows,
        }

    def _format(self) -> int:
        simple = self.is_chain and not any(row.name for row in self.rows)
        lists = any(isinstance(value, tuple) for row in self.rows for value in row.arguments.values())
        return 1 if simple and not lists else 2

    def names(self) -> list[str | None]:
        """Return each row's name: its own, a made one where another row takes from it, else None."""
        wanted = {i for row in self.rows for i in row.inputs or ()}
        taken = {row.name for row in self.rows}
        names: list[str | None] = []
        for index, row in enumerate(self.rows):
            made = f"row{index}"
            while made in taken:
                made += "_"
            # Copies of a named row that became several rows share its name; the last of them is what others take.
            own = row.name if all(row.name != later.name for later in self.rows[index + 1 :]) else None
            names.append(own or (made if index in wanted else None))
        return names

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Architecture:
        """Read what ``to_dict`` returned.

        Raises:
            CheckpointError: the data is of another form, or of a newer version.
        """
        try:
            if int(plain["format"]) > FORMAT:
                raise CheckpointError(
                    f"the architecture is of format {plain['format']}, this archtuna reads up to {FORMAT}",
                    hint="pip install --upgrade archtuna",
                )
            height, width = plain["input_size"]
            origins = {str(name): str(module) for name, module in plain.get("blocks", {}).items()}
            return cls(_rows_of(plain["backbone"]), int(plain["input_channel"]), (int(height), int(width)), origins)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"this is not an architecture ({type(error).__name__}: {error})") from error

    def to_yaml(self) -> str:
        """Return a model file of this network: plain to read, and building the same key."""
        height, width = self.input_size
        size = height if height == width else f"[{height}, {width}]"
        plain = self.to_dict()
        rows = "".join(f"  - {_flow_row(row)}\n" for row in plain["backbone"])
        origins = f"blocks: {_flow(plain['blocks'])}\n" if self.origins else ""
        rows = origins + f"backbone:\n{rows}"
        return f"format: {plain['format']}\ninput_channel: {self.input_channels}\ninput_size: {size}\n{rows}"

    @classmethod
    def from_yaml(cls, text: str) -> Architecture:
        """Read what ``to_yaml`` wrote; a model file with choices or left-out arguments is ``SearchSpace``'s to read.

        Raises:
            SpecError: the text is no YAML that archtuna reads.
            CheckpointError: the text is no resolved architecture.
        """
        from archtuna.document import parse

        plain = parse(text).plain()
        if not isinstance(plain, dict) or "format" not in plain:
            raise CheckpointError("this is not a resolved architecture", hint="read model files with SearchSpace.read")
        if isinstance(plain.get("input_size"), int):
            plain["input_size"] = [plain["input_size"]] * 2
        return cls.from_dict(plain)

    def differences(self, other: Architecture) -> list[str]:
        """Return one line for each place where ``other`` is another network, none when the keys are equal."""
        if self == other:
            return []
        lines = [
            f"{name}: {mine} here, {theirs} there"
            for name, mine, theirs in (
                ("input_channel", self.input_channels, other.input_channels),
                ("input_size", list(self.input_size), list(other.input_size)),
            )
            if mine != theirs
        ]
        here, there = self.to_dict()["backbone"], other.to_dict()["backbone"]
        for index in range(max(len(self.rows), len(other.rows))):
            mine, theirs = (a.rows[index] if index < len(a.rows) else None for a in (self, other))
            if mine != theirs:
                one, two = (_flow_row(rows[index]) if index < len(rows) else "no row" for rows in (here, there))
                lines.append(f"row {index}: {one} here, {two} there")
        return lines


INPUT = "input"
"""What files call the picture."""


def _connected(row: Row, index: int) -> Row:
    """Return the row with its inputs in their one spelling.

    Raises:
        ValueError: it takes from itself, from a row below it, or from nothing.
    """
    if row.inputs is None:
        return row
    if not row.inputs or not all(PICTURE <= i < index for i in row.inputs):
        raise ValueError(f"row {index} takes from rows {list(row.inputs)}, which do not all stand above it")
    return replace(row, inputs=None) if row.inputs == (index - 1,) else row


def _rows_of(plain: Sequence[Sequence[Any]]) -> tuple[Row, ...]:
    """Read rows as ``to_dict`` writes them."""
    rows: list[Row] = []
    places = {INPUT: PICTURE}
    for index, (n, module, arguments, *rest) in enumerate(plain):
        more = rest[0] if rest else {}
        taken = more.get("from")
        names = taken if isinstance(taken, list) else [taken]
        inputs = None if taken is None else tuple(places[str(name)] for name in names)
        name = None if more.get("name") is None else str(more["name"])
        rows.append(Row(str(module), {k: _tupled(v) for k, v in arguments.items()}, int(n), inputs, name))
        if name is not None:
            places[name] = index
    return tuple(rows)


def _tupled(value: Any) -> Any:
    return tuple(map(_tupled, value)) if isinstance(value, list | tuple) else value


def _listed(value: Any) -> Any:
    return list(map(_listed, value)) if isinstance(value, list | tuple) else value


def _flow_row(row: Sequence[Any]) -> str:
    """Write a row of plain data as YAML on one line."""
    n, module, arguments, *more = row
    name = module if all(part.isidentifier() for part in module.split(".")) else json.dumps(module)
    return f"[{n}, {name}, {', '.join(_flow(part) for part in (arguments, *more))}]"


def _flow(arguments: Mapping[str, Any]) -> str:
    return "{" + ", ".join(f"{name}: {_scalar(value)}" for name, value in arguments.items()) + "}"


def _scalar(value: Any) -> str:
    """Write one value as YAML that reads back as the same type."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_scalar, value))}]"
    return value if isinstance(value, str) and value.isidentifier() and not _is_word(value) else json.dumps(value)


def _is_word(value: str) -> bool:
    return value.lower() in ("null", "true", "false", "none", "yes", "no", "on", "off", "y", "n")
