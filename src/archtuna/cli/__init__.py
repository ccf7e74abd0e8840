"""The command line: reads arguments, calls the library, prints, and turns errors into exit codes.

Results go to standard output, progress and errors to standard error. Exit code 0 is success, 1 an error of ours (one line
and a hint, no traceback), 2 a mistake in the arguments, 130 an interruption.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from archtuna import __version__
from archtuna.cli import (
    completion,
    dashboards,
    deploy,
    devices,
    networks,
    profiling,
    reporting,
    runs,
    searching,
    spaces,
    starting,
    versions,
)
from archtuna.cli.arguments import Parser, silence
from archtuna.errors import ArchtunaError

EPILOG = """\
examples:
  archtuna check model.yaml --input-size 224
  archtuna search model.yaml --data photos/ --out runs/photos --objectives f1,params --time 20m --workers 2
  archtuna front runs/photos
  archtuna pick runs/photos --max params=300k
  archtuna train runs/photos 17 --epochs 60 --seeds 3
  archtuna export runs/photos/trained/17.safetensors model.onnx

more: docs/cli.md (every command, exit codes, words), docs/json.md (what --json prints)
archtuna COMMAND --help has examples; archtuna completion bash completes with TAB
"""


COMMANDS = (
    starting.init,
    spaces.check,
    searching.search,
    searching.worker,
    runs.status,
    searching.repeat,
    runs.front,
    runs.pick,
    runs.show,
    reporting.report,
    dashboards.dashboard,
    networks.train,
    networks.evaluate,
    networks.predict,
    deploy.export,
    deploy.latency,
    profiling.profile,
    deploy.card,
    devices.device,
    runs.bench,
    spaces.blocks,
    spaces.schema,
    runs.cache,
    runs.gc,
    completion.completion,
    versions.versions,
)
"""What adds each command to the parser, in the order in which they are listed."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    if argv is None:
        _hide_passwords()
    made = parser()
    if completion.ASKED in os.environ:
        return completion.complete(made)
    arguments = made.parse_args(argv)
    _restore_password(arguments)
    if arguments.run is None:
        made.print_help()
        return 2
    _log_to_stderr(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A sign that a terminal lacks, or a file's name that is no text, is no reason to fail. A stream that began as a
            # file and was sent elsewhere since cannot say where it is, which it is asked here, and writes all the same.
            with contextlib.suppress(OSError):
                stream.reconfigure(errors="backslashreplace")
    try:
        with _terminable():
            _import_modules(arguments.imports)
            code = arguments.run(arguments)
        sys.stdout.flush()
        return int(code or 0)
    except ArchtunaError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return _fail("interrupted", code=130)
    except BrokenPipeError:
        # The reader of our output is gone (`archtuna front RUN | head`); there is nobody to tell.
        silence(sys.stdout)
        return 0
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return _fail(f"{place}{error.strerror or error}{_HINTS.get(error.errno or 0, '')}")


_HINTS = {
    errno.ENOSPC: "\nhint: make room: archtuna gc RUN and archtuna cache --clear name what can go",
    errno.EACCES: "\nhint: look at who may read and write there",
}

HIDDEN = "ARCHTUNA_HIDDEN_STORAGE"
"""The environment variable through which a storage's URL comes when it was an argument with a password."""


def _hide_passwords() -> None:
    """Begin again, with the storage's URL in the environment, where its password is an argument that others could list.

    Only what ``--storage`` names comes back from there, so that no other argument may be masked: it would be used as it is.
    """
    if os.name != "posix" or HIDDEN in os.environ or not any("://" in text for text in sys.argv):
        return
    from archtuna.storage import has_password, redact

    # What the interpreter took for itself stands before our own arguments.
    first = len(sys.orig_argv) - len(sys.argv) + 1
    urls = _storage_urls(sys.orig_argv, first)
    if not any(map(has_password, urls.values())):
        return
    shown = list(sys.orig_argv)
    for place, url in urls.items():
        shown[place] = shown[place].removesuffix(url) + redact(url)
    *_, used = urls.values()
    os.execve(sys.executable, [sys.executable, *shown[1:]], {**os.environ, HIDDEN: used})


def _storage_urls(words: Sequence[str], first: int) -> dict[int, str]:
    """Return what follows each ``--storage``, as a word of its own or behind ``=``, by the word's place; the last counts."""
    found = {}
    for place in range(first, len(words)):
        name, equals, url = words[place].partition("=")
        # A name may be cut short, as long as no other begins like it.
        if name.startswith("--sto") and "--storage".startswith(name):
            if equals:
                found[place] = url
            elif place + 1 < len(words):
                found[place + 1] = words[place + 1]
    return found


def _restore_password(arguments: argparse.Namespace) -> None:
    url = os.environ.pop(HIDDEN, None)
    if url is not None and getattr(arguments, "storage", None):
        arguments.storage = url


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does, where nobody else sees to it; a second one ends the process at once."""
    in_charge = threading.current_thread() is threading.main_thread()
    if not in_charge or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def handle(number: int, frame: Any) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _import_modules(modules: Sequence[str]) -> None:
    if modules:
        from archtuna.registry import import_modules

        import_modules(modules)


def _fail(text: str, code: int = 1) -> int:
    with contextlib.suppress(OSError):  # The reader of our errors may be gone as well.
        print(f"archtuna: {text}", file=sys.stderr)
    return code


class _Stderr(logging.StreamHandler):
    """Writes to what standard error is at the moment: a live display puts itself in its place, to redraw below."""

    @property
    def stream(self) -> Any:
        return sys.stderr

    @stream.setter
    def stream(self, stream: Any) -> None:
        pass


def _log_to_stderr(arguments: argparse.Namespace) -> None:
    log = logging.getLogger("archtuna")
    log.setLevel(logging.ERROR if getattr(arguments, "quiet", False) else logging.INFO)
    if not log.handlers:
        handler = _Stderr()
        handler.setFormatter(logging.Formatter("archtuna: %(message)s"))
        log.addHandler(handler)
    # Warnings of libraries are for those who write code against them, and they are shown where a developer asks for it.
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    made = Parser(
        prog="archtuna",
        description="A YAML model file in, a Pareto front of trained, deployable image classifiers out.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=f"archtuna {__version__}")
    made.set_defaults(run=None)
    verbs = made.add_subparsers(title="commands", metavar="COMMAND")
    for add in COMMANDS:
        add(verbs)
    return made
