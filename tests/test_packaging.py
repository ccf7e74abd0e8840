"""What is handed out: the wheel holds the package and nothing else, the archive builds that wheel, and it works alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Mapping
from pathlib import Path

import jsonschema
import pytest
import yaml
from packaging.metadata import Metadata
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import archtuna

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SPACE = """
input_size: 8
backbone:
  - [1, Conv, {channels: 4|8, kernel: 3, stride: 2}]
  - [1, GlobalAvgPool, []]
  - [1, Flatten, []]
  - [1, Linear, [10]]
training: {epochs: 1}
"""


def lowest(requirements: list[str]) -> dict[str, str]:
    """The lowest version of each package that a list of requirements allows, under the package's plain name."""
    found = {}
    for requirement in map(Requirement, requirements):
        (version,) = (bound.version for bound in requirement.specifier if bound.operator == ">=")
        found[canonicalize_name(requirement.name)] = version
    return found


def run(*command: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=env and {**os.environ, **env}, capture_output=True, text=True)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build(source: Path, kind: str, out: Path) -> Path:
    run(sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", out, cwd=source)
    (file,) = out.iterdir()
    return file


def members(archive: Path) -> dict[str, bytes]:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as file:
            return {name: file.read(name) for name in file.namelist()}
    with tarfile.open(archive) as file:
        found = {member.name: file.extractfile(member) for member in file.getmembers() if member.isfile()}
        return {name.partition("/")[2]: content.read() for name, content in found.items() if content}


def files(*folders: str) -> set[str]:
    found = {path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()}
    return {path.relative_to(ROOT).as_posix() for path in found if not {"__pycache__", "runs"} & set(path.parts)}


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (ROOT / "src").is_dir():
        pytest.skip("there is no source to build from")
    return build(ROOT, "sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def alone(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel installed in it."""
    folder = tmp_path_factory.mktemp("alone")
    options = ("--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", "--root-user-action=ignore")
    run(sys.executable, "-m", "pip", "install", *options, "--target", folder, wheel, cwd=folder)
    return folder


def test_the_lowest_versions_that_are_tested_are_those_that_are_allowed() -> None:
    lines = (ROOT / "constraints-lowest.txt").read_text().splitlines()
    tested = {canonicalize_name(n): v for n, _, v in (line.partition("==") for line in lines if "==" in line)}
    allowed = lowest(PROJECT["dependencies"])
    makefile = (ROOT / "Makefile").read_text()
    assert Version(re.search(r"^LOWEST_TORCH \?= (\S+)$", makefile, re.MULTILINE)[1]) == Version(allowed.pop("torch"))
    (extras,) = re.findall(r"-c constraints-lowest.txt -e '.\[(.*)\]'", makefile)
    for extra in extras.split(","):
        allowed |= lowest(PROJECT["optional-dependencies"][extra])
    assert {n: Version(v) for n, v in tested.items()} == {n: Version(v) for n, v in allowed.items()}


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    held = members(wheel)
    notes = {name for name in held if ".dist-info/" in name}
    assert set(held) - notes == {name.removeprefix("src/") for name in files("src")}
    assert {name.partition("/")[2] for name in notes} == {
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "licenses/LICENSE",
    }
    assert {"archtuna/py.typed", "archtuna/spaces/micro.yaml"} <= set(held)
    assert wheel.stat().st_size < 2_000_000


@pytest.mark.slow
def test_the_archive_holds_what_the_tests_read_and_builds_the_same_wheel(
    sdist: Path, wheel: Path, tmp_path: Path
) -> None:
    held = set(members(sdist))
    assert files("src", "tests", "examples", "docs", ".github") - held == set()
    kept = {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "CITATION.cff", "LICENSE", "Makefile"}
    assert kept | {"constraints.txt", "constraints-lowest.txt", "Containerfile", "pyproject.toml"} <= held
    assert not [name for name in held if re.search(r"__pycache__|\.(pyc|db|safetensors|onnx)$|^runs/", name)]
    with tarfile.open(sdist) as file:
        file.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    assert members(build(unpacked, "wheel", tmp_path / "dist")) == members(wheel)


@pytest.mark.slow
def test_the_metadata_is_valid_and_names_what_pyproject_does(wheel: Path) -> None:
    (text,) = (content for name, content in members(wheel).items() if name.endswith(".dist-info/METADATA"))
    told = Metadata.from_email(text, validate=True)
    assert str(told.version) == PROJECT["version"]
    assert told.license_expression == "MIT"
    assert set(told.provides_extra or ()) == set(PROJECT["optional-dependencies"])
    assert told.description is not None
    assert told.description.startswith("# archtuna")


@pytest.mark.slow
def test_the_installed_wheel_works_from_an_empty_folder(alone: Path, tmp_path: Path) -> None:
    def command(*words: str) -> str:
        return run(sys.executable, alone / "bin" / "archtuna", *words, cwd=tmp_path, env={"PYTHONPATH": str(alone)})

    where = run(
        sys.executable, "-c", "import archtuna; print(archtuna.__file__)", cwd=tmp_path, env={"PYTHONPATH": str(alone)}
    )
    assert Path(where.strip()).is_relative_to(alone)
    assert command("--version") == f"archtuna {PROJECT['version']}\n"
    assert json.loads(command("versions", "--json"))["packages"].keys() == {
        Requirement(line).name for line in PROJECT["dependencies"]
    }
    (tmp_path / "search.yaml").write_text(SPACE)
    assert json.loads(command("check", "search.yaml", "--json"))["space_size"] == 2
    command("search", "search.yaml", "--data", "digits", "--out", "run", "--trials", "2", "--fraction", "0.2")
    front = json.loads(command("front", "run", "--json"))
    assert front
    assert all(Path(tmp_path / trial["checkpoint"]).exists() for trial in front)


@pytest.mark.slow
def test_ready_spaces_and_the_agent_come_with_the_wheel(alone: Path, tmp_path: Path) -> None:
    from archtuna.starter import spaces

    env = {"PYTHONPATH": str(alone)}
    for name in spaces():
        words = ("init", f"{name}.yaml", "--space", name, "--classes", "3")
        run(sys.executable, "-m", "archtuna", *words, cwd=tmp_path, env=env)
        assert (tmp_path / f"{name}.yaml").exists()
    assert "serve" in run(sys.executable, alone / "archtuna" / "agent.py", "--help", cwd=tmp_path)


def test_every_extra_is_documented() -> None:
    page = (ROOT / "docs" / "install.md").read_text()
    assert set(PROJECT["optional-dependencies"]) == set(re.findall(r"^\| `([\w-]+)` \|", page, re.MULTILINE))


def test_the_container_file_has_no_complaints_from_its_linter() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([linter, "--no-color", ROOT / "Containerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_container_file_finds_what_it_copies_and_installs_what_there_is() -> None:
    text = (ROOT / "Containerfile").read_text()
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {name for line in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE) for name in line.split()}
    assert copied == let_in
    assert all((ROOT / name).exists() for name in copied - {"src"})
    (extras,) = re.findall(r"^ARG EXTRAS=(.*)$", text, re.MULTILINE)
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    assert f"ARG TORCH={re.search(r'^TORCH .= (.*)$', (ROOT / 'Makefile').read_text(), re.MULTILINE)[1]}\n" in text
    assert text.index("\nUSER ") < text.index("\nENTRYPOINT ")


def test_the_citation_is_valid_and_of_this_version() -> None:
    told = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    schema = json.loads((ROOT / "tests" / "schemas" / "citation-1.2.0.json").read_text())
    jsonschema.Draft7Validator(schema).validate(told)
    assert (told["version"], told["license"]) == (PROJECT["version"], PROJECT["license"])
    assert [author["name"] for author in told["authors"]] == [author["name"] for author in PROJECT["authors"]]
    assert archtuna.__version__ == PROJECT["version"]


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem
)
def test_forms_of_issues_have_what_they_need(path: Path) -> None:
    form = yaml.safe_load(path.read_text())
    if path.stem == "config":
        assert form == {"blank_issues_enabled": True}
        return
    assert {"name", "description", "body"} <= set(form)
    ids = [field["id"] for field in form["body"]]
    assert len(ids) == len(set(ids))
    for field in form["body"]:
        assert field["type"] in ("textarea", "input", "checkboxes", "dropdown")
        assert field["attributes"]["label"]
    assert any(field.get("validations", {}).get("required") for field in form["body"])


def test_pages_for_contributors_name_what_is_there() -> None:
    for page in ("CONTRIBUTING.md", "SECURITY.md", "docs/install.md"):
        text = (ROOT / page).read_text()
        here = (ROOT / page).parent
        links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
        assert [link for link in links if not (here / link).exists()] == []
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make ([\w-]+)", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)) <= targets
