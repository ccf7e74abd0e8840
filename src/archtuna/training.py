"""Training as a generator: one ``yield`` per epoch, and whoever iterates decides when to stop."""

from __future__ import annotations

import ctypes
import functools
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from archtuna.devices import moved
from archtuna.errors import DataError, ShapeError, SpecError, TrialError, nearest
from archtuna.metrics import Tally
from archtuna.recipe import Recipe

log = logging.getLogger("archtuna")

Result = TypeVar("Result")
Tensors = tuple[Tensor, ...] | list[Tensor]

Loss = Callable[[Tensor, Tensor], Tensor]
"""Takes logits (n × classes) and labels (n), returns the mean loss of the batch as a scalar."""


class EpochBatches(Protocol):
    """What training and evaluation need of batches; ``archtuna.data.Batches`` is one."""

    def __len__(self) -> int:
        """Batches per epoch."""

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield pictures (n × C × H × W, floats) and labels (n, int64); the same ones for the same number.

        Training asks for the numbers from 1, evaluation and class weights for 0.
        """


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training pictures came to.

    Attributes:
        number: counted from 1.
        train_loss: mean loss while learning, with the recipe's smoothing, weights and mixup.
        metrics: ``loss``, ``accuracy`` and ``f1`` on the validation pictures.
        lr: learning rate of the last step.
        seconds: wall time of training and validation.
        train_seconds: wall time of the training alone.
        images: training pictures seen.
    """

    number: int
    train_loss: float
    metrics: Mapping[str, float]
    lr: float
    seconds: float
    train_seconds: float
    images: int
    _evaluated: nn.Module = field(repr=False, compare=False)
    _state: Callable[[], dict[str, Any]] = field(repr=False, compare=False)

    def weights(self) -> dict[str, Tensor]:
        """Return the state dict that ``metrics`` belongs to: the moving average where the recipe has one.

        The tensors are the ones in training: copy them before the next epoch is asked for.
        """
        return self._evaluated.state_dict()

    def state(self) -> dict[str, Any]:
        """Return all that the training needs to go on after this epoch, as tensors and plain data; see ``train``.

        The tensors are the ones in training: write them down before the next epoch is asked for.
        """
        return self._state()


def train(
    model: nn.Module,
    training: EpochBatches,
    validation: EpochBatches,
    recipe: Recipe,
    *,
    classes: int,
    device: str | torch.device | None = None,
    loss: Loss | None = None,
    parts: int = 1,
    resume: Mapping[str, Any] | None = None,
) -> Iterator[Epoch]:
    """Train ``model`` in place and yield after each epoch, with the model in evaluation mode.

    The same weights, batches and recipe give the same numbers bit for bit on a CPU with the same number of threads.
    What is random inside (dropout, mixup) comes from ``recipe.seed`` and leaves the caller's random state alone, so
    that several trainings may be iterated in turns. After the last epoch the model holds what its ``weights()`` were.

    Args:
        model: gives logits (n × classes).
        training: batches to learn from.
        validation: batches to measure on after each epoch.
        recipe: the training values.
        classes: how many there are.
        device: where to train; None picks one.
        loss: own loss function in place of cross-entropy; label smoothing and class weights are then its own affair.
        parts: in how many pieces a batch goes through the model, whose gradients are added up: less memory for the same step,
            but for batch norms, which see the pieces.
        resume: the ``Epoch.state`` of a training with the same arguments, of which the epochs after that follow, the same
            as if it had never been interrupted.

    Raises:
        TrialError: a loss that is not finite (reason ``nan``) or too little memory (reason ``out-of-memory``).
        ShapeError: the model's output is not one value per class.
        DataError: there are no pictures.
        SpecError: no such device.
    """
    place = pick_device(device)
    if not len(training):
        raise DataError("there are no pictures to train on")
    if place.type == "cpu":
        keep_memory()
    run = _or_out_of_memory(
        lambda: _Run(model, training, validation, recipe, classes, place, loss, parts),
        f"on {place} before the first epoch",
    )
    if resume is not None:
        run.load(resume)
    return run.epochs()


class _Run:
    """The state of one training between two epochs."""

    def __init__(
        self,
        model: nn.Module,
        training: EpochBatches,
        validation: EpochBatches,
        recipe: Recipe,
        classes: int,
        device: torch.device,
        loss: Loss | None,
        parts: int,
    ) -> None:
        self.training, self.validation, self.parts = training, validation, parts
        self.recipe, self.classes, self.device = recipe, classes, device
        self.layout = memory_format_of(model, device, recipe.channels_last)
        self.model = model.to(device=device, memory_format=self.layout)  # type: ignore[call-overload]
        self.autocast = _autocast_of(recipe.precision, device)
        self.loss = loss or cross_entropy_of(recipe, training, classes, device)
        self.optimizer = optimizer_of(model, recipe)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.autocast is torch.float16)
        self.average = _Average(model, recipe.ema) if recipe.ema else None
        self.random = _OwnRandomness(recipe.seed, device)
        self.done, self.step_number, self.steps = 0, 0, recipe.epochs * len(training)

    def state(self) -> dict[str, Any]:
        """Return what ``load`` needs to go on from here."""
        return {
            "epoch": self.done,
            "step": self.step_number,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average.state() if self.average else None,
            "random": self.random.states,
            "device": self.device.type,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        self.done, self.step_number = state["epoch"], state["step"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        if self.average:
            self.average.load(state["average"])
        # What a device of another kind drew says nothing here: its own part begins anew.
        alike = state.get("device", self.device.type) == self.device.type
        known = list(state["random"])[: len(self.random.states) if alike else 1]
        self.random.states[: len(known)] = known

    def epochs(self) -> Iterator[Epoch]:
        try:
            for number in range(self.done + 1, self.recipe.epochs + 1):
                # Nothing of ours may be in force while the caller has the word: hence no context around the yield.
                yield self._epoch_or_reason(number)
        finally:
            give_back_memory()
        if self.average:
            self.model.load_state_dict(self.average.model.state_dict())

    def _epoch_or_reason(self, number: int) -> Epoch:
        try:
            with self.random.in_force():
                return _or_out_of_memory(lambda: self._epoch(number), f"on {self.device} in epoch {number}")
        except TrialError:
            self._free()
            raise

    def _free(self) -> None:
        self.optimizer.zero_grad()
        self.optimizer.state.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _epoch(self, number: int) -> Epoch:
        start = time.perf_counter()
        self.model.train()
        train_loss, images = self._pass(number)
        trained = time.perf_counter()
        evaluated = self.average.model if self.average else self.model
        self.model.eval()
        metrics = evaluate_batches(evaluated, self.validation, classes=self.classes, device=self.device)
        if not math.isfinite(metrics["loss"]):
            raise _not_finite("validation loss", metrics["loss"], number)
        lr = float(self.optimizer.param_groups[0]["lr"])
        self.done, end = number, time.perf_counter()
        return Epoch(number, train_loss, metrics, lr, end - start, trained - start, images, evaluated, self.state)

    def _pass(self, number: int) -> tuple[float, int]:
        """Learn from every batch once; return the mean loss and the number of pictures."""
        images, on_cpu = 0, self.device.type == "cpu"
        losses: list[Tensor] = []
        for x, y in self.training.epoch(number):
            x = moved(x, self.device, memory_format=self.layout)
            loss = self._step(x, moved(y, self.device))
            images += len(y)
            losses.append(loss * len(y))
            # Reading a number costs nothing here and stops a lost trial at once; elsewhere it waits for the device.
            if on_cpu and not math.isfinite(loss.item()):
                raise _not_finite("training loss", loss.item(), number)
        mean = float(torch.stack(losses).cpu().numpy().sum(dtype=np.float64)) / images
        if not math.isfinite(mean):
            raise _not_finite("training loss", mean, number)
        return mean, images

    def _step(self, x: Tensor, y: Tensor) -> Tensor:
        lr = learning_rate(self.recipe, self.step_number, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.step_number += 1
        self.optimizer.zero_grad()
        losses = []
        for piece, labels in zip(x.chunk(self.parts), y.chunk(self.parts), strict=True):
            loss, share = self._forward(piece, labels), self._share(labels, y)
            loss = loss if share == 1.0 else share * loss
            self.scaler.scale(loss).backward()
            losses.append(loss.detach())
        if self.recipe.clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average:
            self.average.update(self.model)
        return sum(losses[1:], start=losses[0])

    def _share(self, labels: Tensor, y: Tensor) -> float:
        """Return which part of a batch's mean loss the mean of a piece is; a loss with class weights is a mean by these."""
        weights = getattr(self.loss, "keywords", {}).get("weight")
        if weights is None or len(labels) == len(y):
            return len(labels) / len(y)
        return float(weights[labels].sum() / weights[y].sum())

    def _forward(self, x: Tensor, y: Tensor) -> Tensor:
        if len(y) == 1:
            # Batch norm refuses a single picture on a 1×1 map; two equal ones have the same mean and gradient.
            x, y = torch.cat((x, x)), torch.cat((y, y))
        other, share = y, 1.0
        if self.recipe.mixup:
            x, other, share = mix(x, y, self.recipe.mixup)
        with torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            logits = self.model(x)
        _check_shape(logits, self.classes)
        logits = logits.float()
        loss = self.loss(logits, y)
        return loss if share == 1.0 else share * loss + (1.0 - share) * self.loss(logits, other)


def _check_shape(logits: Tensor, classes: int) -> None:
    # On a GPU a label beyond the last output would otherwise abort the whole process, not the trial.
    if logits.ndim != 2 or logits.shape[1] != classes:
        raise ShapeError(
            f"the network gives {list(logits.shape[1:])} values for a picture, and there are {classes} classes"
        )


def _not_finite(what: str, value: float, epoch: int) -> TrialError:
    return TrialError(f"the {what} became {value} in epoch {epoch}", reason="nan", hint="a lower lr, or clip_norm: 1")


def _or_out_of_memory(action: Callable[[], Result], where: str) -> Result:
    """Return what ``action`` does; raise a TrialError when it runs out of memory."""
    try:
        return action()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        words = str(error).strip().splitlines() or [type(error).__name__]
    # Raised out here, because the error above keeps every tensor of the failed step alive through its traceback.
    raise TrialError(
        f"out of memory {where} ({words[0][:200]})",
        reason="out-of-memory",
        hint="a smaller batch_size or input_size, or fewer workers on this device",
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of Python or torch says that memory ran out, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(
        words in text for words in ("DefaultCPUAllocator", "out of memory", "not enough memory", "ALLOC_FAILED")
    )


@functools.cache
def keep_memory() -> None:
    """Let the C library keep what a step frees for the next one, where it is glibc.

    Large tensors would go back to the system in each step and come again page by page, each cleared and mapped anew, which
    takes some per cent of a training in a virtual machine (``benchmarks/results/memory.md``).
    """
    if _glibc is not None:
        _glibc.mallopt(_MMAP_THRESHOLD, 2**25)  # The most that it takes; above, each tensor has pages of its own.
        _glibc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def give_back_memory() -> None:
    """Give what ``keep_memory`` kept back to the system: the next network may be smaller, and others run here."""
    if _glibc is not None:
        _glibc.malloc_trim(0)


def _find_glibc() -> ctypes.CDLL | None:
    """Return the C library where it has glibc's switches."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


_glibc = _find_glibc()
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Of ``mallopt``, as ``malloc.h`` has them."""


def evaluate_batches(
    model: nn.Module, batches: EpochBatches, *, classes: int, device: str | torch.device | None = None
) -> dict[str, float]:
    """Return ``loss`` (mean cross-entropy in nats), ``accuracy`` and ``f1`` (macro) of a model on batches; see ``tally``.

    Raises:
        ShapeError: the model's output is not one value per class.
        TrialError: memory does not suffice for one picture.
        SpecError: no such device.
        DataError: there are no batches.
    """
    return tally(model, batches, classes=classes, device=device).metrics()


def tally(model: nn.Module, batches: EpochBatches, *, classes: int, device: str | torch.device | None = None) -> Tally:
    """Return a model's answers on batches.

    Always in 32-bit floats and in a layout that depends on model and device alone, whatever the model was trained with:
    so the same weights give the same numbers in another process. The model moves to the device and keeps its mode.

    Raises:
        ShapeError: the model's output is not one value per class.
        TrialError: memory does not suffice for one picture.
        SpecError: no such device.
    """
    place = pick_device(device)
    layout = memory_format_of(model, place)
    modes = [(module, module.training) for module in model.modules()]
    model.to(place).eval()
    answers = Tally(classes)
    try:
        with torch.inference_mode():
            for x, y in batches.epoch(0):
                logits = _or_out_of_memory(
                    functools.partial(_logits, model, moved(x, place, memory_format=layout)),
                    f"on {place} while measuring",
                )
                _check_shape(logits, classes)
                answers.add(logits, moved(y, place))
        return answers
    finally:
        for module, mode in modes:
            module.training = mode


def _logits(model: nn.Module, x: Tensor) -> Tensor:
    """Return a model's answers, by halves of the pictures where memory does not suffice for all of them."""
    try:
        return model(x)
    except (MemoryError, RuntimeError) as error:
        if len(x) < 2 or not is_out_of_memory(error):
            raise
    # Out here, because the error keeps what it failed on alive.
    return torch.cat([_logits(model, half) for half in x.chunk(2)])


def pick_device(name: str | torch.device | None = None) -> torch.device:
    """Return the device of that name, or the best present one (CUDA, then MPS, then the CPU) for None and ``auto``.

    Raises:
        SpecError: the name is no device that archtuna trains on, or the machine has none such.
    """
    present = _present_devices()
    if name is None or str(name) == "auto":
        return torch.device(present[0])
    try:
        device = torch.device(name)
    except RuntimeError:
        hint = nearest(name, ("auto", "cuda", "mps", "cpu")) or "known: auto, cuda, cuda:1, mps, cpu"
        raise SpecError(f"'{name}' is not a device", path="device", value=str(name), hint=hint) from None
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    if device.type not in present or (device.index or 0) >= count:
        hint = f"present: {', '.join(present)}"
        raise SpecError(f"this machine has no device '{name}'", path="device", value=str(name), hint=hint)
    return device


def _present_devices() -> list[str]:
    """Return the kinds of devices that this machine has, best first."""
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return [kind for kind, there in present.items() if there]


def memory_format_of(model: nn.Module, device: torch.device, wish: str = "auto") -> torch.memory_format:
    """Return the layout of pictures for a model: channels last where that is faster.

    Args:
        model: only one with two-dimensional convolutions gains.
        device: ``auto`` takes channels last on CUDA and on the CPU (1.65 times as fast for a MobileNetV3 there).
        wish: ``auto``, ``true`` or ``false``; on a CPU ``true`` is not heard where it would corrupt memory.
    """
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    if device.type == "cpu" and any(map(_overruns, convolutions)):
        if wish == "true":
            _notice("a strided 1x1 convolution of so few channels is not trained in channels_last on a CPU")
        return torch.contiguous_format
    gains = device.type in ("cuda", "cpu") and bool(convolutions)
    last = gains if wish == "auto" else wish == "true"
    return torch.channels_last if last else torch.contiguous_format


def _overruns(conv: nn.Conv2d) -> bool:
    """Whether the CPU's kernel for the gradient of a convolution's weights writes beyond its memory in channels last.

    A fault of oneDNN (issue 6035 there), with which processes crash and gradients may be wrong: strided 1x1 convolutions of
    fewer input channels than a block of its kernels has, which is 16 at most.
    """
    pointwise = conv.groups == 1 and conv.kernel_size == (1, 1)
    return pointwise and max(conv.stride) > 1 and conv.in_channels < 16


def _autocast_of(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the type that the forward pass is cast to, or None for 32-bit floats."""
    if precision == "fp32" or (precision == "auto" and device.type != "cuda"):
        return None
    if device.type != "cuda":
        _notice(f"precision {precision} gains nothing on {device.type}: training in fp32")
        return None
    native_bf16 = torch.cuda.get_device_capability(device) >= (8, 0)
    if precision == "bf16" and not native_bf16:
        _notice("this GPU only emulates bf16: training in fp32")
        return None
    if precision == "auto" and torch.cuda.get_device_capability(device) < (7, 0):
        return None
    return torch.bfloat16 if native_bf16 and precision != "fp16" else torch.float16


@functools.cache
def _notice(text: str) -> None:
    """Log a notice, the same one once in a process: a search trains hundreds of times with the same recipe."""
    log.warning(text)


def cross_entropy_of(recipe: Recipe, batches: EpochBatches, classes: int, device: torch.device) -> Loss:
    """Return the recipe's loss: cross-entropy with its label smoothing and class weights."""
    weights = None
    if recipe.class_weights == "balanced":
        known = getattr(batches, "labels", None)
        labels = torch.cat([y for _, y in batches.epoch(0)]).cpu().numpy() if known is None else known
        weights = torch.tensor(class_weights(labels, classes), dtype=torch.float32, device=device)
    return functools.partial(functional.cross_entropy, weight=weights, label_smoothing=recipe.label_smoothing)


def class_weights(labels: Sequence[int] | np.ndarray, classes: int) -> np.ndarray:
    """Return ``n / (classes × count)`` for each class (King & Zeng 2001), 0 for one without pictures."""
    counts = np.bincount(np.asarray(labels), minlength=classes)
    return np.divide(counts.sum() / classes, counts, out=np.zeros(classes), where=counts > 0)


def optimizer_of(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the recipe's optimizer; weights of fewer than two dimensions (biases, batch norms) do not decay."""
    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        raise ShapeError("the network has no weights to train", hint="give it a Conv or a Linear")
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    filled = [group for group in groups if group["params"]]
    lr = float(recipe.lr or 0.0)
    # One kernel for all weights instead of several per weight.
    fused = trained[0].device.type in ("cpu", "cuda")
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(filled, lr=lr, betas=(recipe.momentum, 0.999), fused=fused)
    nesterov = recipe.momentum > 0
    return torch.optim.SGD(filled, lr=lr, momentum=recipe.momentum, nesterov=nesterov, fused=fused)


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Return the rate of a step, counted from 0, of all the steps of a training.

    ``onecycle`` is torch's ``OneCycleLR`` with its default factors (1/25 at the start, 1e-4 of that at the end) and
    cosine annealing, wherever that one is defined: with a warmup of exactly one step it divides by zero, and a training
    of one step would run at the rate of the end. ``cosine`` and ``constant`` rise linearly in the warmup.
    """
    top = float(recipe.lr or 0.0)
    rising = recipe.warmup * steps
    if recipe.schedule == "onecycle":
        last, peak = steps - 1, rising - 1
        if last <= 0:
            return top
        if step <= peak:
            return _anneal(top / 25, top, step / peak if peak > 0 else 1.0)
        return _anneal(top, top / 25e4, (step - peak) / (last - peak))
    if step < rising:
        return top * min(1.0, (step + 1) / rising)
    return _anneal(top, 0.0, (step - rising) / (steps - rising)) if recipe.schedule == "cosine" else top


def _anneal(start: float, end: float, share: float) -> float:
    """Return the point of a half cosine from ``start`` to ``end``."""
    return end + (start - end) / 2 * (1 + math.cos(math.pi * min(share, 1.0)))


_LEAST_ALPHA = 0.01


def mix(x: Tensor, y: Tensor, alpha: float) -> tuple[Tensor, Tensor, float]:
    """Blend each picture with its neighbour in the batch (mixup, Zhang et al. 2018, equation 1).

    Returns:
        the blended pictures, the neighbours' labels, and the share of the pictures' own labels.
    """
    # Of so small an alpha every share is as good as 0 or 1, and torch's draws underflow to one half.
    drawn = torch.rand(()).round() if alpha < _LEAST_ALPHA else torch.distributions.Beta(alpha, alpha).sample()
    share = float(drawn)
    # Batches are shuffled already: the neighbour is as random as any other partner, and costs no gathering.
    return torch.lerp(x.roll(1, 0), x, share), y.roll(1, 0), share


class _Average:
    """The exponential moving average of a model's weights and batch-norm statistics.

    The decay grows with the steps, ``min(decay, (1 + t) / (10 + t))``, so that a short training's average is not still
    that of its first weights. Statistics are averaged like the weights they belong to; counters are copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self._averaged = AveragedModel(model, multi_avg_fn=self._blend, use_buffers=True)
        self._averaged.requires_grad_(False).eval()

    @property
    def model(self) -> nn.Module:
        return self._averaged.module

    def state(self) -> dict[str, Any]:
        return {"averaged": self._averaged.state_dict(), "updates": self.updates}

    def load(self, state: Mapping[str, Any]) -> None:
        self._averaged.load_state_dict(state["averaged"])
        self.updates = state["updates"]

    def update(self, model: nn.Module) -> None:
        self.updates += 1
        self._averaged.update_parameters(model)

    @torch.no_grad()
    def _blend(self, averaged: Tensors, current: Tensors, _: object) -> None:
        if averaged[0].is_floating_point():
            decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
            get_ema_multi_avg_fn(decay)(averaged, current, self.updates)
        else:
            for mine, theirs in zip(averaged, current, strict=True):
                mine.copy_(theirs)


class _OwnRandomness:
    """A torch random state of one training's own, in force only while it computes."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.device = device
        places = [torch.device("cpu")] + [device] * (device.type != "cpu")
        self.states = [torch.Generator(place).manual_seed(seed).get_state() for place in places]

    @contextmanager
    def in_force(self) -> Iterator[None]:
        outside = self._read()
        try:
            self._write(self.states)
            yield
            self.states = self._read()
        finally:
            self._write(outside)

    def _read(self) -> list[Tensor]:
        states = [torch.get_rng_state()]
        if self.device.type == "cuda":
            states.append(torch.cuda.get_rng_state(self.device))
        if self.device.type == "mps":
            states.append(torch.mps.get_rng_state())
        return states

    def _write(self, states: Sequence[Tensor]) -> None:
        torch.set_rng_state(states[0])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(states[1], self.device)
        if self.device.type == "mps":
            torch.mps.set_rng_state(states[1])
