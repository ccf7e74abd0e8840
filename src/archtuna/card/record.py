"""The sections of a card about the network: what it is and costs, where it comes from, and how to train it again."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from archtuna.card.markdown import fence, inline, quoted, table
from archtuna.card.reproduction import FILE, commands, conditions_of, doubts, pictures_name, search_file
from archtuna.card.subject import PARTS, Subject
from archtuna.checkpoint import Header
from archtuna.costs import costs_of
from archtuna.errors import number
from archtuna.intervals import LEVEL
from archtuna.metrics import accuracy, macro_f1

if TYPE_CHECKING:
    from archtuna.latency import Latency


def front_matter(subject: Subject) -> list[str]:
    return [
        "---",
        "# license: the choice of whoever publishes this model",
        "library_name: archtuna",
        "pipeline_tag: image-classification",
        "tags: [image-classification, pytorch, archtuna, neural-architecture-search]",
        *_results(subject),
        "---",
    ]


def _results(subject: Subject) -> list[str]:
    part, found = "validation", dict(subject.header.metrics)
    if subject.answers:
        told = subject.answers[-1]
        part, found = PARTS[told.part], {"accuracy": accuracy(told.matrix), "f1": macro_f1(told.matrix)}
    known = {key: words for key, words in (("accuracy", "Accuracy"), ("f1", "Macro F1")) if key in found}
    if not known:
        return []
    name = quoted(pictures_name(subject.header))
    return [
        f"metrics: [{', '.join(known)}]",
        "model-index:",
        f"- name: {quoted(_title(subject.header))}",
        "  results:",
        "  - task: {type: image-classification, name: Image classification}",
        f"    dataset: {{name: {name}, type: {name}, split: {part}}}",
        "    metrics:",
        *(f"    - {{type: {key}, name: {words}, value: {found[key]:.6f}}}" for key, words in known.items()),
    ]


def _title(header: Header) -> str:
    trial = (header.trial or {}).get("number")
    return f"{pictures_name(header)}, network {header.architecture.key if trial is None else trial}"


def model(subject: Subject) -> list[str]:
    header = subject.header
    architecture, preprocess = header.architecture, header.preprocess
    height, width = preprocess["size"]
    fits = {"resize": "stretched to", "pad": "kept in their proportions and filled with black to"}
    first = f", by way of {' x '.join(map(str, preprocess['via']))}" if preprocess.get("via") else ""
    mean, std = (", ".join(f"{value:.4f}" for value in preprocess[key]) for key in ("mean", "std"))
    found = "It was found by architecture search." if header.trial else "It was not part of a search."
    return [
        f"# {inline(_title(header))}",
        "",
        f"A classifier of pictures into {len(header.classes)} classes: a network of {len(architecture.rows)} rows, which "
        f"stand at the end. {found}",
        "",
        f"Pictures are {fits[preprocess['fit']]} {height} x {width} pixels{first}, in {architecture.input_channels} "
        f"channel{'s' if architecture.input_channels > 1 else ''}, and normalised by mean {mean} and standard deviation {std} "
        "of values from 0 to 1. `archtuna.load(file).preprocess` does that.",
        "",
        "## Intended use",
        "",
        "Not known to the program that wrote this card: what the classifier is for, what it must not be used for, whom its "
        "mistakes hurt, and its licence are for whoever publishes it to say.",
    ]


def costs(subject: Subject) -> list[str]:
    costs = costs_of(subject.header.architecture)
    rows = [
        ("parameters", f"{costs['params']:,}"),
        ("multiply-accumulates for a picture", f"{costs['macs']:,}"),
        ("weights as 32-bit floats", f"{costs['size_mb']:.3f} MB"),
        ("activations alive at once for a picture, 32-bit floats", f"{costs['peak_memory_mb']:.3f} MB"),
        ("checkpoint file", f"{len(subject.content) / 1e6:.3f} MB"),
    ]
    return ["## Costs", "", *table(("cost", "value"), rows), "", *_latencies(subject)]


def _latencies(subject: Subject) -> list[str]:
    """Say how long the network takes, measured for the card, or in the search that it is from."""
    if subject.latency is not None:
        return _latency(subject.latency)
    from archtuna.latency import Latency

    noted = (subject.header.trial or {}).get("latencies", {}).values()
    lines = [line for plain in noted for line in _latency(Latency.from_dict(plain))]
    return lines or ["How long it takes was not measured."]


def _latency(found: Latency) -> list[str]:
    where = found.device
    return [
        f"{found.ms:.3f} ms ({found.low:.3f} to {found.high:.3f}, median and {LEVEL:.0%} interval of {found.rounds} rounds) "
        f"for a batch of {where.batch}, on {inline(where.processor)}, {inline(where.system)}, with {inline(where.runtime)}, "
        f"{inline(where.provider)}, threads: {where.threads}; device `{where.fingerprint}`."
    ]


def training(subject: Subject) -> list[str]:
    recipe = [(name, inline(value)) for name, value in subject.header.recipe.items()]
    return ["## Training", "", *table(("value", "of this training"), recipe)]


def provenance(subject: Subject) -> list[str]:
    header, conditions = subject.header, conditions_of(subject.header)
    trial = {name: value for name, value in (header.trial or {}).items() if name != "latencies"}
    values = ", ".join(f"{name} {number(value)}" for name, value in trial.pop("values", {}).items())
    rows = [
        ("SHA-256 of the checkpoint", f"`{hashlib.sha256(subject.content).hexdigest()}`"),
        ("key of the architecture", f"`{header.architecture.key}`"),
        *((_NOTES.get(name, inline(name)), inline(value)) for name, value in trial.items()),
        *([("values in the study", inline(values))] if values else []),
        ("epoch that was kept", f"{header.epoch} of {header.recipe.get('epochs', '?')}"),
        ("trained on", inline(_machine(conditions))),
        ("versions", inline(", ".join(f"{name} {version}" for name, version in header.versions.items()))),
    ]
    return ["## Provenance", "", *table(("what", "which"), rows)]


_NOTES = {"number": "number of the trial", "study": "study", "seed": "seed of the training"}


def _machine(conditions: dict[str, Any]) -> str:
    if conditions["device"] is None:
        return "not recorded"
    return f"{conditions['device']}, {conditions['threads']} thread{'s' if conditions['threads'] != 1 else ''}"


def again(subject: Subject) -> list[str]:
    header, title = subject.header, "## Training it again"
    missing = [name for name in ("seed", "val", "test") if name not in header.data]
    if missing:
        return [
            title,
            "",
            f"How its pictures were split was not recorded ({', '.join(missing)}), so no command can be given.",
        ]
    found, against = ", ".join(f"{inline(name)} {value:.6f}" for name, value in header.metrics.items()), doubts(header)
    words = "" if against else " With these versions, on a processor of this kind, they come out again to the last bit."
    return [
        title,
        "",
        f"With the file below as `{FILE}`, these commands train this network on the same pictures and measure it on the "
        f"validation pictures, where it had {found}.{words}",
        "",
        *fence(commands(header), "sh"),
        "",
        *fence(search_file(header), "yaml"),
        "",
        *(f"- {doubt}" for doubt in against),
    ]
