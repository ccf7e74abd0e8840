"""Never evaluated twice, and exactly as many as were asked for, by as many workers as there are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from crowds import Outcome, crowd
from mysql import mysql  # noqa: F401
from postgres import Server, free_port, server  # noqa: F401
from searches import TWO


def check(outcome: Outcome, trials: int, workers: int) -> None:
    assert outcome.twice == 0
    assert outcome.states["complete"] == len(outcome.evaluated) == trials
    assert set(outcome.states) <= {"complete", "duplicate"}
    assert sum(outcome.reasons.values()) == workers, "a process died"


@pytest.mark.slow
def test_sixteen_processes_on_postgresql(server: Server, tmp_path: Path) -> None:  # noqa: F811
    outcome = crowd(server.url(), tmp_path, workers=16, trials=500)
    check(outcome, 500, 16)
    assert outcome.states["duplicate"] > 0, "they never met, so nothing was shown"


@pytest.mark.slow
def test_six_processes_on_sqlite(tmp_path: Path) -> None:
    outcome = crowd(f"sqlite:///{tmp_path}/all.db", tmp_path, workers=6, trials=100)
    check(outcome, 100, 6)


@pytest.mark.slow
def test_a_crowd_exhausts_a_space_to_the_last_network(tmp_path: Path) -> None:
    outcome = crowd(f"sqlite:///{tmp_path}/all.db", tmp_path, workers=4, trials=50, text=TWO)
    check(outcome, 2, 4)


@pytest.mark.slow
def test_four_processes_on_mysql(mysql: str, tmp_path: Path) -> None:  # noqa: F811
    check(crowd(mysql, tmp_path, workers=4, trials=60), 60, 4)


@pytest.mark.slow
def test_four_processes_on_optunas_journal_file(tmp_path: Path) -> None:
    check(crowd(f"journal://{tmp_path}/journal.log", tmp_path, workers=4, trials=40), 40, 4)


PROXY = """
import sys
from pathlib import Path
from optuna.storages._grpc.server import make_server
from archtuna.storage import open_storage

server = make_server(open_storage(sys.argv[1], Path()), "127.0.0.1", int(sys.argv[2]))
server.start()
print("ready", flush=True)
server.wait_for_termination()
"""


@pytest.mark.slow
def test_two_workers_on_optunas_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything in processes of its own: a process that has spoken over gRPC hangs when it is forked."""
    port = free_port()
    url, here = f"grpc://127.0.0.1:{port}", str(Path(__file__).parent)
    command = [sys.executable, "-c", PROXY, f"sqlite:///{tmp_path}/all.db", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as proxy:
        assert proxy.stdout is not None
        assert proxy.stdout.readline() == "ready\n"
        try:
            code = SEARCHED.format(here=here, folder=str(tmp_path), url=url)
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
        finally:
            proxy.terminate()
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "12 complete, 12 networks"


SEARCHED = """
import sys
sys.path.insert(0, {here!r})
from pathlib import Path
from archtuna.driver import search
from searches import arguments
study = search(**arguments(Path({folder!r}), storage={url!r}, trials=12, workers=2, evaluator="searches:slow", name="proxy"))
done = [trial for trial in study.trials() if trial.state == "complete"]
print(len(done), "complete,", len({{trial.key for trial in done}}), "networks")
"""
