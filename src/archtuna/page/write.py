"""Writing a report: one HTML file, its facts as JSON, and its charts as pictures."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archtuna.errors import ArchtunaError
from archtuna.files import write_whole
from archtuna.page.bundle import VEGA_LITE, bundle
from archtuna.page.charts import charts
from archtuna.page.drawing import axes_of
from archtuna.page.facts import facts_of
from archtuna.page.finite import finite
from archtuna.page.fronts import LABELS
from archtuna.storage import DATABASE

if TYPE_CHECKING:
    from archtuna.study import Study

SCALE = 2.0
"""Pixels of a PNG for each of the chart's."""

LIGHT = {
    "background": "#ffffff",
    "font": "sans-serif",
    "view": {"stroke": None},
    "axis": {"gridColor": "#dddddd", "labelFontSize": 11, "titleFontSize": 12},
}
"""How pictures look."""


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        html: the report.
        json: its facts.
        figures: charts as pictures.
        facts: what the report says.
    """

    html: Path
    json: Path
    figures: tuple[Path, ...]
    facts: Mapping[str, Any]


def write_report(
    study: Study,
    out: str | Path | None = None,
    *,
    data: Any = None,
    device: str | None = None,
    pictures: bool = True,
    figures: str | Path | None = None,
) -> Written:
    """Write the report of a run; each file is there as a whole or as it was before.

    Args:
        study: of the run; it may be running, and trials may all have failed.
        out: the HTML file, by default ``report.html`` in the run's folder; ``report.json`` lies beside it under the same name.
        data: where the pictures are, should they have moved.
        device: where networks of the front are run on the validation pictures; None picks one.
        pictures: whether they are run, and their mistakes shown.
        figures: a folder for the charts as PNG and SVG.

    Raises:
        MissingExtraError: what draws is not installed.
        DataError: ``data`` names other pictures than the study's.
        ArchtunaError: a file cannot be written, or is one that a run needs.
    """
    target = Path(out) if out is not None else study.folder / "report.html"
    plain = _beside(target)
    code = bundle()
    # A metric of one's own may be no number in some epoch, which neither JSON nor a chart can hold.
    facts = finite(facts_of(study, data=data, device=device, pictures=pictures))
    drawn = finite(charts(facts))
    _write(target, html(facts, drawn, code).encode())
    _write(plain, (json.dumps(facts, indent=1, allow_nan=False) + "\n").encode())
    made = () if figures is None else _figures(drawn, Path(figures))
    return Written(target, plain, made, facts)


def _beside(page: Path) -> Path:
    """Return where a page's facts go.

    Raises:
        ArchtunaError: they would take the page's place, or one of them that of a file which a run needs.
    """
    hint = "archtuna report RUN --out names the page, such as page.html"
    if not page.name or page.is_dir():
        raise ArchtunaError(f"{page} is a folder, not a file for the page", hint=hint)
    plain = page.with_suffix(".json")
    if plain == page:
        raise ArchtunaError(f"the page cannot be {page}: its facts go there", hint=hint)
    if (page.parent / "search.yaml").exists():
        for path in (page, plain):
            if path.name in _OF_A_RUN:
                raise ArchtunaError(f"{path} is a file that the run needs: the report cannot take its place", hint=hint)
    return plain


_OF_A_RUN = ("study.json", "search.yaml", DATABASE)
"""Files in the folder of a run that nothing may write over."""


def html(facts: Mapping[str, Any], drawn: Mapping[str, Any], code: str) -> str:
    """Return the page: everything that it needs is in it.

    Args:
        facts: as ``facts_of`` returns them.
        drawn: charts by name.
        code: what draws them.
    """
    folder = files("archtuna.page") / "assets"
    parts = {
        "title": _text(f"archtuna: {facts['name']}"),
        "style": (folder / "page.css").read_text(encoding="utf-8"),
        "facts": _embedded(shown(facts)),
        "charts": _embedded(drawn),
        "bundle": code.replace("</script", "<\\/script"),
        "script": (folder / "page.js").read_text(encoding="utf-8"),
    }
    page = (folder / "page.html").read_text(encoding="utf-8")
    # In one pass: what stands in the facts is text, whatever it looks like.
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], page)


def shown(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts without what only charts show, which have it already: there may be thousands of trials."""
    left_out = {"curve", "decisions", "key", "worker", "began", "ended"}
    trials = [
        {name: value for name, value in trial.items() if name not in left_out}
        if trial.get("front")
        else {name: trial[name] for name in ("number", "state", "reason") if name in trial}
        for trial in facts["trials"]
    ]
    return {**facts, "trials": trials, "axes": axes_of(facts), "labels": LABELS}


def _embedded(value: Any) -> str:
    """Return a value as JSON that no text in it can end: a class may be called ``</script>``."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _text(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _figures(drawn: Mapping[str, Any], folder: Path) -> tuple[Path, ...]:
    import vl_convert

    made = []
    for name, spec in drawn.items():
        styled = {**spec, "config": LIGHT}
        _write(folder / f"{name}.svg", vl_convert.vegalite_to_svg(styled, vl_version=VEGA_LITE).encode())
        _write(folder / f"{name}.png", vl_convert.vegalite_to_png(styled, vl_version=VEGA_LITE, scale=SCALE))
        made += [folder / f"{name}.svg", folder / f"{name}.png"]
    return tuple(made)


def _write(path: Path, content: bytes) -> None:
    write_whole(path, content, hint="archtuna report RUN --out names another file")
