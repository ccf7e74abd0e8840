"""What it takes an export to know of a network before it is trained: its latency, its energy, its size as it is deployed.

None of them depends on what the weights are, so a network is built with random ones, exported as it is to be deployed, and
measured in the runtime that is to serve it, on this machine or on devices of one's own.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from archtuna.architecture import Architecture
from archtuna.errors import LatencyError, ShapeError
from archtuna.objective import objective_of
from archtuna.settings import DeploySettings

if TYPE_CHECKING:
    from archtuna.exports import Artefact
    from archtuna.latency import Latency
    from archtuna.model import Network
    from archtuna.targets import Target

HERE = "this machine"
"""What the machine that a process runs on is called among devices; none of one's own can have such a name."""

PROFILED = 22
"""Runs with the runtime's profiler, to see what each block takes."""

SETTLING = 8
"""Pictures that batch norms take their statistics from, so that no activation of an untrained network vanishes."""


@dataclass(frozen=True)
class Reading:
    """What was measured of one network.

    Attributes:
        values: by the objective's name.
        latencies: by the device's name: what ``Latency.to_dict`` says, interval, device and fingerprint among it.
        bytes: of the exported network.
        units: milliseconds of each copy of a block on this machine, where the runtime tells.
        seconds: that it took, the export included.
    """

    values: Mapping[str, float]
    latencies: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    bytes: int | None = None
    units: Sequence[float] | None = None
    seconds: float = 0.0

    @property
    def fingerprints(self) -> dict[str, str]:
        """What names each device and how it is used."""
        return {name: latency["fingerprint"] for name, latency in self.latencies.items()}

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Reading:
        """Read what ``to_dict`` returned."""
        return cls(**{name: plain[name] for name in cls.__dataclass_fields__ if name in plain})


class Gauge:
    """Measures networks.

    Args:
        names: of the objectives and limits that are to be known.
        deploy: what networks are exported to, and how they are served.
    """

    def __init__(self, names: Sequence[str], deploy: DeploySettings) -> None:
        self.names, self.deploy = tuple(names), deploy
        named = [objective_of(name) for name in names]
        self.devices = tuple(dict.fromkeys(o.device or HERE for o in named if o.is_measured))

    def fingerprints(self) -> dict[str, str]:
        """Return what names each device and how it is used, without measuring.

        Raises:
            LatencyError: one is not reached.
            MissingExtraError: what runs networks here is not installed.
        """
        from archtuna.latency import device

        return {name: device(on=_target(name), **self._how()).fingerprint for name in self.devices}

    def read(self, architecture: Architecture, *, patience: float) -> Reading:
        """Export and measure a network.

        Args:
            architecture: the network.
            patience: seconds for which a machine that is too busy, or a device that is away, is asked again.

        Raises:
            LatencyError: a device is not reached, stays too busy, does not run the network, or tells no energy.
            ExportError: the network does not export.
            MissingExtraError: what exports or runs it is not installed.
        """
        begun = time.perf_counter()
        model = untrained(architecture)
        made = self._exported(model) if self._exports else None
        size = None if made is None else made.bytes
        content = made.content if made is not None and made.format == self._runs_format else None
        found = {name: self._latency(name, model, content, patience) for name in self.devices}
        values = {name: _value(name, found, size) for name in self.names}
        plain = {name: latency.to_dict() for name, latency in found.items()}
        units = self._units(architecture, content)
        return Reading(values, plain, size, units, time.perf_counter() - begun)

    @property
    def _exports(self) -> bool:
        """Whether a file is made: somebody asks for its size, or a runtime runs it."""
        return "size_mb" in self.names or bool(self.devices and self._runs_format)

    @property
    def _runs_format(self) -> str | None:
        """The format that the runtime reads; None for torch, which runs a network as it is."""
        return {"onnxruntime": "onnx", "executorch": "executorch"}.get(self.deploy.runtime)

    def _exported(self, model: Network) -> Artefact:
        from archtuna.exports import deployed
        from archtuna.exports.inference import random_pictures

        # What stands in for training pictures changes no latency, and no size.
        return deployed(model, self.deploy, lambda: [random_pictures(model)(n).numpy() for n in range(1, 5)])

    def _latency(self, name: str, model: Network, content: bytes | None, patience: float) -> Latency:
        from archtuna.latency import measure, measure_model

        how = {**self._how(), "on": _target(name), "patience": patience}
        return measure_model(model, **how) if content is None else measure(content, **how)

    def _units(self, architecture: Architecture, content: bytes | None) -> list[float] | None:
        """Return what each block takes here, by which others with the same blocks are predicted."""
        deploy = self.deploy
        if content is None or HERE not in self.devices or deploy.runtime != "onnxruntime" or deploy.converts:
            return None
        from archtuna.profiles import profile

        found = profile(
            content, architecture, batch=deploy.batch, threads=deploy.threads, provider=deploy.provider, runs=PROFILED
        )
        return [round(ms, 6) for ms in found.units]

    def _how(self) -> dict[str, Any]:
        """Return how networks are run, as ``archtuna.latency`` takes it."""
        deploy = self.deploy
        return {name: getattr(deploy, name) for name in ("batch", "threads", "runtime", "provider")}


def _value(name: str, latencies: Mapping[str, Latency], size: int | None) -> float:
    if name == "size_mb":
        assert size is not None, "a file was made for its size"
        return size / 1e6
    objective = objective_of(name)
    latency = latencies[objective.device or HERE]
    if objective.base == "latency_ms":
        return latency.ms
    if latency.joules is None:
        raise LatencyError(
            f"{objective.device or HERE} does not tell how much energy it takes", hint="leave energy_mj out"
        )
    return 1e3 * latency.joules


def refuse_unexportable(architecture: Architecture, format: str | None) -> None:
    """Check that a network can be exported to a format.

    Raises:
        ShapeError: a block says that it cannot; the error knows the row.
    """
    if format is None:
        return
    from archtuna.exports import unsupported

    refused = unsupported(architecture, format)
    if refused:
        row, block = refused[0]
        raise ShapeError(f"row {row} ({block}) cannot be exported to {format}", row=row)


def _target(name: str) -> Target | None:
    from archtuna.targets import target_of

    return None if name == HERE else target_of(name)


def untrained(architecture: Architecture) -> Network:
    """Return a network with random weights, always the same, whose activations are of the size that trained ones have.

    Raises:
        ShapeError: it does not build.
    """
    import torch

    from archtuna.exports.inference import random_pictures
    from archtuna.model import build

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = build(architecture, pretrained=False)
        norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0
        with torch.no_grad():
            model.train()(random_pictures(model)(SETTLING))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return model.eval()
