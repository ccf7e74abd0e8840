import subprocess
import sys

import pytest

from archtuna import report
from archtuna.registry import BLOCKS
from archtuna.space import SearchSpace
from archtuna.storage import Attr
from archtuna.study import Study
from spaces import EVERYTHING, GRAPH, SEED
from studies import add, make_spec, repeat


def seed(size=32):
    return SearchSpace.read(SEED, input_size=size)


def test_check_has_its_fixed_shape():
    found = report.check(seed())
    assert found == {
        "file": None, "choices": 0, "space_size": 1,
        "default": {
            "key": seed().default().architecture.key, "params": 4_210_998, "macs": 7_081_920,
            "peak_memory_mb": 0.08192, "output": [1, 6],
        },
    }  # fmt: skip
    more = report.check(SearchSpace.read(EVERYTHING))
    assert set(more) == {"file", "choices", "space_size", "default", "smallest", "largest"}
    assert more["smallest"]["params"] <= more["default"]["params"] <= more["largest"]["params"]


def test_the_layer_table_is_the_one_that_everyone_knows():
    lines = report.layer_lines(seed().default().architecture)
    assert lines[0].split() == ["idx", "n", "params", "module", "arguments", "in", "out", "macs"]
    assert lines[1].split()[:4] == ["0", "1", "464", "Conv"]
    assert lines[3].endswith("[3, 4, 24, false, ReLU, 2]         16x16x16    24x8x8    397,312")
    assert lines[-1].startswith(
        "21 blocks, 4,210,998 parameters, 7,081,920 multiply-accumulates at 3x32x32, 16.95 MB, activations of 0.0819 MB at once, key "
    )
    assert len(lines) == 23


def test_the_table_of_a_graph_says_what_rows_take_in():
    architecture = SearchSpace.read(GRAPH).default().architecture
    lines = report.layer_lines(architecture)
    assert lines[0].split()[-2:] == ["name", "from"]
    joined = next(line for line in lines if " Add " in line)
    assert joined.split()[-4:] == ["joined", "left,", "right,", "stem"]
    assert "8x16x16 + 8x16x16 + 8x16x16" in joined
    plain = report.layers(architecture)[3]
    assert (plain["name"], plain["from"], plain["in"]) == ("joined", ["left", "right", "stem"], [[8, 16, 16]] * 3)
    assert "from" not in report.layers(seed().default().architecture)[0]


def test_the_number_of_networks_is_written_as_it_can_be_read():
    row = "[1..5, InvertedResidualv3, [3|5|7, 1..6, 16, 0|1, 0|1, 1]]"

    def networks(rows):
        body = f"input_size: 8\nbackbone: [{', '.join([row] * rows)}, [1, GlobalAvgPool, []], [1, Flatten, []], [1, Linear, [6]]]\n"
        return next(line for line in report.check_lines(SearchSpace.read(body)) if line.endswith(" networks"))

    assert networks(2) == "10 choices, 129,600 networks"
    assert networks(10) == "50 choices, 3.7e+25 networks"
    assert networks(150) == "750 choices, more than 10^300 networks"


def test_check_says_every_choice_and_every_setting_with_its_default():
    text = "\n".join(report.check_lines(SearchSpace.read(EVERYTHING + "search: {trials: 7}\n")))
    assert "backbone.1.expansion" in text
    assert "2|3|4|6" in text
    assert "  lr: 0.01..0.3 log\n" in text
    assert "  epochs: 3\n" in text
    assert "  momentum: 0.9  # default" in text
    assert "  trials: 7\n" in text
    assert "objectives: f1, params  # default" in text
    assert "limits: none" in text


@pytest.mark.parametrize("name", list(BLOCKS))
def test_every_block_is_listed_with_arguments_and_meaning(name):
    entry = BLOCKS[name]
    lines = report.block_lines([entry])
    assert lines[0].startswith(f"{name} [")
    assert entry.meaning in lines[1]
    plain = report.block(entry)
    assert [a["name"] for a in plain["arguments"]] == [p.name for p in entry.parameters]
    assert all(a["expected"] for a in plain["arguments"])


def test_columns_align_numbers_to_the_right_and_texts_to_the_left():
    assert report.columns(("n", "name"), [("10", "a"), ("2", "bcd")], left=("name",)) == [
        " n  name",
        "10  a",
        " 2  bcd",
    ]


@pytest.fixture
def study(tmp_path):
    study = Study.create_or_open(tmp_path / "run", make_spec())
    for f1, params in ((0.5, 100), (0.8, 900), (0.9, 3000)):
        add(study, f1, params, **{Attr.EPOCHS: {"trained": 3, "kept": 2}})
    return study


def test_a_front_without_repeats_says_nothing_of_noise(study):
    assert report.front_lines(study)[:5] == [
        "trial  f1 (max)  params (min)  kept epoch  checkpoint",
        "   0        0.5           100         2/3  -",
        "   1*       0.8           900         2/3  -",
        "   2        0.9         3,000         2/3  -",
        "* knee point: nearest to the best of every objective",
    ]
    assert not [line for line in report.front_lines(study) if "±" in line or "~" in line]


def test_a_front_shows_means_with_their_spread_and_marks_what_may_be_chance(study):
    repeat(study, 1, 0.8, 0.82, 0.78)
    repeat(study, 2, 0.81, None, 0.83)
    lines = report.front_lines(study)
    assert lines[:7] == [
        "trial  f1 (max)                           params (min)  kept epoch  checkpoint",
        "   0   0.5                                         100         2/3  -",
        "   1*  0.8000 ± 0.0200 (n=3)                       900         2/3  -",
        "   2   0.8200 ± 0.0141 (n=2, 1 failed) ~         3,000         2/3  -",
        "* knee point: nearest to the best of every objective",
        "± standard deviation of n runs with other seeds; the run that the search chose by is not among them",
        "~ its f1 is better than that of the next cheaper network by less than two standard errors of the difference: it may be "
        "chance",
    ]
    plain = report.front(study)
    assert [(one["runs"], one["own"]["f1"]) for one in plain] == [(1, 0.5), (3, 0.8), (2, 0.9)]
    assert plain[0]["spread"] is None
    assert plain[1]["spread"] == {"f1": pytest.approx(0.02)}
    assert plain[1]["values"] == {"f1": pytest.approx(0.8), "params": 900}


def test_what_was_picked_is_said_with_its_reason(study):
    study.artifacts.weights(2).write_bytes(b"")
    assert report.picked_lines(study.pick()) == [
        "trial 2: f1 0.9, params 3,000",
        str(study.artifacts.weights(2)),
        "the best f1; chosen from all 3 networks on the front",
    ]
    repeat(study, 1, 0.8, 0.82)
    found = study.pick(max={"params": 1000})
    assert report.picked_lines(found) == [
        "trial 1: f1 0.8100 ± 0.0141 (n=2), params 900",
        "its weights are not kept: archtuna train RUN 1",
        "the best f1; chosen from the 2 of 3 networks on the front that keep the bounds",
    ]
    plain = report.picked(found)
    assert (plain["number"], plain["runs"], plain["left"], plain["front"], plain["checkpoint"]) == (1, 2, 2, 3, None)
    assert (plain["why"], plain["spread"]) == ("the best f1", {"f1": pytest.approx(0.01414, abs=1e-5)})


def test_a_trial_shows_its_runs(study):
    repeat(study, 1, 0.8, None)
    lines = report.show_lines(study.candidate(1))
    assert lines[2:5] == [
        "again with seed 1: f1 0.8000",
        "again with seed 2: nan: the loss became nan",
        "mean: f1 0.8000 (n=1, 1 failed), params 900",
    ]
    shown = report.shown(study.candidate(1))
    assert [(run["seed"], run["metrics"]) for run in shown["again"]] == [(1, {"f1": 0.8}), (2, {})]


def test_numbers_are_short():
    assert [report.number(v) for v in (1234567.0, 0.51234, 0.0, 12.0)] == ["1,234,567", "0.5123", "0", "12"]


@pytest.mark.parametrize(
    "words", [["front"], ["front", "--knee"], ["pick"], ["status"], ["gc"], ["show", "0", "--yaml"]], ids=" ".join
)
def test_what_looks_at_a_study_does_not_wait_for_torch(tmp_path, words):
    study = Study.create_or_open(tmp_path / "run", make_spec())
    add(study, 0.5, 100)
    study.artifacts.weights(0).write_bytes(b"weights")
    study.close()
    code = (
        "import sys; from archtuna.cli import main; assert main(sys.argv[1:]) == 0; assert 'torch' not in sys.modules"
    )
    command = [sys.executable, "-c", code, words[0], str(tmp_path / "run"), *words[1:]]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
