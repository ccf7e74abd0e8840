"""What runs a network on this machine to be measured: ONNX Runtime, torch as it is or compiled, and ExecuTorch."""

from __future__ import annotations

import copy
import platform
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from archtuna import agent
from archtuna.devices import torch_threads
from archtuna.errors import LatencyError, MissingExtraError, ModelRefused, first_line, nearest

if TYPE_CHECKING:
    from torch import Tensor, nn

XNNPACK = "xnnpack"

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Runtime:
    """What runs networks.

    Attributes:
        name: as a latency and the command line call it.
        takes: ``module``, or the suffix of the files that it runs.
        provider: what it computes on where nothing is said.
        describe: tells this machine, as ``agent.describe`` does.
        timed: measures what it takes beside a reference, as ``agent.timed`` does.
    """

    name: str
    takes: str
    provider: str
    describe: Callable[[str], dict[str, Any]]
    timed: Callable[[Any, bytes | None, Options], dict[str, Any]]


def runtime_of(name: str) -> Runtime:
    """Return a runtime by its name.

    Raises:
        LatencyError: there is none of that name.
    """
    if name not in RUNTIMES:
        raise LatencyError(f"unknown runtime '{name}'", hint=nearest(name, RUNTIMES) or f"known: {', '.join(RUNTIMES)}")
    return RUNTIMES[name]


def _onnx_timed(content: bytes, reference: bytes | None, options: Options) -> dict[str, Any]:
    return agent.timed(dict(options), reference or b"", content)


# --- torch -------------------------------------------------------------------------------------------


def _torch_described(provider: str) -> dict[str, Any]:
    import torch

    if provider not in ("cpu", "cuda") or (provider == "cuda" and not torch.cuda.is_available()):
        raise LatencyError(f"torch has no '{provider}' here", hint="it has cpu, and cuda where there is a card for it")
    name = agent.processor()
    if provider == "cuda":
        name = f"{name} + {torch.cuda.get_device_name()}"
    return _machine(name, f"torch {torch.__version__}")


def _compiled_described(provider: str) -> dict[str, Any]:
    machine = _torch_described(provider)
    return {**machine, "runtime": machine["runtime"].replace("torch", "torch-compile", 1)}


def _machine(processor: str, runtime: str) -> dict[str, Any]:
    return {"processor": processor, "runtime": runtime, "system": f"{platform.system()} {platform.machine()}"}


def _torch_timed(model: nn.Module, reference: bytes | None, options: Options) -> dict[str, Any]:
    runs = (_eager(one, options) for one in (model, reference_network()))
    return _timed_in_torch(runs, options, _torch_described(options["provider"]))


def _compile_timed(model: nn.Module, reference: bytes | None, options: Options) -> dict[str, Any]:
    import torch

    try:
        with warnings.catch_warnings():
            # The compiler's own modules use what torch itself has deprecated.
            warnings.simplefilter("ignore", DeprecationWarning)
            runs = (_eager(one, options, torch.compile) for one in (model, reference_network()))
            return _timed_in_torch(runs, options, _compiled_described(options["provider"]))
    finally:
        torch.compiler.reset()


def _timed_in_torch(runs: Iterator[agent.Run], options: Options, machine: dict[str, Any]) -> dict[str, Any]:
    """Return what ``agent.timed`` would, of two things that torch runs."""
    counted = "CUDAExecutionProvider" if options["provider"] == "cuda" else ""
    with (
        torch_threads(options["threads"]),
        agent.pinned(options["threads"]),
        agent.energy_counters(counted) as counters,
    ):
        run, reference = runs
        times, references = agent.compared(run, reference, options)
        joules = agent.joules_of(run, counters)
    return {"times": times, "references": references, "joules": joules, "device": machine}


def _eager(model: nn.Module, options: Options, prepare: Callable[[Any], Any] = lambda module: module) -> agent.Run:
    """Return what runs a copy of a network once on a batch of pictures, in the layout that training takes."""
    import torch

    from archtuna.training import memory_format_of

    problem, place = "", torch.device(options["provider"])
    try:
        layout = memory_format_of(model, place)
        module = prepare(copy.deepcopy(model).to(device=place, memory_format=layout).eval().requires_grad_(False))  # type: ignore[call-overload]
        pictures = torch.randn((options["batch"], *_shape(model)), generator=torch.Generator().manual_seed(0))
        pictures = pictures.to(place, memory_format=layout)
        run = _synchronised(module, pictures)
        run()
    except Exception as error:  # A compiler's errors are of many families.
        # Other processes may have the card's memory now.
        kind = LatencyError if isinstance(error, torch.OutOfMemoryError) else ModelRefused
        problem = first_line(error, 500)
    if problem:
        raise kind(f"the network does not run in torch: {problem}")
    return run


def _synchronised(module: Any, pictures: Tensor) -> agent.Run:
    import torch

    wait = torch.cuda.synchronize if pictures.is_cuda else lambda: None

    def run() -> None:
        with torch.inference_mode():
            module(pictures)
        wait()

    return run


def _shape(model: nn.Module) -> tuple[int, ...]:
    architecture: Any = getattr(model, "architecture", None)
    return (architecture.input_channels, *architecture.input_size) if architecture else (3, 32, 32)


def reference_network() -> nn.Module:
    """Return the network of ``latency.reference_model`` for torch: three convolutions of fixed weights."""
    import torch
    from torch import nn

    generator, layers = torch.Generator().manual_seed(0), []  # type: torch.Generator, list[nn.Module]
    for channels in (3, 32, 32):
        conv = nn.Conv2d(channels, 32, 3, padding=1, bias=False)
        conv.weight.data = 0.1 * torch.randn(conv.weight.shape, generator=generator)
        layers += [conv, nn.ReLU()]
    return nn.Sequential(*layers).eval()


# --- ExecuTorch --------------------------------------------------------------------------------------


def _executorch_described(provider: str) -> dict[str, Any]:
    from importlib.metadata import PackageNotFoundError, version

    if provider != XNNPACK:
        raise LatencyError(f"ExecuTorch has no '{provider}' here", hint=f"it has {XNNPACK}")
    try:
        return _machine(agent.processor(), f"executorch {version('executorch')}")
    except PackageNotFoundError:
        raise MissingExtraError("executorch", "executorch") from None


def _executorch_timed(content: bytes, reference: bytes | None, options: Options) -> dict[str, Any]:
    machine = _executorch_described(options["provider"])
    programs = (content, _lowered(reference_network()))
    return _timed_in_torch((_program(one, options) for one in programs), options, machine)


def _program(content: bytes, options: Options) -> agent.Run:
    """Return what runs a ``.pte`` once, which takes one picture at a time."""
    import torch
    from executorch.runtime import Runtime as Programs

    if options["batch"] != 1:
        raise LatencyError("an ExecuTorch program takes one picture at a time", hint="measure it with a batch of 1")
    problem = ""
    try:
        method = Programs.get().load_program(content).load_method("forward")
        shape = method.metadata.input_tensor_meta(0).sizes()
        pictures = [torch.randn(shape, generator=torch.Generator().manual_seed(0))]
        method.execute(pictures)
    except Exception as error:  # The runtime raises what its C++ raises.
        problem = first_line(error, 500)
    if problem:
        raise ModelRefused(f"the model does not run in ExecuTorch: {problem}")
    return lambda: method.execute(pictures)


def _lowered(network: nn.Module) -> bytes:
    import torch

    from archtuna.exports.executorch import lowered

    return lowered(torch.export.export(network, (torch.randn(1, 3, 32, 32),)))


RUNTIMES = {
    runtime.name: runtime
    for runtime in (
        Runtime("onnxruntime", "onnx", "CPUExecutionProvider", agent.describe, _onnx_timed),
        Runtime("torch", "module", "cpu", _torch_described, _torch_timed),
        Runtime("torch-compile", "module", "cpu", _compiled_described, _compile_timed),
        Runtime("executorch", "pte", XNNPACK, _executorch_described, _executorch_timed),
    )
}
"""Every runtime by its name."""
