"""How long an exported network takes, in the runtime that serves it, on this machine.

A median of rounds, each beside rounds of a fixed reference network, with a confidence interval. Where the reference itself
moves too much, the machine is too busy to say anything, and is asked again later rather than believed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from archtuna.devices import machine_lock
from archtuna.errors import LatencyError, MissingExtraError
from archtuna.files import place_of, read_bytes

log = logging.getLogger("archtuna")

ROUNDS = 31
ROUND_SECONDS = 0.01
"""A round lasts at least so long; what is shorter is repeated within it."""

WARM_UP_SECONDS = 0.2
QUIET = 0.1
"""How far the reference's upper and lower quarter may be apart, against its median, on a machine that can be believed."""

PATIENCE, PAUSE = 60.0, 2.0
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
        rounds: how many there were.
        reference_ms: what the reference network took beside it.
        drift: how far apart the reference's quarters were, as a share of its median.
        device: where.
    """

    ms: float
    low: float
    high: float
    spread: float
    rounds: int
    reference_ms: float
    drift: float
    device: Device

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "fingerprint": self.device.fingerprint}


def measure(
    content: bytes,
    *,
    batch: int = 1,
    threads: int = 1,
    provider: str = "CPUExecutionProvider",
    rounds: int = ROUNDS,
    patience: float = PATIENCE,
    sleep: Callable[[float], None] = time.sleep,
) -> Latency:
    """Measure an ONNX model with ONNX Runtime. Only one process of a machine measures at a time.

    Args:
        content: of the file.
        batch: pictures at once.
        threads: of the runtime.
        provider: of the runtime.
        rounds: of the network, each between two of the reference.
        patience: seconds for which a machine that is too busy is asked again.
        sleep: waits between two attempts.

    Raises:
        LatencyError: the machine stayed too busy, the model does not run, or there is no such provider.
        MissingExtraError: ONNX Runtime is not installed.
    """
    run, reference = (_runner(model, batch, threads, provider) for model in (content, reference_model()))
    begun, attempt = time.monotonic(), 0
    with machine_lock("latency"):
        while True:
            found = _compared(run, reference, rounds, threads)
            drift = _quartile_range(found[1])
            if drift <= QUIET:
                break
            attempt += 1
            if time.monotonic() - begun > patience:
                raise LatencyError(
                    f"the machine is too busy to measure: the same network's time moves by {drift:.0%}",
                    hint="end what else runs on it, or pass a longer patience",
                )
            log.info("the machine is too busy to measure (%.0f %% of drift): again in a moment", 100 * drift)
            sleep(PAUSE * min(attempt, 5))
    return _summary(*found, drift, device(batch, threads, provider))


def _summary(times: Sequence[float], references: Sequence[float], drift: float, where: Device) -> Latency:
    low, high = interval_of_median(times)
    return Latency(
        ms=1e3 * statistics.median(times), low=1e3 * low, high=1e3 * high, spread=_quartile_range(times) / 2,
        rounds=len(times), reference_ms=1e3 * statistics.median(references), drift=drift, device=where,
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


def _compared(
    run: Callable[[], None], reference: Callable[[], None], rounds: int, threads: int
) -> tuple[list[float], list[float]]:
    """Return the seconds of one run of a network in each round, and of the reference beside it."""
    repeats = [_warm_up(action) for action in (run, reference)]
    found: tuple[list[float], list[float]] = ([], [])
    with _one_core() if threads == 1 else nullcontext():
        for _ in range(rounds):
            for action, times, count in zip((run, reference), found, repeats, strict=True):
                begun = time.perf_counter()
                for _ in range(count):
                    action()
                times.append((time.perf_counter() - begun) / count)
    return found


def _warm_up(action: Callable[[], None]) -> int:
    """Run for a while, and return how often a round is to run."""
    begun, count = time.perf_counter(), 0
    while count < 3 or time.perf_counter() - begun < WARM_UP_SECONDS:
        action()
        count += 1
    return max(1, round(ROUND_SECONDS * count / (time.perf_counter() - begun)))


@contextmanager
def _one_core() -> Iterator[None]:
    """Keep this thread on the core that it is on: one that moves measures the moving."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(before)[-1]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def onnx_of(file: str | Path) -> bytes:
    """Return the ONNX model that is to be measured: a file's content, or the verified export of a checkpoint.

    Raises:
        LatencyError: the file cannot be read.
        CheckpointError: it is no checkpoint.
        ExportError: its network does not export.
    """
    from archtuna.checkpoint import load
    from archtuna.exports import export

    place = place_of(file)
    if place.suffix != ".onnx":
        with tempfile.TemporaryDirectory() as folder:
            export(load(place), Path(folder) / "model.onnx")
            return (Path(folder) / "model.onnx").read_bytes()
    try:
        return read_bytes(place)
    except OSError as error:
        problem = error.strerror or str(error)
    raise LatencyError(f"{place}: cannot be read ({problem})")


# --- the runtime -------------------------------------------------------------------------------------


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("onnxruntime", "onnx") from None
    return onnxruntime


def _runner(content: bytes, batch: int, threads: int, provider: str) -> Callable[[], None]:
    """Return what runs a model once on a batch of pictures."""
    runtime = _runtime()
    if provider not in runtime.get_available_providers():
        raise LatencyError(
            f"ONNX Runtime has no '{provider}' here", hint=f"it has {', '.join(runtime.get_available_providers())}"
        )
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    problem = ""
    try:
        session = runtime.InferenceSession(content, options, providers=[provider])
        (source,) = session.get_inputs()
        shape = [batch if i == 0 else side for i, side in enumerate(source.shape)]
        feed = {source.name: np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
        session.run(None, feed)
    except Exception as error:  # The runtime raises errors of its own family.
        problem = str(error).strip().partition("\n")[0] or type(error).__name__
    if problem:
        raise LatencyError(f"the model does not run in ONNX Runtime: {problem}")
    return lambda: session.run(None, feed)


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


def device(batch: int, threads: int, provider: str = "CPUExecutionProvider") -> Device:
    """Return this machine, as a latency names it."""
    runtime = f"onnxruntime {_runtime().__version__}"
    return Device(_processor(), runtime, provider, threads, batch, f"{platform.system()} {platform.machine()}")


def _processor() -> str:
    """Return the processor's name, as far as the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            parts = [line.partition(":") for line in file]
    except OSError:
        return platform.processor() or platform.machine()
    names = {name.strip(): value.strip() for name, _, value in parts}
    return names.get("model name") or names.get("Model") or platform.processor() or platform.machine()
