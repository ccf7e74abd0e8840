"""The trial run before a search: a few networks of the space, a few batches each, and what they take."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from archtuna.costs import costs_of
from archtuna.data import Batches, Data, Images, Preprocess, Split
from archtuna.data.picture import quiet_decoders, shrink
from archtuna.devices import usable_cores
from archtuna.errors import ShapeError, TrialError
from archtuna.evaluate import EVALUATION_BATCH
from archtuna.outlook import Pace, Timed
from archtuna.space import Candidate, SearchSpace

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DRAWN = 24
"""Networks whose costs are looked at."""
PLACES = (0.5, 1 / 6, 5 / 6)
"""Where among them, by multiply-accumulates, those lie that are trained; in this order, should the time not last."""
SAMPLE = 256
"""Pictures that are decoded."""
SAMPLE_BYTES = 2**26
FIRST = 8
"""Pictures of the first batches, which tell how many may follow."""
SHARES = {"draw": 0.25, "decode": 0.15}
"""Of the time there is."""


def trial_run(
    space: SearchSpace, data: Data, split: Split, *, workers: int = 1, seconds: float = 30.0, device: str | None = None
) -> Pace:
    """Return what networks of a space take on these pictures, on this machine, as it is now.

    Networks are drawn at random among those that keep the space's limits. Nothing is written, and nothing is cached.

    Args:
        space: with its training values.
        data: the pictures.
        split: which of them are for training.
        workers: that will share this machine.
        seconds: about as long as it may take.
        device: where to train; None picks one.

    Raises:
        TrialError: no network could be trained.
        DataError: a picture cannot be read any more.
        SpecError: no such device.
    """
    import torch

    from archtuna.training import pick_device

    begun, place = time.perf_counter(), pick_device(device)
    threads = max(1, min(torch.get_num_threads(), usable_cores() // workers))
    with _threads(threads):
        drawn, busy = _drawn(space, SHARES["draw"] * seconds)
        sample = _Sample(data, split, space, SHARES["decode"] * seconds)
        networks: list[Timed] = []
        problem: TrialError | ShapeError | None = None
        for number, candidate in enumerate(_chosen(drawn)):
            left = seconds - (time.perf_counter() - begun)
            if networks and left < 0.1 * seconds:
                break
            try:
                networks.append(_timed(candidate, sample, place, max(1.0, left / (len(PLACES) - number))))
            except (TrialError, ShapeError) as error:
                problem = error
    if not networks:
        words = problem.message if problem else "no network of the space keeps its limits"
        raise TrialError(f"the trial run trained no network: {words}", reason="trial-run")
    batch = space.default().recipe.batch_size
    slots = usable_cores() if place.type == "cpu" else max(1, torch.cuda.device_count())
    return Pace(
        networks=tuple(sorted(networks, key=lambda timed: timed.macs)), decode=sample.seconds, busy=busy, device=str(place),
        threads=threads, slots=slots, cores=usable_cores(), batch_size=batch, seconds=time.perf_counter() - begun,
    )  # fmt: skip


def _drawn(space: SearchSpace, seconds: float) -> tuple[list[tuple[float, Candidate]], float]:
    """Return random networks that keep the limits with their macs, ascending, and how busy this machine is meanwhile."""
    rng, found = random.Random(0), []
    begun, worked = time.perf_counter(), time.thread_time()
    for _ in range(20 * DRAWN):
        try:
            candidate = space.random(rng)
            costs = costs_of(candidate.architecture)
        except ShapeError:
            continue
        if all(limit.violation(costs) <= 0 for limit in space.settings.limits if limit.name in costs):
            found.append((costs["macs"], candidate))
        if len(found) == DRAWN or (time.perf_counter() - begun > seconds and len(found) >= len(PLACES)):
            break
        if time.perf_counter() - begun > 2 * seconds:
            break
    busy = (time.perf_counter() - begun) / max(1e-3, time.thread_time() - worked)
    return sorted(found, key=lambda pair: pair[0]), max(1.0, busy)


def _chosen(drawn: list[tuple[float, Candidate]]) -> list[Candidate]:
    """Return a middling, a small and a large one."""
    places = [min(len(drawn) - 1, int(place * len(drawn))) for place in PLACES if drawn]
    return [drawn[place][1] for place in dict.fromkeys(places)]


class _Sample:
    """Some training pictures at the sizes of a space, decoded as a search decodes them.

    Attributes:
        seconds: that one took.
    """

    def __init__(self, data: Data, split: Split, space: SearchSpace, seconds: float) -> None:
        self.fit = space.settings.data.get("fit", "resize")
        self.via, self.channels = space.largest_input_size(), space.default().architecture.input_channels
        order = np.random.default_rng(0).permutation(split.train)
        most = max(FIRST, min(SAMPLE, SAMPLE_BYTES // (self.channels * int(np.prod(self.via)))))
        pixels, begun = [], time.perf_counter()
        with quiet_decoders():
            for index in order[:most].tolist():
                pixels.append(data.decode(index, self.via, channels=self.channels, fit=self.fit))
                if time.perf_counter() - begun > seconds and len(pixels) >= 2:
                    break
        self.seconds = (time.perf_counter() - begun) / len(pixels)
        self.labels, self.classes = data.labels[order[: len(pixels)]], len(data.classes)
        self.pixels, self.train, self.val = np.stack(pixels), len(split.train), max(1, len(split.val))

    def images(self, size: tuple[int, int]) -> Images:
        pixels = self.pixels if size == self.via else np.stack([shrink(picture, size) for picture in self.pixels])
        return Images(pixels, self.labels, size, self.channels, self.fit, self.via)

    def indices(self, count: int) -> np.ndarray:
        """Return as many indices, the sample again and again."""
        return np.resize(np.arange(len(self.labels)), count)


class _Ration:
    """Batches of which only so many pictures are handed out at a time.

    Attributes:
        size: pictures a batch.
        most: pictures a pass, at least one batch.
        until: on the clock, after which none are handed out.
        given: pictures of the last pass.
    """

    def __init__(self, make: Callable[[int], Batches], size: int) -> None:
        self.make, self.size, self.most, self.until, self.given = make, size, size, float("inf"), 0

    def __len__(self) -> int:
        return 1

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        self.given = 0
        while self.given < self.most and (not self.given or time.perf_counter() < self.until):
            for x, y in self.make(self.size).epoch(number):
                yield x, y
                self.given += len(y)
                if self.given >= self.most or time.perf_counter() >= self.until:
                    return


def _timed(candidate: Candidate, sample: _Sample, place: torch.device, seconds: float) -> Timed:
    """Train one network for about so long, and return what it took.

    A first small batch warms up, a second tells how large the batches of the third pass may be, and that one counts.
    """
    from archtuna.model import build
    from archtuna.training import train

    ends = time.perf_counter() + seconds
    # The rate and the weights of classes change no time, and a rate that is too high would end the training.
    recipe = candidate.recipe.replace(epochs=3, lr=1e-4, class_weights="none")
    model, batch = build(candidate.architecture, pretrained=False), min(recipe.batch_size, sample.train)
    training, validation = _rations(candidate, sample, model, place, recipe)
    last = None
    for epoch in train(model, training, validation, recipe, classes=sample.classes, device=place):
        last = epoch
        if epoch.number == 2:
            pace, left = epoch.train_seconds / max(1, training.given), ends - time.perf_counter()
            fitting = int(0.8 * left / pace) if pace > 0 else batch
            training.size = max(1, min(batch, max(FIRST, fitting)))
            training.most, training.until = max(training.size, sample.train), time.perf_counter() + 0.8 * left
            validation.size = min(EVALUATION_BATCH, sample.val, max(FIRST, fitting))
            validation.most = validation.size
    assert last is not None
    costs = costs_of(candidate.architecture)
    size, given = candidate.architecture.input_size, training.given
    val = (last.seconds - last.train_seconds) / max(1, validation.given)
    return Timed(costs["params"], costs["macs"], size, last.train_seconds / given, val, given)


def _rations(
    candidate: Candidate, sample: _Sample, model: Any, place: torch.device, recipe: Any
) -> tuple[_Ration, _Ration]:
    import torch

    from archtuna.training import memory_format_of

    images = sample.images(candidate.architecture.input_size)
    preprocess = Preprocess.of(images, np.arange(len(images)))
    last = memory_format_of(model, place, recipe.channels_last) is torch.channels_last
    shared: dict[str, Any] = {"device": str(place), "channels_last": last}
    first = min(FIRST, recipe.batch_size, sample.train)

    def make(size: int, count: int, recipe: Any) -> Batches:
        # As many as an epoch has, so that its last, smaller batch counts as well; a large set is never handed out whole.
        indices = sample.indices(max(size, min(count, 64 * size)))
        return Batches(images, indices, preprocess, batch_size=size, recipe=recipe, **shared)

    training = _Ration(partial(make, count=sample.train, recipe=recipe), first)
    return training, _Ration(partial(make, count=sample.val, recipe=None), min(FIRST, sample.val))


@contextmanager
def _threads(count: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
