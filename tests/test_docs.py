"""What the pages say is what happens: their commands and their Python run, their search files are read, the site builds."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import archtuna as at
from archtuna.recipe import PARAMETERS
from archtuna.settings import DATA, DEPLOY, SEARCH
from archtuna.space import SearchSpace
from pictures import folder
from snippets import Interpreter, commands, run, snippets
from spaces import SEED, TINY
from steady import believe

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
GENERATED = ("cli", "json")
"""Written from the parsers and the schemas, whose tests hold them."""
TRIED = ("start",)
"""Pages with a test of their own."""
WRITTEN = [page for page in PAGES if page.stem not in GENERATED]
RUN = [
    page
    for page in WRITTEN
    if page.stem not in TRIED and any(s.language in ("sh", "python", "yaml") for s in snippets(page.read_text()))
]

SMALLER = {
    r"--time \w+|--trials 50\b": "--trials 2 --epochs 1",
    r"--epochs \d+": "--epochs 1",
    r"--seeds (3|20)\b": "--seeds 1",
    r"--trials 400": "--trials 8",
    r"\btrials=50": "trials=2, training={'epochs': 1}",
    r"\bepochs=20": "epochs=1",
    r"(archtuna bench (?!.*--trials).*)": r"\1 --seeds 1 --trials 8",
    r"--workers 2": "--workers 1",
    r"\bworkers=2": "workers=1",
}
"""What takes minutes or hours, and what a test does in its place."""
ELSEWHERE = {
    r"\bCHECKPOINT\b": "runs/photos/trained/17.safetensors",
    r"\bmoved/photos": "photos",
    r" --on pi4": "",
    r"\bclasses=6": "classes=3",
    r"\btrashnet": "photos",
    r', on=target_of\("pi4"\)': "",
    r"--table nasbench201 --objectives error_cifar100,ms_pixel3 --worst error_cifar100=50": "--table mine --objectives error,ms --worst error=50",
}
"""Names of a reader's own things, and what stands for them here."""
NUMBER = "0"
"""Of the pages' trial 17: the file's own network, which every search trains."""
BEFORE = {
    "bench.md": """
import json, pathlib, numpy as np
pathlib.Path("tables").mkdir()
codes = [[a, b, c] for a in range(3) for b in range(3) for c in range(3)]
values = [[10 - sum(code), 1 + code[0]] for code in codes]
np.savez("tables/mine.npz", codes=codes, decisions=["a", "b", "c"], columns=["error", "ms"], values=values, known=[False, True])
pathlib.Path("my_module.py").write_text("from optuna.samplers import RandomSampler as MySampler")
""",
    "int8.md": """
import archtuna as at
from archtuna.checkpoint import read_header
from archtuna.data import Batches
header = read_header("runs/photos/trained/17.safetensors")
data = header.open_data()
pictures, preprocess = header.images(data)
validation = Batches(pictures, data.split().val, preprocess, batch_size=256)
images, labels = next(validation.epoch(0))
""",
    "latency.md": """
import archtuna as at
from archtuna import latency
model = at.load("runs/photos/trained/17.safetensors")
latency.QUIET, latency.FIRST = 1e9, 1
""",
    "latency-predictor.md": """
import archtuna as at
from archtuna.block_table import BlockTable
architecture = at.load("runs/photos/trained/17.safetensors").architecture
content_of_the_onnx_file = open("model.onnx", "rb").read()
space = at.SearchSpace.read("search.yaml")
measured = candidates = [space.smallest().architecture, space.largest().architecture, architecture]
milliseconds = [0.2, 0.4, 0.3]
table = BlockTable()
""",
}
"""What a page takes for granted: the reader's own measurements, pictures, tables."""


@pytest.fixture(scope="session")
def workspace(tmp_path_factory):
    """A reader's folder: pictures, a search file, a run with a trained network, its export, pictures to classify."""
    root = tmp_path_factory.mktemp("reader")
    folder(root / "photos", each=10)
    (root / "new").mkdir()
    shutil.copy(root / "photos" / "dots" / "000.jpg", root / "new.jpg")
    shutil.copy(root / "photos" / "waves" / "000.jpg", root / "new" / "a.jpg")
    (root / "search.yaml").write_text(TINY)
    at.search(str(root / "search.yaml"), str(root / "photos"), out=root / "runs" / "photos", trials=3)
    weights = f"runs/photos/trained/{NUMBER}.safetensors"
    for command in (f"archtuna train runs/photos {NUMBER} --epochs 1", f"archtuna export {weights} model.onnx"):
        done = run(command, root)
        assert done.returncode == 0, done.stderr
    shutil.copy(root / weights, root / f"{NUMBER}.safetensors")
    return root


def shortened(text):
    for table in (ELSEWHERE, SMALLER):
        for pattern, instead in table.items():
            text = re.sub(pattern, instead, text)
    return re.sub(r"\b17\b", NUMBER, text)


def quick_to_believe():
    believe(pytest.MonkeyPatch())


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_what_a_page_shows_runs(page, workspace, tmp_path):
    shutil.copytree(workspace, tmp_path, dirs_exist_ok=True)
    python = Interpreter(tmp_path)
    try:
        if page.name in BEFORE:
            assert python.run(shortened(BEFORE[page.name])) is None
        for snippet in snippets(page.read_text()):
            if snippet.reason is None:
                try_out(snippet, python, tmp_path, f"{page.name}:{snippet.line}")
    finally:
        python.close()


def try_out(snippet, python, place, where):
    text = shortened(snippet.text)
    if snippet.name is not None:
        (place / snippet.name).write_text(text)
    elif snippet.language == "python":
        error = python.run(text)
        assert error is None, f"{where}\n{error}"
    elif snippet.language == "yaml":
        assert SearchSpace.read(text if "backbone" in text else SEED + text).size >= 1
    elif snippet.language == "sh":
        for command in commands(text):
            if command.startswith("pip install 'archtuna["):
                continue  # That there are such extras is another test's.
            if begun := re.match(r"archtuna init (\S+\.yaml)", command):
                (place / begun[1]).unlink(missing_ok=True)
                if begun[1] == "search.yaml":
                    shutil.rmtree(place / "runs" / "photos")  # It is another file's search.
            done = run(command, place, first=quick_to_believe)
            assert done.returncode == 0, f"{where}: {command}\n{done.stdout}{done.stderr}"


def test_every_search_file_of_a_page_is_read():
    for page in PAGES:
        for snippet in snippets(page.read_text()):
            if snippet.language == "yaml" and snippet.name and "Squeeze" not in snippet.text:
                space = SearchSpace.read(snippet.text, input_size=32)
                assert space.notes == ()
                assert space.size > 1
                assert space.smallest().architecture


SECTIONS = {"Data": DATA, "Training": PARAMETERS, "Search": SEARCH, "Deploy": DEPLOY}


@pytest.mark.parametrize("heading", SECTIONS)
def test_the_reference_of_the_file_has_every_key_with_its_default(heading):
    section = (DOCS / "format.md").read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    told = dict(re.findall(r"^\| `(\w+)` \|.*\| ([^|]+) \|$", section, re.MULTILINE))
    words = {None: "null", True: "true", False: "false"}
    defaults = {name: p.default for name, p in SECTIONS[heading].items()}
    assert told == {n: words[d] if d is None or isinstance(d, bool) else str(d) for n, d in defaults.items()}


def test_a_snippet_that_is_not_run_says_why_and_they_stay_few():
    """Who adds one raises the number, and says in the page what it would take to run it."""
    reasons = [(p.name, s.line, s.reason) for p in PAGES for s in snippets(p.read_text()) if s.reason]
    assert all(len(reason) > 10 for _, _, reason in reasons)
    assert len(reasons) <= 19, "\n".join(map(str, reasons))


def test_the_extras_that_pages_name_exist():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {extra for page in PAGES for extra in re.findall(r"archtuna\[(\w+)\]", page.read_text())}
    assert named - set(declared) == set()


def test_commands_do_not_hide_in_fences_without_a_language():
    for page in WRITTEN:
        bare = re.findall(
            r"^```\n(.*?)^```$", re.sub(r"^```\w.*?^```$", "", page.read_text(), flags=re.M | re.S), re.M | re.S
        )
        assert [text for text in bare if re.search(r"^(archtuna|pip|python|export|ssh) ", text, re.M)] == [], page.name


def test_snippets_are_found_with_their_reasons_and_names():
    page = "a\n```sh\nx  # y\nz \\\n  w\n```\n\n<!-- not run: no such thing -->\n```python\n1\n```\n```yaml\na: 1\n```\nSaved\nas `b.yaml`:\n```python\n# c.py\n```\n"
    found = list(snippets(page))
    assert [(s.language, s.reason, s.name) for s in found] == [
        ("sh", None, None),
        ("python", "no such thing", None),
        ("yaml", None, "b.yaml"),
        ("python", None, "c.py"),
    ]
    assert commands(found[0].text) == ["x", "z w"]
    assert found[1].line == 9


def test_a_block_that_fails_is_told(tmp_path):
    python = Interpreter(tmp_path)
    assert python.run("a = 1") is None
    assert python.run("assert a == 1") is None
    assert "ZeroDivisionError" in python.run("a / 0")
    python.close()


def test_every_page_is_in_the_navigation():
    """The site's build says so, too; this one is quick, and needs none of its tools."""
    index = (DOCS / "index.md").read_text()
    listed = re.findall(r"^[\w-]+$", index, re.MULTILINE)
    assert {page.stem for page in PAGES} - {*listed, "index"} == set()


def test_links_of_pages_lead_to_files_and_headings():
    """As Markdown is read where it lies; the site's build checks what it makes of them."""
    for page in [*PAGES, ROOT / "README.md", *sorted((ROOT / "benchmarks" / "results").glob("*.md"))]:
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"https?://|mailto:", target):
                continue
            path, _, anchor = target.partition("#")
            there = (page.parent / path).resolve() if path else page
            assert there.exists(), f"{page.name}: {target}"
            if anchor:
                assert anchor in anchors(there), f"{page.name}: {target}"


def anchors(page):
    """The anchors that headings have where Markdown is shown."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_public_names_and_what_they_return_are_in_the_reference():
    text = (DOCS / "api.md").read_text()
    assert [name for name in at.__all__ if not re.search(rf"archtuna\.{name}\b", text)] == []


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    words = [sys.executable, "-m", "sphinx", "-c", str(DOCS), "-b", "html", "-q", "-W", "--keep-going", "-n"]
    done = subprocess.run(
        [*words, "-d", str(tmp_path / "trees"), str(ROOT), str(tmp_path / "site")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for page in PAGES:
        assert (tmp_path / "site" / "docs" / f"{page.stem}.html").exists()
    site = tmp_path / "site"
    assert "docs/index.html" in (site / "index.html").read_text()
    outside = [
        f"{page.relative_to(site)}: {link}"
        for page in site.rglob("*.html")
        for link in re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?://[^"]+)"', page.read_text())
    ]
    assert outside == [], "a page that is read without a network"
