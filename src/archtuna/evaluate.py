"""How a candidate gets its values: by training it, or by whatever stands in for that.

An evaluator says what a network costs before it is trained, and then yields ``Progress`` once per epoch. Each
``Progress`` carries the best so far and is a valid end: whoever iterates decides when to stop.
"""

from __future__ import annotations

import importlib
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from archtuna.architecture import Architecture
from archtuna.costs import costs_of
from archtuna.devices import Courtesy, torch_threads
from archtuna.errors import ExportError, StudyError, TrialError
from archtuna.files import Place
from archtuna.model import check_output
from archtuna.objective import Objective
from archtuna.own_metrics import require
from archtuna.recipe import Recipe
from archtuna.settings import DeploySettings
from archtuna.space import Candidate

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from archtuna.data import Batches, Data, Images, Preprocess, Split
    from archtuna.model import Network
    from archtuna.training import Epoch

log = logging.getLogger("archtuna")

FLOAT = "float_"
"""Begins the names of a network's own metrics where its values are those of what was exported of it."""

EVALUATION_BATCH = 256
"""Pictures a batch wherever metrics are measured; one size everywhere, so that sums round alike everywhere."""


Save = Callable[[Place, Mapping[str, Any]], None]


@dataclass(frozen=True)
class Progress:
    """What is known of a candidate after an epoch.

    Attributes:
        epoch: counted from 1.
        epochs: how many there will be.
        metrics: of this epoch, on the validation pictures.
        kept: the best epoch so far by the first quality objective.
        best: the metrics of that epoch: the candidate's values, should this be the last.
        seconds: wall time since the start.
        save: writes the weights of the kept epoch to a place as a checkpoint, with a note on the trial; None where there
            are no weights.
        pause: returns all that the evaluation needs to go on after this epoch, as bytes; None where it cannot.
        parts: pieces in which each batch was trained, because memory did not suffice for more.
        taken_up: whether this epoch is the one after which an evaluation was interrupted, told again.
        waited: seconds for which it stood still while networks were measured on this machine.
    """

    epoch: int
    epochs: int
    metrics: Mapping[str, float]
    kept: int
    best: Mapping[str, float]
    seconds: float
    save: Save | None = None
    pause: Callable[[], bytes | memoryview] | None = None
    parts: int = 1
    taken_up: bool = False
    waited: float = 0.0


@runtime_checkable
class Evaluator(Protocol):
    """Gives candidates their values."""

    def costs(self, architecture: Architecture) -> Mapping[str, float]:
        """Return every cost, known before training.

        Raises:
            ShapeError: the network does not build or does not fit the data.
        """

    def evaluate(self, candidate: Candidate) -> Iterator[Progress]:
        """Yield after each epoch.

        Raises:
            TrialError: this candidate cannot be evaluated; the study goes on.
        """


@runtime_checkable
class Resumable(Protocol):
    """An evaluator that can go on where an evaluation was interrupted, in another process too."""

    def resume(self, candidate: Candidate, paused: bytes) -> Iterator[Progress]:
        """Yield the epoch again after which ``Progress.pause`` returned these bytes, and then those that follow.

        What is damaged, or of something else, is as if it were not there.
        """


class Best:
    """Keeps the best epoch by the first quality objective; a tie keeps the earlier one."""

    def __init__(self, objectives: Sequence[Objective]) -> None:
        self.objectives = [o for o in objectives if o.kind == "quality"]
        self.epoch = 0
        self.metrics: dict[str, float] = {}

    def improves(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Take note of an epoch and return whether it is the best so far.

        Raises:
            StudyError: an objective is missing among the metrics.
            TrialError: an objective is no finite number.
        """
        for objective in self.objectives:
            if objective.name not in metrics:
                given = ", ".join(metrics) or "nothing"
                hint = "return all objectives that training reveals, or search for others"
                raise StudyError(f"the evaluator gives no '{objective.name}', it gives {given}", hint=hint)
            if not math.isfinite(metrics[objective.name]):
                raise TrialError(f"{objective.name} became {metrics[objective.name]} in epoch {epoch}", reason="nan")
        first = self.objectives[0]
        if self.epoch and first.sign * metrics[first.name] >= first.sign * self.metrics[first.name]:
            return False
        self.epoch, self.metrics = epoch, {name: float(value) for name, value in metrics.items()}
        return True


def finite(metrics: Mapping[str, float], objectives: Sequence[Objective]) -> dict[str, float]:
    """Return metrics as numbers, without those that are not finite and that nobody searches by: no file holds such."""
    wanted = {objective.name for objective in objectives}
    numbers = {name: float(value) for name, value in metrics.items()}
    return {name: value for name, value in numbers.items() if name in wanted or math.isfinite(value)}


Function = Callable[[Candidate], Mapping[str, float] | Iterable[Mapping[str, float]]]


class FunctionEvaluator:
    """Stands a plain function or a table in for training.

    Args:
        function: returns the metrics of a candidate, or yields them once per epoch.
        objectives: of the study.
        classes: outputs that a network must have, or None to not ask.
    """

    def __init__(self, function: Function, objectives: Sequence[Objective], classes: int | None = None) -> None:
        self.function, self.objectives, self.classes = function, objectives, classes

    def costs(self, architecture: Architecture) -> Mapping[str, float]:
        check_output(architecture, self.classes)
        return costs_of(architecture)

    def evaluate(self, candidate: Candidate) -> Iterator[Progress]:
        start, best = time.perf_counter(), Best(self.objectives)
        given = self.function(candidate)
        epochs = 1 if isinstance(given, Mapping) else candidate.recipe.epochs
        for epoch, told in enumerate([given] if isinstance(given, Mapping) else given, 1):
            metrics = finite(told, self.objectives)
            best.improves(epoch, metrics)
            seconds = time.perf_counter() - start
            yield Progress(epoch, max(epoch, epochs), dict(metrics), best.epoch, best.metrics, seconds)


class TrainEvaluator:
    """Trains a candidate on the search's part of the training pictures; validation pictures choose the epoch.

    The test pictures are not touched. Pictures are decoded once per input size and shared by all candidates.

    Args:
        data: the pictures.
        split: which of them are for training and for validation.
        objectives: of the study; the first quality among them chooses the epoch that is kept.
        fraction: stratified share of the training pictures to train on.
        fit: how a picture becomes the input's shape, ``resize`` or ``pad``.
        via: the largest input size in play, from which smaller ones are derived.
        seed: of the choice of the fraction.
        device: where to train; None picks one.
        deploy: how networks are deployed: where that changes what they compute, the values of a candidate are those of the
            exported network, and its own stand beside them as ``float_f1`` and so on.

    Raises:
        StudyError: an objective is a metric of one's own whose module is not imported.
    """

    def __init__(
        self,
        data: Data,
        split: Split,
        *,
        objectives: Sequence[Objective],
        fraction: float = 1.0,
        fit: Literal["resize", "pad"] = "resize",
        via: tuple[int, int] | None = None,
        seed: int = 0,
        device: str | None = None,
        deploy: DeploySettings | None = None,
    ) -> None:
        from archtuna.training import pick_device

        require(objectives)
        self.deploy = deploy or DeploySettings()
        self.data, self.split, self.objectives = data, split, objectives
        self.training = split.subset(fraction, seed).train if fraction < 1.0 else split.train
        self.part = {"fraction": fraction, "seed": seed}
        self.fit, self.via = fit, via
        self.device = pick_device(device)
        self._images: dict[tuple[tuple[int, int], int], tuple[Images, Preprocess]] = {}

    def costs(self, architecture: Architecture) -> Mapping[str, float]:
        check_output(architecture, len(self.data.classes))
        return costs_of(architecture)

    def evaluate(self, candidate: Candidate) -> Iterator[Progress]:
        return self._evaluate(candidate, None)

    def resume(self, candidate: Candidate, paused: bytes) -> Iterator[Progress]:
        from archtuna.resume import unpack

        return self._evaluate(candidate, unpack(paused, candidate))

    def _evaluate(self, candidate: Candidate, point: Mapping[str, Any] | None) -> Iterator[Progress]:
        """Train, once more with halves of the batches where memory does not suffice."""
        parts = point["parts"] if point else 1
        try:
            yield from self._train(candidate, point, parts)
            return
        except TrialError as error:
            if error.reason != "out-of-memory" or parts > 1 or candidate.recipe.batch_size < 2:
                raise
            log.warning("%s: once more from the start, with each batch in two pieces", error.message)
        yield from self._train(candidate, None, 2)

    def _train(self, candidate: Candidate, point: Mapping[str, Any] | None, parts: int) -> Iterator[Progress]:
        import torch

        from archtuna.model import build
        from archtuna.training import train

        recipe, architecture = candidate.recipe, candidate.architecture
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(recipe.seed)
            model = build(architecture)
        # Sums round by how many threads they are split over.
        with torch_threads(point["threads"] if point is not None else None):
            training, validation, preprocess = self._batches(architecture, recipe, model)
            course = _Course(self, candidate, preprocess, Best(self.objectives), parts)
            if point is not None:
                yield course.taken_up(point)
            epochs = train(
                model, _Yielding(training, course.courtesy), _Yielding(validation, course.courtesy), recipe,
                classes=len(self.data.classes), device=self.device, parts=parts,
                resume=point["training"] if point else None,
            )  # fmt: skip
            for epoch in epochs:
                told = course.trained(epoch)
                yield told if epoch.number < recipe.epochs else course.deployed(told, validation)

    def _batches(self, architecture: Architecture, recipe: Recipe, model: Any) -> tuple[Batches, Batches, Preprocess]:
        import torch

        from archtuna.data import Batches
        from archtuna.training import memory_format_of

        images, preprocess = self._pictures(architecture)
        last = memory_format_of(model, self.device, recipe.channels_last) is torch.channels_last
        shared: dict[str, Any] = {"device": str(self.device), "channels_last": last}
        training = Batches(
            images, self.training, preprocess, batch_size=recipe.batch_size, recipe=recipe, seed=recipe.seed, **shared
        )
        validation = Batches(images, self.split.val, preprocess, batch_size=EVALUATION_BATCH, **shared)
        return training, validation, preprocess

    def calibration(self, architecture: Architecture) -> Sequence[Any]:
        """Return training pictures in batches, by which a network of an architecture is quantised."""
        from archtuna.calibration import calibration_of

        images, preprocess = self._pictures(architecture)
        return calibration_of(images, self.split, preprocess)

    def _pictures(self, architecture: Architecture) -> tuple[Images, Preprocess]:
        from archtuna.data import Preprocess

        size, channels = architecture.input_size, architecture.input_channels
        if (size, channels) not in self._images:
            images = self.data.images(size, channels=channels, fit=self.fit, via=self.via)
            mean, std = images.statistics(self.split.train)
            # What the images were really derived from, so that a checkpoint prepares pictures the same way.
            preprocess = Preprocess(size, channels, self.fit, images.via, tuple(mean), tuple(std))
            self._images[size, channels] = images, preprocess
        return self._images[size, channels]


@dataclass(frozen=True)
class _Yielding:
    """Batches between which a training stands still while somebody measures on this machine."""

    batches: Batches
    courtesy: Courtesy

    def __len__(self) -> int:
        return len(self.batches)

    @property
    def labels(self) -> np.ndarray:
        return self.batches.labels

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        with self.courtesy.at_work() as give_way:
            for batch in self.batches.epoch(number):
                give_way()
                yield batch


@dataclass
class _Course:
    """What the training of one candidate has come to, and how that is written down.

    Attributes:
        by: who trains.
        candidate: the network and its training values.
        preprocess: of its pictures.
        best: the epoch that is kept, and its metrics.
        parts: pieces of a batch.
        weights: of the epoch that is kept.
        before: seconds that it took before it was interrupted.
        courtesy: what it has waited for those who measure.
    """

    by: TrainEvaluator
    candidate: Candidate
    preprocess: Preprocess
    best: Best
    parts: int
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    before: float = 0.0
    courtesy: Courtesy = field(default_factory=Courtesy)

    def __post_init__(self) -> None:
        import torch

        self.start, self.threads = time.perf_counter(), torch.get_num_threads()

    def trained(self, epoch: Epoch) -> Progress:
        """Return what is known after an epoch."""
        metrics = finite(epoch.metrics, self.best.objectives)
        if self.best.improves(epoch.number, metrics):
            self.weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in epoch.weights().items()}
        return self._progress(epoch.number, metrics, epoch.state)

    def deployed(self, end: Progress, validation: Batches) -> Progress:
        """Return the end of a training with the values of the exported network, where that computes something else."""
        deploy = self.by.deploy
        if not deploy.converts:
            return end
        from archtuna.answers import evaluate_onnx
        from archtuna.exports import deployed

        calibration = partial(self.by.calibration, self.candidate.architecture)
        try:
            content = deployed(self._model(self.weights), deploy, calibration).content
            batches = ((x.cpu(), y.cpu()) for x, y in validation.epoch(0))
            found = evaluate_onnx(content, batches, classes=len(self.by.data.classes), threads=self.threads)
        except ExportError as error:
            raise TrialError(error.message, reason="export", hint=error.hint) from error
        found = finite(found, self.best.objectives)
        for name in (objective.name for objective in self.best.objectives):
            if not math.isfinite(found[name]):
                raise TrialError(f"{name} is {found[name]} after the export to {deploy.precision}", reason="nan")
        return replace(end, best={**found, **{f"{FLOAT}{name}": value for name, value in end.best.items()}})

    def _model(self, weights: Mapping[str, Tensor]) -> Network:
        from archtuna.model import build

        model = build(self.candidate.architecture, pretrained=False)
        model.load_state_dict(weights)
        return model.eval()

    def taken_up(self, point: Mapping[str, Any]) -> Progress:
        """Return what was known when the training was interrupted."""
        self.before, self.weights = point["seconds"], point["weights"]
        self.best.epoch, self.best.metrics = point["best"]
        told = self._progress(point["training"]["epoch"], point["metrics"], lambda: point["training"])
        return replace(told, taken_up=True)

    def _progress(self, number: int, metrics: Mapping[str, float], state: Callable[[], Any]) -> Progress:
        best = self.best.epoch, self.best.metrics
        seconds = self.before + time.perf_counter() - self.start
        save = partial(self._save, self.weights, best)
        told = {
            "metrics": dict(metrics),
            "best": best,
            "seconds": seconds,
            "parts": self.parts,
            "threads": self.threads,
        }
        pause = partial(self._pause, state, {**told, "weights": self.weights})
        return Progress(
            number, self.candidate.recipe.epochs, dict(metrics), *best, seconds, save, pause, parts=self.parts,
            waited=self.courtesy.waited,
        )  # fmt: skip

    def _pause(self, state: Callable[[], Any], told: Mapping[str, Any]) -> memoryview:
        from archtuna.resume import pack

        return pack(self.candidate, {"training": state(), **told})

    def _save(
        self,
        weights: Mapping[str, Tensor],
        best: tuple[int, Mapping[str, float]],
        path: Place,
        trial: Mapping[str, Any],
    ) -> None:
        from archtuna.checkpoint import save

        save(
            path,
            self._model(weights),
            classes=self.by.data.classes,
            preprocess=self.preprocess,
            metrics=best[1],
            recipe=self.candidate.recipe,
            data={**self.by.split.to_dict(), "source": self.by.data.source, "training": self._conditions()},
            epoch=best[0],
            trial=dict(trial),
        )

    def _conditions(self) -> dict[str, Any]:
        """Return what a training depends on beside the network, its values and the split."""
        where = {"device": str(self.by.device), "threads": self.threads}
        first = self.best.objectives[0]
        own = {"kept_from": first.origin} if first.origin else {}
        return {**self.by.part, "kept_by": first.name, **own, **where}


def load_evaluator(place: str) -> Any:
    """Return what ``module:name`` names: an evaluator or a function. Only Python code passes such a text, never a file.

    Raises:
        StudyError: there is none.
    """
    module, _, name = place.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise StudyError(f"no evaluator '{place}': {error}", hint="write module:function") from None


def evaluator_of(given: Any, objectives: Sequence[Objective], classes: int | None) -> Evaluator:
    """Return an evaluator from what a caller gave: one, a plain function, or the import path of either.

    Raises:
        StudyError: it is none of these.
    """
    if isinstance(given, str):
        given = load_evaluator(given)
    if isinstance(given, Evaluator) and not isinstance(given, type):
        return given
    if callable(given):
        return FunctionEvaluator(given, objectives, classes)
    raise StudyError(f"{given!r} is no evaluator", hint="pass a function of a candidate that returns its metrics")
