"""ExecuTorch: a small program for phones and boards, one picture at a time, computed by XNNPACK."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from archtuna.exports.formats import FORMATS, Format, Run, Source, Written
from archtuna.exports.pt2 import program_of
from archtuna.exports.quiet import quiet


def write(source: Source) -> Written:
    # The program plans its memory for the largest batch that it takes: a device classifies one picture after the other.
    return Written(lowered(program_of(source, dynamic=False), source.description()))


def lowered(program: torch.export.ExportedProgram, constants: Mapping[str, Any] | None = None) -> bytes:
    """Return an ExecuTorch program.

    Args:
        program: for a batch of one size.
        constants: what methods of the program return, by their names.
    """
    with quiet():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        edge = to_edge_transform_and_lower(
            program, partitioner=[XnnpackPartitioner()], constant_methods=dict(constants or {})
        )
        return bytes(edge.to_executorch().buffer)


def open_(written: Written, source: Source) -> Run:
    with quiet():
        from executorch.runtime import Runtime

        method = Runtime.get().load_program(written.content).load_method("forward")

    def run(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        # Each call's outputs lie in memory that the next one writes to.
        found = [[output.clone() for output in method.execute([one[None].contiguous()])] for one in x]
        return tuple(torch.cat(outputs) for outputs in zip(*found, strict=True))

    return run


FORMATS.add(
    "executorch",
    Format(
        name="executorch",
        title="ExecuTorch",
        suffixes=(".pte",),
        write=write,
        open=open_,
        packages=("executorch",),
        extra="executorch",
        batches=(1,),
    ),
)
