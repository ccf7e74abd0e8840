"""Blocks of one's own: classes, functions, whole models, joins, plug-ins of installed packages, and modules to import."""

import json
import subprocess
import sys
from typing import Literal

import pytest
import torch
from torch import nn

import archtuna as at
import forked
from archtuna.checkpoint import load, save
from archtuna.data import Preprocess
from archtuna.errors import BlockImportError, CheckpointError, ShapeError, SpecError
from archtuna.model import build
from archtuna.recipe import Recipe
from archtuna.registry import BLOCKS, Registry, UnknownNameError, import_modules
from archtuna.space import SearchSpace
from pictures import folder

HEAD = "[1, GlobalAvgPool, []], [1, Flatten, []], [1, Linear, [3]]"

MODULE = '''
import archtuna
from torch import nn


@archtuna.block
class Wide(nn.Module):
    """A convolution with a parallel 1x1."""

    def __init__(self, in_channels: int, channels: int, kernel: int = 3, stride: int = 1):
        super().__init__()
        self.a = nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2)
        self.b = nn.Conv2d(in_channels, channels, 1, stride)

    def forward(self, x):
        return (self.a(x) + self.b(x)).relu()
'''

SEARCH = f"""\
input_size: 16
backbone: [[1, Wide, [8|16, 3, 2]], {HEAD}]
training: {{epochs: 1, batch_size: 16}}
objectives: [f1, params]
search: {{trials: 2}}
"""


@pytest.fixture(autouse=True)
def forget():
    """Take back what a test registers."""
    before = dict(BLOCKS._entries)
    yield
    BLOCKS._entries.clear()
    BLOCKS._entries.update(before)


def architecture(row, *, head=HEAD, size=16):
    return (
        SearchSpace.read(f"input_size: {size}\nbackbone: [{row}{', ' + head if head else ''}]\n").default().architecture
    )


def test_a_whole_model_and_a_function_that_returns_one_are_blocks():
    @at.block(in_channels="in_chans")
    class Net(nn.Sequential):
        """A small classifier."""

        def __init__(self, classes: int, in_chans: int = 3, width=8, norm=nn.BatchNorm2d):
            super().__init__(
                nn.Conv2d(in_chans, width, 3),
                norm(width),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(width, classes),
            )

    @at.block
    def net(classes: int, depth: Literal["shallow", "deep"] = "shallow") -> nn.Module:
        """The same, by a function."""
        return Net(classes, width={"shallow": 4, "deep": 12}[depth])

    space = SearchSpace.read("input_size: 16\nbackbone: [[1, Net, {classes: 3, width: 4|8}]]\n")
    assert [p.name for p in BLOCKS["Net"].parameters] == ["classes", "width"]
    sizes = [at.costs_of(space.candidate({"backbone.0.width": w}).architecture)["params"] for w in (4, 8)]
    assert sizes == [4 * 27 + 4 + 8 + 15, 8 * 27 + 8 + 16 + 27]
    model = build(architecture("[1, net, {classes: 3, depth: deep}]", head=""))
    assert model(torch.zeros(2, 3, 16, 16)).shape == (2, 3)
    assert BLOCKS["net"].meaning == "The same, by a function."


def test_a_block_of_several_inputs_is_told_all_of_their_channels():
    @at.block
    class Mixed(nn.Module):
        def __init__(self, in_channels: tuple[int, ...], channels: int):
            super().__init__()
            self.convs = nn.ModuleList(nn.Conv2d(n, channels, 1) for n in in_channels)

        def forward(self, *maps):
            return sum(conv(x) for conv, x in zip(self.convs, maps, strict=True))

    @at.block
    class Gate(nn.Module):
        def forward(self, x, gate):
            return x * gate.sigmoid()

    assert (BLOCKS["Mixed"].inputs, BLOCKS["Gate"].inputs) == (None, 2)
    found = SearchSpace.read(
        "input_size: 8\nbackbone:\n"
        "  - [1, Conv, [8, 3], {name: a}]\n  - [1, Conv, [16, 3], {name: b}]\n  - [1, Mixed, [8], {from: [a, b], name: m}]\n"
        f"  - [1, Gate, [], {{from: [m, a]}}]\n  - {'[1, GlobalAvgPool, []]'}\n  - [1, Flatten, []]\n  - [1, Linear, [3]]\n"
    ).default()
    assert build(found.architecture)(torch.zeros(2, 3, 8, 8)).shape == (2, 3)
    with pytest.raises(SpecError, match="Gate takes 2 rows, not 1"):
        architecture("[1, Gate, []]")


def test_a_block_that_looks_at_values_is_measured_on_the_processor():
    @at.block
    class Peeking(nn.Module):
        def __init__(self, in_channels: int):
            super().__init__()
            self.conv = nn.Conv2d(in_channels, in_channels, 1)

        def forward(self, x):
            return self.conv(x) if float(x.mean()) > 100 else self.conv(x).relu()

    before = torch.random.get_rng_state()
    assert at.costs_of(architecture("[1, Peeking, []]"))["macs"] == 9 * 256 + 9
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise KeyError('depth')", r"does not fit an input of 3 channels, 16x16 pixels \(KeyError: 'depth'\)"),
        ("return 3", "gives int, not a tensor"),
        ("return x.sum()", r"gives a tensor of shape \[\] for one picture: the first axis is the batch's"),
        ("return []", "gives nothing"),
    ],
)
def test_whatever_a_block_of_ones_own_does_wrong_names_its_row(body, message):
    names = {"nn": nn}
    exec(f"class Faulty(nn.Module):\n    def forward(self, x):\n        {body}\n", names)
    at.block(names["Faulty"])
    with pytest.raises(ShapeError, match=rf"row 0 \[1, Faulty, {{}}\]: {message}"):
        architecture("[1, Faulty, []]")


def test_a_function_that_returns_no_module_is_told():
    @at.block
    def nothing(in_channels: int):
        return None

    with pytest.raises(ShapeError, match="nothing gives NoneType, not a torch.nn.Module"):
        architecture("[1, nothing, []]")


def test_a_class_that_replaces_another_is_measured_anew():
    def define(channels):
        @at.block(name="Changing")
        class Changing(nn.Conv2d):
            def __init__(self, in_channels: int):
                super().__init__(in_channels, channels, 1)

    define(4)
    first = at.costs_of(architecture("[1, Changing, []]"))["params"]
    define(8)
    assert at.costs_of(architecture("[1, Changing, []]"))["params"] == first + 4 * 3 + 4 + 4 * 3


def test_an_annotation_that_only_type_checkers_know_is_no_obstacle():
    names = {"nn": nn}
    exec(
        "class Odd(nn.Identity):\n"
        "    def __init__(self, in_channels: 'Elsewhere', size: 'Elsewhere', scale: 'Elsewhere' = 1.5, **more):\n"
        "        super().__init__()\n",
        names,
    )
    at.block(names["Odd"])
    assert [(p.name, p.required) for p in BLOCKS["Odd"].parameters] == [("size", True), ("scale", False)]
    assert architecture("[1, Odd, [3]]").rows[0].arguments == {"size": 3, "scale": 1.5}
    with pytest.raises(TypeError, match="parameter 'layer'"):
        exec(
            "@block\nclass Bad(nn.Module):\n    def __init__(self, layer: nn.Module): ...\n",
            {"nn": nn, "block": at.block},
        )


def test_what_installed_packages_offer_comes_in_by_itself_and_a_broken_one_is_passed_over(
    tmp_path, monkeypatch, caplog
):
    (tmp_path / "offering.py").write_text(MODULE.replace("Wide", "Offered"))
    (tmp_path / "failing.py").write_text("raise RuntimeError('no licence')\n")
    meta = tmp_path / "offering-1.0.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: offering\nVersion: 1.0\n")
    (meta / "entry_points.txt").write_text("[archtuna.blocks]\nOffered = offering\nFailing = failing\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(BLOCKS, "_group", "archtuna.blocks")
    try:
        assert architecture("[1, Offered, [8]]").origins == {"Offered": "offering"}
        assert "'Failing' (failing) cannot be imported: no licence" in caplog.text
        assert isinstance(BLOCKS, Registry)
    finally:
        sys.modules.pop("offering", None)


def test_a_module_that_cannot_be_imported_is_one_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BlockImportError, match=r"no module 'nowhere'\nhint: name a module as Python's import does"):
        import_modules(["nowhere"])
    (tmp_path / "broken.py").write_text("\n\nchannels = 1 / 0\n")
    with pytest.raises(BlockImportError, match=r"'broken' fails with ZeroDivisionError: .*\nhint: .*broken.py, line 3"):
        import_modules(["broken.py"])
    (tmp_path / "needy.py").write_text("import surely_not_there\n")
    with pytest.raises(
        BlockImportError, match="'needy' fails with ModuleNotFoundError: No module named 'surely_not_there'"
    ):
        import_modules(["needy"])


def test_a_file_says_where_its_blocks_come_from_and_imports_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stranger.py").write_text("raise SystemExit('imported')\n")
    text = "blocks: {Strange: stranger}\nbackbone: [[1, Strange, [8]]]\n"
    with pytest.raises(SpecError) as caught:
        SearchSpace.read(text)
    assert str(caught.value) == (
        "1: blocks.Strange: no block is named 'Strange' here; it is one of the module 'stranger'\n"
        "hint: import stranger first; on the command line: --import stranger"
    )
    with pytest.raises(UnknownNameError, match="--import stranger"):
        build(at.Architecture((at.Row("Strange", {}),), 3, (8, 8), {"Strange": "stranger"}))


def test_a_checkpoint_says_which_module_it_needs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "wide_blocks.py").write_text(MODULE)
    try:
        import_modules(["wide_blocks"])
        model = build(architecture("[1, Wide, [8, 3, 2]]")).eval()
        preprocess = Preprocess((16, 16), 3, "resize", None, (0.5,) * 3, (0.25,) * 3)
        metrics = {"loss": 1.0, "accuracy": 0.5, "f1": 0.5}
        save(
            tmp_path / "own.safetensors",
            model,
            classes="abc",
            preprocess=preprocess,
            metrics=metrics,
            recipe=Recipe(),
            data={},
            epoch=1,
        )
        x = torch.randn(2, 3, 16, 16)
        with torch.inference_mode():
            assert torch.equal(load(tmp_path / "own.safetensors")(x), model(x))
        text = model.architecture.to_yaml()
        assert "blocks: {Wide: wide_blocks}" in text
        assert SearchSpace.read(text).default().architecture.key == model.architecture.key
    finally:
        sys.modules.pop("wide_blocks", None)
    del BLOCKS._entries["Wide"]
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path / "own.safetensors")
    assert "no block is named 'Wide' here; it is one of the module 'wide_blocks'" in str(caught.value)
    assert str(caught.value).endswith("hint: import wide_blocks first; on the command line: --import wide_blocks")


def archtuna(*arguments, cwd, fails=False):
    done = forked.archtuna(*arguments, cwd=cwd)
    assert done.returncode == (1 if fails else 0), done.stderr
    return done.stderr if fails else done.stdout


@pytest.mark.slow
def test_blocks_of_ones_own_go_the_whole_way_on_the_command_line(tmp_path):
    (tmp_path / "own_blocks.py").write_text(MODULE)
    (tmp_path / "own.yaml").write_text(SEARCH)
    folder(tmp_path / "photos", each=12)
    own = ("--import", "own_blocks")
    assert "--import MODULE" in archtuna("check", "own.yaml", cwd=tmp_path, fails=True)
    assert json.loads(archtuna("check", "own.yaml", "--json", *own, cwd=tmp_path))["space_size"] == 2
    assert "A convolution with a parallel 1x1." in archtuna("blocks", "Wide", *own, cwd=tmp_path)
    archtuna("search", "own.yaml", "--data", "photos", "--out", "run", "--workers", 2, "--quiet", *own, cwd=tmp_path)
    front = json.loads(archtuna("front", "run", "--json", cwd=tmp_path))
    checkpoint = front[0]["checkpoint"]
    assert "--import own_blocks" in archtuna("evaluate", checkpoint, cwd=tmp_path, fails=True)
    assert "--import own_blocks" in archtuna("show", "run", front[0]["number"], cwd=tmp_path, fails=True)
    assert "--import own_blocks" in archtuna("train", "run", front[0]["number"], cwd=tmp_path, fails=True)
    found = json.loads(archtuna("evaluate", checkpoint, "--json", *own, cwd=tmp_path))
    assert found["f1"] == pytest.approx(front[0]["values"]["f1"], abs=1e-6)
    archtuna("export", checkpoint, "own.ts", *own, cwd=tmp_path)
    assert (tmp_path / "own.ts").stat().st_size > 1000


@pytest.mark.slow
def test_a_block_of_a_script_works_in_its_process_and_says_why_workers_cannot_have_it(tmp_path):
    folder(tmp_path / "photos", each=12)
    script = (
        MODULE
        + f"""
import sys
if __name__ == "__main__":
    study = archtuna.search({SEARCH!r}, data="photos", out="run" + sys.argv[1], workers=int(sys.argv[1]))
    print(len(study.front()))
"""
    )
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run([sys.executable, "script.py", "1"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = subprocess.run([sys.executable, "script.py", "2"], capture_output=True, text=True, cwd=tmp_path)
    assert "several workers cannot import the block 'Wide' from a script" in done.stderr
