"""ONNX, through torch.export: for ONNX Runtime on any device, and whatever else reads it."""

from __future__ import annotations

import json
from typing import Any

import torch

from archtuna.errors import ExportError
from archtuna.exports.formats import FORMATS, TOLERANCE, Format, Run, Source, Written
from archtuna.exports.inference import given
from archtuna.exports.precision import precision_named
from archtuna.exports.proof import Difference, compare
from archtuna.exports.pt2 import program_of
from archtuna.exports.quiet import quiet

OPSET = 20
"""Version of ONNX's operators that is written: the first with GELU, read by ONNX Runtime 1.17 and newer."""

SCOPES = "pkg.torch.onnx.name_scopes"
"""A node's metadata that says which layer it is from; the only one that is kept."""


def write(source: Source) -> Written:
    import onnx_ir

    options = source.options
    opset, precision = options.opset or OPSET, precision_named(options.precision)
    model = _exported(source, opset)
    found = model.opset_imports[""]
    if found != opset:
        raise ExportError(
            f"the network cannot be written in opset {opset}: it came out in {found}",
            hint=f"--opset {found}, or leave it out",
        )
    described = {"opset": json.dumps(found), "precision": json.dumps(precision.name)}
    _pool_globally(model)
    _strip(model)
    model.metadata_props.update(source.description() | described)
    # Weights within the file: whoever moves one file has moved the model.
    content = bytes(onnx_ir.to_proto(model).SerializeToString(deterministic=True))
    if precision.name != "fp32" and source.units is None:
        _require_model(content, source)
    return Written(precision.convert(content, source), opset=found)


def _require_model(content: bytes, source: Source) -> None:
    """Check what is to compute in fewer bits, of which no more can be asked than to be near.

    Raises:
        ExportError: it is not the model.
    """
    try:
        compare(source.model, open_(Written(content), source), lambda n: source.example, (1,), None, TOLERANCE)
    except Difference as difference:
        problem = str(difference)
    else:
        return
    raise ExportError(f"before it is converted, {problem}", hint="the export in 32 bits says at which layer")


def _exported(source: Source, opset: int) -> Any:
    # Left to itself the exporter would try several ways to follow the network, one after the other, when it fails.
    exported = program_of(source)
    with quiet():
        program = torch.onnx.export(
            exported, dynamo=True, verbose=False, opset_version=opset,
            input_names=["pixels" if source.options.with_preprocess else "images"],
            output_names=["logits"] if source.units is None else None,
            dynamic_shapes=({0: "batch"},),
        )  # fmt: skip
    assert program is not None
    return program.model


def _pool_globally(model: Any) -> None:
    """Write means over whole maps as the pooling that they are.

    For a mean over axes ONNX Runtime leaves the layout in which it computes convolutions, and comes back to it afterwards; and
    there are no whole numbers for it.
    """
    for node in model.graph:
        if node.op_type == "ReduceMean" and _is_over_maps(node):
            axes = node.inputs[1]
            node.replace_input_with(1, None)
            node.resize_inputs(1)
            node.op_type = "GlobalAveragePool"
            node.attributes.clear()
            if not axes.uses():
                model.graph.initializers.pop(axes.name, None)


def _is_over_maps(node: Any) -> bool:
    """Return whether a mean is over height and width of maps, and keeps both."""
    maps, axes = node.inputs[0], node.inputs[1].const_value if len(node.inputs) > 1 and node.inputs[1] else None
    keeps = node.attributes["keepdims"].value == 1 if "keepdims" in node.attributes else True
    if axes is None or not keeps or maps.shape is None or len(maps.shape) != 4:
        return False
    return sorted(axis % 4 for axis in axes.numpy().tolist()) == [2, 3]


def _strip(model: Any) -> None:
    """Take out the exporter's notes, with paths of this machine and larger than a small network, but where a node is from."""
    values = [value for node in model.graph for value in node.outputs]
    for thing in (model.graph, *model.graph, *values, *model.graph.inputs, *model.graph.initializers.values()):
        kept = {key: text for key, text in thing.metadata_props.items() if key == SCOPES}
        thing.metadata_props.clear()
        thing.metadata_props.update(kept)


def open_(written: Written, source: Source) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(written.content, options, providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()

    def run(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(map(torch.from_numpy, session.run(None, {taken.name: given(source, x).numpy()})))

    return run


FORMATS.add(
    "onnx",
    Format(
        name="onnx",
        title="ONNX",
        suffixes=(".onnx",),
        write=write,
        open=open_,
        packages=("onnx", "onnxscript", "onnxruntime"),
        extra="onnx",
        options=frozenset(("opset", "with_preprocess", "precision", "calibration")),
    ),
)
