"""Which rounds had a device's full speed."""

from pathlib import Path

import pytest

from archtuna import full_speed
from archtuna.full_speed import counting, fastest, remember, remembered


@pytest.fixture(autouse=True)
def own_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_a_round_counts_where_the_reference_is_fast_before_and_after_it():
    references = [1.0, 1.04, 2.0, 1.0, 1.0, 1.06, 1.0]
    assert counting(references, 1.0, 0.05).tolist() == [True, True, False, False, True, False, False]


def test_a_single_lucky_round_is_not_full_speed():
    assert fastest([0.1] + [1.0] * 60) == 1.0
    assert fastest([0.5] * 10 + [1.0] * 51) == 0.5


def test_full_speed_is_remembered_for_some_minutes(monkeypatch: pytest.MonkeyPatch):
    assert remembered("abc") is None
    remember("abc", 0.25)
    assert remembered("abc") == 0.25
    assert remembered("other") is None
    now = full_speed.time.time()
    monkeypatch.setattr("archtuna.full_speed.time.time", lambda: now + full_speed.FORGOTTEN + 1)
    assert remembered("abc") is None


def test_what_is_damaged_is_as_if_it_were_not_there(tmp_path: Path):
    remember("abc", 0.25)
    (file,) = tmp_path.rglob("speed-abc.json")
    for text in ("", "[]", '{"seconds": "x", "at": 0}', '{"seconds": -1, "at": 1e12}'):
        file.write_text(text)
        assert remembered("abc") is None
