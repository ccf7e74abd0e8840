"""Commands that search, and show how it goes: search, worker, repeat."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from archtuna.cli.arguments import (
    count,
    count_or_zero,
    flag,
    numbers,
    print_json,
    print_lines,
    redrawing,
    say_notes,
    share,
    silence,
    verb,
)  # fmt: skip
from archtuna.errors import DataError, StudyError


def search(verbs: Any) -> None:
    parser = verb(
        verbs, "search", _run_search,
        "search for the Pareto front: the networks that no other beats in everything; the same command again goes on",
        examples=(
            "archtuna search search.yaml --data photos --out runs/photos --time 20m --workers 2",
            'archtuna search search.yaml --data photos --out runs/small --objectives f1,params --limit "params<=300k"',
        ),
        docs="docs/cli.md, docs/format.md (the file), docs/stopping.md, docs/latency.md, docs/workers.md (many machines)",
    )  # fmt: skip
    parser.add_argument("file", metavar="FILE", help="model or search file; archtuna init writes one")
    parser.add_argument("--out", metavar="RUN", required=True, help="folder for all that the search finds")
    parser.add_argument(
        "--objectives", metavar="f1,params",
        help="what to be good at, comma-separated: loss, f1, accuracy, params, macs, size_mb, peak_memory_mb, latency_ms, "
        "energy_mj, the last two also on a device of yours: latency_ms@pi4 (f1,params)",
    )  # fmt: skip
    parser.add_argument(
        "--limit",
        action="append",
        default=[],
        metavar='"params<=500k"',
        help="bound on a cost that every trained network keeps, beside the file's; repeatable",
    )
    parser.add_argument(
        "--target", metavar="onnx",
        help="what networks are to be exported to: onnx, onnx-fp16, onnx-int8, pt2, torchscript, executorch or module",
    )  # fmt: skip
    parser.add_argument("--trials", type=count, metavar="N", help="networks to train and judge (50 without --time)")
    parser.add_argument(
        "--time", metavar="5m", help="begin no training after this time; those that run may take a tenth of it more"
    )
    parser.add_argument(
        "--workers", type=count_or_zero, metavar="N", help="processes on this machine (1); 0 leaves the work to others"
    )
    parser.add_argument(
        "--sampler",
        metavar="NAME",
        help="what proposes networks: known-costs (default), or Optuna's tpe, nsga2, nsga3, gp, qmc, random",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="random seed of the search (0)")
    parser.add_argument(
        "--screen", metavar="SCORE",
        help="begin with the networks that score best before they are trained: synflow, naswot or macs (none)",
    )  # fmt: skip
    parser.add_argument(
        "--fraction",
        type=share,
        metavar="F",
        help="search on this share of the training pictures, of each class alike (1)",
    )
    parser.add_argument(
        "--strict", action="store_true", help="refuse data with broken pictures instead of leaving them out"
    )
    parser.add_argument(
        "--repeats", type=count, metavar="N", help="then train the front again N times, with other random seeds (0)"
    )
    stopping = parser.add_mutually_exclusive_group()
    stopping.add_argument("--no-stopping", action="store_true", help="train every network to its last epoch")
    stopping.add_argument(
        "--first-rung",
        type=count,
        metavar="N",
        help="epochs after which a training without a chance is stopped at the earliest (a share of its epochs)",
    )
    parser.add_argument(
        "--ray", metavar="ADDRESS", help="work on the machines of a Ray cluster: auto, host:6379 or ray://host:10001"
    )
    flag(
        parser,
        "quiet",
        "data",
        "epochs",
        "input-size",
        "device",
        "per-gpu",
        "study",
        "storage",
        "artifacts",
        "log",
        "json",
    )


def _run_search(arguments: argparse.Namespace) -> int:
    from archtuna.data import Data
    from archtuna.driver import search
    from archtuna.settings import limits_from, objectives_from
    from archtuna.space import SearchSpace

    space = SearchSpace.read(Path(arguments.file), input_size=arguments.input_size)
    say_notes(space.notes)
    source = arguments.data or space.settings.data.get("path")
    if source is None:
        raise DataError("no pictures to search on", hint="name them with --data, or in the file: data: {path: photos}")
    strict = arguments.strict or space.settings.data.get("strict", False)
    show = _Shown(arguments, f"archtuna search, {arguments.out}")
    with show:
        study = search(
            space,
            Data.open(source, strict=strict),
            out=arguments.out,
            objectives=objectives_from(arguments.objectives) if arguments.objectives else None,
            trials=arguments.trials,
            time=arguments.time,
            workers=arguments.workers,
            storage=arguments.storage,
            name=arguments.study,
            artifacts=arguments.artifacts,
            sampler=arguments.sampler,
            seed=arguments.seed,
            screen=arguments.screen,
            limits=limits_from(arguments.limit) if arguments.limit else None,
            target=arguments.target,
            epochs=arguments.epochs,
            fraction=arguments.fraction,
            device=arguments.device,
            per_gpu=arguments.per_gpu,
            ray=arguments.ray,
            repeats=arguments.repeats,
            stopping=_schedule(arguments),
            on_event=show.take,
            loggers=arguments.log,
        )
    return _ended(study, show, arguments, lambda: _ending(study, show.reason))


def _schedule(arguments: argparse.Namespace) -> Any:
    """Return what the arguments say of early stopping, or None where they leave it to the file."""
    from archtuna.schedule import Schedule

    return Schedule(first=arguments.first_rung) if arguments.first_rung else False if arguments.no_stopping else None


def _ended(study: Any, show: _Shown, arguments: argparse.Namespace, lines: Callable[[], Iterable[str]]) -> int:
    """Print what a search or its repeats came to, give the study's connections back, and return the exit code.

    Raises:
        StudyError: what it told could not be written, so that whoever reads it has not seen all.
    """
    with study:
        if show.lost is not None:
            how = "was interrupted" if show.reason == "interrupted" else "went on to its end"
            problem = show.lost.strerror or str(show.lost)
            raise StudyError(
                f"the output could not be written ({problem}), and the work {how} without it",
                hint="the same command again goes on",
            )
        if not (arguments.json or arguments.quiet):
            print_lines(lines())
    return 130 if show.reason == "interrupted" else 0


def _ending(study: Any, reason: str) -> list[str]:
    from archtuna import report
    from archtuna.terminal import screen_of

    screen = screen_of(sys.stdout)
    return [*report.front_lines(study, screen), "", *_advice(_next_steps(study, reason), screen.width)]


def _next_steps(study: Any, reason: str) -> Iterator[tuple[str, str]]:
    """Yield what can be done after a search, and the command that does it."""
    from archtuna.final import FULL

    if reason == "interrupted":
        yield "it was interrupted; go on:", "the same command again"
    if study.front():
        knee, run = study.knee(), shlex.quote(str(study.folder))
        yield "look at the knee point:", f"archtuna show {run} {knee.number}"
        yield "train it in full:", f"archtuna train {run} {knee.number} --epochs {FULL * int(knee.recipe['epochs'])}"
        if knee.checkpoint:
            yield "export it as it is:", f"archtuna export {shlex.quote(str(knee.checkpoint))} model.onnx"
        if (other := _other_than(study, knee)) is not None:
            yield "choose another:", f"archtuna pick {run} {other}"
        if not any(trial.again for trial in study.front()):
            yield "see what is chance:", f"archtuna repeat {run} --seeds 3"
    if reason not in ("interrupted", "exhausted"):
        yield "go on searching:", "the same command again, with more --trials or --time"


def _advice(steps: Iterable[tuple[str, str]], width: int) -> list[str]:
    """Return steps with their commands in a column of their own, or below where that is too narrow for one of them."""
    steps = list(steps)
    room = max(len(what) for what, _ in steps) + 2
    if room + max(len(command) for _, command in steps) <= width:
        return [f"{what:<{room}}{command}" for what, command in steps]
    return [line for what, command in steps for line in (what, f"  {command}")]


def _other_than(study: Any, knee: Any) -> str | None:
    """Return how another network of the front than its knee point is chosen: the best, or one that is cheaper."""
    quality = next(o.name for o in study.objectives if o.kind == "quality")
    if study.pick(best=quality).trial.number != knee.number:
        return f"--best {quality}"
    cost = next((o.name for o in study.objectives if o.kind == "cost"), "params")
    cheaper = [trial.costs[cost] for trial in study.front() if trial.costs[cost] < knee.costs[cost]]
    return f"--max {cost}={_rounded_up(max(cheaper))}" if cheaper else None


def _rounded_up(value: float) -> str:
    """Return a number that is short and not below ``value``: rounded down, a bound would exclude what it was taken from."""
    if float(value).is_integer():
        return f"{value:.0f}"
    nearest = f"{value:.6g}"
    return nearest if float(nearest) >= value else f"{value * (1 + 1e-5):.6g}"


class _Shown:
    """Shows the events of a search or of its repeats: a display on a terminal, else lines, as JSON where that is asked for.

    Attributes:
        reason: why the search ended.
        lost: why its events could not be written, from which on nothing is; None where all were.
    """

    def __init__(self, arguments: argparse.Namespace, title: str) -> None:
        self.json, self.quiet = arguments.json, arguments.quiet
        self.title = title
        self.reason = ""
        self.lost: OSError | None = None
        self.stopping = False
        self.watch: Any = None
        self.lock = threading.Lock()  # The display's thread reads while this one takes events.
        self.closing = contextlib.ExitStack()
        self.redrawn = False

    def take(self, event: dict[str, Any]) -> None:
        """Show an event; what is wrong with the output is kept from the search, where the trial at hand would fail of it."""
        if event["event"] == "end":
            self.reason = event["reason"]
        if self.lost is not None:
            self._ask_for_an_end(event)
            return
        try:
            self._show(event)
        except OSError as error:
            self.lost = error
            silence(sys.stdout if self.json else sys.stderr)

    def _ask_for_an_end(self, event: dict[str, Any]) -> None:
        """Ask the search for a stop as Ctrl-C does, once it is seen to go on.

        The Ctrl-C of a person ends what reads the output together with the search. To that a signal of ours would be the
        second one, which ends the search at once, with its trials in its hands.
        """
        if event["event"] == "stopping":
            self.stopping = True
        elif event["event"] == "epoch" and not self.stopping:
            self.stopping = True
            signal.raise_signal(signal.SIGINT)

    def _show(self, event: dict[str, Any]) -> None:
        from archtuna.live import plain_lines

        if self.json:
            print_json({k: v for k, v in event.items() if k != "traceback"})
            return
        if self.quiet:
            return
        if self.watch is None:
            self._open(event)
        with self.lock:
            self.watch.take(event)
        if not self.redrawn:
            for line in plain_lines(self.watch, event):
                print(line, file=sys.stderr, flush=True)

    def _open(self, event: dict[str, Any]) -> None:
        from archtuna.live import Watch
        from archtuna.objective import objectives_of

        self.watch = Watch(self.title, objectives_of(list(event["objectives"])))
        self.redrawn = redrawing(self.lines, sys.stderr, self.closing)

    def lines(self, screen: Any) -> list[str]:
        with self.lock:
            return self.watch.lines(screen)

    def __enter__(self) -> _Shown:
        return self

    def __exit__(self, *_: Any) -> None:
        self.closing.close()


def worker(verbs: Any) -> None:
    parser = verb(
        verbs, "worker", _run_worker, "work on a search that was begun elsewhere, until it is over",
        examples=("archtuna worker --study photos --data /mnt/photos",), docs="docs/workers.md",
    )  # fmt: skip
    parser.add_argument(
        "--out", metavar="RUN", help="folder for weights; by default the study's own, where it is shared"
    )
    parser.add_argument(
        "--no-wait", action="store_true", help="end when no trial is left to begin, and do not wait for those of others"
    )
    flag(parser, "workers", "quiet", "study", "storage", "data", "device", "per-gpu", "log", "json")


def _run_worker(arguments: argparse.Namespace) -> int:
    from archtuna import report
    from archtuna.driver import join
    from archtuna.terminal import screen_of

    if arguments.study is None:
        raise StudyError("no study is named", hint="--study NAME; archtuna search says the name of its own")
    show = _Shown(arguments, f"archtuna worker, {arguments.study}")
    with show:
        study = join(
            arguments.study,
            storage=arguments.storage,
            data=arguments.data,
            out=arguments.out,
            workers=arguments.workers,
            device=arguments.device,
            per_gpu=arguments.per_gpu,
            linger=not arguments.no_wait,
            on_event=show.take,
            loggers=arguments.log,
        )
    return _ended(study, show, arguments, lambda: report.front_lines(study, screen_of(sys.stdout)))


def repeat(verbs: Any) -> None:
    parser = verb(
        verbs, "repeat", _run_repeat,
        "train the front again with other random seeds, to see what is chance; the same command again goes on",
        examples=("archtuna repeat runs/photos --seeds 3", "archtuna repeat runs/photos --numbers 3,7 --seeds 5"),
        docs="docs/choosing.md",
    )  # fmt: skip
    parser.add_argument("--seeds", type=count, default=3, metavar="N", help="runs that each network is to have (3)")
    parser.add_argument("--numbers", type=numbers, metavar="3,7", help="trials to train again instead of the front")
    flag(parser, "workers", "quiet", "run", "data", "device", "per-gpu", "storage", "log", "json")


def _run_repeat(arguments: argparse.Namespace) -> int:
    from archtuna import report
    from archtuna.driver import repeat
    from archtuna.terminal import screen_of

    show = _Shown(arguments, f"archtuna repeat, {arguments.folder}")
    with show:
        study = repeat(
            arguments.folder,
            arguments.seeds,
            numbers=arguments.numbers,
            workers=arguments.workers,
            data=arguments.data,
            storage=arguments.storage,
            device=arguments.device,
            per_gpu=arguments.per_gpu,
            on_event=show.take,
            loggers=arguments.log,
        )
    run = shlex.quote(str(study.folder))
    pick = f"the smallest that is as good as the best:  archtuna pick {run} --within-one-se"
    return _ended(study, show, arguments, lambda: [*report.front_lines(study, screen_of(sys.stdout)), "", pick])
