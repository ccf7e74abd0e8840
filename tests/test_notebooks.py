"""The notebooks run from top to bottom, and lie in the repository without outputs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parent.parent / "examples" / "notebooks").glob("*.ipynb"))
SMALLER = {
    "TRIALS, EPOCHS = 20, 12": "TRIALS, EPOCHS = 3, 2",
    "TRIALS, EPOCHS, PATIENCE = 6, 4, 60": "TRIALS, EPOCHS, PATIENCE = 2, 1, 2",
}


def read(path):
    return nbformat.read(path, as_version=4)


def test_there_are_two():
    assert [path.stem for path in NOTEBOOKS] == ["first_search", "own_block"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_lies_here_without_outputs(path):
    cells = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert [cell.outputs for cell in cells] == [[]] * len(cells)
    assert {cell.execution_count for cell in cells} == {None}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path):
    notebook = read(path)
    shortened = 0
    for cell in notebook.cells:
        for settings, smaller in SMALLER.items():
            shortened += settings in cell.source
            cell.source = cell.source.replace(settings, smaller)
    assert shortened == 1
    NotebookClient(notebook, timeout=200, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    printed = "".join(o.get("text", "") for cell in notebook.cells for o in cell.get("outputs", []))
    if path.stem == "first_search":
        assert "it says" in printed
        assert list((tmp_path / "runs/notebook/checkpoints").iterdir())
    else:
        assert "class TwoScales" in (tmp_path / "two_scales.py").read_text()
        assert (tmp_path / "two_scales.onnx").stat().st_size > 1000
        assert " ms (" in printed or "busy" in printed
