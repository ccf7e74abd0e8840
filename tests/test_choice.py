import tracemalloc

import pytest

from archtuna import document
from archtuna.choice import REMEMBERED, Answered, Choice, check, read_argument, read_choice, read_slot
from archtuna.errors import SpecError
from archtuna.signature import Parameter


def choice(text):
    return read_choice(document.from_plain(text, path="p"), "p")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("3|5|7", (3, 5, 7)), ("1..4", (1, 2, 3, 4)), ("16..64/16", (16, 32, 48, 64)), ("0.1..0.5/0.2", (0.1, 0.3, 0.5)),
        ("ReLU | HardSwish", ("ReLU", "HardSwish")), ("null|1", (None, 1)), ("0.01..0.3", None), ("0.01..0.3 log", None),
        ("true|false", (True, False)), ("16..256 log", tuple(range(16, 257))), ("1..6/2", (1, 3, 5)),
    ],
)  # fmt: skip
def test_texts_are_choices(text, values):
    found = choice(text)
    if values is None:
        assert found.values() is None
        assert found.log == text.endswith("log")
        assert found.extremes() == (0.01, 0.3)
    else:
        assert found.values() == pytest.approx(values) if isinstance(values[0], float) else found.values() == values


@pytest.mark.parametrize("text", ["Conv", "a.b", "", "3", "x..y z"[:1]])
def test_plain_texts_are_none(text):
    assert choice(text) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3||5", "has an empty option"), ("3|3", "the same option twice"), ("5..1", "low end must be below"), ("1...5", "is not a range"),
        ("1..", "is not a range"), ("1..5/0", "step must be above zero"), ("0..1 log", "must begin above zero"),
        ("1..3|7", "mixes options and ranges"), ("1..5/9", "step must be above zero and fit"), ("1..100000", "more than 1,000 values"),
        ("1..8/2 log", "has no step"),
    ],
)  # fmt: skip
def test_what_looks_like_a_choice_and_is_none_is_an_error(text, message):
    with pytest.raises(SpecError, match=message):
        choice(text)


def test_default_is_the_first_option_and_the_text_reads_back():
    for text in ("3|5", "1..5", "16..64/16", "0.01..0.3 log", "null|ReLU"):
        found = choice(text)
        assert str(found) == text
        assert found.default == (found.values() or (found.low,))[0]


def test_values_of_a_step_are_without_the_noise_of_adding():
    assert choice("0.1..0.5/0.1").values() == (0.1, 0.2, 0.3, 0.4, 0.5)
    assert choice("-0.3..0.3/0.1").values()[3] == 0
    assert choice("0.2..0.9/0.1").probes() == (0.2, 0.3, 0.9)
    assert choice("0.2..0.9/0.1").extremes() == (0.2, 0.9)
    assert choice("1..6/2").extremes() == (1, 5)
    assert all(type(value) is int for value in choice("16..64/16").values())


def test_ends_of_a_long_range_are_known_without_its_values(monkeypatch):
    long = choice("1..60000 log")
    monkeypatch.setattr(Choice, "values", None)
    assert (long.probes(), long.extremes(), long.count()) == ((1, 2, 60000), (1, 60000), 60000)
    assert choice("0.5..1").count() is None


@pytest.mark.parametrize("text", ["16..1e2", "16..1e2 log", "1.0..3"])
def test_a_continuous_range_is_no_range_of_whole_numbers(text):
    with pytest.raises(SpecError, match=r"must be a whole number, not 1\d*\.5\nhint: whole numbers: 1\d*\.\.\d+"):
        check(read_slot(document.from_plain(text, path="p"), "p", {}), Parameter("p", int).coerce)
    check(read_slot(document.from_plain(text, path="p"), "p", {}), Parameter("p", float).coerce)


def test_every_option_in_a_list_is_looked_at():
    place = document.from_plain(["1|2|3", ["4|5", 6], "7|8"])
    slot = read_argument(place, "p", {})
    assert list(slot.candidates()) == [(1, (4, 6), 7), (2, (5, 6), 8), (3, (4, 6), 7)]
    assert list(read_argument(document.from_plain([]), "p", {}).candidates()) == [()]


def test_a_long_list_of_long_choices_is_refused_before_it_is_spread_out():
    text = "|".join(map(str, range(1000)))
    tracemalloc.start()
    with pytest.raises(SpecError, match="a list of 2,000 values; at most 64 are read"):
        read_argument(document.from_plain([text] * 2000), "p", {})
    slot = read_argument(document.from_plain([["$k"] * 64] * 64), "p", {"k": choice(text)})
    assert sum(1 for _ in slot.candidates()) == 1000
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_shared_choices_are_named_once():
    shared = {"k": choice("3|5")}
    assert read_slot(document.from_plain("$k"), "x", shared).choice is shared["k"]
    with pytest.raises(SpecError, match=r"no shared choice is named 'kk'\nhint: did you mean 'k'\?|known: k"):
        read_slot(document.from_plain("$kk"), "x", shared)


# --- what is remembered of answers -------------------------------------------------------------------


def choice_of(name, options):
    return Choice(name, "categorical", options)


def test_a_function_of_answers_is_called_once_for_the_same_answers_and_asks_only_what_counts():
    gate, width = choice_of("gate", (True, False)), choice_of("width", (1, 2))
    called = []

    def function(pick):
        called.append("x")
        return f"wide {pick(width)} {pick(width)}" if pick(gate) else "none"

    def ask(given, **answers):
        asked = []

        def pick(choice):
            asked.append(choice.name)
            return answers[choice.name]

        return known.get(given, pick, function), list(dict.fromkeys(asked))

    known = Answered()
    assert ask(0, gate=True, width=1)[0] == "wide 1 1"
    assert ask(0, gate=False) == ("none", ["gate"])
    assert ask(0, gate=True, width=2)[0] == "wide 2 2"
    assert len(called) == 3
    assert ask(0, gate=True, width=1) == ("wide 1 1", ["gate", "width"])
    assert ask(0, gate=False) == ("none", ["gate"])
    assert len(called) == 3
    assert ask("other", gate=True, width=1)[0] == "wide 1 1"
    assert len(called) == 4


def test_one_and_true_are_two_answers_and_a_failure_is_not_remembered():
    known = Answered()
    option = choice_of("option", (1, True))

    def function(pick):
        answer = pick(option)
        if isinstance(answer, float):
            raise ValueError("no")
        return repr(answer)

    one, true = (known.get(None, lambda _, answer=answer: answer, function) for answer in (1, True))
    assert (one, true) == ("1", "True")
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            known.get(None, lambda _: 1.0, function)


def test_what_is_remembered_is_bounded():
    known = Answered()
    number = choice_of("number", (0, 1))
    for i in range(3 * REMEMBERED):
        assert known.get(None, lambda _, i=i: i, lambda pick: pick(number)) == i
        assert known._size <= REMEMBERED
