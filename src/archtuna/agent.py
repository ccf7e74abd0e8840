"""Times models on the machine that it runs on: one file that needs Python 3.9, numpy and ONNX Runtime, and nothing of ours.

It is copied to a device, or piped to it through SSH, and is what measures on this machine too::

    python3 agent.py serve --host 0.0.0.0      answers over HTTP until it is ended
    python3 agent.py measure < request         answers one request, on standard output
    python3 agent.py describe                  says what the machine is

It returns seconds as they are; whether they can be believed is decided by whoever asked. A request is three parts (options
as JSON, a reference model, a model), each after its length. Whatever a model does, it does to a process of its own that has
limits of time, memory and files.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import hmac
import io
import json
import logging
import os
import platform
import secrets
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import IO, Any

log = logging.getLogger("archtuna.agent")

PORT = 8765
MODEL_MB, MEMORY_MB, SECONDS = 256, 4096, 300
"""What a request may have: the megabytes of its body, and the memory and the time of the process that answers it."""

SILENCE, ANSWER_BYTES, CONNECTIONS, SHARE = 30, 4 << 20, 16, 1 << 16
RETRY_AFTER = 2
TOKEN = "ARCHTUNA_DEVICE_TOKEN"
COUNTS = ("batch", "threads", "rounds")
BOUNDS = {"batch": (1, 4096), "threads": (1, 256), "rounds": (1, 10_000), "warm_up": (0, 60), "round_seconds": (0, 60)}

BOOTSTRAP = (
    "import sys; f = sys.stdin.buffer; SOURCE = f.read(int(f.readline())); exec(compile(SOURCE, 'agent.py', 'exec'))"
)
"""What a Python runs that is given this file by its standard input: a line with its length, then the file."""

PROCESSOR = "CPUExecutionProvider"

Run = Callable[[], Any]


class Refused(Exception):
    """What was asked for is not done, for a reason that whoever asked is told.

    Its ``kind`` is ``refused`` where the model is the reason, ``device`` where the device or the request is, ``away`` where it
    may pass; ``busy``, ``token`` and ``no-runtime`` say it themselves.
    """

    def __init__(self, problem: str, hint: str | None = None, status: int = 422, kind: str = "refused") -> None:
        super().__init__(problem)
        self.hint, self.status, self.kind = hint, status, kind

    @property
    def answer(self) -> dict[str, Any]:
        """What whoever asked is told."""
        return {"error": str(self), "hint": self.hint, "kind": self.kind}


def busy() -> Refused:
    return Refused("another measurement is running", "wait for it", 503, "busy")


# --- a request ---------------------------------------------------------------------------------------


def pack(options: dict[str, Any], reference: bytes, model: bytes) -> bytes:
    """Return a request as bytes."""
    parts = (json.dumps(options).encode(), reference, model)
    return b"".join(struct.pack(">Q", len(part)) + part for part in parts)


def unpack(body: bytes) -> tuple[dict[str, Any], bytes, bytes]:
    """Return the options, the reference model and the model of a request.

    Raises:
        Refused: it is none, or an option is beyond what is allowed.
    """
    parts, place = [], 0
    try:
        for _ in range(3):
            (length,) = struct.unpack_from(">Q", body, place)
            parts.append(body[place + 8 : place + 8 + length])
            place += 8 + length
        options = json.loads(parts[0])
        inside = all(low <= options[name] <= high for name, (low, high) in BOUNDS.items())
        whole = place == len(body) and isinstance(options["provider"], str)
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError, struct.error):
        raise Refused("this is no request", status=400, kind="device") from None
    if not (whole and inside and all(isinstance(options[name], int) for name in COUNTS)):
        raise Refused("the request's options are beyond what is allowed", f"bounds: {BOUNDS}", 400, "device")
    return options, parts[1], parts[2]


# --- what a model may be -----------------------------------------------------------------------------

# Which fields of a message hold which messages, down to the tensors, by the numbers of onnx.proto.
MESSAGES = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "function": {7: "node", 11: "attribute"},
    "training": {1: "graph", 2: "graph"},
    "tensor": {13: "elsewhere"},
}
DEPTH = 64


def refuse_files(content: memoryview, message: str = "model", depth: int = 0) -> None:
    """Refuse a model that reads other files: weights outside it could be any file of the machine.

    Raises:
        Refused: it does, or is no ONNX model.
    """
    if message == "elsewhere":
        raise Refused("the model keeps weights in other files", "save it as one file, with its weights in it")
    if depth > DEPTH:
        raise Refused("the model is nested too deeply")
    for field, part in _fields(content):
        if field in MESSAGES[message]:
            refuse_files(part, MESSAGES[message][field], depth + 1)


def _fields(content: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield the number and the bytes of each field of a protobuf message that has a length."""
    place, end = 0, len(content)
    while place < end:
        tag, place = _varint(content, place)
        field, wire = (tag & 0xFFFFFFFF) >> 3, tag & 7
        if wire == 0:
            place = _varint(content, place)[1]
        elif wire in (1, 5):
            place += 8 if wire == 1 else 4
        elif wire == 2:
            length, place = _varint(content, place)
            yield field, content[place : place + length]
            place += length
        if wire not in (0, 1, 2, 5) or place > end:
            raise Refused("the model does not run in ONNX Runtime: this is no ONNX model")


def _varint(content: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for i, byte in enumerate(content[place : place + 10]):
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, place + i + 1
    raise Refused("the model does not run in ONNX Runtime: this is no ONNX model")


# --- the machine -------------------------------------------------------------------------------------

CPUINFO, DEVICE_TREE = "/proc/cpuinfo", "/proc/device-tree/model"
VIRTUAL = "linux,dummy-virt"
"""What every virtual machine on ARM is called."""


def _runtime() -> Any:
    try:
        import numpy.random  # noqa: F401 - what is read later is not read under the limits
        import onnxruntime
    except ImportError as error:
        raise Refused(
            f"ONNX Runtime is not installed here ({error})", "pip install onnxruntime", kind="no-runtime"
        ) from None
    return onnxruntime


def describe(provider: str = PROCESSOR) -> dict[str, Any]:
    """Return what this machine is, as a latency names it.

    Raises:
        Refused: ONNX Runtime is not installed.
    """
    runtime = _runtime()
    name = processor()
    if provider in PLACES:
        name = f"{name} + {_graphics_card() or provider}"
    return {
        "processor": name,
        "runtime": f"onnxruntime {runtime.__version__}",
        "system": f"{platform.system()} {platform.machine()}",
        "providers": runtime.get_available_providers(),
        "cores": os.cpu_count(),
    }


def processor() -> str:
    """Return the processor's name, as far as the system tells it."""
    if sys.platform == "darwin":
        return _output(["sysctl", "-n", "machdep.cpu.brand_string"]) or platform.machine()
    try:
        with open(CPUINFO, encoding="utf-8", errors="replace") as file:
            parts = [line.partition(":") for line in file]
    except OSError:
        return platform.processor() or platform.machine()
    names = {name.strip(): value.strip() for name, _, value in parts}
    # A board's own name says more than its cores', which many boards have.
    return (
        names.get("Model")
        or _board()
        or names.get("model name")
        or _arm(names)
        or platform.processor()
        or platform.machine()
    )


def _board() -> str:
    with contextlib.suppress(OSError), open(DEVICE_TREE, encoding="utf-8", errors="replace") as file:
        name = file.read().strip("\0 \n")
        return "" if name == VIRTUAL else name
    return ""


def _arm(names: Mapping[str, str]) -> str:
    """Return what an ARM processor without a name is called, by its maker's and its part's numbers."""
    numbers = [names.get(f"CPU {what}", "") for what in ("implementer", "part")]
    return f"{platform.machine()} implementer {numbers[0]} part {numbers[1]}" if all(numbers) else ""


def _first_card() -> str:
    """Return the number or the identity of the card that a provider takes: the first that it is shown."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip() or "0"


def _graphics_card() -> str:
    return _name_of_card(_first_card())


@lru_cache
def _name_of_card(card: str) -> str:
    return _output(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader", f"--id={card}"])


def _output(command: list[str]) -> str:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    return ""


# --- timing ------------------------------------------------------------------------------------------

# Where inputs and outputs lie for a provider that has memory of its own, so that no copy is timed.
PLACES = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "cuda"}
# What computes on the processor runs within limits; a driver reserves addresses without end, and opens files when it likes.
LIMITED = {f"{name}ExecutionProvider" for name in ("CPU", "Azure", "Xnnpack", "Dnnl", "ACL", "ArmNN")}
KINDS = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
}


def timed(
    options: dict[str, Any], reference: bytes, model: bytes, *, ready: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Return how long a model takes in ONNX Runtime beside a reference model, both as ONNX.

    Args:
        options: ``batch``, ``threads``, ``provider``, ``rounds``, ``warm_up`` and ``round_seconds``.
        reference: what shows how the machine itself moves.
        model: any, with one input.
        ready: is called before the models are read, after all else that reads files.

    Returns:
        ``times`` and ``references``, the seconds of one run in each round; ``joules`` of one run of the model, or None where
        the machine does not tell; ``device``, as ``describe`` returns it.

    Raises:
        Refused: the model does not run, keeps weights elsewhere, or there is no such provider.
    """
    threads, provider = options["threads"], options["provider"]
    runtime, machine = _runtime(), describe(provider)
    if provider not in machine["providers"]:
        raise Refused(
            f"ONNX Runtime has no '{provider}' here", f"it has {', '.join(machine['providers'])}", kind="device"
        )
    load_libraries(runtime, provider)
    with energy_counters(provider) as counters, pinned(threads):
        ready()
        run, other = (_runner(runtime, content, options["batch"], threads, provider) for content in (model, reference))
        times, references = compared(run, other, options)
        joules = joules_of(run, counters)
    return {"times": times, "references": references, "joules": joules, "device": machine}


def load_libraries(runtime: Any, provider: str) -> None:
    """Load CUDA's libraries from Python packages where they are installed so; a new ONNX Runtime finds them there."""
    if provider in PLACES and hasattr(runtime, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):  # It prints what it does not find.
            runtime.preload_dlls()


def session_options(runtime: Any, threads: int) -> Any:
    """Return options of an ONNX Runtime session that computes in so many threads, and writes nothing by itself."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    return options


def _runner(runtime: Any, content: bytes, batch: int, threads: int, provider: str) -> Run:
    """Return what runs a model once on a batch of pictures, after it ran once."""
    refuse_files(memoryview(content))
    options = session_options(runtime, threads)
    if provider != PROCESSOR:
        options.log_severity_level = 3
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        session = runtime.InferenceSession(content, options, providers=[provider])
        used = session.get_providers()[0]
        run = _bound(runtime, session, *_feed(session, batch), PLACES.get(provider, ""))
        run()
    except Refused:
        raise
    except Exception as error:  # The runtime raises errors of its own family.
        problem = str(error).strip().partition("\n")[0][:500] or type(error).__name__
        raise Refused(f"the model does not run in ONNX Runtime: {problem}") from None
    if used != provider:
        raise Refused(f"ONNX Runtime could not start '{provider}' and would have used {used}", kind="device")
    return run


def _feed(session: Any, batch: int) -> tuple[str, Any]:
    """Return the name of a model's input, and pictures for it."""
    import numpy as np

    sources = session.get_inputs()
    if len(sources) != 1 or sources[0].type not in KINDS or not sources[0].shape:
        kinds = ", ".join(f"{source.name} {source.type} {source.shape}" for source in sources)
        raise Refused(f"the model takes {kinds or 'nothing'} and not one tensor of pictures")
    shape = [batch, *sources[0].shape[1:]]
    if not all(isinstance(side, int) for side in shape):
        raise Refused(f"the model takes pictures of any size: {sources[0].shape}", "export it for one size")
    values = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    if sources[0].type == "tensor(uint8)":
        values = np.abs(values * 60)
    return sources[0].name, values.astype(KINDS[sources[0].type])


def _bound(runtime: Any, session: Any, name: str, values: Any, place: str) -> Run:
    """Return what runs a session on values that already lie where it reads them."""
    if not place:
        return lambda: session.run(None, {name: values})
    binding = session.io_binding()
    binding.bind_ortvalue_input(name, runtime.OrtValue.ortvalue_from_numpy(values, place, 0))
    for output in session.get_outputs():
        binding.bind_output(output.name, place)

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return run


def compared(run: Run, reference: Run, options: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """Return the seconds of one run of two things in each of some rounds that alternate, whatever they are.

    Args:
        run: what is measured.
        reference: what is always the same.
        options: ``rounds`` of each; ``warm_up``, the seconds for which each runs first; ``round_seconds``, which a round
            lasts about: what is shorter is repeated within it.
    """
    both = [(action, _warmed_up(action, options["warm_up"], options["round_seconds"])) for action in (run, reference)]
    found: tuple[list[float], list[float]] = ([], [])
    for i in range(2 * options["rounds"]):
        action, count = both[i % 2]
        begun = time.perf_counter()
        for _ in range(count):
            action()
        found[i % 2].append((time.perf_counter() - begun) / count)
    return found


def _warmed_up(action: Run, seconds: float, round_seconds: float) -> int:
    """Run for a while, and return how often a round is to run."""
    begun, count = time.perf_counter(), 0
    while count < 3 or time.perf_counter() - begun < seconds:
        action()
        count += 1
    return max(1, round(round_seconds * count / (time.perf_counter() - begun)))


@contextlib.contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Keep this thread, and those that it starts, on as many cores: one that moves measures the moving."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(sorted(before)[-threads:]))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


# --- energy ------------------------------------------------------------------------------------------

POWERCAP = "/sys/class/powercap"
ENERGY_SECONDS = 1.0

Counter = tuple[Callable[[], int], float, int]
"""What reads an energy counter, the joules of one of its units, and where it begins again at 0."""


@contextlib.contextmanager
def energy_counters(provider: str = PROCESSOR) -> Iterator[list[Counter]]:
    """Give what of this machine's energy counters can be read: the processor's packages, and the card that is used.

    Source: the kernel's power capping framework (RAPL), and NVML's total energy of a card, in millijoules.
    """
    with contextlib.ExitStack() as files:
        yield _packages(files) + (_card() if provider in PLACES else [])


def _packages(files: contextlib.ExitStack) -> list[Counter]:
    found: list[Counter] = []
    with contextlib.suppress(OSError, ValueError):
        for name in sorted(os.listdir(POWERCAP)):
            folder = os.path.join(POWERCAP, name)
            # intel-rapl:0 is a package, also AMD's; intel-rapl:0:1 is a part of one.
            if name.startswith("intel-rapl:") and name.count(":") == 1:
                with open(os.path.join(folder, "max_energy_range_uj")) as file:
                    around = int(file.read()) + 1
                # Kept open, because what measures a stranger's model opens no more files.
                counter = os.open(os.path.join(folder, "energy_uj"), os.O_RDONLY)
                files.callback(os.close, counter)
                found.append((partial(_microjoules, counter), 1e-6, around))
    return found


def _microjoules(counter: int) -> int:
    return int(os.pread(counter, 64, 0))


def _card() -> list[Counter]:
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
        handle, value, card = ctypes.c_void_p(), ctypes.c_ulonglong(), _first_card()
        if card.isdigit():
            handle_of, key = library.nvmlDeviceGetHandleByIndex_v2, int(card)  # type: Any, Any
        else:
            handle_of, key = library.nvmlDeviceGetHandleByUUID, card.encode()
        asked = library.nvmlInit_v2() or handle_of(key, ctypes.byref(handle))
        read = library.nvmlDeviceGetTotalEnergyConsumption
    except (OSError, AttributeError):
        return []

    def millijoules() -> int:
        return -1 if read(handle, ctypes.byref(value)) else value.value

    return [] if asked or millijoules() < 0 else [(millijoules, 1e-3, 1 << 64)]


def joules_of(run: Run, counters: list[Counter]) -> float | None:
    """Return the joules of one run, of many without a pause, or None where nothing counts them.

    They include what the machine takes when it idles.
    """
    if not counters:
        return None
    before, begun, count = [read() for read, _, _ in counters], time.perf_counter(), 0
    while count < 3 or time.perf_counter() - begun < ENERGY_SECONDS:
        run()
        count += 1
    spent = [(read() - before[i]) % around * unit for i, (read, unit, around) in enumerate(counters)]
    return sum(spent) / count


# --- a process of its own ----------------------------------------------------------------------------


def source() -> bytes:
    """Return this file, also where it came by standard input."""
    if "SOURCE" in globals():
        return globals()["SOURCE"]
    with open(__file__, "rb") as file:
        return file.read()


def framed(request: bytes = b"") -> bytes:
    """Return this file and a request, as the standard input of a Python that runs ``BOOTSTRAP``."""
    return b"%d\n" % len(source()) + source() + request


def answered(
    verb: str, request: Any, length: int, limits: argparse.Namespace, gone: Callable[[], bool] = lambda: False,
    provider: str = PROCESSOR,
) -> dict[str, Any]:  # fmt: skip
    """Answer in a process of its own, which may fail, hang or grow without harm to this one.

    Args:
        verb: ``run`` or ``describe``.
        request: is read as it comes, to the disk and not into memory.
        length: of the request in bytes.
        limits: ``seconds`` and ``memory_mb``.
        gone: whether nobody waits for the answer any more.
        provider: with which the machine is described.

    Raises:
        Refused: the process ended without an answer.
        ConnectionError: the request was cut, or nobody waits any more.
    """
    with tempfile.TemporaryFile() as spool, tempfile.TemporaryDirectory() as folder:
        spool.write(framed())
        _copy(request, spool, length, time.monotonic() + limits.seconds)
        spool.seek(0)
        command = [sys.executable, "-c", BOOTSTRAP, verb, "--seconds", str(limits.seconds)]
        process = subprocess.Popen(
            [*command, "--memory-mb", str(limits.memory_mb), "--provider", provider],
            stdin=spool, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=folder, env=_environment(),
        )  # fmt: skip
        ended: list[str] = []
        threading.Thread(target=_watch, args=(process, limits.seconds, gone, ended), daemon=True).start()
        with process:
            try:
                output = process.stdout.read(ANSWER_BYTES)  # type: ignore[union-attr]
            finally:
                process.kill()
    if ended == ["gone"]:
        raise ConnectionError("whoever asked is gone")
    return _checked(output, process.returncode, limits, bool(ended))


def _copy(request: Any, spool: IO[bytes], length: int, deadline: float) -> None:
    while length:
        part = request.read1(min(length, SHARE))  # what there is, so that who sends drop by drop is noticed
        if not part or time.monotonic() > deadline:
            raise ConnectionError("the request was cut")
        spool.write(part)
        length -= len(part)


def _environment() -> dict[str, str]:
    """Return the environment of the process that answers: without the token, and with no threads but the runtime's."""
    kept = {name: value for name, value in os.environ.items() if name != TOKEN}
    return {**kept, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _watch(process: subprocess.Popen[bytes], seconds: float, gone: Callable[[], bool], ended: list[str]) -> None:
    deadline = time.monotonic() + seconds
    while process.poll() is None:
        if gone() or time.monotonic() > deadline:
            ended.append("late" if time.monotonic() > deadline else "gone")
            process.kill()
        time.sleep(0.1)


def _checked(output: bytes, code: int, limits: argparse.Namespace, late: bool) -> dict[str, Any]:
    try:
        answer = json.loads(output)
    except ValueError:
        answer = None
    if late or code == -getattr(signal, "SIGALRM", 0):
        raise Refused(
            f"the model took longer than {limits.seconds} s to measure", "measure fewer rounds, or a smaller batch"
        )
    if not isinstance(answer, dict):
        raise Refused(
            f"the model ended the process that measured it (exit code {code})",
            f"it may use up to {limits.memory_mb} MB of memory",
        )
    if "error" in answer:
        raise Refused(answer["error"], answer["hint"], kind=answer["kind"])
    return answer


def run_once(arguments: argparse.Namespace) -> int:
    """Answer the request on standard input, within limits that this process sets itself."""
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # The answer alone goes where it is read, whatever a library prints.
    body = sys.stdin.buffer.read()
    _limit("RLIMIT_CORE", 0)
    _limit("RLIMIT_FSIZE", 0)
    if hasattr(signal, "alarm"):
        signal.alarm(arguments.seconds + 5)
    _die_with_parent()
    try:
        options, reference, model = unpack(body)
        del body
        limited = options["provider"] in LIMITED
        if limited:
            _limit("RLIMIT_AS", arguments.memory_mb << 20)
        answer = timed(options, reference, model, ready=lambda: _limit("RLIMIT_NOFILE", 0) if limited else None)
    except Refused as refusal:
        answer = refusal.answer
    except MemoryError:
        answer = Refused(f"the model needs over {arguments.memory_mb} MB of memory to be measured").answer
    json.dump(answer, output)
    output.flush()
    return 0


def _limit(name: str, value: int) -> None:
    """Lower one of this process's limits, where the system has it."""
    with contextlib.suppress(ImportError, AttributeError, ValueError, OSError):
        import resource

        resource.setrlimit(getattr(resource, name), (value, value))


def _die_with_parent() -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, on Linux alone
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


# --- over HTTP ---------------------------------------------------------------------------------------


class _Server(ThreadingHTTPServer):
    """Answers several connections, and measures for one of them at a time."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], token: str, limits: argparse.Namespace) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)
        self.token, self.limits = token, limits
        self.machines: dict[str, dict[str, Any]] = {}
        self.turn, self.seats = threading.Lock(), threading.Semaphore(CONNECTIONS)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self.seats.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.seats.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.warning("%s: %s", client_address[0], sys.exc_info()[1])


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version, sys_version = "archtuna-agent", ""
    timeout = SILENCE

    def setup(self) -> None:
        super().setup()
        # Whoever sends a header drop by drop would hold a seat for as long as it likes.
        self._patience = threading.Timer(SILENCE, self._end)
        self._patience.daemon = True
        self._patience.start()

    def finish(self) -> None:
        self._patience.cancel()
        super().finish()

    def _end(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def do_GET(self) -> None:
        self._answer("/device", self._device)

    def do_POST(self) -> None:
        self._answer("/measure", self._measured)

    def _answer(self, path: str, work: Callable[[], dict[str, Any]]) -> None:
        self._patience.cancel()
        try:
            self._admit(path)
            if not self.server.turn.acquire(blocking=False):
                raise busy()
            try:
                status, answer = 200, work()
            finally:
                self.server.turn.release()
        except Refused as refusal:
            status, answer = refusal.status, refusal.answer
        except OSError as error:
            log.info("%s: %s", self.client_address[0], error or type(error).__name__)
            self.close_connection = True
            return
        self._send(status, answer)

    def _admit(self, path: str) -> None:
        scheme, _, given = self.headers.get("Authorization", "").partition(" ")
        known = hmac.compare_digest(given.strip().encode(), self.server.token.encode())
        if scheme.lower() != "bearer" or not known:
            raise Refused("the token is not this device's", None, 401, "token")
        if self.path.partition("?")[0] != path:
            raise Refused(
                f"there is no {self.path[:80]} here", "there are GET /device and POST /measure", 404, "device"
            )

    def _device(self) -> dict[str, Any]:
        # With a graphics card the machine has another name.
        provider = self.path.partition("?provider=")[2]
        provider = provider if provider in PLACES else PROCESSOR
        if provider not in self.server.machines:
            self.server.machines[provider] = answered(
                "describe", io.BytesIO(), 0, self.server.limits, provider=provider
            )
        return self.server.machines[provider]

    def _measured(self) -> dict[str, Any]:
        limits, length = self.server.limits, self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            raise Refused("the request does not say how long it is", status=411)
        if len(length) > 12 or int(length) > limits.model_mb * 10**6:
            raise Refused(
                f"the request has more than {limits.model_mb} MB", "start the agent with a larger --model-mb", 413
            )
        return answered("run", self.rfile, int(length), limits, self._gone)

    def _gone(self) -> bool:
        """Return whether the other side hung up while it should wait."""
        try:
            # A socket with a time limit waits for as long, whatever its flags say.
            waits = select.select([self.connection], [], [], 0)[0]
            return bool(waits) and not self.connection.recv(1, socket.MSG_PEEK)
        except (OSError, ValueError):
            return True

    def _send(self, status: int, answer: dict[str, Any]) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if status == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        if status == 503:
            self.send_header("Retry-After", str(RETRY_AFTER))
        self.end_headers()
        self.wfile.write(content)
        self._linger()

    def _linger(self) -> None:
        """Read for a moment what is still sent: closing at once would take the answer back from who has not read it."""
        deadline = time.monotonic() + 2
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(1)
            while time.monotonic() < deadline and self.rfile.read1(SHARE):
                pass

    def log_message(self, format: str, *args: Any) -> None:
        # A stranger's words could steer the terminal that they are shown on.
        log.info("%s %s", self.client_address[0], (format % args).encode("unicode_escape").decode())


def serve(arguments: argparse.Namespace) -> int:
    """Answer over HTTP until this process is ended, and say where, and the token where it was made here."""
    token, made = token_of(arguments.token_file)
    server = _Server((arguments.host, arguments.port), token, arguments)
    host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
    sys.stdout.write(f"measuring for http://{host}:{server.server_address[1]}\n")
    if made:
        sys.stdout.write(f"token (said once): {token}\n")
    if arguments.host not in ("127.0.0.1", "localhost", "::1"):
        log.warning("HTTP is not encrypted: whoever listens in this network reads the token and the models")
    sys.stdout.flush()
    with server, contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()
    return 0


def token_of(file: str | None) -> tuple[str, bool]:
    """Return the token, and whether it was made here: of a file, else of the environment, else a new one.

    Raises:
        Refused: the file cannot be read, or a token is too short to keep anybody out.
    """
    try:
        with open(file, encoding="utf-8") if file else io.StringIO(os.environ.get(TOKEN, "")) as stream:
            token = stream.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"the token cannot be read: {error}") from None
    if not token and not file and TOKEN not in os.environ:
        return secrets.token_urlsafe(24), True
    if len(token) < 16:
        raise Refused("the token has fewer than 16 characters", "leave it out, and one is made")
    return token, False


# --- the command line --------------------------------------------------------------------------------


def measure_once(arguments: argparse.Namespace) -> int:
    """Answer the request on standard input in a process of its own, and write the answer to standard output."""
    with tempfile.TemporaryFile() as spool:
        shutil.copyfileobj(sys.stdin.buffer, spool)
        length = spool.tell()
        spool.seek(0)
        try:
            with _turn():
                answer = answered("run", spool, length, arguments, _unheard)
        except (Refused, OSError) as error:
            answer = error.answer if isinstance(error, Refused) else Refused(str(error), kind="away").answer
    json.dump(answer, sys.stdout)
    return 0


@contextlib.contextmanager
def _turn() -> Iterator[None]:
    """Measure alone among those who came through SSH, each with a process of its own.

    Raises:
        Refused: another one measures.
    """
    with contextlib.ExitStack() as files:
        with contextlib.suppress(ImportError, AttributeError, OSError):
            import fcntl

            # A folder that every machine has: nothing is left behind, and a process that dies gives it back.
            lock = os.open(tempfile.gettempdir(), os.O_RDONLY | os.O_CLOEXEC)
            files.callback(os.close, lock)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise busy() from None
        yield


def _unheard() -> bool:
    """Return whether what reads this process's standard output is gone."""
    if not hasattr(select, "poll"):
        return False
    watch = select.poll()
    watch.register(1, 0)  # errors and hang-ups alone
    return bool(watch.poll(0))


def describe_once(arguments: argparse.Namespace) -> int:
    """Write what this machine is to standard output."""
    try:
        answer = describe(arguments.provider)
    except Refused as refusal:
        answer = refusal.answer
    json.dump(answer, sys.stdout)
    return 0


def limit_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what limits an answer."""
    parser.add_argument(
        "--seconds",
        type=int,
        default=SECONDS,
        metavar="N",
        help="longest measurement, in seconds (default: %(default)s)",
    )
    parser.add_argument(
        "--memory-mb",
        type=int,
        default=MEMORY_MB,
        metavar="N",
        help="most memory of a measurement, in MB (default: %(default)s)",
    )


def _process_arguments(parser: argparse.ArgumentParser) -> None:
    limit_arguments(parser)
    parser.add_argument("--provider", default=PROCESSOR, help="with which the machine is described")


def _port(text: str) -> int:
    if not text.isdigit() or int(text) >= 1 << 16:
        raise argparse.ArgumentTypeError(f"'{text}' is not a port, 0 to 65535")
    return int(text)


def serve_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``serve``."""
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen at; 0.0.0.0 is all (default: this machine alone)",
    )
    parser.add_argument(
        "--port",
        type=_port,
        default=PORT,
        metavar="N",
        help="port to listen at; 0 takes a free one (default: %(default)s)",
    )
    parser.add_argument(
        "--token-file", metavar="FILE", help=f"a file with the token (default: ${TOKEN}, or one is made and said once)"
    )
    parser.add_argument(
        "--model-mb",
        type=int,
        default=MODEL_MB,
        metavar="N",
        help="largest model that is taken, in MB (default: %(default)s)",
    )
    limit_arguments(parser)


def main(words: list[str] | None = None) -> int:
    """Do what the command line says, and return the exit code."""
    parser = argparse.ArgumentParser(prog="agent.py", description="times models on this machine")
    verbs = parser.add_subparsers(required=True)
    for name, action in {"serve": serve, "measure": measure_once, "run": run_once, "describe": describe_once}.items():
        verb = verbs.add_parser(name, help=(action.__doc__ or "").partition("\n")[0])
        verb.set_defaults(action=action)
        (serve_arguments if name == "serve" else _process_arguments)(verb)
    arguments = parser.parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        return int(arguments.action(arguments))
    except (Refused, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
