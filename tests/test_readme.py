"""What the README says is what happens: its files parse, its commands and its Python run, its map is the tree."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import archtuna as at
from archtuna.model import check_output
from archtuna.registry import BLOCKS
from archtuna.space import SearchSpace
from pictures import folder
from snippets import run
from spaces import SEED

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_search_file_and_the_classic_recipe_are_read():
    example, vary, graph = blocks("yaml")
    space = SearchSpace.read(example)
    assert space.size > 1000
    assert space.default().architecture.input_size == (64, 64)
    assert SearchSpace.read(SEED + vary).size == 5**11
    for candidate in (SearchSpace.read(graph).smallest(), SearchSpace.read(graph).largest()):
        assert check_output(candidate.architecture, classes=6) == 6


def test_ready_spaces_a_schema_and_a_block_of_ones_own_are_as_they_are_shown(tmp_path):
    folder(tmp_path / "photos", each=6)
    module = next(block for block in blocks("python") if block.startswith("# my_blocks.py"))
    (tmp_path / "my_blocks.py").write_text(module)
    row = re.search(r"`(\[1, Squeeze, .*?\])`", README)[1]
    head = "[[1, GlobalAvgPool, []], [1, Flatten, []], [1, Linear, [6]]]"
    (tmp_path / "own.yaml").write_text(f"input_size: 32\nbackbone: [{row}, {head[1:-1]}]\n")
    commands = next(block for block in blocks("sh") if "--space" in block).splitlines()
    for line in [*commands, "archtuna check own.yaml --import my_blocks"]:
        done = run(re.sub(r"\s+#.*", "", line), tmp_path)
        assert done.returncode == 0, done.stderr
    assert "Squeeze" in done.stdout
    assert (tmp_path / "search.schema.json").exists()
    without = run("archtuna check own.yaml", tmp_path)
    assert without.returncode == 1
    assert "--import" in without.stderr
    ours = [name for name in BLOCKS if not BLOCKS[name].is_foreign]
    assert f"without a name, all {len(ours)}" in README


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
        done = run(command, tmp_path)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        if command.startswith("archtuna front"):
            number = re.search(r"^ *(\d+)\*", done.stdout, re.MULTILINE)[1]
    python = next(block for block in blocks("python") if "at.search" in block)
    python = python.replace("17", number).replace("trials=50", "trials=4, training={'epochs': 1}, input_size=32")
    python = python.replace('out="runs/photos"', 'out="runs/second"').replace(
        "runs/photos/checkpoints", "runs/photos/checkpoints"
    )
    done = subprocess.run([sys.executable, "-c", python], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] in ("dots", "stripes", "waves")


def test_the_map_names_every_module():
    package = Path(at.__file__).parent
    tree = {p.name for p in package.glob("*.py")} - {"__init__.py", "__main__.py"}
    tree |= {f"{p.name}/" for p in package.iterdir() if p.is_dir() and p.name != "__pycache__"}
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
    graph, vary = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert check_output(SearchSpace.read(graph).default().architecture, classes=6) == 6
    assert len(SearchSpace.read(SEED + vary).choices) > 20
