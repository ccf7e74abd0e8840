import copy
import importlib.util
import json
import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from archtuna.architecture import Architecture, Row
from archtuna.checkpoint import load, save
from archtuna.data import Preprocess
from archtuna.errors import ExportError, MissingExtraError
from archtuna.exports import SUFFIXES, export, write
from archtuna.exports.quiet import quiet
from archtuna.model import Network, build
from archtuna.recipe import Recipe

PREPROCESS = Preprocess((8, 8), 3, "resize", None, (0.5, 0.4, 0.3), (0.2, 0.2, 0.1))
CLASSES = ("glass", "metal", "paper — old")


def architecture() -> Architecture:
    conv = {"kernel": 3, "padding": 1, "groups": 1, "activation": "Hardswish"}
    residual = {"kernel": 3, "expansion": 2.0, "channels": 8, "se": True, "activation": "ReLU", "stride": 1}
    rows = (
        Row("Conv", {"channels": 8, "stride": 2, **conv}),
        Row("InvertedResidualv3", residual),
        Row("GlobalAvgPool", {"output_size": 1}),
        Row("Flatten"),
        Row("Dropout", {"p": 0.5}),
        Row("Linear", {"features": 3, "activation": None}),
    )
    return Architecture(rows, 3, (8, 8))


@pytest.fixture
def model() -> Network:
    torch.manual_seed(5)
    network = build(architecture())
    with torch.no_grad():
        network.train()(torch.randn(16, 3, 8, 8))
    network.classes, network.preprocess = CLASSES, PREPROCESS  # type: ignore[assignment]
    return network


@pytest.mark.parametrize("suffix", [".ts", ".torchscript", ".pt"])
def test_torchscript_gives_the_models_outputs(tmp_path: Path, model: Network, suffix: str) -> None:
    result = export(model, tmp_path / f"model{suffix}")
    assert result.format == "torchscript"
    assert result.bytes == (tmp_path / f"model{suffix}").stat().st_size
    extra = {"classes": "", "preprocess": "", "architecture": ""}
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        loaded = torch.jit.load(result.file, _extra_files=extra)
    x = torch.randn(5, 3, 8, 8)
    torch.testing.assert_close(loaded(x), copy.deepcopy(model).eval()(x))
    assert json.loads(extra["classes"]) == list(CLASSES)
    assert Preprocess.from_dict(json.loads(extra["preprocess"])) == PREPROCESS
    assert Architecture.from_dict(json.loads(extra["architecture"])) == architecture()


@pytest.mark.slow
def test_onnx_gives_the_models_outputs_in_one_file(
    tmp_path: Path, model: Network, capfd: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = export(model, tmp_path / "model.onnx")
    assert not caught
    assert capfd.readouterr() == ("", "")
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    assert (result.format, result.bytes) == ("onnx", (tmp_path / "model.onnx").stat().st_size)
    assert 0 <= result.max_difference < 1e-5
    session = onnxruntime.InferenceSession(result.file, providers=["CPUExecutionProvider"])
    for n in (1, 3, 9):
        x = torch.randn(n, 3, 8, 8)
        (found,) = session.run(["logits"], {"images": x.numpy()})
        np.testing.assert_allclose(found, copy.deepcopy(model).eval()(x).detach().numpy(), atol=1e-5)
    assert session.get_inputs()[0].shape == ["batch", 3, 8, 8]
    proto = onnx.load(result.file)
    onnx.checker.check_model(proto)
    described = {p.key: json.loads(p.value) for p in proto.metadata_props}
    assert described["classes"] == list(CLASSES)
    assert Preprocess.from_dict(described["preprocess"]) == PREPROCESS
    assert Architecture.from_dict(described["architecture"]) == architecture()


@pytest.mark.slow
def test_a_checkpoint_exports(tmp_path: Path, model: Network) -> None:
    save(
        tmp_path / "a.safetensors", model, classes=CLASSES, preprocess=PREPROCESS, metrics={"loss": 1.0},
        recipe=Recipe(), data={"source": "digits"}, epoch=1,
    )  # fmt: skip
    assert export(load(tmp_path / "a.safetensors"), tmp_path / "a.onnx").max_difference < 1e-5


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_not_touched(tmp_path: Path, model: Network, training: bool) -> None:
    model.train(training).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.layers[1].eval()
    before = {name: (tensor.clone(), tensor.stride()) for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    random = torch.get_rng_state()
    export(model, tmp_path / "model.ts")
    assert [module.training for module in model.modules()] == modes
    assert all(p.requires_grad for p in model.parameters())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name][0])
        assert tensor.stride() == before[name][1]
    assert torch.equal(torch.get_rng_state(), random)


def test_the_notice_on_torchscript_comes_once(tmp_path: Path, model: Network, caplog: pytest.LogCaptureFixture) -> None:
    write._notice.cache_clear()
    with caplog.at_level(logging.INFO, "archtuna"):
        for name in ("a.ts", "b.ts"):
            export(model, tmp_path / name)
    assert [r.getMessage() for r in caplog.records] == [
        "TorchScript is deprecated since torch 2.13; ONNX is the format with a future"
    ]


class Counting(Network):
    """Answers by how many pictures there are: no trace can hold that."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * float(x.shape[0])


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_an_export_that_differs_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match=r"outputs differ from the model's by .* at a batch of 1, with logits of up to"
    ):
        export(Counting(architecture()), tmp_path / "model.ts")
    assert not list(tmp_path.iterdir())


def test_outputs_that_are_not_numbers_are_not_kept(tmp_path: Path, model: Network) -> None:
    with torch.no_grad():
        model.layers[5].linear.bias.fill_(float("nan"))  # type: ignore[union-attr, operator]
    with pytest.raises(ExportError, match="differ from the model's by nan"):
        export(model, tmp_path / "model.ts")


class Dynamic(Network):
    """Decides by the values it sees, which no exporter can follow."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.sum().item() > 0 else super().forward(-x)


@pytest.mark.slow
def test_an_exporter_that_fails_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="the ONNX export failed"):
        export(Dynamic(architecture()), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_an_unknown_suffix_gets_the_nearest(tmp_path: Path, model: Network) -> None:
    with pytest.raises(ExportError, match=r"the suffix '\.onx' names no export format\nhint: did you mean '\.onnx'"):
        export(model, tmp_path / "model.onx")
    with pytest.raises(
        ExportError, match=rf"hint: known: {', '.join(SUFFIXES)}, or give the format".replace(".", r"\.")
    ):
        export(model, tmp_path / "model")
    with pytest.raises(
        ExportError, match=r"unknown export format 'tflite'\nhint: known: executorch, module, onnx, pt2, torchscript"
    ):
        export(model, tmp_path / "model", format="tflite")


def test_the_format_may_be_given(tmp_path: Path, model: Network) -> None:
    assert export(model, tmp_path / "model.bin", format="torchscript").format == "torchscript"


def test_a_missing_package_is_named_with_its_extra(
    tmp_path: Path, model: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "onnxscript" else real(name, *a))
    with pytest.raises(MissingExtraError, match=r"onnxscript is not installed\nhint: pip install 'archtuna\[onnx\]'"):
        export(model, tmp_path / "model.onnx")


def test_a_model_without_an_architecture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="Linear has no architecture"):
        export(nn.Linear(2, 3), tmp_path / "model.ts")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, model: Network) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="cannot be written"):
        export(model, tmp_path / "file" / "model.ts")


def test_an_earlier_export_survives_a_failed_one(tmp_path: Path, model: Network) -> None:
    export(model, tmp_path / "model.ts")
    before = (tmp_path / "model.ts").read_bytes()
    with torch.no_grad():
        model.layers[5].linear.bias.fill_(float("nan"))  # type: ignore[union-attr, operator]
    with pytest.raises(ExportError, match="nan"):
        export(model, tmp_path / "model.ts")
    assert (tmp_path / "model.ts").read_bytes() == before


def test_the_page_on_exports_has_every_format() -> None:
    page = (Path(__file__).parent.parent / "docs" / "exports.md").read_text()
    for suffix in SUFFIXES:
        assert f"`{suffix}`" in page.partition("## What is proved")[0]


def test_means_over_whole_maps_are_pooling_in_onnx(tmp_path: Path, model: Network) -> None:
    """In squeeze-and-excite gates too, where ONNX Runtime would change the layout of maps twice for each."""
    export(model, tmp_path / "model.onnx")
    found = [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]
    assert found.count("GlobalAveragePool") == 2
    assert "ReduceMean" not in found


def test_what_exporters_print_does_not_come_between_results(capsys):
    with quiet():
        print("Applied 3 of general pattern rewrite rules.")
    print("{}")
    assert capsys.readouterr().out == "{}\n"
