from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archtuna.repeats import SUFFIX, Repeats, Run, Wanted, conditions_of, deaths, holder, read_runs, results, samples
from archtuna.storage import Attr, close_storage, open_storage
from crowds import at_once
from postgres import Server, server  # noqa: F401
from studies import make_spec

ME, YOU = ({"host": "here", "pid": pid, "started": 1.0} for pid in (1, 2))


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    storage = open_storage(None, tmp_path)
    return optuna.create_study(storage=storage, study_name="photos", directions=["maximize", "minimize"])


def run(claim: int, state: Any, wanted: Wanted | None = None, metrics: Any = None, died: bool = False) -> Run:
    return Run(claim, wanted or Wanted(0, 1, "c"), state, metrics or {}, None, died, None, None)


# decisions


def test_the_first_result_holds_a_run_else_the_first_that_runs() -> None:
    claims = [run(0, "over"), run(1, "running"), run(2, "running"), run(3, "failed"), run(4, "complete")]
    assert [holder(claims[:n]) for n in (0, 1)] == [None, None]
    assert [held.claim for n in (2, 3, 4, 5) if (held := holder(claims[:n]))] == [1, 1, 3, 4]


@given(
    st.permutations(range(6)),
    st.lists(st.sampled_from(["over", "running", "failed", "complete"]), min_size=6, max_size=6),
)
def test_who_holds_a_run_does_not_depend_on_the_order_of_reading(order: list[int], states: list[str]) -> None:
    claims = [run(i, state) for i, state in enumerate(states)]
    assert holder([claims[i] for i in order]) == holder(claims)


def test_results_are_those_that_hold_their_run() -> None:
    first, second, other = Wanted(7, 1, "c"), Wanted(7, 2, "c"), Wanted(3, 1, "c")
    claims = [run(0, "over", first), run(1, "complete", second), run(2, "failed", first), run(3, "running", other)]
    assert {number: [one.claim for one in runs] for number, runs in results(claims).items()} == {7: [2, 1]}


def test_samples_are_of_complete_runs_and_of_what_all_of_them_measured() -> None:
    runs = [
        run(0, "complete", metrics={"f1": 0.5, "loss": 1.0}),
        run(1, "failed"),
        run(2, "complete", metrics={"f1": 0.7}),
    ]
    assert samples(runs, ("f1", "loss", "params")) == {"f1": [0.5, 0.7]}
    assert samples(runs[1:2], ("f1",)) == {}


def test_conditions_tell_studies_of_one_name_apart() -> None:
    spec = make_spec()
    same = conditions_of(make_spec(versions={}), "k", {"seed": 0})
    assert conditions_of(spec, "k", {"seed": 0}) == same
    others = [conditions_of(spec, "l", {"seed": 0}), conditions_of(spec, "k", {"seed": 1})]
    others += [
        conditions_of(make_spec(fraction=0.5), "k", {"seed": 0}),
        conditions_of(make_spec(seed=1), "k", {"seed": 0}),
    ]
    others += [conditions_of(make_spec(data={**spec.data, "fingerprint": "0"}), "k", {"seed": 0})]
    assert len({same, *others}) == 6


# the study of repeats


def test_nothing_is_there_before_the_first_claim(study: optuna.Study) -> None:
    assert read_runs(study._storage, "photos") == []
    assert optuna.get_all_study_names(study._storage) == ["photos"]


def test_a_run_is_claimed_once_and_recorded(study: optuna.Study) -> None:
    repeats, wanted = Repeats(study), Wanted(7, 1, "c")
    lease = repeats.claim(wanted, ME, 60.0)
    assert lease is not None
    claim = lease.number
    assert claim == 0
    assert Repeats(study).claim(wanted, YOU, 60.0) is None
    other = repeats.claim(Wanted(7, 2, "c"), YOU, 60.0)
    assert other is not None
    assert other.number == 2
    repeats.complete(claim, [0.5, 100.0], {Attr.METRICS: {"f1": 0.5}, Attr.SECONDS: 2.0})
    repeats.complete(claim, [0.6, 100.0], {Attr.METRICS: {"f1": 0.6}})
    assert repeats.claim(wanted, ME, 60.0) is None
    found = read_runs(study._storage, "photos")
    assert [(one.wanted.seed, one.state) for one in found] == [
        (1, "complete"), (1, "over"), (2, "running"), (1, "over"),
    ]  # fmt: skip
    assert (found[0].metrics, found[0].seconds, found[0].worker, found[0].died) == (
        {"f1": 0.5}, 2.0, {**ME, "take": 1}, False,
    )  # fmt: skip
    trial = optuna.load_study(study_name="photos" + SUFFIX, storage=study._storage).trials[0]
    assert trial.values == [0.5, 100.0], "a dashboard shows what a run gave"


def test_claims_of_the_dead_and_of_ones_own_past_end(study: optuna.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    repeats, wanted = Repeats(study), Wanted(7, 1, "c")
    repeats.claim(wanted, YOU, 60.0)
    repeats.claim(Wanted(7, 2, "c"), ME, 60.0)
    monkeypatch.setattr("archtuna.repeats.is_dead", lambda worker: False)
    repeats.end_those_of_the_dead({"host": "another"})
    assert repeats.claim(wanted, ME, 60.0) is None
    monkeypatch.setattr("archtuna.repeats.is_dead", lambda worker: worker == {**YOU, "take": 1})
    repeats.end_those_of_the_dead(ME)
    assert deaths(repeats.runs(), wanted) == 1
    assert deaths(repeats.runs(), Wanted(7, 2, "c")) == 0
    assert repeats.claim(wanted, ME, 60.0) is not None
    assert repeats.claim(Wanted(7, 2, "c"), ME, 60.0) is not None


def test_a_network_that_cannot_be_trained_with_a_seed_is_not_tried_again(study: optuna.Study) -> None:
    repeats, wanted = Repeats(study), Wanted(7, 1, "c")
    claim = repeats.claim(wanted, ME, 60.0)
    assert claim is not None
    repeats.fail(claim.number, "nan: the loss became nan")
    assert repeats.claim(wanted, YOU, 60.0) is None
    assert results(repeats.runs())[7][0].reason == "nan: the loss became nan"


def claim_all(folder: Path, url: str | None, wanted: list[Wanted], threads: int) -> Counter[Wanted]:
    """Let several workers want the same runs at once, and count who got each."""
    got: list[Wanted] = []

    def ready(study: optuna.Study, pid: int) -> Callable[[], None]:
        repeats = Repeats(study)

        def act() -> None:
            for one in wanted:
                if repeats.claim(one, {**ME, "pid": pid}, 60.0) is not None:
                    got.append(one)

        return act

    at_once(threads, folder, url, ready)
    return Counter(got)


def test_of_several_workers_at_once_exactly_one_gets_a_run(study: optuna.Study, tmp_path: Path) -> None:
    wanted = [Wanted(number, seed, "c") for number in range(3) for seed in (1, 2)]
    assert claim_all(tmp_path, None, wanted, 4) == Counter(wanted)


@pytest.mark.slow
def test_exactly_one_gets_a_run_in_postgresql(server: Server, tmp_path: Path) -> None:  # noqa: F811
    wanted = [Wanted(number, seed, "c") for number in range(3) for seed in (1, 2)]
    storage = open_storage(server.url(), tmp_path)
    optuna.create_study(storage=storage, study_name="photos", directions=["maximize", "minimize"])
    close_storage(storage)
    assert claim_all(tmp_path, server.url(), wanted, 4) == Counter(wanted)
