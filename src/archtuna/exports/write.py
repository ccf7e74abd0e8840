"""Exporting a model: written in memory, proved to be the model, and only then kept."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from archtuna.errors import ArchtunaError, ExportError, first_line
from archtuna.exports.formats import (
    FORMATS,
    Format,
    Options,
    Run,
    Source,
    Written,
    format_named,
    format_of,
    unsupported,
)
from archtuna.exports.inference import plain_copy, random_pictures
from archtuna.exports.layers import first_difference, first_failing
from archtuna.exports.precision import Precision, precision_named
from archtuna.exports.proof import Compared, Difference, Proof, compare
from archtuna.files import Place, place_of, write_atomically
from archtuna.settings import DeploySettings

log = logging.getLogger("archtuna")


@dataclass(frozen=True)
class Artefact:
    """An export in memory.

    Attributes:
        format: its name.
        content: of the file.
        run: takes pictures as the model does, preprocessed (n × C × H × W), and returns the logits of the format's runtime.
        beside: of files that belong beside it, by the suffix that takes the place of its own.
        opset: version of ONNX's operators, where the format has them.
        precision: in which it computes.
    """

    format: str
    content: bytes
    run: Callable[[Tensor], Tensor] = field(repr=False)
    beside: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    opset: int | None = None
    precision: str = "fp32"

    @property
    def bytes(self) -> int:
        """The size of all of its files."""
        return len(self.content) + sum(map(len, self.beside.values()))


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
        file: its path.
        format: its name.
        max_difference: largest absolute difference of a logit from the model's, on all pictures that were compared.
        bytes: its size, with the files that lie beside it.
        opset: version of ONNX's operators, where the format has them.
        precision: in which it computes.
        pictures: real ones on which accuracy and F1 were compared; 0 when there were none, and the metric is not checked.
        metrics: accuracy and F1 of the file on these.
        model_metrics: and of the model.
    """

    file: str
    format: str
    max_difference: float
    bytes: int
    opset: int | None = None
    precision: str = "fp32"
    pictures: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    model_metrics: Mapping[str, float] = field(default_factory=dict)


def export(
    model: nn.Module,
    path: str | Place,
    *,
    format: str | None = None,
    proof: Proof | None = None,
    opset: int | None = None,
    with_preprocess: bool = False,
    precision: str = "fp32",
    calibration: Any = None,
) -> Exported:
    """Write a model as a file that runs without archtuna, after it proved to be the model.

    The input is ``images`` (n × C × H × W), preprocessed, the output ``logits`` (n × classes), of any number of pictures at
    once; of ExecuTorch one. What is exported is a copy of the model in evaluation mode on the CPU; the model itself is not
    touched. The file holds ``architecture`` and, where the model has them, ``classes`` and ``preprocess``, each as JSON: in
    ONNX's metadata, the extra files of TorchScript and torch.export, methods of ExecuTorch. A module says them in Python.

    The file is run in its own runtime, on random pictures and on those of the proof: its outputs have to be the model's
    within 1e-4 of the largest logit, and accuracy and macro F1 equal.

    Args:
        model: has an ``architecture``, as what ``build`` and ``load`` return.
        path: a file, or a URL in an object store; its suffix names the format: ``.onnx``, ``.pt2``, ``.pte`` (ExecuTorch),
            ``.py`` (plain PyTorch, with its weights beside it), ``.ts``, ``.torchscript`` or ``.pt`` (TorchScript).
        format: its name, where the suffix does not say it.
        proof: real pictures with labels; without them the metric is not checked, and the result says so.
        opset: version of ONNX's operators; None for the default.
        with_preprocess: whether an ONNX file takes ``pixels`` (n × H × W × C, uint8, at the network's size).
        precision: in which an ONNX file computes; fp16 has its own tolerance, and metrics that are measured, not equal.
        calibration: what the precision needs to be chosen by, such as training pictures.

    Raises:
        ExportError: an unknown format or option, a block that a format cannot hold, an export that fails or is not the
            model (the error names the layer where that begins), or a file that cannot be written.
        MissingExtraError: the format needs a package that is not installed.
    """
    path = place_of(path)
    kind = format_named(format) if format else format_of(path)
    source = _source(model, kind, Options(opset, with_preprocess, precision, calibration))
    written, run = _write(kind, source)
    found = _proved(path, kind, source, run, proof)
    _keep(path, written)
    return Exported(
        str(path), kind.name, found.max_difference, written.bytes, written.opset, source.options.precision,
        found.pictures, found.metrics, found.model_metrics,
    )  # fmt: skip


def artefact(
    model: nn.Module,
    format: str = "onnx",
    *,
    opset: int | None = None,
    with_preprocess: bool = False,
    precision: str = "fp32",
    calibration: Any = None,
) -> Artefact:
    """Return a model's export in memory, not yet compared with the model.

    Args:
        model: has an ``architecture``, as what ``build`` and ``load`` return.
        format: its name.
        opset, with_preprocess, precision, calibration: as of ``export``.

    Raises:
        ExportError: an unknown format or option, a block that the format cannot hold, or an export that fails.
        MissingExtraError: the format needs a package that is not installed.
    """
    kind = format_named(format)
    source = _source(model, kind, Options(opset, with_preprocess, precision, calibration))
    written, run = _write(kind, source)
    return Artefact(
        kind.name, written.content, lambda x: run(x)[0], written.beside, written.opset, source.options.precision
    )


def deployed(model: nn.Module, deploy: DeploySettings, calibration: Callable[[], Any]) -> Artefact:
    """Return a model's export as it is deployed, not yet compared with the model.

    Args:
        model: has an ``architecture``.
        deploy: what networks are exported to, and in which precision.
        calibration: gives the batches of training pictures by which a precision is chosen, where one needs them.

    Raises:
        ExportError, MissingExtraError: as of ``artefact``.
    """
    pictures = calibration() if deploy.precision == "int8" else None
    return artefact(model, deploy.exported_to, precision=deploy.precision, calibration=pictures)


def _source(model: nn.Module, format: Format, options: Options) -> Source:
    """Return what is written, after everything that can be refused beforehand."""
    pictures = random_pictures(model, pixels=options.with_preprocess)
    format.require(options)
    precision_named(options.precision)
    refused = unsupported(model.architecture, format.name)  # type: ignore[arg-type]
    if refused:
        row, block = refused[0]
        raise ExportError(f"row {row} ({block}) cannot be exported to {format.title}", hint=_formats_of(model))
    if format.notice:
        _notice(format.notice)
    return Source(plain_copy(model), pictures(min(2, max(format.batches))), options)


def _formats_of(model: nn.Module) -> str:
    left = [name for name in FORMATS if not unsupported(model.architecture, name)]  # type: ignore[arg-type]
    return f"formats that can hold the network: {', '.join(left) or 'none'}"


def _write(format: Format, source: Source) -> tuple[Written, Run]:
    try:
        written = format.write(source)
        return written, format.open(written, source)
    except ArchtunaError:
        raise
    except Exception as error:  # Exporters raise errors of many families.
        problem = f"{type(error).__name__}: {first_line(error)}"
        where = first_failing(format, source)
        raise ExportError(f"the {format.title} export failed{where} ({problem})") from error


def _proved(path: Place, format: Format, source: Source, run: Run, proof: Proof | None) -> Compared:
    precision: Precision = precision_named(source.options.precision)
    pictures = random_pictures(source.model, pixels=source.options.with_preprocess)
    try:
        return compare(source.model, run, pictures, format.batches, proof, precision.tolerance, precision.same_metrics)
    except Difference as difference:
        where = first_difference(format, source, difference.pictures, precision.tolerance)
        raise ExportError(f"{path}: {difference}: not kept{where}") from difference


def _keep(path: Place, written: Written) -> None:
    """Write the files; the one that was asked for last, so that it never stands without those beside it."""
    files = {path.with_suffix(suffix): content for suffix, content in written.beside.items()} | {path: written.content}
    for place, content in files.items():
        try:
            write_atomically(place, content)
        except OSError as error:
            raise ExportError(f"{place}: cannot be written ({error.strerror or error})") from error


@functools.cache
def _notice(text: str) -> None:
    """Log a notice, the same one once in a process."""
    log.warning(text)
