from __future__ import annotations

import numpy as np
import pytest

from archtuna.growth import Growth
from archtuna.objective import hypervolume

BOX = ([0.0, 0.0], [1.0, 1.0])


def test_the_hypervolume_after_each_trial_is_that_of_the_trials_so_far():
    points = np.random.default_rng(0).random((40, 2))
    growth = Growth(2)
    found = growth.after(points, *BOX)
    assert found == pytest.approx([hypervolume(points[: n + 1], *BOX) for n in range(40)])
    assert found == sorted(found)
    assert growth.after(np.zeros((0, 2)), [0.0, 0.0], [2.0, 2.0]) == []


def test_trials_that_come_later_are_added_and_another_box_counts_anew():
    points = np.random.default_rng(1).random((20, 2))
    growth = Growth(2)
    growth.after(points[:7], *BOX)
    assert growth.after(points, *BOX) == pytest.approx(Growth(2).after(points, *BOX))
    larger = growth.after(points, [0.0, 0.0], [2.0, 2.0])
    assert larger == pytest.approx([hypervolume(points[: n + 1], [0.0, 0.0], [2.0, 2.0]) for n in range(20)])
