import re

import pytest

from archtuna import beginning
from archtuna.beginning import begin
from archtuna.beginning.advice import PLACES, Wishes
from archtuna.beginning.outlook import Outlook, Pace, Timed
from archtuna.costs import costs_of
from archtuna.errors import DataError, SpecError, TrialError
from archtuna.model import check_output
from archtuna.registry import UnknownNameError
from archtuna.report import check_lines
from archtuna.space import SearchSpace
from archtuna.starter import spaces
from data_pictures import class_folders, picture, save
from kinds import KINDS

SPACES = spaces()


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    return {name: make(root) for name, make in KINDS.items()}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_file_for_any_pictures_and_place_is_one_that_fits(sets, kind, place):
    begun = begin(sets[kind], Wishes(place=place, time="10m", workers=2), seconds=None)
    holds(begun, sets[kind])


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("kind", ["digits", "imbalanced", "mixed"])
def test_the_file_for_any_ready_space_is_one_that_fits(sets, kind, space):
    begun = begin(sets[kind], Wishes(), space=space, seconds=None)
    assert begun.space == space
    holds(begun, sets[kind])


def holds(begun, data):
    space = SearchSpace.read(begun.text)
    default = space.default()
    assert space.notes == ()
    assert space.settings.data["path"] == data
    assert check_output(default.architecture, classes=len(begun.inventory.classes)) == len(begun.inventory.classes)
    assert default.architecture.input_channels == begun.inventory.channels
    assert all(limit.violation(costs_of(default.architecture)) <= 0 for limit in space.settings.limits)
    for name in ("batch_size", "epochs", "class_weights"):
        assert getattr(default.recipe, name) == begun.advice[name].value
    flat = re.sub(r"\s*\n *# +", " ", begun.text)
    for proposal in begun.advice.values():
        assert proposal.reason.replace("\n", "\\n") in flat
    assert max(map(len, begun.text.splitlines())) <= 127
    assert check_lines(space)


def test_without_pictures_it_is_the_plain_file_with_what_was_asked_for():
    begun = begin(None, Wishes(place="microcontroller", time="20m", workers=2, objectives=("f1", "macs")), classes=4)
    space = SearchSpace.read(begun.text)
    assert begun.space == "micro"
    assert dict(space.settings.search) == {"time": "20m", "trials": 60, "workers": 2}
    assert space.settings.objectives == ("f1", "macs")
    assert "path" not in space.settings.data
    assert begun.inventory is begun.pace is begun.outlook is None


@pytest.mark.parametrize("space", [None, "micro"])
def test_without_pictures_the_file_has_the_size_that_was_asked_for(space):
    begun = begin(None, Wishes(input_size=48), classes=4, space=space)
    assert SearchSpace.read(begun.text).input_sizes() == ((48, 48),)
    assert SearchSpace.read(begun.text).default().architecture.input_size == (48, 48)


def test_without_pictures_and_classes_it_asks_for_them():
    with pytest.raises(SpecError, match="how many classes.*\nhint: name the pictures with --data, or say --classes N"):
        begin(None, Wishes())
    with pytest.raises(UnknownNameError, match="did you mean 'micro'"):
        begin("digits", Wishes(), space="mirco")
    with pytest.raises(SpecError, match="'resnet' is for 32 pixels or more, not 16"):
        begin("digits", Wishes(place="server", input_size=16), seconds=None)
    with pytest.raises(
        SpecError, match="3 classes were asked for, and the pictures have 10\nhint: leave --classes out"
    ):
        begin("digits", Wishes(), classes=3, seconds=None)
    assert "Linear, [10]" in begin("digits", Wishes(), classes=10, seconds=None).text


def test_two_pictures_a_class_leave_nothing_to_report_on_and_one_is_too_few(sets, tmp_path):
    begun = begin(sets["tiny"], Wishes(), seconds=None)
    assert SearchSpace.read(begun.text).settings.data["test"] == 0
    assert "too few different pictures for three parts" in begun.text
    class_folders(tmp_path / "one", each=1)
    with pytest.raises(DataError, match="class 'blue' has 1 different pictures, too few for val, train"):
        begin(tmp_path / "one", Wishes(), seconds=None)


def test_names_of_files_cannot_leave_their_comment(sets):
    begun = begin(sets["mixed"], Wishes(), seconds=None)
    assert r"z: #/bro\nken.jpg (not a picture in a known format)" in begun.text
    assert SearchSpace.read(begun.text).settings.data["fit"] == "pad"


def test_a_folder_with_an_odd_name_is_found_again(tmp_path):
    data = class_folders(tmp_path / "it's\na 'set': #1", each=4)
    assert SearchSpace.read(begin(str(data), Wishes(), seconds=None).text).settings.data["path"] == str(data)


def test_a_huge_picture_is_named_and_left_out(tmp_path, monkeypatch):
    data = class_folders(tmp_path / "set", each=4)
    save(data / "red" / "huge.png", picture(5, (300, 300)))
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 50_000)
    begun = begin(data, Wishes(), seconds=None)
    assert begun.inventory.broken_names == (("red/huge.png", "more than 50,000 pixels (PIL.Image.MAX_IMAGE_PIXELS)"),)
    assert "red/huge.png (more than 50,000 pixels" in begun.text


# --- with a trial run --------------------------------------------------------------------------------


def test_a_trial_run_ends_in_a_file_with_time_trials_and_what_was_measured(sets):
    begun = begin(sets["folder"], Wishes(time="5m"), seconds=3)
    search = SearchSpace.read(begun.text).settings.search
    assert search["time"] == "5m"
    assert search["trials"] == begun.outlook.trials
    low, middle, high = begun.outlook.fitting
    assert 0 <= low <= middle <= high
    assert "# Expected in 5 min with 1 worker: " in begun.text
    assert "# Measured in " in begun.text
    assert begun.to_dict()["estimate"]["fitting"] == begun.outlook.fitting


def measured(monkeypatch, seconds):
    """Let networks take so many seconds a picture at 64 pixels; return the sides that were measured."""
    sides = []

    def trial_run(space, data, split, *, workers, seconds: float):
        size = space.largest_input_size()
        sides.append(size[0])
        train = pace * (size[0] / 64) ** 2
        return Pace((Timed(1e4, 1e6, size, train, train / 4, 64),) * 3, 1e-3, 1.0, "cpu", 1, 2, 2, 64, seconds)

    pace = seconds
    monkeypatch.setattr("archtuna.beginning.trial_run.trial_run", trial_run)
    return sides


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    root = tmp_path_factory.mktemp("large")
    for index in range(120):
        save(root / "set" / "ab"[index % 2] / f"{index}.jpg", picture(index, (200, 200)))
    return root / "set"


def test_too_little_time_shrinks_the_input_and_measures_again(large, monkeypatch):
    sides = measured(monkeypatch, 0.004)
    begun = begin(large, Wishes(time="30m"), seconds=1)
    assert sides[0] == 224
    assert sides[1] == int(begun.advice["input_size"].value) < 224
    assert begun.advice["input_size"].reason.startswith("smaller for the sake of the time: more trials in 30m")
    assert begun.outlook.fitting[1] >= 15
    assert begun.notes == ()


def test_limits_are_those_of_the_input_that_the_time_leaves(large, monkeypatch):
    measured(monkeypatch, 0.004)
    begun = begin(large, Wishes(time="30m", place="server"), seconds=1)
    side = int(begun.advice["input_size"].value)
    assert 64 < side < 224
    bound = next(limit for limit in SearchSpace.read(begun.text).settings.limits if limit.name == "macs").bound
    assert bound == pytest.approx(500e6 * (side / 64) ** 2, rel=0.05)
    assert f"macs are those of 64 pixels, grown to {side}" in begun.advice["limits"].reason


def test_a_size_that_was_asked_for_stays(large, monkeypatch):
    sides = measured(monkeypatch, 0.004)
    begun = begin(large, Wishes(time="10m", input_size=128), seconds=1)
    assert sides == [128]
    assert begun.advice["input_size"].value == "128"
    assert begun.advice["epochs"].value < 60
    assert "these pictures deserve" in begun.advice["epochs"].reason


def test_where_nothing_helps_it_says_how_long_it_would_take(large, monkeypatch):
    measured(monkeypatch, 5.0)
    begun = begin(large, Wishes(time="2m"), seconds=1)
    assert SearchSpace.read(begun.text).input_sizes() == ((32, 32),)
    assert begun.advice["epochs"].value == 6
    assert begun.outlook.fitting[1] < 15
    assert "2m is little: fewer than 15 trials hardly say which networks are good. 15 take about" in begun.text


def test_where_there_is_room_trainings_are_longer(sets, monkeypatch):
    measured(monkeypatch, 1e-5)
    begun = begin("digits", Wishes(time="2h"), seconds=1)
    assert begun.advice["epochs"].value == 60
    assert "2h has room for longer trainings than 30 epochs" in begun.text
    assert begun.outlook.trials == 200


def test_room_for_less_than_an_epoch_is_not_spoken_of(monkeypatch):
    measured(monkeypatch, 1e-5)
    some = Outlook(20.0, 1.0, (1.0, 1.0, 1.0), (61, 61, 61), 61, (100.0, 100.0))
    monkeypatch.setattr(beginning, "outlook", lambda *_, **__: some)
    begun = begin("digits", Wishes(time="2h"), seconds=1)
    assert begun.advice["epochs"].value == 30
    assert "has room" not in begun.text


def test_where_the_trial_run_fails_the_file_is_written_without_an_estimate(sets, monkeypatch, caplog):
    def fails(*_, **__):
        raise TrialError("the trial run trained no network: out of memory", reason="trial-run")

    monkeypatch.setattr("archtuna.beginning.trial_run.trial_run", fails)
    begun = begin(sets["folder"], Wishes(), seconds=1)
    assert begun.outlook is None
    assert begun.notes == ("No estimate: the trial run trained no network: out of memory.",)
    assert dict(SearchSpace.read(begun.text).settings.search) == {"time": beginning.DEFAULT_TIME, "trials": 40}
