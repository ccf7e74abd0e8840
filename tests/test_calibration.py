"""The pictures that a network is calibrated with."""

from pathlib import Path

import numpy as np
import pytest

from archtuna.calibration import calibration_batches, calibration_of
from archtuna.checkpoint import Header, save
from archtuna.data import Batches, Data, Images, Preprocess, Split
from archtuna.errors import CheckpointError, DataError
from archtuna.model import build
from archtuna.recipe import Recipe
from archtuna.space import SearchSpace
from pictures import folder

SMALL = """
input_size: 16
backbone:
  - [1, Conv, {channels: 8, kernel: 3, stride: 2}]
  - [1, GlobalAvgPool, []]
  - [1, Flatten, []]
  - [1, Linear, [3]]
"""
PREPROCESS = Preprocess((16, 16), 3, "resize", None, (0.5, 0.4, 0.3), (0.2, 0.2, 0.1))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return Data.open(folder(tmp_path_factory.mktemp("photos"), each=24))


@pytest.fixture(scope="module")
def split(data: Data) -> Split:
    return data.split()


@pytest.fixture(scope="module")
def images(data: Data) -> Images:
    return data.images((16, 16), channels=3)


def indices_of(batches: list[np.ndarray], images: Images, among: np.ndarray) -> list[int]:
    """Which pictures these are, found by their pixels."""
    (whole, _), *_ = Batches(images, among, PREPROCESS, batch_size=len(among))
    known = {picture.numpy().tobytes(): index for picture, index in zip(whole, among.tolist(), strict=True)}
    return [known[picture.tobytes()] for batch in batches for picture in batch]


def test_they_are_training_pictures_of_every_class_as_the_network_takes_them(images: Images, split: Split) -> None:
    found = calibration_of(images, split, PREPROCESS, pictures=40)
    assert [len(batch) for batch in found] == [32, 7]
    assert {(batch.dtype, batch.shape[1:], batch.flags.c_contiguous) for batch in found} == {
        (np.dtype("f4"), (3, 16, 16), True)
    }
    chosen = indices_of(found, images, split.train)
    assert len({*chosen}) == 39
    assert np.bincount(images.labels[chosen]).tolist() == [13, 13, 13]


def test_a_seed_chooses_and_smaller_choices_lie_in_larger_ones(images: Images, split: Split) -> None:
    def chosen(pictures: int, seed: int) -> list[int]:
        return indices_of(calibration_of(images, split, PREPROCESS, pictures=pictures, seed=seed), images, split.train)

    assert chosen(9, 1) == chosen(9, 1) != chosen(9, 2)
    assert {*chosen(9, 1)} < {*chosen(21, 1)}
    assert sorted(chosen(1000, 0)) == split.train.tolist()


def test_a_search_on_part_of_the_training_pictures_calibrates_with_that_part(images: Images, split: Split) -> None:
    part = split.subset(0.5, seed=3)
    assert {*indices_of(calibration_of(images, part, PREPROCESS, pictures=12), images, split.train)} < {*part.train}


def test_a_checkpoint_finds_its_own_pictures(data: Data, images: Images, split: Split, tmp_path: Path) -> None:
    recorded = {**split.to_dict(), "source": data.source}
    metrics = {"loss": 1.0, "accuracy": 0.5, "f1": 0.5}
    model = build(SearchSpace.read(SMALL).default().architecture)
    save(
        tmp_path / "a.safetensors", model, classes="abc", preprocess=PREPROCESS, metrics=metrics, recipe=Recipe(),
        data=recorded, epoch=1,
    )  # fmt: skip
    wanted = calibration_of(images, split, PREPROCESS, pictures=20, seed=4)
    for given in (None, data):
        found = calibration_batches(tmp_path / "a.safetensors", data=given, pictures=20, seed=4)
        assert len(found) == len(wanted)
        assert all(np.array_equal(*pair) for pair in zip(found, wanted, strict=True))
    other = folder(tmp_path / "other", each=9)
    with pytest.raises(DataError, match=data.fingerprint):
        calibration_batches(tmp_path / "a.safetensors", data=other)
    (tmp_path / "b.safetensors").write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match=r"b\.safetensors"):
        calibration_batches(tmp_path / "b.safetensors")


def test_pictures_have_to_be_there(images: Images, split: Split) -> None:
    with pytest.raises(DataError, match="0 pictures cannot calibrate a network\nhint: some hundred suffice"):
        calibration_of(images, split, PREPROCESS, pictures=0)
    header = Header(SearchSpace.read(SMALL).default().architecture, (), {}, {}, {}, {}, 1, {}, None)
    with pytest.raises(DataError, match="does not say where its pictures were\nhint: name them with --data"):
        header.open_data()
