"""The sections of a search file that are not the network: data, objectives, limits, search, deploy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from archtuna.errors import SpecError, brief, nearest
from archtuna.objective import OBJECTIVES, Limit, limit_of, objectives_of
from archtuna.signature import Bounds, Parameter, parameters_of_dataclass

_Share = Annotated[float, Bounds(0, 0.9)]


@dataclass(frozen=True)
class DataSettings:
    """The file's ``data`` section: where pictures are and how they are divided and fitted.

    Attributes:
        path: a folder, an ``.npz`` file or ``digits``.
        val, test: shares that are split off where the source does not prescribe the parts.
        split_seed: of the split.
        fraction: stratified share of the training part that a search trains on.
        fit: ``resize`` to the input's shape, or ``pad`` to it first with the picture's proportions kept.
        strict: whether a broken picture refuses the run.
    """

    path: str | None = None
    val: _Share = 0.15
    test: _Share = 0.15
    split_seed: Annotated[int, Bounds(0, 2**31)] = 0
    fraction: Annotated[float, Bounds(0, 1, above=True)] = 1.0
    fit: Literal["resize", "pad"] = "resize"
    strict: bool = False


@dataclass(frozen=True)
class SearchSettings:
    """The file's ``search`` section: how long, how wide and with which sampler.

    Attributes:
        trials: networks to evaluate, or null for no bound.
        time: seconds, or a text such as ``20m``, or null for no bound.
        workers: processes on this machine.
        sampler: known-costs, or one of Optuna's: tpe, nsga2, nsga3, gp, qmc, random.
        seed: of the sampler; the recipe has the seed of training.
        repeats: runs with other seeds that each network of the front gets afterwards, or null for none.
        screen: score of untrained networks by which the first ones of a new study are chosen from a random pool.
        stopping: whether trials without a chance of the front are stopped early; see ``Schedule``.
        first_rung: epochs before the first look at a trial, or null for a share of its epochs.
    """

    trials: Annotated[int, Bounds(1, 10**7)] | None = None
    time: str | None = None
    workers: Annotated[int, Bounds(1, 256)] = 1
    sampler: str = "known-costs"
    seed: Annotated[int, Bounds(0, 2**31)] = 0
    repeats: Annotated[int, Bounds(1, 1000)] | None = None
    screen: Literal["none", "synflow", "naswot", "macs"] = "none"
    stopping: bool = True
    first_rung: Annotated[int, Bounds(1, 100_000)] | None = None


@dataclass(frozen=True)
class DeploySettings:
    """The file's ``deploy`` section: what networks are exported to, and the runtime that serves them.

    Attributes:
        format: ``onnx``, ``pt2``, ``torchscript``, ``executorch`` or ``module``: networks that it cannot take are never
            proposed. Null asks nothing of a network; where one is measured, it is measured as ONNX.
        precision: of the exported network, whose quality, latency and size the objectives then are.
        runtime: in which a network is measured: onnxruntime, torch, torch-compile or executorch.
        provider: of the runtime: its own first where none is named, CUDAExecutionProvider, or cuda for torch.
        threads: of the runtime.
        batch: pictures at once.
    """

    format: Literal["onnx", "pt2", "torchscript", "executorch", "module"] | None = None
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    runtime: Literal["onnxruntime", "torch", "torch-compile", "executorch"] = "onnxruntime"
    provider: str | None = None
    threads: Annotated[int, Bounds(1, 1024)] = 1
    batch: Annotated[int, Bounds(1, 65_536)] = 1

    @property
    def exported_to(self) -> str:
        """The format that networks are exported to, whether or not one is asked for."""
        return self.format or ("executorch" if self.runtime == "executorch" else "onnx")

    @property
    def converts(self) -> bool:
        """Whether the exported network computes something else than the trained one."""
        return self.precision != "fp32"


TARGETS = {
    **{name: {"format": name} for name in ("onnx", "pt2", "torchscript", "executorch", "module")},
    "onnx-fp16": {"format": "onnx", "precision": "fp16"},
    "onnx-int8": {"format": "onnx", "precision": "int8"},
}
"""What ``--target`` names, as values of ``DeploySettings``."""


def target_of(name: str) -> dict[str, str]:
    """Return the values of ``DeploySettings`` that a target stands for.

    Raises:
        SpecError: there is no such target.
    """
    if name not in TARGETS:
        hint = nearest(name, TARGETS) or f"known: {', '.join(TARGETS)}"
        raise SpecError(f"unknown target '{name}'", path="deploy.format", value=name, hint=hint)
    return dict(TARGETS[name])


def deploy_of(values: Mapping[str, Any]) -> DeploySettings:
    """Return how networks are deployed, from values of which any may be left out.

    Raises:
        SpecError: an unknown name, a value that makes no sense, or values that do not go together.
    """
    for name in values:
        if name not in DEPLOY:
            hint = nearest(name, DEPLOY) or f"known: {', '.join(DEPLOY)}"
            raise SpecError(f"unknown value '{name}'", path=f"deploy.{name}", value=name, hint=hint)
    settings = DeploySettings(**{name: DEPLOY[name].coerce(value) for name, value in values.items()})
    if settings.converts and settings.format not in (None, "onnx"):
        raise SpecError(
            f"{settings.precision} is made of ONNX files, not of {settings.format}",
            path="deploy.precision",
            value=settings.precision,
            hint="format: onnx",
        )
    if settings.converts and settings.runtime != "onnxruntime":
        raise SpecError(
            f"{settings.precision} runs in onnxruntime, not in {settings.runtime}",
            path="deploy.runtime",
            value=settings.runtime,
            hint="runtime: onnxruntime",
        )
    return settings


DATA: Mapping[str, Parameter] = {p.name: p for p in parameters_of_dataclass(DataSettings)}
SEARCH: Mapping[str, Parameter] = {p.name: p for p in parameters_of_dataclass(SearchSettings)}
DEPLOY: Mapping[str, Parameter] = {p.name: p for p in parameters_of_dataclass(DeploySettings)}


@dataclass(frozen=True)
class Settings:
    """What a search file says beside the network and its training; left out means the default.

    Attributes:
        data: given values of ``DataSettings``.
        search: given values of ``SearchSettings``.
        deploy: given values of ``DeploySettings``.
        objectives: names, or None where the file has none.
        limits: bounds on costs.
    """

    data: Mapping[str, Any] = field(default_factory=dict)
    search: Mapping[str, Any] = field(default_factory=dict)
    deploy: Mapping[str, Any] = field(default_factory=dict)
    objectives: tuple[str, ...] | None = None
    limits: tuple[Limit, ...] = ()


DEFAULT_OBJECTIVES = ("f1", "params")

DURATION = r"\s*(?:(\d+(?:\.\d+)?)\s*h)?\s*(?:(\d+(?:\.\d+)?)\s*m(?:in)?)?\s*(?:(\d+(?:\.\d+)?)\s*s?)?\s*"


def seconds_of(text: str | float | None) -> float | None:
    """Return the seconds of ``90``, ``90s``, ``5m``, ``1h30m``; None stays None.

    Raises:
        SpecError: the text is no duration above zero.
    """
    if text is None:
        return None
    match = re.fullmatch(DURATION, str(text)) if len(str(text)) < 100 else None
    total = sum(float(n or 0) * unit for n, unit in zip(match.groups(), (3600, 60, 1), strict=True)) if match else 0.0
    if total <= 0:
        raise SpecError(
            f"{brief(str(text))} is not a duration",
            path="search.time",
            value=text,
            hint="write for example 90s, 5m or 1h30m",
        )
    return total


def objectives_from(value: object) -> tuple[str, ...]:
    """Read ``[f1, params]`` or ``f1,params``.

    Raises:
        SpecError: a name is unknown or stands twice.
    """
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list | tuple):
        raise SpecError(
            "must be a list of objectives", path="objectives", value=value, hint=f"known: {', '.join(OBJECTIVES)}"
        )
    cleaned = tuple(str(name).strip() for name in names)
    objectives_of(cleaned)
    return cleaned


def limits_from(value: object) -> tuple[Limit, ...]:
    """Read ``[params <= 500k]``, ``params <= 500k, macs <= 20M`` or ``{params: 500k}``.

    Raises:
        SpecError: one of them is no limit.
    """
    if isinstance(value, Mapping):
        value = [
            f"{name} <= {bound}" if not str(bound).strip().startswith("<") else f"{name} {bound}"
            for name, bound in value.items()
        ]
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        raise SpecError(
            "must be a list of limits", path="limits", value=value, hint="write for example [params <= 500k]"
        )
    return tuple(limit_of(str(part)) for part in parts)
