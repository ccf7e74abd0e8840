"""Where a training can be taken up again: all of its state after an epoch, in one file that is whole or not there.

The same training on the same machine goes on from such a point as if it had never been interrupted, bit for bit on a CPU.
A point holds tensors and plain data only; reading one runs no code.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from archtuna.files import write_atomically
from archtuna.space import Candidate

FORMAT = 1


def write_point(path: Path, candidate: Candidate, content: Mapping[str, Any]) -> None:
    """Write the state of a candidate's training.

    Args:
        path: of the file.
        candidate: whose training it is; no other takes it up.
        content: tensors and plain data.

    Raises:
        OSError: it cannot be written; what stood there before still does.
    """
    import torch

    held = io.BytesIO()
    torch.save({"format": FORMAT, "of": _named(candidate), **content}, held)
    # A power cut may lose it, and then the training begins anew; waiting for the disk in each epoch would cost more.
    write_atomically(path, held.getbuffer(), durable=False)


def read_point(path: Path, candidate: Candidate) -> dict[str, Any] | None:
    """Return what ``write_point`` wrote; None where there is nothing whole, or it is of another training."""
    import torch

    if not zipfile.is_zipfile(path):
        return None
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError):
        return None
    is_ours = isinstance(found, dict) and found.get("format") == FORMAT and found.get("of") == _named(candidate)
    return found if is_ours else None


def _named(candidate: Candidate) -> dict[str, Any]:
    return {"key": candidate.architecture.key, "recipe": candidate.recipe.to_dict()}
