from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from archtuna.data import Data, cache_folder, clear_cache
from archtuna.data import images as images_module
from archtuna.data.cache import build_once
from archtuna.data.picture import pixels_to_image, render
from archtuna.errors import DataError
from data_pictures import arrays, class_folders, picture


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ARCHTUNA_CACHE", str(tmp_path / "the cache"))
    return tmp_path / "the cache"


@pytest.fixture
def data(tmp_path):
    return Data.open(class_folders(tmp_path / "set"))


def files_of(cache: Path) -> list[str]:
    return sorted(file.name for file in (cache / "images").rglob("*") if file.is_file() and file.suffix != ".lock")


def test_where_the_cache_is(tmp_path, monkeypatch):
    assert cache_folder() == tmp_path / "the cache"
    monkeypatch.delenv("ARCHTUNA_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "archtuna"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert cache_folder() == tmp_path / ".cache" / "archtuna"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == tmp_path / "Library" / "Caches" / "archtuna"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache_folder() == tmp_path / "local" / "archtuna" / "Cache"


def test_pictures_in_the_cache_are_those_of_the_files(data):
    images = data.images((12, 16), channels=3)
    assert isinstance(images.array, np.memmap)
    assert images.array.shape == (24, 3, 12, 16)
    assert not images.array.flags.writeable
    assert (images.size, images.channels, images.fit, images.via) == ((12, 16), 3, "resize", (12, 16))
    assert images.labels is data.labels
    expected = render(picture(1003), (12, 16), channels=3, fit="resize")
    assert np.array_equal(images.array[data.names.index("green/3.png")], expected.transpose(2, 0, 1))


def test_the_second_time_nothing_is_decoded(data, monkeypatch):
    first = data.images((8, 8), channels=3)
    monkeypatch.setattr(images_module, "_append", lambda *_: pytest.fail("written again"))
    assert np.array_equal(data.images((8, 8), channels=3).array, first.array)


def test_each_form_has_its_own_file(data, cache):
    for channels in (1, 3):
        for fit in ("resize", "pad"):
            data.images((8, 8), channels=channels, fit=fit)
    data.images((8, 8), channels=3, via=(16, 16))
    assert len(files_of(cache)) == 6


def test_a_smaller_size_is_derived_from_the_largest(data):
    large = data.images((16, 16), channels=3)
    small = data.images((8, 8), channels=3, via=(16, 16))
    assert small.via == (16, 16)
    expected = render(pixels_to_image(large.pixels[5]), (8, 8), channels=3, fit="resize")
    assert np.array_equal(small.pixels[5], expected)
    direct = data.images((8, 8), channels=3)
    assert np.abs(small.array.astype(int) - direct.array).mean() < 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (0, 8), "channels": 3}, "height and width must be 1 or more"),
        ({"size": (8, 8), "channels": 2}, "2 channels: pictures have 1"),
        ({"size": (8, 8), "channels": 3, "fit": "crop"}, r"fit 'crop' is unknown\nhint: known: resize, pad"),
        ({"size": (8, 8), "channels": 3, "fit": "pad", "via": (16, 8)}, "padded pictures of .* another shape"),
    ],
)
def test_forms_that_cannot_be(data, options, message):
    with pytest.raises(DataError, match=message):
        data.images(**options)


@pytest.mark.parametrize("damage", ["shorter", "empty", "header", "longer"])
def test_a_damaged_file_is_noticed_and_made_again(data, cache, caplog, damage):
    before = np.array(data.images((8, 8), channels=3).array)
    (file,) = (cache / "images").rglob("*.npy")
    content = file.read_bytes()
    broken = {"shorter": content[:-1], "empty": b"", "header": b"x" * len(content), "longer": content + b"x"}[damage]
    file.write_bytes(broken)
    with caplog.at_level(logging.WARNING, "archtuna"):
        again = data.images((8, 8), channels=3)
    assert np.array_equal(again.array, before)
    assert file.read_bytes() == content
    assert ("is damaged and made again" in caplog.text) or damage in ("shorter", "longer")


@pytest.mark.parametrize("after", [0, 5, 20])
def test_a_full_disk_leaves_nothing_half_written(data, cache, monkeypatch, after):
    written = []
    real = images_module._append

    def append(file, pixels):
        written.append(1)
        if len(written) > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(file, pixels)

    monkeypatch.setattr(images_module, "_append", append)
    with pytest.raises(
        DataError, match=r"(?s)cannot write the cache of 24 pictures at 8×8.*No space left.*ARCHTUNA_CACHE"
    ):
        data.images((8, 8), channels=3)
    assert files_of(cache) == []
    monkeypatch.undo()
    os.environ["ARCHTUNA_CACHE"] = str(cache)
    assert data.images((8, 8), channels=3).array.shape == (24, 3, 8, 8)


def test_a_cache_that_cannot_be_made(data, tmp_path, monkeypatch):
    (tmp_path / "occupied").write_text("a file")
    monkeypatch.setenv("ARCHTUNA_CACHE", str(tmp_path / "occupied"))
    with pytest.raises(DataError, match=r"(?s)occupied.*cannot write the cache.*hint: free some space there, or set"):
        data.images((8, 8), channels=3)


def test_what_a_killed_builder_left_is_removed(data, cache):
    data.images((8, 8), channels=3)
    (file,) = (cache / "images").rglob("*.npy")
    file.unlink()
    stale = file.with_name(f".{file.name}.abc.part")
    stale.write_bytes(b"half")
    data.images((8, 8), channels=3)
    assert files_of(cache) == [file.name]


def test_many_threads_build_one_file_once(tmp_path):
    built, results = [], []

    def write(part):
        built.append(part)
        part.write_text("whole")

    def work():
        build_once(tmp_path / "file", Path.exists, write, "a file")
        results.append((tmp_path / "file").read_text())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert results == ["whole"] * 8


WORKER = """
import logging, sys, time, pathlib
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
from archtuna.data import Data
data = Data.open(sys.argv[1])
pathlib.Path(sys.argv[2]).touch()
while not all(pathlib.Path(flag).exists() for flag in sys.argv[2:]):
    time.sleep(0.001)
images = data.images((48, 48), channels=3, via=(96, 96))
print("sum", int(images.array.astype("int64").sum()))
"""


@pytest.mark.slow
def test_two_processes_build_the_same_cache_at_once(tmp_path, cache):
    root = class_folders(tmp_path / "set", each=100)
    flags = [str(tmp_path / name) for name in ("a", "b")]
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(root), *order],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for order in (flags, flags[::-1])
    ]
    outputs = [run.communicate(timeout=120)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    sums = {line for output in outputs for line in output.splitlines() if line.startswith("sum")}
    assert len(sums) == 1
    assert sum(output.count("making the cache") for output in outputs) == 2  # one for each of two sizes
    assert len(files_of(cache)) == 2


def test_clearing_frees_bytes_and_keeps_open_files_readable(data, cache):
    images = data.images((8, 8), channels=3)
    total = int(images.array.sum())
    freed = clear_cache()
    assert freed >= images.array.size
    assert files_of(cache) == []
    assert int(images.array.sum()) == total
    assert clear_cache() == 0
    assert data.images((8, 8), channels=3).array.sum() == total


def test_statistics_are_those_of_the_chosen_pictures():
    x, y = arrays(40, size=(6, 7))
    images = Data.open((x, y)).images((6, 7), channels=3)
    chosen = np.array([3, 1, 30, 7])
    mean, std = images.statistics(chosen)
    assert mean == pytest.approx((x[chosen] / 255).mean(axis=(0, 1, 2)).tolist(), abs=1e-12)
    assert std == pytest.approx((x[chosen] / 255).std(axis=(0, 1, 2)).tolist(), abs=1e-12)
    assert images.statistics(chosen[::-1]) == (mean, std)


def test_statistics_of_one_colour_have_a_deviation():
    x = np.full((4, 5, 5, 3), 7, dtype=np.uint8)
    images = Data.open((x, np.array([0, 1, 0, 1]))).images((5, 5), channels=3)
    assert images.statistics(np.arange(4)) == (pytest.approx([7 / 255] * 3), [1 / 255] * 3)
    with pytest.raises(DataError, match="no pictures to take mean"):
        images.statistics(np.array([], dtype=int))
