"""Optuna's dashboard on a study, asked over HTTP on loopback."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

import archtuna as at
import archtuna.dashboard
from archtuna.cli import main
from archtuna.dashboard import application, describe, server_of
from archtuna.errors import ArchtunaError, MissingExtraError
from archtuna.storage import Attr
from archtuna.study import Study
from postgres import PASSWORD, Server, free_port, server
from searches import arguments, climbing, instant, slow
from studies import add, make_spec, repeat

__all__ = ["server"]

pytest.importorskip("optuna_dashboard")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:bottle")


@contextlib.contextmanager
def serving(study: Study) -> Iterator[int]:
    """Answer in a thread, and give the port."""
    with server_of(study, free_port()) as one:
        thread = threading.Thread(target=one.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield one.server_port
        finally:
            one.shutdown()
            thread.join()


def ask(port: int, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        sent = {"Content-Type": "application/json"} if body is not None else {}
        connection.request(method, path, None if body is None else json.dumps(body), {**sent, **headers})
        answer = connection.getresponse()
        return answer.status, answer.read()


def get(port: int, path: str) -> Any:
    status, content = ask(port, "GET", path)
    assert status == 200, content
    return json.loads(content)


def attrs_of(trial: Any) -> dict[str, str]:
    return {one["key"]: one["value"] for one in trial["user_attrs"]}


def test_the_page_the_study_and_each_trial_are_there(study: Study) -> None:
    with serving(study) as port:
        status, page = ask(port, "GET", "/dashboard")
        assert (status, b"<title>Optuna Dashboard</title>" in page) == (200, True)
        (listed,) = get(port, "/api/studies")["study_summaries"]
        assert listed["study_name"] == study.name
        found = get(port, f"/api/studies/{listed['study_id']}")
    assert found["objective_names"] == ["f1", "params"]
    front = study.front()
    assert [t["number"] for t in found["best_trials"]] == sorted(t.number for t in front)
    assert found["note"]["body"].startswith(f"**run**: 3 complete, hypervolume {study.hypervolume():.4f}")
    assert f"[{front[0].number}](/dashboard/studies/1/trials?numbers={front[0].number})" in found["note"]["body"]
    for trial, told in zip(study.trials(), found["trials"], strict=True):
        note = told["note"]["body"]
        assert note.startswith(f"**Trial {trial.number}: complete**")
        assert f"Network `{trial.key}`" in note
        assert "| 0 | Conv | channels=" in note
        assert f"Decisions: backbone.0.channels={trial.decisions['backbone.0.channels']}\n" in note
        assert f"| params | {trial.costs['params']:,} |" in note
        assert f"archtuna show {study.folder} {trial.number}" in note
        assert attrs_of(told)["macs"] == str(trial.costs["macs"])


def test_the_front_is_named_and_its_files_can_be_had(study: Study) -> None:
    with serving(study) as port:
        best = get(port, "/api/studies/1")["best_trials"]
        assert [attrs_of(t)["front"][:4] for t in best] == [
            f"{[o.number for o in study.front()].index(t['number']) + 1} of" for t in best
        ]
        assert {"knee point", "best f1", "best params"} <= {
            name for t in best for name in attrs_of(t)["front"].partition(": ")[2].split(", ")
        }
        told = best[0]
        files = {one["filename"]: one for one in told["artifacts"]}
        assert sorted(files) == [f"run-{told['number']}.safetensors", f"run-{told['number']}.yaml"]
        weights, text = (
            ask(port, "GET", f"/artifacts/1/{told['trial_id']}/{files[name]['artifact_id']}")[1]
            for name in sorted(files)
        )
        assert weights == study.candidate(told["number"]).checkpoint.read_bytes()
        assert at.Architecture.from_yaml(text.decode()).key == study.candidate(told["number"]).key
        (search,) = get(port, "/api/studies/1")["artifacts"]
        assert ask(port, "GET", f"/artifacts/1/{search['artifact_id']}")[1].decode() == study.spec.space["text"]


def test_what_would_change_the_study_is_refused(study: Study) -> None:
    with serving(study) as port:
        trial = get(port, "/api/studies/1")["trials"][0]["trial_id"]
        for method, path, body in (
            ("DELETE", "/api/studies/1", {}), ("POST", "/api/studies/1/rename", {"study_name": "other"}),
            ("POST", "/api/studies", {"study_name": "other", "directions": ["minimize"]}),
            ("POST", f"/api/trials/{trial}/user-attrs", {"user_attrs": {Attr.KEY: "0"}}),
            ("POST", f"/api/trials/{trial}/tell", {"state": "Fail"}),
        ):  # fmt: skip
            status, content = ask(port, method, path, body)
            assert (status, json.loads(content)) == (
                403, {"reason": "archtuna's dashboard writes notes and changes nothing else of a study"},
            )  # fmt: skip
        assert get(port, "/api/studies/1")["name"] == study.name
    assert len(study.trials()) == 3


def test_pages_of_others_do_not_reach_it(study: Study) -> None:
    with serving(study) as port:
        for host in ("evil.example", "evil.example:8080"):
            assert ask(port, "GET", "/api/studies", Host=host)[0] == 403
        for host in (f"127.0.0.1:{port}", f"localhost:{port}", "localhost"):
            assert ask(port, "GET", "/api/studies", Host=host)[0] == 200
        with pytest.raises(OSError), socket.create_connection((_other_address(), port), timeout=5):
            pass


def _other_address() -> str:
    """Return an address of this machine that is not the one of the server."""
    return "127.0.0.2" if sys.platform == "linux" else "::1"


def test_a_search_goes_on_after_somebody_wrote_notes(tmp_path: Path) -> None:
    before = [trial.values for trial in at.search(**arguments(tmp_path, trials=4, sampler="nsga2")).trials()]
    with Study.open(tmp_path / "run") as study, serving(study) as port:
        told = get(port, "/api/studies/1")["trials"][1]
        note = f"/api/studies/1/{told['trial_id']}/note"
        assert told["note"]["version"] == 0
        assert ask(port, "PUT", note, {"version": 1, "body": "take this one"})[0] == 204
        assert ask(port, "PUT", note, {"version": 1, "body": "no, that"})[0] == 409, "somebody else wrote meanwhile"
        assert ask(port, "PUT", "/api/studies/1/note", {"version": 1, "body": "for the fair"})[0] == 204
        time.sleep(archtuna.overlay.FRESH)
        found = get(port, "/api/studies/1")
        assert (found["trials"][1]["note"]["body"], found["note"]["body"]) == ("take this one", "for the fair")
        assert found["trials"][2]["note"]["body"].startswith("**Trial 2: complete**")
    after = at.search(**arguments(tmp_path, trials=12, sampler="nsga2"))
    assert after.counts()["complete"] == 12
    assert [t.values for t in after.trials()[:4]] == before


def test_a_search_that_is_running_is_shown_as_it_goes(tmp_path: Path) -> None:
    seen: list[tuple[int, list[str]]] = []
    port: list[int] = []

    def looking(event: dict[str, Any]) -> None:
        if event["event"] == "epoch" and event["epoch"] == 5:
            time.sleep(archtuna.overlay.FRESH if seen else 0)
            found = get(port[0], "/api/studies/1")
            seen.append((len(found["best_trials"]), [t["state"] for t in found["trials"]]))

    given = arguments(tmp_path, evaluator=slow)
    with at.search(**{**given, "evaluator": None, "workers": 0, "trials": 2}) as made, serving(made) as one:
        port.append(one)
        study = at.search(**{**given, "trials": 2, "on_event": looking})
    assert [states[-1] for _, states in seen] == ["Running", "Running"]
    assert [count for count, _ in seen] == [0, 1]
    assert study.counts()["complete"] == 2


def test_stopped_refused_and_failed_trials_say_why(tmp_path: Path) -> None:
    given = {"evaluator": climbing, "epochs": 9, "trials": 25, "sampler": "random", "limits": ["params <= 6000"]}
    study = at.search(**arguments(tmp_path, **given))
    add(
        study,
        None,
        10.0,
        TrialState.FAIL,
        **{Attr.OUTCOME: "failed", Attr.REASON: "KeyError: '`x`'\n  more", Attr.METRICS: {}},
    )
    told = describe(study, study.trials())
    for state in ("stopped", "refused", "failed"):
        number = next(t.number for t in study.trials() if t.state == state)
        reason = study.candidate(number).reason
        assert told.trials[number].attrs["state"] == state
        assert told.trials[number].attrs["reason"] == reason.splitlines()[0]
        assert f"**Trial {number}: {state}**" in told.trials[number].note
        assert reason in told.trials[number].note


def test_means_of_repeats_are_what_is_shown(tmp_path: Path) -> None:
    study = Study.create_or_open(tmp_path / "run", make_spec())
    add(study, 0.9, 100.0)
    repeat(study, 0, 0.7, 0.8)
    with serving(study) as port:
        (best,) = get(port, "/api/studies/1")["best_trials"]
    assert best["values"] == [0.75, 100.0]
    assert "0.7500 ± 0.0707 (n=2)" in best["note"]["body"]


def test_a_block_that_is_not_here_leaves_the_rows(tmp_path: Path) -> None:
    study = Study.create_or_open(tmp_path / "run", make_spec())
    network = study.space().default().architecture.to_dict()
    strange = {**network, "backbone": [[1, "Strange", {}], *network["backbone"]]}
    add(study, 0.9, 100.0, **{Attr.ARCHITECTURE: json.dumps(strange)})
    note = describe(study, study.trials()).trials[0].note
    assert "no block is named 'Strange' (`--import` names its module):" in note
    assert "```yaml" in note
    assert "- [1, Strange, {}]" in note


def test_large_studies_have_notes_for_the_front_and_the_newest(tmp_path: Path, monkeypatch: Any) -> None:
    study = Study.create_or_open(tmp_path / "run", make_spec())
    for number in range(8):
        add(study, 0.9 if number == 0 else 0.5, 100.0 + number)
    monkeypatch.setattr(archtuna.dashboard, "NOTES", 3)
    shown = describe(study, study.trials()).trials
    assert [number for number, one in shown.items() if one.note] == [0, 6, 7]


def test_a_study_without_trials_is_shown(tmp_path: Path) -> None:
    study = Study.create_or_open(tmp_path / "run", make_spec())
    with serving(study) as port:
        found = get(port, "/api/studies/1")
    assert (found["trials"], found["best_trials"]) == ([], [])
    assert "no network was evaluated in full yet" in found["note"]["body"]


def test_a_study_in_postgresql_is_shown_without_its_password(tmp_path: Path, server: Server) -> None:
    study = at.search(**arguments(tmp_path, trials=3, evaluator=instant, storage=server.url(), name="shown"))
    with Study.named("shown", storage=server.url()) as found, serving(found) as port:
        (listed,) = get(port, "/api/studies")["study_summaries"]
        status, content = ask(port, "GET", f"/api/studies/{listed['study_id']}")
        note = f"/api/studies/{listed['study_id']}/note"
        assert ask(port, "PUT", note, {"version": 1, "body": "kept"})[0] == 204
    assert status == 200
    assert len(json.loads(content)["trials"]) == 3
    assert PASSWORD.encode() not in content
    assert b"hunter2" not in content
    assert study.optuna._storage.get_study_system_attrs(listed["study_id"])["dashboard:note_str:0"] == "kept"


# --- the command -------------------------------------------------------------------------------------


def test_the_command_says_where_it_is_and_ends_with_ctrl_c(study: Study) -> None:
    port = free_port()
    command = [sys.executable, "-m", "archtuna", "dashboard", str(study.folder), "--port", str(port), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"http://127.0.0.1:{port}/dashboard/studies/1\n"
        assert get(port, "/api/studies/1")["name"] == "run"
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")


def test_a_port_that_is_taken_is_one_error_and_none_given_takes_a_free_one(
    study: Study, capsys: Any, monkeypatch: Any
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["dashboard", str(study.folder), "--port", str(port)]) == 1
        assert capsys.readouterr().err.endswith(
            f"archtuna: port {port} is taken\nhint: name another, or none: any that is free is taken\n"
        )
        monkeypatch.setattr(archtuna.dashboard, "PORT", port)
        with server_of(study) as one:
            assert one.server_port not in (0, port)
            assert one.url == f"http://127.0.0.1:{one.server_port}/dashboard"


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_what_is_no_port_is_a_mistake_in_the_arguments(port: str, capsys: Any) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["dashboard", "run", "--port", port])
    assert f"'{port}' is not a port, 1 to 65535" in capsys.readouterr().err


def test_a_run_or_a_study_has_to_be_named(tmp_path: Path, capsys: Any) -> None:
    assert main(["dashboard"]) == 1
    assert "name either the folder of a run or its study" in capsys.readouterr().err
    assert main(["dashboard", str(tmp_path)]) == 1
    assert f"no study in {tmp_path}" in capsys.readouterr().err


def test_without_the_library_it_says_what_to_install(study: Study, monkeypatch: Any) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        MissingExtraError, match=r"optuna-dashboard is not installed\nhint: pip install 'archtuna\[dashboard\]'"
    ):
        application(study)
    assert issubclass(MissingExtraError, ArchtunaError)


def test_commands_in_notes_take_the_folder_as_one_word(tmp_path: Path) -> None:
    study = at.search(**arguments(tmp_path, out=tmp_path / "it's mine", trials=1))
    shown = describe(study, study.trials())
    run = shlex.quote(str(study.folder))
    assert f"archtuna pick {run}\narchtuna status {run} --watch" in shown.study.note
    assert f"archtuna show {run} 0\narchtuna train {run} 0" in shown.trials[0].note
