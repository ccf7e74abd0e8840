"""The trial run before a search: a few networks of the space, a few batches each, and what they take."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from archtuna.beginning.outlook import Pace, Timed
from archtuna.costs import costs_of
from archtuna.data import Batches, Data, Images, Preprocess, Split
from archtuna.data.picture import quiet_decoders, shrink
from archtuna.devices import torch_threads, usable_cores
from archtuna.errors import ShapeError, TrialError
from archtuna.evaluate import EVALUATION_BATCH
from archtuna.space import Candidate, SearchSpace

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DRAWN = 24
"""Networks whose costs are looked at."""
PLACES = (0.5, 0.0, 1.0)
"""Where among them, by multiply-accumulates, those lie that are trained; in this order, should the time not last."""
SAMPLE = 256
"""Pictures that are decoded."""
SAMPLE_BYTES = 2**26
FIRST = 8
"""Pictures of the first batches at most, which tell how many may follow."""
FIRST_MACS = 2e9
"""Multiply-accumulates of the first batches at most, should two pictures suffice: so large networks are noticed early."""
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
    with torch_threads(threads):
        drawn, busy = _drawn(space, SHARES["draw"] * seconds)
        sample = _Sample(data, split, space, SHARES["decode"] * seconds)
        networks: list[Timed] = []
        problem: TrialError | ShapeError | None = None
        for number, (macs, candidate) in enumerate(_chosen(drawn)):
            left = seconds - (time.perf_counter() - begun)
            # Two passes of two pictures are the least, which the first network tells for a larger one.
            least = 4 * networks[0].train * macs / networks[0].macs if networks else 0.0
            if networks and left < max(least, 0.1 * seconds):
                continue
            try:
                networks.append(_timed(candidate, macs, sample, place, max(1.0, left / (len(PLACES) - number))))
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
    rng = random.Random(0)
    found: dict[str, tuple[float, Candidate]] = {}
    costs_of(space.default().architecture)  # The first time libraries are loaded, which is nobody's work.
    begun, worked = time.perf_counter(), time.thread_time()
    for attempt in range(20 * DRAWN):
        elapsed = time.perf_counter() - begun
        if len(found) == DRAWN or elapsed > 2 * seconds or (elapsed > seconds and len(found) >= len(PLACES)):
            break
        try:
            # The first options come first, which in most spaces are the smallest.
            candidate = space.random(rng) if attempt else space.default()
            costs = costs_of(candidate.architecture)
        except ShapeError:
            continue
        if all(limit.violation(costs) <= 0 for limit in space.settings.limits if limit.name in costs):
            found[candidate.architecture.key] = (costs["macs"], candidate)
    busy = (time.perf_counter() - begun) / max(1e-3, time.thread_time() - worked)
    return sorted(found.values(), key=lambda pair: pair[0]), max(1.0, busy)


def _chosen(drawn: list[tuple[float, Candidate]]) -> list[tuple[float, Candidate]]:
    """Return a middling, the smallest and the largest one."""
    places = [min(len(drawn) - 1, int(place * len(drawn))) for place in PLACES if drawn]
    return [drawn[place] for place in dict.fromkeys(places)]


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

    def enlarge(self, fitting: int, size: int, most: int, until: float) -> None:
        """Hand out batches of ``size``, or of as many pictures as fit, for one pass of ``most`` pictures."""
        self.size = max(self.size, min(size, fitting))
        self.most, self.until = max(self.size, most), until

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        self.given = 0
        while self.given < self.most and (not self.given or time.perf_counter() < self.until):
            for x, y in self.make(self.size).epoch(number):
                yield x, y
                self.given += len(y)
                if self.given >= self.most or time.perf_counter() >= self.until:
                    return


def _timed(candidate: Candidate, macs: float, sample: _Sample, place: torch.device, seconds: float) -> Timed:
    """Train one network for about so long, and return what it took.

    A first small batch warms up, a second tells how large the batches of the third pass may be, and that one counts. Where
    the time does not last, the pass before it does.
    """
    from archtuna.model import build
    from archtuna.training import train

    ends = time.perf_counter() + seconds
    # The rate and the weights of classes change no time, and a rate that is too high would end the training.
    recipe = candidate.recipe.replace(epochs=3, lr=1e-4, class_weights="none")
    model = build(candidate.architecture, pretrained=False)
    training, validation = _rations(candidate, sample, model, place, recipe, max(2, min(FIRST, int(FIRST_MACS / macs))))
    for epoch in train(model, training, validation, recipe, classes=sample.classes, device=place):
        last, given = epoch, (training.given, validation.given)
        left = ends - time.perf_counter()
        if left < epoch.seconds:
            break
        if epoch.number == 2:
            fitting = int(0.8 * left * training.given / max(1e-9, epoch.train_seconds))
            training.enlarge(fitting, min(recipe.batch_size, sample.train), sample.train, ends - 0.2 * left)
            # A validation picture takes a third of a training picture, and its share of the time is small.
            validation.enlarge(fitting // 4, min(EVALUATION_BATCH, sample.val), 0, ends)
    costs, size = costs_of(candidate.architecture), candidate.architecture.input_size
    val = (last.seconds - last.train_seconds) / given[1]
    return Timed(costs["params"], macs, size, last.train_seconds / given[0], val, given[0])


def _rations(
    candidate: Candidate, sample: _Sample, model: Any, place: torch.device, recipe: Any, first: int
) -> tuple[_Ration, _Ration]:
    import torch

    from archtuna.training import memory_format_of

    images = sample.images(candidate.architecture.input_size)
    preprocess = Preprocess.of(images, np.arange(len(images)))
    last = memory_format_of(model, place, recipe.channels_last) is torch.channels_last
    shared: dict[str, Any] = {"device": str(place), "channels_last": last}
    first = min(first, recipe.batch_size, sample.train)

    def make(size: int, count: int, recipe: Any) -> Batches:
        # As many as an epoch has, so that its last, smaller batch counts as well; a large set is never handed out whole.
        indices = sample.indices(max(size, min(count, 64 * size)))
        return Batches(images, indices, preprocess, batch_size=size, recipe=recipe, **shared)

    training = _Ration(partial(make, count=sample.train, recipe=recipe), first)
    return training, _Ration(partial(make, count=sample.val, recipe=None), min(first, sample.val))
