"""The one file that measures, wherever it is, and whatever it is given."""

from __future__ import annotations

import argparse
import ast
import io
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from archtuna import agent
from archtuna.latency import reference_model

OPTIONS = {
    "batch": 1, "threads": 1, "provider": "CPUExecutionProvider", "rounds": 3, "warm_up": 0.01, "round_seconds": 0.001,
}  # fmt: skip
LIMITS = argparse.Namespace(seconds=60, memory_mb=4096)


def request(model: bytes | None = None, **options: Any) -> bytes:
    return agent.pack({**OPTIONS, **options}, reference_model(), reference_model() if model is None else model)


def answer_of(body: bytes, limits: argparse.Namespace = LIMITS, **given: Any) -> dict[str, Any]:
    return agent.answered("run", io.BytesIO(body), len(body), limits, **given)


def model_of(
    nodes: list[onnx.NodeProto],
    weights: list[TensorProto] | tuple[()] = (),
    *,
    shape: tuple[Any, ...] = ("n", 3),
    kind: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    source = helper.make_tensor_value_info("x", kind, shape)
    result = helper.make_tensor_value_info("y", kind, None)
    graph = helper.make_graph(nodes, "made", [source], [result], list(weights))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def identity(**given: Any) -> bytes:
    return bytes(model_of([helper.make_node("Identity", ["x"], ["y"])], **given).SerializeToString())


# --- what it measures --------------------------------------------------------------------------------


def test_a_process_of_its_own_answers_as_this_one_does() -> None:
    there, here = answer_of(request()), agent.timed(OPTIONS, reference_model(), reference_model())
    for found in (there, here):
        assert len(found["times"]) == len(found["references"]) == 3
        assert all(0 < seconds < 1 for seconds in (*found["times"], *found["references"]))
    assert there["device"] == here["device"] == agent.describe()


def test_rounds_alternate_and_last_about_as_long_as_they_should() -> None:
    order: list[str] = []

    def action(name: str) -> Callable[[], None]:
        return lambda: (order.append(name), time.sleep(0.002))[1]  # type: ignore[func-returns-value]

    options = {"rounds": 4, "warm_up": 0.02, "round_seconds": 0.01}
    times, references = agent.compared(action("a"), action("b"), options)
    changes = "".join(name for name, before in zip(order, ["", *order], strict=False) if name != before)
    assert changes == "ab" + 4 * "ab"
    assert len(times) == len(references) == 4
    assert all(0.002 <= seconds < 0.02 for seconds in times)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system pins nothing")
def test_a_measurement_stays_on_as_many_cores_as_it_has_threads() -> None:
    before = os.sched_getaffinity(0)
    with agent.pinned(1):
        assert os.sched_getaffinity(0) == {max(before)}
    with agent.pinned(64):
        assert os.sched_getaffinity(0) == before
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize("kind", [TensorProto.UINT8, TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_pictures_are_of_the_kind_that_a_model_takes(kind: int) -> None:
    assert agent.timed(OPTIONS, reference_model(), identity(kind=kind))["times"]


def test_what_lies_in_a_cards_memory_is_bound_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "PLACES", {"CPUExecutionProvider": "cpu"})  # the one provider that is always there
    found = agent.timed(OPTIONS, reference_model(), reference_model())
    assert len(found["times"]) == 3
    assert " + " in found["device"]["processor"], "a card is part of the device's name"


@pytest.mark.parametrize(
    ("model", "options", "says"),
    [
        (b"", {}, "does not run in ONNX Runtime"),
        (b"garbage" * 1_000, {}, "does not run in ONNX Runtime: this is no ONNX model"),
        (b"\x08\x09garbageORTM", {}, "does not run in ONNX Runtime"),
        (identity(shape=("n", "m")), {}, "takes pictures of any size"),
        (identity(kind=TensorProto.STRING), {}, "takes x tensor.string. .* and not one tensor of pictures"),
        (identity(shape=(2, 3)), {}, "does not run in ONNX Runtime: .*invalid dimensions"),
        (None, {"provider": "NoneProvider"}, "has no 'NoneProvider' here"),
    ],
)
def test_what_does_not_run_is_refused(model: bytes | None, options: dict[str, Any], says: str) -> None:
    with pytest.raises(agent.Refused, match=says):
        answer_of(request(model, **options))


def test_a_provider_that_falls_back_to_another_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(agent, "PLACES", {})
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"), pytest.raises(agent.Refused, match="could not start 'CUDAExecutionProvider' and would have used CPU"):  # fmt: skip
        agent.timed({**OPTIONS, "provider": "CUDAExecutionProvider"}, reference_model(), reference_model())


def test_a_device_without_the_runtime_says_what_it_lacks() -> None:
    code = f"import sys; sys.modules['onnxruntime'] = None; {agent.BOOTSTRAP}"
    for verb in ("run", "describe"):
        done = subprocess.run(
            [sys.executable, "-c", code, verb], input=agent.framed(request()), capture_output=True, check=True
        )
        answer = json.loads(done.stdout)
        assert answer["kind"] == "no-runtime"
        assert answer["error"].startswith("ONNX Runtime is not installed here")
        assert answer["hint"] == "pip install onnxruntime"


# --- what a request is -------------------------------------------------------------------------------


def test_a_request_is_read_as_it_was_packed() -> None:
    assert agent.unpack(agent.pack(OPTIONS, b"reference", b"")) == (OPTIONS, b"reference", b"")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"short",
        b"\xff" * 64,
        request()[:-1],
        request() + b"x",
        agent.pack([1], b"", b""),  # type: ignore[arg-type]
        agent.pack({}, b"", b""),
        agent.pack({**OPTIONS, "rounds": "many"}, b"", b""),
        agent.pack({**OPTIONS, "provider": 7}, b"", b""),
    ],
)
def test_what_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(agent.Refused, match="this is no request|beyond what is allowed"):
        agent.unpack(body)


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"rounds": 10**9}, {"batch": 2.5}, {"warm_up": 1e9}, {"threads": -1}])
def test_options_have_bounds(wrong: dict[str, Any]) -> None:
    with pytest.raises(agent.Refused, match="options are beyond what is allowed"):
        agent.unpack(request(**wrong))


# --- malice ------------------------------------------------------------------------------------------


def endless() -> bytes:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Sin", ["v"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, None),
        ],
    )
    loop = helper.make_node("Loop", ["", "true", "x"], ["y"], body=body)
    return bytes(model_of([loop], [numpy_helper.from_array(np.array(True), "true")]).SerializeToString())


def gigantic(*, folded: bool) -> bytes:
    """A model of a few bytes whose output, or a constant that is folded as it is loaded, takes terabytes."""
    sides = numpy_helper.from_array(np.array([10**6, 10**6], np.int64), "sides")
    fill = helper.make_node("ConstantOfShape", ["sides"], ["big"])
    grow = helper.make_node("Expand", ["x", "sides"], ["y"])
    add = helper.make_node("Add", ["x", "big"], ["y"])
    model = model_of([fill, add] if folded else [grow], [sides], shape=("n", 1))
    return bytes(model.SerializeToString())


def elsewhere(file: str = "/etc/passwd") -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=file)
    return tensor


def deep(levels: int) -> bytes:
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "inner", [], [])
    for _ in range(levels):
        graph = helper.make_graph([helper.make_node("If", ["x"], ["y"], then_branch=graph)], "outer", [], [])
    return bytes(helper.make_model(graph).SerializeToString())


@pytest.mark.parametrize("folded", [True, False])
def test_a_model_that_grows_beyond_the_memory_is_one_error(folded: bool) -> None:
    begun = time.monotonic()
    with pytest.raises(agent.Refused, match=r"does not run in ONNX Runtime|ended the process|over 2000 MB"):
        answer_of(request(gigantic(folded=folded)), argparse.Namespace(seconds=30, memory_mb=2_000))
    assert time.monotonic() - begun < 30


def test_pictures_beyond_the_memory_are_one_error() -> None:
    with pytest.raises(agent.Refused, match=r"allocate|over 2000 MB"):
        answer_of(request(identity(shape=("n", 3, 10**6, 10**6))), argparse.Namespace(seconds=30, memory_mb=2_000))


def test_an_endless_model_is_ended_in_time() -> None:
    begun = time.monotonic()
    with pytest.raises(agent.Refused, match="took longer than 3 s to measure"):
        answer_of(request(endless()), argparse.Namespace(seconds=3, memory_mb=2_000))
    assert time.monotonic() - begun < 10


def test_a_measurement_that_nobody_waits_for_is_ended() -> None:
    begun = time.monotonic()
    with pytest.raises(ConnectionError, match="whoever asked is gone"):
        answer_of(request(endless()), gone=lambda: time.monotonic() - begun > 1)
    assert time.monotonic() - begun < 10


def holders() -> Iterator[tuple[str, onnx.ModelProto]]:
    """Models that keep weights elsewhere, at every place of the format that can hold a tensor."""
    node = helper.make_node("Identity", ["x"], ["y"])
    sparse = onnx.SparseTensorProto(values=elsewhere(), dims=[1])
    inner = helper.make_graph([node], "inner", [], [], [elsewhere()])
    for name, value in {"t": elsewhere(), "sparse_tensor": sparse, "g": inner}.items():
        one = model_of([helper.make_node("Identity", ["x"], ["y"])])
        getattr(one.graph.node[0].attribute.add(name="a"), name).CopyFrom(value)
        yield name, one
        many = model_of([helper.make_node("Identity", ["x"], ["y"])])
        plural = {"t": "tensors", "sparse_tensor": "sparse_tensors", "g": "graphs"}[name]
        getattr(many.graph.node[0].attribute.add(name="a"), plural).append(value)
        yield plural, many
    yield "initializer", model_of([node], [elsewhere()])
    other = model_of([node])
    other.graph.sparse_initializer.append(sparse)
    yield "sparse_initializer", other
    indices = model_of([node])
    indices.graph.sparse_initializer.append(onnx.SparseTensorProto(indices=elsewhere(), dims=[1]))
    yield "indices", indices
    function = model_of([node])
    function.functions.add(name="f").node.append(one.graph.node[0])
    yield "function", function
    default = model_of([node])
    default.functions.add(name="f").attribute_proto.append(one.graph.node[0].attribute[0])
    yield "attribute_proto", default
    for name in ("initialization", "algorithm"):
        training = model_of([node])
        getattr(training.training_info.add(), name).CopyFrom(inner)
        yield name, training


@pytest.mark.parametrize(("place", "model"), list(holders()))
def test_weights_in_another_file_are_refused_wherever_they_stand(place: str, model: onnx.ModelProto) -> None:
    with pytest.raises(agent.Refused, match="keeps weights in other files"):
        agent.refuse_files(memoryview(model.SerializeToString()))


def test_every_place_of_the_format_that_holds_tensors_is_looked_at() -> None:
    kinds = {
        "ModelProto": "model", "GraphProto": "graph", "NodeProto": "node", "AttributeProto": "attribute",
        "SparseTensorProto": "sparse", "FunctionProto": "function", "TrainingInfoProto": "training",
        "TensorProto": "tensor",
    }  # fmt: skip
    for name, kind in kinds.items():
        fields = getattr(onnx, name).DESCRIPTOR.fields
        held = {f.number: kinds[f.message_type.name] for f in fields if f.message_type and f.message_type.name in kinds}
        assert held | ({13: "elsewhere"} if kind == "tensor" else {}) == agent.MESSAGES[kind]
    # Values of types hold no tensors, and no other message of the format refers to files.
    assert TensorProto.DESCRIPTOR.fields_by_name["external_data"].number == 13


def test_a_model_that_is_nested_without_end_is_refused() -> None:
    agent.refuse_files(memoryview(deep(5)))
    with pytest.raises(agent.Refused, match="nested too deeply"):
        agent.refuse_files(memoryview(deep(30)))


@pytest.mark.parametrize(
    "content", [b"\x3a\xff\xff\xff\xff\x7f", b"\x3a", b"\x08" + b"\xff" * 12, b"\x0b", b"\x09\x01"]
)
def test_a_damaged_model_is_no_model(content: bytes) -> None:
    with pytest.raises(agent.Refused, match="this is no ONNX model"):
        agent.refuse_files(memoryview(content))


@pytest.mark.skipif(sys.platform != "linux", reason="limits are the system's")
def test_a_process_that_measures_opens_and_writes_no_files(tmp_path: Path) -> None:
    """The runtime is replaced by one that tries."""
    spy = "import onnxruntime, json\n"
    spy += "class Spy:\n  def __init__(self, *a, **k): open('/etc/passwd').read()\n"
    spy += f"onnxruntime.InferenceSession = Spy\n{agent.BOOTSTRAP}"
    done = subprocess.run(
        [sys.executable, "-c", spy, "run"], input=agent.framed(request()), capture_output=True, check=True
    )
    assert "Too many open files: '/etc/passwd'" in json.loads(done.stdout)["error"]


def test_the_token_is_not_in_the_environment_of_what_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(agent.TOKEN, "a secret of many characters")
    assert agent.TOKEN not in agent._environment()
    assert agent._environment()["PATH"] == os.environ["PATH"]


def test_a_request_that_ends_early_is_cut() -> None:
    with pytest.raises(ConnectionError, match="the request was cut"):
        agent.answered("run", io.BytesIO(b"12345"), 10, LIMITS)


# --- energy ------------------------------------------------------------------------------------------


def counters_in(folder: Path, **values: int) -> None:
    for name, value in values.items():
        place = folder / name.replace("_", ":", 1).replace("rapl", "intel-rapl")
        place.mkdir(parents=True)
        (place / "energy_uj").write_text(f"{value}\n")
        (place / "max_energy_range_uj").write_text("999\n")


def test_energy_is_what_the_packages_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counters_in(tmp_path, rapl_0=100, rapl_1=900)
    part = tmp_path / "intel-rapl:0:0"
    part.mkdir()
    (part / "energy_uj").write_text("5")
    monkeypatch.setattr(agent, "POWERCAP", str(tmp_path))
    monkeypatch.setattr(agent, "ENERGY_SECONDS", 0.0)

    def run() -> None:
        """Two packages: one counts 20 microjoules more, and the other comes around its end with 150."""
        runs.append(1)
        if len(runs) == 1:
            (tmp_path / "intel-rapl:0" / "energy_uj").write_text("120")
            (tmp_path / "intel-rapl:1" / "energy_uj").write_text("50")

    runs: list[int] = []
    with agent.energy_counters() as counters:
        assert agent.joules_of(run, counters) == pytest.approx((20 + 150) * 1e-6 / 3)
    with pytest.raises(OSError, match="Bad file descriptor"):
        counters[0][0]()
    found = agent.timed(OPTIONS, reference_model(), reference_model())
    assert found["joules"] == 0.0


def test_energy_is_unknown_where_nothing_counts_it_or_nobody_may_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tmp_path / "bare"
    (bare / "intel-rapl:0").mkdir(parents=True)
    for folder in (tmp_path / "none", tmp_path, bare):
        monkeypatch.setattr(agent, "POWERCAP", str(folder))
        with agent.energy_counters() as counters:
            assert counters == []
    assert agent.timed(OPTIONS, reference_model(), reference_model())["joules"] is None


# --- one file ----------------------------------------------------------------------------------------


def test_it_needs_nothing_but_python_numpy_and_the_runtime() -> None:
    tree = ast.parse(Path(agent.__file__).read_text(), feature_version=(3, 9))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    outside = {name.split(".")[0] for name in names} - sys.stdlib_module_names
    assert outside == {"numpy", "onnxruntime"}


def test_it_is_sent_along_and_runs_where_archtuna_is_not(tmp_path: Path) -> None:
    blocked = (
        f"import sys; sys.modules['archtuna'] = sys.modules['torch'] = sys.modules['onnx'] = None; {agent.BOOTSTRAP}"
    )
    done = subprocess.run(
        [sys.executable, "-c", blocked, "measure"],
        input=agent.framed(request()),
        capture_output=True,
        cwd=tmp_path,
        check=True,
    )
    assert len(json.loads(done.stdout)["times"]) == 3
    assert list(tmp_path.iterdir()) == []


def test_tokens_come_from_a_file_or_the_environment_or_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(agent.TOKEN, raising=False)
    first, made = agent.token_of(None)
    assert made
    assert len(first) == 32
    assert agent.token_of(None)[0] != first
    monkeypatch.setenv(agent.TOKEN, "a secret of the environment\n")
    assert agent.token_of(None) == ("a secret of the environment", False)
    file = tmp_path / "token"
    file.write_text("a secret of a file\n")
    assert agent.token_of(str(file)) == ("a secret of a file", False)
    file.write_text("short")
    with pytest.raises(agent.Refused, match="fewer than 16 characters"):
        agent.token_of(str(file))
    monkeypatch.setenv(agent.TOKEN, "")
    with pytest.raises(agent.Refused, match="fewer than 16 characters"):
        agent.token_of(None)
    with pytest.raises(agent.Refused, match="the token cannot be read: .*No such file"):
        agent.token_of(str(tmp_path / "none"))
    assert agent.main(["serve", "--token-file", str(tmp_path / "none")]) == 1


PI3 = """processor\t: 0
model name\t: ARMv7 Processor rev 4 (v7l)
CPU implementer\t: 0x41
CPU part\t: 0xd03

Hardware\t: BCM2835
Model\t\t: Raspberry Pi 3 Model B Rev 1.2
"""
BARE = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n"


@pytest.mark.parametrize(
    ("cpuinfo", "board", "name"),
    [
        (PI3, None, "Raspberry Pi 3 Model B Rev 1.2"),
        (BARE, "Radxa ROCK 5B\0", "Radxa ROCK 5B"),
        (BARE, None, f"{platform.machine()} implementer 0x41 part 0xd0c"),
        ("model name\t: Some CPU @ 3 GHz\nmodel\t: 85\n", None, "Some CPU @ 3 GHz"),
    ],
)
def test_a_board_is_called_what_it_is(
    cpuinfo: str, board: str | None, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    if board is not None:
        (tmp_path / "model").write_text(board)
    monkeypatch.setattr(agent, "CPUINFO", str(tmp_path / "cpuinfo"))
    monkeypatch.setattr(agent, "DEVICE_TREE", str(tmp_path / "model"))
    assert agent.processor() == name


@pytest.mark.parametrize(("shown", "asked"), [("", "0"), ("1,0", "1"), ("GPU-5a, 0", "GPU-5a")])
def test_the_card_is_the_first_that_is_shown(shown: str, asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    commands: list[list[str]] = []
    monkeypatch.setattr(agent, "_output", lambda command: commands.append(command) or "Orin")
    agent._name_of_card.cache_clear()
    assert agent.describe("CUDAExecutionProvider")["processor"].endswith(" + Orin")
    agent._name_of_card.cache_clear()
    assert commands[0][-1] == f"--id={asked}"


def test_limits_hold_for_every_provider_that_computes_on_the_processor() -> None:
    assert agent.PROCESSOR in agent.LIMITED
    assert "CUDAExecutionProvider" not in agent.LIMITED
    large = request(gigantic(folded=True), provider="AzureExecutionProvider")
    if "AzureExecutionProvider" not in agent.describe()["providers"]:
        pytest.skip("this ONNX Runtime has one provider alone")
    with pytest.raises(agent.Refused, match="memory|does not run"):
        answer_of(large)


@pytest.mark.parametrize("port", ["99999", "http"])
def test_a_port_that_is_none_is_one_error(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        agent.main(["serve", "--port", port])
    assert f"'{port}' is not a port, 0 to 65535" in capsys.readouterr().err
