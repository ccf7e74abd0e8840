"""The examples run as they stand, and an existing network becomes searchable in as few lines as is said."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from archtuna.space import SearchSpace

EXAMPLES = Path(__file__).parent.parent / "examples"


def timm_is_missing():
    try:
        importlib.import_module("timm")
    except Exception as error:  # A torchvision that does not fit torch fails in ways of its own.
        return f"timm cannot be imported: {error}"
    return None


@pytest.mark.slow
@pytest.mark.parametrize("name", [path.stem for path in sorted(EXAMPLES.glob("*.py"))])
def test_an_example_runs_and_finds_a_front(name, tmp_path):
    missing = timm_is_missing() if name.startswith("timm") else None
    if missing:
        pytest.skip(missing)
    done = subprocess.run([sys.executable, EXAMPLES / f"{name}.py"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "'f1':" in done.stdout
    assert list((tmp_path / "runs").glob("*/checkpoints/*.safetensors"))


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_a_search_file_of_the_examples_builds(path):
    assert SearchSpace.read(path).default().architecture.rows


def test_an_existing_network_becomes_searchable_in_under_ten_lines():
    text = (EXAMPLES / "own_network.py").read_text()
    start = text.index("# These lines make it searchable")
    lines = [line for line in text[start : text.index("if __name__")].splitlines() if line.strip() and line[0] != "#"]
    assert len(lines) < 10
    network = next(node for node in ast.parse(text).body if isinstance(node, ast.ClassDef) and node.name == "ResNet")
    assert "archtuna" not in ast.get_source_segment(text, network).split('"""')[2]
