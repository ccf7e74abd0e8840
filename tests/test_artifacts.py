from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from archtuna.artifacts import Artifacts


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    for name in ("checkpoints", "resume"):
        (tmp_path / name).mkdir()
    return Artifacts(tmp_path)


def test_weights_take_their_place_when_their_trial_is_complete(artifacts: Artifacts) -> None:
    artifacts.staged(7, 2).write_bytes(b"second")
    assert artifacts.kept() == {}
    assert artifacts.takes() == {7: [2]}
    assert artifacts.settle(7, 1) is None, "that worker lost the trial"
    assert artifacts.settle(7, 2) == artifacts.weights(7)
    assert artifacts.weights(7).read_bytes() == b"second"
    assert artifacts.settle(7, 2) == artifacts.weights(7), "another process was first"
    assert artifacts.kept() == {7: artifacts.weights(7)}


def test_a_late_worker_writes_beside_the_one_that_has_the_trial(artifacts: Artifacts) -> None:
    artifacts.staged(7, 2).write_bytes(b"second")
    artifacts.settle(7, 2)
    artifacts.staged(7, 1).write_bytes(b"late")
    artifacts.point(7, 1).write_bytes(b"late")
    artifacts.give_up(7, 1)
    assert artifacts.weights(7).read_bytes() == b"second"
    assert (artifacts.takes(), artifacts.points()) == ({}, {})


def test_weights_of_a_run_that_may_only_be_read_are_found_where_they_are(
    artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*given: object) -> None:
        raise PermissionError("read-only")

    artifacts.staged(7, 1).write_bytes(b"weights")
    monkeypatch.setattr("os.replace", refused)
    assert artifacts.settle(7, 1) == artifacts.staged(7, 1)
    assert artifacts.settle(8, 1) is None


def test_the_last_worker_s_point_is_the_one_to_go_on_from(artifacts: Artifacts) -> None:
    assert artifacts.last_point(7) is None
    for take in (2, 10):
        artifacts.keep_point(7, take, b"after %d" % take)
    assert artifacts.last_point(7) == b"after 10"
    artifacts.forget(7)
    assert artifacts.points() == {}
    artifacts.forget(7)


def test_other_files_are_nobody_s_and_torn_ones_are_found_by_age(artifacts: Artifacts) -> None:
    for name in ("notes.safetensors", ".x-1.safetensors", "3-4.safetensors"):
        (artifacts.folder / "checkpoints" / name).touch()
    assert (artifacts.kept(), artifacts.takes()) == ({}, {})
    old, new = (artifacts.folder / "resume" / f".7-1.pt.{name}.tmp" for name in ("1-aa", "2-bb"))
    for path in (old, new):
        path.touch()
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    assert artifacts.torn(3600.0) == [old]
    artifacts.remove([1, 2])


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path / "none")
    assert (artifacts.kept(), artifacts.takes(), artifacts.points(), artifacts.torn(0.0)) == ({}, {}, {}, [])
