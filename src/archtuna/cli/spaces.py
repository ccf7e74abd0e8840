"""Commands about search files: init, check, blocks, schema."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from archtuna.cli.arguments import count, flag, print_json, print_lines, say_notes, verb
from archtuna.cli.outputs import schema_of
from archtuna.errors import SpecError, StudyError


def init(verbs: Any) -> None:
    parser = verb(
        verbs, "init", _run_init, "write a commented search file to begin with",
        examples=("archtuna init search.yaml --data photos", "archtuna init micro.yaml --space micro --data photos"),
        docs="docs/format.md",
    )  # fmt: skip
    parser.add_argument(
        "file", metavar="FILE", nargs="?", default="search.yaml", help="where to write it (search.yaml)"
    )
    parser.add_argument("--classes", type=count, metavar="N", help="number of classes; by default the data's")
    parser.add_argument("--space", metavar="NAME", help="a ready space; by default rows that fit the pictures' size")
    parser.add_argument("--list", action="store_true", help="list the ready spaces")
    parser.add_argument(
        "--out", metavar="RUN", help="folder of the run, with --study, which makes the study for workers to join"
    )
    flag(parser, "data", "input-size", "study", "storage", "artifacts", "json")


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
        print_json({"file": str(path), "space": arguments.space})
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


def check(verbs: Any) -> None:
    parser = verb(
        verbs, "check", _run_check, "read a model or search file and say what is in it: layers, choices, costs, settings",
        examples=("archtuna check search.yaml", "archtuna check model.yaml --input-size 224"), docs="docs/format.md",
    )  # fmt: skip
    parser.add_argument("file", metavar="FILE", help="model or search file")
    flag(parser, "input-size", "json")


def _run_check(arguments: argparse.Namespace) -> None:
    from archtuna import report
    from archtuna.space import SearchSpace

    space = SearchSpace.read(Path(arguments.file), input_size=arguments.input_size)
    say_notes(space.notes)
    if arguments.json:
        print_json(report.check(space))
    else:
        print_lines(report.check_lines(space))


def blocks(verbs: Any) -> None:
    parser = verb(
        verbs, "blocks", _run_blocks, "list the blocks that rows of a file can name, with their arguments",
        examples=("archtuna blocks ConvNeXtBlock",), docs="docs/format.md",
    )  # fmt: skip
    parser.add_argument("name", metavar="BLOCK", nargs="?", help="one of them, told in full")
    flag(parser, "json")


def _run_blocks(arguments: argparse.Namespace) -> None:
    import archtuna.blocks  # noqa: F401  (registers the zoo)
    from archtuna import report
    from archtuna.registry import BLOCKS

    chosen = [BLOCKS[arguments.name]] if arguments.name else list(BLOCKS.values())
    if arguments.json:
        print_json([report.block(entry) for entry in chosen])
    else:
        print_lines(report.block_lines(chosen))


def schema(verbs: Any) -> None:
    parser = verb(
        verbs, "schema", _run_schema, "write a JSON Schema: of search files, for editors, or of what --json prints",
        examples=("archtuna schema search.schema.json", "archtuna schema --of front"), docs="docs/format.md, docs/json.md",
    )  # fmt: skip
    parser.add_argument("file", metavar="FILE", nargs="?", help="where to write it; by default it is printed")
    parser.add_argument(
        "--of", metavar="COMMAND", help="of what this command prints with --json, such as front or device-list"
    )


def _run_schema(arguments: argparse.Namespace) -> None:
    from archtuna.files import write_atomically
    from archtuna.schema import schema

    text = json.dumps(schema() if arguments.of is None else schema_of(arguments.of), indent=1) + "\n"
    if arguments.file is None:
        print(text, end="")
        return
    path = Path(arguments.file)
    write_atomically(path, text.encode())
    if arguments.of is not None:
        print(f"wrote {path}")
        return
    print(f"wrote {path}; a search file that begins with this line is completed and checked by editors:")
    print(f"# yaml-language-server: $schema={path}")
