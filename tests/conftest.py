import logging
import os

# Two processes of tests with two threads each on two cores wait for each other: some tests take five times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

import archtuna as at
from pictures import folder
from spaces import TINY


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Keep decoded pictures of tests, and of the processes that they start, out of the user's cache."""
    before = dict(os.environ)
    os.environ["ARCHTUNA_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ.pop("ARCHTUNA_STORAGE", None)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    """A finished search of three networks on 72 pictures, trained on half of the training part."""
    root = tmp_path_factory.mktemp("final")
    return at.search(TINY, folder(root / "photos"), out=root / "run", trials=3, fraction=0.5)


@pytest.fixture(autouse=True)
def own_logging():
    """Take back what the command line does to the library's logger, which belongs to the process."""
    log = logging.getLogger("archtuna")
    before = log.level, list(log.handlers)
    yield
    log.setLevel(before[0])
    log.handlers[:] = before[1]
