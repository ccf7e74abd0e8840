"""What the charts of a report have in common.

Colours are those of Okabe & Ito (2008), which colour-blind people tell apart; whatever a colour says, a shape, a dash or a
place says, too. The parameter ``chosen`` of a chart is the number of the trial that is highlighted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Facts = Mapping[str, Any]
Spec = dict[str, Any]

STATES = ("front", "complete", "stopped", "refused")
POINTS = STATES[:3]
"""Those that have a place in a chart; refused ones have costs only."""

COLOURS = ("#0072B2", "#56B4E9", "#CC79A7", "#999999")
CHOSEN = "#D55E00"
SHAPES = ("circle", "square", "cross")
OPACITIES = (0.95, 0.55, 0.3, 0.35)
SIZES = (90, 35, 30, 60)
WIDTH, HEIGHT = 560, 340

LOGARITHMIC = 30.0
"""A cost whose largest value is more than so many times its smallest has a logarithmic axis."""


def axes_of(facts: Facts) -> list[dict[str, Any]]:
    """Return what a front can be drawn over: the objectives, then the other costs; each with its ``field`` in the data."""
    known = {o["name"]: o for o in facts["objectives"]}
    found = []
    for i, name in enumerate([*known, *facts["costs"]]):
        values = [v for t in facts["trials"] for v in [value_of(t, name)] if v is not None]
        is_log = known.get(name, {}).get("kind") != "quality" and is_wide(values)
        more = known.get(name, {}).get("direction") == "maximize"
        title = f"{name} ({'more' if more else 'less'} is better)"
        found.append(
            {"name": name, "field": f"v{i}", "title": title, "scale": "log" if is_log else "linear", "maximize": more}
        )
    return found


def is_wide(values: Sequence[float]) -> bool:
    """Return whether a cost's values are orders of magnitude apart."""
    return bool(len(values)) and 0 < LOGARITHMIC * min(values) < max(values)


def value_of(trial: Mapping[str, Any], name: str) -> float | None:
    """Return what is known of a trial by a name, from whatever it came to."""
    for place in ("values", "metrics", "costs"):
        if name in trial.get(place, {}):
            return float(trial[place][name])
    return None


def layered(*layers: Spec, **rest: Any) -> Spec:
    return {"width": WIDTH, "height": HEIGHT, **rest, "layer": list(layers)}


def chosen_in(facts: Facts) -> list[Spec]:
    return [{"name": "chosen", "value": -1 if facts["knee"] is None else facts["knee"]}]


IS_CHOSEN = {"filter": "datum.number == chosen"}
