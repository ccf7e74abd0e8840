"""The chart of a front, over any two of what is known of its networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from archtuna.page.drawing import (
    CHOSEN,
    COLOURS,
    IS_CHOSEN,
    OPACITIES,
    POINTS,
    SHAPES,
    SIZES,
    STATES,
    Facts,
    Spec,
    chosen_in,
    layered,
    value_of,
)


def front(facts: Facts, axes: Sequence[Mapping[str, Any]]) -> Spec | None:
    """Return the front over the last cost and the first quality; the fields of another pair may take their places."""
    if not facts["trials"]:
        return None
    x, y = _pair(facts, axes)
    rows = [_row(trial, axes) for trial in facts["trials"] if trial["state"] in STATES]
    state = {"field": "state", "type": "nominal", "sort": list(POINTS)}
    drawn = {"scale": {"domain": list(POINTS), "range": list(COLOURS[:3])}, "legend": {"title": None, "orient": "top"}}
    shaped = {"scale": {"domain": list(POINTS), "range": list(SHAPES)}, "legend": {"title": None, "orient": "top"}}
    marks = {name: {"field": name, "type": "quantitative", "scale": None} for name in ("opacity", "size")}
    tooltip = [{"field": "number", "title": "trial"}, {"field": "state"}]
    tooltip += [{"field": a["field"], "title": a["name"], "format": ".4~g"} for a in axes]
    both = [{"filter": f"isValid(datum.{x['field']}) && isValid(datum.{y['field']})"}]
    refused = [
        {
            "name": "refused",
            "transform": [{"filter": "datum.state == 'refused'"}, {"filter": f"isValid(datum.{x['field']})"}],
            "mark": {"type": "tick", "orient": "vertical", "height": 14, "yOffset": -7, "color": COLOURS[3]},
            "encoding": {"x": encoded(x), "y": {"value": "height"}, "opacity": {"value": 0.35}, "tooltip": tooltip},
        }
    ]
    spread = [
        {
            "name": "spread",
            "transform": [*both, {"filter": "datum.state == 'front'"}],
            "mark": {"type": "rule", "color": COLOURS[0], "opacity": 0.6},
            "encoding": {
                "x": encoded(x),
                "y": {**encoded(y), "field": f"{y['field']}low"},
                "y2": {"field": f"{y['field']}high"},
            },
        }
    ]
    return layered(
        *(refused if any(row["state"] == "refused" for row in rows) else ()),
        *(spread if any(f"{y['field']}low" in row for row in rows) else ()),
        {
            "name": "trials",
            "transform": [*both, {"filter": "datum.state != 'refused'"}],
            "mark": {"type": "point", "filled": True, "cursor": "pointer"},
            "encoding": {
                "x": encoded(x),
                "y": encoded(y),
                "color": {**state, **drawn},
                "shape": {**state, **shaped},
                **marks,
                "tooltip": tooltip,
            },
        },
        {
            "name": "chosen-point",
            "transform": [*both, IS_CHOSEN],
            "mark": {"type": "point", "size": 320, "strokeWidth": 3, "color": CHOSEN, "filled": False},
            "encoding": {"x": encoded(x), "y": encoded(y)},
        },
        {
            "name": "chosen-name",
            "transform": [*both, IS_CHOSEN, {"calculate": "'trial ' + datum.number", "as": "label"}],
            "mark": {"type": "text", "dy": -18, "fontWeight": "bold", "color": CHOSEN},
            "encoding": {"x": encoded(x), "y": encoded(y), "text": {"field": "label"}},
        },
        params=chosen_in(facts),
        data={"name": "trials", "values": rows},
        description=f"Trials of the search, {y['name']} over {x['name']}; those on the front are highlighted.",
    )


def _pair(facts: Facts, axes: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return what stands on the horizontal and on the vertical axis at first: a cost, and the first quality."""
    kinds = [o["kind"] for o in facts["objectives"]]
    y = axes[kinds.index("quality")]
    others = [axis for axis in axes if axis is not y]
    costs = [axes[i] for i, kind in enumerate(kinds) if kind == "cost"]
    return (costs or others or [y])[0], y


LABELS = "abs(datum.value) < 1000 ? format(datum.value, '~g') : format(datum.value, '~s')"
"""How the numbers of an axis are written: 0.35, 12, 300k; an SI prefix alone would make 350m of the first."""


def encoded(axis: Mapping[str, Any]) -> Spec:
    """Return the encoding of an axis; the page makes the same of another one."""
    return {
        "field": axis["field"],
        "type": "quantitative",
        "title": axis["title"],
        "scale": {"type": "log", "nice": True} if axis["scale"] == "log" else {"zero": False, "nice": True},
        "axis": {"labelExpr": LABELS, "tickCount": 6},
    }


def _row(trial: Mapping[str, Any], axes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a trial as charts take it; a quality of several runs has the ends of one standard deviation."""
    known = STATES.index("front" if trial.get("front") else trial["state"])
    row = {"number": trial["number"], "state": STATES[known], "opacity": OPACITIES[known], "size": SIZES[known]}
    for axis in axes:
        value = value_of(trial, axis["name"])
        row[axis["field"]] = value
        spread = (trial.get("spread") or {}).get(axis["name"])
        if spread is not None and value is not None:
            row |= {f"{axis['field']}low": value - spread, f"{axis['field']}high": value + spread}
    return row
