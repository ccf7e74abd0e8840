"""A model as plain PyTorch, which runs where archtuna is not installed."""

import importlib
import json
import math
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

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


ORDINARY = """
import math
import torch.nn as nn
import torch.nn.functional as F
from dataclasses import dataclass
from typing import Optional, Tuple, Union

import archtuna as at

LOWEST = float("-inf")
Pair = Union[int, Tuple[int, int]]


@dataclass
class Sizes:
    inner: int
    outer: Optional[int] = None


@at.block
class Ordinary(nn.Module):
    \"""As people write blocks.\"""

    def __init__(self, in_channels: int, kernel: int = 3):
        super().__init__()
        sizes = Sizes(in_channels)
        side: Pair = kernel
        self.conv = nn.Conv2d(in_channels, sizes.inner, side, padding=kernel // 2)

    def forward(self, x):
        return F.relu(self.conv(x)).clamp(LOWEST, math.inf)
"""


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Write a module of blocks of one's own, and import it."""
    before = set(BLOCKS)

    def write(text: str) -> None:
        (tmp_path / "my_ordinary.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
        importlib.import_module("my_ordinary")

    yield write
    for name in ("my_ordinary", "my_package", "my_package.blocks", "my_package.types_"):
        sys.modules.pop(name, None)
    for name in set(BLOCKS) - before:
        del BLOCKS._entries[name]


def test_a_block_as_people_write_them_stands_beside_ours(written: Callable[[str], None], tmp_path: Path) -> None:
    written(ORDINARY)
    rows = (Row("Conv", {"channels": 4, "kernel": 3}), Row("Ordinary"), Row("GlobalAvgPool"), Row("Flatten"))
    model = build(Architecture(rows, 3, (8, 8))).eval()
    export(model, tmp_path / "net.py")
    code = (tmp_path / "net.py").read_text()
    assert code.count("import nn\n") + code.count(", nn\n") == 1
    assert "torch.nn as nn" not in code
    assert "from torch.nn import functional as F\n" in code
    assert "Pair = Union[int, Tuple[int, int]]\n" in code
    script = "import sys; sys.modules['archtuna'] = None; import net, torch; print(net.load()(torch.zeros(1, 3, 8, 8)).shape)"
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)


def test_an_alias_may_come_from_another_file_of_the_package(written: Callable[[str], None], tmp_path: Path) -> None:
    package = tmp_path / "my_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "types_.py").write_text("from typing import Tuple, Union\n\nPair = Union[int, Tuple[int, int]]\n")
    own = "Pair = Union[int, Tuple[int, int]]\n"
    (package / "blocks.py").write_text(
        ORDINARY.replace(own, "from .types_ import Pair\n").replace("Ordinary", "Packed")
    )
    written(ORDINARY.replace("class Sizes", "class Others").replace("Sizes(", "Others("))
    importlib.import_module("my_package.blocks")
    rows = (Row("Packed"), Row("Ordinary"), Row("GlobalAvgPool"), Row("Flatten"))
    export(build(Architecture(rows, 3, (8, 8))).eval(), tmp_path / "net.py")
    assert (tmp_path / "net.py").read_text().count(own) == 1, "two files that call one thing alike do not differ"


def test_several_threads_may_export(tmp_path: Path, network: Network) -> None:
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda i: export(network, tmp_path / f"net{i}.py"), range(12)))
    assert all(one.max_difference == 0 for one in done)


def test_what_the_file_imports_itself_is_not_somebody_elses(written: Callable[[str], None], tmp_path: Path) -> None:
    written(ORDINARY.replace("class Ordinary", "class Path"))
    model = build(Architecture((Row("Path"), Row("GlobalAvgPool"), Row("Flatten")), 3, (8, 8))).eval()
    with pytest.raises(ExportError, match="'Path' is one thing in from pathlib import Path and another in my_ordinary"):
        export(model, tmp_path / "net.py")


def test_code_that_does_not_run_is_not_laid_at_a_row(written: Callable[[str], None], tmp_path: Path) -> None:
    written(ORDINARY.replace("inner: int", "inner: int = 0 if __name__ == 'my_ordinary' else undefined"))
    model = build(
        Architecture((Row("Conv", {"channels": 4, "kernel": 3}), Row("Ordinary"), Row("Flatten")), 3, (8, 8))
    ).eval()
    with pytest.raises(ExportError, match=r"the plain PyTorch export failed \(NameError: name 'undefined'"):
        export(model, tmp_path / "net.py")


def test_a_rows_name_is_not_that_of_another_output(tmp_path: Path) -> None:
    torch.manual_seed(0)
    rows = (
        Row("Conv", {"channels": 3, "kernel": 3}, name="x1"), Row("Conv", {"channels": 3, "kernel": 3}), Row("Add", {}, inputs=(1, 0)),
        Row("GlobalAvgPool"), Row("Flatten"),
    )  # fmt: skip
    assert export(build(Architecture(rows, 3, (8, 8))).eval(), tmp_path / "net.py").max_difference == 0


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["uint16", "float32", "int32"])
def test_pictures_of_more_bits_are_prepared_as_in_training(channels: int, kind: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((9, 7))
    values = values.astype(kind) if kind == "float32" else (values * 60_000).astype(kind)
    Image.fromarray(values).save(tmp_path / "picture.tif")
    preprocess = Preprocess((8, 8), channels, "resize", None, (0.5,) * channels, (0.25,) * channels)
    rows = (Row("Conv", {"channels": 4, "kernel": 3}), Row("GlobalAvgPool"), Row("Flatten"))
    model = build(Architecture(rows, channels, (8, 8))).eval()
    model.preprocess = preprocess  # type: ignore[assignment]
    namespace: dict[str, Any] = {"__name__": "net", "__file__": "net.py"}
    exec(code_of(model), namespace)
    found = namespace["preprocess"](tmp_path / "picture.tif")
    torch.testing.assert_close(found, preprocess(tmp_path / "picture.tif"), atol=1e-6, rtol=0)
    assert found.std() > 0.1


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
        ExportError, match="row 0 .PreTrained. cannot be exported to plain PyTorch\nhint: formats that can"
    ):
        export(model, tmp_path / "net.py")


def test_names_that_the_file_needs_are_refused() -> None:
    with pytest.raises(ExportError, match="'load' is one thing in the file itself and another in archtuna.checkpoint"):
        lift([at.load], ["archtuna"], taken={"load": "the file itself"})


@pytest.mark.parametrize(
    "value",
    [
        3,
        -0.5,
        True,
        None,
        "text",
        'two "quotes" and \\ and \n',
        "ü—😀",
        "\udc80",
        (1,),
        (1, (2, 3)),
        [],
        [1, "a"],
        -math.inf,
    ],
)
def test_a_literal_reads_back_as_what_it_was(value: object) -> None:
    assert eval(literal(value)) == value
