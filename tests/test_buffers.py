import pytest

from archtuna.buffers import schedule_of
from archtuna.registry import BLOCKS
from archtuna.signature import ACTIVATIONS

MAP = (16, 8, 8)
CONV = {"channels": 16, "kernel": 3, "stride": 1, "padding": 1, "groups": 1}


def schedule(name, arguments, *shapes):
    return schedule_of(name, BLOCKS[name].target, tuple(arguments.items()), shapes or (MAP,))


def test_a_schedule_has_what_is_read_and_made_in_order():
    found = schedule("Conv", {**CONV, "activation": "ReLU"})
    assert [(step.name, set(step.reads), step.makes, step.over) for step in found.steps] == [
        ("convolution", {0}, (1,), ()),
        ("native_batch_norm", {1}, (2,), (1,)),
        ("relu", {2}, (5,), (2,)),
    ]
    assert (found.bytes[0], found.bytes[5], found.output) == (4096, 4096, (5,))
    assert found.last_reads() == {0: 0, 1: 1, 2: 2, 5: 3}


@pytest.mark.parametrize("name", sorted({*ACTIVATIONS.values()} - {"Softmax", "LogSoftmax"}))
def test_every_activation_is_one_operation_that_may_write_over_its_operand(name):
    *_, norm, activation = schedule("Conv", {**CONV, "activation": name}).steps
    assert norm.name == "native_batch_norm"
    assert activation.over == norm.makes


def test_a_softmax_has_a_buffer_of_its_own():
    assert schedule("Conv", {**CONV, "activation": "Softmax"}).steps[-1].over == ()


def test_a_view_is_no_step():
    assert schedule("Flatten", {}).steps == ()
    assert schedule("Flatten", {}).output == (0,)


def test_what_nothing_reads_is_not_made():
    pooled = schedule("MaxPool", {"kernel": 2, "stride": 2, "padding": 0, "dilation": 1, "ceil_mode": False})
    (step,) = pooled.steps
    assert step.makes == pooled.output  # and not the places of the maxima


def test_a_sum_may_write_over_either_operand():
    (step,) = schedule("Add", {}, MAP, MAP).steps
    assert step.over == (0, 1)
    (step,) = schedule("Add", {}, MAP, (16, 1, 1)).steps
    assert step.over == (0,)


def test_zeros_around_a_map_are_a_step_where_something_else_than_a_convolution_reads_them():
    names = [
        step.name for step in schedule("MBConv", dict(expansion=2, channels=16, stride=2, kernel=3, se=False)).steps
    ]
    assert "zeros around" not in names
    arguments = {"padding": 1, "value": 0.0}
    assert [step.name for step in schedule("nn.ConstantPad2d", arguments).steps] == ["zeros around"]
