"""Every block of the zoo in every format."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import archtuna as at
from archtuna.architecture import Architecture, Row
from archtuna.blocks.cross_stage import BottleneckCSP
from archtuna.blocks.ghost import MixNetBlock
from archtuna.checkpoint import load, save
from archtuna.data import Preprocess
from archtuna.errors import ExportError
from archtuna.exports import FORMATS, artefact, export, unsupported
from archtuna.exports.formats import Source
from archtuna.exports.inference import fold_norms, graph_of
from archtuna.model import Network, build
from archtuna.recipe import Recipe
from archtuna.registry import BLOCKS
from zoo import COVERED, network_with

PREPROCESS = Preprocess((16, 16), 3, "resize", None, (0.5, 0.4, 0.3), (0.2, 0.2, 0.1))
# What traces or copies code takes a moment; the others take seconds whatever is in the network.
QUICK = ("module", "torchscript")
SLOW = [name for name in FORMATS if name not in QUICK and FORMATS[name].missing() is None]
GROUPS = [COVERED[i : i + 5] for i in range(0, len(COVERED), 5)]
REFUSED = [(name, format) for name in COVERED for format in BLOCKS[name].unexportable]
SUFFIX = {name: format.suffixes[0] for name, format in FORMATS.items()}


@pytest.mark.parametrize("block", COVERED)
def test_every_block_survives_a_checkpoint_and_quick_formats(tmp_path: Path, block: str) -> None:
    network = network_with(block)
    save(
        tmp_path / "a.safetensors", network, classes=list("abcd"), preprocess=PREPROCESS, metrics={"loss": 1.0},
        recipe=Recipe(), data={"source": "digits"}, epoch=1,
    )  # fmt: skip
    loaded, x = load(tmp_path / "a.safetensors"), torch.randn(4, 3, 16, 16)
    assert torch.equal(loaded(x), network(x))
    assert loaded.architecture == network.architecture
    assert loaded.architecture.to_yaml() == network.architecture.to_yaml()
    for name in QUICK:
        assert export(loaded, tmp_path / f"a{SUFFIX[name]}").max_difference < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("format", SLOW)
@pytest.mark.parametrize("blocks", GROUPS, ids="-".join)
def test_every_block_exports_to_every_format_that_is_installed(tmp_path: Path, blocks: list[str], format: str) -> None:
    blocks = [name for name in blocks if (name, format) not in REFUSED]
    if not blocks:
        pytest.skip("the blocks say that they cannot be exported so")
    network = network_with(*blocks)
    assert {*blocks} <= {row.module for row in network.architecture.rows}
    assert export(network, tmp_path / f"a{SUFFIX[format]}").max_difference < 1e-5
    if format == "onnx":
        import onnx

        nodes = onnx.load(tmp_path / "a.onnx").graph.node
        assert not [node.name for node in nodes if node.op_type == "BatchNormalization"]


@pytest.mark.slow
@pytest.mark.parametrize(("block", "format"), REFUSED)
def test_what_a_block_says_of_formats_is_so(tmp_path: Path, block: str, format: str, monkeypatch) -> None:
    network = network_with(block)
    assert [name for _, name in unsupported(network.architecture, format)] == [block]
    if FORMATS[format].missing() is not None:
        pytest.skip(f"{format} is not installed")
    with pytest.raises(ExportError, match=rf"row \d+ \({block}\) cannot be exported to {FORMATS[format].title}"):
        export(network, tmp_path / f"a{SUFFIX[format]}")
    # Allowed all the same, it does fail: what a later version can, it is then told to be able to.
    monkeypatch.setitem(BLOCKS._entries, block, replace(BLOCKS[block], unexportable=()))
    with pytest.raises(ExportError, match="export failed"):
        export(network, tmp_path / f"a{SUFFIX[format]}")


@pytest.mark.parametrize(
    "make",
    [lambda: BottleneckCSP(6, 8, repeats=2), lambda: MixNetBlock(6, (3, 5), 2.0, 6, se=True)],
    ids=["CSP", "MixNet"],
)
def test_a_norm_behind_a_join_is_folded_into_what_is_joined(make) -> None:
    torch.manual_seed(0)
    block = make().eval()
    for norm in (m for m in block.modules() if isinstance(m, nn.BatchNorm2d)):
        for tensor in (norm.running_mean, norm.weight, norm.bias):
            nn.init.normal_(tensor)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    merged, x = block.for_inference(), torch.randn(2, 6, 9, 9)
    torch.testing.assert_close(merged(x), block(x), atol=1e-5, rtol=1e-5)
    counts = [sum(isinstance(m, nn.BatchNorm2d) for m in module.modules()) for module in (block, merged)]
    assert counts[0] - counts[1] == 1


@pytest.mark.parametrize("block", COVERED)
def test_no_batch_norm_is_left_to_tracers_behind_a_convolution(block: str) -> None:
    network = network_with(block)
    x = torch.randn(2, 3, 16, 16)
    traced = graph_of(Source(network, x))
    assert not _norms(traced)
    torch.testing.assert_close(traced(x), network(x), atol=1e-5, rtol=1e-5)


def _norms(module: nn.Module) -> list[nn.Module]:
    return [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.mark.parametrize("kind", ["hooked", "of a class of its own", "without statistics", "between them"])
def test_a_batch_norm_stays_where_folding_it_would_not_be_the_same(kind: str) -> None:
    class Own(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * 2

    conv = Own(3, 4, 3) if kind == "of a class of its own" else nn.Conv2d(3, 4, 3)
    norm = nn.BatchNorm2d(4, track_running_stats=kind != "without statistics")
    if kind == "hooked":
        conv.register_forward_hook(lambda module, given, output: output * 2)
    block = nn.Sequential(conv, *([nn.ReLU()] if kind == "between them" else []), norm).eval()
    x = torch.randn(2, 3, 8, 8)
    wanted = block(x)
    fold_norms(block)
    assert _norms(block) == [norm]
    assert torch.equal(block(x), wanted)


class Apart(nn.Module):
    """Takes a Sequential apart, which is then no order of anything."""

    def __init__(self, in_channels: int, how: str) -> None:
        super().__init__()
        self.how = how
        self.body = nn.Sequential(nn.Conv2d(in_channels, in_channels, 3, padding=1), nn.BatchNorm2d(in_channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        conv, norm = self.body
        if self.how == "between":
            return norm(conv(x).relu())
        if self.how == "turned":
            return conv(norm(x))
        if self.how == "read":
            return conv(x) * norm.weight[:, None, None] + norm.running_mean[:, None, None]
        return x + norm(x + conv(x))


class Whole(nn.Sequential):
    """Adds something to what a Sequential does, as a residual does."""

    def __init__(self, in_channels: int) -> None:
        super().__init__(nn.Conv2d(in_channels, in_channels, 3, padding=1), nn.BatchNorm2d(in_channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + super().forward(x)


class Merging(Apart):
    """Is simpler when it does not train, and says so with modules that it makes anew."""

    def for_inference(self) -> nn.Module:
        conv, norm = (copy.deepcopy(part) for part in self.body)
        return nn.Sequential(norm, conv, nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))).train()


@pytest.fixture
def apart() -> Iterator[None]:
    for one in (Apart, Whole, Merging):
        at.block(one)
    yield
    for one in (Apart, Whole, Merging):
        del BLOCKS._entries[one.__name__]


def network_of(block: str, **arguments: Any) -> Network:
    """A network of one block and a head, whose batch norms have seen data."""
    torch.manual_seed(0)
    network = build(Architecture((Row(block, arguments), Row("GlobalAvgPool"), Row("Flatten")), 3, (8, 8)))
    with torch.no_grad():
        network.train()(torch.randn(16, 3, 8, 8))
    return network.eval()


@pytest.mark.parametrize("how", ["between", "turned", "read", "residuals"])
@pytest.mark.parametrize("given", [{"format": "torchscript"}, {"format": "onnx", "precision": "int8"}])
def test_a_block_that_takes_a_sequential_apart_stays_as_it_is(
    how: str, given: dict[str, Any], apart: None, tmp_path: Path
) -> None:
    network = network_of("Apart", how=how)
    x = torch.randn(8, 3, 8, 8)
    assert len(_norms(graph_of(Source(network, x)))) == 1
    calibration = [x.numpy()] if given["format"] == "onnx" else None
    found = artefact(network, **given, calibration=calibration).run(x)
    torch.testing.assert_close(found, network(x).detach(), atol=0.05, rtol=0.05)


def test_a_residual_around_a_sequential_has_its_norm_folded(apart: None) -> None:
    network = network_of("Whole")
    x = torch.randn(2, 3, 8, 8)
    traced = graph_of(Source(network, x))
    assert not _norms(traced)
    torch.testing.assert_close(traced(x), network(x), atol=1e-5, rtol=1e-5)


def test_modules_that_a_block_makes_anew_for_an_export_do_not_train(apart: None) -> None:
    network = network_of("Merging", how="between")
    traced = graph_of(Source(network, torch.randn(2, 3, 8, 8)))
    assert len(_norms(traced)) == 1
    assert not any(module.training for module in traced.modules())


def test_a_convolution_that_two_norms_follow_is_folded_into_each() -> None:
    conv = nn.Conv2d(3, 3, 3, padding=1)
    norms = [nn.BatchNorm2d(3).eval() for _ in range(2)]
    for norm in norms:
        nn.init.uniform_(norm.running_var, 0.5, 2)
    block, x = (
        nn.Sequential(nn.Sequential(conv, norms[0]), nn.Sequential(conv, norms[1])).eval(),
        torch.randn(2, 3, 8, 8),
    )
    wanted = block(x)
    fold_norms(block)
    assert not _norms(block)
    torch.testing.assert_close(block(x), wanted, atol=1e-5, rtol=1e-5)


def chain(*blocks: str) -> Architecture:
    return Architecture(tuple(Row(block) for block in blocks), 3, (16, 16))


def test_blocks_say_which_formats_cannot_hold_them() -> None:
    assert unsupported(chain("Conv", "GlobalMaxPool"), "executorch") == [(1, "GlobalMaxPool")]
    architecture = chain("Identity", "PreTrained", "Flatten")
    assert unsupported(architecture, "module") == [(1, "PreTrained")]
    assert unsupported(architecture, "onnx") == []
    with pytest.raises(ExportError, match="unknown export format 'onx'\nhint: did you mean 'onnx'"):
        unsupported(architecture, "onx")
    assert {format for block in BLOCKS.values() for format in block.unexportable} <= set(FORMATS)
