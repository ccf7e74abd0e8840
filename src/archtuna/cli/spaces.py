"""Commands about search files: check, blocks, schema."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from archtuna.cli.arguments import flag, print_json, print_lines, say_notes, verb


def check(verbs: Any) -> None:
    parser = verb(verbs, "check", _run_check, "read a model or search file and say what is in it")
    parser.add_argument("file", help="model or search file")
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
    parser = verb(verbs, "blocks", _run_blocks, "list the blocks that rows can name, with their arguments")
    parser.add_argument("name", nargs="?", help="one block")
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
