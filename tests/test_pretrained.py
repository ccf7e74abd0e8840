"""Networks of timm as rows. A stand-in takes timm's place, so that these run without it; the last test runs timm's own."""

import sys
import types

import pytest
import torch
from torch import nn

import archtuna as at
from archtuna import checkpoint
from archtuna.costs import costs_of
from archtuna.data import Preprocess
from archtuna.errors import ArchtunaError, MissingExtraError, ShapeError
from archtuna.recipe import Recipe
from archtuna.space import SearchSpace

MAPS = """
input_channel: 1
input_size: 32
backbone:
  - [-1, 1, PreTrained, [tiny], {use_feature_maps: true, pretrained: PRETRAINED}]
  - [0, 1, PreTrainedFeatureMap, [INDEX]]
head:
  - [-1, 1, GlobalAvgPool, []]
  - [-1, 1, Flatten, []]
  - [-1, 1, Linear, [3]]
"""


class Tiny(nn.Module):
    """Two maps, or three classes of them."""

    def __init__(self, in_chans, features_only):
        super().__init__()
        self.first, self.second = nn.Conv2d(in_chans, 4, 3, 2, 1), nn.Conv2d(4, 6, 3, 2, 1)
        self.fc = None if features_only else nn.Linear(6, 3)

    def forward(self, x):
        maps = [self.first(x)]
        maps.append(self.second(maps[0].relu()))
        return maps if self.fc is None else self.fc(maps[-1].mean((2, 3)))


@pytest.fixture
def timm(monkeypatch):
    """A stand-in for timm, which notes each network whose weights it was asked for; they are ones."""
    asked = []

    def create_model(name, *, pretrained, features_only, in_chans):
        network = Tiny(in_chans, features_only)
        if pretrained:
            asked.append((name, in_chans))
            for parameter in network.parameters():
                nn.init.ones_(parameter)
        return network

    names = ["tiny", "resnet18", "mobilenetv3_large_100"]
    fake = types.SimpleNamespace(create_model=create_model, is_model=names.__contains__, list_models=lambda: names)
    monkeypatch.setitem(sys.modules, "timm", fake)
    fake.asked = asked
    return fake


def architecture(index=-1, pretrained="true"):
    text = MAPS.replace("INDEX", str(index)).replace("PRETRAINED", pretrained)
    return SearchSpace.read(text).default().architecture


def written(folder, network, classes):
    size, channels = network.architecture.input_size, network.architecture.input_channels
    preprocess = Preprocess(size, channels, "resize", None, (0.5,) * channels, (0.2,) * channels)
    named = tuple(map(str, range(classes)))
    path = folder / "network.safetensors"
    checkpoint.save(
        path, network, classes=named, preprocess=preprocess, metrics={"loss": 1.0}, recipe=Recipe(), data={}, epoch=1
    )
    return path


@pytest.mark.parametrize(("index", "channels"), [(-1, 6), (0, 4), (1, 6)])
def test_a_row_takes_the_map_that_it_names(timm, index, channels):
    network = at.build(architecture(index))
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 3)
    assert costs_of(network.architecture)["params"] == (9 * 4 + 4) + (9 * 4 * 6 + 6) + channels * 3 + 3


def test_a_map_that_is_not_there_is_an_error_that_says_which_are(timm):
    with pytest.raises(ShapeError, match="there is no map 2 among 2(.|\n)*hint: 0 to 1, or -1 for the last"):
        at.build(architecture(2))


def test_weights_are_loaded_to_be_trained_and_neither_to_be_measured_nor_where_others_take_their_place(timm, tmp_path):
    wanted = architecture()
    costs_of(wanted)
    at.build(architecture(pretrained="false"))
    at.build(wanted, pretrained=False)
    assert timm.asked == []
    network = at.build(wanted)
    assert timm.asked == [("tiny", 1)]
    assert all((weights == 1).all() for name, weights in network.named_parameters() if "network" in name)
    nn.init.constant_(next(network.parameters()), 0.5)
    loaded = at.load(written(tmp_path, network, classes=3))
    assert timm.asked == [("tiny", 1)]
    assert (next(loaded.parameters()) == 0.5).all()


def test_a_search_loads_them_once_a_trial(timm, tmp_path):
    text = MAPS.replace("INDEX", "0|1").replace("PRETRAINED", "true").replace("[3]", "[10]")
    study = at.search(text, data="digits", out=tmp_path / "run", training={"epochs": 1}, trials=2, workers=1)
    assert len(study.trials()) == len(timm.asked) == 2


@pytest.mark.parametrize("error", [OSError("no route to the hub\nat all"), ConnectionError("no route to the hub")])
def test_weights_that_cannot_be_loaded_are_one_error(timm, monkeypatch, error):
    create = timm.create_model

    def without_hub(name, *, pretrained, **arguments):
        if pretrained:
            raise error
        return create(name, pretrained=False, **arguments)

    monkeypatch.setattr(timm, "create_model", without_hub)
    with pytest.raises(ArchtunaError, match="the weights of 'tiny' cannot be loaded: no route to the hub\nhint: pretr"):
        at.build(architecture())
    assert at.build(architecture(pretrained="false"))


def test_an_unknown_network_is_an_error_with_the_nearest_name(timm):
    space = SearchSpace.read("backbone: [[1, PreTrained, {model: resnet81, features_only: false}]]\n")
    with pytest.raises(ShapeError, match="timm has no network 'resnet81'(.|\n)*hint: did you mean 'resnet18'"):
        at.build(space.default().architecture)


def test_maps_of_a_network_with_its_classifier_are_refused(timm):
    row = "[1, PreTrained, {model: tiny, features_only: false, use_feature_maps: true}]"
    with pytest.raises(ShapeError, match="use_feature_maps needs features_only"):
        at.build(SearchSpace.read(f"backbone: [{row}]\n").default().architecture)


def test_without_timm_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r"timm.*\nhint: pip install 'archtuna\[timm\]'"):
        at.build(architecture())


def test_a_timm_that_does_not_import_is_an_error_in_its_own_words(monkeypatch, tmp_path):
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    with pytest.raises(ArchtunaError, match="timm cannot be imported: operator torchvision::nms(.|\n)*hint: install a"):
        at.build(architecture())


@pytest.mark.slow
def test_networks_of_the_real_timm_build_and_classify(tmp_path):
    try:
        import timm
    except Exception as error:  # A torchvision that does not fit torch fails in ways of its own.
        pytest.skip(f"timm cannot be imported: {error}")
    for index in range(5):
        text = MAPS.replace("tiny", "resnet18").replace("INDEX", str(index)).replace("PRETRAINED", "false")
        network = at.build(SearchSpace.read(text).default().architecture).eval()
        assert network(torch.zeros(1, 1, 32, 32)).shape == (1, 3)
    row = "[1, PreTrained, {model: resnet18, features_only: false, pretrained: false}]"
    whole = SearchSpace.read(f"input_size: 64\nbackbone: [{row}]").default().architecture
    assert costs_of(whole)["params"] == sum(p.numel() for p in timm.create_model("resnet18").parameters())
    network, picture = at.build(whole).eval(), torch.rand(1, 3, 64, 64)
    assert torch.equal(at.load(written(tmp_path, network, classes=1000))(picture), network(picture))
