"""TorchScript: a trace that C++ and Python run; deprecated by torch."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import torch

from archtuna.exports.formats import FORMATS, Format, Run, Source, Written, runs
from archtuna.exports.inference import graph_of


def write(source: Source) -> Written:
    buffer = BytesIO()
    with _not_deprecated(), torch.no_grad():
        traced = torch.jit.trace(graph_of(source), (source.example,), check_trace=False)
        torch.jit.save(traced, buffer, _extra_files=source.description())
    return Written(buffer.getvalue())


def open_(written: Written, source: Source) -> Run:
    with _not_deprecated():
        return runs(torch.jit.load(BytesIO(written.content)))


@contextmanager
def _not_deprecated() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is deprecated", category=DeprecationWarning)
        # What may break there is what the proof looks at.
        warnings.filterwarnings(
            "ignore", message=r"`torch\.jit\.\w+` is not supported in Python", category=FutureWarning
        )
        # Tracing takes decisions on shapes for constants, and warns; that the outputs stay equal is checked afterwards.
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
        yield


FORMATS.add(
    "torchscript",
    Format(
        name="torchscript",
        title="TorchScript",
        suffixes=(".ts", ".torchscript", ".pt"),
        write=write,
        open=open_,
        notice="TorchScript is deprecated since torch 2.13; ONNX is the format with a future",
    ),
)
