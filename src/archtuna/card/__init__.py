"""The model card of a checkpoint: what it is, what it was trained on, how good it is, and how to make it again.

The sections are those of Mitchell et al. 2019 (arXiv:1810.03993), the front matter is what the Hugging Face Hub reads. What is
not known is said to be, and nobody's judgement is made up: licence and intended use are the publisher's to write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from archtuna.card import quality, record
from archtuna.card.subject import subject_of
from archtuna.files import Place, place_of, write_whole

if TYPE_CHECKING:
    from archtuna.latency import Latency

SECTIONS = (
    *(record.front_matter, record.model),
    *(quality.data, quality.metrics, quality.classes, quality.limits),
    *(record.costs, record.training, record.provenance, record.again),
)
"""What a card has, in order."""


def card(path: str | Place, *, data: Any = None, device: str | None = None, latency: Latency | None = None) -> str:
    """Return the model card of a checkpoint, in Markdown.

    The network is run on its validation and test pictures. Where they are gone, and nobody says where they are, the card has
    what the checkpoint recorded, and says what is not known.

    Args:
        path: the checkpoint.
        data: where the pictures are, should they have moved.
        device: where to run; None picks one.
        latency: of the network, where it was measured.

    Raises:
        CheckpointError: the file is no checkpoint, or does not build here.
        DataError: ``data`` names other pictures than it was trained on.
    """
    subject = subject_of(place_of(path), data, device, latency)
    return "\n".join(line for section in SECTIONS for line in (*section(subject), ""))


def write(path: str | Place, text: str) -> None:
    """Write a card; the file is there as a whole or as it was before.

    Raises:
        ArchtunaError: it cannot be written.
    """
    write_whole(place_of(path), text.encode())
