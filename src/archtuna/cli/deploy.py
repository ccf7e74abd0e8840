"""Commands that bring a network to where it serves: export, latency, card."""

from __future__ import annotations

import argparse
import logging
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from archtuna.cli.arguments import count, flag, print_json, print_lines, verb
from archtuna.errors import DataError, ExportError

if TYPE_CHECKING:
    from archtuna.exports import Exported, Proof
    from archtuna.model import Network
    from archtuna.sensitivity import Sensitivity

log = logging.getLogger("archtuna")


def export(verbs: Any) -> None:
    parser = verb(
        verbs, "export", _run_export, "write a checkpoint for use without archtuna, proved to be the model",
        examples=(
            "archtuna export runs/photos/trained/17.safetensors model.onnx",
            "archtuna export runs/photos/trained/17.safetensors small.onnx --precision int8 --sensitivity",
        ),
        docs="docs/exports.md, docs/int8.md",
    )  # fmt: skip
    flag(parser, "checkpoint", "json")
    parser.add_argument(
        "out", metavar="OUT",
        help="file to write: .onnx, .pt2 (torch.export), .py (plain PyTorch, weights beside it), .pte (ExecuTorch), .ts",
    )  # fmt: skip
    parser.add_argument(
        "--format",
        metavar="NAME",
        help="onnx, pt2, module, executorch or torchscript, where OUT does not say it",
    )
    parser.add_argument(
        "--data", metavar="DATA", help="the pictures to prove it on; by default those that it was trained on"
    )
    parser.add_argument("--no-proof", action="store_true", help="do not compare accuracy and F1 with the model's")
    parser.add_argument(
        "--opset", type=count, metavar="N", help="version of ONNX's operators; by default one that most runtimes read"
    )
    parser.add_argument(
        "--with-preprocess", action="store_true", help="let the file take pixels, and normalise them itself"
    )
    parser.add_argument(
        "--precision", default="fp32", metavar="NAME",
        help="fp32, or in ONNX fp16 and int8, whose accuracy and F1 are told beside the model's (fp32)",
    )  # fmt: skip
    parser.add_argument(
        "--sensitivity", action="store_true", help="with int8: also say what each layer, alone in int8, costs"
    )


def _run_export(arguments: argparse.Namespace) -> None:
    from archtuna import report
    from archtuna.checkpoint import load
    from archtuna.exports import export

    model = load(arguments.checkpoint)
    proof = None if arguments.no_proof else _proof(arguments)
    if arguments.sensitivity and (arguments.precision != "int8" or proof is None):
        raise ExportError(
            "--sensitivity is for int8, and compares on validation pictures", hint="add --precision int8 --data DATA"
        )
    options = {"calibration": _calibration(arguments)} if arguments.precision == "int8" else {}
    done = export(
        model, arguments.out, format=arguments.format, proof=proof,
        opset=arguments.opset, with_preprocess=arguments.with_preprocess, precision=arguments.precision, **options,
    )  # fmt: skip
    layers = _sensitivity(model, options["calibration"], proof) if arguments.sensitivity else []
    if arguments.json:
        print_json(asdict(done) | ({"sensitivity": list(map(_plain, layers))} if layers else {}))
        return
    kind = f"{done.format} opset {done.opset}" if done.opset else done.format
    near = f"differs from the model by at most {done.max_difference:.1e}"
    print(f"{done.file}: {kind}, {done.bytes:,} bytes, {near}")
    print(_proved(done))
    if layers:
        print_lines(["", *report.sensitivity_lines(model.architecture, layers)])


def _plain(one: Sensitivity) -> dict[str, Any]:
    return asdict(one) | {"sqnr": one.sqnr if math.isfinite(one.sqnr) else None}


def _sensitivity(model: Network, calibration: Any, proof: Proof | None) -> list[Sensitivity]:
    """Return what each layer loses when it alone is quantised, worst first."""
    import numpy as np

    from archtuna.exports import artefact
    from archtuna.sensitivity import sensitivity

    assert proof is not None, "asked for before"
    pictures, labels = (np.concatenate([x.numpy() for x in part]) for part in zip(*proof.batches, strict=True))
    return sensitivity(artefact(model, "onnx").content, calibration, pictures, labels)


def _calibration(arguments: argparse.Namespace) -> Any:
    from archtuna.calibration import calibration_batches

    return calibration_batches(arguments.checkpoint, data=arguments.data)


def _proof(arguments: argparse.Namespace) -> Proof | None:
    """Return the pictures to prove an export on; None with a remark where nobody named them and they are not there."""
    from archtuna.proving import proof_of

    try:
        return proof_of(arguments.checkpoint, data=arguments.data)
    except DataError as error:
        if arguments.data is not None:
            raise
        problem = error.message
    log.warning("accuracy and F1 are not compared: %s (--data names the pictures)", problem)
    return None


def _proved(done: Exported) -> str:
    if not done.pictures:
        return "accuracy and F1 were not compared: there were no pictures"
    n = f"{done.pictures:,} validation pictures"
    if done.metrics == done.model_metrics:
        return f"accuracy and F1 on {n} are the model's: {done.metrics['accuracy']:.4f} and {done.metrics['f1']:.4f}"
    pairs = [
        f"{name} {done.metrics[name]:.4f} (the model's is {done.model_metrics[name]:.4f})" for name in done.metrics
    ]
    return f"on {n}: {', '.join(pairs)}"


def latency(verbs: Any) -> None:
    parser = verb(
        verbs, "latency", _run_latency, "measure how long a network takes, here or on a device of one's own",
        examples=(
            "archtuna latency runs/photos/trained/17.safetensors --threads 1",
            "archtuna latency model.onnx --on pi4",
        ),
        docs="docs/latency.md",
    )  # fmt: skip
    parser.add_argument("file", metavar="FILE", help="a checkpoint, or a .onnx or .pte file")
    parser.add_argument("--on", metavar="NAME", help="a device that 'archtuna device add' named, or its URL")
    parser.add_argument(
        "--runtime",
        default="onnxruntime",
        metavar="R",
        help="onnxruntime (default), torch, torch-compile or executorch",
    )
    parser.add_argument(
        "--provider",
        metavar="P",
        help="what the runtime computes on: CUDAExecutionProvider, or cuda for torch (the processor)",
    )
    parser.add_argument("--batch", type=count, default=1, metavar="N", help="pictures at once (1)")
    parser.add_argument("--threads", type=count, default=1, metavar="N", help="processor threads of the runtime (1)")
    parser.add_argument(
        "--patience", default="1m", metavar="1m", help="how long to wait for a machine on which nothing else runs (1m)"
    )
    flag(parser, "json")


def _run_latency(arguments: argparse.Namespace) -> None:
    from archtuna.latency import measure_file
    from archtuna.settings import seconds_of
    from archtuna.targets import target_of

    found = measure_file(
        arguments.file, runtime=arguments.runtime, provider=arguments.provider, batch=arguments.batch,
        threads=arguments.threads, on=target_of(arguments.on) if arguments.on else None,
        patience=seconds_of(arguments.patience) or 0.0,
    )  # fmt: skip
    if arguments.json:
        print_json(found.to_dict())
        return
    where = found.device
    threads = f"{where.threads} thread{'s' if where.threads > 1 else ''}"
    print(f"{found.ms:.3f} ms ({found.low:.3f} to {found.high:.3f}) for a batch of {where.batch}")
    if found.joules is not None:
        print(f"{1e3 * found.joules:.3g} mJ, with what the machine takes at rest")
    print(f"{where.processor}, {where.runtime}, {threads}; device {where.fingerprint}")
    print(f"a fixed network took {found.reference_ms:.3f} ms beside it, and moved by {100 * found.drift:.0f} %")


# --- card -------------------------------------------------------------------------------------------


def card(verbs: Any) -> None:
    parser = verb(
        verbs, "card", _run_card,
        "write the model card of a checkpoint: pictures, metrics, costs, and how to train it again",
        examples=("archtuna card runs/photos/trained/17.safetensors --out MODEL_CARD.md",), docs="docs/exports.md",
    )  # fmt: skip
    flag(parser, "checkpoint", "data", "device")
    parser.add_argument("--latency", action="store_true", help="measure how long it takes here, too")
    parser.add_argument("--out", metavar="FILE", help="where to write it; by default it is printed")


def _run_card(arguments: argparse.Namespace) -> None:
    from archtuna.card import card, write
    from archtuna.latency import measure_file

    latency = measure_file(arguments.checkpoint) if arguments.latency else None
    text = card(arguments.checkpoint, data=arguments.data, device=arguments.device, latency=latency)
    if arguments.out is None:
        print(text, end="")
    else:
        write(arguments.out, text)
        print(arguments.out)
