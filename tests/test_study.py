from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState, create_trial

from archtuna.errors import SpecError, StudyError
from archtuna.objective import limit_of, objectives_of, pareto_ranks
from archtuna.space import SearchSpace
from archtuna.storage import Attr
from archtuna.study import (
    Spec,
    Study,
    check_versions,
    counts_of,
    read_record,
    reference_of,
    space_of,
    state_of,
    trials_to_keep,
    versions,
    with_training,
)
from searches import SPACE


def make_spec(**changes: Any) -> Spec:
    space = SearchSpace.read(SPACE)
    spec = Spec(
        space={"text": space.text, "key": space.key},
        data={"source": "digits", "fingerprint": "f" * 16, "split": {"seed": 0}, "classes": 3, "fit": "resize"},
        training={"epochs": 2},
        objectives=("f1", "params"),
        limits=("params <= 5000",),
        fraction=1.0,
        input_size=None,
        seed=0,
        reference={"f1": (1.0, 0.0), "params": (0.0, 5000.0)},
        versions=versions(),
    )
    return replace(spec, **changes)


def add(study: Study, f1: float | None, params: float, state: TrialState = TrialState.COMPLETE, **attrs: Any) -> int:
    number = len(study.optuna.trials)
    candidate = study.space().candidate({"backbone.0.kernel": (1, 3, 5)[number % 3]})
    kept = {
        Attr.KEY: f"{number:016x}", Attr.COSTS: {"params": params}, Attr.METRICS: {"f1": f1},
        Attr.ARCHITECTURE: json.dumps(candidate.architecture.to_dict()),
    }  # fmt: skip
    values = [f1, params] if state == TrialState.COMPLETE else None
    bound = {"params": params / 5000 - 1}
    study.optuna.add_trial(create_trial(state=state, values=values, user_attrs={**kept, **attrs}, constraints=bound))
    return number


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study.create_or_open(tmp_path / "photos", make_spec())


def test_a_spec_survives_its_record() -> None:
    spec = make_spec(input_size=(32, 64))
    assert Spec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    assert spec.differences(spec) == []


def test_records_that_cannot_be_read() -> None:
    plain = make_spec().to_dict()
    with pytest.raises(StudyError, match="newer archtuna"):
        Spec.from_dict({**plain, "format": 99})
    del plain["limits"]
    with pytest.raises(StudyError, match="lacks 'limits'"):
        Spec.from_dict(plain)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"objectives": ("loss", "params")}, "objectives: here f1,params, there loss,params"),
        ({"limits": ()}, "limits: here params <= 5000, there none"),
        ({"fraction": 0.3}, "fraction: here 1.0, there 0.3"),
        ({"seed": 7}, "seed: here 0, there 7"),
        ({"input_size": (32, 32)}, "input_size: here None, there 32,32"),
        ({"training": {"epochs": 9}}, "training.epochs: here 2, there 9"),
        ({"training": {}}, "training.epochs: here 2, there the file's"),
        (
            {"data": {**make_spec().data, "fingerprint": "e" * 16}},
            f"data.fingerprint: here {'f' * 16}, there {'e' * 16}",
        ),
        ({"data": {**make_spec().data, "split": {"seed": 1}}}, 'data.split: here {"seed": 0}, there {"seed": 1}'),
    ],
)
def test_what_differs_is_named(change: dict[str, Any], line: str) -> None:
    assert make_spec().differences(make_spec(**change)) == [line]


def test_a_search_file_differs_by_its_lines() -> None:
    text = SPACE.replace("8|16|24", "8|16|32")
    other = make_spec(space={"text": text, "key": "0"})
    (line,) = make_spec().differences(other)
    assert (
        line
        == "search file: here - [1, Conv, [8|16|24, 1|3|5, 2, null, 1, ReLU]], there - [1, Conv, [8|16|32, 1|3|5, 2, null, 1, ReLU]]"
    )
    longer = make_spec(space={"text": "\n".join(str(i) for i in range(40)), "key": "0"})
    assert make_spec().differences(longer)[-1].endswith("more lines")


def test_where_data_lies_and_the_reference_do_not_count() -> None:
    moved = make_spec(data={**make_spec().data, "source": "/elsewhere"}, reference={"f1": (1.0, 0.1), "params": (0, 9)})
    assert make_spec().differences(moved) == []


def test_versions_warn_or_refuse() -> None:
    assert check_versions(versions(), versions()) == []
    assert check_versions({"optuna": "5.0.0"}, {"optuna": "5.0.3"}) == []
    assert check_versions({"optuna": "5.0.0"}, {"optuna": "5.1.0"}) == [
        "the study was made with optuna 5.0.0, here is 5.1.0"
    ]
    with pytest.raises(
        StudyError, match=r"made with optuna 4.9.0, here is optuna 5.0.0.*\nhint: pip install 'optuna==4.9.0'"
    ):
        check_versions({"optuna": "4.9.0"}, {"optuna": "5.0.0"})


def test_the_reference_of_the_hypervolume() -> None:
    objectives = objectives_of(("loss", "f1", "accuracy", "params", "macs"))
    found = reference_of(objectives, 6, [limit_of("params <= 500k")], {"params": 1e6, "macs": 2e6, "size_mb": 4.0})
    assert found == {
        "loss": (0.0, math.log(6)), "f1": (1.0, 0.0), "accuracy": (1.0, 0.0), "params": (0.0, 5e5), "macs": (0.0, 2e6),
    }  # fmt: skip


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


def test_the_same_again_opens_it_and_another_is_refused(study: Study, tmp_path: Path) -> None:
    add(study, 0.5, 100)
    again = Study.create_or_open(tmp_path / "photos", make_spec())
    assert len(again.trials()) == 1
    with pytest.raises(
        StudyError,
        match=r"made with something else:\n  training.epochs: here 9, there 2\n  seed: here 1, there 0\nhint: use another --out",
    ):
        Study.create_or_open(tmp_path / "photos", make_spec(training={"epochs": 9}, seed=1))
    with pytest.raises(StudyError, match=r"objectives: here f1, there f1,params"):
        Study.create_or_open(tmp_path / "photos", make_spec(objectives=("f1",)))
    with pytest.raises(StudyError, match=r"objectives: here accuracy,params, there f1,params"):
        Study.create_or_open(tmp_path / "photos", make_spec(objectives=("accuracy", "params")))


def test_another_name_or_storage_for_the_same_folder(study: Study, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="is 'photos', not 'others'"):
        Study.create_or_open(tmp_path / "photos", make_spec(), name="others")
    with pytest.raises(StudyError, match=r"is in its own database, not in sqlite:///.*\nhint: use another --out"):
        Study.create_or_open(tmp_path / "photos", make_spec(), storage=f"sqlite:///{tmp_path}/b.db")


def test_older_versions_warn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Study.create_or_open(tmp_path / "a", make_spec(versions={"optuna": optuna.__version__, "archtuna": "0.0.1"}))
    Study.create_or_open(tmp_path / "a", make_spec(versions={"optuna": optuna.__version__, "archtuna": "0.1.0"}))
    assert "made with archtuna 0.0.1, here is 0.1.0" in caplog.text


def test_opening_for_reading(study: Study, tmp_path: Path) -> None:
    add(study, 0.5, 100)
    with Study.open(tmp_path / "photos") as opened:
        assert opened.spec == study.spec
        assert [t.number for t in opened.front()] == [0]
    with pytest.raises(StudyError, match=r"no study in .*nothing\nhint: archtuna search makes one"):
        Study.open(tmp_path / "nothing")
    (tmp_path / "file").touch()
    with pytest.raises(StudyError, match="is a file, not the folder of a run"):
        Study.open(tmp_path / "file")
    (tmp_path / "photos" / "study.json").write_text("{")
    with pytest.raises(StudyError, match=r"study.json cannot be read"):
        Study.open(tmp_path / "photos")


def test_a_study_that_is_gone_or_not_ours(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/all.db"
    Study.create_or_open(tmp_path / "a", make_spec(), storage=url).close()
    optuna.delete_study(study_name="a", storage=url)
    with pytest.raises(StudyError, match="speaks of a study 'a' that its storage does not have"):
        Study.open(tmp_path / "a")
    foreign = optuna.create_study(study_name="a", storage=url, directions=["maximize", "minimize"])
    foreign.tell(foreign.ask(), [1.0, 2.0])
    with pytest.raises(StudyError, match="was not made by archtuna"):
        Study.open(tmp_path / "a")
    with pytest.raises(StudyError, match="'a' in this storage was not made by archtuna"):
        Study.create_or_open(tmp_path / "a", make_spec(), storage=url)


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


@pytest.mark.parametrize(
    ("state", "outcome", "word"),
    [
        ("COMPLETE", None, "complete"), ("RUNNING", None, "running"), ("WAITING", None, "waiting"), ("PRUNED", None, "stopped"),
        ("PRUNED", "refused", "refused"), ("PRUNED", "failed", "failed"), ("FAIL", None, "failed"),
        ("FAIL", "duplicate", "duplicate"), ("FAIL", "refused", "refused"),
    ],
)  # fmt: skip
def test_states(state: str, outcome: str | None, word: str) -> None:
    attrs = {} if outcome is None else {Attr.OUTCOME: outcome}
    values = [1.0] if state == "COMPLETE" else None
    assert state_of(create_trial(state=TrialState[state], values=values, user_attrs=attrs)) == word


def test_counts_leave_out_what_is_no_outcome() -> None:
    states = ["complete", "complete", "running", "waiting", "duplicate", "failed"]
    assert counts_of(states) == {"complete": 2, "stopped": 0, "refused": 0, "failed": 1}


def test_the_front(study: Study) -> None:
    add(study, 0.9, 3000)  # 0: front
    add(study, 0.5, 100)  # 1: front
    add(study, 0.4, 200)  # 2: dominated by 1
    add(study, 0.95, 6000)  # 3: beyond the limit
    add(study, None, 50, TrialState.PRUNED)  # 4: never trained
    add(study, 0.8, 900)  # 5: front, the knee
    add(study, 0.7, 950, **{Attr.KEY: f"{5:016x}"})  # 6: dominated
    add(study, 0.95, 4000)  # 7: front
    assert [t.number for t in study.front()] == [1, 5, 0, 7]
    assert [t.values["params"] for t in study.front()] == [100, 900, 3000, 4000]
    assert study.knee().number == 5
    assert study.counts() == {"complete": 7, "stopped": 1, "refused": 0, "failed": 0}
    boxes = (0.5, 100, 900), (0.8, 900, 3000), (0.9, 3000, 4000), (0.95, 4000, 5000)
    assert study.hypervolume() == pytest.approx(sum(f1 * (b - a) / 5000 for f1, a, b in boxes))


def test_one_network_is_on_the_front_once(tmp_path: Path) -> None:
    study = Study.create_or_open(
        tmp_path / "b", make_spec(objectives=("f1", "loss"), limits=(), reference={"f1": (1, 0), "loss": (0, 1)})
    )
    for f1, loss in ((0.8, 0.5), (0.7, 0.4)):
        attrs = {Attr.KEY: "k", Attr.COSTS: {}}
        study.optuna.add_trial(create_trial(values=[f1, loss], user_attrs=attrs))
    assert [t.number for t in study.front()] == [0]


def test_a_trial_knows_its_network(study: Study) -> None:
    add(
        study,
        0.5,
        100,
        **{Attr.WORKER: {"host": "here", "pid": 7, "started": 0.0}, Attr.EPOCHS: {"trained": 3, "kept": 2}},
    )
    trial = study.candidate(0)
    assert trial.architecture == study.space().candidate({"backbone.0.kernel": 1}).architecture
    assert (trial.worker, trial.epochs, trial.kept, trial.checkpoint) == ("here:7", 3, 2, None)
    study.optuna.add_trial(create_trial(state=TrialState.FAIL, user_attrs={Attr.REASON: "a bug"}))
    with pytest.raises(StudyError, match=r"trial 1 has no network: it is failed \(a bug\)"):
        study.candidate(1).architecture  # noqa: B018
    with pytest.raises(StudyError, match=r"no trial 9\nhint: the study has trials 0 to 1"):
        study.candidate(9)


def test_checkpoints_are_swept_behind_the_front(study: Study) -> None:
    for f1, params in ((0.5, 100), (0.4, 200), (0.3, 300), (0.2, 400)):
        add(study, f1, params)
    running = study.optuna.ask().number
    study.optuna.add_trial(create_trial(state=TrialState.FAIL))
    for number in range(6):
        study.checkpoint_path(number).write_bytes(b"weights")
    (study.folder / "checkpoints" / ".5.tmp").write_bytes(b"half")
    assert study.sweep(near=1) == [2, 3, 5]
    assert [int(path.stem) for path in study.checkpoints()] == [0, 1, running]
    assert study.candidate(0).checkpoint == study.checkpoint_path(0)
    assert study.candidate(2).checkpoint is None
    assert study.disk(near=1) == {"files": 3, "bytes": 21, "rule": "the front, and the 1 trials nearest behind it"}
    assert study.deserves_checkpoint(7, (0.45, 150), near=1)
    assert not study.deserves_checkpoint(7, (0.1, 500), near=1)


POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=30)


@given(POINTS, st.integers(0, 4), st.integers(1, 30))
def test_keeping_is_safe_on_an_older_view(points: list[tuple[int, int]], near: int, seen: int) -> None:
    """What a worker that saw only the first trials deletes is never on the front of all of them."""
    every = np.array(points, dtype=float)
    older = every[:seen]
    kept = trials_to_keep(older, range(len(older)), near)
    front = {i for i, rank in enumerate(pareto_ranks(every)) if rank == 0}
    assert front & set(range(len(older))) <= kept
    older_front = {i for i, rank in enumerate(pareto_ranks(older)) if rank == 0}
    assert older_front <= kept
    assert len(kept - older_front) <= near


def test_the_nearest_behind_the_front_are_kept() -> None:
    points = np.array([[0, 100.0], [1, 0], [0.1, 110], [1, 90], [2, 200]])
    assert trials_to_keep(points, [10, 11, 12, 13, 14], near=1) == {10, 11, 12}
    assert trials_to_keep(points, [10, 11, 12, 13, 14], near=9) == {10, 11, 12, 13, 14}
    assert trials_to_keep(points[:0], [], near=9) == set()


def test_training_values_beside_the_file() -> None:
    space = with_training(SearchSpace.read(SPACE.replace("epochs: 3", "epochs: 1|3")), {"epochs": 7, "lr": 0.5})
    assert (space.default().recipe.epochs, space.default().recipe.lr) == (7, 0.5)
    assert "training.epochs" not in {choice.name for choice in space.choices}
    with pytest.raises(SpecError, match=r"training.epoch: unknown training value\nhint: did you mean 'epochs'"):
        with_training(space, {"epoch": 1})
    with pytest.raises(SpecError, match=r"training.epochs: must be a whole number"):
        with_training(space, {"epochs": 1.5})


def test_the_space_of_a_study(study: Study) -> None:
    assert study.space().default().recipe.epochs == 2
    assert space_of(make_spec(input_size=(16, 32))).default().architecture.input_size == (16, 32)


@pytest.mark.slow
def test_processes_that_create_one_study_at_once_agree(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from test_study import make_spec\nfrom archtuna.study import Study\n"
        "print(Study.create_or_open(sys.argv[1], make_spec()).spec.seed)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run"), str(Path(__file__).parent)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    ends = [process.communicate(timeout=120) for process in running]
    assert [out.strip() for out, _ in ends] == ["0", "0", "0"], ends
