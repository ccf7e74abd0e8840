from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

import pytest

from archtuna.errors import SpecError, StudyError
from archtuna.objective import limit_of, objectives_of
from archtuna.schedule import Schedule
from archtuna.space import SearchSpace
from archtuna.spec import Spec, check_versions, reference_of, versions
from searches import SPACE
from studies import make_spec


def test_a_spec_survives_its_record() -> None:
    spec = make_spec(input_size=(32, 64))
    assert Spec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    assert spec.differences(spec) == []


def test_records_that_cannot_be_read() -> None:
    plain = make_spec().to_dict()
    with pytest.raises(StudyError, match="newer archtuna"):
        Spec.from_dict({**plain, "format": 99})
    del plain["limits"]
    with pytest.raises(StudyError, match="lacks 'limits'"):
        Spec.from_dict(plain)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"objectives": ("loss", "params")}, "objectives: here f1,params, there loss,params"),
        ({"limits": ()}, "limits: here params <= 5000, there none"),
        ({"fraction": 0.3}, "fraction: here 1.0, there 0.3"),
        ({"seed": 7}, "seed: here 0, there 7"),
        ({"input_size": (32, 32)}, "input_size: here None, there 32,32"),
        ({"training": {"epochs": 9}}, "training.epochs: here 2, there 9"),
        ({"training": {}}, "training.epochs: here 2, there 3"),
        (
            {"data": {**make_spec().data, "fingerprint": "e" * 16}},
            f"data.fingerprint: here {'f' * 16}, there {'e' * 16}",
        ),
        ({"data": {**make_spec().data, "split": {"seed": 1}}}, 'data.split: here {"seed": 0}, there {"seed": 1}'),
    ],
)
def test_what_differs_is_named(change: dict[str, Any], line: str) -> None:
    assert make_spec().differences(make_spec(**change)) == [line]


def test_what_was_given_beside_the_file_and_is_the_files_is_no_difference() -> None:
    assert make_spec(training={"epochs": 3}).differences(make_spec(training={})) == []
    chosen = make_spec().space["text"].replace("epochs: 3", "epochs: 3|5")
    of_choice = {"text": chosen, "key": "k"}
    lines = make_spec(training={}, space=of_choice).differences(make_spec(training={"epochs": 3}, space=of_choice))
    assert lines == ["training.epochs: here the file's, there 3"]


def test_schedules_differ_where_both_studies_have_one() -> None:
    on, off, before = (make_spec(stopping=s) for s in (asdict(Schedule(first=2)), asdict(Schedule(off=True)), None))
    assert on.differences(off) == ["stopping: here first at epoch 2, then at 2 times as many, there off"]
    assert on.differences(before) == before.differences(on) == []
    assert (on.schedule.first, off.schedule.off, before.schedule.off) == (2, True, True)
    plain = before.to_dict()
    del plain["stopping"]
    assert Spec.from_dict(plain) == before


def test_a_search_file_differs_by_its_lines() -> None:
    text = SPACE.replace("8|16|24", "8|16|32")
    other = make_spec(space={"text": text, "key": "0"})
    (line,) = make_spec().differences(other)
    assert (
        line
        == "search file: here - [1, Conv, [8|16|24, 1|3|5, 2, null, 1, ReLU]], there - [1, Conv, [8|16|32, 1|3|5, 2, null, 1, ReLU]]"
    )
    longer = make_spec(space={"text": "\n".join(str(i) for i in range(40)), "key": "0"})
    assert make_spec().differences(longer)[-1].endswith("more lines")


def test_where_data_lies_and_the_reference_do_not_count() -> None:
    moved = make_spec(data={**make_spec().data, "source": "/elsewhere"}, reference={"f1": (1.0, 0.1), "params": (0, 9)})
    assert make_spec().differences(moved) == []


def test_versions_warn_or_refuse() -> None:
    assert check_versions(versions(), versions()) == []
    assert check_versions({"optuna": "5.0.0"}, {"optuna": "5.0.3"}) == []
    assert check_versions({"optuna": "5.0.0"}, {"optuna": "5.1.0"}) == [
        "the study was made with optuna 5.0.0, here is 5.1.0"
    ]
    with pytest.raises(
        StudyError, match=r"made with optuna 4.9.0, here is optuna 5.0.0.*\nhint: pip install 'optuna==4.9.0'"
    ):
        check_versions({"optuna": "4.9.0"}, {"optuna": "5.0.0"})


def test_the_reference_of_the_hypervolume() -> None:
    objectives = objectives_of(("loss", "f1", "accuracy", "params", "macs"))
    found = reference_of(objectives, 6, [limit_of("params <= 500k")], {"params": 1e6, "macs": 2e6, "size_mb": 4.0})
    assert found == {
        "loss": (0.0, math.log(6)), "f1": (1.0, 0.0), "accuracy": (1.0, 0.0), "params": (0.0, 5e5),
        "macs": (0.0, pytest.approx(2.2e6)),
    }  # fmt: skip


def test_training_values_beside_the_file() -> None:
    space = SearchSpace.read(SPACE.replace("epochs: 3", "epochs: 1|3")).with_training({"epochs": 7, "lr": 0.5})
    assert (space.default().recipe.epochs, space.default().recipe.lr) == (7, 0.5)
    assert "training.epochs" not in {choice.name for choice in space.choices}
    with pytest.raises(SpecError, match=r"training.epoch: unknown training value\nhint: did you mean 'epochs'"):
        space.with_training({"epoch": 1})
    with pytest.raises(SpecError, match=r"training.epochs: must be a whole number"):
        space.with_training({"epochs": 1.5})
