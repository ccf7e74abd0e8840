"""Optuna's storage in a relational database, with fewer statements for what a search does most.

Optuna's own sends two statements for each parameter of a trial that comes whole, and builds objects of all rows that it
reads. Here a trial is one statement a table, and reading is one, too, in plain rows. The tables, and what stands in
them, are Optuna's: dashboards and Optuna itself read them, and this reads theirs.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    check_distribution_compatibility,
    distribution_to_json,
    json_to_distribution,
)
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import func, insert, or_, select
from sqlalchemy.orm import Session

TRIALS: Any = models.TrialModel.__table__
PARAMS: Any = models.TrialParamModel.__table__
VALUES: Any = models.TrialValueModel.__table__
USER_ATTRS: Any = models.TrialUserAttributeModel.__table__
SYSTEM_ATTRS: Any = models.TrialSystemAttributeModel.__table__
STEPS: Any = models.TrialIntermediateValueModel.__table__

TRIAL_COLUMNS = [TRIALS.c[name] for name in ("trial_id", "number", "state", "datetime_start", "datetime_complete")]
BELONGINGS = [
    [table.c[name] for name in ("trial_id", *names)]
    for table, names in (
        (PARAMS, ("param_name", "param_value", "distribution_json")),
        (VALUES, ("objective", "value", "value_type")),
        (USER_ATTRS, ("key", "value_json")),
        (SYSTEM_ATTRS, ("key", "value_json")),
        (STEPS, ("step", "intermediate_value", "intermediate_value_type")),
    )
]

IDENTITIES = 500
"""How many identities a statement names one by one; more are read with all of the study."""

READING = "archtuna_reading"
"""The option of connections that will not write."""

# Read for every parameter of every trial, and few different ones.
_distribution = lru_cache(maxsize=4096)(json_to_distribution)


class WholeTrials(RDBStorage):
    """Optuna's storage in a relational database, faster for trials that are created whole, and in reading."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._checked: dict[tuple[int, str], BaseDistribution] = {}

    # writing

    def _get_prepared_new_trial(self, study_id: int, template_trial: FrozenTrial | None, session: Session) -> Any:
        """Write a trial; the study's row is locked, so that its number is that of trials before it."""
        if template_trial is None:
            return super()._get_prepared_new_trial(study_id, template_trial, session)
        self._check_distributions(study_id, template_trial, session)
        count = select(func.count()).select_from(TRIALS).where(TRIALS.c.study_id == study_id)
        trial: Any = models.TrialModel(
            study_id=study_id,
            number=session.execute(count).scalar_one(),
            state=template_trial.state,
            datetime_start=template_trial.datetime_start,
            datetime_complete=template_trial.datetime_complete,
        )
        session.add(trial)
        session.flush()
        for table, rows in _rows_of(template_trial).items():
            _insert(session, table, trial.trial_id, rows)
        return trial

    def _check_distributions(self, study_id: int, trial: FrozenTrial, session: Session) -> None:
        """Refuse a parameter that has another distribution in this study; the study is asked once for each parameter."""
        for name, distribution in trial.distributions.items():
            known = self._checked.get((study_id, name))
            if known is None:
                first = (
                    select(PARAMS.c.distribution_json)
                    .join(TRIALS, TRIALS.c.trial_id == PARAMS.c.trial_id)
                    .where(TRIALS.c.study_id == study_id, PARAMS.c.param_name == name)
                    .limit(1)
                )
                text = session.execute(first).scalar()
                known = distribution if text is None else _distribution(text)
            if known is not distribution:
                check_distribution_compatibility(known, distribution)
            self._checked[study_id, name] = distribution

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        if values is None:
            return super().set_trial_state_values(trial_id, state)

        def updatable(before: TrialState, attrs: Mapping[str, Any]) -> bool:
            self.check_trial_is_updatable(trial_id, before)
            return True

        return self.change_trial(trial_id, updatable, state=state, values=values)

    def change_trial(
        self,
        trial_id: int,
        expected: Callable[[TrialState, Mapping[str, Any]], bool],
        *,
        looks_at: Sequence[str] = (),
        user_attrs: Mapping[str, Any] = {},
        system_attrs: Mapping[str, Any] = {},
        params: Mapping[str, tuple[Any, BaseDistribution]] = {},
        state: TrialState | None = None,
        values: Sequence[float] | None = None,
    ) -> bool:
        """Write to a trial, all at once, if it is as expected at that moment; return whether it was.

        Args:
            trial_id: of the trial, whose row is locked meanwhile.
            expected: told the trial's state and those of its user attributes that it looks at, by key.
            looks_at: keys of these.
            user_attrs, system_attrs: to be written.
            params: value and distribution of each parameter to be written; it must have none of these names.
            state: to be given to the trial, or None to keep it.
            values: of the objectives.
        """
        with _create_scoped_session(self.scoped_session) as session:
            trial: Any = models.TrialModel.find_or_raise_by_id(trial_id, session, for_update=True)
            asked = (USER_ATTRS.c.trial_id == trial_id) & USER_ATTRS.c.key.in_(list(looks_at))
            rows = session.execute(select(USER_ATTRS.c.key, USER_ATTRS.c.value_json).where(asked)) if looks_at else ()
            if not expected(trial.state, {key: json.loads(text) for key, text in rows}):
                return False
            for table, attrs in ((USER_ATTRS, user_attrs), (SYSTEM_ATTRS, system_attrs)):
                if attrs:
                    there = (table.c.trial_id == trial_id) & table.c.key.in_(list(attrs))
                    session.execute(table.delete().where(there))
                    _insert(session, table, trial_id, _attribute_rows(attrs))
            if params:
                born = create_trial(
                    state=TrialState.RUNNING,
                    params={name: value for name, (value, _) in params.items()},
                    distributions={name: distribution for name, (_, distribution) in params.items()},
                )
                self._check_distributions(trial.study_id, born, session)
                _insert(session, PARAMS, trial_id, _parameter_rows(born))
            if values is not None:
                session.execute(VALUES.delete().where(VALUES.c.trial_id == trial_id))
                _insert(session, VALUES, trial_id, _value_rows(values))
            if state is not None:
                trial.state = state
                if state == TrialState.RUNNING:
                    trial.datetime_start = datetime.now()
                if state.is_finished():
                    trial.datetime_complete = datetime.now()
        return True

    # reading

    def get_trial(self, trial_id: int) -> FrozenTrial:
        found = self._read(TRIALS.c.trial_id == trial_id)
        if not found:
            raise KeyError(models.NOT_FOUND_MSG)
        return found[0]

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        which = TRIALS.c.study_id == study_id
        if states is not None:
            assert isinstance(states, Iterable)
            which &= TRIALS.c.state.in_(list(states))
        old = sorted(trial_id for trial_id in included_trial_ids if trial_id <= trial_id_greater_than)
        if trial_id_greater_than > -1 and len(old) <= IDENTITIES:
            which &= or_(TRIALS.c.trial_id.in_(old), TRIALS.c.trial_id > trial_id_greater_than)
        found = self._read(which)
        if not found:
            self.get_study_directions(study_id)  # Raises KeyError where there is no such study.
        wanted = set(old)
        return [t for t in found if t._trial_id > trial_id_greater_than or t._trial_id in wanted]

    def running(self, study_id: int, keys: Sequence[str]) -> list[FrozenTrial]:
        """Return a study's running trials with those of their user attributes that are named, and nothing else.

        Workers look at each other's leases all the time, and the whole of a trial is some forty rows.
        """
        which = (TRIALS.c.study_id == study_id) & (TRIALS.c.state == TrialState.RUNNING)
        told = select(USER_ATTRS.c.trial_id, USER_ATTRS.c.key, USER_ATTRS.c.value_json)
        told = told.join(TRIALS, TRIALS.c.trial_id == USER_ATTRS.c.trial_id).where(
            which, USER_ATTRS.c.key.in_(list(keys))
        )
        attrs: dict[int, list[Any]] = defaultdict(list)
        with self.engine.connect().execution_options(**{READING: True}) as connection:
            trials = connection.execute(select(*TRIAL_COLUMNS).where(which).order_by(TRIALS.c.trial_id)).all()
            for trial_id, *row in connection.execute(told):
                attrs[trial_id].append(row)
        return [_trial_of(trial, (), (), attrs.get(trial[0], ()), (), ()) for trial in trials]

    def _read(self, which: Any) -> list[FrozenTrial]:
        """Return the trials that a condition on their table holds for, by identity, with all that belongs to them."""
        with self.engine.connect().execution_options(**{READING: True}) as connection:
            trials = connection.execute(select(*TRIAL_COLUMNS).where(which).order_by(TRIALS.c.trial_id)).all()
            found = [trial[0] for trial in trials]
            belongings = []
            for columns in BELONGINGS:
                owner = columns[0]
                query = select(*columns).order_by(*owner.table.primary_key.columns)
                if len(found) <= IDENTITIES:
                    query = query.where(owner.in_(found))
                else:
                    query = query.join(TRIALS, TRIALS.c.trial_id == owner).where(which)
                rows: dict[int, list[Any]] = defaultdict(list)
                for trial_id, *row in connection.execute(query) if found else ():
                    rows[trial_id].append(row)
                belongings.append(rows)
        return [_trial_of(trial, *(rows.get(trial[0], ()) for rows in belongings)) for trial in trials]


# --- rows and trials ---------------------------------------------------------------------------------


def _insert(session: Session, table: Any, trial_id: int, rows: Iterable[Mapping[str, Any]]) -> None:
    """Insert rows that belong to a trial, in one statement."""
    named = [{"trial_id": trial_id, **row} for row in rows]
    if named:
        session.execute(insert(table), named)


def _rows_of(trial: FrozenTrial) -> dict[Any, list[dict[str, Any]]]:
    """Return what belongs to a trial as rows of each table."""
    stored = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr
    steps = [
        dict(zip(("step", "intermediate_value", "intermediate_value_type"), (step, *stored(value)), strict=True))
        for step, value in trial.intermediate_values.items()
    ]
    return {
        PARAMS: _parameter_rows(trial),
        VALUES: _value_rows(trial.values or ()),
        USER_ATTRS: _attribute_rows(trial.user_attrs),
        SYSTEM_ATTRS: _attribute_rows(trial.system_attrs),
        STEPS: steps,
    }


def _parameter_rows(trial: FrozenTrial) -> list[dict[str, Any]]:
    return [
        {
            "param_name": name,
            "param_value": d.to_internal_repr(trial.params[name]),
            "distribution_json": distribution_to_json(d),
        }
        for name, d in trial.distributions.items()
    ]


def _attribute_rows(attrs: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value_json": json.dumps(value)} for key, value in attrs.items()]


def _value_rows(values: Sequence[float]) -> list[dict[str, Any]]:
    stored = map(models.TrialValueModel.value_to_stored_repr, values)
    return [{"objective": i, "value": value, "value_type": kind} for i, (value, kind) in enumerate(stored)]


def _trial_of(trial: Any, params: Any, values: Any, user_attrs: Any, system_attrs: Any, steps: Any) -> FrozenTrial:
    """Return the trial that rows say; of one that has no values they are None."""
    trial_id, number, state, begun, ended = trial
    distributions = {name: _distribution(text) for name, _, text in params}
    back = models.TrialValueModel.stored_repr_to_value
    told = {objective: back(value, kind) for objective, value, kind in values}
    step_back = models.TrialIntermediateValueModel.stored_repr_to_intermediate_value
    return FrozenTrial(
        number=number,
        state=state,
        value=None,
        values=[told[objective] for objective in sorted(told)] or None,
        datetime_start=_local(begun),
        datetime_complete=_local(ended),
        params={name: distributions[name].to_external_repr(value) for name, value, _ in params},
        distributions=distributions,
        user_attrs={key: json.loads(text) for key, text in user_attrs},
        system_attrs={key: json.loads(text) for key, text in system_attrs},
        intermediate_values={step: step_back(value, kind) for step, value, kind in steps},
        trial_id=trial_id,
    )


def _local(moment: datetime | None) -> datetime | None:
    """Return a moment of the database, in UTC, on the local clock, as Optuna's trials have it."""
    return None if moment is None else moment.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)
