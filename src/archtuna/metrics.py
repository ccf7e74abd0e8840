"""What a network's answers are worth: loss, accuracy and macro F1."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from archtuna import own_metrics
from archtuna.errors import DataError


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Return how often class ``i`` was taken for class ``j``, an int64 matrix (classes × classes)."""
    return np.bincount(truth * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def accuracy(matrix: np.ndarray) -> float:
    """Return the share of right answers of a confusion matrix, 0 to 1; 0 when it is empty."""
    total = int(matrix.sum())
    return float(np.trace(matrix)) / total if total else 0.0


def macro_f1(matrix: np.ndarray) -> float:
    """Return the unweighted mean of the classes' F1 of a confusion matrix, 0 to 1; 0 when it is empty.

    Classes that occur neither in the truth nor among the answers do not count: scikit-learn's
    ``f1_score(average="macro", zero_division=0)``.
    """
    occurrences = matrix.sum(axis=0) + matrix.sum(axis=1)
    present = occurrences > 0
    scores = 2.0 * np.diag(matrix)[present] / occurrences[present]
    return float(scores.mean()) if len(scores) else 0.0


class Tally:
    """Collects a network's answers batch by batch, without waiting for the device, and adds them up at the end.

    Losses are summed as 64-bit floats in the order of the pictures, so that the same answers give the same number in
    every process.

    Args:
        classes: how many there are.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self._losses: list[Tensor] = []
        self._predicted: list[Tensor] = []
        self._truth: list[Tensor] = []
        self._logits: list[Tensor] = []

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Take in one batch: logits (n × classes) and labels (n), on the same device."""
        self._losses.append(functional.cross_entropy(logits.float(), labels, reduction="none"))
        self._predicted.append(logits.argmax(dim=1))
        self._truth.append(labels)
        if own_metrics.FUNCTIONS:
            self._logits.append(logits.float())

    def metrics(self) -> dict[str, float]:
        """Return ``loss`` (mean cross-entropy in nats), ``accuracy``, ``f1``, and every metric of one's own.

        Raises:
            DataError: nothing was added.
            TrialError: a metric of one's own fails.
        """
        matrix = self.confusion()
        losses = torch.cat(self._losses).cpu().numpy()
        found = {"loss": float(losses.mean(dtype=np.float64)), "accuracy": accuracy(matrix), "f1": macro_f1(matrix)}
        if self._logits:
            logits, truth = (torch.cat(t).cpu().numpy() for t in (self._logits, self._truth))
            found |= own_metrics.measured(logits, truth)
        return found

    def confusion(self) -> np.ndarray:
        """Return how often class ``i`` was taken for class ``j``, an int64 matrix (classes × classes).

        Raises:
            DataError: nothing was added.
        """
        if not self._truth:
            raise DataError("there are no pictures to evaluate")
        predicted, truth = (torch.cat(t).cpu().numpy() for t in (self._predicted, self._truth))
        return confusion(truth, predicted, self.classes)
