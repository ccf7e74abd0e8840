"""Which decisions made a difference, for each objective: permutation importance on trials that a forest has not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

FEWEST = 12
"""Complete trials below which nothing is said."""

FOLDS, TREES, SHUFFLES = 4, 50, 5
MOST = 1_000
"""Trials that forests are grown from, at most, and drawn at random where there are more."""

ABSENT = -1.0
"""Code of a decision that a network was not asked for."""


def importances(decisions: Sequence[Mapping[str, Any]], values: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """Return what each decision says of each objective, over folds of trials that the forest was not grown from.

    The importance is by how much the share of explained variance falls when the decision's values are shuffled among trials
    (Breiman 2001, section 10; held-out folds, so that nothing counts which was learnt by heart). Decisions that go together
    share theirs.

    Args:
        decisions: of each complete trial, value by name.
        values: of each objective, one a trial.

    Returns:
        for each objective ``objective``, ``explained`` (share of the variance of unseen trials that the forest explains, below
        0 where it is worse than the mean) and ``decisions``, a list of ``name``, ``importance`` and ``deviation`` over the
        folds, most important first. Empty where there are fewer than 12 trials, or there is nothing to decide.
    """
    if len(decisions) < FEWEST:
        return []
    names = sorted({name for one in decisions for name in one})
    rows = np.array([[_code(one.get(name), name, decisions) for name in names] for one in decisions]).reshape(
        -1, len(names)
    )
    varied = [i for i in range(len(names)) if np.ptp(rows[:, i]) > 0]
    if not varied:
        return []
    chosen = np.sort(np.random.default_rng(0).permutation(len(rows))[:MOST])
    rows, names = rows[chosen][:, varied], [names[i] for i in varied]
    return [_of(name, rows, np.asarray(given, float)[chosen], names) for name, given in values.items()]


def _of(objective: str, rows: np.ndarray, values: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.model_selection import KFold

    explained, found = [], []
    scale = float(values.var()) or 1.0
    for train, test in KFold(FOLDS, shuffle=True, random_state=0).split(rows):
        forest = RandomForestRegressor(TREES, random_state=0).fit(rows[train], values[train])
        told = forest.predict(np.vstack([rows[test], _shuffled(rows[test])])).reshape(-1, len(test))
        errors = ((told - values[test]) ** 2).mean(axis=1) / scale
        explained.append(1.0 - errors[0])
        found.append((errors[1:] - errors[0]).reshape(len(names), SHUFFLES).mean(axis=1))
    mean, deviation = np.mean(found, axis=0), np.std(found, axis=0, ddof=1)
    order = np.argsort(-mean, kind="stable")
    told = [{"name": names[i], "importance": float(mean[i]), "deviation": float(deviation[i])} for i in order]
    return {"objective": objective, "explained": float(np.mean(explained)), "decisions": told}


def _shuffled(rows: np.ndarray) -> np.ndarray:
    """Return copies of rows, some for each column, in which that one is shuffled."""
    draws, count = np.random.default_rng(0), rows.shape[1]
    copies = np.tile(rows, (count * SHUFFLES, 1, 1))
    for i, copy in enumerate(copies):
        copy[:, i // SHUFFLES] = draws.permutation(copy[:, i // SHUFFLES])
    return copies.reshape(-1, count)


def _code(value: Any, name: str, decisions: Sequence[Mapping[str, Any]]) -> float:
    """Return a decision's value as a number: itself, or its place among the words that there are."""
    if value is None:
        return ABSENT
    if isinstance(value, bool | int | float):
        return float(value)
    return float(sorted({str(one[name]) for one in decisions if name in one}).index(str(value)))
