from __future__ import annotations

import json
import logging
import random
import threading
import time
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from optuna.trial import TrialState

from archtuna import checkpoint
from archtuna.costs import costs_of
from archtuna.data import Batches, Preprocess
from archtuna.driver import default_side, join, repeat, search
from archtuna.errors import DataError, ShapeError, SpecError, StudyError
from archtuna.evaluate import EVALUATION_BATCH
from archtuna.leases import take, this_worker
from archtuna.orders import Orders
from archtuna.page.origin import commands_of
from archtuna.schedule import Schedule
from archtuna.screen import first_candidates
from archtuna.space import SearchSpace
from archtuna.storage import Attr
from archtuna.study import Study
from archtuna.training import evaluate_batches
from data_pictures import class_folders
from postgres import PASSWORD, Server, server  # noqa: F401
from searches import SPACE, TWO, arguments, instant, pictures


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHTUNA_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("ARCHTUNA_STORAGE", raising=False)


def recorded(folder: Path, **changes: Any) -> tuple[Study, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    study = search(**arguments(folder, on_event=events.append, **changes))
    return study, events


@pytest.mark.parametrize(
    ("native", "side"),
    [((8, 8), 32), ((32, 32), 32), ((33, 20), 64), ((96, 100), 128), ((384, 512), 224), ((224, 224), 224)],
)
def test_the_default_input_size(native: tuple[int, int], side: int) -> None:
    assert default_side(native) == side


def test_what_is_left_out_has_defaults(tmp_path: Path) -> None:
    text = TWO.replace("input_size: 8\n", "")
    study = search(text, pictures(tmp_path), out=tmp_path / "run", evaluator=instant, trials=1)
    assert study.spec.objectives == ("f1", "params")
    assert study.spec.input_size == (32, 32)
    assert study.spec.seed == 0
    assert study.spec.reference == {"f1": (1.0, 0.0), "params": (0.0, pytest.approx(1.1 * 227))}


def test_a_limit_that_is_given_stands_beside_the_files_or_replaces_the_one_on_its_cost(tmp_path: Path) -> None:
    text = TWO + "limits: [params <= 500, macs <= 60k]\n"
    given = {"evaluator": instant, "trials": 1}
    for name, limits, wanted in (
        ("none", None, ["params <= 500", "macs <= 60000"]),
        ("beside", ["size_mb <= 9"], ["params <= 500", "macs <= 60000", "size_mb <= 9"]),
        ("instead", ["params <= 400"], ["macs <= 60000", "params <= 400"]),
    ):
        study = search(text, pictures(tmp_path), out=tmp_path / name, limits=limits, **given)
        assert list(study.spec.limits) == wanted


@pytest.mark.parametrize("inside", ["", "run", "deep/er/run"])
def test_a_run_among_the_pictures_is_refused_before_anything_is_written(tmp_path: Path, inside: str) -> None:
    root = class_folders(tmp_path / "set", each=4)
    before = sorted(root.rglob("*"))
    with pytest.raises(
        StudyError, match=r"lies among the pictures, and would be taken for a class of them\nhint: .*--out"
    ):
        search(TWO, root, out=root / inside, evaluator=instant, trials=1)
    assert sorted(root.rglob("*")) == before


def test_a_cost_counts_also_where_all_networks_have_the_same(tmp_path: Path) -> None:
    text = TWO.replace("8|16", "8").replace("{epochs: 3", "{lr: 0.001|0.01|0.1, epochs: 3")
    study = search(text, pictures(tmp_path), out=tmp_path / "run", evaluator=instant, trials=3)
    assert study.counts()["complete"] == 3
    assert study.hypervolume() > 0


def test_what_counts_of_a_cost_is_more_than_that_of_most_parameters(tmp_path: Path) -> None:
    """Of two networks the one of fewer parameters has the larger maps, and so the larger peak."""
    text = """\
input_size: 16
backbone: [[1, Conv, [32|8, 3, 2]], [1, Conv, [8|64, 3]], [1, GlobalAvgPool, []], [1, Flatten, []], [1, Linear, [3]]]
training: {epochs: 1}
"""
    given = {"evaluator": instant, "trials": 1, "objectives": ["f1", "peak_memory_mb"]}
    study = search(text, pictures(tmp_path), out=tmp_path / "run", **given)
    space, draws = study.space(), random.Random(1)
    peaks = [costs_of(space.random(draws).architecture)["peak_memory_mb"] for _ in range(20)]
    assert max(peaks) < study.spec.reference["peak_memory_mb"][1]


def test_a_screened_search_begins_with_what_scores_best_and_screens_once(tmp_path: Path) -> None:
    study, _ = recorded(tmp_path, screen="macs", trials=6)
    space = SearchSpace.read(SPACE)
    wanted = first_candidates(space, "macs", 5)
    found = [study.candidate(n).architecture for n in range(6)]
    assert found == [candidate.architecture for candidate in wanted]
    assert found[0] == space.default().architecture
    again, _ = recorded(tmp_path, screen="macs", trials=8)
    assert again.counts()["complete"] == 8
    assert [t.state for t in again.trials()] == ["complete"] * 8
    later, _ = recorded(tmp_path, trials=9)
    assert " --screen macs " in commands_of(later)["search"] + " "


def test_a_screen_is_off_unless_the_file_or_the_caller_says_so(tmp_path: Path) -> None:
    plain, _ = recorded(tmp_path, trials=3)
    screened, _ = recorded(tmp_path, out=tmp_path / "screened", space=SPACE + "search: {screen: macs}\n", trials=3)
    networks = [[study.candidate(n).key for n in range(3)] for study in (plain, screened)]
    assert networks[0][0] == networks[1][0]
    assert networks[0] != networks[1]
    assert "--screen" not in commands_of(plain)["search"]
    with pytest.raises(StudyError, match="unknown screen 'naswood'\nhint: did you mean 'naswot'"):
        recorded(tmp_path, out=tmp_path / "other", screen="naswood")


@pytest.mark.parametrize(
    ("section", "given", "schedule"),
    [
        ("", None, Schedule()), ("stopping: false", None, Schedule(off=True)), ("first_rung: 2", None, Schedule(first=2)),
        ("first_rung: 2", False, Schedule(first=2, off=True)), ("stopping: false", True, Schedule()),
        ("stopping: false", Schedule(factor=3.0), Schedule(factor=3.0)),
    ],
)  # fmt: skip
def test_early_stopping_as_given_as_in_the_file_or_on(
    tmp_path: Path, section: str, given: Any, schedule: Schedule
) -> None:
    space = f"{SPACE}search: {{{section}}}\n"
    study = search(space, pictures(tmp_path), out=tmp_path / "run", evaluator=instant, trials=1, stopping=given)
    with study, Study.open(tmp_path / "run") as opened:
        assert opened.spec.schedule == schedule


def test_the_run_is_named_after_the_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = Path(pictures(tmp_path))
    study = search(TWO, source, evaluator=instant, trials=1)
    assert study.folder == Path("runs") / source.stem
    assert (tmp_path / study.folder / "study.json").exists()


def test_the_files_sections_count_and_arguments_more(tmp_path: Path) -> None:
    text = SPACE + (
        f"data: {{path: {pictures(tmp_path)}, val: 0.2, fraction: 0.5}}\n"
        "objectives: [loss, macs]\nlimits: [macs <= 60k]\nsearch: {trials: 2, seed: 5}\n"
    )
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    study = search(path, out=tmp_path / "a", evaluator=instant)
    assert study.counts()["complete"] == 2
    assert (study.spec.objectives, study.spec.limits, study.spec.seed) == (("loss", "macs"), ("macs <= 60000",), 5)
    assert study.spec.fraction == 0.5
    assert study.spec.reference["macs"] == (0.0, 60_000.0)
    assert (tmp_path / "a" / "search.yaml").read_text() == text
    study = search(
        path, out=tmp_path / "b", evaluator=instant, trials=1, objectives=["f1"], limits=[], seed=1, fraction=1.0, epochs=9,
        input_size=(8, 16), training={"lr": 0.5},
    )  # fmt: skip
    assert (study.spec.objectives, study.spec.limits, study.spec.seed, study.spec.fraction) == (("f1",), (), 1, 1.0)
    assert study.spec.training == {"lr": 0.5, "epochs": 9}
    assert study.candidate(0).architecture.input_size == (8, 16)
    assert (study.candidate(0).recipe["lr"], study.candidate(0).recipe["epochs"]) == (0.5, 9)


def test_a_space_that_was_given_another_size_keeps_it_in_every_worker(tmp_path: Path) -> None:
    for name, text in (("a", TWO), ("b", TWO.replace("input_size: 8\n", ""))):
        study, _ = recorded(tmp_path, space=SearchSpace.read(text, input_size=16), out=tmp_path / name, trials=1)
        assert study.spec.input_size == (16, 16)
        assert (
            study.candidate(0).architecture.input_size
            == Study.open(tmp_path / name).space().input_sizes()[0]
            == (16, 16)
        )
    study, _ = recorded(tmp_path, space=SearchSpace.read(TWO), out=tmp_path / "c", trials=1)
    assert study.spec.input_size is None


def test_one_objective(tmp_path: Path) -> None:
    study, _ = recorded(tmp_path, objectives=["accuracy"], trials=12)
    assert len(study.front()) >= 1
    assert study.hypervolume() == pytest.approx(max(t.values["accuracy"] for t in study.trials()))


def test_arguments_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"no pictures are named\nhint: give a folder"):
        recorded(tmp_path, data=None)
    with pytest.raises(SpecError, match="unknown objective 'f2'"):
        recorded(tmp_path, objectives=["f2"])
    with pytest.raises(SpecError, match="'params >= 3' : only <=|only <= can be"):
        recorded(tmp_path, limits=["params >= 3"])
    with pytest.raises(StudyError, match="unknown sampler 'tep'\nhint: did you mean 'tpe'"):
        recorded(tmp_path, sampler="tep")
    with pytest.raises(StudyError, match="0 trials"):
        recorded(tmp_path / "..", out=tmp_path / "zero", trials=0)
    with pytest.raises(StudyError, match="-1 workers"):
        recorded(tmp_path, workers=-1)
    with pytest.raises(StudyError, match=r"cannot share an evaluator object\nhint: pass it as 'module:name'"):
        recorded(tmp_path, workers=2)
    with pytest.raises(StudyError, match="cannot share a storage object"):
        recorded(tmp_path, workers=2, evaluator="searches:instant", storage=optuna.storages.InMemoryStorage())


def test_a_space_for_other_classes_is_said_before_any_trial(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match="ends in 7 values, and the pictures have 3 classes"):
        recorded(tmp_path, space=TWO.replace("Linear, [3]", "Linear, [7]"))
    assert not (tmp_path / "run").exists()


def test_a_default_that_vanishes_is_no_mistake_while_others_build(tmp_path: Path) -> None:
    text = TWO.replace("backbone:\n", "backbone:\n  - [4|1, MaxPool, [2]]\n")
    study, _ = recorded(tmp_path, space=text, trials=2)
    assert study.counts()["complete"] == 2


def test_other_data_is_refused(tmp_path: Path) -> None:
    recorded(tmp_path)
    with pytest.raises(StudyError, match=r"made with something else:\n  data.fingerprint: here \w+, there \w+"):
        recorded(tmp_path, data=pictures(tmp_path / "run", 90))


def test_a_sampler_and_a_storage_of_ones_own(tmp_path: Path) -> None:
    mine, storage = optuna.samplers.NSGAIISampler(population_size=4, seed=0), optuna.storages.InMemoryStorage()
    study, _ = recorded(tmp_path, sampler=mine, storage=storage, trials=10)
    assert study.optuna.sampler is mine
    assert study.optuna._storage is storage
    assert study.counts()["complete"] == 10
    with pytest.raises(StudyError, match="an Optuna storage object"):
        Study.open(tmp_path / "run")
    assert Study.open(tmp_path / "run", storage=storage).counts()["complete"] == 10


def test_the_environments_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHTUNA_STORAGE", f"sqlite:///{tmp_path}/shared.db")
    _, events = recorded(tmp_path, trials=2)
    assert (tmp_path / "shared.db").exists()
    assert not (tmp_path / "run" / "study.db").exists()
    assert events[0]["storage"] == f"sqlite:///{tmp_path}/shared.db"
    monkeypatch.delenv("ARCHTUNA_STORAGE")
    assert recorded(tmp_path, trials=3)[0].counts()["complete"] == 3


def test_events_are_plain_data(tmp_path: Path) -> None:
    _, events = recorded(tmp_path, limits=["params <= 2k"])
    for event in events:
        assert json.loads(json.dumps(event)) == event
    start = events[0]
    assert start["objectives"] == {"f1": "maximize", "params": "minimize"}
    assert start["limits"] == ["params <= 2000"]
    assert (start["trials"], start["time"], start["workers"], start["space_size"]) == (6, None, 1, 225)
    assert start["pictures"]["classes"] == 3


def evaluated(study: Study, path: Path) -> dict[str, float]:
    data = study.data()
    preprocess = Preprocess.from_dict(checkpoint.read_header(path).preprocess)
    images = data.images(preprocess.size, channels=preprocess.channels, fit=preprocess.fit, via=preprocess.via)
    batches = Batches(images, study.split(data).val, preprocess, batch_size=EVALUATION_BATCH)
    return evaluate_batches(checkpoint.load(path), batches, classes=3, device="cpu")


def test_real_training_keeps_the_fronts_checkpoints(tmp_path: Path) -> None:
    study, events = recorded(
        tmp_path, evaluator=None, trials=6, near=1, input_size=8, objectives=["loss", "f1", "params"]
    )
    front = study.front()
    assert all(trial.checkpoint is not None for trial in front)
    assert len(study.artifacts.kept()) <= len(front) + 1
    for trial in front:
        assert trial.checkpoint is not None
        assert evaluated(study, trial.checkpoint) == pytest.approx(trial.metrics, abs=1e-6)
        header = checkpoint.read_header(trial.checkpoint)
        assert header.architecture == trial.architecture
        assert header.trial == {"study": "run", "number": trial.number, "values": trial.values}
    assert events[-1]["disk"]["files"] == len(study.artifacts.kept())


# several workers


@pytest.mark.slow
def test_two_workers_do_exactly_what_is_wanted_and_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    monkeypatch.setenv("ARCHTUNA_TEST_MARK", str(marks))
    study, events = recorded(tmp_path, evaluator="searches:noting", workers=2, trials=40, limits=["params <= 4k"])
    done = [trial for trial in study.trials() if trial.state == "complete"]
    assert len(done) == study.counts()["complete"] == 40
    assert len({trial.key for trial in done}) == len(list(marks.iterdir())) == 40
    assert len({trial.worker for trial in done}) == 2
    assert not study.optuna.get_trials(states=(TrialState.RUNNING, TrialState.WAITING))
    assert {event["state"] for event in events if event["event"] == "worker"} == {"alive", "done"}
    assert {event.get("worker") for event in events if event["event"] == "complete"} == {0, 1}
    assert events[-1]["reason"] == "trials"


@pytest.mark.slow
def test_a_worker_that_dies_is_reported_and_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHTUNA_TEST_MARK", str(tmp_path / "mark"))
    study, events = recorded(tmp_path, evaluator="searches:once_suicidal", workers=2, trials=8)
    (dead,) = [event for event in events if event["event"] == "worker" and event["state"] == "dead"]
    assert dead["code"] == -9
    assert study.counts() == {"complete": 8, "stopped": 0, "refused": 0, "failed": 0}
    deaths = [t.user_attrs.get(Attr.DEATHS) for t in study.optuna.trials if Attr.DEATHS in t.user_attrs]
    assert deaths == [{"count": 1, "began": 0}]


@pytest.mark.slow
def test_workers_that_keep_dying_end_the_search(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"workers keep dying: exit code -9"):
        recorded(tmp_path, evaluator="searches:suicidal", workers=2)
    states = [t.state for t in Study.open(tmp_path / "run").trials()]
    assert "running" not in states


@pytest.mark.slow
def test_a_workers_error_is_the_searchs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(StudyError, match=r"[34] trials failed at the same place: KeyError"):
        recorded(tmp_path, evaluator="searches:buggy", workers=2)


@pytest.mark.slow
def test_postgresql_with_a_password_that_shows_nowhere(
    server: Server,  # noqa: F811
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "archtuna")
    titles: set[str] = set()
    running = True

    def watch() -> None:
        while running:
            for process in psutil.Process().children(recursive=True):
                try:
                    titles.add(" ".join(process.cmdline()))
                except psutil.Error:
                    continue
            time.sleep(0.1)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        study, events = recorded(
            tmp_path, evaluator="searches:instant", workers=2, trials=10, storage=server.url(), name="nets"
        )
    finally:
        running = False
        thread.join()
    assert study.counts()["complete"] == 10
    assert any("archtuna.serving" in title for title in titles)
    attrs = [study.optuna.user_attrs, *(t.user_attrs for t in study.optuna.trials)]
    out, err = capfd.readouterr()
    shown = [*titles, json.dumps(events), caplog.text, json.dumps(attrs), out, err, repr(study)]
    files = [path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()]
    coded = server.url().split(":")[2].split("@")[0]
    for secret in (PASSWORD, coded):
        assert not any(secret in text for text in shown)
        assert not any(secret.encode() in content for content in files)
    with pytest.raises(
        StudyError, match=r"postgresql://postgres:\*\*\*@127.0.0.1:\d+/postgres, and its password is not written"
    ):
        Study.open(tmp_path / "run")
    assert Study.open(tmp_path / "run", storage=server.url()).counts()["complete"] == 10
    # Another machine joins by the name; here, another folder.
    again = search(**arguments(tmp_path, out=tmp_path / "elsewhere", storage=server.url(), name="nets", trials=11))
    assert again.counts()["complete"] == 11


@pytest.mark.slow
def test_a_result_outlives_a_restart_of_the_database(server: Server, tmp_path: Path) -> None:  # noqa: F811
    calls: list[int] = []

    def restarting(candidate: Any) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 2:
            server.stop()
            threading.Timer(1.5, server.start).start()
        return instant(candidate)

    study, _ = recorded(tmp_path, evaluator=restarting, trials=4, storage=server.url(), name="restarted")
    assert [t.state for t in study.trials()] == ["complete"] * 4
    assert len(calls) == 4


# joining a search that was begun elsewhere


def created(folder: Path, **changes: Any) -> str:
    """Make a study without working on it, and return where it is."""
    url = f"sqlite:///{folder / 'shared.db'}"
    given = {"storage": url, "name": "nets", "workers": 0, **changes}
    with search(**arguments(folder, **given)) as study:
        assert study.counts()["complete"] == 0
    return url


def test_a_worker_joins_with_a_name_alone(tmp_path: Path) -> None:
    url, events = created(tmp_path, trials=5, sampler="random"), []
    study = join("nets", storage=url, evaluator=instant, on_event=events.append, linger=False)
    assert study.folder == (tmp_path / "run").resolve()
    assert study.counts()["complete"] == 5
    assert (events[0]["event"], events[0]["trials"], events[-1]["reason"]) == ("start", 5, "trials")
    assert join("nets", storage=url, evaluator=instant).counts()["complete"] == 5


def test_a_worker_elsewhere_names_its_pictures_and_its_folder(tmp_path: Path) -> None:
    url = created(tmp_path)
    there = tmp_path / "there"
    there.mkdir()
    Path(tmp_path / "pictures.npz").rename(there / "mine.npz")
    (tmp_path / "run" / "study.json").unlink()
    with pytest.raises(StudyError, match=r"the folder of the study 'nets' .*is not on this machine\nhint: .*--out"):
        join("nets", storage=url, data=str(there / "mine.npz"), evaluator=instant)
    study = join("nets", storage=url, data=str(there / "mine.npz"), out=there / "run", evaluator=instant)
    assert study.counts()["complete"] == 6
    assert Study.open(there / "run").name == "nets"


def test_a_worker_with_other_pictures_is_refused(tmp_path: Path) -> None:
    url = created(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(DataError, match="pictures"):
        join("nets", storage=url, data=pictures(other, 90), evaluator=instant)


def test_a_study_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = created(tmp_path)
    with pytest.raises(StudyError, match=r"no study 'netz' in sqlite.*\nhint: did you mean 'nets'"):
        join("netz", storage=url)
    with pytest.raises(StudyError, match="no storage is named"):
        join("nets")
    monkeypatch.setenv("ARCHTUNA_STORAGE", url)
    assert join("nets", evaluator=instant).counts()["complete"] == 6


def test_a_worker_stays_for_the_trials_of_others_and_goes_on_with_them(tmp_path: Path) -> None:
    url, events = created(tmp_path, trials=3, lease=0.6), []
    with Study.named("nets", storage=url) as study:
        study.optuna.enqueue_trial({"backbone.0.kernel": 5})
        gone = {"host": "elsewhere", "pid": 1, "started": 0.0}
        assert take(study.optuna, study.optuna.get_trials(), gone, 0.6) is not None
    study = join("nets", storage=url, evaluator=instant, on_event=events.append)
    assert [trial.state for trial in study.trials()] == ["complete"] * 3
    (taken,) = [event for event in events if event["event"] == "taken-away"]
    assert (taken["number"], taken["from"], taken["state"]) == (0, "elsewhere:1", "waiting")
    assert study.candidate(0).decisions["backbone.0.kernel"] == 5


def test_a_worker_waits_for_orders_and_does_not_work_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search is screening networks, or has died while it did."""
    url = created(tmp_path, trials=3)
    with Study.named("nets", storage=url) as study:
        orders = study.optuna.user_attrs[Attr.ORDERS]
        study.optuna.set_user_attr(Attr.ORDERS, None)
        with monkeypatch.context() as patched:
            patched.setattr("archtuna.driver.ORDERS_PATIENCE", 0.0)
            with pytest.raises(StudyError, match="'nets' has no orders yet\nhint: start its search again"):
                join("nets", storage=url, evaluator=instant)
        assert study.optuna.get_trials() == []
        late = threading.Timer(0.3, study.optuna.set_user_attr, (Attr.ORDERS, orders))
        late.start()
        assert join("nets", storage=url, evaluator=instant).counts()["complete"] == 3
        late.join()


def test_a_worker_that_joins_while_networks_are_screened_finds_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def screening(*given: Any, **named: Any) -> list[Any]:
        with Study.open(tmp_path / "run") as study:
            seen.append((study.optuna.user_attrs[Attr.FOLDERS], study.optuna.user_attrs.get(Attr.ORDERS)))
        return []

    monkeypatch.setattr("archtuna.screen.first_candidates", screening)
    recorded(tmp_path, screen="macs", trials=1)
    assert seen == [([str((tmp_path / "run").resolve())], None)]


def test_what_ran_before_the_machine_was_started_again_is_gone_on_with(tmp_path: Path) -> None:
    study, _ = recorded(tmp_path, trials=2, lease=0.6)
    study.optuna.enqueue_trial({"backbone.0.kernel": 5})
    gone = {**this_worker(), "boot": "the one before"}
    assert take(study.optuna, study.optuna.get_trials(states=(TrialState.WAITING,)), gone, 0.6) is not None
    study, events = recorded(tmp_path, trials=3, lease=0.6)
    assert [trial.state for trial in study.trials()] == ["complete"] * 3
    assert [event["number"] for event in events if event["event"] == "taken-away"] == [2]


def test_the_time_of_a_search_is_not_that_of_its_repeats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr("archtuna.driver._repeat", lambda *given: told.append(given) or "repeats")
    recorded(tmp_path, trials=2, time=60, repeats=1)
    assert [orders.deadline for given in told for orders in given if isinstance(orders, Orders)] == [None]


def test_what_a_search_keeps_is_kept_by_what_follows(tmp_path: Path) -> None:
    study, _ = recorded(tmp_path, trials=20, near=15)
    for number in range(20):
        study.artifacts.weights(number).write_bytes(b"12345")
    kept = set(study.artifacts.kept()) - set(study.sweep(15))
    assert len(kept) > len(study.front()) + 10
    repeat(study.folder, seeds=1, evaluator=instant)
    assert set(study.artifacts.kept()) >= kept
    assert study.garbage() == []
    assert study.disk()["rule"] == "the front, and the 15 trials nearest behind it"
    again, _ = recorded(tmp_path, trials=21)
    assert set(again.artifacts.kept()) >= kept - {20}
    assert again.near == 15


def test_garbage_is_told_and_what_is_needed_is_not(tmp_path: Path) -> None:
    study, _ = recorded(tmp_path, trials=4)
    artifacts = study.artifacts
    for path in (artifacts.weights(99), artifacts.staged(0, 3), artifacts.point(1, 1), artifacts.point(99, 1)):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"12345")
    study.optuna.enqueue_trial({"backbone.0.kernel": 5})
    for number in (1, 2):
        artifacts.point(4, number).write_bytes(b"12345")
    found = {one.path.name: (one.bytes, one.why) for one in study.garbage()}
    assert found == {
        "99.safetensors": (5, "weights of a trial that the study does not have"),
        ".0-3.safetensors": (5, "unfinished weights of a trial that has ended"),
        "1-1.pt": (5, "a point to go on from of a trial that has ended"),
        "99-1.pt": (5, "a point to go on from of a trial that has ended"),
        "4-1.pt": (5, "a point to go on from of a worker that has lost the trial"),
    }


@pytest.mark.slow
def test_a_password_may_stand_in_pgpass(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    secret = tmp_path / "pgpass"
    secret.write_text(f"127.0.0.1:{server.port}:*:postgres:{PASSWORD}\n")
    secret.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(secret))
    url = f"postgresql://postgres@127.0.0.1:{server.port}/postgres"
    study, _ = recorded(tmp_path, evaluator="searches:instant", workers=2, trials=4, storage=url, name="pgpass")
    assert study.counts()["complete"] == 4
    with Study.open(tmp_path / "run") as again:
        assert len(again.trials()) >= 4
