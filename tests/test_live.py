import pytest

from archtuna.live import Watch, plain_lines
from archtuna.objective import objectives_of
from archtuna.terminal import Screen

START = {
    "event": "start", "objectives": {"f1": "maximize", "params": "minimize"}, "trials": 10, "time": None,
    "counts": {"complete": 1, "stopped": 0, "refused": 0, "failed": 0}, "front": [0],
    "values": {"0": {"f1": 0.5, "params": 100.0}}, "costs": {"0": {"params": 100, "macs": 7}}, "hypervolume": 0.25,
    "growth": [0.25], "folder": "runs/photos",
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
    assert lines[:2] == ["a search", "trials 1/10, 1 refused"]
    assert lines[3] == "worker  trial  epoch                 best f1  left  params  f1 now"
    assert lines[4] == "     0      1  ━━━━━━━━╌╌╌╌╌╌╌╌ 2/4   0.6100  0:00      2k  0.6100"
    assert lines[5] == "     0      3  ╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌ 0/4        -     -      3k       -"
    assert lines[7] == "front of 1 network, best f1 first; * knee point"
    assert lines[9].split() == ["0*", "0.5000", "100", "7"]
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
    assert watch.growth == [0.25, 0.4]
    assert "hypervolume from 0.2500 ▁█ to 0.4000 over 2 trials" in watch.lines()


def test_each_worker_has_a_row_and_one_without_a_trial_says_so():
    watch = watched()
    for index in (0, 1, 2):
        watch.take({"event": "worker", "worker": index, "state": "alive", "pid": 7 + index})
    watch.take({"event": "trial", "number": 4, "worker": 1, "costs": {}, "epochs": 4, "summary": "8 blocks"})
    lines = watch.running_lines(Screen(160))
    assert [line.split()[:2] for line in lines[1:]] == [["0", "1"], ["0", "3"], ["1", "4"], ["worker", "2"]]
    assert lines[3].endswith("8 blocks")
    watch.take({"event": "worker", "state": "dead", "worker": 1, "code": -9})
    assert [line.split()[:2] for line in watch.running_lines(Screen())[1:]] == [["0", "1"], ["0", "3"], ["worker", "2"]]
    watch.take({"event": "stopping"})
    assert not any("worker 2" in line for line in watch.lines())
    assert watch.lines()[-1] == "ending: trials that run go back into the queue; Ctrl-C again ends at once"


def test_a_trial_that_goes_on_keeps_its_best_and_its_pace():
    watch = watched([START, {"event": "trial", "number": 1, "costs": {}, "epochs": 10}])
    watch.take({"event": "resumed", "number": 1, "epoch": 6})
    running = watch.running[1, 0]
    assert (running.left(), watch.last) == (None, "trial 1 goes on after epoch 6")
    running.since -= 10
    for epoch, f1 in ((7, 0.8), (8, 0.7)):
        watch.take({"event": "epoch", "number": 1, "epoch": epoch, "epochs": 10, "metrics": {"f1": f1, "loss": f1}})
    assert running.best == {"f1": 0.8, "loss": 0.7}
    assert running.left() == pytest.approx(10.0, abs=1.0), "two epochs took ten seconds since it was taken up"


@pytest.mark.parametrize("width", [40, 80, 160])
@pytest.mark.parametrize("height", [10, 24, 60])
@pytest.mark.parametrize("unicode", [True, False])
def test_the_whole_display_fits_any_window(width, height, unicode):
    values = {str(n): {"f1": n / 100, "params": 1e3 + n} for n in range(50)}
    watch = watched([{**START, "front": list(range(50)), "values": values, "growth": [n / 100 for n in range(50)]}])
    watch.title = "archtuna search, /a/very/long/path/to/the/folder/of/all/runs/of/the/project/photos"
    for index in range(9):
        watch.take({"event": "trial", "number": 60 + index, "worker": index, "costs": {"params": 1e6}, "epochs": 12})
    watch.take({"event": "failed", "number": 59, "reason": "nan: " + "the loss became nan " * 9})
    lines = watch.lines(Screen(width, height, unicode))
    assert len(lines) < height
    assert max(map(len, lines)) <= width
    assert unicode or "".join(lines).isascii()
    assert "photos" in lines[0]


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
    assert "     0  0 seed 1  ╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌ 0/4        -     -     100       -" in lines
    assert "     0  0 seed 2  ━━━━━━━━╌╌╌╌╌╌╌╌ 2/4   0.4100  0:00     100  0.4100" in lines
    watch.take(REPEATED)
    watch.take(FAILED)
    assert watch.running == {}
    assert "2 runs with other seeds" in watch.summary()
    assert watch.left() is None
    assert any(line.split() == ["0*", "0.4000", "100"] for line in watch.lines())
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
    assert watch.front_lines()[-1] == "and 18 more, between these: archtuna front runs/photos"


def test_without_a_terminal_events_are_lines():
    watch = watched()
    said = [line for event in EVENTS for line in plain_lines(watch, event)]
    end = {"event": "end", "reason": "trials"}
    watch.take(end)
    said += plain_lines(watch, end)
    assert said[0].startswith("a search: trials 1/10")
    assert "trial 2 refused: params 9 > 8" in said
    assert said[-1] == "ended (trials): trials 1/10, 1 refused, hypervolume 0.2500"


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ({"event": "waits", "number": 3, "reason": "the disk is full"}, "trial 3 waits: the disk is full"),
        ({"event": "taken-away", "number": 3, "from": "gpu-7:42", "state": "waiting"}, "trial 3 was taken from gpu-7:42, which gives no sign of life"),
        ({"event": "probe", "values": {"latency_ms": 3.14}}, "one of the first networks, not trained, takes latency_ms 3.14"),
    ],
)  # fmt: skip
def test_what_a_person_is_to_know_is_on_the_display_and_in_the_log(event, said):
    watch = watched([START])
    watch.take(event)
    assert watch.lines()[-1] == said
    assert list(plain_lines(watch, event)) == [said]


def test_a_trial_that_was_lost_runs_no_more():
    watch = watched()
    watch.take({"event": "lost", "number": 1})
    assert list(watch.running) == [(3, 0)]
