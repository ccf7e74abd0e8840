"""In what numbers an ONNX file computes. To add one, register how it is converted and how near it has to come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from archtuna.errors import ExportError, nearest
from archtuna.exports.formats import TOLERANCE, Source
from archtuna.exports.inference import given
from archtuna.exports.quiet import quiet
from archtuna.registry import Registry

TOLERANCE_FP16 = 2e-2
"""A rounding to 11 bits in each of some dozens of layers."""


@dataclass(frozen=True)
class Precision:
    """How a file's numbers are stored and computed.

    Attributes:
        name: what it is called.
        convert: takes a single-precision ONNX file and its source, and returns the converted file.
        tolerance: how far a logit may be from the model's, as a share of the largest; None where that says nothing.
        same_metrics: whether accuracy and F1 must be the model's; else they are measured, and reported beside the model's.
    """

    name: str
    convert: Callable[[bytes, Source], bytes]
    tolerance: float | None = TOLERANCE
    same_metrics: bool = True


PRECISIONS: Registry[Precision] = Registry("precision")


def precision_named(name: str) -> Precision:
    """Return a precision.

    Raises:
        ExportError: there is none of that name.
    """
    if name not in PRECISIONS:
        hint = nearest(name, PRECISIONS) or f"known: {', '.join(PRECISIONS)}"
        raise ExportError(f"unknown precision '{name}'", hint=hint)
    return PRECISIONS[name]


def _as_it_is(content: bytes, source: Source) -> bytes:
    return content


def _halved(content: bytes, source: Source) -> bytes:
    """Store and compute in half precision, with inputs and outputs as they were."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with quiet():
        model = convert_float_to_float16(onnx.load_model_from_string(content), keep_io_types=True)
    return bytes(model.SerializeToString(deterministic=True))


def _quantised(content: bytes, source: Source) -> bytes:
    """Compute in whole numbers of eight bits, whose ranges training pictures show."""
    import torch

    from archtuna.quantize import quantized

    if source.options.calibration is None:
        raise ExportError("int8 has to see training pictures to choose its ranges", hint="name them with --data")
    return quantized(content, (given(source, torch.as_tensor(x)).numpy() for x in source.options.calibration))


PRECISIONS.add("fp32", Precision("fp32", _as_it_is))
PRECISIONS.add("fp16", Precision("fp16", _halved, tolerance=TOLERANCE_FP16, same_metrics=False))
PRECISIONS.add("int8", Precision("int8", _quantised, tolerance=None, same_metrics=False))
