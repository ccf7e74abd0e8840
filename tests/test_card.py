import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from markdown_it import MarkdownIt
from safetensors.torch import load_file

import archtuna as at
from archtuna.architecture import Architecture, Row
from archtuna.card import SECTIONS, card
from archtuna.card.quality import _confusions
from archtuna.card.reproduction import commands, doubts, search_file
from archtuna.card.subject import Answers
from archtuna.checkpoint import read_header, save
from archtuna.cli import main
from archtuna.data import Data, Preprocess
from archtuna.errors import CheckpointError, DataError
from archtuna.final import evaluate_checkpoint, train_in_full
from archtuna.latency import Device, Latency
from archtuna.model import build
from archtuna.recipe import Recipe
from archtuna.space import SearchSpace
from pictures import folder, photograph

# Pictures go through 16 pixels on their way to 12, and a rate is one that YAML's own readers take for a text.
SPACE = """
input_size: 12|16
backbone:
  - [1, Conv, {channels: 8, kernel: 3, stride: 2}]
  - [1, GlobalAvgPool, []]
  - [1, Flatten, []]
  - [1, Linear, [3]]
training: {epochs: 2, batch_size: 16, optimizer: adamw, lr: 0.02, weight_decay: 0.00001, seed: 3}
objectives: [loss, params]
data: {split_seed: 5, test: 0.2}
"""

MEASURED = Latency(
    ms=1.5, low=1.25, high=1.75, spread=0.01, rounds=31, reference_ms=2.0, drift=0.02, ratio=0.75,
    device=Device("A|B processor", "onnxruntime 1.23", "CPUExecutionProvider", 1, 1, "Linux x86_64"),
)  # fmt: skip


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A search of two networks on half of the training pictures, and the place of its run."""
    root = tmp_path_factory.mktemp("card")
    study = at.search(SPACE, folder(root / "photos"), out=root / "run", trials=2, fraction=0.5, seed=7)
    return study, root


@pytest.fixture(scope="module")
def checkpoint(searched):
    return searched[0].candidate(0).checkpoint


@pytest.fixture(scope="module")
def text(checkpoint):
    return card(checkpoint)


def body(text):
    return text.split("---\n", 2)[2]


def parsed(text):
    return MarkdownIt("gfm-like", {"linkify": False}).parse(body(text))


def read(text):
    """What a reader sees, one line a run of text."""
    return ["".join(child.content for child in t.children or ()) for t in parsed(text) if t.type == "inline"]


def fences(text):
    return {token.info: token.content for token in parsed(text) if token.type == "fence"}


def test_its_front_matter_is_what_a_hub_reads(text, checkpoint):
    _, front, _ = text.split("---\n", 2)
    found = yaml.safe_load(front)
    assert "license" not in found
    assert found["pipeline_tag"] == "image-classification"
    (result,) = found["model-index"][0]["results"]
    assert (result["dataset"]["name"], result["dataset"]["split"]) == ("photos", "test")
    metrics = evaluate_checkpoint(checkpoint, split="test")
    assert {one["type"]: one["value"] for one in result["metrics"]} == {
        name: pytest.approx(metrics[name], abs=1e-6) for name in ("accuracy", "f1")
    }


def test_it_has_its_sections_in_order_and_every_table_is_one(text):
    tokens = parsed(text)
    heads = [tokens[i + 1].content for i, t in enumerate(tokens) if t.type == "heading_open"]
    assert heads == [
        "photos, network 0", "Intended use", "Data", "Metrics", "By class, on test pictures", "Limits", "Costs", "Training",
        "Provenance", "Training it again",
    ]  # fmt: skip
    assert [t.type for t in tokens].count("table_open") == 6
    assert all("|" not in line for line in read(text))
    assert len(SECTIONS) == 10


def test_its_figures_are_those_of_the_checkpoint_and_its_pictures(text, checkpoint, searched):
    seen = read(text)
    for split in ("val", "test"):
        found = evaluate_checkpoint(checkpoint, split=split)
        assert any(line.startswith(f"{found['accuracy']:.4f} (") for line in seen)
        assert any(line.startswith(f"{found['f1']:.4f} (") for line in seen)
        assert f"{found['loss']:.4f}" in seen
    study = searched[0]
    split = study.split(study.data())
    place = seen.index("all")
    assert seen[place : place + 4] == ["all", *(f"{len(part)}" for part in (split.train, split.val, split.test))]
    assert hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest() in seen
    assert read_header(checkpoint).architecture.key in seen
    assert any("trained on a stratified share of 0.5" in line for line in seen)
    assert any("by way of 16 x 16" in line for line in seen)
    assert any("by their loss the epoch" in line for line in seen)


def test_it_promises_the_same_bits_where_nothing_stands_against_that(text):
    assert any("they come out again to the last bit" in line for line in read(text))


def test_it_names_no_folder_of_this_machine(text, searched):
    assert str(searched[1]) not in text


@pytest.mark.slow
@pytest.mark.parametrize("full", [False, True], ids=["of a search", "trained in full"])
def test_its_commands_train_the_same_weights_again(searched, checkpoint, full, tmp_path):
    study, root = searched
    wanted = train_in_full(study, 0, epochs=3).checkpoint if full else checkpoint
    code = fences(card(wanted))
    (tmp_path / "network.yaml").write_text(code["yaml"])
    (tmp_path / "photos").symlink_to(root / "photos")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(["bash", "-ec", code["sh"]], cwd=tmp_path, env={**os.environ, "PATH": path}, check=True)
    again = tmp_path / "reproduced" / "checkpoints" / "0.safetensors"
    assert read_header(again).metrics == read_header(wanted).metrics
    assert read_header(again).architecture == read_header(wanted).architecture
    ours, theirs = load_file(again), load_file(wanted)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_its_file_is_the_network_with_its_training_values_and_its_split(checkpoint):
    header = read_header(checkpoint)
    space = SearchSpace.read(search_file(header))
    assert space.default().architecture == header.architecture
    assert space.default().recipe == Recipe(**header.recipe)
    assert space.largest_input_size() == (16, 16)
    assert space.settings.data == {"val": 0.15, "test": 0.2, "split_seed": 5, "fraction": 0.5, "fit": "resize"}
    assert space.settings.objectives == ("loss",)


@pytest.mark.parametrize("via", [None, (24, 32), (24, 20)])
def test_its_file_decodes_pictures_to_the_size_that_training_did(checkpoint, via):
    header = read_header(checkpoint)
    wide = replace(header.architecture, input_size=(16, 20))
    preprocess = {**header.preprocess, "size": [16, 20], "via": via}
    space = SearchSpace.read(search_file(replace(header, architecture=wide, preprocess=preprocess)))
    assert space.default().architecture.input_size == (16, 20)
    assert space.largest_input_size() == (via or (16, 20))


# --- what is not known ------------------------------------------------------------------------------


def a_checkpoint(place, data, *, classes=None, source=None, architecture=None, **more):
    """A network that nobody trained, with the split of these pictures."""
    classes = classes or data.classes
    rows = (
        Row("GlobalAvgPool", {"output_size": 1}),
        Row("Flatten"),
        Row("Linear", {"features": len(classes), "activation": None}),
    )
    torch.manual_seed(0)
    model = build(architecture or Architecture(rows, 3, (8, 8)))
    values = {**data.split(val=0.2, test=0.2).to_dict(), "source": source or data.source, **more}
    preprocess = Preprocess((8, 8), 3, "pad", None, (0.5,) * 3, (0.25,) * 3)
    metrics = {"loss": 1.0, "accuracy": 0.25, "f1": 0.125}
    save(place, model, classes=classes, preprocess=preprocess, metrics=metrics, recipe=Recipe(), data=values, epoch=1)
    return place


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return Data.open(folder(tmp_path_factory.mktemp("pictures") / "photos", each=10))


def test_without_its_pictures_a_card_has_what_was_recorded(tmp_path, photos):
    place = a_checkpoint(tmp_path / "a.safetensors", photos, source="/gone/photos")
    seen = read(card(place))
    assert any("They were not where they had been when this card was written" in line for line in seen)
    assert seen[seen.index("validation, as recorded") + 1 :][:2] == ["accuracy", "0.2500"]
    assert "Classes: dots, stripes, waves." in seen
    assert not any(line.startswith("By class") for line in seen)


def test_pictures_that_changed_are_not_taken_for_those_of_training(tmp_path, photos):
    other = folder(tmp_path / "photos", each=9)
    place = a_checkpoint(tmp_path / "a.safetensors", photos, source=str(other))
    assert any(
        "were other ones: the figures are those that the checkpoint recorded" in line for line in read(card(place))
    )
    with pytest.raises(DataError, match="the pictures are not those that were split"):
        card(place, data=other)


def test_pictures_that_moved_are_found_where_somebody_says(tmp_path, photos):
    place = a_checkpoint(tmp_path / "a.safetensors", photos, source="/gone/photos")
    assert "By class, on test pictures" in read(card(place, data=photos))


def test_without_test_pictures_validation_reports_and_a_card_says_so(tmp_path, photos):
    split = photos.split(val=0.2, test=0).to_dict()
    seen = read(card(a_checkpoint(tmp_path / "a.safetensors", photos, **split)))
    assert "There are no test pictures." in seen
    assert "By class, on validation pictures" in seen


def test_what_an_older_checkpoint_did_not_record_is_said(tmp_path, photos):
    place = a_checkpoint(tmp_path / "a.safetensors", photos)
    seen = read(card(place))
    assert any("It was not part of a search." in line for line in seen)
    assert any("which metric chose the epoch, was not recorded" in line for line in seen)
    assert seen[seen.index("trained on") + 1] == "not recorded"
    assert "OMP_NUM_THREADS" not in commands(read_header(place))


def test_a_checkpoint_that_somebody_saved_with_hardly_anything_has_a_card(tmp_path, photos):
    header = read_header(a_checkpoint(tmp_path / "a.safetensors", photos))
    model = at.load(tmp_path / "a.safetensors")
    save(tmp_path / "b.safetensors", model, classes=header.classes, preprocess=model.preprocess, metrics={}, recipe=Recipe(),
         data={"val": 0.1}, epoch=1)  # fmt: skip
    text = card(tmp_path / "b.safetensors")
    assert "model-index" not in yaml.safe_load(text.split("---\n", 2)[1])
    assert any("How its pictures were split was not recorded (seed, test)" in line for line in read(text))


def test_what_makes_another_training_differ_is_said(tmp_path, photos):
    conditions = {"fraction": 1.0, "seed": 0, "kept_by": "f1", "device": "cuda:0", "threads": 4}
    header = read_header(a_checkpoint(tmp_path / "a.safetensors", photos, training=conditions))
    assert doubts(header) == [
        "It was trained on cuda:0: another training comes near these figures, and not to the same bits."
    ]
    rows = (*header.architecture.rows, Row("PreTrained", {"model": "resnet18", "pretrained": True}))
    foreign = replace(header, architecture=Architecture(rows, 3, (8, 8), {"Squeeze": "my blocks"}))
    assert len(doubts(foreign)) == 3
    assert commands(foreign).count("--import 'my blocks'") == 2
    on_cpu = replace(header, data={**header.data, "training": {**conditions, "device": "cpu"}})
    assert doubts(on_cpu) == []
    assert not any("to the last bit" in line for line in read(card(tmp_path / "a.safetensors")))


def test_a_file_that_is_no_checkpoint_is_the_checkpoints_error(tmp_path):
    with pytest.raises(CheckpointError, match="there is no such file"):
        card(tmp_path / "none.safetensors")


# --- names, intervals, classes ----------------------------------------------------------------------


def test_names_of_any_kind_stay_text(tmp_path):
    names = ("# one|two", "```", "<b>three\nlines</b>", "[x](y)\u202e", "*")
    for kind, name in enumerate(names):
        (tmp_path / "a|b `c`\n<i>" / name.replace("/", "\u2044")).mkdir(parents=True)
        for seed in range(6):
            photograph(kind % 3, seed).save(tmp_path / "a|b `c`\n<i>" / name.replace("/", "\u2044") / f"{seed}.png")
    data = Data.open(tmp_path / "a|b `c`\n<i>")
    place = a_checkpoint(tmp_path / "a.safetensors", data, architecture=None)
    text = card(place)
    front = yaml.safe_load(text.split("---\n", 2)[1])
    assert front["model-index"][0]["results"][0]["dataset"]["name"] == "a|b `c`\n<i>"
    seen = read(text)
    for name in data.classes:
        assert seen.count(" ".join(name.replace("\u202e", "\ufffd").split())) == 2, name
    assert seen[0].startswith("a|b `c` <i>, network ")
    tokens = parsed(text)
    assert [t.type for t in tokens].count("table_open") == 6
    assert not [
        t
        for t in tokens
        if "html" in t.type or any("html" in c.type or c.type == "link_open" for c in t.children or ())
    ]
    assert "--data 'a|b `c`\n<i>'" in fences(text)["sh"]


def test_classes_with_few_pictures_and_pairs_that_are_mistaken_are_named(text):
    seen = read(text)
    assert any(line.startswith("Fewer than 20 test pictures") and "dots, stripes, waves" in line for line in seen)
    matrix = np.array([[5, 2, 0], [7, 1, 0], [0, 0, 4]])
    assert _confusions(("a", "b", "c"), Answers("test", matrix, 0.0)) == [
        "- b was taken for a in 7 of 8 test pictures.",
        "- a was taken for b in 2 of 7 test pictures.",
    ]


def test_a_latency_is_told_with_its_device(checkpoint):
    (line,) = [line for line in read(card(checkpoint, latency=MEASURED)) if line.startswith("1.500 ms")]
    assert "1.250 to 1.750, median and 95% interval of 31 rounds" in line
    assert "on A|B processor, Linux x86_64, with onnxruntime 1.23" in line
    assert MEASURED.device.fingerprint in line


def test_a_latency_that_the_search_measured_is_told_with_its_device(checkpoint, tmp_path):
    model, header = at.load(checkpoint), read_header(checkpoint)
    save(
        tmp_path / "a.safetensors", model, classes=header.classes, preprocess=model.preprocess, metrics=header.metrics,
        recipe=Recipe(**header.recipe), data=header.data, epoch=header.epoch,
        trial={"number": 1, "latencies": {"pi4": MEASURED.to_dict()}},
    )  # fmt: skip
    written = card(tmp_path / "a.safetensors")
    (line,) = [line for line in read(written) if line.startswith("1.500 ms")]
    assert MEASURED.device.fingerprint in line
    assert "latencies" not in written


# --- the command line -------------------------------------------------------------------------------


def test_the_command_prints_or_writes_a_card(checkpoint, text, tmp_path, capsys):
    assert main(["card", str(checkpoint)]) == 0
    assert capsys.readouterr().out == text
    assert main(["card", str(checkpoint), "--out", str(tmp_path / "new" / "README.md")]) == 0
    assert (tmp_path / "new" / "README.md").read_text() == text


def test_the_command_measures_how_long_the_network_takes(checkpoint, monkeypatch, capsys):
    measured = []
    monkeypatch.setattr("archtuna.latency.measure_file", lambda file: measured.append(file) or MEASURED)
    assert main(["card", str(checkpoint), "--latency"]) == 0
    assert measured == [str(checkpoint)]
    assert "1.500 ms (1.250 to" in capsys.readouterr().out


def test_a_place_that_cannot_be_written_is_one_error(checkpoint, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["card", str(checkpoint), "--out", str(tmp_path / "file" / "card.md")]) == 1
    assert "file/card.md: cannot be written" in capsys.readouterr().err
