"""Samplers by name: ours, and Optuna's, each as it serves a search of several objectives best."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from archtuna.errors import StudyError, nearest
from archtuna.known_costs import Curve, KnownCostSampler, Network, Point

SAMPLERS: Mapping[str, str] = {
    "tpe": "TPESampler", "nsga2": "NSGAIISampler", "nsga3": "NSGAIIISampler", "random": "RandomSampler",
    "gp": "GPSampler", "qmc": "QMCSampler", "cmaes": "CmaEsSampler",
}  # fmt: skip
"""Optuna's samplers by the names that files and the command line use."""

OURS = "known-costs"


def make_sampler(
    sampler: str | BaseSampler | None,
    *,
    objectives: int,
    seed: int | None,
    network: Network | None = None,
    reference: Sequence[tuple[float, float]] | None = None,
    curve: Callable[[FrozenTrial], Curve] = lambda trial: (),
    failed: Callable[[FrozenTrial], bool] = lambda trial: False,
) -> BaseSampler:
    """Return a sampler.

    Args:
        sampler: ``known-costs``, a name of ``SAMPLERS``, an Optuna sampler, which is returned as it is, or None for
            ``known-costs``.
        objectives: how many the study has.
        seed: of its draws; see ``seed_of``.
        network: what ``known-costs`` asks of the space; without it the sampler is made, and proposes nothing.
        reference: for each objective the ideal and the worst value that counts.
        curve: what a trial came to at its rungs.
        failed: whether a trial's network could not be trained.

    Raises:
        StudyError: an unknown name, or a sampler that cannot do several objectives or needs a package that is missing.
    """
    if isinstance(sampler, BaseSampler):
        return sampler
    name = OURS if sampler is None else str(sampler).lower()
    if name == OURS:
        nothing: Network = lambda pick: Point(None, feasible=False)  # noqa: E731
        return KnownCostSampler(network or nothing, reference=reference, seed=seed, curve=curve, failed=failed)
    if name not in SAMPLERS:
        names = (OURS, *SAMPLERS)
        raise StudyError(f"unknown sampler '{sampler}'", hint=nearest(name, names) or f"known: {', '.join(names)}")
    if name == "cmaes" and objectives > 1:
        raise StudyError("the sampler cmaes knows one objective only", hint="use known-costs, tpe, nsga2 or gp")
    options: dict[str, Any] = {"seed": seed}
    if name == "tpe":
        options |= {"multivariate": True, "constant_liar": True, "warn_independent_sampling": False}
    elif name in ("gp", "qmc", "cmaes"):
        options |= {"warn_independent_sampling": False}
    with warnings.catch_warnings():
        # Optuna marks samplers as experimental, and the switch that quiets its advice on conditional choices as old.
        for category in (optuna.exceptions.ExperimentalWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        try:
            return getattr(optuna.samplers, SAMPLERS[name])(**options)
        except ImportError as error:
            missing = error.name or str(error)
    raise StudyError(f"the sampler {name} needs a package that is missing: {missing}", hint=f"pip install {missing}")


def seed_of(seed: int | None, worker: int, started: int) -> int | None:
    """Return the seed of one worker's draws: another for each worker and each time that a study goes on."""
    if seed is None:
        return None
    return int.from_bytes(hashlib.sha256(f"{seed}:{worker}:{started}".encode()).digest()[:4], "big") % 2**31
