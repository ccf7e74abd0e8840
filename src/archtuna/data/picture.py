"""One picture: from any file, PIL image or array to plain 8-bit pixels of a wanted size."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from archtuna.errors import DataError

Size = tuple[int, int]
Fit = Literal["resize", "pad"]
FITS: tuple[Fit, ...] = ("resize", "pad")

SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".webp",
    ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif",
})  # fmt: skip
"""File names that are taken for pictures, in lower case."""

# Readers of other formats run programs (EPS) or read further files: a folder of pictures has no business there.
_FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF")
_GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"})
_ORIENTATION = 0x0112

# Decoding a JPEG at an eighth of its size takes a fifth of the time. It differs from the exact way by at most two of
# 255 levels when three times the wanted size is left to average over, and it is only worth it for large photographs.
_DRAFT_PIXELS = 2_000_000
_DRAFT_MARGIN = 3


class Seen(NamedTuple):
    """What one look at a picture file tells; ``reason`` says why it cannot be used, or is None."""

    digest: str
    height: int
    width: int
    grey: bool
    reason: str | None


def inspect(path: str | os.PathLike[str]) -> Seen:
    """Read a picture file once: the digest of its bytes, its size as it is looked at, and whether all of it decodes."""
    digest = ""
    try:
        content = Path(path).read_bytes()
        digest = hashlib.sha256(content).hexdigest()[:32]
        if not content:
            return Seen(digest, 0, 0, False, "the file is empty")
        with _open(io.BytesIO(content)) as image:
            if image.format == "TIFF":
                image.load()  # which turns it, and is ahead of it with the size
            grey, turning = _is_grey(image), image.getexif().get(_ORIENTATION, 1)
            turned = turning in (5, 6, 7, 8)
            height, width = (image.width, image.height) if turned else (image.height, image.width)
            # The smallest scale still reads every byte, and so notices a truncated file in a fraction of the time.
            image.draft(None, (1, 1))
            image.load()
            if image.mode not in ("L", "RGB") or turning != 1:
                flatten(image, 3)
        return Seen(digest, height, width, grey, None)
    # Decoders meet hostile bytes with every kind of exception (OSError, SyntaxError, struct.error, IndexError…);
    # whatever it is, the file is named as broken together with it.
    except Exception as error:
        return Seen(digest, 0, 0, False, reason_of(error))


def read(path: str | os.PathLike[str], near: Size | None = None) -> Image.Image:
    """Return the decoded picture of a file.

    Args:
        near: the size (height, width) that it will be brought to; a large photograph is then decoded faster.

    Raises:
        DataError: the file is missing, is no picture, or is broken.
    """
    try:
        with _open(path) as image:
            return _load(image, near)
    except Exception as error:
        raise DataError(f"{os.fspath(path)}: cannot be read as a picture: {reason_of(error)}") from error


def reason_of(error: Exception) -> str:
    """Return in a few words why a file could not be decoded."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "not a picture in a known format"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"more than {Image.MAX_IMAGE_PIXELS:,} pixels (PIL.Image.MAX_IMAGE_PIXELS)"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__


@contextlib.contextmanager
def quiet_decoders() -> Iterator[None]:
    """Silence Pillow's remarks about odd files while many are read; what matters of them is an error here.

    The filters are the whole process's, so this stands around a pool of threads, never inside one.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


@functools.cache
def _formats() -> tuple[str, ...]:
    """The formats that this build of Pillow has a reader for."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _open(file: str | os.PathLike[str] | io.BytesIO) -> Image.Image:
    image = Image.open(file, formats=_formats())
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        image.close()
        raise Image.DecompressionBombError
    return image


def _load(image: Image.Image, near: Size | None) -> Image.Image:
    if near is not None and image.width * image.height > _DRAFT_PIXELS:
        side = _DRAFT_MARGIN * max(near)
        image.draft(None, (side, side))
    image.load()
    return image


def _is_grey(image: Image.Image) -> bool:
    if image.mode == "P":
        palette = np.asarray(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    return image.mode in _GREY_MODES


def flatten(image: Image.Image, channels: int) -> Image.Image:
    """Return the picture upright, without transparency, as 8-bit grey (1 channel) or RGB (3).

    What is transparent is seen against white. 16-bit values are scaled to 8; floating-point ones are taken as 0..1 when
    none is above 1, else as 0..255.
    """
    image = _upright(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = Image.fromarray(_to_8_bit(np.asarray(image), image.mode == "F"))
    elif image.has_transparency_data:
        front = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", front.size, "white"), front).convert("RGB")
    elif image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    mode = "L" if channels == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _upright(image: Image.Image) -> Image.Image:
    """Turn a picture as its EXIF says, whatever else stands there: cameras write tags that no standard knows."""
    method = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    return image if method is None else image.transpose(method)


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip


def _to_8_bit(values: np.ndarray, is_float: bool) -> np.ndarray:
    if is_float:
        values = np.nan_to_num(values.astype(np.float64))
        return np.rint(values * (255 if values.max(initial=0) <= 1 else 1)).clip(0, 255).astype(np.uint8)
    return ((values.clip(0, 65_535).astype(np.uint32) + 128) // 257).astype(np.uint8)


def render(image: Image.Image, size: Size, *, channels: int, fit: Fit) -> np.ndarray:
    """Return the picture at ``size`` (height, width) as uint8 of shape (height, width, channels).

    ``resize`` stretches it; ``pad`` keeps its shape and fills with black. Bicubic, averaging where it shrinks.
    """
    image = _load(image, size) if getattr(image, "tile", None) else image
    try:
        upright = flatten(image, channels)
    except MemoryError:
        raise
    except Exception as error:  # As when it is opened: what is odd about a picture shows in any way.
        raise DataError(f"cannot be read as a picture: {reason_of(error)}") from error
    height, width = size
    inner = (width, height)
    if fit == "pad":
        scale = min(width / upright.width, height / upright.height)
        inner = (max(1, round(upright.width * scale)), max(1, round(upright.height * scale)))
    if upright.size != inner:
        # The gap lets a large picture be halved cheaply first; with 3 the result is the same to one level.
        upright = upright.resize(inner, Image.Resampling.BICUBIC, reducing_gap=3.0)
    if inner != (width, height):
        canvas = Image.new(upright.mode, (width, height))
        canvas.paste(upright, ((width - inner[0]) // 2, (height - inner[1]) // 2))
        upright = canvas
    return np.asarray(upright).reshape(height, width, channels)


def shrink(pixels: np.ndarray, size: Size) -> np.ndarray:
    """Return pixels (H, W, C), already of their final shape, at another size."""
    if pixels.shape[:2] == size:
        return np.array(pixels)
    return np.array(render(pixels_to_image(pixels), size, channels=pixels.shape[2], fit="resize"))


def check_form(size: Size, channels: int, fit: str, via: Size) -> None:
    """Check what pictures are to be brought to.

    Raises:
        DataError: a size below 1, not 1 or 3 channels, an unknown fit, or a ``via`` of another shape with ``pad``.
    """
    if any(len(pair) != 2 or min(pair) < 1 for pair in (size, via)):
        raise DataError(f"size {size} via {via}: height and width must be 1 or more")
    if channels not in (1, 3):
        raise DataError(f"{channels} channels: pictures have 1 (grey) or 3 (colour)")
    if fit not in FITS:
        raise DataError(f"fit '{fit}' is unknown", hint=f"known: {', '.join(FITS)}")
    if fit == "pad" and size[0] * via[1] != size[1] * via[0]:
        raise DataError(f"padded pictures of {via} cannot become {size}: another shape", hint="use fit: resize")


def as_array(value: Any) -> np.ndarray:
    """Return a tensor or anything array-like as an array, without importing torch."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        return np.asarray(value.float() if str(value.dtype) == "torch.bfloat16" else value)
    return np.asarray(value)


def to_bytes(values: np.ndarray, name: str) -> np.ndarray:
    """Return pixels of any numeric type as uint8.

    Raises:
        DataError: values outside of what their type should hold: floats 0..1, integers 0..255 (uint16 0..65535).
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.uint16:
        return _to_8_bit(values, False)
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind not in "iuf":
        raise DataError(f"{name}: pixels are of type {values.dtype}", hint="give uint8, or floating-point 0 to 1")
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    top = 1.0 if values.dtype.kind == "f" else 255.0
    if not (low >= 0 and high <= top):
        hint = "give pixels as they are, before any normalising: uint8, or floating-point 0 to 1"
        raise DataError(f"{name}: pixels of type {values.dtype} lie in {low:g}..{high:g}, not 0..{top:g}", hint=hint)
    if values.dtype.kind == "f":
        return np.rint(values.astype(np.float64) * 255).astype(np.uint8)
    return values.astype(np.uint8)


def channels_last(values: np.ndarray, *, first: bool, name: str) -> np.ndarray:
    """Return one picture (H, W), (H, W, C) or (C, H, W), or a stack of such, with a last axis of 1, 3 or 4 channels.

    Args:
        values: of two or three axes for a picture; a stack has one more and is told by ``values.ndim``.
        first: where both readings are possible, take channels to come first, as torch has them.
    """
    shape = values.shape[-3:]
    known = (1, 3, 4)
    if shape[-1] in known and not (first and shape[0] in known):
        return values
    if shape[0] in known:
        return np.moveaxis(values, -3, -1)
    raise DataError(f"{name}: shape {values.shape} has no axis of 1, 3 or 4 channels", hint="channels go first or last")


def from_array(value: Any) -> Image.Image:
    """Return an array or tensor, (H, W), (H, W, C) or (C, H, W), as a picture.

    Raises:
        DataError: its shape or values are not those of a picture.
    """
    values = as_array(value)
    if values.ndim not in (2, 3) or 0 in values.shape:
        raise DataError(f"an array of shape {values.shape} is no picture", hint="give (H, W), (H, W, C) or (C, H, W)")
    values = values[..., None] if values.ndim == 2 else values
    return pixels_to_image(to_bytes(channels_last(values, first=hasattr(value, "detach"), name="picture"), "picture"))


def pixels_to_image(pixels: np.ndarray) -> Image.Image:
    """Return uint8 pixels (H, W, C) of 1, 3 or 4 channels as a picture."""
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))
