"""The files that a run's trials leave: weights that are kept, and points where a training can be taken up again.

Weights are written in two steps. First they are *staged* under a name of one worker's own; when the trial has been recorded as
complete by that worker, they take their place. A worker that has lost its trial can therefore not write over the
weights of the one that has it. Whoever reads the run finishes a second step that a crash prevented.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

_STAGED = re.compile(r"\.(\d+)-(\d+)\.safetensors")
_POINT = re.compile(r"(\d+)-(\d+)\.pt")


@dataclass(frozen=True)
class Artifacts:
    """The files of one run's trials.

    Attributes:
        folder: of the run.
    """

    folder: Path

    # weights

    def weights(self, number: int) -> Path:
        """Return where the weights of a trial are, if they are kept."""
        return self.folder / "checkpoints" / f"{number}.safetensors"

    def staged(self, number: int, take: int) -> Path:
        """Return where a worker writes the weights of a trial that is not recorded yet.

        Args:
            number: of the trial.
            take: how many times the trial was taken by a worker; see ``leases``.
        """
        return self.folder / "checkpoints" / f".{number}-{take}.safetensors"

    def settle(self, number: int, take: int) -> Path | None:
        """Give staged weights their place, the trial being complete, and return where they are; None where there are none."""
        place, staged = self.weights(number), self.staged(number, take)
        try:
            os.replace(staged, place)
        except FileNotFoundError:
            pass  # Nothing was staged, or another process was first.
        except OSError:
            return staged if staged.exists() else None  # Somebody else's run, which may only be read.
        return place if place.exists() else None

    def kept(self) -> dict[int, Path]:
        """Return the weights that are in their place, by the number of their trial."""
        folder = self.folder / "checkpoints"
        paths = folder.glob("*.safetensors") if folder.is_dir() else ()
        return {int(path.stem): path for path in sorted(paths) if path.stem.isdigit()}

    def takes(self) -> dict[int, list[int]]:
        """Return the takes of which weights are staged, by the number of their trial."""
        return _numbered(self.folder / "checkpoints", _STAGED)

    # points

    def point(self, number: int, take: int) -> Path:
        """Return where a worker writes the state of a trial's training; see ``resume``."""
        return self.folder / "resume" / f"{number}-{take}.pt"

    def last_point(self, number: int) -> Path | None:
        """Return the point of the worker that took a trial last and left one."""
        takes = self.points().get(number)
        return self.point(number, max(takes)) if takes else None

    def points(self) -> dict[int, list[int]]:
        """Return the takes that left a point, by the number of their trial."""
        return _numbered(self.folder / "resume", _POINT)

    # ends

    def torn(self, age: float) -> list[Path]:
        """Return the temporary files that writers left which died, by now so many seconds old."""
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


def _numbered(folder: Path, pattern: re.Pattern[str]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for name in os.listdir(folder) if folder.is_dir() else ():
        match = pattern.fullmatch(name)
        if match:
            found.setdefault(int(match[1]), []).append(int(match[2]))
    return found


def _delete(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # Another worker may have been first.
        path.unlink()
