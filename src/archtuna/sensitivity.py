"""What each layer of a network loses when it alone is quantised."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from archtuna.answers import answering
from archtuna.errors import DataError
from archtuna.quantize import calibrated, is_quantised

BATCH = 256
"""Pictures that are answered at once."""


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


def sensitivity(
    content: bytes, calibration: Iterable[np.ndarray], pictures: np.ndarray, labels: np.ndarray
) -> list[Sensitivity]:
    """Return what quantising each layer alone does to a network's answers, worst first.

    The ranges of all activations are measured once. Layers in which nothing is quantised are left out.

    Args:
        content: of the float file, as ``export`` writes it.
        calibration: batches of training pictures, as for ``quantized``.
        pictures: to answer, n × C × H × W, float32, normalised.
        labels: of these, n.

    Raises:
        ExportError: as ``quantized`` does, or the pictures do not fit the network.
        DataError: there are no pictures, or not a label for each.
        MissingExtraError: without ``pip install 'archtuna[onnx]'``.
    """
    if not len(pictures) or len(pictures) != len(labels):
        raise DataError(f"{len(pictures)} pictures and {len(labels)} labels say nothing of a network")
    network = calibrated(content, calibration)
    wanted, found = _logits(content, pictures), []
    for unit in network.units:
        alone = network.quantized({node for node, path in network.paths.items() if unit not in path})
        if is_quantised(alone):
            logits = _logits(alone.SerializeToString(), pictures)
            found.append(_compared(unit, wanted, logits, labels))
    return sorted(found, key=lambda one: one.sqnr)


def _logits(content: bytes, pictures: np.ndarray) -> np.ndarray:
    answer = answering(content)
    return np.concatenate([answer(pictures[i : i + BATCH]) for i in range(0, len(pictures), BATCH)])


def _compared(layer: str, wanted: np.ndarray, found: np.ndarray, labels: np.ndarray) -> Sensitivity:
    before, after = _metrics(wanted, labels), _metrics(found, labels)
    return Sensitivity(layer, sqnr(wanted, found), *(after[name] - before[name] for name in ("accuracy", "f1")))


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
