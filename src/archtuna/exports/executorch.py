"""ExecuTorch: a small program for phones and boards, one picture at a time, computed by XNNPACK."""

from __future__ import annotations

import torch

from archtuna.exports.formats import FORMATS, Format, Run, Source, Written
from archtuna.exports.pt2 import program_of
from archtuna.exports.quiet import quiet


def write(source: Source) -> Written:
    # The program plans its memory for the largest batch that it takes: a device classifies one picture after the other.
    program = program_of(source, dynamic=False)
    with quiet():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        lowered = to_edge_transform_and_lower(
            program, partitioner=[XnnpackPartitioner()], constant_methods=source.description()
        )
        return Written(bytes(lowered.to_executorch().buffer))


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
