"""An S3 server of the tests' own, on loopback; what is in it outlasts that it stops."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from moto.moto_api._internal import moto_api_backend
from moto.server import ThreadedMotoServer

BUCKET = "s3://nets"


@dataclass
class Store:
    port: int = 0
    _server: Any = field(default=None, repr=False)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self._server.start()
        self.port = self._server.get_host_and_port()[1]

    def stop(self) -> None:
        self._server.stop()


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An empty store with one bucket, which is named by the environment as it is for users."""
    import s3fs

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    found = Store()
    found.start()
    for name, value in {
        "AWS_ENDPOINT_URL": found.endpoint, "AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "hunter2",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    moto_api_backend.reset()
    s3fs.S3FileSystem(use_listings_cache=False).mkdir(BUCKET)
    yield found
    found.stop()
    s3fs.S3FileSystem.clear_instance_cache()
