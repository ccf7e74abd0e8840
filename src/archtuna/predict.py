"""Classifying pictures with a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archtuna.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from archtuna.data import Preprocess

BATCH = 64


def predict(
    checkpoint: str | Path, pictures: Sequence[str | Path], *, top: int = 1, device: str | None = None
) -> Iterator[dict[str, Any]]:
    """Yield for each picture in turn ``{"file", "classes": [{"class", "probability"}, …]}``, most probable first.

    A folder stands for the pictures in it and below. One that cannot be read gives ``{"file", "error"}`` and does not
    stop the others.

    Raises:
        CheckpointError: the file is no checkpoint.
        DataError: a path does not exist, or there are no pictures.
    """
    from archtuna.checkpoint import load
    from archtuna.training import pick_device

    chosen = pick_device(device)
    model = load(checkpoint, device=str(chosen))
    preprocess: Preprocess = model.preprocess  # type: ignore[assignment]
    files = _files(pictures)
    while paths := list(islice(files, BATCH)):
        read = [_read(preprocess, path) for path in paths]
        whole = [picture for picture in read if not isinstance(picture, str)]
        found = iter(_classified(model, whole, top, chosen) if whole else ())
        for path, picture in zip(paths, read, strict=True):
            yield {"file": str(path)} | ({"error": picture} if isinstance(picture, str) else {"classes": next(found)})


def _read(preprocess: Preprocess, path: Path) -> Tensor | str:
    """Return a picture as the network takes it, or why it cannot be read."""
    try:
        return preprocess(path)
    except DataError as error:
        return error.message


def _classified(model: nn.Module, pictures: Sequence[Tensor], top: int, device: Any) -> list[list[dict[str, Any]]]:
    import torch

    with torch.inference_mode():
        logits = model(torch.stack(list(pictures)).to(device))
        best = logits.softmax(dim=1).cpu().topk(min(top, len(model.classes)), dim=1)  # type: ignore[arg-type]
    return [
        [
            {"class": model.classes[i], "probability": p}  # type: ignore[index]
            for i, p in zip(indices.tolist(), probabilities.tolist(), strict=True)
        ]
        for indices, probabilities in zip(best.indices, best.values, strict=True)
    ]


def _files(pictures: Sequence[str | Path]) -> Iterator[Path]:
    from archtuna.data.picture import SUFFIXES

    found = False
    if missing := [given for given in map(Path, pictures) if not given.exists()]:
        raise DataError(f"no such file: {missing[0]}", hint="name pictures, or folders of them")
    for given in map(Path, pictures):
        inside = sorted(p for p in given.rglob("*") if p.suffix.lower() in SUFFIXES) if given.is_dir() else [given]
        found = found or bool(inside)
        yield from inside
    if not found:
        raise DataError(f"no pictures in {', '.join(map(str, pictures))}", hint=f"known: {', '.join(sorted(SUFFIXES))}")
