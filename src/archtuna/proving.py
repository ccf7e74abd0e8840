"""The real pictures on which an export of a checkpoint is proved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from archtuna.errors import DataError

if TYPE_CHECKING:
    from archtuna.exports import Proof
    from archtuna.files import Place


def proof_of(checkpoint: str | Place, *, data: Any = None, split: str = "val") -> Proof:
    """Return the pictures of one part of the split that a checkpoint's study used.

    Args:
        checkpoint: it carries the split and where its pictures were.
        data: where the pictures are, should they have moved.
        split: ``train``, ``val`` or ``test``.

    Raises:
        CheckpointError: the file is no checkpoint.
        DataError: the pictures are not there, they are others than it was trained on, or that part is empty.
    """
    from archtuna.checkpoint import read_header
    from archtuna.data import Batches, Split
    from archtuna.evaluate import EVALUATION_BATCH
    from archtuna.exports import Proof

    header = read_header(checkpoint)
    pictures = header.open_data(data)
    indices = getattr(Split.from_dict(header.data, pictures), split)
    if not len(indices):
        raise DataError(
            f"{pictures.source} has no {split} pictures", hint="prove the export on another part of the data"
        )
    images, preprocess = header.images(pictures)
    return Proof(Batches(images, indices, preprocess, batch_size=EVALUATION_BATCH), len(header.classes), split)
