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
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from archtuna.errors import StudyError
from archtuna.files import Place, Unreachable, answering, delete, listing, read_bytes, rename, write_atomically

log = logging.getLogger("archtuna")

_KEPT = re.compile(r"(\d+)\.safetensors")
_STAGED = re.compile(r"\.(\d+)-(\d+)\.safetensors")
_POINT = re.compile(r"(\d+)-(\d+)\.pt")


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
        place, staged = self.weights(number), self.staged(number, take)
        try:
            rename(staged, place)
        except FileNotFoundError:
            pass  # Nothing was staged, or another process was first.
        except Unreachable:
            return None  # Whoever looks when it is back does it.
        except OSError:
            return staged if staged.exists() else None  # Somebody else's run, which may only be read.
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
        return _numbered(self.folder / "checkpoints", _STAGED)

    # points

    def point(self, number: int, take: int) -> Place:
        """Return where a worker writes the state of a trial's training; see ``resume``."""
        return self.folder / "resume" / f"{number}-{take}.pt"

    def keep_point(self, number: int, take: int, content: bytes | memoryview) -> None:
        """Write the point of a worker, over its last one.

        Raises:
            OSError: it cannot be written; the last one still is there.
        """
        # A power cut may lose it, and then the training begins anew; waiting for the disk in each epoch would cost more.
        write_atomically(self.point(number, take), content, durable=False)

    def last_point(self, number: int) -> bytes | None:
        """Return the point of the worker that took a trial last and left one that can be read.

        Raises:
            Unreachable: nobody can say.
        """
        takes = self.points().get(number)
        try:
            return read_bytes(self.point(number, max(takes))) if takes else None
        except Unreachable:
            raise
        except OSError:
            return None

    def points(self) -> dict[int, list[int]]:
        """Return the takes that left a point, by the number of their trial."""
        return _numbered(self.folder / "resume", _POINT)

    # ends

    def torn(self, age: float) -> list[Path]:
        """Return the temporary files that writers left which died, by now so many seconds old."""
        if not isinstance(self.folder, Path):
            return []  # An object store keeps no half files.
        before = time.time() - age
        folders = (self.folder, self.folder / "checkpoints", self.folder / "resume")
        paths = [path for folder in folders if folder.is_dir() for path in folder.glob(".*.tmp")]
        return [path for path in sorted(paths) if path.stat().st_mtime < before]

    def forget(self, number: int) -> None:
        """Delete what a trial that has ended left on the way, but not its weights."""
        for take in self.points().get(number, ()):
            _delete(self.point(number, take))
        for take in self.takes().get(number, ()):
            _delete(self.staged(number, take))

    def give_up(self, number: int, take: int) -> None:
        """Delete what a worker wrote of a trial that it has lost."""
        _delete(self.point(number, take))
        _delete(self.staged(number, take))

    def remove(self, numbers: Collection[int]) -> None:
        """Delete the weights of trials."""
        for number in numbers:
            _delete(self.weights(number))


def _numbered(folder: Place, pattern: re.Pattern[str]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for name in listing(folder):
        match = pattern.fullmatch(name)
        if match:
            found.setdefault(int(match[1]), []).append(int(match[2]))
    return found


def _delete(place: Place) -> None:
    try:
        delete(place)
    except Unreachable as error:
        log.debug("%s stays: %s", place, error)  # The next sweep deletes it.
