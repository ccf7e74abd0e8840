import pytest

from archtuna.errors import SpecError
from archtuna.model import check_output
from archtuna.space import SearchSpace
from archtuna.starter import starter
from pictures import folder


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
