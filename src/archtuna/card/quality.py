"""The sections of a card about pictures: which there are, what the network answers on them, and what that leaves open."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from archtuna.card.markdown import inline, table
from archtuna.card.reproduction import conditions_of, pictures_name
from archtuna.card.subject import PARTS, Answers, Subject
from archtuna.intervals import LEVEL, RESAMPLES, bootstrapped, wilson
from archtuna.metrics import accuracy, macro_f1

FEW = 20
"""Pictures of a class below which its figures say little."""

PAIRS = 5
"""Pairs of classes that are told as mistaken for each other, at most."""


def data(subject: Subject) -> list[str]:
    header = subject.header
    known = inline(header.data.get("fingerprint", "unknown"))
    lines = ["## Data", "", f"Pictures: {inline(pictures_name(header))}, fingerprint {known}."]
    if subject.pictures is None:
        return [*lines, subject.missing, "", f"Classes: {', '.join(map(inline, header.classes))}."]
    data, split = subject.pictures
    counts = {part: np.bincount(data.labels[getattr(split, part)], minlength=len(data.classes)) for part in PARTS}
    rows = [(inline(name), *(f"{counts[part][i]:,}" for part in PARTS)) for i, name in enumerate(data.classes)]
    total = ("**all**", *(f"{counts[part].sum():,}" for part in PARTS))
    broken = f" {len(data.broken):,} files that could not be decoded are left out." if data.broken else ""
    part = conditions_of(header)["fraction"]
    share = f" The network was trained on a stratified share of {part:g} of the training pictures." if part < 1 else ""
    given = sorted({PARTS[name] for name in data.part.tolist() if name})
    prescribed = f"Their source prescribes which are for {' and '.join(given)}; the rest" if given else "The parts"
    return [
        *lines,
        f"{prescribed} were split by class and content, with seed {split.seed} and shares of {split.shares[0]:g} for "
        f"validation and {split.shares[1]:g} for test. Exact copies of a picture lie in one part.{broken}{share}",
        "",
        *table(("class", *PARTS.values()), [*rows, total]),
        "",
        "Where the pictures come from, who chose and labelled them, and under which licence they stand is not known.",
    ]


def metrics(subject: Subject) -> list[str]:
    kept_by = conditions_of(subject.header)["kept_by"]
    lines = [
        "## Metrics",
        "",
        f"Validation pictures chose: by their {inline(kept_by)} the epoch, and, in a search, the network. Their figures are "
        "better than those of new pictures for that. Test pictures chose nothing, and report.",
        "",
    ]
    if not subject.answers:
        recorded = [(inline(name), f"{value:.4f}") for name, value in subject.header.metrics.items()]
        return [*lines, *table(("metric", "validation, as recorded"), recorded), "", subject.missing]
    rows: list[tuple[str, ...]] = [
        ("accuracy", *(_share(one.matrix) for one in subject.answers)),
        ("macro F1", *(_score(one.matrix) for one in subject.answers)),
        ("cross-entropy, nats", *(f"{one.loss:.4f}" for one in subject.answers)),
        ("pictures", *(f"{one.matrix.sum():,}" for one in subject.answers)),
    ]
    none = [] if subject.answers[-1].part == "test" else ["", "There are no test pictures."]
    return [
        *lines,
        *table(("metric", *(PARTS[one.part] for one in subject.answers)), rows),
        "",
        f"In brackets {LEVEL:.0%} confidence intervals over pictures: Wilson's for accuracy, for F1 the percentiles of "
        f"{RESAMPLES:,} resamples (seed 0). How much another training would differ is not in them.",
        *none,
    ]


def _share(matrix: np.ndarray) -> str:
    low, high = wilson(int(np.trace(matrix)), int(matrix.sum()))
    return f"{accuracy(matrix):.4f} ({low:.3f} to {high:.3f})"


def _score(matrix: np.ndarray) -> str:
    low, high = bootstrapped(matrix)
    return f"{macro_f1(matrix):.4f} ({low:.3f} to {high:.3f})"


def classes(subject: Subject) -> list[str]:
    if not subject.answers:
        return []
    told = subject.answers[-1]
    right, truth, taken = np.diag(told.matrix), told.matrix.sum(axis=1), told.matrix.sum(axis=0)
    rows = []
    for i, name in enumerate(subject.header.classes):
        low, high = wilson(int(right[i]), int(truth[i]))
        recall = f"{_ratio(right[i], truth[i])} ({low:.2f} to {high:.2f})"
        rows.append(
            (
                inline(name),
                _ratio(right[i], taken[i]),
                recall,
                _ratio(2 * right[i], truth[i] + taken[i]),
                f"{truth[i]:,}",
            )
        )
    header = ("class", "precision", f"recall ({LEVEL:.0%})", "F1", "pictures")
    return [f"### By class, on {PARTS[told.part]} pictures", "", *table(header, rows)]


def _ratio(part: int, whole: int) -> str:
    return f"{part / whole:.3f}" if whole else "-"


def limits(subject: Subject) -> list[str]:
    lines = [
        "## Limits",
        "",
        "- Any picture gets one of the classes, whatever is on it.",
        "- Pictures of other sources, cameras or times than these were not tried, nor was any group of people or things "
        "within a class.",
        "- Whether probabilities are calibrated was not measured.",
    ]
    if not subject.answers:
        return lines
    told = subject.answers[-1]
    few = [inline(name) for name, n in zip(subject.header.classes, told.matrix.sum(axis=1), strict=True) if n < FEW]
    if few:
        lines.append(
            f"- Fewer than {FEW} {PARTS[told.part]} pictures, so that their figures say little: {', '.join(few)}."
        )
    return [*lines, *_confusions(subject.header.classes, told)]


def _confusions(classes: Sequence[str], told: Answers) -> list[str]:
    wrong = told.matrix - np.diag(np.diag(told.matrix))
    order = [np.unravel_index(k, wrong.shape) for k in np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]]
    return [
        f"- {inline(classes[i])} was taken for {inline(classes[j])} in {wrong[i, j]:,} of {told.matrix[i].sum():,} "
        f"{PARTS[told.part]} pictures."
        for i, j in order
        if wrong[i, j]
    ]
