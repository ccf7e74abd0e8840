from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import pytest

from archtuna.interrupts import Interrupted, Stop


def test_a_signal_interrupts_what_may_be_interrupted() -> None:
    stop = Stop()
    before = signal.getsignal(signal.SIGTERM)
    with stop.on_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
        with pytest.raises(Interrupted), stop.interruptible():
            pass
    assert signal.getsignal(signal.SIGTERM) is before
    stop = Stop()
    with stop.on_signals(), pytest.raises(Interrupted):
        _signal_inside(stop)


def _signal_inside(stop: Stop) -> None:
    with stop.interruptible():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)


def test_signals_are_left_alone_outside_the_main_thread() -> None:
    found: list[Any] = []

    def other() -> None:
        with Stop().on_signals():
            found.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert found == [before]
