import pytest

from archtuna.errors import SpecError
from archtuna.settings import (
    DATA,
    DEPLOY,
    SEARCH,
    TARGETS,
    DataSettings,
    DeploySettings,
    SearchSettings,
    deploy_of,
    limits_from,
    objectives_from,
    seconds_of,
    target_of,
)
from archtuna.space import SearchSpace


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("5m", 300), ("20 min", 1200), ("1h30m", 5400), ("2h", 7200), (45, 45), ("1.5m", 90)],
)
def test_durations(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["soon", "0", "-5", "", "5 days"])
def test_no_durations(text):
    with pytest.raises(SpecError, match="is not a duration\nhint: write for example 90s, 5m or 1h30m"):
        seconds_of(text)


def test_objectives_and_limits_have_several_forms():
    assert objectives_from("f1, params") == objectives_from(["f1", "params"]) == ("f1", "params")
    forms = (["params <= 500k", "macs <= 20M"], "params<=500k,macs<=20M", {"params": "500k", "macs": "<= 20M"})
    assert len({tuple(map(str, limits_from(form))) for form in forms}) == 1
    with pytest.raises(SpecError, match="must be a list of objectives"):
        objectives_from(3)
    with pytest.raises(SpecError, match="must be a list of limits"):
        limits_from(3)


def test_every_default_fits_its_own_schema_and_is_documented():
    for schema, defaults in ((DATA, DataSettings()), (SEARCH, SearchSettings()), (DEPLOY, DeploySettings())):
        for name, parameter in schema.items():
            assert parameter.coerce(getattr(defaults, name)) == getattr(defaults, name)
            assert name in (type(defaults).__doc__ or "")


def test_a_target_stands_for_a_format_and_a_precision():
    assert {name: deploy_of(target_of(name)).format for name in TARGETS} == {
        name: name.partition("-")[0] for name in TARGETS
    }
    assert deploy_of(target_of("onnx-int8")).converts
    assert not deploy_of(target_of("onnx")).converts
    with pytest.raises(SpecError, match=r"unknown target 'onnx-int9'\nhint: did you mean 'onnx-int8'"):
        target_of("onnx-int9")


def test_what_does_not_go_together_is_refused():
    with pytest.raises(SpecError, match=r"int8 is made of ONNX files, not of pt2\nhint: format: onnx"):
        deploy_of({"precision": "int8", "format": "pt2"})
    with pytest.raises(SpecError, match=r"unknown value 'formt'\nhint: did you mean 'format'"):
        deploy_of({"formt": "onnx"})
    with pytest.raises(SpecError, match=r"fp16 runs in onnxruntime, not in torch\nhint: runtime: onnxruntime"):
        deploy_of({"precision": "fp16", "runtime": "torch"})


def test_the_file_says_how_networks_are_deployed():
    rows = (
        "backbone: [[1, Conv, [8, 3, 2]], [1, GlobalAvgPool, []], [1, Flatten, []], [1, Linear, [4]]]\ninput_size: 32\n"
    )
    space = SearchSpace.read(f"{rows}deploy: {{format: onnx, precision: int8, threads: 2}}\n")
    assert space.settings.deploy == {"format": "onnx", "precision": "int8", "threads": 2}
    for wrong, message in (
        ("{format: onxn}", r"deploy.format: .*'onxn'"),
        ("{precision: int8, format: module}", "deploy: int8 is made of ONNX files, not of module"),
        ("{thread: 1}", r"deploy.thread: unknown"),
        ("{batch: 0}", r"deploy.batch: "),
    ):
        with pytest.raises(SpecError, match=message):
            SearchSpace.read(f"{rows}deploy: {wrong}\n")
