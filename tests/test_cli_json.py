"""What ``--json`` prints is what its schemas say, for every command that has it."""

from __future__ import annotations

import json
import shutil
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

import archtuna as at
from archtuna.cli import main, parser
from archtuna.cli.outputs import outputs, schema_of
from archtuna.cli.reference import commands
from archtuna.registry import UnknownNameError
from pictures import folder
from spaces import SMALL
from steady import believe
from test_cli_devices import served  # noqa: F401  (a fixture)
from test_tables import own

FILE = SMALL.replace("[4, 1", "[3, 1")

RUNS = {
    "init": ("init made.yaml --data digits", "init --list", "init study.yaml --data {photos} --study s --out s --storage sqlite:///s.db"),
    "check": ("check s.yaml", "check one.yaml"),
    "status": ("status {run}",),
    "front": ("front {run}",),
    "pick": ("pick {run}", "pick {run} --knee"),
    "show": ("show {run} 0",),
    "report": ("report {run} --no-pictures --out page.html", "report {run} --out page.html --figures figures"),
    "evaluate": ("evaluate {weights} --data {photos}",),
    "predict": ("predict {weights} {photos}/dots/000.jpg broken.jpg",),
    "export": ("export {weights} m.py --data {photos}",),
    "latency": ("latency {weights}",),
    "profile": ("profile {weights}",),
    "device-list": ("device list",),
    "bench": ("bench tables --samplers random --seeds 2 --trials 6",),
    "blocks": ("blocks", "blocks Conv"),
    "gc": ("gc {run}",),
    "versions": ("versions",),
}  # fmt: skip
"""Commands that are run on the small study; the others have tests of their own."""

ALONE = {"search", "repeat", "worker", "train", "device-show"}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the files that commands take."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("ARCHTUNA_DEVICES", '{"pi4": {"url": "http://pi4:8765"}}')
    believe(monkeypatch)
    (tmp_path / "s.yaml").write_text(FILE)
    (tmp_path / "one.yaml").write_text(
        "backbone: [[1, Conv, [8, 3]], [1, GlobalAvgPool, []], [1, Flatten, []], [1, Linear, [3]]]"
    )
    (tmp_path / "broken.jpg").write_text("no picture")
    (tmp_path / "tables").mkdir()
    own(tmp_path / "tables" / "toy.npz")
    return tmp_path


def printed(capsys: pytest.CaptureFixture[str], command: str, codes: tuple[int, ...] = (0,)) -> list[Any]:
    """Run a command with ``--json``, and return the value of each line."""
    code = main([*command.split(), "--json"])
    out, err = capsys.readouterr()
    assert code in codes, err
    return [json.loads(line) for line in out.splitlines()]


def check(name: str, values: list[Any]) -> None:
    schema = schema_of(name)
    Draft202012Validator.check_schema(schema)
    for value in values:
        problem = best_match(Draft202012Validator(schema).iter_errors(value))
        assert problem is None, f"{name}: {problem.json_path}: {problem.message}"


def test_every_command_with_json_has_a_schema_and_is_run_here() -> None:
    with_json = {
        one.prog.removeprefix("archtuna ").replace(" ", "-")
        for one in commands(parser())
        if any("--json" in action.option_strings for action in one._actions)
    }
    assert set(outputs()) == with_json
    assert set(RUNS) | ALONE == with_json


@pytest.mark.parametrize("name", RUNS)
def test_what_is_printed_is_as_its_schema_says(
    name: str, place: Path, study: at.Study, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(study.folder, place / "run")
    weights = next(path for path in sorted((place / "run" / "checkpoints").iterdir()) if path.suffix == ".safetensors")
    if name == "gc":
        (place / "run" / "checkpoints" / ".0-7.safetensors").write_bytes(b"12345")
    for command in RUNS[name]:
        filled = command.format(run="run", weights=weights, photos=study.spec.data["source"])
        values = printed(capsys, filled, codes=(0, 1) if name == "predict" else (0,))
        assert values
        check(name, values)
        assert all(value or name == "device-list" for value in values)


def test_schemas_are_strict_enough_to_find_a_key_that_is_gone(
    study: at.Study, capsys: pytest.CaptureFixture[str]
) -> None:
    (front,) = printed(capsys, f"front {study.folder}")
    for key in front[0]:
        with pytest.raises(AssertionError, match=f"'{key}' is a required property"):
            check("front", [[{name: value for name, value in front[0].items() if name != key}]])
    with pytest.raises(AssertionError, match=r"\$\[0\]\.number"):
        check("front", [[front[0] | {"number": "0"}]])
    check("front", [[front[0] | {"new": 1}]])


@pytest.mark.slow
def test_what_a_search_its_repeats_a_worker_and_a_training_print(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder(place / "photos", each=12)
    search = "search s.yaml --data photos --out run --trials 3 --epochs 2 --repeats 1 --limit params<=1500"
    events = printed(capsys, search)
    check("search", events)
    assert {"start", "trial", "epoch", "complete", "front", "repeats", "repeat", "repeated", "end"} <= {
        e["event"] for e in events
    }
    check("repeat", printed(capsys, "repeat run --seeds 1"))
    number = events[-1]["front"][0]
    check("train", printed(capsys, f"train run {number} --epochs 1 --seeds 2"))
    made = (
        "search s.yaml --data photos --out two --trials 1 --epochs 1 --workers 0 --study two --storage sqlite:///two.db"
    )
    check("search", printed(capsys, made))
    told = printed(capsys, "worker --study two --storage sqlite:///two.db --out two")
    check("worker", told)
    assert told[-1]["trials"]["complete"] == 1


def test_every_event_that_is_told_has_its_keys_in_the_schema() -> None:
    import re

    known = {one["if"]["properties"]["event"]["const"] for one in schema_of("search")["allOf"]}
    source = Path(at.__file__).parent
    told = set()
    for name in ("worker", "crew", "repeater", "measuring", "driver"):
        told |= set(re.findall(r'"event": "([\w-]+)"', (source / f"{name}.py").read_text()))
    assert told <= known
    with pytest.raises(AssertionError, match="'reason' is a required property"):
        check("search", [{"event": "failed", "number": 3}])
    check("search", [{"event": "something-new"}])


def test_a_device_says_what_it_is(
    place: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    served: tuple[str, str],  # noqa: F811
) -> None:
    url, token = served
    monkeypatch.delenv("ARCHTUNA_DEVICES")
    monkeypatch.setattr("sys.stdin", StringIO(token + "\n"))
    assert main(["device", "add", "here", url]) == 0
    capsys.readouterr()
    check("device-show", printed(capsys, "device show here"))


def test_schemas_are_printed_by_the_name_of_a_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["schema", "--of", "worker"]) == 0
    assert json.loads(capsys.readouterr().out) == schema_of("search")
    assert main(["schema", "--of", "front", str(tmp_path / "f.json")]) == 0
    assert json.loads((tmp_path / "f.json").read_text())["title"] == "archtuna front --json"
    assert capsys.readouterr().out == f"wrote {tmp_path / 'f.json'}\n"
    assert main(["schema", "--of", "frnot"]) == 1
    assert "no command with --json is named 'frnot'\nhint: did you mean 'front'?" in capsys.readouterr().err
    with pytest.raises(UnknownNameError, match="no command with --json is named 'cache'"):
        schema_of("cache")


def test_a_number_that_is_not_finite_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    from archtuna.cli.arguments import print_json

    print_json({"a": [float("nan"), 1.5, (float("inf"),)]})
    assert capsys.readouterr().out == '{"a": [null, 1.5, [null]]}\n'


def test_the_knee_point_as_json_is_the_one_of_the_front(study: at.Study, capsys: pytest.CaptureFixture[str]) -> None:
    (front,), (knee,) = printed(capsys, f"front {study.folder}"), printed(capsys, f"front {study.folder} --knee")
    check("front", [knee])
    assert knee == [one for one in front if one["number"] == study.knee().number]
