"""docs/start.md is what happens: its Python and its commands run one after the other, as a new user would paste them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from archtuna.cli.starting import init
from archtuna.data import Data
from forked import archtuna

PAGE = (Path(__file__).parent.parent / "docs" / "start.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def commands():
    return [line for block in blocks("sh") for line in block.splitlines() if line]


def run(command, folder):
    if "*" in command:
        line = command.replace("archtuna", f"{sys.executable} -m archtuna", 1)
        return subprocess.run(line, shell=True, cwd=folder, capture_output=True, text=True)
    return archtuna(*command.split()[1:], cwd=folder)


@pytest.mark.slow
def test_the_page_runs_from_the_first_line_to_the_last(tmp_path):
    subprocess.run([sys.executable, "-c", blocks("python")[0]], cwd=tmp_path, check=True)
    assert len(Data.open(tmp_path / "photos")) == 1797
    number, shown = None, ""
    for command in commands():
        # Minutes become seconds, and the trial of the text the one that was picked.
        short = command.replace("17", str(number)).replace("--epochs 40", "--epochs 1")
        short = short.replace("--yes", "--yes --trial-run 2s") if " init " in short else short
        short += " --trials 2 --epochs 1 --fraction 0.2" if " search " in short else ""
        done = run(short, tmp_path)
        assert done.returncode == 0, f"{short}\n{done.stdout}\n{done.stderr}"
        if " pick " in command:
            number = re.match(r"trial (\d+): f1", done.stdout)[1]
        shown = done.stdout
    assert len(shown.splitlines()) >= 183, "a line for each picture"
    assert (tmp_path / "model.onnx").stat().st_size > 1000


def test_the_table_of_flags_names_flags_that_there_are():
    import argparse

    parser = argparse.ArgumentParser()
    init(parser.add_subparsers())
    known = parser._subparsers._group_actions[0].choices["init"].format_help()
    named = re.findall(r"`(--[\w-]+)", "\n".join(line for line in PAGE.splitlines() if line.startswith("| `--")))
    assert len(named) >= 8
    assert [flag for flag in named if flag not in known] == []


def test_its_links_lead_somewhere():
    links = re.findall(r"\]\(([\w-]+\.md)\)", PAGE)
    assert links
    assert [link for link in links if not (Path(__file__).parent.parent / "docs" / link).exists()] == []
