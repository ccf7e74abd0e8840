"""A model as plain PyTorch, which runs where archtuna is not installed."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import archtuna as at
from archtuna.architecture import Architecture, Row
from archtuna.data import Preprocess
from archtuna.errors import ExportError
from archtuna.exports import export
from archtuna.exports.lifting import lift, literal
from archtuna.exports.module import WEIGHTS, code_of
from archtuna.model import Network, build
from archtuna.registry import BLOCKS
from archtuna.space import SearchSpace
from zoo import COVERED, network_with

GRAPH = """\
input_channel: 3
input_size: 16
backbone:
  - [1, Conv, [8, 3, 2], {name: stem}]
  - [2, Conv, [8, 3], {name: deep}]
  - [1, Add, {from: [deep, stem]}]
  - [1, RepVGGBlock, [8]]
  - [1, nn.Conv2d, [8, 1]]
  - [1, GlobalAvgPool, []]
  - [1, Flatten, []]
  - [1, Linear, [3]]
"""
CLASSES = ("glass", "paper — old", 'a "quoted" one')
BLOCKED = """\
import sys
class Blocker:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] in ("archtuna", "optuna", "yaml", "safetensors"):
            raise ImportError(f"{name} is not to be imported")
sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(1)
    model = build(SearchSpace.read(GRAPH).default().architecture)
    with torch.no_grad():
        model.train()(torch.randn(16, 3, 16, 16))
    model.classes = CLASSES  # type: ignore[assignment]
    model.preprocess = Preprocess((16, 16), 3, "pad", (32, 32), (0.5, 0.4, 0.3), (0.2, 0.2, 0.1))  # type: ignore[assignment]
    return model.eval()


def alone(folder: Path, code: str) -> str:
    """What code prints in a process that finds torch, and nothing of archtuna."""
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED + textwrap.dedent(code)], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_module_gives_the_models_outputs_without_archtuna(tmp_path: Path, network: Network) -> None:
    done = export(network, tmp_path / "net.py")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.py", f"net{WEIGHTS}"]
    assert done.bytes == sum(p.stat().st_size for p in tmp_path.iterdir())
    assert (done.format, done.max_difference) == ("module", 0.0)
    x = torch.randn(5, 3, 16, 16)
    np.save(tmp_path / "x.npy", x.numpy())
    code = """\
        import json, numpy, torch, net
        model = net.load()
        assert not model.training
        print(json.dumps({"logits": model(torch.from_numpy(numpy.load("x.npy"))).tolist(), "classes": net.CLASSES}))
    """
    found = json.loads(alone(tmp_path, code))
    torch.testing.assert_close(torch.tensor(found["logits"]), network(x).detach(), rtol=0, atol=1e-6)
    assert tuple(found["classes"]) == CLASSES


def test_a_module_classifies_pictures_from_a_shell(tmp_path: Path, network: Network) -> None:
    export(network, tmp_path / "net.py")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 70, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    code = """\
        import runpy, sys
        sys.argv = ["net.py", "a.png"]
        runpy.run_path("net.py", run_name="__main__")
    """
    prepared = network.preprocess(tmp_path / "a.png")  # type: ignore[operator]
    probabilities = network(prepared[None]).softmax(1)[0]
    best = int(probabilities.argmax())
    assert alone(tmp_path, code) == f"a.png: {CLASSES[best]} {probabilities[best]:.3f}\n"


@pytest.mark.parametrize(
    "preprocess",
    [
        Preprocess((16, 16), 3, "pad", (32, 32), (0.5, 0.4, 0.3), (0.2, 0.2, 0.1)),
        Preprocess((12, 16), 3, "resize", None, (0.5, 0.4, 0.3), (0.2, 0.2, 0.1)),
        Preprocess((16, 16), 1, "resize", (20, 20), (0.5,), (0.2,)),
    ],
    ids=["pad", "oblong", "grey"],
)
def test_a_module_prepares_pictures_as_training_does(tmp_path: Path, preprocess: Preprocess) -> None:
    rows = (Row("Conv", {"channels": 4, "kernel": 3, "stride": 1, "padding": 1, "groups": 1, "activation": None}),)
    model = build(Architecture((*rows, Row("GlobalAvgPool", {"output_size": 1})), preprocess.channels, preprocess.size))
    model.preprocess = preprocess  # type: ignore[assignment]
    namespace: dict = {"__name__": "net", "__file__": "net.py"}
    exec(code_of(model), namespace)
    draws = np.random.default_rng(0)
    for mode, shape in (("L", (30, 50)), ("RGB", (50, 30, 3)), ("RGBA", (16, 16, 4))):
        Image.fromarray(draws.integers(0, 256, shape, dtype=np.uint8), mode=None).save(tmp_path / f"{mode}.png")
        found = namespace["preprocess"](tmp_path / f"{mode}.png")
        torch.testing.assert_close(found, preprocess(tmp_path / f"{mode}.png"), rtol=0, atol=2e-6)


def test_a_module_is_readable_code(network: Network) -> None:
    code = code_of(network)
    assert "archtuna" not in code
    assert "@block" not in code
    assert "type: ignore" not in code
    assert max(map(len, code.splitlines())) <= 127
    for line in (
        'Conv(in_channels=3, channels=8, kernel=3, stride=2, padding=1, groups=1, activation="ReLU"),',
        "stem = self.layers[0](x)",
        "x1 = self.layers[1](stem)",
        "deep = self.layers[2](x1)",
        "x3 = self.layers[3](deep, stem)",
        "            nn.Conv2d(",
    ):
        assert line in code


def test_the_whole_zoo_fits_into_one_module() -> None:
    network = network_with(*COVERED)
    namespace: dict = {"__name__": "zoo", "__file__": "zoo.py"}
    exec(code_of(network), namespace)
    model = namespace["Model"]()
    assert [*model.state_dict()] == [*network.state_dict()]
    model.load_state_dict(network.state_dict())
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(model.eval()(x), network(x))


@pytest.fixture
def own_blocks():
    before = dict(BLOCKS._entries)
    yield
    BLOCKS._entries.clear()
    BLOCKS._entries.update(before)


SCALES = {"one": 1.0}
FACTOR = 3


def test_blocks_of_ones_own_are_taken_over(own_blocks: None) -> None:
    @at.block
    class Inner(nn.Module):
        """Defined in a function, where no other code could find it."""

        def forward(self, x: Tensor) -> Tensor:
            return x

    with pytest.raises(ExportError, match="the code of 'Inner' of test_exports_module cannot be found"):
        code_of(build(Architecture((Row("Inner"), Row("GlobalAvgPool", {"output_size": 1})), 3, (8, 8))))


def triple(x: Tensor) -> Tensor:
    return FACTOR * x


class Tripled(nn.Module):
    """Uses a function and a number of its file."""

    def forward(self, x: Tensor) -> Tensor:
        return triple(x)


class Scaled(nn.Module):
    """Uses a value that is more than a number or a text."""

    def forward(self, x: Tensor) -> Tensor:
        return SCALES["one"] * x


def test_what_a_block_uses_of_its_file_comes_with_it(own_blocks: None) -> None:
    at.block(Tripled)
    model = build(Architecture((Row("Tripled"), Row("GlobalAvgPool", {"output_size": 1})), 3, (8, 8)))
    code = code_of(model)
    assert "\nFACTOR = 3\n" in code
    namespace: dict = {"__name__": "net", "__file__": "net.py"}
    exec(code, namespace)
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(namespace["Model"]()(x), model(x))


def test_a_value_that_cannot_be_written_down_is_named(own_blocks: None, tmp_path: Path) -> None:
    at.block(Scaled)
    model = build(Architecture((Row("Scaled"), Row("GlobalAvgPool", {"output_size": 1})), 3, (8, 8)))
    with pytest.raises(ExportError, match="test_exports_module needs 'SCALES', which cannot be written down"):
        export(model, tmp_path / "net.py")
    assert not list(tmp_path.iterdir())


def test_two_things_of_one_name_are_refused() -> None:
    class Other:
        pass

    Other.__name__, Other.__module__ = "Conv", __name__
    with pytest.raises(ExportError, match="'Conv' is one thing in archtuna.blocks.convolution and another in test_exp"):
        lift([BLOCKS["Conv"].target, Other], ["archtuna", __name__])


def test_a_block_that_cannot_be_taken_over_is_refused_with_formats_that_can_hold_it(tmp_path: Path) -> None:
    model = nn.Identity()
    model.architecture = Architecture((Row("PreTrained", {"model": "resnet18"}),), 3, (8, 8))  # type: ignore[assignment]
    with pytest.raises(
        ExportError, match="row 0 .PreTrained. cannot be exported to a PyTorch module\nhint: formats that can"
    ):
        export(model, tmp_path / "net.py")


def test_names_that_the_file_needs_are_refused() -> None:
    with pytest.raises(ExportError, match="'load' is one thing in the file itself and another in archtuna.checkpoint"):
        lift([at.load], ["archtuna"], reserved=["load"])


@pytest.mark.parametrize(
    "value", [3, -0.5, True, None, "text", 'two "quotes" and \\ and \n', "ü—😀", (1,), (1, (2, 3)), [], [1, "a"]]
)
def test_a_literal_reads_back_as_what_it_was(value: object) -> None:
    assert eval(literal(value)) == value
