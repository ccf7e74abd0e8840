"""Whether an export is its model: outputs and metrics, compared in the export's own runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from archtuna.errors import first_line
from archtuna.exports.formats import Run
from archtuna.metrics import Tally

METRICS = ("accuracy", "f1")


@dataclass(frozen=True)
class Proof:
    """Real pictures on which an export has to be worth what its model is.

    Attributes:
        batches: pictures, preprocessed (n × C × H × W), and their labels (n), on the CPU; gone through once for an export.
        classes: how many there are.
        split: the part of the data that they are.
    """

    batches: Iterable[tuple[Tensor, Tensor]]
    classes: int
    split: str = "val"


@dataclass(frozen=True)
class Compared:
    """What a comparison found.

    Attributes:
        max_difference: largest absolute difference of a logit.
        pictures: how many real ones there were.
        metrics: accuracy and F1 of the export on these; empty without pictures.
        model_metrics: and of the model.
    """

    max_difference: float
    pictures: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    model_metrics: Mapping[str, float] = field(default_factory=dict)


class Difference(Exception):
    """An export that is not its model, and pictures on which that shows."""

    def __init__(self, problem: str, pictures: Tensor) -> None:
        super().__init__(problem)
        self.pictures = pictures


def compare(
    model: nn.Module,
    run: Run,
    pictures: Callable[[int], Tensor],
    batches: Sequence[int],
    proof: Proof | None,
    tolerance: float | None,
    same_metrics: bool = True,
) -> Compared:
    """Compare an export with its model: on random pictures, then on real ones.

    Args:
        model: in evaluation mode on the CPU.
        run: the export in its runtime.
        pictures: makes ``n`` random ones.
        batches: how many at once.
        proof: the real ones, or None.
        tolerance: how far a logit may be away, as a share of the largest; None for any distance.
        same_metrics: whether accuracy and F1 have to be equal.

    Raises:
        Difference: the export fails on a batch, or it is not the model.
    """
    largest = max(_difference(run, x, _logits(model, x), tolerance)[1] for x in map(pictures, batches))
    if proof is None:
        return Compared(largest)
    mine, theirs, count = Tally(proof.classes), Tally(proof.classes), 0
    changed: list[Tensor] = []
    for x, labels in proof.batches:
        wanted = _logits(model, x)
        found, difference = _difference(run, x, wanted, tolerance)
        mine.add(wanted, labels)
        theirs.add(found, labels)
        changed.append(x[wanted.argmax(1) != found.argmax(1)])
        largest, count = max(largest, difference), count + len(x)
    here, there = ({name: tally.metrics()[name] for name in METRICS} for tally in (mine, theirs))
    if same_metrics and here != there:
        raise Difference(_other_metrics(here, there, sum(map(len, changed)), count), torch.cat(changed))
    return Compared(largest, count, there, here)


def _logits(model: nn.Module, x: Tensor) -> Tensor:
    with torch.inference_mode():
        return model(x)


def _difference(run: Run, x: Tensor, wanted: Tensor, tolerance: float | None) -> tuple[Tensor, float]:
    """Return the export's logits and how far one of them is away at most."""
    n = len(x)
    try:
        (found,) = run(x)
    except Exception as error:  # A runtime raises errors of its own family.
        raise Difference(f"the export fails on a batch of {n} ({first_line(error)})", x) from error
    if found.shape != wanted.shape:
        raise Difference(f"the export gives {list(found.shape)} for a batch of {n}, the model {list(wanted.shape)}", x)
    difference, scale = farthest(found, wanted)
    if not near(difference, scale, tolerance):
        raise Difference(
            f"the export's outputs differ from the model's by {difference:.2g} at a batch of {n},"
            f" with logits of up to {scale:.2g}",
            x,
        )
    return found, difference


def farthest(found: Tensor, wanted: Tensor) -> tuple[float, float]:
    """Return the largest absolute difference, and the largest absolute value that is wanted."""
    if not wanted.numel():
        return 0.0, 0.0
    return float((found - wanted).abs().max()), float(wanted.abs().max())


def near(difference: float, scale: float, tolerance: float | None) -> bool:
    """Return whether a difference is within the tolerance; no number never is."""
    return difference <= (float("inf") if tolerance is None else tolerance) * scale + 1e-7


def _other_metrics(here: Mapping[str, float], there: Mapping[str, float], changed: int, count: int) -> str:
    values = ", ".join(f"{name} {there[name]:.6f} in place of {here[name]:.6f}" for name in METRICS)
    return f"the export answers otherwise on {changed:,} of {count:,} pictures: {values}"
