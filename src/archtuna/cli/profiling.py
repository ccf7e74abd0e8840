"""The command that says where a network's milliseconds go: profile."""

from __future__ import annotations

import argparse
from typing import Any

from archtuna.cli.arguments import count, flag, print_json, print_lines, verb
from archtuna.errors import LatencyError

RUNTIME = "onnxruntime"


def profile(verbs: Any) -> None:
    parser = verb(
        verbs, "profile", _run_profile, "say how many milliseconds each row of a network takes in the runtime that serves it",
        examples=("archtuna profile runs/photos/trained/17.safetensors",), docs="docs/latency.md",
    )  # fmt: skip
    flag(parser, "checkpoint")
    parser.add_argument("--runtime", default=RUNTIME, metavar="R", help="onnxruntime, which alone tells it (default)")
    parser.add_argument("--provider", default="CPUExecutionProvider", metavar="P", help="what the runtime computes on")
    parser.add_argument("--batch", type=count, default=1, metavar="N", help="pictures at once (1)")
    parser.add_argument("--threads", type=count, default=1, metavar="N", help="processor threads of the runtime (1)")
    flag(parser, "json")


def _run_profile(arguments: argparse.Namespace) -> None:
    if arguments.runtime != RUNTIME:
        raise LatencyError(
            f"'{arguments.runtime}' does not tell what each row takes", hint=f"{RUNTIME} does; leave --runtime out"
        )
    from archtuna import report
    from archtuna.checkpoint import load
    from archtuna.latency import exported
    from archtuna.profiles import profile

    model = load(arguments.checkpoint)
    found = profile(
        exported(model, ".onnx"), model.architecture,
        batch=arguments.batch, threads=arguments.threads, provider=arguments.provider,
    )  # fmt: skip
    if arguments.json:
        print_json(report.profiled(model.architecture, found))
    else:
        print_lines(report.profile_lines(model.architecture, found))
