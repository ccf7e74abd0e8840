"""Searches on a terminal of their own, as a person has them: what is drawn, another window, and Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from archtuna.storage import Attr
from archtuna.study import Study
from shells import Terminal, plain
from studies import make_spec

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")]

SPACE = """
input_channel: 1
input_size: 32
backbone:
  - [1, Conv, [8|16|24|32|40|48, 3|5, 2, null, 1, ReLU]]
  - [1, GlobalAvgPool, []]
  - [1, Flatten, []]
  - [1, Linear, [10]]
training: {epochs: 16, batch_size: 64, augment: none}
"""


def terminal_of(folder: Path, *arguments: object, **environment: str) -> Terminal:
    command = [sys.executable, "-m", "archtuna", *map(str, arguments)]
    shown = {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8", "CI": ""}
    # A size in the environment, which other libraries leave there, would hold whatever becomes of the window.
    inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    return Terminal(command, folder, {**inherited, **shown, **environment})


def test_a_search_on_a_terminal_is_resized_interrupted_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SPACE)
    search = ("search", "s.yaml", "--data", "digits", "--out", "run", "--trials", "500")
    terminal = terminal_of(tmp_path, *search)
    terminal.wait_for(r"([3-9]|1\d)/16 ")
    assert "━" in terminal.seen
    at = len(terminal.seen)
    terminal.resize(50, 20)
    at = terminal.wait_for(r"\x1b\[2J\x1b\[H", at)
    terminal.wait_for("front", at)
    drawn = plain(terminal.seen[at:]).splitlines()
    assert max(map(len, drawn)) <= 50
    terminal.press("\x03")
    assert terminal.end() == 130
    assert terminal.seen.rindex("\x1b[?25h") > terminal.seen.rindex("\x1b[?25l"), "the cursor is hidden"
    assert "Traceback" not in terminal.seen
    assert "the same command again" in terminal.seen
    again = terminal_of(tmp_path, *search[:-1], "2", LC_ALL="C", NO_COLOR="1")
    assert again.end(120) == 0
    assert "goes on after epoch" in again.seen or "trials 2/2" in again.seen
    assert plain(again.seen).isascii(), "the locale has no other letters"
    assert not re.search(r"\x1b\[[\d;]*3\dm", again.seen), "colours were not wanted"
    done = subprocess.run(
        [sys.executable, "-m", "archtuna", "status", "run", "--json"], cwd=tmp_path, capture_output=True, text=True
    )
    counts = json.loads(done.stdout)["trials"]
    assert (counts["running"], counts["waiting"]) == (0, 0)
    assert counts["complete"] + counts["stopped"] >= 2


def test_a_status_that_is_watched_ends_quietly_with_ctrl_c(tmp_path: Path) -> None:
    with Study.create_or_open(tmp_path / "run", make_spec(limits=())) as study:
        study.optuna.set_user_attr(Attr.ORDERS, {"trials": 1, "deadline": None, "sampler": None})
    terminal = terminal_of(tmp_path, "status", "run", "--watch")
    terminal.wait_for("no trial is with a worker")
    terminal.press("\x03")
    assert terminal.end() == 130
    assert terminal.seen.rindex("\x1b[?25h") > terminal.seen.rindex("\x1b[?25l")
    assert "front: nothing yet" in plain(terminal.seen).splitlines()[-1]
    assert "interrupted" not in terminal.seen
