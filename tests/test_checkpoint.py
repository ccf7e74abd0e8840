import dataclasses
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import archtuna.files
from archtuna.architecture import Architecture, Row
from archtuna.checkpoint import load, load_into, read_header, save
from archtuna.data import Batches, Data, Preprocess
from archtuna.errors import CheckpointError
from archtuna.model import Network, build
from archtuna.recipe import Recipe
from archtuna.training import train

PREPROCESS = Preprocess((8, 8), 3, "resize", None, (0.5, 0.4, 0.3), (0.2, 0.2, 0.1))
METRICS = {"loss": 0.25, "accuracy": 0.875, "f1": 0.8123456789012345}
DATA = {"source": "digits", "seed": 0, "val": 0.15, "test": 0.15, "fingerprint": "0123456789abcdef"}


def architecture(channels: int = 8) -> Architecture:
    conv = {"kernel": 3, "stride": 2, "padding": 1, "groups": 1, "activation": "Hardswish"}
    head = (
        Row("GlobalAvgPool", {"output_size": 1}),
        Row("Flatten"),
        Row("Linear", {"features": 3, "activation": None}),
    )
    return Architecture(
        (Row("Conv", {"channels": channels, **conv}), Row("Conv", {"channels": 16, **conv}), *head), 3, (8, 8)
    )


def network(channels: int = 8) -> Network:
    """A network whose batch norms have seen data."""
    torch.manual_seed(5)
    model = build(architecture(channels))
    with torch.no_grad():
        model.train()(torch.randn(16, 3, 8, 8))
    return model


def write(path: Path, model: nn.Module | None = None, **values: object) -> Path:
    wanted = {"classes": ("glass", "metal", "paper"), "preprocess": PREPROCESS, "metrics": METRICS, "recipe": Recipe(),
              "data": DATA, "epoch": 7, "trial": {"number": 3}} | values  # fmt: skip
    save(path, model or network(), **wanted)  # type: ignore[arg-type]
    return path


def changed(path: Path, *, described: dict[str, object] | None = None, **tensors: torch.Tensor | None) -> Path:
    """Write the checkpoint again with other tensors (None drops one) or another description."""
    length = int.from_bytes(path.read_bytes()[:8], "little")
    text = json.loads(path.read_bytes()[8 : 8 + length])["__metadata__"]["archtuna"]
    state = {**safetensors.torch.load_file(path), **tensors}
    if described is not None:
        text = json.dumps(json.loads(text) | described)
    kept = {name: tensor for name, tensor in state.items() if tensor is not None}
    path.write_bytes(safetensors.torch.save(kept, metadata={"archtuna": text}))
    return path


def test_what_is_loaded_is_what_was_saved(tmp_path: Path) -> None:
    model = network()
    loaded = load(write(tmp_path / "a.safetensors", model))
    assert not loaded.training
    assert loaded.architecture == model.architecture
    assert loaded.classes == ("glass", "metal", "paper")
    assert loaded.preprocess == PREPROCESS
    assert loaded.metrics == METRICS
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    x = torch.randn(4, 3, 8, 8)
    assert torch.equal(loaded(x), model.eval()(x))
    assert all(p.requires_grad for p in loaded.parameters())


def test_a_loaded_network_can_be_trained_on(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors")
    before = path.read_bytes()
    model = load(path).train()
    model(torch.randn(4, 3, 8, 8)).sum().backward()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    assert path.read_bytes() == before


def test_loading_leaves_the_random_state_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors")
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    load(path)
    assert torch.equal(torch.rand(1), expected)


def test_the_header_tells_everything(tmp_path: Path) -> None:
    header = read_header(write(tmp_path / "a.safetensors"))
    assert header.architecture == architecture()
    assert header.preprocess == PREPROCESS.to_dict()
    assert header.metrics == METRICS
    assert Recipe(**header.recipe) == Recipe()
    assert header.data == DATA
    assert (header.epoch, header.trial) == (7, {"number": 3})
    assert header.versions["torch"] == torch.__version__
    assert {"archtuna", "torch"} <= header.versions.keys()


def test_the_header_is_read_without_torch(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors")
    code = (
        "import sys; from archtuna.checkpoint import read_header; print(read_header(sys.argv[1]).epoch);"
        "assert not {'torch', 'optuna', 'safetensors'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("7\n", "")


def test_numpy_values_and_paths_are_stored_as_plain_ones(tmp_path: Path) -> None:
    metrics = {"loss": np.float32(0.5), "n": np.int64(3)}
    header = read_header(
        write(tmp_path / "a.safetensors", metrics=metrics, data={"source": Path("x"), "n": np.arange(2)})
    )
    assert header.metrics == {"loss": 0.5, "n": 3.0}
    assert header.data == {"source": "x", "n": [0, 1]}


@pytest.mark.parametrize("bad", [float("nan"), object()])
def test_what_json_has_not_is_refused(tmp_path: Path, bad: object) -> None:
    with pytest.raises(CheckpointError, match="what describes the weights cannot be stored"):
        write(tmp_path / "a.safetensors", metrics={"loss": bad})
    assert not list(tmp_path.iterdir())


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    one = write(tmp_path / "a.safetensors").read_bytes()
    reordered = dict(reversed(METRICS.items()))
    assert write(tmp_path / "b.safetensors", metrics=reordered).read_bytes() == one


def test_layout_and_sharing_of_tensors_do_not_matter(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.safetensors").read_bytes()
    model = network().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert not model.state_dict()["layers.0.0.weight"].is_contiguous()
    assert write(tmp_path / "b.safetensors", model).read_bytes() == plain
    model.layers[1][1].bias = model.layers[1][1].weight
    with torch.no_grad():
        model.layers[1][1].weight.fill_(0.5)
    loaded = load(write(tmp_path / "c.safetensors", model))
    assert torch.equal(loaded.layers[1][1].bias, torch.full((16,), 0.5))  # type: ignore[union-attr, index]


def test_tensors_that_are_views_are_stored_alone(tmp_path: Path) -> None:
    model = network()
    whole = torch.randn(1000, 16)
    model.layers[4].linear.weight = nn.Parameter(whole[10:13])
    path = write(tmp_path / "a.safetensors", model)
    assert path.stat().st_size < 20_000
    assert torch.equal(load(path).layers[4].linear.weight, whole[10:13])  # type: ignore[union-attr, arg-type]


def test_a_model_without_an_architecture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"Linear has no architecture\nhint: build networks"):
        write(tmp_path / "a.safetensors", nn.Linear(2, 3))


def test_a_state_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    class Odd(Network):
        def get_extra_state(self) -> object:
            return "text"

        def set_extra_state(self, state: object) -> None: ...

    with pytest.raises(CheckpointError, match="'_extra_state' in the state dict is no tensor"):
        write(tmp_path / "a.safetensors", Odd(architecture()))


# Into another network


def test_load_into_fills_a_network_of_the_same_architecture(tmp_path: Path) -> None:
    path, model = write(tmp_path / "a.safetensors"), build(architecture())
    header = load_into(model, path)
    assert header.epoch == 7
    assert model.training
    assert model.metrics == METRICS
    assert torch.equal(model.state_dict()["layers.0.0.weight"], network().state_dict()["layers.0.0.weight"])


def test_another_architecture_is_refused_with_the_rows_that_differ(tmp_path: Path) -> None:
    path, model = write(tmp_path / "a.safetensors"), network(16)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match="its weights are of another architecture") as caught:
        load_into(model, path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert lines[1].startswith("  row 0: [1, Conv, {channels: 16,")
    assert "there" in lines[1]
    assert lines[2] == "hint: archtuna.load(path) builds the network that the file belongs to"
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


def test_a_long_list_of_differences_is_cut(tmp_path: Path) -> None:
    rows = (*(Row("Dropout", {"p": 0.1}) for _ in range(20)), *architecture().rows)
    with pytest.raises(CheckpointError, match="and 17 more") as caught:
        load_into(build(Architecture(rows, 3, (8, 8))), write(tmp_path / "a.safetensors"))
    assert len(str(caught.value).splitlines()) == 11


# Files that are none, or damaged


@pytest.mark.parametrize(
    ("tensors", "line"),
    [
        ({"layers.0.0.weight": None}, r"  layers\.0\.0\.weight: missing in the file"),
        ({"extra": torch.zeros(1)}, "  extra: unknown to the network"),
        (
            {"layers.4.linear.bias": torch.zeros(4)},
            r"  layers\.4\.linear\.bias: shape \[3\] in the network, \[4\] in the file",
        ),
        (
            {"layers.4.linear.bias": torch.zeros(3).half()},
            r"  layers\.4\.linear\.bias: dtype float32 in the network, float16 in the file",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path: Path, tensors: dict[str, torch.Tensor | None], line: str) -> None:
    path = changed(write(tmp_path / "a.safetensors"), **tensors)
    with pytest.raises(CheckpointError, match=rf"do not fit the architecture it carries\n{line}\nhint: the file was"):
        load(path)


def test_a_wall_of_mismatches_is_cut(tmp_path: Path) -> None:
    names = network().state_dict()
    path = changed(write(tmp_path / "a.safetensors"), **dict.fromkeys(names))
    with pytest.raises(CheckpointError, match=rf"and {len(names) - 8} more\nhint") as caught:
        load(path)
    assert len(str(caught.value).splitlines()) == 11


def files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Files that are no checkpoints, with what must be said of them."""
    found: dict[str, tuple[bytes | None, str]] = {
        "missing": (None, r"there is no such file\nhint: archtuna front"),
        "empty": (b"", r"is empty\nhint: it was not written by archtuna"),
        "short": (b"1234", "is no checkpoint, or a damaged one"),
        "noise": (bytes(range(256)) * 10, "is no checkpoint, or a damaged one"),
        "huge": ((10**15).to_bytes(8, "little") + b"{}", "is no checkpoint"),
        "pickle": (b"\x80\x04\x95" + bytes(100), r"it is a pickle\nhint: pickles can run code"),
        "lfs": (b"version https://git-lfs.github.com/spec/v1\n", r"Git LFS pointer[\s\S]*hint: git lfs pull"),
        "list": ((2).to_bytes(8, "little") + b"[]", "is no checkpoint"),
        "nested": ((200_000).to_bytes(8, "little") + b"[" * 200_000, "is no checkpoint"),
    }
    paths = {}
    for name, (content, words) in found.items():
        paths[name] = (folder / f"{name}.safetensors", words)
        if content is not None:
            paths[name][0].write_bytes(content)
    torch.save(network().state_dict(), folder / "torch.pt")
    paths["torch"] = (folder / "torch.pt", r"it is a zip archive, such as torch.save writes")
    safetensors.torch.save_file({"a": torch.zeros(2)}, folder / "other.safetensors")
    paths["other"] = (folder / "other.safetensors", r"not one of archtuna's[\s\S]*hint: build the network and load")
    (folder / "model.onnx").write_bytes(b"\x08\x0a\x12\x07pytorch")
    paths["onnx"] = (folder / "model.onnx", r"is an export, not a checkpoint\nhint: run it with onnxruntime")
    paths["folder"] = (folder, r"is a folder\nhint: name one")
    whole = write(folder / "whole.safetensors").read_bytes()
    for name, cut in {"tail": whole[:-5], "head": whole[:300], "longer": whole + b"x"}.items():
        paths[name] = (
            folder / f"{name}.safetensors",
            "is no checkpoint, or a damaged one" if name == "head" else "is damaged",
        )
        paths[name][0].write_bytes(cut)
    return paths


def test_other_files_are_refused_each_with_its_reason(tmp_path: Path) -> None:
    for name, (path, words) in files(tmp_path).items():
        for reader in (read_header, load):
            with pytest.raises(CheckpointError, match=words) as caught:
                reader(path)
            assert str(path) in str(caught.value), name


@pytest.mark.parametrize("byte", range(0, 4000, 97))
def test_a_flipped_byte_in_the_head_never_escapes_as_another_error(tmp_path: Path, byte: int) -> None:
    path = write(tmp_path / "a.safetensors")
    content = bytearray(path.read_bytes())
    content[byte] ^= 0xFF
    path.write_bytes(content)
    try:
        load(path)
    except CheckpointError as error:
        assert str(path) in str(error)


def test_an_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.safetensors")

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(CheckpointError, match=r"cannot be read \(Permission denied\)"):
        read_header(path)


@pytest.mark.parametrize(
    ("described", "words"),
    [
        ({"format": 2}, r"is of format 2, this archtuna reads up to 1\nhint: pip install --upgrade"),
        ({"metrics": 3}, "is damaged: AttributeError"),
        ({"architecture": {"format": 1}}, "this is not an architecture"),
        ({"preprocess": {"size": [8, 8]}}, "its preprocessing cannot be read"),
        ({"epoch": float("inf")}, "is damaged: OverflowError"),
        ({"format": float("inf")}, "is damaged: OverflowError"),
        ({"architecture": {**architecture().to_dict(), "input_size": [float("inf")] * 2}}, "is damaged: OverflowError"),
        (
            {
                "preprocess": {
                    "size": [float("inf")] * 2,
                    "channels": 3,
                    "fit": "pad",
                    "via": None,
                    "mean": [],
                    "std": [],
                }
            },
            "its preprocessing cannot be read",
        ),
    ],
)
def test_a_description_that_makes_no_sense_is_refused(tmp_path: Path, described: dict[str, object], words: str) -> None:
    path = changed(write(tmp_path / "a.safetensors"), described=described)
    with pytest.raises(CheckpointError, match=words):
        load(path)


def test_an_impossible_repeat_is_refused_at_once(tmp_path: Path) -> None:
    plain = architecture().to_dict()
    plain["backbone"][0][0] = 10**12
    path = changed(write(tmp_path / "a.safetensors"), described={"architecture": plain})
    with pytest.raises(CheckpointError, match="impossible repeats"):
        read_header(path)


def test_a_block_that_is_not_registered_here_is_named(tmp_path: Path) -> None:
    plain = architecture().to_dict()
    plain["backbone"][0][1] = "Konv"
    path = changed(write(tmp_path / "a.safetensors"), described={"architecture": plain})
    with pytest.raises(CheckpointError, match=r"its network does not build here: no block is named 'Konv'"):
        load(path)


# Writing


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    path = write(tmp_path / "a.safetensors")
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archtuna.files.os, step, full)
    with pytest.raises(CheckpointError, match=r"cannot be written \(No space left on device\)\nhint: what stood there"):
        write(path, epoch=8)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_device_that_is_full_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = open
    monkeypatch.setattr(
        "builtins.open",
        lambda path, mode="r", *rest: real("/dev/full", "wb") if mode == "xb" else real(path, mode, *rest),
    )
    with pytest.raises(CheckpointError, match="cannot be written"):
        write(tmp_path / "a.safetensors")


def test_the_folder_is_made_and_the_file_is_readable_by_others(tmp_path: Path) -> None:
    path = write(tmp_path / "run" / "checkpoints" / "3.safetensors")
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        write(tmp_path / "file" / "a.safetensors")


def test_headers_are_frozen(tmp_path: Path) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError, match="epoch"):
        read_header(write(tmp_path / "a.safetensors")).epoch = 3  # type: ignore[misc]


EVALUATE = """
import json, sys
from archtuna.checkpoint import load, read_header
from archtuna.data import Batches, Data, Split
from archtuna.training import evaluate_batches

header, model = read_header(sys.argv[1]), load(sys.argv[1])
data = Data.open(header.data["source"])
split, p = Split.from_dict(header.data, data), model.preprocess
images = data.images(p.size, channels=p.channels, fit=p.fit, via=p.via)
batches = Batches(images, split.val, p, batch_size=header.recipe["batch_size"])
print(json.dumps([header.metrics, evaluate_batches(model, batches, classes=len(model.classes), device="cpu")]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_fresh_process_measures_what_the_training_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ema: float
) -> None:
    monkeypatch.setenv("ARCHTUNA_CACHE", str(tmp_path / "cache"))
    data, recipe = Data.open("digits"), Recipe(epochs=3, batch_size=32, ema=ema)
    split, images = data.split(seed=1), data.images((8, 8), channels=3)
    preprocess = Preprocess.of(images, split.train)
    training = Batches(images, split.train, preprocess, batch_size=32, recipe=recipe, channels_last=True)
    validation = Batches(images, split.val, preprocess, batch_size=32, channels_last=True)
    plain = architecture().to_dict()
    plain["backbone"][-1][2]["features"] = 10
    torch.manual_seed(0)
    model = build(Architecture.from_dict(plain))
    for epoch in train(model, training, validation, recipe, classes=10, device="cpu"):
        # The second epoch is kept, and the training goes on.
        if epoch.number == 2:
            kept, metrics = {name: tensor.clone() for name, tensor in epoch.weights().items()}, epoch.metrics
    model.load_state_dict(kept)
    path = write(
        tmp_path / "a.safetensors", model, classes=data.classes, preprocess=preprocess, metrics=metrics, recipe=recipe,
        data={"source": data.source, **split.to_dict()}, epoch=2,
    )  # fmt: skip
    done = subprocess.run([sys.executable, "-c", EVALUATE, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    stored, found = json.loads(done.stdout)
    assert stored == metrics
    assert found == pytest.approx(metrics, abs=1e-6)
