"""The speed that a device has when nobody disturbs it, told by a network that is always the same, and which rounds had it.

Where others use a processor, in a virtual machine even those that nobody inside can see, its speed changes within
milliseconds, by as much as a factor of two. A median over everything then says how busy the machine was. So a round counts
only where the reference runs at its full speed before and after it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from archtuna.devices import machine_folder
from archtuna.files import write_atomically

FORGOTTEN = 600.0
"""Seconds after which a speed that a device has not had again is forgotten: it may have been throttled since."""

FAST = 0.05
"""The share of rounds that are faster than what counts as the fastest, which single lucky ones are not."""


def fastest(references: Sequence[float]) -> float:
    """Return the seconds of the reference at full speed, as some rounds show it."""
    return float(np.quantile(references, FAST))


def counting(references: Sequence[float], full: float, tolerance: float) -> np.ndarray:
    """Return which rounds count: those before and after which the reference ran at full speed.

    Args:
        references: seconds of the reference after each round of the network.
        full: its seconds at full speed.
        tolerance: by which share it may be slower.
    """
    is_full = np.asarray(references) <= full * (1.0 + tolerance)
    return is_full & np.concatenate([is_full[:1], is_full[:-1]])


def remembered(fingerprint: str) -> float | None:
    """Return the seconds that the reference took at a device's full speed, in the last minutes; None where nobody knows."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        plain = json.loads(_file(fingerprint).read_text("utf-8"))
        if 0.0 <= time.time() - float(plain["at"]) < FORGOTTEN and float(plain["seconds"]) > 0:
            return float(plain["seconds"])
    return None


def remember(fingerprint: str, seconds: float) -> None:
    """Note that a device has this full speed now."""
    with suppress(OSError):  # It is a help, not a need.
        write_atomically(_file(fingerprint), json.dumps({"seconds": seconds, "at": time.time()}).encode())


def _file(fingerprint: str) -> Path:
    return machine_folder() / f"speed-{fingerprint}.json"
