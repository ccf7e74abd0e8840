"""All pictures of a set at one size: decoded once into a file, memory-mapped by every trial and worker."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL

from archtuna.data.cache import build_once, cache_folder
from archtuna.data.picture import Fit, Size, quiet_decoders
from archtuna.devices import usable_cores
from archtuna.errors import DataError

logger = logging.getLogger("archtuna")

VERSION = 1
"""Part of each cache file's name; it changes when the same picture would get other pixels."""
_CHUNK = 256


@dataclass(frozen=True, eq=False)
class Images:
    """Every picture of a set, in its order, at one size.

    Attributes:
        pixels: as stored: uint8 (n, H, W, C), memory-mapped and read-only. The channels lie last because a crop is then
            few long runs of bytes, and because networks run faster on that layout.
        labels: int64 (n,).
        size: height and width.
        channels: 1 or 3.
        fit: ``resize`` (stretched) or ``pad`` (shape kept, black around).
        via: the size that decoding went to; this one was derived from it.
    """

    pixels: np.ndarray
    labels: np.ndarray
    size: Size
    channels: int
    fit: Fit
    via: Size
    _known: dict[bytes, tuple[list[float], list[float]]] = field(default_factory=dict, repr=False)

    @property
    def array(self) -> np.ndarray:
        """The same memory as uint8 (n, C, H, W)."""
        return self.pixels.transpose(0, 3, 1, 2)

    def __len__(self) -> int:
        return len(self.labels)

    def statistics(self, indices: np.ndarray) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation of each channel over some pictures, in units of 0..1.

        A channel that is the same everywhere gets one level (1/255) for its deviation, which is never zero.

        Raises:
            DataError: there are no pictures.
        """
        wanted = np.sort(np.asarray(indices, dtype=np.int64))
        if not len(wanted):
            raise DataError("no pictures to take mean and deviation of")
        key = wanted.tobytes()
        if key not in self._known:
            self._known[key] = _moments(self._counts(wanted))
        return self._known[key]

    def _counts(self, indices: np.ndarray) -> np.ndarray:
        """How often each level occurs, (channels, 256): whole numbers, so that no order of summing matters."""
        counts = np.zeros((self.channels, 256), dtype=np.int64)
        for start in range(0, len(indices), _CHUNK):
            chunk = np.asarray(self.pixels)[indices[start : start + _CHUNK]]
            for channel in range(self.channels):
                counts[channel] += np.bincount(chunk[..., channel].reshape(-1), minlength=256)
        return counts


def _moments(counts: np.ndarray) -> tuple[list[float], list[float]]:
    levels = np.arange(256) / 255
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ levels
    deviation = np.sqrt((share * (levels - mean[:, None]) ** 2).sum(axis=1))
    return mean.tolist(), np.maximum(deviation, 1 / 255).tolist()


def cached_pixels(
    fingerprint: str, count: int, size: Size, channels: int, fit: Fit, via: Size, draw: Callable[[int], np.ndarray]
) -> np.ndarray:
    """Return the memory-mapped file of ``count`` pictures, made with ``draw`` when it is missing or damaged.

    Args:
        draw: gives picture ``i`` as uint8 (H, W, C); called from several threads.

    Raises:
        DataError: the file cannot be written, or a picture not be read.
    """
    name = f"v{VERSION}-pillow{PIL.__version__}-{size[0]}x{size[1]}x{channels}-{fit}"
    name += f"-via{via[0]}x{via[1]}" if via != size else ""
    target = cache_folder() / "images" / fingerprint / f"{name}.npy"
    shape = (count, *size, channels)
    what = f"the cache of {count:,} pictures at {size[0]}×{size[1]} ({np.prod(shape) / 1e6:,.0f} MB)"
    build_once(target, lambda file: _is_whole(file, shape), lambda part: _write(part, shape, draw, what), what)
    return np.load(target, mmap_mode="r", allow_pickle=False)


def _is_whole(file: Path, shape: tuple[int, ...]) -> bool:
    try:
        with file.open("rb") as stream:
            np.lib.format.read_magic(stream)
            found, _, dtype = np.lib.format.read_array_header_1_0(stream)
            start = stream.tell()
        return found == shape and dtype == np.uint8 and file.stat().st_size == start + int(np.prod(shape))
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        logger.warning("the cache file %s is damaged and made again", file)
        return False


def _write(path: Path, shape: tuple[int, ...], draw: Callable[[int], np.ndarray], what: str) -> None:
    """Write pictures in order through an ordinary file: a full disk is an error there, in a mapped file a crash."""
    began = time.perf_counter()
    logger.info("making %s", what)
    with path.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for pixels in _drawn(shape, draw):
            _append(file, pixels)
        file.flush()
        os.fsync(file.fileno())
    logger.info("made %s in %.1f s", what, time.perf_counter() - began)


def _drawn(shape: tuple[int, ...], draw: Callable[[int], np.ndarray]) -> Iterator[np.ndarray]:
    # The first alone: a source that is read as a whole is then read by one thread only.
    yield draw(0)
    with quiet_decoders(), ThreadPoolExecutor(usable_cores()) as pool:
        for start in range(1, shape[0], _CHUNK):
            yield from pool.map(draw, range(start, min(start + _CHUNK, shape[0])))


def _append(file: BinaryIO, pixels: np.ndarray) -> None:
    file.write(np.ascontiguousarray(pixels).data)
