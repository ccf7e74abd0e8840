"""The reference pages on the command line, written from its parser and from the schemas of what it prints.

``python -m archtuna.cli.reference docs`` brings ``docs/cli.md`` and ``docs/json.md`` up to date; a test says when that is due.
What stands above their marks is written by hand.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from archtuna.cli.outputs import SAME, outputs, schema_of

MARK = "<!-- Below this line the page is written by `python -m archtuna.cli.reference docs`. -->"


def commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield the parser of each command, and of commands of commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield inner
                yield from commands(inner)


def command_lines(parser: argparse.ArgumentParser) -> list[str]:
    """Return all commands with their arguments, as Markdown."""
    lines = []
    for one in commands(parser):
        lines += [f"### {one.prog}", "", str(one.description), "", *_usage_lines(one), *_table_lines(one)]
        lines += [*_example_lines(one), ""]
    return lines[:-1]


def _usage_lines(parser: argparse.ArgumentParser) -> list[str]:
    needed = [f"{a.option_strings[0]} {a.metavar}" for a in _arguments(parser) if a.option_strings and a.required]
    options = ["[options]"] if any(a.option_strings and not a.required for a in _arguments(parser)) else []
    places = [_place(a) for a in _arguments(parser) if not a.option_strings]
    inner = ["COMMAND"] if any(isinstance(a, argparse._SubParsersAction) for a in parser._actions) else []
    return ["```", " ".join([parser.prog, *inner, *places, *needed, *options]), "```", ""]


def _place(action: argparse.Action) -> str:
    name = str(action.metavar or action.dest.upper())
    return {"?": f"[{name}]", "+": f"{name}…"}.get(str(action.nargs), name)


def _table_lines(parser: argparse.ArgumentParser) -> list[str]:
    rows = [f"| `{_name(a)}` | {_cell(_help(a, parser))} |" for a in _arguments(parser)]
    return ["| argument | what it is |", "|---|---|", *rows, ""] if rows else []


def _arguments(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return a parser's own arguments, places first."""
    own = [a for a in parser._actions if not isinstance(a, argparse._HelpAction | argparse._SubParsersAction)]
    return sorted(own, key=lambda action: bool(action.option_strings))


def _name(action: argparse.Action) -> str:
    if not action.option_strings:
        return _place(action)
    if action.nargs == 0:
        return action.option_strings[0]
    choices = "|".join(map(str, action.choices)) if action.choices else None
    return f"{action.option_strings[0]} {action.metavar or choices or action.dest.upper()}"


def _help(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    return str(action.help or "") % {**vars(action), "prog": parser.prog}


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _example_lines(parser: argparse.ArgumentParser) -> list[str]:
    shown = [line.strip() for line in str(parser.epilog or "").splitlines() if line.startswith("  ")]
    pages = str(parser.epilog or "").rpartition("more: ")[2]
    links = " ".join(
        f"[{word}]({word.removeprefix('docs/')})" if word.endswith(".md") else word for word in _words(pages)
    )
    more = ["", f"More: {links}".replace(" ,", ",")] if pages and pages != "docs/cli.md" else []
    return ["```sh", *shown, "```", *more] if shown else more[1:]


def _words(pages: str) -> list[str]:
    return pages.replace(",", " ,").split()


# --- what --json prints ------------------------------------------------------------------------------


def output_lines() -> list[str]:
    """Return what each command prints with ``--json``, as Markdown."""
    lines: list[str] = []
    for name in outputs():
        if name in SAME:
            continue
        schema = schema_of(name)
        others = "".join(f", `archtuna {other}`" for other in SAME if SAME[other] == name)
        lines += [f"### archtuna {name.replace('-', ' ')}", "", f"`archtuna {name.replace('-', ' ')} --json`{others}: "]
        lines[-1] += f"{schema['description']}. `archtuna schema --of {name}`"
        lines += ["", *_key_lines(schema), ""]
    return lines[:-1]


def _key_lines(schema: Mapping[str, Any]) -> list[str]:
    """Return a table of a schema's keys, or one for each of the forms that it may take."""
    if "anyOf" in schema:
        return _joined([[f"{one['description'].capitalize()}:", "", *_key_lines(one)] for one in schema["anyOf"]])
    if "allOf" in schema:
        events = [(one["if"]["properties"]["event"]["const"], one["then"]) for one in schema["allOf"]]
        return _joined([[f"**{name}**: {then['description']}", "", *_table(then)] for name, then in events])
    return _table(schema)


def _joined(parts: list[list[str]]) -> list[str]:
    return [line for part in parts for line in [*part, ""]][:-1]


def _table(schema: Mapping[str, Any]) -> list[str]:
    is_list = schema.get("type") == "array"
    rows = list(_rows(schema["items"] if is_list else schema, "[]." if is_list else ""))
    if not rows:
        return ["(no keys of its own)"]
    head = ["| key | type | what it is |", "|---|---|---|"]
    return head + [f"| `{path}` | {kind} | {_cell(text)} |" for path, kind, text in rows]


def _rows(schema: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str, str]]:
    for name, one in schema.get("properties", {}).items():
        optional = "" if name in schema.get("required", ()) else " (not always)"
        yield f"{prefix}{name}", _type(one) + optional, one.get("description", "")
        if one.get("type") == "object" and "properties" in one:
            yield from _rows(one, f"{prefix}{name}.")
        elif one.get("type") == "array" and "properties" in one["items"]:
            yield from _rows(one["items"], f"{prefix}{name}[].")


def _type(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kinds = schema.get("type", "any")
    return " or ".join(kinds) if isinstance(kinds, list) else str(kinds)


# --- pages -------------------------------------------------------------------------------------------


def pages(parser: argparse.ArgumentParser, folder: Path) -> dict[Path, str]:
    """Return the text that each page is to have."""
    written = {"cli.md": command_lines(parser), "json.md": output_lines()}
    found = {}
    for name, lines in written.items():
        above = (folder / name).read_text(encoding="utf-8").partition(MARK)[0]
        found[folder / name] = above + "\n".join([MARK, "", *lines]) + "\n"
    return found


def main(folder: str) -> None:
    """Bring the pages of a folder up to date."""
    from archtuna.cli import parser

    for path, text in pages(parser(), Path(folder)).items():
        path.write_text(text, encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main(sys.argv[1])
