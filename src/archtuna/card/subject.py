"""What a card is about: a checkpoint, its pictures, and what its network answers on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from archtuna.checkpoint import Header, read_header
from archtuna.errors import CheckpointError, DataError
from archtuna.files import Place, read_bytes
from archtuna.final import tally_checkpoint

if TYPE_CHECKING:
    from archtuna.data import Data, Split
    from archtuna.latency import Latency

PARTS = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class Answers:
    """A network's answers on one part of the pictures.

    Attributes:
        part: ``val`` or ``test``.
        matrix: how often class ``i`` was taken for class ``j``.
        loss: mean cross-entropy in nats.
    """

    part: str
    matrix: np.ndarray
    loss: float


@dataclass(frozen=True)
class Subject:
    """What a card is about.

    Attributes:
        content: of the file.
        header: what it says of its weights.
        pictures: and how they are split, where they are here.
        missing: what is to be said of them where they are not.
        answers: on validation and test pictures, in this order, as far as there are any.
        latency: where it was measured.
    """

    content: bytes
    header: Header
    pictures: tuple[Data, Split] | None
    missing: str
    answers: tuple[Answers, ...]
    latency: Latency | None


def subject_of(place: Place, data: Any, device: str | None, latency: Latency | None) -> Subject:
    """Read a checkpoint, and run its network on validation and test pictures, as far as they are there.

    Raises:
        CheckpointError: the file is no checkpoint, or does not build here.
        DataError: ``data`` names other pictures than it was trained on.
    """
    header = read_header(place)
    pictures, missing = _pictures(header, data)
    parts = [part for part in ("val", "test") if pictures and len(getattr(pictures[1], part))]
    answers = tuple(_answers(place, pictures[0], part, device) for part in parts if pictures)
    return Subject(_content(place), header, pictures, missing, answers, latency)


def _pictures(header: Header, given: Any) -> tuple[tuple[Data, Split] | None, str]:
    """Return the pictures and their split, or what is to be said where they are not there any more."""
    from archtuna.data import Split

    missing = "They were not where they had been when this card was written"
    try:
        data = header.open_data(given)
        missing = "What was where they had been when this card was written were other ones"
        return (data, Split.from_dict(header.data, data)), ""
    except DataError:
        if given is not None:
            raise
    return None, f"{missing}: the figures are those that the checkpoint recorded, and more is not known."


def _answers(place: Place, data: Data, part: str, device: str | None) -> Answers:
    tally, _ = tally_checkpoint(place, data=data, split=part, device=device)
    return Answers(part, tally.confusion(), tally.metrics()["loss"])


def _content(place: Place) -> bytes:
    try:
        return read_bytes(place)
    except OSError as error:
        problem = error.strerror or str(error)
    raise CheckpointError(f"{place}: cannot be read ({problem})")
