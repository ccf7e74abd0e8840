"""What ``classic.py`` measured: hypervolume over time, who reaches what when, as a table and as a picture.

A run is what one way did with one seed: ``{"arm", "seed", "seconds", "trials": [[seconds, key, f1, params], …], …}``, with the
values that the way itself recorded. Networks are by their keys ``{"params", "test": {"f1", …}, …}``: what the training gave
that is the same for all.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from archtuna.objective import hypervolume, pareto_ranks

Run = Mapping[str, Any]
Networks = Mapping[str, Mapping[str, Any]]
Curve = list[tuple[float, float]]

CLASSIC, OURS, BAR = "classic", "ours", 0.2


# --- scoring ---------------------------------------------------------------------------------------------


def fronts(run: Run) -> Iterator[tuple[float, list[str]]]:
    """Yield the front of F1 and parameters, by the run's own record, after each trial: seconds and keys."""
    trials = run["trials"]
    points = np.array([[-f1, params] for _, _, f1, params in trials]).reshape(-1, 2)
    for count, (seconds, *_) in enumerate(trials, 1):
        ranks = pareto_ranks(points[:count])
        yield seconds, [trials[i][1] for i in np.flatnonzero(ranks == 0)]


def ever_on_front(run: Run) -> set[str]:
    return {key for _, keys in fronts(run) for key in keys}


def curve(run: Run, networks: Networks, limit: float) -> Curve:
    """Return the hypervolume of the run's front over time, by what its networks are worth when trained the same way.

    Args:
        limit: parameters at which a network counts nothing; one of F1 1 and no parameters would give 1.
    """

    def volume(keys: list[str]) -> float:
        points = np.array([[-networks[key]["test"]["f1"], networks[key]["params"]] for key in keys])
        return hypervolume(points, (-1.0, 0.0), (0.0, limit))

    return [(seconds, volume(keys)) for seconds, keys in fronts(run)]


def reached(steps: Curve, target: float) -> float:
    """Return when a curve first comes to a value, or infinity."""
    return next((seconds for seconds, value in steps if value >= target), math.inf)


def held(steps: Curve, target: float) -> float:
    """Return from when on a curve stays at a value or above, or infinity."""
    since = math.inf
    for seconds, value in steps:
        since = min(since, seconds) if value >= target else math.inf
    return since


def value_at(steps: Curve, seconds: float) -> float:
    return next((value for at, value in reversed(steps) if at <= seconds), 0.0)


def twice(run: Run) -> int:
    """Return how many trainings were of a network that the run had trained before."""
    return len(run["trials"]) - len({key for _, key, _, _ in run["trials"]})


class Scores:
    """Every run beside the classic one of its seed.

    Args:
        record: what ``classic.py`` keeps.
        limit: see ``curve``.
    """

    def __init__(self, record: Mapping[str, Any], limit: float) -> None:
        self.limit, networks = limit, record["networks"]
        self.runs = {(run["arm"], run["seed"]): run for run in record["runs"]}
        self.curves = {place: curve(run, networks, limit) for place, run in self.runs.items()}
        self.arms = sorted(
            {arm for arm, _ in self.runs}, key=lambda arm: (arm != CLASSIC, arm != OURS, arm == "all-off", arm)
        )

    def seeds(self, arm: str) -> list[int]:
        """Return the seeds that an arm and the classic way have in common."""
        return sorted(seed for name, seed in self.runs if name == arm and (CLASSIC, seed) in self.runs)

    def target(self, seed: int) -> float:
        """The hypervolume that the classic way ends with."""
        return value_at(self.curves[CLASSIC, seed], math.inf)

    def share(self, arm: str, seed: int, when: Any = reached) -> float:
        """Return the share of the classic way's time after which an arm has the classic way's last hypervolume."""
        return when(self.curves[arm, seed], self.target(seed)) / self.runs[CLASSIC, seed]["seconds"]

    def shares(self, arm: str, when: Any = reached) -> list[float]:
        return [self.share(arm, seed, when) for seed in self.seeds(arm)]

    def longest(self, arm: str) -> float:
        """The share of the classic way's time that an arm had, in the median."""
        pairs = [(self.runs[arm, seed]["seconds"], self.runs[CLASSIC, seed]["seconds"]) for seed in self.seeds(arm)]
        return statistics.median(mine / classic for mine, classic in pairs)


# --- table -----------------------------------------------------------------------------------------------


def table(record: Mapping[str, Any], conditions: str) -> str:
    """Return the report as Markdown."""
    settings = record["settings"]
    scores, wide = Scores(record, settings["limit"]), Scores(record, settings["largest"])
    return "\n".join([
        "# Against the classic way",
        "",
        *_introduction(settings),
        "",
        conditions,
        "",
        "![Hypervolume over time](classic.svg)",
        "",
        _verdict(scores),
        "",
        *_by_seed(scores),
        "",
        *_by_part(scores, wide),
        "",
    ])  # fmt: skip


def _introduction(settings: Mapping[str, Any]) -> list[str]:
    return [
        f"{settings['pictures']['train']:,} pictures to train on, {settings['pictures']['val']:,} for validation, "
        f"{settings['pictures']['test']:,} for the test, {settings['classes']} classes ({settings['data']}), "
        f"{settings['size']}×{settings['size']} pixels, {settings['epochs']} epochs; the space is `benchmarks/classic.yaml`.",
        f"The classic way (`classic_way.py`): {settings['trials']} trials or {settings['classic_time']:g} s, whichever comes "
        f"first. Ours (`classic_ours.py`): {settings['time']:g} s. Time runs from the start of the process, imports and "
        "the first decoding of the pictures included.",
        "Both record F1 on the validation pictures; their fronts of (F1, parameters) are by these records. Every network that "
        "was ever on one was then trained once more, by the same training with a seed that no search used; the hypervolume "
        f"is of its F1 on the test pictures and its parameters, on a linear scale up to {settings['limit']:,}.",
    ]


def _verdict(scores: Scores) -> str:
    shares = scores.shares(OURS)
    median = statistics.median(shares)
    outcome = "met" if median <= BAR else "missed"
    return (
        f"**Ours has the classic way's last hypervolume after {_share(median, scores.longest(OURS))} of its time** (median, "
        f"n = {len(shares)} seeds); the bar of {BAR:g} is {outcome}."
    )


def _by_seed(scores: Scores) -> list[str]:
    lines = [
        "| seed | classic: trained, s | hypervolume | first there after | ours: trained, stopped, s | hypervolume at a fifth "
        "| at the end | reaches the classic's, s | share | stays above from, share |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for seed in scores.seeds(OURS):
        classic, ours = scores.runs[CLASSIC, seed], scores.runs[OURS, seed]
        steps = scores.curves[OURS, seed]
        parts = [
            str(seed), f"{len(classic['trials'])}, {classic['seconds']:.0f}", f"{scores.target(seed):.4f}",
            f"{scores.share(CLASSIC, seed):.2f}",
            f"{len(ours['trials'])}, {ours['counts'].get('stopped', 0)}, {ours['seconds']:.0f}",
            f"{value_at(steps, BAR * classic['seconds']):.4f}", f"{value_at(steps, math.inf):.4f}",
            _number(reached(steps, scores.target(seed)), "{:.0f}"),
            *(_share(scores.share(OURS, seed, when), scores.longest(OURS)) for when in (reached, held)),
        ]  # fmt: skip
        lines.append("| " + " | ".join(parts) + " |")
    return lines


def _by_part(scores: Scores, wide: Scores) -> list[str]:
    lines = [
        "What each part buys: the same search with that part switched off. Shares are of the classic way's time, medians with "
        f"range; the last column has the hypervolume up to the space's largest network, {wide.limit:,} parameters.",
        "",
        "| way | reaches the classic's hypervolume, share | times all parts | stays above from, share "
        "| trained a minute | stopped | trained twice | n | share, wide box |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for arm in (arm for arm in scores.arms if scores.seeds(arm)):
        runs = [scores.runs[arm, seed] for seed in scores.seeds(arm)]
        longest = scores.longest(arm)
        parts = [
            arm, _spread(scores.shares(arm), longest), _number(_times(scores, arm), "{:.1f}"),
            _spread(scores.shares(arm, held), longest),
            f"{statistics.median(60 * len(run['trials']) / run['seconds'] for run in runs):.1f}",
            f"{statistics.median(run['counts'].get('stopped', 0) for run in runs):g}",
            f"{statistics.median(map(twice, runs)):g}", str(len(runs)), _spread(wide.shares(arm), longest),
        ]  # fmt: skip
        lines.append("| " + " | ".join(parts) + " |")
    return lines


def _times(scores: Scores, arm: str) -> float:
    """Return how many times as long an arm takes as ours, in the median of the seeds in which ours arrives."""
    both = set(scores.seeds(arm)) & set(scores.seeds(OURS))
    ratios = [
        scores.share(arm, seed) / scores.share(OURS, seed) for seed in both if math.isfinite(scores.share(OURS, seed))
    ]
    return statistics.median(ratios) if ratios else math.inf


def _spread(shares: Sequence[float], longest: float) -> str:
    middle, low, high = (_share(f(shares), longest) for f in (statistics.median, min, max))
    return f"**{middle}** ({low}–{high})"


def _share(value: float, longest: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else f"> {longest:.2f}"


def _number(value: float, form: str) -> str:
    return form.format(value) if math.isfinite(value) else "never"


# --- picture ---------------------------------------------------------------------------------------------

INK, PAPER, GRID = "#222222", "#ffffff", "#dddddd"
COLOURS = {CLASSIC: "#d55e00", OURS: "#0072b2"}
OTHER = "#777777"


class Axes:
    """A rectangle of a picture in the units of its data; ``add`` takes elements in pixels."""

    def __init__(self, box: tuple[float, float, float, float], x: tuple[float, float], y: tuple[float, float]) -> None:
        self.left, self.top, self.width, self.height = box
        self.x, self.y = x, y
        self.elements: list[str] = []

    def place(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return self.left + across * self.width, self.top + (1 - up) * self.height

    def path(self, points: Iterable[tuple[float, float]]) -> str:
        return " ".join("{:.1f},{:.1f}".format(*self.place(*point)) for point in points)

    def line(self, points: Iterable[tuple[float, float]], colour: str, width: float = 2, dash: str = "") -> None:
        style = f'fill="none" stroke="{colour}" stroke-width="{width}" stroke-dasharray="{dash}"'
        self.elements.append(f'<polyline points="{self.path(points)}" {style}/>')

    def area(self, points: Iterable[tuple[float, float]], colour: str) -> None:
        self.elements.append(f'<polygon points="{self.path(points)}" fill="{colour}" fill-opacity="0.18"/>')

    def text(
        self, x: float, y: float, words: str, colour: str = INK, anchor: str = "start", shift: Any = (0, 0)
    ) -> None:
        across, down = self.place(x, y)
        where = f'x="{across + shift[0]:.1f}" y="{down + shift[1]:.1f}" fill="{colour}" text-anchor="{anchor}"'
        self.elements.append(f"<text {where}>{words}</text>")

    def ticks_x(self, words: str) -> None:
        for value in _ticks(*self.x):
            self.line([(value, self.y[0]), (value, self.y[1])], GRID, 1)
            self.text(value, self.y[0], f"{value:g}", anchor="middle", shift=(0, 18))
        self.text(sum(self.x) / 2, self.y[0], words, anchor="middle", shift=(0, 40))

    def ticks_y(self) -> None:
        for value in _ticks(*self.y):
            self.line([(self.x[0], value), (self.x[1], value)], GRID, 1)
            self.text(self.x[0], value, f"{value:g}", anchor="end", shift=(-8, 4))


def _ticks(low: float, high: float) -> list[float]:
    """Return four to nine round numbers between two."""
    rough = (high - low) / 5
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough)
    return [round(i * step, 10) for i in range(math.ceil(low / step), math.floor(high / step + 1e-9) + 1)]


def picture(record: Mapping[str, Any]) -> str:
    """Return the curves, and what each part buys, as an SVG."""
    scores = Scores(record, record["settings"]["limit"])
    width, height = 1080, 470
    elements = [*_curves(scores, (70, 60, 540, 330)), *_bars(scores, (760, 60, 290, 330))]
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="14">',
        f'<rect width="{width}" height="{height}" fill="{PAPER}"/>',
        *elements,
        "</svg>",
        "",
    ])  # fmt: skip


def _curves(scores: Scores, box: tuple[float, float, float, float]) -> list[str]:
    seeds = scores.seeds(OURS)
    classic_time = statistics.median(scores.runs[CLASSIC, seed]["seconds"] for seed in seeds)
    times = np.linspace(0, classic_time, 300)
    bands = {arm: _quartiles(scores, arm, seeds, times) for arm in (CLASSIC, OURS)}
    bottom, top = _range(np.concatenate([band[:, times > 0.03 * classic_time].ravel() for band in bands.values()]))
    axes = Axes(box, (0, classic_time), (bottom, top + 0.05 * (top - bottom)))
    axes.ticks_x("seconds")
    axes.ticks_y()
    target = statistics.median(map(scores.target, seeds))
    axes.line([(0, target), (classic_time, target)], COLOURS[CLASSIC], 1, "4 4")
    fifth = BAR * classic_time
    axes.line([(fifth, axes.y[0]), (fifth, axes.y[1])], INK, 1, "4 4")
    axes.text(fifth, axes.y[0], "a fifth of the classic way's time", shift=(6, -8))
    for arm, (low, middle, high) in bands.items():
        low, middle, high = (np.clip(line, bottom, None) for line in (low, middle, high))
        outline = [*zip(times, high, strict=True), *zip(times[::-1], low[::-1], strict=True)]
        axes.area(outline, COLOURS[arm])
        axes.line(zip(times, middle, strict=True), COLOURS[arm])
        ended = statistics.median(scores.runs[arm, seed]["seconds"] for seed in seeds)
        if ended < 0.95 * classic_time:
            axes.text(ended, value_at(list(zip(times, middle, strict=True)), ended), "search ends", COLOURS[arm],
                      shift=(4, 18))  # fmt: skip
            across, down = axes.place(ended, value_at(list(zip(times, middle, strict=True)), ended))
            axes.elements.append(f'<circle cx="{across:.1f}" cy="{down:.1f}" r="4" fill="{COLOURS[arm]}"/>')
    title = f"Hypervolume of (F1, parameters): median and quartiles of {len(seeds)} seeds"
    axes.text(0, axes.y[1], title, shift=(-40, -30))
    for place, (arm, words) in enumerate(((CLASSIC, "the classic way"), (OURS, "ours"))):
        axes.text(0, axes.y[1], f"— {words}", COLOURS[arm], shift=(150 * place, -10))
    return axes.elements


def _range(values: np.ndarray) -> tuple[float, float]:
    """Return from where to where curves are drawn: their lowest values, just after the start, are left out."""
    top = float(values.max()) or 1.0
    positive = values[values > 0]
    return max(0.0, float(np.quantile(positive, 0.02)) - 0.1 * top) if len(positive) else 0.0, top


def _quartiles(scores: Scores, arm: str, seeds: Sequence[int], times: np.ndarray) -> np.ndarray:
    """Return quartiles over the seeds (3 × times); a search that has ended keeps what it had."""
    values = [[value_at(scores.curves[arm, seed], t) for t in times] for seed in seeds]
    return np.quantile(values, (0.25, 0.5, 0.75), axis=0)


def _bars(scores: Scores, box: tuple[float, float, float, float]) -> list[str]:
    arms = [arm for arm in scores.arms if arm != CLASSIC and scores.seeds(arm)]
    end = 1.1 * max(BAR, *(scores.longest(arm) for arm in arms))
    axes = Axes(box, (0, end), (len(arms), 0))
    axes.y = (float(len(arms)), 0.0)
    axes.ticks_x("share of the classic way's time")
    axes.line([(BAR, 0), (BAR, len(arms))], INK, 1, "4 4")
    for row, arm in enumerate(arms):
        colour = COLOURS.get(arm, OTHER)
        median = min(statistics.median(scores.shares(arm)), end)
        axes.area([(0, row + 0.2), (median, row + 0.2), (median, row + 0.8), (0, row + 0.8)], colour)
        axes.line([(median, row + 0.2), (median, row + 0.8)], colour, 3)
        axes.text(0, row + 0.5, arm if arm == OURS else arm.replace("-", " "), colour, "end", (-8, 5))
        for share in scores.shares(arm):
            across, down = axes.place(min(share, end), row + 0.5)
            fill = colour if math.isfinite(share) else PAPER
            axes.elements.append(f'<circle cx="{across:.1f}" cy="{down:.1f}" r="3.5" fill="{fill}" stroke="{colour}"/>')
    axes.text(0, 0, "Time to the classic way's last hypervolume", shift=(-90, -30))
    axes.text(0, 0, "lines: medians; points: seeds, hollow: not reached", OTHER, shift=(-90, -10))
    return axes.elements
