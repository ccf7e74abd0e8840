"""What holds for every network of a space: 1,000 random ones from four spaces, one of them of graphs."""

import random

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from archtuna.architecture import PICTURE, Architecture
from archtuna.checkpoint import load, save
from archtuna.costs import costs_of
from archtuna.data import Preprocess
from archtuna.model import build, survey, table
from archtuna.recipe import Recipe
from archtuna.space import SearchSpace
from spaces import ALL


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("classic", 15), ("everything", 300), ("small", 385), ("graph", 300)])
def test_a_random_network_builds_matches_its_table_and_round_trips(tmp_path, name, count):
    space = SearchSpace.read(ALL[name], input_size=24 if name == "classic" else None)
    rng = random.Random(name)
    for _ in range(count):
        candidate = space.random(rng)
        architecture = candidate.architecture
        assert space.candidate(candidate.decisions).architecture.key == architecture.key
        check_yaml(architecture)
        model = build(architecture).eval()
        x = torch.randn(2, architecture.input_channels, *architecture.input_size)
        logits = check_shapes(architecture, model, x)
        check_checkpoint(architecture, model, tmp_path / "one.safetensors", x, logits)


def check_yaml(architecture):
    text = architecture.to_yaml()
    assert SearchSpace.read(text).default().architecture.key == architecture.key
    assert Architecture.from_yaml(text).key == architecture.key


def check_shapes(architecture, model, x):
    """Follow real tensors through every block, hold what is remembered of blocks against the whole, and return the logits."""
    outputs = {PICTURE: x}
    wired = zip(model.layers, architecture.wires(), survey(architecture), strict=True)
    with torch.inference_mode():
        for index, (unit, inputs, (_, known)) in enumerate(wired):
            outputs[index] = unit(*(outputs[i] for i in inputs))
            assert tuple(outputs[index].shape[1:]) == known.output
    costs = costs_of(architecture)
    assert sum(p.numel() for p in model.parameters()) == costs["params"]
    assert sum(t.numel() for t in model.state_dict().values() if t.is_floating_point()) * 4 / 1e6 == costs["size_mb"]
    assert whole(model, x) == costs["macs"]
    assert sum(line.params for line in table(architecture)) == costs["params"]
    assert sum(line.macs for line in table(architecture)) == costs["macs"]
    return outputs[len(model.layers) - 1].flatten(1)


def whole(model, x):
    """Multiply-accumulates for one picture, counted in one run of the whole network."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    return counter.get_total_flops() // 2 // len(x)


def check_checkpoint(architecture, model, path, x, logits):
    channels = architecture.input_channels
    preprocess = Preprocess(architecture.input_size, channels, "resize", None, (0.5,) * channels, (0.25,) * channels)
    classes = [str(c) for c in range(logits.shape[1])]
    metrics = {"loss": 1.0, "accuracy": 0.5, "f1": 0.5}
    save(
        path,
        model,
        classes=classes,
        preprocess=preprocess,
        metrics=metrics,
        recipe=Recipe(),
        data={},
        epoch=1,
        trial=None,
    )
    back = load(path)
    assert back.architecture.key == architecture.key
    assert back.architecture.to_dict() == architecture.to_dict()
    with torch.inference_mode():
        assert torch.equal(back(x), logits)
