import numpy as np
import pytest

from archtuna.errors import SpecError
from archtuna.objective import OBJECTIVES, hypervolume, kind_of, knee, limit_of, objectives_of, oriented, pareto_ranks


@pytest.mark.parametrize(
    ("text", "name", "bound"),
    [
        ("params<=500k", "params", 5e5),
        ("macs <= 20M", "macs", 2e7),
        ("size_mb<=1.5", "size_mb", 1.5),
        ("macs<1e6", "macs", 1e6),
        ("peak_memory_mb <= 0.256", "peak_memory_mb", 0.256),
    ],
)
def test_limits_are_read_with_their_units(text, name, bound):
    limit = limit_of(text)
    assert (limit.name, limit.bound) == (name, bound)
    assert limit.violation({name: bound}) == 0
    assert limit.violation({name: 2 * bound}) == pytest.approx(1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("params", "is not a limit\nhint: write for example: params <= 500k"),
        ("params >= 5", "only <= can be a limit"),
        ("parms <= 5", "did you mean 'params'"),
        ("f1 <= 0.5", "checked before training: params, macs, size_mb, peak_memory_mb"),
        ("params <= 0", "above zero"),
        ("params <= 1.2.3", "'1.2.3' is not a number"),
    ],
)
def test_what_is_no_limit_says_why(text, message):
    with pytest.raises(SpecError, match=message):
        limit_of(text)


def test_objectives_have_their_natural_directions():
    found = objectives_of(["loss", "f1", "accuracy", "params"])
    assert [o.direction for o in found] == ["minimize", "maximize", "maximize", "minimize"]
    for names, message in (
        (["acuracy"], r"unknown objective 'acuracy'\nhint: did you mean 'accuracy'"),
        (["f1", "f1"], "stands twice"),
        (["params"], "no objective says how right a network is"),
        (["latency_s", "f1"], "unknown objective 'latency_s'"),
        (["params@pi4", "f1"], r"'params' is the same on every device\nhint: write params"),
        (["latency_ms@", "f1"], r"'' is not the name of a device"),
        (["f1", "latency_ms@a b"], r"'a b' is not the name of a device"),
    ):
        with pytest.raises(SpecError, match=message):
            objectives_of(names)


def test_ranks_agree_with_the_definition_of_domination():
    rng = np.random.default_rng(0)
    points = rng.integers(0, 6, (60, 3)).astype(float)
    ranks = pareto_ranks(points)
    dominated = [any((q <= p).all() and (q < p).any() for q in points) for p in points]
    assert [rank > 0 for rank in ranks] == dominated
    assert pareto_ranks(np.zeros((0, 2))).shape == (0,)
    assert list(pareto_ranks(np.array([[1.0, 1], [1, 1]]))) == [0, 0]


def test_the_knee_is_the_point_nearest_to_the_ideal():
    assert knee(np.array([[0.0, 1.0], [0.2, 0.2], [1.0, 0.0]])) == 1
    assert knee(np.array([[3.0, 4.0]])) == 0
    assert knee(np.array([[0.9, 10.0], [0.1, 90.0]])) == 1, (
        "of two that are as near it is the best in the first objective"
    )


def test_hypervolume_is_a_share_of_the_box():
    objectives = objectives_of(["f1", "params"])
    points = oriented([[0.5, 50.0], [1.0, 100.0]], objectives)
    assert hypervolume(points, ideal=[-1, 0], reference=[0, 100]) == pytest.approx(0.25)
    assert hypervolume(points[1:], ideal=[-1, 0], reference=[0, 100]) == 0
    assert hypervolume(np.zeros((0, 2)), ideal=[-1, 0], reference=[0, 100]) == 0
    assert hypervolume(np.array([[-1.0, 0.0]]), ideal=[-1, 0], reference=[0, 100]) == pytest.approx(1)


def test_every_objective_has_a_meaning():
    assert all(o.meaning for o in OBJECTIVES.values())


def test_what_is_measured_may_name_a_device():
    here, there = objectives_of(["f1", "latency_ms", "latency_ms@pi4"])[1:]
    assert (here.base, here.device, there.base, there.device) == ("latency_ms", None, "latency_ms", "pi4")
    assert here.is_measured
    assert there.is_measured
    assert here != there
    assert there.meaning.endswith("on pi4")
    assert str(limit_of("latency_ms@pi4 <= 2.5")) == "latency_ms@pi4 <= 2.5"
    assert limit_of("energy_mj@my-phone.1<=3").violation({"energy_mj@my-phone.1": 6.0}) == 1.0
    assert [kind_of(name) for name in ("f1", "latency_ms@pi4", "params@pi4", "x")] == ["quality", "cost", None, None]
    with pytest.raises(SpecError, match="'f1@pi4' cannot be limited"):
        limit_of("f1@pi4 <= 1")
