"""The first command: init, which looks at pictures and writes a search file for them."""

from __future__ import annotations

import argparse
import os
import shlex
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archtuna.cli import questions
from archtuna.cli.arguments import count, flag, print_json, print_lines, verb
from archtuna.errors import DataError, SpecError, StudyError

if TYPE_CHECKING:
    from archtuna.beginning import Beginning


def init(verbs: Any) -> None:
    parser = verb(
        verbs, "init", _run_init, "look at pictures and write a commented search file to begin with",
        examples=("archtuna init search.yaml --data photos", "archtuna init micro.yaml --for microcontroller --yes"),
        docs="docs/start.md",
    )  # fmt: skip
    parser.add_argument(
        "file", metavar="FILE", nargs="?", default="search.yaml", help="where to write it (search.yaml)"
    )
    parser.add_argument("--classes", type=count, metavar="N", help="number of classes; by default the data's")
    parser.add_argument("--space", metavar="NAME", help="a ready space; by default one for the place where it will run")
    parser.add_argument(
        "--for", dest="place", metavar="PLACE", type=_place,
        help="where the network will run: computer (default), phone (or a small board), microcontroller or server",
    )  # fmt: skip
    parser.add_argument(
        "--objectives",
        metavar="f1,params",
        help="names of objectives, or quality, size, speed, memory; by default for the place",
    )
    parser.add_argument("--time", metavar="30m", help="how long the search may take (30m)")
    parser.add_argument("--workers", type=count, metavar="N", help="processes of the search on this machine (1)")
    parser.add_argument("--yes", action="store_true", help="ask nothing, and take what would be proposed")
    trial = parser.add_mutually_exclusive_group()
    trial.add_argument("--trial-run", metavar="30s", help="how long to measure what a training takes here (30s)")
    trial.add_argument("--no-trial-run", action="store_true", help="measure nothing, and estimate nothing")
    parser.add_argument("--list", action="store_true", help="list the ready spaces")
    parser.add_argument(
        "--out", metavar="RUN", help="folder of the run, with --study, which makes the study for workers to join"
    )
    flag(parser, "data", "input-size", "study", "storage", "artifacts", "json")


def _place(text: str) -> str:
    try:
        return questions.place(text)
    except SpecError as error:
        raise argparse.ArgumentTypeError(str(error).replace("\nhint: ", "; ")) from None


def _run_init(arguments: argparse.Namespace) -> None:
    if arguments.list:
        _list_spaces(arguments)
        return
    path = Path(arguments.file)
    if path.exists() and arguments.study is None:
        raise SpecError("exists already", file=str(path), hint="name another file")
    if not path.exists():
        begun = _begin(path, arguments)
    if arguments.study is not None:
        _init_study(arguments)
    elif arguments.json:
        told = {} if begun.inventory is None else begun.to_dict()
        print_json({"file": str(path), "space": begun.space, **told})
    else:
        if begun.inventory is not None:
            print_lines([*_told(begun), ""])
        data = "" if arguments.data else " --data DATA"
        file = shlex.quote(str(path))
        print(f"wrote {path}; next: archtuna check {file}, then archtuna search {file}{data} --out runs/first")


def _begin(path: Path, arguments: argparse.Namespace) -> Beginning:
    """Ask, look, measure, and write the file as the last thing."""
    from archtuna.files import write_atomically

    _check_writable(path)
    if questions.are_possible(arguments):
        questions.fill_in(arguments)
    begun = _made(arguments)
    try:
        content = begun.text.encode()
    except UnicodeEncodeError:
        raise DataError("the path of the pictures is no text that a file can hold", hint="rename the folder") from None
    if path.exists():
        raise SpecError("exists already", file=str(path), hint="name another file")
    write_atomically(path, content)
    return begun


def _check_writable(path: Path) -> None:
    """Fail before questions and minutes, not after them."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise SpecError("cannot be written there", file=str(path), hint=f"{folder} is no folder that you may write in")


def _made(arguments: argparse.Namespace) -> Beginning:
    from archtuna.beginning import SECONDS, begin
    from archtuna.beginning.advice import Wishes, objectives_said, seconds_asked

    wishes = Wishes(
        place=arguments.place,
        objectives=objectives_said(arguments.objectives, arguments.place) if arguments.objectives else None,
        time=arguments.time, workers=arguments.workers, input_size=arguments.input_size,
    )  # fmt: skip
    if arguments.time is not None:
        seconds_asked(arguments.time)
    # A study is worked on by whoever joins it: how long it takes here would say nothing.
    seconds = None if arguments.no_trial_run or arguments.study is not None else SECONDS
    seconds = seconds_of_trial(arguments.trial_run) if arguments.trial_run else seconds
    return begin(arguments.data, wishes, space=arguments.space, classes=arguments.classes, seconds=seconds)


def seconds_of_trial(text: str) -> float:
    from archtuna.settings import seconds_of

    seconds = seconds_of(text)
    assert seconds is not None
    return seconds


def _told(begun: Beginning) -> list[str]:
    """Return what was found and is proposed, a line each."""
    from archtuna.beginning import inventory
    from archtuna.beginning.outlook import lines_of

    assert begun.inventory is not None
    shown: dict[str, str] = {}
    for name, proposal in begun.advice.items():
        value = proposal.value if not isinstance(proposal.value, tuple) else ", ".join(proposal.value)
        shown[name] = str(value if value is not None else "made to fit")
    room = max(map(len, shown.values()), default=0)
    proposed = [f"{name:14} {text:{room}}  {begun.advice[name].reason}".rstrip() for name, text in shown.items()]
    estimated: list[str] = []
    if begun.outlook is not None and begun.pace is not None:
        advice = begun.advice
        seconds = seconds_of_trial(advice["time"].value)
        estimated = ["", *lines_of(begun.outlook, begun.pace, advice["workers"].value, seconds)]
    wrapped = [part for line in proposed for part in textwrap.wrap(line, 118, subsequent_indent=" " * (room + 17))]
    above, below = (
        [part for line in lines for part in textwrap.wrap(line, 118) or [""]]
        for lines in ([*inventory.lines_of(begun.inventory), ""], [*estimated, *begun.notes])
    )
    return [*above, *wrapped, *below]


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
            print_json({"file": arguments.file, "study": study.name, "folder": str(study.folder)})
        else:
            where = study.storage_url or study.folder
            print(f"made the study '{study.name}' in {where}; next, anywhere: archtuna worker --study {study.name}")


def _list_spaces(arguments: argparse.Namespace) -> None:
    from archtuna.starter import short, spaces

    if arguments.json:
        print_json([{key: value for key, value in vars(space).items() if key != "text"} for space in spaces().values()])
        return
    print(f"{'name':12}  {'parameters':>13}  {'MACs':>13}  input_size")
    for space in spaces().values():
        params, macs = (" - ".join(map(short, ends)) for ends in (space.params, space.macs))
        print(f"{space.name:12}  {params:>13}  {macs:>13}  {space.input_size}\n    {space.meaning}")
    print("\nranges hold for 10 classes in colour; next: archtuna init search.yaml --space NAME --data PICTURES")
