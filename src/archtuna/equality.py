"""When two architectures are one network in different spelling.

``graph_key`` names what is built, not how it is written: the operations of all blocks with their settings, which weights they
share, and how weights begin (``operations`` says what a block does). It is computed over a canonical text: operations in the
order of a depth-first walk from the output that goes to what depends on the picture first, each with its distances to what it
takes. Directly behind what it takes, a block has the same text wherever it stands, so the texts of blocks are remembered and
that of a chain is their concatenation. How operations are shared out among blocks and rows does not show.

What is not known to be equal is different: blocks with code from outside archtuna, unless their names and arguments are equal,
and sums of three or more that are added up in another order, which changes their last digit.
"""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from archtuna.architecture import Architecture, Row
from archtuna.model import Shape, survey_row
from archtuna.operations import Arguments, Operation, Recording, reached, recording
from archtuna.registry import BLOCKS, require_block


def graph_key(architecture: Architecture) -> str:
    """Return 16 hexadecimal digits that are equal for architectures which build equal networks.

    Equal networks take pictures of one shape, run the same operations, and draw their weights alike. Another version of torch
    may run other operations for the same network, so only keys of one version can be compared.

    Raises:
        ShapeError: rows do not fit each other.
        UnknownNameError: a block is not registered here.
    """
    for name in {row.module for row in architecture.rows} - BLOCKS.keys():
        require_block(name, architecture.origins)
    picture: Shape = (architecture.input_channels, *architecture.input_size)
    ends = [_End((_Piece(_Form(repr(picture).encode(), 1)),), picture)]
    # A network's output is flattened in any case, so a last row that does so adds nothing.
    for index, row in enumerate((*architecture.rows, _FLATTEN)):
        inputs = (index - 1,) if row.inputs is None else row.inputs
        ends.append(_followed(row, [ends[i + 1] for i in inputs]))
    if architecture.is_chain:
        return _digest(_text(ends[-1].strand))
    if any(end.overwritten for end in ends):
        # Who else takes what is overwritten sees it before or after, as the order of rows has it.
        return _digest(f"rows {architecture.key}".encode())
    return _digest(_whole_text(ends[-1].strand, [ends[i + 1].strand for i in _untaken(architecture)]))


_FLATTEN = Row("Flatten")


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:16]


def _untaken(architecture: Architecture) -> list[int]:
    """Return the rows that nothing takes from, the last one left out. They are built all the same."""
    rows = architecture.rows
    taken = {i for index, row in enumerate(rows) for i in row.inputs or (index - 1,)}
    return [index for index in range(len(rows) - 1) if index not in taken]


# --- canonical texts ------------------------------------------------------------------------------

_DISTANCE = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class _Form:
    """Operations in canonical order, as they are written directly behind what the first of them takes.

    Attributes:
        text: each operation as a digest of its name and settings and the distances to what it takes.
        size: how many they are.
        loose: for each distance to something before them its place in the text and which of the sources it leads to.
    """

    text: bytes
    size: int
    loose: tuple[tuple[int, int], ...] = ()

    def before(self, other: _Form) -> _Form:
        """Return the form of both, the other behind this one."""
        if not self.size:
            return other
        return _Form(self.text + other.text, self.size + other.size, self.loose)


@dataclass(frozen=True, eq=False, slots=True)
class _Piece:
    """A form at its place in a network, behind its sources."""

    form: _Form
    sources: tuple[_Piece, ...] = ()


_Strand = tuple[_Piece, ...]
"""A value as the pieces that it comes from, in canonical order, its own last."""


def _written(strand: _Strand, ends: dict[_Piece, int]) -> bytes:
    """Return the text of pieces, and note how many operations precede each one's end; ``ends`` has those before them."""
    count, parts = 0, []
    for piece in strand:
        gaps = [count - ends[source] for source in piece.sources]
        parts.append(_moved(piece.form, gaps) if any(gaps) else piece.form.text)
        count += piece.form.size
        ends[piece] = count
    return b"".join(parts)


def _moved(form: _Form, gaps: Sequence[int]) -> bytes:
    """Return a form's text where so many operations stand between it and each of its sources."""
    text = bytearray(form.text)
    for place, source in form.loose:
        distance = _DISTANCE.unpack_from(text, place)[0]
        _DISTANCE.pack_into(text, place, distance + gaps[source])
    return bytes(text)


def _text(strand: _Strand) -> bytes:
    return _written(strand, {})


def _joined(strands: Sequence[_Strand]) -> _Strand:
    """Return the pieces of several values, each once: those of the first, then what the others have besides."""
    order = strands[0]
    for other in strands[1:]:
        if other[: len(order)] == order:
            order = other
        else:
            present = set(order)
            order += tuple(piece for piece in other if piece not in present)
    return order


def _whole_text(output: _Strand, untaken: Sequence[_Strand]) -> bytes:
    """Return the text of a network; what leads nowhere follows behind a mark."""
    order = _joined([output, *sorted(untaken, key=_text)])
    return _text(order) if len(order) == len(output) else _text(order) + b" output at %d" % len(_text(output))


# --- operations as pieces -------------------------------------------------------------------------

_COMMUTING = ("add.Tensor [%, %] ", "mul.Tensor [%, %] ")


def _strand_of(recorded: Recording, inputs: Sequence[_Strand]) -> _Strand:
    """Return what a block gives, operation by operation, where it takes these inputs."""
    strands = dict(zip(recorded.inputs, inputs, strict=True))
    for step in _steps(recorded):
        strands[step] = _extended(step, strands)
    return strands[recorded.output]


@lru_cache(maxsize=4_096)
def _steps(recorded: Recording) -> list[Operation]:
    """Return the operations that are written as such: a constant that is used once is a part of the text of who uses it."""
    steps = reached(recorded.output)
    uses = Counter(operand for step in steps for operand in step.operands)
    return [s for s in steps if (s.follows or uses[s] > 1) and s not in recorded.inputs]


def _extended(step: Operation, strands: Mapping[Operation, _Strand]) -> _Strand:
    text, taken = _expression(step, strands)
    order = [strands[o] for o in sorted(taken, key=lambda o: not o.follows)]
    before: _Strand = _joined(order) if order else ()
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest() + bytes([len(taken)])
    form = _Form(digest + _DISTANCE.pack(1) * len(taken), 1, tuple((9 + 4 * i, i) for i in range(len(taken))))
    return (*before, _Piece(form, tuple(strands[o][-1] for o in taken)))


def _expression(step: Operation, strands: Mapping[Operation, _Strand]) -> tuple[str, list[Operation]]:
    """Return an operation with the constants that are its own as text, and what else it takes, which ``%`` stands for."""
    parts, taken = [step.text], []
    for operand in _ordered(step, strands):
        text, more = ("%", [operand]) if operand in strands else _expression(operand, strands)
        parts.append(text)
        taken += more
    return f"({'; '.join(parts)})", taken


def _ordered(step: Operation, strands: Mapping[Operation, _Strand]) -> Sequence[Operation]:
    """Return the operands; those of a sum or product in the order of their texts, constants last."""
    if step.text not in _COMMUTING:
        return step.operands
    one, two = step.operands
    if not (one.follows and two.follows):
        return sorted(step.operands, key=lambda o: not o.follows)
    return (two, one) if _precedes(strands[two], strands[one]) else (one, two)


def _precedes(one: _Strand, two: _Strand) -> bool:
    # Most sums are of a value and what became of it, and need no text.
    if two[: len(one)] == one:
        return True
    return one[: len(two)] != two and _text(one) < _text(two)


# --- rows -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _End:
    """What a row gives: a value, its shape, and whether the row overwrites what it takes."""

    strand: _Strand
    shape: Shape
    overwritten: bool = False


def _followed(row: Row, taken: Sequence[_End]) -> _End:
    """Return what a row gives where it takes these."""
    target, arguments = BLOCKS[row.module].target, tuple(row.arguments.items())
    repeat, (first, *others) = row.repeat, taken
    if others:
        shapes = tuple(end.shape for end in taken)
        recorded = recording(row.module, target, arguments, shapes)
        strand = _strand_of(recorded, [end.strand for end in taken])
        first = _End(strand, survey_row(row, shapes).output, recorded.overwrites)
        repeat -= 1
    form, shape, overwritten = _copies(row.module, target, arguments, repeat, first.shape)
    strand = (*first.strand, _Piece(form, (first.strand[-1],))) if form.size else first.strand
    return _End(strand, shape, overwritten or (bool(others) and first.overwritten))


@lru_cache(maxsize=65_536)
def _copies(module: str, target: object, arguments: Arguments, repeat: int, shape: Shape) -> tuple[_Form, Shape, bool]:
    """Return the form of copies of a block, one behind the other, the shape behind them, and whether they overwrite."""
    form, overwrites = _Form(b"", 0), False
    for _ in range(repeat):
        added, shape, overwriting = _copy(module, target, arguments, shape)
        form, overwrites = form.before(added), overwrites or overwriting
    return form, shape, overwrites


@lru_cache(maxsize=65_536)
def _copy(module: str, target: object, arguments: Arguments, shape: Shape) -> tuple[_Form, Shape, bool]:
    output = survey_row(Row(module, dict(arguments)), (shape,)).output
    recorded = recording(module, target, arguments, (shape,))
    source = _Piece(_Form(b"", 0))
    strand = _strand_of(recorded, [(source,)])
    return _condensed(strand), output, recorded.overwrites


def _condensed(strand: _Strand) -> _Form:
    """Return everything behind the first piece as one form, whose source that piece is."""
    source, *pieces = strand
    text = _written(tuple(pieces), {source: 0})
    loose, start = [], 0
    for piece in pieces:
        loose += [(start + place, 0) for place, i in piece.form.loose if piece.sources[i] is source]
        start += len(piece.form.text)
    return _Form(text, sum(piece.form.size for piece in pieces), tuple(loose))
