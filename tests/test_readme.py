"""What the README says is what happens: its files parse, its commands and its Python run, its map is the tree."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from archtuna.space import SearchSpace
from pictures import folder
from spaces import SEED

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_search_file_and_the_classic_recipe_are_read():
    example, vary = blocks("yaml")
    space = SearchSpace.read(example)
    assert space.size > 1000
    assert space.default().architecture.input_size == (64, 64)
    assert SearchSpace.read(SEED + vary).size == 5**11


def test_every_shipped_search_file_is_read():
    files = sorted((ROOT / "examples").glob("*.yaml"))
    assert files
    for file in files:
        space = SearchSpace.read(file)
        assert space.notes == ()
        assert space.smallest().architecture


@pytest.mark.slow
def test_the_commands_and_the_python_of_the_five_minutes_run(tmp_path):
    folder(tmp_path / "photos", each=12)
    folder(tmp_path / "some", each=1)
    (tmp_path / "new").mkdir()
    (tmp_path / "some" / "dots" / "000.jpg").rename(tmp_path / "new.jpg")
    (tmp_path / "some" / "waves" / "000.jpg").rename(tmp_path / "new" / "a.jpg")
    commands = next(block for block in blocks("sh") if "archtuna search" in block)
    # Minutes become trials, and the trial of the text one of the front.
    commands = commands.replace("--time 20m", "--trials 3 --epochs 1").replace(
        "--epochs 60 --seeds 3", "--epochs 1 --seeds 2"
    )
    number = None
    for line in commands.splitlines():
        command = re.sub(r"\s+#.*", "", line).replace("17", str(number))
        done = subprocess.run(
            command.replace("archtuna", f"{sys.executable} -m archtuna", 1),
            shell=True,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        if command.startswith("archtuna front"):
            number = re.search(r"^ *(\d+)\*", done.stdout, re.MULTILINE)[1]
    (python,) = blocks("python")
    python = python.replace("17", number).replace("trials=50", "trials=4, training={'epochs': 1}, input_size=32")
    python = python.replace('out="runs/photos"', 'out="runs/second"').replace(
        "runs/photos/checkpoints", "runs/photos/checkpoints"
    )
    done = subprocess.run([sys.executable, "-c", python], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] in ("dots", "stripes", "waves")


def test_the_map_names_every_module():
    tree = {p.name for p in (ROOT / "src" / "archtuna").glob("*.py")} - {"__init__.py", "__main__.py"}
    tree |= {f"{p.parent.name}/" for p in (ROOT / "src" / "archtuna").glob("*/__init__.py")}
    start = README.index("src/archtuna/\n")
    named = set(re.findall(r"\b(\w+\.py|\w+/)(?= |$)", README[start : README.index("```", start)], re.MULTILINE))
    assert tree - named == set()
    assert named - tree <= {
        "tests/",
        "benchmarks/",
        "examples/",
        "docs/",
        "archtuna/",
        "test_properties.py",
        "test_classic.py",
    }


def test_the_reference_of_the_file_names_every_key_and_its_example_is_read():
    from archtuna.modelfile import KEYS

    text = (ROOT / "docs" / "format.md").read_text()
    assert [key for key in KEYS if key != "format" and f"`{key}`" not in text] == []
    (vary,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert len(SearchSpace.read(SEED + vary).choices) > 20
