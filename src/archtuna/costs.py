"""What a network costs, known exactly before it is trained."""

from __future__ import annotations

from archtuna.architecture import Architecture
from archtuna.memory import BYTES_PER_NUMBER, peak_memory
from archtuna.model import survey


def costs_of(architecture: Architecture) -> dict[str, float]:
    """Return ``params``, ``macs`` (one picture, convolutions and matrix products), ``size_mb`` and ``peak_memory_mb``.

    ``size_mb`` counts what a checkpoint stores as 32-bit floats, batch-norm statistics included; ``peak_memory_mb`` the most
    activations that are alive at once, as ``peak_memory`` says. Both are in units of 10^6 bytes.

    Raises:
        ShapeError: rows do not fit each other.
    """
    facts = [unit for _, unit in survey(architecture)]
    return {
        "params": sum(f.params for f in facts),
        "macs": sum(f.macs for f in facts),
        "size_mb": sum(f.state for f in facts) * BYTES_PER_NUMBER / 1e6,
        "peak_memory_mb": peak_memory(architecture, facts) / 1e6,
    }
