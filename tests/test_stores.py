"""Weights and points in an object store, for machines that share no disk."""

from __future__ import annotations

import json
import logging
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from archtuna.checkpoint import load, read_header
from archtuna.cli import main
from archtuna.driver import join, search
from archtuna.errors import ArchtunaError, CheckpointError, MissingExtraError, StudyError
from archtuna.files import Unreachable, delete, listing, place_of, read_bytes, rename, write_atomically
from archtuna.final import evaluate_checkpoint
from archtuna.interrupts import Stop
from archtuna.study import Study
from searches import TWO, pictures
from stores import BUCKET, Store, store

__all__ = ["store"]

RUN = f"{BUCKET}/runs/photos"


def begun(folder: Path, **changes: Any) -> Study:
    given = {
        "space": TWO, "data": pictures(folder), "out": folder / "run", "trials": 2, "artifacts": RUN,
        "storage": f"sqlite:///{folder}/shared.db", "name": "photos", "stopping": False,
    }  # fmt: skip
    return search(**{**given, **changes})


# files


def test_files_of_a_store_are_as_those_of_a_folder(store: Store, tmp_path: Path) -> None:
    for folder in (place_of(RUN), tmp_path / "run"):
        assert listing(folder / "checkpoints") == {}
        place = folder / "checkpoints" / "7.safetensors"
        write_atomically(place, b"old")
        write_atomically(folder / "checkpoints" / ".7-2.safetensors", b"newer", durable=False)
        assert listing(folder / "checkpoints") == {".7-2.safetensors": 5, "7.safetensors": 3}
        rename(folder / "checkpoints" / ".7-2.safetensors", place)
        with pytest.raises(FileNotFoundError):
            rename(folder / "checkpoints" / ".7-2.safetensors", place)
        assert read_bytes(place) == b"newer"
        for _ in range(2):
            delete(place)
        with pytest.raises(FileNotFoundError):
            read_bytes(place)
        assert listing(folder / "checkpoints") == {}


def test_a_place_is_a_path_or_in_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert place_of(str(tmp_path)) == place_of(tmp_path) == place_of(f"file://{tmp_path}") == tmp_path
    with pytest.raises(ArchtunaError, match=r"cannot use foo://a: .*'foo'"):
        place_of("foo://a")
    monkeypatch.setitem(sys.modules, "upath", None)
    with pytest.raises(MissingExtraError, match=r"what reads and writes s3:// is not installed[^$]*archtuna\[stores\]"):
        place_of("s3://a")


def test_a_store_that_does_not_answer_is_named(store: Store) -> None:
    place = place_of(RUN) / "7.safetensors"
    write_atomically(place, b"x")
    store.stop()
    for action in (lambda: write_atomically(place, b"y"), lambda: read_bytes(place), lambda: listing(place.parent)):
        with pytest.raises(Unreachable, match="Could not connect"):
            action()
    with pytest.raises(
        CheckpointError, match=r"s3://nets/runs/photos/7.safetensors: cannot be read \(Could not connect"
    ):
        load(str(place))
    store.start()
    assert read_bytes(place) == b"x"


# searches


def test_weights_go_into_the_store_and_come_from_there(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = begun(tmp_path)
    front = study.front()
    assert listing(tmp_path / "run" / "checkpoints") == listing(tmp_path / "run" / "resume") == {}
    assert sorted(listing(place_of(RUN) / "checkpoints")) == sorted(f"{t.number}.safetensors" for t in study.trials())
    assert listing(place_of(RUN) / "resume") == {}
    assert study.disk()["bytes"] == sum(listing(place_of(RUN) / "checkpoints").values()) > 0
    for trial in front:
        url = f"{RUN}/checkpoints/{trial.number}.safetensors"
        assert str(trial.checkpoint) == str(study.candidate(trial.number).checkpoint) == url
        assert load(url).architecture == trial.architecture == read_header(url).architecture
        found = evaluate_checkpoint(url)
        assert {name: found[name] for name in trial.metrics} == pytest.approx(dict(trial.metrics), abs=1e-6)
    capsys.readouterr()
    run = str(tmp_path / "run")
    assert main(["front", run, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["checkpoint"].startswith(RUN)
    assert main(["front", run, "--knee"]) == 0
    knee = capsys.readouterr().out.strip()
    assert main(["export", knee, str(tmp_path / "knee.ts"), "--format", "torchscript", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["max_difference"] < 1e-5


def test_what_is_not_kept_is_deleted_in_the_store(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = begun(tmp_path, near=0)
    kept = {f"{trial.number}.safetensors" for trial in study.front()}
    assert set(listing(place_of(RUN) / "checkpoints")) == kept
    write_atomically(study.artifacts.point(0, 1), b"12345")
    write_atomically(study.artifacts.weights(99), b"1")
    assert main(["gc", str(tmp_path / "run"), "--delete"]) == 0
    told = capsys.readouterr().out
    assert f"{RUN}/resume/0-1.pt: 5 bytes, a point to go on from of a trial that has ended" in told
    assert "deleted 2 files" in told
    assert set(listing(place_of(RUN) / "checkpoints")) == kept
    assert listing(place_of(RUN) / "resume") == {}


@pytest.mark.parametrize(("spacing", "epoch"), [(0.0, 2), (1e9, 1)])
def test_another_machine_goes_on_with_a_trial(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spacing: float, epoch: int
) -> None:
    """The first worker is stopped in its second epoch; the second has neither its folder nor its disk."""
    monkeypatch.setattr("archtuna.artifacts.POINT_SPACING", spacing)
    stop = Stop()
    monkeypatch.setattr("archtuna.driver.Stop", lambda: stop)

    def end(event: dict[str, Any]) -> None:
        stop.requested |= event["event"] == "epoch" and event["epoch"] == 2

    begun(tmp_path, trials=1, training={"epochs": 4}, on_event=end)
    assert list(listing(place_of(RUN) / "resume")) == ["0-1.pt"]
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    monkeypatch.setattr("archtuna.driver.Stop", Stop)
    monkeypatch.chdir(tmp_path)
    events: list[dict[str, Any]] = []
    study = join("photos", storage=f"sqlite:///{tmp_path}/shared.db", on_event=events.append)
    assert [e["epoch"] for e in events if e["event"] == "resumed"] == [epoch]
    assert study.folder == Path("runs/photos")
    (trial,) = study.trials()
    assert str(trial.checkpoint) == f"{RUN}/checkpoints/0.safetensors"
    assert listing(place_of(RUN) / "resume") == {}


def test_another_study_takes_weights_from_the_store(store: Store, tmp_path: Path) -> None:
    first = begun(tmp_path)
    second = begun(tmp_path, out=tmp_path / "second", name="second", artifacts=f"{BUCKET}/second")
    assert all(trial.reused for trial in second.trials())
    assert set(listing(place_of(f"{BUCKET}/second/checkpoints"))) == set(
        listing(first.artifacts.folder / "checkpoints")
    )


def test_a_store_that_goes_away_is_waited_for(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("archtuna.worker.FILES_PAUSE", 0.2)
    told: list[str] = []

    def cut(event: dict[str, Any]) -> None:
        told.append(event["event"])
        if event["event"] == "epoch" and event["epoch"] == 1:
            store.stop()
        if event["event"] == "waits":
            threading.Timer(0.3, store.start).start()

    with caplog.at_level(logging.WARNING, "archtuna"):
        study = begun(tmp_path, trials=1, on_event=cut)
    assert "no points to go on from are kept: Could not connect" in caplog.text
    assert "trial 0 is trained and has to keep its weights, and waits" in caplog.text
    assert told.count("waits") == 1
    (trial,) = study.trials()
    assert trial.state == "complete"
    assert load(str(trial.checkpoint)).architecture == trial.architecture


def test_a_store_is_looked_at_before_anything_is_trained(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="cannot write to s3://none/x: .*bucket"):
        begun(tmp_path, artifacts="s3://none/x")
    with pytest.raises(StudyError, match="credentials in a URL would be written down") as caught:
        begun(tmp_path, artifacts="s3://me:hunter2@nets/x")
    assert "hunter2" not in str(caught.value)
    assert not (tmp_path / "run" / "study.json").exists()


def test_a_study_keeps_its_store(store: Store, tmp_path: Path) -> None:
    begun(tmp_path)
    assert len(begun(tmp_path, artifacts=None).front()) > 0
    with pytest.raises(
        StudyError, match="the weights of the study 'photos' are in s3://nets/runs/photos, not in s3://nets/b"
    ):
        begun(tmp_path, artifacts=f"{BUCKET}/b")
    other = begun(tmp_path, out=tmp_path / "local", name="local", artifacts=str(tmp_path / "weights"))
    assert all(Path(str(trial.checkpoint)).parent == tmp_path / "weights" / "checkpoints" for trial in other.front())
