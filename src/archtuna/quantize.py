"""Networks in whole numbers of eight bits: an ONNX file that is quantised after training.

ONNX Runtime's static quantisation. What the runtime computes in integers is quantised: convolutions, matrix products, sums,
products and pooling, with the activations behind them. Layer norms, softmax, GELU, Hardswish and the like stay float, and so
does the inside of an attention.
"""

from __future__ import annotations

import ast
import json
import logging
import re
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from archtuna.errors import ArchtunaError, ExportError, MissingExtraError, first_line, nearest

log = logging.getLogger("archtuna")

OPERATORS = (
    "Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Mul", "Relu", "Clip", "LeakyRelu", "Sigmoid",
    "MaxPool", "AveragePool", "GlobalAveragePool", "Concat", "Split", "Slice", "Pad", "Resize",
    "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose",
)  # fmt: skip
"""What is quantised."""

SCOPES = "pkg.torch.onnx.name_scopes"
"""Where the exporter notes on a node which modules it came from, outermost first."""

ATTENTION = "scaled_dot_product_attention"
"""Stays float: products of two activations were slower in integers, and worse (docs/int8.md)."""

_EXPORT = "archtuna export writes one"
_UNIT = re.compile(r"layers\.\d+")


def quantized(content: bytes, calibration: Iterable[np.ndarray], *, skip: Collection[str] = ()) -> bytes:
    """Return an ONNX file with weights and activations in eight bits, which takes and gives what the float file does.

    Activations are uint8 and have the range that they show on the calibration pictures. Weights are int8 per output channel
    and use seven bits of it: without instructions for dot products (VNNI) x86 processors add pairs of products in 16 bits,
    which eight overflow. The same pictures give the same bytes. The metadata is kept; ``quantization`` is added to it and says
    how it was done and which operators stayed float.

    Args:
        content: of the float file, as ``export`` writes it.
        calibration: batches of training pictures, in the form that the file takes: n × C × H × W, float32, normalised.
        skip: layers that stay float, ``layers.3`` or a module within one, ``layers.3.layers.0``.

    Raises:
        ExportError: this is no float ONNX file, there are no calibration pictures or they do not fit it, no layer has one
            of the names, or the quantisation fails.
        MissingExtraError: without ``pip install 'archtuna[onnx]'``.

    Source: Jacob et al. 2018 (arXiv:1712.05877); Krishnamoorthi 2018 (arXiv:1806.08342) for one scale per channel.
    """
    network = calibrated(content, calibration)
    _check_skip(skip, network.paths)
    floats = {node for node, path in network.paths.items() if not set(path).isdisjoint(skip)}
    found = network.quantized(floats)
    if not is_quantised(found):
        raise ExportError("nothing in the network is left to quantise", hint="skip fewer layers" if skip else None)
    stay = network.float_operators(floats)
    _describe(found, network.model, {"pictures": network.pictures, "skip": sorted(skip), "float": stay})
    names = ", ".join(f"{count} {name}" for name, count in stay.items())
    log.info("int8 by %d pictures; float stay: %s", network.pictures, names or "none")
    return bytes(found.SerializeToString(deterministic=True))


def _check_skip(skip: Collection[str], paths: Mapping[str, Collection[str]]) -> None:
    known = sorted({scope for path in paths.values() for scope in path if _UNIT.match(scope)})
    for name in skip:
        if name not in known:
            hint = nearest(name, known) or f"layers are called {', '.join(known[:3])} …"
            raise ExportError(f"no layer of the network is called '{name}'", hint=hint)


def _describe(found: Any, model: Any, described: Mapping[str, Any]) -> None:
    """Give a quantised model the float one's metadata, and say in it what was done."""
    del found.metadata_props[:]
    found.metadata_props.extend(model.metadata_props)
    done = {"activations": "uint8", "weights": "int8", "weight_bits": 7, "calibration": "minmax", **described}
    found.metadata_props.add(key="quantization", value=json.dumps(done))


@dataclass(frozen=True)
class Calibrated:
    """A float network whose activations' ranges are known.

    Attributes:
        model: ONNX's.
        ranges: of each activation, as the library has them.
        pictures: how many showed them.
        paths: for each node's name the modules that it came from, outermost first.
    """

    model: Any
    ranges: Any
    pictures: int
    paths: Mapping[str, list[str]]

    @property
    def units(self) -> list[str]:
        """The names of the network's layers, in order."""
        return list(dict.fromkeys(unit for path in self.paths.values() if (unit := unit_of(path))))

    def quantized(self, floats: Collection[str] = ()) -> Any:
        """Return the model with all nodes but these, and those that always stay float, quantised."""
        import onnx

        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        kept = [*floats, *(node for node, path in self.paths.items() if _stays_float(path))]
        with _library() as library:
            int8, uint8 = library.QuantType.QInt8, library.QuantType.QUInt8
            quantizer = library.QDQQuantizer(model, True, True, int8, uint8, self.ranges, [], kept, list(OPERATORS), {})
            quantizer.quantize_model()
            quantizer.model.topological_sort()
            return quantizer.model.model

    def float_operators(self, floats: Collection[str]) -> dict[str, int]:
        """Return how often each operator stays float when these nodes do, of those that compute with floats at all."""
        import onnx

        values = (*self.model.graph.value_info, *self.model.graph.output)
        tensors = {value.name for value in values if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
        stay = (
            node.op_type
            for node in self.model.graph.node
            if node.op_type not in OPERATORS or node.name in floats or _stays_float(self.paths[node.name])
            if node.output[0] in tensors
        )
        return dict(sorted(Counter(stay).items()))


def calibrated(content: bytes, calibration: Iterable[np.ndarray]) -> Calibrated:
    """Return a network with the ranges that its activations have on the calibration pictures.

    Raises:
        ExportError: as ``quantized`` does.
        MissingExtraError: without ``pip install 'archtuna[onnx]'``.
    """
    model = _parsed(content)
    return Calibrated(model, *_ranges(model, calibration), _paths(model))


def is_quantised(model: Any) -> bool:
    return any(node.op_type == "QuantizeLinear" for node in model.graph.node)


# --- the graph ---------------------------------------------------------------------------------------


def _parsed(content: bytes) -> Any:
    """Return a float model with what quantising needs: shapes, a name for each node, and no traces of the exporter."""
    try:
        import onnx
    except ImportError:
        raise MissingExtraError("onnx", "onnx") from None
    try:
        model = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(content))
    except Exception as error:  # protobuf's errors and the checker's have no common ancestor.
        raise ExportError(f"this is no ONNX file ({first_line(error)})", hint=_EXPORT) from None
    if not model.graph.node or len(model.graph.input) != 1:
        inputs = len(model.graph.input)
        raise ExportError(f"this is no ONNX file of a network with one input: it has {inputs} inputs", hint=_EXPORT)
    if is_quantised(model):
        raise ExportError("the file is quantised already", hint="quantise the float file")
    for i, node in enumerate(model.graph.node):
        node.name = node.name or f"node {i}"
        kept = [entry for entry in node.metadata_props if entry.key == SCOPES]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    del model.graph.metadata_props[:]
    return model


def _paths(model: Any) -> dict[str, list[str]]:
    """Return for each node's name the modules that it came from; what is within no layer goes with the node before it."""
    found: dict[str, list[str]] = {}
    unit = ""
    for node in model.graph.node:
        path = [_from_network(scope) for scope in _noted_scopes(node) or _scopes_of_weights(node)]
        unit, within = unit_of(path) or unit, bool(unit_of(path))
        found[node.name] = path if within or not unit else [unit, *path]
    return found


def _noted_scopes(node: Any) -> list[str]:
    noted = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), "[]")
    return [str(scope) for scope in ast.literal_eval(noted) if scope]


def _scopes_of_weights(node: Any) -> list[str]:
    parts: list[str] = next((name.split(".") for name in node.input if _UNIT.search(name)), [])
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


def _from_network(scope: str) -> str:
    """Return a module's name as the network has it, which may itself be within what was exported."""
    found = _UNIT.search(scope)
    return scope[found.start() :] if found else scope


def unit_of(path: Iterable[str]) -> str:
    """Return the layer of the network in a path of modules, or an empty text."""
    return next((scope for scope in path if _UNIT.fullmatch(scope)), "")


def _stays_float(path: Collection[str]) -> bool:
    """Return whether a node is before the first layer, where pixels are normalised, or inside an attention."""
    return not unit_of(path) or any(scope.startswith(ATTENTION) for scope in path)


# --- the library -------------------------------------------------------------------------------------


def _ranges(model: Any, calibration: Iterable[np.ndarray]) -> tuple[Any, int]:
    """Return the range of each activation over the calibration pictures, and how many pictures these were."""
    reader = _Reader(model.graph.input[0], calibration)
    with _library() as library, tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "float.onnx"
        file.write_bytes(model.SerializeToString())
        calibrator = library.create_calibrator(
            file, list(OPERATORS), augmented_model_path=str(Path(folder) / "ranges.onnx")
        )
        calibrator.collect_data(reader)
        return calibrator.compute_data(), reader.pictures


class _Reader:
    """Hands calibration pictures to the library, one batch at a time.

    Raises:
        ExportError: there are none, or one of them has no finite number.
    """

    def __init__(self, source: Any, batches: Iterable[np.ndarray]) -> None:
        self.name, self.pictures = source.name, 0
        self.batches = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self.batches, None)
        if batch is None and not self.pictures:
            raise ExportError("there are no pictures to calibrate with", hint="some hundred training pictures suffice")
        if batch is None:
            return None
        pictures = np.ascontiguousarray(batch)
        if not np.isfinite(pictures).all():
            raise ExportError("a calibration picture holds values that are no finite numbers")
        self.pictures += len(pictures)
        return {self.name: pictures}


@contextmanager
def _library() -> Iterator[Any]:
    """Give ONNX Runtime's quantisation, which logs through the root logger, and make its errors ours."""
    try:
        from onnxruntime import quantization
    except ImportError:
        raise MissingExtraError("onnxruntime", "onnx") from None
    root, silent = logging.getLogger(), logging.NullHandler()
    # Without a handler the root logger would get one that prints, and keep it.
    root.addHandler(silent)
    root.addFilter(_is_not_the_librarys)
    problem = ""
    try:
        yield quantization
    except ArchtunaError:
        raise
    except Exception as error:  # The runtime raises errors of its own family, the library plain ones.
        problem = first_line(error)
    finally:
        root.removeFilter(_is_not_the_librarys)
        root.removeHandler(silent)
    if problem:
        raise ExportError(f"the network cannot be quantised: {problem}")


def _is_not_the_librarys(record: logging.LogRecord) -> bool:
    return "onnxruntime" not in Path(record.pathname).parts
