import pytest

from archtuna import report
from archtuna.registry import BLOCKS
from archtuna.space import SearchSpace
from spaces import EVERYTHING, GRAPH, SEED


def seed(size=32):
    return SearchSpace.read(SEED, input_size=size)


def test_check_has_its_fixed_shape():
    found = report.check(seed())
    assert found == {
        "file": None, "choices": 0, "space_size": 1,
        "default": {"key": seed().default().architecture.key, "params": 4_210_998, "macs": 7_081_920, "output": [1, 6]},
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
        "21 blocks, 4,210,998 parameters, 7,081,920 multiply-accumulates at 3x32x32, 16.95 MB, key "
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


def test_numbers_are_short():
    assert [report.number(v) for v in (1234567.0, 0.51234, 0.0, 12.0)] == ["1,234,567", "0.5123", "0", "12"]
