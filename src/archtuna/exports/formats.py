"""What an export format is, and what a writer of one is given."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from archtuna.architecture import Architecture
from archtuna.errors import ExportError, MissingExtraError, nearest
from archtuna.files import Place
from archtuna.registry import BLOCKS, Registry

TOLERANCE = 1e-4
"""How far an output may be from the model's, as a share of the largest."""

Run = Callable[[Tensor], tuple[Tensor, ...]]
"""Takes what the model takes, preprocessed pictures (n × C × H × W), and returns logits, or what each tapped unit gives."""


@dataclass(frozen=True)
class Options:
    """How a file is to be; a format refuses what it does not know.

    Attributes:
        opset: version of ONNX's operators; None for the default.
        with_preprocess: whether the file takes pixels as they are, and normalises them itself.
        precision: ``fp32``, or another of ``archtuna.exports.precision``.
        calibration: what a precision needs to be chosen by, such as training pictures; None for nothing.
    """

    opset: int | None = None
    with_preprocess: bool = False
    precision: str = "fp32"
    calibration: Any = None

    def given(self) -> set[str]:
        """Return the names of those that are not as they are by default."""
        simple = ("opset", "with_preprocess", "precision")
        given = {name for name in simple if getattr(self, name) != getattr(Options, name)}
        # Apart from the others, because pictures do not compare to one truth value.
        return given if self.calibration is None else given | {"calibration"}


@dataclass(frozen=True)
class Source:
    """What a writer writes.

    Attributes:
        model: a copy in evaluation mode on the CPU, which the writer may change.
        example: pictures that the model takes, of as many as the format's smallest batch that is more than one.
        options: how.
        units: units whose outputs are wanted in place of the logits, by index; None for the logits.
    """

    model: nn.Module
    example: Tensor
    options: Options = Options()
    units: tuple[int, ...] | None = None

    @property
    def architecture(self) -> Architecture:
        return self.model.architecture  # type: ignore[return-value]

    def description(self) -> dict[str, str]:
        """Return what a file says of itself, each as JSON: architecture, classes and preprocessing."""
        plain: dict[str, Any] = {"architecture": self.architecture.to_dict()}
        if hasattr(self.model, "classes"):
            plain["classes"] = list(self.model.classes)  # type: ignore[arg-type]
        if hasattr(self.model, "preprocess"):
            plain["preprocess"] = self.model.preprocess.to_dict()  # type: ignore[union-attr, operator]
        return {name: json.dumps(value) for name, value in plain.items()}


@dataclass(frozen=True)
class Written:
    """What a writer wrote.

    Attributes:
        content: of the file.
        beside: of the files that lie beside it, by the suffix that takes the place of its own.
        opset: version of ONNX's operators, where the format has them.
    """

    content: bytes
    beside: Mapping[str, bytes] = field(default_factory=dict)
    opset: int | None = None

    @property
    def bytes(self) -> int:
        """The size of all of its files."""
        return len(self.content) + sum(map(len, self.beside.values()))


@dataclass(frozen=True)
class Format:
    """One kind of file.

    Attributes:
        name: what it is called.
        suffixes: of its files, the usual one first.
        write: writes a source; what it raises is told as a failed export.
        open: returns what runs the file in the format's own runtime.
        packages: that both need.
        extra: of archtuna, which installs them.
        options: the names of ``Options`` that it knows.
        batches: sizes of batches that are tried; a format that holds one batch only has that.
        partial: whether a part of a network can be written by itself.
        title: as people write it.
        notice: what has to be said once to those who use it, or "".
    """

    name: str
    suffixes: tuple[str, ...]
    write: Callable[[Source], Written]
    open: Callable[[Written, Source], Run]
    packages: tuple[str, ...] = ()
    extra: str = ""
    options: frozenset[str] = frozenset()
    batches: tuple[int, ...] = (1, 2, 7)
    partial: bool = True
    title: str = ""
    notice: str = ""

    def missing(self) -> str | None:
        """Return the first package that is not installed, or None."""
        return next((name for name in self.packages if importlib.util.find_spec(name) is None), None)

    def require(self, options: Options) -> None:
        """Check that the format can be written here, as it is asked for.

        Raises:
            MissingExtraError: a package is not installed.
            ExportError: it does not know an option.
        """
        package = self.missing()
        if package is not None:
            raise MissingExtraError(package, self.extra)
        # A person asks for a precision, which brings the calibration.
        for name in sorted(options.given() - self.options, reverse=True):
            raise ExportError(f"the format {self.name} has no option '{name}'", hint=_who_has(name))


FORMATS: Registry[Format] = Registry("export format")


def _who_has(option: str) -> str:
    return f"formats that have it: {', '.join(f.name for f in FORMATS.values() if option in f.options)}"


def suffixes() -> dict[str, str]:
    """Return which format a suffix names."""
    return {suffix: format.name for format in FORMATS.values() for suffix in format.suffixes}


def format_named(name: str) -> Format:
    """Return a format.

    Raises:
        ExportError: there is none of that name.
    """
    if name not in FORMATS:
        hint = nearest(name, FORMATS) or f"known: {', '.join(sorted(FORMATS))}"
        raise ExportError(f"unknown export format '{name}'", hint=hint)
    return FORMATS[name]


def format_of(path: Place) -> Format:
    """Return the format that a path's suffix names.

    Raises:
        ExportError: it names none.
    """
    known = suffixes()
    suffix = path.suffix.lower()
    if suffix not in known:
        hint = nearest(suffix, known) or f"known: {', '.join(known)}, or give the format"
        raise ExportError(f"{path}: the suffix '{suffix}' names no export format", hint=hint)
    return FORMATS[known[suffix]]


def unsupported(architecture: Architecture, format: str) -> list[tuple[int, str]]:
    """Return ``(index of the row, block)`` for each row whose block says that it cannot be exported to a format.

    Raises:
        ExportError: there is no such format.
        UnknownNameError: a block is not registered.
    """
    name = format_named(format).name
    rows = enumerate(row.module for row in architecture.rows)
    return [(index, module) for index, module in rows if name in BLOCKS[module].unexportable]


def tensors(output: Any) -> list[Tensor]:
    """Return the tensors of a unit's output, which may be several maps."""
    return [output] if isinstance(output, Tensor) else [t for part in output for t in tensors(part)]


class Units(nn.Module):
    """Runs a network unit by unit and returns the outputs of some of them.

    Args:
        layers: the network's units.
        wires: what each of them takes, as ``Architecture.wires`` tells.
        wanted: the units whose outputs are returned; those behind the last are not run.
    """

    def __init__(self, layers: Iterable[nn.Module], wires: list[tuple[int, ...]], wanted: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)[: wanted[-1] + 1]
        self.wires, self.wanted = wires, wanted

    def outputs(self, x: Tensor) -> list[Any]:
        """Return the output of each unit."""
        outputs = [x]
        for unit, inputs in zip(self.layers, self.wires, strict=False):
            # The picture stands before the first unit.
            outputs.append(unit(*[outputs[i + 1] for i in inputs]))
        return outputs[1:]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        outputs = self.outputs(x)
        # Clones, so that a unit that passes its input on does not make two outputs of one tensor.
        return tuple(t.clone() for i in self.wanted for t in tensors(outputs[i]))


def tapped(model: nn.Module, source: Source) -> nn.Module:
    """Return what is to be run of a model for a source: the model, or its units."""
    if source.units is None:
        return model
    return Units(model.layers, source.architecture.wires(), source.units)  # type: ignore[arg-type]


def many(found: Any) -> tuple[Tensor, ...]:
    """Return the outputs of a module that may give one."""
    return (found,) if isinstance(found, Tensor) else tuple(found)


def runs(module: Callable[[Tensor], Any]) -> Run:
    """Return what runs a module without keeping gradients."""

    def run(x: Tensor) -> tuple[Tensor, ...]:
        with torch.inference_mode():
            return many(module(x))

    return run
