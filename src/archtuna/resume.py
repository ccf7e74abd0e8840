"""Where a training can be taken up again: all of its state after an epoch.

The same training on the same machine goes on from such a point as if it had never been interrupted, bit for bit on a CPU.
A point holds tensors and plain data only; reading one runs no code.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

from archtuna.space import Candidate

FORMAT = 2


def pack(candidate: Candidate, content: Mapping[str, Any]) -> memoryview:
    """Return the state of a candidate's training as bytes.

    Args:
        candidate: whose training it is; no other takes it up.
        content: tensors and plain data.
    """
    import torch

    held = io.BytesIO()
    torch.save({"format": FORMAT, "of": _named(candidate), **content}, held)
    return held.getbuffer()


def unpack(point: bytes, candidate: Candidate) -> dict[str, Any] | None:
    """Return the content that ``pack`` was given; None where the point is damaged, or of another training."""
    import torch

    held = io.BytesIO(point)
    try:
        # Torch does not look at the checksums of tensors, and a power cut leaves zeros in the middle of a file.
        if zipfile.ZipFile(held).testzip() is not None:
            return None
        held.seek(0)
        found = torch.load(held, map_location="cpu", weights_only=True)
    except Exception:  # What is damaged fails in any way, and the training begins anew.
        return None
    is_ours = isinstance(found, dict) and found.get("format") == FORMAT and found.get("of") == _named(candidate)
    return found if is_ours else None


def _named(candidate: Candidate) -> dict[str, Any]:
    return {"key": candidate.architecture.key, "recipe": candidate.recipe.to_dict()}
