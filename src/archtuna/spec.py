"""What a study was made with, as plain data, and how two of them differ."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from archtuna import checkpoint
from archtuna.errors import StudyError
from archtuna.objective import Limit, Objective, limit_of, objective_of
from archtuna.recipe import PARAMETERS
from archtuna.schedule import Schedule
from archtuna.settings import DeploySettings, deploy_of

if TYPE_CHECKING:
    from archtuna.space import SearchSpace

FORMAT = 1

OPTIONAL: Mapping[str, Any] = {"stopping": None, "deploy": {}, "metrics": {}}
"""What a study may lack that was made before there was such a thing, and what it then has."""


@dataclass(frozen=True)
class Spec:
    """What a study was made with, as plain data.

    Attributes:
        space: the search file: ``text`` and ``key``.
        data: ``source``, ``fingerprint``, ``split``, ``classes``, ``fit``.
        training: training values given beside the file; the file's own are in the space.
        objectives: names, in order.
        limits: bounds on costs, as users write them.
        fraction: stratified share of the training pictures that the search trains on.
        input_size: given beside the file: (height, width), or None where the file has one.
        seed: of the search.
        reference: for each objective the ideal and the worst value that counts for the hypervolume.
        versions: of the libraries at the study's creation.
        stopping: the fields of its ``Schedule``; None in a study from before there was one, which stops nothing.
        deploy: values of ``DeploySettings`` that differ from the defaults.
        metrics: of one's own among the objectives: between which values each counts, what it means, and whose it is.
    """

    space: Mapping[str, str]
    data: Mapping[str, Any]
    training: Mapping[str, Any]
    objectives: tuple[str, ...]
    limits: tuple[str, ...]
    fraction: float
    input_size: tuple[int, int] | None
    seed: int | None
    reference: Mapping[str, tuple[float, float]]
    versions: Mapping[str, str]
    stopping: Mapping[str, Any] | None = None
    deploy: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def deployment(self) -> DeploySettings:
        """What networks are exported to, and how they are served."""
        return deploy_of(self.deploy)

    @property
    def measured(self) -> tuple[str, ...]:
        """Names of the objectives and limits that it takes an export, or a device, to know."""
        names = [*self.objectives, *(limit_of(text).name for text in self.limits)]
        return measured_among(names, self.deployment)

    @property
    def schedule(self) -> Schedule:
        """When trials are looked at, and whether any is stopped early."""
        return Schedule(off=True) if self.stopping is None else Schedule(**self.stopping)

    def to_dict(self) -> dict[str, Any]:
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return json.loads(json.dumps({"format": FORMAT, **plain}))

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Spec:
        """Read what ``to_dict`` returned.

        Raises:
            StudyError: the study is of a newer format, or damaged.
        """
        if plain.get("format", 0) > FORMAT:
            raise StudyError("the study was made by a newer archtuna", hint="pip install --upgrade archtuna")
        try:
            values = {f.name: plain[f.name] for f in fields(cls) if f.name not in OPTIONAL}
        except KeyError as error:
            raise StudyError(
                f"the study's record lacks {error}", hint="it is damaged: search anew with another --out"
            ) from None
        size = values["input_size"]
        values["input_size"] = None if size is None else (int(size[0]), int(size[1]))
        values["reference"] = {name: (pair[0], pair[1]) for name, pair in values["reference"].items()}
        values |= {name: plain.get(name, missing) for name, missing in OPTIONAL.items()}
        return cls(**{**values, "objectives": tuple(values["objectives"]), "limits": tuple(values["limits"])})

    def differences(self, other: Spec) -> list[str]:
        """Return one line for each thing that ``other`` was made with and this one was not."""
        lines = (
            []
            if self.space["key"] == other.space["key"]
            else _line_differences(self.space["text"], other.space["text"])
        )
        for name, mine, theirs in self._compared(other):
            if mine != theirs:
                lines.append(f"{name}: here {_word(mine)}, there {_word(theirs)}")
        return lines

    def _of_file(self, name: str) -> Any:
        """Return a training value as the search file has it; where that is a choice, only that it is the file's."""
        slot = space_of(replace(self, training={})).training.get(name)
        return PARAMETERS[name].default if slot is None else "the file's" if slot.choice else slot.value

    def _compared(self, other: Spec) -> Iterator[tuple[str, Any, Any]]:
        # The source may lie elsewhere on another machine, and the reference follows from the rest.
        for name in ("fingerprint", "split", "fit"):
            yield f"data.{name}", self.data.get(name), other.data.get(name)
        for name in sorted({*self.training, *other.training}):
            mine, theirs = (one.training[name] if name in one.training else one._of_file(name) for one in (self, other))
            yield f"training.{name}", mine, theirs
        for name, mine in asdict(self.deployment).items():
            yield f"deploy.{name}", mine, getattr(other.deployment, name)
        for name in ("objectives", "limits", "fraction", "input_size", "seed"):
            yield name, getattr(self, name), getattr(other, name)
        mine, theirs = ({n: [m["worst"], m["best"]] for n, m in one.metrics.items()} for one in (self, other))
        yield "metrics", mine, theirs
        if self.stopping is not None and other.stopping is not None:
            yield "stopping", str(self.schedule), str(other.schedule)


def _line_differences(mine: str, theirs: str) -> list[str]:
    """Return the lines in which two search files differ, at most eight."""
    lines: list[str] = []
    a, b = ([line.rstrip() for line in text.splitlines() if line.strip()] for text in (mine, theirs))
    for tag, a0, a1, b0, b1 in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        for i in range(max(a1 - a0, b1 - b0)):
            here, there = (
                x[k + i].strip() if k + i < end else "no such line" for x, k, end in ((a, a0, a1), (b, b0, b1))
            )
            lines.append(f"search file: here {here}, there {there}")
    rest = len(lines) - 8
    return [*lines[:8], f"search file: {rest} more lines"] if rest > 0 else lines or ["search file: another spelling"]


def _word(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(str(v) for v in value) or "none"
    return json.dumps(value, sort_keys=True) if isinstance(value, Mapping) else str(value)


def versions() -> dict[str, str]:
    """Return the versions that a study is made with."""
    found = checkpoint.versions()
    return {name: found.get(name, "unknown") for name in checkpoint.VERSIONED}


def check_versions(made: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """Return warnings about other versions than a study was made with.

    Raises:
        StudyError: Optuna's major version differs: such workers do not see each other's limits.
    """
    old, new = made.get("optuna", "unknown"), here.get("optuna", "unknown")
    if "unknown" not in (old, new) and old.split(".")[0] != new.split(".")[0]:
        raise StudyError(
            f"the study was made with optuna {old}, here is optuna {new}: they do not read each other's limits",
            hint=f"pip install 'optuna=={old}', or use another --out",
        )
    pairs = [(name, made[name], here[name]) for name in ("archtuna", "optuna") if name in made and name in here]
    return [f"the study was made with {name} {a}, here is {b}" for name, a, b in pairs if _minor(a) != _minor(b)]


def _minor(version: str) -> tuple[str, ...]:
    return tuple(version.split(".")[:2])


def reference_of(
    objectives: Sequence[Objective], classes: int, limits: Sequence[Limit], largest: Mapping[str, float]
) -> dict[str, tuple[float, float]]:
    """Return for each objective the ideal and the worst value that still counts for the hypervolume.

    Loss counts up to that of guessing, ``ln(classes)``; a cost up to its limit, else up to a tenth more than the largest that
    is known, so that a network of that cost counts, too. A cost that has neither, because it is not measured yet, is left out.
    """
    bounds = {limit.name: limit.bound for limit in limits}
    worst = {**{name: 1.1 * cost for name, cost in largest.items()}, **bounds, "loss": math.log(max(classes, 2))}
    found = {o.name: (o.best or 0.0, worst.get(o.name) if o.worst is None else o.worst) for o in objectives}
    return {name: (best, float(last)) for name, (best, last) in found.items() if last is not None}


def measured_among(names: Iterable[str], deploy: DeploySettings) -> tuple[str, ...]:
    """Return those of some costs that it takes an export to know, each once.

    The size of what is deployed counts among them; without a format it is that of the weights.
    """
    exported = deploy.format is not None or deploy.converts
    return tuple(dict.fromkeys(n for n in names if objective_of(n).is_measured or (n == "size_mb" and exported)))


def space_of(spec: Spec) -> SearchSpace:
    """Return the search space of a study."""
    from archtuna.space import SearchSpace

    # A text of one line would be taken for a path.
    space = SearchSpace.read(spec.space["text"] + "\n", input_size=spec.input_size)
    return space.with_training(spec.training)
