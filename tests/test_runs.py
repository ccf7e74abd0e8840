from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from archtuna.errors import StudyError
from archtuna.runs import read_record
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


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StudyError, match=r"cannot write to the run's folder .*file.*\nhint: choose another with --out"):
        Study.create_or_open(tmp_path / "file", make_spec())
