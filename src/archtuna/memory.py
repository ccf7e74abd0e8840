"""How much memory a network's activations need at once for one picture, known exactly before it is trained.

A microcontroller reads weights from its flash; what has to fit into its SRAM is the largest sum of activations that are alive
together: what an operation reads, what it writes, and what a later one still reads (Liberis & Lane 2019, arXiv:1910.05110; Lin
et al. 2020, MCUNet, arXiv:2007.10319). Operations run in the order of the rows, within a block in that of its forward pass.

What is assumed of the runtime:

- Numbers are 32-bit floats. Weights, constants, and the scratch memory and alignment of its kernels do not count.
- Batch norm and activations vanish into the operation before them, and zeros around a map into the convolution behind them.
  A block that is simpler when it does not train is what its ``for_inference()`` says.
- An elementwise operation, sums and products included, writes over an operand of its result's size that nothing reads
  afterwards. TensorFlow Lite Micro does so for none that it cannot fuse, and needs one more buffer for a sum.
- Another view of the same numbers (reshape, transpose, slice) is no copy, and keeps all of them alive; where torch has to copy
  them, the copy counts. Attention holds the weights of all its heads.
- What nothing reads is not made. The picture is an activation, and its place is free once nothing reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain

from archtuna.architecture import PICTURE, Architecture, Row
from archtuna.buffers import Block, schedule_of
from archtuna.model import UnitFacts, survey, survey_row
from archtuna.registry import BLOCKS

BYTES_PER_NUMBER = 4


def peak_memory(architecture: Architecture, facts: Sequence[UnitFacts] | None = None) -> int:
    """Return the most bytes of activations that are alive at once while a network takes one picture.

    Args:
        architecture: the network.
        facts: of its units, where they are known.

    Raises:
        ShapeError: rows do not fit each other.
        UnknownNameError: a block is not registered here.
    """
    facts = [unit for _, unit in survey(architecture)] if facts is None else facts
    rows = architecture.rows
    wires = [(index - 1,) if row.inputs is None else row.inputs for index, row in enumerate(rows)]
    last = {i: index for index, inputs in enumerate(wires) for i in inputs} | {len(rows) - 1: len(rows)}
    height, width = architecture.input_size
    peak, first = BYTES_PER_NUMBER * architecture.input_channels * height * width, 0
    values: dict[int, tuple[int, ...]] = {PICTURE: (0,)}
    arena = _Arena({0: peak}, {0: last.get(PICTURE, 0)})
    for index, (row, inputs) in enumerate(zip(rows, wires, strict=True)):
        block = row.module, BLOCKS[row.module].target, row.items, facts[first].inputs
        given = values[inputs[0]] if len(inputs) == 1 else tuple(chain.from_iterable(values[i] for i in inputs))
        used, values[index] = arena.run(partial(_row_course, block, row.repeat), given, index, last.get(index, index))
        peak, first = max(peak, used), first + row.repeat
    return peak


@dataclass(frozen=True)
class _Course:
    """What a block comes to.

    Attributes:
        peak: the most bytes alive at once, its inputs among them.
        output: for each of its tensors the buffer and its bytes; the first buffers are those of the inputs.
    """

    peak: int
    output: tuple[tuple[int, int], ...]


Follow = Callable[[tuple[int, ...], tuple[int, ...], tuple[bool, ...]], _Course]
"""Returns the course of a block by the buffer of each tensor that it takes, the bytes of each of these buffers, and whether
each is still read afterwards."""


class _Arena:
    """The buffers that are alive between steps.

    Args:
        bytes: of each buffer; the buffers are counted from 0.
        until: the last step that reads each.
    """

    def __init__(self, bytes: dict[int, int], until: dict[int, int]) -> None:
        self.bytes, self.until, self.made = bytes, until, len(bytes)

    def run(self, follow: Follow, given: tuple[int, ...], index: int, until: int) -> tuple[int, tuple[int, ...]]:
        """Run a step, give back what nothing reads any more, and return the most bytes meanwhile and what it gave.

        Args:
            follow: the step.
            given: the buffer of each tensor that it takes.
            index: of the step.
            until: the last step that reads what it gives.
        """
        taken = given if len(given) == 1 else tuple(dict.fromkeys(given))
        sizes = tuple([self.bytes[b] for b in taken])
        places = tuple([taken.index(b) for b in given])
        course = follow(places, sizes, tuple([self.until[b] > index for b in taken]))
        peak = course.peak + sum(self.bytes.values()) - sum(sizes)
        names = [taken[b] if b < len(taken) else self.made + b for b, _ in course.output]
        for name, (_, size) in zip(names, course.output, strict=True):
            self.bytes[name], self.until[name] = size, max(until, self.until.get(name, until))
        self.made = max(self.made, *names) + 1
        for name in [name for name, end in self.until.items() if end <= index]:
            del self.bytes[name], self.until[name]
        return peak, tuple(names)


# --- within a row ---------------------------------------------------------------------------------


@lru_cache(maxsize=65_536)
def _row_course(
    block: Block, repeat: int, places: tuple[int, ...], sizes: tuple[int, ...], kept: tuple[bool, ...]
) -> _Course:
    """Follow copies of a block, one behind the other."""
    module, target, arguments, shapes = block
    arena = _Arena(dict(enumerate(sizes)), {b: repeat if keeps else 0 for b, keeps in enumerate(kept)})
    peak = 0
    for copy in range(repeat):
        follow = partial(_unit_course, (module, target, arguments, shapes))
        used, places = arena.run(follow, places, copy, copy + 1)
        peak, shapes = max(peak, used), (survey_row(Row(module, dict(arguments)), shapes).output,)
    return _Course(peak, tuple((b, arena.bytes[b]) for b in places))


@lru_cache(maxsize=65_536)
def _unit_course(block: Block, places: tuple[int, ...], sizes: tuple[int, ...], kept: tuple[bool, ...]) -> _Course:
    """Follow one copy of a block from operation to operation."""
    schedule = schedule_of(*block)
    last = schedule.last_reads()
    place, size = dict(enumerate(places)), dict(enumerate(sizes))
    ends = {p: len(schedule.steps) if keeps else -1 for p, keeps in enumerate(kept)}
    for b, p in place.items():
        ends[p] = max(ends[p], last.get(b, -1))
    peak = sum(sizes)
    for index, step in enumerate(schedule.steps):
        for made in step.makes:
            free = (place[b] for b in step.over if ends[place[b]] == index and size[place[b]] == schedule.bytes[made])
            p = place[made] = next(free, len(size))
            size[p], ends[p] = schedule.bytes[made], last[made]
        peak = max(peak, sum(size[p] for p, end in ends.items() if end >= index))
    return _Course(peak, tuple((place[b], size[place[b]]) for b in schedule.output))
