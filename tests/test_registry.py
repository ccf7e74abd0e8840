import pytest

from archtuna.registry import Registry, UnknownNameError


def test_an_unknown_name_suggests_the_nearest():
    registry = Registry("block")
    registry.add("Conv", int)
    with pytest.raises(UnknownNameError, match=r"no block is named 'Cnov'\nhint: did you mean 'Conv'\?"):
        registry["Cnov"]
    with pytest.raises(KeyError, match="known: Conv"):
        registry["Zebra"]


def test_a_name_is_taken_once_and_reloading_is_no_clash():
    registry = Registry("block")
    registry.add("Conv", int)
    registry.add("Conv", int)
    with pytest.raises(ValueError, match="a block named 'Conv' exists already"):
        registry.add("Conv", float)
    assert list(registry) == ["Conv"]
