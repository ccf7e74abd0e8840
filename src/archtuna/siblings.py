"""What other studies of the same storage have found out already: a network is not trained again in the same way.

A trial's metrics hold for another study where everything that they follow from is the same: the pictures, their split and
the part that is trained on, how pictures are prepared, the network, the training values, who evaluates, and the quality by
which the epoch is chosen. Limits, costs and the rest of the objectives may differ: they follow from the network.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from archtuna.artifacts import Artifacts
from archtuna.checkpoint import read_header
from archtuna.claims import evaluation_in
from archtuna.errors import ArchtunaError
from archtuna.evaluate import FLOAT, Evaluator, FunctionEvaluator, Progress, TrainEvaluator
from archtuna.files import Place, place_of, read_bytes, write_atomically
from archtuna.ledger import result_of, state_of
from archtuna.objective import kind_of
from archtuna.space import Candidate
from archtuna.spec import Spec, space_of
from archtuna.storage import Attr

if TYPE_CHECKING:
    from archtuna.study import Study

log = logging.getLogger("archtuna")

TRAINING = "training"
"""The name of archtuna's own training among evaluators."""


@dataclass(frozen=True)
class Found:
    """A network that another study has evaluated.

    Attributes:
        study: the other study's name.
        number: of the trial there.
        result: what its evaluation gave; see ``ledger.result_of``.
        checkpoints: where its weights may be.
    """

    study: str
    number: int
    result: Mapping[str, Any]
    checkpoints: tuple[Place, ...] = ()

    @property
    def origin(self) -> dict[str, Any]:
        return {"study": self.study, "number": self.number}

    def progress(self, candidate: Candidate) -> Progress:
        """Return the end of the evaluation as if it had been ours; ``save`` copies the other study's checkpoint."""
        metrics, epochs = dict(self.result["metrics"]), self.result["epochs"]
        path = next((path for path in self.checkpoints if _is_of(path, candidate, metrics)), None)
        return Progress(
            epoch=epochs.get("trained", 0),
            epochs=epochs.get("trained", 0),
            metrics=metrics,
            kept=epochs.get("kept", 0),
            best=metrics,
            seconds=self.result["seconds"] or 0.0,
            save=None if path is None else partial(_copy, path),
        )


def _is_of(path: Place, candidate: Candidate, metrics: Mapping[str, float]) -> bool:
    """Return whether a checkpoint has a candidate's weights: folders are used again, for other studies."""
    try:
        header = read_header(path)
    except ArchtunaError:
        return False
    own = {name.removeprefix(FLOAT): value for name, value in metrics.items() if name.startswith(FLOAT)} or metrics
    same_training = header.recipe == candidate.recipe.to_dict() and header.metrics == own
    return same_training and header.architecture == candidate.architecture


def _copy(source: Place, path: Place, note: Mapping[str, Any]) -> None:
    """Copy a checkpoint as it is; its note names the trial in which the weights were made."""
    write_atomically(path, read_bytes(source))


# --- which studies -----------------------------------------------------------------------------------


def name_of(evaluator: Evaluator) -> str | None:
    """Return what names an evaluator in any process, or None for one that only this process knows for certain."""
    if type(evaluator) is TrainEvaluator:
        return TRAINING
    function = evaluator.function if type(evaluator) is FunctionEvaluator else None
    name = f"{getattr(function, '__module__', None)}:{getattr(function, '__qualname__', '<none>')}"
    return None if "<" in name or "__main__" in name else name


def is_comparable(mine: Spec, other: Spec) -> bool:
    """Return whether what one study measured may stand in another, should network, training and evaluator be the same."""
    same = mine.fraction == other.fraction and _first_quality(mine) == _first_quality(other)
    same = same and mine.deployment.precision == other.deployment.precision
    same = same and all(mine.data.get(name) == other.data.get(name) for name in ("fingerprint", "split", "fit"))
    # The seed chooses the part that is trained on, and small pictures are derived from the largest in play.
    return same and (mine.fraction == 1.0 or (mine.seed or 0) == (other.seed or 0)) and _via(mine) == _via(other)


def _first_quality(spec: Spec) -> tuple[str, Mapping[str, Any] | None]:
    """Return the name of the first quality, and what the study says of it where it is a metric of one's own."""
    return next((n, spec.metrics.get(n)) for n in spec.objectives if n in spec.metrics or kind_of(n) == "quality")


def _via(spec: Spec) -> tuple[int, int] | None:
    try:
        return space_of(spec).largest_input_size()
    except ArchtunaError:
        return None  # A space with blocks that this process does not have.


def register(study: Study, evaluator: Evaluator) -> None:
    """Note with a study who evaluates its networks and where its run is, for other studies to know."""
    _note(study, Attr.EVALUATORS, name_of(evaluator))
    register_folder(study)


def register_folder(study: Study) -> None:
    """Note with a study where its run is, for other studies and workers of other machines to know."""
    _note(study, Attr.FOLDERS, str(study.folder.resolve()))


def _note(study: Study, key: str, value: str | None) -> None:
    noted = study.optuna.user_attrs.get(key, [])
    if value not in noted:
        study.optuna.set_user_attr(key, [*noted, value])


def found_elsewhere(study: Study, evaluator: Evaluator) -> dict[str, Found]:
    """Return what other studies of a study's storage have found, by evaluation, where it holds for this one, too.

    Only the trials of studies that are comparable are read.
    """
    storage, name = study.optuna._storage, name_of(evaluator)
    found: dict[str, Found] = {}
    if name is None:
        return {}
    for other in storage.get_all_studies():
        if other._study_id == study.optuna._study_id or other.user_attrs.get(Attr.EVALUATORS) != [name]:
            continue
        if not is_comparable(study.spec, Spec.from_dict(other.user_attrs[Attr.SPEC])):
            continue
        runs = _runs_of(other.user_attrs)
        for trial in storage.get_all_trials(other._study_id, deepcopy=False, states=(TrialState.COMPLETE,)):
            # Some samplers know a stopped trial as a complete one.
            if state_of(trial) == "complete" and _has_all(trial, study):
                paths = tuple(run.weights(trial.number) for run in runs)
                one = Found(other.study_name, trial.number, result_of(trial), paths)
                found.setdefault(evaluation_in(trial.user_attrs) or "", one)
    if found:
        log.info("%d networks that other studies of the storage have evaluated will not be trained again", len(found))
    return found


def _runs_of(attrs: Mapping[str, Any]) -> list[Artifacts]:
    """Return where a study's weights may be, as far as this process can look there."""
    named = [attrs[Attr.ARTIFACTS]] if attrs.get(Attr.ARTIFACTS) else attrs.get(Attr.FOLDERS, ())
    with contextlib.suppress(ArchtunaError):
        return [Artifacts(place_of(name)) for name in named]
    return []


def _has_all(trial: FrozenTrial, study: Study) -> bool:
    """Return whether a trial of another study says every quality that this one asks for."""
    metrics = result_of(trial)["metrics"]
    wanted = (o.name for o in study.objectives if o.kind == "quality")
    return Attr.EVALUATION in trial.user_attrs and all(name in metrics for name in wanted)
