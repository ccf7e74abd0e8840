"""What is laid over a study for the dashboard, and that nothing of it is written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.trial import TrialState

import archtuna.overlay
from archtuna.overlay import CHUNK, Described, Files, Overlay, ReadOnly, Shown
from archtuna.storage import STOPPED_CONSTRAINT, Attr
from archtuna.study import Study, Trial
from studies import add, make_spec


def described(study: Study, trials: Sequence[Trial]) -> Described:
    notes = {t.number: Shown(f"note {t.number} " * (800 if t.number == 1 else 1), {"state": t.state}) for t in trials}
    return Described(Shown("the study", {"limits": "params <= 5000"}, {"search.yaml": "a: 1"}), notes)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    study = Study.create_or_open(tmp_path / "run", make_spec())
    for f1, params in ((0.5, 100.0), (0.7, 200.0), (0.6, 300.0)):
        add(study, f1, params)
    return study


@pytest.fixture
def overlay(study: Study, monkeypatch: Any) -> Overlay:
    monkeypatch.setattr(archtuna.overlay, "FRESH", 0.0)
    return Overlay(study, described)


def everything(study: Study) -> str:
    """Return all that the study's storage holds, as text."""
    storage, number = study.optuna._storage, study.optuna._study_id
    trials = storage.get_all_trials(number)
    attrs = storage.get_study_system_attrs(number), storage.get_study_user_attrs(number)
    return repr([attrs, [(t.state, t.values, t.user_attrs, t.system_attrs, t.params) for t in trials]])


def test_optuna_reads_the_study_through_it(study: Study, overlay: Overlay) -> None:
    seen = optuna.load_study(study_name=study.name, storage=overlay)
    assert seen.metric_names == ["f1", "params"]
    assert [t.number for t in seen.best_trials] == [t.number for t in study.front()] == [0, 1]
    assert [t.user_attrs for t in seen.trials] == [{"state": "complete"}] * 3, (
        "archtuna's own attributes are not for people"
    )
    assert seen.user_attrs == {"limits": "params <= 5000"}
    assert [one.study_name for one in overlay.get_all_studies()] == ["run"], (
        "other studies of the storage are not shown"
    )
    assert overlay.get_n_trials(seen._study_id, state=TrialState.COMPLETE) == 3


def test_nothing_is_written(study: Study, overlay: Overlay) -> None:
    before = everything(study)
    seen = optuna.load_study(study_name=study.name, storage=overlay)
    overlay.get_study_system_attrs(seen._study_id)
    refused = [
        lambda: seen.set_user_attr("a", 1), lambda: seen.ask(), lambda: seen.enqueue_trial({}),
        lambda: overlay.delete_study(seen._study_id), lambda: overlay.set_trial_user_attr(seen.trials[0]._trial_id, "a", 1),
        lambda: overlay.set_trial_state_values(seen.trials[0]._trial_id, TrialState.FAIL),
        lambda: overlay.set_study_system_attr(seen._study_id, "study:metric_names", ["a", "b"]), lambda: optuna.create_study(storage=overlay, study_name="other"),
        lambda: overlay.set_trial_system_attr(seen.trials[0]._trial_id, "a", 1),
        lambda: overlay.set_trial_param(seen.trials[0]._trial_id, "a", 1.0, None),
        lambda: overlay.set_trial_intermediate_value(seen.trials[0]._trial_id, 1, 1.0),
    ]  # fmt: skip
    for change in refused:
        with pytest.raises(ReadOnly):
            change()
    assert everything(study) == before


def test_notes_are_ours_until_somebody_writes_one(study: Study, overlay: Overlay) -> None:
    number, trial = study.optuna._study_id, study.optuna.trials[1]._trial_id
    attrs = overlay.get_study_system_attrs(number)
    assert attrs["dashboard:note_str:0"] == "the study"
    parts = [attrs[f"dashboard:{trial}:note_str:{i}"] for i in range(3)]
    assert "".join(parts) == "note 1 " * 800
    assert max(map(len, parts)) == CHUNK
    assert attrs[f"dashboard:{trial}:note_ver"] == 0
    overlay.set_study_system_attr(number, f"dashboard:{trial}:note_ver", 1)
    overlay.set_study_system_attr(number, f"dashboard:{trial}:note_str:0", "mine")
    attrs = overlay.get_study_system_attrs(number)
    assert {n: v for n, v in attrs.items() if n.startswith(f"dashboard:{trial}:")} == {
        f"dashboard:{trial}:note_ver": 1, f"dashboard:{trial}:note_str:0": "mine",
    }  # fmt: skip
    assert attrs["dashboard:note_str:0"] == "the study"
    assert study.optuna._storage.get_study_system_attrs(number)[f"dashboard:{trial}:note_str:0"] == "mine"


def test_what_was_stopped_or_breaks_a_limit_is_not_among_the_best(study: Study, overlay: Overlay) -> None:
    from optuna.trial import create_trial

    attrs = {Attr.OUTCOME: "stopped"}
    study.optuna.add_trial(create_trial(values=[0.9, 50.0], user_attrs=attrs, constraints={STOPPED_CONSTRAINT: 0.5}))
    add(study, 0.99, 9000.0)
    seen = optuna.load_study(study_name=study.name, storage=overlay)
    assert [t.number for t in seen.best_trials] == [0, 1]
    assert [t.state.name for t in seen.trials[3:]] == ["PRUNED", "PRUNED"]
    assert seen.trials[3].values is None
    # The list that older versions kept is all that the dashboard reads.
    assert [t.system_attrs.get("constraints") for t in seen.trials] == [[-0.98], [-0.96], [-0.94], None, [0.8]]


def test_files_are_found_by_names_that_nobody_guesses(tmp_path: Path) -> None:
    (tmp_path / "17.safetensors").write_bytes(b"weights")
    files = Files()
    attrs = files.attributes(17, {"17.safetensors": tmp_path / "17.safetensors", "17.yaml": "a: 1"})
    assert files.attributes(17, {"17.yaml": "a: 1"}).items() <= attrs.items(), "a file keeps its name"
    told = {one["filename"]: one["artifact_id"] for one in map(json.loads, attrs.values())}
    assert len({len(key) for key in told.values()} | {32}) == 1
    for name, content in (("17.safetensors", b"weights"), ("17.yaml", b"a: 1")):
        with files.open_reader(told[name]) as file:
            assert file.read() == content
    (tmp_path / "17.safetensors").unlink()
    for gone in (told["17.safetensors"], "0" * 32):
        with pytest.raises(ArtifactNotFound, match="is not there"):
            files.open_reader(gone)
    for change in (lambda: files.remove(told["17.yaml"]), lambda: files.write("a", None)):
        with pytest.raises(ReadOnly):
            change()


def test_what_was_read_is_shown_for_a_moment(study: Study) -> None:
    calls = []

    def counted(study: Study, trials: Sequence[Trial]) -> Described:
        calls.append(len(trials))
        return described(study, trials)

    overlay = Overlay(study, counted)
    for _ in range(3):
        overlay.get_all_trials(study.optuna._study_id, deepcopy=False)
        overlay.get_study_system_attrs(study.optuna._study_id)
    assert calls == [3]
    overlay._last = None
    add(study, 0.8, 400.0)
    assert len(overlay.get_all_trials(study.optuna._study_id)) == 4


def test_there_is_no_other_study(study: Study, overlay: Overlay) -> None:
    with pytest.raises(KeyError, match="no study 99"):
        overlay.get_all_trials(99)
    with pytest.raises(KeyError, match="else"):
        overlay.get_study_id_from_name("else")
