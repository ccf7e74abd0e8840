"""What a set of pictures holds, before anything is trained on it: counts, balance, sizes, what is broken or there twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from archtuna.data import Data

SHOWN = 20
"""Names of a kind that are kept; a set may have a million broken pictures."""
FEWEST = 3
"""Different pictures of a class that a split needs: one for each part."""
QUANTILES = {"smallest": 0.0, "5 %": 0.05, "median": 0.5, "95 %": 0.95, "largest": 1.0}


@dataclass(frozen=True)
class Inventory:
    """What is in a set of pictures, as plain data.

    Attributes:
        source: where the set is.
        pictures: how many can be used.
        classes: pictures of each class, by name.
        imbalance: pictures of the largest class for one of the smallest.
        effective_classes: how many classes of equal size would be as hard to guess: the exponential of the entropy of
            the classes' shares (Hill 1973), from 1 to the number of classes.
        heights, widths: of the pictures in pixels: smallest, 5 %, median, 95 %, largest.
        shapes: width over height, at the same places.
        channels: 1 when all pictures are grey, else 3.
        grey: pictures without colour.
        broken: how many cannot be used.
        broken_names: name and reason of the first of them.
        copies: pictures that have an exact copy in the set.
        copy_names: the first groups of equal pictures.
        torn: groups of equal pictures that lie under several classes.
        small: classes with fewer different pictures than a split into three parts needs.
        parts: pictures of each part that the source prescribes.
    """

    source: str
    pictures: int
    classes: Mapping[str, int]
    imbalance: float
    effective_classes: float
    heights: Mapping[str, int]
    widths: Mapping[str, int]
    shapes: Mapping[str, float]
    channels: int
    grey: int
    broken: int
    broken_names: tuple[tuple[str, str], ...]
    copies: int
    copy_names: tuple[tuple[str, ...], ...]
    torn: int
    small: Mapping[str, int]
    parts: Mapping[str, int]

    @property
    def native(self) -> tuple[int, int]:
        """Median height and median width."""
        return self.heights["median"], self.widths["median"]

    @property
    def smallest_class(self) -> tuple[str, int]:
        return min(self.classes.items(), key=lambda item: item[1])

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def inventory_of(data: Data) -> Inventory:
    """Return what a set of pictures holds; nothing is decoded for it."""
    counts = np.bincount(data.labels, minlength=len(data.classes))
    shares = counts[counts > 0] / counts.sum()
    heights, widths = data.sizes[:, 0], data.sizes[:, 1]
    groups, different = _groups(data), _different(data)
    copied = [group for group in groups if len(group) > 1]
    return Inventory(
        source=data.source,
        pictures=len(data),
        classes=dict(zip(data.classes, counts.tolist(), strict=True)),
        imbalance=float(counts.max() / max(1, counts.min())),
        effective_classes=float(np.exp(-(shares * np.log(shares)).sum())),
        heights={name: int(value) for name, value in _quantiles(heights)},
        widths={name: int(value) for name, value in _quantiles(widths)},
        shapes={name: round(value, 3) for name, value in _quantiles(widths / heights)},
        channels=data.channels,
        grey=int(data.grey.sum()),
        broken=len(data.broken),
        broken_names=data.broken[:SHOWN],
        copies=sum(map(len, copied)),
        copy_names=tuple(tuple(data.names[i] for i in group[:SHOWN]) for group in copied[:SHOWN]),
        torn=sum(len({int(data.labels[i]) for i in group}) > 1 for group in copied),
        small={name: count for name, count in different.items() if count < FEWEST},
        parts={part: int((data.part == part).sum()) for part in ("train", "val", "test") if (data.part == part).any()},
    )


def _quantiles(values: np.ndarray) -> Iterable[tuple[str, float]]:
    found = np.quantile(values, list(QUANTILES.values()), method="nearest").tolist()
    return zip(QUANTILES, found, strict=True)


def _groups(data: Data) -> list[list[int]]:
    """Return the pictures in groups of equal ones."""
    groups: dict[str, list[int]] = defaultdict(list)
    for index, digest in enumerate(data.digests):
        groups[digest].append(index)
    return list(groups.values())


def _different(data: Data) -> dict[str, int]:
    """Return how many different pictures each class has in what is to be split."""
    pool: dict[int, set[str]] = defaultdict(set)
    for digest, label, part in zip(data.digests, data.labels.tolist(), data.part.tolist(), strict=True):
        if part not in ("val", "test"):
            pool[label].add(digest)
    return {name: len(pool[label]) for label, name in enumerate(data.classes)}


def lines_of(found: Inventory) -> list[str]:
    """Return a set's inventory in words, one sentence or two a line."""
    name, fewest = found.smallest_class
    most = max(found.classes.values())
    even = f"{most:,} each" if most == fewest else f"{fewest:,} ({name}) to {most:,}"
    lines = [
        f"{found.pictures:,} pictures in {len(found.classes):,} classes, {even}: {found.imbalance:.3g} to 1, as hard to "
        f"guess as {found.effective_classes:.3g} classes of equal size.",
        f"Sizes (height x width): {_size(found, 'smallest')} to {_size(found, 'largest')}, median "
        f"{_size(found, 'median')}; width over height {found.shapes['5 %']:.2g} to {found.shapes['95 %']:.2g}; "
        f"{_colour(found)}.",
    ]
    if found.parts.keys() - {"train"}:
        lines.append("Prescribed parts: " + ", ".join(f"{part} {n:,}" for part, n in found.parts.items()) + ".")
    if found.broken:
        shown = "; ".join(f"{name} ({reason})" for name, reason in found.broken_names[:5])
        lines.append(f"Broken and left out: {found.broken:,}: {shown}{_more(found.broken - 5)}.")
    if found.copies:
        named = [group[:3] for group in found.copy_names[:3]]
        shown, rest = "; ".join(map(" = ".join, named)), found.copies - sum(map(len, named))
        torn = f"; {found.torn:,} lie under several classes" if found.torn else ""
        lines.append(f"Exact copies: {found.copies:,} pictures, which stay in one part{torn}: {shown}{_more(rest)}.")
    if found.small:
        shown = ", ".join(f"{name} ({n})" for name, n in list(found.small.items())[:5])
        lines.append(f"Fewer than {FEWEST} different pictures: {shown}{_more(len(found.small) - 5)}.")
    return lines


def _size(found: Inventory, place: str) -> str:
    return f"{found.heights[place]}x{found.widths[place]}"


def _colour(found: Inventory) -> str:
    if found.channels == 1:
        return "all grey"
    return f"in colour, {found.grey:,} of them grey" if found.grey else "in colour"


def _more(count: int) -> str:
    return f"; and {count:,} more" if count > 0 else ""
