from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from archtuna.data.picture import flatten, from_array, inspect, quiet_decoders, read, render, to_bytes
from archtuna.errors import DataError
from data_pictures import picture, save


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F", "I;16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_becomes_plain_pixels(mode, channels):
    source = picture(1)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(source.convert("L")).astype(np.uint16) * 257)
    elif mode == "I":
        image = Image.fromarray(np.asarray(source.convert("L")).astype(np.int32) * 257)
    else:
        image = source.convert("L").convert(mode) if mode in ("F", "LA", "PA") else source.convert(mode)
    pixels = render(image, (10, 15), channels=channels, fit="resize")
    assert pixels.shape == (10, 15, channels)
    assert pixels.dtype == np.uint8
    grey = mode in ("1", "L", "LA", "PA", "I", "F", "I;16")
    expected = render(source.convert("L") if grey else source, (10, 15), channels=channels, fit="resize")
    tolerance = {"1": 80, "P": 40, "HSV": 8, "YCbCr": 4, "CMYK": 2}.get(mode, 1)
    assert np.abs(pixels.astype(int) - expected).mean() <= tolerance


def test_transparent_pixels_are_seen_against_white():
    image = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    assert np.asarray(flatten(image, 3)).min() == 255
    half = Image.new("LA", (4, 4), (0, 128))
    assert np.asarray(flatten(half, 1))[0, 0] == pytest.approx(127, abs=1)


def test_palette_with_a_transparent_colour():
    image = Image.new("P", (4, 4), 0)
    image.putpalette([200, 0, 0, 0, 200, 0])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=0)
    assert np.asarray(flatten(Image.open(io.BytesIO(buffer.getvalue())), 3)).min() == 255


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path, orientation):
    upright = picture(2, (32, 48))
    # What a camera stores is the inverse of what the tag tells the viewer to do.
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    stored = upright.transpose(turns[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", stored, exif=exif)
    assert np.array_equal(np.asarray(flatten(read(path), 3)), np.asarray(upright))
    seen = inspect(path)
    assert (seen.height, seen.width) == (32, 48)


def test_pad_keeps_the_shape_and_fills_with_black():
    image = Image.new("RGB", (40, 20), "white")
    pixels = render(image, (16, 16), channels=3, fit="pad")
    assert pixels[:4].max() == 0
    assert pixels[12:].max() == 0
    assert pixels[4:12].min() == 255
    thin = render(Image.new("L", (1000, 1), "white"), (8, 8), channels=1, fit="pad")
    assert thin.max() == 255


def test_a_picture_of_the_wanted_size_is_not_touched():
    image = picture(3, (16, 24))
    assert np.array_equal(render(image, (16, 24), channels=3, fit="resize"), np.asarray(image))


def test_16_bit_png_keeps_its_range(tmp_path):
    ramp = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    path = save(tmp_path / "deep.png", Image.fromarray(ramp))
    assert inspect(path).grey
    pixels = np.asarray(flatten(read(path), 1))
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert np.abs(pixels - ramp / 257).max() <= 0.5


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"this is a text, not a picture", "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not a picture"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "not a picture"),
        (b"BM" + b"\xff" * 60, "Truncated"),
    ],
)
def test_a_broken_file_has_a_reason(tmp_path, content, reason):
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    assert reason in (inspect(path).reason or "")
    with pytest.raises(DataError, match=r"bad\.jpg: cannot be read as a picture"):
        read(path)


@pytest.mark.parametrize(("suffix", "options"), [(".jpg", {}), (".jpg", {"progressive": True}), (".png", {})])
def test_a_truncated_file_is_broken(tmp_path, suffix, options):
    path = save(tmp_path / f"cut{suffix}", picture(4, (64, 64)).resize((300, 300)), **options)
    assert inspect(path).reason is None
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    assert "truncated" in (inspect(path).reason or "")


def test_a_decompression_bomb_is_broken(tmp_path, monkeypatch):
    path = save(tmp_path / "bomb.png", Image.new("1", (60, 50)))
    for limit in (2000, 1000):  # Pillow warns up to twice its limit and raises beyond
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with quiet_decoders():
            assert inspect(path).reason == f"more than {limit:,} pixels (PIL.Image.MAX_IMAGE_PIXELS)"


def test_large_photographs_decode_faster_and_almost_the_same(tmp_path):
    path = save(tmp_path / "large.jpg", picture(5, (1500, 2000)), quality=92)
    fast = read(path, (64, 64))
    assert fast.width < 2000
    exact = render(read(path), (64, 64), channels=3, fit="resize").astype(int)
    assert np.abs(render(fast, (64, 64), channels=3, fit="resize") - exact).max() <= 2


def test_arrays_of_every_layout_are_one_picture():
    image = picture(6)
    pixels = np.asarray(image)
    for same in (pixels, np.moveaxis(pixels, -1, 0), pixels / 255, pixels.astype(np.int64), pixels.astype("u2") * 257):
        assert np.array_equal(np.asarray(from_array(same)), pixels)
    grey = np.asarray(image.convert("L"))
    assert np.array_equal(np.asarray(from_array(grey)), grey)
    assert np.array_equal(np.asarray(from_array(grey[None])), grey)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((4,)), r"shape \(4,\) is no picture"),
        (np.zeros((0, 4)), r"shape \(0, 4\) is no picture"),
        (np.zeros((5, 6, 7)), "no axis of 1, 3 or 4 channels"),
        (np.full((4, 4), 200.0), r"lie in 200\.\.200, not 0\.\.1"),
        (np.full((4, 4), -1), r"lie in -1\.\.-1, not 0\.\.255"),
        (np.full((4, 4), np.nan), r"lie in nan\.\.nan"),
        (np.array([["a", "b"]]), "pixels are of type <U1"),
    ],
)
def test_what_is_no_picture_is_refused(values, message):
    with pytest.raises(DataError, match=message):
        from_array(values)


def test_booleans_are_black_and_white():
    assert to_bytes(np.array([True, False]), "x").tolist() == [255, 0]
