import pytest

from archtuna import document
from archtuna.choice import read_choice, read_slot
from archtuna.errors import SpecError


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


def test_shared_choices_are_named_once():
    shared = {"k": choice("3|5")}
    assert read_slot(document.from_plain("$k"), "x", shared).choice is shared["k"]
    with pytest.raises(SpecError, match=r"no shared choice is named 'kk'\nhint: did you mean 'k'\?|known: k"):
        read_slot(document.from_plain("$kk"), "x", shared)
