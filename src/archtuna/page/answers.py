"""What networks of a front answer on the validation pictures: by class, what they confuse, and their worst mistakes."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from archtuna.metrics import accuracy, confusion, macro_f1

if TYPE_CHECKING:
    from archtuna.data import Data, Split
    from archtuna.files import Place

MISTAKES = 8
"""Pictures that are shown of a network, the wrong answers that it was surest of."""

SIDE = 96
"""Pixels of the longer side of a picture that is shown."""


def answers_of(checkpoint: Place, data: Data, split: Split, device: str | None = None) -> dict[str, Any]:
    """Return what a checkpoint's network answers on the validation pictures of its study.

    Args:
        checkpoint: of the network.
        data: the study's pictures.
        split: of them.
        device: where to run; None picks one.

    Returns:
        ``confusion`` (how often class ``i`` was taken for ``j``), ``accuracy``, ``f1``, ``n``, and ``mistakes``: each with the
        ``truth``, the ``answer``, its ``probability``, the picture's ``name`` and the ``picture`` itself as a data URL.

    Raises:
        CheckpointError: the file is no checkpoint.
    """
    import torch

    from archtuna.checkpoint import load, read_header
    from archtuna.data import Batches
    from archtuna.evaluate import EVALUATION_BATCH
    from archtuna.training import pick_device

    header = read_header(checkpoint)
    place = pick_device(device)
    model = load(checkpoint, device=str(place))
    images, preprocess = header.images(data)
    batches = Batches(images, split.val, preprocess, batch_size=EVALUATION_BATCH, device=str(place))
    with torch.inference_mode():
        shares = torch.cat([model(x).float().softmax(dim=1).cpu() for x, _ in batches.epoch(0)]).numpy()
    truth, told = data.labels[split.val], shares.argmax(axis=1)
    matrix = confusion(truth, told, len(header.classes))
    wrong = np.flatnonzero(told != truth)
    worst = wrong[np.argsort(-shares[wrong, told[wrong]], kind="stable")][:MISTAKES]
    return {
        "confusion": matrix.tolist(), "accuracy": accuracy(matrix), "f1": macro_f1(matrix), "n": len(truth),
        "mistakes": [
            {
                "truth": header.classes[truth[i]], "answer": header.classes[told[i]],
                "probability": round(float(shares[i, told[i]]), 4), "name": data.names[split.val[i]],
                "picture": picture(images.pixels[split.val[i]]),
            }
            for i in worst
        ],
    }  # fmt: skip


def picture(pixels: np.ndarray) -> str:
    """Return pixels (H × W × channels, uint8) as the data URL of a small JPEG."""
    from PIL import Image

    image = Image.fromarray(np.asarray(pixels).squeeze())
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
