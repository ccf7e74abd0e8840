"""What an ONNX file answers in ONNX Runtime, and what its answers are worth."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from archtuna import agent
from archtuna.errors import ExportError, MissingExtraError, ShapeError, first_line


def evaluate_onnx(
    content: bytes, batches: Iterable[tuple[Any, Any]], *, classes: int, threads: int = 1
) -> dict[str, float]:
    """Return ``loss`` (mean cross-entropy in nats), ``accuracy`` and ``f1`` (macro) of an ONNX file on batches.

    They are counted as ``training.evaluate_batches`` counts them, so that a model, its export and its int8 form are
    compared on equal terms.

    Args:
        content: of the file.
        batches: pictures (n × C × H × W, float32, normalised) and labels (n), as arrays or as tensors on the CPU.
        classes: how many there are.
        threads: of the runtime.

    Raises:
        ExportError: the file does not run on these pictures.
        ShapeError: its output is not one value per class.
        DataError: there are no batches.
        MissingExtraError: ONNX Runtime is not installed.
    """
    import torch

    from archtuna.metrics import Tally

    answer, tally = answering(content, threads=threads), Tally(classes)
    for pictures, labels in batches:
        logits = answer(pictures)
        if logits.shape != (len(labels), classes):
            raise ShapeError(f"the file gives {list(logits.shape)} for {len(labels)} pictures of {classes} classes")
        tally.add(torch.from_numpy(logits), torch.as_tensor(labels))
    return tally.metrics()


def answering(content: bytes, *, threads: int = 1) -> Callable[[Any], np.ndarray]:
    """Return what gives the logits (n × classes, float32) for a batch of pictures, in the form that the file takes.

    Raises:
        ExportError: ONNX Runtime does not read the file; or, later, does not run it on a batch.
        MissingExtraError: ONNX Runtime is not installed.
    """
    session = _session(content, threads)
    name = session.get_inputs()[0].name

    def answer(batch: Any) -> np.ndarray:
        pictures, problem = np.ascontiguousarray(batch), ""
        try:
            return np.asarray(session.run(None, {name: pictures})[0])
        except Exception as error:  # The runtime raises errors of its own family.
            problem = first_line(error)
        raise ExportError(f"the file does not run on {pictures.dtype} pictures of {list(pictures.shape)}: {problem}")

    return answer


def _session(content: bytes, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("onnxruntime", "onnx") from None
    try:
        options = agent.session_options(onnxruntime, threads)
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # The runtime raises errors of its own family.
        problem = first_line(error)
    raise ExportError(
        f"ONNX Runtime does not read the file: {problem}", hint="archtuna export writes one that it reads"
    )
