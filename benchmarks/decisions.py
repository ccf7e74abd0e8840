"""Samplers on spaces of many conditional decisions, on qualities that nobody has to train for.

    python benchmarks/decisions.py [--spaces classic mobilenetv3] [--samplers …] [--seeds 10] [--trials 400] [--out FILE]

Each seed has a quality of its own (see ``Quality``) on a ready space of ``archtuna init --list``: what a network can hold,
what each decision adds, what pairs of decisions add together, and another noise in each training. Samplers are called by
plain ask and tell, and draw the same parameters. The score is the share of the box that the networks of the observed front
dominate by their qualities without noise, over the most that any sampler came to with that seed.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from archtuna.bench import BUILT_IN, Replay, as_good_as
from archtuna.costs import costs_of
from archtuna.ledger import Ledger
from archtuna.objective import hypervolume, nondominated, objectives_of
from archtuna.proposer import Draw, Proposer
from archtuna.report import bench_lines
from archtuna.sampler import OURS, make_sampler
from archtuna.space import Candidate, SearchSpace
from archtuna.starter import spaces, starter

COSTS = {"params": ("params",), "params x macs": ("params", "macs")}
SPACES = ("classic", "mobilenetv3")
WORST = 0.9
"""Of the error; nine of ten pictures wrong is what guessing gives with ten classes."""


# --- qualities ---------------------------------------------------------------------------------------


class Quality:
    """An error for each network of a space, drawn at random but smooth, as far as trained networks are.

    The log-odds of an error are a sum of

    - capacity: saturating in the logarithms of parameters and MACs, a standard deviation of .8 over random networks;
    - each decision: a concave function of an ordered one, any function of a category; all together .5;
    - as many pairs of decisions as there are decisions, drawn at random: products of such functions; all together .4.

    A decision that is not asked adds nothing. One training's error has the noise of another seed: .025 on the same scale, so
    that 25 % come out as 25 ± .5 %, as the three seeds of NAS-Bench-201 on CIFAR-100 do.

    Args:
        space: whose networks it is of.
        seed: of everything that is drawn.
    """

    NOISE = 0.025

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self.space = space
        rng = self.rng = np.random.default_rng(seed)
        names = [choice.name for choice in space.choices if choice.values() is None or len(choice.values() or ()) > 1]
        self.effects = {name: self._effect(name) for name in names}
        pairs = [tuple(rng.choice(names, 2, replace=False)) for _ in names]
        self.pairs = [(a, b, self._effect(a), self._effect(b)) for a, b in pairs]
        draws = random.Random(seed)
        sample = [space.random(draws) for _ in range(300)]
        sizes = np.array([self._sizes(candidate) for candidate in sample])
        self.low, self.high = np.quantile(sizes, 0.02, axis=0), np.quantile(sizes, 0.98, axis=0)
        parts = np.array([self._parts(candidate) for candidate in sample])
        self.center, spread = parts.mean(axis=0), parts.std(axis=0)
        self.weights = np.array([0.8, 0.5, 0.4]) / spread
        self.largest = np.array([list(costs_of(c.architecture).values()) for c in sample]).max(axis=0)

    def _effect(self, name: str) -> Callable[[Any], float]:
        choice = next(choice for choice in self.space.choices if choice.name == name)
        options = choice.values()
        if options is not None and not all(isinstance(o, int | float) and not isinstance(o, bool) for o in options):
            return dict(zip(options, self.rng.normal(size=len(options)), strict=True)).__getitem__
        scale = math.log if choice.log else float
        numbers = [scale(v) for v in (options or (choice.low, choice.high))]
        best, sign = self.rng.uniform(-0.3, 1.3), self.rng.choice((1.0, 1.0, 1.0, -1.0))
        low, width = min(numbers), max(numbers) - min(numbers)
        return lambda value: sign * (0.5 - 2.0 * ((scale(value) - low) / width - best) ** 2)

    def _sizes(self, candidate: Candidate) -> list[float]:
        costs = costs_of(candidate.architecture)
        return [math.log(costs["params"]), math.log(costs["macs"])]

    def _parts(self, candidate: Candidate) -> list[float]:
        made = candidate.decisions
        place = np.clip((np.array(self._sizes(candidate)) - self.low) / (self.high - self.low), -1.0, 2.0)
        alone = sum(effect(made[name]) for name, effect in self.effects.items() if name in made)
        both = sum(f(made[a]) * g(made[b]) for a, b, f, g in self.pairs if a in made and b in made)
        return [float(1.0 - np.exp(-2.0 * place.mean())), alone, both]

    def log_odds(self, candidate: Candidate) -> float:
        """Return the log-odds of a network's error."""
        return -1.1 - float(self.weights @ (self._parts(candidate) - self.center))

    def error(self, candidate: Candidate, training: int | None = None) -> float:
        """Return a network's error, 0 to 1, as one training has it, or without noise."""
        noise = 0.0 if training is None else self.NOISE * random.Random(f"{training}").gauss(0.0, 1.0)
        return 1.0 / (1.0 + math.exp(-self.log_odds(candidate) - noise))


# --- one search --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """What one search is of."""

    space: str
    costs: str
    sampler: str
    seed: int
    trials: int


@dataclass(frozen=True)
class Search:
    """One search: after each trial the share of the box that is dominated, different networks, seconds of all proposals."""

    work: Work
    shares: tuple[float, ...]
    distinct: int
    seconds: float


def search(work: Work) -> Search:
    """Search a space once by plain ask and tell."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space, objectives = ready(work.space), objectives_of(("loss", *COSTS[work.costs]))
    quality = Quality(space, work.seed)
    ideal, worst = np.zeros(len(objectives)), np.array([WORST, *quality.largest[: len(objectives) - 1]])
    study = optuna.create_study(directions=["minimize"] * len(objectives))
    proposer = Proposer(Ledger(study, objectives), space, costs_of, {}, seed=work.seed)
    study.sampler = sampler_of(work, proposer, list(zip(ideal, worst, strict=True)))
    told, true, keys, shares, seconds = [], [], set(), [], 0.0
    for number in range(work.trials):
        start = time.perf_counter()
        trial = study.ask()
        draw = proposer.draw(trial._suggest)
        seconds += time.perf_counter() - start
        candidate = _whole(draw)
        costs = costs_of(candidate.architecture)
        known = [float(costs[o.name]) for o in objectives[1:]]
        told.append([quality.error(candidate, training=1000 * work.seed + number), *known])
        true.append([quality.error(candidate), *known])
        study.tell(trial, told[-1])
        keys.add(draw.evaluation)
        shares.append(hypervolume(np.array(true)[nondominated(np.array(told))], ideal, worst))
    return Search(work, tuple(shares), len(keys), seconds)


def _whole(draw: Draw) -> Candidate:
    assert draw.candidate is not None, "every network of these spaces builds"
    return draw.candidate


def ready(name: str) -> SearchSpace:
    """Return a ready space for ten classes."""
    network = starter(classes=10, input_size=64, space=name).split("\ndata:")[0]
    return SearchSpace.read(network + "\ntraining: {epochs: 1}\n")


def sampler_of(work: Work, proposer: Proposer, reference: Sequence[tuple[float, float]]) -> optuna.samplers.BaseSampler:
    if work.sampler == "tpe-default":
        return optuna.samplers.TPESampler(seed=work.seed)
    objectives = proposer.ledger.objectives
    network = partial(proposer.point, objectives)
    return make_sampler(work.sampler, objectives=len(objectives), seed=work.seed, network=network, reference=reference)


# --- command -----------------------------------------------------------------------------------------


def replays(done: Sequence[Search]) -> list[Replay]:
    """Return searches with their shares over the most that any came to with the same seed."""
    best: dict[tuple[str, str, int], float] = {}
    for one in done:
        place = one.work.space, one.work.costs, one.work.seed
        best[place] = max(best.get(place, 0.0), one.shares[-1])
    found = []
    for one in done:
        most = best[one.work.space, one.work.costs, one.work.seed]
        scores = tuple(share / most for share in one.shares)
        case = f"error x {one.work.costs}"
        found.append(Replay(one.work.space, case, one.work.sampler, one.work.seed, scores, one.distinct, one.seconds))
    return found


def report(done: Sequence[Search]) -> Iterator[str]:
    """Yield the tables, and by seed after how many trials ours is where the best of the others ends."""
    found = replays(done)
    yield from bench_lines(found)
    yield ""
    for name, case in dict.fromkeys((one.table, one.case) for one in found):
        here = [one for one in found if (one.table, one.case) == (name, case)]
        rivals = sorted({one.sampler for one in here} - {OURS})
        reached = [as_good_as([one for one in here if one.seed == seed], case, OURS, rivals)
                   for seed in dict.fromkeys(one.seed for one in here)]  # fmt: skip
        trials = [place[0] if place else math.inf for place in reached]
        if rivals and trials:
            yield (
                f"{name}, {case}: in each seed, until ours has what the best of the others has in the end of that seed: "
                f"median {statistics.median(trials):g} trials, {min(trials):g} to {max(trials):g}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spaces", nargs="+", default=list(SPACES), choices=list(spaces()))
    parser.add_argument("--costs", nargs="+", default=list(COSTS), choices=list(COSTS))
    parser.add_argument("--samplers", nargs="+", default=[*BUILT_IN, OURS])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="a file that the tables are appended to")
    given = parser.parse_args()
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    works = [Work(*names, given.trials) for names in product(given.spaces, given.costs, given.samplers, seeds)]
    done = []
    with ProcessPoolExecutor(given.workers, mp_context=get_context("spawn")) as pool:
        for one in pool.map(search, works):
            done.append(one)
            print(f"{one.work}: {one.shares[-1]:.4f} in {one.seconds:.0f} s", file=sys.stderr)
    text = "\n".join(report(done))
    print(text)
    if given.out:
        with given.out.open("a", encoding="utf-8") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()
