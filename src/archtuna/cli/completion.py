"""Completion with TAB in bash, zsh and fish: the command ``completion``, and what fits each argument.

The shell asks archtuna itself, by argcomplete, each time that TAB is pressed. So what takes long to import (torch, Optuna,
numpy) is not imported here: the names below are copies, which the tests compare with what they are copies of.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from archtuna.cli.arguments import verb

ASKED = "_ARGCOMPLETE"
"""The environment variable by which a shell asks."""

SHELLS = ("bash", "zsh", "fish")

BLOCKS = (
    "Add", "AttentionPool", "AvgPool", "Bottleneck", "BottleneckAttn", "BottleneckCSP", "C3", "CR", "Concat", "Conv",
    "ConvNeXtBlock", "ConvResidual", "DWConv", "Dropout", "ECA", "ECABottleneck", "ECAInvertedResidualv2",
    "ECAInvertedResidualv3", "Fire", "FixedCR", "FixedConv", "Flatten", "Focus", "FusedMBConv", "GhostBottleneck",
    "GlobalAvgPool", "GlobalMaxPool", "Identity", "InvertedResidualv2", "InvertedResidualv3", "LayerNorm2d", "Linear",
    "MBConv", "MV2Block", "MaxPool", "MixNetBlock", "MobileViTBlock", "PatchEmbedding", "PreTrained", "PreTrainedFeatureMap",
    "RepVGGBlock", "ResBottleneck", "SE", "SPP", "SPPF", "ShuffleNetV2", "TransformerBlock", "UpSample",
)  # fmt: skip
QUALITIES = ("loss", "f1", "accuracy")
COSTS = ("params", "macs", "size_mb", "peak_memory_mb", "latency_ms", "energy_mj")
MEASURED = ("latency_ms", "energy_mj")
SAMPLERS = ("known-costs", "tpe", "nsga2", "nsga3", "gp", "qmc", "random", "cmaes")
SCORES = ("none", "synflow", "naswot", "macs")
LOGGERS = ("tensorboard", "mlflow", "wandb")
PLACES = ("computer", "phone", "microcontroller", "server")
TARGETS = ("onnx", "onnx-fp16", "onnx-int8", "pt2", "torchscript", "executorch", "module")
FORMATS = ("onnx", "pt2", "module", "executorch", "torchscript")
PRECISIONS = ("fp32", "fp16", "int8")
RUNTIMES = ("onnxruntime", "torch", "torch-compile", "executorch")
PROVIDERS = ("CPUExecutionProvider", "CUDAExecutionProvider", "cpu", "cuda")
COMPUTERS = ("cpu", "cuda", "cuda:0", "cuda:1", "mps")

MODELS, WEIGHTS, EXPORTS = (".yaml", ".yml"), (".safetensors",), (".onnx", ".pt2", ".py", ".pte", ".ts")
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")

Completer = Callable[..., Iterable[str] | Mapping[str, str]]


def completion(verbs: Any) -> None:
    parser = verb(
        verbs, "completion", _run_completion, "print what makes a shell complete archtuna's commands with TAB",
        examples=(
            'eval "$(archtuna completion bash)"      # in ~/.bashrc',
            'eval "$(archtuna completion zsh)"       # in ~/.zshrc, after compinit',
            "archtuna completion fish | source       # in ~/.config/fish/config.fish",
        ),
    )  # fmt: skip
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help="bash, zsh or fish")


def _run_completion(arguments: argparse.Namespace) -> None:
    import argcomplete

    print(argcomplete.shellcode(["archtuna"], shell=arguments.shell).strip())


def complete(parser: argparse.ArgumentParser) -> int:
    """Answer a shell that asks how its line may go on, through the stream that it reads, and end."""
    import argcomplete

    attach(parser)
    nothing = argcomplete.completers.SuppressCompleter()
    argcomplete.autocomplete(parser, always_complete_options=False, default_completer=nothing)
    return 0


def attach(parser: argparse.ArgumentParser) -> None:
    """Give each argument what completes it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                attach(inner)
        elif not action.choices:
            command = parser.prog.partition(" ")[2]
            found = COMPLETERS.get(f"{command} {action.dest}") or COMPLETERS.get(action.dest)
            if found is not None:
                action.completer = found  # type: ignore[attr-defined]


# --- what completes an argument ----------------------------------------------------------------------


def paths(prefix: str, suffixes: tuple[str, ...] = (), **_: Any) -> list[str]:
    """Return the folders, and the files of some suffixes, that a path may become; all files without a suffix."""
    folder, slash, start = prefix.rpartition("/")
    place = Path(os.path.expanduser(f"{folder}{slash}") or ".")
    found = []
    with contextlib.suppress(OSError):
        for entry in sorted(place.iterdir()):
            hidden = entry.name.startswith(".") and not start.startswith(".")
            if entry.name.startswith(start) and not hidden:
                if entry.is_dir():
                    found.append(f"{folder}{slash}{entry.name}/")
                elif suffixes != ("/",) and (not suffixes or entry.suffix.lower() in suffixes):
                    found.append(f"{folder}{slash}{entry.name}")
    return found


def pictures_or_digits(prefix: str, **_: Any) -> list[str]:
    """Return what ``--data`` takes: folders, archives, and the pictures that come with scikit-learn."""
    return [*(["digits"] if "digits".startswith(prefix) else []), *paths(prefix, (".npz",))]


def trials(prefix: str, parsed_args: Any = None, **_: Any) -> dict[str, str]:
    """Return the complete trials of a run with their values, where its database is a file of the run."""
    import json
    import sqlite3

    folder = Path(os.path.expanduser(str(getattr(parsed_args, "folder", None) or "")))
    query = (
        "select number, group_concat(value) from trials join studies using (study_id) join trial_values using (trial_id) "
        "where study_name = ? and state = 'COMPLETE' group by number order by number"
    )
    with contextlib.suppress(OSError, ValueError, KeyError, sqlite3.Error):
        name = json.loads((folder / "study.json").read_text(encoding="utf-8"))["name"]
        with contextlib.closing(sqlite3.connect(f"file:{folder / 'study.db'}?mode=ro", uri=True, timeout=0.2)) as base:
            rows = base.execute(query, (name,)).fetchall()
        return {str(number): _values(values) for number, values in rows}
    return {}


def _values(text: str) -> str:
    return ", ".join(f"{float(value):.4g}" for value in text.split(","))


def trial_list(prefix: str, **told: Any) -> list[str]:
    """Return trials after those that a list names already."""
    return _after_comma(prefix, trials("", **told))


def ready_spaces(prefix: str, **_: Any) -> list[str]:
    """Return the names of the ready spaces."""
    from importlib.resources import files

    return sorted(file.name.removesuffix(".yaml") for file in (files("archtuna") / "spaces").iterdir())


def device_names(prefix: str, **_: Any) -> list[str]:
    """Return the names of the user's devices."""
    from archtuna.errors import LatencyError
    from archtuna.targets import devices

    with contextlib.suppress(LatencyError):
        return list(devices())
    return []


def objectives(prefix: str, **_: Any) -> list[str]:
    """Return objectives after those that a list names already, measured ones also on the user's devices."""
    return _after_comma(prefix, [*QUALITIES, *_costs()])


def bounds(prefix: str, sign: str = "=", qualities: bool = True, **_: Any) -> list[str]:
    """Return what may be bounded, with the sign that comes next."""
    return [f"{name}{sign}" for name in (*(QUALITIES if qualities else ()), *_costs())]


def _costs() -> list[str]:
    return [*COSTS, *(f"{name}@{device}" for name in MEASURED for device in device_names(""))]


def _after_comma(prefix: str, names: Iterable[str]) -> list[str]:
    """Return a list that goes on with each name that is not in it yet."""
    head, comma = prefix.rpartition(",")[:2]
    return [f"{head}{comma}{name}" for name in names if name not in head.split(",")]


def _among(names: tuple[str, ...]) -> Completer:
    return lambda prefix, **_: names


def _samplers(prefix: str, **_: Any) -> list[str]:
    return _after_comma(prefix, ("tpe-default", *SAMPLERS))


def _outputs(prefix: str, **_: Any) -> list[str]:
    from archtuna.cli.outputs import outputs

    return outputs()


_folders, _weights, _models = (partial(paths, suffixes=kinds) for kinds in (("/",), WEIGHTS, MODELS))

COMPLETERS: Mapping[str, Completer] = {
    "folder": _folders,
    "out": _folders,
    "export out": partial(paths, suffixes=EXPORTS),
    "card out": partial(paths, suffixes=(".md",)),
    "file": _models,
    "latency file": partial(paths, suffixes=(*WEIGHTS, ".onnx", ".pte")),
    "schema of": _outputs,
    "schema file": partial(paths, suffixes=(".json",)),
    "checkpoint": _weights,
    "pictures": partial(paths, suffixes=PICTURES),
    "data": pictures_or_digits,
    "token_file": paths,
    "number": trials,
    "numbers": trial_list,
    "space": ready_spaces,
    "blocks name": _among(BLOCKS),
    "device remove name": device_names,
    "device show name": device_names,
    "on": device_names,
    "objectives": objectives,
    "bench objectives": _among(()),
    "limit": partial(bounds, sign="<=", qualities=False),
    "max": bounds,
    "min": bounds,
    "best": lambda prefix, **_: [*QUALITIES, *_costs()],
    "smallest": lambda prefix, **_: _costs(),
    "log": _among(LOGGERS),
    "figures": _folders,
    "report out": partial(paths, suffixes=(".html",)),
    "place": _among(PLACES),
    "sampler": _among(SAMPLERS),
    "samplers": _samplers,
    "screen": _among(SCORES),
    "target": _among(TARGETS),
    "format": _among(FORMATS),
    "precision": _among(PRECISIONS),
    "runtime": _among(RUNTIMES),
    "profile runtime": _among(RUNTIMES[:1]),
    "provider": _among(PROVIDERS),
    "device": _among(COMPUTERS),
}
"""What completes an argument, by its name, or by its command and its name."""
