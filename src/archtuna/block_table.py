"""What blocks take, each distinct one at its shapes: gathered from profiles, and kept as plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from archtuna.architecture import Architecture
from archtuna.errors import LatencyError
from archtuna.model import survey
from archtuna.parts import parts_of_units
from archtuna.predictor import Measured, Part
from archtuna.profiles import Profile

FORMAT = 1


@dataclass(frozen=True)
class BlockTime:
    """What one block took.

    Attributes:
        ms: mean of its milliseconds.
        n: in how many copies it was timed.
        parts: its operators.
    """

    ms: float
    n: int
    parts: tuple[Part, ...]

    def with_another(self, ms: float) -> BlockTime:
        """Return what is known after one more measurement."""
        return BlockTime(self.ms + (ms - self.ms) / (self.n + 1), self.n + 1, self.parts)


@dataclass
class BlockTable:
    """Times of blocks on one device.

    Attributes:
        fingerprint: of the device, and how it is used; that of the first profile where none is given.
        times: by the block's name, arguments and inputs' shapes, as text.
    """

    fingerprint: str | None = None
    times: dict[str, BlockTime] = field(default_factory=dict)

    def add(self, architecture: Architecture, profile: Profile) -> None:
        """Take note of every block of a network.

        Raises:
            LatencyError: the profile is of another device, or was made otherwise, than those before.
        """
        here = profile.device.fingerprint
        if self.fingerprint not in (None, here):
            raise LatencyError(f"times of device {here} do not belong among those of {self.fingerprint}")
        self.fingerprint = here
        self.note(architecture, profile.units)

    def note(self, architecture: Architecture, units: Sequence[float]) -> None:
        """Take note of the milliseconds of each copy of a block, on the table's device.

        Raises:
            ValueError: they are not as many as the copies.
        """
        for key, parts, ms in zip(keys_of(architecture), parts_of_units(architecture), units, strict=True):
            known = self.times.get(key)
            self.times[key] = BlockTime(ms, 1, parts) if known is None else known.with_another(ms)

    def measured(self) -> Measured:
        """Return what ``Predictor.fit`` takes as parts that were measured on their own."""
        return [(time.parts, time.ms) for time in self.times.values() if time.parts]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that ``from_dict`` and ``json`` understand."""
        times = {
            key: {
                "ms": time.ms,
                "n": time.n,
                "parts": [[part.key, part.kind, list(part.numbers)] for part in time.parts],
            }
            for key, time in self.times.items()
        }
        return {"format": FORMAT, "fingerprint": self.fingerprint, "times": times}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> BlockTable:
        """Read what ``to_dict`` returned.

        Raises:
            LatencyError: it is something else, or of a newer version.
        """
        try:
            if int(plain["format"]) > FORMAT:
                raise LatencyError(
                    f"the table of blocks is of format {plain['format']}, this archtuna reads up to {FORMAT}",
                    hint="pip install --upgrade archtuna",
                )
            times = {str(key): _time_of(entry) for key, entry in plain["times"].items()}
            fingerprint = plain["fingerprint"]
            return cls(None if fingerprint is None else str(fingerprint), times)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            problem = f"{type(error).__name__}: {error}"
        raise LatencyError(f"this is no table of blocks ({problem})")


def keys_of(architecture: Architecture) -> list[str]:
    """Return for each copy of a block its name, arguments and inputs' shapes as text: equal for equal blocks.

    Raises:
        ShapeError: rows do not fit each other.
    """
    return [
        json.dumps([row.module, dict(row.arguments), facts.inputs], sort_keys=True, separators=(",", ":"))
        for (_, row), (_, facts) in zip(architecture.units(), survey(architecture), strict=True)
    ]


def _time_of(plain: Mapping[str, Any]) -> BlockTime:
    parts = tuple(Part(str(key), str(kind), tuple(map(float, numbers))) for key, kind, numbers in plain["parts"])
    return BlockTime(float(plain["ms"]), int(plain["n"]), parts)
