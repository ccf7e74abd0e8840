"""Networks in whole numbers of eight bits: an ONNX file quantised after training, and what each layer loses by it.

ONNX Runtime's static quantisation. What the runtime computes in integers is quantised: convolutions, matrix products, sums,
products and pooling, with the activations behind them. Layer norms, softmax, GELU, Hardswish and the like stay float.
"""

from __future__ import annotations

import ast
import json
import logging
import math
import re
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from archtuna.answers import answering, first_line
from archtuna.errors import ArchtunaError, DataError, ExportError, MissingExtraError, nearest

log = logging.getLogger("archtuna")

OPERATORS = (
    "Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Mul", "Relu", "Clip", "LeakyRelu", "Sigmoid",
    "MaxPool", "AveragePool", "GlobalAveragePool", "Concat", "Split", "Slice", "Pad", "Resize",
    "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose",
)  # fmt: skip
"""What is quantised."""

SCOPES = "pkg.torch.onnx.name_scopes"
"""Where the exporter notes on a node which modules it came from, outermost first."""

BATCH = 256
"""Pictures that are answered at once."""

_EXPORT = "archtuna export writes one"
_UNIT = re.compile(r"layers\.\d+")


@dataclass(frozen=True)
class Sensitivity:
    """What a network loses when one of its layers alone is quantised.

    Attributes:
        layer: its place in the network, ``layers.3``.
        sqnr: signal-to-quantisation-noise ratio of the logits in decibels; infinite where not a bit of them changes.
        accuracy: by how much the accuracy changes, 0 to 1.
        f1: by how much the macro F1 changes, 0 to 1.
    """

    layer: str
    sqnr: float
    accuracy: float
    f1: float


def quantized(content: bytes, calibration: Iterable[np.ndarray], *, skip: Collection[str] = ()) -> bytes:
    """Return an ONNX file with weights and activations in eight bits, which takes and gives what the float file does.

    Activations are uint8 and have the range that they show on the calibration pictures. Weights are int8 per output channel
    and use seven bits of it: without instructions for dot products (VNNI) x86 processors add pairs of products in 16 bits,
    which eight overflow. The same pictures give the same bytes. The metadata is kept; ``quantization`` is added to it and says
    how it was done and which operators stayed float.

    Args:
        content: of the float file, as ``export`` writes it.
        calibration: batches of training pictures, n × C × H × W, float32, normalised as the network takes them.
        skip: layers that stay float, ``layers.3`` or a module within one, ``layers.3.layers.0``.

    Raises:
        ExportError: this is no float ONNX file, there are no calibration pictures or they do not fit it, no layer has one
            of the names, or the quantisation fails.
        MissingExtraError: without ``pip install 'archtuna[onnx]'``.

    Source: Jacob et al. 2018 (arXiv:1712.05877); Krishnamoorthi 2018 (arXiv:1806.08342) for one scale per channel.
    """
    model = _parsed(content)
    paths = _paths(model)
    _check_skip(skip, paths)
    ranges, pictures = _ranges(model, calibration)
    kept = {node for node, path in paths.items() if not set(path).isdisjoint(skip)}
    found = _convert(model, ranges, kept)
    if not _is_quantised(found):
        raise ExportError("nothing in the network is left to quantise", hint="skip fewer layers" if skip else None)
    floats = _float_operators(model, kept)
    _describe(found, model, {"pictures": pictures, "skip": sorted(skip), "float": floats})
    log.info("int8 by %d pictures; float stay: %s", pictures, ", ".join(f"{n} {name}" for name, n in floats.items()))
    return bytes(found.SerializeToString(deterministic=True))


def sensitivity(
    content: bytes, calibration: Iterable[np.ndarray], pictures: np.ndarray, labels: np.ndarray
) -> list[Sensitivity]:
    """Return what quantising each layer alone does to a network's answers, worst first.

    Layers without a quantised operator are left out.

    Args:
        content: of the float file, as ``export`` writes it.
        calibration: batches of training pictures, as for ``quantized``.
        pictures: to answer, n × C × H × W.
        labels: of these, n.

    Raises:
        ExportError: as ``quantized`` does, or the pictures do not fit the network.
        DataError: there are no pictures, or not a label for each.
        MissingExtraError: without ``pip install 'archtuna[onnx]'``.
    """
    if not len(pictures) or len(pictures) != len(labels):
        raise DataError(f"{len(pictures)} pictures and {len(labels)} labels say nothing of a network")
    model = _parsed(content)
    ranges, _ = _ranges(model, calibration)
    wanted, found = _logits(content, pictures), []
    units = {node: _unit_of(path) for node, path in _paths(model).items()}
    for unit in dict.fromkeys(units.values()):
        alone = _convert(model, ranges, {name for name, other in units.items() if other != unit})
        if _is_quantised(alone):
            logits = _logits(alone.SerializeToString(), pictures)
            found.append(_compared(unit, wanted, logits, labels))
    return sorted(found, key=lambda one: one.sqnr)


def _logits(content: bytes, pictures: np.ndarray) -> np.ndarray:
    answer = answering(content)
    return np.concatenate([answer(pictures[i : i + BATCH]) for i in range(0, len(pictures), BATCH)])


def _compared(layer: str, wanted: np.ndarray, found: np.ndarray, labels: np.ndarray) -> Sensitivity:
    before, after = (_metrics(logits, labels) for logits in (wanted, found))
    return Sensitivity(
        layer, sqnr(wanted, found), after["accuracy"] - before["accuracy"], after["f1"] - before["f1"]
    )  # fmt: skip


def _metrics(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    import torch

    from archtuna.metrics import Tally

    tally = Tally(logits.shape[1])
    tally.add(torch.from_numpy(logits), torch.as_tensor(labels))
    return tally.metrics()


def sqnr(wanted: np.ndarray, found: np.ndarray) -> float:
    """Return the signal-to-quantisation-noise ratio in decibels: the power of what is wanted over that of the error."""
    noise = float(np.square(wanted - found, dtype=np.float64).sum())
    signal = float(np.square(wanted, dtype=np.float64).sum())
    return 10 * math.log10(signal / noise) if noise and signal else math.inf


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
    if _is_quantised(model):
        raise ExportError("the file is quantised already", hint="quantise the float file")
    for i, node in enumerate(model.graph.node):
        node.name = node.name or f"node {i}"
        kept = [entry for entry in node.metadata_props if entry.key == SCOPES]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    del model.graph.metadata_props[:]
    return model


def _is_quantised(model: Any) -> bool:
    return any(node.op_type == "QuantizeLinear" for node in model.graph.node)


def _paths(model: Any) -> dict[str, list[str]]:
    """Return for each node's name the modules that it came from, outermost first; what has none goes with the node before."""
    found: dict[str, list[str]] = {}
    unit = "layers.0"
    for node in model.graph.node:
        path = _noted_path(node) or _path_of_weights(node) or [unit]
        unit = _unit_of(path, unit)
        found[node.name] = path
    return found


def _noted_path(node: Any) -> list[str]:
    noted = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), "[]")
    return [str(scope) for scope in ast.literal_eval(noted) if scope]


def _path_of_weights(node: Any) -> list[str]:
    parts: list[str] = next((name.split(".") for name in node.input if _UNIT.match(name)), [])
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


def _unit_of(path: Iterable[str], otherwise: str = "") -> str:
    return next((scope for scope in path if _UNIT.fullmatch(scope)), otherwise)


def _check_skip(skip: Collection[str], paths: Mapping[str, Collection[str]]) -> None:
    known = sorted({scope for path in paths.values() for scope in path if _UNIT.match(scope)})
    for name in skip:
        if name not in known:
            hint = nearest(name, known) or f"layers are called {', '.join(known[:3])} …"
            raise ExportError(f"no layer of the network is called '{name}'", hint=hint)


def _float_operators(model: Any, kept: Collection[str]) -> dict[str, int]:
    """Return how often each operator stays in floats, of those that compute with floats at all."""
    import onnx

    values = (*model.graph.value_info, *model.graph.output)
    floats = {value.name for value in values if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    stay = (node for node in model.graph.node if node.op_type not in OPERATORS or node.name in kept)
    return dict(sorted(Counter(node.op_type for node in stay if node.output[0] in floats).items()))


def _describe(found: Any, model: Any, described: Mapping[str, Any]) -> None:
    """Give a quantised model the float one's metadata, and say in it what was done."""
    del found.metadata_props[:]
    found.metadata_props.extend(model.metadata_props)
    done = {"activations": "uint8", "weights": "int8", "weight_bits": 7, "calibration": "minmax", **described}
    found.metadata_props.add(key="quantization", value=json.dumps(done))


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


def _convert(model: Any, ranges: Any, kept: Collection[str]) -> Any:
    """Return the model with all nodes but the kept ones quantised."""
    import onnx

    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    with _library() as library:
        quantizer = library.QDQQuantizer(
            copied, True, True, library.QuantType.QInt8, library.QuantType.QUInt8, ranges,
            [], list(kept), list(OPERATORS), {},
        )  # fmt: skip
        quantizer.quantize_model()
        quantizer.model.topological_sort()
        return quantizer.model.model


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
