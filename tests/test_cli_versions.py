"""What a bug report needs to say about an installation, and that saying it loads nothing."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from importlib import metadata

import optuna
import pytest

import archtuna
from archtuna.cli import main, versions

REQUIRES = [
    "torch>=2.8",
    "optuna<6,>=5.0",
    "scikit-learn>=1.4",
    "onnxruntime>=1.20; extra == 'onnx'",
    "nowhere-to-be-found>=1; extra == 'onnx'",
    'absent[binary]>=3.1; extra == "postgresql"',
    "archtuna[onnx]; extra == 'test'",
    "pytest>=8; extra == 'test'",
]


@pytest.fixture
def requires(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "requires", lambda name: REQUIRES)


def test_what_is_installed_and_what_is_not_is_said(requires: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["versions", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["archtuna"], found["python"]) == (archtuna.__version__, platform.python_version())
    assert list(found["packages"]) == ["torch", "optuna", "scikit-learn"]
    assert found["packages"]["optuna"] == optuna.__version__
    assert list(found["extras"]) == ["onnx", "postgresql"]
    assert found["extras"]["postgresql"] == {"absent": None}
    assert found["extras"]["onnx"]["nowhere-to-be-found"] is None


def test_each_line_is_a_package_or_an_extra(
    requires: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(versions, "_version", {"torch": "2.9", "optuna": "5.1", "onnxruntime": "1.30"}.get)
    assert main(["versions"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["archtuna", archtuna.__version__]
    assert lines[3:] == [
        "torch         2.9",
        "optuna        5.1",
        "scikit-learn  missing",
        "[onnx]        onnxruntime 1.30; without nowhere-to-be-found",
        "[postgresql]  without absent",
    ]


def test_a_folder_of_source_has_no_record_of_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", unknown)
    assert versions.installed()["packages"] == {}


def test_nothing_is_imported_to_say_it() -> None:
    check = (
        "import sys; from archtuna.cli import main; main(['versions'])\n"
        "assert not {'torch', 'optuna', 'numpy', 'onnxruntime', 'ray'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_version_alone_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"archtuna {archtuna.__version__}\n"
