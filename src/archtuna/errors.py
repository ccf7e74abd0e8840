"""Every error that archtuna raises on purpose, and how one reads.

    ArchtunaError
    ├── SpecError           (ValueError)    a mistake in a model or search file; knows file, line, path and value
    ├── ShapeError          (ValueError)    rows that do not fit each other; knows the row
    ├── DataError           (ValueError)    pictures or labels that cannot be used
    ├── CheckpointError     (ValueError)    a file that is no checkpoint, or is one of another architecture
    ├── ExportError         (RuntimeError)  an export that failed or differs from its model
    ├── LatencyError        (RuntimeError)  a latency that cannot be measured, or not believed
    │   └── ModelRefused                    a model that a device does not run
    ├── StudyError          (RuntimeError)  a study that is missing, or was made with something else
    │   └── StorageAway                     its storage stayed away for as long as it was waited for
    ├── TrialError          (RuntimeError)  what ends one trial and not the study; knows a short reason
    │   └── MetricError                     a metric of somebody's own that fails
    ├── UnknownNameError    (KeyError)      a block or metric that is not registered (in ``registry``)
    ├── BlockImportError    (ImportError)   a module that was to be imported for its blocks and cannot be
    └── MissingExtraError   (ImportError)   an optional dependency that is not installed

Each also is the builtin that a caller would catch. ``str(error)`` is the whole text for a person: place, problem, hint.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONGEST = 3_000
"""Characters of a message: what a file holds, and a message repeats, may be of any length."""


def number(value: float) -> str:
    """Write a whole number with separators and any other with four significant digits."""
    return f"{int(value):,}" if float(value).is_integer() and abs(value) >= 1 else f"{value:.4g}"


def brief(value: object) -> str:
    """Write a value for a message, which a long one would bury."""
    if isinstance(value, int) and abs(value) >= 10**40:
        return f"a number of {value.bit_length()} bits"
    text = repr(value) if not isinstance(value, str) or len(value) < 1_000 else repr(value[:1_000])
    return text if len(text) <= 80 else f"{text[:80]}…"


class ArchtunaError(Exception):
    """An error with one sentence for the problem and, where there is one, a hint for the next step."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        message = message if len(message) <= LONGEST else f"{message[:LONGEST]} … ({len(message):,} characters)"
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class SpecError(ArchtunaError, ValueError):
    """A mistake in a model or search file, at a known place.

    Attributes:
        file: the file as the user named it, or None for text that came from memory.
        line: line in the file, from 1, or None where there is no file.
        path: path inside the file, such as ``backbone[3].kernel``.
        value: what stands there.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        file: str | None = None,
        line: int | None = None,
        path: str = "",
        value: object = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.file, self.line, self.path, self.value = file, line, path, value

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line) if part is not None)
        text = ": ".join(part for part in (place, self.path, self.message) if part)
        return f"{text}\nhint: {self.hint}" if self.hint else text


class ShapeError(ArchtunaError, ValueError):
    """Rows that do not fit each other; ``row`` is the index of the first that fails, or None for the whole network."""

    def __init__(self, message: str, *, row: int | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.row = row


class Misfit(ValueError):
    """What is wrong with a value or a block's input, said where its place is not known; whoever knows it names it."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class DataError(ArchtunaError, ValueError):
    """Pictures or labels that cannot be used."""


class CheckpointError(ArchtunaError, ValueError):
    """A file that is no checkpoint, is damaged, or belongs to another architecture."""


class ExportError(ArchtunaError, RuntimeError):
    """An export that failed, or whose outputs differ from the model's."""


class LatencyError(ArchtunaError, RuntimeError):
    """A latency that cannot be measured, or that nobody should believe."""


class ModelRefused(LatencyError):
    """A model that a device does not measure, however often it is asked: it does not run there, or needs too much."""


class StudyError(ArchtunaError, RuntimeError):
    """A study that is missing, unreachable, or was made with something else."""


class StorageAway(StudyError):
    """A study's storage that stayed away for as long as it was waited for."""


class TrialError(ArchtunaError, RuntimeError):
    """What ends one trial and not the study; ``reason`` is a short word such as ``nan`` or ``out-of-memory``."""

    def __init__(self, message: str, *, reason: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class MetricError(TrialError):
    """A metric of somebody's own that fails: an error in their code, which says nothing of the network."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, reason="metric", hint=hint)


class BlockImportError(ArchtunaError, ImportError):
    """A module that was to be imported for its blocks or metrics and cannot be."""


class MissingExtraError(ArchtunaError, ImportError):
    """An optional dependency that is not installed; the hint is the command that installs it."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} is not installed", hint=f"pip install 'archtuna[{extra}]'")


def nearest(word: object, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return the hint ``did you mean '…'?`` for the known word nearest to ``word``, or None."""
    if len(str(word)) > 60:  # No name is as long, and comparing takes the square of the length.
        return None
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(str(word).lower(), by_lower, n=1, cutoff=cutoff)
    return f"did you mean '{by_lower[close[0]]}'?" if close else None


def first_line(error: BaseException, most: int = 300) -> str:
    """Return what an error of a library says first, in as many characters as a person reads."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:most]
