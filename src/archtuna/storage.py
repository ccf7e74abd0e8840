"""Where a study lives: SQLite made safe for several processes, PostgreSQL with a sane pool, or what the user brings.

Optuna's SQLite is unsafe for several processes: a transaction that begins by reading does not exclude another, and six
workers ran queued trials twice. Here every transaction begins with ``BEGIN IMMEDIATE`` in write-ahead mode, which
excludes that and is faster besides.

Passwords appear nowhere: errors, logs and records show ``redact(url)``.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import random
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

from archtuna.errors import MissingExtraError, StorageAway, StudyError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from sqlalchemy.engine import URL, Engine

log = logging.getLogger("archtuna")

ENVIRONMENT = "ARCHTUNA_STORAGE"
"""The environment variable that holds the default storage URL; workers get theirs through it, never as an argument."""

DATABASE = "study.db"
"""The file in a run's folder that holds its study when no other storage is named."""

BUSY_SECONDS = 60
CONNECT_SECONDS = 10
NOTICES_A_DEAD_LINE = {
    "keepalives_idle": 20,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}
"""Of libpq: a server that vanished without a word is given up after half a minute, not after a quarter of an hour."""

MASK = "***"

PATIENCE, HURRY, TOLD = 600.0, 10.0, 5.0
"""Seconds for which a storage that is away is waited for; the same when somebody wants an end; until somebody is told."""

Result = TypeVar("Result")


class Attr:
    """The names under which a study and its trials keep what archtuna knows (Optuna's user attributes)."""

    SPEC = "archtuna:spec"
    IDENTITY = "archtuna:identity"
    KEY = "archtuna:key"
    EVALUATION = "archtuna:evaluation"
    DECISIONS = "archtuna:decisions"
    ARCHITECTURE = "archtuna:architecture"
    RECIPE = "archtuna:recipe"
    COSTS = "archtuna:costs"
    RESULT = "archtuna:result"
    METRICS, EPOCHS, SECONDS = (
        "archtuna:metrics",
        "archtuna:epochs",
        "archtuna:seconds",
    )  # until 0.1; see ledger.result_of
    RUNGS = "archtuna:rungs"
    OUTCOME = "archtuna:outcome"
    REASON = "archtuna:reason"
    TRACEBACK = "archtuna:traceback"
    PLACE = "archtuna:place"
    DUPLICATE_OF = "archtuna:duplicate_of"
    WORKER = "archtuna:worker"
    LEASE = "archtuna:lease"
    DEATHS = "archtuna:deaths"
    REUSED = "archtuna:reused"
    READING = "archtuna:reading"
    MEASURED = "archtuna:measured"
    ORDERS = "archtuna:orders"
    SCREEN = "archtuna:screen"
    EVALUATORS = "archtuna:evaluators"
    FOLDERS = "archtuna:folders"
    ARTIFACTS = "archtuna:artifacts"


ERROR_CONSTRAINT = "archtuna:error"
"""The constraint that an architecture which cannot be trained breaks, so that samplers learn to avoid its like."""

STOPPED_CONSTRAINT = "archtuna:stopped"
"""The constraint that a trial which was stopped early breaks, by less the later it was and the fewer were better."""


def open_storage(storage: str | BaseStorage | None, folder: Path) -> BaseStorage:
    """Open a storage for Optuna.

    Args:
        storage: a URL (``sqlite:///file``, ``postgresql://…``, ``mysql://…``, whatever SQLAlchemy knows;
            ``journal:///file`` and ``grpc://host:port`` for Optuna's journal file and proxy), an Optuna storage, which is
            returned as it is, or None for ``study.db`` in the run's folder.
        folder: the run's folder.

    Raises:
        StudyError: it cannot be reached or written; the text shows the URL without its password.
        MissingExtraError: PostgreSQL without psycopg, MySQL without PyMySQL, a proxy without grpcio.
    """
    if storage is not None and not isinstance(storage, str):
        return storage
    url = storage or f"sqlite:///{folder / DATABASE}"
    problem: Exception | None = None
    try:
        return _open(url)
    except (StudyError, MissingExtraError):
        raise
    except Exception as error:  # Drivers raise errors of their own families, so no narrower class would do.
        problem = error
    # Raised out here, the driver's error is not even this one's context: its text may hold the password.
    raise StudyError(f"cannot open the study's storage {redact(url)}: {explain(problem, url)}", hint=_hint(url))


def _open(url: str) -> BaseStorage:
    import optuna

    # Optuna logs one line a trial to stderr, which would tear a live display; a level that the user chose is kept.
    if optuna.logging.get_verbosity() == optuna.logging.INFO:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
    scheme = url.partition(":")[0].partition("+")[0]
    if scheme == "sqlite":
        return _open_sqlite(url)
    if scheme == "journal":
        from optuna.storages.journal import JournalFileBackend

        path = Path(url.partition("://")[2]).expanduser()
        return optuna.storages.JournalStorage(JournalFileBackend(str(path)))
    if scheme == "grpc":
        return _open_proxy(url)
    return _open_server(url)


def _open_proxy(url: str) -> BaseStorage:
    """Open a storage behind Optuna's proxy server."""
    from urllib.parse import urlsplit

    import optuna

    if importlib.util.find_spec("grpc") is None:
        raise MissingExtraError("what speaks to a storage's proxy", "grpc")
    parts = urlsplit(url)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        proxy = optuna.storages.GrpcStorageProxy(host=parts.hostname or "localhost", port=parts.port or 13000)
        proxy.wait_server_ready(timeout=CONNECT_SECONDS)
    return proxy


def _open_sqlite(url: str) -> BaseStorage:
    from filelock import FileLock
    from sqlalchemy.engine import make_url

    parsed = make_url(url)
    if parsed.database in (None, "", ":memory:"):
        return _rdb(parsed, {})
    path = Path(str(parsed.database)).expanduser().absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two processes that create the tables of one new file at once would fail on each other.
    with FileLock(f"{path}.lock", timeout=BUSY_SECONDS):
        storage = _rdb(parsed.set(database=str(path)), {"connect_args": {"timeout": BUSY_SECONDS}})
        _begin_immediate(engine_of(storage))
    return storage


def _begin_immediate(engine: Engine) -> None:
    """Make every transaction of a SQLite engine that may write take the write lock when it begins."""
    from sqlalchemy import event

    from archtuna.rdb import READING

    def connect(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # The driver's own BEGIN, which does not lock, is switched off.
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", f"busy_timeout={BUSY_SECONDS * 1000}"):
            connection.execute(f"PRAGMA {pragma}")

    def begin(connection: Any) -> None:
        reading = connection.get_execution_options().get(READING, False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    event.listen(engine, "connect", connect)
    event.listen(engine, "begin", begin)
    engine.dispose()
    with engine.connect():
        pass


_DRIVERS = {
    "postgresql": ("postgresql", "psycopg", "PostgreSQL"),
    "postgres": ("postgresql", "psycopg", "PostgreSQL"),
    "mysql": ("mysql", "pymysql", "MySQL"),
    "mariadb": ("mysql", "pymysql", "MySQL"),
}
"""Of a URL's scheme: the dialect, which is also the name of the extra, the driver where none is named, and its name."""


def _open_server(url: str) -> BaseStorage:
    from sqlalchemy.engine import make_url

    parsed = make_url(url)
    arguments: dict[str, Any] = {}
    backend, _, driver = parsed.drivername.partition("+")
    if backend in _DRIVERS:
        backend, usual, name = _DRIVERS[backend]
        driver = driver or usual
        if importlib.util.find_spec(driver) is None:
            raise MissingExtraError(f"the {name} driver {driver}", backend)
        parsed = parsed.set(drivername=f"{backend}+{driver}")
    if driver in ("psycopg", "psycopg2"):
        arguments = {"application_name": "archtuna", "connect_timeout": CONNECT_SECONDS, **NOTICES_A_DEAD_LINE}
    elif driver == "pymysql":
        arguments = {"connect_timeout": CONNECT_SECONDS}
    arguments = {k: v for k, v in arguments.items() if k not in parsed.query}
    options = {"pool_pre_ping": True, "pool_size": 1, "max_overflow": 2, "connect_args": arguments}
    for attempt in range(5):
        try:
            storage = _rdb(parsed, options)
            _widen(engine_of(storage))
            return storage
        except Exception as error:
            # Workers that create the tables of one new database at once fail on each other, and succeed a moment later.
            if attempt == 4 or not re.search(r"already exists|[Dd]uplicate (key|entry)|UniqueViolation", str(error)):
                raise
            time.sleep(random.uniform(0.1, 0.5))
    raise AssertionError("the last attempt returns or raises")


def _widen(engine: Engine) -> None:
    """Let attributes be longer than the 64 kB that Optuna's columns hold in MySQL: a traceback or a large network may be."""
    from sqlalchemy import inspect

    if engine.dialect.name not in ("mysql", "mariadb"):
        return
    tables = [f"{of}_{kind}_attributes" for of in ("study", "trial") for kind in ("user", "system")]
    narrow = [t for t in tables if str(_column(inspect(engine), t, "value_json")).upper() == "TEXT"]
    with engine.begin() as connection:
        for table in narrow:
            connection.exec_driver_sql(f"ALTER TABLE {table} MODIFY value_json LONGTEXT")


def _column(inspector: Any, table: str, name: str) -> Any:
    return next(column["type"] for column in inspector.get_columns(table) if column["name"] == name)


def _rdb(url: URL, options: dict[str, Any]) -> BaseStorage:
    from optuna.storages import get_storage

    from archtuna.rdb import WholeTrials

    # RDBStorage fills a template in the URL, so braces in a password have to be doubled.
    text = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
    return get_storage(WholeTrials(text, engine_kwargs=options))


def url_of(storage: str | BaseStorage | None) -> str | None:
    """Return the URL by which a storage was named; None for an object and for the run's own."""
    return storage if isinstance(storage, str) else None


def backend_of(storage: BaseStorage) -> Any:
    """Return the storage behind Optuna's cache, or the storage itself where there is no cache."""
    return getattr(storage, "_backend", storage)


def engine_of(storage: BaseStorage) -> Any:
    """Return the SQLAlchemy engine behind a storage, or None where there is none."""
    return getattr(backend_of(storage), "engine", None)


def clock_of(storage: BaseStorage) -> float:
    """Return the seconds since the epoch by the clock that all workers of a storage share: its server's, else this one's."""
    from sqlalchemy import text

    engine = engine_of(storage)
    asked = {"postgresql": "SELECT extract(epoch FROM clock_timestamp())", "mysql": "SELECT unix_timestamp(now(6))"}
    query = asked.get(engine.dialect.name) if engine is not None else None
    if query is None:
        return time.time()
    with engine.connect() as connection:
        return float(connection.execute(text(query)).scalar_one())


def close_storage(storage: BaseStorage) -> None:
    """Give back the storage's connections; it opens new ones when it is used again."""
    backend = backend_of(storage)
    if hasattr(backend, "scoped_session"):
        backend.scoped_session.remove()
        backend.engine.dispose()


def redact(url: str) -> str:
    """Return a storage URL with its passwords masked, fit for a log.

    >>> redact("postgresql://ada:secret@db/nets")
    'postgresql://ada:***@db/nets'
    """
    for pattern in (_USER, _QUERY):
        url = pattern.sub(lambda match: f"{match['before']}{MASK}{match['after']}", url)
    return url


def has_password(url: str) -> bool:
    """Return whether a storage URL carries a password."""
    return bool(_secrets(url))


_USER = re.compile(r"(?P<before>^[\w+.-]+://[^:/@]*:)(?P<secret>.+)(?P<after>@)")
_QUERY = re.compile(r"(?P<before>[?&]\w*(?:password|passwd|token|secret)\w*=)(?P<secret>[^&]+)(?P<after>)", re.I)


def _secrets(url: str) -> set[str]:
    """Return each spelling of a password in a URL: as written, and decoded."""
    found = {match["secret"] for pattern in (_USER, _QUERY) for match in pattern.finditer(url)}
    return {spelling for secret in found for spelling in (secret, unquote(secret)) if secret}


def explain(error: BaseException, url: str | None = None) -> str:
    """Return what a storage's error says in one line, without any password of ``url``."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    text = str(getattr(cause, "orig", None) or cause).strip() or type(cause).__name__
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = next((line for line in lines if not line.startswith(("(Background", "[SQL"))), type(cause).__name__)
    return scrub(line, url)


def scrub(text: str, url: str | None) -> str:
    """Return a text without the passwords of a storage's URL."""
    for secret in sorted(_secrets(url or ""), key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


def _hint(url: str) -> str:
    if url.startswith("sqlite"):
        return "its folder has to be one that can be written, also to look at it: copy the run, or choose another with --out"
    return "check host, port, user and database; a password may stand in ~/.pgpass or in the variable " + ENVIRONMENT


def with_retries(
    action: Callable[[], Result],
    *,
    what: str,
    seconds: float = PATIENCE,
    hurry: Callable[[], bool] = lambda: False,
    url: str | None = None,
    sleep: Any = time.sleep,
) -> Result:
    """Run an action on the storage again, ever more slowly, for as long as the storage is away.

    Args:
        action: what is done; it must be right to do it twice.
        what: the action in words, for the error: ``record trial 7``.
        seconds: how long to try.
        hurry: whether somebody wants this to end, so that ``HURRY`` seconds must do.
        url: the storage, so that its password is kept out of the error.

    Raises:
        StorageAway: it stayed away.
    """
    begun, pause, problem, told = time.monotonic(), 0.25, "", False
    while True:
        try:
            return action()
        except storage_errors() as error:
            problem = explain(error, url)
        waited = time.monotonic() - begun
        seconds = min(seconds, HURRY) if hurry() else seconds
        if waited + pause > seconds:
            break
        if waited > TOLD and not told:
            told = True
            log.warning("the study's storage is away (%s): trying for %.0f s to %s", problem, seconds, what)
        sleep(pause * random.uniform(0.5, 1.0))
        pause = min(2 * pause, 8.0)
    raise StorageAway(f"the study's storage is away ({problem}): could not {what} in {seconds:g} s", hint="start again")


@contextmanager
def storage_errors_named(url: str | None = None) -> Iterator[None]:
    """Turn a storage's own errors into one ``StudyError`` without passwords and without the driver's traceback."""
    try:
        yield
        return
    except storage_errors() as error:
        problem = explain(error, url)
    raise StudyError(f"the study's storage failed: {problem}", hint="check that it is reachable and start again")


def storage_errors() -> tuple[type[Exception], ...]:
    """Return the classes of errors that say that a storage is away."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    grpc = sys.modules.get("grpc")  # Loaded with a proxy.
    return (StorageInternalError, SQLAlchemyError, *((grpc.RpcError,) if grpc else ()))


def default_url(environment: dict[str, str] | None = None) -> str | None:
    """Return the storage URL that the environment names, or None."""
    return (os.environ if environment is None else environment).get(ENVIRONMENT) or None


def named_url(given: str | None) -> str:
    """Return a storage URL as given, or the one that the environment names.

    Raises:
        StudyError: neither is there.
    """
    url = given or default_url()
    if url is None:
        raise StudyError("no storage is named", hint="pass --storage, or set ARCHTUNA_STORAGE")
    return url
