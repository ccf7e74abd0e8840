"""After the search: one network trained in full, and the honest report on pictures that nothing was chosen by."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archtuna.errors import DataError, StudyError, TrialError

if TYPE_CHECKING:
    from archtuna.evaluate import Progress
    from archtuna.files import Place
    from archtuna.metrics import Tally
    from archtuna.settings import DeploySettings
    from archtuna.study import Study

SPLITS = ("train", "val", "test")

ABOUT = ("n", "split")
"""What stands beside a checkpoint's metrics."""


FULL = 4
"""How many times a search's epochs are proposed for training a network in full."""


@dataclass(frozen=True)
class Final:
    """A network that was trained in full.

    Attributes:
        checkpoint: the weights of the seed that was best on the validation pictures.
        val, test: metrics of that checkpoint.
        seeds: for each seed its number and both metrics; the test metrics chose nothing.
        earlier: where the weights of an earlier full training of the network are now, or None where there was none.
    """

    checkpoint: Path
    val: dict[str, float]
    test: dict[str, float]
    seeds: tuple[dict[str, Any], ...]
    earlier: Path | None = None

    def spread(self, split: str, metric: str) -> tuple[float, float]:
        """Return mean and sample standard deviation of a metric over the seeds (0 for one seed)."""
        values = [seed[split][metric] for seed in self.seeds]
        mean = sum(values) / len(values)
        return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1)) if len(values) > 1 else 0.0


def train_in_full(
    study: Study,
    number: int,
    *,
    epochs: int | None = None,
    seeds: int = 1,
    data: Any = None,
    device: str | None = None,
    on_progress: Callable[[int, Progress], None] | None = None,
) -> Final:
    """Train the network of a trial on all training pictures and report on the test pictures.

    Validation pictures choose the epoch and the seed; the test pictures choose nothing. Where the study is for networks in
    another precision, the metrics are those of the exported network, and its own stand beside them as ``float_f1`` and so on.

    Args:
        study: which has the trial.
        number: of the trial.
        epochs: instead of the trial's own.
        seeds: how many runs, with the trial's seed and those after it.
        data: where the pictures are, should they have moved.
        device: where to train; None picks one.
        on_progress: called after each epoch with the seed and its progress.

    Raises:
        StudyError: there is no such trial, or it has no network.
        DataError: these are other pictures, or there are no test pictures.
        TrialError: training failed.
    """
    from archtuna.evaluate import FLOAT, TrainEvaluator
    from archtuna.recipe import Recipe
    from archtuna.space import Candidate

    trial = study.candidate(number)
    recipe = Recipe(**trial.recipe)
    pictures = study.data(data)
    split = study.split(pictures)
    _require(split.test, "test", pictures.source)
    evaluator = TrainEvaluator(
        pictures,
        split,
        objectives=study.objectives,
        fit=study.spec.data["fit"],
        via=study.space().largest_input_size(),
        device=device,
        deploy=study.spec.deployment,
    )
    best = next(o for o in study.objectives if o.kind == "quality")
    runs: list[dict[str, Any]] = []
    paths: list[Path] = []
    for seed in range(recipe.seed, recipe.seed + seeds):
        values = {"seed": seed} | ({"epochs": epochs} if epochs else {})
        candidate = Candidate(trial.architecture, recipe.replace(**values), trial.decisions)
        progress = None
        for progress in evaluator.evaluate(candidate):
            if on_progress:
                on_progress(seed, progress)
        if progress is None or progress.save is None:
            raise TrialError("training gave no epoch", reason="empty")
        path = study.folder / "trained" / f"{number}-seed{seed}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        note: dict[str, Any] = {"number": number, "values": dict(trial.values), "seed": seed}
        note |= {"latencies": trial.reading["latencies"]} if trial.reading else {}
        progress.save(path, note)
        test = _metrics(evaluate_checkpoint(path, data=pictures, split="test", device=device))
        if study.spec.deployment.converts:
            own = {f"{FLOAT}{name}": value for name, value in test.items()}
            test = {**evaluate_deployed(path, study.spec.deployment, data=pictures, split="test"), **own}
        runs.append({"seed": seed, "val": dict(progress.best), "test": test})
        paths.append(path)
    chosen = min(range(len(runs)), key=lambda i: best.sign * runs[i]["val"][best.name])
    kept = study.folder / "trained" / f"{number}.safetensors"
    earlier = _set_aside(kept)
    os.replace(paths[chosen], kept)
    for path in paths:
        path.unlink(missing_ok=True)
    return Final(kept, runs[chosen]["val"], runs[chosen]["test"], tuple(runs), earlier)


def _set_aside(path: Path) -> Path | None:
    """Give a file that is there another name, so that hours of training are not lost to a short one, and return that."""
    if not path.exists():
        return None
    names = (path.with_name(f"{path.stem}.{n}{path.suffix}") for n in count(1))
    other = next(name for name in names if not name.exists())
    os.replace(path, other)
    return other


def evaluate_deployed(
    path: str | Place, deploy: DeploySettings, *, data: Any = None, split: str = "val"
) -> dict[str, float]:
    """Return loss, accuracy and F1 of a checkpoint's network as it is deployed, on one part of the split of its study.

    Args:
        path: the checkpoint.
        deploy: in which precision its network is exported, as ONNX.
        data: where the pictures are, should they have moved.
        split: ``train``, ``val`` or ``test``.

    Raises:
        CheckpointError: the file is no checkpoint.
        DataError: these are other pictures than it was trained on, or that part is empty.
        ExportError: the network does not export.
    """
    from archtuna.answers import evaluate_onnx
    from archtuna.calibration import calibration_batches
    from archtuna.checkpoint import load
    from archtuna.exports import deployed
    from archtuna.proving import proof_of

    proof = proof_of(path, data=data, split=split)
    content = deployed(load(path), deploy, lambda: calibration_batches(path, data=data)).content
    return evaluate_onnx(content, proof.batches, classes=proof.classes)


def evaluate_checkpoint(
    path: str | Place, *, data: Any = None, split: str = "val", device: str | None = None
) -> dict[str, Any]:
    """Return the metrics of a checkpoint on one part of the split that its study used.

    Args:
        path: the checkpoint; it carries the split and where its pictures were.
        data: where the pictures are, should they have moved.
        split: ``train``, ``val`` or ``test``.
        device: where to run; None picks one.

    Returns:
        ``loss`` (nats), ``accuracy``, ``f1`` (macro), registered metrics of one's own, ``n`` (pictures) and ``split``.

    Raises:
        CheckpointError: the file is no checkpoint.
        DataError: these are other pictures than it was trained on, or that part is empty.
    """
    answers, n = tally_checkpoint(path, data=data, split=split, device=device)
    return {**_metrics(answers.metrics()), "n": n, "split": split}


def tally_checkpoint(
    path: str | Place, *, data: Any = None, split: str = "val", device: str | None = None
) -> tuple[Tally, int]:
    """Return a checkpoint's answers on one part of the split that its study used, and how many pictures that has.

    Args and errors are those of ``evaluate_checkpoint``.
    """
    from archtuna.checkpoint import load, read_header
    from archtuna.data import Batches, Split
    from archtuna.evaluate import EVALUATION_BATCH
    from archtuna.training import memory_format_of, pick_device, tally

    if split not in SPLITS:
        raise DataError(f"no part is called '{split}'", hint=f"known: {', '.join(SPLITS)}")
    header = read_header(path)
    pictures = header.open_data(data)
    parts = Split.from_dict(header.data, pictures)
    indices = getattr(parts, split)
    _require(indices, split, pictures.source)
    chosen = pick_device(device)
    model = load(path, device=str(chosen))
    images, preprocess = header.images(pictures)
    import torch

    last = memory_format_of(model, chosen, str(header.recipe.get("channels_last", "auto"))) is torch.channels_last
    batches = Batches(images, indices, preprocess, batch_size=EVALUATION_BATCH, device=str(chosen), channels_last=last)
    return tally(model, batches, classes=len(header.classes), device=chosen), len(indices)


def _metrics(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if name not in ABOUT}


def _require(indices: Any, split: str, source: str) -> None:
    if not len(indices):
        raise DataError(
            f"{source} has no {split} pictures", hint=f"a share above zero for data.{split} splits some off"
        )


def knee_checkpoint(study: Study) -> Place:
    """Return the checkpoint of the front's knee point.

    Raises:
        StudyError: there is no front yet, or its weights are gone.
    """
    trial = study.knee()
    if trial.checkpoint is None:
        raise StudyError(f"the weights of trial {trial.number} are not kept", hint=f"archtuna train RUN {trial.number}")
    return trial.checkpoint
