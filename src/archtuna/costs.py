"""What a network costs, known exactly before it is trained."""

from __future__ import annotations

from archtuna.architecture import Architecture
from archtuna.model import survey

BYTES_PER_NUMBER = 4


def costs_of(architecture: Architecture) -> dict[str, float]:
    """Return ``params``, ``macs`` (one picture, convolutions and matrix products) and ``size_mb`` of a network.

    ``size_mb`` counts what a checkpoint stores as 32-bit floats, batch-norm statistics included, in units of 10^6 bytes.

    Raises:
        ShapeError: rows do not fit each other.
    """
    facts = [unit for _, unit in survey(architecture)]
    return {
        "params": sum(f.params for f in facts),
        "macs": sum(f.macs for f in facts),
        "size_mb": sum(f.state for f in facts) * BYTES_PER_NUMBER / 1e6,
    }
