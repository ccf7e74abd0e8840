"""Measurements that are made on whatever machine the tests run on, however busy they keep it."""

import pytest

from archtuna import latency


def believe(patch: pytest.MonkeyPatch) -> None:
    """Let every round count, and one attempt be enough on a device that nobody knows."""
    patch.setattr(latency, "QUIET", 1e9)
    patch.setattr(latency, "FIRST", 1)
