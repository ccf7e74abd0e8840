"""The classic case from end to end: the published file, four objectives, two processes, every checkpoint read back."""

import json

import pytest

import forked
from archtuna.study import Study
from pictures import folder
from spaces import CLASSIC


def archtuna(*arguments, cwd):
    done = forked.archtuna(*arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_classic_search_leaves_checkpoints_that_load_and_evaluate_to_the_same_numbers(tmp_path):
    folder(tmp_path / "photos", each=16)
    (tmp_path / "classic.yaml").write_text(CLASSIC.replace("[1, Linear, [6]]", "[1, Linear, [3]]"))
    out = archtuna(
        "search", "classic.yaml", "--data", "photos", "--out", "run", "--objectives", "loss,f1,accuracy,params", "--input-size", 32,
        "--trials", 5, "--epochs", 2, "--workers", 2, "--json", cwd=tmp_path,
    )  # fmt: skip
    last = json.loads(out.splitlines()[-1])
    assert last["trials"]["complete"] == 5
    front = json.loads(archtuna("front", "run", "--json", cwd=tmp_path))
    assert [t["number"] for t in front] == last["front"]
    for trial in front:
        found = json.loads(archtuna("evaluate", trial["checkpoint"], "--json", cwd=tmp_path))
        recorded = trial["values"]
        assert {k: found[k] for k in ("loss", "f1", "accuracy")} == pytest.approx(
            {k: recorded[k] for k in ("loss", "f1", "accuracy")}, abs=1e-6
        )
    with Study.open(tmp_path / "run") as study:
        keys = [trial.key for trial in study.trials() if trial.state == "complete"]
        assert len(keys) == len(set(keys)) == 5
        assert {trial.worker for trial in study.trials() if trial.state == "complete"} != {None}
