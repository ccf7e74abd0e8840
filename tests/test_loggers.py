"""Loggers: what they are told, that they disturb nobody, and each against the real library, offline."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import archtuna as at
from archtuna.cli import main
from archtuna.driver import join
from archtuna.errors import MissingExtraError, SpecError
from archtuna.loggers import LOGGERS, PATIENCE, Aside, check_loggers, logger_of
from archtuna.loggers.telling import About, Ending, Telling, front_table
from searches import TWO, arguments, climbing, instant, noisy, pictures, slow

# Of the libraries: archtuna's own code is held to the rest.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.MovedIn20Warning"),
]


class Kept:
    """Keeps what it is told, and in which thread."""

    def __init__(self) -> None:
        self.events: list[Mapping[str, Any]] = []
        self.threads: set[str] = set()
        self.closed = 0

    def take(self, event: Mapping[str, Any]) -> None:
        self.events.append(event)
        self.threads.add(threading.current_thread().name)

    def close(self) -> None:
        self.closed += 1


class Failing(Kept):
    def take(self, event: Mapping[str, Any]) -> None:
        super().take(event)
        if event["event"] == "trial":
            raise OSError(28, "No space left on device")


class Runs:
    """A sink that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def open(self, about: About) -> None:
        self.told.append(("open", about.name))

    def begin(self, number: int, values: Mapping[str, Any]) -> None:
        self.told.append(("begin", number, values))

    def curve(self, number: int | None, metrics: Mapping[str, float], step: int) -> None:
        self.told.append(("curve", number, metrics, step))

    def finish(self, number: int, ending: Ending) -> None:
        self.told.append(("finish", number, ending))

    def front(self, rows: Any) -> None:
        self.told.append(("front", rows))

    def close(self, reason: str | None) -> None:
        self.told.append(("close", reason))

    def of(self, kind: str) -> list[tuple[Any, ...]]:
        return [told for told in self.told if told[0] == kind]


def curve(sink: Runs, name: str, number: int | None = None) -> list[tuple[int, float]]:
    return [(step, metrics[name]) for _, n, metrics, step in sink.of("curve") if n == number and name in metrics]


def search(folder: Path, *loggers: Any, **changes: Any) -> at.Study:
    return at.search(**arguments(folder, space=TWO, loggers=loggers, **{"trials": 2, **changes}))


# --- what loggers are told ---------------------------------------------------------------------------


def test_an_object_of_ones_own_is_told_of_every_event_in_a_thread_of_its_own(tmp_path: Path) -> None:
    kept, events = Kept(), []
    search(tmp_path, kept, on_event=events.append)
    assert kept.events == events
    assert [event["event"] for event in events][:2] == ["start", "trial"]
    assert events[-1]["event"] == "end"
    assert kept.threads == {"logger Kept"}
    assert kept.closed == 1


def test_a_trial_is_a_run_with_hyperparameters_curves_and_what_it_came_to(tmp_path: Path) -> None:
    sink = Runs()
    study = search(tmp_path, Telling(sink), evaluator=slow)
    assert sink.told[0] == ("open", "run")
    (_, number, values) = sink.of("begin")[0]
    trial = study.candidate(number)
    assert {n: values[n] for n in trial.decisions} == dict(trial.decisions)
    assert (values["training.epochs"], values["training.optimizer"], values["key"]) == (3, "adamw", trial.key)
    assert [step for step, _ in curve(sink, "epoch/f1", number)] == list(range(1, 11))
    assert curve(sink, "epoch/f1", number)[-1][1] == trial.values["f1"]
    ending = next(e for _, n, e in sink.of("finish") if n == number)
    assert (ending.state, ending.step, ending.note) == ("complete", 10, None)
    assert ending.metrics["objective/f1"] == trial.values["f1"]
    assert ending.metrics["cost/params"] == trial.values["params"]
    assert sink.told[-1] == ("close", "trials")


def test_the_study_is_a_run_with_its_hypervolume_over_trials_and_its_front_at_the_end(tmp_path: Path) -> None:
    sink = Runs()
    study = search(tmp_path, Telling(sink))
    volumes = curve(sink, "study/hypervolume")
    assert volumes[0] == (0, 0.0)
    assert volumes[-1] == (2, study.hypervolume())
    assert [step for step, _ in volumes] == sorted(step for step, _ in volumes)
    assert curve(sink, "study/complete")[-1] == (2, 2.0)
    assert curve(sink, "study/front")[-1] == (2, len(study.front()))
    assert sink.of("front") == [("front", [{"trial": t.number, **t.values} for t in study.front()])]


def test_a_search_that_goes_on_tells_only_what_is_new(tmp_path: Path) -> None:
    first, again, nothing = Runs(), Runs(), Runs()
    search(tmp_path, Telling(first), trials=1)
    search(tmp_path, Telling(again), trials=2)
    search(tmp_path, Telling(nothing), trials=2)
    assert [told[1] for told in first.of("begin")] == [0]
    assert [told[1] for told in again.of("begin")] == [1]
    assert [step for step, _ in curve(first, "study/hypervolume")] == [0, 1]
    assert {step for step, _ in curve(again, "study/hypervolume")} == {2}
    assert [told[0] for told in nothing.told] == ["open", "front", "close"]


def test_several_workers_are_logged_by_the_process_that_watches_them(tmp_path: Path) -> None:
    sink = Runs()
    study = search(tmp_path, Telling(sink), evaluator="searches:slow", workers=2)
    # Workers that draw the same network give way to each other, so numbers may be left out.
    done = sorted(trial.number for trial in study.trials() if trial.state == "complete")
    assert len(done) == 2
    assert sorted(told[1] for told in sink.of("begin")) == done
    assert sorted((told[1], told[2].state) for told in sink.of("finish")) == [(n, "complete") for n in done]
    assert all(len(curve(sink, "epoch/f1", number)) == 10 for number in done)
    assert curve(sink, "study/hypervolume")[-1] == (2, study.hypervolume())


def test_states_and_reasons_of_trials_that_do_not_complete(tmp_path: Path) -> None:
    def torn(candidate: Any) -> Mapping[str, float]:
        if candidate.decisions["backbone.0.channels"] == 16:
            raise at.ArchtunaError("no such picture")
        return instant(candidate)

    sink = Runs()
    with pytest.raises(at.ArchtunaError, match="no such picture"):
        search(tmp_path, Telling(sink), evaluator=torn)
    assert [told[2].state for told in sink.of("finish")] == ["complete", "paused"]
    assert sink.told[-1] == ("close", None)


def test_a_trial_that_is_stopped_or_refused_says_why(tmp_path: Path) -> None:
    sink = Runs()
    given = {"evaluator": climbing, "epochs": 9, "trials": 25, "sampler": "random", "limits": ["params <= 6000"]}
    study = at.search(**arguments(tmp_path, loggers=[Telling(sink)], **given))
    stopped = [told for told in sink.of("finish") if told[2].state == "stopped"]
    assert len(stopped) == study.counts()["stopped"] > 0
    assert all(told[2].note and "objective/f1" not in told[2].metrics for told in stopped)
    assert study.counts()["refused"] > 0
    assert curve(sink, "study/refused")[-1][1] == study.counts()["refused"]


def test_repeats_are_told_beside_what_the_search_had(tmp_path: Path) -> None:
    sink = Runs()
    study = search(tmp_path, Telling(sink), evaluator=noisy, trials=1, repeats=2)
    (trial,) = study.front()
    last = sink.of("finish")[-1][2]
    assert last.metrics["repeat/f1"] == trial.values["f1"]
    assert (last.metrics["repeat/runs"], last.metrics["repeat/f1_spread"]) == (2, trial.spread["f1"])
    assert len(curve(sink, "epoch/f1", trial.number)) == 1, "epochs of other seeds are no points of the trial's curve"


def test_a_front_is_a_table() -> None:
    assert front_table([]) == "no network was evaluated in full yet"
    table = front_table([{"trial": 3, "f1": 0.91234, "params": 1234.0}])
    assert table == "| trial | f1 | params |\n| ---: | ---: | ---: |\n| 3 | 0.9123 | 1,234 |"


# --- that they disturb nobody ------------------------------------------------------------------------


def test_a_logger_that_fails_is_left_out_with_one_warning(tmp_path: Path, caplog: Any) -> None:
    failing, kept = Failing(), Kept()
    study = search(tmp_path, failing, kept)
    assert study.counts()["complete"] == 2
    assert [r.message for r in caplog.records if "logger" in r.message] == [
        "the logger Failing failed and is left out: OSError: [Errno 28] No space left on device"
    ]
    assert failing.events[-1]["event"] == "trial"
    assert failing.closed == 1, "what it has written is closed"
    assert kept.events[-1]["event"] == "end"


def test_a_slow_logger_does_not_slow_the_search(tmp_path: Path, caplog: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("archtuna.loggers.PATIENCE", 0.5)
    let_go = threading.Event()

    class Stuck(Kept):
        def take(self, event: Mapping[str, Any]) -> None:
            super().take(event)
            let_go.wait(60)

    stuck, moments = Stuck(), {}
    search(tmp_path, stuck, on_event=lambda event: moments.setdefault(event["event"], time.monotonic()))
    over = time.monotonic()
    let_go.set()
    assert len(stuck.events) <= 2
    assert over - moments["end"] < 10
    assert "the logger Stuck failed and is left out: it is not done 1 s after the search's end" in caplog.messages


def test_a_logger_too_far_behind_is_left_out(caplog: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("archtuna.loggers.aside.BEHIND", 3)
    let_go, kept = threading.Event(), Kept()

    def make() -> Kept:
        let_go.wait(60)
        return kept

    aside = Aside("Slow", make)
    for number in range(6):
        aside.take({"event": "epoch", "number": number})
    let_go.set()
    aside.close(10)
    assert caplog.messages == ["the logger Slow failed and is left out: it is 3 events behind"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("tensorbord", r"unknown logger 'tensorbord'\nhint: did you mean 'tensorboard'\?"),
        ("neptune", r"unknown logger 'neptune'\nhint: known: tensorboard, mlflow, wandb"),
        (print, r"no logger: <built-in function print>\nhint: it needs take\(event\) and close\(\)"),
    ],
)
def test_what_is_no_logger_is_refused_before_anything_is_made(tmp_path: Path, given: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        search(tmp_path, given)
    assert not (tmp_path / "run").exists()


def test_a_library_that_is_not_installed_is_one_error(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "wandb").mkdir()  # A folder of that name, as offline runs leave one, is not the library.
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(
        MissingExtraError, match=r"Weights & Biases is not installed\nhint: pip install 'archtuna\[wandb\]'"
    ):
        check_loggers(["wandb"])


def test_the_command_line_takes_loggers_by_name(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "s.yaml").write_text(TWO)
    given = [str(tmp_path / "s.yaml"), "--data", pictures(tmp_path), "--out", str(tmp_path / "run"), "--quiet"]
    assert main(["search", *given, "--log", "mflow"]) == 1
    assert capsys.readouterr().err.endswith("loggers: unknown logger 'mflow'\nhint: did you mean 'mlflow'?\n")
    assert not (tmp_path / "run").exists()


@pytest.fixture
def real(tmp_path: Path, monkeypatch: Any) -> Any:
    """Offline, wherever the person who runs the tests logs to."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT", "WANDB_DIR", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_the_command_line_logs_below_the_folder_of_the_run(real: Path, capsys: Any) -> None:
    pytest.importorskip("tensorboard")
    (real / "s.yaml").write_text(TWO)
    given = [str(real / "s.yaml"), "--data", pictures(real), "--out", str(real / "run"), "--trials", "1", "--quiet"]
    assert main(["search", *given, "--log", "tensorboard"]) == 0
    assert sorted(path.name for path in (real / "run" / "tensorboard").iterdir()) == ["study", "trial-0"]


# --- the real libraries ------------------------------------------------------------------------------


def test_every_logger_has_an_extra_of_its_name() -> None:
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text()
    assert [name for name in LOGGERS if f"\n{name} = [" not in text] == []
    with pytest.raises(SpecError, match="unknown logger 'csv'"):
        logger_of("csv", folder=".")


def test_tensorboard_reads_what_was_written(real: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def read(name: str) -> EventAccumulator:
        return EventAccumulator(str(real / "run" / "tensorboard" / name)).Reload()

    search(real, "tensorboard", evaluator=slow, trials=1)
    study = search(real, "tensorboard", evaluator=slow, trials=2)
    trial = study.candidate(0)
    found = read("trial-0")
    assert [(s.step, round(s.value, 5)) for s in found.Scalars("epoch/f1")][-1] == (10, round(trial.values["f1"], 5))
    assert len(found.Scalars("epoch/f1")) == 10
    assert found.Scalars("objective/params")[0].value == trial.values["params"]
    assert trial.key.encode() in found.Tensors("trial/text_summary")[0].tensor_proto.string_val[0]
    whole = read("study")
    assert [s.step for s in whole.Scalars("study/hypervolume")] == [0, 1, 2]
    assert whole.Scalars("study/hypervolume")[-1].value == pytest.approx(study.hypervolume())
    assert b"| trial | f1 | params |" in whole.Tensors("front/text_summary")[-1].tensor_proto.string_val[0]


def test_tensorboard_has_the_hyperparameters_of_each_trial(real: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.metadata import (
        PLUGIN_NAME,
        SESSION_START_INFO_TAG,
        parse_session_start_info_plugin_data,
    )

    study = search(real, "tensorboard")
    found = EventAccumulator(str(real / "run" / "tensorboard" / "trial-1")).Reload()
    content = found.summary_metadata[SESSION_START_INFO_TAG].plugin_data
    assert content.plugin_name == PLUGIN_NAME
    values = parse_session_start_info_plugin_data(content.content).hparams
    assert values["backbone.0.channels"].number_value == study.candidate(1).decisions["backbone.0.channels"]
    assert values["training.optimizer"].string_value == "adamw"
    assert values["state"].string_value == "complete"


def test_a_folder_that_cannot_be_written_is_one_warning(real: Path, caplog: Any, capfd: Any) -> None:
    pytest.importorskip("tensorboard")
    (real / "run").mkdir()
    (real / "run" / "tensorboard").write_text("a file")
    assert search(real, "tensorboard").counts()["complete"] == 2
    (warning,) = [m for m in caplog.messages if "TensorBoard" in m]
    assert warning.startswith("the logger TensorBoard failed and is left out: ")
    assert "Traceback" not in capfd.readouterr().err


def test_a_full_disk_is_one_warning(real: Path, caplog: Any, capfd: Any, monkeypatch: Any) -> None:
    pytest.importorskip("tensorboard")
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    monkeypatch.setattr("archtuna.loggers.tensorboard.open", lambda path, mode: open("/dev/full", "wb"), raising=False)  # noqa: SIM115
    assert search(real, "tensorboard").counts()["complete"] == 2
    (warning,) = [m for m in caplog.messages if "TensorBoard" in m]
    assert "No space left on device" in warning
    assert "Traceback" not in capfd.readouterr().err


def test_mlflow_has_a_run_of_the_study_with_those_of_the_trials_below_it(real: Path) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    search(real, "mlflow", evaluator=slow, trials=1)
    study = search(real, "mlflow", evaluator=slow, trials=2)
    client = MlflowClient(tracking_uri=f"sqlite:///{real / 'run' / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("run")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert sorted(runs) == ["run", "trial 0", "trial 1"], "a search that goes on goes on with the study's run"
    parent, child, trial = runs["run"].info.run_id, runs["trial 1"], study.candidate(1)
    assert child.data.tags["mlflow.parentRunId"] == parent
    assert (child.info.status, child.data.tags["archtuna.state"]) == ("FINISHED", "complete")
    assert child.data.params["backbone.0.channels"] == str(trial.decisions["backbone.0.channels"])
    assert (child.data.params["training.epochs"], child.data.params["key"]) == ("3", trial.key)
    assert child.data.metrics["objective/f1"] == pytest.approx(trial.values["f1"])
    points = client.get_metric_history(child.info.run_id, "epoch/f1")
    assert [point.step for point in points] == list(range(1, 11))
    volumes = client.get_metric_history(parent, "study/hypervolume")
    assert [point.step for point in volumes] == [0, 1, 2]
    assert volumes[-1].value == pytest.approx(study.hypervolume())
    files = real / "run" / "mlflow" / "artifacts" / parent / "artifacts"
    told = json.loads((files / "front.json").read_text())["front"]
    assert [row["trial"] for row in told] == [t.number for t in study.front()]
    assert (files / "front.md").read_text().startswith("| trial | f1 | params |")


def test_mlflow_goes_on_with_runs_and_takes_any_name(real: Path) -> None:
    pytest.importorskip("mlflow")
    from archtuna.loggers.mlflow import MlflowSink

    about = About("study", "abcdef", {"objectives": {"f1": "maximize"}})
    for state in ("paused", "failed"):
        sink = MlflowSink(real)
        sink.open(about)
        sink.begin(7, {"training.lr": 0.1, "long": "x" * 10_000, **{f"backbone.{i}.kernel": 3 for i in range(150)}})
        sink.finish(7, Ending(state, {"cost/latency_ms@pi4": 1.5}, 2, "nan: the loss became nan"))
        sink.close("interrupted")
    found = sink.client.search_runs([sink._experiment], "tags.`archtuna.trial` = '7'")
    assert [(run.info.status, run.data.metrics) for run in found] == [("FAILED", {"cost/latency_ms_pi4": 1.5})]
    assert (len(found[0].data.params), len(found[0].data.params["long"])) == (152, 6000)
    assert found[0].data.tags["mlflow.note.content"] == "nan: the loss became nan"


def test_wandb_has_a_group_with_a_run_of_each_trial(real: Path) -> None:
    pytest.importorskip("wandb")
    study = search(real, "wandb", evaluator=slow)
    runs = {path.name.rpartition("-")[2]: path for path in (real / "run" / "wandb").glob("offline-run-*")}
    assert sorted(runs) == ["0", "1", "study"]
    read = {name: _wandb_records(next(path.glob("*.wandb"))) for name, path in runs.items()}
    trial = study.candidate(1)
    begun = next(record.run for record in read["1"] if record.WhichOneof("record_type") == "run")
    assert (begun.run_group, begun.display_name, begun.job_type) == ("run", "trial 1", "trial")
    config = {item.key: json.loads(item.value_json) for item in begun.config.update}
    assert config["backbone.0.channels"] == trial.decisions["backbone.0.channels"]
    history = [_items(record.history.item) for record in read["1"] if record.WhichOneof("record_type") == "history"]
    assert [row["_step"] for row in history] == list(range(1, 11))
    assert history[-1]["epoch/f1"] == pytest.approx(trial.values["f1"])
    summary: dict[str, Any] = {}
    for record in read["1"]:
        if record.WhichOneof("record_type") == "summary":
            summary |= _items(record.summary.update)
    assert (summary["state"], summary["objective/params"]) == ("complete", trial.values["params"])
    whole = [_items(record.history.item) for record in read["study"] if record.WhichOneof("record_type") == "history"]
    assert [row["study/hypervolume"] for row in whole if "study/hypervolume" in row][-1] == pytest.approx(
        study.hypervolume()
    )
    assert any(row.get("front/_type") == "table-file" for row in whole)


def test_wandb_without_a_login_is_one_warning_and_no_question(real: Path, caplog: Any, monkeypatch: Any) -> None:
    pytest.importorskip("wandb")
    import wandb

    wandb.teardown()
    monkeypatch.setenv("WANDB_MODE", "online")
    assert search(real, "wandb").counts()["complete"] == 2
    (warning,) = [m for m in caplog.messages if "Weights & Biases" in m]
    assert "nobody is logged in" in warning
    wandb.teardown()


def _items(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def _wandb_records(path: Path) -> list[Any]:
    """Return what an offline run holds: LevelDB's log format behind a header of seven bytes."""
    from wandb.proto import wandb_internal_pb2 as messages

    content, place, part, found = path.read_bytes(), 7, b"", []
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        size, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        part += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last of several
            found.append(messages.Record.FromString(part))
            part = b""
    return found


def test_who_joins_a_search_logs_what_it_does(tmp_path: Path) -> None:
    url, sink = f"sqlite:///{tmp_path}/shared.db", Runs()
    given = arguments(tmp_path, space=TWO, trials=2, workers=0, storage=url, evaluator=None)
    made = at.search(**given)
    study = join(made.name, storage=url, evaluator=instant, loggers=[Telling(sink)])
    assert sorted(told[1] for told in sink.of("begin")) == [0, 1]
    assert curve(sink, "study/hypervolume")[-1] == (2, study.hypervolume())
    assert study.identity == made.identity


def test_mlflow_prints_no_address_of_a_server(real: Path, monkeypatch: Any, capfd: Any) -> None:
    pytest.importorskip("mlflow")
    from types import SimpleNamespace

    from archtuna.loggers.mlflow import MlflowSink

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ada:hunter2@127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "")
    monkeypatch.delenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT")
    tracking = MlflowSink(real).client._tracking_client
    info, data = SimpleNamespace(experiment_id="0", run_name="trial 0"), SimpleNamespace(tags={})
    monkeypatch.setattr(tracking.store, "get_run", lambda _: SimpleNamespace(info=info, data=data))
    tracking._log_url("0123")  # What MLflow does where a run ends.
    assert capfd.readouterr().out == ""


def test_wandb_gives_a_run_less_time_to_begin_than_a_search_waits(real: Path, monkeypatch: Any) -> None:
    pytest.importorskip("wandb")
    import wandb

    from archtuna.loggers.wandb import WandbSink

    given: list[Any] = []
    monkeypatch.setattr(wandb, "init", lambda **options: given.append(options["settings"]))
    WandbSink(real).open(About("study", "abcdef", {}))
    assert given[0].init_timeout < PATIENCE
