"""What of a machine one worker takes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from pathlib import Path

import pytest
import torch

from archtuna.devices import THREADS, seated, sharing, threads_of, usable_cores


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
