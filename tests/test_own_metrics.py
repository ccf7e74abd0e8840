"""Metrics of one's own: registered by a function, measured with every epoch, objectives of a search, told by a study."""

import json
import shlex

import numpy as np
import pytest
import torch

import archtuna as at
import forked
from archtuna import own_metrics
from archtuna.card.reproduction import FILE, commands, search_file
from archtuna.checkpoint import read_header
from archtuna.errors import MetricError, SpecError, StudyError
from archtuna.metrics import Tally
from archtuna.objective import OBJECTIVES, kind_of, objective_of, objectives_of
from archtuna.siblings import is_comparable
from archtuna.spec import Spec, reference_of
from pictures import folder
from studies import make_spec

MODULE = '''
import archtuna as at


@at.metric(best=0.0, worst=1.0)
def worst_error(logits, labels):
    """Share of the pictures of the class that is recognised worst that are taken for another."""
    wrong = logits.argmax(axis=1) != labels
    return max(wrong[labels == c].mean() for c in set(labels.tolist()))
'''

SEARCH = """\
input_size: 16
backbone: [[1, Conv, [4|8, 3, 2]], [1, GlobalAvgPool, []], [1, Flatten, []], [1, Linear, [3]]]
training: {epochs: 2, batch_size: 16}
objectives: [worst_error, params]
search: {trials: 2}
"""


@pytest.fixture(autouse=True)
def forget():
    """Take back what a test registers."""
    before = dict(OBJECTIVES)
    yield
    own_metrics.FUNCTIONS.clear()
    OBJECTIVES.clear()
    OBJECTIVES.update(before)


def spread(logits, labels):
    """How far the logits lie apart. Nothing else."""
    return float(logits.max() - logits.min())


def tallied(logits, labels, classes=3):
    tally = Tally(classes)
    for i in range(0, len(labels), 2):
        tally.add(torch.tensor(logits[i : i + 2]), torch.tensor(labels[i : i + 2]))
    return tally.metrics()


def test_a_metric_sees_all_answers_at_once():
    given = []

    @at.metric(best=1.0, worst=0.0)
    def recall_of_two(logits, labels):
        given.append((logits, labels))
        return (logits.argmax(axis=1) == labels)[labels == 2].mean()

    logits = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    logits[[1, 4], 2] = [9.0, -9.0]
    found = tallied(logits, np.array([0, 2, 1, 0, 2]))
    assert found["recall_of_two"] == 0.5
    assert type(found["recall_of_two"]) is float
    ((seen, labels),) = given
    assert seen.dtype == np.float32
    assert np.array_equal(seen, logits)
    assert labels.tolist() == [0, 2, 1, 0, 2]


def test_the_direction_follows_from_the_two_values():
    at.metric(spread, best=0.0, worst=100.0)
    at.metric(spread, best=100.0, worst=0.0, name="spread_up")
    assert objective_of("spread").direction == "minimize"
    assert objective_of("spread_up").direction == "maximize"
    assert objective_of("spread").meaning == "How far the logits lie apart. Nothing else"
    chosen = objectives_of(["spread", "params"])
    assert reference_of(chosen, 3, (), {"params": 500.0}) == {
        "spread": (0.0, 100.0),
        "params": (0.0, pytest.approx(550.0)),
    }


def test_ours_count_as_they_did():
    found = reference_of(objectives_of(["loss", "f1", "accuracy", "params", "latency_ms"]), 10, (), {"params": 7.0})
    assert found == {
        "loss": (0.0, pytest.approx(2.302585)),
        "f1": (1.0, 0.0),
        "accuracy": (1.0, 0.0),
        "params": (0.0, pytest.approx(7.7)),
    }


@pytest.mark.parametrize(
    "name", ["f1", "params", "float_f1", "n", "split", "two words", "_x", "x" * 41, "größe", "a@b"]
)
def test_names_that_cannot_be(name):
    with pytest.raises(ValueError, match=name if len(name) > 2 else "metric"):
        at.metric(spread, best=1.0, worst=0.0, name=name)
    assert name not in own_metrics.FUNCTIONS


@pytest.mark.parametrize(("best", "worst"), [(1.0, 1.0), (float("inf"), 0.0), (0.0, float("nan"))])
def test_values_that_cannot_be(best, worst):
    with pytest.raises(ValueError, match="two numbers"):
        at.metric(spread, best=best, worst=worst)


def test_a_name_is_one_modules():
    at.metric(spread, best=1.0, worst=0.0, origin="theirs")
    with pytest.raises(ValueError, match="exists already \\(theirs\\)"):
        at.metric(spread, best=1.0, worst=0.0)
    at.metric(spread, best=2.0, worst=0.0, origin="theirs")  # The module was reloaded.
    assert objective_of("spread").best == 2.0


@pytest.mark.parametrize("given", [ZeroDivisionError("oh"), None, "much"])
def test_a_metric_that_fails_ends_its_trial(given):
    @at.metric(best=1.0, worst=0.0)
    def bad(logits, labels):
        if isinstance(given, Exception):
            raise given
        return given

    with pytest.raises(MetricError, match=r"the metric 'bad' fails with \w+Error") as caught:
        tallied(np.zeros((2, 3), np.float32), np.array([0, 1]))
    assert caught.value.reason == "metric"
    assert caught.value.__cause__ is not None


def test_a_metric_that_fails_again_and_again_ends_the_search(tmp_path):
    @at.metric(best=1.0, worst=0.0)
    def broken(logits, labels):
        return labels[10_000]

    (tmp_path / "search.yaml").write_text(SEARCH.replace("worst_error", "broken").replace("4|8", "4..40"))
    given = {"data": str(folder(tmp_path / "p", each=8)), "out": tmp_path / "run", "trials": 7}
    with pytest.raises(
        StudyError, match=r"3 trials failed at the same place: the metric 'broken' fails with IndexError"
    ):
        at.search(tmp_path / "search.yaml", **given)
    trials = at.Study.open(tmp_path / "run").trials()
    assert [trial.state for trial in trials] == ["failed"] * 3
    assert "labels[10_000]" in trials[0].traceback


def test_a_study_can_be_read_where_the_module_is_not():
    at.metric(spread, best=0.0, worst=9.0, origin="theirs")
    plain = make_spec(
        objectives=("spread", "params"), metrics=own_metrics.described(objectives_of(["spread", "params"]))
    ).to_dict()
    own_metrics.FUNCTIONS.clear(), OBJECTIVES.pop("spread")
    with pytest.raises(SpecError, match="unknown objective 'spread'"):
        objective_of("spread")
    spec = Spec.from_dict(json.loads(json.dumps(plain)))
    assert spec.to_dict() == plain
    own_metrics.make_known(spec.metrics)
    assert kind_of("spread") == "quality"
    with pytest.raises(StudyError, match="of the module 'theirs' cannot") as caught:
        own_metrics.require(objectives_of(spec.objectives))
    assert "--import theirs" in str(caught.value)
    assert tallied(np.zeros((2, 3), np.float32), np.array([0, 1])).keys() == {"loss", "accuracy", "f1"}
    # Whoever imports the module later has the same.
    at.metric(spread, best=0.0, worst=9.0, origin="theirs")
    own_metrics.require(objectives_of(Spec.from_dict(plain).objectives))


def test_a_loop_may_yield_what_no_function_measures(tmp_path):
    @at.metric(best=1.0, worst=0.0)
    def counted(logits, labels):
        return len(labels)

    at.metric("smoothness", best=0.0, worst=5.0, meaning="of the edges")
    assert objective_of("smoothness").meaning == "of the edges"
    assert tallied(np.zeros((2, 3), np.float32), np.array([0, 1]))["counted"] == 2.0
    (tmp_path / "search.yaml").write_text(SEARCH.replace("worst_error", "smoothness"))
    given = {"data": str(folder(tmp_path / "p", each=8)), "out": tmp_path / "run"}
    with pytest.raises(StudyError, match="a loop of your own is to yield it: pass evaluator='test_own_metrics:NAME'"):
        at.search(tmp_path / "search.yaml", **given)
    study = at.search(tmp_path / "search.yaml", **given, evaluator=lambda candidate: {"smoothness": 2.5, "other": 1.0})
    assert {trial.values["smoothness"] for trial in study.front()} == {2.5}
    at.metric("smoothness", best=0.0, worst=7.0)
    with pytest.raises(StudyError, match="metrics: here"):
        at.search(tmp_path / "search.yaml", **given, evaluator=lambda candidate: {"smoothness": 2.5})


def test_another_metric_of_the_name_is_refused():
    at.metric(spread, best=0.0, worst=9.0)
    told = own_metrics.described(objectives_of(["spread", "params"]))
    at.metric(spread, best=9.0, worst=0.0)
    with pytest.raises(StudyError, match="'spread' goes from 9 to 0, and is another one here"):
        own_metrics.make_known(told)
    with pytest.raises(StudyError, match="'f1'"):
        own_metrics.make_known({"f1": {**told["spread"], "best": 5.0}})


def test_a_study_elsewhere_with_another_metric_of_the_name_is_no_matter(tmp_path):
    at.metric(spread, best=0.0, worst=9.0)
    mine = make_spec(
        objectives=("spread", "params"), metrics=own_metrics.described(objectives_of(["spread", "params"]))
    )
    at.metric(spread, best=9.0, worst=0.0)
    other = make_spec(
        objectives=("spread", "params"), metrics=own_metrics.described(objectives_of(["spread", "params"]))
    )
    found = [Spec.from_dict(spec.to_dict()) for spec in (mine, other)]
    assert is_comparable(found[0], Spec.from_dict(mine.to_dict()))
    assert not is_comparable(*found)
    # Nor is one whose metric nobody here knows.
    own_metrics.FUNCTIONS.clear(), OBJECTIVES.pop("spread")
    assert not is_comparable(make_spec(), found[0])


def test_studies_from_before_there_were_any_are_read():
    plain = make_spec().to_dict()
    del plain["metrics"]
    assert Spec.from_dict(plain).metrics == {}


def test_a_metric_of_a_script_stays_in_its_process(tmp_path):
    at.metric(spread, best=0.0, worst=9.0, origin="__main__")
    (tmp_path / "search.yaml").write_text(SEARCH.replace("worst_error", "spread"))
    with pytest.raises(StudyError, match="cannot import the metric 'spread' from a script"):
        at.search(tmp_path / "search.yaml", data=str(folder(tmp_path / "p", each=8)), out=tmp_path / "run", workers=2)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_metric_is_an_objective_from_search_to_evaluation(tmp_path, workers):
    (tmp_path / "mine.py").write_text(MODULE)
    (tmp_path / "search.yaml").write_text(SEARCH)
    folder(tmp_path / "photos", each=12)

    def archtuna(*words):
        return forked.archtuna(*words, cwd=tmp_path)

    alone = archtuna("search", "search.yaml", "--data", "photos", "--out", "run")
    assert alone.returncode == 1
    assert "unknown objective 'worst_error'" in alone.stderr
    search = ("search", "search.yaml", "--data", "photos", "--out", "run", "--workers", str(workers))
    done = archtuna(*search, "--import", "mine")
    assert done.returncode == 0, done.stderr
    # Nobody has to import anything to read a study.
    front = json.loads(archtuna("front", "run", "--json").stdout)
    trials = front["trials"] if isinstance(front, dict) else front
    assert trials
    assert all(0.0 <= trial["values"]["worst_error"] <= 1.0 for trial in trials)
    assert "worst_error" in archtuna("status", "run").stdout
    chosen = archtuna("pick", "run", "--best", "worst_error")
    assert chosen.returncode == 0, chosen.stderr
    number = str(trials[0]["number"])
    trained = archtuna("train", "run", number, "--json")
    assert trained.returncode == 1
    assert "--import mine" in trained.stderr
    trained = archtuna("train", "run", number, "--import", "mine", "--json")
    assert trained.returncode == 0, trained.stderr
    assert 0.0 <= json.loads(trained.stdout)["test"]["worst_error"] <= 1.0
    found = archtuna("evaluate", f"run/trained/{number}.safetensors", "--import", "mine")
    assert found.stdout.startswith("loss ")
    assert ", worst_error " in found.stdout
    # The card's own commands bring the metric along.
    header = read_header(tmp_path / f"run/trained/{number}.safetensors")
    (tmp_path / FILE).write_text(search_file(header))
    for line in commands(header).splitlines():
        words = shlex.split(line)
        again = archtuna(*words[words.index("archtuna") + 1 :])
        assert again.returncode == 0, again.stderr
