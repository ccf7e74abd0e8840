from __future__ import annotations

import importlib.util
import logging
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState, create_trial

from archtuna.draft import NO_TRIAL, Draft
from archtuna.sampler import SAMPLERS, make_sampler

SPACE = {
    "a": FloatDistribution(0.0, 1.0),
    "b": IntDistribution(1, 9, step=2),
    "c": CategoricalDistribution(("x", "y", "z")),
}
MISSING = {"gp": "torch", "cmaes": "cmaes"}
"""What a sampler needs besides Optuna."""


def study_of(sampler: str | optuna.samplers.BaseSampler | None, objectives: int = 2) -> optuna.Study:
    made = make_sampler(sampler, objectives=objectives, seed=1)
    return optuna.create_study(directions=["minimize"] * objectives, sampler=made)


def values_of(params: dict[str, Any], objectives: int) -> list[float]:
    return [(params["a"] - 0.3) ** 2 + 0.1 * params["b"], params["a"] + ("xyz".index(params["c"]))][:objectives]


def fill(study: optuna.Study, times: int) -> None:
    """Do ``times`` trials as the engine does: draw in memory, create whole, tell."""
    for _ in range(times):
        draft = Draft(study, study.get_trials(deepcopy=False))
        params = draft_params(draft)
        study.add_trial(
            create_trial(
                state=TrialState.RUNNING, params=params, distributions=dict(SPACE), system_attrs=dict(draft.notes)
            )
        )
        study.tell(draft.trial.number, values_of(params, len(study.directions)))


def draft_params(draft: Draft) -> dict[str, Any]:
    given = draft.relative()
    for name, distribution in SPACE.items():
        value = given[name] if name in given else draft.independent(name, distribution)
        draft.remember(name, value, distribution)
    return dict(draft.trial.params)


def named(objectives: int) -> list[str]:
    return [name for name in SAMPLERS if objectives == 1 or name != "cmaes"]


def skip_without(name: str) -> None:
    if name in MISSING and importlib.util.find_spec(MISSING[name]) is None:
        pytest.skip(f"{MISSING[name]} is not installed")


@pytest.mark.parametrize("objectives", [1, 2])
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_draws_for_a_trial_that_does_not_exist(name: str, objectives: int) -> None:
    if name not in named(objectives):
        pytest.skip("one objective only")
    skip_without(name)
    study = study_of(name, objectives)
    fill(study, 14)
    before = study.get_trials()
    draft = Draft(study, study.get_trials(deepcopy=False))
    params = draft_params(draft)
    assert {n: SPACE[n]._contains(SPACE[n].to_internal_repr(v)) for n, v in params.items()} == dict.fromkeys(
        SPACE, True
    )
    assert (draft.trial.number, draft.trial._trial_id, draft.trial.state) == (14, NO_TRIAL, TrialState.RUNNING)
    assert study.get_trials() == before, "nothing of a draft is written"


COMPARED = {name: lambda name=name: name for name in ("random", "tpe", "nsga2", "nsga3")}
COMPARED["univariate tpe"] = lambda: optuna.samplers.TPESampler(seed=1, multivariate=False)


@pytest.mark.parametrize("name", COMPARED)
def test_a_draft_gets_what_a_trial_of_optunas_gets(name: str) -> None:
    """A sampler of the same seed draws the same for a draft as for a trial that exists."""
    ours, plain = (study_of(COMPARED[name]()) for _ in range(2))
    fill(ours, 25)
    for _ in range(25):
        trial = plain.ask()
        params = {n: trial._suggest(n, d) for n, d in SPACE.items()}
        plain.tell(trial, values_of(params, 2))
    assert [t.params for t in ours.trials] == [t.params for t in plain.trials]


def test_generations_reach_the_trial() -> None:
    study = study_of(optuna.samplers.NSGAIISampler(population_size=4, seed=0))
    fill(study, 12)
    key = "NSGAIISampler:generation"
    assert [t.system_attrs[key] for t in study.trials] == [0] * 4 + [1] * 4 + [2] * 4


def test_what_is_written_whole_needs_no_second_copy_of_its_parameters() -> None:
    study = study_of("tpe")
    fill(study, 15)
    draft = Draft(study, study.get_trials(deepcopy=False))
    draft_params(draft)
    assert any("relative_params" in key for key in draft.trial.system_attrs), "Optuna has another name for it now"
    assert draft.notes == {}


@pytest.mark.parametrize("name", ["tpe", "nsga2", "random"])
def test_a_draw_reads_no_trial(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_of(name)
    fill(study, 15)
    trials = study.get_trials(deepcopy=False)

    def read(*args: Any, **given: Any) -> Any:
        raise AssertionError("a read")

    for method in ("get_all_trials", "get_trial"):
        monkeypatch.setattr(InMemoryStorage, method, read)
    draft_params(Draft(study, trials))


def test_a_trial_that_exists_takes_its_own_place() -> None:
    study = study_of("tpe")
    fill(study, 12)
    study.enqueue_trial({"a": 0.5})
    present = study.trials[12]
    draft = Draft(study, study.get_trials(deepcopy=False), present)
    seen = draft.study.get_trials(deepcopy=False)
    assert seen[12] is draft.trial
    assert len(seen) == 13
    assert draft.study._storage.get_trial(present._trial_id) is draft.trial
    draft.study._storage.set_trial_system_attr(present._trial_id, "note", 1)
    assert draft.notes == {"note": 1}
    assert "note" not in study.trials[12].system_attrs


def test_what_is_not_the_drafts_is_passed_on(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    study = study_of("random")
    fill(study, 1)
    other = study._storage.create_new_trial(study._study_id)
    draft = Draft(study, study.get_trials(deepcopy=False))
    storage = draft.study._storage
    storage.set_trial_system_attr(other, "note", 1)
    storage.set_trial_user_attr(other, "word", 2)
    storage.set_trial_user_attr(NO_TRIAL, "mine", 3)
    assert (study.trials[1].system_attrs, study.trials[1].user_attrs) == ({"note": 1}, {"word": 2})
    assert storage.get_trial_user_attrs(NO_TRIAL) == {"mine": 3}
    assert storage.get_n_trials(study._study_id, TrialState.RUNNING) == 2
    assert storage.get_n_trials(study._study_id) == 3
    assert draft.study.user_attrs == {}
