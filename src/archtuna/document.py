"""YAML as data with places: every value knows its file, line and path, so that every mistake can be pointed at.

Only plain data is read: no tags, no Python objects, no merge keys. Values follow YAML 1.2's core rules where 1.1 surprises
people (``1e-3`` is a number, ``012`` is 12, ``no`` and ``12:30`` are texts). The tree is built from the parser's events
without recursion, and nesting, aliases and size are bounded, because a hostile file may be 50,000 brackets deep or
expand to billions of nodes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from archtuna.errors import SpecError, brief, nearest

MAX_BYTES = 2_000_000
_OTHER = "is it a model file? they have some kilobytes"
MAX_DEPTH = 48
MAX_NODES = 200_000
MAX_DIGITS = 40

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NUMBER = re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?")
_WORDS = {"": None, "~": None, "null": None, "Null": None, "NULL": None} | {
    spelling: word == "true" for word in ("true", "false") for spelling in (word, word.title(), word.upper())
}


@dataclass(slots=True)
class _Node:
    content: Any  # a scalar, list[_Node] or dict[str, _Node]
    line: int | None
    keys: dict[str, int | None] | None = None  # line of each key of a mapping
    size: int = 1  # nodes below and including this one, aliases expanded


@dataclass(frozen=True, slots=True)
class Value:
    """One value of a document and where it stands."""

    _node: _Node
    path: str = ""
    file: str | None = None

    @property
    def line(self) -> int | None:
        return self._node.line

    @property
    def is_mapping(self) -> bool:
        return isinstance(self._node.content, dict)

    @property
    def is_list(self) -> bool:
        return isinstance(self._node.content, list)

    @property
    def is_scalar(self) -> bool:
        return not (self.is_mapping or self.is_list)

    @property
    def scalar(self) -> Any:
        """The number, text, truth value or None that stands here.

        Raises:
            SpecError: a list or a mapping stands here.
        """
        if not self.is_scalar:
            raise self.error(f"must be a single value, not {self.kind}")
        return self._node.content

    @property
    def kind(self) -> str:
        """What stands here, in words."""
        return "a mapping" if self.is_mapping else "a list" if self.is_list else brief(self._node.content)

    def items(self) -> list[Value]:
        """The elements of a list.

        Raises:
            SpecError: no list stands here.
        """
        if not self.is_list:
            raise self.error(f"must be a list, not {self.kind}")
        return [Value(node, f"{self.path}[{i}]", self.file) for i, node in enumerate(self._node.content)]

    def entries(self, known: Iterable[str] | None = None) -> dict[str, Value]:
        """The entries of a mapping, by key.

        Raises:
            SpecError: no mapping stands here, or a key is not among the ``known`` ones.
        """
        if not self.is_mapping:
            if self._node.content is None and not self.path:
                raise self.error("the file is empty")
            raise self.error(f"must be a mapping of names to values, not {self.kind}")
        prefix = f"{self.path}." if self.path else ""
        if known is not None:
            allowed = list(known)
            for key, line in (self._node.keys or {}).items():
                if key not in allowed:
                    hint = nearest(key, allowed) or f"known: {', '.join(allowed)}"
                    raise SpecError(
                        "unknown key", file=self.file, line=line, path=f"{prefix}{key}", value=key, hint=hint
                    )
        return {key: Value(node, f"{prefix}{key}", self.file) for key, node in self._node.content.items()}

    def at(self, path: str) -> Value:
        """The same value under another path: arguments are named by their block, not by their position."""
        return Value(self._node, path, self.file)

    def with_content(self, content: object) -> Value:
        """Another scalar at the same place."""
        return Value(_Node(content, self._node.line), self.path, self.file)

    def without(self, keys: Iterable[str]) -> Value:
        """This mapping without some of its keys."""
        left = {key: node for key, node in self._node.content.items() if key not in set(keys)}
        lines = {key: line for key, line in (self._node.keys or {}).items() if key in left}
        return Value(_Node(left, self._node.line, lines), self.path, self.file)

    def substituted(self, texts: Mapping[str, Value]) -> Value:
        """The same value with these texts, wherever they are whole scalars, replaced by other values."""
        return Value(
            _substituted(self._node, {text: value._node for text, value in texts.items()}), self.path, self.file
        )

    def key_line(self, key: str) -> int | None:
        """Line on which a key of this mapping stands."""
        return (self._node.keys or {}).get(key)

    def plain(self) -> Any:
        """The value as plain Python data, without places."""
        if self.is_mapping:
            return {key: value.plain() for key, value in self.entries().items()}
        return [value.plain() for value in self.items()] if self.is_list else self._node.content

    def error(self, message: str, *, hint: str | None = None) -> SpecError:
        """Return an error that points here, to be raised by the caller."""
        value = self._node.content if self.is_scalar else None
        return SpecError(message, hint=hint, file=self.file, line=self.line, path=self.path, value=value)


def _substituted(node: _Node, texts: Mapping[str, _Node]) -> _Node:
    """Nesting is bounded, and so is this recursion."""
    if isinstance(node.content, dict):
        return replace(node, content={key: _substituted(below, texts) for key, below in node.content.items()})
    if isinstance(node.content, list):
        return replace(node, content=[_substituted(below, texts) for below in node.content])
    return texts.get(node.content, node) if isinstance(node.content, str) else node


def read(path: str | Path) -> Value:
    """Read a YAML file.

    Raises:
        SpecError: the file is missing, too large, not UTF-8 text, or no YAML that archtuna reads.
    """
    return parse(text_of(path), file=str(path))


def text_of(path: str | Path) -> str:
    """Return the text of a file.

    Raises:
        SpecError: the file is missing, too large, not UTF-8 text, or cannot be read.
    """
    path = Path(path)
    name = str(path)
    try:
        with open(path, "rb") as file:
            # Not by the size that the system tells: a device has none, and no end either.
            content = file.read(MAX_BYTES + 1)
        size = max(path.stat().st_size, len(content))
        text = content.decode("utf-8-sig") if len(content) <= MAX_BYTES else ""
    except UnicodeDecodeError as error:
        raise SpecError(f"not UTF-8 text (byte {error.start})", file=name, hint="save the file as UTF-8") from None
    except FileNotFoundError:
        raise SpecError(
            "no such file", file=name, hint=_sibling(path) or "archtuna init writes a search file"
        ) from None
    except (OSError, ValueError) as error:
        raise SpecError(f"cannot be read ({getattr(error, 'strerror', None) or error})", file=name) from None
    if len(content) > MAX_BYTES:
        raise SpecError(f"the file has {size:,} bytes; a model file has at most {MAX_BYTES:,}", file=name, hint=_OTHER)
    return text


def _sibling(path: Path) -> str | None:
    try:
        return nearest(path.name, [entry.name for entry in path.parent.iterdir()])
    except OSError:
        return f"the folder '{path.parent}' does not exist"


def scalar_of(text: str) -> Any:
    """Return the value of an unquoted scalar by YAML 1.2's core rules."""
    if text in _WORDS:
        return _WORDS[text]
    if not _NUMBER.fullmatch(text) or len(text) > MAX_DIGITS:
        return text
    return int(text) if re.fullmatch(r"[-+]?\d+", text) else float(text)


def parse(text: str, *, file: str | None = None) -> Value:
    """Read YAML from text.

    Raises:
        SpecError: the text is no YAML that archtuna reads.
    """
    if len(text) > MAX_BYTES:
        raise SpecError(f"the text has {len(text):,} characters; a model file has at most {MAX_BYTES:,}", file=file)
    try:
        return Value(_compose(text, file), "", file)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(part for part in (error.problem, error.context) if part)
        line = mark.line + 1 if mark else None
        raise SpecError(f"not YAML: {problem}", file=file, line=line, hint=_yaml_hint(text, mark)) from None
    except yaml.YAMLError as error:
        raise SpecError(f"not YAML: {str(error).splitlines()[0]}", file=file) from None


def from_plain(plain: object, *, path: str = "") -> Value:
    """Wrap plain Python data as a document without lines.

    Raises:
        SpecError: the data holds something that no file could hold, or is too deep.
    """
    return Value(_wrap(plain, path, 0), path)


def _wrap(plain: object, path: str, depth: int) -> _Node:
    if depth > MAX_DEPTH:
        raise SpecError(f"nested deeper than {MAX_DEPTH} levels", path=path)
    if isinstance(plain, Mapping):
        content = {str(key): _wrap(value, f"{path}.{key}".lstrip("."), depth + 1) for key, value in plain.items()}
        return _Node(content, None, dict.fromkeys(content))
    if isinstance(plain, list | tuple):
        return _Node([_wrap(value, f"{path}[{i}]", depth + 1) for i, value in enumerate(plain)], None)
    if plain is None or isinstance(plain, bool | int | float | str):
        return _Node(plain, None)
    raise SpecError(f"{type(plain).__name__} is no value of a file", path=path)


def _compose(text: str, file: str | None) -> _Node:
    composer = _Composer(file)
    for event in yaml.parse(text, Loader=_Loader):
        composer.take(event)
    return composer.root or _Node(None, 1)


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end has not come yet."""

    node: _Node
    anchor: str | None
    key: tuple[str, int] | None = None  # in a mapping, the key that waits for its value, and its line


class _Composer:
    """Builds the tree of one document from parser events, with an explicit stack instead of recursion."""

    def __init__(self, file: str | None) -> None:
        self.file = file
        self.root: _Node | None = None
        self.open: list[_Open] = []
        self.anchors: dict[str, _Node] = {}

    def take(self, event: Any) -> None:
        line = event.start_mark.line + 1
        match event:
            case yaml.AliasEvent():
                # A node is known to aliases once it is closed, so that none can contain itself.
                if event.anchor not in self.anchors:
                    raise self.fail(f"the alias *{event.anchor} has no finished anchor before it", line)
                self.place(self.anchors[event.anchor], line)
            case yaml.ScalarEvent():
                self.close(_Open(_Node(self.scalar(event, line), line), event.anchor), line)
            case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                if event.tag:
                    raise self.fail(f"the tag {event.tag} is not allowed: files hold plain data", line)
                if len(self.open) >= MAX_DEPTH:
                    raise self.fail(f"nested deeper than {MAX_DEPTH} levels", line)
                is_mapping = isinstance(event, yaml.MappingStartEvent)
                self.open.append(_Open(_Node({}, line, {}) if is_mapping else _Node([], line), event.anchor))
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                self.close(self.open.pop(), line)

    def close(self, finished: _Open, line: int) -> None:
        if finished.anchor:
            self.anchors[finished.anchor] = finished.node
        self.place(finished.node, line)

    def place(self, node: _Node, line: int) -> None:
        """Put a finished node where it belongs: the root, a list, a key or the value of the waiting key."""
        if not self.open:
            if self.root is not None:
                raise self.fail("a second document starts here; a file holds one", line)
            self.root = node
            return
        parent = self.open[-1]
        parent.node.size += node.size
        if parent.node.size > MAX_NODES:
            raise self.fail(f"more than {MAX_NODES:,} values (an alias counts for all that it repeats)", line)
        if parent.node.keys is None:
            parent.node.content.append(node)
        elif parent.key is None:
            parent.key = (self.key(node, line, parent.node), line)
        else:
            name, parent.node.keys[parent.key[0]] = parent.key
            parent.node.content[name] = node
            parent.key = None

    def key(self, node: _Node, line: int, mapping: _Node) -> str:
        if isinstance(node.content, dict | list):
            raise self.fail("a key must be a single name", line)
        if node.content == "<<":
            raise self.fail("merge keys (<<) are not read", line, "write the entries out")
        name = str(node.content)
        if name in mapping.content:
            raise self.fail(f"the key '{name}' stands twice (first on line {(mapping.keys or {}).get(name)})", line)
        return name

    def scalar(self, event: yaml.ScalarEvent, line: int) -> Any:
        """Return a scalar's value by YAML 1.2's core rules; what is quoted stays a text."""
        text = event.value
        if event.tag and event.tag not in ("!", "tag:yaml.org,2002:str"):
            raise self.fail(f"the tag {event.tag} is not allowed: files hold plain data", line)
        if not event.implicit[0]:
            return text
        if len(text) > MAX_DIGITS and _NUMBER.fullmatch(text):
            raise self.fail(f"a number of {len(text)} characters", line)
        return scalar_of(text)

    def fail(self, message: str, line: int, hint: str | None = None) -> SpecError:
        return SpecError(message, file=self.file, line=line, hint=hint)


def _yaml_hint(text: str, mark: Any) -> str | None:
    lines = text.splitlines()
    if mark is not None and mark.line < len(lines) and "\t" in lines[mark.line]:
        return "the line holds a tab; indent with spaces"
    return None
