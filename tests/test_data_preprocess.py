from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from archtuna.data import Batches, Data, Preprocess
from archtuna.errors import DataError
from data_pictures import class_folders, picture, save


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ARCHTUNA_CACHE", str(tmp_path / "the cache"))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("fit", ["resize", "pad"])
@pytest.mark.parametrize("via", [None, (24, 24)])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_picture_is_what_the_cache_and_the_batches_have(tmp_path, channels, fit, via, suffix):
    root = class_folders(tmp_path / "set", each=3, suffix=suffix)
    exif = Image.Exif()
    exif[0x0112] = 6
    save(root / "red" / f"turned{suffix}", picture(7, (40, 21)), exif=exif)
    save(root / "red" / f"grey{suffix}", picture(8, (400, 210), channels=1))
    if suffix == ".jpg":
        save(root / "red" / "cmyk.jpg", picture(9).convert("CMYK"))
    data = Data.open(root)
    images = data.images((16, 16), channels=channels, fit=fit, via=via)
    preprocess = Preprocess.of(images, np.arange(len(data)))
    for layout in (False, True):
        batches = Batches(images, np.arange(len(data)), preprocess, batch_size=5, channels_last=layout)
        served = torch.cat([x for x, _ in batches])
        assert served.dtype == torch.float32
        for index, name in enumerate(data.names):
            path = root / name
            with Image.open(path) as lazy:
                assert torch.equal(preprocess(lazy), served[index])
            loaded = Image.open(path)
            loaded.load()
            assert torch.equal(preprocess(loaded), served[index])
            assert torch.equal(preprocess(path), served[index])
            assert torch.equal(preprocess(str(path)), served[index])
            if not name.startswith("red/turned") and "cmyk" not in name:
                assert torch.equal(preprocess(np.asarray(loaded)), served[index])
                assert torch.equal(preprocess(torch.from_numpy(np.array(loaded))), served[index])


def test_a_large_photograph_is_what_the_cache_has(tmp_path):
    root = class_folders(tmp_path / "set", each=2)
    path = save(root / "red" / "large.jpg", picture(3, (1300, 1700)), quality=90)
    data = Data.open(root)
    images = data.images((32, 32), channels=3)
    preprocess = Preprocess.of(images, np.arange(len(data)))
    expected = preprocess.normalise(torch.from_numpy(np.array(images.array[data.names.index("red/large.jpg")]))[None])[
        0
    ]
    assert torch.equal(preprocess(path), expected)
    with Image.open(path) as lazy:
        assert torch.equal(preprocess(lazy), expected)


def test_what_is_normalised_has_mean_zero_and_deviation_one(tmp_path):
    data = Data.open(class_folders(tmp_path / "set"))
    images = data.images((16, 16), channels=3)
    preprocess = Preprocess.of(images, np.arange(24))
    batch = preprocess.normalise(torch.from_numpy(np.array(images.array)))
    assert batch.mean(dim=(0, 2, 3)).tolist() == pytest.approx([0] * 3, abs=1e-5)
    assert batch.std(dim=(0, 2, 3), correction=0).tolist() == pytest.approx([1] * 3, abs=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (32, 32)])
@pytest.mark.parametrize("count", [1, 2, 9])
def test_layouts_hold_the_same_values(channels, size, count):
    preprocess = Preprocess(size, channels, "resize", None, (0.3, 0.5, 0.7)[:channels], (0.11, 0.2, 0.3)[:channels])
    pixels = torch.randint(0, 256, (count, channels, *size), dtype=torch.uint8)
    plain = preprocess.normalise(pixels)
    last = preprocess.normalise(pixels, channels_last=True)
    assert torch.equal(plain, last)
    assert plain.is_contiguous()
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(preprocess.normalise(pixels.contiguous(memory_format=torch.channels_last)), plain)
    assert torch.equal(preprocess.normalise(pixels.float(), channels_last=True), plain)


def test_preprocessing_travels_as_json():
    for via in (None, (64, 64)):
        preprocess = Preprocess((32, 32), 3, "pad", via, (0.1, 1 / 3, 0.5), (0.2, 0.1 + 0.2, 0.25))
        assert Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess
    assert Preprocess((32, 32), 1, "pad", (32, 32), (0.1,), (0.2,)).via is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": [0.1]}, "do not fit 3 channels"),
        ({"std": [0.1, 0.0, 0.1]}, "do not fit 3 channels"),
        ({"channels": 4, "mean": [0] * 4, "std": [1] * 4}, "4 channels"),
        ({"fit": "stretch"}, "fit 'stretch' is unknown"),
        ({"size": [32]}, "this is no preprocessing"),
        ({"mean": None}, "this is no preprocessing"),
    ],
)
def test_preprocessing_that_cannot_be(changes, message):
    good = {"size": [8, 8], "channels": 3, "fit": "resize", "via": None, "mean": [0.5] * 3, "std": [0.2] * 3}
    with pytest.raises(DataError, match=message):
        Preprocess.from_dict({**good, **changes})
    del good["via"]
    with pytest.raises(DataError, match="this is no preprocessing"):
        Preprocess.from_dict(good)


def test_files_that_are_no_pictures(tmp_path):
    preprocess = Preprocess((8, 8), 3, "resize", None, (0.5,) * 3, (0.2,) * 3)
    with pytest.raises(DataError, match=r"missing\.png: cannot be read as a picture: no such file"):
        preprocess(tmp_path / "missing.png")
    with pytest.raises(DataError, match="is no picture"):
        preprocess(np.zeros(3))
