"""What of a machine one worker takes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from archtuna.devices import THREADS, Courtesy, quiet_machine, seated, sharing, threads_of, torch_threads, usable_cores


@pytest.fixture(autouse=True)
def own_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other worker, and two graphics cards."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_each_worker_gets_a_card_of_its_own_and_gives_it_back(caplog: pytest.LogCaptureFixture) -> None:
    with seated() as first, seated(index=1) as second:
        assert (first, second) == ("cuda:0", "cuda:1")
        assert not caplog.records
        with seated(index=3) as third:
            assert third == "cuda:1"
        assert "every graphics card of this machine has its workers: cuda:1 gets one more" in caplog.text
    with seated() as again:
        assert again == "cuda:0"


def test_several_share_a_card_on_request_when_each_card_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[tuple[float, int]] = []
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda share, number: shares.append((share, number))
    )
    with contextlib.ExitStack() as held:
        names = [held.enter_context(seated(per_gpu=2)) for _ in range(4)]
    assert names == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert shares == [(0.5, 0), (0.5, 1), (0.5, 0), (0.5, 1)]


def test_a_card_is_known_by_its_number_on_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    with seated() as first:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
        with seated() as second:
            assert (first, second) == ("cuda:0", "cuda:0"), "the second one's first is the machine's second"


def test_a_named_device_is_taken_as_it_is_and_without_cards_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with seated("cuda:1") as first, seated("cuda:1") as second:
        assert first == second == "cuda:1"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with seated() as none:
        assert none is None


def _killed_while_seated(folder: str) -> None:
    import tempfile

    tempfile.tempdir = folder
    with seated(), sharing():
        os.kill(os.getpid(), 9)


def test_what_a_killed_worker_took_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    process = multiprocessing.get_context("fork").Process(target=_killed_while_seated, args=(str(tmp_path),))
    process.start()
    process.join()
    assert process.exitcode == -9
    with seated() as device:
        assert device == "cuda:0"


def test_cores_are_shared_with_the_workers_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("archtuna.devices.usable_cores", lambda: 8)
    before = torch.get_num_threads()
    torch.set_num_threads(8)
    try:
        with sharing() as share:
            share()
            assert torch.get_num_threads() == 8
            (folder,) = tmp_path.glob("archtuna-*")
            other = folder / f"worker-{os.getppid()}"
            other.touch()
            (folder / f"worker-{2**22 + 1}").touch()
            share()
            assert torch.get_num_threads() == 4, "one more that lives, and one that was killed"
            other.unlink()
            share()
            assert torch.get_num_threads() == 8
            monkeypatch.setenv("OMP_NUM_THREADS", "3")
            with sharing() as told:
                told()
                assert torch.get_num_threads() == 8, "the environment says it"
        assert torch.get_num_threads() == 8
    finally:
        torch.set_num_threads(before)


def test_a_crew_shares_the_cores_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
    monkeypatch.setattr("archtuna.devices.usable_cores", lambda: 8)
    assert threads_of(3) == {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    assert threads_of(20)["OMP_NUM_THREADS"] == "1"


# --- measuring while others train --------------------------------------------------------------------


def _trains(steps: multiprocessing.Queue, folder: str) -> None:
    """Train for ever, a batch a hundredth of a second."""
    import tempfile

    tempfile.tempdir = folder
    courtesy = Courtesy()
    with courtesy.at_work() as give_way:
        while True:
            give_way()
            time.sleep(0.01)
            steps.put((time.monotonic(), courtesy.waited))


@pytest.fixture
def trainings(tmp_path: Path) -> Iterator[list[tuple[multiprocessing.Process, multiprocessing.Queue]]]:
    """Two processes that train; each has begun."""
    context = multiprocessing.get_context("fork")
    found = []
    for _ in range(2):
        steps = context.Queue()
        found.append((context.Process(target=_trains, args=(steps, str(tmp_path)), daemon=True), steps))
        found[-1][0].start()
    for _, steps in found:
        steps.get(timeout=30)
    yield found
    for process, _ in found:
        process.kill()
        process.join()


def _drained(steps: multiprocessing.Queue) -> list[tuple[float, float]]:
    found = []
    while True:
        try:
            found.append(steps.get(timeout=0.3))
        except queue.Empty:
            return found


def test_while_one_measures_no_training_takes_another_batch_and_afterwards_all_go_on(trainings) -> None:
    with quiet_machine() as waited:
        begun = time.monotonic()
        time.sleep(0.3)
        ended = time.monotonic()
    assert 0 <= waited < 5
    time.sleep(0.2)
    for process, steps in trainings:
        process.kill()
        seen = _drained(steps)
        assert not [when for when, _ in seen if begun + 0.02 < when < ended]
        assert [when for when, _ in seen if when > ended]
        assert 0.25 < seen[-1][1] < 5, "it knows for how long it stood still"


def test_a_training_that_has_to_wait_before_it_begins_knows_that_too() -> None:
    courtesy, holds, over = Courtesy(), threading.Event(), threading.Event()

    def measure() -> None:
        with quiet_machine():
            holds.set()
            over.wait(0.4)

    measuring = threading.Thread(target=measure)
    measuring.start()
    assert holds.wait(30)
    with courtesy.at_work():
        assert 0.2 < courtesy.waited < 30
    measuring.join()


def test_one_that_is_killed_while_it_measures_holds_nobody_up(trainings, tmp_path: Path) -> None:
    def measure(holds) -> None:
        with quiet_machine():
            holds.set()
            time.sleep(60)

    context = multiprocessing.get_context("fork")
    holds = context.Event()
    process = context.Process(target=measure, args=(holds,), daemon=True)
    process.start()
    assert holds.wait(30)
    process.kill()
    process.join()
    killed = time.monotonic()
    steps = trainings[0][1]
    assert any(when > killed for when, _ in iter(lambda: steps.get(timeout=10), None))


def test_two_do_not_measure_at_once() -> None:
    order: list[str] = []

    def other() -> None:
        with quiet_machine():
            order.append("other")

    with quiet_machine():
        thread = threading.Thread(target=other)
        thread.start()
        time.sleep(0.2)
        order.append("first")
    thread.join(10)
    assert order == ["first", "other"]


def test_threads_are_given_back_whatever_happens() -> None:
    before = torch.get_num_threads()

    def fails() -> None:
        with torch_threads(before + 2):
            assert torch.get_num_threads() == before + 2
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fails()
    assert torch.get_num_threads() == before
    with torch_threads(None):
        assert torch.get_num_threads() == before
