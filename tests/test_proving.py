import shutil

import pytest

from archtuna.checkpoint import load, read_header
from archtuna.errors import DataError
from archtuna.exports import export
from archtuna.final import evaluate_checkpoint, knee_checkpoint
from archtuna.proving import proof_of
from pictures import folder


@pytest.fixture(scope="module")
def checkpoint(study):
    return knee_checkpoint(study)


@pytest.mark.parametrize("split", ["val", "test"])
def test_an_export_has_the_metrics_that_the_checkpoint_has_on_its_own_split(checkpoint, tmp_path, split):
    wanted = evaluate_checkpoint(checkpoint, split=split)
    done = export(load(checkpoint), tmp_path / "a.ts", proof=proof_of(checkpoint, split=split))
    assert done.pictures == wanted["n"]
    assert done.metrics == {name: pytest.approx(wanted[name]) for name in ("accuracy", "f1")}


def test_pictures_that_moved_are_named(study, checkpoint, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(read_header(checkpoint).data["source"], moved)
    assert len(list(proof_of(checkpoint, data=moved).batches)) == 1


def test_other_pictures_are_refused(checkpoint, tmp_path):
    with pytest.raises(DataError, match="fingerprint"):
        proof_of(checkpoint, data=folder(tmp_path / "other", each=9))


def test_an_empty_part_is_said(checkpoint, monkeypatch):
    from archtuna.data import Split

    part = Split.from_dict

    def without_val(*arguments):
        import dataclasses

        whole = part(*arguments)
        return dataclasses.replace(whole, val=whole.val[:0])

    monkeypatch.setattr(Split, "from_dict", without_val)
    with pytest.raises(DataError, match="has no val pictures\nhint: prove the export on another part"):
        proof_of(checkpoint)
