from __future__ import annotations

import pytest

from archtuna.objective import objectives_of
from archtuna.panels import (
    MANY_ROWS,
    ROWS,
    Network,
    Worker,
    clock,
    fitted,
    front_table,
    growth_lines,
    pace_left,
    worker_lines,
)
from archtuna.terminal import Screen

NAMES = ["f1", "params", "macs", "latency_ms@pi4"]
OBJECTIVES = objectives_of(NAMES)
WIDTHS = (40, 80, 160)


def network(number: int) -> Network:
    values = {
        "f1": 0.5 + number / 100,
        "params": 1e4 * 1.3**number,
        "macs": 1e6 * 1.2**number,
        "latency_ms@pi4": 0.5 + number,
    }
    return Network(
        number,
        values,
        {**values, "size_mb": 1.25, "peak_memory_mb": 0.1},
        seconds=65.0,
        network="8 blocks, 32x32 pixels",
    )


FRONT = [network(number) for number in range(30)]


def worker(index: int, **changes) -> Worker:
    given = {
        "name": f"gpu-node-{index}.cluster.example.com:{4000 + index}", "trial": str(index), "epoch": index % 12, "epochs": 12,
        "best": {"f1": 0.8}, "left": 75.0, "metrics": {"f1": 0.79, "loss": 0.5}, "costs": {"params": 3e5}, "network": "8 blocks",
    }  # fmt: skip
    return Worker(**{**given, **changes})


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("unicode", [True, False])
def test_a_front_fits_any_width_and_is_spread(width, unicode):
    screen = Screen(width, unicode=unicode)
    lines = front_table(FRONT, OBJECTIVES, screen, folder="runs/photos")
    assert max(map(len, lines)) <= width
    rows = [line.split() for line in lines if line.split()[0].strip("*").isdigit()]
    numbers = [int(row[0].strip("*")) for row in rows]
    most = MANY_ROWS if width == 160 else ROWS
    assert len(numbers) == most
    assert (numbers[0], numbers[-1]) == (29, 0), "best by the first objective first, and both ends"
    assert numbers == sorted(numbers, reverse=True)
    assert sum(row[0].endswith("*") for row in rows) == 1
    assert lines[-1].startswith(f"and {30 - most} more")
    assert rows[0][1] == "0.7900"
    assert unicode or all(line.isascii() for line in lines)


def test_a_wide_window_shows_more_of_each_network():
    narrow, wide = (front_table(FRONT, OBJECTIVES, Screen(width)) for width in (80, 160))
    assert "network" not in narrow[1]
    assert wide[1].split()[-2:] == ["took", "network"]
    assert wide[2].split()[-6:] == ["MB", "1:05", "8", "blocks,", "32x32", "pixels"]
    assert "29.5 ms" in narrow[2]


def test_a_front_of_nothing_and_of_one():
    assert front_table([], OBJECTIVES, Screen()) == ["front: nothing yet"]
    lines = front_table(FRONT[:1], OBJECTIVES, Screen())
    assert lines[0] == "front of 1 network, best f1 first; * knee point"
    assert len(lines) == 3


@pytest.mark.parametrize("width", WIDTHS)
def test_workers_fit_any_width(width):
    lines = worker_lines([worker(index) for index in range(3)], OBJECTIVES, Screen(width))
    assert max(map(len, lines)) <= width
    assert "7/12" in worker_lines([worker(7)], OBJECTIVES, Screen(width))[1]
    assert any("0.8000" in line for line in lines)
    assert ("1:15" in lines[1]) == (width > 40)
    assert ("loss now" in lines[0]) == (width == 160)


def test_a_worker_of_whom_nothing_is_known_yet():
    lines = worker_lines(
        [worker(1, epoch=0, epochs=0, best={"f1": None}, left=None, costs={}, metrics={}, network="")],
        OBJECTIVES,
        Screen(),
    )
    assert lines[0].split() == ["worker", "trial", "epoch", "best", "f1", "left"]
    assert lines[1].split()[2:] == ["╌" * 16, "0/?", "-", "-"]


@pytest.mark.parametrize("width", WIDTHS)
def test_the_ends_of_the_growth_are_told(width):
    (line,) = growth_lines([0.25, 0.3, 0.6120] * 40, Screen(width))
    assert len(line) <= width
    assert line.index("0.2500") < line.index("▁") < line.index("0.6120")
    assert "hypervolume" in line
    assert ("over 120 trials" in line) == (width > 40)


@pytest.mark.parametrize("height", [3, 5, 10, 24, 60])
def test_a_display_is_never_higher_than_its_window(height):
    screen = Screen(80, height)
    lines = fitted(["title", ""], ["", "last"], lambda rows: front_table(FRONT, OBJECTIVES, screen, rows), screen)
    assert len(lines) < height
    assert lines[0] == "title"
    assert height < 24 or lines[-1] == "last"
    assert len(fitted(["title"], [], lambda rows: front_table(FRONT, OBJECTIVES, screen, rows), Screen(80))) == ROWS + 4


def test_what_is_left_follows_from_the_pace():
    assert pace_left(10.0, 2, 3) == 15.0
    assert pace_left(10.0, 0, 3) is None
    assert [clock(seconds) for seconds in (5, 65, 7260)] == ["0:05", "1:05", "2:01:00"]


def test_of_two_that_are_as_near_the_knee_point_is_the_best_by_the_first_objective():
    two = objectives_of(["f1", "params"])
    small, good = Network(3, {"f1": 0.1, "params": 10.0}), Network(1, {"f1": 0.9, "params": 90.0})
    for front in ([small, good], [good, small]):
        assert [line.split()[0] for line in front_table(front, two, Screen())[2:]] == ["1*", "3"]
    other = objectives_of(["params", "f1"])
    assert [line.split()[0] for line in front_table([small, good], other, Screen())[2:]] == ["3*", "1"]
