"""Where a latency is measured: this machine, or a device of one's own by an agent's URL or through SSH; devices have names.

A user's devices are one file of theirs, which holds where each is and where its token lies, and never a token.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from archtuna.errors import LatencyError, brief, nearest
from archtuna.files import write_atomically

TOKEN = "ARCHTUNA_DEVICE_TOKEN"
DEVICES = "ARCHTUNA_DEVICES"
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,39}")
# What stands in an argument of ssh: nothing that it would take for an option of its own, or a shell for a command.
WORD = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9_.@%:-]*")
PATH = re.compile(r"[A-Za-z0-9_./+~-]*")
FORMS = "a URL is http://host:port of an agent, or ssh://user@host[:port][/path/to/python]"


@dataclass(frozen=True)
class Target:
    """A device that measures.

    Attributes:
        name: as a person calls it; its URL where it has no name.
        url: ``http://host:port`` or ``https://…`` of an agent, or ``ssh://user@host[:port][/path/to/python]``.
        token_file: of an agent's token; None takes it from ``$ARCHTUNA_DEVICE_TOKEN``.
    """

    name: str
    url: str
    token_file: str | None = None

    def __post_init__(self) -> None:
        parts = split(self.url)
        known = parts.scheme in ("http", "https", "ssh") and parts.hostname and not parts.query and not parts.fragment
        if (
            not known
            or parts.password is not None
            or (parts.scheme != "ssh" and (parts.username or parts.path.strip("/")))
        ):
            raise LatencyError(f"{brief(_bare(self.url))} is no device's URL", hint=FORMS)
        words = [word for word in (parts.hostname, parts.username) if word is not None]
        if not all(WORD.fullmatch(word) for word in words) or not PATH.fullmatch(parts.path):
            raise LatencyError(f"{brief(_bare(self.url))} names a host, a user or a path that cannot be", hint=FORMS)

    @property
    def token(self) -> str:
        """The agent's token, or nothing where none is known.

        Raises:
            LatencyError: its file cannot be read.
        """
        if self.token_file is None:
            return os.environ.get(TOKEN, "").strip()
        problem = ""
        try:
            return Path(self.token_file).expanduser().read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            problem = str(getattr(error, "strerror", None) or error)
        raise LatencyError(
            f"{self.name}: the token's file {self.token_file} cannot be read ({problem})",
            hint=f"archtuna device add {self.name} {self.url} --token-file FILE",
        )


def split(url: str) -> SplitResult:
    """Return the parts of a URL, of which the port is a number.

    Raises:
        LatencyError: it has none of that kind.
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - read here, so that what is no number is known here
        return parts
    except ValueError:
        pass
    raise LatencyError(f"{brief(_bare(url))} is no device's URL", hint=FORMS)


def _bare(url: str) -> str:
    """Return a URL without the password that it may have."""
    return re.sub(r":[^/@]*@", ":…@", url)


def target_of(text: str) -> Target:
    """Return the device of a name that was given by ``archtuna device add``, or at a URL.

    Raises:
        LatencyError: there is none of that name, or the URL is none.
    """
    if "://" in text:
        return Target(text, text)
    known = devices()
    if text in known:
        return known[text]
    hint = nearest(text, known) or "archtuna device add NAME URL names one"
    raise LatencyError(f"there is no device {brief(text)}", hint=hint)


# --- the user's devices ------------------------------------------------------------------------------


def devices() -> dict[str, Target]:
    """Return the user's devices by name: of ``$ARCHTUNA_DEVICES`` where that is set, else of their file.

    ``$ARCHTUNA_DEVICES`` is JSON: ``{"pi4": {"url": "http://pi4:8765", "token_file": "…"}}``.

    Raises:
        LatencyError: what describes them cannot be read.
    """
    if text := os.environ.get(DEVICES):
        return _parsed(text, f"${DEVICES}")
    problem = ""
    try:
        return _parsed(devices_file().read_text("utf-8"), str(devices_file()))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        problem = str(getattr(error, "strerror", None) or error)
    raise LatencyError(f"{devices_file()}: cannot be read ({problem})")


def _parsed(text: str, place: str) -> dict[str, Target]:
    try:
        entries = {
            name: Target(name, str(entry["url"]), entry.get("token_file")) for name, entry in json.loads(text).items()
        }
        if all(NAME.fullmatch(name) for name in entries):
            return entries
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError):
        pass
    raise LatencyError(
        f"{place}: no description of devices", hint='{"NAME": {"url": "http://host:port", "token_file": "…"}}'
    )


def add_device(name: str, url: str, *, token_file: str | None = None, token: str | None = None) -> Target:
    """Give a device a name, or another place to one that has it.

    Args:
        name: letters, digits, ``_``, ``-`` and ``.``, a letter first.
        url: as a ``Target`` has it.
        token_file: where its token lies.
        token: instead of a file; it is kept in one that this user alone can read.

    Raises:
        LatencyError: no such name or URL can be, or the user's file cannot be read or written.
    """
    if not NAME.fullmatch(name):
        raise LatencyError(
            f"{brief(name)} cannot name a device", hint="letters, digits, '_', '-' and '.', a letter first"
        )
    Target(name, url)  # before anything of a device that is known changes
    with _changing(f"{name} cannot be added") as known:
        if token is not None:
            token_file = str(_keep(devices_file().parent / "tokens" / name, token))
        known[name] = Target(name, url, str(Path(token_file).expanduser().absolute()) if token_file else None)
    return known[name]


def remove_device(name: str) -> None:
    """Forget a device, and the token that was kept for it.

    Raises:
        LatencyError: there is none of that name, or the user's file cannot be read or written.
    """
    with _changing(f"{name} cannot be removed") as known:
        if name not in known:
            raise LatencyError(
                f"there is no device {brief(_bare(name))}", hint=nearest(name, known) or "archtuna device list"
            )
        del known[name]
        (devices_file().parent / "tokens" / name).unlink(missing_ok=True)


@contextmanager
def _changing(failure: str) -> Iterator[dict[str, Target]]:
    """Give the devices, and write what became of them, while no other process does."""
    from filelock import FileLock

    if os.environ.get(DEVICES):
        raise LatencyError(f"{failure}: the devices come from ${DEVICES}", hint=f"change it, or unset {DEVICES}")
    problem, file = "", devices_file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(file.with_suffix(".lock")):
            known = devices()
            yield known
            entries = {one.name: {k: v for k, v in asdict(one).items() if k != "name"} for one in known.values()}
            write_atomically(file, json.dumps(entries, indent=1, sort_keys=True).encode())
            file.chmod(0o600)
    except OSError as error:
        problem = f"{failure}: {error.filename or file}: {error.strerror or error}"
    if problem:
        raise LatencyError(problem)


def _keep(file: Path, token: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    file.unlink(missing_ok=True)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
        stream.write(token)
    return file


def devices_file() -> Path:
    """Return the file of this user's devices, in the platform's own place for settings."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "archtuna" / "devices.json"
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming") / "archtuna" / "devices.json"
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "archtuna" / "devices.json"
