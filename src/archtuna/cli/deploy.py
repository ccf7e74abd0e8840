"""Commands that bring a network to where it serves: export, latency."""

from __future__ import annotations

import argparse
from typing import Any

from archtuna.cli.arguments import count, flag, print_json, verb


def export(verbs: Any) -> None:
    parser = verb(
        verbs, "export", _run_export, "write a checkpoint as ONNX or TorchScript and check it against the model"
    )
    flag(parser, "checkpoint", "json")
    parser.add_argument("out", metavar="OUT", help="file to write: .onnx, or .ts, .torchscript or .pt")
    parser.add_argument("--format", choices=("onnx", "torchscript"), help="where OUT does not say it")


def _run_export(arguments: argparse.Namespace) -> None:
    from archtuna.checkpoint import load
    from archtuna.exports import export

    done = export(load(arguments.checkpoint), arguments.out, format=arguments.format)
    if arguments.json:
        print_json(
            {"file": done.file, "format": done.format, "max_difference": done.max_difference, "bytes": done.bytes}
        )
    else:
        print(
            f"{done.file}: {done.format}, {done.bytes:,} bytes, differs from the model by at most {done.max_difference:.1e}"
        )


def latency(verbs: Any) -> None:
    parser = verb(verbs, "latency", _run_latency, "measure how long a network takes here, exported, in ONNX Runtime")
    parser.add_argument("file", metavar="FILE", help="a checkpoint, or a .onnx file")
    parser.add_argument("--batch", type=count, default=1, metavar="N", help="pictures at once (1)")
    parser.add_argument("--threads", type=count, default=1, metavar="N", help="of the runtime (1)")
    parser.add_argument("--patience", default="1m", metavar="1m", help="how long to wait for a quiet machine")
    flag(parser, "json")


def _run_latency(arguments: argparse.Namespace) -> None:
    from archtuna.latency import measure, onnx_of
    from archtuna.settings import seconds_of

    patience = seconds_of(arguments.patience) or 0.0
    content = onnx_of(arguments.file)
    found = measure(content, batch=arguments.batch, threads=arguments.threads, patience=patience)
    if arguments.json:
        print_json(found.to_dict())
        return
    where = found.device
    threads = f"{where.threads} thread{'s' if where.threads > 1 else ''}"
    print(f"{found.ms:.3f} ms ({found.low:.3f} to {found.high:.3f}) for a batch of {where.batch}")
    print(f"{where.processor}, {where.runtime}, {threads}; device {where.fingerprint}")
    print(f"a fixed network took {found.reference_ms:.3f} ms beside it, and moved by {100 * found.drift:.0f} %")
