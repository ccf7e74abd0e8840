"""One network as plain data: every argument named, every default written out, so that one network has one key.

An ``Architecture`` is what a search space resolves to, what a checkpoint carries and what ``build`` builds. Reading one
needs no torch and no block: an old file keeps its meaning when a default changes, because no default is left to fill in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

from archtuna.errors import CheckpointError

FORMAT = 1
"""Version of the plain form. A reader refuses a newer one and keeps reading the older ones."""

Scalar = int | float | bool | str | None


@dataclass(frozen=True)
class Row:
    """``repeat`` equal copies of a block in a chain.

    Attributes:
        module: the block's registered name.
        arguments: every argument of the block by name, in the order of its signature.
        repeat: how many copies, at least 1.
    """

    module: str
    arguments: Mapping[str, Scalar] = field(default_factory=dict)
    repeat: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "arguments", MappingProxyType(dict(self.arguments)))

    def __hash__(self) -> int:
        return hash((self.module, self.repeat, frozenset(self.arguments.items())))

    def __reduce__(self) -> tuple[type[Row], tuple[Any, ...]]:
        return Row, (self.module, dict(self.arguments), self.repeat)

    def __str__(self) -> str:
        return f"[{self.repeat}, {self.module}, {_flow(self.arguments)}]"


@dataclass(frozen=True, eq=False)
class Architecture:
    """A network without choices: frozen, hashable, equal to every other spelling of itself.

    Attributes:
        rows: the chain of blocks.
        input_channels: channels of a picture, 1 (grey) or 3 (colour).
        input_size: height and width of a picture in pixels.
    """

    rows: tuple[Row, ...]
    input_channels: int
    input_size: tuple[int, int]

    @cached_property
    def key(self) -> str:
        """16 hexadecimal digits that name the network: equal for every spelling, different for every other network.

        How copies are grouped into rows does not count; the input's shape does, because weights are trained for it.
        """
        units = [[row.module, dict(row.arguments)] for _, row in self.units()]
        text = json.dumps([FORMAT, self.input_channels, *self.input_size, units], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def units(self) -> Iterator[tuple[int, Row]]:
        """Yield ``(index of the row, row)`` for every single copy of a block, in order."""
        for index, row in enumerate(self.rows):
            for _ in range(row.repeat):
                yield index, row

    def __eq__(self, other: object) -> bool:
        return self.key == other.key if isinstance(other, Architecture) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.key)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that ``from_dict`` and ``json`` understand."""
        return {
            "format": FORMAT,
            "input_channel": self.input_channels,
            "input_size": list(self.input_size),
            "backbone": [[row.repeat, row.module, dict(row.arguments)] for row in self.rows],
        }

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
            rows = tuple(Row(str(module), arguments, int(n)) for n, module, arguments in plain["backbone"])
            height, width = plain["input_size"]
            return cls(rows, int(plain["input_channel"]), (int(height), int(width)))
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"this is not an architecture ({type(error).__name__}: {error})") from error

    def to_yaml(self) -> str:
        """Return a model file of this network: plain to read, and building the same key."""
        height, width = self.input_size
        size = height if height == width else f"[{height}, {width}]"
        rows = "".join(f"  - {row}\n" for row in self.rows)
        return f"format: {FORMAT}\ninput_channel: {self.input_channels}\ninput_size: {size}\nbackbone:\n{rows}"

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
        for index in range(max(len(self.rows), len(other.rows))):
            mine, theirs = (a.rows[index] if index < len(a.rows) else "no row" for a in (self, other))
            if mine != theirs:
                lines.append(f"row {index}: {mine} here, {theirs} there")
        return lines


def _flow(arguments: Mapping[str, Scalar]) -> str:
    return "{" + ", ".join(f"{name}: {_scalar(value)}" for name, value in arguments.items()) + "}"


def _scalar(value: Scalar) -> str:
    """Write one value as YAML that reads back as the same type."""
    return value if isinstance(value, str) and value.isidentifier() and not _is_word(value) else json.dumps(value)


def _is_word(value: str) -> bool:
    return value.lower() in ("null", "true", "false", "none", "yes", "no", "on", "off", "y", "n")
