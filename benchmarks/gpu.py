"""What a graphics card gives: how many workers it takes to fill it, and how steady what is measured on it is.

    python benchmarks/gpu.py [--data cifar10_5k1k.npz] [--workers 1,2,4,8] [--seconds 40] [--repeats 5]
        [--runtimes torch,onnxruntime] [--spaces micro,mobilenetv3] [--out FILE]

Workers share one card and search a ready space on pictures at 32 pixels, each network for a few epochs, without early
stopping; what counts is how many epochs of trainings end within the time. Latencies are of the default networks of ready
spaces, for one picture and for 32, each measured several times; energy is the card's, by its own counter.
``epoch.py --device cuda`` compares our loop with one by hand.
"""

from __future__ import annotations

import argparse
import logging
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import torch

from archtuna import search
from archtuna.errors import ArchtunaError
from archtuna.gauge import untrained
from archtuna.latency import Latency, measure_model
from archtuna.space import SearchSpace
from archtuna.starter import starter

RESULTS = Path(__file__).parent / "results" / "gpu.md"
PLACES = (
    ("torch", "cuda"), ("torch-compile", "cuda"), ("onnxruntime", "CUDAExecutionProvider"), ("onnxruntime", None),
)  # fmt: skip
EPOCHS = 4


# --- workers -----------------------------------------------------------------------------------------


def rate(folder: Path, data: str, workers: int, seconds: float) -> tuple[float, int, int]:
    """Return epochs a minute, trials that were complete and trials that failed."""
    times: list[float] = []

    def note(event: dict[str, Any]) -> None:
        if event["event"] == "epoch":
            times.append(time.monotonic())

    study = search(
        starter(classes=10, space="mobilenetv3", input_size=32), data, out=folder, time=seconds, workers=workers,
        per_gpu=workers, epochs=EPOCHS, stopping=False, sampler="random", objectives=["f1", "params"], on_event=note,
    )  # fmt: skip
    counts = study.counts()
    study.close()
    # Workers begin one after the other: the first half minute of some is not counted.
    inside = [one for one in times if one >= times[0] + 5.0]
    return 60.0 * len(inside) / (inside[-1] - inside[0]), counts["complete"], counts["failed"]


def workers(data: str, numbers: list[int], seconds: float) -> Iterator[str]:
    yield "| workers on the card | epochs a minute | times one | complete | failed |"
    yield "|---|---|---|---|---|"
    first = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for number in numbers:
            found, complete, failed = rate(Path(folder) / str(number), data, number, seconds)
            first = first or found
            yield f"| {number} | {found:.0f} | {found / first:.2f} | {complete} | {failed} |"


# --- latencies ---------------------------------------------------------------------------------------


def latencies(spaces: list[str], runtimes: list[str], repeats: int) -> Iterator[str]:
    yield "| network | runtime | batch | ms | coefficient of variation | mJ of a picture | watts |"
    yield "|---|---|---|---|---|---|---|"
    for space in spaces:
        network = untrained(SearchSpace.read(starter(classes=10, space=space)).default().architecture)
        for batch in (1, 32):
            for runtime, provider in PLACES:
                if runtime not in runtimes:
                    continue
                try:
                    found = [
                        measure_model(network, runtime=runtime, provider=provider, batch=batch) for _ in range(repeats)
                    ]
                except ArchtunaError as error:
                    yield f"| {space} | {runtime} {provider or ''} | {batch} | {error.message[:90]} | | | |"
                    continue
                yield line(space, f"{runtime} {provider or ''}".strip(), batch, found)


def line(space: str, runtime: str, batch: int, found: list[Latency]) -> str:
    ms = [one.ms for one in found]
    joules = [one.joules for one in found if one.joules is not None]
    energy, watts = "", ""
    if joules:
        energy = f"{1e3 * statistics.median(joules) / batch:.3g}"
        watts = f"{1e3 * statistics.median(joules) / statistics.median(ms):.0f}"
    variation = f"{100 * statistics.stdev(ms) / statistics.mean(ms):.1f} %"
    return f"| {space} | {runtime} | {batch} | {statistics.median(ms):.3f} | {variation} | {energy} | {watts} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", help="pictures for workers; left out where none are given")
    parser.add_argument("--workers", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, default=40.0, help="of each search")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each network")
    parser.add_argument(
        "--runtimes", type=lambda text: text.split(","), default=["torch", "torch-compile", "onnxruntime"]
    )
    parser.add_argument("--spaces", type=lambda text: text.split(","), default=["micro", "mobilenetv3"])
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    logging.getLogger("archtuna").setLevel(logging.ERROR)
    head = (
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, Python {platform.python_version()}, "
        f"{platform.machine()} CPU, {date.today()}. Made by `python benchmarks/gpu.py`."
    )
    lines = ["# On a graphics card", "", head, ""]
    parts = [
        (f"Latencies, n = {options.repeats} measurements", latencies(options.spaces, options.runtimes, options.repeats))
    ]
    if options.data:
        title = f"Workers, {options.seconds:g} s each, n = 1"
        parts.append((title, workers(options.data, options.workers, options.seconds)))
    for title, made in parts:
        lines += [f"## {title}", ""]
        for one in made:
            print(one, flush=True)
            lines.append(one)
            options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
        lines.append("")


if __name__ == "__main__":
    main()
