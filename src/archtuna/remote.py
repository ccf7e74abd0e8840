"""Asking a device of one's own to measure: over HTTP where an agent answers, else through SSH, which takes the agent along.

What may be otherwise in a moment is tried again within the caller's patience: a connection that is cut or refused, and an
agent that measures for somebody else. All else is one error at once.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import random
import shlex
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from typing import Any

from archtuna import agent
from archtuna.errors import LatencyError, ModelRefused
from archtuna.targets import TOKEN, Target, split

log = logging.getLogger("archtuna")

CONNECT_SECONDS = 10
ANSWER_SECONDS = agent.SECONDS + 60
LONGEST_PAUSE = 10.0
MACHINE = {"processor", "runtime", "system", "providers", "cores"}
"""What an agent says of its machine."""

LOOK = "look at what the agent says"

Sleep = Callable[[float], None]


class _Away(Exception):
    """A device does not answer now, and perhaps does later."""

    def __init__(self, problem: str, hint: str, pause: float | None = None) -> None:
        super().__init__(problem)
        self.hint, self.pause = hint, pause


def _busy(pause: float | None) -> _Away:
    return _Away("the device measures for somebody else", "wait for it, or pass a longer patience", pause)


def ask(
    target: Target,
    request: bytes | None,
    *,
    patience: float,
    sleep: Sleep = time.sleep,
    provider: str = agent.PROCESSOR,
) -> dict[str, Any]:
    """Return what a device answers to a request of ``agent.pack``, or for None what it says of itself.

    Args:
        target: the device.
        request: what is to be measured.
        provider: of ONNX Runtime, with which the device says what it is.
        patience: seconds for which a device that is away or busy is asked again.
        sleep: waits between two attempts.

    Raises:
        ModelRefused: it does not measure this model, however often it is asked.
        LatencyError: it is not reached or stays busy, does not know the token, or has no ONNX Runtime.
    """
    once = _through_ssh if split(target.url).scheme == "ssh" else _over_http
    begun, pause = time.monotonic(), 0.25
    while True:
        try:
            answer = once(target, request, provider)
            break
        except _Away as away:
            if time.monotonic() - begun > patience:
                raise LatencyError(f"{target.name}: {away}", hint=away.hint) from None
            log.info("%s: %s: again in a moment", target.name, away)
            pause = min(2 * pause, LONGEST_PAUSE)
            # Not all who wait for the same device come back at once.
            sleep((away.pause or pause) * random.uniform(0.75, 1.25))
    if "error" in answer:
        hint = answer.get("hint")
        where = "there: " if answer.get("kind") == "no-runtime" else ""
        kind = ModelRefused if request is not None and answer.get("kind") == "refused" else LatencyError
        raise kind(f"{target.name}: {answer['error']}", hint=f"{where}{hint}" if hint else None)
    return answer


def _loaded(target: Target, content: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(content)
    except ValueError:
        answer = None
    if isinstance(answer, dict) and ("error" in answer or "times" in answer or answer.keys() >= MACHINE):
        return answer
    raise LatencyError(f"{target.name}: what answers there is no agent", hint="archtuna device serve starts one")


# --- over HTTP ---------------------------------------------------------------------------------------


def _over_http(target: Target, request: bytes | None, provider: str) -> dict[str, Any]:
    status, headers, content = _exchange(target, request, provider)
    if status == 401:
        raise LatencyError(
            f"{target.name}: the token is not the device's",
            hint=f"archtuna device add NAME URL --token-file FILE, or ${TOKEN}; the agent said it when it started",
        )
    answer = _loaded(target, content)
    if status == 503:
        pause = headers.get("Retry-After", "")
        raise _busy(float(pause) if pause.isdigit() else None)
    return answer


def _exchange(target: Target, request: bytes | None, provider: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Return the status, the headers and the content of an answer."""
    connection = _connected(target)
    card = f"?provider={provider}" if provider in agent.PLACES else ""  # by which the machine has another name
    verb, path = ("GET", f"/device{card}") if request is None else ("POST", "/measure")
    problem = "the token has characters that no token has"
    try:
        # An agent that refuses does not read on, but it said why.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request(verb, path, request, {"Authorization": f"Bearer {target.token}"})
        response = connection.getresponse()
        content = response.read(agent.ANSWER_BYTES)
        if response.length != 0:  # None where the headers ended before they said it
            raise _Away("the connection was cut within the answer", LOOK)
        return response.status, response.headers, content
    except ValueError:  # of the header that holds the token
        pass
    except (OSError, http.client.HTTPException) as error:
        problem = "what answers there is no agent"
        if not _is_foreign(error):
            raise _Away(f"the connection was cut ({error or type(error).__name__})", LOOK) from None
    finally:
        connection.close()
    raise LatencyError(f"{target.name}: {problem}", hint="archtuna device serve starts an agent, and says its token")


def _is_foreign(error: Exception) -> bool:
    """Return whether what answered speaks something else than HTTP, and was not only cut."""
    if isinstance(error, http.client.RemoteDisconnected) or not isinstance(error, http.client.BadStatusLine):
        return False
    return not "HTTP/".startswith(str(error.args[0])[:5])


def _connected(target: Target) -> http.client.HTTPConnection:
    parts = split(target.url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=CONNECT_SECONDS)
    place = f"{parts.hostname}:{connection.port}"
    try:
        connection.connect()
    except socket.gaierror:
        raise LatencyError(f"{target.name}: no host is called {parts.hostname}", hint="look at the URL") from None
    except ssl.SSLError as error:
        raise LatencyError(f"{target.name}: {place} does not speak TLS as it should ({error})") from None
    except OSError as error:
        raise _Away(
            f"{place} cannot be reached ({error.strerror or error})", "is 'archtuna device serve' running there?"
        ) from None
    connection.sock.settimeout(ANSWER_SECONDS)
    return connection


# --- through SSH -------------------------------------------------------------------------------------

# What ssh says where another attempt would end alike, and what helps.
LASTING = {
    "Permission denied": "ssh asks nobody here: a key must let it in (ssh-copy-id)",
    "Host key verification failed": "log in once by hand, and compare the host's key",
    "Could not resolve hostname": "look at the URL",
    "No such file": "name the Python: ssh://user@host/path/to/python3",
    "not found": "name the Python: ssh://user@host/path/to/python3",
}


def _through_ssh(target: Target, request: bytes | None, provider: str) -> dict[str, Any]:
    problem = ""
    try:
        ended = subprocess.run(
            _command(target, *(("describe", "--provider", provider) if request is None else ("measure",))),
            input=agent.framed(request or b""), capture_output=True, timeout=ANSWER_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise _Away(f"no answer within {ANSWER_SECONDS} s", "look at the device") from None
    except OSError as error:
        problem = error.strerror or str(error)
    if problem:
        raise LatencyError(f"{target.name}: ssh does not start here ({problem})", hint="install an SSH client")
    if ended.returncode == 0:
        answer = _loaded(target, ended.stdout)
        if answer.get("kind") == "busy":
            raise _busy(agent.RETRY_AFTER)
        if answer.get("kind") == "away":
            raise _Away(str(answer["error"]), "look at the device")
        return answer
    words = ended.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {ended.returncode}"]
    for sign, hint in LASTING.items():
        if any(sign in line for line in words):
            raise LatencyError(f"{target.name}: {words[-1]}", hint=hint)
    if ended.returncode != 255:  # ssh's own code for a connection that failed
        raise LatencyError(f"{target.name}: Python failed there: {words[-1]}", hint="it needs Python 3.9 or newer")
    raise _Away(f"the connection was cut ({words[-1]})", f"try: ssh {split(target.url).hostname}")


def _command(target: Target, *words: str) -> list[str]:
    parts = split(target.url)
    host = f"{parts.username}@{parts.hostname}" if parts.username else f"{parts.hostname}"
    port = ["-p", str(parts.port)] if parts.port else []
    # One word for the shell over there, whichever it is.
    remote = shlex.join([parts.path or "python3", "-c", agent.BOOTSTRAP, *words])
    return ["ssh", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_SECONDS}", *port, "--", host, remote]
