"""What ``benchmarks/classic.py`` counts, and that it runs."""

import json
import math
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import archtuna as at
from archtuna import Recipe
from pictures import folder

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="the benchmarks are not in a source distribution")


@pytest.fixture
def report(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import classic_report

    return classic_report


@pytest.fixture
def ours(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import classic_ours

    return classic_ours


NETWORKS = {
    "small": {"params": 100, "test": {"f1": 0.5}},
    "large": {"params": 500, "test": {"f1": 0.8}},
    "lucky": {"params": 500, "test": {"f1": 0.4}},
}


def run_of(arm, trials, *, seed=0, seconds=100.0, **counts):
    return {"arm": arm, "seed": seed, "seconds": seconds, "others": 0.0, "counts": counts, "trials": trials}


def record_of(*runs):
    pictures = {"train": 70, "val": 15, "test": 15}
    settings = {
        "data": "made-up", "pictures": pictures, "classes": 6, "size": 32, "epochs": 8, "trials": 3, "classic_time": 100,
        "time": 40, "limit": 1000, "largest": 2000,
    }  # fmt: skip
    return {"settings": settings, "machine": {}, "runs": list(runs), "networks": NETWORKS}


CLASSIC = run_of("classic", [[30.0, "small", 0.6, 100], [90.0, "large", 0.7, 500]], complete=2)
OURS = run_of("ours", [[8.0, "small", 0.6, 100], [15.0, "large", 0.9, 500]], seconds=40.0, complete=2, stopped=5)


def test_the_front_is_by_the_runs_own_record_and_its_worth_by_the_training_that_is_the_same_for_all(report):
    steps = report.curve(CLASSIC, NETWORKS, limit=1000)
    assert [at for at, _ in steps] == [30.0, 90.0]
    # Small covers F1 .5 × nine tenths of the parameters; large adds F1 .5 to .8 × one half.
    np.testing.assert_allclose([value for _, value in steps], [0.45, 0.45 + 0.3 * 0.5])


def test_a_network_that_only_looked_good_takes_the_place_of_a_better_one(report):
    run = run_of("classic", [[1.0, "large", 0.7, 500], [2.0, "lucky", 0.9, 500]])
    assert [keys for _, keys in report.fronts(run)] == [["large"], ["lucky"]]
    np.testing.assert_allclose([v for _, v in report.curve(run, NETWORKS, 1000)], [0.8 * 0.5, 0.4 * 0.5])
    assert report.ever_on_front(run) == {"large", "lucky"}


def test_a_network_above_the_limit_counts_nothing(report):
    assert report.curve(run_of("classic", [[1.0, "large", 0.7, 500]]), NETWORKS, limit=400) == [(1.0, 0.0)]


def test_reaching_is_the_first_time_and_holding_the_last(report):
    steps = [(1.0, 0.1), (2.0, 0.5), (3.0, 0.4), (4.0, 0.6)]
    assert report.reached(steps, 0.5) == 2.0
    assert report.held(steps, 0.5) == 4.0
    assert report.reached(steps, 0.7) == report.held(steps, 0.7) == math.inf
    assert [report.value_at(steps, at) for at in (0.5, 2.5, 9.0)] == [0.0, 0.5, 0.6]


def test_the_verdict_is_the_median_share_against_the_bar(report):
    assert "after 0.15 of its time** (median, n = 1 seeds); the bar of 0.2 is met" in report.table(
        record_of(CLASSIC, OURS), ""
    )
    slow = {**OURS, "trials": [[at + 10, *rest] for at, *rest in OURS["trials"]]}
    assert "after 0.25 of its time** (median, n = 1 seeds); the bar of 0.2 is missed" in report.table(
        record_of(CLASSIC, slow), ""
    )
    never = {**OURS, "trials": OURS["trials"][:1]}
    assert "after > 0.40 of its time** (median, n = 1 seeds); the bar of 0.2 is missed" in report.table(
        record_of(CLASSIC, never), ""
    )


def test_a_search_that_trained_nothing_in_its_time_is_reported(report):
    record = record_of(CLASSIC, {**OURS, "trials": []})
    assert "after > 0.40 of its time**" in report.table(record, "")
    ElementTree.fromstring(report.picture(record))


def test_the_table_has_a_line_for_each_way_and_the_picture_is_xml(report):
    runs = (run_of("no-loader", [], seconds=40.0), run_of("ours", [[1.0, "small", 0.6, 100]], seed=7))
    record = record_of(CLASSIC, OURS, *runs)
    text = report.table(record, "conditions")
    assert [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ") and "**" in line] == [
        "| classic", "| ours", "| no-loader",
    ]  # fmt: skip
    words = [element.text for element in ElementTree.fromstring(report.picture(record)).iter() if element.text]
    assert {"ours", "no loader", "seconds"} <= set(words)


def test_each_part_can_be_switched_off(ours):
    for part in ours.PARTS:
        reason = ours.missing([part])
        assert reason is None or (part, reason) == ("stopping", "the search has no argument 'stopping'")
    assert ours.arguments_of([], 0) == {"workers": 2}
    assert ours.arguments_of(["workers"], 0) == {"workers": 1}
    assert ours.arguments_of(["loader"], 0)["evaluator"] == "classic_ours:evaluator"


def test_without_dedup_a_space_of_two_networks_is_gone_through_again_and_again(ours, tmp_path, monkeypatch):
    rows = "[[1, Conv, [8|16, 3]], [1, GlobalAvgPool, []], [1, Flatten, []], [1, Linear, [10]]]"
    space = f"input_channel: 1\ninput_size: 8\nbackbone: {rows}\n"

    def trained(name):
        run = at.search(space, "digits", out=tmp_path / name, trials=5, evaluator=lambda _: {"f1": 0.5, "loss": 1.0})
        return run.counts()["complete"]

    assert trained("with") == 2
    monkeypatch.setattr(Recipe, "key", Recipe.key)  # Put back at the end.
    ours.recognise_nothing()
    assert trained("without") == 5


@pytest.mark.slow
def test_the_benchmark_runs_from_pictures_to_report(tmp_path):
    photos = folder(tmp_path / "photos")
    results = tmp_path / "results" / "classic.json"
    command = [sys.executable, str(BENCHMARKS / "classic.py"), str(photos), "--seed", "3"]
    command += ["--arm", "classic", "ours", "--epochs", "1", "--trials", "1", "--time", "2"]
    command += ["--results", str(results), "--work", str(tmp_path / "work"), "--jobs", "1", "--report"]
    for _ in range(2):  # The second time everything is there.
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        record = json.loads(results.read_text())
        assert [(run["arm"], run["seed"]) for run in record["runs"]] == [(arm, 3) for arm in ("classic", "ours")]
    assert all("test" in network for network in record["networks"].values())
    assert (results.parent / "classic.md").read_text().startswith("# Against the classic way")
    assert (results.parent / "classic.svg").exists()


def test_a_report_needs_a_seed_that_both_ways_have_run(tmp_path):
    results = tmp_path / "classic.json"
    results.write_text(json.dumps(record_of(CLASSIC)))
    command = [sys.executable, str(BENCHMARKS / "classic.py"), "--report", "--results", str(results)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "nothing to compare yet: no seed was run both by classic and by ours" in done.stderr


def test_no_pictures_is_a_reason_to_skip(tmp_path):
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "classic.py"), str(tmp_path / "none")], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "skipped: there are no pictures at" in done.stderr
