"""The report of a run: one HTML file that opens from a disk, the same as JSON, and its charts as pictures.

It answers first which network to take. Everything else in it is there to check that answer.

What writes it is imported when it is first used: the command line takes ``finite`` from here and loads no torch for that.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archtuna.page.write import Written, write_report

__all__ = ["Written", "write_report"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'archtuna.page' has no attribute '{name}'")
    return getattr(import_module("archtuna.page.write"), name)
