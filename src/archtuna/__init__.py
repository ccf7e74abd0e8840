"""A YAML model file in, a Pareto front of trained, deployable PyTorch image classifiers out.

    import archtuna as at

    study = at.search("mobilenet.yaml", data="photos/", objectives=["f1", "params"], trials=50)
    for trial in study.front():
        print(trial.number, trial.values)
    model = at.load("runs/photos/checkpoints/17.safetensors")

Names are imported when they are first used, so that ``import archtuna`` loads neither torch nor optuna.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archtuna.architecture import Architecture, Row
    from archtuna.checkpoint import load
    from archtuna.costs import costs_of
    from archtuna.data import Data
    from archtuna.driver import search
    from archtuna.errors import ArchtunaError
    from archtuna.exports import export
    from archtuna.model import build
    from archtuna.own_metrics import metric
    from archtuna.recipe import Recipe
    from archtuna.registry import block
    from archtuna.schedule import Schedule
    from archtuna.space import Candidate, SearchSpace
    from archtuna.study import Study
    from archtuna.training import train

__version__ = "0.1.0"

_HOMES = {
    "Architecture": "architecture",
    "ArchtunaError": "errors",
    "Candidate": "space",
    "Data": "data",
    "Recipe": "recipe",
    "Row": "architecture",
    "Schedule": "schedule",
    "SearchSpace": "space",
    "Study": "study",
    "block": "registry",
    "build": "model",
    "costs_of": "costs",
    "export": "exports",
    "load": "checkpoint",
    "metric": "own_metrics",
    "search": "driver",
    "train": "training",
}

__all__ = [
    "Architecture",
    "ArchtunaError",
    "Candidate",
    "Data",
    "Recipe",
    "Row",
    "Schedule",
    "SearchSpace",
    "Study",
    "block",
    "build",
    "costs_of",
    "export",
    "load",
    "metric",
    "search",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'archtuna' has no attribute '{name}'")
    value = getattr(import_module(f"archtuna.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
