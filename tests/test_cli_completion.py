"""Completion with TAB: names that are copies are what they are copies of, and real shells complete."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from archtuna.cli import completion, main, parser
from archtuna.cli.completion import COMPLETERS, SHELLS, attach
from archtuna.cli.reference import commands
from shells import Terminal, plain
from studies import add, make_spec

pytest.importorskip("argcomplete")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    from archtuna.study import Study

    with Study.create_or_open(tmp_path / "runs" / "one", make_spec(limits=())) as study:
        for f1, params in ((0.5, 100.0), (0.61234, 200.0)):
            add(study, f1, params)
    return tmp_path / "runs" / "one"


def test_names_are_those_that_are_known() -> None:
    import archtuna.blocks  # noqa: F401  (registers the zoo)
    from archtuna.exports.formats import FORMATS
    from archtuna.exports.precision import PRECISIONS
    from archtuna.objective import OBJECTIVES
    from archtuna.registry import BLOCKS
    from archtuna.runtimes import RUNTIMES
    from archtuna.sampler import OURS, SAMPLERS
    from archtuna.screen import SCORES
    from archtuna.settings import TARGETS

    assert set(completion.BLOCKS) == {name for name in BLOCKS if not BLOCKS[name].is_foreign}
    assert {*completion.QUALITIES} == {o.name for o in OBJECTIVES.values() if o.kind == "quality"}
    assert {*completion.COSTS} == {o.name for o in OBJECTIVES.values() if o.kind == "cost"}
    assert {*completion.MEASURED} == {o.name for o in OBJECTIVES.values() if o.is_measured}
    assert set(completion.SAMPLERS) == {OURS, *SAMPLERS}
    assert set(completion.SCORES) == {"none", *SCORES}
    assert set(completion.TARGETS) == set(TARGETS)
    assert set(completion.FORMATS) == set(FORMATS)
    assert set(completion.PRECISIONS) == set(PRECISIONS)
    assert set(completion.RUNTIMES) == set(RUNTIMES)


FREE = {
    "imports", "study", "storage", "artifacts", "ray", "provider", "table", "worst", "report", "patience", "input_size",
    "name", "url", "host", "trial_run",
}  # fmt: skip
"""Arguments whose values nobody can list."""


def test_every_argument_that_can_be_completed_is() -> None:
    made = parser()
    attach(made)
    missing = [
        f"{one.prog} {action.dest}"
        for one in commands(made)
        for action in one._actions
        if action.nargs != 0 and action.type is None and not action.choices and action.dest not in FREE | {"time"}
        and not hasattr(action, "completer")
    ]  # fmt: skip
    assert missing == []


def test_completers_know_what_a_person_may_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ARCHTUNA_DEVICES", '{"pi4": {"url": "http://pi4:8765"}}')
    for name in ("search.yaml", "model.onnx", "w.safetensors", ".hidden.yaml", "photos.npz"):
        (tmp_path / name).touch()
    told = SimpleNamespace(folder="runs/one")
    assert COMPLETERS["file"]("") == ["runs/", "search.yaml"]
    assert COMPLETERS["file"](".h") == [".hidden.yaml"]
    assert COMPLETERS["checkpoint"]("") == ["runs/", "w.safetensors"]
    assert COMPLETERS["folder"]("runs/") == ["runs/one/"]
    assert COMPLETERS["folder"]("gone/") == []
    assert COMPLETERS["data"]("") == ["digits", "photos.npz", "runs/"]
    assert COMPLETERS["number"]("", parsed_args=told) == {"0": "0.5, 100", "1": "0.6123, 200"}
    assert COMPLETERS["numbers"]("1,", parsed_args=told) == ["1,0"]
    assert COMPLETERS["number"]("", parsed_args=SimpleNamespace(folder="gone")) == {}
    assert COMPLETERS["on"]("") == ["pi4"]
    assert "f1,latency_ms@pi4" in COMPLETERS["objectives"]("f1,lat")
    assert "f1,f1" not in COMPLETERS["objectives"]("f1,")
    assert "params<=" in COMPLETERS["limit"]("")
    assert "f1=" in COMPLETERS["min"]("")
    assert "micro" in COMPLETERS["space"]("")
    assert "device-list" in COMPLETERS["schema of"]("")
    monkeypatch.setenv("ARCHTUNA_DEVICES", "{")
    assert COMPLETERS["on"]("") == []


def asked(line: str, folder: Path) -> tuple[list[str], str]:
    """Ask as a shell does, and return the answers and the modules that were imported for them."""
    code = (
        "import sys, argcomplete.finders as f, archtuna.cli as c, os\n"
        "try: c.main([])\n"
        "finally: sys.stderr.write(' '.join(sorted({'torch', 'optuna', 'numpy', 'rich', 'yaml'} & set(sys.modules))))\n"
    )
    out = folder / "answers"
    given = {
        "_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_SHELL": "bash", "COMP_LINE": line,
        "COMP_POINT": str(len(line)), "_ARGCOMPLETE_STDOUT_FILENAME": str(out),
    }  # fmt: skip
    code = code.replace("finally:", "except SystemExit: pass\nfinally:")
    code = code.replace("c.main([])", "f._exit = sys.exit; os._exit = sys.exit; c.main([])")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env={**os.environ, **given}, capture_output=True, text=True
    )
    return [answer.strip() for answer in out.read_text().splitlines()], done.stderr


def test_an_answer_is_quick_and_light(tmp_path: Path) -> None:
    assert asked("archtuna blocks ConvN", tmp_path) == (["ConvNeXtBlock"], "")
    assert asked("archtuna sea", tmp_path) == (["search"], "")
    assert asked("archtuna search --sam", tmp_path) == (["--sampler"], "")
    assert asked("archtuna search s.yaml --sampler nsga", tmp_path) == (["nsga2", "nsga3"], "")
    assert asked("archtuna evaluate --split t", tmp_path) == (["train", "test"], "")
    assert asked("archtuna init --space m", tmp_path)[0] == ["micro", "mobilenetv3"]


@pytest.mark.parametrize("shell", SHELLS)
def test_scripts_are_printed(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "archtuna" in script
    assert "_ARGCOMPLETE" in script


@pytest.fixture
def shell(tmp_path: Path, request: pytest.FixtureRequest, run: Path):
    """A shell on a terminal, with an ``archtuna`` on its path whose completion it has been told."""
    name = request.param
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed here")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "archtuna").write_text(f'#!/bin/sh\nexec {sys.executable} -m archtuna "$@"\n')
    (tmp_path / "bin" / "archtuna").chmod(0o755)
    for file in ("search.yaml", "notes.txt"):
        (tmp_path / file).touch()
    environment = {
        **os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "HOME": str(tmp_path), "TERM": "xterm", "LC_ALL": "C.UTF-8",
        "PS1": "ready> ", "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }  # fmt: skip
    command, told = {
        "bash": (["bash", "--norc", "--noprofile", "-i"], 'eval "$(archtuna completion bash)"'),
        "zsh": (["zsh", "-f", "-i"], 'autoload -U compinit; compinit -D -u; eval "$(archtuna completion zsh)"'),
        "fish": (["fish", "--no-config", "-i"], "archtuna completion fish | source"),
    }[name]
    terminal = Terminal(command, tmp_path, environment, columns=100)
    terminal.press(f"{told}; echo told-${{x}}you\r" if name != "fish" else f"{told}; echo told-'you'\r")
    terminal.wait_for("told-you")
    yield terminal
    terminal.kill()


def completed(terminal: Terminal, line: str, expected: str) -> None:
    """Type a line and TAB, wait for what comes, and take the line back."""
    at = terminal.press(line + "\t")
    deadline = time.monotonic() + 60
    while expected not in plain(terminal.seen[at:]).replace(line, ""):
        assert time.monotonic() < deadline, plain(terminal.seen[at:])
        time.sleep(0.05)
    terminal.press("\x15")  # Takes the line back without a signal, which would throw away what is typed next.


@pytest.mark.slow
@pytest.mark.parametrize("shell", SHELLS, indirect=True)
def test_real_shells_complete(shell: Terminal) -> None:
    completed(shell, "archtuna blocks ConvN", "eXtBlock")
    completed(shell, "archtuna sear", "ch")
    completed(shell, "archtuna check sea", "rch.yaml")
    completed(shell, "archtuna init --space mob", "ilenetv3")
    completed(shell, "archtuna search search.yaml --sampler kn", "own-costs")
    completed(shell, "archtuna show ru", "ns/")


@pytest.mark.slow
@pytest.mark.parametrize("shell", SHELLS, indirect=True)
def test_real_shells_list_the_trials_of_a_run(shell: Terminal) -> None:
    at = shell.press("archtuna show runs/one/ \t")
    if "bash" not in str(shell.process.args):
        shell.wait_for(r"0\.6123, 200", at, seconds=60)
        return
    shell.press("\t")
    shell.wait_for(r"0 +1\b", at, seconds=60)
