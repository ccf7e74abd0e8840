"""Where the milliseconds of an exported network go: what each copy of a block takes in ONNX Runtime, on this machine.

The runtime's own profiler times every node of the graph that it makes of a file: fused, folded and laid out anew. Such a node
belongs to the block whose value it computes; what no block asked for is told on its own.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from archtuna import agent
from archtuna.architecture import Architecture
from archtuna.errors import LatencyError, MissingExtraError
from archtuna.latency import Device, device, quiet_machine

RUNS = 50
WARM_UP = 5

_UNIT = re.compile(r"(?:^|[/'])layers\.(\d+)(?:$|[/.'])")
_SCOPES = "pkg.torch.onnx.name_scopes"
_LAID_OUT = "_nchwc"
_CONVOLUTIONS = ("Conv", "FusedConv")


@dataclass(frozen=True)
class Profile:
    """What each copy of a block takes.

    Attributes:
        units: milliseconds of each copy, in order; with ``rest`` they add up to ``ms``.
        rest: milliseconds of what belongs to no block, and of the runtime between nodes.
        ms: milliseconds of a run without the profiler, for a batch: a lower quartile.
        profiled_ms: the same with it.
        runs: how many of each there were.
        device: where.
    """

    units: tuple[float, ...]
    rest: float
    ms: float
    profiled_ms: float
    runs: int
    device: Device

    def rows(self, architecture: Architecture) -> list[float]:
        """Return the milliseconds of each row, its copies together."""
        found = [0.0] * len(architecture.rows)
        for (index, _), ms in zip(architecture.units(), self.units, strict=True):
            found[index] += ms
        return found

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "units": list(self.units), "fingerprint": self.device.fingerprint}


def profile(
    content: bytes,
    architecture: Architecture,
    *,
    batch: int = 1,
    threads: int = 1,
    provider: str | None = None,
    runs: int = RUNS,
) -> Profile:
    """Time every block of an exported network in ONNX Runtime. Only one process of a machine measures at a time.

    Runs with the profiler and without it alternate. What the profiler takes between nodes is no part of its times; where these
    still are more than a run without it, they are scaled to it.

    Args:
        content: of the ONNX file.
        architecture: of the network that it is.
        batch: pictures at once.
        threads: of the runtime.
        provider: of the runtime; its own first where none is named.
        runs: with the profiler, and as many without.

    Raises:
        LatencyError: the model does not run, there is no such provider, or it is no network of so many blocks.
        MissingExtraError: ONNX or ONNX Runtime is not installed.
    """
    where = device(batch, threads, provider)
    with tempfile.TemporaryDirectory() as folder, quiet_machine():
        watched = _Watched(content, Path(folder), batch, threads, where.provider)
        plain, whole = watched.timed(runs)
        events = watched.events()
        owners = _owners(watched.graph(), _Source(content), list(events))
    count = sum(1 for _ in architecture.units())
    highest = max((unit for unit in owners.values() if unit is not None), default=-1)
    if not 0 <= highest < count:
        raise LatencyError(
            f"the model has nodes of {highest + 1} blocks, and the architecture has {count}",
            hint="profile a file that archtuna exported, with its own architecture",
        )
    times = {name: _low(events[name]) for name in events}
    ms, inside = _low(plain), sum(times.values())
    units = [0.0] * count
    for name, owner in owners.items():
        if owner is not None:
            units[owner] += times.get(name, 0.0) * min(1.0, ms / inside)
    return Profile(tuple(units), ms - sum(units), ms, _low(whole), runs, where)


def _low(times: Sequence[float]) -> float:
    """Return the lower quartile: what else runs on a machine only ever adds."""
    return float(np.quantile(times, 0.25))


# --- timing ------------------------------------------------------------------------------------------


class _Watched:
    """A model in two sessions of the runtime; one of them writes down its graph, and what each node takes."""

    def __init__(self, content: bytes, folder: Path, batch: int, threads: int, provider: str) -> None:
        self._folder, self._threads, self._provider = folder, threads, provider
        problem = ""
        try:
            self._plain, self._watched = self._session(content, False), self._session(content, True)
            (source,) = self._plain.get_inputs()
            pictures = np.random.default_rng(0).standard_normal((batch, *source.shape[1:]), dtype=np.float32)
            self._feed = {source.name: pictures}
            self._run(self._plain)
        except Exception as error:  # The runtime raises errors of its own family.
            problem = str(error).strip().partition("\n")[0] or type(error).__name__
        if problem:
            raise LatencyError(f"the model does not run in ONNX Runtime: {problem}")

    def _session(self, content: bytes, watched: bool) -> Any:
        import onnxruntime

        agent.load_libraries(onnxruntime, self._provider)
        options = agent.session_options(onnxruntime, self._threads)
        if watched:
            options.optimized_model_filepath = str(self._folder / "graph.onnx")
            options.enable_profiling, options.profile_file_prefix = True, str(self._folder / "times")
        session = onnxruntime.InferenceSession(content, options, providers=[self._provider])
        used = session.get_providers()[0]
        if used != self._provider:
            raise ValueError(f"it has no '{self._provider}' here, and would have used {used}")
        return session

    def _run(self, session: Any) -> float:
        begun = time.perf_counter()
        session.run(None, self._feed)
        return 1e3 * (time.perf_counter() - begun)

    def timed(self, runs: int) -> tuple[list[float], list[float]]:
        """Return the milliseconds of runs without the profiler and with it, after some that do not count."""
        with agent.pinned(self._threads):
            times = [(self._run(self._plain), self._run(self._watched)) for _ in range(WARM_UP + runs)]
        plain, watched = zip(*times[WARM_UP:], strict=True)
        return list(plain), list(watched)

    def graph(self) -> Any:
        """Return the graph that the runtime made of the model."""
        return _onnx().load(str(self._folder / "graph.onnx"), load_external_data=False).graph

    def events(self) -> dict[str, list[float]]:
        """Return the milliseconds of each node in each run that counts, by its name, in the order of their first run."""
        found: dict[str, list[float]] = defaultdict(list)
        for event in json.loads(Path(self._watched.end_profiling()).read_text(encoding="utf-8")):
            name = str(event["name"])
            if event["cat"] == "Node" and name.endswith("_kernel_time"):
                found[name.removesuffix("_kernel_time")].append(event["dur"] / 1e3)
        return {name: times[WARM_UP:] for name, times in found.items()}


# --- whose a node is ---------------------------------------------------------------------------------


class _Source:
    """The graph as it was exported: which block each node and value belongs to, None where it is none's."""

    def __init__(self, content: bytes) -> None:
        graph = _onnx().load_from_string(content).graph
        self._producer = {value: node for node in graph.node for value in node.output}
        self._named = {node.name: node for node in graph.node if node.name}

    def owner(self, names: Sequence[str], kind: str) -> tuple[bool, int | None]:
        """Return whether one of these names stands in the graph, and whose it is.

        Args:
            names: of values or nodes.
            kind: the operator that the runtime runs. An activation that was fused into a convolution is the convolution's.
        """
        for name in names:
            node = self._producer.get(name) or self._named.get(name)
            if node is not None:
                return True, _unit_of(self._fused_into(node) if kind in _CONVOLUTIONS else node)
        return False, None

    def _fused_into(self, node: Any) -> Any:
        """Return the convolution that a node is computed with: one to four nodes before it."""
        before = [node]
        for _ in range(4):
            for one in before:
                if one.op_type == "Conv":
                    return one
            before = [self._producer[value] for one in before for value in one.input if value in self._producer]
        return node


def _unit_of(node: Any) -> int | None:
    """Return the unit that exporters say a node is of, in its metadata or in its name."""
    scopes = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), node.name)
    found = _UNIT.search(scopes)
    return None if found is None else int(found[1])


def _owners(graph: Any, source: _Source, events: Sequence[str]) -> dict[str, int | None]:
    """Return the unit of each node that the runtime runs, by what its profiler calls it.

    A node that the runtime added, to lay a map out anew, belongs to the unit whose map it is.

    Args:
        graph: which the runtime made.
        source: the graph as it was exported.
        events: names in the order in which nodes run.
    """
    found: dict[str, int | None] = {}
    by_value: dict[str, int | None] = {}
    named = {node.name for node in graph.node}
    # A node without a name is called by its operator and a number that the graph does not tell.
    nameless = defaultdict(list)
    for name in reversed([name for name in events if name not in named]):
        nameless[name.rpartition("_")[0]].append(name)
    for node in graph.node:
        names = [name for name in (*node.output, node.name.removesuffix(_LAID_OUT), node.name) if name]
        known, owner = source.owner(names, node.op_type)
        if not known:
            owner = next((by_value[value] for value in node.input if value in by_value), None)
        by_value |= dict.fromkeys(node.output, owner)
        if node.name or nameless[node.op_type]:
            found[node.name or nameless[node.op_type].pop()] = owner
    return found


def _onnx() -> Any:
    try:
        import onnx
    except ImportError:
        raise MissingExtraError("onnx", "onnx") from None
    return onnx
