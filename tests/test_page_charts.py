"""Every chart of a report compiles, whatever a run came to."""

from __future__ import annotations

from typing import Any

import pytest

from archtuna.page.bundle import VEGA_LITE
from archtuna.page.charts import charts
from archtuna.page.drawing import axes_of
from reports import many

vl_convert = pytest.importorskip("vl_convert")


@pytest.mark.parametrize(("trials", "objectives"), [(0, 2), (1, 1), (3, 5), (40, 2), (40, 5)])
def test_every_chart_is_one_that_vega_lite_takes(trials: int, objectives: int) -> None:
    made = charts(many(trials, objectives))
    assert ("front" in made) == (trials > 0)
    assert {"hypervolume", "hypervolume-time", "curves", "parallel"} <= set(made) or trials < 2
    for name, spec in made.items():
        assert vl_convert.vegalite_to_vega(spec, vl_version=VEGA_LITE)["marks"], name


def test_a_front_has_those_that_stand_on_it_and_the_spread_of_repeated_ones() -> None:
    facts = many(30)
    facts["trials"][facts["front"][0]]["spread"] = {"f1": 0.01}
    spec = charts(facts)["front"]
    rows = {row["number"]: row for row in spec["data"]["values"]}
    assert {n for n, row in rows.items() if row["state"] == "front"} == set(facts["front"])
    field = next(axis["field"] for axis in axes_of(facts) if axis["name"] == "f1")
    repeated = rows[facts["front"][0]]
    assert repeated[f"{field}high"] - repeated[f"{field}low"] == pytest.approx(0.02)
    assert [layer["name"] for layer in spec["layer"]] == ["refused", "spread", "trials", "chosen-point", "chosen-name"]
    names = [layer["name"] for layer in charts(many(5))["front"]["layer"]]
    assert names == ["trials", "chosen-point", "chosen-name"]


def test_costs_over_orders_of_magnitude_have_a_logarithmic_axis_and_qualities_never() -> None:
    axes: dict[str, dict[str, Any]] = {axis["name"]: axis for axis in axes_of(many(60, 5))}
    assert axes["params"]["scale"] == "log"
    assert axes["f1"]["scale"] == "linear"
    assert axes["f1"]["title"] == "f1 (more is better)"
    assert axes["params"]["title"] == "params (less is better)"


def test_lines_and_curves_are_bounded() -> None:
    made = charts(many(900))
    assert len({row["number"] for row in made["curves"]["data"]["values"]}) == 300
    assert len(made["parallel"]["data"]["values"]) == 400
