"""What each layer of a network loses when it alone is quantised."""

import math
from typing import Any

import numpy as np
import onnx
import pytest

from archtuna.answers import answering, evaluate_onnx
from archtuna.errors import DataError, ExportError
from archtuna.quantize import quantized
from archtuna.sensitivity import Sensitivity, sensitivity, sqnr
from quantising import CALIBRATION, mixed, pictures


@pytest.fixture(scope="module")
def content() -> bytes:
    return mixed()


@pytest.fixture(scope="module")
def spoilt(content: bytes) -> bytes:
    """The network with a value so large in one channel of a layer that few steps are left for the others; nothing uses it."""
    model = onnx.load_model_from_string(content)
    inside = "layers.1.layers"
    changes: dict[str, tuple[Any, float]] = {
        f"{inside}.0.0.bias": (0, 3000.0),
        f"{inside}.2.0.weight": (0, 0.0),
        f"{inside}.5.0.weight": ((slice(None), 0), 0.0),
    }
    for tensor in model.graph.initializer:
        if tensor.name in changes:
            place, value = changes.pop(tensor.name)
            values = onnx.numpy_helper.to_array(tensor).copy()
            values[place] = value
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    assert not changes
    return bytes(model.SerializeToString())


def test_the_layer_that_suffers_most_comes_first_and_skipping_it_helps(spoilt: bytes) -> None:
    x, y = pictures(200, 7), np.arange(200) % 4
    found = sensitivity(spoilt, CALIBRATION, x, y)
    assert found[0].layer == "layers.1"
    assert {one.layer for one in found} == {f"layers.{i}" for i in (0, 1, 2, 3, 4, 6)}
    assert [one.sqnr for one in found] == sorted(one.sqnr for one in found)
    assert found[0].sqnr < found[1].sqnr - 3
    wanted, whole = answering(spoilt)(x), quantized(spoilt, CALIBRATION)
    kept = quantized(spoilt, CALIBRATION, skip=["layers.1"])
    assert sqnr(wanted, answering(kept)(x)) > sqnr(wanted, answering(whole)(x)) + 3


def test_sensitivity_is_what_a_file_with_that_layer_alone_shows(content: bytes) -> None:
    x, y = pictures(200, 8), np.arange(200) % 4
    one = next(one for one in sensitivity(content, CALIBRATION, x, y) if one.layer == "layers.1")
    others = [f"layers.{i}" for i in (0, 2, 3, 4, 5, 6)]
    alone = quantized(content, CALIBRATION, skip=others)
    before, after = (evaluate_onnx(c, [(x, y)], classes=4) for c in (content, alone))
    changes = (after["accuracy"] - before["accuracy"], after["f1"] - before["f1"])
    assert one == Sensitivity("layers.1", sqnr(answering(content)(x), answering(alone)(x)), *changes)


def test_a_layer_is_known_by_its_weights_where_the_exporter_notes_nothing(content: bytes) -> None:
    bare = onnx.load_model_from_string(content)
    for node in bare.graph.node:
        del node.metadata_props[:]
    x, y = pictures(50, 9), np.arange(50) % 4
    noted, found = (sensitivity(c, CALIBRATION, x, y) for c in (content, bare.SerializeToString()))
    assert {one.layer for one in found} == {one.layer for one in noted} - {"layers.4"}, "pooling has no weights"


def test_the_ratio_is_in_decibels() -> None:
    signal = np.array([[3.0, 4.0]], np.float32)
    assert sqnr(signal, signal + np.array([[0.5, 0.0]], np.float32)) == pytest.approx(20.0)
    assert sqnr(signal, signal) == math.inf


def test_pictures_need_labels_and_have_to_fit(content: bytes) -> None:
    with pytest.raises(DataError, match="2 pictures and 3 labels say nothing of a network"):
        sensitivity(content, CALIBRATION, pictures(2, 0), np.zeros(3, np.int64))
    with pytest.raises(DataError, match="0 pictures and 0 labels say nothing of a network"):
        sensitivity(content, CALIBRATION, pictures(0, 0), np.zeros(0, np.int64))
    with pytest.raises(ExportError, match=r"does not run on float32 pictures of \[2, 3, 8, 8\]"):
        sensitivity(content, CALIBRATION, pictures(2, 0, side=8), np.zeros(2, np.int64))
