"""The command that shows a study in Optuna's dashboard: dashboard."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from typing import Any

from archtuna.cli.arguments import flag, verb
from archtuna.errors import StudyError


def dashboard(verbs: Any) -> None:
    parser = verb(
        verbs, "dashboard", _run_dashboard, "open Optuna's dashboard on a search, until interrupted",
        examples=("archtuna dashboard runs/photos", "archtuna dashboard --study photos --no-browser --port 8080"),
        docs="docs/logging.md",
    )  # fmt: skip
    parser.add_argument("folder", metavar="RUN", nargs="?", help="folder of a search, or --study and --storage")
    parser.add_argument(
        "--port", type=_port, metavar="N", help="to listen at, on this machine alone (8080, or a free one)"
    )
    parser.add_argument("--no-browser", action="store_true", help="only say where it is")
    flag(parser, "study", "storage")


def _port(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"'{text}' is not a port, 1 to 65535")
    return int(text)


def _run_dashboard(arguments: argparse.Namespace) -> None:
    from archtuna.dashboard import server_of
    from archtuna.study import Study

    if (arguments.folder is None) == (arguments.study is None):
        raise StudyError("name either the folder of a run or its study", hint="archtuna dashboard RUN, or --study NAME")
    if arguments.study is None:
        study = Study.open(arguments.folder, storage=arguments.storage)
    else:
        study = Study.named(arguments.study, storage=arguments.storage)
    with study, server_of(study, arguments.port) as server:
        print(f"{server.url}/studies/{study.optuna._study_id}", flush=True)
        if sys.stderr.isatty():
            print("Ctrl-C ends it", file=sys.stderr)
        if not arguments.no_browser and _has_browser():
            import webbrowser

            webbrowser.open(f"{server.url}/studies/{study.optuna._study_id}")
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


def _has_browser() -> bool:
    """Return whether a browser would open in a window: one that takes the terminal instead is not what was meant."""
    windows = sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return bool(windows) and sys.stdout.isatty()
