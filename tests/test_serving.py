"""One worker process, told what to do by its standard input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from archtuna.driver import search
from archtuna.orders import Orders
from searches import arguments


def message(folder: Path, **changes: Any) -> str:
    told = {
        "run": str(folder / "run"), "orders": asdict(Orders(trials=4)), "sampler": "random", "evaluator": "searches:instant",
        "imports": [], "path": sys.path,
    }  # fmt: skip
    return json.dumps({**told, **changes}) + "\n"


def serve(told: str, close: bool = True) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "archtuna.serving"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])},
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(told)
    process.stdin.flush()
    return process


@pytest.mark.slow
def test_a_worker_does_what_it_is_told_and_tells_what_it_does(tmp_path: Path) -> None:
    search(**arguments(tmp_path, trials=2)).close()
    with serve(message(tmp_path)) as process:
        assert process.stdout is not None
        events = [json.loads(line) for line in process.stdout]
        assert process.wait(timeout=60) == 0
    names = [event["event"] for event in events]
    assert names.count("complete") == 2
    assert events[-1] == {"event": "done", "reason": "trials"}


@pytest.mark.slow
def test_a_mistake_is_an_event_and_a_closed_input_ends_the_work(tmp_path: Path) -> None:
    search(**arguments(tmp_path, trials=1)).close()
    with serve(message(tmp_path, evaluator="searches:nothing")) as process:
        assert process.stdout is not None
        (event,) = [json.loads(line) for line in process.stdout]
    assert event["event"] == "error"
    assert "no evaluator 'searches:nothing'" in event["message"]
    orders = asdict(Orders(trials=50))
    with serve(message(tmp_path, evaluator="searches:slow", orders=orders)) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["event"] == "epoch":
                break
        process.stdin.close()
        events = [json.loads(line) for line in process.stdout]
        assert process.wait(timeout=60) == 0
    assert events[-1] == {"event": "done", "reason": "interrupted"}
    assert any(event["event"] == "handed-back" for event in events)


@pytest.mark.slow
def test_a_termination_hands_the_trial_back(tmp_path: Path) -> None:
    """As a scheduler preempts a job: a signal, and some seconds."""
    search(**arguments(tmp_path, trials=1)).close()
    orders = asdict(Orders(trials=50))
    with serve(message(tmp_path, evaluator="searches:slow", orders=orders)) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["event"] == "epoch":
                break
        process.send_signal(signal.SIGTERM)
        events = [json.loads(line) for line in process.stdout]
        assert process.wait(timeout=60) == 0
    assert any(event["event"] == "handed-back" for event in events)
