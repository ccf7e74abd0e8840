"""What an ONNX file answers, and that it is judged as the model is."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from archtuna.answers import answering, evaluate_onnx
from archtuna.errors import DataError, ExportError, MissingExtraError, ShapeError
from archtuna.exports import export
from archtuna.model import Network, build
from archtuna.space import SearchSpace
from archtuna.training import evaluate_batches

SMALL = """
input_size: 12
backbone:
  - [1, Conv, {channels: 8, kernel: 3, stride: 2}]
  - [1, GlobalAvgPool, []]
  - [1, Flatten, []]
  - [1, Linear, [4]]
"""


class Given(list):
    """Batches of one epoch, as ``evaluate_batches`` takes them."""

    def epoch(self, number: int) -> "Given":
        return self


@pytest.fixture(scope="module")
def model() -> Network:
    torch.manual_seed(3)
    return build(SearchSpace.read(SMALL).default().architecture).eval()


@pytest.fixture(scope="module")
def content(model: Network, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return Path(export(model, tmp_path_factory.mktemp("onnx") / "model.onnx").file).read_bytes()


@pytest.fixture(scope="module")
def batches() -> Given:
    draws = torch.Generator().manual_seed(0)
    sizes = (7, 7, 3)
    return Given(
        (torch.randn(n, 3, 12, 12, generator=draws), torch.randint(0, 4, (n,), generator=draws)) for n in sizes
    )


def test_a_file_has_its_models_metrics(model: Network, content: bytes, batches: Given) -> None:
    wanted = evaluate_batches(model, batches, classes=4, device="cpu")
    found = evaluate_onnx(content, batches, classes=4)
    assert found == {**wanted, "loss": pytest.approx(wanted["loss"], rel=1e-5)}
    assert 0 < found["accuracy"] < 1
    arrays = [(x.numpy(), y.numpy()) for x, y in batches]
    assert evaluate_onnx(content, iter(arrays), classes=4, threads=2) == {**found, "loss": pytest.approx(found["loss"])}


def test_pictures_in_any_layout_are_answered(model: Network, content: bytes, batches: Given) -> None:
    x = batches[0][0].contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        np.testing.assert_allclose(answering(content)(x), model(x).numpy(), atol=1e-5)


def test_what_does_not_fit_is_named(content: bytes, batches: Given) -> None:
    small = [(x[:, :, :4], y) for x, y in batches]
    with pytest.raises(ExportError, match=r"does not run on float32 pictures of \[7, 3, 4, 12\]: "):
        evaluate_onnx(content, small, classes=4)
    with pytest.raises(ShapeError, match=r"gives \[7, 4\] for 7 pictures of 5 classes"):
        evaluate_onnx(content, batches, classes=5)
    with pytest.raises(DataError, match="no pictures to evaluate"):
        evaluate_onnx(content, [], classes=4)
    with pytest.raises(ExportError, match=r"does not read the file: .*\nhint: archtuna export writes one"):
        evaluate_onnx(b"no model", batches, classes=4)


def test_without_the_runtime_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, content: bytes, batches: Given
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"onnxruntime is not installed\nhint: pip install 'archtuna\[onnx\]'"):
        evaluate_onnx(content, batches, classes=4)
