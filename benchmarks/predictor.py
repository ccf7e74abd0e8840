"""How well latencies are predicted from a few measured networks: on devices of NAS-Bench-201, and on this machine.

    python benchmarks/predictor.py export FOLDER [--model M] [--networks 300] [--size 64] [--workers 2]
    python benchmarks/predictor.py record FILE [--model M] [--networks 300] [--size 64] [--exports FOLDER] [--passes 1]
                                            [--busy]
    python benchmarks/predictor.py report [--table nasbench201.npz] [--record FILE [--of "the classic space"]] [--seeds 20]
                                          [--out FILE]

``record`` measures random networks, one line of JSON a measurement, and goes on where it stopped: of a model file every block
of stride 1 repeated one to five times, as the classic search has it, or without one of the ready space ``classic``.
Networks are untrained, their batch norms settled on random pictures, and exported as ``archtuna export`` does, by several
processes beforehand where a folder keeps them. ``--busy`` is for a machine that others use: seconds of the thread itself,
which nothing interrupts, each run's beside the reference's. ``report`` fits to some of the measured networks, drawn at random,
and predicts 200 others.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain, repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from archtuna.architecture import Architecture
from archtuna.costs import costs_of
from archtuna.errors import ArchtunaError
from archtuna.exports import deployed
from archtuna.files import write_atomically
from archtuna.latency import measure, reference_model
from archtuna.parts import parts_of, parts_of_units
from archtuna.predictor import Part, Predictor
from archtuna.profiles import profile
from archtuna.settings import DeploySettings
from archtuna.space import SearchSpace
from archtuna.starter import starter

RESULTS = Path(__file__).parent / "results" / "predictor.md"
MEASURED = (10, 30, 100, 200)
OTHERS = 200
"""Networks that are predicted; fewer where fewer were measured."""

FEWEST = 50
BUSY_SECONDS, BUSY_RUNS = 3.0, 25
"""For which a network and the reference take turns, and how often at least."""

PROFILED = 20


# --- recording ---------------------------------------------------------------------------------------


def space_of(model: Path | None, size: int | None) -> SearchSpace:
    if model is None:
        return SearchSpace.read(starter(classes=10, space="classic", input_size=size))
    text = model.read_text(encoding="utf-8")
    return SearchSpace.read(f"{text}\nvary:\n  - {{rows: stride1, repeat: 1..5}}\n", input_size=size)


def networks(space: SearchSpace, count: int) -> Iterator[Architecture]:
    """Yield random networks of a space within its own limits, always the same."""
    draws, seen = random.Random(0), set()
    while len(seen) < count:
        network = space.random(draws).architecture
        costs = costs_of(network)
        if network.key not in seen and all(costs[limit.name] <= limit.bound for limit in space.settings.limits):
            seen.add(network.key)
            yield network


def content_of(network: Architecture, folder: Path | None) -> bytes:
    """Return a network's export, kept in a folder where there is one: an export takes longer than what it is measured for."""
    from archtuna.gauge import untrained

    kept = None if folder is None else folder / f"{network.key}.onnx"
    if kept is not None and kept.is_file():
        return kept.read_bytes()
    content = deployed(untrained(network), DeploySettings(), list).content
    if kept is not None:
        write_atomically(kept, content)
    return content


def export_all(folder: Path, every: Sequence[Architecture], workers: int) -> None:
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=one_thread) as pool:
        for network, content in zip(every, pool.map(content_of, every, [folder] * len(every)), strict=True):
            print(network.key, f"{len(content) / 1e6:.1f} MB", flush=True)


def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def record(file: Path, every: Sequence[Architecture], folder: Path | None, passes: int, busy: bool) -> None:
    """Measure each network in every pass, those of a pass one after the other."""
    done = defaultdict(int)
    for line in lines(file):
        done[line["key"]] += 1
    with file.open("a", encoding="utf-8") as out:
        for number in range(passes):
            for network in every:
                if done[network.key] > number:
                    continue
                line = measured(content_of(network, folder), network, busy)
                if line is not None:
                    print(json.dumps(line), file=out, flush=True)
                    print(number, network.key, f"{line['ms']:.3f} ms", flush=True)


def measured(content: bytes, network: Architecture, busy: bool) -> dict[str, Any] | None:
    """Return what is written of one measurement; None where the machine was too busy."""
    try:
        ms, reference = busily(content) if busy else believed(content)
        found = profile(content, network, runs=PROFILED)
    except ArchtunaError as error:
        print(network.key, error.message, flush=True)
        return None
    return {
        "key": network.key, "architecture": network.to_dict(), "ms": ms, "reference_ms": reference,
        "units": list(found.units), "profiled_ms": found.ms, "busy": busy, "device": found.device.fingerprint,
    }  # fmt: skip


def believed(content: bytes) -> tuple[float, float]:
    found = measure(content)
    return found.ms, found.reference_ms


def busily(content: bytes) -> tuple[float, float]:
    """Return the milliseconds of this thread for a run of a model, and for one of the reference, as they take turns.

    Both get slower together where others use the machine, so that the median of their ratios moves by a percent where medians
    of their own move by five.
    """
    model, reference = session_of(content), session_of(reference_model())
    ratios, references = [], []
    for _ in range(3):
        model(), reference()
    end = time.monotonic() + BUSY_SECONDS
    while time.monotonic() < end or len(ratios) < BUSY_RUNS:
        begun = time.thread_time()
        model()
        between = time.thread_time()
        reference()
        references.append(time.thread_time() - between)
        ratios.append((between - begun) / references[-1])
    usual = 1e3 * statistics.median(references)
    return statistics.median(ratios) * usual, usual


def session_of(content: bytes) -> Callable[[], Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (source,) = session.get_inputs()
    feed = {source.name: np.random.default_rng(0).standard_normal((1, *source.shape[1:]), dtype=np.float32)}
    return lambda: session.run(None, feed)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []


# --- scoring -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Score:
    """How good the predictions of other networks are.

    Attributes:
        spearman: rank correlation with what was measured.
        median, ninth: relative error that half, and nine of ten, stay within.
        within: share of networks predicted within 10 %.
        covered: share within two standard deviations of the prediction.
        known: relative error that nine of ten stay within, by the predictor's own word.
        seconds: that the fit took.
    """

    spearman: float
    median: float
    ninth: float
    within: float
    covered: float
    known: float
    seconds: float


def score(
    parts: Sequence[Sequence[Part]], ms: np.ndarray, seen: np.ndarray, others: np.ndarray, blocks: Any = ()
) -> Score:
    """Fit to some networks and predict others."""
    begun = time.process_time()
    fitted = Predictor.fit([parts[i] for i in seen], ms[seen], parts=blocks)
    seconds = time.process_time() - begun
    mean, deviation = fitted.predict([parts[i] for i in others])
    off = np.abs(mean - ms[others]) / np.maximum(ms[others], 0.05 * np.median(ms))
    return Score(
        spearman=float(spearmanr(mean, ms[others])[0]), median=float(np.median(off)), ninth=float(np.quantile(off, 0.9)),
        within=float(np.mean(off <= 0.1)), covered=float(np.mean(np.abs(mean - ms[others]) <= 2 * deviation)),
        known=fitted.error(), seconds=seconds,
    )  # fmt: skip


def drawn(seed: int, total: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of measured networks, and of others to predict."""
    places = np.random.default_rng(seed).permutation(total)
    return places[:count], places[count:][:OTHERS]


def spread(values: Sequence[float], digits: int = 3) -> str:
    return f"{statistics.fmean(values):.{digits}f} ± {statistics.pstdev(values):.{digits}f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]


# --- NAS-Bench-201 -----------------------------------------------------------------------------------

CELLS, WIDTHS, SIDES = 5, (16, 32, 64), (32, 16, 8)
KERNELS = {"nor_conv_1x1": 1, "nor_conv_3x3": 9}


def cells(data: Mapping[str, np.ndarray]) -> list[tuple[Part, ...]]:
    """Return the parts of every network: each edge's operation, as it is in all cells together.

    An edge that leads from the picture to nowhere, or from nowhere to the end, is another kind: some devices leave it out.
    """
    names, edges = [str(name) for name in data["op_names"]], [edge.split("<-") for edge in map(str, data["edges"])]
    ends = [(int(source), int(target)) for target, source in edges]
    found = []
    for codes in data["ops"]:
        used = useful([end for end, code in zip(ends, codes, strict=True) if names[code] != "none"])
        found.append(tuple(cell_part(end, names[code], end in used) for end, code in zip(ends, codes, strict=True)))
    return found


def cell_part(end: tuple[int, int], name: str, used: bool) -> Part:
    weights = [KERNELS.get(name, 0) * CELLS * width**2 for width in WIDTHS]
    macs = sum(count * side**2 for count, side in zip(weights, SIDES, strict=True))
    values = sum(CELLS * width * side**2 for width, side in zip(WIDTHS, SIDES, strict=True))
    kind = name if used else f"{name}, unused"
    return Part((end, kind), kind, (float(macs), float(sum(weights)), float(values)))


def useful(edges: Sequence[tuple[int, int]]) -> set[tuple[int, int]]:
    """Return the edges on a way from node 0 to node 3."""
    begun, ended = {0}, {3}
    for _ in range(3):
        begun |= {target for source, target in edges if source in begun}
        ended |= {source for source, target in edges if target in ended}
    return {(source, target) for source, target in edges if source in begun and target in ended}


def devices(file: Path, seeds: int) -> list[str]:
    """Return how well each device's latencies are ranked from 10, 30 and 100 networks."""
    with np.load(file, allow_pickle=False) as data:
        parts, names, ms = cells(data), [str(n) for n in data["latency_devices"]], data["latency_ms"].astype(float)
        macs = data["flops_M"][:, 0]
    rows, means = [], defaultdict(list)
    for i, name in enumerate(names):
        cell = [name]
        for count in (10, 30, 100):
            found = [device_score(parts, ms[:, i], seed, count) for seed in range(seeds)]
            means[count].append(statistics.fmean(found))
            cell.append(spread(found))
        means[0].append(float(spearmanr(macs, ms[:, i])[0]))
        rows.append([*cell, f"{means[0][-1]:.3f}"])
        print(*rows[-1], flush=True)
    mean = [f"**{statistics.fmean(means[count]):.3f}**" for count in (10, 30, 100, 0)]
    return [
        "## 27 devices of NAS-Bench-201",
        "",
        f"Spearman correlation of predicted with measured latencies of 3,000 other networks, n = {seeds} draws of measured "
        "networks: mean ± standard deviation. Parts are the operations of the cell's six edges.",
        "",
        *table(
            ["device", "10 measured", "30 measured", "100 measured", "MACs (and parameters)"], [*rows, ["mean", *mean]]
        ),
    ]


def device_score(parts: Sequence[Sequence[Part]], ms: np.ndarray, seed: int, count: int) -> float:
    places = np.random.default_rng(seed).permutation(len(ms))
    seen, others = places[:count], places[count : count + 3_000]
    mean, _ = Predictor.fit([parts[i] for i in seen], ms[seen]).predict([parts[i] for i in others])
    return float(spearmanr(mean, ms[others])[0])


# --- this machine ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recorded:
    """Networks that were measured: parts, those of each block, milliseconds in each pass, those of each block."""

    parts: list[tuple[Part, ...]]
    units: list[list[tuple[Part, ...]]]
    passes: list[list[float]]
    blocks: list[np.ndarray]

    @property
    def ms(self) -> np.ndarray:
        return np.array([statistics.median(times) for times in self.passes])

    def noise(self) -> str:
        pairs = [times[:2] for times in self.passes if len(times) > 1]
        if not pairs:
            return "Each network was measured once."
        apart = np.array([abs(one / other - 1) for one, other in pairs])
        return (
            f"Two measurements of one network differ by {np.median(apart):.1%} in the median, and by less than 10 % for "
            f"{np.mean(apart < 0.1):.0%} of {len(pairs)} networks; where there are several, their median counts."
        )

    def observations(self, seen: np.ndarray) -> list[tuple[tuple[Part, ...], float]]:
        """Return the distinct blocks of some networks, each with the mean of its milliseconds."""
        found: dict[tuple[Any, ...], tuple[tuple[Part, ...], list[float]]] = {}
        for i in seen:
            for parts, ms in zip(self.units[i], self.blocks[i], strict=True):
                if parts and ms > 0:
                    found.setdefault(tuple(part.key for part in parts), (parts, []))[1].append(ms)
        return [(parts, statistics.fmean(times)) for parts, times in found.values()]


def read(file: Path) -> Recorded:
    """Read measurements; where they were made on a busy machine, each in units of the reference beside it."""
    by_key = defaultdict(list)
    for line in lines(file):
        by_key[line["key"]].append(line)
    usual = statistics.median(line["reference_ms"] for found in by_key.values() for line in found)
    found = Recorded([], [], [], [])
    for every in by_key.values():
        network = Architecture.from_dict(every[0]["architecture"])
        times = [line["ms"] * (usual / line["reference_ms"] if line["busy"] else 1) for line in every]
        shares = np.mean([np.array(line["units"]) / line["profiled_ms"] for line in every if line["units"]], axis=0)
        found.parts.append(parts_of(network))
        found.units.append(parts_of_units(network))
        found.passes.append(times)
        found.blocks.append(shares * statistics.median(times))
    return found


def here(file: Path, of: str, seeds: int) -> list[str]:
    """Return how well latencies of this machine are predicted for networks of some space."""
    recorded = read(file)
    ms, first = recorded.ms, lines(file)[0]
    rows = []
    for count in (n for n in MEASURED if n + FEWEST <= len(ms)):
        for profiled in (False, True):
            found = []
            for seed in range(seeds):
                seen, others = drawn(seed, len(ms), count)
                found.append(score(recorded.parts, ms, seen, others, recorded.observations(seen) if profiled else ()))
            columns = [
                spread([getattr(one, name) for one in found])
                for name in ("within", "median", "ninth", "known", "covered", "spearman", "seconds")
            ]
            rows.append([str(count), "yes" if profiled else "no", *columns])
            print(*rows[-1], flush=True)
    header = [
        "measured", "profiled too", "within 10 %", "half within", "nine of ten within", "by its own word",
        "in 2 standard deviations", "Spearman", "seconds of a fit",
    ]  # fmt: skip
    how = "of the thread, beside the reference's, on a machine that others used" if first["busy"] else "of the clock"
    return [
        f"## This machine, ONNX Runtime, {of}",
        "",
        f"{len(ms)} random networks of {of}, {ms.min():.2f} to {ms.max():.1f} ms, one thread, "
        f"a picture at a time; milliseconds {how}. {recorded.noise()} Of each draw up to {OTHERS} other networks are "
        f"predicted; n = {seeds} draws: mean ± standard deviation.",
        "",
        *table(header, rows),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    which = argparse.ArgumentParser(add_help=False)
    which.add_argument("--model", type=Path, help="file whose blocks are repeated")
    which.add_argument("--networks", type=int, default=300)
    which.add_argument("--size", type=int, help="of pictures; the space searches it where none is given")
    before = verbs.add_parser("export", parents=[which])
    before.add_argument("folder", type=Path)
    before.add_argument("--workers", type=int, default=2)
    one = verbs.add_parser("record", parents=[which])
    one.add_argument("file", type=Path)
    one.add_argument("--exports", type=Path, help="folder that keeps the exported networks")
    one.add_argument("--passes", type=int, default=1)
    one.add_argument("--busy", action="store_true", help="for a machine that others use")
    other = verbs.add_parser("report")
    other.add_argument("--table", type=Path, help="nasbench201.npz")
    other.add_argument("--record", type=Path, action="append", default=[], help="what `record` wrote; repeatable")
    other.add_argument("--of", action="append", default=[], help="the space of that record, in words; the classic one")
    other.add_argument("--seeds", type=int, default=20)
    other.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.verb in ("export", "record"):
        every = list(networks(space_of(arguments.model, arguments.size), arguments.networks))
        if arguments.verb == "export":
            arguments.folder.mkdir(parents=True, exist_ok=True)
            export_all(arguments.folder, every, arguments.workers)
        else:
            record(arguments.file, every, arguments.exports, arguments.passes, arguments.busy)
        return
    text = [
        "# Predicted latencies",
        "",
        f"Python {platform.python_version()}, {platform.machine()} CPU, {time.strftime('%Y-%m-%d')}. Made by "
        "`python benchmarks/predictor.py report`.",
    ]
    if arguments.table is not None:
        text += ["", *devices(arguments.table, arguments.seeds)]
    for file, of in zip(arguments.record, chain(arguments.of, repeat("the classic space")), strict=False):
        text += ["", *here(file, of, arguments.seeds)]
    arguments.out.write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
