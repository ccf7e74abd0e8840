"""Named things that users can add to: blocks, export formats, precisions.

A registry maps a name to a described record. Describing a block needs no torch; only its target does.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from typing import Any, Generic, Literal, TypeVar

from archtuna.errors import ArchtunaError, BlockImportError, nearest
from archtuna.signature import Parameter, parameters_of

log = logging.getLogger("archtuna")

Entry = TypeVar("Entry")


class UnknownNameError(ArchtunaError, KeyError):
    """A name that is not registered; the hint is the nearest one that is."""

    __str__ = ArchtunaError.__str__


class Registry(Mapping[str, Entry], Generic[Entry]):
    """Entries by name, in the order of their registration.

    Args:
        kind: what an entry is, for messages: ``block``, ``metric``.
        group: an entry-point group. What installed packages offer in it is imported when a name is first not found or all
            names are first listed; a package that fails to import is passed over with a warning.
    """

    def __init__(self, kind: str, group: str | None = None) -> None:
        self.kind = kind
        self._group = group
        self._entries: dict[str, Entry] = {}
        self._families: dict[str, Callable[[str], Entry | None]] = {}
        self._members: dict[str, Callable[[], Iterable[str]]] = {}

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

    def add_family(
        self, prefix: str, make: Callable[[str], Entry | None], members: Callable[[], Iterable[str]] = tuple
    ) -> None:
        """Let ``make`` describe every name that begins with ``prefix``; it returns None for one that it does not know.

        ``members`` lists the names that it knows, for hints.
        """
        self._families[prefix], self._members[prefix] = make, members

    def hint_for(self, name: str) -> str | None:
        """Return what was perhaps meant by a name that is not known: one of its family, where it has one."""
        members = next((made for prefix, made in self._members.items() if name.startswith(prefix)), None)
        return nearest(name, self if members is None else members())

    def __getitem__(self, name: str) -> Entry:
        entry = self._entries.get(name) or self._made(name)
        if entry is None:
            self._discover()
            entry = self._entries.get(name)
        if entry is None:
            hint = self.hint_for(name) or f"known: {', '.join(sorted(self))}"
            raise UnknownNameError(f"no {self.kind} is named '{name}'", hint=hint)
        return entry

    def _made(self, name: str) -> Entry | None:
        """Return the entry of a family's member, which is described when it is first asked for."""
        for prefix, make in self._families.items():
            if name.startswith(prefix) and (made := make(name)) is not None:
                return self._entries.setdefault(name, made)
        return None

    def _discover(self) -> None:
        """Import what installed packages offer, once."""
        group, self._group = self._group, None
        for point in metadata.entry_points(group=group) if group else ():
            try:
                point.load()
            except Exception as error:  # Somebody else's code may fail in any way; the rest must go on.
                log.warning(
                    "the package that offers %s '%s' (%s) cannot be imported: %s",
                    self.kind,
                    point.name,
                    point.value,
                    error,
                )

    def __iter__(self) -> Iterator[str]:
        self._discover()
        return iter([name for name in self._entries if not name.startswith(tuple(self._families) or "\0")])

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _origin(entry: object) -> str:
    """Where an entry was defined, so that a reloaded module is told from a clash of names."""
    target = getattr(entry, "target", entry)
    return f"{getattr(target, '__module__', '?')}.{getattr(target, '__qualname__', repr(target))}"


MEANINGS: Mapping[str, str] = {
    "channels": "of the output",
    "features": "values of the output",
    "kernel": "side of the window in pixels",
    "kernels": "sides of the windows in pixels",
    "stride": "pixels from one window to the next",
    "padding": "pixels of zeros on each side; null is half the kernel",
    "groups": "into which the channels are divided",
    "dilation": "pixels between the points of a window",
    "activation": "null for none",
    "expansion": "hidden channels as a multiple of the input's",
    "se": "squeeze-and-excite",
    "shortcut": "whether the input is added where the channels agree",
    "dropout": "share of values set to zero while training",
    "drop_path": "share of pictures that pass the block by while training",
    "heads": "of the attention; they share the channels",
    "attention": "a gate over the channels: none, squeeze-and-excite, efficient channel attention",
    "output_size": "cells a side",
    "ceil_mode": "whether a window that hangs over the edge counts",
}
"""What arguments of these names mean in every block that does not say otherwise."""

RepeatRule = Literal["stride first", "stride last", "widen last", "inside", "each", "once"]


@dataclass(frozen=True)
class Block:
    """One kind of row: a class (or a function that returns a module) whose signature is its schema.

    Attributes:
        name: as model files write it.
        target: called with the input's channels, if it asks for them, and its arguments by name.
        parameters: its arguments in the order of a positional list.
        repeat: what n copies in one row are. ``stride first`` and ``stride last`` say which copy has the stride, ``widen
            last`` keeps the input's channels in all copies but the last, ``inside`` hands n on as the argument ``repeats``,
            ``each`` repeats as it is, ``once`` ignores n.
        scaled_argument: the argument to which ``width_multiple`` applies, or None.
        canonical: fills in arguments that follow from others, so that one network has one spelling.
        meaning: one sentence for people.
        paper: where the structure comes from, or "".
        inputs: how many outputs of other rows it takes; None for two or more.
        channels_argument: the argument that is told the input's channels (a tuple where it takes two or more inputs), or
            None where it asks for none.
        later: arguments that the block did not always have. They are written down only where they differ from their
            default, so that the keys of older networks stay what they were.
        arguments_meaning: what single arguments mean, where their name does not say it.
        unexportable: the export formats that cannot hold it.
        origin: the Python module that registers it.
    """

    name: str
    target: Callable[..., Any]
    parameters: tuple[Parameter, ...]
    repeat: RepeatRule = "each"
    scaled_argument: str | None = None
    canonical: Callable[[dict[str, Any]], dict[str, Any]] = dict
    meaning: str = ""
    paper: str = ""
    inputs: int | None = 1
    channels_argument: str | None = None
    later: tuple[str, ...] = ()
    arguments_meaning: Mapping[str, str] = field(default_factory=dict)
    origin: str = "torch"
    unexportable: tuple[str, ...] = ()

    @property
    def wants_channels(self) -> bool:
        """Whether the target is told the channels of its input."""
        return self.channels_argument is not None

    @property
    def scaled(self) -> bool:
        """Whether ``width_multiple`` applies to it."""
        return self.scaled_argument is not None

    @property
    def joins(self) -> bool:
        """Whether it takes the outputs of two or more rows."""
        return self.inputs is None

    @property
    def is_foreign(self) -> bool:
        """Whether it is registered outside archtuna, so that whoever loads a network with it has to import it first."""
        return self.origin.partition(".")[0] not in ("archtuna", "torch")

    def parameter(self, name: str) -> Parameter | None:
        return next((p for p in self.parameters if p.name == name), None)

    def meaning_of(self, argument: str) -> str:
        """Return what an argument means, or "" where nobody says it."""
        return self.arguments_meaning.get(argument) or MEANINGS.get(argument, "")

    def complete(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the one spelling of these arguments, which have a value for each parameter."""
        complete = self.canonical(arguments)
        for name in self.later:
            if complete[name] == next(p.default for p in self.parameters if p.name == name):
                del complete[name]
        return complete


BLOCKS: Registry[Block] = Registry("block", group="archtuna.blocks")


def block(
    target: Any = None,
    *,
    name: str | None = None,
    repeat: RepeatRule | None = None,
    scaled: bool | str = False,
    canonical: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    paper: str = "",
    inputs: int | Literal["auto"] | None = "auto",
    in_channels: str = "in_channels",
    later: tuple[str, ...] = (),
    explain: Mapping[str, str] | None = None,
    unexportable: tuple[str, ...] = (),
    origin: str | None = None,
) -> Any:
    """Register an ``nn.Module`` class, or a function that returns a module, as a block of model files.

    Its signature is its schema: annotations (``int``, ``float``, ``bool``, ``str``, ``Literal``, lists of these, or those
    of ``archtuna.signature``) say what a file may write, defaults what may be left out. A whole model that gives one value
    per class is a block like any other. Usable bare or with arguments; returns the target unchanged::

        @archtuna.block
        class Shift(nn.Module):
            \"\"\"Moves the map by a few pixels.\"\"\"
            def __init__(self, in_channels: int, channels: int, pixels: int = 1): ...

    Args:
        target: the class or function.
        name: as model files write it; by default the target's.
        repeat: what several copies in one row are (``Block.repeat``); by default the first strides where there is a
            ``stride``, else each repeats as it is.
        scaled: whether ``width_multiple`` applies to ``channels``, or to the argument named here.
        canonical: fills in arguments that follow from others.
        paper: where the structure comes from.
        inputs: how many outputs of other rows it takes, None for two or more; by default what ``forward`` takes (one where
            that cannot be seen).
        in_channels: the argument that is told the input's channels, where there is one of that name.
        later: arguments that the block did not always have.
        explain: what single arguments mean.
        unexportable: the export formats that cannot hold it; a search for one of them never proposes it.
        origin: the Python module that registers it; by default the caller's.

    Raises:
        TypeError: a required parameter is annotated with what no file could hold.
        ValueError: another block has that name.
    """
    if target is None:
        return partial(
            block, name=name, repeat=repeat, scaled=scaled, canonical=canonical, paper=paper, inputs=inputs,
            in_channels=in_channels, later=later, explain=explain, unexportable=unexportable, origin=origin,
        )  # fmt: skip
    parameters = parameters_of(target, skip=("self", in_channels))
    strided = any(p.name == "stride" for p in parameters)
    entry = Block(
        name=name or target.__name__,
        target=target,
        parameters=parameters,
        repeat=repeat or ("stride first" if strided else "each"),
        scaled_argument=("channels" if scaled is True else scaled) or None,
        canonical=canonical,
        meaning=(inspect.getdoc(target) or "").split("\n\n")[0].replace("\n", " "),
        paper=paper,
        inputs=inputs_of(target) if inputs == "auto" else inputs,
        channels_argument=in_channels if in_channels in inspect.signature(target).parameters else None,
        later=later,
        arguments_meaning=dict(explain or {}),
        unexportable=unexportable,
        # Whose module this is, is what has to be imported elsewhere: the target may be a class of another library.
        origin=origin or sys._getframe(1).f_globals.get("__name__", "?"),
    )
    BLOCKS.add(entry.name, entry)
    return target


def require_block(name: str, origins: Mapping[str, str]) -> Block:
    """Return a block.

    Args:
        name: of the block.
        origins: the modules that a file says its blocks come from.

    Raises:
        UnknownNameError: it is not registered; the hint says what to import, which nothing does by itself.
    """
    if name in BLOCKS or name not in origins:
        return BLOCKS[name]
    module = origins[name]
    raise UnknownNameError(
        f"no block is named '{name}' here; it is one of the module '{module}'", hint=import_hint(module, "block")
    )


def import_hint(module: str, kind: str) -> str:
    """Return what makes a block or a metric known that is one of a module."""
    if module == "__main__":
        return f"it was defined in a script: run it from there, or put the {kind} into a module of its own"
    return f"import {module} first; on the command line: --import {module}"


def inputs_of(target: Any) -> int | None:
    """Return how many tensors a module's ``forward`` needs; None for ``*inputs``, 1 where it cannot be seen."""
    forward = getattr(target, "forward", None)
    # torch.nn.Module's own stands for a method that is yet to be written, and takes anything.
    if forward is None or forward.__name__ == "_forward_unimplemented":
        return 1
    try:
        parameters = list(inspect.signature(forward).parameters.values())[1:]
    except (TypeError, ValueError):
        return 1
    if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters):
        return None
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return max(1, sum(1 for p in parameters if p.kind in positional and p.default is inspect.Parameter.empty))


def import_modules(names: Iterable[str]) -> tuple[str, ...]:
    """Import modules for the blocks and metrics that they register, and return their names.

    Only people ask for this, on the command line or in Python; no file can. The working folder is looked in first, as
    ``python -m`` does.

    Raises:
        BlockImportError: a module is not found, or fails while it is imported; the error says where.
    """
    modules = tuple(dict.fromkeys(name.removesuffix(".py").replace("/", ".").strip(".") for name in names))
    if modules and "" not in sys.path:
        sys.path.insert(0, "")
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # The module is a user's code: whatever it raises is told in one line.
            hint = "name a module as Python's import does: my_blocks, or package.my_blocks"
            missing = isinstance(error, ModuleNotFoundError) and error.name and module.startswith(error.name)
            words = f"no module '{module}'" if missing else f"'{module}' fails with {type(error).__name__}: {error}"
            raise BlockImportError(f"cannot import: {words}", hint=hint if missing else _failed_at(error)) from error
    return modules


def _failed_at(error: BaseException) -> str | None:
    """Return the file and line in which somebody's module failed; what a syntax error says itself is not repeated."""
    if isinstance(error, SyntaxError):
        return None
    trace, place = error.__traceback__, None
    while trace is not None:
        place = f"{trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno}"
        trace = trace.tb_next
    return place
