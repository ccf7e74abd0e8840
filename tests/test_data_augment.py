from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from archtuna.data.augment import CROP_AREA, OPERATIONS, _crop_sizes, crop_and_flip, cutout, flip, randaugment

CPU = torch.device("cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photo(seed: int = 0, side: int = 32) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def to_batch(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()


@settings(deadline=None)
@given(
    st.integers(1, 20), st.sampled_from([1, 3]), st.integers(1, 33), st.integers(1, 33), st.integers(0, 2**31),
    st.integers(0, 10), st.floats(0, 10),
)  # fmt: skip
def test_shape_and_range_stay(count, channels, height, width, seed, operations, magnitude):
    pixels = np.random.default_rng(seed).integers(0, 256, (count, height, width, channels), dtype=np.uint8)
    cropped = crop_and_flip(pixels, np.arange(count), generator(seed), CPU)
    changed = randaugment(cropped.float(), operations, magnitude, generator(seed))
    for batch in (cropped, changed):
        assert batch.shape == (count, channels, height, width)
        assert torch.isfinite(batch.float()).all()
        assert batch.min() >= 0
        assert batch.max() <= 255
    assert torch.equal(changed, randaugment(cropped.float(), operations, magnitude, generator(seed)))
    # A crop interpolates: it makes no level that lies outside of the picture's own.
    assert int(cropped.min()) >= int(pixels.min())
    assert int(cropped.max()) <= int(pixels.max())


def test_crops_stay_with_their_pictures():
    levels = np.arange(40, dtype=np.uint8) * 6
    pixels = np.broadcast_to(levels[:, None, None, None], (40, 16, 16, 3)).copy()
    indices = np.random.default_rng(0).permutation(40)
    batch = crop_and_flip(pixels, indices, generator(), CPU)
    assert batch[:, 0, 0, 0].tolist() == levels[indices].tolist()
    changed = randaugment(batch.float(), 0, 5, generator())
    assert torch.equal(changed, batch.float())


def test_randaugment_keeps_the_order_of_pictures():
    """With pure brightness-like changes left out, a picture's own pattern stays recognisable in its own place."""
    base = torch.stack([to_batch(photo(i))[0] for i in range(48)])
    changed = randaugment(base.clone(), 1, 2.0, generator(3))
    flat, other = (x.flatten(1) - x.flatten(1).mean(1, keepdim=True) for x in (base, changed))
    match = torch.nn.functional.normalize(flat, dim=1) @ torch.nn.functional.normalize(other, dim=1).T
    assert (match.argmax(0) == torch.arange(48)).float().mean() > 0.9


def test_sizes_of_crops_keep_their_bounds():
    sizes = np.array(_crop_sizes(2000, 64, 48, generator()))
    assert sizes.min() >= 1
    assert (sizes <= [64, 48]).all()
    share = sizes.prod(axis=1) / (64 * 48)
    assert share.min() >= CROP_AREA[0] * 0.85
    assert share.mean() == pytest.approx(np.mean(CROP_AREA), abs=0.03)


def test_half_of_the_pictures_are_mirrored():
    batch = torch.arange(4.0).expand(4000, 1, 1, 4)
    mirrored = flip(batch, generator())[:, 0, 0, 0] == 3
    assert mirrored.float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert torch.equal(flip(batch[:0], generator()), batch[:0])


@pytest.mark.parametrize(("share", "side"), [(0.25, 8), (0.5, 16), (1.0, 32)])
def test_cutout_erases_a_square(share, side):
    batch = cutout(torch.ones(500, 3, 32, 32), share, generator())
    erased = (batch == 0).float().sum(dim=(2, 3))
    assert torch.equal(erased[:, 0], erased[:, 1])
    assert erased.max() == side**2 or (share == 1 and erased.max() > 30**2)
    assert (erased > 0).all()
    rows = (batch[:, 0] == 0).any(dim=2).sum(dim=1)
    columns = (batch[:, 0] == 0).any(dim=1).sum(dim=1)
    assert torch.equal(rows * columns, erased[:, 0].long())


REFERENCES = {
    "autocontrast": lambda image, s: ImageOps.autocontrast(image),
    "equalize": lambda image, s: ImageOps.equalize(image),
    "posterize": lambda image, s: ImageOps.posterize(image, 8 - round(4 * s)),
    "solarize": lambda image, s: ImageOps.solarize(image, 256 * (1 - s)),
    "brightness": lambda image, s: ImageEnhance.Brightness(image).enhance(1 + 0.9 * s),
    "contrast": lambda image, s: ImageEnhance.Contrast(image).enhance(1 + 0.9 * s),
    "colour": lambda image, s: ImageEnhance.Color(image).enhance(1 + 0.9 * s),
    "sharpness": lambda image, s: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * s),
    "rotate": lambda image, s: image.rotate(30 * s, Image.Resampling.BILINEAR, fillcolor=(128, 128, 128)),
    "translate_x": lambda image, s: image.transform(
        image.size, Image.Transform.AFFINE, (1, 0, 0.45 * s * image.width, 0, 1, 0),
        Image.Resampling.BILINEAR, fillcolor=(128, 128, 128),
    ),
    "shear_x": lambda image, s: image.transform(
        image.size, Image.Transform.AFFINE, (1, 0.3 * s, -0.3 * s * image.height / 2, 0, 1, 0),
        Image.Resampling.BILINEAR, fillcolor=(128, 128, 128),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_operations_do_what_pillow_does(name, strength):
    for seed in range(4):
        image = photo(seed)
        ours = OPERATIONS[name](to_batch(image), strength, torch.ones(1, 1, 1, 1)).clamp(0, 255)
        theirs = to_batch(REFERENCES[name](image, strength))
        inner = (ours - theirs).abs()[..., 2:-2, 2:-2]
        assert inner.median() <= 1.0
        assert inner.mean() <= (1.5 if name in ("rotate", "translate_x", "shear_x") else 1.0)


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - {"identity"}))
@pytest.mark.parametrize("channels", [1, 3])
def test_every_operation_takes_grey_colour_and_flat_pictures(name, channels):
    batch = 20 + 0.8 * to_batch(photo())[:, :channels].repeat(3, 1, 1, 1)
    batch[1] = 77.0
    batch[2] = 0.0
    sign = torch.tensor([1.0, -1.0, 1.0])[:, None, None, None]
    result = OPERATIONS[name](batch, 0.7, sign)
    assert result.shape == batch.shape
    assert torch.isfinite(result).all()
    if not (name == "colour" and channels == 1):
        assert not torch.equal(result[0], batch[0])
    none = OPERATIONS[name](batch, 0.0, sign)
    # Posterizing to 8 bits cuts fractions off.
    if name not in ("autocontrast", "equalize"):
        assert torch.allclose(none, batch, atol=1.0 if name == "posterize" else 1e-2)


def test_a_rotation_of_a_long_picture_keeps_angles():
    image = Image.new("RGB", (64, 16), (128, 128, 128))
    image.paste((255, 255, 255), (28, 4, 36, 12))
    turned = OPERATIONS["rotate"](to_batch(image), 1.0, torch.ones(1, 1, 1, 1))
    theirs = to_batch(image.rotate(30, Image.Resampling.BILINEAR, fillcolor=(128, 128, 128)))
    assert (turned - theirs).abs().mean() < 0.5
