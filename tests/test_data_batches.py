from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archtuna.data import Batches, Data, Preprocess
from archtuna.errors import DataError
from archtuna.recipe import Recipe
from data_pictures import arrays

RECIPES = [
    Recipe(augment="none"), Recipe(augment="flip"), Recipe(augment="simple"), Recipe(augment="randaugment"),
    Recipe(augment="simple", cutout=0.4), Recipe(augment="randaugment", randaugment_ops=3, randaugment_magnitude=9),
]  # fmt: skip
COUNT = 60


def name_of(recipe: Recipe | None) -> str:
    return f"{recipe.augment}-{recipe.cutout}-{recipe.randaugment_ops}" if recipe else "evaluation"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ARCHTUNA_CACHE", str(tmp_path / "the cache"))


@pytest.fixture
def images():
    return Data.open(arrays(COUNT, size=(12, 10))).images((12, 10), channels=3)


@pytest.fixture
def preprocess(images):
    return Preprocess.of(images, np.arange(COUNT))


def collect(batches, number):
    found = list(batches.epoch(number))
    return torch.cat([x for x, _ in found]), torch.cat([y for _, y in found])


def test_evaluation_serves_each_picture_once_in_order(images, preprocess):
    indices = np.arange(5, 42)
    batches = Batches(images, indices, preprocess, batch_size=8)
    assert (len(batches), batches.count, batches.training) == (5, 37, False)
    assert [len(y) for _, y in batches] == [8, 8, 8, 8, 5]
    x, y = collect(batches, 0)
    assert y.dtype == torch.int64
    assert y.tolist() == images.labels[indices].tolist()
    assert torch.equal(x, preprocess.normalise(torch.from_numpy(np.array(images.array[indices]))))
    assert torch.equal(torch.cat([x for x, _ in batches]), x)


@pytest.mark.parametrize("recipe", RECIPES, ids=name_of)
@pytest.mark.parametrize("channels_last", [False, True])
def test_an_epoch_depends_on_seed_and_number_alone(images, preprocess, recipe, channels_last):
    def make(seed):
        return Batches(
            images, np.arange(COUNT), preprocess, batch_size=16, recipe=recipe, seed=seed, channels_last=channels_last
        )

    first = make(3)
    torch.manual_seed(1)
    x, y = collect(first, 2)
    torch.rand(7)
    collect(first, 5)
    again_x, again_y = collect(first, 2)
    other_x, other_y = collect(make(3), 2)
    assert torch.equal(x, again_x)
    assert torch.equal(y, again_y)
    assert torch.equal(x, other_x)
    assert torch.equal(y, other_y)
    assert not torch.equal(x, collect(first, 3)[0])
    assert not torch.equal(x, collect(make(4), 2)[0])
    assert sorted(y.tolist()) == sorted(images.labels.tolist())
    form = torch.channels_last if channels_last else torch.contiguous_format
    assert all(x.is_contiguous(memory_format=form) for x, _ in first.epoch(0))


@pytest.mark.parametrize("recipe", RECIPES[1:], ids=name_of)
def test_layouts_serve_the_same_values(images, preprocess, recipe):
    plain, last = (
        collect(Batches(images, np.arange(COUNT), preprocess, batch_size=16, recipe=recipe, channels_last=layout), 1)
        for layout in (False, True)
    )
    assert torch.equal(plain[0], last[0])
    assert torch.equal(plain[1], last[1])


@pytest.mark.parametrize("recipe", RECIPES, ids=name_of)
def test_labels_stay_with_their_pictures(recipe):
    """A class is a shade here, which neither crop, flip nor (at magnitude 0) any operation can turn into another."""
    shades = np.repeat(np.arange(10, dtype=np.uint8) * 25, 7)
    x = np.broadcast_to(shades[:, None, None, None], (70, 9, 9, 3)).copy()
    images = Data.open((x, shades // 25)).images((9, 9), channels=3)
    preprocess = Preprocess.of(images, np.arange(70))
    calm = recipe.replace(randaugment_magnitude=0, cutout=0)
    batches = Batches(images, np.arange(70), preprocess, batch_size=16, recipe=calm)
    for number in range(3):
        pictures, labels = collect(batches, number)
        level = pictures[:, 0, 4, 4] * 255 * preprocess.std[0] + 255 * preprocess.mean[0]
        assert (level / 25).round().long().tolist() == labels.tolist()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(count=st.integers(1, COUNT), batch_size=st.integers(1, 70), seed=st.integers(0, 99))
def test_training_serves_each_picture_once_and_never_one_alone(images, preprocess, count, batch_size, seed):
    indices = np.arange(COUNT - count, COUNT)
    batches = Batches(images, indices, preprocess, batch_size=batch_size, recipe=Recipe(augment="none"), seed=seed)
    sizes = [len(y) for _, y in batches.epoch(1)]
    assert len(sizes) == len(batches)
    assert sum(sizes) == count
    if batch_size > 1 and count > 1:
        assert min(sizes) > 1
    x, _ = collect(batches, 1)
    plain = preprocess.normalise(torch.from_numpy(np.array(images.array[indices])))
    assert sorted(x.sum(dim=(1, 2, 3)).tolist()) == pytest.approx(sorted(plain.sum(dim=(1, 2, 3)).tolist()), abs=1e-2)


def test_cutout_erases_to_the_mean_colour(images, preprocess):
    recipe = Recipe(augment="none", cutout=0.5)
    x, _ = collect(Batches(images, np.arange(COUNT), preprocess, batch_size=16, recipe=recipe), 0)
    assert ((x == 0).all(dim=1).sum(dim=(1, 2)) >= 3 * 2).all()


def test_digits_upsampled_are_served():
    data = Data.open("digits")
    images = data.images((32, 32), channels=1)
    split = data.split()
    preprocess = Preprocess.of(images, split.train)
    for recipe in (None, *RECIPES):
        batches = Batches(images, split.train, preprocess, batch_size=128, recipe=recipe, channels_last=True)
        x, _ = next(batches.epoch(1))
        assert x.shape == (128, 1, 32, 32)
        assert torch.isfinite(x).all()


def test_batches_that_cannot_be(images, preprocess):
    with pytest.raises(DataError, match=r"no pictures to make batches of\nhint: val: 0"):
        Batches(images, np.array([], dtype=int), preprocess, batch_size=4)
    with pytest.raises(DataError, match="batch size 0 must be 1 or more"):
        Batches(images, np.arange(4), preprocess, batch_size=0)
    other = Preprocess((8, 8), 3, "resize", None, (0.5,) * 3, (0.2,) * 3)
    with pytest.raises(DataError, match=r"the pictures are \(\(12, 10\), 3, 'resize', .* the preprocessing is for"):
        Batches(images, np.arange(4), other, batch_size=4)
    with pytest.raises(TypeError, match=r"iterate over \.epoch\(number\)"):
        iter(Batches(images, np.arange(4), preprocess, batch_size=4, recipe=Recipe()))


@pytest.mark.parametrize("recipe", [None, *RECIPES], ids=name_of)
def test_everything_is_done_on_the_device(images, preprocess, recipe):
    """The meta device computes nothing, but refuses an operation whose tensors lie on two devices."""
    batches = Batches(images, np.arange(COUNT), preprocess, batch_size=16, recipe=recipe, device="meta")
    for x, y in batches.epoch(1):
        assert (x.device.type, y.device.type) == ("meta", "meta")
        assert x.shape[1:] == (3, 12, 10)


@pytest.mark.parametrize("recipe", RECIPES, ids=name_of)
def test_the_number_of_threads_does_not_matter(images, preprocess, recipe):
    before, found = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        batches = Batches(images, np.arange(COUNT), preprocess, batch_size=64, recipe=recipe)
        found.append(collect(batches, 1)[0])
    torch.set_num_threads(before)
    assert torch.equal(*found)
