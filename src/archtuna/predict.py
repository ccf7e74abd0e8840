"""Classifying pictures with a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    """Yield for each picture ``{"file", "classes": [{"class", "probability"}, …]}``, most probable first.

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
    waiting: list[tuple[str, Tensor]] = []
    for path in _files(pictures):
        try:
            waiting.append((str(path), preprocess(path)))
        except DataError as error:
            yield {"file": str(path), "error": error.message}
        if len(waiting) == BATCH:
            yield from _classified(model, waiting, top, chosen)
            waiting = []
    if waiting:
        yield from _classified(model, waiting, top, chosen)


def _classified(model: nn.Module, waiting: Sequence[tuple[str, Tensor]], top: int, device: Any) -> list[dict[str, Any]]:
    import torch

    with torch.inference_mode():
        batch = torch.stack([tensor for _, tensor in waiting]).to(device)
        best = model(batch).softmax(dim=1).cpu().topk(min(top, len(model.classes)), dim=1)  # type: ignore[arg-type]
    return [
        {
            "file": name,
            "classes": [
                {"class": model.classes[i], "probability": p}  # type: ignore[index]
                for i, p in zip(indices.tolist(), probabilities.tolist(), strict=True)
            ],
        }
        for (name, _), indices, probabilities in zip(waiting, best.indices, best.values, strict=True)
    ]


def _files(pictures: Sequence[str | Path]) -> Iterator[Path]:
    from archtuna.data.picture import SUFFIXES

    found = False
    for given in map(Path, pictures):
        if not given.exists():
            raise DataError(f"no such file: {given}", hint="name pictures, or folders of them")
        inside = sorted(p for p in given.rglob("*") if p.suffix.lower() in SUFFIXES) if given.is_dir() else [given]
        found = found or bool(inside)
        yield from inside
    if not found:
        raise DataError(f"no pictures in {', '.join(map(str, pictures))}", hint=f"known: {', '.join(sorted(SUFFIXES))}")
