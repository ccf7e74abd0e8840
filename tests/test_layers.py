"""The house's order: a module imports only from rows below its own."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import archtuna

SOURCE = Path(archtuna.__file__).parent
DESIGN = Path(__file__).parent.parent / "docs" / "design.md"


def drawn():
    """The rows of docs/design.md, highest first; modules of one row may import each other where no circle arises."""
    block = DESIGN.read_text(encoding="utf-8").partition("## Layers")[2].split("```")[1]
    rows = re.findall(r"((?:^\S.*\n)+)(?:^    .*\n)+", block, re.MULTILINE)
    return [row.split() for row in rows]


ROWS = drawn()
ROW = {name: -i for i, row in enumerate(ROWS) for name in row} | {"__main__": 0}
MODULES = [p for p in sorted(SOURCE.rglob("*.py")) if p != SOURCE / "__init__.py"]


def home(path):
    """The name of the module, or of the package, that a file belongs to."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(path):
    """Every module that a file imports, wherever in it the import stands; those for type checking only are left out."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            if node.module == "archtuna":
                yield from (f"archtuna.{alias.name}" for alias in node.names)


def ours(path):
    names = {name.split(".")[1] for name in imports(path) if name.startswith("archtuna.")}
    return {name for name in names if name in ROW and name != home(path)}


def test_the_page_draws_every_module_once():
    assert sorted(name for row in ROWS for name in row) == sorted({home(path) for path in MODULES} - {"__main__"})


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_module_imports_only_from_its_row_and_those_below(path):
    assert home(path) in ROW, f"{path.name} has no row"
    assert [name for name in ours(path) if ROW[name] > ROW[home(path)]] == []


def test_no_two_modules_import_each_other():
    graph = {}
    for path in MODULES:
        graph.setdefault(home(path), set()).update(ours(path))

    def reachable(name, seen):
        for other in graph.get(name, ()):
            if other not in seen:
                seen.add(other)
                reachable(other, seen)
        return seen

    assert [name for name in graph if name in reachable(name, set())] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_optuna_stays_in_the_study_row_and_yaml_in_one_module(path):
    outside = {name.split(".")[0] for name in imports(path)}
    if home(path) not in ROWS[2]:
        assert "optuna" not in outside
    if home(path) != "document":
        assert "yaml" not in outside
    if ROW[home(path)] <= ROW["architecture"]:
        assert "torch" not in outside


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_only_the_command_line_prints(path):
    calls = [
        n.func.id
        for n in ast.walk(ast.parse(path.read_text()))
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
    ]
    assert home(path) == "cli" or "print" not in calls


@pytest.mark.parametrize(
    "code", ["import archtuna", "import archtuna.cli", "from archtuna import Architecture, Recipe, block"]
)
def test_importing_is_light(code):
    check = "import sys; heavy = {'torch', 'optuna', 'rich', 'PIL', 'sklearn', 'scipy', 'pandas', 'yaml'} & set(sys.modules); assert not heavy, heavy"
    subprocess.run([sys.executable, "-c", f"{code}; {check}"], check=True)


def test_every_module_has_its_test():
    tests = {p.stem.removeprefix("test_") for p in Path(__file__).parent.glob("test_*.py")}
    # Rows and dialects are read through the space; a run of `python -m archtuna` is the command line's.
    through = {name: "space" for name in ("modelfile", "reader", "rows", "dialect")} | {"__main__": "cli"}
    missing = [
        name
        for name in ROW
        if not any(test == through.get(name, name) or test.startswith(f"{name}_") for test in tests)
    ]
    assert missing == []
