"""Whoever watches several workers, whatever these are; here they are scripts of events."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from archtuna.crew import SEARCH, Crew, Tell
from archtuna.driver import search
from archtuna.errors import StudyError
from archtuna.orders import Orders
from archtuna.study import Study
from searches import arguments

Script = list[dict[str, Any] | int]


class Scripted:
    """A worker that tells its events and ends with a code, at once or when it is asked to."""

    def __init__(self, script: Script, told: Mapping[str, Any], tell: Tell) -> None:
        self.pid, self.last_words, self.tell, self.code = (
            1000 + told["orders"]["index"],
            deque(["hunter2 says no"]),
            tell,
            0,
        )
        self.asked = self.over = False
        for step in script:
            if isinstance(step, int):
                self._end(step)
            else:
                tell(step)

    def _end(self, code: int) -> None:
        if not self.over:
            self.code, self.over = code, True
            self.tell(None)

    def stop(self) -> None:
        self.asked = True
        self._end(0)

    def kill(self) -> None:
        pass

    def wait(self) -> int:
        return self.code


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return search(**arguments(tmp_path, trials=1))


def crew(study: Study, orders: Orders, *scripts: Script) -> tuple[Crew, list[dict[str, Any]], list[Scripted]]:
    events: list[dict[str, Any]] = []
    members: list[Scripted] = []
    left = list(scripts)

    def start(module: str, told: Mapping[str, Any], tell: Tell) -> Scripted:
        assert module == SEARCH
        members.append(Scripted(left.pop(0), told, tell))
        return members[-1]

    return Crew(study, orders, start, SEARCH, events.append, {}, "postgresql://me:hunter2@db/x"), events, members


def done(reason: str) -> Script:
    return [{"event": "done", "reason": reason}, 0]


def test_events_are_forwarded_with_their_worker_and_logs_once(study: Study, caplog: pytest.LogCaptureFixture) -> None:
    log = {"event": "log", "level": logging.WARNING, "message": "three copies"}
    made, events, _ = crew(study, Orders(workers=2), [log, {"event": "epoch"}, *done("trials")], [log, *done("trials")])
    with caplog.at_level(logging.WARNING, "archtuna"):
        assert made.run() == "trials"
    assert [event["worker"] for event in events if event["event"] == "epoch"] == [0]
    assert caplog.text.count("three copies") == 1
    assert [(e["worker"], e["state"]) for e in events if e["event"] == "worker"] == [
        (0, "alive"),
        (1, "alive"),
        (0, "done"),
        (1, "done"),
    ]


@pytest.mark.parametrize(("reasons", "whole"), [(("trials", "time"), "time"), (("exhausted", "time"), "exhausted")])
def test_the_reason_of_all_is_the_strongest(study: Study, reasons: tuple[str, ...], whole: str) -> None:
    made, _, _ = crew(study, Orders(workers=2), *map(done, reasons))
    assert made.run() == whole


def test_one_that_died_is_started_again_and_those_that_keep_dying_end_it(study: Study) -> None:
    made, events, members = crew(study, Orders(workers=1), [-9], [-9], done("trials"))
    assert made.run() == "trials"
    assert len(members) == 3
    dead = next(event for event in events if event.get("state") == "dead")
    assert (dead["code"], dead["stderr"]) == (-9, ["*** says no"]), "without the storage's password"
    made, _, _ = crew(study, Orders(workers=1), [-9], [-9], [-9])
    with pytest.raises(StudyError, match="workers keep dying: \\*\\*\\* says no"):
        made.run()


def test_deaths_are_no_fault_as_long_as_it_gets_on(study: Study) -> None:
    scripts: list[Script] = [[{"event": "complete"}, -9] for _ in range(9)]
    made, _, members = crew(study, Orders(workers=1), *scripts, done("trials"))
    assert made.run() == "trials"
    assert len(members) == 10


def test_a_death_may_be_told_by_one_who_was_started_again_by_others(study: Study) -> None:
    made, events, members = crew(study, Orders(workers=1), [{"event": "died", "pid": 7, "code": -9}, *done("trials")])
    assert made.run() == "trials"
    assert len(members) == 1
    assert [(e["pid"], e["state"]) for e in events if e["event"] == "worker"] == [
        (1000, "alive"),
        (7, "dead"),
        (1000, "done"),
    ]


def test_a_mistake_ends_all_of_them(study: Study) -> None:
    made, _, members = crew(study, Orders(workers=2), [{"event": "error", "message": "no pictures\nhint: look"}, 0], [])
    with pytest.raises(StudyError, match="no pictures") as caught:
        made.run()
    assert caught.value.hint == "look"
    assert members[1].asked


@pytest.mark.parametrize("reason", ["trials", "time"])
def test_one_that_says_nothing_is_not_waited_for_when_nothing_is_left(study: Study, reason: str) -> None:
    deadline = time.time() - 1 if reason == "time" else None
    made, _, members = crew(study, Orders(workers=2, linger=True, deadline=deadline, grace=0.5), done(reason), [])
    assert made.run() == reason
    assert members[1].asked
