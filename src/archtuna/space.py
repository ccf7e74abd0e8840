"""A search space: a model file with choices in it. A model file is a space with none.

``SearchSpace.resolve`` asks for each choice that matters, in the file's order, and returns a ``Candidate``: the network as
an ``Architecture`` and its training values as a ``Recipe``. A choice inside an alternative that was not taken is not asked.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from archtuna import document
from archtuna.architecture import PICTURE, Architecture, Row
from archtuna.choice import Choice, Pick, Slot, check, fixed, typed
from archtuna.errors import ShapeError, SpecError, nearest
from archtuna.kindle import Files
from archtuna.model import check_output, survey
from archtuna.modelfile import (
    CHANNELS,
    MULTIPLE,
    NETWORK_KEYS,
    SIZE,
    TRAINING,
    ModelFile,
    read_model_file,
    read_size,
    yaml_of,
)
from archtuna.recipe import Recipe
from archtuna.rows import Multiples
from archtuna.ways import both, total, ways_of
from archtuna.wiring import Builder

DEFAULT_INPUT_SIZE = 224
MOST_NETWORKS = 10**300
CLIMBED = 40_000
"""Rows that are resolved in looking for the smallest and the largest network; enough for every space that people write."""


@dataclass(frozen=True)
class Candidate:
    """One resolved point of a space.

    Attributes:
        architecture: the network.
        recipe: its training values.
        decisions: the value of every choice that was asked, by name, in order.
    """

    architecture: Architecture
    recipe: Recipe
    decisions: Mapping[str, Any]


class SearchSpace(ModelFile):
    """A model file with its choices, read and checked; its attributes are those of ``ModelFile``."""

    @classmethod
    def read(cls, source: str | Path | Mapping[str, Any] | SearchSpace, *, input_size: Any = None) -> SearchSpace:
        """Read a space from a file's path, from YAML text (of several lines) or from plain data.

        Args:
            source: what to read; a ``SearchSpace`` is returned as it is.
            input_size: side of the input in pixels, or (height, width), instead of the file's.

        Raises:
            SpecError: a mistake in the file, with file, line, path, value and hint.
        """
        if isinstance(source, SearchSpace):
            space = source
        elif isinstance(source, Mapping):
            space = cls._of(document.from_plain(source), yaml_of(source, indent=1), None)
        elif isinstance(source, str) and "\n" in source:
            space = cls._of(document.parse(source), source, None)
        else:
            text = document.text_of(source)
            space = cls._of(document.parse(text, file=str(source)), text, Path(source).parent)
        return space if input_size is None else space.with_input_size(input_size)

    @classmethod
    def _of(cls, top: document.Value, text: str, folder: Path | None) -> SearchSpace:
        return cls(**vars(read_model_file(top, text, Files(folder))))

    @property
    def key(self) -> str:
        """16 hexadecimal digits that name the space; comments, order and spelling of keys do not count."""
        kept = {k: v for k, v in self.plain.items() if k in NETWORK_KEYS or k in self.head}
        kept |= {name: str(slot) for name, slot in self._sizes().items()}
        if self.modules:
            kept["modules"] = {name: document.parse(text).plain() for name, text in self.modules.items()}
        return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()[:16]

    @property
    def choices(self) -> tuple[Choice, ...]:
        """Every choice in the file's order, conditional ones included, shared ones once."""
        found: dict[str, Choice] = {}
        for choice in (
            *self._head_choices(),
            *self.section.choices(),
            *self._training_choices(),
        ):
            found.setdefault(choice.name, choice)
        return tuple(found.values())

    def _head_choices(self) -> Iterator[Choice]:
        for given in self.head.values():
            for slot in given if isinstance(given, tuple) else (given,):
                if slot.choice:
                    yield slot.choice

    def _training_choices(self) -> Iterator[Choice]:
        return (slot.choice for slot in self.training.values() if slot.choice)

    @property
    def size(self) -> int:
        """How many ways the networks of the space can be decided on (training values and continuous ranges not counted).

        Not more than 10^300 is counted. Where ``from`` is a choice this is an upper bound: what a branch that was not taken
        would be is counted too. So it is where shared choices decide on more than can be followed.
        """
        asked = [*self._head_choices(), *self.section.choices()]
        times = Counter(choice.name for choice in asked)
        shared = [choice for choice in asked if times[choice.name] > 1]
        names = {choice.name for choice in shared}
        ways = both(ways_of(self._head_choices(), names), self.section.ways(names))
        return min(total(ways, shared), MOST_NETWORKS)

    @property
    def has_input_size(self) -> bool:
        """Whether the file, or the caller, says what the input's size is."""
        return "input_size" in self.head

    def input_sizes(self) -> tuple[tuple[int, int], ...]:
        """Every input size in play as (height, width)."""
        height, width = self._size_slots()

        def values(slot: Slot) -> tuple[int, ...]:
            return tuple(SIZE.coerce(v) for v in slot.values())

        if height is width:
            return tuple((side, side) for side in values(height))
        return tuple((h, w) for h in values(height) for w in values(width))

    def largest_input_size(self) -> tuple[int, int]:
        """The largest input size in play, to which pictures are decoded once; smaller ones are derived from it."""
        return max(self.input_sizes(), key=math.prod)

    def with_input_size(self, size: Any) -> SearchSpace:
        """Return this space with a fixed input size: a side in pixels, or (height, width).

        Raises:
            SpecError: the size is no whole number from 1 to 4096.
        """
        return replace(
            self, head={**self.head, "input_size": read_size(document.from_plain(size, path="input_size"), {})}
        )

    def with_training(self, values: Mapping[str, Any]) -> SearchSpace:
        """Return this space with fixed training values in place of the file's.

        Raises:
            SpecError: an unknown name or an impossible value.
        """
        slots = dict(self.training)
        for name, value in values.items():
            if name not in TRAINING:
                raise SpecError("unknown training value", path=f"training.{name}", hint=nearest(name, TRAINING))
            slots[name] = fixed(value, document.from_plain(value, path=f"training.{name}"))
            check(slots[name], TRAINING[name].coerce)
        return replace(self, training=slots)

    def resolve(self, pick: Pick) -> Candidate:
        """Return the candidate that a function's answers to the choices make; a choice is asked once.

        Raises:
            ShapeError: rows that do not fit each other, or no classifier at the end; the error names the row.
        """
        decisions: dict[str, Any] = {}

        def once(choice: Choice) -> Any:
            if choice.name not in decisions:
                decisions[choice.name] = pick(choice)
            return decisions[choice.name]

        # Training values are asked before rows can fail: samplers see every choice of a refused candidate.
        recipe = _recipe_of(tuple((name, *typed(slot.get(once))) for name, slot in self.training.items()))
        architecture = self._architecture(once)
        return Candidate(architecture, recipe, decisions)

    def _architecture(self, pick: Pick) -> Architecture:
        size = self._size_slots()
        height, width = (SIZE.coerce(slot.get(pick)) for slot in size)
        channels = CHANNELS.coerce(self._head_value("input_channel", pick))
        multiples = Multiples(
            MULTIPLE.coerce(self._head_value("depth_multiple", pick)),
            MULTIPLE.coerce(self._head_value("width_multiple", pick)),
        )
        builder = Builder((channels, height, width))
        end = self.section.emit(pick, multiples, builder)
        if builder.problem is not None:
            raise builder.problem
        rows = builder.rows
        if end == PICTURE:
            raise ShapeError("the network has no rows")
        if end != len(rows) - 1:
            rows.append(Row("Identity", inputs=(end,)))
        used = {row.module for row in rows}
        origins = {name: module for name, module in self.origins.items() if name in used}
        architecture = Architecture(tuple(rows), channels, (height, width), origins)
        try:
            check_output(architecture, output=builder.shape(end))
        except ShapeError as error:
            place = self.section.templates[-1].place
            raise ShapeError(str(place.error(error.message)), row=error.row, hint=error.hint) from None
        return architecture

    def _head_value(self, key: str, pick: Pick) -> Any:
        slot = self.head[key]
        assert isinstance(slot, Slot)
        return slot.get(pick)

    def _size_slots(self) -> tuple[Slot, Slot]:
        given = self.head.get("input_size")
        if given is None:
            default = fixed(DEFAULT_INPUT_SIZE, document.from_plain(DEFAULT_INPUT_SIZE))
            return default, default
        return given if isinstance(given, tuple) else (given, given)

    def _sizes(self) -> dict[str, Any]:
        return {"input_size": self.input_sizes()} if self.has_input_size else {}

    def default(self) -> Candidate:
        """The candidate of every first option.

        Raises:
            ShapeError: that one does not build.
        """
        return self.resolve(lambda choice: choice.default)

    def candidate(self, decisions: Mapping[str, Any]) -> Candidate:
        """The candidate of these decisions; what is not among them takes its first option.

        Raises:
            ShapeError: that one does not build.
        """
        return self.resolve(lambda choice: decisions.get(choice.name, choice.default))

    def random(self, rng: random.Random) -> Candidate:
        """A candidate of uniformly drawn options.

        Raises:
            ShapeError: the one that was drawn does not build.
        """
        return self.resolve(lambda choice: draw(choice, rng))

    def smallest(self) -> Candidate:
        """The candidate of fewest parameters (then multiply-accumulates) that single changes of a choice lead to."""
        return self._extreme(-1)

    def largest(self) -> Candidate:
        """The candidate of most parameters (then multiply-accumulates) that single changes of a choice lead to."""
        return self._extreme(1)

    def _extreme(self, sign: int) -> Candidate:
        """Climb from the numeric ends, one choice at a time, until no single change helps.

        Exact where choices add up independently, which they nearly do: a row's cost grows with each of its own values.
        """

        def cost(decisions: Mapping[str, Any]) -> tuple[int, int] | None:
            try:
                facts = [f for _, f in survey(self.candidate(decisions).architecture)]
            except ShapeError:
                return None
            return sign * sum(f.params for f in facts), sign * sum(f.macs for f in facts)

        ends = {c.name: c.extremes()[-1 if sign > 0 else 0] for c in self.choices}
        best, best_cost = ends, cost(ends)
        if best_cost is None:
            best, best_cost = {}, cost({})
        improved, left = True, CLIMBED // max(1, sum(1 for _ in self.section.plain()))
        while improved:
            improved = False
            for choice in (c for c in self.choices if not c.name.startswith("training.")):
                left -= 1
                if left < 0:
                    return self.candidate(best)
                for value in choice.extremes():
                    trial = {**best, choice.name: value}
                    found = cost(trial) if best.get(choice.name, choice.default) != value else None
                    if found is not None and (best_cost is None or found > best_cost):
                        best, best_cost, improved = trial, found, True
        return self.candidate(best)


@lru_cache(maxsize=1024)
def _recipe_of(values: tuple[tuple[str, type, Any], ...]) -> Recipe:
    return Recipe(**{name: value for name, _, value in values})


def draw(choice: Choice, rng: random.Random) -> Any:
    """Draw one value of a choice, uniformly on its scale."""
    if not choice.log:
        values = choice.values()
        return rng.uniform(choice.low, choice.high) if values is None else rng.choice(values)
    drawn = math.exp(rng.uniform(math.log(choice.low), math.log(choice.high)))
    return min(max(round(drawn), int(choice.low)), int(choice.high)) if choice.kind == "int" else drawn
