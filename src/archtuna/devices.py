"""What of a machine one worker takes: cores, and a graphics card of its own, or its share of one.

Workers that know nothing of each other leave word in the machine's temporary folder, which nobody has to take back when they
are killed: locks end with their process, and so do the numbers of processes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from filelock import BaseFileLock
    from torch import Tensor

log = logging.getLogger("archtuna")

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def usable_cores() -> int:
    """Return how many processor cores this process may use, by its affinity and by its container's quota."""
    import joblib

    return max(1, joblib.cpu_count())


def threads_of(workers: int) -> dict[str, str]:
    """Return the environment that gives each of some workers of this machine its share of the cores."""
    return dict.fromkeys(THREADS, str(max(1, usable_cores() // workers)))


def moved(tensor: Tensor, device: torch.device, **layout: Any) -> Tensor:
    """Return a tensor on a device, without waiting where that is safe.

    CUDA copies what is not pinned before it returns; MPS may read it after it was given back (pytorch/pytorch#139550).
    """
    return tensor.to(device, non_blocking=device.type == "cuda", **layout)


@contextlib.contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Have inside as many threads in torch; None leaves them as they are."""
    import torch

    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def sharing() -> Iterator[Callable[[], None]]:
    """Give what sets this process's threads to its share of the cores among the workers that are on the machine just then.

    Two that train with two threads each on two cores take five times as long as with one each. Where the environment says how
    many threads there are to be, as it does in a crew, that holds.
    """
    import torch

    if any(name in os.environ for name in THREADS[:2]):
        yield lambda: None
        return
    # Torch counts the machine's cores, of which a container has perhaps two.
    before, cores = torch.get_num_threads(), usable_cores()
    mine = machine_folder() / f"worker-{os.getpid()}"
    mine.touch()
    try:
        yield lambda: torch.set_num_threads(max(1, min(before, cores // _alive())))
    finally:
        mine.unlink(missing_ok=True)
        torch.set_num_threads(before)


def _alive() -> int:
    """Return how many workers that take what cores there are run on this machine."""
    import psutil

    pids = (int(path.name.partition("-")[2]) for path in machine_folder().glob("worker-*"))
    return max(1, sum(psutil.pid_exists(pid) for pid in pids))


@contextlib.contextmanager
def seated(device: str | None = None, index: int = 0, per_gpu: int = 1) -> Iterator[str | None]:
    """Hold a graphics card that no other worker of this machine holds, and give its name; None where there is none to choose.

    Args:
        device: one that was named, which is given as it is.
        index: of this worker, by which a card is chosen when all are taken.
        per_gpu: how many workers may hold one card, each with its share of the memory.
    """
    import torch

    count = 0 if device is not None else torch.cuda.device_count()
    if not count:
        yield device
        return
    with contextlib.ExitStack() as held:
        number = _seat(held, count, per_gpu)
        if number is None:
            number = index % count
            words = (
                "every graphics card of this machine has its workers: cuda:%d gets one more (--per-gpu N plans for it)"
            )
            log.warning(words, number)
        if per_gpu > 1:
            torch.cuda.set_per_process_memory_fraction(1.0 / per_gpu, number)
        yield f"cuda:{number}"


def _seat(held: contextlib.ExitStack, count: int, per_gpu: int) -> int | None:
    """Take the first free seat, one on each card before a second on any, and return the card's number, or None."""
    for seat in range(per_gpu):
        for number in range(count):
            lock = _lock(f"gpu-{_physical(number)}-{seat}")
            if lock is not None:
                held.callback(lock.release)
                return number
    return None


@contextlib.contextmanager
def machine_lock(name: str) -> Iterator[None]:
    """Hold what only one process of this machine and user may hold, waiting for it."""
    from filelock import FileLock

    with FileLock(machine_folder() / f"{name}.lock"):
        yield


# --- measuring while others train --------------------------------------------------------------------


@contextlib.contextmanager
def quiet_machine() -> Iterator[float]:
    """Hold this machine while something is measured: no other process of this user measures, and none that trains goes on.

    Yields:
        the seconds that it took until the trainings had ended their batches.
    """
    begun = time.perf_counter()
    with _opened("measuring") as wish, _opened("training") as trainings:
        _flock(wish, exclusive=True)
        _flock(trainings, exclusive=True)
        yield time.perf_counter() - begun


class Courtesy:
    """A training's side of ``quiet_machine``: between two batches it looks whether somebody wants to measure, and waits.

    A look takes some microseconds. Locks end with their process: one that is killed while it measures holds nobody up.

    Attributes:
        waited: seconds for which it stood still.
    """

    def __init__(self) -> None:
        self.waited = 0.0

    @contextlib.contextmanager
    def at_work(self) -> Iterator[Callable[[], None]]:
        """Give what is to be called between two batches; outside of this a training is not waited for."""
        with _opened("measuring") as wish, _opened("training") as trainings:

            def give_way() -> None:
                if not _flock(wish, wait=False):
                    begun = time.perf_counter()
                    _flock(trainings, release=True)
                    _flock(wish)
                    _flock(trainings)
                    self.waited += time.perf_counter() - begun
                _flock(wish, release=True)

            begun = time.perf_counter()
            _flock(trainings)
            self.waited += time.perf_counter() - begun
            yield give_way


@contextlib.contextmanager
def _opened(name: str) -> Iterator[int]:
    """Open a file to lock; closing it gives every lock on it back."""
    descriptor = os.open(machine_folder() / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _flock(descriptor: int, *, exclusive: bool = False, wait: bool = True, release: bool = False) -> bool:
    """Lock a file, shared or exclusively, or give the lock back; return whether it could be done without waiting where that
    was not wanted. Where the system has no such locks nobody waits for anybody."""
    try:
        import fcntl
    except ImportError:
        return True
    how = fcntl.LOCK_UN if release else fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    try:
        fcntl.flock(descriptor, how if wait else how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock(name: str) -> BaseFileLock | None:
    """Return a lock of this machine, held, or None where another worker holds it."""
    from filelock import FileLock, Timeout

    lock = FileLock(machine_folder() / f"{name}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return None
    return lock


def _physical(number: int) -> str:
    """Return what names a card for all processes, of which each may see others."""
    visible = [part.strip() for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part.strip()]
    return visible[number].replace("/", "-") if number < len(visible) else str(number)


def machine_folder() -> Path:
    """Return where the workers of this machine and user know of each other."""
    folder = Path(tempfile.gettempdir()) / f"archtuna-{os.getuid() if hasattr(os, 'getuid') else 'workers'}"
    folder.mkdir(exist_ok=True)
    return folder
