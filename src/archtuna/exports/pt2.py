"""torch.export: the graph and its weights, for torch itself."""

from __future__ import annotations

from io import BytesIO

import torch

from archtuna.exports.formats import FORMATS, Format, Run, Source, Written, runs
from archtuna.exports.inference import given, graph_of
from archtuna.exports.quiet import quiet


def program_of(source: Source, *, dynamic: bool = True) -> torch.export.ExportedProgram:
    """Return the exported program of a source, for any number of pictures unless it is not to be ``dynamic``."""
    shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
    with quiet(), torch.no_grad():
        return torch.export.export(graph_of(source), (given(source, source.example),), dynamic_shapes=shapes)


def write(source: Source) -> Written:
    buffer = BytesIO()
    with quiet():
        torch.export.save(program_of(source), buffer, extra_files=source.description())
    return Written(buffer.getvalue())


def open_(written: Written, source: Source) -> Run:
    with quiet():
        return runs(torch.export.load(BytesIO(written.content)).module())


FORMATS.add("pt2", Format(name="pt2", title="torch.export", suffixes=(".pt2",), write=write, open=open_))
