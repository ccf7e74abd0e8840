"""Named things that users can add to: blocks, metrics, costs.

A registry maps a name to a described record. Describing a block needs no torch; only its target does.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from archtuna.errors import ArchtunaError, nearest
from archtuna.signature import Parameter, parameters_of

Entry = TypeVar("Entry")


class UnknownNameError(ArchtunaError, KeyError):
    """A name that is not registered; the hint is the nearest one that is."""

    __str__ = ArchtunaError.__str__


class Registry(Mapping[str, Entry], Generic[Entry]):
    """Entries by name, in the order of their registration.

    Args:
        kind: what an entry is, for messages: ``block``, ``metric``.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = {}

    def add(self, name: str, entry: Entry) -> None:
        """Register ``entry`` as ``name``.

        Raises:
            ValueError: another entry has that name already. The same definition may be registered again (a reloaded
                module), which replaces it.
        """
        known = self._entries.get(name)
        if known is not None and _origin(known) != _origin(entry):
            raise ValueError(f"a {self.kind} named '{name}' exists already ({_origin(known)})")
        self._entries[name] = entry

    def __getitem__(self, name: str) -> Entry:
        try:
            return self._entries[name]
        except KeyError:
            hint = nearest(name, self) or f"known: {', '.join(sorted(self))}"
            raise UnknownNameError(f"no {self.kind} is named '{name}'", hint=hint) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _origin(entry: object) -> str:
    """Where an entry was defined, so that a reloaded module is told from a clash of names."""
    target = getattr(entry, "target", entry)
    return f"{getattr(target, '__module__', '?')}.{getattr(target, '__qualname__', repr(target))}"


RepeatRule = Literal["stride first", "stride last", "widen last", "each", "once"]


@dataclass(frozen=True)
class Block:
    """One kind of row: a class (or a function that returns a module) whose signature is its schema.

    Attributes:
        name: as model files write it.
        target: called with the input's channels, if it asks for ``in_channels``, and its arguments by name.
        parameters: its arguments in the order of a positional list.
        repeat: what n copies in one row are. ``stride first`` and ``stride last`` say which copy has the stride, ``widen
            last`` keeps the input's channels in all copies but the last, ``each`` repeats as it is, ``once`` ignores n.
        scaled: whether ``width_multiple`` applies to ``channels``.
        canonical: fills in arguments that follow from others, so that one network has one spelling.
        meaning: one sentence for people.
        paper: where the structure comes from, or "".
    """

    name: str
    target: Callable[..., Any]
    parameters: tuple[Parameter, ...]
    repeat: RepeatRule
    scaled: bool
    canonical: Callable[[dict[str, Any]], dict[str, Any]]
    meaning: str
    paper: str

    @property
    def wants_channels(self) -> bool:
        """Whether the target is told the channels of its input."""
        return "in_channels" in inspect.signature(self.target).parameters

    def parameter(self, name: str) -> Parameter | None:
        return next((p for p in self.parameters if p.name == name), None)


BLOCKS: Registry[Block] = Registry("block")


def block(
    target: Any = None,
    *,
    name: str | None = None,
    repeat: RepeatRule | None = None,
    scaled: bool = False,
    canonical: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    paper: str = "",
) -> Any:
    """Register an ``nn.Module`` class, or a function that returns a module, as a block of model files.

    Usable bare or with arguments; returns the target unchanged. Without ``repeat`` a block that has a ``stride`` strides in
    the first of its copies, any other repeats as it is. The remaining arguments are ``Block``'s attributes.

    Raises:
        TypeError: a parameter's annotation is nothing that a file could hold.
        ValueError: another block has that name.
    """
    if target is None:
        return lambda late: block(late, name=name, repeat=repeat, scaled=scaled, canonical=canonical, paper=paper)
    parameters = parameters_of(target, skip=("self", "in_channels"))
    strided = any(p.name == "stride" for p in parameters)
    entry = Block(
        name=name or target.__name__,
        target=target,
        parameters=parameters,
        repeat=repeat or ("stride first" if strided else "each"),
        scaled=scaled,
        canonical=canonical,
        meaning=(inspect.getdoc(target) or "").split("\n\n")[0].replace("\n", " "),
        paper=paper,
    )
    BLOCKS.add(entry.name, entry)
    return target
