"""One file per trained network: weights, and everything that says what they are.

A checkpoint is a safetensors file whose metadata has one key, ``archtuna``, with sorted JSON: architecture, classes,
preprocessing, metrics, recipe, data, epoch, versions, trial. Weights never travel without their architecture, reading
what a file holds needs no torch, and nothing in a file is ever run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from archtuna.architecture import Architecture
from archtuna.errors import ArchtunaError, CheckpointError, DataError
from archtuna.files import Place, answering, place_of, write_atomically
from archtuna.recipe import Recipe
from archtuna.registry import UnknownNameError

if TYPE_CHECKING:
    from torch import nn

    from archtuna.data import Data, Images, Preprocess
    from archtuna.model import Network

FORMAT = 1
"""Version of the metadata. A reader refuses a newer one and keeps reading the older ones."""

VERSIONED = ("archtuna", "optuna", "torch")
DAMAGED = "copy it anew from where it was whole; archtuna train RUN NUMBER makes another"
MAX_HEADER = 100_000_000
MAX_UNITS = 10_000
SHOWN = 8

# First bytes of files that people mistake for checkpoints.
_OTHERS: tuple[tuple[bytes, str, str | None], ...] = (
    (b"PK\x03\x04", "is a zip archive, such as torch.save writes (.pt)", "pickles can run code and are not loaded"),
    *((bytes((128, n)), "is a pickle", "pickles can run code and are not loaded") for n in range(2, 6)),
    (b"\x89HDF", "is an HDF5 file", None),
    (b"version https://git-lfs", "is a Git LFS pointer, not the file itself", "git lfs pull"),
)


@dataclass(frozen=True)
class Header:
    """What a checkpoint says of its weights.

    Attributes:
        architecture: the network they belong to.
        classes: names, in the order of the logits.
        preprocess: what ``Preprocess.from_dict`` reads.
        metrics: ``loss``, ``accuracy`` and ``f1`` on the validation pictures, and what else was measured.
        recipe: the training values, as ``Recipe`` takes them.
        data: the source of the pictures, how they were split, and under ``training`` what the training depended on
            beside them: ``fraction`` and ``seed`` of the share it had, ``kept_by``, ``device`` and ``threads``.
        epoch: the one whose weights these are, from 1.
        versions: of archtuna, torch and, where it is installed, Optuna when the file was written.
        trial: number and values in the study, or None.
    """

    architecture: Architecture
    classes: tuple[str, ...]
    preprocess: dict[str, Any]
    metrics: dict[str, float]
    recipe: dict[str, Any]
    data: dict[str, Any]
    epoch: int
    versions: dict[str, str]
    trial: dict[str, Any] | None

    def open_data(self, given: Any = None) -> Data:
        """Open the pictures that were given, or else those that the weights were trained on.

        Raises:
            DataError: there are none of either, or they are no image set.
        """
        from archtuna.data import Data

        source = given if given is not None else self.data.get("source")
        if source is None:
            raise DataError("the checkpoint does not say where its pictures were", hint="name them with --data")
        return Data.open(source)

    def images(self, data: Data) -> tuple[Images, Preprocess]:
        """Return pictures as the network takes them, and the preprocessing that normalises them.

        Raises:
            DataError: the preprocessing makes no sense.
        """
        from archtuna.data import Preprocess

        made = Preprocess.from_dict(self.preprocess)
        return data.images(made.size, channels=made.channels, fit=made.fit, via=made.via), made


def save(
    path: str | Place,
    model: nn.Module,
    *,
    classes: Sequence[str],
    preprocess: Preprocess,
    metrics: Mapping[str, float],
    recipe: Recipe,
    data: Mapping[str, Any],
    epoch: int,
    trial: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint; the file is there as a whole or as it was before.

    The same arguments give the same bytes.

    Args:
        path: a file, whose folder is made where it is missing, or a URL such as ``s3://bucket/17.safetensors``.
        model: has an ``architecture``, as what ``build`` returns.
        classes: names, in the order of the logits.
        preprocess: from a picture to the network's input.
        metrics: on the validation pictures, finite.
        recipe: the training values.
        data: what rebuilds the split: its ``to_dict()``, and ``source``.
        epoch: the one whose weights these are, from 1.
        trial: number and values in the study.

    Raises:
        CheckpointError: the file cannot be written, or something in it cannot be stored.
    """
    from safetensors.torch import save as to_bytes

    path = place_of(path)
    described = {
        "format": FORMAT,
        "classes": list(classes),
        "preprocess": preprocess.to_dict(),
        "metrics": dict(metrics),
        "recipe": recipe.to_dict(),
        "data": dict(data),
        "epoch": epoch,
        "versions": versions(),
        "trial": None if trial is None else dict(trial),
    }
    try:
        ordered = json.loads(json.dumps(described, sort_keys=True, allow_nan=False, default=_plain))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: what describes the weights cannot be stored ({error})") from error
    # Rows are not sorted: their arguments are shown in the order of a block's signature.
    text = json.dumps({"architecture": _architecture_of(model).to_dict()} | ordered)
    # One key: the order of several would vary, and with it the bytes.
    content = to_bytes(_tensors(model), metadata={"archtuna": text})
    try:
        write_atomically(path, content)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be written ({error.strerror or error})", hint="what stood there before is untouched"
        ) from error


def read_header(path: str | Place) -> Header:
    """Return what a checkpoint says of its weights, without torch and without reading them.

    Raises:
        CheckpointError: the file is missing, damaged, no checkpoint, or of a newer archtuna.
    """
    path = place_of(path)
    with _opened(path) as file:
        return _described(path, _read_table(path, file)[0])


def load(path: str | Place, *, device: str = "cpu") -> Network:
    """Return the network of a checkpoint in evaluation mode, with its weights.

    It has ``.architecture``, ``.classes``, ``.preprocess`` and ``.metrics``. No code from the file is run.

    Args:
        path: a file that ``save`` wrote, or the URL of one.
        device: where the network goes.

    Raises:
        CheckpointError: the file is missing, damaged, no checkpoint, or its network does not build here.
    """
    import torch

    from archtuna.model import build

    path = place_of(path)
    header, tensors = _read(path)
    try:
        # Initial weights are overwritten: drawing them must not move the caller's random state.
        with torch.random.fork_rng(devices=[]):
            model = build(header.architecture, pretrained=False)
    except UnknownNameError as error:
        raise CheckpointError(f"{path}: its network does not build here: {error.message}", hint=error.hint) from error
    except (ArchtunaError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{path}: its network does not build here: {error}") from error
    _fill(path, model, header, tensors)
    return model.to(device).eval()


def load_into(model: nn.Module, path: str | Place) -> Header:
    """Put the weights of a checkpoint into a network of the same architecture, and return what the file says of them.

    The network gets ``.classes``, ``.preprocess`` and ``.metrics`` as from ``load``; it keeps its device and mode.

    Raises:
        CheckpointError: the architectures differ (the text lists the rows), or the file is no checkpoint.
    """
    path = place_of(path)
    header, tensors = _read(path)
    lines = _architecture_of(model).differences(header.architecture)
    if lines:
        raise CheckpointError(
            "\n".join([f"{path}: its weights are of another architecture", *_shortened(lines)]),
            hint="archtuna.load(path) builds the network that the file belongs to",
        )
    _fill(path, model, header, tensors)
    return header


def _architecture_of(model: nn.Module) -> Architecture:
    architecture = getattr(model, "architecture", None)
    if not isinstance(architecture, Architecture):
        raise CheckpointError(
            f"{type(model).__name__} has no architecture", hint="build networks with archtuna.build(architecture)"
        )
    return architecture


def _tensors(model: nn.Module) -> dict[str, Any]:
    """Return copies of the model's state in plain layout: safetensors takes no views and no shared memory."""
    import torch

    state = model.state_dict()
    strange = [name for name, value in state.items() if not isinstance(value, torch.Tensor)]
    if strange:
        raise CheckpointError(f"'{strange[0]}' in the state dict is no tensor and cannot be stored")
    return {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format).contiguous()
        for name, tensor in state.items()
    }


def versions() -> dict[str, str]:
    """Return the versions of what makes checkpoints and studies, as far as they are installed."""
    found = {}
    for name in VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            # Optuna is not needed to train, and a source tree need not be installed.
            continue
    return found


def _plain(value: Any) -> Any:
    """Turn NumPy's numbers and arrays, and paths, into what JSON has."""
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} {value!r}")


@contextmanager
def _opened(path: Place) -> Iterator[BinaryIO]:
    try:
        with answering(path), path.open("rb") as file:
            yield file
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no such file", hint="archtuna front RUN lists checkpoints") from None
    except IsADirectoryError:
        raise CheckpointError(f"{path}: is a folder", hint="name one .safetensors file in it") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error


def _read_table(path: Place, file: BinaryIO) -> tuple[str, dict[str, Any]]:
    """Return the text of our metadata and the table of tensors from the head of a safetensors file.

    The form: 8 bytes, little-endian, with the length of the JSON that follows; then the tensors, end to end.
    """
    size = file.seek(0, 2)
    file.seek(0)
    start = file.read(8)
    if size == 0:
        raise CheckpointError(f"{path}: is empty", hint="it was not written by archtuna, which writes whole files only")
    length = int.from_bytes(start, "little")
    if size < 8 or length > min(MAX_HEADER, size - 8):
        raise _no_checkpoint(path, start, file)
    try:
        table = json.loads(file.read(length))
        described = table.pop("__metadata__", {}).get("archtuna")
        end = max((int(entry["data_offsets"][1]) for entry in table.values()), default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        raise _no_checkpoint(path, start, file) from None
    if not isinstance(described, str):
        raise CheckpointError(
            f"{path}: is a safetensors file, but not one of archtuna's: it says nothing of its architecture",
            hint="build the network and load the weights yourself with safetensors.torch.load_file",
        )
    if 8 + length + end != size:
        raise CheckpointError(f"{path}: is damaged: {size:,} bytes long instead of {8 + length + end:,}", hint=DAMAGED)
    return described, table


def _no_checkpoint(path: Place, start: bytes, file: BinaryIO) -> CheckpointError:
    file.seek(0)
    start = file.read(32)
    for magic, words, hint in _OTHERS:
        if start.startswith(magic):
            return CheckpointError(f"{path}: is no checkpoint: it {words}", hint=hint)
    if path.suffix == ".onnx":
        return CheckpointError(f"{path}: is an export, not a checkpoint", hint="run it with onnxruntime")
    return CheckpointError(f"{path}: is no checkpoint, or a damaged one", hint="archtuna's are .safetensors files")


def _described(path: Place, text: str) -> Header:
    try:
        plain = json.loads(text)
        if int(plain["format"]) > FORMAT:
            raise CheckpointError(
                f"{path}: is of format {plain['format']}, this archtuna reads up to {FORMAT}",
                hint="pip install --upgrade archtuna",
            )
        architecture = Architecture.from_dict(plain["architecture"])
        header = Header(
            architecture=architecture,
            classes=tuple(str(name) for name in plain["classes"]),
            preprocess=dict(plain["preprocess"]),
            metrics={str(name): float(value) for name, value in plain["metrics"].items()},
            recipe=dict(plain["recipe"]),
            data=dict(plain["data"]),
            epoch=int(plain["epoch"]),
            versions=dict(plain["versions"]),
            trial=None if plain["trial"] is None else dict(plain["trial"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: is damaged: {type(error).__name__}: {error}", hint=DAMAGED) from error
    # A file may claim anything: a repeat of a billion would keep the reader busy for hours.
    if not all(0 < row.repeat <= MAX_UNITS for row in architecture.rows) or len(architecture.rows) > MAX_UNITS:
        raise CheckpointError(f"{path}: is damaged: its architecture has impossible repeats", hint=DAMAGED)
    return header


def _read(path: Place) -> tuple[Header, dict[str, Any]]:
    """Return header and tensors from one reading: a file that is replaced meanwhile is one or the other, not a mix."""
    from io import BytesIO

    from safetensors import SafetensorError
    from safetensors.torch import load as from_bytes

    with _opened(path) as file:
        content = file.read()
    header = _described(path, _read_table(path, BytesIO(content))[0])
    try:
        return header, from_bytes(content)
    except (SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: is damaged ({error})", hint=DAMAGED) from error


def _fill(path: Place, model: nn.Module, header: Header, tensors: Mapping[str, Any]) -> None:
    """Copy the tensors into the model, when each of them fits, and hang on it what the file says."""
    from archtuna.data import Preprocess

    lines = _mismatches(model.state_dict(), tensors)
    if lines:
        raise CheckpointError(
            "\n".join([f"{path}: its weights do not fit the architecture it carries", *_shortened(lines)]),
            hint="the file was changed after archtuna wrote it, or a block was",
        )
    try:
        preprocess = Preprocess.from_dict(header.preprocess)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: is damaged: its preprocessing cannot be read ({error})", hint=DAMAGED
        ) from error
    model.load_state_dict(dict(tensors))
    for name, value in {"classes": header.classes, "preprocess": preprocess, "metrics": header.metrics}.items():
        setattr(model, name, value)


def _mismatches(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    lines = [f"{name}: missing in the file" for name in wanted if name not in found]
    lines += [f"{name}: unknown to the network" for name in found if name not in wanted]
    for name in (n for n in wanted if n in found):
        for what in ("shape", "dtype"):
            here, there = getattr(wanted[name], what), getattr(found[name], what)
            if here != there:
                lines.append(f"{name}: {what} {_words(here)} in the network, {_words(there)} in the file")
    return lines


def _words(value: Any) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value).removeprefix("torch.")


def _shortened(lines: Sequence[str]) -> list[str]:
    """Return the first lines, indented, and how many there are beyond them."""
    shown = [f"  {line}" for line in lines[:SHOWN]]
    return shown if len(lines) <= SHOWN else [*shown, f"  and {len(lines) - SHOWN:,} more"]
