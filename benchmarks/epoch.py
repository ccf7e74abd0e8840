"""An epoch of archtuna's ``train`` against the shortest hand-written PyTorch loop.

    python benchmarks/epoch.py [--epochs 30] [--threads 1] [--device cpu] [--out benchmarks/results/epoch.md]

Both train the same network from the same initial weights on the same pictures without augmentation, in the same layout,
with SGD (Nesterov) and OneCycle, and evaluate after each epoch. Epochs are interleaved: one of ours, one by hand, in
turns which goes first, so that whatever else the machine does hits both. A figure is the median of the ratios of such
pairs. The hand-written loop always gets ready float batches; ours gets the same ones (``held``), or takes and normalises
them from uint8 pictures in each epoch, as a user's training does (``served``). On CUDA batches lie on the card, and both cast
to bf16, the default there.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from archtuna.data import Batches, Preprocess
from archtuna.data.images import Images
from archtuna.model import Network, build
from archtuna.recipe import Recipe
from archtuna.space import SearchSpace
from archtuna.training import train

CLASSES = 6
MOBILENET = """
input_channel: 3
input_size: 64
backbone:
  - [1, Conv, [16, 3, 2, null, 1, HardSwish]]
  - [1, InvertedResidualv3, [3, 1, 16, 0, 0, 1]]
  - [1, InvertedResidualv3, [3, 4, 24, 0, 0, 2]]
  - [1, InvertedResidualv3, [3, 3, 24, 0, 0, 1]]
  - [3, InvertedResidualv3, [5, 3, 40, 1, 0, 2]]
  - [1, InvertedResidualv3, [3, 6, 80, 0, 1, 2]]
  - [3, InvertedResidualv3, [3, 2.4, 80, 0, 1, 1]]
  - [2, InvertedResidualv3, [3, 6, 112, 1, 1, 1]]
  - [3, InvertedResidualv3, [5, 6, 160, 1, 1, 2]]
  - [1, Conv, [960, 1, 1]]
  - [1, GlobalAvgPool, []]
  - [1, Conv, [1280, 1, 1]]
  - [1, Flatten, []]
  - [1, Linear, [6]]
"""
SMALL = """
input_channel: 3
input_size: 16
backbone:
  - [1, Conv, [16, 3, 1]]
  - [1, Conv, [32, 3, 2]]
  - [1, Conv, [32, 3, 2]]
  - [1, GlobalAvgPool, []]
  - [1, Flatten, []]
  - [1, Linear, [6]]
"""


class Held:
    """The batches of another in memory, the same every epoch."""

    def __init__(self, batches: Batches) -> None:
        self.batches = list(batches.epoch(1))

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.batches)


@dataclass
class Case:
    """A network with its pictures, and the seconds that pairs of epochs took: (ours, by hand)."""

    name: str
    text: str
    pictures: int
    batch_size: int

    def batches(self, recipe: Recipe, device: str) -> tuple[Batches, Batches]:
        """Return batches for training and, a fifth as many pictures, for validation."""
        side = SearchSpace.read(self.text).default().architecture.input_size[0]
        total = self.pictures + self.pictures // 5
        random = np.random.default_rng(0)
        pixels = random.integers(0, 256, (total, side, side, 3), dtype=np.uint8)
        images = Images(pixels, random.integers(0, CLASSES, total), (side, side), 3, "resize", (side, side))
        indices = np.arange(total)
        preprocess = Preprocess.of(images, indices)
        common = {"batch_size": self.batch_size, "channels_last": True, "device": device}
        return (
            Batches(images, indices[: self.pictures], preprocess, recipe=recipe, **common),  # type: ignore[arg-type]
            Batches(images, indices[self.pictures :], preprocess, **common),  # type: ignore[arg-type]
        )

    def network(self) -> Network:
        torch.manual_seed(0)
        return build(SearchSpace.read(self.text).default().architecture)


CASES = (
    Case("MobileNetV3, 4.2 M parameters, 64×64, batch 32", MOBILENET, 128, 32),
    Case("three convolutions, 16×16, batch 64", SMALL, 1280, 64),
)
CARD = (
    Case("MobileNetV3, 4.2 M parameters, 64×64, batch 128", MOBILENET, 2560, 128),
    Case("three convolutions, 16×16, batch 64", SMALL, 1280, 64),
)


def by_hand(
    model: nn.Module, training: Held, validation: Held, recipe: Recipe, fused: bool, device: str
) -> Iterator[float]:
    """Train and evaluate as short as PyTorch allows, and yield the seconds of each epoch's training."""
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    cast = torch.autocast(device, torch.bfloat16, enabled=device == "cuda")
    lr, steps = recipe.lr or 0.0, recipe.epochs * len(training)
    optimizer = torch.optim.SGD(
        model.parameters(), lr, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay, fused=fused
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=recipe.warmup)
    for epoch in range(recipe.epochs):
        start = time.perf_counter()
        model.train()
        for x, y in training.epoch(epoch):
            optimizer.zero_grad()
            with cast:
                loss = functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            schedule.step()
        synchronise(device)
        seconds = time.perf_counter() - start
        model.eval()
        right = 0
        with torch.no_grad():
            for x, y in validation.epoch(0):
                right += int((model(x).argmax(1) == y).sum())
        yield seconds


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def ours(model: nn.Module, training: Held | Batches, validation: Held, recipe: Recipe, device: str) -> Iterator[float]:
    for epoch in train(model, training, validation, recipe, classes=CLASSES, device=device):
        yield epoch.train_seconds


def pairs(case: Case, recipe: Recipe, *, served: bool, fused: bool, device: str = "cpu") -> np.ndarray:
    """Return for each pair of epochs the seconds (ours training, ours whole, by hand training, by hand whole)."""
    training, validation = case.batches(recipe, device)
    held, checked = Held(training), Held(validation)
    racers = (
        ours(case.network(), training if served else held, checked, recipe, device),
        by_hand(case.network(), held, checked, recipe, fused, device),
    )
    rows = []
    for number in range(recipe.epochs):
        row: list[float] = [0.0] * 4
        for racer in (0, 1) if number % 2 else (1, 0):
            start = time.perf_counter()
            row[2 * racer] = next(racers[racer])
            row[2 * racer + 1] = time.perf_counter() - start
        rows.append(row)
    # The first pairs allocate memory and choose kernels.
    return np.array(rows[2:])


def quartiles(ratios: np.ndarray) -> str:
    low, middle, high = np.percentile(ratios, (25, 50, 75))
    return f"**{middle:.3f}** ({low:.3f}–{high:.3f})"


def line(case: Case, epochs: int, *, served: bool, fused: bool, device: str = "cpu") -> str:
    recipe = Recipe(epochs=epochs + 2, batch_size=case.batch_size, augment="none", lr=0.01)
    seconds = pairs(case, recipe, served=served, fused=fused, device=device)
    mine, mine_whole, hand, hand_whole = seconds.T
    parts = [
        case.name, "served" if served else "held", "fused" if fused else "default",
        f"{np.median(mine) * 1e3:.1f}", f"{np.median(hand) * 1e3:.1f}",
        quartiles(mine / hand), quartiles(mine_whole / hand_whole), str(len(seconds)),
    ]  # fmt: skip
    text = "| " + " | ".join(parts) + " |"
    print(text, flush=True)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=30, help="pairs of epochs a line")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--out", type=Path, help="write the table here")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    lines = [
        "| network | our batches | SGD by hand | ours, ms | by hand, ms | training, ratio | with validation, ratio | n |",
        "|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines))
    for case in CARD if arguments.device == "cuda" else CASES:
        for served, fused in ((False, False), (False, True), (True, False), (True, True)):
            lines.append(line(case, arguments.epochs, served=served, fused=fused, device=arguments.device))
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(report(lines, arguments.threads, arguments.device))


def report(lines: list[str], threads: int, device: str) -> str:
    place = torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()} CPU"
    conditions = (
        f"torch {torch.__version__}, Python {platform.python_version()}, {place}, {threads} thread(s),"
        f" {time.strftime('%Y-%m-%d')}"
    )
    return "\n".join(
        [
            "# An epoch of ours against a hand-written loop",
            "",
            "Ratios are medians over n interleaved pairs of epochs, with quartiles; below 1 ours is faster. The bar is 1.03.",
            "It is for `held` batches; with `served` ones only ours also takes and normalises the pictures.",
            "`SGD by hand` is what the hand-written loop calls: torch's default, or `fused=True`, which ours takes itself.",
            "",
            f"{conditions}. Made by `python benchmarks/epoch.py`.",
            "",
            *lines,
            "",
        ]
    )


if __name__ == "__main__":
    main()
