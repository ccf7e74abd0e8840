"""Keeping the exporters' progress, and their warnings about themselves, from the user's screen."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

LOGGERS = (
    "torch.onnx",
    "onnxscript",
    "onnx_ir",
    "torch.export",
    "torch.fx",
    "executorch",
    "torch.utils._pytree",
    "root",
)


@contextmanager
def quiet() -> Iterator[None]:
    """Let an exporter say nothing: what it fails with is raised."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        # torch.export prints the graph that it has so far, when it fails; onnxscript before 0.7 prints, where results go,
        # what it simplified.
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
