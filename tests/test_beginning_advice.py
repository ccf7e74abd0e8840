import pytest

from archtuna.beginning.advice import (
    PLACES,
    Proposal,
    Wishes,
    advise,
    objectives_said,
    seconds_asked,
    space_for,
    usual_objectives,
)
from archtuna.beginning.inventory import Inventory
from archtuna.errors import SpecError
from archtuna.starter import spaces

TRAINING = {"epochs": "12", "batch_size": "64", "augment": "simple"}
SPACES = spaces()


def pictures(classes=None, size=(64, 64), shapes=(1.0, 1.0), channels=3):
    places = ("smallest", "5 %", "median", "95 %", "largest")
    classes = classes or {"cat": 500, "dog": 500}
    counts = list(classes.values())
    return Inventory(
        source="photos", pictures=sum(counts), classes=classes, imbalance=max(counts) / min(counts), effective_classes=2.0,
        heights=dict.fromkeys(places, size[0]), widths=dict.fromkeys(places, size[1]),
        shapes={**dict.fromkeys(places, shapes[0]), "95 %": shapes[1], "largest": shapes[1]}, channels=channels,
        grey=sum(counts) * (channels == 1), broken=0, broken_names=(), copies=0, copy_names=(), torn=0, small={}, parts={},
    )  # fmt: skip


def advice(found=None, space=None, training=TRAINING, sizes=((64, 64),), **wishes):
    return advise(Wishes(**wishes), found or pictures(), space and SPACES[space], training, sizes)


@pytest.mark.parametrize(
    ("place", "count", "space"),
    [
        (None, 100, None),
        ("computer", 100, None),
        ("phone", 100, "mobilenetv3"),
        ("microcontroller", 100, "micro"),
        ("server", 100, "resnet"),
        ("server", 6_000, "convnext"),
    ],
)
def test_the_space_follows_from_the_place(place, count, space):
    proposal = space_for(place, pictures({"cat": count, "dog": count}))
    assert proposal.value == space
    assert proposal.reason


def test_uneven_classes_are_weighed_and_f1_says_why():
    found = pictures({"cat": 900, "dog": 100})
    assert advice(found)["class_weights"] == Proposal(
        "balanced", "dog has 100 pictures, the largest class 9 times as many"
    )
    assert "the largest has 9 times the smallest's pictures" in advice(found)["objectives"].reason
    reason = advice(found, objectives=("accuracy", "params"))["objectives"].reason
    assert reason == "always answering the largest class has an accuracy of 0.90; f1 counts every class alike"
    assert advice()["class_weights"].value == "none"


@pytest.mark.parametrize(
    ("size", "value", "why"),
    [
        ((8, 8), "32", "32 leaves room for the strides"),
        ((60, 40), "64", "60x40 in the median"),
        ((3000, 4000), "224", "more than 224 pixels costs much"),
    ],
)
def test_the_input_is_as_large_as_the_pictures_within_bounds(size, value, why):
    proposal = advice(pictures(size=size))["input_size"]
    assert proposal.value == value
    assert why in proposal.reason


def test_a_space_that_searches_the_size_keeps_what_fits_the_pictures():
    sizes = ((32, 32), (48, 48), (64, 64))
    assert advice(pictures(size=(50, 50)), "micro", sizes=sizes)["input_size"].value == "32|48|64"
    assert advice(pictures(size=(20, 20)), "micro", sizes=sizes)["input_size"].value == "32"
    assert advice(pictures(size=(20, 20)), "classic", sizes=((96, 96), (128, 128)))["input_size"].value == "32"
    assert advice(space="micro", sizes=sizes, input_size=(40, 60))["input_size"] == Proposal("[40, 60]", "as asked for")


def test_different_proportions_are_padded():
    assert advice(pictures(shapes=(0.6, 1.8)))["fit"].value == "pad"
    assert "0.6 to 1.8" in advice(pictures(shapes=(0.6, 1.8)))["fit"].reason
    assert advice(pictures(shapes=(1.3, 1.4)))["fit"].value == "resize"


def test_few_pictures_get_small_batches_more_epochs_and_more_augmentation():
    few = advice(pictures({"cat": 30, "dog": 30}))
    assert (few["batch_size"].value, few["epochs"].value, few["augment"].value) == (8, 60, "simple|randaugment")
    assert "an epoch is 6 steps" in few["epochs"].reason
    many = advice(pictures({"cat": 4000, "dog": 4000}))
    assert (many["batch_size"], many["epochs"], many["augment"]) == (Proposal(64), Proposal(12), Proposal("simple"))
    assert advice(pictures({"cat": 9000, "dog": 9000}), place="server")["batch_size"].value == 128


def test_small_grey_pictures_are_perhaps_characters():
    proposal = advice(pictures(size=(28, 28), channels=1))["augment"]
    assert proposal.value == "none|simple"
    assert "mirrored" in proposal.reason


def test_limits_follow_from_the_place_and_grow_with_the_size():
    assert advice(place="phone")["limits"].value == ("params <= 4M", "macs <= 300M")
    assert "peak_memory_mb <= 0.5" in advice(place="microcontroller")["limits"].value
    assert advice()["limits"].value == ("params <= 1M",)
    assert advice(pictures(size=(128, 128)), "resnet")["limits"].value == ("params <= 5M", "macs <= 2G")
    assert advice(space="resnet")["limits"].value == ("params <= 5M", "macs <= 500M")


def test_limits_grow_from_the_largest_input_that_a_space_is_made_for():
    own = tuple((side, side) for side in range(96, 225, 32))
    found = pictures(size=(300, 300))
    assert advice(found, "classic", sizes=own)["limits"].value == ("params <= 3M", "macs <= 300M")
    larger = advice(found, "classic", sizes=own, input_size=448)["limits"]
    assert larger.value == ("params <= 3M", "macs <= 1.2G")
    assert larger.reason == "what breaks a limit is never trained; macs are those of 224 pixels, grown to 448"
    # Of a space that searches its size the pictures' own size is not what the file says.
    assert advice(found, "micro", sizes=((32, 32), (48, 48), (64, 64)))["limits"].value[1] == "macs <= 5M"
    assert advice(found, "micro", sizes=((64, 64),), input_size=(64, 256))["limits"].value[1] == "macs <= 20M"


def test_what_people_say_for_objectives():
    assert objectives_said("quality, size") == ("f1", "params")
    assert objectives_said("Accuracy,speed") == ("accuracy", "latency_ms")
    assert objectives_said("quality,speed,memory", "phone") == ("f1", "macs", "peak_memory_mb")
    with pytest.raises(SpecError, match="unknown objective 'f2'"):
        objectives_said("f2")
    with pytest.raises(
        SpecError, match="no objective says how right a network is\nhint: add one of loss, f1, accuracy"
    ):
        objectives_said("size")
    with pytest.raises(SpecError, match="'params' stands twice"):
        objectives_said("f1,size,params")


def test_a_latency_elsewhere_is_not_measured_here():
    assert "archtuna device add" in advice(place="phone")["objectives"].reason
    assert "on this computer" in advice(objectives=("f1", "latency_ms"))["objectives"].reason


@pytest.mark.parametrize(
    ("text", "error"), [("soon", "'soon' is not a duration"), ("3s", "'3s' is too short for a search")]
)
def test_a_time_has_to_be_one(text, error):
    assert seconds_asked("1h30m") == 5400
    with pytest.raises(SpecError, match=error):
        seconds_asked(text)


def test_without_pictures_it_proposes_what_follows_from_the_place():
    found = advise(Wishes(place="phone"), None, SPACES["mobilenetv3"], TRAINING, ((64, 64),))
    assert set(found) == {"objectives", "limits", "workers"}


def test_without_pictures_the_size_is_the_one_that_was_asked_for():
    found = advise(Wishes(input_size=(48, 64)), None, None, TRAINING, ((64, 64),))
    assert found["input_size"] == Proposal("[48, 64]", "as asked for")


@pytest.mark.parametrize("place", PLACES)
def test_every_proposal_that_is_not_habit_has_its_reason(place):
    for name, proposal in advice(pictures({"cat": 90, "dog": 9}), place=place).items():
        assert proposal.reason or name == "workers"


def test_the_objectives_of_a_place_are_those_that_a_space_comes_with_where_none_is_named():
    assert usual_objectives("computer", None) == ("f1", "params")
    assert usual_objectives("phone", None) == usual_objectives("server", None) == ("f1", "params", "macs")
    assert usual_objectives(None, SPACES["classic"]) == ("f1", "params", "macs")
    assert advice(place="phone")["objectives"].value == ("f1", "params", "macs")
