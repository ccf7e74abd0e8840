"""Commands about one trained network: train, evaluate, predict."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from archtuna.cli.arguments import count, flag, print_json, verb


def train(verbs: Any) -> None:
    parser = verb(
        verbs, "train", _run_train, "train a network in full, and report on test pictures that the search never saw",
        examples=("archtuna train runs/photos 17 --epochs 60 --seeds 3",), docs="docs/choosing.md",
    )  # fmt: skip
    parser.add_argument(
        "--seeds", type=count, default=1, metavar="N", help="trainings, each with another random seed (1)"
    )
    flag(parser, "quiet", "run", "number", "epochs", "data", "device", "storage", "json")


def _run_train(arguments: argparse.Namespace) -> None:
    from archtuna.final import train_in_full
    from archtuna.study import Study

    def say(seed: int, progress: Any) -> None:
        metrics = ", ".join(f"{name} {value:.4f}" for name, value in progress.metrics.items())
        print(f"seed {seed}, epoch {progress.epoch}/{progress.epochs}: {metrics}", file=sys.stderr, flush=True)

    with Study.open(arguments.folder, storage=arguments.storage) as study:
        final = train_in_full(
            study,
            arguments.number,
            epochs=arguments.epochs,
            seeds=arguments.seeds,
            data=arguments.data,
            device=arguments.device,
            on_progress=None if arguments.quiet or arguments.json else say,
        )
    if arguments.json:
        earlier = None if final.earlier is None else str(final.earlier)
        told = {"val": final.val, "test": final.test, "seeds": final.seeds, "earlier": earlier}
        print_json({"checkpoint": str(final.checkpoint), **told})
        return
    print(final.checkpoint)
    if final.earlier is not None:
        print(f"an earlier training of it is now {final.earlier}")
    for split in ("val", "test"):
        print(f"{split}: " + ", ".join(f"{name} {value:.4f}" for name, value in getattr(final, split).items()))
    if len(final.seeds) > 1:
        spread = {name: final.spread("test", name) for name in final.test}
        text = ", ".join(f"{name} {mean:.4f} ± {deviation:.4f}" for name, (mean, deviation) in spread.items())
        print(f"test, mean and standard deviation of {len(final.seeds)} seeds: {text}")


def evaluate(verbs: Any) -> None:
    parser = verb(
        verbs, "evaluate", _run_evaluate, "measure loss, accuracy and F1 of a checkpoint on its study's pictures",
        examples=("archtuna evaluate runs/photos/trained/17.safetensors --split test",),
    )  # fmt: skip
    parser.add_argument(
        "--split",
        choices=("train", "val", "test"),
        default="val",
        help="which of the pictures, as the study split them (val)",
    )
    flag(parser, "checkpoint", "data", "device", "json")


def _run_evaluate(arguments: argparse.Namespace) -> None:
    from archtuna.final import ABOUT, evaluate_checkpoint

    found = evaluate_checkpoint(
        arguments.checkpoint, data=arguments.data, split=arguments.split, device=arguments.device
    )
    if arguments.json:
        print_json(found)
    else:
        text = ", ".join(f"{name} {value:.6f}" for name, value in found.items() if name not in ABOUT)
        print(f"{text} on {found['n']} {found['split']} pictures")


def predict(verbs: Any) -> None:
    parser = verb(
        verbs, "predict", _run_predict, "classify pictures",
        examples=("archtuna predict runs/photos/trained/17.safetensors new/*.jpg --top 3",),
    )  # fmt: skip
    parser.add_argument(
        "--top", type=count, default=1, metavar="K", help="the K most probable classes of each picture (1)"
    )
    flag(parser, "checkpoint", "device", "json")
    parser.add_argument("pictures", nargs="+", metavar="PICTURE", help="files or folders")


def _run_predict(arguments: argparse.Namespace) -> int:
    from archtuna.predict import predict

    failed = 0
    for found in predict(arguments.checkpoint, arguments.pictures, top=arguments.top, device=arguments.device):
        failed += "error" in found
        if arguments.json:
            print_json(found)
        elif "error" in found:
            print(f"archtuna: {found['error']}", file=sys.stderr)
        else:
            print(f"{found['file']}: " + ", ".join(f"{p['class']} {p['probability']:.3f}" for p in found["classes"]))
    return 1 if failed else 0
