"""The command that writes the report of a run."""

from __future__ import annotations

import argparse
from typing import Any

from archtuna.cli.arguments import flag, print_json, verb


def report(verbs: Any) -> None:
    parser = verb(
        verbs, "report", _run_report, "write a page that helps to choose from the front, and shows all of a run",
        examples=("archtuna report runs/photos", "archtuna report runs/photos --figures figures"),
        docs="docs/report.md",
    )  # fmt: skip
    parser.add_argument("--out", metavar="FILE", help="the page (RUN/report.html); its facts go beside it as JSON")
    parser.add_argument("--figures", metavar="DIR", help="write the charts as PNG and SVG, too")
    parser.add_argument(
        "--no-pictures", action="store_true", help="do not run the front on the validation pictures, nor show mistakes"
    )
    flag(parser, "run", "data", "device", "storage", "json")


def _run_report(arguments: argparse.Namespace) -> None:
    from archtuna.page import write_report
    from archtuna.study import Study

    with Study.open(arguments.folder, storage=arguments.storage) as study:
        written = write_report(
            study, arguments.out, data=arguments.data, device=arguments.device, pictures=not arguments.no_pictures,
            figures=arguments.figures,
        )  # fmt: skip
    size = written.html.stat().st_size
    if arguments.json:
        figures = [str(path) for path in written.figures]
        print_json({"html": str(written.html), "json": str(written.json), "bytes": size, "figures": figures})
        return
    for note in written.facts["notes"]:
        print(f"note: {note}")
    print(f"{written.html} ({size / 1e6:.1f} MB), {written.json}")
    if written.figures:
        print(f"{len(written.figures)} figures in {arguments.figures}")
