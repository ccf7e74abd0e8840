from typing import Literal

import pytest

from archtuna.errors import Misfit
from archtuna.signature import ACTIVATIONS, RELU, Activation, Count, Fraction, Plain, Positive, parameters_of


def example(
    in_channels: int,
    channels: Count,
    expansion: Positive = 0.5,
    shortcut: bool = True,
    padding: Count | None = None,
    activation: Activation | None = RELU,
    mode: Literal["fast", "slow"] = "fast",
    share: Fraction = 0.0,
): ...


PARAMETERS = {p.name: p for p in parameters_of(example, skip=("in_channels",))}


@pytest.mark.parametrize(
    ("name", "value", "coerced"),
    [
        ("channels", 8.0, 8), ("expansion", 2, 2.0), ("shortcut", 1, True), ("shortcut", "no", False), ("padding", None, None),
        ("activation", "HardSwish", "Hardswish"), ("activation", "swish", "SiLU"), ("activation", "Identity", None),
        ("mode", "SLOW", "slow"), ("share", 1, 1.0),
    ],
)  # fmt: skip
def test_a_value_has_one_spelling(name, value, coerced):
    found = PARAMETERS[name].coerce(value)
    assert found == coerced
    assert type(found) is type(coerced)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("channels", 0, "must be a whole number of at least 1 and at most 65536, not 0"),
        ("channels", 2.5, "not 2.5"),
        ("channels", True, "not True"),
        ("channels", "8", "not '8'"),
        ("channels", None, "must be a whole number .*, not null"),
        ("channels", float("nan"), "not nan"),
        ("expansion", 0, "must be a number of above 0"),
        ("expansion", 10**400, "must be a number"),
        ("shortcut", 2, "must be true or false"),
        ("activation", "None", "the name of an activation .*, not 'None'"),
        ("activation", "Rleu", "the name of an activation"),
        ("mode", "medium", "must be one of fast, slow, not 'medium'"),
        ("share", 1.5, "at least 0 and at most 1"),
    ],
)
def test_an_impossible_value_says_what_is_expected(name, value, message):
    with pytest.raises(ValueError, match=message):
        PARAMETERS[name].coerce(value)


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("activation", "None", "write null for no activation"),
        ("activation", "Rleu", "did you mean 'ReLU'?"),
        ("mode", "fats", "did you mean 'fast'?"),
        ("mode", "medium", None),
    ],
)
def test_a_likely_slip_is_answered_with_what_was_meant(name, value, hint):
    with pytest.raises(Misfit) as caught:
        PARAMETERS[name].coerce(value)
    assert caught.value.hint == hint


def test_an_annotation_that_no_file_could_hold_is_refused_when_it_is_read():
    def bad(in_channels: int, layer: list): ...

    with pytest.raises(TypeError, match="parameter 'layer'.*cannot be written in a file"):
        parameters_of(bad)


def test_every_activation_is_a_torch_class():
    from archtuna.blocks.convolution import activation_of

    for name in set(ACTIVATIONS.values()):
        assert type(activation_of(name)).__name__ == name


def test_an_inherited_constructor_is_read_too():
    class Parent:
        def __init__(self, in_channels: int, channels: Count): ...

    class Child(Parent):
        pass

    assert [(p.name, p.type) for p in parameters_of(Child, skip=("in_channels",))] == [("channels", int)]


def test_a_plain_number_has_one_spelling():
    def torchs(size: Plain, rate: Plain = 0.5, sides: Plain = ()): ...

    size, rate, sides = parameters_of(torchs)
    assert [type(value) for value in (size.coerce(8.0), size.coerce(8), rate.coerce(0.5))] == [int, int, float]
    assert sides.coerce([8.0, [1.5, 2.0]]) == (8, (1.5, 2))
    assert isinstance(sides.coerce([8.0])[0], int)
