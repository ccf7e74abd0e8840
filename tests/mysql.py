"""A MariaDB server of the tests' own, on loopback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from postgres import free_port

PASSWORD = "hunter2"


@pytest.fixture(scope="module")
def mysql() -> Iterator[str]:
    """The URL of an empty database."""
    if shutil.which("mariadbd") is None:
        pytest.skip("MariaDB is not installed")
    with running() as url:
        yield url


@contextmanager
def running() -> Iterator[str]:
    folder = Path(tempfile.mkdtemp(prefix="archtuna-my-"))
    user = ["--user=mysql"] if os.geteuid() == 0 else []
    if user:
        shutil.chown(folder, "mysql", "mysql")
    port = free_port()
    common = ["--no-defaults", f"--datadir={folder}/data", *user]
    made = ["mariadb-install-db", *common, "--auth-root-authentication-method=normal", "--skip-test-db"]
    subprocess.run(made, check=True, capture_output=True, timeout=60)
    address = [f"--socket={folder}/socket", f"--port={port}", "--bind-address=127.0.0.1", f"--pid-file={folder}/pid"]
    # Not waiting for the disk, as nothing here has to outlast a power cut.
    options = ["--innodb-flush-log-at-trx-commit=0", "--skip-networking=0"]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(["mariadbd", *common, *address, *options], **silent)
    try:
        _wait(port)
        told = (
            f"CREATE DATABASE nets; CREATE USER 'ada'@'%' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON nets.* TO 'ada'@'%';"
        )
        client = ["mariadb", "--no-defaults", f"--socket={folder}/socket", "-u", "root", "-e", told]
        subprocess.run(client, check=True, capture_output=True, timeout=60)
        yield f"mysql://ada:{PASSWORD}@127.0.0.1:{port}/nets"
    finally:
        server.terminate()
        server.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def _wait(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise TimeoutError("MariaDB does not start")
