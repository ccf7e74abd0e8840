"""Train, validation and test: stratified, seeded, and the same on every machine and library version."""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from archtuna.errors import DataError

if TYPE_CHECKING:
    from archtuna.data.source import Data

logger = logging.getLogger("archtuna")


@dataclass(frozen=True, eq=False)
class Split:
    """Which pictures are for training, validation and test: sorted indices into a set.

    Attributes:
        train, val, test: int64 indices; no picture is in two of them, nor is its exact copy.
        seed, shares: what it was cut with: shares of validation and test.
        fingerprint: of the set that the indices point into.
        part: fraction and seed of the ``subset`` that train was reduced to, or None for all of it.
    """

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    seed: int
    shares: tuple[float, float]
    fingerprint: str
    labels: np.ndarray
    digests: tuple[str, ...]
    part: tuple[float, int] | None = None

    def subset(self, fraction: float, seed: int = 0) -> Split:
        """Return this split with a stratified part of train; validation and test stay.

        At least one picture of each class stays; with one seed a smaller part lies inside each larger one.

        Raises:
            DataError: the fraction is not above 0 and at most 1, or this is a subset already.
        """
        if not 0 < fraction <= 1:
            raise DataError(f"fraction {fraction} must be above 0 and at most 1")
        if self.part is not None:
            raise DataError("a subset is taken of the whole split, not of a subset")
        kept: list[int] = []
        for members in _by_class(self.train, self.labels).values():
            ordered = sorted(members, key=lambda i: (_rank(f"subset/{seed}", self.digests[i]), i))
            kept += ordered[: max(1, _rounded(len(members) * fraction))]
        values = {**self.__dict__, "train": _indices(kept), "part": (fraction, seed)}
        return Split(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return what rebuilds the split from the same set: seed, shares and the set's fingerprint."""
        document: dict[str, Any] = {
            "seed": self.seed, "val": self.shares[0], "test": self.shares[1], "fingerprint": self.fingerprint,
        }  # fmt: skip
        if self.part:
            document["subset"] = {"fraction": self.part[0], "seed": self.part[1]}
        return document

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], data: Data) -> Split:
        """Rebuild the split that ``to_dict`` described.

        Raises:
            DataError: the set is not the one that was split.
        """
        try:
            fingerprint, seed = values["fingerprint"], int(values["seed"])
            shares = float(values["val"]), float(values["test"])
            part = (float(values["subset"]["fraction"]), int(values["subset"]["seed"])) if "subset" in values else None
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"this is no split: {values!r}") from error
        if fingerprint != data.fingerprint:
            message = f"the pictures are not those that were split: fingerprint {data.fingerprint}, not {fingerprint}"
            hint = "a picture, label or name was added, removed or changed since"
            raise DataError(f"{data.source}: {message}", hint=hint)
        whole = cut(data, val=shares[0], test=shares[1], seed=seed)
        return whole.subset(*part) if part else whole


def cut(data: Data, *, val: float, test: float, seed: int) -> Split:
    """Split a set; parts that its source prescribes stay, and what is missing is cut from train.

    Each class is ordered by a hash of the seed and of each picture's content, and dealt out from the front: test,
    validation, train. So the split depends on no library's random numbers, nor on names or order. Exact copies
    count as one picture and go the same way.

    Raises:
        DataError: shares out of range, or a class with too few different pictures.
    """
    if not (0 <= val < 1 and 0 <= test < 1 and val + test < 1):
        raise DataError(
            f"shares val {val} and test {test} must be at least 0 and together below 1", hint="for example .15 and .15"
        )
    prescribed = {part: np.flatnonzero(data.part == part).tolist() for part in ("val", "test")}
    shares = {part: 0.0 if prescribed[part] else share for part, share in (("test", test), ("val", val))}
    pool = np.flatnonzero((data.part != "val") & (data.part != "test")).tolist()
    pool = _without_leaks(data, pool, prescribed)
    parts: dict[str, list[int]] = {"train": [], **prescribed}
    groups = _copies(data, pool)
    for label, own in sorted(_groups_by_class(groups, data.labels).items()):
        _deal(own, parts, shares, f"split/{seed}", data, label)
    present = set(data.labels[parts["train"]].tolist())
    for label, name in enumerate(data.classes):
        if label not in present:
            hint = "add pictures, remove the class, or lower the shares of val and test"
            raise DataError(f"class '{name}' has no picture left for training", hint=hint)
    train, validation, held_out = (_indices(parts[part]) for part in ("train", "val", "test"))
    return Split(train, validation, held_out, seed, (val, test), data.fingerprint, data.labels, data.digests)


Group = list[int]


def _deal(
    groups: list[Group], parts: dict[str, list[int]], shares: Mapping[str, float], salt: str, data: Data, label: int
) -> None:
    """Deal one class's pictures, copies together, into the parts that need some."""
    wanted = {part: share for part, share in shares.items() if share > 0}
    if len(groups) < len(wanted) + 1:
        parts_needed = ", ".join([*wanted, "train"])
        raise DataError(
            f"class '{data.classes[label]}' has {len(groups)} different pictures, too few for {parts_needed}",
            hint="add pictures, or give the shares of val or test as 0",
        )
    ordered = sorted(groups, key=lambda group: _rank(salt, data.digests[group[0]]))
    start = 0
    for position, (part, share) in enumerate(wanted.items()):
        spare = len(groups) - start - (len(wanted) - position)
        count = min(max(1, _rounded(len(groups) * share)), spare)
        parts[part] += [index for group in ordered[start : start + count] for index in group]
        start += count
    parts["train"] += [index for group in ordered[start:] for index in group]


def _without_leaks(data: Data, pool: list[int], prescribed: dict[str, list[int]]) -> list[int]:
    """Return the pool without exact copies of pictures that lie in a prescribed part; val gives way to test."""
    held = {data.digests[i] for i in prescribed["test"]}
    clean_val = [i for i in prescribed["val"] if data.digests[i] not in held]
    held |= {data.digests[i] for i in clean_val}
    clean = [i for i in pool if data.digests[i] not in held]
    dropped = len(pool) + len(prescribed["val"]) - len(clean) - len(clean_val)
    if dropped:
        logger.warning("%s: %d pictures are left out: exact copies of them are in test or val", data.source, dropped)
    prescribed["val"] = clean_val
    return clean


def _copies(data: Data, pool: list[int]) -> list[Group]:
    """Return the pool in groups of exact copies, in the order of their first members."""
    groups: dict[str, Group] = defaultdict(list)
    for index in pool:
        groups[data.digests[index]].append(index)
    found = [group for group in groups.values() if len(group) > 1]
    if found:
        torn = [group for group in found if len(set(data.labels[group].tolist())) > 1]
        shown = "; ".join(" = ".join(data.names[i] for i in group) for group in (torn or found)[:5])
        message = "%s: %d pictures have exact copies, which stay in one part; %d of them under several classes: %s"
        logger.warning(message, data.source, len(found), len(torn), shown)
    return list(groups.values())


def _groups_by_class(groups: list[Group], labels: np.ndarray) -> dict[int, list[Group]]:
    found: dict[int, list[Group]] = defaultdict(list)
    for group in groups:
        found[int(labels[group[0]])].append(group)
    return found


def _by_class(indices: np.ndarray, labels: np.ndarray) -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for index in indices.tolist():
        found[int(labels[index])].append(index)
    return found


def _rank(salt: str, digest: str) -> bytes:
    return hashlib.sha256(f"{salt}/{digest}".encode()).digest()


def _rounded(value: float) -> int:
    """Half goes up: Python's own rounding to even would give classes of 10 and 30 different shares of .15."""
    return int(value + 0.5)


def _indices(members: list[int]) -> np.ndarray:
    return np.array(sorted(members), dtype=np.int64)
