"""The pages on the command line are what the parser and the schemas say, and every command has its examples."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from archtuna.cli import main, parser
from archtuna.cli.reference import MARK, commands, pages

DOCS = Path(__file__).parent.parent / "docs"
EVERY = {one.prog: one for one in commands(parser())}


@pytest.mark.parametrize("name", ["cli.md", "json.md"])
def test_pages_are_up_to_date(name):
    path = DOCS / name
    assert MARK in path.read_text()
    assert path.read_text() == pages(parser(), DOCS)[path], "run: python -m archtuna.cli.reference docs"


@pytest.mark.parametrize("prog", EVERY)
def test_help_ends_with_examples_and_with_the_page_that_says_more(prog):
    lines = EVERY[prog].format_help().rstrip().splitlines()
    assert lines[-1].startswith("more: docs/")
    for page in re.findall(r"docs/[\w-]+\.md", lines[-1]):
        assert (DOCS.parent / page).exists()
    examples = [line.strip() for line in str(EVERY[prog].epilog).splitlines() if line.startswith("  ")]
    assert 1 <= len(examples) <= 3
    assert any(example.startswith(prog) or f"({prog}" in example for example in examples)


@pytest.mark.parametrize("prog", EVERY)
def test_examples_are_commands_that_are_understood(prog):
    for line in str(EVERY[prog].epilog).splitlines():
        if line.startswith("  archtuna "):
            words = shlex.split(re.split(r" [|>#] ?", line)[0], comments=True)
            assert parser().parse_args(words[1:]).run is not None


@pytest.mark.parametrize("prog", EVERY)
def test_every_argument_is_explained(prog):
    for action in EVERY[prog]._actions:
        if action.metavar == "COMMAND" and action.nargs == "A...":
            continue
        assert action.help, action.dest
        assert action.option_strings or action.metavar == action.metavar.upper(), action.dest


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["serach"], "archtuna: there is no COMMAND 'serach'\nhint: did you mean 'search'?"),
        (
            ["front"],
            "archtuna front: the following arguments are required: RUN\nhint: archtuna front --help says what it takes",
        ),
        (["front", "r", "--jsno"], "archtuna front: unrecognized arguments: --jsno\nhint: did you mean '--json'?"),
        (["train", "r", "x"], "archtuna train: argument NUMBER: invalid int value: 'x'\nhint: archtuna train --help"),
        (
            ["evaluate", "c", "--split", "tset"],
            "archtuna evaluate: there is no --split 'tset'\nhint: did you mean 'test'?",
        ),
        (["completion", "tcsh"], "archtuna completion: there is no SHELL 'tcsh'\nhint: known: bash, zsh, fish"),
        (["device", "ad"], "archtuna device: there is no COMMAND 'ad'\nhint: did you mean 'add'?"),
    ],
)
def test_a_mistake_in_the_arguments_is_two_lines(capsys, words, said):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith(said)
    assert len(err.splitlines()) == 2
