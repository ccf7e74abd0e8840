"""Files that run without archtuna: ONNX and TorchScript, each compared with the model before it is kept."""

from __future__ import annotations

import copy
import functools
import importlib.util
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from archtuna.architecture import Architecture
from archtuna.errors import ExportError, MissingExtraError, nearest
from archtuna.files import write_atomically

log = logging.getLogger("archtuna")

SUFFIXES = {".onnx": "onnx", ".ts": "torchscript", ".torchscript": "torchscript", ".pt": "torchscript"}
TOLERANCE = 1e-4
BATCHES = (1, 2, 7)

Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
        file: its path.
        format: ``onnx`` or ``torchscript``.
        max_difference: largest absolute difference of a logit from the model's, over batches of 1, 2 and 7.
        bytes: its size.
    """

    file: str
    format: str
    max_difference: float
    bytes: int


def export(model: nn.Module, path: str | Path, *, format: str | None = None) -> Exported:
    """Write a model as one file that takes pictures of any number at once, after its outputs proved equal.

    The input ``images`` is (n × C × H × W), preprocessed; the output ``logits`` is (n × classes). What is exported is a
    copy of the model in evaluation mode on the CPU; the model itself is not touched. ONNX metadata and TorchScript's
    extra files hold ``architecture`` and, where the model has them, ``classes`` and ``preprocess``, each as JSON.

    TorchScript is deprecated since torch 2.13, and only the warning that says so is silenced here: a notice is logged.

    Args:
        model: has an ``architecture``, as what ``build`` and ``load`` return.
        path: ``.onnx``, or ``.ts``, ``.torchscript`` or ``.pt`` for TorchScript.
        format: ``onnx`` or ``torchscript``, where the suffix does not say it.

    Raises:
        ExportError: an unknown format, an export that fails, outputs that differ by over 1e-4 of the largest logit,
            or a file that cannot be written.
        MissingExtraError: ONNX without ``pip install 'archtuna[onnx]'``.
    """
    path = Path(path)
    format = format or _format_of(path)
    writers = {"onnx": _onnx, "torchscript": _torchscript}
    if format not in writers:
        hint = nearest(format, writers) or f"known: {', '.join(writers)}"
        raise ExportError(f"unknown export format '{format}'", hint=hint)
    exported, pictures = _copy(model), _pictures(model)
    content, run = writers[format](exported, pictures(2), _description(model))
    difference = _verify(path, exported, run, pictures)
    try:
        write_atomically(path, content)
    except OSError as error:
        raise ExportError(f"{path}: cannot be written ({error.strerror or error})") from error
    return Exported(str(path), format, difference, len(content))


def _format_of(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        hint = nearest(suffix, SUFFIXES) or f"known: {', '.join(SUFFIXES)}, or give the format"
        raise ExportError(f"{path}: the suffix '{suffix}' names no export format", hint=hint)
    return SUFFIXES[suffix]


def _copy(model: nn.Module) -> nn.Module:
    copied = copy.deepcopy(model).to(device="cpu", memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    return _for_inference(copied).requires_grad_(False)


def _for_inference(module: nn.Module) -> nn.Module:
    """Return the module with each block that can be simpler in evaluation mode replaced by what it says it then is.

    A block says so with a method ``for_inference()`` that returns a module of the same outputs.
    """
    if hasattr(module, "for_inference"):
        return module.for_inference()  # type: ignore[operator]
    for name, child in module.named_children():
        setattr(module, name, _for_inference(child))
    return module


def _pictures(model: nn.Module) -> Callable[[int], Tensor]:
    """Return what makes ``n`` random pictures for the model, spread like normalised ones and always the same."""
    architecture = getattr(model, "architecture", None)
    if not isinstance(architecture, Architecture):
        raise ExportError(f"{type(model).__name__} has no architecture", hint="build networks with archtuna.build")
    shape = (architecture.input_channels, *architecture.input_size)
    return lambda n: torch.randn((n, *shape), generator=torch.Generator().manual_seed(n))


def _description(model: nn.Module) -> dict[str, str]:
    plain: dict[str, Any] = {"architecture": model.architecture.to_dict()}  # type: ignore[union-attr, operator]
    if hasattr(model, "classes"):
        plain["classes"] = list(model.classes)  # type: ignore[arg-type]
    if hasattr(model, "preprocess"):
        plain["preprocess"] = model.preprocess.to_dict()  # type: ignore[union-attr, operator]
    return {name: json.dumps(value) for name, value in plain.items()}


def _verify(path: Path, model: nn.Module, run: Run, pictures: Callable[[int], Tensor]) -> float:
    largest = 0.0
    for n in BATCHES:
        x = pictures(n)
        with torch.inference_mode():
            wanted = model(x)
        try:
            found = run(x)
        except Exception as error:
            raise ExportError(f"{path}: the export fails on a batch of {n} ({_first_line(error)})") from error
        if found.shape != wanted.shape:
            raise ExportError(
                f"{path}: the export gives {list(found.shape)} for a batch of {n}, the model {list(wanted.shape)}"
            )
        difference, scale = float((found - wanted).abs().max()), float(wanted.abs().max())
        # Written so that a NaN on either side is a difference.
        if not difference <= TOLERANCE * scale + 1e-7:
            raise ExportError(
                f"{path}: the export's outputs differ from the model's by {difference:.2g} at a batch of {n},"
                f" with logits of up to {scale:.2g}: not kept"
            )
        largest = max(largest, difference)
    return largest


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]


def _onnx(model: nn.Module, example: Tensor, description: dict[str, str]) -> tuple[bytes, Run]:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            raise MissingExtraError(name, "onnx")
    import onnxruntime

    try:
        with _quiet():
            program = torch.onnx.export(
                model, (example,), dynamo=True, verbose=False,
                input_names=["images"], output_names=["logits"], dynamic_shapes=({0: "batch"},),
            )  # fmt: skip
        assert program is not None
        program.model.metadata_props.update(description)
        # Weights within the file: whoever moves one file has moved the model.
        content = program.model_proto.SerializeToString(deterministic=True)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ExportError(f"the ONNX export failed ({type(error).__name__}: {_first_line(error)})") from error
    return content, lambda x: torch.from_numpy(session.run(["logits"], {"images": x.numpy()})[0])


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress and its warnings about itself from the user's screen."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _torchscript(model: nn.Module, example: Tensor, description: dict[str, str]) -> tuple[bytes, Run]:
    _notice("TorchScript is deprecated since torch 2.13; ONNX is the format with a future")
    buffer = BytesIO()
    try:
        with _not_deprecated(), torch.no_grad():
            traced = torch.jit.trace(model, (example,), check_trace=False)
            torch.jit.save(traced, buffer, _extra_files=description)
            loaded = torch.jit.load(BytesIO(buffer.getvalue()))
    except Exception as error:
        raise ExportError(f"the TorchScript export failed ({type(error).__name__}: {_first_line(error)})") from error

    def run(x: Tensor) -> Tensor:
        with torch.inference_mode():
            return loaded(x)

    return buffer.getvalue(), run


@contextmanager
def _not_deprecated() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is deprecated", category=DeprecationWarning)
        # Tracing takes decisions on shapes for constants, and warns; that the outputs stay equal is checked afterwards.
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
        yield


@functools.cache
def _notice(text: str) -> None:
    """Log a notice, the same one once in a process."""
    log.warning(text)
