from __future__ import annotations

import subprocess
import sys
import textwrap
import traceback
from collections import Counter
from pathlib import Path

import optuna
import pytest
from sqlalchemy.exc import OperationalError

from archtuna import storage as module
from archtuna.errors import MissingExtraError, StudyError
from archtuna.storage import (
    close_storage,
    default_url,
    engine_of,
    explain,
    has_password,
    open_storage,
    redact,
    scrub,
    storage_errors_named,
    with_retries,
)
from mysql import mysql  # noqa: F401
from postgres import PASSWORD, Server, server  # noqa: F401


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://ada:secret@db/nets", "postgresql://ada:***@db/nets"),
        (
            "postgresql+psycopg://ada:a%40b@db:5432/nets?sslmode=require",
            "postgresql+psycopg://ada:***@db:5432/nets?sslmode=require",
        ),
        ("postgresql://postgres:postgres@db/postgres", "postgresql://postgres:***@db/postgres"),
        ("postgresql://ada:p@ss:w/rd@db/nets", "postgresql://ada:***@db/nets"),
        ("postgresql:///nets?host=/tmp&password=secret&x=1", "postgresql:///nets?host=/tmp&password=***&x=1"),
        ("postgresql://ada@db/nets", "postgresql://ada@db/nets"),
        ("sqlite:////tmp/study.db", "sqlite:////tmp/study.db"),
    ],
)
def test_redact_masks_passwords_and_nothing_else(url: str, shown: str) -> None:
    assert redact(url) == shown
    assert has_password(url) == ("***" in shown)


def test_scrub_knows_both_spellings() -> None:
    assert scrub("a/b or a%2Fb", "postgresql://u:a%2Fb@h/d") == "*** or ***"
    assert scrub("nothing", None) == "nothing"


def test_default_url_is_the_environments() -> None:
    assert default_url({"ARCHTUNA_STORAGE": "sqlite:///x"}) == "sqlite:///x"
    assert default_url({"ARCHTUNA_STORAGE": ""}) is None
    assert default_url({}) is None


def test_the_runs_own_database_is_wal_and_locks_at_begin(tmp_path: Path) -> None:
    opened = open_storage(None, tmp_path)
    engine = engine_of(opened)
    statements: list[str] = []
    with engine.connect() as connection:
        connection.connection.dbapi_connection.set_trace_callback(statements.append)
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 60_000
    assert statements[0] == "BEGIN IMMEDIATE"
    assert (tmp_path / "study.db").exists()
    close_storage(opened)


def test_a_sqlite_url_is_treated_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    opened = open_storage("sqlite:///~/deep/er/mine.db", tmp_path)
    with engine_of(opened).connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    assert (tmp_path / "deep" / "er" / "mine.db").exists()
    close_storage(opened)


def test_memory_and_journal_and_objects(tmp_path: Path) -> None:
    mine = optuna.storages.InMemoryStorage()
    assert open_storage(mine, tmp_path) is mine
    assert engine_of(mine) is None
    close_storage(mine)
    journal = open_storage(f"journal://{tmp_path}/journal.log", tmp_path)
    assert isinstance(journal, optuna.storages.JournalStorage)
    memory = open_storage("sqlite://", tmp_path)
    assert optuna.create_study(storage=memory).trials == []
    close_storage(memory)


def test_a_folder_that_cannot_be_written() -> None:
    with pytest.raises(
        StudyError, match=r"cannot open the study's storage sqlite:////proc/nowhere/study.db.*\nhint: .*--out"
    ):
        open_storage(None, Path("/proc/nowhere"))


def test_a_server_that_is_not_there_shows_no_password(tmp_path: Path) -> None:
    url = "postgresql://u:hunter2@127.0.0.1:1/db"
    with pytest.raises(StudyError, match=r"postgresql://u:\*\*\*@127.0.0.1:1/db: .*[Cc]onnection refused") as caught:
        open_storage(url, tmp_path)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("url", "what", "extra"),
    [
        ("postgresql://u:hunter2@h/db", "psycopg", "postgresql"),
        ("mysql://u:hunter2@h/db", "pymysql", "mysql"),
        ("mariadb://u:hunter2@h/db", "pymysql", "mysql"),
        ("grpc://h:1", "proxy", "grpc"),
    ],
)
def test_a_driver_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, what: str, extra: str
) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        MissingExtraError, match=rf"{what} is not installed\nhint: pip install 'archtuna\[{extra}\]'"
    ) as caught:
        open_storage(url, tmp_path)
    assert "hunter2" not in str(caught.value)


@pytest.mark.slow
def test_a_proxy_that_is_not_there() -> None:
    """In a process of its own: one that has spoken over gRPC hangs when it is forked, as other tests do."""
    code = """
from pathlib import Path
from archtuna import storage
storage.CONNECT_SECONDS = 0.2
try:
    storage.open_storage("grpc://127.0.0.1:1", Path())
except storage.StudyError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("cannot open the study's storage grpc://127.0.0.1:1: "), done.stderr


def test_attributes_may_be_long_in_mysql(mysql: str, tmp_path: Path) -> None:  # noqa: F811
    storage = open_storage(mysql, tmp_path)
    study = optuna.create_study(storage=storage)
    long = "x" * 200_000
    study.set_user_attr("long", long)
    trial = study.ask()
    trial.set_user_attr("long", long)
    close_storage(storage)
    again = optuna.load_study(study_name=study.study_name, storage=open_storage(mysql, tmp_path))
    assert again.user_attrs["long"] == again.trials[0].user_attrs["long"] == long
    close_storage(again._storage)


def test_an_unknown_scheme(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"cannot open the study's storage foo://x"):
        open_storage("foo://x", tmp_path)


def test_optunas_own_lines_are_quiet_unless_asked_for(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    opened = open_storage(None, tmp_path)
    study = optuna.create_study(storage=opened)
    study.tell(study.ask(), 1.0)
    assert capfd.readouterr().err == ""
    close_storage(opened)


def _lost() -> OperationalError:
    return OperationalError("SELECT 1", {}, Exception("server closed the connection for hunter2"))


def test_retries_until_it_is_back() -> None:
    answers = [_lost(), _lost(), "done"]
    pauses: list[float] = []

    def action() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert with_retries(action, what="record trial 7", sleep=pauses.append) == "done"
    assert len(pauses) == 2
    assert pauses[0] <= 0.25 < pauses[1] * 2 <= 1.0


def test_retries_end_with_one_error_without_passwords() -> None:
    def action() -> None:
        raise _lost()

    url = "postgresql://u:hunter2@h/d"
    with pytest.raises(
        StudyError, match=r"storage is away \(server closed the connection for \*\*\*\): could not record"
    ) as caught:
        with_retries(action, what="record trial 7", seconds=0.1, url=url)
    assert caught.value.__context__ is None


def test_other_errors_are_not_retried() -> None:
    def action() -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        with_retries(action, what="record trial 7")


def test_storage_errors_get_a_name() -> None:
    with pytest.raises(StudyError, match=r"storage failed: server closed") as caught, storage_errors_named():
        raise _lost()
    assert caught.value.__cause__ is None


def test_explain_takes_the_first_line() -> None:
    assert explain(ValueError("one\ntwo")) == "one"
    assert explain(ValueError()) == "ValueError"


POP = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    import optuna
    from archtuna.storage import open_storage
    folder = Path(sys.argv[1])
    study = optuna.load_study(study_name="s", storage=open_storage(None, folder))
    (folder / f"ready-{sys.argv[2]}").touch()
    while not (folder / "go").exists():
        time.sleep(0.01)
    while (trial_id := study._pop_waiting_trial_id()) is not None:
        print(trial_id, flush=True)
        study._storage.set_trial_user_attr(trial_id, "by", sys.argv[2])
    """
)


@pytest.mark.slow
def test_six_processes_run_no_queued_trial_twice(tmp_path: Path) -> None:
    opened = open_storage(None, tmp_path)
    study = optuna.create_study(study_name="s", storage=opened)
    for i in range(30):
        study.enqueue_trial({"x": i})
    command = [sys.executable, "-c", POP, str(tmp_path)]
    workers = [subprocess.Popen([*command, str(i)], stdout=subprocess.PIPE, text=True) for i in range(6)]
    while len(list(tmp_path.glob("ready-*"))) < 6:
        assert all(worker.poll() is None for worker in workers)
    (tmp_path / "go").touch()
    popped = Counter(line for worker in workers for line in worker.communicate(timeout=60)[0].split())
    assert len(popped) == 30
    assert set(popped.values()) == {1}
    close_storage(opened)


def test_postgresql(server: Server, tmp_path: Path) -> None:  # noqa: F811
    opened = open_storage(server.url(), tmp_path)
    engine = engine_of(opened)
    assert engine.url.drivername == "postgresql+psycopg"
    assert engine.pool.size() == 1
    study = optuna.create_study(study_name="s", storage=opened)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW application_name").scalar() == "archtuna"
    study.tell(study.ask(), 1.0)
    # A connection that the server dropped is replaced without a word.
    server.stop()
    server.start()
    study.tell(study.ask(), 2.0)
    assert [t.value for t in study.trials] == [1.0, 2.0]
    close_storage(opened)


def test_a_wrong_password_is_not_shown(server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:  # noqa: F811
    url = server.url("wr0ng&{y}%")
    with pytest.raises(StudyError, match="password authentication failed") as caught:
        open_storage(url, tmp_path)
    shown = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert "wr0ng" not in shown
    with pytest.raises(StudyError, match='database "nowhere" does not exist') as caught:
        open_storage(server.url(database="nowhere"), tmp_path)
    assert PASSWORD not in str(caught.value)
