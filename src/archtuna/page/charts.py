"""The charts of a report as Vega-Lite, with their data: a browser draws them, and so does what writes them as pictures."""

from __future__ import annotations

from archtuna.page.course import curves, hypervolume, seconds
from archtuna.page.decisions import importance, parallel
from archtuna.page.drawing import Facts, Spec, axes_of
from archtuna.page.fronts import front

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"


def charts(facts: Facts) -> dict[str, Spec]:
    """Return every chart that a run has something for, by name."""
    axes = axes_of(facts)
    made = {
        "front": front(facts, axes),
        "hypervolume": hypervolume(facts, "trials"),
        "hypervolume-time": hypervolume(facts, "seconds"),
        "parallel": parallel(facts, axes),
        "importance": importance(facts),
        "curves": curves(facts),
        "time": seconds(facts),
    }
    return {name: {"$schema": SCHEMA, **spec} for name, spec in made.items() if spec is not None}
