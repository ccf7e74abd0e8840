"""A trial that is drawn before it exists, so that it can be created whole.

Optuna writes each parameter as it is suggested, in a transaction of its own, and its samplers read the study anew for
each. Here a sampler draws for a trial that is in memory only, in a study whose trials were read once before. What it
notes on the trial (NSGA-II its generation, say) is kept, to be written with the rest.
"""

from __future__ import annotations

import copy
from collections.abc import Container, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

NO_TRIAL = -1
"""The identity of a trial that is in memory only; databases count from 0."""


class _DraftStorage:
    """The storage as a sampler sees it: with the draft among the trials that were read before; all else is passed on."""

    def __init__(self, study: optuna.Study, trials: Sequence[FrozenTrial], draft: FrozenTrial) -> None:
        self._behind, self._study_id, self._draft = study._storage, study._study_id, draft
        self._trials = [*trials[: draft.number], draft, *trials[draft.number + 1 :]]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._behind, name)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        if study_id != self._study_id:
            return self._behind.get_all_trials(study_id, deepcopy, states)
        found = [t for t in self._trials if t.state in states] if states is not None else list(self._trials)
        return copy.deepcopy(found) if deepcopy else found

    def get_n_trials(self, study_id: int, state: Any = None) -> int:
        states = (state,) if isinstance(state, TrialState) else state
        return len(self.get_all_trials(study_id, deepcopy=False, states=states))

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self._draft if trial_id == self._draft._trial_id else self._behind.get_trial(trial_id)

    def get_trial_params(self, trial_id: int) -> dict[str, Any]:
        return self.get_trial(trial_id).params

    def get_trial_user_attrs(self, trial_id: int) -> dict[str, Any]:
        return self.get_trial(trial_id).user_attrs

    def get_trial_system_attrs(self, trial_id: int) -> dict[str, Any]:
        return self.get_trial(trial_id).system_attrs

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        if trial_id != self._draft._trial_id:
            return self._behind.set_trial_user_attr(trial_id, key, value)
        self._draft.user_attrs[key] = value

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        if trial_id != self._draft._trial_id:
            return self._behind.set_trial_system_attr(trial_id, key, value)
        self._draft.system_attrs[key] = value


class Draft:
    """A trial in memory for which a study's sampler draws; nothing of it is written.

    Args:
        study: Optuna's, with its sampler.
        trials: the study's, as they were read.
        present: the trial in the study for which is drawn, or None for the one that would be created next.
    """

    def __init__(self, study: optuna.Study, trials: Sequence[FrozenTrial], present: FrozenTrial | None = None) -> None:
        self.sampler = study.sampler
        self.trial = _copy_of(present) if present is not None else _next_trial(len(trials))
        self._given = dict(self.trial.params), dict(self.trial.distributions)
        self._before = dict(self.trial.system_attrs)
        self.study = copy.copy(study)
        self.study._storage = _DraftStorage(study, trials, self.trial)  # type: ignore[assignment]
        self._space: dict[str, BaseDistribution] | None = None
        self.sampler.before_trial(self.study, self.trial)

    def relative(self) -> dict[str, Any]:
        """Return the parameters that the sampler draws together; others with each call."""
        self.trial._params, self.trial._distributions = (dict(given) for given in self._given)
        if self._space is None:
            self._space = self.sampler.infer_relative_search_space(self.study, self.trial)
        return self.sampler.sample_relative(self.study, self.trial, self._space)

    def independent(self, name: str, distribution: BaseDistribution) -> Any:
        """Return a parameter that the sampler draws on its own."""
        return self.sampler.sample_independent(self.study, self.trial, name, distribution)

    def remember(self, name: str, value: Any, distribution: BaseDistribution) -> None:
        """Let the trial have a parameter, for samplers that look at what they drew before."""
        self.trial.params[name], self.trial.distributions[name] = value, distribution

    @property
    def notes(self) -> Mapping[str, Any]:
        """What the sampler noted on the trial, as system attributes.

        TPE and GP note what they drew together, for others to see while a trial is written parameter by parameter; a trial
        that is written at once says it by itself.
        """
        attrs, before = self.trial.system_attrs, self._before
        return {k: v for k, v in attrs.items() if before.get(k) != v and ":relative_params:" not in k}


def _next_trial(number: int) -> FrozenTrial:
    trial = optuna.trial.create_trial(state=TrialState.RUNNING)
    trial.number, trial._trial_id = number, NO_TRIAL
    return trial


def _copy_of(trial: FrozenTrial) -> FrozenTrial:
    mine = copy.copy(trial)
    mine._params, mine._distributions = dict(trial.params), dict(trial.distributions)
    mine.user_attrs, mine.system_attrs = dict(trial.user_attrs), dict(trial.system_attrs)
    return mine
