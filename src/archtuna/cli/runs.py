"""Commands that look at what a search found, and at what it left: status, front, pick, show, bench, cache, gc."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from pathlib import Path
from typing import Any

from archtuna.cli.arguments import count, flag, print_json, print_lines, redrawing, verb
from archtuna.errors import StudyError


def status(verbs: Any) -> None:
    parser = verb(
        verbs, "status", _run_status, "say who works on a search, what was done, and how long it will go on",
        examples=("archtuna status runs/photos --watch", "archtuna status --study photos"), docs="docs/workers.md",
    )  # fmt: skip
    parser.add_argument("folder", metavar="RUN", nargs="?", help="folder of a search; or name its --study")
    parser.add_argument(
        "--watch", action="store_true", help="show it, and keep it up to date until the search is over or Ctrl-C"
    )
    flag(parser, "study", "storage", "json")


def _run_status(arguments: argparse.Namespace) -> int:
    from archtuna.status import status, status_lines
    from archtuna.study import Study
    from archtuna.terminal import Screen, screen_of

    if (arguments.folder is None) == (arguments.study is None):
        raise StudyError("name either the folder of a run or its study", hint="archtuna status RUN, or --study NAME")
    if arguments.study is None:
        study = Study.open(arguments.folder, storage=arguments.storage)
    else:
        study = Study.named(arguments.study, storage=arguments.storage)
    with study:
        if arguments.json:
            print_json(status(study))
            return 0
        code = _watch(study) if arguments.watch else 0
        screen = screen_of(sys.stdout)
        print_lines(status_lines(status(study), Screen(screen.width, unicode=screen.unicode)))
        return code


def _watch(study: Any) -> int:
    """Show how a study stands until it is over or Ctrl-C; where nothing can be redrawn, say each change in a line."""
    from archtuna.status import status_lines, summary_line, watched

    newest: list[dict[str, Any]] = []
    said = ""
    with contextlib.ExitStack() as closing, contextlib.suppress(KeyboardInterrupt):
        for found in watched(study):
            newest[:] = [found]
            if not said:
                redrawn = redrawing(lambda screen: status_lines(newest[0], screen), sys.stdout, closing)
            line = summary_line({**found, "left": None, "rate": None})
            if not redrawn and line != said:
                print(line, flush=True)
            said = line
        return 0
    return 130


def front(verbs: Any) -> None:
    parser = verb(
        verbs, "front", _run_front, "print the Pareto front of a run: the networks that no other beats in everything",
        examples=("archtuna front runs/photos", "archtuna front runs/photos --knee"), docs="docs/choosing.md",
    )  # fmt: skip
    parser.add_argument(
        "--knee", action="store_true",
        help="print only where the weights of the knee point are, the network nearest to the best of every objective",
    )  # fmt: skip
    flag(parser, "run", "storage", "json")


def _run_front(arguments: argparse.Namespace) -> None:
    from archtuna import report
    from archtuna.final import knee_checkpoint
    from archtuna.study import Study
    from archtuna.terminal import screen_of

    with Study.open(arguments.folder, storage=arguments.storage) as study:
        if arguments.json:
            knee = study.knee().number if arguments.knee else None
            print_json([one for one in report.front(study) if knee in (None, one["number"])])
        elif arguments.knee:
            print(knee_checkpoint(study))
        else:
            print_lines(report.front_lines(study, screen_of(sys.stdout)))


def pick(verbs: Any) -> None:
    parser = verb(
        verbs, "pick", _run_pick, "choose one network of the front, by default the best by the first of loss, f1 and accuracy",
        examples=("archtuna pick runs/photos --best f1 --max params=300k", "archtuna pick runs/photos --within-one-se"),
        docs="docs/choosing.md",
    )  # fmt: skip
    parser.add_argument("--best", metavar="f1", help="what it is to be best at, an objective or a cost")
    parser.add_argument(
        "--knee", action="store_true", help="choose the one nearest to the best of every objective instead"
    )
    parser.add_argument(
        "--within-one-se", action="store_true",
        help="choose the smallest that is as good as the best, within one standard error, instead",
    )  # fmt: skip
    parser.add_argument(
        "--smallest", metavar="params", help="the cost by which a network is small (the first among the objectives)"
    )
    for bound, sign in (("max", "at most"), ("min", "at least")):
        example = "params=300k" if bound == "max" else "f1=.9"
        parser.add_argument(
            f"--{bound}", action="append", default=[], metavar=example, help=f"it must have {sign} this; repeatable"
        )
    flag(parser, "run", "storage", "json")


def _run_pick(arguments: argparse.Namespace) -> None:
    from archtuna import report
    from archtuna.selection import bound_of
    from archtuna.study import Study

    most = {bound.name: bound.value for bound in (bound_of(text, "<=") for text in arguments.max)}
    least = {bound.name: bound.value for bound in (bound_of(text, ">=") for text in arguments.min)}
    with Study.open(arguments.folder, storage=arguments.storage) as study:
        found = study.pick(
            best=arguments.best,
            max=most,
            min=least,
            knee=arguments.knee,
            within_one_se=arguments.within_one_se,
            smallest=arguments.smallest,
        )
    if arguments.json:
        print_json(report.picked(found))
    else:
        print_lines(report.picked_lines(found))


def show(verbs: Any) -> None:
    parser = verb(
        verbs, "show", _run_show, "print a trial's values and layer table, or its model file",
        examples=("archtuna show runs/photos 17", "archtuna show runs/photos 17 --yaml > model.yaml"), docs="docs/format.md",
    )  # fmt: skip
    parser.add_argument("--yaml", action="store_true", help="print the model file alone")
    flag(parser, "run", "number", "storage", "json")


def _run_show(arguments: argparse.Namespace) -> None:
    from archtuna import report
    from archtuna.study import Study

    with Study.open(arguments.folder, storage=arguments.storage) as study:
        trial = study.candidate(arguments.number)
        if arguments.yaml:
            print(trial.architecture.to_yaml(), end="")
        elif arguments.json:
            print_json(report.shown(trial))
        else:
            print_lines(report.show_lines(trial))


def bench(verbs: Any) -> None:
    parser = verb(
        verbs, "bench", _run_bench, "replay searches on benchmark tables, to compare what proposes networks",
        examples=("archtuna bench tables --seeds 20 --trials 200",), docs="docs/bench.md",
    )  # fmt: skip
    parser.add_argument("folder", metavar="FOLDER", help="folder with the tables (.npz, see docs/bench.md)")
    parser.add_argument("--table", action="append", default=[], metavar="NAME", help="only this table; repeatable")
    parser.add_argument("--objectives", metavar="A,B", help="columns to minimise, instead of each table's own cases")
    parser.add_argument(
        "--worst", action="append", default=[], metavar="A=50", help="worst value of a column that counts; repeatable"
    )
    parser.add_argument("--report", metavar="C", help="with one objective: the column that is said of the best network")
    parser.add_argument(
        "--samplers", type=lambda text: text.split(","), metavar="A,B",
        help="known-costs, Optuna's by name, tpe-default (Optuna's own default), or module:Class "
        "(random,nsga2,tpe-default,tpe,known-costs)",
    )  # fmt: skip
    parser.add_argument("--seeds", type=count, default=5, metavar="N", help="searches of each sampler (%(default)s)")
    parser.add_argument("--first-seed", type=int, default=0, metavar="N", help="the first of them (%(default)s)")
    parser.add_argument("--trials", type=count, default=100, metavar="N", help="networks of each search (%(default)s)")
    flag(parser, "workers", "json")


def _run_bench(arguments: argparse.Namespace) -> None:
    from archtuna import bench, report

    folder = Path(arguments.folder)
    work = bench.plan(
        folder,
        arguments.samplers,
        range(arguments.first_seed, arguments.first_seed + arguments.seeds),
        tables=arguments.table,
        objectives=arguments.objectives.split(",") if arguments.objectives else (),
        worst=bench.worst_of(arguments.worst),
        report=arguments.report,
    )
    done = []
    for one in bench.replays(folder, work, arguments.trials, arguments.workers):
        done.append(one)
        if sys.stderr.isatty() and not arguments.json:
            print(f"\r{len(done)} of {len(work)} searches", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty() and not arguments.json:
        print("\r\x1b[K", end="", file=sys.stderr)
    if arguments.json:
        print_json(bench.plain(bench.summary(done)))
    else:
        print_lines(report.bench_lines(done))


def cache(verbs: Any) -> None:
    parser = verb(
        verbs, "cache", _run_cache, "say where decoded pictures are kept, or remove them",
        examples=("archtuna cache", "archtuna cache --clear"),
    )  # fmt: skip
    parser.add_argument("--clear", action="store_true", help="remove them; the next run decodes again")


def _run_cache(arguments: argparse.Namespace) -> None:
    from archtuna.data import cache_folder, clear_cache

    if arguments.clear:
        print(f"removed {clear_cache() / 1e6:.1f} MB from {cache_folder()}")
        return
    files = [path for path in cache_folder().rglob("*") if path.is_file()] if cache_folder().exists() else []
    print(f"{cache_folder()}: {len(files)} files, {sum(f.stat().st_size for f in files) / 1e6:.1f} MB")


def gc(verbs: Any) -> None:
    parser = verb(
        verbs, "gc", _run_gc, "list the files of a run that nothing needs any more, or delete them",
        examples=("archtuna gc runs/photos", "archtuna gc runs/photos --delete"), docs="docs/workers.md",
    )  # fmt: skip
    parser.add_argument("--delete", action="store_true", help="delete them")
    flag(parser, "run", "storage", "json")


def _run_gc(arguments: argparse.Namespace) -> None:
    from archtuna.files import delete
    from archtuna.study import Study

    with Study.open(arguments.folder, storage=arguments.storage) as study:
        found = study.garbage()
    if arguments.delete:
        for one in found:
            delete(one.path)
    if arguments.json:
        print_json([{"path": str(one.path), "bytes": one.bytes, "why": one.why} for one in found])
        return
    for one in found:
        print(f"{one.path}: {one.bytes:,} bytes, {one.why}")
    total = f"{len(found)} files, {sum(one.bytes for one in found) / 1e6:.1f} MB"
    how = f": archtuna gc {shlex.quote(arguments.folder)} --delete" if found else ""
    print(f"deleted {total}" if arguments.delete else f"{total} can go{how}")
