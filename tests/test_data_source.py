from __future__ import annotations

import logging
import os
import pickle
import shutil
import time
import unicodedata

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from archtuna.data import Data, clear_cache
from archtuna.data import folder as folder_module
from archtuna.errors import DataError
from data_pictures import CLASSES, arrays, class_folders, picture, save


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ARCHTUNA_CACHE", str(tmp_path / "the cache"))
    return tmp_path / "the cache"


def test_a_folder_of_class_folders(tmp_path):
    data = Data.open(class_folders(tmp_path / "set"))
    assert data.classes == CLASSES
    assert data.labels.dtype == np.int64
    assert data.labels.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert data.names[0] == "blue/0.png"
    assert set(data.part.tolist()) == {""}
    assert (data.channels, data.native_size, data.broken) == (3, (20, 30), ())
    assert data.source == str((tmp_path / "set").resolve())
    assert len(data.fingerprint) == 16


def test_parts_that_the_folder_prescribes(tmp_path):
    for part, each in (("train", 4), ("Validation", 2), ("test", 3)):
        for code, label in enumerate(CLASSES):
            for index in range(each):
                save(tmp_path / "set" / part / label / f"{index}.png", picture(hash((part, code, index)) % 2**31))
    data = Data.open(tmp_path / "set")
    assert {part: int((data.part == part).sum()) for part in ("train", "val", "test")} == {
        "train": 12, "val": 6, "test": 9,
    }  # fmt: skip
    split = data.split()
    assert (data.part[split.val] == "val").all()
    assert (data.part[split.test] == "test").all()
    assert len(split.train) == 12


def test_a_folder_named_test_without_train_is_a_class(tmp_path):
    data = Data.open(class_folders(tmp_path / "set", each=2, classes=("test", "other")))
    assert data.classes == ("other", "test")


def test_training_and_testing_are_parts(tmp_path):
    for part in ("Training", "Testing"):
        class_folders(tmp_path / "set" / part, each=2)
    data = Data.open(tmp_path / "set")
    assert data.classes == CLASSES
    assert sorted(set(data.part)) == ["test", "train"]


def test_parts_without_train_are_classes_and_that_is_said(tmp_path, caplog):
    data = Data.open(class_folders(tmp_path / "set", each=2, classes=("test", "val")))
    assert data.classes == ("test", "val")
    assert "without a folder 'train' these are classes, not parts: test, val" in caplog.text


def test_a_picture_that_changes_after_the_opening_does_not_get_into_the_cache(tmp_path):
    root = class_folders(tmp_path / "set", each=2)
    data, file = Data.open(root), root / "red" / "1.png"
    before = file.read_bytes()
    save(file, picture(9999))
    with pytest.raises(DataError, match=r"red/1.png: changed since the set was opened\nhint: .* open the set again"):
        data.images((8, 8), channels=3)
    file.write_bytes(before)
    file.chmod(0o400)  # Another stamp, the same picture.
    assert np.array_equal(data.images((8, 8), channels=3).pixels[5], Data.open(root).decode(5, (8, 8), channels=3))


@pytest.mark.parametrize("change", [lambda x: x[::-1], lambda x: x[:, :4], lambda x: np.concatenate([x, x])])
def test_an_npz_that_changes_after_the_opening_does_not_get_into_the_cache(tmp_path, monkeypatch, change):
    monkeypatch.setattr("archtuna.data.ledger._SETTLED_NS", -(10**15))  # It is trusted at once.
    x, y = arrays()
    file = tmp_path / "set.npz"
    np.savez(file, x_train=x, y_train=y)
    Data.open(file)
    data = Data.open(file)  # This one need not read the pictures.
    np.savez(file, x_train=change(x), y_train=y)
    with pytest.raises(DataError, match="changed since the set was opened"):
        data.images((8, 8), channels=3)


def test_an_array_that_is_written_to_after_the_opening_does_not_get_into_the_cache():
    x, y = arrays()
    data = Data.open((x, y))
    x[3] = 0
    with pytest.raises(DataError, match=r"x_train\[3\]: changed since the set was opened"):
        data.images((8, 8), channels=3)


def test_two_folders_for_one_part(tmp_path):
    for part in ("train", "val", "valid"):
        class_folders(tmp_path / "set" / part, each=1)
    with pytest.raises(DataError, match=r"several folders are the val part: val, valid"):
        Data.open(tmp_path / "set")


def test_a_class_that_only_test_has(tmp_path):
    class_folders(tmp_path / "set" / "train", each=1)
    class_folders(tmp_path / "set" / "test", each=1, classes=("purple",))
    with pytest.raises(DataError, match=r"(?s)class 'purple' does not occur in train.*classes of train: blue, green"):
        Data.open(tmp_path / "set")


def test_what_is_no_picture_is_ignored_and_nested_folders_are_walked(tmp_path):
    root = class_folders(tmp_path / "set", each=2)
    for name in ("splits.csv", "Thumbs.db", ".DS_Store", "blue/notes.txt", "blue/._0.png", "blue/.hidden.png"):
        (root / name).write_text("x")
    save(root / ".git" / "a.png", picture(1))
    save(root / "__MACOSX" / "a.png", picture(1))
    save(root / "blue" / "deeper" / "still" / "x.JPEG", picture(77))
    data = Data.open(root)
    assert data.classes == CLASSES
    assert [name for name in data.names if name.startswith("blue")] == [
        "blue/0.png",
        "blue/1.png",
        "blue/deeper/still/x.JPEG",
    ]
    assert data.broken == ()


def test_links_that_loop_end(tmp_path):
    root = class_folders(tmp_path / "set", each=2)
    (root / "blue" / "again").symlink_to(root / "blue", target_is_directory=True)
    (root / "blue" / "up").symlink_to(root, target_is_directory=True)
    (root / "red" / "self").symlink_to(root / "red" / "self")
    data = Data.open(root)
    assert [name for name in data.names if name.startswith("red")] == ["red/0.png", "red/1.png"]


def test_a_linked_class_counts_and_dangling_links_are_broken(tmp_path):
    root = class_folders(tmp_path / "set", each=2)
    shutil.move(root / "blue", tmp_path / "elsewhere")
    (root / "blue").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (root / "red" / "gone.png").symlink_to(tmp_path / "nothing.png")
    (root / "red" / "self.png").symlink_to(root / "red" / "self.png")
    data = Data.open(root)
    assert len(data) == 6
    assert [name for name, _ in data.broken] == ["red/gone.png", "red/self.png"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_does_not_hang(tmp_path):
    root = class_folders(tmp_path / "set", each=2)
    os.mkfifo(root / "red" / "pipe.png")
    assert len(Data.open(root)) == 6


def test_unicode_names_are_one_spelling(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "Zürich") for form in ("NFC", "NFD"))
    prints = []
    for place, name in (("a", composed), ("b", decomposed)):
        root = class_folders(tmp_path / place, each=2, classes=(name, "日本 🗾"))
        data = Data.open(root)
        assert data.classes == (composed, "日本 🗾")
        assert data.images((8, 8), channels=3).array.shape == (4, 3, 8, 8)
        prints.append(data.fingerprint)
    assert prints[0] == prints[1]


def break_some(root):
    (root / "blue" / "text.jpg").write_text("a text")
    (root / "green" / "empty.png").write_bytes(b"")
    whole = (root / "red" / "0.png").read_bytes()
    (root / "red" / "cut.png").write_bytes(whole[: len(whole) // 2])


def test_broken_pictures_are_named_counted_and_skipped(tmp_path, caplog):
    root = class_folders(tmp_path / "set")
    clean = Data.open(root).fingerprint
    break_some(root)
    with caplog.at_level(logging.WARNING, "archtuna"):
        data = Data.open(root)
    assert [name for name, _ in data.broken] == ["blue/text.jpg", "green/empty.png", "red/cut.png"]
    assert len(data) == 24
    assert data.fingerprint == clean
    (record,) = caplog.records
    assert "3 of 27 pictures are broken and skipped: blue/text.jpg (not a picture" in record.getMessage()


def test_strict_refuses_broken_pictures(tmp_path):
    root = class_folders(tmp_path / "set")
    break_some(root)
    with pytest.raises(DataError, match=r"(?s)3 of 27 pictures are broken: blue/text\.jpg.*hint: remove or replace"):
        Data.open(root, strict=True)


def test_a_class_of_broken_pictures_only(tmp_path):
    root = class_folders(tmp_path / "set", each=1)
    (root / "red" / "0.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match="every picture of class 'red' is broken"):
        Data.open(root)


def test_a_picture_that_vanishes_after_opening_is_named(tmp_path):
    root = class_folders(tmp_path / "set", each=2)
    data = Data.open(root)
    (root / "red" / "1.png").unlink()
    with pytest.raises(DataError, match=r"(?s)red/1\.png: .*no such file.*open the set again"):
        data.images((8, 8), channels=3)
    assert not list((tmp_path / "the cache").rglob("*.npy"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root.mkdir(), r"there are no class folders\nhint: make set/<class>"),
        (lambda root: save(root / "a.png", picture(1)), r"pictures, but no class folders\nhint: put each picture"),
        (lambda root: class_folders(root, classes=("one",)), r"only one class, 'one'\nhint: a classifier needs two"),
        (lambda root: class_folders(root / "inner", each=1), r"only one class, 'inner'\nhint: did you mean .*inner\?"),
        (lambda root: (class_folders(root), (root / "void").mkdir()), r"class 'void' has no pictures\nhint: put"),
        (lambda root: None, r"set: no such file or folder\nhint: give a folder"),
        (lambda root: root.write_text("x"), "neither a folder nor an .npz file"),
    ],
)
def test_folders_that_cannot_be_used(tmp_path, make, message):
    root = tmp_path / "set"
    make(root)
    with pytest.raises(DataError, match=message):
        Data.open(root)


def test_a_misspelt_built_in():
    with pytest.raises(DataError, match=r"digts: no such file or folder\nhint: did you mean 'digits'\?"):
        Data.open("digts")


def test_a_zip_is_to_be_unpacked(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="hint: unpack it first"):
        Data.open(tmp_path / "a.zip")


def test_fingerprint_survives_a_copy_and_notices_a_change(tmp_path):
    root = class_folders(tmp_path / "set", each=3)
    first = Data.open(root).fingerprint
    shutil.copytree(root, tmp_path / "copy")
    copy = tmp_path / "copy"
    assert Data.open(copy).fingerprint == first
    save(copy / "red" / "1.png", picture(9999))
    changed = Data.open(copy).fingerprint
    shutil.copy(root / "red" / "1.png", copy / "red" / "1.png")
    assert Data.open(copy).fingerprint == first
    (copy / "red" / "1.png").rename(copy / "red" / "9.png")
    renamed = Data.open(copy).fingerprint
    (copy / "red" / "9.png").rename(copy / "green" / "9.png")
    relabelled = Data.open(copy).fingerprint
    assert len({first, changed, renamed, relabelled}) == 4


def test_the_second_opening_reads_no_picture(tmp_path, monkeypatch):
    root = class_folders(tmp_path / "set", each=3)
    later = time.time_ns() + 60_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: later)
    first = Data.open(root)
    read = []
    real = folder_module.inspect
    monkeypatch.setattr(folder_module, "inspect", lambda path: read.append(path) or real(path))
    again = Data.open(root)
    assert read == []
    assert (again.fingerprint, again.digests, again.native_size) == (
        first.fingerprint,
        first.digests,
        first.native_size,
    )
    save(root / "red" / "0.png", picture(4242))
    assert Data.open(root).fingerprint != first.fingerprint
    assert read == [str(root.resolve() / "red" / "0.png")]


def test_files_written_a_moment_ago_are_read_again(tmp_path, monkeypatch):
    root = class_folders(tmp_path / "set", each=1)
    Data.open(root)
    read = []
    real = folder_module.inspect
    monkeypatch.setattr(folder_module, "inspect", lambda path: read.append(path) or real(path))
    Data.open(root)
    assert len(read) == 3


def test_a_damaged_ledger_only_costs_time(tmp_path, cache, monkeypatch):
    root = class_folders(tmp_path / "set", each=2)
    later = time.time_ns() + 60_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: later)
    first = Data.open(root)
    (ledger,) = (cache / "ledgers").glob("*.json")
    for text in ("", "{", "[]", '{"version": 99}', '{"version": 1, "facts": []}'):
        ledger.write_text(text)
        assert Data.open(root).fingerprint == first.fingerprint


def test_digits():
    data = Data.open("digits")
    assert (len(data), data.classes, data.channels, data.native_size) == (1797, tuple("0123456789"), 1, (8, 8))
    assert data.source == "digits"
    assert Data.open(data) is data
    images = data.images((32, 32), channels=1)
    assert images.array.shape == (1797, 1, 32, 32)
    assert data.images((8, 8), channels=1).array.max() == 255
    assert data.images((16, 16), channels=3).array.shape == (1797, 3, 16, 16)


def test_digits_have_a_portable_fingerprint():
    assert Data.open("digits").fingerprint == "e7262a907aa7f2f5"


def write_npz(path, **content):
    np.savez(path, **content)
    return path


def test_npz(tmp_path):
    x, y = arrays()
    path = write_npz(
        tmp_path / "a.npz",
        x_train=x[:20],
        y_train=y[:20, None],
        x_test=x[20:],
        y_test=y[20:],
        class_names=["a", "b", "c"],
    )
    data = Data.open(path)
    assert data.classes == ("a", "b", "c")
    assert data.names[0] == "x_train[0]"
    assert data.names[-1] == "x_test[9]"
    assert data.part.tolist() == ["train"] * 20 + ["test"] * 10
    assert np.array_equal(data.images((8, 8), channels=3).array, np.moveaxis(x, -1, 1))
    assert Data.open(path).fingerprint == data.fingerprint


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x, lambda x: np.moveaxis(x, -1, 1), lambda x: x / 255, lambda x: x.astype(np.float16) / 255,
        lambda x: x.astype(np.int64), lambda x: x.astype(np.uint16) * 257,
    ],
)  # fmt: skip
def test_npz_of_every_type_and_layout_is_the_same_set(tmp_path, convert):
    x, y = arrays()
    plain = Data.open(write_npz(tmp_path / "a.npz", x_train=x, y_train=y))
    other = Data.open(write_npz(tmp_path / "b.npz", x_train=convert(x), y_train=y))
    assert other.fingerprint == plain.fingerprint
    assert np.array_equal(other.images((8, 8), channels=3).array, plain.images((8, 8), channels=3).array)


def test_npz_grey_pictures_and_labels_by_name(tmp_path):
    x, y = arrays()
    names = np.array(["cat", "ant", "bee"])[y]
    data = Data.open(write_npz(tmp_path / "a.npz", x_train=x[..., 0], y_train=names))
    assert data.classes == ("ant", "bee", "cat")
    assert data.labels[:3].tolist() == [2, 0, 1]
    assert data.channels == 1


X, Y = arrays()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": X}, r"no 'x_train'; keys: a\nhint: expected: x_train, y_train"),
        ({"X_train": X, "y_train": Y}, r"unknown key 'X_train'\nhint: did you mean 'x_train'"),
        ({"x_train": X, "y_train": Y, "x_valid": X}, r"unknown key 'x_valid'\nhint: did you mean 'x_val'"),
        ({"x_train": X}, "no 'y_train'"),
        ({"x_train": X, "y_train": Y, "x_test": X}, "'x_test' stands without the other"),
        ({"x_train": X, "y_train": Y[:-1]}, "x_train has 30 pictures, y_train 29 labels"),
        ({"x_train": X.reshape(30, -1), "y_train": Y}, r"pictures have shape \(30, 192\)\nhint: give \(n, H, W\)"),
        ({"x_train": X[..., :2], "y_train": Y}, "no axis of 1, 3 or 4 channels"),
        ({"x_train": X[:0], "y_train": Y[:0]}, r"labels have shape \(0,\)"),
        (
            {"x_train": X * 1.0, "y_train": Y},
            r"pixels of type float64 lie in 0\.\.255, not 0\.\.1\nhint: give pixels as",
        ),
        ({"x_train": X, "y_train": np.eye(3)[Y]}, r"shape \(30, 3\), not \(n,\)\nhint: one-hot labels"),
        ({"x_train": X, "y_train": Y + 0.5}, "labels are of type float64"),
        ({"x_train": X, "y_train": Y, "class_names": ["a", "b"]}, r"labels are 0\.\.2, but there are 2 class names"),
        ({"x_train": X, "y_train": Y, "class_names": ["a", "b", "c", "d"]}, "class 'd' has no pictures"),
        ({"x_train": X, "y_train": Y, "class_names": ["a", "b", "b"]}, "two classes have the same name"),
        ({"x_train": X, "y_train": Y * 0}, "only one class, '0'"),
        ({"x_train": X, "y_train": Y.astype(str), "class_names": ["0", "1"]}, "label '2' is not among the class names"),
        (
            {"x_train": X, "y_train": Y, "x_test": X, "y_test": Y.astype(str)},
            "numbers in one part and names in another",
        ),
        ({"x_train": np.array([1, "a"], dtype=object), "y_train": Y}, "hint: object arrays are refused"),
        ({"x_train": X, "y_train": np.array([1, "a"], dtype=object)}, "hint: object arrays are refused"),
        ({"x_train": X, "y_train": Y, "x_train_shapes": np.ones((30, 3), int)}, "x_train does not fit x_train_shapes"),
    ],
)
def test_npz_that_cannot_be_used(tmp_path, content, message):
    path = write_npz(tmp_path / "a.npz", **content)
    with pytest.raises(DataError, match=message):
        Data.open(path)


@pytest.mark.parametrize("kind", ["empty", "text", "truncated", "npy"])
def test_npz_that_is_damaged(tmp_path, kind):
    path = write_npz(tmp_path / "a.npz", x_train=X, y_train=Y)
    content = path.read_bytes()
    if kind == "npy":
        with path.open("wb") as file:
            np.save(file, X)
    else:
        path.write_bytes({"empty": b"", "text": b"hello", "truncated": content[: len(content) // 2]}[kind])
    with pytest.raises(DataError, match=r"a\.npz: (cannot be read as an \.npz file|is a single array)"):
        Data.open(path)


class Items:
    def __init__(self, items, classes=None):
        self.items = items
        if classes:
            self.classes = classes

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def test_a_pair_of_tensors_is_its_copy_on_disk():
    x, y = arrays()
    data = Data.open((torch.from_numpy(np.moveaxis(x, -1, 1).copy()), torch.from_numpy(y)))
    assert data.source.endswith(f"{data.fingerprint}.npz")
    copy = Data.open(data.source)
    assert copy.fingerprint == data.fingerprint
    assert copy.labels.tolist() == y.tolist()
    assert np.array_equal(copy.images((8, 8), channels=3).array, np.moveaxis(x, -1, 1))
    assert Data.open((x, y)).fingerprint == data.fingerprint


def test_a_tensor_of_three_by_three_is_read_channels_first():
    x = torch.zeros(4, 3, 5, 3, dtype=torch.uint8)
    assert Data.open((x, torch.tensor([0, 1, 0, 1]))).native_size == (5, 3)
    assert Data.open((x.numpy(), np.array([0, 1, 0, 1]))).native_size == (3, 5)


def test_a_data_set_of_pictures_of_many_sizes():
    sizes = [(20, 30), (31, 17), (8, 8), (64, 3)]
    items = [(picture(i, size, channels=1 if i == 2 else 3), i % 2) for i, size in enumerate(sizes)]
    data = Data.open(Items(items, ["no", "yes"]))
    assert data.classes == ("no", "yes")
    assert data.channels == 3
    copy = Data.open(data.source)
    assert copy.fingerprint == data.fingerprint
    for index, (image, _) in enumerate(items):
        assert np.array_equal(np.asarray(copy._picture(index, (1, 1)).convert("RGB")), np.asarray(image.convert("RGB")))


def test_torch_data_sets_are_taken():
    x, y = torch.rand(6, 1, 5, 5), torch.tensor([0, 1, 2, 0, 1, 2])
    data = Data.open(torch.utils.data.TensorDataset(x, y))
    assert (len(data), data.channels, data.native_size) == (6, 1, (5, 5))
    assert Data.open(torch.utils.data.Subset(torch.utils.data.TensorDataset(x, y), [0, 1, 3])).classes == ("0", "1")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (42, "a int is no image set"),
        (Items([]), "the data set is empty"),
        (
            Items([(picture(0), 0), (picture(1), [0, 1])]),
            r"item 1 of the data set: its label has shape \(2,\)\nhint: one-hot",
        ),
        (Items([5]), r"item 0 of the data set: .*\nhint: each item must be a pair"),
        (Items([(np.zeros((4, 4)), 0), (np.zeros(4), 1)]), r"item 1 of the data set: a picture has shape \(4,\)"),
        (Items([(np.zeros((4, 4)), 0)] * 3), "only one class"),
        ((np.zeros((3, 4, 4)), np.zeros(2)), "x has 3 pictures, y 2 labels"),
    ],
)
def test_what_is_no_image_set(source, message):
    with pytest.raises(DataError, match=message):
        Data.open(source)


def test_data_travels_as_its_source(tmp_path):
    data = Data.open(class_folders(tmp_path / "set", each=2))
    assert pickle.loads(pickle.dumps(data)).fingerprint == data.fingerprint


def test_copies_from_memory_outlive_an_ordinary_clearing():
    data = Data.open(arrays())
    data.images((8, 8), channels=3)
    assert clear_cache() > 30 * 8 * 8 * 3
    assert Data.open(data.source).fingerprint == data.fingerprint
    clear_cache(sources=True)
    with pytest.raises(DataError, match="no such file"):
        Data.open(data.source)


def test_formats_that_pillow_writes(tmp_path):
    root = class_folders(tmp_path / "set", each=1)
    for suffix in (".jpg", ".bmp", ".gif", ".tif", ".webp", ".ppm", ".PNG"):
        save(root / "red" / f"x{suffix}", picture(5))
    save(root / "red" / "cmyk.jpg", picture(6).convert("CMYK"))
    save(root / "red" / "deep.tif", Image.fromarray(np.full((9, 9), 40000, np.uint16)))
    data = Data.open(root)
    assert data.broken == ()
    assert len(data) == 12
    assert data.images((8, 8), channels=3).array.shape == (12, 3, 8, 8)


def test_a_data_set_that_fails_names_the_item():
    class Failing(Items):
        def __getitem__(self, index):
            if index == 1:
                raise OSError("image file is truncated")
            return super().__getitem__(index)

    with pytest.raises(DataError, match="item 1 of the data set: image file is truncated") as caught:
        Data.open(Failing([(np.zeros((4, 4)), 0), (np.zeros((4, 4)), 1)]))
    assert isinstance(caught.value.__cause__, OSError)


def test_a_folder_opens_where_the_cache_cannot_be_written(tmp_path, monkeypatch, caplog):
    root = class_folders(tmp_path / "set", each=2)
    (tmp_path / "occupied").write_text("a file")
    monkeypatch.setenv("ARCHTUNA_CACHE", str(tmp_path / "occupied"))
    later = time.time_ns() + 60_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: later)
    with caplog.at_level(logging.WARNING, "archtuna"):
        assert len(Data.open(root)) == 6
    assert "the next opening will be as slow as this one" in caplog.text


def test_grey_sets_have_one_channel(tmp_path):
    root = class_folders(tmp_path / "set", each=1)
    for index, label in enumerate(CLASSES):
        save(root / label / "0.png", picture(index, channels=1))
    save(root / "red" / "palette.gif", picture(7, channels=1))
    save(root / "red" / "alpha.png", picture(8, channels=1).convert("LA"))
    assert Data.open(root).channels == 1
    save(root / "red" / "colour.png", picture(9))
    assert Data.open(root).channels == 3


def test_odd_tags_beside_a_rotation_do_no_harm(tmp_path):
    """Cameras write tags that Pillow cannot write again, which turning a picture does not need."""
    root = class_folders(tmp_path / "set", suffix=".jpg")
    exif = Image.Exif()
    exif[0x0112], exif[0x011A] = 6, "72 dpi"  # a resolution is no text
    content = (
        b"Exif\x00\x00"
        + bytes.fromhex("4d4d002a00000008000201120003000000010006000001 1a00020000000700000026".replace(" ", ""))
        + b"\x00" * 4
        + b"72 dpi\x00"
    )
    path = root / "blue" / "odd.jpg"
    picture(1, (20, 30)).save(path, exif=content)
    with pytest.raises(Exception):  # noqa: B017 - whatever Pillow raises: it is odd enough
        ImageOps.exif_transpose(Image.open(path))
    data = Data.open(root)
    assert data.broken == ()
    index = data.names.index("blue/odd.jpg")
    assert data.sizes[index].tolist() == [30, 20]
    assert data.images((16, 16), channels=3).pixels[index].std() > 1


def test_a_turned_tiff_has_the_size_that_it_is_seen_in(tmp_path):
    root = class_folders(tmp_path / "set")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(1, (20, 30)).save(root / "blue" / "turned.tif", exif=exif)
    data = Data.open(root)
    assert data.sizes[data.names.index("blue/turned.tif")].tolist() == [30, 20]


def test_what_could_not_be_read_for_a_moment_is_read_again(tmp_path, monkeypatch):
    root = class_folders(tmp_path / "set")
    for file in root.rglob("*.png"):
        os.utime(file, (1, 1))
    inspect = folder_module.inspect

    def fails(path):
        return inspect(path)._replace(reason="too many open files") if path.endswith("blue/0.png") else inspect(path)

    monkeypatch.setattr("archtuna.data.ledger._SETTLED_NS", -(10**18))
    monkeypatch.setattr(folder_module, "inspect", fails)
    assert [name for name, _ in Data.open(root).broken] == ["blue/0.png"]
    monkeypatch.setattr(folder_module, "inspect", inspect)
    assert Data.open(root).broken == ()


def test_a_class_may_be_called_train(tmp_path):
    root = class_folders(tmp_path / "set", classes=("car", "plane", "train"))
    assert Data.open(root).classes == ("car", "plane", "train")


def test_folders_with_pictures_beside_the_parts_are_named(tmp_path):
    class_folders(tmp_path / "set" / "train")
    (tmp_path / "set" / "notes").mkdir()
    assert Data.open(tmp_path / "set").classes == CLASSES
    class_folders(tmp_path / "set" / "dev")
    with pytest.raises(
        DataError, match=r"beside train there are folders with pictures that are no part: dev\nhint: parts"
    ):
        Data.open(tmp_path / "set")


def test_a_long_reading_is_noted_as_it_goes(tmp_path, monkeypatch):
    root = class_folders(tmp_path / "set")
    noted = []
    monkeypatch.setattr(folder_module, "TOGETHER", 5)
    monkeypatch.setattr(folder_module, "NOTED_SECONDS", -1)
    monkeypatch.setattr(folder_module, "_note", lambda ledger, stamps, seen: noted.append(len(seen)))
    assert len(Data.open(root)) == 24
    assert noted == [5, 10, 15, 20, 24, 24]


def test_a_cache_may_be_shared(tmp_path, cache):
    data = Data.open(class_folders(tmp_path / "set"))
    data.images((8, 8), channels=3)
    own = tmp_path / "own"
    own.touch()
    assert {file.stat().st_mode for file in cache.rglob("*.npy")} == {own.stat().st_mode}
