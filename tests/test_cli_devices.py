"""Naming a device, serving as one, and measuring on it, all by the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from io import StringIO
from pathlib import Path

import pytest

from archtuna.cli import main
from archtuna.latency import reference_model
from steady import believe

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the folder of settings is moved as Linux has it")


@pytest.fixture(autouse=True)
def own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    believe(monkeypatch)
    for name in ("ARCHTUNA_DEVICES", "ARCHTUNA_DEVICE_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def served() -> Iterator[tuple[str, str]]:
    """The URL and the token of an agent that the command line serves."""
    process = subprocess.Popen(
        [sys.executable, "-m", "archtuna", "device", "serve", "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": ""},
    )  # fmt: skip
    assert process.stdout is not None
    url, token = (process.stdout.readline().split(": ")[-1].split()[-1] for _ in range(2))
    yield url, token
    process.send_signal(signal.SIGINT)
    said = "".join(process.communicate(timeout=20))
    assert process.returncode == 0
    assert token not in said


def test_a_device_is_served_named_shown_measured_on_and_forgotten(
    served: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, token = served
    monkeypatch.setattr("sys.stdin", StringIO(token + "\n"))
    assert main(["device", "add", "pi4", url]) == 0
    assert capsys.readouterr().out == f"pi4 is {url}; 'archtuna device show pi4' asks what it is\n"
    assert main(["device", "list"]) == 0
    assert capsys.readouterr().out == f"pi4  {url}  token in {tmp_path}/archtuna/tokens/pi4\n"
    assert main(["device", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["name"] == "pi4"
    assert main(["device", "show", "pi4"]) == 0
    assert "CPUExecutionProvider" in capsys.readouterr().out
    assert main(["device", "show", "pi4", "--json"]) == 0
    machine = json.loads(capsys.readouterr().out)
    (tmp_path / "model.onnx").write_bytes(reference_model())
    assert main(["latency", str(tmp_path / "model.onnx"), "--on", "pi4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["device"]["processor"] == machine["processor"]
    assert 0 < found["low"] <= found["ms"] <= found["high"]
    assert found["joules"] is None or found["joules"] > 0
    assert main(["device", "remove", "pi4"]) == 0
    assert capsys.readouterr().out == "pi4 is forgotten\n"
    assert main(["device", "list"]) == 0
    assert capsys.readouterr().out == "no device has a name yet: archtuna device add NAME URL\n"


def test_mistakes_are_one_error_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", StringIO(""))
    (tmp_path / "token").write_text("short")
    mistakes = {
        "device show pi4": "archtuna: there is no device 'pi4'\nhint: archtuna device add NAME URL names one",
        "device remove pi4": "archtuna: there is no device 'pi4'",
        "device add pi4 pi4:8765": "archtuna: 'pi4:8765' is no device's URL",
        f"device serve --token-file {tmp_path}/token": "archtuna: the token has fewer than 16 characters\nhint: leave it",
        f"device serve --token-file {tmp_path}/none": "archtuna: the token cannot be read: ",
        "latency m.onnx --on pi4": "archtuna: there is no device 'pi4'",
        "latency m.onnx --runtime tensorflow": "archtuna: unknown runtime 'tensorflow'\nhint: known: onnxruntime, torch",
        "latency m.onnx --runtime torch": "archtuna: m.onnx: torch does not run .onnx files\nhint: give the checkpoint",
        "latency m.pte": "archtuna: m.pte: onnxruntime does not run .pte files\nhint: give the checkpoint",
    }
    for words, says in mistakes.items():
        assert main(words.split()) == 1
        assert capsys.readouterr().err.startswith(says), words
    with pytest.raises(SystemExit, match="2"):
        main(["device"])


def test_a_port_that_is_taken_is_one_error(served: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["device", "serve", "--port", served[0].rpartition(":")[2]]) == 1
    assert capsys.readouterr().err == "archtuna: Address already in use\n"


def test_energy_is_said_where_it_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from archtuna import agent

    (tmp_path / "model.onnx").write_bytes(reference_model())
    monkeypatch.setattr(
        agent, "energy_counters", lambda *_: nullcontext([(iter(range(0, 10**9, 15_000)).__next__, 1e-6, 1 << 40)])
    )
    monkeypatch.setattr(agent, "ENERGY_SECONDS", 0.0)
    assert main(["latency", str(tmp_path / "model.onnx")]) == 0
    assert "\n5 mJ, with what the machine takes at rest\n" in capsys.readouterr().out


def test_the_one_file_is_copied_from_where_the_command_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["device", "agent"]) == 0
    copied = tmp_path / "agent.py"
    copied.write_bytes(Path(capsys.readouterr().out.strip()).read_bytes())
    done = subprocess.run([sys.executable, copied, "describe"], capture_output=True, check=True, cwd=tmp_path)
    assert json.loads(done.stdout)["runtime"].startswith("onnxruntime ")
