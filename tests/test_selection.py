import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archtuna.errors import SpecError, StudyError
from archtuna.objective import OBJECTIVES, objectives_of
from archtuna.selection import (
    Bound,
    Option,
    bound_of,
    is_noise,
    noise_marks,
    pick,
    standard_error,
)

F1, LOSS, PARAMS = OBJECTIVES["f1"], OBJECTIVES["loss"], OBJECTIVES["params"]
OBJECTIVE_PAIR = (F1, PARAMS)


def option(number, f1, params, runs=1, spread=None, **values):
    return Option(
        number, {"f1": f1, "params": float(params), **values}, runs, None if spread is None else {"f1": spread}
    )


FRONT = [option(4, 0.5, 100), option(2, 0.8, 300), option(9, 0.88, 1000), option(0, 0.9, 5000)]


def chosen(options=FRONT, objectives=OBJECTIVE_PAIR, **how):
    return options[pick(options, objectives, **how).index].number


# bounds


@pytest.mark.parametrize(
    ("text", "sign", "bound"),
    [
        ("params=300k", "<=", Bound("params", "<=", 3e5)),
        (" macs = 2M ", "<=", Bound("macs", "<=", 2e6)),
        ("f1=.9", ">=", Bound("f1", ">=", 0.9)),
    ],
)
def test_bounds_are_read_with_their_units(text, sign, bound):
    assert bound_of(text, sign) == bound


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("params", "max: 'params' is not a bound\nhint: write for example: params=300k"),
        ("params<=3", "is not a bound"),
        ("params=1.2.3", "max: '1.2.3' is not a number"),
        ("params=" + "9" * 200, "is not a bound"),
    ],
)
def test_what_is_no_bound_says_so(text, message):
    with pytest.raises(SpecError, match=message):
        bound_of(text, "<=")


def test_a_bound_is_kept_to_the_last_unit_and_broken_by_a_share():
    bound = Bound("params", "<=", 200.0)
    assert [bound.violation({"params": v}) for v in (200, 300, 100)] == [0, 0.5, -0.5]
    assert Bound("f1", ">=", 0.5).violation({"f1": 0.25}) == 0.5
    assert Bound("loss", "<=", 0.0).violation({"loss": 0.25}) == 0.25
    assert [str(bound), str(Bound("f1", ">=", 0.9))] == ["params <= 200", "f1 >= 0.9"]


# noise


def test_noise_is_two_standard_errors_of_the_difference():
    # The standard error of the difference of two means of four runs that each spread by .02 is .01414.
    a = option(0, 0.9, 1, 4, 0.02)
    assert is_noise(a, option(1, 0.9 - 0.0282, 1, 4, 0.02), "f1") is True
    assert is_noise(a, option(1, 0.9 - 0.0284, 1, 4, 0.02), "f1") is False
    assert is_noise(a, option(1, 0.1, 1), "f1") is None
    assert is_noise(option(1, 0.1, 1), a, "f1") is None


def test_marks_stand_where_a_better_quality_may_be_chance():
    front = [
        option(0, 0.80, 1, 3, 0.01),
        option(1, 0.805, 2, 3, 0.01),  # better by less than noise
        option(2, 0.9, 3, 3, 0.01),  # clearly better
        option(3, 0.89, 4, 3, 0.01),  # not better: it is on the front for something else
        option(4, 0.895, 5),  # trained once: nothing is known
    ]
    assert noise_marks(front, F1) == [False, True, False, False, False]
    losses = [Option(i, {"loss": v}, 3, {"loss": 0.1}) for i, v in enumerate((0.5, 0.45, 0.1))]
    assert noise_marks(losses, LOSS) == [False, True, False]
    assert noise_marks([], F1) == []


def test_the_standard_error_of_several_runs_is_that_of_their_mean():
    assert standard_error(option(0, 0.9, 1, 4, 0.02), "f1", 100)[0] == pytest.approx(0.01)
    assert standard_error(option(0, 0.9, 1), "f1", 100) == (
        pytest.approx(0.03),
        "of a share of 100 validation pictures",
    )
    for one, name, pictures in ((option(0, 0.9, 1), "f1", None), (Option(0, {"loss": 0.4}), "loss", 100)):
        with pytest.raises(StudyError, match=rf"standard error of {name} is not known: .*once\nhint: archtuna repeat"):
            standard_error(one, name, pictures)


@pytest.mark.parametrize("share", [0.6, 0.9])
def test_the_standard_error_of_a_share_is_what_a_bootstrap_finds(share):
    """Of accuracy, and of the macro F1 of ten classes of one size to a fifth."""
    from archtuna.metrics import confusion, macro_f1

    rng = np.random.default_rng(0)
    n, classes = 300, 10
    truth = np.arange(n) % classes
    answers = np.where(rng.random(n) < share, truth, rng.integers(0, classes, n))
    accuracies, scores = [], []
    for _ in range(400):
        drawn = rng.integers(0, n, n)
        accuracies.append((answers == truth)[drawn].mean())
        scores.append(macro_f1(confusion(truth[drawn], answers[drawn], classes)))
    known = Option(0, {"accuracy": (answers == truth).mean(), "f1": macro_f1(confusion(truth, answers, classes))})
    assert standard_error(known, "accuracy", n)[0] == pytest.approx(np.std(accuracies), rel=0.1)
    assert standard_error(known, "f1", n)[0] == pytest.approx(np.std(scores), rel=0.2)


# choosing


def test_the_best_by_any_objective():
    assert chosen() == chosen(best="f1") == 0
    assert chosen(best="params") == 4
    assert pick(FRONT, OBJECTIVE_PAIR).why == "the best f1"
    assert pick(FRONT, OBJECTIVE_PAIR).left == 4


def test_bounds_leave_fewer():
    found = pick(FRONT, OBJECTIVE_PAIR, bounds=[Bound("params", "<=", 1000), Bound("f1", ">=", 0.8)])
    assert (FRONT[found.index].number, found.left) == (9, 2)
    costly = [Option(0, {"f1": 0.9, "params": 1.0, "macs": 9.0}), Option(1, {"f1": 0.8, "params": 1.0, "macs": 2.0})]
    assert chosen(costly, bounds=[Bound("macs", "<=", 5)]) == 1, "a cost that is no objective can be bounded"


def test_the_knee_is_looked_for_among_what_is_left():
    assert chosen(knee=True) == 9
    assert chosen(knee=True, bounds=[Bound("params", "<=", 1000)]) == 2
    assert "nearest to the ideal" in pick(FRONT, OBJECTIVE_PAIR, knee=True).why


def test_nothing_left_names_the_nearest():
    with pytest.raises(
        StudyError,
        match=r"none of the 4 networks on the front keeps params <= 200 and f1 >= 0.75\nhint: the nearest is trial 4: f1 0.5, params 100",
    ):
        chosen(bounds=[Bound("params", "<=", 200), Bound("f1", ">=", 0.75)])
    with pytest.raises(StudyError, match="the front is empty"):
        chosen([])


def test_what_cannot_be_asked_for_says_so():
    for how, message in (
        ({"best": "f2"}, "best: 'f2' cannot be asked for\nhint: known here: f1, params"),
        ({"bounds": [Bound("parms", "<=", 1)]}, "max: 'parms' .*\nhint: did you mean 'params'"),
        ({"bounds": [Bound("x", ">=", 1)]}, "min: 'x' .*\nhint: known here: f1, params"),
        ({"within_one_se": True, "smallest": "f1"}, "smallest: 'f1' .*\nhint: known here: params"),
        ({"within_one_se": True, "best": "params"}, "best: 'params' .*\nhint: known here: f1"),
    ):
        with pytest.raises(SpecError, match=message):
            chosen(**how)
    with pytest.raises(StudyError, match="within one standard error of the best\nhint: add --within-one-se"):
        chosen(smallest="params")
    for how in ({"best": "f1"}, {"within_one_se": True}):
        with pytest.raises(StudyError, match="the knee point is best at nothing by itself"):
            chosen(knee=True, **how)


def test_the_smallest_within_one_standard_error():
    # One standard error of 220 pictures at .9 is .0202: trial 9 is within it, trial 2 is not.
    found = pick(FRONT, OBJECTIVE_PAIR, within_one_se=True, pictures=220)
    assert FRONT[found.index].number == 9
    assert found.why == (
        "the smallest by params within one standard error (0.02, of a share of 220 validation pictures) "
        "of the best f1, 0.9 of trial 0"
    )
    repeated = [*FRONT[:3], option(0, 0.9, 5000, 4, 0.002)]
    assert chosen(repeated, within_one_se=True) == 0
    assert "(0.001, of 4 runs)" in pick(repeated, OBJECTIVE_PAIR, within_one_se=True).why
    sized = [Option(i, {"f1": 0.9, "params": p, "macs": m}) for i, (p, m) in enumerate(((1.0, 9.0), (2.0, 3.0)))]
    assert chosen(sized, within_one_se=True, pictures=100) == 0
    assert chosen(sized, within_one_se=True, pictures=100, smallest="macs") == 1
    qualities = objectives_of(["f1", "accuracy"])
    plain = [
        Option(0, {"f1": 0.9, "accuracy": 0.8, "params": 9.0}),
        Option(1, {"f1": 0.89, "accuracy": 0.9, "params": 3.0}),
    ]
    assert chosen(plain, qualities, within_one_se=True, pictures=100) == 1, "without a cost among them, params count"


FRONTS = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=12).map(
    lambda rows: [option(i, f / 50, p, 3, s / 100) for i, (f, p, s) in enumerate(rows)]
)


@given(FRONTS, st.integers(1, 9))
def test_one_standard_error_never_costs_more_than_the_best_nor_loses_more(front, bound):
    bounds = [Bound("params", "<=", float(bound))]
    kept = [one for one in front if one.values["params"] <= bound]
    if not kept:
        with pytest.raises(StudyError, match="keeps params"):
            pick(front, OBJECTIVE_PAIR, bounds=bounds)
        return
    best = front[pick(front, OBJECTIVE_PAIR, bounds=bounds).index]
    small = front[pick(front, OBJECTIVE_PAIR, bounds=bounds, within_one_se=True).index]
    assert best.values["f1"] == max(one.values["f1"] for one in kept)
    assert small in kept
    assert small.values["params"] <= best.values["params"]
    error = best.spread["f1"] / math.sqrt(3)
    assert small.values["f1"] >= best.values["f1"] - error - 1e-12
    assert not [
        one for one in kept
        if one.values["params"] < small.values["params"] and one.values["f1"] >= best.values["f1"] - error + 1e-12
    ]  # fmt: skip
