from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState, create_trial

from archtuna.errors import SpecError, StudyError
from archtuna.objective import pareto_ranks
from archtuna.spec import space_of
from archtuna.storage import Attr
from archtuna.study import Study, trials_to_keep
from studies import add, make_spec, repeat


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study.create_or_open(tmp_path / "photos", make_spec())


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


def test_the_front_carries_means_and_spread_of_the_runs_with_other_seeds(study: Study) -> None:
    add(study, 0.9, 1000)  # 0: lucky
    add(study, 0.85, 2000)  # 1: behind 0 until that falls back
    add(study, 0.5, 100)  # 2: never repeated
    assert [t.number for t in study.front()] == [2, 0]
    assert study.hypervolume() == pytest.approx((0.5 * 900 + 0.9 * 4000) / 5000)
    repeat(study, 0, 0.7, 0.8, 0.75)
    assert [t.number for t in study.front()] == [2, 0, 1]
    assert study.hypervolume() == pytest.approx((0.5 * 900 + 0.75 * 1000 + 0.85 * 3000) / 5000)
    lucky, unlucky, plain = (study.candidate(number) for number in range(3))
    assert lucky.values == {"f1": pytest.approx(0.75), "params": 1000}, (
        "the run that it was chosen by is not in the mean"
    )
    assert lucky.own == {"f1": 0.9, "params": 1000}
    assert (lucky.runs, lucky.repeats, lucky.spread) == (3, 3, {"f1": pytest.approx(0.05)})
    assert [(run.seed, run.metrics) for run in lucky.again] == [(1, {"f1": 0.7}), (2, {"f1": 0.8}), (3, {"f1": 0.75})]
    for trial in (unlucky, plain):
        assert (trial.runs, trial.repeats, trial.spread, trial.values) == (1, 0, None, trial.own)


def test_one_run_has_no_spread_and_failed_ones_no_value(study: Study) -> None:
    for _ in range(3):
        add(study, 0.9, 1000)
    repeat(study, 0, 0.7)
    repeat(study, 1, None, 0.6, 0.8)
    repeat(study, 2, None, None)
    one, some, none = study.trials()
    assert (one.values["f1"], one.runs, one.spread) == (0.7, 1, None)
    assert (some.values["f1"], some.runs, len(some.again)) == (pytest.approx(0.7), 2, 3)
    assert (none.values["f1"], none.runs, none.repeats, len(none.again)) == (0.9, 1, 0, 2)


def test_runs_of_a_deleted_study_of_the_same_name_do_not_count(study: Study) -> None:
    add(study, 0.9, 1000)
    repeat(study, 0, 0.7, conditions="another study")
    assert study.candidate(0).values["f1"] == 0.9
    repeat(study, 0, 0.6)
    assert study.candidate(0).values["f1"] == 0.6


def test_picking(study: Study) -> None:
    with pytest.raises(StudyError, match="the front is empty"):
        study.pick()
    for f1, params in ((0.5, 100), (0.8, 900), (0.9, 3000)):
        add(study, f1, params)
    assert (study.pick().trial.number, study.pick().left, study.pick().front) == (2, 3, 3)
    found = study.pick(max={"params": 1000}, min={"f1": 0.6})
    assert (found.trial.number, found.left, found.why) == (1, 1, "the best f1")
    assert study.pick(best="params").trial.number == 0
    assert study.pick(knee=True).trial == study.knee() == study.candidate(1)
    with pytest.raises(StudyError, match=r"keeps params <= 50\nhint: the nearest is trial 0: f1 0.5, params 100"):
        study.pick(max={"params": 50})
    with pytest.raises(SpecError, match="max: 'macs' cannot be asked for"):
        study.pick(max={"macs": 50})


def test_the_smallest_within_one_standard_error_needs_runs_or_the_number_of_pictures(tmp_path: Path) -> None:
    for name, validation in (("old", {}), ("new", {"validation": 36})):
        study = Study.create_or_open(tmp_path / name, make_spec(data={**make_spec().data, **validation}))
        add(study, 0.86, 100)
        add(study, 0.9, 1000)
    assert study.pick(within_one_se=True).trial.number == 0, "one standard error of 36 pictures is .05"
    repeat(study, 1, 0.9, 0.91)
    assert study.pick(within_one_se=True).trial.number == 1, "and that of its two runs .005"
    with (
        Study.open(tmp_path / "old") as old,
        pytest.raises(StudyError, match="f1 is not known: .*\nhint: archtuna repeat"),
    ):
        old.pick(within_one_se=True)


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
        study.artifacts.weights(number).write_bytes(b"weights")
    (study.folder / "checkpoints" / ".5.tmp").write_bytes(b"half")
    assert study.sweep(near=1) == [2, 3, 5]
    assert sorted(study.artifacts.kept()) == [0, 1, running]
    assert study.candidate(0).checkpoint == study.artifacts.weights(0)
    assert study.candidate(2).checkpoint is None
    assert study.disk(near=1) == {"files": 3, "bytes": 21, "rule": "the front, and the 1 trial nearest behind it"}
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


def test_the_space_of_a_study(study: Study) -> None:
    assert study.space().default().recipe.epochs == 2
    assert space_of(make_spec(input_size=(16, 32))).default().architecture.input_size == (16, 32)


@pytest.mark.slow
def test_processes_that_create_one_study_at_once_agree(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from studies import make_spec\nfrom archtuna.study import Study\n"
        "print(Study.create_or_open(sys.argv[1], make_spec()).spec.seed)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run"), str(Path(__file__).parent)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    ends = [process.communicate(timeout=120) for process in running]
    assert [out.strip() for out, _ in ends] == ["0", "0", "0"], ends
