"""Which decisions made a difference."""

import random

from archtuna.page.importance import FEWEST, importances


def drawn(n: int) -> list[dict[str, object]]:
    draws = random.Random(0)
    found = []
    for _ in range(n):
        one: dict[str, object] = {
            "width": draws.randint(1, 9),
            "kind": draws.choice(["a", "b", "c"]),
            "idle": draws.random(),
        }
        if one["kind"] == "c":
            one["deep"] = draws.choice([0, 10])
        found.append(one | {"always": 3})
    return found


def test_what_a_value_follows_from_comes_first_also_where_only_some_have_it() -> None:
    trials = drawn(120)
    values = {
        "f1": [float(one["width"]) for one in trials],  # type: ignore[arg-type]
        "params": [float(one.get("deep", 0)) for one in trials],  # type: ignore[arg-type]
        "loss": [{"a": 0.0, "b": 5.0, "c": 1.0}[str(one["kind"])] for one in trials],
    }
    found = {one["objective"]: one for one in importances(trials, values)}
    first = {name: one["decisions"][0] for name, one in found.items()}
    assert {name: one["name"] for name, one in first.items()} == {"f1": "width", "params": "deep", "loss": "kind"}
    for one in found.values():
        assert one["explained"] > 0.9
        by_name = {told["name"]: told for told in one["decisions"]}
        assert by_name["idle"]["importance"] < 0.1 * one["decisions"][0]["importance"]
        assert "always" not in by_name


def test_of_pure_noise_nothing_is_explained() -> None:
    trials, draws = drawn(60), random.Random(1)
    (found,) = importances(trials, {"f1": [draws.gauss(0, 1) for _ in trials]})
    assert found["explained"] < 0.2


def test_of_few_trials_of_none_and_of_a_constant_nothing_is_said_that_is_not_known() -> None:
    assert importances(drawn(FEWEST - 1), {"f1": [0.0] * (FEWEST - 1)}) == []
    assert importances([], {"f1": []}) == []
    assert importances([{"a": 1}] * 20, {"f1": list(range(20))}) == []
    (found,) = importances(drawn(20), {"f1": [2.0] * 20})
    assert {told["importance"] for told in found["decisions"]} == {0.0}
