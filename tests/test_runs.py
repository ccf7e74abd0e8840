from __future__ import annotations

import re
from pathlib import Path

import optuna
import pytest

from archtuna.crew import processes
from archtuna.errors import StudyError
from archtuna.runs import read_record, stored_url
from archtuna.study import Study
from searches import SPACE
from studies import make_spec


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study.create_or_open(tmp_path / "photos", make_spec())


def test_a_new_study_leaves_a_readable_folder(study: Study, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    assert {path.name for path in folder.iterdir()} >= {"search.yaml", "study.json", "study.db", "checkpoints"}
    assert (folder / "search.yaml").read_text() == SPACE
    assert read_record(folder) == {"name": "photos", "storage": None, "password": False}
    assert study.name == "photos"
    assert (study.trials(), study.front(), study.hypervolume()) == ([], [], 0.0)
    assert study.counts() == {"complete": 0, "stopped": 0, "refused": 0, "failed": 0}
    assert study.disk() == {"files": 0, "bytes": 0, "rule": "the front, and the 10 trials nearest behind it"}
    with pytest.raises(StudyError, match="the front is empty"):
        study.knee()
    with pytest.raises(StudyError, match=r"no trial 3\nhint: the study has no trials yet"):
        study.candidate(3)


def test_another_name_or_storage_for_the_same_folder(study: Study, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="is 'photos', not 'others'"):
        Study.create_or_open(tmp_path / "photos", make_spec(), name="others")
    with pytest.raises(StudyError, match=r"is in its own database, not in sqlite:///.*\nhint: use another --out"):
        Study.create_or_open(tmp_path / "photos", make_spec(), storage=f"sqlite:///{tmp_path}/b.db")


def test_a_runs_own_database_may_be_named_by_its_url(study: Study, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/photos/study.db"
    assert Study.create_or_open(tmp_path / "photos", make_spec(), storage=url).name == "photos"
    assert Study.join(url, "photos", tmp_path / "photos").name == "photos"


def test_a_remote_storage_with_a_password_is_not_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A SQLite URL does for any: only its text matters here.
    url = f"sqlite:///{tmp_path}/all.db?password=hunter2"
    monkeypatch.delenv("ARCHTUNA_STORAGE", raising=False)
    monkeypatch.setattr(
        "archtuna.study.open_storage", lambda where, folder: optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/all.db")
    )
    study = Study.create_or_open(tmp_path / "a", make_spec(), storage=url)
    assert study.storage_url == f"sqlite:///{tmp_path}/all.db?password=***"
    assert not any(b"hunter2" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    with pytest.raises(
        StudyError, match=r"its password is not written down\nhint: pass --storage, or set ARCHTUNA_STORAGE"
    ):
        Study.open(tmp_path / "a")
    assert Study.open(tmp_path / "a", storage=url).name == "a"
    monkeypatch.setenv("ARCHTUNA_STORAGE", url)
    assert Study.open(tmp_path / "a").name == "a"


def test_a_storage_without_a_password_needs_no_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARCHTUNA_STORAGE", raising=False)
    Study.create_or_open(tmp_path / "a", make_spec(), storage=f"sqlite:///{tmp_path}/all.db")
    assert Study.open(tmp_path / "a").storage_url == f"sqlite:///{tmp_path}/all.db"


def test_the_environment_is_not_taken_for_what_the_record_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, other = (f"sqlite:///{tmp_path}/{name}.db" for name in ("all", "other"))
    monkeypatch.delenv("ARCHTUNA_STORAGE", raising=False)
    Study.create_or_open(tmp_path / "a", make_spec(), storage=here)
    monkeypatch.setenv("ARCHTUNA_STORAGE", other)
    assert Study.open(tmp_path / "a").storage_url == here
    assert not (tmp_path / "other.db").exists()
    assert Study.open(tmp_path / "a", storage=here).name == "a"


@pytest.mark.parametrize(
    ("stored", "password", "given", "found"),
    [
        ("postgresql://ada@db/nets", False, "postgresql://ada:secret@db/nets", "postgresql://ada:secret@db/nets"),
        ("postgresql://ada@db/nets", False, "postgresql://ada:secret@db2/nets", "postgresql://ada@db/nets"),
        ("mysql://db/nets", False, "mysql://db/nets?password=secret", "mysql://db/nets?password=secret"),
        (
            "postgresql://ada:***@db/nets",
            True,
            "postgresql://ada:secret@gate/nets",
            "postgresql://ada:secret@gate/nets",
        ),
        (None, False, "postgresql://ada@db/nets", None),
    ],
)
def test_the_environment_gives_the_password_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: str | None, password: bool, given: str, found: str | None
) -> None:
    monkeypatch.setenv("ARCHTUNA_STORAGE", given)
    assert stored_url({"storage": stored, "password": password}, tmp_path) == found


def test_a_worker_is_told_the_storage_that_was_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that has moved: ``repeat`` is told where to, and its workers with it."""
    moved, seen = "postgresql://ada@db2/nets", []
    monkeypatch.setattr("archtuna.crew._Process", lambda environment, *given: seen.append(environment))
    processes(moved, 2)("archtuna.repeater", {}, lambda event: None)
    monkeypatch.setattr("os.environ", seen[0])
    assert stored_url({"storage": "postgresql://ada@db/nets", "password": False}, tmp_path) == moved


def test_a_relative_path_is_that_of_the_folder_in_which_the_search_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ARCHTUNA_STORAGE", raising=False)
    monkeypatch.chdir(tmp_path)
    Study.create_or_open("runs/a", make_spec(), storage="sqlite:///shared.db")
    record = read_record(tmp_path / "runs" / "a")
    assert record is not None
    assert record["storage"] == f"sqlite:///{tmp_path}/shared.db"
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert Study.open("../runs/a").storage_url == f"sqlite:///{tmp_path}/shared.db"
    Study.create_or_open("../runs/a", make_spec(), storage="sqlite:///../shared.db")
    with pytest.raises(StudyError, match="use another --out"):
        Study.create_or_open("../runs/a", make_spec(), storage="sqlite:///shared.db")
    assert list(Path().iterdir()) == []


def test_a_relative_path_of_an_older_version_is_looked_for_and_none_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ARCHTUNA_STORAGE", raising=False)
    monkeypatch.chdir(tmp_path)
    Study.create_or_open("runs/a", make_spec(), storage="sqlite:///shared.db").close()
    record = tmp_path / "runs" / "a" / "study.json"
    record.write_text(record.read_text().replace(f"sqlite:///{tmp_path}/", "sqlite:///"))
    assert read_record(record.parent) == {"name": "a", "storage": "sqlite:///shared.db", "password": False}
    assert Study.open("runs/a").name == "a"
    assert Study.create_or_open("runs/a", make_spec(), storage="sqlite:///shared.db").name == "a"
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert Study.open(record.parent).name == "a"
    (tmp_path / "shared.db").rename(tmp_path / "moved.db")
    with pytest.raises(StudyError, match=r"is in sqlite:///shared.db, and there is no such file\nhint: .*--storage"):
        Study.open(record.parent)
    assert list(Path().iterdir()) == []
    assert not (tmp_path / "shared.db").exists()


def test_the_path_of_a_journal_is_kept_in_full_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARCHTUNA_STORAGE", raising=False)
    monkeypatch.chdir(tmp_path)
    Study.create_or_open("runs/a", make_spec(), storage="journal://shared.log")
    monkeypatch.chdir(tmp_path / "runs")
    assert Study.open("a").storage_url == f"journal://{tmp_path}/shared.log"


@pytest.mark.parametrize("url", ["sqlite:///typo.db", "journal://typo.log", "sqlite+pysqlite:///~/typo.db?timeout=3"])
def test_reading_from_a_file_that_is_not_there_makes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    Study.create_or_open("a", make_spec()).close()
    before = sorted(tmp_path.iterdir())
    readers = (
        lambda: Study.named("a", storage=url),
        lambda: Study.join(url, "a"),
        lambda: Study.open("a", storage=url),
    )
    for read in readers:
        with pytest.raises(StudyError, match=rf"no study in {re.escape(url)}: there is no file {tmp_path}/typo\.\w+\n"):
            read()
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StudyError, match=r"cannot write to the run's folder .*file.*\nhint: choose another with --out"):
        Study.create_or_open(tmp_path / "file", make_spec())
