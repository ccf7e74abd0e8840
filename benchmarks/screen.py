"""Whether scores of untrained networks tell good networks from bad ones, and more than their multiply-accumulates do.

    python benchmarks/screen.py [--table nasbench201.npz] [--curves results/stopping_curves.npz] [--out FILE]

First on all 15,625 networks of NAS-Bench-201, with scores that others computed and accuracies after 200 epochs: rank
correlations, and what a search gains that begins with the ten best-scored of 100 random networks. Then with our own scores, on
some of the same networks, which are built for it, and on networks that ``stopping.py record`` trained. A part whose file is
missing is left out.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from archtuna.objective import hypervolume
from archtuna.screen import PICTURES, SCORES, naswot, score_of, screened, synflow
from archtuna.space import SearchSpace

RESULTS = Path(__file__).parent / "results" / "screen.md"
CURVES = Path(__file__).parent / "results" / "stopping_curves.npz"
KEPT, POOL = 10, 100
ACCURACY = 2
"""Place of the accuracy among the values of a curve."""

Scores = Mapping[str, np.ndarray]


def correlation(scores: np.ndarray, values: np.ndarray) -> str:
    if np.isnan(scores).any():
        return "–"
    # A score of minus infinity is a rank like any other, and the lowest.
    return f"{spearmanr(np.where(np.isinf(scores), -1e300, scores), values).statistic:.3f}"


def best_half(values: np.ndarray) -> np.ndarray:
    return np.flatnonzero(values >= np.median(values))


def correlations(scores: Scores, values: np.ndarray) -> list[tuple[str, str, str]]:
    """For each score its rank correlation with values: over all networks, and over the better half of them."""
    half = best_half(values)
    return [(name, correlation(s, values), correlation(s[half], values[half])) for name, s in scores.items()]


def choices(scores: Scores, sizes: np.ndarray) -> dict[str, Callable[[list[int]], list[int]]]:
    """Ways to choose networks from a pool that comes in random order: any, the best-scored, the best of each size."""

    def top(score: np.ndarray) -> Callable[[list[int]], list[int]]:
        return lambda pool: sorted(pool, key=lambda i: -score[i])[:KEPT]

    def banded(score: np.ndarray) -> Callable[[list[int]], list[int]]:
        return lambda pool: screened(pool, lambda i: score[i], KEPT, lambda i: sizes[i])

    known = {name: score for name, score in scores.items() if not np.isnan(score).any()}
    ways: dict[str, Callable[[list[int]], list[int]]] = {"random": lambda pool: pool[:KEPT]}
    ways |= {f"{name}, top": top(score) for name, score in known.items()}
    return ways | {f"{name}, by size": banded(score) for name, score in known.items()}


def gains(scores: Scores, values: np.ndarray, sizes: np.ndarray, macs: np.ndarray, pools: int) -> list[tuple[str, ...]]:
    """For each way to choose: the best value and the hypervolume of what is kept, and both against random and MACs."""
    rng, ways = random.Random(0), choices(scores, sizes)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    worst = [0.0, float(macs.max()) * 1.001]
    for _ in range(pools):
        pool = rng.sample(range(len(values)), min(POOL, len(values) // 2))
        for name, way in ways.items():
            kept = way(pool)
            points = np.column_stack([-values[kept], macs[kept]])
            found[name].append((values[kept].max(), hypervolume(points, [-100.0, 0.0], worst)))
    results = {name: np.array(pairs) for name, pairs in found.items()}
    rows = []
    for name, result in results.items():
        baselines = [results["random"], results.get(f"macs, {name.partition(', ')[2]}", result)]
        cells = [difference(result - baseline, place) for baseline in baselines for place in (0, 1)]
        rows.append((name, f"{result[:, 0].mean():.2f}", f"{result[:, 1].mean():.4f}", *cells))
    return rows


def difference(gained: np.ndarray, place: int) -> str:
    """Mean and standard error of what is gained, pool by pool."""
    gain, digits = gained[:, place], 2 if place == 0 else 4
    return f"{gain.mean():+.{digits}f} ± {gain.std(ddof=1) / math.sqrt(len(gain)):.{digits}f}" if gain.any() else "–"


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(row)} |" for row in rows), ""]


CORRELATIONS = ("score", "all networks", "better half")
GAINS = (
    "kept",
    "best accuracy",
    "hypervolume",
    "best: over random",
    "hv: over random",
    "best: over MACs",
    "hv: over MACs",
)


def on_table(path: Path, pools: int) -> list[str]:
    """The part on NAS-Bench-201."""
    data = np.load(path, allow_pickle=False)
    lines = [
        f"## NAS-Bench-201: {len(data['ops']):,} networks, accuracy after 200 epochs",
        "",
        f"Rank correlations (Spearman), then what is gained by keeping {KEPT} of {POOL} random networks: mean over {pools:,} "
        "pools ± standard error. `top` keeps the best-scored, `by size` the best-scored of each of ten bands of parameters, "
        "each beside MACs likewise. The hypervolume is of accuracy and MACs.",
        "",
    ]
    for place, dataset in enumerate(data["datasets"]):
        values, macs = data["test_acc_200ep"][:, place], data["flops_M"][:, place]
        scores = {str(name): data["proxies"][:, place, i] for i, name in enumerate(data["proxy_names"])} | {
            "macs": macs
        }
        lines += [f"### {dataset}", "", *table(CORRELATIONS, correlations(scores, values))]
        lines += table(GAINS, gains(scores, values, data["params_M"][:, place], macs, pools))
    return lines


class Cell(nn.Module):
    """A cell of NAS-Bench-201 (Dong & Yang 2020, arXiv:2001.00326): four nodes, an operation between any two."""

    def __init__(self, channels: int, operations: Sequence[str]) -> None:
        super().__init__()
        self.edges = nn.ModuleList(operation(name, channels) for name in operations)

    def forward(self, x: Tensor) -> Tensor:
        nodes, edges = [x], iter(self.edges)
        for _ in range(3):
            nodes.append(sum(next(edges)(node) for node in nodes))  # type: ignore[arg-type]
        return nodes[-1]


class Zero(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 0.0


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Module:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(nn.ReLU(), conv, nn.BatchNorm2d(outputs))


def operation(name: str, channels: int) -> nn.Module:
    if name.startswith("nor_conv"):
        return convolution(channels, channels, int(name[-1]))
    plain = {"none": Zero, "skip_connect": nn.Identity}
    return plain[name]() if name in plain else nn.AvgPool2d(3, 1, 1, count_include_pad=False)


class Reduction(nn.Module):
    """The residual block between two stages, which halves the map."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(convolution(inputs, outputs, 3, 2), convolution(outputs, outputs, 3))
        self.past = nn.Sequential(nn.AvgPool2d(2, 2), nn.Conv2d(inputs, outputs, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.past(x)


def network(operations: Sequence[str], classes: int = 10) -> nn.Module:
    """The network of a cell for pictures of 32 pixels: three stages of five cells."""
    stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16))
    stages = [[Cell(channels, operations) for _ in range(5)] for channels in (16, 32, 64)]
    body = [*stages[0], Reduction(16, 32), *stages[1], Reduction(32, 64), *stages[2]]
    head = [nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes)]
    return nn.Sequential(stem, *body, *head)


def on_cells(path: Path, networks: int) -> list[str]:
    """The part on networks of NAS-Bench-201 that are built and scored here."""
    data = np.load(path, allow_pickle=False)
    chosen = np.random.default_rng(0).choice(len(data["ops"]), networks, replace=False)
    names, values = [str(name) for name in data["proxy_names"]], data["test_acc_200ep"][chosen, 0]
    torch.manual_seed(0)
    x, rows = torch.randn(PICTURES, 3, 32, 32), []
    models = [network([str(data["op_names"][i]) for i in data["ops"][cell]]) for cell in chosen]
    for name, score in (("synflow", synflow), ("naswot", naswot)):
        start = time.process_time()
        ours = np.array([score(model, x) for model in models])
        seconds = (time.process_time() - start) / networks
        theirs = data["proxies"][chosen, 0, names.index(name)]
        found = [correlation(s, values) for s in (ours, theirs, data["flops_M"][chosen, 0])]
        rows.append((name, correlation(ours, theirs), *found, f"{seconds:.3f}"))
    head = (
        "score",
        "ours with the table's",
        "ours with accuracy",
        "the table's with accuracy",
        "MACs with accuracy",
        "seconds",
    )
    return [
        f"## Our own scores on {networks} networks of NAS-Bench-201, CIFAR-10",
        "",
        f"One draw of weights; naswot on {PICTURES} pictures of noise.",
        "",
        *table(head, rows),
    ]


def on_curves(path: Path, seeds: int) -> list[str]:
    """The part on networks that were trained here."""
    kept = np.load(path, allow_pickle=False)
    space = SearchSpace.read(str(kept["space"]))
    networks = [space.candidate(json.loads(str(text))).architecture for text in kept["decisions"]]
    accuracy = kept["curves"][:, :, ACCURACY].max(axis=1)
    scores, seconds = {}, {}
    for name in SCORES:
        start = time.process_time()
        scores[name] = np.array([np.mean([score_of(a, name, seed=s) for s in range(seeds)]) for a in networks])
        seconds[name] = (time.process_time() - start) / len(networks) / seeds
    rows = [(*row, f"{seconds[row[0]]:.3f}") for row in correlations(scores, accuracy)]
    return [
        f"## {len(networks)} networks trained here for {kept['curves'].shape[1]} epochs, our own scores",
        "",
        f"Best validation accuracy of each; scores are means over {seeds} draws of weights, naswot on {PICTURES} pictures of "
        "noise.",
        "",
        *table((*CORRELATIONS, "seconds a network"), rows),
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--table", type=Path, default=Path("nasbench201.npz"), help="NAS-Bench-201 with scores")
    parser.add_argument("--curves", type=Path, default=CURVES, help="what stopping.py recorded")
    parser.add_argument("--pools", type=int, default=2000)
    parser.add_argument("--networks", type=int, default=200, help="of NAS-Bench-201 that are built")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        "# Scores of untrained networks",
        "",
        f"torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()} CPU, "
        f"{time.strftime('%Y-%m-%d')}. Made by `python benchmarks/screen.py`.",
        "",
    ]
    for path, part, count in (
        (arguments.table, on_table, arguments.pools),
        (arguments.table, on_cells, arguments.networks),
        (arguments.curves, on_curves, arguments.seeds),
    ):
        lines += part(path, count) if path.exists() else [f"{path.name} is not there: its part is left out.", ""]
    arguments.out.write_text("\n".join(lines).rstrip() + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
