import os
import time

import numpy as np
import pytest
import torch

from archtuna.data import Data
from archtuna.errors import TrialError
from archtuna.space import SearchSpace
from archtuna.trial_run import _chosen, _drawn, _Ration, trial_run
from kinds import KINDS
from searches import SPACE

THREE = """
input_size: 16
backbone:
  - [1, Conv, {channels: 8|64, kernel: 3}]
  - [1..4, Conv, {channels: 64, kernel: 3}]
  - [1, GlobalAvgPool, []]
  - [1, Flatten, []]
  - [1, Linear, [3]]
training: {epochs: 2, batch_size: 16, lr: 0.01..5 log, class_weights: balanced}
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return Data.open(KINDS["folder"](tmp_path_factory.mktemp("photos")))


def run(space, data, **options):
    return trial_run(SearchSpace.read(space), data, data.split(), **options)


def test_it_measures_a_small_a_middling_and_a_large_network(photos):
    cache = os.environ["ARCHTUNA_CACHE"]
    before = {name for _, _, names in os.walk(cache) for name in names}
    found = run(THREE, photos, seconds=6)
    macs = [timed.macs for timed in found.networks]
    assert macs == sorted(macs)
    assert len(set(macs)) == 3
    assert found.networks[-1].train > found.networks[0].train > 0
    assert all(timed.val > 0 and timed.size == (16, 16) for timed in found.networks)
    assert all(timed.pictures >= 16 for timed in found.networks)
    assert (found.device, found.batch_size, found.busy >= 1) == ("cpu", 16, True)
    assert {name for _, _, names in os.walk(cache) for name in names} == before, "nothing is cached"


def test_it_ends_in_time_with_what_it_has(photos):
    begun = time.perf_counter()
    huge = THREE.replace("input_size: 16", "input_size: 96").replace("channels: 64", "channels: 128")
    found = run(huge, photos, seconds=2)
    assert time.perf_counter() - begun < 30
    assert 1 <= len(found.networks) <= 3


def test_workers_share_the_cores_and_threads_are_given_back(photos):
    before = torch.get_num_threads()
    assert run(THREE, photos, seconds=2, workers=64).threads == 1
    assert torch.get_num_threads() == before


def test_sizes_that_are_searched_and_grey_pictures(tmp_path):
    grey = Data.open(KINDS["grey"](tmp_path))
    found = run(SPACE.replace("input_size: 8", "input_size: 8|24").replace("[3]", "[2]"), grey, seconds=3)
    assert {timed.size for timed in found.networks} <= {(8, 8), (24, 24)}


def test_limits_keep_networks_out(photos):
    limited = SearchSpace.read(THREE + "limits: [params <= 40k]\n")
    drawn, busy = _drawn(limited, 5)
    assert drawn
    assert busy >= 1
    largest = _drawn(SearchSpace.read(THREE), 5)[0][-1][0]
    assert drawn[-1][0] < largest
    keys = [candidate.architecture.key for _, candidate in _chosen(drawn)]
    assert len(set(keys)) == len(keys) == min(3, len(drawn))


def test_where_nothing_keeps_the_limits_it_says_so(photos):
    with pytest.raises(TrialError, match="the trial run trained no network: no network of the space keeps its limits"):
        run(THREE + "limits: [params <= 10]\n", photos, seconds=1)


def test_where_training_fails_it_says_why(photos, monkeypatch):
    def fails(*_, **__):
        raise TrialError("out of memory on cpu", reason="out-of-memory")

    monkeypatch.setattr("archtuna.training.train", fails)
    with pytest.raises(TrialError, match="the trial run trained no network: out of memory on cpu"):
        run(THREE, photos, seconds=1)


def test_the_time_that_it_tells_is_that_of_a_training(photos):
    """An epoch of the real thing takes about as long as the trial run says."""
    from archtuna.evaluate import TrainEvaluator
    from archtuna.objective import objectives_of

    text = THREE.replace("8|64", "64").replace("1..4", "4").replace("epochs: 2", "epochs: 4").replace("16|32", "32")
    space, split = SearchSpace.read(text.replace("0.01..5 log", "0.01")), photos.split()
    pairs = []
    for _ in range(4):  # Others may use this machine in either half.
        (timed,) = run(text.replace("0.01..5 log", "0.01"), photos, seconds=4).networks
        told = timed.train * len(split.train) + timed.val * len(split.val)
        evaluator = TrainEvaluator(photos, split, objectives=objectives_of(["f1"]))
        seconds = [progress.seconds for progress in evaluator.evaluate(space.default())]
        pairs.append(told / float(np.diff(seconds).mean()))
        if 0.5 < pairs[-1] < 2:
            return
    pytest.fail(f"told against real: {pairs}")


def test_a_ration_ends_with_its_pictures_or_its_time():
    class Tens:
        def __init__(self, size):
            self.size = size

        def epoch(self, number):
            return iter([(torch.zeros(self.size, 1), torch.zeros(self.size, dtype=torch.int64))] * 3)

    ration = _Ration(Tens, 10)
    assert [len(y) for _, y in ration.epoch(1)] == [10]
    ration.most = 45
    assert [len(y) for _, y in ration.epoch(2)] == [10] * 5
    ration.until = 0.0
    assert len(list(ration.epoch(3))) == 1
