import io

import pytest
from rich.console import Console

from archtuna.live import Display, Watch, clock, plain_lines
from archtuna.objective import objectives_of

START = {
    "event": "start", "objectives": {"f1": "maximize", "params": "minimize"}, "trials": 10, "time": None,
    "counts": {"complete": 1, "stopped": 0, "refused": 0, "failed": 0}, "front": [0],
    "values": {"0": {"f1": 0.5, "params": 100.0}}, "hypervolume": 0.25,
}  # fmt: skip
EVENTS = [
    START,
    {"event": "trial", "number": 1, "costs": {"params": 2000, "macs": 5}, "epochs": 4},
    {"event": "epoch", "number": 1, "epoch": 2, "epochs": 4, "metrics": {"f1": 0.61}},
    {"event": "refused", "number": 2, "reason": "params 9 > 8\nmore"},
    {"event": "trial", "number": 3, "costs": {"params": 3000}, "epochs": 4},
]


def watched(events=EVENTS):
    watch = Watch("a search", objectives_of(["f1", "params"]))
    for event in events:
        watch.take(event)
    return watch


def test_a_resumed_search_shows_its_front_and_what_runs():
    lines = watched().lines()
    assert lines[1].startswith("trials 1/10, 1 refused, hypervolume 0.2500")
    assert any("━━━━━━╌╌╌╌╌╌ 2/4  f1 0.610  params 2,000" in line for line in lines)
    assert any(line.split() == ["0", "0.5", "100"] for line in lines)
    assert lines[-1] == "trial 2 refused: params 9 > 8"


def test_trials_leave_the_running_ones_however_they_end():
    watch = watched()
    watch.take({"event": "complete", "number": 1, "values": {"f1": 0.7, "params": 2000.0}})
    watch.take({"event": "front", "numbers": [0, 1], "hypervolume": 0.4})
    watch.take({"event": "handed-back", "number": 3})
    assert watch.running == {}
    assert (watch.done, watch.front, watch.hypervolume) == (2, [0, 1], 0.4)
    watch.take({"event": "worker", "state": "dead", "worker": 1, "code": -9})
    assert watch.last == "worker 1 died (exit -9); its trial goes back into the queue"


REPEATS = {
    "event": "repeats", "objectives": START["objectives"], "seeds": 3, "numbers": None, "counts": START["counts"],
    "front": [0], "values": START["values"], "hypervolume": 0.25,
}  # fmt: skip
REPEATED = {
    "event": "repeated", "number": 0, "seed": 2, "values": {"f1": 0.41, "params": 100.0}, "mean": {"f1": 0.4, "params": 100.0},
    "spread": {"f1": 0.0141}, "runs": 2, "seconds": 1.0,
}  # fmt: skip
FAILED = {"event": "repeat-failed", "number": 0, "seed": 1, "reason": "nan: lost\nmore"}


def test_repeats_show_what_runs_with_which_seed_and_the_means():
    watch = watched([REPEATS])
    for seed in (1, 2):
        watch.take({"event": "repeat", "number": 0, "seed": seed, "costs": {"params": 100}, "epochs": 4})
    watch.take({"event": "epoch", "number": 0, "seed": 2, "epoch": 2, "epochs": 4, "metrics": {"f1": 0.41}})
    lines = watch.lines()
    assert "     0 seed 1 ╌╌╌╌╌╌╌╌╌╌╌╌ 0/4    params 100" in lines
    assert "     0 seed 2 ━━━━━━╌╌╌╌╌╌ 2/4  f1 0.410  params 100" in lines
    watch.take(REPEATED)
    watch.take(FAILED)
    assert watch.running == {}
    assert "2 runs with other seeds" in watch.summary()
    assert watch.left() is None
    assert any(line.split() == ["0", "0.4", "100"] for line in watch.lines())
    assert watch.lines()[-1] == "trial 0 with seed 1 failed: nan: lost"


def test_repeats_are_said_in_lines():
    watch = watched([REPEATS])
    assert list(plain_lines(watch, REPEATS)) == ["a search: the front again, 3 runs each with other seeds"]
    named = {**REPEATS, "numbers": [3, 7], "seeds": 1}
    assert list(plain_lines(watch, named)) == ["a search: trials 3, 7 again, 1 run each with other seeds"]
    assert list(plain_lines(watch, REPEATED)) == ["trial 0 with seed 2: f1 0.41, mean 0.4000 ± 0.0141 (n=2)"]
    assert list(plain_lines(watch, FAILED)) == ["trial 0 with seed 1 failed: nan: lost"]


def test_time_left_is_known_from_the_pace_or_the_clock():
    watch = watched()
    assert watch.left() is None
    watch.started -= 10
    watch.take({"event": "complete", "number": 1, "values": {"f1": 0.7, "params": 2000.0}})
    assert watch.left() == pytest.approx(80, abs=2)
    watch.seconds = 12.0
    assert watch.left() == pytest.approx(2, abs=1)


def test_a_long_front_is_shortened():
    watch = watched(
        [{**START, "front": list(range(30)), "values": {str(n): {"f1": 0.5, "params": 1.0} for n in range(30)}}]
    )
    assert watch.front_lines()[-1] == "and 18 more"


@pytest.mark.parametrize("width", [40, 80, 160])
def test_the_display_fits_any_width(width):
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=40)
    watch = watched()
    with Display(watch, console) as display:
        console.print(display._render())
    assert "trials 1/10" in console.file.getvalue()


def test_without_a_terminal_events_are_lines():
    watch = watched()
    said = [line for event in EVENTS for line in plain_lines(watch, event)]
    end = {"event": "end", "reason": "trials"}
    watch.take(end)
    said += plain_lines(watch, end)
    assert said[0].startswith("a search: trials 1/10")
    assert "trial 2 refused: params 9 > 8" in said
    assert said[-1] == "ended (trials): trials 1/10, 1 refused, hypervolume 0.2500"


def test_durations_read_as_people_say_them():
    assert [clock(s) for s in (5, 65, 7260)] == ["0:05", "1:05", "2:01:00"]
