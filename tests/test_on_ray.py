"""Workers as actors of a Ray cluster; here one of two nodes on this machine."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from archtuna.driver import search
from archtuna.errors import MissingExtraError, StudyError
from archtuna.study import Study
from postgres import Server, server
from searches import arguments

__all__ = ["server"]

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
HERE = str(Path(__file__).parent)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two nodes with room for one worker each; their processes see neither a GPU nor the network."""
    from ray.cluster_utils import Cluster

    before = dict(os.environ)
    os.environ |= {
        "PYTHONPATH": os.pathsep.join([HERE, os.environ.get("PYTHONPATH", "")]), "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DISABLE_IMPORT_WARNING": "1",
    }  # fmt: skip
    small = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    # A lost machine is missed after five seconds; by default Ray asks one five times, with ten seconds for each answer.
    soon = {"health_check_period_ms": 1000, "health_check_timeout_ms": 2000, "health_check_failure_threshold": 3}
    made = Cluster(initialize_head=True, head_node_args={**small, "_system_config": soon})
    made.add_node(**{k: v for k, v in small.items() if k != "include_dashboard"})
    made.wait_for_nodes()
    yield made
    made.shutdown()
    os.environ.clear()
    os.environ.update(before)


def on_ray(cluster: Any, server: Server, folder: Path, **changes: Any) -> tuple[Study, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    given = {
        "storage": server.url(),
        "workers": 2,
        "ray": cluster.address,
        "evaluator": "searches:slow",
        "stopping": False,
    }
    taken = changes.pop("on_event", lambda event: None)
    told = {"on_event": lambda event: (events.append(event), taken(event))}
    return search(**arguments(folder, **{**given, **changes, **told})), events


def test_actors_come_back_when_they_are_killed_and_a_lost_machine_ends_no_search(
    cluster: Any, server: Server, tmp_path: Path
) -> None:
    """One actor is killed in its first trial, and Ray starts it again; then one of the machines is lost with its actor, for
    which there is no other, so that it never answers again."""
    killed: list[int] = []
    lost: list[Any] = []

    def disturb(event: dict[str, Any]) -> None:
        if event["event"] == "epoch" and event["epoch"] == 3 and not killed:
            with Study.named("killed", storage=server.url()) as study:
                killed.append(int(str(study.candidate(event["number"]).worker).rpartition(":")[2]))
            os.kill(killed[0], signal.SIGKILL)
        came_back = killed and event.get("state") == "dead"
        if came_back and not lost:
            lost.append(next(iter(cluster.worker_nodes)))
            threading.Thread(target=cluster.remove_node, args=(lost[0],), kwargs={"allow_graceful": False}).start()

    study, events = on_ray(cluster, server, tmp_path, name="killed", trials=8, lease=4.0, on_event=disturb, repeats=1)
    assert study.counts() == {"complete": 8, "stopped": 0, "refused": 0, "failed": 0}
    assert events[-1]["reason"] == "trials"
    assert all(trial.repeats == 1 for trial in study.front())
    assert lost
    assert killed[0] in [event["pid"] for event in events if event["event"] == "worker" and event["state"] == "dead"]
    assert not any("hunter2" in str(event) for event in events)


def test_a_stop_hands_trials_back(cluster: Any, server: Server, tmp_path: Path) -> None:
    asked: list[str] = []

    def end(event: dict[str, Any]) -> None:
        if event["event"] == "epoch" and not asked:
            asked.append("once")
            os.kill(os.getpid(), signal.SIGINT)

    study, events = on_ray(cluster, server, tmp_path, name="stopped", trials=20, workers=1, on_event=end)
    assert events[-1]["reason"] == "interrupted"
    states = [trial.state for trial in study.trials()]
    assert set(states) <= {"complete", "waiting"}, "none is left running"
    assert states.count("complete") < 20


def test_an_actors_error_is_the_searchs(cluster: Any, server: Server, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no evaluator 'searches:nothing'"):
        on_ray(cluster, server, tmp_path, name="wrong", workers=1, evaluator="searches:nothing")


def test_what_a_cluster_cannot_do_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = arguments(tmp_path, ray="auto", evaluator="searches:slow")
    with pytest.raises(StudyError, match="the machines of a Ray cluster share no database file"):
        search(**given)
    url = "postgresql://nobody@127.0.0.1:9/none"
    with pytest.raises(StudyError, match="nobody would work on the Ray cluster"):
        search(**given | {"storage": url, "workers": 0})
    with pytest.raises(StudyError, match="several workers cannot share an evaluator object"):
        search(**given | {"storage": url, "evaluator": lambda candidate: {}})


def test_no_cluster_and_no_ray_are_one_error(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = arguments(tmp_path, ray="127.0.0.1:9", evaluator="searches:slow", storage=server.url(), name="none")
    begun = time.monotonic()
    with pytest.raises(StudyError, match=r"cannot reach the Ray cluster at 127\.0\.0\.1:9: "):
        search(**given)
    assert time.monotonic() - begun < 60
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match="Ray is not installed"):
        search(**given)
