"""How long an exported network takes, in the runtime that serves it, on this machine or on a device of one's own.

A median of rounds, each between two rounds of a fixed reference network, with a confidence interval. Only rounds count beside
which the reference runs at the device's full speed; where there are too few, the machine is too busy to say anything, and is
asked again rather than believed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from archtuna import agent
from archtuna.devices import quiet_machine
from archtuna.errors import LatencyError, MissingExtraError, ModelRefused
from archtuna.files import Place, place_of, read_bytes
from archtuna.full_speed import counting, fastest, remember, remembered
from archtuna.remote import ask
from archtuna.runtimes import Runtime, runtime_of
from archtuna.targets import Target

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger("archtuna")

ROUNDS = 61
ROUND_SECONDS = 0.005
"""A round lasts at least so long; what is shorter is repeated within it."""

NEEDED = 21
"""Rounds at full speed that a figure is made of."""

FIRST = 4
"""Attempts that are made on a device whose full speed nobody knows yet, at least."""

WARM_UP_SECONDS = 0.2
QUIET = 0.05
"""By which share the reference may be slower than at full speed, beside a round that counts."""

LAUNCHED = 0.15
"""The same where Python launches every operator on a graphics card: the reference is nothing but launches there."""

PATIENCE, PAUSE = 60.0, 0.5
"""Seconds for which a machine that is too busy is asked again, and between two attempts."""


@dataclass(frozen=True)
class Device:
    """What a latency was measured on; latencies of different ones are never compared.

    Attributes:
        processor: its name.
        runtime: and its version.
        provider: of the runtime, such as ``CPUExecutionProvider``.
        threads: of the runtime.
        batch: pictures at once.
        system: operating system and architecture.
    """

    processor: str
    runtime: str
    provider: str
    threads: int
    batch: int
    system: str

    @property
    def fingerprint(self) -> str:
        """Twelve characters that name the device and how it is used."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Latency:
    """How long a network takes.

    Attributes:
        ms: milliseconds for a batch, the median of the rounds.
        low, high: its 95 % confidence interval, by order statistics.
        spread: half the distance of the quarters, as a share of the median.
        rounds: how many there were at full speed.
        reference_ms: what the reference network took beside them.
        drift: how far apart the reference's quarters were, as a share of its median, in all rounds.
        device: where.
        ratio: the median of what a round took against the reference's round beside it.
        joules: of energy for a batch, of the processor's packages or with the graphics card, what they take at rest
            included; None where the device does not tell.
    """

    ms: float
    low: float
    high: float
    spread: float
    rounds: int
    reference_ms: float
    drift: float
    device: Device
    ratio: float
    joules: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "fingerprint": self.device.fingerprint}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Latency:
        """Read what ``to_dict`` returned."""
        told = {name: plain[name] for name in cls.__dataclass_fields__ if name in plain}
        return cls(**{**told, "device": Device(**plain["device"])})


@dataclass(frozen=True)
class _Timing:
    """Seconds of one run in each round, of a network and of the reference beside it, the network's joules, and where."""

    times: Sequence[float]
    references: Sequence[float]
    joules: float | None
    device: Device


def measure(
    content: bytes,
    *,
    batch: int = 1,
    threads: int = 1,
    provider: str | None = None,
    runtime: str = "onnxruntime",
    on: Target | None = None,
    rounds: int = ROUNDS,
    patience: float = PATIENCE,
    sleep: Callable[[float], None] = time.sleep,
) -> Latency:
    """Measure an exported network. Only one process of a machine measures at a time.

    Args:
        content: of the file: ONNX, or ``.pte`` for ``executorch``.
        batch: pictures at once.
        threads: of the runtime.
        provider: of the runtime; its own first where none is named.
        runtime: one that takes files.
        on: a device of one's own, by ONNX Runtime there; this machine where none is named.
        rounds: of the network, each between two of the reference.
        patience: seconds for which a machine that is away or too busy is asked again.
        sleep: waits between two attempts.

    Raises:
        ModelRefused: the model does not run.
        LatencyError: the machine stayed away or too busy, or has no such provider.
        MissingExtraError: the runtime is not installed.
    """
    chosen = runtime_of(runtime)
    if chosen.takes == "module":
        raise LatencyError(f"{runtime} runs no files", hint="measure_model takes a network")
    return _measured(chosen, content, batch, threads, provider, on, rounds, patience, sleep)


def measure_model(
    model: nn.Module,
    *,
    batch: int = 1,
    threads: int = 1,
    provider: str | None = None,
    runtime: str = "onnxruntime",
    on: Target | None = None,
    rounds: int = ROUNDS,
    patience: float = PATIENCE,
    sleep: Callable[[float], None] = time.sleep,
) -> Latency:
    """Measure a network that was built or loaded, exported where the runtime takes files.

    Args:
        model: has an ``architecture``; it is not touched.
        batch, threads, provider, on, rounds, patience, sleep: as in ``measure``.
        runtime: ``onnxruntime``, ``torch``, ``torch-compile`` or ``executorch``.

    Raises:
        LatencyError: as in ``measure``.
        ExportError: the network does not export.
        MissingExtraError: the runtime, or what exports to it, is not installed.
    """
    chosen = runtime_of(runtime)
    subject = model if chosen.takes == "module" else exported(model, f".{chosen.takes}")
    return _measured(chosen, subject, batch, threads, provider, on, rounds, patience, sleep)


def exported(model: nn.Module, suffix: str) -> bytes:
    """Return the file that a network's verified export is.

    Raises:
        ExportError: it does not export.
    """
    from archtuna.exports import export

    with tempfile.TemporaryDirectory() as folder:
        export(model, Path(folder) / f"model{suffix}")
        return (Path(folder) / f"model{suffix}").read_bytes()


def _measured(
    runtime: Runtime, subject: Any, batch: int, threads: int, provider: str | None, on: Target | None,
    rounds: int, patience: float, sleep: Callable[[float], None],
) -> Latency:  # fmt: skip
    options = {
        "batch": batch, "threads": threads, "provider": provider or runtime.provider,
        "rounds": rounds, "warm_up": WARM_UP_SECONDS, "round_seconds": ROUND_SECONDS,
    }  # fmt: skip
    if on is None:
        return _believed(lambda _: _timed_here(runtime, subject, options), "the machine", patience, sleep)
    if runtime.name != "onnxruntime":
        raise LatencyError(f"{on.name} measures with ONNX Runtime alone, not with {runtime.name}")
    request = agent.pack(options, reference_model(), subject)
    return _believed(
        lambda left: _timing(ask(on, request, patience=left, sleep=sleep), options, on.name), on.name, patience, sleep
    )


def _believed(
    timed: Callable[[float], _Timing], place: str, patience: float, sleep: Callable[[float], None]
) -> Latency:
    """Measure until enough rounds had full speed, within patience; what is measured is told how much of that is left."""
    begun = time.monotonic()
    made = [timed(patience)]
    known = remembered(made[0].device.fingerprint)
    least, needed = FIRST if known is None else 1, min(NEEDED, len(made[0].times))
    while True:
        counted = _at_full_speed(made, known)
        if len(counted.times) >= needed and len(made) >= least:
            return _summary(counted, _quartile_range([r for one in made for r in one.references]))
        if time.monotonic() - begun > patience:
            if len(counted.times) >= needed:  # A slow network: the attempts that were made took all the patience.
                return _summary(counted, _quartile_range([r for one in made for r in one.references]))
            every = sum(len(one.times) for one in made)
            raise LatencyError(
                f"{place} is too busy to measure: it had full speed in {len(counted.times)} of {every} rounds",
                hint="end what else runs on it, or pass a longer patience",
            )
        if len(made) == FIRST + 1:
            log.info("%s is too busy to measure: waiting for quiet moments", place)
        sleep(PAUSE)
        made.append(timed(patience - (time.monotonic() - begun)))


def _at_full_speed(made: Sequence[_Timing], known: float | None) -> _Timing:
    """Return the rounds that count, and remember the device's full speed where it had it."""
    device = made[0].device
    quiet = LAUNCHED if device.provider in ("cuda", *agent.PLACES) else QUIET
    seen = min(fastest(one.references) for one in made)
    full = seen if known is None else min(seen, known)
    if known is None or seen <= known * (1.0 + quiet):
        remember(device.fingerprint, full)
    counts = [counting(one.references, full, quiet) for one in made]
    times, references = (
        [
            value
            for one, mask in zip(made, counts, strict=True)
            for value in np.asarray(getattr(one, name))[mask].tolist()
        ]
        for name in ("times", "references")
    )
    return _Timing(times, references, made[-1].joules, device)


def _timed_here(runtime: Runtime, subject: Any, options: Mapping[str, Any]) -> _Timing:
    try:
        with quiet_machine():
            reference = reference_model() if runtime.name == "onnxruntime" else None
            return _timing(runtime.timed(subject, reference, options), options, "this machine")
    except agent.Refused as error:
        refused = error
    if refused.kind == "no-runtime":
        raise MissingExtraError("onnxruntime", "onnx")
    kind = ModelRefused if refused.kind == "refused" else LatencyError
    raise kind(str(refused), hint=refused.hint)


def _timing(answer: Mapping[str, Any], options: Mapping[str, Any], place: str) -> _Timing:
    """Return what an agent answered, which may be any program."""
    try:
        times, references = ([float(value) for value in answer[name]] for name in ("times", "references"))
        joules = None if answer["joules"] is None else float(answer["joules"])
        where = _device(answer["device"], options["batch"], options["threads"], options["provider"])
        if len(times) == len(references) == options["rounds"] and all(0 < t < 1e6 for t in (*times, *references)):
            return _Timing(times, references, joules, where)
    except (KeyError, TypeError, ValueError):
        pass
    raise LatencyError(f"{place}: what answers there does not measure", hint="its agent may be of another version")


def _device(machine: Mapping[str, Any], batch: int, threads: int, provider: str) -> Device:
    named = (str(machine[name])[:200] for name in ("processor", "runtime", "system"))
    processor, runtime, system = named
    return Device(processor, runtime, provider, threads, batch, system)


def _summary(found: _Timing, drift: float) -> Latency:
    low, high = interval_of_median(found.times)
    ratios = [ours / other for ours, other in zip(found.times, found.references, strict=True)]
    return Latency(
        ms=1e3 * statistics.median(found.times), low=1e3 * low, high=1e3 * high,
        spread=_quartile_range(found.times) / 2, rounds=len(found.times),
        reference_ms=1e3 * statistics.median(found.references), drift=drift, device=found.device,
        ratio=statistics.median(ratios), joules=found.joules,
    )  # fmt: skip


def interval_of_median(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Return the confidence interval of a median by order statistics, which assumes nothing of the distribution.

    Source: Conover (1999), Practical Nonparametric Statistics, section 3.2.
    """
    from scipy.stats import binom

    n = len(values)
    below = max(1, int(binom.ppf((1 - level) / 2, n, 0.5)))
    ordered = sorted(values)
    return ordered[below - 1], ordered[n - below]


def _quartile_range(values: Sequence[float]) -> float:
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return float((high - low) / middle)


def measure_file(file: str | Path, *, runtime: str = "onnxruntime", **given: Any) -> Latency:
    """Measure what a file holds: an exported network as it is, or a checkpoint's, exported where the runtime takes files.

    Args:
        file: ``.onnx``, ``.pte``, or a checkpoint.
        runtime: as in ``measure_model``.
        given: the other arguments of ``measure``.

    Raises:
        LatencyError: as in ``measure``, or the runtime does not run such files.
        CheckpointError: it is no checkpoint.
        ExportError: its network does not export.
    """
    from archtuna.checkpoint import load

    place, takes = place_of(file), runtime_of(runtime).takes
    suffix = place.suffix.lower()[1:]
    if suffix not in ("onnx", "pte"):
        return measure_model(load(place), runtime=runtime, **given)
    if suffix != takes:
        raise LatencyError(f"{place}: {runtime} does not run .{suffix} files", hint="give the checkpoint")
    return measure(_content(place), runtime=runtime, **given)


def onnx_of(file: str | Path) -> bytes:
    """Return the ONNX model that is to be measured: a file's content, or the verified export of a checkpoint.

    Raises:
        LatencyError: the file cannot be read.
        CheckpointError: it is no checkpoint.
        ExportError: its network does not export.
    """
    from archtuna.checkpoint import load

    place = place_of(file)
    return _content(place) if place.suffix == ".onnx" else exported(load(place), ".onnx")


def _content(place: Place) -> bytes:
    try:
        return read_bytes(place)
    except OSError as error:
        problem = error.strerror or str(error)
    raise LatencyError(f"{place}: cannot be read ({problem})", hint="name a checkpoint, or a .onnx or .pte file")


@cache
def reference_model() -> bytes:
    """Return a fixed network of three convolutions, always the same to the last bit, as ONNX."""
    try:
        from onnx import TensorProto, helper, numpy_helper
    except ImportError:
        raise MissingExtraError("onnx", "onnx") from None
    draws, nodes, weights, before, channels = np.random.default_rng(0), [], [], "images", 3
    for i in range(3):
        kernel = (0.1 * draws.standard_normal((32, channels, 3, 3))).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"w{i}"))
        nodes.append(helper.make_node("Conv", [before, f"w{i}"], [f"c{i}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"]))
        before, channels = f"r{i}", 32
    shapes = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", c, 32, 32]) for n, c in (("images", 3), (before, 32))
    ]
    graph = helper.make_graph(nodes, "reference", [shapes[0]], [shapes[1]], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


def device(
    batch: int = 1, threads: int = 1, provider: str | None = None, *,
    runtime: str = "onnxruntime", on: Target | None = None, patience: float = PATIENCE,
) -> Device:  # fmt: skip
    """Return this machine, or a device of one's own, as a latency names it.

    Raises:
        LatencyError: there is no such runtime, or the device cannot be reached.
        MissingExtraError: the runtime is not installed.
    """
    chosen = runtime_of(runtime)
    provider = provider or chosen.provider
    if on is not None:
        return _device(ask(on, None, patience=patience, provider=provider), batch, threads, provider)
    try:
        return _device(chosen.describe(provider), batch, threads, provider)
    except agent.Refused:
        raise MissingExtraError("onnxruntime", "onnx") from None
