import json
import random
import subprocess
import sys

import pytest
import torch

from archtuna.cli import main
from archtuna.costs import costs_of
from archtuna.errors import SpecError
from archtuna.model import build, check_output
from archtuna.registry import UnknownNameError
from archtuna.space import SearchSpace
from archtuna.starter import short, spaces, starter
from pictures import folder
from searches import pictures

SPACES = spaces()


@pytest.mark.parametrize("size", [8, 16, 28, 32, 64, 96, 128, 224, (64, 96)])
def test_what_it_writes_builds_at_any_size(size):
    space = SearchSpace.read(starter(classes=5, input_size=size))
    for candidate in (space.smallest(), space.default(), space.largest()):
        assert check_output(candidate.architecture, classes=5) == 5
    assert space.size > 100


def test_classes_channels_and_size_come_from_the_data(tmp_path):
    space = SearchSpace.read(starter(data=folder(tmp_path / "it's", each=6)))
    assert space.settings.data["path"] == str(tmp_path / "it's")
    assert space.input_sizes() == ((32, 32),)
    assert check_output(space.default().architecture, classes=3) == 3


def test_without_data_it_asks_for_the_classes():
    with pytest.raises(SpecError, match="how many classes.*\nhint: name the pictures with --data, or say --classes N"):
        starter()


def test_the_ready_spaces_are_these_and_listing_them_is_light():
    assert list(SPACES) == ["classic", "convnext", "efficientnet", "micro", "mobilenetv3", "resnet"]
    code = "import sys; from archtuna.starter import spaces; spaces(); print({'torch', 'optuna', 'yaml', 'PIL'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", SPACES)
def test_a_ready_space_has_the_range_that_it_says_and_builds_on_200_samples(name):
    ready, space = SPACES[name], SearchSpace.read(starter(space=name, classes=10))
    assert space.notes == ()
    ends = [costs_of(candidate.architecture) for candidate in (space.smallest(), space.largest())]
    for cost in ("params", "macs"):
        assert [short(end[cost]) for end in ends] == [short(value) for value in getattr(ready, cost)]
    rng, feasible = random.Random(name), 0
    for _ in range(200):
        candidate = space.random(rng)
        assert check_output(candidate.architecture, classes=10) == 10
        costs = costs_of(candidate.architecture)
        assert all(ends[0][cost] <= costs[cost] <= ends[1][cost] for cost in ("params", "macs"))
        feasible += all(limit.violation(costs) <= 0 for limit in space.settings.limits)
    default = costs_of(space.default().architecture)
    assert all(limit.violation(default) <= 0 for limit in space.settings.limits)
    assert feasible >= 100


@pytest.mark.slow
@pytest.mark.parametrize(("size", "samples"), [("smallest", 25), ((223, 161), 5)], ids=str)
@pytest.mark.parametrize("name", SPACES)
def test_the_map_of_a_ready_space_vanishes_at_no_size_that_it_is_for(tmp_path, name, size, samples):
    side = SPACES[name].smallest if size == "smallest" else size
    space = SearchSpace.read(starter(space=name, data=pictures(tmp_path), input_size=side))
    rng = random.Random(name)
    for _ in range(samples):
        assert check_output(space.random(rng).architecture, classes=3) == 3
    assert space.default().architecture.input_channels == 1


@pytest.mark.parametrize("name", SPACES)
def test_networks_of_a_ready_space_classify(name):
    space = SearchSpace.read(starter(space=name, classes=3, input_size=SPACES[name].smallest))
    for candidate in (space.smallest(), space.default()):
        network, side = build(candidate.architecture).eval(), SPACES[name].smallest
        assert network(torch.zeros(2, 3, side, side)).shape == (2, 3)


def test_a_ready_space_that_searches_the_size_does_so_unless_one_is_given(tmp_path):
    grey = pictures(tmp_path)
    assert SearchSpace.read(starter(space="micro", data=grey)).input_sizes() == ((32, 32), (48, 48), (64, 64))
    assert SearchSpace.read(starter(space="micro", data=grey, input_size=24)).input_sizes() == ((24, 24),)
    assert SearchSpace.read(starter(space="resnet", data=grey)).input_sizes() == ((32, 32),)
    assert SearchSpace.read(starter(space="resnet", classes=2)).input_sizes() == ((64, 64),)
    assert SearchSpace.read(starter(space="resnet", classes=2, input_size=(32, 96))).input_sizes() == ((32, 96),)


def test_a_ready_space_is_not_for_smaller_sizes():
    with pytest.raises(
        SpecError, match="'resnet' is for 32 pixels or more, not 16\nhint: --input-size 32, or no --space"
    ):
        starter(space="resnet", classes=2, input_size=(16, 64))


def test_an_unknown_space_is_an_error_with_the_nearest_name():
    with pytest.raises(UnknownNameError, match="no ready space is named 'resnett'\nhint: did you mean 'resnet'"):
        starter(space="resnett", classes=2)
    with pytest.raises(UnknownNameError, match="hint: known: classic, convnext, efficientnet, micro"):
        starter(space="vit", classes=2)


@pytest.mark.parametrize(
    ("cost", "written"), [(700, "700"), (1730, "1.7k"), (999_900, "1M"), (178_002, "180k"), (4_065_072_128, "4.1G")]
)
def test_costs_are_written_with_two_digits(cost, written):
    assert short(cost) == written


def test_init_lists_the_ready_spaces(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["init", "--list"]) == 0
    head, *lines, _, last = capsys.readouterr().out.splitlines()
    assert head.split() == ["name", "parameters", "MACs", "input_size"]
    assert [line.split()[0] for line in lines[::2]] == list(SPACES)
    assert [line.strip() for line in lines[1::2]] == [space.meaning for space in SPACES.values()]
    assert "1.7k - 180k" in lines[6]
    assert last.endswith("next: archtuna init search.yaml --space NAME --data PICTURES")
    assert main(["init", "--list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(entry["name"], entry["params"]) for entry in listed][3] == ("micro", [1700, 180000])
    assert set(listed[0]) == {"name", "meaning", "params", "macs", "input_size", "smallest"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", SPACES)
def test_check_accepts_the_file_of_a_ready_space(capsys, tmp_path, name):
    file = tmp_path / "search.yaml"
    assert main(["init", str(file), "--space", name, "--classes", "10", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"file": str(file), "space": name}
    assert main(["check", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["default"]["output"] == [1, 10]
    assert short(found["smallest"]["params"]) == short(SPACES[name].params[0])


def test_init_names_the_nearest_space(capsys, tmp_path):
    assert main(["init", str(tmp_path / "search.yaml"), "--space", "mirco", "--classes", "2"]) == 1
    assert "no ready space is named 'mirco'\nhint: did you mean 'micro'?" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_file_of_a_ready_space_is_searched(capsys, tmp_path):
    photos, file = folder(tmp_path / "photos", each=12), str(tmp_path / "search.yaml")
    assert main(["init", file, "--space", "micro", "--data", str(photos)]) == 0
    arguments = ["search", file, "--out", str(tmp_path / "run"), "--trials", "2", "--epochs", "1", "--json"]
    capsys.readouterr()
    assert main(arguments) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["trials"]["complete"] == 2


@pytest.mark.parametrize("name", ["plain", "it's", "two\nlines 🔥", "a\ttab"])
def test_a_path_of_any_kind_is_read_back(name, tmp_path):
    text = starter(data=folder(tmp_path / name, each=4))
    assert SearchSpace.read(text).settings.data["path"] == str(tmp_path / name)
