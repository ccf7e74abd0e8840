"""Never evaluated twice, and exactly as many as were asked for, by as many workers as there are."""

from __future__ import annotations

from pathlib import Path

import pytest

from crowds import Outcome, crowd
from postgres import Server, server  # noqa: F401
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
