from __future__ import annotations

import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archtuna.data import Data, Split
from archtuna.data.split import cut
from archtuna.errors import DataError
from data_pictures import arrays, class_folders, picture, save


def stand_in(labels, digests=None, part=None, classes=None):
    """A set as ``cut`` sees it, without pictures."""
    labels = np.asarray(labels, dtype=np.int64)
    return SimpleNamespace(
        labels=labels,
        digests=tuple(digests or (f"{i:032x}" for i in range(len(labels)))),
        part=np.array(part or [""] * len(labels)),
        classes=tuple(classes or (str(i) for i in range(labels.max() + 1))),
        names=tuple(f"x[{i}]" for i in range(len(labels))),
        fingerprint="0123456789abcdef",
        source="a set",
    )


def test_the_algorithm_never_changes():
    """Studies and checkpoints store a seed, not indices: another split here would spoil every one of them."""
    split = cut(stand_in([0] * 10 + [1] * 7 + [2] * 5), val=0.2, test=0.2, seed=7)
    assert split.val.tolist() == [1, 4, 11, 19]
    assert split.test.tolist() == [3, 7, 13, 17]
    assert split.train.tolist() == [0, 2, 5, 6, 8, 9, 10, 12, 14, 15, 16, 18, 20, 21]
    assert split.subset(0.5, seed=3).train.tolist() == [0, 2, 8, 10, 12, 14, 18, 20]


def test_a_set_on_disk_is_split_the_same_everywhere(tmp_path, monkeypatch):
    monkeypatch.setenv("ARCHTUNA_CACHE", str(tmp_path))
    x, y = arrays(24)
    split = Data.open((x, y)).split(val=0.25, test=0.25, seed=1)
    assert split.val.tolist() == [4, 5, 7, 18, 21, 23]
    assert split.test.tolist() == [2, 3, 12, 13, 17, 19]


labels = st.lists(st.integers(0, 3), min_size=1, max_size=60).map(lambda extra: [0, 1, 2, 3] * 3 + extra)


@given(labels, st.floats(0, 0.45), st.floats(0, 0.45), st.integers(0, 2**31))
def test_parts_are_disjoint_complete_sorted_and_stratified(values, val, test, seed):
    data = stand_in(values)
    split = cut(data, val=val, test=test, seed=seed)
    joined = np.concatenate([split.train, split.val, split.test])
    assert sorted(joined.tolist()) == list(range(len(values)))
    for part, share, slack in ((split.train, 1 - val - test, 2), (split.val, val, 1), (split.test, test, 1)):
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()
        counts = np.bincount(data.labels[part], minlength=4)
        assert (np.abs(counts - np.bincount(data.labels, minlength=4) * share) <= slack).all()
    assert set(data.labels[split.train]) == {0, 1, 2, 3}
    again = cut(data, val=val, test=test, seed=seed)
    assert all(np.array_equal(getattr(split, part), getattr(again, part)) for part in ("train", "val", "test"))


@given(labels, st.integers(0, 99), st.data())
def test_the_split_follows_pictures_not_their_order(values, seed, draw):
    order = draw.draw(st.permutations(range(len(values))))
    data = stand_in(values)
    moved = stand_in([values[i] for i in order], digests=[data.digests[i] for i in order])
    split, other = (cut(each, val=0.2, test=0.2, seed=seed) for each in (data, moved))
    assert split.val.tolist() == sorted(order[i] for i in other.val)
    assert split.test.tolist() == sorted(order[i] for i in other.test)


@given(labels, st.integers(1, 40), st.integers(0, 99))
def test_copies_never_lie_in_two_parts(values, kinds, seed):
    digests = [f"{(i * 7) % kinds if i >= 12 else 1000 + i:032x}" for i in range(len(values))]
    data = stand_in(values, digests=digests)
    split = cut(data, val=0.3, test=0.3, seed=seed)
    parts = [{digests[i] for i in part} for part in (split.train, split.val, split.test)]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]
    assert sum(map(len, (split.train, split.val, split.test))) == len(values)


@given(labels, st.floats(0.01, 1), st.floats(0.01, 1), st.integers(0, 99))
def test_subsets_are_stratified_and_nested(values, one, other, seed):
    split = cut(stand_in(values), val=0.1, test=0.1, seed=0)
    small, large = (split.subset(fraction, seed) for fraction in sorted((one, other)))
    assert set(small.train) <= set(large.train) <= set(split.train)
    assert set(split.labels[small.train]) == {0, 1, 2, 3}
    assert np.array_equal(small.val, split.val)
    assert np.array_equal(small.test, split.test)
    share = np.bincount(split.labels[large.train]) / np.bincount(split.labels[split.train])
    allowed = 1 / np.bincount(split.labels[split.train])
    assert (np.abs(share - max(one, other)) <= allowed).all()


def test_another_seed_is_another_split():
    data = stand_in([0, 1] * 50)
    assert cut(data, val=0.2, test=0.2, seed=0).val.tolist() != cut(data, val=0.2, test=0.2, seed=1).val.tolist()


def test_prescribed_parts_stay_and_missing_ones_are_cut_from_train():
    data = stand_in([0, 1] * 20, part=["train"] * 30 + ["test"] * 10)
    split = cut(data, val=0.2, test=0.2, seed=0)
    assert split.test.tolist() == list(range(30, 40))
    assert len(split.val) == 6
    assert len(split.train) == 24


def test_copies_across_prescribed_parts_leave_train(caplog):
    digests = [f"{i:032x}" for i in range(40)]
    digests[3], digests[32] = digests[35], digests[36]
    part = ["train"] * 30 + ["val"] * 4 + ["test"] * 6
    with caplog.at_level(logging.WARNING, "archtuna"):
        split = cut(stand_in([0, 1] * 20, digests=digests, part=part), val=0.2, test=0.2, seed=0)
    assert 3 not in split.train
    assert split.val.tolist() == [30, 31, 33]
    assert split.test.tolist() == list(range(34, 40))
    assert "a set: 2 pictures are left out: exact copies of them are in test or val" in caplog.text


def test_copies_under_two_classes_are_warned_of(caplog):
    digests = [f"{i:032x}" for i in range(20)]
    digests[1] = digests[0]
    with caplog.at_level(logging.WARNING, "archtuna"):
        cut(stand_in([0, 1] * 10, digests=digests), val=0.2, test=0.2, seed=0)
    assert (
        "1 pictures have exact copies, which stay in one part; 1 of them under several classes: x[0] = x[1]"
        in caplog.text
    )


@pytest.mark.parametrize(
    ("data", "shares", "message"),
    [
        (stand_in([0, 0, 0, 1, 1], classes=["cat", "dog"]), (0.2, 0.2), r"class 'dog' has 2 different .* for test, val, train"),
        (stand_in([0, 0, 1, 1, 1], digests=["a", "a", "b", "c", "d"]), (0.2, 0), "class '0' has 1 different pictures"),
        (stand_in([0, 1, 0, 0, 1], part=["train", "test", "train", "train", "test"]), (0.2, 0.2), "class '1' has no picture left"),
        (stand_in([0, 1] * 5), (0.5, 0.5), r"shares val 0\.5 and test 0\.5 must be"),
        (stand_in([0, 1] * 5), (-0.1, 0.5), r"shares val -0\.1"),
    ],
)  # fmt: skip
def test_splits_that_cannot_be(data, shares, message):
    with pytest.raises(DataError, match=message):
        cut(data, val=shares[0], test=shares[1], seed=0)


def test_shares_of_zero_leave_a_part_out():
    split = cut(stand_in([0, 1] * 10), val=0, test=0, seed=0)
    assert (len(split.train), len(split.val), len(split.test)) == (20, 0, 0)


@pytest.mark.parametrize("fraction", [0, -1, 1.5])
def test_fractions_that_cannot_be(fraction):
    with pytest.raises(DataError, match="must be above 0 and at most 1"):
        cut(stand_in([0, 1] * 10), val=0.2, test=0.2, seed=0).subset(fraction)


def test_a_subset_of_a_subset_is_refused():
    split = cut(stand_in([0, 1] * 10), val=0.2, test=0.2, seed=0).subset(0.5)
    with pytest.raises(DataError, match="not of a subset"):
        split.subset(0.5)


def test_a_split_travels_as_json():
    data = stand_in([0, 1] * 30)
    split = cut(data, val=0.2, test=0.1, seed=5)
    assert split.to_dict() == {"seed": 5, "val": 0.2, "test": 0.1, "fingerprint": "0123456789abcdef"}
    for one in (split, split.subset(0.3, seed=9)):
        again = Split.from_dict(json.loads(json.dumps(one.to_dict())), data)
        assert again.to_dict() == one.to_dict()
        assert all(np.array_equal(getattr(again, part), getattr(one, part)) for part in ("train", "val", "test"))


def test_a_split_of_other_pictures_is_refused():
    data = stand_in([0, 1] * 30)
    document = cut(data, val=0.2, test=0.1, seed=5).to_dict()
    with pytest.raises(DataError, match="fingerprint 0123456789abcdef, not ffff"):
        Split.from_dict({**document, "fingerprint": "ffff"}, data)
    with pytest.raises(DataError, match="this is no split"):
        Split.from_dict({"seed": 5}, data)


def test_a_folder_with_copies(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("ARCHTUNA_CACHE", str(tmp_path / "cache"))
    root = class_folders(tmp_path / "set")
    for label in ("blue", "red"):
        save(root / label / "same.png", picture(5555))
    data = Data.open(root)
    with caplog.at_level(logging.WARNING, "archtuna"):
        split = data.split()
    assert "blue/same.png = red/same.png" in caplog.text
    twins = {data.names.index("blue/same.png"), data.names.index("red/same.png")}
    assert any(twins <= set(part.tolist()) for part in (split.train, split.val, split.test))
