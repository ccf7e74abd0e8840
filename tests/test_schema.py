"""The schema accepts what the reader accepts, and refuses what it refuses wherever a schema can know it."""

import json
import random
from pathlib import Path

import pytest
from jsonschema import Draft7Validator
from jsonschema.exceptions import best_match

import test_kindle
import test_space
import test_wiring
from archtuna import document
from archtuna.errors import SpecError
from archtuna.schema import schema
from archtuna.space import SearchSpace
from archtuna.starter import spaces, starter
from mutations import MODELS
from spaces import ALL

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def validator():
    return Draft7Validator(schema())


def plain(text):
    return document.parse(text).plain()


FILES = {
    **ALL,
    "starter": starter(classes=5),
    **{f"space {name}": starter(space=name, classes=5) for name in spaces()},
    **{str(path.relative_to(ROOT)): path.read_text() for path in sorted((ROOT / "examples").glob("*.yaml"))},
    **{str(path.relative_to(MODELS)): path.read_text() for path in sorted(MODELS.glob("*/*.yaml"))},
}


def test_it_is_a_schema_of_draft_7_and_no_monster():
    Draft7Validator.check_schema(schema())
    assert json.loads(json.dumps(schema())) == schema()
    assert len(json.dumps(schema())) < 300_000


@pytest.mark.parametrize("name", FILES)
def test_what_the_reader_accepts_is_accepted(validator, name):
    error = best_match(validator.iter_errors(plain(FILES[name])))
    assert error is None, f"{list(error.absolute_path)}: {error.message[:300]}"


def test_resolved_networks_are_accepted(validator):
    for name in ("everything", "graph"):
        space, rng = SearchSpace.read(ALL[name]), random.Random(name)
        for _ in range(40):
            found = plain(space.random(rng).architecture.to_yaml())
            assert best_match(validator.iter_errors(found)) is None


# What a mistake says decides whether a schema can know it: these need another row, another file, or arithmetic.
BEYOND = (
    "no row is named", "stands below this row", "two rows are named", "takes one row, not", "takes two or more rows", "takes 2 rows",
    "stand twice", "stands twice", "has no place in an alternative", "'any' inside 'any'", "no shared choice is named", "no row is meant", "cannot take from row",
    "before it", "no such file", "YamlModule takes one row", "takes at most 1 arguments, not 2", "no 'module'", "names a file first",
    "no block is named 'nn.Conv9d'", "no block is named 'nn.Conv2D'", "nn.Conv2d needs", "no rows are named",
)  # fmt: skip


def is_beyond(place, message):
    """Whether a mistake is beyond a schema; which arguments ``vary`` may name depends on the rows that it means."""
    return place.endswith("vary[0].kernal") or any(words in message for words in BEYOND)


def mistakes():
    """Every file with a mistake that another test has, with what the reader says of it."""
    for test, make in (
        (test_space.test_every_mistake_is_one_error_with_its_place, lambda text: text),
        (
            test_wiring.test_a_mistake_in_a_connection_is_one_error_with_its_place,
            lambda row: f"backbone:\n  - [1, Conv, [8, 3], {{name: stem}}]\n  - {row}\n  - [1, Flatten, []]\n",
        ),
        (
            test_kindle.test_a_mistake_in_a_row_is_one_error_with_its_place,
            lambda row: f"backbone: [[-1, 1, Conv, [8, 3]], {row}, {test_kindle.HEAD}]\n",
        ),
    ):
        (mark,) = (mark for mark in test.pytestmark if mark.name == "parametrize")
        for text, place, message in mark.args[1]:
            yield pytest.param(make(text), place, message, id=f"{test.__module__}: {text[:60]}")


@pytest.mark.parametrize(("text", "place", "message"), list(mistakes()))
def test_what_the_reader_refuses_is_refused_where_a_schema_can_know_it(validator, text, place, message):
    if not is_beyond(place, message):
        assert not validator.is_valid(plain(text)), message


def test_few_mistakes_are_beyond_a_schema():
    cases = list(mistakes())
    beyond = [case for case in cases if is_beyond(*case.values[1:])]
    assert len(cases) > 70
    assert len(beyond) < 0.4 * len(cases)


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ("backbone: [[1, Conv, {channels: 8, kernal: 3}]]", ["backbone", 0, 2], "'kernal' was unexpected"),
        ("backbone: [[1, Conv, [8, 3, 1, null, 1, Rleu]]]", ["backbone", 0, 2, 5], "Rleu"),
        ("backbone: [[1, Cnov, [8, 3]]]", ["backbone", 0, 1], "Cnov"),
        ("backbone: [[-1, 1, C3, [8], {shortcat: false}]]", ["backbone", 0, 4], "shortcat"),
        ("backbone: [[1, Flatten, []]]\ntraining: {lr: fast}", ["training", "lr"], "fast"),
        ("backbone: [[1, Flatten, []]]\nlimits: [params >= 3]", ["limits", 0], "params >= 3"),
    ],
)
def test_an_error_points_to_the_mistake(validator, text, path, words):
    errors = list(validator.iter_errors(plain(text)))
    places = {tuple(error.absolute_path)[: len(path)] for error in errors for error in (error, best_match([error]))}
    assert tuple(path) in places, places
    assert words in " ".join(f"{best_match([error]).message} {error.message}" for error in errors)


@pytest.mark.parametrize(
    "text",
    [
        "width_multiple: .25|.5", "width_multiple: 1.|0.5", "input_size: 16|32.0", "input_size: 1e1|16", "input_size: 16..64/8.0",
        "training: {channels_last: true}", "training: {channels_last: false}", "training: {channels_last: auto|true}",
        "training: {label_smoothing: .1|.2}", "training: {lr: NULL|.1}",
    ],
)  # fmt: skip
def test_numbers_and_words_may_be_spelt_as_the_reader_reads_them(validator, text):
    for row in ("[1, Conv, [16, 3]]", "[1, Conv, [16|32.0, 1e1|3]]", "[1, Dropout, [.1|.2]]"):
        file = f"backbone: [{row}, [1, GlobalAvgPool, []], [1, Flatten, []], [1, Linear, [4]]]\n{text}\n"
        assert SearchSpace.read(file).section
        assert best_match(validator.iter_errors(plain(file))) is None


@pytest.mark.parametrize(
    "text", ["input_size: 0|16", "input_size: 1...5", "input_size: -1|3", "width_multiple: .2...5"]
)
def test_no_other_spellings_are_let_through(validator, text):
    file = f"backbone: [[1, Flatten, []]]\n{text}\n"
    with pytest.raises(SpecError):
        SearchSpace.read(file)
    assert not validator.is_valid(plain(file))


def test_blocks_of_ones_own_are_in_it():
    from torch import nn

    import archtuna
    from archtuna.registry import BLOCKS

    try:

        @archtuna.block
        class Mine(nn.Module):
            """Does something of mine."""

            def __init__(self, in_channels: int, channels: int, depth: int = 1) -> None:
                super().__init__()

        found = Draft7Validator(schema())
        assert found.is_valid(plain("backbone: [[1, Mine, {channels: 8, depth: 1..3}]]"))
        assert not found.is_valid(plain("backbone: [[1, Mine, {channels: 8, width: 3}]]"))
        assert schema()["definitions"]["Mine"]["description"] == "Does something of mine."
    finally:
        BLOCKS._entries.pop("Mine", None)


def test_what_is_described_and_left_out_has_its_default():
    properties = schema()["properties"]["training"]["properties"]
    assert properties["epochs"]["default"] == 20
    conv = schema()["definitions"]["Conv"]["else"]["properties"]
    assert conv["groups"]["default"] == 1
    assert conv["channels"]["description"] == "of the output"


def test_a_wrong_file_is_a_mistake_for_both():
    with pytest.raises(SpecError):
        SearchSpace.read("backbone: 3\n")
    assert not Draft7Validator(schema()).is_valid({"backbone": 3})
