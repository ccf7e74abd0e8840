import json
import pickle
import subprocess
import sys

import pytest

from archtuna.architecture import Architecture, Row
from archtuna.errors import CheckpointError

CONV = {"channels": 8, "kernel": 3, "stride": 1, "padding": 1, "groups": 1, "activation": "ReLU"}


def chain(*rows, size=(8, 8)):
    return Architecture(tuple(rows), 3, size)


def test_how_copies_are_grouped_does_not_change_the_key():
    grouped, single = chain(Row("Conv", CONV, 2)), chain(Row("Conv", CONV), Row("Conv", CONV))
    assert grouped.key == single.key
    assert grouped == single
    assert hash(grouped) == hash(single)
    assert grouped.differences(single) == []


def test_every_other_difference_does():
    base = chain(Row("Conv", CONV))
    others = [
        chain(Row("Conv", {**CONV, "kernel": 5})), chain(Row("FixedConv", CONV)), chain(Row("Conv", CONV), size=(8, 9)),
        chain(Row("Conv", CONV, 2)), Architecture(base.rows, 1, base.input_size),
    ]  # fmt: skip
    assert len({base.key, *(other.key for other in others)}) == 6


def test_differences_name_the_rows():
    here, there = chain(Row("Conv", CONV), Row("Flatten")), chain(Row("Conv", {**CONV, "kernel": 5}), size=(9, 9))
    lines = here.differences(there)
    assert lines[0] == "input_size: [8, 8] here, [9, 9] there"
    assert lines[1].startswith("row 0: [1, Conv, {channels: 8, kernel: 3")
    assert lines[2] == "row 1: [1, Flatten, {}] here, no row there"


def test_plain_data_json_yaml_and_pickle_round_trip():
    original = chain(
        Row("Conv", {**CONV, "activation": None}, 3),
        Row("Odd", {"name": "no", "text": "a: b # c", "x": 1e-7}),
        size=(8, 6),
    )
    assert Architecture.from_dict(json.loads(json.dumps(original.to_dict()))) == original
    assert Architecture.from_yaml(original.to_yaml()).to_dict() == original.to_dict()
    assert pickle.loads(pickle.dumps(original)) == original


def test_rows_cannot_be_changed():
    row = Row("Conv", CONV)
    with pytest.raises(TypeError, match="does not support item assignment"):
        row.arguments["kernel"] = 5


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({}, "this is not an architecture .KeyError: 'format'"),
        ({"format": 99, "backbone": []}, "format 99, this archtuna reads up to 2\nhint: pip install --upgrade"),
        ({"format": 1, "input_channel": 3, "input_size": [8], "backbone": []}, "not an architecture .ValueError"),
        ({"format": 1, "input_channel": 3, "input_size": [8, 8], "backbone": [[1, 2]]}, "not an architecture"),
    ],
)
def test_other_data_is_refused(plain, message):
    with pytest.raises(CheckpointError, match=message):
        Architecture.from_dict(plain)
    with pytest.raises(CheckpointError, match="not a resolved architecture"):
        Architecture.from_yaml("backbone: []")


def test_reading_one_needs_no_torch():
    code = (
        "import sys; from archtuna.architecture import Architecture as A;"
        f"a = A.from_yaml({chain(Row('Conv', CONV)).to_yaml()!r}); print(a.key); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == chain(Row("Conv", CONV)).key


def test_the_key_of_a_known_network_never_changes():
    # Studies and checkpoints in the world carry keys: a change here orphans them all.
    assert chain(Row("Conv", CONV, 2), Row("Flatten")).key == "7ed64740eb78388d"


def test_the_order_of_arguments_is_no_difference():
    shuffled = dict(reversed(CONV.items()))
    assert Row("Conv", CONV) == Row("Conv", shuffled)
    assert hash(Row("Conv", CONV)) == hash(Row("Conv", shuffled))
    here, there = chain(Row("Conv", CONV), Row("Flatten")), chain(Row("Conv", shuffled))
    assert here.differences(there) == ["row 1: [1, Flatten, {}] here, no row there"]
