"""Commands about search files: check, blocks, schema."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from archtuna.cli.arguments import flag, print_json, print_lines, say_notes, verb
from archtuna.cli.outputs import schema_of


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
