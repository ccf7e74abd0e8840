from pathlib import Path

import pytest

from archtuna.errors import DataError
from archtuna.final import knee_checkpoint
from archtuna.predict import predict


@pytest.mark.slow
def test_predict_names_classes_and_probabilities(study):
    source = study.data().source
    found = list(predict(knee_checkpoint(study), [source], top=3))
    assert len(found) == 72
    for one in found:
        assert sum(c["probability"] for c in one["classes"]) == pytest.approx(1, abs=1e-5)
        assert one["classes"][0]["probability"] >= one["classes"][1]["probability"]
    with pytest.raises(DataError, match="no such file"):
        list(predict(knee_checkpoint(study), ["nowhere.jpg"]))


@pytest.mark.slow
def test_a_broken_picture_is_named_and_the_others_go_on(study, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    whole = next(iter(study.data().names))
    (tmp_path / "b.jpg").write_bytes((Path(study.data().source) / whole).read_bytes())
    (tmp_path / "notes.txt").write_text("not looked at")
    (tmp_path / "c.png").write_bytes(b"no picture either")
    found = list(predict(knee_checkpoint(study), [tmp_path]))
    assert [sorted(one) for one in found] == [["error", "file"], ["classes", "file"], ["error", "file"]]
    assert [Path(one["file"]).name for one in found] == ["a.png", "b.jpg", "c.png"]
    assert "a.png" in found[0]["error"]
    with pytest.raises(DataError, match="no such file: nowhere"):
        next(predict(knee_checkpoint(study), [tmp_path / "b.jpg", "nowhere"]))
    with pytest.raises(DataError, match="no pictures in"):
        list(predict(knee_checkpoint(study), [_empty(tmp_path)]))


def _empty(folder):
    (folder / "empty").mkdir()
    return folder / "empty"
