"""Graphs: rows that name what they take in, branches that are chosen, groups that repeat."""

import random

import pytest
import torch

from archtuna.architecture import Architecture
from archtuna.checkpoint import load, save
from archtuna.costs import costs_of
from archtuna.data import Preprocess
from archtuna.errors import ShapeError, SpecError
from archtuna.exports import export
from archtuna.model import build, survey, table
from archtuna.recipe import Recipe
from archtuna.space import SearchSpace
from spaces import GRAPH, HEAD


def space(rows, *, size=16, extra=""):
    return SearchSpace.read(f"input_size: {size}\n{extra}backbone:\n{rows}{HEAD}")


def resolved(rows, decisions=None, **more):
    return space(rows, **more).candidate(decisions or {}).architecture


def modules(architecture):
    return [row.module for row in architecture.rows[:-3]]


def test_a_row_takes_what_it_names():
    found = resolved("""\
  - [1, Conv, [8, 3], {name: stem}]
  - [1, Conv, [16, 3], {name: left}]
  - [1, Conv, [24, 3], {from: stem}]
  - [1, Concat, {from: [left, previous, input]}]
""")
    assert [row.inputs for row in found.rows] == [None, None, (0,), (1, 2, -1), None, None, None]
    assert [row.name for row in found.rows[:4]] == ["stem", "left", None, None]
    assert table(found)[3].output == (43, 16, 16)
    assert table(found)[3].input == ((16, 16, 16), (24, 16, 16), (3, 16, 16))
    assert table(found)[3].sources == ("left", "row2", "input")


def test_naming_the_row_before_is_the_same_as_not_naming_it():
    chain = resolved("  - [1, Conv, [8, 3]]\n  - [1, Conv, [8, 3]]\n")
    named = resolved(
        "  - [1, Conv, [8, 3], {name: a, from: input}]\n  - {module: Conv, arguments: [8, 3], from: a, name: b}\n"
    )
    previous = resolved("  - [1, Conv, [8, 3]]\n  - {row: [1, Conv, [8, 3]], from: previous}\n")
    assert chain.key == named.key == previous.key
    assert named.is_chain


def test_the_order_in_which_a_file_lists_its_branches_does_not_count():
    one = resolved("""\
  - [1, Conv, [8, 3], {name: stem}]
  - [1, Conv, [8, 1], {name: a, from: stem}]
  - [1, Conv, [8, 5], {name: b, from: stem}]
  - [1, Add, {from: [a, b]}]
""")
    two = resolved("""\
  - [1, Conv, [8, 3], {name: stem}]
  - [1, Conv, [8, 5], {name: b, from: stem}]
  - [1, Conv, [8, 1], {name: a, from: stem}]
  - [1, Add, {from: [a, b]}]
""")
    assert one.key == two.key


def test_another_connection_is_another_network():
    rows = """\
  - [1, Conv, [8, 3], {name: a}]
  - [1, Conv, [8, 3], {name: b}]
  - [1, Conv, [8, 3]]
  - [1, Add, {from: [previous, a|b]}]
"""
    found = [resolved(rows, {"backbone.3.from.1": name}) for name in "ab"]
    assert found[0].key != found[1].key
    assert "row 3: [1, Add, {}, {from: [row2, a]}] here, [1, Add, {}, {from: [row2, b]}] there" in found[0].differences(
        found[1]
    )
    costs = [costs_of(one) for one in found]
    assert costs[0].pop("peak_memory_mb") > costs[1].pop("peak_memory_mb"), "the first map is kept for longer"
    assert costs[0] == costs[1]
    x = torch.randn(2, 3, 16, 16)
    torch.manual_seed(0)
    first = build(found[0]).eval()
    second = build(found[1]).eval()
    second.load_state_dict(first.state_dict())
    assert not torch.allclose(first(x), second(x))


def test_a_graph_computes_what_its_rows_say():
    found = resolved("""\
  - [1, Conv, [8, 3], {name: stem}]
  - [2, Conv, [8, 3], {name: deep}]
  - [1, Conv, [8, 1], {name: side, from: stem}]
  - [1, Add, {from: [deep, side]}]
  - [1, Concat, {from: [previous, stem]}]
""")
    network = build(found).eval()
    stem, deep1, deep2, side, _, _, pool, flat, linear = network.layers
    x = torch.randn(2, 3, 16, 16)
    s = stem(x)
    by_hand = torch.cat((deep2(deep1(s)) + side(s), s), 1)
    assert torch.equal(network(x), linear(flat(pool(by_hand))))


def test_a_skip_survives_a_row_that_disappears():
    rows = """\
  - [1, Conv, [8, 3], {name: stem}]
  - [0|1, Conv, [8, 3], {name: mid}]
  - [1, Conv, [8, 3]]
  - [1, Add, {from: [previous, mid]}]
"""
    there, gone = (resolved(rows, {"backbone.1.repeat": n}) for n in (1, 0))
    assert there.rows[3].inputs == (2, 1)
    assert gone.rows[2].inputs == (1, 0)  # What the row took in stands in for it.


def test_a_join_of_one_row_is_no_row_and_one_that_is_left_out_passes_its_first_input_on():
    rows = """\
  - [1, Conv, [8, 3], {name: stem}]
  - [1, Conv, [8, 3], {name: deep}]
  - [1, Add, {from: [deep, stem|null]}]
"""
    plain = resolved("  - [1, Conv, [8, 3]]\n  - [1, Conv, [8, 3]]\n")
    assert modules(resolved(rows)) == ["Conv", "Conv", "Add"]
    assert resolved(rows, {"backbone.2.from.1": None}).key == plain.key
    optional = "  - [1, Conv, [8, 3], {name: a}]\n  - [1, Conv, [8, 3], {name: b}]\n  - [0|1, Add, {from: [b, a]}]\n"
    assert resolved(optional, {"backbone.2.repeat": 0}).key == plain.key
    first = "  - [1, Conv, [8, 3], {name: a}]\n  - [1, Conv, [8, 3], {name: b}]\n  - [0|1, Add, {from: [a, b]}]\n"
    assert resolved(first, {"backbone.2.repeat": 0}).key == resolved("  - [1, Conv, [8, 3]]\n").key


def test_a_branch_that_was_not_taken_is_neither_built_nor_asked():
    rows = """\
  - [1, Conv, [8, 3], {name: stem}]
  - [1, Conv, [8, 1|3], {name: a}]
  - [1..3, Conv, [8, 5|7], {name: b, from: stem}]
  - [1, Conv, [8, 3], {from: a|b}]
"""
    left, right = (space(rows).candidate({"backbone.3.from": name}) for name in "ab")
    assert list(left.decisions) == ["backbone.3.from", "backbone.1.kernel"]
    assert list(right.decisions) == ["backbone.3.from", "backbone.2.repeat", "backbone.2.kernel"]
    assert len(left.architecture.rows) == len(right.architecture.rows) == 6


def test_a_branch_that_does_not_fit_hurts_only_the_networks_that_take_it():
    rows = """\
  - [1, Conv, [8, 3], {name: stem}]
  - [1, MaxPool, [64], {name: small}]
  - [1, Conv, [8, 3], {from: stem|small}]
"""
    assert modules(resolved(rows)) == ["Conv", "Conv"]
    with pytest.raises(ShapeError, match=r"backbone\[1\].*too small"):
        resolved(rows, {"backbone.2.from": "small"})


def test_what_nothing_takes_is_built_as_written_and_said():
    found = space("  - [1, Conv, [8, 3], {name: a}]\n  - [1, Conv, [16, 3]]\n  - [1, Conv, [8, 3], {from: a}]\n")
    assert found.notes == ("backbone[1]: nothing takes what this row gives",)
    architecture = found.default().architecture
    assert modules(architecture) == ["Conv", "Conv", "Conv"]
    assert build(architecture)(torch.zeros(2, 3, 16, 16)).shape == (2, 4)
    assert SearchSpace.read(architecture.to_yaml()).default().architecture.key == architecture.key


def test_what_alternatives_that_take_another_row_pass_by_is_said():
    stem, other = "  - [1, Conv, [8, 3], {name: a}]\n", "  - [1, Conv, [16, 3]]\n"
    found = space(f"{stem}{other}  - {{any: [[1, Conv, [8, 3]], [1, DWConv, [8, 3]]], from: a}}\n")
    assert found.notes == ("backbone[1]: nothing takes what this row gives",)
    assert modules(found.default().architecture) == ["Conv", "Conv", "Conv"]
    # One of them without a source of its own takes the row before.
    found = space(f"{stem}{other}  - {{any: [[1, Conv, {{channels: 8, kernel: 3, from: a}}], [1, DWConv, [8, 3]]]}}\n")
    assert found.notes == ()


def test_a_group_repeats_its_rows_together():
    rows = """\
  - [1, Conv, [8, 3]]
  - rows:
      - [1, Conv, [8, 3], {name: inner}]
      - [1, Conv, [8, 1|3]]
      - [1, Add, {from: [previous, inner, input]}]
    repeat: 0..3
    name: stage
  - [1, Concat, {from: [stage, input]}]
"""
    found = space(rows)
    assert found.size == 1 + 3 * 2
    for n in (0, 1, 3):
        architecture = found.candidate({"backbone.1.repeat": n, "backbone.1.rows.1.kernel": 3}).architecture
        assert modules(architecture) == ["Conv", *["Conv", "Conv", "Add"] * n, "Concat"]
        assert build(architecture)(torch.zeros(2, 3, 16, 16)).shape == (2, 4)
        assert SearchSpace.read(architecture.to_yaml()).default().architecture.key == architecture.key
    doubled = SearchSpace.read(f"input_size: 16\ndepth_multiple: 2.0\nbackbone:\n{rows}{HEAD}")
    assert modules(doubled.candidate({"backbone.1.repeat": 3}).architecture).count("Add") == 6


def test_a_multiple_scales_what_stands_in_a_group_that_is_not_repeated():
    alone, grouped, repeated = (
        SearchSpace.read(f"input_size: 16\ndepth_multiple: 0.5\nbackbone:\n{rows}{HEAD}").default().architecture
        for rows in (
            "  - [4, Conv, [8, 3]]\n",
            "  - rows: [[4, Conv, [8, 3]]]\n",
            "  - {rows: [[4, Conv, [8, 3]]], repeat: 4}\n",
        )
    )
    assert alone.key == grouped.key
    assert [sum(row.repeat for row in a.rows if row.module == "Conv") for a in (alone, repeated)] == [2, 8]


def test_an_alternative_may_take_from_elsewhere():
    rows = """\
  - [1, Conv, [8, 3], {name: stem}]
  - [1, Conv, [8, 3], {name: deep}]
  - any:
      - [1, Add, {from: [deep, stem]}]
      - [1, Conv, [8, 1]]
    name: end
"""
    assert resolved(rows, {"backbone.2.any": "Add"}).rows[2].inputs == (1, 0)
    assert resolved(rows, {"backbone.2.any": "Conv"}).is_chain


def test_every_network_of_a_graph_builds_round_trips_and_agrees_with_its_table():
    found, rng, keys = SearchSpace.read(GRAPH), random.Random(0), set()
    for _ in range(150):
        candidate = found.random(rng)
        architecture = candidate.architecture
        keys.add(architecture.key)
        assert found.candidate(candidate.decisions).architecture.key == architecture.key
        text = architecture.to_yaml()
        assert SearchSpace.read(text).default().architecture.key == architecture.key
        assert Architecture.from_yaml(text).to_dict() == architecture.to_dict()
        assert sum(line.macs for line in table(architecture)) == costs_of(architecture)["macs"]
    assert 40 < len(keys) <= found.size


def follow(network, x):
    """Run a network unit by unit, by its architecture's wires alone, and return every output."""
    outputs = {-1: x}
    for index, (unit, inputs) in enumerate(zip(network.layers, network.architecture.wires(), strict=True)):
        outputs[index] = unit(*(outputs[i] for i in inputs))
    return outputs


def test_shapes_are_those_of_real_tensors_and_memory_is_given_back():
    found, rng = SearchSpace.read(GRAPH), random.Random(1)
    for _ in range(20):
        architecture = found.random(rng).architecture
        network = build(architecture).eval()
        x = torch.randn(2, 3, 16, 16)
        outputs = follow(network, x)
        for index, (_, facts) in enumerate(survey(architecture)):
            assert tuple(outputs[index].shape[1:]) == facts.output
        assert torch.equal(network(x), outputs[len(network.layers) - 1].flatten(1))
        if network._steps is not None:
            freed = [i for _, finished in network._steps for i in finished]
            assert sorted(freed) == [i for i in range(-1, len(network.layers) - 1) if i in freed]
            assert set(range(len(network.layers) - 1)) <= set(freed)


@pytest.mark.slow
def test_checkpoints_and_exports_work_on_graphs_as_on_chains(tmp_path):
    decisions = {
        "backbone.1.repeat": 2,
        "backbone.3.any": "rows",
        "backbone.3.from": "mid",
        "backbone.4.module": "Concat",
    }
    model = build(SearchSpace.read(GRAPH).candidate(decisions).architecture).eval()
    assert not model.architecture.is_chain
    x = torch.randn(3, 3, 16, 16)
    preprocess = Preprocess((16, 16), 3, "resize", None, (0.5,) * 3, (0.25,) * 3)
    metrics = {"loss": 1.0, "accuracy": 0.5, "f1": 0.5}
    path = tmp_path / "graph.safetensors"
    save(path, model, classes="abcd", preprocess=preprocess, metrics=metrics, recipe=Recipe(), data={}, epoch=1)
    back = load(path)
    assert back.architecture.to_dict() == model.architecture.to_dict()
    with torch.inference_mode():
        assert torch.equal(back(x), model(x))
    for name in ("graph.onnx", "graph.ts"):
        assert export(back, tmp_path / name).max_difference < 1e-5


def test_the_shape_of_what_does_not_meet_is_told_for_each_row(tmp_path):
    file = tmp_path / "g.yaml"
    file.write_text(f"""\
input_size: 16
backbone:
  - [1, Conv, [8, 3], {{name: stem}}]
  - [1, Conv, [24, 3, 2], {{name: deep}}]
  - [1, Add, {{from: [deep, stem, input]}}]
{HEAD}""")
    with pytest.raises(ShapeError) as caught:
        SearchSpace.read(file).default()
    first, hint = str(caught.value).splitlines()
    assert first.startswith(f"{file}:5: backbone[2]: row 2 [1, Add, {{}}]: its inputs do not meet: ")
    assert "backbone[1] ('deep', Conv) gives 24 channels, 8x8 pixels" in first
    assert "backbone[0] ('stem', Conv) gives 8 channels, 16x16 pixels" in first
    assert "the picture gives 3 channels, 16x16 pixels" in first
    assert hint == "hint: give them one shape: a 1x1 Conv changes channels, a stride the map's size"
    assert caught.value.row == 2


@pytest.mark.parametrize(
    ("row", "path", "message"),
    [
        ("[1, Conv, [8, 3], {from: stme}]", "backbone[1].from", "no row is named 'stme'\nhint: did you mean 'stem'?"),
        ("[1, Conv, [8, 3], {from: later}]", "backbone[1].from", "'later' stands below this row or is it\nhint: a row takes from rows above it"),
        ("[1, Conv, [8, 3], {name: me, from: me}]", "backbone[1].from", "'me' stands below this row or is it"),
        ("[1, Conv, [8, 3], {from: 0}]", "backbone[1].from", "rows are named, not counted: 0"),
        ("[1, Conv, [8, 3], {from: []}]", "backbone[1].from", "'from' names no row"),
        ("[1, Conv, [8, 3], {from: {a: b}}]", "backbone[1].from", "must be a single value, not a mapping"),
        ("[1, Conv, [8, 3], {form: stem}]", "backbone[1].form", "unknown key\nhint: did you mean 'from'?"),
        ("[1, Conv, [8, 3], {name: stem}]", "backbone[1]", "two rows are named 'stem'"),
        ("[1, Conv, [8, 3], {name: input}]", "backbone[1].name", "'input' cannot name a row"),
        ("[1, Conv, [8, 3], {name: 3x}]", "backbone[1].name", "'3x' cannot name a row"),
        ("[1, Add, []]", "backbone[1]", "Add takes two or more rows\nhint: name them: {from: [a, b]}"),
        ("[1, Conv, [8, 3], {from: [stem, input]}]", "backbone[1]", "Conv takes one row, not 2\nhint: join them first, with Add or Concat"),
        ("[1, nn.Bilinear, [4, 4, 4]]", "backbone[1]", "nn.Bilinear takes 2 rows, not 1"),
        ("{repeat: 2, arguments: [8]}", "backbone[1]", "a row written as a mapping has one of module, row, any, rows"),
        ("{rows: []}", "backbone[1].rows", "no rows"),
        ("{any: [{any: [[1, Flatten, []], [1, Identity, []]]}, [1, Identity, []]]}", "backbone[1].any[0]", "'any' inside 'any' has no place"),
        ("{any: [[1, Identity, [], {name: a}], [1, Identity, []]]}", "backbone[1].any[0]", "a name has no place in an alternative"),
        ("{row: [1, Identity, [], {name: a}], name: b}", "backbone[1]", "'name' and 'from' stand twice"),
        ("[1, Conv, {channels: 8, kernel: 3, name: a}, {name: b}]", "backbone[1]", "'name' stands twice"),
        ("{module: Conv, arguments: {channels: 8, kernel: 3, from: stem}, from: stem}", "backbone[1]", "'from' stands twice"),
        ("{rows: [[1, Conv, [8, 3], {from: stem}]]}", "backbone[1].rows[0].from", "no row is named 'stem'"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_connection_is_one_error_with_its_place(row, path, message):
    text = (
        f"backbone:\n  - [1, Conv, [8, 3], {{name: stem}}]\n  - {row}\n  - [1, Identity, [], {{name: later}}]\n{HEAD}"
    )
    with pytest.raises(SpecError) as caught:
        SearchSpace.read(text)
    assert f"{path}: " in f"{caught.value}"
    assert message in str(caught.value)


def test_names_that_look_odd_still_round_trip():
    found = resolved(
        "  - [1, Conv, [8, 3], {name: no}]\n  - [1, Conv, [8, 3], {name: row0}]\n  - [1, Add, {from: [row0, no]}]\n"
    )
    assert SearchSpace.read(found.to_yaml()).default().architecture.key == found.key


def test_a_chain_keeps_the_format_that_older_readers_know():
    chain = resolved("  - [1, Conv, [8, 3]]\n")
    assert chain.to_dict()["format"] == 1
    assert resolved("  - [1, Conv, [8, 3], {name: a}]\n  - [1, Add, {from: [a, a]}]\n").to_dict()["format"] == 2


def test_an_architecture_that_takes_from_below_is_none():
    from archtuna.architecture import Row

    with pytest.raises(ValueError, match="row 0 takes from rows .*do not all stand above"):
        Architecture((Row("Conv", {}, inputs=(1,)), Row("Conv", {})), 3, (8, 8))


def test_vary_reaches_rows_of_groups_and_alternatives():
    found = SearchSpace.read(GRAPH + "vary: [{rows: Conv, activation: ReLU|SiLU}]\n")
    names = [c.name for c in found.choices if c.name.endswith("activation")]
    assert "backbone.3.any.1.rows.0.activation" in names
    assert "backbone.0.activation" in names
