"""Rate of the batches alone, without training: ours from the cache against a DataLoader that decodes with Pillow.

    python benchmarks/batches.py FOLDER [--count 2000] [--size 64] [--batch 64] [--repeats 9] [--out FILE]

Every contestant gives random resized crops of the same distribution, flips and normalises; float32, ready for the model.
Ours crops from the picture as it lies in the cache, at the network's size; the DataLoader from the photograph itself.
They take turns within one run, an epoch each; the first epoch of each (starting workers, filling caches) is not counted.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from archtuna.data import Batches, Data, Preprocess
from archtuna.data.augment import CROP_AREA, CROP_RATIO
from archtuna.recipe import Recipe

WORKERS = 2


class Photographs(Dataset):
    """What a user writes for this: decode, random resized crop, flip, tensor, normalise, a picture at a time.

    Args:
        draft: decode a JPEG at the smallest scale that is still no smaller than the crop needs, and leave float and
            normalising to whole batches: what a user writes who has measured.
    """

    def __init__(self, paths: list[str], labels: list[int], size: int, preprocess: Preprocess, draft: bool) -> None:
        self.paths, self.labels, self.size, self.draft = paths, labels, size, draft
        self.mean = torch.tensor(preprocess.mean)[:, None, None]
        self.std = torch.tensor(preprocess.std)[:, None, None]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        with Image.open(self.paths[index]) as file:
            if self.draft:
                side = math.ceil(self.size / math.sqrt(CROP_AREA[0]))
                file.draft("RGB", (side, side))
            image = file.convert("RGB")
        image = image.resize((self.size, self.size), Image.Resampling.BILINEAR, box=random_box(*image.size))
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        if self.draft:
            return pixels, self.labels[index]
        return (pixels.float() / 255 - self.mean) / self.std, self.labels[index]


def random_box(width: int, height: int) -> tuple[int, int, int, int]:
    area = random.uniform(*CROP_AREA)
    ratio = math.exp(random.uniform(math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1])))
    wide = min(width, round(math.sqrt(area * ratio) * width))
    tall = min(height, round(math.sqrt(area / ratio) * height))
    left, top = random.randint(0, width - wide), random.randint(0, height - tall)
    return left, top, left + wide, top + tall


@dataclass
class Contestant:
    name: str
    threads: int
    epoch: Callable[[int], Iterable[tuple[torch.Tensor, torch.Tensor]]]


def contestants(folder: Path, count: int, size: int, batch: int) -> tuple[list[Contestant], str]:
    data = Data.open(folder)
    began = time.perf_counter()
    images = data.images((size, size), channels=3)
    built = f"{len(data):,} pictures decoded into the cache in {time.perf_counter() - began:.1f} s, once"
    chosen = np.arange(min(count, len(data)))
    preprocess = Preprocess.of(images, chosen)
    paths = [str(Path(data.source) / data.names[i]) for i in chosen.tolist()]
    labels = data.labels[chosen].tolist()

    def ours(channels_last: bool) -> Callable[[int], Iterable[tuple[torch.Tensor, torch.Tensor]]]:
        recipe = Recipe(augment="simple")
        return Batches(images, chosen, preprocess, batch_size=batch, recipe=recipe, channels_last=channels_last).epoch

    def loader(draft: bool) -> Callable[[int], Iterable[tuple[torch.Tensor, torch.Tensor]]]:
        dataset = Photographs(paths, labels, size, preprocess, draft)
        batches = DataLoader(dataset, batch, shuffle=True, num_workers=WORKERS, persistent_workers=True)
        if not draft:
            return lambda _: batches
        mean, std = 255 * dataset.mean, 255 * dataset.std
        return lambda _: (((x.float() - mean) / std, y) for x, y in batches)

    cores = os.cpu_count() or 1
    return [
        Contestant("ours, channels_last, 1 thread", 1, ours(True)),
        Contestant("ours, 1 thread", 1, ours(False)),
        Contestant(f"ours, channels_last, {cores} threads", cores, ours(True)),
        Contestant(f"ours, {cores} threads", cores, ours(False)),
        Contestant(f"DataLoader + Pillow, {WORKERS} workers", cores, loader(False)),
        Contestant(f"the same, tuned (draft, bytes), {WORKERS} workers", cores, loader(True)),
    ], built


def rate(contestant: Contestant, number: int) -> float:
    """Return pictures a second over one epoch."""
    torch.set_num_threads(contestant.threads)
    began, seen = time.perf_counter(), 0
    for x, _ in contestant.epoch(number):
        seen += len(x)
    return seen / (time.perf_counter() - began)


def measure(field: list[Contestant], repeats: int) -> dict[str, list[float]]:
    for contestant in field:
        rate(contestant, 0)
    found: dict[str, list[float]] = {contestant.name: [] for contestant in field}
    for number in range(1, repeats + 1):
        for contestant in field:
            found[contestant.name].append(rate(contestant, number))
    return found


def processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return f"{model or platform.machine()}, {os.cpu_count()} cores"


def table(found: dict[str, list[float]], baseline: str) -> str:
    lines = ["| batches | images/s, median | lowest..highest | times the baseline, median | lowest..highest |"]
    lines.append("|---|---:|---:|---:|---:|")
    for name, rates in found.items():
        ratios = [mine / theirs for mine, theirs in zip(rates, found[baseline], strict=True)]
        lines.append(
            f"| {name} | {statistics.median(rates):,.0f} | {min(rates):,.0f}..{max(rates):,.0f} "
            f"| {statistics.median(ratios):.1f} | {min(ratios):.1f}..{max(ratios):.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a folder of class folders with photographs")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "batches.md")
    options = parser.parse_args()
    # Threads that wait for each other suffer most from whatever else runs: a loaded machine spoils the comparison.
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    with tempfile.TemporaryDirectory() as cache:
        os.environ["ARCHTUNA_CACHE"] = cache
        field, built = contestants(options.folder, options.count, options.size, options.batch)
        found = measure(field, options.repeats)
    baseline = field[-2].name
    text = "\n".join((
        "# Batches alone: decoded, augmented, normalised, no training",
        "",
        f"First {options.count:,} pictures of the folder, {options.size}×{options.size}, batches of {options.batch}, "
        f"`augment: simple`; n = {options.repeats} epochs each, in turns, from the second epoch on. {built}.",
        f"Load of the machine before the run: {load}.",
        "Ours crops from the picture as it lies in the cache, at this size; the DataLoader from the photograph itself.",
        f"{processor()}; Python {platform.python_version()}, torch {torch.__version__}, Pillow {PIL.__version__}, "
        f"numpy {np.__version__}. Ratios are taken within one turn; the baseline is \"{baseline}\".",
        "",
        table(found, baseline),
        "",
    ))  # fmt: skip
    print(text)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
