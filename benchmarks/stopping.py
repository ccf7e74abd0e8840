"""Early stopping: learning curves of real networks, and what stopping saves on them.

    python benchmarks/stopping.py record [--networks 128] [--data cifar10_5k1k.npz]
    python benchmarks/stopping.py replay
    python benchmarks/stopping.py run [--trials 24] [--seed 0 1 2] [--data cifar10_5k1k.npz]
    python benchmarks/stopping.py cost --storage postgresql://…

``record`` trains networks of a space of 3·10^8 in full, without stopping any, and writes what each epoch came to, and
``replay`` plays these curves in many orders on many workers. ``run`` searches that space, once without stopping and once with
it until the same hypervolume, and ``cost`` times a report at a rung.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from archtuna.objective import Objective, hypervolume, objectives_of, pareto_ranks
from archtuna.schedule import Peers, Report, Schedule, decide

RESULTS = Path(__file__).parent / "results"
CURVES = RESULTS / "stopping_curves.npz"
QUALITIES = ("loss", "f1", "accuracy")
COSTS = ("params", "macs", "size_mb")
EPOCHS = 27
RUNNING = 15
SPACE = f"""
input_channel: 3
input_size: 24
backbone:
  - [1, Conv, [8|12|16|24, 3, 2, null, 1, ReLU|HardSwish]]
  - any:
      - [1..2, InvertedResidualv3, [3|5, 1|2|4, 12|16|24, 0|1, 1, 1|2]]
      - [1..2, Conv, [12|16|24, 3, 1|2]]
      - [1..2, DWConv, [16|24|32, 3|5, 1|2]]
  - any:
      - [1..3, InvertedResidualv3, [3|5, 2|3|4|6, 24|32|48, 0|1, 1, 2]]
      - [1..2, Conv, [24|32|48, 3, 2]]
      - [1..2, Bottleneck, [24|32|48]]
  - [1..3, InvertedResidualv3, [3|5, 2|3|4|6, 32|48|64, 0|1, 1, 2]]
  - [1, Conv, [48|64|96|128, 1, 1]]
  - [1, GlobalAvgPool, []]
  - [1, Flatten, []]
  - [1, Linear, [10]]
training: {{epochs: {EPOCHS}, batch_size: 64|128, optimizer: adamw, lr: 0.0005..0.02 log, augment: flip}}
"""


# --- record -----------------------------------------------------------------------------------------


def spread(low: float, high: float, networks: int, seed: int) -> Iterator[tuple[Any, dict[str, float]]]:
    """Yield random networks whose MACs lie evenly, on a logarithmic scale, between two bounds, in a random order."""
    from archtuna.costs import costs_of
    from archtuna.space import SearchSpace

    space, draws = SearchSpace.read(SPACE), random.Random(seed)
    places = [(i + 0.5) / networks for i in range(networks)]
    draws.shuffle(places)
    for place in places:
        wanted = math.log(low) + place * math.log(high / low)
        while True:
            candidate = space.random(draws)
            costs = dict(costs_of(candidate.architecture))
            if abs(math.log(costs["macs"]) - wanted) < 0.05:
                yield candidate, costs
                break


def record(data: Path, networks: int, seed: int, notes: Path) -> None:
    """Train each network in full and write its curve to ``notes``, a line a network; go on where an earlier call ended."""
    import torch

    from archtuna.data import Data
    from archtuna.evaluate import TrainEvaluator

    torch.set_num_threads(1)
    pictures = Data.open(data)
    evaluator = TrainEvaluator(pictures, pictures.split(), objectives=objectives_of(QUALITIES), device="cpu")
    done = len(notes.read_text().splitlines()) if notes.exists() else 0
    for i, (candidate, costs) in enumerate(spread(1.5e5, 1.5e6, networks, seed)):
        if i < done:
            continue
        start = time.process_time()
        curve = [[p.metrics[q] for q in QUALITIES] for p in evaluator.evaluate(candidate)]
        seconds = (time.process_time() - start) / EPOCHS
        line = {"curve": curve, "costs": costs, "seconds": seconds, "decisions": dict(candidate.decisions)}
        with notes.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(f"{i + 1}/{networks}: {costs['macs']:,} MACs, {seconds:.2f} s an epoch, {curve[-1]}", flush=True)


def pack(notes: Path, out: Path) -> None:
    """Write the curves as one small file."""
    lines = [json.loads(line) for line in notes.read_text().splitlines()]
    np.savez_compressed(
        out,
        curves=np.array([line["curve"] for line in lines], dtype=np.float32),
        costs=np.array([[line["costs"][c] for c in COSTS] for line in lines]),
        seconds=np.array([line["seconds"] for line in lines], dtype=np.float32),
        decisions=np.array([json.dumps(line["decisions"]) for line in lines]),
        space=SPACE,
    )


# --- replay -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pool:
    """Recorded networks as a study of some objectives sees them; smaller is better.

    Attributes:
        objectives: of the study.
        best: the best epoch so far by the first quality: networks × epochs × qualities.
        hints: the logarithm of the learning rate: networks × 1.
        costs: networks × costs.
        seconds: how long an epoch takes, in proportion to MACs.
        worst: of each value, for the hypervolume.
    """

    objectives: Sequence[Objective]
    best: np.ndarray
    hints: np.ndarray
    costs: np.ndarray
    seconds: np.ndarray
    worst: np.ndarray

    @classmethod
    def read(cls, path: Path, names: Sequence[str]) -> Pool:
        """Read what ``record`` wrote."""
        kept, objectives = np.load(path), objectives_of(names)
        qualities = [o for o in objectives if o.kind == "quality"]
        curves = np.stack([o.sign * kept["curves"][:, :, QUALITIES.index(o.name)] for o in qualities], axis=-1)
        costs = kept["costs"][:, [COSTS.index(o.name) for o in objectives if o.kind == "cost"]]
        first = curves[:, :, 0].astype(float)
        # The earliest epoch that is as good as the best so far is the one that is kept.
        kept_epochs = np.array([[row[: e + 1].argmin() for e in range(len(row))] for row in first])
        best = np.take_along_axis(curves.astype(float), kept_epochs[:, :, None], axis=1)
        worst = [math.log(10) if o.name == "loss" else 0.0 for o in qualities]
        macs = kept["costs"][:, COSTS.index("macs")]
        hints = np.log([[json.loads(text)["training.lr"]] for text in kept["decisions"]])
        return cls(objectives, best, hints, costs, macs / macs.mean(), np.array([*worst, *costs.max(axis=0) * 1.001]))

    @property
    def epochs(self) -> int:
        return self.best.shape[1]

    @cached_property
    def points(self) -> np.ndarray:
        """What each network comes to in full: networks × values."""
        return np.hstack([self.best[:, -1], self.costs])

    def hypervolume(self, networks: Sequence[int]) -> float:
        qualities = [o for o in self.objectives if o.kind == "quality"]
        ideal = [0.0 if o.name == "loss" else -1.0 for o in qualities] + [0.0] * self.costs.shape[1]
        return hypervolume(self.points[list(networks)], ideal, self.worst) if len(networks) else 0.0

    def front(self, networks: np.ndarray) -> set[int]:
        return set(networks[pareto_ranks(self.points[networks]) == 0].tolist())


@dataclass
class Table:
    """What is known at a moment of a replay."""

    pool: Pool
    rungs: tuple[int, ...]
    came: np.ndarray
    full: np.ndarray

    def peers(self, level: int, besides: int) -> Peers:
        others = self.came[:, level].copy()
        others[besides] = False
        found = np.flatnonzero(others)
        finals = np.where(self.full[found, None], self.pool.best[found, -1], np.nan)
        epoch = self.rungs[level] - 1
        return Peers(self.pool.best[found, epoch], self.pool.hints[found], self.pool.costs[found], finals)

    def report(self, network: int, level: int) -> Report:
        qualities = [o for o in self.pool.objectives if o.kind == "quality"]
        epoch, pool = self.rungs[level], self.pool
        at = pool.best[network, epoch - 1], pool.hints[network], pool.costs[network]
        return Report(epoch, *at, qualities)


Rule = Callable[[Report, Peers], bool]


def never(report: Report, peers: Peers) -> bool:
    return False


def ours(report: Report, peers: Peers) -> bool:
    return decide(report, peers).stop


def pareto_asha(report: Report, peers: Peers, eta: int = 3) -> bool:
    """Asynchronous halving by Pareto rank over all objectives, costs among them; crowding distance breaks ties."""
    mine = np.hstack([report.values, report.costs])
    points = np.vstack([mine, np.hstack([peers.values, peers.costs])])
    ranks, keep = pareto_ranks(points), max(1, len(points) // eta)
    better = int((ranks < ranks[0]).sum())
    if len(points) <= eta or better + int((ranks == ranks[0]).sum()) <= keep:
        return False
    distances = crowding(points[ranks == ranks[0]])  # This trial is the first of them.
    return better + int((distances > distances[0]).sum()) >= keep


def crowding(points: np.ndarray) -> np.ndarray:
    """Return the crowding distance of each point (Deb et al. 2002, NSGA-II, section III-B)."""
    distances = np.zeros(len(points))
    for values in points.T:
        order = np.argsort(values, kind="stable")
        distances[order[[0, -1]]] = np.inf
        gaps = (values[order[2:]] - values[order[:-2]]) / max(np.ptp(values), 1e-12)
        distances[order[1:-1]] += gaps
    return distances


def halving(report: Report, peers: Peers, eta: int = 3) -> bool:
    """Asynchronous halving among those that are no dearer: the third goes on that is dominated by the fewest."""
    no_dearer = (peers.costs <= report.costs).all(axis=1)
    beaten = (no_dearer & (peers.values <= report.values).all(axis=1)).sum()
    return no_dearer.sum() >= eta and beaten >= (no_dearer.sum() + 1) / eta


@dataclass(frozen=True)
class Replay:
    """One replay: when each network started, how many epochs it got, and when those in full were complete."""

    pool: Pool
    started: dict[int, float]
    trained: dict[int, int]
    complete: list[tuple[float, int]]

    def reached(self, wanted: float) -> float | None:
        """Return when the hypervolume came to what is wanted, or None."""
        networks = [network for _, network in self.complete]
        if self.pool.hypervolume(networks) < wanted:
            return None
        low, high = 0, len(networks)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.pool.hypervolume(networks[:middle]) >= wanted else (middle, high)
        return self.complete[high - 1][0]

    def spent(self, moment: float) -> float:
        """Return the epochs that all workers together had trained by then."""
        networks = np.array(list(self.started))
        seconds, trained = self.pool.seconds[networks], np.array([self.trained[n] for n in networks])
        epochs = (moment - np.array(list(self.started.values()))) / seconds
        return float(np.floor(np.clip(epochs + 1e-9, 0, trained)).sum())


def replay(pool: Pool, order: Sequence[int], rungs: tuple[int, ...], rule: Rule, workers: int) -> Replay:
    """Train recorded networks in an order, on several workers that wait for nobody, and stop those that a rule stops."""
    table = Table(pool, rungs, np.zeros((len(pool.best), len(rungs)), bool), np.zeros(len(pool.best), bool))
    ends, waiting, events = (*rungs, pool.epochs), iter(order), list[tuple[float, int, int]]()
    run = Replay(pool, {}, {}, [])

    def begin(moment: float) -> None:
        network = next(waiting, None)
        if network is not None:
            run.started[network] = moment
            heapq.heappush(events, (moment + ends[0] * pool.seconds[network], network, 0))

    for _ in range(workers):
        begin(0.0)
    while events:
        moment, network, level = heapq.heappop(events)
        stop = False
        if level == len(rungs):
            table.full[network] = True
            run.complete.append((moment, network))
        else:
            table.came[network, level] = True
            stop = rule(table.report(network, level), table.peers(level, network))
        if stop or level == len(rungs):
            run.trained[network] = ends[level]
            begin(moment)
        else:
            rest = (ends[level + 1] - ends[level]) * pool.seconds[network]
            heapq.heappush(events, (moment + rest, network, level + 1))
    return run


@dataclass(frozen=True)
class Figures:
    """What a rule came to, each a mean over replays or a median where it says so, as shares of no stopping on the same order.

    Attributes:
        epochs, seconds: of all networks; seconds count MACs.
        late: epochs of the last third of the networks.
        volume: the hypervolume in the end.
        front: networks of the unstopped front that were stopped.
        same: median of the epochs to the hypervolume that the first three quarters come to when none is stopped; with
            stopping the order is gone on with for as long as that takes.
        never: replays in which it takes more than all networks.
    """

    epochs: float
    seconds: float
    late: float
    volume: float
    front: float
    same: float
    never: float


RULES: dict[str, tuple[Rule, Schedule]] = {
    "forecast (ours)": (ours, Schedule()),
    "halving among no dearer": (halving, Schedule(first=3, factor=3)),
    "halving by Pareto rank": (pareto_asha, Schedule(first=3, factor=3)),
}


def compare(pool: Pool, rule: Rule, schedule: Schedule, workers: int, orders: int, seed: int = 0) -> Figures:
    """Return what a rule saves and what it costs."""
    everyone, draws = np.arange(len(pool.best)), np.random.default_rng(seed)
    front, rungs, volume = pool.front(everyone), schedule.rungs(pool.epochs), pool.hypervolume(everyone)
    total, rows, sames = pool.seconds.sum() * pool.epochs, [], []
    for _ in range(orders):
        order = draws.permutation(everyone).tolist()
        run = replay(pool, order, rungs, rule, workers)
        trained = np.array([run.trained[network] for network in order]) / pool.epochs
        stopped = {network for network, share in zip(order, trained, strict=True) if share < 1}
        seconds = (trained * pool.seconds[order]).sum() * pool.epochs / total
        late = trained[-len(order) // 3 :].mean()
        kept = pool.hypervolume([network for _, network in run.complete]) / volume
        rows.append([trained.mean(), seconds, late, kept, len(front & stopped) / len(front)])
        sames.append(_to_the_same(pool, run, order[: len(order) * 3 // 4], workers))
    return Figures(*np.mean(rows, axis=0), float(np.median(sames)), float(np.isinf(sames).mean()))


def _to_the_same(pool: Pool, run: Replay, order: Sequence[int], workers: int) -> float:
    """Return the epochs until a replay has the hypervolume of an order that is not stopped, as a share of that one's."""
    plain, wanted = replay(pool, order, (), never, workers), pool.hypervolume(order) * (1 - 1e-12)
    before, after = plain.reached(wanted), run.reached(wanted)
    if before is None or after is None:
        return math.inf
    return run.spent(after) / plain.spent(before)


STUDIES = (("f1", "params"), ("f1", "macs", "params"), ("loss", "f1", "accuracy", "params"))


SETTINGS = {
    **{f"first rung at epoch {first}": Schedule(first=first) for first in (1, 2, 3, 5, 9)},
    **{f"factor {factor:g}": Schedule(factor=factor) for factor in (1.5, 3.0)},
}


def report(curves: Path, orders: int) -> Iterator[str]:
    """Yield the comparison as a table."""
    yield "| objectives | workers | rule | epochs | time | late epochs | hypervolume | front stopped | to the same | never |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for names in STUDIES:
        pool = Pool.read(curves, names)
        for workers in (1, 4, 8, 16):
            for rule, (decides, schedule) in RULES.items():
                f = compare(pool, decides, schedule, workers, orders)
                yield (
                    f"| {', '.join(names)} | {workers} | {rule} | {f.epochs:.2f} | {f.seconds:.2f} | {f.late:.2f} "
                    f"| {f.volume:.4f} | {f.front:.1%} | {f.same:.2f} | {f.never:.0%} |"
                )

    yield ""
    yield "| setting, f1, params, 4 workers | epochs | late epochs | hypervolume | front stopped |"
    yield "|---|---|---|---|---|"
    pool = Pool.read(curves, STUDIES[0])
    for setting, schedule in SETTINGS.items():
        f = compare(pool, ours, schedule, 4, orders)
        yield f"| {setting} | {f.epochs:.2f} | {f.late:.2f} | {f.volume:.4f} | {f.front:.1%} |"


# --- run --------------------------------------------------------------------------------------------


@dataclass
class Course:
    """The hypervolume of a search over the epochs that its workers trained, taken from its events."""

    until: float = math.inf
    budget: float = math.inf
    epochs: int = 0
    steps: list[tuple[int, float]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def take(self, event: dict[str, Any]) -> None:
        """Take an event in, and end the search once it has come to what is wanted or has spent what it may."""
        if event["event"] == "epoch":
            self.epochs += 1
        elif event["event"] == "front":
            self.steps.append((self.epochs, event["hypervolume"]))
        elif event["event"] == "end":
            self.counts = event["trials"]
        if event["event"] in ("complete", "stopped", "front") and (
            self.volume >= self.until or self.epochs >= self.budget
        ):
            signal.raise_signal(signal.SIGINT)
            self.until = self.budget = math.inf

    @property
    def volume(self) -> float:
        return self.steps[-1][1] if self.steps else 0.0

    def reached(self, wanted: float) -> int | None:
        return next((epochs for epochs, volume in self.steps if volume >= wanted), None)


def run(data: Path, seed: int, trials: int, workers: int, sampler: str, names: Sequence[str], fraction: float) -> str:
    """Search the space twice with one sampler and seed; return a table's row: epochs to the same hypervolume."""
    from archtuna.driver import search

    def course(stopping: bool, limit: int, watch: Course) -> Course:
        with TemporaryDirectory() as folder:
            search(
                SPACE, data, out=Path(folder) / "run", objectives=names, limits=["macs <= 1.5M"], trials=limit, seed=seed,
                sampler=sampler, workers=workers, stopping=stopping, fraction=fraction, on_event=watch.take,
            ).close()  # fmt: skip
        return watch

    plain = course(False, trials, Course())
    wanted = plain.volume
    stopping = course(True, 10 * trials, Course(until=wanted, budget=plain.epochs))
    before, after = plain.reached(wanted), stopping.reached(wanted)
    share = f"{after / before:.2f}" if after and before else "not reached"
    counts = stopping.counts
    return (
        f"| {seed} | {wanted:.4f} | {before} | {stopping.volume:.4f} | {after or stopping.epochs} | {share} "
        f"| {counts.get('complete')} complete, {counts.get('stopped')} stopped |"
    )


# --- cost -------------------------------------------------------------------------------------------


def cost(storage: str, trials: int, count: int) -> list[str]:
    """Return how long a report at a rung and its decision take in a study of so many trials."""
    import optuna
    from optuna.trial import TrialState, create_trial

    from archtuna.rungs import RungTable
    from archtuna.storage import Attr, open_storage

    objectives = objectives_of(("f1", "macs", "params"))
    opened = open_storage(storage, Path())
    name = f"cost-{time.time_ns()}"
    study = optuna.create_study(storage=opened, study_name=name, directions=[o.direction for o in objectives])
    study.add_trials(_trials(trials))
    for trial in _trials(RUNNING):  # Other workers' trials, which every read brings anew.
        born = create_trial(state=TrialState.RUNNING, user_attrs=trial.user_attrs)
        opened.create_new_trial(study._study_id, template_trial=born)
    running = study.ask()
    table, seconds = RungTable(objectives), {"write": [], "read": [], "decide": []}
    for i in range(count + 1):
        best = {"f1": 0.4 + 1e-4 * i}
        marks = [time.perf_counter()]
        opened.set_trial_user_attr(running._trial_id, Attr.RUNGS, {"3": best, "6": best})
        marks.append(time.perf_counter())
        seen = study.get_trials(deepcopy=False)
        marks.append(time.perf_counter())
        peers = table.peers(seen, EPOCHS, level=1, besides=running.number)
        decide(table.report(6, best, {"params": 5e4, "macs": 5e5}, lr=0.002), peers)
        marks.append(time.perf_counter())
        if i:  # The first reads everything, as a worker does once.
            for part, a, b in zip(seconds, marks, marks[1:], strict=False):
                seconds[part].append(1e3 * (b - a))
    optuna.delete_study(study_name=name, storage=opened)
    total = np.array(list(seconds.values())).sum(axis=0)
    rows = [*seconds.items(), ("together", total)]
    return [f"| {part} | {np.median(ms):.1f} | {np.quantile(ms, 0.9):.1f} |" for part, ms in rows]


def _trials(number: int) -> list[Any]:
    """Return finished trials as a search leaves them: a quarter in full, the others stopped at one of two rungs."""
    from optuna.trial import TrialState, create_trial

    from archtuna.space import SearchSpace
    from archtuna.storage import Attr

    space, draws, made = SearchSpace.read(SPACE), random.Random(0), []
    architecture = json.dumps(space.random(draws).architecture.to_dict())
    for i in range(number):
        f1, costs = draws.uniform(0.3, 0.5), {"params": draws.uniform(1e4, 1e5), "macs": draws.uniform(1e5, 1e6)}
        rungs = {str(rung): {"f1": f1 + 0.01 * k} for k, rung in enumerate((3, 6, 12)[: 1 + i % 4])}
        recipe = {"lr": 0.002, "epochs": EPOCHS}
        attrs = {Attr.COSTS: costs, Attr.RUNGS: rungs, Attr.ARCHITECTURE: architecture, Attr.RECIPE: recipe}
        full = i % 4 == 3
        values = [f1, costs["macs"], costs["params"]] if full else None
        state = TrialState.COMPLETE if full else TrialState.PRUNED
        made.append(create_trial(state=state, values=values, user_attrs=attrs))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    add = verbs.add_parser("record")
    add.add_argument("--data", type=Path, default=Path("cifar10_5k1k.npz"))
    add.add_argument("--networks", type=int, default=128)
    add.add_argument("--seed", type=int, default=0)
    add.add_argument("--notes", type=Path, default=Path("stopping_curves.jsonl"))
    add = verbs.add_parser("replay")
    add.add_argument("--curves", type=Path, default=CURVES)
    add.add_argument("--orders", type=int, default=200)
    add = verbs.add_parser("run")
    add.add_argument("--data", type=Path, default=Path("cifar10_5k1k.npz"))
    add.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2])
    add.add_argument("--trials", type=int, default=24)
    add.add_argument("--workers", type=int, default=1)
    add.add_argument("--sampler", default="known-costs")
    add.add_argument("--objectives", default="f1,params")
    add.add_argument("--fraction", type=float, default=1.0, help="of the pictures to train on")
    add = verbs.add_parser("cost")
    add.add_argument("--storage", required=True, help="such as postgresql://…")
    add.add_argument("--trials", type=int, default=5000)
    add.add_argument("--reports", type=int, default=200)
    arguments = parser.parse_args()
    if arguments.verb == "record":
        record(arguments.data, arguments.networks, arguments.seed, arguments.notes)
        pack(arguments.notes, CURVES)
    elif arguments.verb == "replay":
        for line in report(arguments.curves, arguments.orders):
            print(line, flush=True)
    elif arguments.verb == "run":
        print(
            "| seed | hypervolume without | epochs | with | epochs | share | trials with |\n|---|---|---|---|---|---|---|"
        )
        for seed in arguments.seed:
            given = (arguments.data, seed, arguments.trials, arguments.workers, arguments.sampler)
            print(run(*given, arguments.objectives.split(","), arguments.fraction), flush=True)
    else:
        print("\n".join(cost(arguments.storage, arguments.trials, arguments.reports)))


if __name__ == "__main__":
    main()
