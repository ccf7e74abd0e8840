import pytest

from archtuna.beginning.outlook import (
    ENOUGH,
    MOST,
    Pace,
    Room,
    Timed,
    least_fraction,
    lines_of,
    outlook,
    said,
    tightened,
)
from test_beginning_advice import pictures


def pace(*train, device="cpu", slots=2, busy=1.0):
    networks = tuple(Timed(1000 * (i + 1), 1e6 * (i + 1), (64, 64), t, t / 4, 500) for i, t in enumerate(train))
    return Pace(networks, 0.001, busy, device, 1, slots, 2, 64, 20.0)


def expected(measured, **given):
    values = {"pictures": 1000, "train": 700, "val": 150, "epochs": 10, "workers": 1, "seconds": 1800.0}
    return outlook(measured, **{**values, **given})


def test_a_trial_is_its_epochs_and_the_range_is_that_of_the_networks():
    found = expected(pace(0.001, 0.002, 0.006))
    epochs = [10 * (700 * t + 150 * t / 4) for t in (0.001, 0.002, 0.006)]
    assert found.trial == pytest.approx((0.5 + sum(epochs[:2]) / 2, 0.5 + sum(epochs) / 3, 0.5 + sum(epochs[1:]) / 2))
    assert found.epoch == pytest.approx(epochs[1] / 10)
    assert found.start == pytest.approx(20 + 0.5)
    assert found.fitting[0] == int((1800 - 20.5) / found.trial[2])
    assert found.fitting[1] == round((1800 - 20.5) / found.trial[1])
    at_best = (1.1 * 1800 - 10.25) / found.trial[0]
    assert found.fitting[2] == pytest.approx(6 + 2 * (at_best - 6), abs=1)


def test_where_one_network_was_measured_the_others_may_be_anything():
    low, middle, high = expected(pace(0.002)).trial
    assert low < middle / 1.5
    assert high > middle * 1.5


def test_short_trainings_are_not_stopped_early():
    long, short = expected(pace(0.002, 0.002), epochs=6), expected(pace(0.002, 0.002), epochs=5)
    assert long.fitting[2] > 1.5 * long.fitting[1]
    assert short.fitting[2] < 1.2 * short.fitting[1]


def test_workers_share_cores_and_a_card():
    one, two, eight = (expected(pace(0.02, 0.02, 0.02), workers=n, seconds=10**5).fitting for n in (1, 2, 8))
    assert 1.6 * one[0] <= two[0] <= 2 * one[0]
    assert 1.8 * one[1] < two[1] < 2 * one[1]
    assert eight[1] == two[1], "there are two cores"
    card = expected(pace(0.02, 0.02, 0.02, device="cuda:0", slots=1), workers=2, seconds=10**5).fitting
    assert card[1] <= one[1]
    assert card[2] > 1.5 * one[2]


def test_the_search_ends_with_its_trials_or_its_time():
    assert expected(pace(0.02, 0.02, 0.02)).search == pytest.approx((1800, 1980))
    quick = expected(pace(1e-5, 1e-5, 1e-5))
    assert quick.trials == MOST
    assert quick.search[1] < 1800
    slow = expected(pace(1.0, 1.0, 1.0))
    assert (slow.fitting[1], slow.trials) == (0, ENOUGH)
    assert expected(pace(0.02), trials=3).trials == 3


def test_a_busy_machine_is_slow_to_start_too():
    assert expected(pace(0.001), seconds=60.0).fitting[1] > 0
    found = expected(pace(0.001, busy=4.0), seconds=60.0)
    assert (found.start, found.fitting[:2]) == (80.5, (0, 0))


ROOM = Room(side=224, smallest=32, fraction=1.0, least_fraction=0.25, epochs=40, usual_epochs=20, least_epochs=6)


@pytest.mark.parametrize(
    ("missing", "changed"),
    [
        (0.5, {}),
        (1.3, {"side": 192}),
        (4.0, {"side": 96}),
        (12.0, {"side": 64}),
        (20.0, {"side": 64, "epochs": 24}),
        (40.0, {"side": 64, "epochs": 20, "fraction": 0.5}),
        (110.0, {"side": 64, "epochs": 17, "fraction": 0.25}),
        (400.0, {"side": 48, "epochs": 6, "fraction": 0.25}),
        (10**6, {"side": 32, "epochs": 6, "fraction": 0.25}),
    ],
)
def test_what_gives_way_to_the_time_and_in_which_order(missing, changed):
    assert tightened(ROOM, missing) == Room(**{**vars(ROOM), **changed})


def test_what_was_asked_for_stays():
    kept = tightened(Room(None, 32, 1.0, 1.0, 20, 20, 6), 100)
    assert (kept.side, kept.fraction, kept.epochs) == (None, 1.0, 6)
    assert tightened(Room(48, 48, 1.0, 1.0, 6, 12, 6), 100).side == 48


@pytest.mark.parametrize(("each", "least"), [(100, 1.0), (1_000, 1.0), (2_000, 0.5), (3_000, 0.25)])
def test_a_part_of_the_pictures_still_says_something(each, least):
    assert least_fraction(pictures({"cat": each, "dog": each})) == least


def test_rare_classes_are_not_thinned_out():
    assert least_fraction(pictures({"cat": 20_000, "dog": 80})) == 1.0


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.123, "0.12 s"), (3.21, "3.2 s"), (59.6, "60 s"), (180, "3 min"), (7200, "2.0 h")]
)
def test_durations_are_said_as_people_do(seconds, words):
    assert said(seconds) == words


def test_the_words_carry_what_was_measured_and_on_what():
    measured = pace(0.001, 0.002, 0.006, busy=2.0)
    text = " ".join(lines_of(expected(measured), measured, 1, 1800))
    assert "Expected in 30 min with 1 worker: " in text
    assert (
        "Measured in 20 s on cpu, 1 thread, batches of 64: 3 networks of 1M to 3M macs at 64x64, 1,500 training" in text
    )
    assert "a second of work took 2.0 seconds. It may be half of that tomorrow, or twice: the range has both." in text
    assert "The search ends after about 30 min: with " in text or " to 33 min: with" in text


def test_where_others_use_the_machine_the_range_is_wider():
    quiet, busy = expected(pace(0.002)).trial, expected(pace(0.002, busy=2.0)).trial
    assert busy[0] == pytest.approx((quiet[0] + 0.5) / 2)
    assert busy[1] == pytest.approx(quiet[1] + 0.5)
    assert busy[2] == pytest.approx((quiet[2] + 0.5) * 2)
    crowded = expected(pace(0.002, busy=9.0)).trial
    assert crowded[2] == pytest.approx(2 * (quiet[2] + 4.0))
