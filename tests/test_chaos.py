"""Whatever happens to workers and their database: every trial ends once, with the result of an undisturbed run."""

from __future__ import annotations

from pathlib import Path

import pytest

from postgres import Server, running, server  # noqa: F401
from storms import storm


@pytest.mark.slow
def test_workers_that_are_killed_and_frozen_lose_nothing(server: Server, tmp_path: Path) -> None:  # noqa: F811
    for name in ("calm", "storm"):
        (tmp_path / name).mkdir()
    shared = {"trials": 5, "epochs": 60, "pictures_": 300}
    with running() as another:
        calm = storm(another, tmp_path / "calm", workers=2, **shared)
    wild = storm(
        server, tmp_path / "storm", workers=3, kills=2, every=3.0, restart=True, freeze=True, lease=3.0, **shared
    )
    assert calm.states == wild.states == {"complete": 5}
    assert wild.values == calm.values, "the last bit"
    assert wild.front == calm.front
    assert wild.broken == []
    assert set(wild.completed.values()) <= {1}
    assert wild.done["kill"] >= 1
    assert wild.done["restart"] == wild.done["freeze"] == 1
    assert wild.events["resumed"] >= 1
    assert wild.takes > 1
