"""The files that a run's trials leave: weights that are kept, and points where a training can be taken up again.

Weights are written in two steps. First they are *staged* under a name of one worker's own; when the trial has been recorded as
complete by that worker, they take their place. A worker that has lost its trial can therefore not write over the
weights of the one that has it. Whoever reads the run finishes a second step that a crash prevented.

They lie in the run's folder, or in an object store for machines that share no disk.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from archtuna.errors import StudyError
from archtuna.files import (
    Place,
    Unreachable,
    answering,
    delete,
    is_remote,
    listing,
    read_bytes,
    rename,
    write_atomically,
)

log = logging.getLogger("archtuna")

_KEPT = re.compile(r"(\d+)\.safetensors")
_STAGED = re.compile(r"\.(\d+)-(\d+)\.safetensors")
_POINT = re.compile(r"(\d+(?:s\d+)?)-(\d+)\.pt")

POINT_SPACING = 10.0
"""Into an object store points go no oftener than that they take a tenth of the time."""

Training = int | str
"""What names a training: the number of its trial, or ``run_name`` where a trial is trained again with another seed."""


def run_name(number: int, seed: int) -> str:
    """Return what names the training of a trial with another seed."""
    return f"{number}s{seed}"


@dataclass(frozen=True)
class Artifacts:
    """The files of one run's trials.

    Attributes:
        folder: of the run, or the place in an object store that stands in for it.
    """

    folder: Place

    def check(self) -> None:
        """See whether the object store can be written, before anything is trained.

        Raises:
            StudyError: it cannot.
        """
        probe = self.folder / ".probe"
        try:
            write_atomically(probe, b"")
            delete(probe)
            return
        except OSError as error:
            problem = error.strerror or str(error)
        raise StudyError(
            f"cannot write to {self.folder}: {problem}",
            hint="check the name of the bucket, and the credentials and the endpoint in the environment",
        )

    # weights

    def weights(self, number: int) -> Place:
        """Return where the weights of a trial are, if they are kept."""
        return self.folder / "checkpoints" / f"{number}.safetensors"

    def staged(self, number: int, take: int) -> Place:
        """Return where a worker writes the weights of a trial that is not recorded yet.

        Args:
            number: of the trial.
            take: how many times the trial was taken by a worker; see ``leases``.
        """
        return self.folder / "checkpoints" / f".{number}-{take}.safetensors"

    def settle(self, number: int, take: int) -> Place | None:
        """Give staged weights their place, the trial being complete, and return where they are; None where there are none."""
        staged = self.staged(number, take)
        try:
            rename(staged, self.weights(number))
        except FileNotFoundError:
            pass  # Nothing was staged, or another process was first.
        except Unreachable:
            return None  # Whoever looks when it is back does it.
        except OSError:
            return staged if staged.exists() else None  # Somebody else's run, which may only be read.
        return self.found(number)

    def found(self, number: int) -> Place | None:
        """Return where the weights of a trial are; None where they are not in their place."""
        place = self.weights(number)
        with answering(place):
            return place if place.exists() else None

    def kept(self) -> dict[int, Place]:
        """Return the weights that are in their place, by the number of their trial."""
        return {number: self.weights(number) for number in self.sizes()}

    def sizes(self) -> dict[int, int]:
        """Return how many bytes the weights take that are in their place, by the number of their trial."""
        found = ((_KEPT.fullmatch(name), size) for name, size in listing(self.folder / "checkpoints").items())
        return dict(sorted((int(match[1]), size) for match, size in found if match))

    def takes(self) -> dict[int, list[int]]:
        """Return the takes of which weights are staged, by the number of their trial."""
        return {int(name): takes for name, takes in _takes_in(self.folder / "checkpoints", _STAGED).items()}

    # points

    def point(self, training: Training, take: int) -> Place:
        """Return where a worker writes the state of a training; see ``resume``."""
        return self.folder / "resume" / f"{training}-{take}.pt"

    def keep_point(self, training: Training, take: int, content: bytes | memoryview) -> None:
        """Write the point of a worker, over its last one.

        Raises:
            OSError: it cannot be written; the last one still is there.
        """
        # A power cut may lose it, and then the training begins anew; waiting for the disk in each epoch would cost more.
        write_atomically(self.point(training, take), content, durable=False)

    def last_point(self, training: Training) -> bytes | None:
        """Return the point of the worker that took a training last and left one that can be read.

        Raises:
            Unreachable: nobody can say.
        """
        takes = self.points().get(str(training))
        try:
            return read_bytes(self.point(training, max(takes))) if takes else None
        except Unreachable:
            raise
        except OSError:
            return None

    def points(self) -> dict[str, list[int]]:
        """Return the takes that left a point, by the name of their training."""
        return _takes_in(self.folder / "resume", _POINT)

    # ends

    def torn(self, age: float) -> list[Path]:
        """Return the temporary files that writers left which died, by now so many seconds old."""
        if not isinstance(self.folder, Path):
            return []  # An object store keeps no half files.
        before = time.time() - age
        folders = (self.folder, self.folder / "checkpoints", self.folder / "resume")
        paths = [path for folder in folders if folder.is_dir() for path in folder.glob(".*.tmp")]
        return [path for path in sorted(paths) if path.stat().st_mtime < before]

    def forget(self, training: Training) -> None:
        """Delete what a training that has ended left on the way, but not its weights."""
        for take in self.points().get(str(training), ()):
            _delete(self.point(training, take))
        if isinstance(training, int):
            for take in self.takes().get(training, ()):
                _delete(self.staged(training, take))

    def give_up(self, training: Training, take: int) -> None:
        """Delete what a worker wrote of a training that it has lost."""
        _delete(self.point(training, take))
        if isinstance(training, int):
            _delete(self.staged(training, take))

    def remove(self, numbers: Collection[int]) -> None:
        """Delete the weights of trials."""
        for number in numbers:
            _delete(self.weights(number))


class Points:
    """Keeps the points of one worker: a disk without room for them is no reason to stop.

    Args:
        artifacts: where they go.
    """

    def __init__(self, artifacts: Artifacts) -> None:
        self.artifacts, self._is_remote = artifacts, is_remote(artifacts.folder)
        self._next, self._has_told = 0.0, False

    def keep(self, training: Training, take: int, pause: Callable[[], bytes | memoryview] | None) -> None:
        """Write a point, unless there is none, or it is too early for a store."""
        begun = time.monotonic()
        if pause is None or begun < self._next:
            return
        try:
            self.artifacts.keep_point(training, take, pause())
        except OSError as error:
            if not self._has_told:
                self._has_told = True
                log.warning("no points to go on from are kept: %s", error.strerror or error)
        if self._is_remote:
            now = time.monotonic()
            self._next = now + (now - begun) * POINT_SPACING


def _takes_in(folder: Place, pattern: re.Pattern[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for name in listing(folder):
        match = pattern.fullmatch(name)
        if match:
            found.setdefault(match[1], []).append(int(match[2]))
    return found


def _delete(place: Place) -> None:
    try:
        delete(place)
    except Unreachable as error:
        log.debug("%s stays: %s", place, error)  # The next sweep deletes it.
