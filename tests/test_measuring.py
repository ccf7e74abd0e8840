"""Searches whose objectives and limits have to be measured.

Networks take here what a rule says, so that what is measured, refused and trained is known; ``test_gauge`` measures for real.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from archtuna.architecture import Architecture
from archtuna.cli import main
from archtuna.costs import costs_of
from archtuna.driver import search
from archtuna.errors import ExportError, LatencyError, ModelRefused, ShapeError, StudyError
from archtuna.gauge import HERE, Gauge, Reading, refuse_unexportable
from archtuna.interrupts import Interrupted, Stop
from archtuna.measuring import Measuring, first_networks
from archtuna.objective import limit_of
from archtuna.proposer import verdict_on
from archtuna.settings import DeploySettings
from archtuna.space import SearchSpace
from archtuna.spec import measured_among
from archtuna.storage import Attr
from archtuna.study import Study
from searches import SPACE, TWO, arguments

FINGERPRINT = "0123456789ab"
PLACE = {"processor": "A", "runtime": "onnxruntime 1", "provider": "P", "threads": 1, "batch": 1, "system": "S"}


def latency(architecture: Architecture) -> float:
    """Milliseconds: a thousandth of the parameters and a tenth of each block."""
    return costs_of(architecture)["params"] / 1000 + 0.1 * len(list(architecture.units()))


class Readings:
    """Stands in for measuring, and counts."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.problems: list[Exception] = []
        self.fingerprint = FINGERPRINT
        self.seconds = 0.5

    def read(self, gauge: Gauge, architecture: Architecture, *, patience: float) -> Reading:
        if self.problems:
            raise self.problems.pop(0)
        self.keys.append(architecture.key)
        ms = latency(architecture)
        told = {"ms": ms, "low": 0.9 * ms, "high": 1.1 * ms, "device": PLACE, "fingerprint": self.fingerprint}
        values = {name: ms if name.startswith("latency") else ms / 2 for name in gauge.names}
        return Reading(values, dict.fromkeys(gauge.devices, told), 1000, seconds=self.seconds)


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Readings:
    monkeypatch.setenv("ARCHTUNA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ARCHTUNA_STORAGE", raising=False)
    found = Readings()
    monkeypatch.setattr(Gauge, "read", lambda gauge, architecture, **how: found.read(gauge, architecture, **how))
    monkeypatch.setattr(Gauge, "fingerprints", lambda gauge: dict.fromkeys(gauge.devices, found.fingerprint))
    return found


def run(folder: Path, **changes: Any) -> tuple[Study, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    given = {"objectives": ["f1", "latency_ms"], "on_event": lambda e: events.append(json.loads(json.dumps(e)))}
    return search(**arguments(folder, **{**given, **changes})), events


def test_every_trial_is_measured_once_before_it_is_trained_and_keeps_what_was_measured(
    tmp_path: Path, readings: Readings
) -> None:
    study, events = run(tmp_path, trials=8)
    kinds = [event["event"] for event in events]
    assert kinds.count("probe") == 8
    assert kinds.count("complete") == 8
    assert len(readings.keys) == len(set(readings.keys)), "no network is measured twice"
    for trial in study.trials():
        if trial.state != "complete":
            continue
        assert trial.values["latency_ms"] == trial.costs["latency_ms"] == pytest.approx(latency(trial.architecture))
        assert trial.reading is not None
        assert trial.reading["values"]["latency_ms"] == trial.values["latency_ms"]
    began = {e["number"]: i for i, e in enumerate(events) if e["event"] == "measured"}
    ended = {e["number"]: i for i, e in enumerate(events) if e["event"] == "complete"}
    assert all(began[number] < ended[number] for number in ended)
    end = events[-1]["measuring"]
    assert end["networks"] == len(readings.keys)
    assert end["seconds"] == pytest.approx(0.5 * len(readings.keys))
    assert end["devices"] == {HERE: "A with onnxruntime 1, 1 thread, batch 1"}


def test_the_hypervolume_ends_at_the_slowest_of_the_first_networks(tmp_path: Path, readings: Readings) -> None:
    study, _ = run(tmp_path, trials=3)
    assert "latency_ms" not in study.spec.reference
    probes = study.optuna.user_attrs[Attr.MEASURED]["probes"]
    slowest = max(latency(Architecture.from_dict(probe["architecture"])) for probe in probes)
    assert study.reference["latency_ms"] == (0.0, pytest.approx(slowest))
    assert 0 < study.hypervolume() < 1


def test_what_breaks_a_limit_is_measured_and_never_trained(tmp_path: Path, readings: Readings) -> None:
    trained: list[float] = []

    def evaluate(candidate: Any) -> dict[str, float]:
        trained.append(latency(candidate.architecture))
        return {"f1": 0.5, "accuracy": 0.5, "loss": 0.5}

    study, _ = run(tmp_path, trials=6, evaluator=evaluate, limits=["latency_ms <= 0.9"], sampler="random")
    assert len(trained) == 6
    assert max(trained) <= 0.9
    refused = [t for t in study.trials() if t.state == "refused"]
    assert refused
    assert all(re.fullmatch(r"(about )?[\d.]+ latency_ms, limit 0.9", str(t.reason)) for t in refused)
    assert not any(trial.feasible for trial in refused)
    assert study.reference["latency_ms"] == (0.0, 0.9)


def test_a_limit_alone_has_networks_measured(tmp_path: Path, readings: Readings) -> None:
    study, _ = run(tmp_path, trials=2, objectives=["f1", "params"], limits=["latency_ms@pi4 <= 100"])
    assert all(t.costs["latency_ms@pi4"] <= 100 for t in study.trials() if t.state == "complete")
    assert list(study.measuring()["devices"]) == ["pi4"]


def test_a_network_that_cannot_be_measured_now_is_trained_first_and_measured_afterwards(
    tmp_path: Path, readings: Readings, caplog: pytest.LogCaptureFixture
) -> None:
    first, _ = run(tmp_path, trials=1)
    readings.problems = [LatencyError("the machine is too busy to measure")]
    study, events = run(tmp_path, trials=2)
    kinds = [e["event"] for e in events if e.get("number") == study.trials()[-1].number]
    assert kinds.index("epoch") < kinds.index("measured") < kinds.index("complete")
    assert "is measured later: the machine is too busy to measure" in caplog.text
    assert study.trials()[-1].values["latency_ms"] == pytest.approx(latency(study.trials()[-1].architecture))


def test_one_that_stays_unmeasured_is_never_complete_and_a_stop_hands_it_back(
    tmp_path: Path, readings: Readings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, trials=1)
    readings.problems = [LatencyError("away")] * 10

    def wait(stop: Stop, seconds: float) -> None:
        if len(readings.problems) < 7:
            stop.requested = True
            raise Interrupted

    monkeypatch.setattr(Stop, "wait", wait)
    study, events = run(tmp_path, trials=2)
    assert events[-1]["reason"] == "interrupted"
    assert next(e["reason"] for e in events if e["event"] == "waits") == "it is trained and has to be measured"
    assert study.trials()[-1].state == "waiting"
    readings.problems = []
    study, _ = run(tmp_path, trials=2)
    assert [t.state for t in study.trials()] == ["complete", "complete"]


def test_what_a_dead_worker_measured_is_not_measured_again(tmp_path: Path, readings: Readings) -> None:
    def fail_once(candidate: Any) -> dict[str, float]:
        raise KeyboardInterrupt

    run(tmp_path, trials=1)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, trials=2, evaluator=fail_once)
    before = len(readings.keys)
    study, _ = run(tmp_path, trials=2)
    assert len(readings.keys) == before
    assert study.counts()["complete"] == 2


def test_another_device_is_refused_at_the_start_and_in_the_middle(tmp_path: Path, readings: Readings) -> None:
    run(tmp_path, trials=1)
    readings.fingerprint = "ba9876543210"
    with pytest.raises(
        StudyError, match="measured on A with onnxruntime 1, 1 thread, batch 1, and this machine is another"
    ):
        run(tmp_path, trials=2)
    with pytest.raises(StudyError, match=r"deploy.threads: here 2, there 1"):
        run(tmp_path, trials=2, deploy={"threads": 2})


def test_a_network_that_does_not_export_fails_alone(tmp_path: Path, readings: Readings) -> None:
    run(tmp_path, trials=1)
    readings.problems = [ExportError("the ONNX export failed at row 3")]
    study, _ = run(tmp_path, trials=3)
    failed = [t for t in study.trials() if t.state == "failed"]
    assert [t.reason for t in failed] == ["export: the ONNX export failed at row 3"]


def test_a_network_that_a_device_does_not_run_fails_alone_and_at_once(tmp_path: Path, readings: Readings) -> None:
    run(tmp_path, trials=1)
    readings.problems = [ModelRefused("pi4: the model does not run in ONNX Runtime: no Gelu")]
    study, events = run(tmp_path, trials=3)
    failed = [t for t in study.trials() if t.state == "failed"]
    assert [t.reason for t in failed] == ["latency: pi4: the model does not run in ONNX Runtime: no Gelu"]
    assert not any(e["event"] == "epoch" and e["number"] == failed[0].number for e in events), "it is not trained"


def test_first_networks_that_a_device_does_not_run_are_left_out(tmp_path: Path, readings: Readings) -> None:
    readings.problems = [ModelRefused("the model needs over 500 MB")] * 2
    study, _ = run(tmp_path, trials=1)
    assert len(study.optuna.user_attrs[Attr.MEASURED]["probes"]) == 6


def test_first_networks_that_another_machine_has_measured_meanwhile_are_taken_over(
    tmp_path: Path, readings: Readings, monkeypatch: pytest.MonkeyPatch
) -> None:
    probed = Measuring._probed

    def slow(measuring: Measuring) -> dict[str, Any]:
        other = probed(measuring)
        other["devices"][HERE]["fingerprint"] = "ba9876543210"
        measuring.study.optuna.set_user_attr(Attr.MEASURED, other)
        return probed(measuring)

    monkeypatch.setattr(Measuring, "_probed", slow)
    with pytest.raises(StudyError, match="and this machine is another"):
        run(tmp_path, trials=1)


def test_a_reading_of_another_device_teaches_nothing(tmp_path: Path, readings: Readings) -> None:
    study, _ = run(tmp_path, trials=3)
    measuring = Measuring(study, Gauge(["latency_ms"], DeploySettings()), lambda event: None)
    before = len(measuring._readings)
    measuring._there = {HERE: "ba9876543210"}
    measuring.learn(study.ledger)
    assert len(measuring._readings) == before
    measuring._there, measuring._learnt = {HERE: FINGERPRINT}, 0
    measuring.learn(study.ledger)
    assert len(measuring._readings) > before


def test_a_space_of_two_networks_may_have_a_limit_on_latency(tmp_path: Path, readings: Readings) -> None:
    space = TWO.replace("augment: none", "augment: none, lr: 0.001..0.1 log")
    study, _ = run(tmp_path, trials=3, space=space, limits=["latency_ms <= 100"])
    assert study.counts()["complete"] == 3


def test_a_screen_leaves_limits_on_what_is_measured_to_the_search(tmp_path: Path, readings: Readings) -> None:
    study, _ = run(tmp_path, trials=2, limits=["latency_ms <= 100"], screen="synflow")
    assert study.counts()["complete"] == 2


def test_an_objective_of_the_deployed_size_is_measured(tmp_path: Path, readings: Readings) -> None:
    study, _ = run(tmp_path, trials=2, objectives=["f1", "size_mb"], target="onnx-int8")
    for trial in study.trials():
        assert trial.values["size_mb"] == pytest.approx(latency(trial.architecture) / 2)
    assert study.spec.deployment == DeploySettings(format="onnx", precision="int8")


def test_workers_of_other_kinds_of_precision_do_not_share_results() -> None:
    assert measured_among(["f1", "params", "latency_ms", "size_mb"], DeploySettings()) == ("latency_ms",)
    assert measured_among(["size_mb", "latency_ms@a", "size_mb"], DeploySettings(format="onnx")) == (
        "size_mb",
        "latency_ms@a",
    )


def test_what_cannot_be_exported_to_the_target_is_refused_with_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    architecture = SearchSpace.read(SPACE).default().architecture
    refuse_unexportable(architecture, None)
    refuse_unexportable(architecture, "onnx")
    monkeypatch.setattr("archtuna.exports.unsupported", lambda network, format: [(1, "DWConv")])
    with pytest.raises(ShapeError, match=r"row 1 \(DWConv\) cannot be exported to onnx"):
        refuse_unexportable(architecture, "onnx")


def test_a_search_for_a_target_never_tries_what_it_cannot_take(
    tmp_path: Path, readings: Readings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(architecture: Architecture, format: str) -> list[tuple[int, str]]:
        return [(i, r.module) for i, r in enumerate(architecture.rows) if r.module == "InvertedResidualv2"]

    monkeypatch.setattr("archtuna.exports.unsupported", unsupported)
    study, _ = run(tmp_path, trials=10, objectives=["f1", "params"], target="onnx", sampler="random")
    done = [t for t in study.trials() if t.state == "complete"]
    assert len(done) == 10
    assert not any(row.module == "InvertedResidualv2" for t in done for row in t.architecture.rows)


def test_what_is_only_expected_breaks_a_limit_in_spite_of_its_doubt() -> None:
    limits = [limit_of("params <= 10"), limit_of("latency_ms <= 2")]
    doubt = {"latency_ms": 0.1}.get
    assert verdict_on({"params": 9, "latency_ms": 2.1}, limits, doubt).reason is None
    assert verdict_on({"params": 9, "latency_ms": 2.1}, limits, doubt).constraints == {"params": pytest.approx(-0.1)}
    refused = verdict_on({"params": 11, "latency_ms": 2.5}, limits, doubt)
    assert refused.reason == "11 params, limit 10; about 2.5 latency_ms, limit 2"
    assert set(refused.constraints) == {"params", "latency_ms"}
    assert verdict_on({"params": 9, "latency_ms": 2.1}, limits).reason == "2.1 latency_ms, limit 2"


def test_the_first_networks_are_the_files_own_the_extremes_and_random_ones() -> None:
    space = SearchSpace.read(SPACE)
    found = first_networks(space, 8)
    assert len(found) == len({a.key for a in found}) == 8
    ends = dict.fromkeys(c.architecture.key for c in (space.default(), space.smallest(), space.largest()))
    assert [a.key for a in found[: len(ends)]] == list(ends)
    one = SPACE.replace("8|16|24, 1|3|5", "8, 1").split("  - any")[0]
    only = SearchSpace.read(f"{one}  - [1, Flatten, []]\n  - [1, Linear, [3]]\n")
    assert len(first_networks(only, 8)) == 1


def test_people_see_what_was_measured(tmp_path: Path, readings: Readings, capsys: pytest.CaptureFixture) -> None:
    study, _ = run(tmp_path, trials=2)
    for command, words in (
        (["front", str(study.folder)], "networks measured in"),
        (["status", str(study.folder)], f"{HERE}: A with onnxruntime 1, 1 thread, batch 1"),
        (["show", str(study.folder), "0"], f"latency on {HERE}: "),
    ):
        assert main(command) == 0
        assert words in capsys.readouterr().out
    assert main(["pick", str(study.folder), "--best", "latency_ms"]) == 0
    assert "the best latency_ms" in capsys.readouterr().out
