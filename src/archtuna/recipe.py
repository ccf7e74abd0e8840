"""How a network is trained, as plain data."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

from archtuna.errors import SpecError, nearest
from archtuna.signature import Bounds, Count, Fraction, NotNegative, Parameter, Positive, parameters_of_dataclass

DEFAULT_LR: Mapping[str, float] = {"sgd": 0.05, "adamw": 0.002}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The training values of one run; every one of them can be searched.

    Attributes:
        epochs: passes over the training pictures.
        batch_size: pictures a step.
        optimizer: ``sgd`` with Nesterov momentum, or ``adamw`` (Loshchilov & Hutter 2019); null takes SGD where a rate is
            given, which is what rates in model files are for, and AdamW where none is.
        lr: highest learning rate; null takes .05 for sgd and .002 for adamw.
        momentum: of SGD, or AdamW's first beta.
        weight_decay: on weights of two or more dimensions; biases and batch norms are left alone.
        schedule: ``onecycle`` (Smith & Topin 2018), ``cosine`` (Loshchilov & Hutter 2017) or ``constant``; stepped per batch.
        warmup: share of all steps in which the rate rises.
        label_smoothing: share of a label that is spread over the other classes (Szegedy et al. 2016).
        class_weights: ``balanced`` weighs each class by the inverse of its frequency in the training pictures.
        mixup: alpha of the Beta distribution (Zhang et al. 2018), 0 for none.
        ema: decay of the moving average of weights a step, 0 for none; what is evaluated and kept is the average.
        clip_norm: largest norm of all gradients together, 0 for none.
        precision: of the forward pass; ``auto`` is bf16 or fp16 where the device gains by it, fp32 on a CPU.
        channels_last: memory layout; ``auto`` decides by device.
        augment: ``none``, ``flip``, ``simple`` (random resized crop and flip) or ``randaugment`` (Cubuk et al. 2020).
        randaugment_ops: operations a picture.
        randaugment_magnitude: strength of 0 to 10.
        cutout: side of the erased square as a share of the picture's (DeVries & Taylor 2017), 0 for none.
        seed: of initial weights, order and augmentation.
    """

    epochs: Annotated[int, Bounds(1, 100_000)] = 20
    batch_size: Count = 64
    optimizer: Literal["sgd", "adamw"] | None = None
    lr: Positive | None = None
    momentum: Annotated[float, Bounds(0, 0.9999)] = 0.9
    weight_decay: NotNegative = 5e-4
    schedule: Literal["onecycle", "cosine", "constant"] = "onecycle"
    warmup: Annotated[float, Bounds(0, 0.9)] = 0.05
    label_smoothing: Annotated[float, Bounds(0, 0.9)] = 0.0
    class_weights: Literal["none", "balanced"] = "none"
    mixup: NotNegative = 0.0
    ema: Annotated[float, Bounds(0, 0.99999)] = 0.0
    clip_norm: NotNegative = 0.0
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    channels_last: Literal["auto", "true", "false"] = "auto"
    augment: Literal["none", "flip", "simple", "randaugment"] = "simple"
    randaugment_ops: Annotated[int, Bounds(0, 10)] = 2
    randaugment_magnitude: Annotated[float, Bounds(0, 10)] = 5.0
    cutout: Fraction = 0.0
    seed: Annotated[int, Bounds(0, 2**31)] = 0

    def __post_init__(self) -> None:
        for name, parameter in PARAMETERS.items():
            try:
                object.__setattr__(self, name, parameter.coerce(getattr(self, name)))
            except ValueError as error:
                hint = getattr(error, "hint", None)
                raise SpecError(str(error), path=f"training.{name}", value=getattr(self, name), hint=hint) from None
        if self.optimizer is None:
            object.__setattr__(self, "optimizer", "adamw" if self.lr is None else "sgd")
        if self.lr is None:
            object.__setattr__(self, "lr", DEFAULT_LR[str(self.optimizer)])

    def replace(self, **values: Any) -> Recipe:
        """Return this recipe with other values.

        Raises:
            SpecError: an unknown name or a value out of bounds.
        """
        for name in values:
            if name not in PARAMETERS:
                raise SpecError("unknown training value", path=f"training.{name}", hint=nearest(name, PARAMETERS))
        # A rate that was left to the optimizer's default follows a changed optimizer.
        if "optimizer" in values and "lr" not in values and self.lr == DEFAULT_LR[str(self.optimizer)]:
            values["lr"] = None
        return dataclasses.replace(self, **values)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @cached_property
    def key(self) -> str:
        """16 hexadecimal digits that name these values."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:16]


PARAMETERS: Mapping[str, Parameter] = {p.name: p for p in parameters_of_dataclass(Recipe)}
"""The schema of a file's ``training`` section, by name."""
