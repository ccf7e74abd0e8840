"""That an export is its model, on real pictures too, or says where it first is not."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import archtuna as at
from archtuna.data import Preprocess
from archtuna.errors import ExportError, MissingExtraError
from archtuna.exports import FORMATS, PRECISIONS, Precision, Proof, artefact, export
from archtuna.exports.onnx import OPSET
from archtuna.exports.proof import Difference, compare
from archtuna.metrics import Tally
from archtuna.model import Network, build
from archtuna.registry import BLOCKS
from archtuna.space import SearchSpace

ROWS = """\
input_channel: 3
input_size: 16
backbone:
  - [1, Conv, [8, 3, 2, null, 1, HardSwish], {name: stem}]
  - [2, InvertedResidualv3, [3, 2, 8, 1, 1, 1]]
  - [3, EXTRA, [], {name: odd}]
  - [1, Add, {from: [odd, stem]}]
  - [1, GlobalAvgPool, []]
  - [1, Flatten, []]
  - [1, Linear, [4]]
"""
PREPROCESS = Preprocess((16, 16), 3, "resize", None, (0.5, 0.4, 0.3), (0.2, 0.2, 0.1))


class Shy(nn.Module):
    """Behaves differently while it is exported."""

    def forward(self, x: Tensor) -> Tensor:
        return 1.5 * x if torch.compiler.is_exporting() or torch.jit.is_tracing() else x


class Choosy(nn.Module):
    """Decides by the values that it sees, which no exporter can follow."""

    def forward(self, x: Tensor) -> Tensor:
        return x * float(x.sum() > 0)


onnx = pytest.importorskip("onnx") if FORMATS["onnx"].missing() is None else None


@pytest.fixture(scope="module", autouse=True)
def own_blocks() -> Iterator[None]:
    for block in (Shy, Choosy):
        at.block(block)
    yield
    for block in (Shy, Choosy):
        del BLOCKS._entries[block.__name__]


def network(extra: str = "Identity") -> Network:
    torch.manual_seed(1)
    model = build(SearchSpace.read(ROWS.replace("EXTRA", extra)).default().architecture)
    with torch.no_grad():
        model.train()(torch.randn(16, 3, 16, 16))
    model.classes, model.preprocess = tuple("abcd"), PREPROCESS  # type: ignore[assignment]
    return model.eval()


@pytest.fixture(scope="module")
def model() -> Network:
    return network()


@pytest.fixture(scope="module")
def batches() -> list[tuple[Tensor, Tensor]]:
    draws = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (50, 3, 16, 16), generator=draws)
    labels = torch.randint(0, 4, (50,), generator=draws)
    return list(zip(PREPROCESS.normalise(pixels).split(32), labels.split(32), strict=True))


@pytest.fixture(scope="module")
def proof(batches: list[tuple[Tensor, Tensor]]) -> Proof:
    return Proof(batches, 4)


def measured(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
    tally = Tally(4)
    for x, labels in batches:
        tally.add(model(x).detach(), labels)
    return {name: value for name, value in tally.metrics().items() if name != "loss"}


@pytest.mark.parametrize("suffix", [".ts", ".py"])
def test_an_export_has_the_models_accuracy_and_f1(
    tmp_path: Path, model: Network, batches, proof: Proof, suffix: str
) -> None:
    done = export(model, tmp_path / f"a{suffix}", proof=proof)
    assert done.pictures == 50
    assert done.metrics == done.model_metrics == measured(model, batches)


def test_without_pictures_an_export_says_that_the_metric_was_not_checked(tmp_path: Path, model: Network) -> None:
    done = export(model, tmp_path / "a.ts")
    assert (done.pictures, done.metrics, done.model_metrics) == (0, {}, {})


@pytest.mark.parametrize(
    "suffix", [".ts", pytest.param(".pt2", marks=pytest.mark.slow), pytest.param(".onnx", marks=pytest.mark.slow)]
)
def test_the_layer_where_an_export_first_differs_is_named(tmp_path: Path, proof: Proof, suffix: str) -> None:
    with pytest.raises(ExportError, match=r"not kept; it first differs at row 2 \('odd', Shy\), copy 1 of 3, by \d"):
        export(network("Shy"), tmp_path / f"a{suffix}", proof=proof)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_the_layer_with_which_an_export_first_fails_is_named(tmp_path: Path, suffix: str, capfd) -> None:
    with pytest.raises(ExportError, match=r"export failed; it first fails at row 2 \('odd', Choosy\), copy 1 of 3 \("):
        export(network("Choosy"), tmp_path / f"a{suffix}")
    assert capfd.readouterr() == ("", "")


def test_a_metric_that_is_not_the_models_is_refused_within_any_tolerance(model: Network, batches, proof: Proof) -> None:
    def other(x: Tensor) -> tuple[Tensor]:
        return (model(x).detach().roll(1, dims=1),)

    with pytest.raises(
        Difference, match=r"answers otherwise on \d+ of 50 pictures: accuracy 0\.\d+ in place of 0\.\d+, f1"
    ):
        compare(model, other, lambda n: batches[0][0][:n], (1, 2), proof, None)
    found = compare(model, other, lambda n: batches[0][0][:n], (1, 2), proof, None, same_metrics=False)
    assert found.model_metrics == measured(model, batches) != found.metrics


def test_an_export_that_differs_only_on_real_pictures_is_refused(model: Network, batches, proof: Proof) -> None:
    def run(x: Tensor) -> tuple[Tensor]:
        return (model(x).detach() + (0.5 if len(x) > 20 else 0.0),)

    compare(model, run, lambda n: batches[0][0][:n], (1, 2), None, 1e-4)
    with pytest.raises(Difference, match="differ from the model's by 0.5 at a batch of 32"):
        compare(model, run, lambda n: batches[0][0][:n], (1, 2), proof, 1e-4)


def test_an_export_that_fails_on_a_batch_says_which(model: Network, batches) -> None:
    def run(x: Tensor) -> tuple[Tensor]:
        if len(x) == 2:
            raise RuntimeError("no room for two")
        return (model(x).detach()[:, :3],)

    with pytest.raises(Difference, match=r"fails on a batch of 2 \(no room for two\)"):
        compare(model, run, lambda n: batches[0][0][:n], (2,), None, 1e-4)
    with pytest.raises(Difference, match=r"gives \[1, 3\] for a batch of 1, the model \[1, 4\]"):
        compare(model, run, lambda n: batches[0][0][:n], (1,), None, 1e-4)


def test_an_artefact_is_in_memory_and_runs(model: Network) -> None:
    made = artefact(model, "torchscript")
    x = torch.randn(3, 3, 16, 16)
    torch.testing.assert_close(made.run(x), model(x).detach())
    assert (made.format, made.beside, made.opset) == ("torchscript", {}, None)
    assert isinstance(made.content, bytes)


@pytest.mark.slow
def test_torch_export_holds_the_model_and_its_description(tmp_path: Path, model: Network, proof: Proof) -> None:
    done = export(model, tmp_path / "a.pt2", proof=proof)
    assert done.metrics == done.model_metrics
    extra = dict.fromkeys(("architecture", "classes", "preprocess"), "")
    program = torch.export.load(done.file, extra_files=extra)
    x = torch.randn(5, 3, 16, 16)
    torch.testing.assert_close(program.module()(x), model(x))
    assert json.loads(extra["classes"]) == list("abcd")
    assert Preprocess.from_dict(json.loads(extra["preprocess"])) == PREPROCESS


@pytest.mark.slow
def test_onnx_states_its_opset_and_has_no_batch_norms_and_no_paths(
    tmp_path: Path, model: Network, proof: Proof
) -> None:
    for opset in (None, 18):
        done = export(model, tmp_path / "a.onnx", proof=proof, opset=opset)
        assert done.metrics == done.model_metrics
        proto = onnx.load(done.file)
        onnx.checker.check_model(proto)
        assert done.opset == (opset or OPSET)
        assert [(o.domain, o.version) for o in proto.opset_import] == [("", done.opset)]
        assert {p.key: json.loads(p.value) for p in proto.metadata_props}["opset"] == done.opset
    assert "BatchNormalization" not in {node.op_type for node in proto.graph.node}
    assert b"/archtuna/" not in (tmp_path / "a.onnx").read_bytes()
    # Where a node comes from is kept, which per-layer reports need.
    assert all("layers." in str(n.metadata_props) for n in proto.graph.node if n.op_type == "Conv")


@pytest.mark.slow
def test_an_opset_that_cannot_be_written_is_refused(tmp_path: Path, model: Network) -> None:
    with pytest.raises(ExportError, match=r"cannot be written in opset 9: it came out in \d+"):
        export(model, tmp_path / "a.onnx", opset=9)


@pytest.mark.slow
def test_preprocessing_may_be_in_the_graph(tmp_path: Path, model: Network, proof: Proof) -> None:
    import onnxruntime

    done = export(model, tmp_path / "a.onnx", with_preprocess=True, proof=proof)
    assert done.metrics == done.model_metrics
    session = onnxruntime.InferenceSession(done.file, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape) == ("pixels", "tensor(uint8)", ["batch", 16, 16, 3])
    pixels = torch.randint(0, 256, (3, 16, 16, 3), dtype=torch.uint8)
    wanted = model(torch.stack([PREPROCESS(p) for p in pixels.numpy()])).detach()
    (found,) = session.run(["logits"], {"pixels": pixels.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), wanted, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_half_precision_has_its_own_tolerance_and_measures_the_metrics(
    tmp_path: Path, model: Network, proof: Proof
) -> None:
    done = export(model, tmp_path / "a.onnx", precision="fp16", proof=proof)
    assert 1e-6 < done.max_difference < 2e-2
    assert done.precision == "fp16"
    assert set(done.metrics) == {"accuracy", "f1"}
    proto = onnx.load(done.file)
    kinds = {tensor.data_type for tensor in proto.graph.initializer if len(tensor.dims) == 4}
    assert kinds == {onnx.TensorProto.FLOAT16}
    assert proto.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert {p.key: json.loads(p.value) for p in proto.metadata_props}["precision"] == "fp16"


@pytest.mark.slow
def test_a_precision_of_ones_own_is_used(tmp_path: Path, model: Network, proof: Proof, monkeypatch) -> None:
    seen = []

    def convert(content: bytes, source) -> bytes:
        seen.append(source.options.calibration)
        return content

    monkeypatch.setitem(PRECISIONS._entries, "own", Precision("own", convert, tolerance=None, same_metrics=False))
    done = export(model, tmp_path / "a.onnx", precision="own", calibration=[1], proof=proof)
    assert seen == [[1]]
    assert done.precision == "own"


def test_options_that_a_format_does_not_have_are_refused(tmp_path: Path, model: Network) -> None:
    with pytest.raises(
        ExportError, match="the format torchscript has no option 'opset'\nhint: formats that have it: onnx"
    ):
        export(model, tmp_path / "a.ts", opset=18)
    with pytest.raises(ExportError, match="the format module has no option 'calibration'"):
        artefact(model, "module", calibration=torch.zeros(2))
    assert artefact(model, "module", precision="".join(("fp", "32"))).precision == "fp32"
    with pytest.raises(ExportError, match="unknown precision 'fp17'\nhint: did you mean 'fp16'"):
        export(model, tmp_path / "a.onnx", precision="fp17")


def test_preprocessing_that_a_model_does_not_have_is_missed(tmp_path: Path) -> None:
    bare = network()
    del bare.preprocess
    with pytest.raises(ExportError, match="no preprocessing to put into the file\nhint: load it from a checkpoint"):
        export(bare, tmp_path / "a.onnx", with_preprocess=True)


@pytest.mark.skipif(FORMATS["executorch"].missing() is not None, reason="needs the extra executorch")
@pytest.mark.slow
def test_executorch_takes_one_picture_and_is_the_model(tmp_path: Path, model: Network, proof: Proof) -> None:
    done = export(model, tmp_path / "a.pte", proof=proof)
    from executorch.runtime import Runtime

    assert done.metrics == done.model_metrics
    program = Runtime.get().load_program(tmp_path / "a.pte")
    x = torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(program.load_method("forward").execute([x])[0], model(x).detach(), rtol=0, atol=1e-5)
    assert json.loads(program.load_method("classes").execute([])[0]) == list("abcd")


@pytest.mark.skipif(FORMATS["executorch"].missing() is None, reason="executorch is installed")
def test_executorch_is_an_extra(tmp_path: Path, model: Network) -> None:
    with pytest.raises(
        MissingExtraError, match=r"executorch is not installed\nhint: pip install 'archtuna\[executorch\]'"
    ):
        export(model, tmp_path / "a.pte")
