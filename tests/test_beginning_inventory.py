import math

import numpy as np
import pytest

from archtuna.beginning.inventory import inventory_of, lines_of
from archtuna.data import Data
from data_pictures import class_folders, picture, save
from kinds import KINDS


def look(kind, tmp_path):
    return inventory_of(Data.open(KINDS[kind](tmp_path)))


def test_it_counts_classes_and_says_how_uneven_they_are(tmp_path):
    found = look("imbalanced", tmp_path)
    assert (found.pictures, dict(found.classes), found.imbalance) == (45, {"common": 40, "rare": 5}, 8.0)
    entropy = -(40 / 45 * math.log(40 / 45) + 5 / 45 * math.log(5 / 45))
    assert found.effective_classes == pytest.approx(math.exp(entropy))
    assert (found.native, found.channels, found.broken, found.copies, dict(found.small)) == ((300, 400), 3, 0, 0, {})
    assert "45 pictures in 2 classes, 5 (rare) to 40: 8 to 1, as hard to guess as 1.42 classes" in lines_of(found)[0]


def test_even_classes_are_as_many_as_there_are():
    found = inventory_of(Data.open("digits"))
    assert (found.pictures, found.channels, found.grey) == (1797, 1, 1797)
    assert found.effective_classes == pytest.approx(10, abs=0.01)
    assert "all grey" in lines_of(found)[1]


def test_sizes_are_quantiles_and_colour_is_counted(tmp_path):
    for index in range(20):
        save(
            tmp_path / "set" / "ab"[index % 2] / f"{index}.png",
            picture(index, (10 + index, 30), channels=1 + 2 * (index > 4)),
        )
    found = inventory_of(Data.open(tmp_path / "set"))
    assert found.heights == {"smallest": 10, "5 %": 11, "median": 20, "95 %": 28, "largest": 29}
    assert found.widths["smallest"] == found.widths["largest"] == 30
    assert found.shapes["largest"] == 3.0
    assert (found.grey, found.channels) == (5, 3)
    assert "10x30 to 29x30, median 20x30" in lines_of(found)[1]
    assert "in colour, 5 of them grey" in lines_of(found)[1]


def test_what_is_broken_or_there_twice_is_named(tmp_path, caplog):
    found = look("mixed", tmp_path)
    assert (found.broken, found.broken_names[0][0]) == (1, "z: #/bro\nken.jpg")
    assert (found.copies, found.copy_names, found.torn) == (2, (("z: #/a.png", "z: #/b.png"),), 0)
    broken, copies = lines_of(found)[2:]
    assert broken.startswith("Broken and left out: 1: z: #/bro\nken.jpg (not a picture in a known format)")
    assert copies == "Exact copies: 2 pictures, which stay in one part: z: #/a.png = z: #/b.png."


def test_copies_under_several_classes_are_counted(tmp_path):
    class_folders(tmp_path / "set", each=4, classes=("a", "b"))
    save(tmp_path / "set" / "b" / "same.png", picture(0))
    found = inventory_of(Data.open(tmp_path / "set"))
    assert (found.copies, found.torn) == (2, 1)
    for number in range(4):
        save(tmp_path / "set" / "a" / f"again{number}.png", picture(0))
    assert lines_of(inventory_of(Data.open(tmp_path / "set")))[2].endswith("; and 3 more.")
    assert "1 lie under several classes: a/0.png = b/same.png" in lines_of(found)[-1]


def test_classes_too_small_for_three_parts_count_different_pictures(tmp_path):
    found = look("tiny", tmp_path)
    assert dict(found.small) == {"blue": 2, "green": 2, "red": 2}
    assert lines_of(found)[-1] == "Fewer than 3 different pictures: blue (2), green (2), red (2)."


def test_what_a_prescribed_part_holds_needs_no_splitting(tmp_path):
    found = look("npz", tmp_path)
    assert found.parts == {"train": 28, "val": 12}
    assert "Prescribed parts: train 28, val 12." in lines_of(found)
    assert found.native == (12, 20)


def test_it_is_plain_data(tmp_path):
    import json

    for kind in KINDS:
        assert json.loads(json.dumps(look(kind, tmp_path).to_dict()))["pictures"] > 0


def test_a_million_broken_names_are_not_kept(tmp_path):
    root = class_folders(tmp_path / "set", each=3)
    for index in range(30):
        (root / "red" / f"no{index}.jpg").write_bytes(b"x")
    found = inventory_of(Data.open(root))
    assert (found.broken, len(found.broken_names)) == (30, 20)
    assert lines_of(found)[2].endswith("; and 25 more.")


def test_sizes_and_grey_of_a_set_follow_its_pictures(tmp_path):
    data = Data.open(KINDS["mixed"](tmp_path))
    sizes = {name: tuple(size) for name, size in zip(data.names, data.sizes.tolist(), strict=True)}
    assert sizes["z: #/5.jpg"] == (170, 60)
    assert len(data.sizes) == len(data.grey) == len(data)
    assert data.sizes.dtype == np.int64
