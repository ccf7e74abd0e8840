"""Trained networks before and after they are quantised: metrics, bytes and time, and how it is best done.

    python benchmarks/int8.py --data cifar10_5k1k.npz --networks nets

trains the default network of every ready space and one with attention, keeps the checkpoints in the folder ``nets``, takes
them from there the next time, and writes ``results/int8.md``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import platform
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime import quantization

from archtuna.answers import answering
from archtuna.architecture import Architecture
from archtuna.calibration import calibration_of
from archtuna.checkpoint import load
from archtuna.data import Batches, Data, Preprocess, Split
from archtuna.evaluate import TrainEvaluator
from archtuna.exports import export
from archtuna.metrics import accuracy, confusion, macro_f1
from archtuna.objective import objectives_of
from archtuna.quantize import OPERATORS, Calibrated, calibrated, quantized
from archtuna.recipe import Recipe
from archtuna.sensitivity import sqnr
from archtuna.space import Candidate, SearchSpace
from archtuna.starter import spaces, starter

RESULTS = Path(__file__).parent / "results" / "int8.md"
SIDE, EPOCHS, RESAMPLES = 32, 12, 500
ROUNDS, ROUND_SECONDS = 61, 0.01
ATTENTION = """
input_size: 32
backbone:
  - [1, Conv, {channels: 32, kernel: 3, stride: 2, activation: Hardswish}]
  - [1, Conv, {channels: 64, kernel: 3, stride: 2, activation: Hardswish}]
  - [2, TransformerBlock, {heads: 4}]
  - [1, GlobalAvgPool, []]
  - [1, Flatten, []]
  - [1, Linear, [CLASSES]]
"""
TAGS = {
    "classic": "ReLU",
    "micro": "ReLU, depthwise",
    "resnet": "ReLU, residual",
    "mobilenetv3": "Hardswish, SE",
    "efficientnet": "SiLU, SE",
    "convnext": "GELU, layer norm",
    "attention": "Hardswish, attention",
}


@dataclass(frozen=True)
class Trained:
    """A trained network as a float ONNX file, and pictures that it was not trained on."""

    name: str
    content: bytes
    calibrate: Callable[[int, int], list[np.ndarray]]
    pictures: np.ndarray
    labels: np.ndarray

    def logits(self, content: bytes) -> np.ndarray:
        answer = answering(content)
        return np.concatenate([answer(self.pictures[i : i + 256]) for i in range(0, len(self.pictures), 256)])


def architectures(classes: int) -> dict[str, Architecture]:
    """The default network of every ready space, and one with attention."""
    texts = {
        name: starter(space=name, classes=classes, input_size=max(SIDE, spaces()[name].smallest)) for name in spaces()
    }
    texts["attention"] = ATTENTION.replace("CLASSES", str(classes))
    return {name: SearchSpace.read(texts[name]).default().architecture for name in TAGS}


def trained(name: str, architecture: Architecture, data: Data, split: Split, folder: Path) -> Trained:
    """Train a network, or take it from the folder."""
    path = folder / f"{name}.safetensors"
    if not path.exists():
        evaluator = TrainEvaluator(data, split, objectives=objectives_of(["f1", "params"]), device="cpu")
        *_, last = evaluator.evaluate(Candidate(architecture, Recipe(epochs=EPOCHS, batch_size=64), {}))
        assert last.save is not None
        folder.mkdir(parents=True, exist_ok=True)
        last.save(path, {"number": 0, "values": {}})
    model = load(path)
    preprocess: Preprocess = model.preprocess  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as place:
        content = Path(export(model, Path(place) / "model.onnx").file).read_bytes()
    images = data.images(preprocess.size, channels=preprocess.channels, fit=preprocess.fit, via=preprocess.via)
    unseen = np.concatenate([split.val, split.test])
    (x, y), *_ = Batches(images, unseen, preprocess, batch_size=len(unseen))

    def calibrate(pictures: int, seed: int) -> list[np.ndarray]:
        return calibration_of(images, split, preprocess, pictures=pictures, seed=seed)

    return Trained(name, content, calibrate, x.numpy(), y.numpy())


# --- before and after --------------------------------------------------------------------------------


def differences(labels: np.ndarray, before: np.ndarray, after: np.ndarray) -> list[str]:
    """Accuracy and F1 before, and by how much they change: ± the standard error over resampled pictures."""
    classes, answers = before.shape[1], (before.argmax(1), after.argmax(1))

    def scores(chosen: np.ndarray) -> list[tuple[float, float]]:
        matrices = [confusion(labels[chosen], answer[chosen], classes) for answer in answers]
        return [(accuracy(matrix), macro_f1(matrix)) for matrix in matrices]

    draws = np.random.default_rng(0)
    whole = np.array(scores(np.arange(len(labels))))
    resampled = [scores(draws.integers(0, len(labels), len(labels))) for _ in range(RESAMPLES)]
    errors = np.array([np.subtract(after, before) for before, after in resampled]).std(axis=0, ddof=1)
    cells = []
    for value, change, error in zip(whole[0], whole[1] - whole[0], errors, strict=True):
        cells += [f"{value:.3f}", f"{change:+.3f} ± {error:.3f}"]
    return cells


def times(contents: tuple[bytes, bytes], pictures: np.ndarray) -> str:
    """How long the int8 file takes against the float one, in turns: median and quartiles of the ratio of processor time.

    Processor time of one thread, because what else runs on the machine then counts little.
    """
    asks = [answering(content) for content in contents]
    repeats = [_warm_up(ask, pictures) for ask in asks]
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for ask, count, seconds in zip(asks, repeats, found, strict=True):
            begun = time.thread_time()
            for _ in range(count):
                ask(pictures)
            seconds.append((time.thread_time() - begun) / count)
    low, middle, high = np.quantile(np.divide(found[1], found[0]), [0.25, 0.5, 0.75])
    return f"{middle:.2f} ({low:.2f}–{high:.2f}) of {1e3 * statistics.median(found[0]):.3f} ms"


def _warm_up(ask: Callable[[np.ndarray], np.ndarray], pictures: np.ndarray) -> int:
    """Run for a while, and return how often a round is to run."""
    begun, count = time.thread_time(), 0
    while count < 3 or time.thread_time() - begun < 10 * ROUND_SECONDS:
        ask(pictures)
        count += 1
    return max(1, round(ROUND_SECONDS * count / (time.thread_time() - begun)))


def before_and_after(network: Trained) -> tuple[str, ...]:
    files = [quantized(network.content, network.calibrate(256, seed)) for seed in range(3)]
    before, *after = (network.logits(content) for content in (network.content, *files))
    ratios = sorted(sqnr(before, found) for found in after)
    size = f"{len(network.content) / 1e3:.0f} → {len(files[0]) / 1e3:.0f}"
    cells = differences(network.labels, before, after[0])
    print(network.name, *cells, size, file=sys.stderr, flush=True)
    latencies = (times((network.content, files[0]), network.pictures[:batch]) for batch in (1, 16))
    return (network.name, TAGS[network.name], *cells, f"{ratios[0]:.1f}–{ratios[-1]:.1f}", size, *latencies)


# --- how it is best done -----------------------------------------------------------------------------


def converted(network: Calibrated, *, bits: int = 7, per_channel: bool = True, attention: bool = False) -> bytes:
    """The file that other choices of ours would give."""
    model = onnx.ModelProto()
    model.CopyFrom(network.model)
    within = [] if attention else [n for n, path in network.paths.items() if any("dot_product" in s for s in path)]
    quantizer = quantization.QDQQuantizer(
        model, per_channel, bits == 7, quantization.QuantType.QInt8, quantization.QuantType.QUInt8, network.ranges,
        [], within, list(OPERATORS), {},
    )  # fmt: skip
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    return bytes(quantizer.model.model.SerializeToString())


class One(quantization.CalibrationDataReader):
    """Hands one batch to the library."""

    def __init__(self, batch: np.ndarray) -> None:
        self.feeds = iter([{"images": batch}])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.feeds, None)


def ranges_by(network: Calibrated, batches: list[np.ndarray], method: str, **options: Any) -> Calibrated:
    """The network with ranges of another method."""

    chosen = quantization.CalibrationMethod[method]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        file = Path(folder) / "float.onnx"
        file.write_bytes(network.model.SerializeToString())
        calibrator = quantization.create_calibrator(
            file, list(OPERATORS), str(Path(folder) / "augmented.onnx"), chosen, extra_options=options
        )
        for batch in batches:  # The library wants batches of one size, unless they come one by one.
            calibrator.collect_data(One(batch))
        return replace(network, ranges=calibrator.compute_data())


def exactly(content: bytes, pictures: np.ndarray) -> np.ndarray:
    """The answers of a file whose integers are computed as floats, which do not overflow."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    found = [session.run(None, {"images": pictures[i : i + 256]})[0] for i in range(0, len(pictures), 256)]
    return np.concatenate(found)


def choices(network: Trained) -> Iterator[tuple[str, float, float]]:
    """For each way to quantise: its name, decibels and accuracy."""
    batches = network.calibrate(256, 0)
    chosen = calibrated(network.content, batches)
    before = network.logits(network.content)

    def row(name: str, logits: np.ndarray) -> tuple[str, float, float]:
        return name, sqnr(before, logits), float((logits.argmax(1) == network.labels).mean())

    eight = converted(chosen, bits=8)
    yield row("float", before)
    yield row("as it is done", network.logits(converted(chosen)))
    yield row("weights of 8 bits", network.logits(eight))
    yield row("weights of 8 bits, integers computed as floats", exactly(eight, network.pictures))
    yield row("weights of 7 bits, integers computed as floats", exactly(converted(chosen), network.pictures))
    yield row("one scale for all channels", network.logits(converted(chosen, per_channel=False)))
    yield row("attention in integers, too", network.logits(converted(chosen, attention=True)))
    for name, method, options in (
        ("percentile 99.99", "Percentile", {"percentile": 99.99, "symmetric": False}),
        ("percentile 99.999", "Percentile", {"percentile": 99.999, "symmetric": False}),
        ("entropy", "Entropy", {}),
    ):
        found = converted(ranges_by(chosen, batches, method, **options))
        yield row(f"ranges by {name}", network.logits(found))
    for count in (16, 64, 1024):
        found = converted(calibrated(network.content, network.calibrate(count, 0)))
        yield row(f"{count} pictures instead of 256", network.logits(found))


def choice_table(networks: list[Trained]) -> list[str]:
    found = [list(choices(network)) for network in networks]
    rows = []
    for ways in zip(*found, strict=True):
        ratios = [ratio for _, ratio, _ in ways]
        cells = [f"{ratio:.1f} · {share:.3f}" if np.isfinite(ratio) else f"– · {share:.3f}" for _, ratio, share in ways]
        mean = f"{np.mean(ratios):.1f}" if np.isfinite(ratios).all() else "–"
        rows.append((ways[0][0], *cells, f"{mean} · {np.mean([share for *_, share in ways]):.3f}"))
    return table(("how", *(network.name for network in networks), "mean"), rows)


# --- the page ----------------------------------------------------------------------------------------


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(row)} |" for row in rows), ""]


def processor() -> str:
    """The processor's name and what it has for integers."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = re.search(r"model name\s*: (.*)", text)
    known = [
        flag for flag in ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8", "asimddp") if f" {flag} " in text
    ]
    return f"{name[1] if name else platform.machine()} ({', '.join(known) or 'instructions unknown'}), {os.cpu_count()} cores"


HEAD = (
    *("network", "of", "accuracy, float", "change", "F1, float", "change", "SQNR, dB", "kB"),
    *("time, one picture", "time, 16 pictures"),
)


def page(networks: list[Trained]) -> list[str]:
    n = len(networks[0].labels)
    return [
        "# Networks before and after int8",
        "",
        f"{processor()}; Python {platform.python_version()}, torch {torch.__version__}, onnx {onnx.__version__}, "
        f"onnxruntime {onnxruntime.__version__}, {time.strftime('%Y-%m-%d')}. Made by `python benchmarks/int8.py`.",
        "",
        f"The default network of every ready space and one with attention, trained for {EPOCHS} epochs on 4,500 pictures of "
        f"CIFAR-10 at {SIDE} pixels. Metrics are on {n:,} pictures that no network was trained on; changes are int8 less "
        f"float, ± the standard error of the paired difference over {RESAMPLES} resamples of these pictures. SQNR is of the "
        "logits, lowest and highest of three choices of 256 calibration pictures. Times are processor time of one thread of "
        f"ONNX Runtime, int8 against float in turns: median (quartiles) of the ratio over {ROUNDS} rounds of "
        f"{1e3 * ROUND_SECONDS:.0f} ms; load of the machine {os.getloadavg()[0]:.1f}.",
        "",
        *table(HEAD, [before_and_after(network) for network in networks]),
        "## How it is best done",
        "",
        f"Decibels of SQNR · accuracy, on the same {n:,} pictures, 256 calibration pictures, one choice of them.",
        "",
        *choice_table(networks),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10_5k1k.npz", help="pictures to train on")
    parser.add_argument("--networks", type=Path, default=Path("nets"), help="where trained networks are kept")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = Data.open(arguments.data)
    split = data.split(val=0.1)
    known = architectures(len(data.classes))
    networks = [trained(name, known[name], data, split, arguments.networks) for name in known]
    text = "\n".join(page(networks)).rstrip() + "\n"
    arguments.out.write_text(text)
    print(text, end="")


if __name__ == "__main__":
    sys.exit(main())
