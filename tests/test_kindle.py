"""The two dialects in the wild: files of ours, and the figures that the tools which those files are written for give.

``models/*/figures.json`` holds for each file the parameters, the multiply-accumulates at one or more input sizes, and outputs.
They were made by kindle 0.4.16 and by the practice code of the classic dialect with its forks, in float64, with weights and
pictures that depend on nothing but their shapes (``filled``), so that they also tell apart what no count does: activations,
shortcuts, the order of a concatenation.
"""

import json
import math
import sys
from pathlib import Path

import pytest
import torch

from archtuna.costs import costs_of
from archtuna.errors import ShapeError, SpecError
from archtuna.model import build
from archtuna.registry import BLOCKS
from archtuna.space import SearchSpace

MODELS = Path(__file__).parent / "models"
FIGURES = {
    (dialect, name): figures
    for dialect in ("classic", "kindle")
    for name, figures in json.loads((MODELS / dialect / "figures.json").read_text()).items()
}


@pytest.fixture(autouse=True)
def in_the_folder_of_the_files(monkeypatch):
    monkeypatch.chdir(MODELS / "kindle")


def filled(model):
    """Return the model with weights that depend on their shape alone, whatever their names and order are."""
    model = model.double().eval()
    with torch.no_grad():
        for p in model.parameters():
            i = torch.arange(p.numel(), dtype=torch.float64)
            if p.dim() >= 2:
                value = torch.sin(0.37 * i + 0.1) * math.sqrt(3 * p.shape[0] / p.numel())
            else:
                value = 0.2 + 0.6 * torch.cos(1.3 * i + 0.5)
            p.copy_(value.view_as(p))
    return model


def picture(channels, height, width):
    return (torch.sin(0.013 * torch.arange(channels * height * width, dtype=torch.float64)) + 0.1).view(
        1, channels, height, width
    )


@pytest.mark.parametrize(("dialect", "name"), FIGURES, ids=lambda value: value)
def test_a_file_gives_what_its_own_tool_gives(dialect, name):
    figures = FIGURES[dialect, name]
    file = MODELS / dialect / f"{name}.yaml"
    for height, width, macs in figures["runs"]:
        architecture = SearchSpace.read(file, input_size=(height, width)).default().architecture
        assert (costs_of(architecture)["params"], costs_of(architecture)["macs"]) == (figures["params"], macs)
    probe = figures.get("probe")
    if probe is None:
        return
    architecture = SearchSpace.read(file, input_size=tuple(probe["size"])).default().architecture
    with torch.inference_mode():
        y = filled(build(architecture))(picture(architecture.input_channels, *architecture.input_size)).flatten()
    scale = probe["abs_mean"]
    assert y.abs().mean().item() == pytest.approx(scale, rel=1e-6)
    assert y[: len(probe["first"])].tolist() == pytest.approx(probe["first"], abs=1e-6 * scale)


def test_the_figures_cover_every_module_of_both_dialects():
    texts = " ".join(path.read_text() for path in MODELS.rglob("*.yaml"))
    named = {name for name in BLOCKS if f"{name}," in texts or f'"{name}"' in texts}
    own = {
        "ConvNeXtBlock", "RepVGGBlock", "PatchEmbedding", "TransformerBlock", "AttentionPool", "LayerNorm2d", "SE", "ECA",
        "GlobalMaxPool", "Dropout", "PreTrained", "PreTrainedFeatureMap", "FixedCR",
    }  # fmt: skip
    assert set(BLOCKS) - named - own == {"InvertedResidualv2", "InvertedResidualv3"} - named


HEAD = "[-1, 1, GlobalAvgPool, []], [-1, 1, Flatten, []], [-1, 1, Linear, [4]]"


def kindle(rows, *, top="", head=""):
    return SearchSpace.read(f"input_size: [32, 32]\n{top}backbone: [{rows}, {HEAD}]\n{head}")


def rows(space, decisions=None):
    return [(row.module, dict(row.arguments)) for row in space.candidate(decisions or {}).architecture.rows[:-3]]


@pytest.mark.parametrize(
    ("row", "path", "message"),
    [
        ("[-1, 1, Cnov, [8, 3]]", "backbone[1].module", "no block is named 'Cnov'\nhint: did you mean 'Conv'?"),
        ("[-1, 1, YOLOHead, [80]]", "backbone[1].module", "YOLOHead is a detection head, and archtuna builds classifiers: detection is not read"),
        ("[1, 1, Conv, [8, 3]]", "backbone[1].from", "row 1 cannot take from row 1\nhint: a row takes from rows above it"),
        ("[7, 1, Conv, [8, 3]]", "backbone[1].from", "row 1 cannot take from row 7"),
        ("[-3, 1, Conv, [8, 3]]", "backbone[1].from", "row 1 has no row 3 before it\nhint: -1 is the row before"),
        ("['-1', 1, Conv, [8, 3]]", "backbone[1].from", "must be the number of a row, not '-1'"),
        ("[[], 1, Concat, []]", "backbone[1].from", "'from' names no row"),
        ("[[0, -1], 1, Conv, [8, 3]]", "backbone[1]", "Conv takes one row, not 2\nhint: join them first"),
        ("[-1, 1, Add, []]", "backbone[1]", "Add takes two or more rows"),
        ("[-1, 1, Conv, [8, 3], {bias: false}]", "backbone[1].bias", "unknown argument of Conv"),
        ("[-1, 1, Conv, [8, 3], 4]", "backbone[1][4]", "the fifth item of a row is a mapping of arguments"),
        ("[-1, 1, Conv, [8, 3], {}, 6]", "backbone[1]", "a row of this file has 4 or 5 items, not 6"),
        ("[-1, 1, Conv]", "backbone[1]", "a row of this file has 4 or 5 items, not 3"),
        ("[-1, 1, Conv, [8, 3, 1, None]]", "backbone[1].padding", "not 'None'\nhint: write null for none"),
        ("[-1, 1, nn.Conv9d, [8, 3]]", "backbone[1].module", "no block is named 'nn.Conv9d'"),
        ("[-1, 1, nn.Conv2d, [8]]", "backbone[1]", "nn.Conv2d needs 'kernel_size'"),
        ("[-1, 1, YamlModule, []]", "backbone[1]", "YamlModule names a file first"),
        ("[-1, 1, YamlModule, [sub/nothing.yaml]]", "backbone[1][3][0]", "no such file: sub/nothing.yaml\nhint: looked in "),
        ("[-1, 1, YamlModule, [sub/same.yaml, 8, 9]]", "backbone[1]", "sub/same.yaml takes at most 1 arguments, not 2"),
        ("[[0, -1], 1, YamlModule, [sub/same.yaml, 8]]", "backbone[1]", "YamlModule takes one row"),
        ("[-1, 1, YamlModule, [figures.json]]", "figures.json", "no 'module'\nhint: a file of rows lists them under module:"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_row_is_one_error_with_its_place(row, path, message):
    with pytest.raises(SpecError) as caught:
        kindle(f"[-1, 1, Conv, [8, 3]], {row}")
    assert path in str(caught.value)
    assert message in str(caught.value)


def test_files_of_rows_point_at_their_own_mistakes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "block.yaml").write_text(
        "args: [8]\nmodule:\n  - [-1, 1, Conv, [arg0, 3]]\n  - [-1, 1, Conv, [8, x]]\n"
    )
    with pytest.raises(SpecError, match=r"^block.yaml:4: module\[1\].kernel: must be a whole number"):
        kindle("[-1, 1, YamlModule, [block.yaml]]")
    (tmp_path / "block.yaml").write_text("module: [[-1, 1, Conv, [arg1, 3]]]\n")
    with pytest.raises(SpecError, match=r"'arg1' has no value\nhint: the file lists 0 under args"):
        kindle("[-1, 1, YamlModule, [block.yaml]]")
    with pytest.raises(SpecError, match=r"^block.yaml:1: this is a file of rows\nhint: name it in a model file"):
        SearchSpace.read("block.yaml")


def test_a_file_that_names_itself_ends_in_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop.yaml").write_text("module: [[-1, 1, YamlModule, [loop.yaml]]]\n")
    with pytest.raises(SpecError, match="files of rows name each other more than 8 deep"):
        kindle("[-1, 1, YamlModule, [loop.yaml]]")
    (tmp_path / "wide.yaml").write_text(f"module: [{', '.join(['[-1, 1, YamlModule, [wider.yaml]]'] * 90)}]\n")
    (tmp_path / "wider.yaml").write_text(f"module: [{', '.join(['[-1, 1, Conv, [8, 1]]'] * 90)}]\n")
    with pytest.raises(SpecError, match="more than 3,000 rows"):
        kindle("[-1, 1, YamlModule, [wide.yaml]]")


def test_files_of_rows_travel_with_the_space(tmp_path, monkeypatch):
    space = SearchSpace.read(MODELS / "kindle" / "yaml_nested.yaml")
    assert set(space.modules) == {"sub/outer.yaml", "sub/same.yaml", "sub/incept.yaml", "sub/plain.yaml"}
    monkeypatch.chdir(tmp_path)
    again = SearchSpace.read(space.text)
    assert again.default().architecture.key == space.default().architecture.key
    assert again.key == space.key
    assert again.text == space.text


def test_an_emoji_in_a_file_of_rows_travels_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "# \U0001f525 und \xfc, \\ud83d\\udd25\nmodule: [[-1, 1, Conv, [8, 3]]]\n"
    (tmp_path / "fire.yaml").write_text(text, encoding="utf-8")
    space = kindle("[-1, 1, YamlModule, [fire.yaml]]")
    assert space.text.isascii()
    assert SearchSpace.read(space.text).modules == {"fire.yaml": text}
    # A file in braces is written anew, and so is plain data.
    braces = f"{{backbone: [[-1, 1, YamlModule, [fire.yaml]], {HEAD}]}}\n"
    assert SearchSpace.read(SearchSpace.read(braces).text).modules == {"fire.yaml": text}
    data = {"backbone": SearchSpace.read(braces).plain["backbone"], "modules": {"fire.yaml": text}}
    assert SearchSpace.read(SearchSpace.read(data).text).modules == {"fire.yaml": text}


def test_a_wrong_divisor_in_a_file_of_rows_is_pointed_at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "block.yaml").write_text("channel_divisor: 0\nmodule: [[-1, 1, Conv, [8, 3]]]\n")
    with pytest.raises(SpecError, match=r"^block\.yaml:1: channel_divisor: must be a whole number of at least 1"):
        kindle("[-1, 1, YamlModule, [block.yaml]]")


def test_vary_takes_the_place_of_a_choice_in_a_list():
    space = kindle("[-1, 1, Conv, [8, 3|5]]", head="vary: [{rows: Conv, kernel_size: 7|9}]\n")
    assert [(choice.name, str(choice)) for choice in space.choices] == [("backbone.0.kernel_size", "7|9")]
    assert [a["kernel"] for _, a in rows(space, {"backbone.0.kernel_size": 9})] == [9]


def test_a_choice_as_an_argument_of_a_file_is_one_decision(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "twice.yaml").write_text(
        "args: [8, 3]\nmodule: [[-1, 1, Conv, [arg0, arg1]], [-1, 1|2, Conv, [arg0, 1]]]\n"
    )
    space = kindle("[-1, 1..2, YamlModule, [twice.yaml, 8|16, 3]]")
    assert [choice.name for choice in space.choices] == [
        "backbone.0.repeat",
        "backbone.0.arg0",
        "backbone.0.module.1.repeat",
    ]
    assert space.size == 2 * 2 * 2
    decisions = {"backbone.0.arg0": 16, "backbone.0.repeat": 2}
    assert [a["channels"] for _, a in rows(space, decisions)] == [16] * 4


def test_any_value_of_a_row_can_be_a_choice():
    space = kindle(
        "[-1, 1, Conv, [8|16, 3]], [-1, 1..3, C3, [16]], [0|1, 1, Conv|DWConv, [16, 3|5], {activation: ReLU|SiLU}]",
        head="vary: [{rows: Conv, stride: 1|2}]\n",
    )
    assert [choice.name for choice in space.choices] == [
        "backbone.0.channels", "backbone.0.stride", "backbone.1.repeat", "backbone.2.from", "backbone.2.module",
        "backbone.2.kernel", "backbone.2.activation", "backbone.2.stride",
    ]  # fmt: skip
    skipped = space.candidate({"backbone.2.from": 0})
    assert [row.module for row in skipped.architecture.rows] == ["Conv", "Conv", "GlobalAvgPool", "Flatten", "Linear"]
    deep = dict(rows(space, {"backbone.2.from": 1, "backbone.1.repeat": 3}))["C3"]
    assert deep["repeats"] == 3


def test_what_kindle_passes_over_is_said():
    notes = kindle(
        "[-1, 1, Conv, [8, 3]], [-1, 3, Bottleneck, [8]], [-1, 1, C3, [8, False]], [-1, 1, Conv, [8, 3, 1, 1, 1, ReLU, 9]]"
    ).notes
    assert notes == (
        "backbone[1]: kindle builds Bottleneck once, not 3 times",
        "backbone[2]: kindle passes over the second argument of C3; name what is meant: {shortcut: false}",
        "backbone[3]: kindle passes over what follows 6 arguments of Conv",
    )


def test_widths_are_rounded_up_and_left_alone_in_the_head():
    space = SearchSpace.read(
        "input_size: [8, 8]\nwidth_multiple: 0.5\nchannel_divisor: 4\nbackbone: [[-1, 1, Conv, [17, 1]]]\n"
        "head: [[-1, 1, Conv, [17, 1]], [-1, 1, GlobalAvgPool, [1]]]\n"
    )
    assert [
        a["channels"] for m, a in ((r.module, r.arguments) for r in space.default().architecture.rows) if m == "Conv"
    ] == [
        12,
        17,
    ]


def test_code_needs_the_users_consent(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_layers.py").write_text(
        "from torch import nn\n"
        "class Doubling(nn.Module):\n"
        "    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3):\n"
        "        super().__init__()\n"
        "        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size)\n"
        "    def forward(self, x):\n"
        "        return self.conv(x)\n"
    )
    text = f"custom_module_paths: own_layers\ninput_size: [8, 8]\nbackbone: [[-1, 1, Doubling, [8, 3]], {HEAD}]\n"
    with pytest.raises(
        SpecError, match=r"the file wants to run code: its blocks are in own_layers\nhint: .*--import own_layers"
    ):
        SearchSpace.read(text)
    from archtuna.registry import import_modules

    try:
        assert import_modules(["own_layers"]) == ("own_layers",)
        assert costs_of(SearchSpace.read(text).default().architecture)["params"] == 8 * 27 + 8 + 4 * 8 + 4
        halved = SearchSpace.read(f"width_multiple: 0.5\n{text.replace('[8, 3]', '[32, 3]')}")
        assert halved.default().architecture.rows[0].arguments["out_channels"] == 16
    finally:
        BLOCKS._entries.pop("Doubling", None)
        sys.modules.pop("own_layers", None)


def test_maps_that_do_not_meet_name_both_rows():
    space = kindle("[-1, 1, Conv, [8, 3]], [-1, 1, Conv, [24, 3, 2]], [[-1, 0], 1, Concat, []]")
    with pytest.raises(
        ShapeError,
        match=r"its inputs do not meet: backbone\[1\] \(Conv\) gives 24 channels, 16x16 pixels; backbone\[0\]",
    ):
        space.default()


def test_a_key_of_the_other_dialect_is_refused():
    with pytest.raises(SpecError, match=r"'head' belongs to rows of the form \[from, repeat"):
        SearchSpace.read("backbone: [[1, Flatten, []]]\nhead: []\n")
    with pytest.raises(SpecError, match=r"channel_divisor: must be a whole number of at least 1"):
        kindle("[-1, 1, Conv, [8, 3]]", top="channel_divisor: 0\n")
