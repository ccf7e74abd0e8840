"""The command line: reads arguments, calls the library, prints, and turns errors into exit codes.

Results go to standard output, progress and errors to standard error. Exit code 0 is success, 1 an error of ours (one line
and a hint, no traceback), 2 a mistake in the arguments, 130 an interruption.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from archtuna import __version__
from archtuna.errors import ArchtunaError, DataError, SpecError, StudyError

EPILOG = """\
examples:
  archtuna check model.yaml --input-size 224
  archtuna search model.yaml --data photos/ --out runs/photos --objectives f1,params --time 20m --workers 2
  archtuna front runs/photos
  archtuna pick runs/photos --max params=300k
  archtuna train runs/photos 17 --epochs 60 --seeds 3
  archtuna export runs/photos/trained/17.safetensors model.onnx
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    if argv is None:
        _hide_passwords()
    parser = _parser()
    arguments = parser.parse_args(argv)
    _restore_password(arguments)
    if arguments.run is None:
        parser.print_help()
        return 2
    _log_to_stderr(arguments)
    try:
        _import_blocks(arguments.imports)
        code = arguments.run(arguments)
        sys.stdout.flush()
        return int(code or 0)
    except ArchtunaError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return _fail("interrupted", code=130)
    except BrokenPipeError:
        # The reader of our output is gone (`archtuna front RUN | head`); there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        place = f" {error.filename}" if error.filename else ""
        return _fail(f"{error.strerror or error}{place}")


HIDDEN = "ARCHTUNA_HIDDEN_STORAGE"
"""The environment variable through which a storage's URL comes when it was an argument with a password."""


def _hide_passwords() -> None:
    """Begin again, with the storage's URL in the environment, where its password is an argument that others could list."""
    if os.name != "posix" or HIDDEN in os.environ or not any("://" in text for text in sys.argv):
        return
    from archtuna.storage import has_password, redact

    urls = {text: text.partition("=")[2] if text.startswith("--") else text for text in sys.argv}
    secret = {text: url for text, url in urls.items() if has_password(url)}
    if len(secret) != 1:
        return
    ((text, url),) = secret.items()
    shown = [redact(url).join(part.split(url)) if part == text else part for part in sys.orig_argv[1:]]
    os.execve(sys.executable, [sys.executable, *shown], {**os.environ, HIDDEN: url})


def _restore_password(arguments: argparse.Namespace) -> None:
    url = os.environ.pop(HIDDEN, None)
    if url is not None and getattr(arguments, "storage", None):
        arguments.storage = url


def _import_blocks(modules: Sequence[str]) -> None:
    if modules:
        from archtuna.registry import import_blocks

        import_blocks(modules)


def _fail(text: str, code: int = 1) -> int:
    print(f"archtuna: {text}", file=sys.stderr)
    return code


class _Stderr(logging.StreamHandler):
    """Writes to what standard error is at the moment: a live display puts itself in its place, to redraw below."""

    @property
    def stream(self) -> Any:
        return sys.stderr

    @stream.setter
    def stream(self, stream: Any) -> None:
        pass


def _log_to_stderr(arguments: argparse.Namespace) -> None:
    log = logging.getLogger("archtuna")
    log.setLevel(logging.ERROR if getattr(arguments, "quiet", False) else logging.INFO)
    if not log.handlers:
        handler = _Stderr()
        handler.setFormatter(logging.Formatter("archtuna: %(message)s"))
        log.addHandler(handler)
    # Warnings of libraries are for those who write code against them, and they are shown where a developer asks for it.
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="archtuna",
        description="A YAML model file in, a Pareto front of trained, deployable image classifiers out.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"archtuna {__version__}")
    parser.set_defaults(run=None)
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND")
    for add in (
        _init,
        _check,
        _search,
        _worker,
        _status,
        _repeat,
        _front,
        _pick,
        _show,
        _train,
        _evaluate,
        _predict,
        _export,
        _latency,
        _bench,
        _blocks,
        _schema,
        _cache,
        _gc,
    ):
        add(verbs)
    return parser


def _verb(verbs: Any, name: str, run: Callable[[argparse.Namespace], int | None], text: str) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(run=run)
    parser.add_argument(
        "--import", dest="imports", action="append", default=[], metavar="MODULE",
        help="import a Python module for the blocks that it registers; repeatable",
    )  # fmt: skip
    return parser


def _flag(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add arguments that several commands share."""
    shared: dict[str, tuple[Any, dict[str, Any]]] = {
        "json": ("--json", {"action": "store_true", "help": "print JSON"}),
        "data": ("--data", {"help": "folder of class folders, .npz file, or digits"}),
        "device": ("--device", {"help": "cpu, cuda, cuda:1 or mps; by default the best one present that is free"}),
        "per-gpu": (
            "--per-gpu",
            {"type": _count, "default": 1, "metavar": "N", "help": "workers that may share a graphics card (1)"},
        ),
        "study": ("--study", {"metavar": "NAME", "help": "name of the study in its storage"}),
        "storage": ("--storage", {"help": "database URL; by default the run's own file, or $ARCHTUNA_STORAGE"}),
        "artifacts": (
            "--artifacts",
            {"metavar": "URL", "help": "where weights go instead of RUN: s3://bucket/folder, or another folder"},
        ),
        "input-size": ("--input-size", {"type": _size, "metavar": "N", "help": "side of the input in pixels, or HxW"}),
        "epochs": ("--epochs", {"type": _count, "metavar": "N", "help": "epochs of a training"}),
        "run": ("folder", {"metavar": "RUN", "help": "folder of a search"}),
        "number": ("number", {"metavar": "NUMBER", "type": int, "help": "number of a trial"}),
        "checkpoint": ("checkpoint", {"metavar": "CHECKPOINT", "help": "a .safetensors file, or the URL of one"}),
    }
    for name in names:
        flag, options = shared[name]
        parser.add_argument(flag, **options)


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above zero")
    return int(text)


def _count_or_zero(text: str) -> int:
    return 0 if text == "0" else _count(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a share above 0 and up to 1")
    return value


def _size(text: str) -> int | tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"'{text}' is not a side in pixels (64) or HxW (64x96)")
    return int(parts[0]) if len(parts) == 1 else (int(parts[0]), int(parts[1]))


def _print_lines(lines: Iterable[str]) -> None:
    print("\n".join(lines))


def _print_json(value: Any) -> None:
    print(json.dumps(value), flush=True)


# --- init -------------------------------------------------------------------------------------------


def _init(verbs: Any) -> None:
    parser = _verb(verbs, "init", _run_init, "write a commented search file to begin with")
    parser.add_argument("file", nargs="?", default="search.yaml", help="where to write it (search.yaml)")
    parser.add_argument("--classes", type=_count, metavar="N", help="number of classes; by default the data's")
    parser.add_argument("--space", metavar="NAME", help="a ready space; by default rows that fit the pictures' size")
    parser.add_argument("--list", action="store_true", help="list the ready spaces")
    parser.add_argument(
        "--out", metavar="RUN", help="folder of the run, with --study, which makes the study for workers to join"
    )
    _flag(parser, "data", "input-size", "study", "storage", "artifacts", "json")


def _run_init(arguments: argparse.Namespace) -> None:
    if arguments.list:
        _list_spaces(arguments)
        return
    path = Path(arguments.file)
    if path.exists() and arguments.study is None:
        raise SpecError("exists already", file=str(path), hint="name another file")
    if not path.exists():
        _write_starter(path, arguments)
    if arguments.study is not None:
        _init_study(arguments)
    elif arguments.json:
        _print_json({"file": str(path), "space": arguments.space})
    else:
        data = "" if arguments.data else " --data DATA"
        print(f"wrote {path}; next: archtuna check {path}, then archtuna search {path}{data} --out runs/first")


def _write_starter(path: Path, arguments: argparse.Namespace) -> None:
    from archtuna.starter import starter

    text = starter(
        data=arguments.data, classes=arguments.classes, input_size=arguments.input_size, space=arguments.space
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _init_study(arguments: argparse.Namespace) -> None:
    """Make the study of a search file, and leave the work to those who join it."""
    from archtuna.driver import search

    if arguments.out is None:
        raise StudyError("a study needs a folder for its run", hint="--out RUN")
    with search(
        Path(arguments.file), arguments.data, out=arguments.out, name=arguments.study, storage=arguments.storage,
        artifacts=arguments.artifacts, input_size=arguments.input_size, workers=0,
    ) as study:  # fmt: skip
        if arguments.json:
            _print_json({"file": arguments.file, "study": study.name, "folder": str(study.folder)})
        else:
            where = study.storage_url or study.folder
            print(f"made the study '{study.name}' in {where}; next, anywhere: archtuna worker --study {study.name}")


def _list_spaces(arguments: argparse.Namespace) -> None:
    from archtuna.starter import short, spaces

    if arguments.json:
        _print_json(
            [{key: value for key, value in vars(space).items() if key != "text"} for space in spaces().values()]
        )
        return
    print(f"{'name':12}  {'parameters':>13}  {'MACs':>13}  input_size")
    for space in spaces().values():
        params, macs = (" - ".join(map(short, ends)) for ends in (space.params, space.macs))
        print(f"{space.name:12}  {params:>13}  {macs:>13}  {space.input_size}\n    {space.meaning}")
    print("\nranges hold for 10 classes in colour; next: archtuna init search.yaml --space NAME --data PICTURES")


# --- check ------------------------------------------------------------------------------------------


def _check(verbs: Any) -> None:
    parser = _verb(verbs, "check", _run_check, "read a model or search file and say what is in it")
    parser.add_argument("file", help="model or search file")
    _flag(parser, "input-size", "json")


def _run_check(arguments: argparse.Namespace) -> None:
    from archtuna import report
    from archtuna.space import SearchSpace

    space = SearchSpace.read(Path(arguments.file), input_size=arguments.input_size)
    _say_notes(space.notes)
    if arguments.json:
        _print_json(report.check(space))
    else:
        _print_lines(report.check_lines(space))


def _say_notes(notes: Iterable[str]) -> None:
    for note in notes:
        logging.getLogger("archtuna").warning("note: %s", note)


# --- search -----------------------------------------------------------------------------------------


def _search(verbs: Any) -> None:
    parser = _verb(verbs, "search", _run_search, "search for the Pareto front; the same command again goes on")
    parser.add_argument("file", help="model or search file")
    parser.add_argument("--out", metavar="RUN", required=True, help="folder of the run")
    parser.add_argument("--objectives", help="comma-separated: loss, f1, accuracy, params, macs, size_mb (f1,params)")
    parser.add_argument(
        "--limit", action="append", default=[], metavar='"params<=500k"', help="bound on a cost; repeatable"
    )
    parser.add_argument("--trials", type=_count, metavar="N", help="networks to evaluate (50 without --time)")
    parser.add_argument("--time", metavar="5m", help="no trial begins after this time")
    parser.add_argument(
        "--workers", type=_count_or_zero, metavar="N", help="processes on this machine (1); 0 leaves the work to others"
    )
    parser.add_argument("--sampler", help="known-costs (default), or Optuna's tpe, nsga2, nsga3, gp, qmc, random")
    parser.add_argument("--seed", type=int, metavar="N", help="of the search")
    parser.add_argument(
        "--screen", metavar="SCORE",
        help="begin a new study with networks that score best untrained: synflow, naswot or macs (none)",
    )  # fmt: skip
    parser.add_argument(
        "--fraction", type=_share, metavar="F", help="stratified share of the training pictures to search on"
    )
    parser.add_argument(
        "--strict", action="store_true", help="refuse data with broken pictures instead of leaving them out"
    )
    parser.add_argument(
        "--repeats", type=_count, metavar="N", help="then train the front again N times, with other seeds (none)"
    )
    stopping = parser.add_mutually_exclusive_group()
    stopping.add_argument("--no-stopping", action="store_true", help="train every network to its end")
    stopping.add_argument(
        "--first-rung", type=_count, metavar="N", help="epochs before the first look at a trial (a share of its epochs)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="let actors of a Ray cluster be the workers: auto, host:6379 or ray://host:10001",
    )
    _flag(parser, "data", "epochs", "input-size", "device", "per-gpu", "study", "storage", "artifacts", "json")


def _run_search(arguments: argparse.Namespace) -> int:
    from archtuna.data import Data
    from archtuna.driver import search
    from archtuna.settings import limits_from, objectives_from
    from archtuna.space import SearchSpace

    space = SearchSpace.read(Path(arguments.file), input_size=arguments.input_size)
    _say_notes(space.notes)
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
            epochs=arguments.epochs,
            fraction=arguments.fraction,
            device=arguments.device,
            per_gpu=arguments.per_gpu,
            ray=arguments.ray,
            repeats=arguments.repeats,
            stopping=_schedule(arguments),
            on_event=show.take,
        )
    return _ended(study, show, arguments, lambda: _ending(study, arguments))


def _schedule(arguments: argparse.Namespace) -> Any:
    """Return what the arguments say of early stopping, or None where they leave it to the file."""
    from archtuna.schedule import Schedule

    return Schedule(first=arguments.first_rung) if arguments.first_rung else False if arguments.no_stopping else None


def _ended(study: Any, show: _Shown, arguments: argparse.Namespace, lines: Callable[[], Iterable[str]]) -> int:
    """Print what a search or its repeats came to, give the study's connections back, and return the exit code."""
    with study:
        if not (arguments.json or arguments.quiet):
            _print_lines(lines())
    return 130 if show.reason == "interrupted" else 0


def _ending(study: Any, arguments: argparse.Namespace) -> list[str]:
    from archtuna import report

    lines = [*report.front_lines(study), ""]
    if study.front():
        knee = study.knee()
        lines.append(f"look at the knee point:  archtuna show {study.folder} {knee.number}")
        lines.append(f"train it in full:        archtuna train {study.folder} {knee.number}")
        if knee.checkpoint:
            lines.append(f"export it as it is:      archtuna export {knee.checkpoint} model.onnx")
        lines.append(f"choose another:          archtuna pick {study.folder} --max {_bound_of(study)}")
        if not any(trial.again for trial in study.front()):
            lines.append(f"see what is chance:      archtuna repeat {study.folder} --seeds 3")
    lines.append("go on searching:         the same command again, with more --trials or --time")
    return lines


def _bound_of(study: Any) -> str:
    """Return a bound that the front's knee point keeps, for an example."""
    cost = next((o.name for o in study.objectives if o.kind == "cost"), "params")
    return f"{cost}={study.knee().costs.get(cost, 0):.6g}"


class _Shown:
    """Shows the events of a search or of its repeats: a display on a terminal, else lines, as JSON where that is asked for."""

    def __init__(self, arguments: argparse.Namespace, title: str) -> None:
        self.json, self.quiet = arguments.json, arguments.quiet
        self.title = title
        self.reason = ""
        self.watch: Any = None
        self.display: Any = None

    def take(self, event: dict[str, Any]) -> None:
        from archtuna.live import Watch, plain_lines
        from archtuna.objective import objectives_of

        if event["event"] == "end":
            self.reason = event["reason"]
        if self.json:
            _print_json({k: v for k, v in event.items() if k != "traceback"})
            return
        if self.quiet:
            return
        if self.watch is None:
            self.watch = Watch(self.title, objectives_of(list(event["objectives"])))
            self._open()
        (self.display or self.watch).take(event)
        if self.display is None:
            for line in plain_lines(self.watch, event):
                print(line, file=sys.stderr, flush=True)

    def _open(self) -> None:
        if sys.stderr.isatty():
            from rich.console import Console

            from archtuna.live import Display

            self.display = Display(self.watch, Console(stderr=True))
            self.display.__enter__()

    def __enter__(self) -> _Shown:
        return self

    def __exit__(self, *args: Any) -> None:
        if self.display is not None:
            self.display.__exit__(*args)


# --- worker, status ---------------------------------------------------------------------------------------


def _worker(verbs: Any) -> None:
    parser = _verb(verbs, "worker", _run_worker, "work on a search that was begun elsewhere, until it is over")
    parser.add_argument(
        "--out", metavar="RUN", help="folder for weights; by default the study's own, where it is shared"
    )
    parser.add_argument("--workers", type=_count, default=1, metavar="N", help="processes on this machine (1)")
    parser.add_argument(
        "--no-wait", action="store_true", help="end when nothing is left to begin, not when the others have ended, too"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress")
    _flag(parser, "study", "storage", "data", "device", "per-gpu", "json")


def _run_worker(arguments: argparse.Namespace) -> int:
    from archtuna import report
    from archtuna.driver import join

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
        )
    return _ended(study, show, arguments, lambda: report.front_lines(study))


def _status(verbs: Any) -> None:
    parser = _verb(verbs, "status", _run_status, "say who works on a search, what was done, and how long it will go on")
    parser.add_argument("folder", metavar="RUN", nargs="?", help="folder of a search, or --study and --storage")
    parser.add_argument("--watch", action="store_true", help="say it again every two seconds, until the search is over")
    _flag(parser, "study", "storage", "json")


def _run_status(arguments: argparse.Namespace) -> None:
    from archtuna.status import status, status_lines, watched
    from archtuna.study import Study

    if (arguments.folder is None) == (arguments.study is None):
        raise StudyError("name either the folder of a run or its study", hint="archtuna status RUN, or --study NAME")
    if arguments.study is None:
        study = Study.open(arguments.folder, storage=arguments.storage)
    else:
        study = Study.named(arguments.study, storage=arguments.storage)
    with study:
        if arguments.json:
            _print_json(status(study))
        elif not arguments.watch:
            _print_lines(status_lines(status(study)))
        else:
            for lines in watched(study):
                if sys.stdout.isatty():
                    print("\x1b[2J\x1b[H", end="")
                _print_lines(lines)


# --- repeat -----------------------------------------------------------------------------------------


def _repeat(verbs: Any) -> None:
    parser = _verb(
        verbs, "repeat", _run_repeat, "train the front again with other seeds; the same command again goes on"
    )
    parser.add_argument("--seeds", type=_count, default=3, metavar="N", help="runs that each network is to have (3)")
    parser.add_argument("--numbers", type=_numbers, metavar="3,7", help="trials to train again instead of the front")
    parser.add_argument("--workers", type=_count, default=1, metavar="N", help="processes on this machine (1)")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    _flag(parser, "run", "data", "device", "storage", "json")


def _numbers(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of trials, such as 3,7")
    return [int(part) for part in parts]


def _run_repeat(arguments: argparse.Namespace) -> int:
    from archtuna import report
    from archtuna.driver import repeat

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
            on_event=show.take,
        )
    pick = f"the smallest that is as good as the best:  archtuna pick {study.folder} --within-one-se"
    return _ended(study, show, arguments, lambda: [*report.front_lines(study), "", pick])


# --- front, pick, show ------------------------------------------------------------------------------------


def _front(verbs: Any) -> None:
    parser = _verb(verbs, "front", _run_front, "print the Pareto front of a run")
    parser.add_argument("--knee", action="store_true", help="print only the checkpoint of the knee point")
    _flag(parser, "run", "storage", "json")


def _run_front(arguments: argparse.Namespace) -> None:
    from archtuna import report
    from archtuna.final import knee_checkpoint
    from archtuna.study import Study

    with Study.open(arguments.folder, storage=arguments.storage) as study:
        if arguments.knee:
            print(knee_checkpoint(study))
        elif arguments.json:
            _print_json(report.front(study))
        else:
            _print_lines(report.front_lines(study))


def _pick(verbs: Any) -> None:
    parser = _verb(
        verbs, "pick", _run_pick, "choose one network of the front, by default the best by the first quality"
    )
    parser.add_argument("--best", metavar="f1", help="what it is to be best at, an objective or a cost")
    parser.add_argument("--knee", action="store_true", help="choose the one nearest to the ideal instead")
    parser.add_argument(
        "--within-one-se", action="store_true", help="choose the smallest within one standard error of the best instead"
    )
    parser.add_argument("--smallest", metavar="params", help="the cost that makes a network small (the first)")
    for flag, sign in (("max", "at most"), ("min", "at least")):
        example = "params=300k" if flag == "max" else "f1=.9"
        parser.add_argument(
            f"--{flag}", action="append", default=[], metavar=example, help=f"bound: {sign} this; repeatable"
        )
    _flag(parser, "run", "storage", "json")


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
        _print_json(report.picked(found))
    else:
        _print_lines(report.picked_lines(found))


def _show(verbs: Any) -> None:
    parser = _verb(verbs, "show", _run_show, "print a trial's values and layer table, or its model file")
    parser.add_argument("--yaml", action="store_true", help="print the model file alone")
    _flag(parser, "run", "number", "storage", "json")


def _run_show(arguments: argparse.Namespace) -> None:
    from archtuna import report
    from archtuna.study import Study

    with Study.open(arguments.folder, storage=arguments.storage) as study:
        trial = study.candidate(arguments.number)
        if arguments.yaml:
            print(trial.architecture.to_yaml(), end="")
        elif arguments.json:
            _print_json(report.shown(trial))
        else:
            _print_lines(report.show_lines(trial))


# --- train, evaluate, predict, export ---------------------------------------------------------------


def _train(verbs: Any) -> None:
    parser = _verb(verbs, "train", _run_train, "train a network in full and report on the test pictures")
    parser.add_argument("--seeds", type=_count, default=1, metavar="N", help="runs with different seeds (1)")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    _flag(parser, "run", "number", "epochs", "data", "device", "storage", "json")


def _run_train(arguments: argparse.Namespace) -> None:
    from archtuna.final import train_in_full
    from archtuna.study import Study

    def say(seed: int, progress: Any) -> None:
        metrics = ", ".join(f"{name} {value:.4f}" for name, value in progress.metrics.items())
        print(f"seed {seed}, epoch {progress.epoch}/{progress.epochs}: {metrics}", file=sys.stderr, flush=True)

    with Study.open(arguments.folder, storage=arguments.storage) as study:
        final = train_in_full(
            study,
            arguments.number,
            epochs=arguments.epochs,
            seeds=arguments.seeds,
            data=arguments.data,
            device=arguments.device,
            on_progress=None if arguments.quiet or arguments.json else say,
        )
    if arguments.json:
        _print_json({"checkpoint": str(final.checkpoint), "val": final.val, "test": final.test, "seeds": final.seeds})
        return
    print(final.checkpoint)
    for split in ("val", "test"):
        print(f"{split}: " + ", ".join(f"{name} {value:.4f}" for name, value in getattr(final, split).items()))
    if len(final.seeds) > 1:
        spread = {name: final.spread("test", name) for name in final.test}
        text = ", ".join(f"{name} {mean:.4f} ± {deviation:.4f}" for name, (mean, deviation) in spread.items())
        print(f"test, mean and standard deviation of {len(final.seeds)} seeds: {text}")


def _evaluate(verbs: Any) -> None:
    parser = _verb(verbs, "evaluate", _run_evaluate, "measure a checkpoint on the split that its study used")
    parser.add_argument("--split", choices=("train", "val", "test"), default="val", help="part of the split (val)")
    _flag(parser, "checkpoint", "data", "device", "json")


def _run_evaluate(arguments: argparse.Namespace) -> None:
    from archtuna.final import evaluate_checkpoint

    found = evaluate_checkpoint(
        arguments.checkpoint, data=arguments.data, split=arguments.split, device=arguments.device
    )
    if arguments.json:
        _print_json(found)
    else:
        text = ", ".join(f"{name} {found[name]:.6f}" for name in ("loss", "accuracy", "f1"))
        print(f"{text} on {found['n']} {found['split']} pictures")


def _predict(verbs: Any) -> None:
    parser = _verb(verbs, "predict", _run_predict, "classify pictures")
    parser.add_argument("--top", type=_count, default=1, metavar="K", help="classes a picture (1)")
    _flag(parser, "checkpoint", "device", "json")
    parser.add_argument("pictures", nargs="+", metavar="PICTURE", help="files or folders")


def _run_predict(arguments: argparse.Namespace) -> int:
    from archtuna.predict import predict

    failed = 0
    for found in predict(arguments.checkpoint, arguments.pictures, top=arguments.top, device=arguments.device):
        failed += "error" in found
        if arguments.json:
            _print_json(found)
        elif "error" in found:
            print(f"archtuna: {found['error']}", file=sys.stderr)
        else:
            print(f"{found['file']}: " + ", ".join(f"{p['class']} {p['probability']:.3f}" for p in found["classes"]))
    return 1 if failed else 0


def _export(verbs: Any) -> None:
    parser = _verb(
        verbs, "export", _run_export, "write a checkpoint as ONNX or TorchScript and check it against the model"
    )
    _flag(parser, "checkpoint", "json")
    parser.add_argument("out", metavar="OUT", help="file to write: .onnx, or .ts, .torchscript or .pt")
    parser.add_argument("--format", choices=("onnx", "torchscript"), help="where OUT does not say it")


def _run_export(arguments: argparse.Namespace) -> None:
    from archtuna.checkpoint import load
    from archtuna.exports import export

    done = export(load(arguments.checkpoint), arguments.out, format=arguments.format)
    if arguments.json:
        _print_json(
            {"file": done.file, "format": done.format, "max_difference": done.max_difference, "bytes": done.bytes}
        )
    else:
        print(
            f"{done.file}: {done.format}, {done.bytes:,} bytes, differs from the model by at most {done.max_difference:.1e}"
        )


# --- latency ----------------------------------------------------------------------------------------


def _latency(verbs: Any) -> None:
    parser = _verb(verbs, "latency", _run_latency, "measure how long a network takes here, exported, in ONNX Runtime")
    parser.add_argument("file", metavar="FILE", help="a checkpoint, or a .onnx file")
    parser.add_argument("--batch", type=_count, default=1, metavar="N", help="pictures at once (1)")
    parser.add_argument("--threads", type=_count, default=1, metavar="N", help="of the runtime (1)")
    parser.add_argument("--patience", default="1m", metavar="1m", help="how long to wait for a quiet machine")
    _flag(parser, "json")


def _run_latency(arguments: argparse.Namespace) -> None:
    from archtuna.latency import measure, onnx_of
    from archtuna.settings import seconds_of

    patience = seconds_of(arguments.patience) or 0.0
    content = onnx_of(arguments.file)
    found = measure(content, batch=arguments.batch, threads=arguments.threads, patience=patience)
    if arguments.json:
        _print_json(found.to_dict())
        return
    where = found.device
    threads = f"{where.threads} thread{'s' if where.threads > 1 else ''}"
    print(f"{found.ms:.3f} ms ({found.low:.3f} to {found.high:.3f}) for a batch of {where.batch}")
    print(f"{where.processor}, {where.runtime}, {threads}; device {where.fingerprint}")
    print(f"a fixed network took {found.reference_ms:.3f} ms beside it, and moved by {100 * found.drift:.0f} %")


# --- bench ------------------------------------------------------------------------------------------


def _bench(verbs: Any) -> None:
    parser = _verb(verbs, "bench", _run_bench, "replay searches on benchmark tables, to compare samplers")
    parser.add_argument("folder", help="folder with the tables (.npz, see docs/bench.md)")
    parser.add_argument("--table", action="append", default=[], metavar="NAME", help="only this table; repeatable")
    parser.add_argument("--objectives", metavar="A,B", help="columns to minimise, instead of each table's own cases")
    parser.add_argument(
        "--worst", action="append", default=[], metavar="A=50", help="worst value of a column that counts; repeatable"
    )
    parser.add_argument("--report", metavar="C", help="with one objective: the column that is told of the best network")
    parser.add_argument(
        "--samplers", type=lambda text: text.split(","), metavar="A,B",
        help="known-costs, Optuna's by name, tpe-default (Optuna's own default), or module:Class "
        "(random,nsga2,tpe-default,tpe,known-costs)",
    )  # fmt: skip
    parser.add_argument("--seeds", type=_count, default=5, metavar="N", help="searches of each (%(default)s)")
    parser.add_argument("--first-seed", type=int, default=0, metavar="N", help="the others follow it (%(default)s)")
    parser.add_argument("--trials", type=_count, default=100, metavar="N", help="of each search (%(default)s)")
    parser.add_argument("--workers", type=_count, default=1, metavar="N", help="processes (%(default)s)")
    _flag(parser, "json")


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
        _print_json(bench.plain(bench.summary(done)))
    else:
        _print_lines(report.bench_lines(done))


# --- blocks, cache ----------------------------------------------------------------------------------


def _blocks(verbs: Any) -> None:
    parser = _verb(verbs, "blocks", _run_blocks, "list the blocks that rows can name, with their arguments")
    parser.add_argument("name", nargs="?", help="one block")
    _flag(parser, "json")


def _run_blocks(arguments: argparse.Namespace) -> None:
    import archtuna.blocks  # noqa: F401  (registers the zoo)
    from archtuna import report
    from archtuna.registry import BLOCKS

    chosen = [BLOCKS[arguments.name]] if arguments.name else list(BLOCKS.values())
    if arguments.json:
        _print_json([report.block(entry) for entry in chosen])
    else:
        _print_lines(report.block_lines(chosen))


def _schema(verbs: Any) -> None:
    parser = _verb(
        verbs, "schema", _run_schema, "write a JSON Schema, with which an editor completes and checks search files"
    )
    parser.add_argument("file", nargs="?", help="where to write it; by default it is printed")


def _run_schema(arguments: argparse.Namespace) -> None:
    from archtuna.files import write_atomically
    from archtuna.schema import schema

    text = json.dumps(schema(), indent=1) + "\n"
    if arguments.file is None:
        print(text, end="")
        return
    path = Path(arguments.file)
    write_atomically(path, text.encode())
    print(f"wrote {path}; a search file that begins with this line is completed and checked by editors:")
    print(f"# yaml-language-server: $schema={path}")


def _cache(verbs: Any) -> None:
    parser = _verb(verbs, "cache", _run_cache, "say where decoded pictures are kept, or remove them")
    parser.add_argument("--clear", action="store_true", help="remove them; the next run decodes again")


def _run_cache(arguments: argparse.Namespace) -> None:
    from archtuna.data import cache_folder, clear_cache

    if arguments.clear:
        print(f"removed {clear_cache() / 1e6:.1f} MB from {cache_folder()}")
        return
    files = [path for path in cache_folder().rglob("*") if path.is_file()] if cache_folder().exists() else []
    print(f"{cache_folder()}: {len(files)} files, {sum(f.stat().st_size for f in files) / 1e6:.1f} MB")


def _gc(verbs: Any) -> None:
    parser = _verb(verbs, "gc", _run_gc, "list the files of a run that nothing needs any more, or delete them")
    parser.add_argument("--delete", action="store_true", help="delete them")
    _flag(parser, "run", "storage", "json")


def _run_gc(arguments: argparse.Namespace) -> None:
    from archtuna.files import delete
    from archtuna.study import Study

    with Study.open(arguments.folder, storage=arguments.storage) as study:
        found = study.garbage()
    if arguments.delete:
        for one in found:
            delete(one.path)
    if arguments.json:
        _print_json([{"path": str(one.path), "bytes": one.bytes, "why": one.why} for one in found])
        return
    for one in found:
        print(f"{one.path}: {one.bytes:,} bytes, {one.why}")
    total = f"{len(found)} files, {sum(one.bytes for one in found) / 1e6:.1f} MB"
    print(f"deleted {total}" if arguments.delete else f"{total} can go: archtuna gc {arguments.folder} --delete")


if __name__ == "__main__":
    sys.exit(main())
