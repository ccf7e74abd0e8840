"""Studies that tests fill by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from optuna.trial import TrialState, create_trial

from archtuna.repeats import Repeats, Wanted, conditions_of
from archtuna.space import SearchSpace
from archtuna.spec import Spec, versions
from archtuna.storage import Attr
from archtuna.study import Study
from searches import SPACE


def make_spec(**changes: Any) -> Spec:
    space = SearchSpace.read(SPACE)
    spec = Spec(
        space={"text": space.text, "key": space.key},
        data={"source": "digits", "fingerprint": "f" * 16, "split": {"seed": 0}, "classes": 3, "fit": "resize"},
        training={"epochs": 2},
        objectives=("f1", "params"),
        limits=("params <= 5000",),
        fraction=1.0,
        input_size=None,
        seed=0,
        reference={"f1": (1.0, 0.0), "params": (0.0, 5000.0)},
        versions=versions(),
    )
    return replace(spec, **changes)


def add(study: Study, f1: float | None, params: float, state: TrialState = TrialState.COMPLETE, **attrs: Any) -> int:
    number = len(study.optuna.trials)
    candidate = study.space().candidate({"backbone.0.kernel": (1, 3, 5)[number % 3]})
    kept = {
        Attr.KEY: f"{number:016x}", Attr.COSTS: {"params": params}, Attr.METRICS: {"f1": f1},
        Attr.ARCHITECTURE: json.dumps(candidate.architecture.to_dict()),
    }  # fmt: skip
    values = [f1, params] if state == TrialState.COMPLETE else None
    bound = {"params": params / 5000 - 1}
    study.optuna.add_trial(create_trial(state=state, values=values, user_attrs={**kept, **attrs}, constraints=bound))
    return number


def repeat(study: Study, number: int, *values: float | None, conditions: str | None = None) -> None:
    """Record runs of a trial with the seeds from 1, or failures where there is no value."""
    repeats, trial = Repeats(study.optuna), study.candidate(number)
    given = conditions or conditions_of(study.spec, trial.key, trial.recipe)
    for seed, f1 in enumerate(values, 1):
        lease = repeats.claim(Wanted(number, seed, given), {"host": "here", "pid": 1, "started": 0.0}, 60.0)
        assert lease is not None
        claim = lease.number
        if f1 is None:
            repeats.fail(claim, "nan: the loss became nan")
        else:
            repeats.complete(claim, [f1, trial.values["params"]], {Attr.METRICS: {"f1": f1}, Attr.SECONDS: 1.0})
