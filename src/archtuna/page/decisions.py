"""Charts of what decisions led to: their importance, and parallel coordinates."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from archtuna.page.drawing import CHOSEN, COLOURS, HEIGHT, IS_CHOSEN, WIDTH, Facts, Spec, chosen_in, value_of

BARS = 12
"""Decisions of an objective whose importance is drawn."""

AXES, LINES = 14, 400
"""Of parallel coordinates: decisions, those first that matter, and trials, those of the front first."""


def importance(facts: Facts) -> Spec | None:
    """Return which decisions made a difference, a panel for each objective."""
    panels = [_panel(one) for one in facts["importance"]]
    if not panels:
        return None
    what = "Importance of the decisions for each objective, with one standard deviation over folds."
    return {"vconcat": panels, "description": what}


def _panel(one: Mapping[str, Any]) -> Spec:
    rows = [
        {
            "name": told["name"],
            "importance": told["importance"],
            "low": told["importance"] - told["deviation"],
            "high": told["importance"] + told["deviation"],
        }
        for told in one["decisions"][:BARS]
    ]
    y = {"field": "name", "type": "nominal", "title": None, "sort": None, "axis": {"labelLimit": 230, "minExtent": 230}}
    x = {"field": "importance", "type": "quantitative", "title": "share of the variance lost without it"}
    title = {
        "text": f"{one['objective']}: {max(0.0, one['explained']):.0%} of the variance explained",
        "anchor": "start",
    }
    return {
        "title": title,
        "width": WIDTH - 120,
        "height": {"step": 17},
        "data": {"values": rows},
        "layer": [
            {"mark": {"type": "bar", "color": COLOURS[0], "opacity": 0.8}, "encoding": {"x": x, "y": y}},
            {
                "mark": {"type": "rule", "strokeWidth": 2, "color": "#777777"},
                "encoding": {"x": {"field": "low", "type": "quantitative"}, "x2": {"field": "high"}, "y": y},
            },
        ],
    }


def parallel(facts: Facts, axes: Sequence[Mapping[str, Any]]) -> Spec | None:
    """Return the decisions and objectives of complete trials as parallel coordinates, each scaled to its own range."""
    trials = [t for t in facts["trials"] if t["state"] == "complete"]
    trials = sorted(trials, key=lambda t: (not t.get("front"), t["number"]))[:LINES]
    names = _telling(facts, trials)
    if len(trials) < 2 or not names:
        return None
    asked = [axis for axis in axes if axis["name"] in {o["name"] for o in facts["objectives"]}]
    columns = {name: [t.get("decisions", {}).get(name) for t in trials] for name in names}
    columns |= {axis["name"]: [value_of(t, axis["name"]) for t in trials] for axis in asked}
    first = next(o["name"] for o in facts["objectives"] if o["kind"] == "quality")
    scaled = [_scaled(values) for values in columns.values()]
    labels = [
        {"axis": name, "y": y, "label": text}
        for name, (_, ends) in zip(columns, scaled, strict=True)
        for y, text in ends
    ]
    rows = [
        {
            "number": trial["number"],
            "quality": value_of(trial, first),
            "axis": list(range(len(columns))),
            "y": [places[i] for places, _ in scaled],
            "value": ["-" if values[i] is None else values[i] for values in columns.values()],
        }
        for i, trial in enumerate(trials)
    ]
    # A trial is one row with lists in it, which the chart takes apart: a page of hundreds stays small.
    apart = [
        {"flatten": ["axis", "y", "value"]},
        {"calculate": f"{json.dumps(list(columns))}[datum.axis]", "as": "axis"},
    ]
    x = {
        "field": "axis",
        "type": "ordinal",
        "sort": list(columns),
        "title": None,
        "axis": {"labelAngle": -35, "labelLimit": 170, "grid": True, "domain": False, "ticks": False},
    }
    y = {"field": "y", "type": "quantitative", "axis": None, "scale": {"domain": [-0.05, 1.05]}}
    colour = {
        "field": "quality",
        "type": "quantitative",
        "title": first,
        "scale": {"scheme": "viridis"},
        "legend": {"orient": "right"},
    }
    tooltip = [{"field": n} for n in ("number", "axis", "value")]
    return {
        "width": max(WIDTH, 62 * len(columns)),
        "height": HEIGHT,
        "params": chosen_in(facts),
        "data": {"values": rows},
        "layer": [
            {
                "transform": apart,
                "mark": {"type": "line", "opacity": 0.45},
                "encoding": {"x": x, "y": y, "detail": {"field": "number"}, "color": colour, "tooltip": tooltip},
            },
            {
                "transform": [IS_CHOSEN, *apart],
                "mark": {"type": "line", "strokeWidth": 4, "color": CHOSEN},
                "encoding": {"x": x, "y": y, "detail": {"field": "number"}},
            },
            {
                "data": {"values": labels},
                "mark": {"type": "text", "fontSize": 10, "dx": 3, "align": "left"},
                "encoding": {"x": x, "y": y, "text": {"field": "label"}},
            },
        ],
        "description": f"Decisions and objectives of {len(trials)} complete trials as parallel coordinates.",
    }


def _telling(facts: Facts, trials: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the decisions that differ among trials, those first that matter for the first quality."""
    different = {name for t in trials for name in t.get("decisions", {})}
    different = {n for n in different if len({repr(t.get("decisions", {}).get(n)) for t in trials}) > 1}
    ranked = [told["name"] for one in facts["importance"][:1] for told in one["decisions"]]
    ordered = [n for n in ranked if n in different] + sorted(different - set(ranked))
    return ordered[:AXES]


def _scaled(values: Sequence[Any]) -> tuple[list[float | None], list[tuple[float, str]]]:
    """Return values as places from 0 to 1, and what is written at some of these."""
    known = [v for v in values if v is not None]
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in known):
        low, high = min(known), max(known)
        span = (high - low) or 1.0
        ends = [(0.0, f"{low:.4g}"), (1.0, f"{high:.4g}")] if high > low else [(0.5, f"{low:.4g}")]
        return [None if v is None else round((v - low) / span, 4) if high > low else 0.5 for v in values], ends
    words = sorted({str(v) for v in known})
    place = {word: float(p) for word, p in zip(words, np.linspace(0, 1, len(words)), strict=True)}
    if len(words) == 1:
        place = {words[0]: 0.5}
    return [None if v is None else place[str(v)] for v in values], [(p, word) for word, p in place.items()]
