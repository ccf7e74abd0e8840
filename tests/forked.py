"""The command line in processes of its own that need not load their libraries first: they are forks of one that has.

What it does is what it does for a user; what it takes to start, which is most of the time of a short command, is left out.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_context = multiprocessing.get_context("forkserver")
# By name, for the server imports them; torch._dynamo is what torch loads in the first training of a process.
_context.set_forkserver_preload(
    ["archtuna.cli", "archtuna.driver", "archtuna.report", "archtuna.final", "torch._dynamo"]
)


def archtuna(
    *arguments: Any,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    first: Callable[[], object] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command, and return its exit code and what it printed; ``first`` is called in its process before."""
    words = [str(argument) for argument in arguments]
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("out", "err")]
        given = dict(os.environ if env is None else env)
        child = _context.Process(target=_run, args=(words, str(cwd or os.getcwd()), given, *map(str, paths), first))
        child.start()
        child.join()
        out, err = (path.read_text() for path in paths)
    return subprocess.CompletedProcess(["archtuna", *words], child.exitcode or 0, out, err)


def _run(
    words: list[str], cwd: str, env: dict[str, str], out: str, err: str, first: Callable[[], object] | None
) -> None:
    from archtuna.cli import main

    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
    sys.path.insert(0, "")
    code: Any = 1
    try:
        if first is not None:
            first()
        code = main(words)
    except SystemExit as end:
        code = end.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)
