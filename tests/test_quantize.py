"""Networks in eight bits."""

import json
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from archtuna.answers import answering
from archtuna.errors import DataError, ExportError, MissingExtraError
from archtuna.quantize import OPERATORS, calibrated, quantized
from archtuna.sensitivity import sqnr
from archtuna.starter import spaces, starter
from quantising import CALIBRATION, SIDE, mixed, onnx_of, pictures


@pytest.fixture(scope="module")
def content() -> bytes:
    return mixed()


@pytest.fixture(scope="module")
def int8(content: bytes) -> bytes:
    return quantized(content, CALIBRATION)


def described(content: bytes) -> dict[str, Any]:
    return {p.key: json.loads(p.value) for p in onnx.load_model_from_string(content).metadata_props}


def arrays(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_a_quantised_network_answers_nearly_as_the_float_one(content: bytes, int8: bytes) -> None:
    onnx.checker.check_model(onnx.load_model_from_string(int8), full_check=True)
    ask, asked = answering(content), answering(int8)
    for n in (1, 2, 7, 64):
        x = pictures(n, n + 10)
        assert asked(x).shape == (n, 4)
        assert sqnr(ask(x), asked(x)) > 20


def test_weights_are_seven_bits_by_channel_and_activations_eight(int8: bytes) -> None:
    model = onnx.load_model_from_string(int8)
    values = arrays(model)
    weights = {name: value for name, value in values.items() if name.endswith("weight_quantized")}
    assert len(weights) > 8
    for name, weight in weights.items():
        assert weight.dtype == np.int8
        assert 60 <= np.abs(weight).max() <= 64, name
    assert len(values["layers.0.0.weight_scale"]) == 8
    kinds = {values[node.input[2]].dtype for node in model.graph.node if node.op_type == "QuantizeLinear"}
    assert kinds == {np.dtype(np.uint8)}


def test_a_processor_without_dot_products_answers_as_exact_arithmetic_does(int8: bytes) -> None:
    """Eight-bit weights overflow there: the same file was 20 dB worse than its own arithmetic on such a machine."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    exact = onnxruntime.InferenceSession(int8, options, providers=["CPUExecutionProvider"])
    x = pictures(64, 5)
    assert sqnr(exact.run(None, {"images": x})[0], answering(int8)(x)) > 30


def test_the_metadata_is_kept_and_says_how_it_was_done(content: bytes, int8: bytes) -> None:
    before, after = described(content), described(int8)
    done = after.pop("quantization")
    assert after == before
    assert before["classes"] == ["a", "b", "c", "d"]
    assert (done["activations"], done["weights"], done["weight_bits"]) == ("uint8", "int8", 7)
    assert (done["calibration"], done["pictures"], done["skip"]) == ("minmax", 64, [])
    assert done["float"]["LayerNormalization"] == 3
    assert done["float"]["Softmax"] == 1
    assert done["float"]["MatMul"] == 2  # Those of the attention; its four projections are quantised.
    assert not {*done["float"]} & {"Conv", "Gemm", "Add", "Shape"}


def test_nothing_is_printed_logged_or_left_behind(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quantized(content, CALIBRATION)
    assert not caught
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
    assert (root.handlers, root.filters) == ([], [])


def test_what_stays_float_is_logged(content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "archtuna"):
        quantized(content, CALIBRATION)
    assert [r.name for r in caplog.records] == ["archtuna"]
    assert "int8 by 64 pictures; float stay: " in caplog.text
    assert "3 LayerNormalization" in caplog.text


def test_the_same_pictures_give_the_same_bytes_in_any_process(content: bytes, int8: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    np.save(tmp_path / "pictures.npy", np.stack(CALIBRATION))
    code = (
        "import sys, numpy, pathlib; from archtuna.quantize import quantized; folder = pathlib.Path(sys.argv[1]);"
        "found = quantized((folder / 'model.onnx').read_bytes(), numpy.load(folder / 'pictures.npy'));"
        "(folder / 'int8.onnx').write_bytes(found)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=environment, timeout=120)
    assert (tmp_path / "int8.onnx").read_bytes() == int8


@pytest.mark.parametrize("name", ["layers.1", "layers.2.layers.0"])
def test_a_layer_that_is_skipped_stays_float(content: bytes, int8: bytes, name: str) -> None:
    found = quantized(content, CALIBRATION, skip=[name])
    assert described(found)["quantization"]["skip"] == [name]
    model, full = (onnx.load_model_from_string(c) for c in (found, int8))
    floats = {n for n, v in arrays(model).items() if v.dtype == np.float32 and n.endswith("weight")}
    assert floats - {n for n in arrays(full)} == {
        n.removesuffix("_quantized")
        for n in arrays(full)
        if n.startswith(f"{name}.") and n.endswith("weight_quantized")
    }
    assert described(found)["quantization"]["float"]["Conv"] >= 1


def test_names_of_layers_are_checked(content: bytes) -> None:
    with pytest.raises(
        ExportError, match=r"no layer of the network is called 'layer\.1'\nhint: did you mean 'layers\.1'"
    ):
        quantized(content, CALIBRATION, skip=["layer.1"])
    with pytest.raises(ExportError, match=r"is called 'head'\nhint: layers are called layers\.0, layers\.0\."):
        quantized(content, CALIBRATION, skip=["head"])
    with pytest.raises(ExportError, match=r"nothing in the network is left to quantise\nhint: skip fewer layers"):
        quantized(content, CALIBRATION, skip=[f"layers.{i}" for i in range(7) if i != 5])


def test_what_cannot_be_quantised_is_refused_with_what_to_do(content: bytes, int8: bytes) -> None:
    with pytest.raises(
        ExportError, match=r"no ONNX file \(Error parsing message.*\)\nhint: archtuna export writes one"
    ):
        quantized(b"no model", CALIBRATION)
    with pytest.raises(ExportError, match=r"a network with one input: it has 0 inputs\nhint: archtuna export"):
        quantized(b"", CALIBRATION)
    with pytest.raises(ExportError, match="quantised already\nhint: quantise the float file"):
        quantized(int8, CALIBRATION)
    with pytest.raises(
        ExportError, match="no pictures to calibrate with\nhint: some hundred training pictures suffice"
    ):
        quantized(content, [])
    with pytest.raises(ExportError, match=r"cannot be quantised: .*Got invalid dimensions for input: images"):
        quantized(content, [pictures(4, 0, side=8)])
    with pytest.raises(ExportError, match="a calibration picture holds values that are no finite numbers"):
        quantized(content, [np.full((1, 3, SIDE, SIDE), np.nan, np.float32)])


def test_an_error_of_the_pictures_stays_their_error(content: bytes) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield CALIBRATION[0]
        raise DataError("a picture changed")

    with pytest.raises(DataError, match="a picture changed"):
        quantized(content, broken())


@pytest.mark.parametrize(("missing", "named"), [("onnx", "onnx"), ("onnxruntime", "onnxruntime")])
def test_without_the_extra_it_is_named(
    content: bytes, monkeypatch: pytest.MonkeyPatch, missing: str, named: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtraError, match=rf"{named} is not installed\nhint: pip install 'archtuna\[onnx\]'"):
        quantized(content, CALIBRATION)


def test_every_operator_is_one_that_the_library_quantises() -> None:
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    # Before ONNX Runtime 1.28 these two have no rule of their own, and take the one that is for every other operator.
    assert {*OPERATORS} - {"Flatten", "Slice"} <= {*QDQRegistry, *QLinearOpsRegistry}


def test_normalisation_of_pixels_stays_float_and_layers_are_called_as_in_the_network(content: bytes) -> None:
    """What was exported may be the network within another module, behind what normalises pixels."""
    model = onnx.load_model_from_string(content)
    for node in model.graph.node:
        for entry in node.metadata_props:
            entry.value = entry.value.replace("'layers.", "'module.layers.")
    steps = onnx.numpy_helper.from_array(np.array(0.25, np.float32), "step")
    model.graph.initializer.append(steps)
    model.graph.node.insert(0, onnx.helper.make_node("Mul", ["images", "step"], ["normalised"], "normalise"))
    next(node for node in model.graph.node if node.op_type == "Conv").input[0] = "normalised"
    network = calibrated(model.SerializeToString(), CALIBRATION)
    assert network.units == [f"layers.{i}" for i in range(7)]
    assert network.float_operators([])["Mul"] == calibrated(content, CALIBRATION).float_operators([])["Mul"] + 1
    found = {node.name: node for node in network.quantized().graph.node}
    assert found["normalise"].input[0] == "images"


@pytest.mark.slow
@pytest.mark.parametrize("name", spaces())
def test_the_networks_of_every_ready_space_quantise(name: str, tmp_path: Path) -> None:
    side = max(32, spaces()[name].smallest)
    content = onnx_of(tmp_path, starter(space=name, classes=4, input_size=side))
    int8 = quantized(content, [pictures(32, 0, side)])
    x = pictures(64, 1, side)
    assert sqnr(answering(content)(x), answering(int8)(x)) > 15
    assert len(int8) < len(content)
