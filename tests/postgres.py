"""A PostgreSQL server of the tests' own, on loopback, with a password that needs care in a URL."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

PASSWORD = "hunter2&{x}%/@"


@dataclass
class Server:
    port: int
    folder: Path
    programs: Path
    prefix: list[str]

    def url(self, password: str = PASSWORD, database: str = "postgres") -> str:
        return f"postgresql://postgres:{quote(password, safe='')}@127.0.0.1:{self.port}/{database}"

    def control(self, *words: str) -> None:
        command = [*self.prefix, str(self.programs / "pg_ctl"), "-D", str(self.folder / "data"), "-w", *words]
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    def start(self) -> None:
        options = f"-c listen_addresses=127.0.0.1 -p {self.port} -k {self.folder}"
        self.control("-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self) -> None:
        self.control("-m", "immediate", "stop")


def programs() -> Path | None:
    found = shutil.which("initdb")
    if found:
        return Path(found).parent
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None, key=lambda p: int(p.parent.name.split(".")[0]))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    if programs() is None:
        if os.environ.get("CI") == "true":
            pytest.fail("PostgreSQL is not installed, and CI must run these tests")
        pytest.skip("PostgreSQL is not installed")
    with running() as found:
        yield found


def free_port() -> int:
    """Return the number of a port on loopback that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running() -> Iterator[Server]:
    """Run a server of one's own in a temporary folder."""
    found = programs()
    assert found is not None, "PostgreSQL is not installed"
    folder = Path(tempfile.mkdtemp(prefix="archtuna-pg-"))
    # initdb refuses to run as root.
    prefix = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if prefix:
        shutil.chown(folder, "postgres")
    port = free_port()
    secret = folder / "password"
    secret.write_text(PASSWORD)
    if prefix:
        shutil.chown(secret, "postgres")
    made = [*prefix, str(found / "initdb"), "-D", str(folder / "data"), "-A", "scram-sha-256", "-U", "postgres"]
    subprocess.run(
        [*made, f"--pwfile={secret}", "--no-sync", "-E", "UTF8", "--locale=C"],
        check=True,
        capture_output=True,
        timeout=60,
    )
    server = Server(port, folder, found, prefix)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
