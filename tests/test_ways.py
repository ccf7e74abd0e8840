"""How many networks a space has: as many as there are ways to answer what is asked."""

import random

import pytest

from archtuna.space import SearchSpace

HEAD = "[1, GlobalAvgPool, []], [1, Flatten, []], [1, Linear, [4]]"


def space(rows, extra=""):
    return SearchSpace.read(f"input_size: 16\nbackbone: [{rows}, {HEAD}]\n{extra}")


def test_every_network_is_counted():
    found = space("[1..2, Conv|DWConv, [8, 3|5]]")
    seen = set()
    for i in range(200):
        seen.add(tuple(found.random(random.Random(i)).decisions.values()))
    assert found.size == len(seen) == 8


def asked_in_every_way(found):
    """All that can be decided of a space's networks, by following every answer to every choice that is asked."""
    ways, waiting = set(), [{}]
    while waiting:
        decisions = dict(found.candidate(waiting.pop()).decisions)
        if tuple(decisions.items()) not in ways:
            ways.add(tuple(decisions.items()))
            for choice in found.choices:
                if choice.name in decisions:
                    waiting += [{**decisions, choice.name: value} for value in choice.values()]
    return ways


@pytest.mark.parametrize(
    ("rows", "extra", "size"),
    [
        ("[1, $m, [8, 3]], [1, $m, [8, 3]]", "choices: {m: Conv|DWConv}", 2),
        ("[1, $m, [8, 3|5]], [1, $m, [8, 3|5]]", "choices: {m: Conv|DWConv}", 8),
        ("[$r, Conv, [16|32, 3]], [$r, Conv, [16|32, 3]]", "choices: {r: 0..2}", 9),
        ("[$r, Conv, [8, 3|5]]", "choices: {r: 1..2}\ndepth_multiple: $r", 4),
        ("[1, Conv, [8, 3]], {any: [{rows: [[$r, Conv, [8, 3]], [$r, Conv, [8, 1]]]}, [1, DWConv, [8, 3]]]}", "choices: {r: 1..2}", 3),
        ("{any: [[1, Conv, [8, $k]], [1, DWConv, [8, $k]], [1, Conv, [8, 1]]]}", "choices: {k: 3|5}", 5),
        ("{rows: [[$r, Conv, [8, $k]]], repeat: $r}, [0|1, Conv, [8, $k]]", "choices: {r: 0..2, k: 3|5}", 11),
        ("[$r, $m, [8, $k]], {any: [[$r, $m, [8, 1|3]], [1, Conv, [8, $k]]]}", "choices: {r: 0|1, m: Conv|DWConv, k: 3|5}", 18),
        ("[1, Conv, [$c, 3]], [0|1, Conv, [$c, $c]]", "choices: {c: 3|5}\ninput_size: 16|32", 8),
    ],
)  # fmt: skip
def test_a_shared_choice_is_counted_once_where_it_is_asked(rows, extra, size):
    sizes = "" if "input_size" in extra else "input_size: 16\n"
    found = SearchSpace.read(f"{sizes}backbone: [[1, Conv, [8, 3]], {rows}, {HEAD}]\n{extra}\n")
    assert found.size == len(asked_in_every_way(found)) == size


def test_of_more_shared_choices_than_can_be_followed_it_is_an_upper_bound():
    def size(count):
        rows = ", ".join(f"[$r{i}, Conv, [8, 3|5]], [$r{i}, Conv, [8, 3]]" for i in range(count))
        return space(rows, f"choices: {{{', '.join(f'r{i}: 0|1' for i in range(count))}}}").size

    assert size(8) == 3**8
    assert 3**60 <= size(60) <= 6**60
