"""Whatever stands in a file, reading it ends soon, in little memory, with the file read or with one error of ours."""

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from archtuna.errors import ArchtunaError, SpecError
from archtuna.report import check_lines
from archtuna.space import SearchSpace
from mutations import MODELS, bombs, invented, mutated

HANG = 30
"""Seconds after which a file is said to hang: six times the bar, because the machines that run this are busy."""

MEMORY = 1_000
"""Megabytes."""


def handled(text: str, rng: random.Random) -> str:
    """Read a file and build a network of it, and say how far that went; whatever is no error of ours comes through."""
    try:
        space = SearchSpace.read(text + "\n")
    except SpecError as error:
        assert str(error)
        return "refused"
    try:
        architecture = space.random(rng).architecture
        assert SearchSpace.read(architecture.to_yaml()).default().architecture.key == architecture.key
        check_lines(space)
    except ArchtunaError as error:
        assert str(error)
        return "does not build"
    return "builds"


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(4))
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_a_file_that_went_wrong_is_read_or_refused(chunk, monkeypatch):
    monkeypatch.chdir(MODELS / "kindle")
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("hangs"))
    found = []
    for i in range(400):
        rng = random.Random(400 * chunk + i)
        text = (invented if i % 5 == 4 else mutated)(rng)
        signal.alarm(HANG)
        try:
            found.append(handled(text, rng))
        finally:
            signal.alarm(0)
    # The mutations would test little if nearly all of them were refused for their brackets.
    assert found.count("builds") > 20
    assert found.count("refused") > 100


BOMBER = """
import json, re, sys, time
from archtuna.cli import main
for path in sys.argv[1:]:
    start = time.perf_counter()
    code = main(["check", path])
    # Of this program alone: ru_maxrss begins with that of the process that started it.
    peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024
    print("\\n" + json.dumps([path, code, time.perf_counter() - start, peak]), flush=True)
"""


@pytest.mark.slow
def test_files_that_are_made_to_take_time_or_memory_take_little(tmp_path):
    names = []
    for name, content in bombs():
        (tmp_path / f"{name}.yaml").write_bytes(content)
        names.append(f"{name}.yaml")
    names += ["/dev/zero", "."]
    done = subprocess.run(
        [sys.executable, "-c", BOMBER, *names], cwd=tmp_path, capture_output=True, text=True, timeout=10 * HANG
    )
    assert "Traceback" not in done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('["')]
    assert [path for path, *_ in lines] == names, done.stderr[-2000:]
    assert [line for line in lines if line[1] not in (0, 1) or line[2] > HANG or line[3] > MEMORY] == []
    assert [line[0] for line in lines if line[1] == 0] == []
    assert not (tmp_path / "pwned").exists()
    # One error each, of one line and a hint; a message does not repeat a megabyte of file.
    errors = [line for line in done.stderr.splitlines() if line.startswith("archtuna: ") and ": note: " not in line]
    assert max(map(len, errors)) < 4_000


def test_the_text_of_a_file_never_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for tag in (
        "!!python/object/apply:os.system ['touch pwned']",
        "!!python/name:os.system",
        "!!python/object/new:os.system [x]",
    ):
        with pytest.raises(SpecError, match="is not allowed: files hold plain data"):
            SearchSpace.read(f"backbone: {tag}\n")
    assert list(Path().iterdir()) == []
