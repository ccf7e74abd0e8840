"""Charts of how a search went: hypervolume, learning curves, and where the time went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from archtuna.page.drawing import CHOSEN, COLOURS, IS_CHOSEN, WIDTH, Facts, Spec, chosen_in, layered

MOST = 300
"""Learning curves that are drawn, those of the front first."""


def hypervolume(facts: Facts, over: str) -> Spec | None:
    """Return the hypervolume over trials or over time, and that of the same trials in random orders."""
    found = facts["progress"]
    if len(found["trials"]) < 2:
        return None
    places = found[over] if over == "trials" else [value / 60 for value in found[over]]
    title = "trials that ended" if over == "trials" else "minutes since the search began"
    names = ("this search", f"its trials in random order (mean of {found['orders']})")
    x = {"field": "x", "type": "quantitative", "title": title}
    actual = [{"x": x, "y": y, "which": names[0]} for x, y in zip(places, found["hypervolume"], strict=True)]
    by_chance = [
        {"x": x, "y": y, "low": low, "high": high, "which": names[1]}
        for x, y, low, high in zip(places, found["mean"], found["low"], found["high"], strict=True)
    ]
    scale = {"domain": list(names), "range": [COLOURS[0], "#777777"]}
    which = {"field": "which", "type": "nominal"}
    legend = {"title": None, "orient": "top", "labelLimit": 400}
    return layered(
        {
            "mark": {"type": "area", "opacity": 0.18, "color": "#777777", "interpolate": "monotone"},
            "encoding": {"x": x, "y": {"field": "low", "type": "quantitative"}, "y2": {"field": "high"}},
            "transform": [{"filter": "isValid(datum.low)"}],
        },
        {
            "mark": {"type": "line", "strokeWidth": 2.5, "interpolate": "step-after"},
            "encoding": {
                "x": x,
                "y": {
                    "field": "y",
                    "type": "quantitative",
                    "title": "hypervolume, share of the box",
                    "scale": {"zero": False},
                },
                "color": {**which, "scale": scale, "legend": legend},
                "strokeDash": {**which, "scale": {"domain": list(names), "range": [[1, 0], [5, 4]]}, "legend": legend},
            },
        },
        data={"values": actual + by_chance},
        description=f"Hypervolume over {over}, from {actual[0]['y']:.3f} to {actual[-1]['y']:.3f}.",
    )


def curves(facts: Facts) -> Spec | None:
    """Return the learning curves by the first quality, with the epochs at which trials were looked at."""
    name = next(o["name"] for o in facts["objectives"] if o["kind"] == "quality")
    with_curve = [t for t in facts["trials"] if sum(name in at for at in t.get("curve", {}).values()) > 1]
    with_curve = sorted(with_curve, key=lambda t: not t.get("front"))[:MOST]
    if not with_curve:
        return None
    rows = [_curve(trial, name) for trial in with_curve]
    known = ("front", "complete", "stopped")
    state = {"field": "state", "type": "nominal", "sort": list(known)}
    encoding = {
        "x": {"field": "epoch", "type": "quantitative", "title": "epoch", "axis": {"tickMinStep": 1}},
        "y": {
            "field": "y",
            "type": "quantitative",
            "title": f"{name} on the validation pictures",
            "scale": {"zero": False},
        },
    }
    drawn = {
        **encoding,
        "detail": {"field": "number"},
        "tooltip": [{"field": n} for n in ("number", "state", "epoch", "y")],
    }
    legend = {"title": None, "orient": "top"}
    return layered(
        {
            "data": {"values": [{"rung": rung} for rung in facts["rungs"]]},
            "mark": {"type": "rule", "strokeDash": [2, 4], "color": "#777777"},
            "encoding": {"x": {"field": "rung", "type": "quantitative"}},
        },
        {
            "mark": {"type": "line", "interpolate": "linear"},
            "encoding": {
                **drawn,
                "color": {**state, "scale": {"domain": list(known), "range": list(COLOURS[:3])}, "legend": legend},
                "strokeDash": {
                    **state,
                    "scale": {"domain": list(known), "range": [[1, 0], [1, 0], [4, 3]]},
                    "legend": legend,
                },
                "opacity": {"field": "opacity", "type": "quantitative", "scale": None},
            },
        },
        {
            "transform": [IS_CHOSEN],
            "mark": {"type": "line", "strokeWidth": 4, "color": CHOSEN},
            "encoding": encoding,
        },
        data={"values": rows},
        transform=[{"flatten": ["epoch", "y"]}],
        params=chosen_in(facts),
        description=f"Learning curves of {len(with_curve)} trials; dotted lines are the epochs at which they were compared.",
    )


def _curve(trial: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a trial with its epochs and values as lists, which a chart makes rows of: a page of hundreds stays small."""
    points = {int(epoch): at[name] for epoch, at in trial["curve"].items() if name in at}
    is_front = bool(trial.get("front"))
    return {
        "number": trial["number"],
        "state": "front" if is_front else trial["state"],
        "opacity": 0.95 if is_front else 0.4,
        "epoch": list(points),
        "y": [float(f"{value:.4g}") for value in points.values()],
    }


def seconds(facts: Facts) -> Spec | None:
    """Return where the workers' time went."""
    if not facts["seconds"]:
        return None
    total = sum(facts["seconds"].values())
    rows = [
        {"what": name, "minutes": value / 60, "share": f"{value / total:.0%}"}
        for name, value in facts["seconds"].items()
    ]
    rows.sort(key=lambda row: -row["minutes"])
    y = {"field": "what", "type": "nominal", "title": None, "sort": None, "axis": {"labelLimit": 220}}
    x = {"field": "minutes", "type": "quantitative", "title": "minutes of workers"}
    return {
        "width": WIDTH,
        "height": {"step": 24},
        "data": {"values": rows},
        "encoding": {"x": x, "y": y},
        "layer": [
            {"mark": {"type": "bar", "color": COLOURS[0]}},
            {"mark": {"type": "text", "align": "left", "dx": 4}, "encoding": {"text": {"field": "share"}}},
        ],
        "description": "Where the time of the workers went, in minutes.",
    }
