"""Measuring on a device of one's own, with real processes that talk over loopback and are killed."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from archtuna import agent, remote
from archtuna import latency as module
from archtuna.errors import LatencyError, ModelRefused
from archtuna.latency import Latency, device, measure, reference_model
from archtuna.remote import ask
from archtuna.targets import Target
from steady import believe

from test_agent import endless, gigantic, model_of, elsewhere, request  # isort: skip

SECRET = "a secret of many characters"
CUDA = "CUDAExecutionProvider"


@pytest.fixture(autouse=True)
def steady(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices that are believed however busy the tests keep them, and short measurements."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    believe(monkeypatch)
    monkeypatch.setattr(module, "WARM_UP_SECONDS", 0.01)
    monkeypatch.setattr(module, "ROUND_SECONDS", 0.001)
    monkeypatch.setenv("ARCHTUNA_DEVICE_TOKEN", SECRET)


def started(*words: str, port: int = 0) -> tuple[subprocess.Popen[str], Target]:
    """Start an agent, and return it when it answers, and where."""
    process = subprocess.Popen(
        [sys.executable, agent.__file__, "serve", "--port", str(port), *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, agent.TOKEN: SECRET},
    )  # fmt: skip
    line = process.stdout.readline()  # type: ignore[union-attr]
    assert line.startswith("measuring for http"), line
    return process, Target("pi4", line.split()[-1])


def ended(process: subprocess.Popen[str]) -> str:
    """End an agent, and return what it said."""
    process.terminate()
    return "".join(process.communicate(timeout=20))


@pytest.fixture(scope="module")
def pi4() -> Iterator[Target]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ARCHTUNA_DEVICE_TOKEN", SECRET)
        process, target = started("--seconds", "8", "--memory-mb", "2000", "--model-mb", "20")
    yield target
    ended(process)


def port_of(target: Target) -> int:
    return int(target.url.rpartition(":")[2])


def quick(target: Target, content: bytes | None = None, **given: Any) -> Latency:
    return measure(reference_model() if content is None else content, on=target, **{"rounds": 3, **given})


# --- over HTTP ---------------------------------------------------------------------------------------


def test_a_device_measures_as_this_machine_does(pi4: Target) -> None:
    there, here = quick(pi4), measure(reference_model(), rounds=3)
    assert there.device == here.device == device(1, 1, on=pi4), "which is the same machine here"
    assert there.rounds == 3
    assert 0 < there.low <= there.ms <= there.high
    assert there.ratio > 0
    assert quick(pi4, batch=2, threads=2).device.fingerprint != there.device.fingerprint


def test_a_wrong_token_is_one_error_at_once(pi4: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ("", "another secret of many", SECRET[:-1]):
        monkeypatch.setenv("ARCHTUNA_DEVICE_TOKEN", wrong)
        with pytest.raises(
            LatencyError, match=r"pi4: the token is not the device's\nhint: archtuna device add NAME URL --token-file"
        ):
            quick(pi4)
        with pytest.raises(LatencyError, match="the token is not the device's"):
            device(on=pi4)
    monkeypatch.setenv("ARCHTUNA_DEVICE_TOKEN", "a\nb")
    with pytest.raises(LatencyError, match="the token has characters that no token has"):
        quick(pi4)


def test_a_huge_model_is_refused_before_it_is_sent_whole(pi4: Target) -> None:
    sent = time.monotonic()
    with pytest.raises(
        LatencyError, match=r"pi4: the request has more than 20 MB\nhint: start the agent with a larger --model-mb"
    ):
        quick(pi4, bytes(300 << 20))
    assert time.monotonic() - sent < 15
    assert quick(pi4).ms > 0


def test_a_body_is_never_read_beyond_what_was_said(pi4: Target) -> None:
    heads = {
        "Content-Length: 99999999999999999999": "413",
        "Content-Length: -5": "411",
        "Content-Length: x": "411",
        "Transfer-Encoding: chunked": "411",
        "Content-Length: 3": "400|200|422",
    }
    for head, status in heads.items():
        answer = spoken(pi4, f"POST /measure HTTP/1.0\r\nAuthorization: Bearer {SECRET}\r\n{head}\r\n\r\nabcdef")
        assert answer.split()[1] in status.split("|"), answer


def spoken(target: Target, text: str) -> str:
    with socket.create_connection(("127.0.0.1", port_of(target)), timeout=20) as connection:
        connection.sendall(text.encode())
        return b"".join(iter(lambda: connection.recv(4096), b"")).decode()


def test_other_paths_and_words_are_refused(pi4: Target) -> None:
    head = f"Authorization: Bearer {SECRET}\r\n\r\n"
    assert " 404 " in spoken(pi4, f"GET /etc/passwd HTTP/1.0\r\n{head}")
    assert " 404 " in spoken(pi4, f"POST /device HTTP/1.0\r\n{head}")
    assert " 401 " in spoken(pi4, "GET /device HTTP/1.0\r\n\r\n")
    assert " 401 " in spoken(pi4, "GET /device HTTP/1.0\r\nAuthorization: Basic \xe9\r\n\r\n")
    assert " 501 " in spoken(pi4, f"DELETE /device HTTP/1.0\r\n{head}")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"garbage" * 99, "this is no ONNX model"),
        pytest.param(endless(), "took longer than 8 s to measure", marks=pytest.mark.slow),
        (gigantic(folded=True), "does not run in ONNX Runtime|ended the process"),
        (gigantic(folded=False), "does not run in ONNX Runtime|ended the process"),
        (model_of([], [elsewhere()]).SerializeToString(), "keeps weights in other files"),
    ],
    ids=["garbage", "endless", "folded", "gigantic", "elsewhere"],
)
def test_malice_is_one_error_and_the_device_goes_on(pi4: Target, content: bytes, says: str) -> None:
    with pytest.raises(LatencyError, match=f"pi4: .*({says})"):
        quick(pi4, content)
    assert quick(pi4).ms > 0


def test_one_measures_at_a_time_and_the_others_wait(pi4: Target, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "archtuna")
    found: list[Latency] = []
    threads = [threading.Thread(target=lambda: found.append(quick(pi4, rounds=300))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert "pi4: the device measures for somebody else: again in a moment" in caplog.text


@contextlib.contextmanager
def busy(target: Target) -> Iterator[None]:
    """Let a device measure what never ends, for a client that then hangs up."""
    body = request(endless())
    head = f"POST /measure HTTP/1.0\r\nAuthorization: Bearer {SECRET}\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port_of(target))) as connection:
        connection.sendall(head.encode() + body)
        time.sleep(0.5)
        yield


def test_a_device_that_stays_busy_is_one_error(pi4: Target) -> None:
    with busy(pi4), pytest.raises(LatencyError, match=r"pi4: the device measures for somebody else\nhint: wait for it"):
        quick(pi4, patience=0)


def test_a_client_that_hangs_up_ends_its_measurement(pi4: Target) -> None:
    begun = time.monotonic()
    with busy(pi4):
        pass
    assert quick(pi4).ms > 0
    assert time.monotonic() - begun < 8, "it would have had 8 seconds"


def test_an_upload_that_is_cut_leaves_the_device_free(pi4: Target) -> None:
    head = f"POST /measure HTTP/1.0\r\nAuthorization: Bearer {SECRET}\r\nContent-Length: 1000000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port_of(pi4))) as connection:
        connection.sendall(head.encode() + bytes(1_000))
    assert quick(pi4).ms > 0


class Proxy:
    """Stands between a client and an agent, and cuts what the first connections send or are sent after some bytes."""

    def __init__(self, target: Target, cuts: list[tuple[int, int]]) -> None:
        self.port, self.cuts, self.seen = port_of(target), cuts, 0

    def __enter__(self) -> Proxy:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.settimeout(0.1)
        self.target = Target("pi4", f"http://127.0.0.1:{self.server.getsockname()[1]}")
        self.closing = threading.Event()
        self.threads = [threading.Thread(target=self.accept)]
        self.threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        for thread in self.threads:
            thread.join()
        self.server.close()

    def accept(self) -> None:
        while not self.closing.is_set():
            with contextlib.suppress(TimeoutError):
                client = self.server.accept()[0]
                up, down = self.cuts[self.seen] if self.seen < len(self.cuts) else (ALL, ALL)
                self.seen += 1
                self.threads.append(threading.Thread(target=self.passed, args=(client, up, down)))
                self.threads[-1].start()

    def passed(self, client: socket.socket, up: int, down: int) -> None:
        """Pass bytes on in both directions until one is cut or both have ended."""
        left = {client: up, (device := socket.create_connection(("127.0.0.1", self.port))): down}
        with client, device, contextlib.suppress(OSError):
            while left and not self.closing.is_set():
                for source in select.select(list(left), [], [], 0.1)[0]:
                    sink = device if source is client else client
                    part = source.recv(min(left[source], 4096))
                    sink.sendall(part)
                    left[source] -= len(part)
                    if not left[source]:
                        return
                    if not part:
                        del left[source]
                        sink.shutdown(socket.SHUT_WR)


ALL = 1 << 40


@pytest.mark.parametrize("cut", [(60, ALL), (9_000, ALL), (ALL, 1), (ALL, 100), (ALL, 300)])
def test_a_connection_that_is_cut_is_tried_again(pi4: Target, cut: tuple[int, int]) -> None:
    waited: list[float] = []
    with Proxy(pi4, [cut, cut]) as proxy:
        found = quick(proxy.target, sleep=lambda seconds: (waited.append(seconds), time.sleep(0.1))[1])
    assert found.ms > 0
    assert proxy.seen >= 3
    assert len(waited) == proxy.seen - 1


def test_a_connection_that_is_always_cut_is_one_error(pi4: Target) -> None:
    with Proxy(pi4, [(ALL, 30)] * 50) as proxy, pytest.raises(LatencyError, match=r"pi4: the connection was cut.*\nhint: look at what the agent says"):  # fmt: skip
        quick(proxy.target, patience=0.5, sleep=lambda _: time.sleep(0.1))


def test_a_client_waits_for_an_agent_that_is_killed_and_started_again() -> None:
    process, target = started()
    found: list[Latency] = []
    thread = threading.Thread(target=lambda: found.append(quick(target, rounds=2000)))
    thread.start()
    time.sleep(0.7)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)
    time.sleep(1)
    assert not found
    again, same = started(port=port_of(target))
    assert same == target
    thread.join(60)
    ended(again)
    assert found[0].ms > 0


def test_nobody_there_is_one_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(
        LatencyError, match=rf"gone: 127.0.0.1:{port} cannot be reached \(Connection refused\)\nhint: is 'archtuna"
    ):
        quick(Target("gone", f"http://127.0.0.1:{port}"), patience=0.3, sleep=lambda _: time.sleep(0.1))
    with pytest.raises(LatencyError, match="gone: no host is called no-such-host.invalid"):
        quick(Target("gone", "http://no-such-host.invalid:1"))


def whole(body: str, status: str = "200 OK") -> str:
    return f"HTTP/1.0 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("SSH-2.0-OpenSSH_9\r\n", "what answers there is no agent"),
        ("HTTP/1.0 200 OK\r\n\r\n<html>", "the connection was cut within the answer"),
        (whole("<html>"), "what answers there is no agent"),
        (whole("[]"), "what answers there is no agent"),
        (whole("{}", "500 No"), "what answers there is no agent"),
        (whole('{"times": []}'), "what answers there does not measure"),
        (whole('{"times": [1], "references": [NaN], "joules": null, "device": {}}'), "does not measure"),
        (whole('{"error": "no", "hint": 3}'), "odd: no\nhint: 3"),
    ],
)
def test_what_is_no_agent_is_one_error(text: str, says: str) -> None:
    def answer() -> None:
        with server.accept()[0] as client:
            client.sendall(text.encode())
            client.shutdown(socket.SHUT_WR)
            while client.recv(1 << 16):
                pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(LatencyError, match=says):
            quick(Target("odd", f"http://127.0.0.1:{server.getsockname()[1]}"), patience=0, rounds=1)
        thread.join()


def test_a_device_of_another_runtime_is_not_asked(pi4: Target) -> None:
    with pytest.raises(LatencyError, match="pi4 measures with ONNX Runtime alone, not with executorch"):
        quick(pi4, runtime="executorch")


def test_a_token_is_made_and_said_once_and_strangers_are_warned_of() -> None:
    environment = {name: value for name, value in os.environ.items() if name != agent.TOKEN}
    process = subprocess.Popen(
        [sys.executable, agent.__file__, "serve", "--port", "0", "--host", "0.0.0.0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert process.stdout is not None
    port = process.stdout.readline().rpartition(":")[2].strip()
    token = process.stdout.readline().removeprefix("token (said once): ").strip()
    assert len(token) == 32
    target = Target("pi4", f"http://127.0.0.1:{port}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ARCHTUNA_DEVICE_TOKEN", token)
        assert ask(target, None, patience=5)["processor"]
    said = ended(process)
    assert token not in said
    assert "HTTP is not encrypted" in said
    assert "GET /device" in said


def test_silence_and_crowds_do_not_stop_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    process, target = started()
    crowd = [socket.create_connection(("127.0.0.1", port_of(target))) for _ in range(agent.CONNECTIONS + 5)]
    time.sleep(0.5)
    with pytest.raises(LatencyError, match="the connection was cut"):
        quick(target, patience=0)
    for connection in crowd:
        connection.close()
    assert quick(target).ms > 0
    assert "Traceback" not in ended(process)


def test_a_client_that_waits_in_silence_is_not_gone() -> None:
    handler = object.__new__(agent._Handler)
    handler.connection, other = socket.socketpair()
    handler.connection.settimeout(20)
    begun = time.monotonic()
    assert not handler._gone()
    assert time.monotonic() - begun < 10, "it must not wait for words that nobody has to say"
    other.sendall(b"more")
    assert not handler._gone()
    assert handler.connection.recv(4) == b"more", "what was sent is still there"
    other.close()
    assert handler._gone()
    handler.connection.close()


def test_a_header_that_never_ends_gives_its_seat_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "SILENCE", 0.5)
    limits = argparse.Namespace(seconds=8, memory_mb=2000, model_mb=20)
    with agent._Server(("127.0.0.1", 0), SECRET, limits) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with socket.create_connection(server.server_address[:2], timeout=20) as slow:
            ended = False
            for _ in range(200):  # A byte now and then: each alone is soon enough.
                try:
                    slow.sendall(b"G")
                    slow.settimeout(0.05)
                    ended = not slow.recv(1)
                except TimeoutError:
                    continue
                except OSError:
                    ended = True
                if ended:
                    break
        server.shutdown()
    assert ended


def test_strangers_words_do_not_steer_the_terminal() -> None:
    process, target = started()
    spoken(target, "GET /\x1b]0;owned\x07\x1b[2J HTTP/1.0\r\n\r\n")
    said = ended(process)
    assert "\x1b" not in said
    assert r"\x1b]0;owned" in said


def test_a_device_with_a_card_is_named_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answered(verb: str, *given: Any, provider: str) -> dict[str, Any]:
        asked.append(provider)
        return {**agent.describe(), "processor": f"A with {provider}"}

    monkeypatch.setattr(agent, "answered", answered)
    limits = argparse.Namespace(seconds=8, memory_mb=2000, model_mb=20)
    with agent._Server(("127.0.0.1", 0), SECRET, limits) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        target = Target("orin", f"http://127.0.0.1:{server.server_address[1]}")
        named = [device(on=target, provider=provider).processor for provider in (CUDA, None, CUDA, "No?such&one")]
        server.shutdown()
    assert named == [f"A with {name}" for name in (CUDA, agent.PROCESSOR, CUDA, agent.PROCESSOR)]
    assert asked == [CUDA, agent.PROCESSOR], "a machine is asked once"


# --- through SSH -------------------------------------------------------------------------------------


@pytest.fixture
def fake_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Put an ssh on the path that does what a script says with the command that it is given."""

    def put(script: str) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        (folder / "ssh").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {folder}/words\n{script}\n')
        (folder / "ssh").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}")
        return folder / "words"

    return put


LAST = 'for last; do :; done; cd / && exec sh -c "$last"'


def test_a_host_without_an_agent_is_asked_through_ssh(fake_ssh: Callable[[str], Path], tmp_path: Path) -> None:
    words = fake_ssh(LAST)
    found = quick(Target("nuc", f"ssh://me@nuc:2222{sys.executable}"))
    assert found.device == device(1, 1) == device(1, 1, on=Target("nuc", "ssh://me@nuc"))
    quick(Target("nuc", f"ssh://me@nuc:2222{sys.executable}"))
    assert words.read_text().splitlines()[:7] == ["-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-p", "2222", "--"]


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo 'me@nuc: Permission denied (publickey).' >&2; exit 255", r"Permission denied .*\nhint: ssh asks nobody"),
        ("echo 'Host key verification failed.' >&2; exit 255", r"Host key verification failed.*\nhint: log in once"),
        ("echo 'ssh: Could not resolve hostname nuc: x' >&2; exit 255", "Could not resolve hostname"),
        ("echo 'sh: 1: python3: not found' >&2; exit 127", r"not found\nhint: name the Python: ssh://user@host/path"),
        ("echo 'SyntaxError: invalid syntax' >&2; exit 1", r"Python failed there: SyntaxError.*\nhint: it needs Python 3"),
        ("echo hello", "what answers there is no agent"),
        ("echo 'client_loop: send disconnect: Broken pipe' >&2; exit 255", r"the connection was cut \(client_loop"),
    ],
)  # fmt: skip
def test_what_ssh_says_is_one_error(fake_ssh: Callable[[str], Path], script: str, says: str) -> None:
    fake_ssh(f"cat > /dev/null; {script}")
    with pytest.raises(LatencyError, match=f"nuc: .*{says}"):
        quick(Target("nuc", "ssh://nuc"), patience=0)


def test_a_connection_of_ssh_that_is_cut_is_tried_again(fake_ssh: Callable[[str], Path], tmp_path: Path) -> None:
    fake_ssh(f"if mkdir {tmp_path}/once 2>/dev/null; then exit 255; fi; {LAST}")
    waited: list[float] = []
    assert quick(Target("nuc", f"ssh://nuc{sys.executable}"), sleep=waited.append).ms > 0
    assert len(waited) == 1


def test_a_host_without_the_runtime_is_told_what_to_install(fake_ssh: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('No module named onnxruntime')")
    fake_ssh(f"export PYTHONPATH={tmp_path}; {LAST}")
    with pytest.raises(
        LatencyError, match=r"nuc: ONNX Runtime is not installed here .*\nhint: there: pip install onnxruntime"
    ):
        quick(Target("nuc", f"ssh://nuc{sys.executable}"))


def test_those_who_come_through_ssh_measure_one_after_the_other(
    fake_ssh: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_ssh(f"export TMPDIR={tmp_path}; {LAST}")
    target = Target("nuc", f"ssh://nuc{sys.executable}")
    with agent._turn():
        with pytest.raises(LatencyError, match="nuc: the device measures for somebody else"):
            quick(target, patience=0)
        assert device(on=target).processor, "what it is, a device says at any time"
    assert quick(target).ms > 0


def test_a_measurement_through_ssh_ends_when_nobody_listens_any_more(tmp_path: Path) -> None:
    request = agent.pack(
        {"batch": 1, "threads": 1, "provider": agent.PROCESSOR, "rounds": 3, "warm_up": 0, "round_seconds": 0},
        reference_model(), endless(),
    )  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-c", agent.BOOTSTRAP, "measure", "--seconds", "100"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(agent.framed(request))
    process.stdin.close()
    time.sleep(1)
    assert process.poll() is None
    process.stdout.close()
    process.wait(20)


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        ({"error": "no Gelu", "hint": None, "kind": "refused"}, ModelRefused, "nuc: no Gelu"),
        ({"error": "no 'CUDA' here", "hint": None, "kind": "device"}, LatencyError, "nuc: no 'CUDA' here"),
        (
            {"error": "No space left", "hint": None, "kind": "away"},
            LatencyError,
            "nuc: No space left\nhint: look at the dev",
        ),
    ],
)
def test_what_the_model_is_refused_for_is_told_from_what_ails_the_device(
    answer: dict[str, Any], kind: type[LatencyError], says: str, fake_ssh: Callable[[str], Path]
) -> None:
    fake_ssh(f"cat > /dev/null; echo {shlex.quote(json.dumps(answer))}")
    with pytest.raises(LatencyError, match=says) as caught:
        quick(Target("nuc", "ssh://nuc"), patience=0)
    assert type(caught.value) is kind


def test_a_provider_that_is_not_here_says_nothing_of_the_model() -> None:
    with pytest.raises(LatencyError, match="ONNX Runtime has no 'CUDAExecutionProvider' here") as caught:
        measure(reference_model(), provider=CUDA)
    assert type(caught.value) is LatencyError
    with pytest.raises(ModelRefused, match="does not run"):
        measure(b"no model")


def test_malice_through_ssh_is_one_error(fake_ssh: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    fake_ssh(LAST.replace('"$last"', '"$last --seconds 3"'))
    with pytest.raises(LatencyError, match="nuc: the model took longer than 3 s to measure"):
        quick(Target("nuc", f"ssh://nuc{sys.executable}"), endless())


def test_without_ssh_that_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        LatencyError, match=r"nuc: ssh does not start here \(No such file.*\nhint: install an SSH client"
    ):
        quick(Target("nuc", "ssh://nuc"))


def test_an_answer_that_never_comes_is_one_error(
    fake_ssh: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_ssh("exec sleep 60")
    monkeypatch.setattr(remote, "ANSWER_SECONDS", 1)
    with pytest.raises(LatencyError, match="nuc: no answer within 1 s"):
        quick(Target("nuc", "ssh://nuc"), patience=0)


@pytest.fixture
def sshd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_ssh: Callable[[str], Path]) -> Iterator[int]:
    """A real server of SSH on loopback, which lets in one key that was made for it."""
    server = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    client = shutil.which("ssh")
    if server is None or client is None:
        pytest.skip("no OpenSSH server is installed")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    (tmp_path / "known").write_text("127.0.0.1 " + (tmp_path / "host.pub").read_text())
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    settings = [
        f"Port {port}", "ListenAddress 127.0.0.1", f"HostKey {tmp_path}/host", f"AuthorizedKeysFile {tmp_path}/user.pub",
        "StrictModes no", "PidFile none", "UsePAM no", "PasswordAuthentication no", "PermitRootLogin yes",
    ]  # fmt: skip
    (tmp_path / "sshd_config").write_text("\n".join(settings))
    with contextlib.suppress(OSError):
        Path("/run/sshd").mkdir(exist_ok=True)
    process = subprocess.Popen([server, "-D", "-e", "-f", tmp_path / "sshd_config"], stderr=subprocess.DEVNULL)
    options = f"-i {tmp_path}/user -o IdentitiesOnly=yes -o CheckHostIP=no -o StrictHostKeyChecking=yes"
    fake_ssh(f'exec {client} -F none {options} -o HostKeyAlias=127.0.0.1 -o UserKnownHostsFile={tmp_path}/known "$@"')
    for _ in range(50):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            break
        time.sleep(0.1)
    yield port
    process.terminate()
    process.wait(20)


def test_a_real_server_of_ssh_measures(sshd: int) -> None:
    import getpass

    target = Target("lo", f"ssh://{getpass.getuser()}@127.0.0.1:{sshd}{sys.executable}")
    found = quick(target)
    assert found.device == device(1, 1)
    with pytest.raises(LatencyError, match="lo: the model keeps weights in other files"):
        quick(target, bytes(model_of([], [elsewhere()]).SerializeToString()))
    with pytest.raises(LatencyError, match=r"lo: .*(not found|No such file).*\nhint: name the Python"):
        quick(Target("lo", f"ssh://{getpass.getuser()}@127.0.0.1:{sshd}/no/python3"))
    with pytest.raises(LatencyError, match="lo: .*Permission denied"):
        quick(Target("lo", f"ssh://nobody@127.0.0.1:{sshd}{sys.executable}"))
