import itertools
import random

import pytest

from archtuna.costs import costs_of
from archtuna.errors import ShapeError, SpecError
from archtuna.space import SearchSpace
from spaces import CLASSIC, EVERYTHING, SEED

HEAD = "[1, GlobalAvgPool, []], [1, Flatten, []], [1, Linear, [4]]"


def space(row, *, extra="", size=16):
    return SearchSpace.read(f"input_size: {size}\nbackbone: [{row}, {HEAD}]\n{extra}")


def arguments(row, **more):
    return dict(space(row, **more).default().architecture.rows[0].arguments)


def rows(row, **more):
    return [(r.repeat, r.module, dict(r.arguments)) for r in space(row, **more).default().architecture.rows[:-3]]


# The table of FORMAT: repeat, multiple, copies.
@pytest.mark.parametrize(
    ("multiple", "pairs"),
    [
        (0.33, {5: 2, 6: 2, 9: 3, 1: 1}), (0.5, {3: 2, 4: 2, 5: 2, 6: 3, 9: 4}), (0.75, {5: 4, 9: 7}),
        (1.25, {2: 2, 3: 4, 6: 8}), (1.5, {3: 4, 5: 8, 9: 14, 1: 1}), (1.0, {0: 1, 1: 1, 4: 4}),
    ],
)  # fmt: skip
def test_depth_rounds_half_to_even_and_one_stays_one(multiple, pairs):
    for repeat, copies in pairs.items():
        found = space(f"[{repeat}, Conv, [8, 3]]", extra=f"depth_multiple: {multiple}").default().architecture
        assert sum(r.repeat for r in found.rows) - 3 == copies, repeat


def test_width_is_rounded_in_a_list_and_as_written_in_a_mapping():
    assert arguments("[1, Conv, [20, 3]]")["channels"] == 24
    assert arguments("[1, Conv, {channels: 20, kernel: 3}]")["channels"] == 20
    assert arguments("[1, Conv, {channels: 20, kernel: 3}]", extra="width_multiple: 0.5")["channels"] == 16
    assert arguments("[1, FixedConv, [20, 3]]", extra="width_multiple: 0.5")["channels"] == 20
    for module in ("DWConv, [20, 3]", "Bottleneck, [20]", "InvertedResidualv2, [20, 2, 1]", "MBConv, [2, 20, 1, 3]"):
        assert arguments(f"[1, {module}]")["channels"] == 24, module


def test_padding_null_or_zero_in_a_list_keeps_the_size_and_zero_in_a_mapping_is_none():
    for text in ("[8, 5]", "[8, 5, 1, null]", "[8, 5, 1, 0]"):
        assert arguments(f"[1, Conv, {text}]")["padding"] == 2
    assert arguments("[1, Conv, [8, 5, 1, 1]]")["padding"] == 1
    assert arguments("[1, Conv, {channels: 8, kernel: 5, padding: 0}]")["padding"] == 0


def test_the_stride_goes_to_the_last_copy_of_a_conv_and_the_first_of_a_residual():
    conv = rows("[3, Conv, [8, 3, 2]]")
    assert [(n, a["stride"]) for n, _, a in conv] == [(2, 1), (1, 2)]
    residual = rows("[3, InvertedResidualv3, [3, 2, 8, 0, 1, 2]]")
    assert [(n, a["stride"], a["activation"]) for n, _, a in residual] == [(1, 2, "Hardswish"), (2, 1, "Hardswish")]
    assert [(n, a["channels"]) for n, _, a in rows("[1, Conv, [16, 1]], [3, Bottleneck, [32]]")[1:]] == [
        (2, 16),
        (1, 32),
    ]
    assert [n for n, _, _ in rows("[3, MaxPool, [2]]")] == [3]
    assert [n for n, _, _ in rows("[1, Conv, [8, 3]], [4, GlobalAvgPool, [2]]")] == [1, 1]


def test_equal_networks_have_equal_keys_in_every_spelling():
    spellings = [
        "[2, Conv, [16, 3, 1, null, 1, HardSwish]]",
        "[2, Conv, {kernel: 3, channels: 16, activation: hardswish, padding: 1}]",
        "[1, Conv, [16.0, 3, 1, 1, 1, Hardswish]], [1, Conv, [16, 3, 1, 0, 1, HardSwish]]",
        "[1..3, Conv, [16, 3, 1, null, 1, HardSwish]]",
    ]
    keys = {text: space(text).candidate({"backbone.0.repeat": 2}).architecture.key for text in spellings}
    assert len(set(keys.values())) == 1, keys


def test_the_classic_recipe_is_one_line_and_every_choice_counts():
    classic = SearchSpace.read(CLASSIC, input_size=64)
    assert [c.name for c in classic.choices] == [f"backbone.{i}.repeat" for i in (1, 3, 5, 6, 8, 9, 10, 11, 12, 14, 15)]
    assert classic.size == 5**11
    base = costs_of(classic.default().architecture)["params"]
    for choice in classic.choices:
        grown = [costs_of(classic.candidate({choice.name: n}).architecture)["params"] for n in range(1, 6)]
        steps = {b - a for a, b in itertools.pairwise(grown)}
        assert grown[0] == base
        assert len(steps) == 1
        assert steps.pop() > 0


def test_conditional_choices_are_asked_only_in_their_branch():
    everything = SearchSpace.read(EVERYTHING)
    asked = everything.candidate({"backbone.3.any": "Bottleneck"}).decisions
    assert "backbone.3.any.0.repeat" in asked
    assert "backbone.3.any.1.repeat" not in asked
    other = everything.candidate({"backbone.3.any": "DWConv"}).decisions
    assert "backbone.3.any.1.repeat" in other


def test_a_shared_choice_is_one_decision():
    found = space("[1, Conv, [8, $k]], [1, Conv, [8, $k]]", extra="choices: {k: 3|5}")
    assert (found.size, [c.name for c in found.choices]) == (2, ["choices.k"])
    kernels = {r.arguments["kernel"] for r in found.candidate({"choices.k": 5}).architecture.rows[:-3]}
    assert kernels == {5}


def test_a_choice_of_zero_copies_drops_the_row_and_a_literal_zero_is_one():
    found = space("[1, Conv, [8, 3]], [0|2, Conv, [8, 3]]")
    assert len(found.candidate({"backbone.1.repeat": 0}).architecture.rows) == 4
    assert len(found.candidate({"backbone.1.repeat": 2}).architecture.rows) == 5
    assert space("[0, Conv, [8, 3]]").notes == (
        "backbone[0]: a repeat of 0 counts as 1 in this format; write 0|1 for a row that may be left out",
    )


def test_vary_overrides_rows_by_name_number_range_and_property():
    body = "[1, Conv, [8, 3, 2]], [1, Conv, [8, 3]], [1, MaxPool, [2]], [1, InvertedResidualv2, [8, 2, 1]]"

    def names(entry):
        return [c.name for c in space(body, extra=f"vary: [{entry}]").choices]

    assert names("{rows: Conv, kernel: 3|5}") == ["backbone.0.kernel", "backbone.1.kernel"]
    assert names("{rows: 1, activation: ReLU|SiLU}") == ["backbone.1.activation"]
    assert names("{rows: 0..1, repeat: 1..3}") == ["backbone.0.repeat", "backbone.1.repeat"]
    assert names("{rows: stride1, repeat: 1..3}") == ["backbone.1.repeat", "backbone.3.repeat"]
    assert names("{rows: stride2, kernel: 2|3}") == ["backbone.0.kernel"]
    assert names("{rows: [1, InvertedResidualv2], channels: 8|16}") == ["backbone.1.channels", "backbone.3.channels"]
    assert names("{rows: all, expansion: 1|2}") == ["backbone.3.expansion"]
    assert names("{rows: 1, module: Conv|DWConv}") == ["backbone.1.module"]


def test_vary_takes_the_place_of_a_choice_in_a_list():
    found = space(
        "[1, InvertedResidualv3, [$k, 3, 24|32, 0, 0, 1]]",
        extra="choices: {k: 3|5}\nvary: [{rows: InvertedResidualv3, kernel: 7|9}]",
    )
    assert [(c.name, str(c)) for c in found.choices] == [("backbone.0.channels", "24|32"), ("backbone.0.kernel", "7|9")]
    assert found.candidate({"backbone.0.kernel": 9}).architecture.rows[0].arguments["kernel"] == 9
    own = space("[1, InvertedResidualv3, [3|5, 3, 24, 0, 0, 1]]", extra="vary: [{rows: 0, kernel: 7|9}]")
    assert [str(c) for c in own.choices] == ["7|9"]
    assert own.size == 2
    fixed = space("[1, InvertedResidualv3, [3|5, 3, 24, 0, 0, 1]]", extra="vary: [{rows: 0, kernel: 7}]")
    assert fixed.choices == ()


def test_two_choices_of_one_name_are_refused():
    with pytest.raises(SpecError, match=r"two choices are named 'backbone\.0\.kernel'"):
        space("[1, InvertedResidualv3|MBConv, [3|5, 8, 1]]", extra="vary: [{rows: 0, kernel: 7|9}]")


@pytest.mark.parametrize(
    ("row", "module", "other"),
    [
        ("[2, Conv, [20, 3, 1, 0]]", "Conv|DWConv", "[2, DWConv, [20, 3, 1, 0]]"),
        ("[1, Conv, [8, 3, 1, 0]]", "Conv|AvgPool", "[1, AvgPool, [3, 1, 0]]"),
        ("[1, InvertedResidualv3, [3, 4, 20, 0, 1, 1]]", "InvertedResidualv3|MBConv", "[1, MBConv, [4, 20, 1, 3, 0]]"),
        ("[1, InvertedResidualv3, [3, 4, 24, 0, 1, 1]]", "InvertedResidualv3|Conv", "[1, Conv, [24, 3, 1, 0, 1, Hardswish]]"),
    ],
)  # fmt: skip
def test_a_varied_module_leaves_what_a_list_means(row, module, other):
    found = space(row, extra=f"vary: [{{rows: 0, module: {module}}}]")
    assert found.default().architecture.key == space(row).default().architecture.key
    last = module.partition("|")[2]
    assert found.candidate({"backbone.0.module": last}).architecture.key == space(other).default().architecture.key


def test_an_argument_that_is_varied_beside_the_module_is_a_named_one():
    found = space("[1, Conv, [20, 3]]", extra="vary: [{rows: 0, module: Conv|DWConv, channels: 20|40}]")
    assert found.default().architecture.rows[0].arguments["channels"] == 20


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("backbone:\n  - [1, Conv, {channels: 8, kernal: 3}]", "f.yaml:2: backbone[0].kernal", "unknown argument of Conv\nhint: did you mean 'kernel'?"),
        ("backbone:\n  - [1, Cnov, [8, 3]]", "f.yaml:2: backbone[0].module", "no block is named 'Cnov'\nhint: did you mean 'Conv'?"),
        ("backbone:\n  - [1, nn.Conv2D, [8, 3]]", "f.yaml:2: backbone[0].module", "no block is named 'nn.Conv2D'\nhint: did you mean 'nn.Conv2d'?"),
        ("backbone:\n  - [1, Conv, [8]]", "f.yaml:2: backbone[0]", "Conv needs 'kernel' (a whole number"),
        ("backbone:\n  - [1, Conv, [8, x]]", "f.yaml:2: backbone[0].kernel", "must be a whole number of at least 1 and at most 65536, or two for height and width, not 'x'"),
        ("backbone:\n  - [1, Conv, [8, 3|0]]", "f.yaml:2: backbone[0].kernel", "must be a whole number"),
        ("backbone:\n  - [1, Conv, [8, 3, 1, null, 1, None]]", "f.yaml:2: backbone[0].activation", "write null for no activation"),
        ("backbone:\n  - [1, Conv]", "f.yaml:2: backbone[0]", "a row has 3 items, not 2\nhint: write [repeat, Module, [arguments]]"),
        ("backbone:\n  - [1, Conv, [8, 3], 4]", "f.yaml:2: backbone[0]", "a row has 3 items, not 4"),
        ("backbone:\n  - [1, Flatten, [1]]", "f.yaml:2: backbone[0]", "Flatten takes at most 0 arguments, not 1"),
        ("backbone:\n  - [-2, Flatten, []]", "f.yaml:2: backbone[0].repeat", "must be a whole number of at least 0 and at most 1000, not -2"),
        ("backbone:\n  - [100000, Flatten, []]", "f.yaml:2: backbone[0].repeat", "at most 1000"),
        ("backbone:\n  - [1, Conv, 8]", "f.yaml:2: backbone[0][2]", "arguments are a list or a mapping"),
        ("backbone:\n  - any: [[1, Flatten, []]]", "f.yaml:2: backbone[0]", "'any' lists at least two rows"),
        ("backbone:\n  - [1, Conv, [8, $k]]", "f.yaml:2: backbone[0].kernel", "no shared choice is named 'k'"),
        ("backbone: []", "f.yaml:1: backbone", "no rows"),
        ("backbon:\n  - [1, Flatten, []]", "f.yaml:1: backbon", "unknown key\nhint: did you mean 'backbone'?"),
        ("input_channel: 3", "f.yaml:1", "no 'backbone'"),
        ("format: 3\nbackbone: [[1, Flatten, []]]", "f.yaml:1: format", "must be a whole number of at least 1 and at most 2, not 3"),
        ("", "f.yaml:1", "the file is empty"),
        ("# nothing yet", "f.yaml:1", "the file is empty"),
        ("backbone:\n  - [1, Conv, [8, 3, 1, null, 1, Rleu]]", "f.yaml:2: backbone[0].activation", "not 'Rleu'\nhint: did you mean 'ReLU'?"),
        ("- 1", "f.yaml:1", "must be a mapping of names to values, not a list"),
        ("input_channel: x\nbackbone: [[1, Flatten, []]]", "f.yaml:1: input_channel", "must be a whole number"),
        ("width_multiple: -1\nbackbone: [[1, Flatten, []]]", "f.yaml:1: width_multiple", "must be a number of at least 0.01"),
        ("input_size: [8, 8, 8]\nbackbone: [[1, Flatten, []]]", "f.yaml:1: input_size", "not 3 values"),
        ("backbone: [[1, Flatten, []]]\ntraining: {lr: 0}", "f.yaml:2: training.lr", "must be a number of above 0"),
        ("backbone: [[1, Flatten, []]]\ntraining: {lerning: 0}", "f.yaml:2: training.lerning", "unknown key"),
        ("backbone: [[1, Flatten, []]]\ntraining: {optimizer: adam}", "f.yaml:2: training.optimizer", "must be one of sgd, adamw"),
        ("backbone: [[1, Flatten, []]]\nobjectives: [f2]", "f.yaml:2: objectives", "unknown objective 'f2'"),
        ("backbone: [[1, Flatten, []]]\nlimits: [params >= 3]", "f.yaml:2: limits", "only <= can be a limit"),
        ("backbone: [[1, Flatten, []]]\nsearch: {trails: 3}", "f.yaml:2: search.trails", "unknown key\nhint: did you mean 'trials'?"),
        ("backbone: [[1, Flatten, []]]\nsearch: {time: soon}", "f.yaml:2: search.time", "'soon' is not a duration"),
        ("backbone: [[1, Flatten, []]]\ndata: {val: 2}", "f.yaml:2: data.val", "must be a number of at least 0 and at most 0.9"),
        ("backbone: [[1, Flatten, []]]\nvary: [{repeat: 1..2}]", "f.yaml:2: vary[0]", "no 'rows'"),
        ("backbone: [[1, Flatten, []]]\nvary: [{rows: Conv, kernel: 3|5}]", "f.yaml:2: vary[0].kernel", "no row is meant"),
        ("backbone: [[1, Flatten, []]]\nvary: [{rows: Cnov, kernel: 3|5}]", "f.yaml:2: vary[0].rows", "did you mean 'Conv'?"),
        ("backbone: [[1, Conv, [8, 3]]]\nvary: [{rows: Conv, kernal: 3|5}]", "f.yaml:2: vary[0].kernal", "unknown argument of Conv\nhint: did you mean 'kernel'?"),
        ("backbone: [[1, Flatten, []]]\nchoices: {k: 3}", "f.yaml:2: choices.k", "'3' is no choice"),
    ],
)  # fmt: skip
def test_every_mistake_is_one_error_with_its_place(tmp_path, monkeypatch, text, place, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f.yaml").write_text(text)
    with pytest.raises(SpecError) as caught:
        SearchSpace.read("f.yaml")
    assert str(caught.value).startswith(f"{place}: ")
    assert message in str(caught.value)


def test_a_network_that_ends_in_a_map_names_the_last_row_of_the_file(tmp_path):
    file = tmp_path / "f.yaml"
    file.write_text("backbone:\n  - [1, Conv, [8, 3]]\n  - [1, Conv, [8, 3, 2]]\n")
    with pytest.raises(ShapeError, match=r"f.yaml:3: backbone\[1\]: row 1 .* ends in a map .*\nhint: end it with Glo"):
        SearchSpace.read(file).default()


def test_shapes_that_vanish_name_the_row_of_the_file(tmp_path):
    file = tmp_path / "f.yaml"
    file.write_text(
        f"input_size: 4\nbackbone:\n  - [1, MaxPool, [2]]\n  - [1, MaxPool, [4]]\n  - [1, Conv, [8, 3]]\n  - {HEAD.split(', [1, F')[0]}\n"
    )
    with pytest.raises(ShapeError, match=r"f.yaml:4: backbone\[1\]: row 1 .*too small"):
        SearchSpace.read(file).default()


@pytest.mark.parametrize(
    ("row", "problem", "order"),
    [
        ("[1, MBConv, [24, 3, 2, 5]]", "an expansion of 24 with 3 channels", "expansion, channels, stride, kernel, se"),
        (
            "[1, MBConv|FusedMBConv, [16|32, 6]]",
            "an expansion of 32 with 6 channels",
            "expansion, channels, stride, ker",
        ),
        ("[1, ECAInvertedResidualv2, [4, 16]]", "an expansion of 16 with 4 channels", "channels, expansion, stride"),
        (
            "[1, InvertedResidualv3, [1, 4, 24, 0, 1, 2]]",
            "a stride of 2 with a kernel of 1",
            "kernel, expansion, channels",
        ),
    ],
)
def test_a_likely_mix_up_of_arguments_is_pointed_out(row, problem, order):
    notes = space(row).notes
    assert notes[0].startswith(f"backbone[0]: {problem} looks like a mix-up: ")
    assert f" takes [{order}" in notes[0]
    assert notes[0].endswith("; arguments by name settle it")


@pytest.mark.parametrize(
    "row",
    [
        "[1, MBConv, {expansion: 24, channels: 3}]",  # What is named is meant.
        "[1, MBConv, [4, 24, 2, 5]]",
        "[1, MBConv, [6, 8]]",
        "[1, InvertedResidualv2, [24, 6, 2]]",
        "[1, InvertedResidualv3, [3, 10, 24, 0, 1, 2]]",
        "[1, Conv, [8, 1, 2]]",
    ],
)
def test_arguments_that_people_mean_are_not(row):
    assert space(row).notes == ()


def test_an_activation_on_the_logits_is_pointed_out():
    head = "  - [1, GlobalAvgPool, []]\n  - [1, {}]\n  - [1, Flatten, []]\n"
    for last in ("FixedConv, [6, 1]", "Conv, [6, 1, 1, null, 1, ReLU]", "FixedConv, {channels: 6, kernel: 1}"):
        found = SearchSpace.read("backbone:\n  - [1, Conv, [8, 3]]\n" + head.format(last))
        assert found.notes == ("backbone[2]: ReLU cuts the logits off below zero; null is no activation",), last
    for last in ("FixedConv, [6, 1, 1, 0, 1, null]", "FixedConv, {channels: 6, kernel: 1, activation: GELU|null}"):
        assert SearchSpace.read("backbone:\n  - [1, Conv, [8, 3]]\n" + head.format(last)).notes == ()


def test_unknown_notes_of_other_programs_are_passed_over_and_said():
    found = SearchSpace.read(SEED + "INPUT_SIZE: 48\nlogger: {level: info}\n")
    assert found.notes == ("key 'logger' means nothing to archtuna and is passed over",)
    assert found.input_sizes() == ((48, 48),)


def test_the_key_forgets_comments_and_the_order_of_keys():
    one = SearchSpace.read("input_size: 16\nbackbone: [[1, Flatten, []]] # x\n")
    two = SearchSpace.read("backbone:\n  - [1, Flatten, []]\ninput_size: 16\n")
    assert one.key == two.key != one.with_input_size(32).key


def test_smallest_and_largest_bound_random_candidates():
    everything = SearchSpace.read(EVERYTHING)
    low, high = (costs_of(c.architecture)["params"] for c in (everything.smallest(), everything.largest()))
    rng = random.Random(1)
    assert all(low <= costs_of(everything.random(rng).architecture)["params"] <= high for _ in range(300))


def test_settings_are_read():
    text = (
        SEED
        + "data: {path: photos, fraction: 0.3}\nobjectives: f1, params\nlimits: {params: 500k, macs: 20M}\nsearch: {time: 90, trials: 5}\n"
    )
    found = SearchSpace.read(text).settings
    assert found.data == {"path": "photos", "fraction": 0.3}
    assert found.objectives == ("f1", "params")
    assert [str(limit) for limit in found.limits] == ["params <= 500000", "macs <= 20000000"]
    assert found.search == {"time": "90", "trials": 5}
