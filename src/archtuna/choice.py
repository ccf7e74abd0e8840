"""Choices: what a file's ``a|b|c``, ``lo..hi``, ``lo..hi/step`` and ``lo..hi log`` mean."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, zip_longest
from typing import Any, Generic, Literal, TypeVar

from archtuna.architecture import Scalar
from archtuna.document import Value, scalar_of
from archtuna.errors import SpecError, brief, nearest
from archtuna.signature import MAX_LIST

T = TypeVar("T")

MAX_OPTIONS = 1_000

_NUMBER = r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"\s*({_NUMBER})\s*\.\.\s*({_NUMBER})\s*(?:/\s*({_NUMBER})\s*)?(\s+log)?\s*")
_REFERENCE = re.compile(r"\s*\$(\w+)\s*")


@dataclass(frozen=True)
class Choice:
    """One decision of a search.

    Attributes:
        name: where it stands in the file, such as ``backbone.3.kernel``; its name in the study.
        kind: ``categorical`` has ``options`` (numbers among them keep their order for samplers that use it); ``int`` and
            ``float`` range from ``low`` to ``high``, both included.
        step: distance between the values of a range, or None for a continuous one.
        log: whether a range is searched on a logarithmic scale.
    """

    name: str
    kind: Literal["categorical", "int", "float"]
    options: tuple[Scalar, ...] | None = None
    low: float = 0
    high: float = 0
    step: float | None = None
    log: bool = False

    @property
    def default(self) -> Scalar:
        """The first option, or the low end of a range."""
        return self.options[0] if self.options else self.low

    def values(self) -> tuple[Scalar, ...] | None:
        """Every value in order, or None where a range is continuous."""
        if self.options is not None:
            return self.options
        count = self.count()
        return None if count is None else tuple(self._value(i) for i in range(count))

    def count(self) -> int | None:
        """How many values there are, or None where a range is continuous."""
        if self.options is not None:
            return len(self.options)
        return None if self.step is None else math.floor((self.high - self.low) / self.step + 1e-9) + 1

    def _value(self, index: int) -> float:
        """Return a value of a range with a step, without the noise of adding: the third of 0.1, 0.2, … is 0.3."""
        assert self.step is not None
        return round(self.low + index * self.step, 12)

    @property
    def _last(self) -> float:
        """The largest value of a range, which may lie below its end."""
        count = self.count()
        return self.high if count is None else self._value(count - 1)

    def probes(self) -> tuple[Scalar, ...]:
        """The values that tell whether all are possible: every option; of a range the ends and the first step.

        Of a continuous range whose ends are whole numbers one between them: ``16..1e2`` is no range of whole numbers.
        """
        if self.options is not None:
            return self.options
        if self.step is None:
            inside = (self.low + 0.5,) if float(self.low).is_integer() and float(self.high).is_integer() else ()
            return (self.low, self.high, *inside)
        second = () if self.low + self.step > self.high else (self._value(1),)
        return (self.low, *second, self._last)

    def extremes(self) -> tuple[Scalar, ...]:
        """The values among which the cheapest and the dearest are looked for: the ends of numbers, else every option."""
        if self.options is None:
            return (self.low, self._last)
        numeric = [v for v in self.options if isinstance(v, int | float)]
        return (min(numeric), max(numeric)) if len(numeric) == len(self.options) else self.options

    def __str__(self) -> str:
        if self.options is not None:
            return "|".join("null" if o is None else str(o) for o in self.options)
        step = "" if self.step is None or (self.kind == "int" and self.step == 1) else f"/{self.step:g}"
        return f"{self.low:g}..{self.high:g}{step}{' log' if self.log else ''}"


Pick = Callable[[Choice], Any]

REMEMBERED = 4_096
"""Results that one ``Answered`` holds; then it begins anew."""


@dataclass
class _Question:
    """A choice that was asked, and what follows each answer: another question, or a result in a tuple of one."""

    choice: Choice
    then: dict[tuple[type, Any], Any] = field(default_factory=dict)


class Answered(Generic[T]):
    """Remembers what a function of answers gave, by the answers, and asks only for those.

    The function must be pure: the same answers lead to the same next question and the same result. Answers are told
    apart with their type, because 1 and true are not one value.
    """

    def __init__(self) -> None:
        self._first: dict[Hashable, Any] = {}
        self._size = 0

    def get(self, given: Hashable, pick: Pick, function: Callable[[Pick], T]) -> T:
        """Return what a function gives.

        Args:
            given: what it depends on besides the answers.
            pick: answers choices; a choice that is asked twice is answered the same.
            function: asks the choices that it needs.
        """
        place, step = self._first, given
        asked: list[Choice] = []
        while (found := place.get(step)) is not None:
            if isinstance(found, tuple):
                return found[0]
            asked.append(found.choice)
            place, step = found.then, typed(pick(found.choice))
        return self._learn(place, step, asked, pick, function)

    def _learn(self, place: dict[Any, Any], step: Any, asked: list[Choice], pick: Pick, function: Any) -> T:
        """Remember what follows a place that was not known yet."""
        names = {choice.name for choice in asked}
        later: list[tuple[Choice, Any]] = []

        def recorded(choice: Choice) -> Any:
            answer = pick(choice)
            if choice.name not in names:
                names.add(choice.name)
                later.append((choice, answer))
            return answer

        result = function(recorded)
        if self._size >= REMEMBERED:
            self._first.clear()
            self._size = 0
            return result
        for choice, answer in later:
            question = place[step] = _Question(choice)
            place, step = question.then, typed(answer)
        place[step] = (result,)
        self._size += 1
        return result


def typed(answer: Any) -> tuple[type, Any]:
    """Return an answer so that 1, 1.0 and true are three."""
    return type(answer), answer


@dataclass(frozen=True)
class Slot:
    """A scalar place of a file: a fixed value, or a choice.

    Attributes:
        place: where it stands, for errors.
        choice: the choice, or None for a fixed value.
        value: what stands there, where it is fixed.
    """

    place: Value
    choice: Choice | None
    value: Any = None

    def get(self, pick: Pick) -> Any:
        return self.value if self.choice is None else pick(self.choice)

    def choices(self) -> tuple[Choice, ...]:
        return () if self.choice is None else (self.choice,)

    def values(self) -> tuple[Any, ...]:
        """Every value that can come to stand here; the ends of a continuous range."""
        return (self.value,) if self.choice is None else self.choice.values() or self.choice.extremes()

    def candidates(self) -> Sequence[Any]:
        """Values that stand for all that can come to stand here (``Choice.probes``)."""
        return (self.value,) if self.choice is None else self.choice.probes()


@dataclass(frozen=True)
class ListSlot:
    """A list in a file, each element of which may be a choice."""

    place: Value
    items: tuple[Slot | ListSlot, ...]
    choice: None = None

    def get(self, pick: Pick) -> tuple[Any, ...]:
        return tuple(item.get(pick) for item in self.items)

    def choices(self) -> tuple[Choice, ...]:
        return tuple(choice for item in self.items for choice in item.choices())

    def candidates(self) -> Iterator[tuple[Any, ...]]:
        """Lists in which every option of every element stands once: the first options, the second ones, and so on."""
        first = tuple(next(iter(item.candidates())) for item in self.items)
        yield first
        # One after the other, because many elements of many options would fill the memory.
        for values in islice(zip_longest(*(item.candidates() for item in self.items), fillvalue=_NO_MORE), 1, None):
            yield tuple(one if value is _NO_MORE else value for value, one in zip(values, first, strict=True))


AnySlot = Slot | ListSlot
_NO_MORE = object()


def check(slot: AnySlot, coerce: Callable[[Any], Any]) -> None:
    """Check that every value that can come to stand in a place is possible, by those that stand for all.

    Raises:
        SpecError: one is not; the error points there.
    """
    for value in slot.candidates():
        try:
            coerce(value)
        except SpecError:
            raise
        except ValueError as error:
            raise slot.place.error(str(error), hint=getattr(error, "hint", None) or _whole(slot, value)) from None


def _whole(slot: AnySlot, value: Any) -> str | None:
    """Return how a range is written of which only what lies between whole numbers is impossible, else None."""
    choice = slot.choice
    if choice is None or choice.kind != "float" or choice.step is not None or value in (choice.low, choice.high):
        return None
    return f"whole numbers: {int(choice.low)}..{int(choice.high)}{' log' if choice.log else ''}"


def fixed(value: object, place: Value) -> Slot:
    """Return a slot that holds ``value`` and points at ``place``."""
    return Slot(place, None, value)


def read_argument(place: Value, name: str, shared: Mapping[str, Choice]) -> AnySlot:
    """Read the place of an argument: a scalar, or a list of them.

    Raises:
        SpecError: a mapping stands there, a text looks like a choice and is none, or the list is too long for any argument.
    """
    if not place.is_list:
        return read_slot(place, name, shared)
    items = place.items()
    if len(items) > MAX_LIST:
        raise place.error(f"a list of {len(items):,} values; at most {MAX_LIST} are read")
    return ListSlot(place, tuple(read_argument(item, f"{name}.{i}", shared) for i, item in enumerate(items)))


def read_slot(place: Value, name: str, shared: Mapping[str, Choice]) -> Slot:
    """Read a scalar place.

    Args:
        place: the value in the file.
        name: the choice's name, should there be one.
        shared: the file's ``choices`` by name, for ``$name``.

    Raises:
        SpecError: the text looks like a choice and is none, or names an unknown shared choice.
    """
    text = place.scalar
    if not isinstance(text, str):
        return Slot(place, None, text)
    reference = _REFERENCE.fullmatch(text)
    if reference:
        if reference[1] not in shared:
            known = f"known: {', '.join(shared)}" if shared else "add it to a section 'choices'"
            raise place.error(
                f"no shared choice is named '{reference[1]}'", hint=nearest(reference[1], shared) or known
            )
        return Slot(place, shared[reference[1]])
    return Slot(place, read_choice(place, name), text)


def read_choice(place: Value, name: str) -> Choice | None:
    """Read the text at ``place`` as a choice, or return None where it is a plain text.

    Raises:
        SpecError: the text looks like a choice and is none.
    """
    text = place.scalar
    if not isinstance(text, str):
        return None
    if "|" in text:
        return _read_options(place, name, text)
    if ".." not in text:
        return None
    match = _RANGE.fullmatch(text)
    if not match:
        raise place.error(f"{brief(text)} is not a range", hint="write 1..5, 16..64/8 or 0.01..0.3 log")
    return _read_range(place, name, match)


def _read_options(place: Value, name: str, text: str) -> Choice:
    parts = [part.strip() for part in text.split("|")]
    if len(parts) > MAX_OPTIONS:
        raise place.error(
            f"{len(parts):,} options; at most {MAX_OPTIONS:,} are read", hint="write a range: 16..4096/16"
        )
    if "" in parts:
        raise place.error(f"{brief(text)} has an empty option", hint="write null for no value")
    if any(_RANGE.fullmatch(part) for part in parts):
        raise place.error(f"{brief(text)} mixes options and ranges", hint="list the values: 1|2|3|7")
    options = tuple(scalar_of(part.strip("\"'")) for part in parts)
    if len(set(map(repr, options))) < len(options):
        raise place.error(f"{brief(text)} has the same option twice")
    return Choice(name, "categorical", options)


def _read_range(place: Value, name: str, match: re.Match[str]) -> Choice:
    low, high, step = scalar_of(match[1]), scalar_of(match[2]), scalar_of(match[3]) if match[3] else None
    log = match[4] is not None
    if any(isinstance(part, str) for part in (low, high, step)):
        raise place.error(f"{brief(place.scalar)}: its numbers have too many digits")
    problem = _range_problem(low, high, step, log)
    if problem:
        raise place.error(f"{brief(place.scalar)}: {problem}")
    whole = all(isinstance(part, int) for part in (low, high, step if step is not None else low))
    if whole and step is None:
        step = 1
    choice = Choice(name, "int" if whole else "float", None, low, high, step, log)
    if step is not None and (high - low) / step > MAX_OPTIONS * (100 if log else 1):
        raise place.error(
            f"{brief(place.scalar)} has more than {MAX_OPTIONS:,} values", hint="write a step: 16..4096/16"
        )
    return choice


def _range_problem(low: Any, high: Any, step: Any, log: bool) -> str | None:
    if not all(math.isfinite(part) for part in (low, high, step or 0)):
        return "the ends and the step must be finite"
    if not low < high:
        return "the low end must be below the high end"
    if step is not None and not 0 < step <= high - low:
        return "the step must be above zero and fit the range"
    if log and low <= 0:
        return "a logarithmic range must begin above zero"
    if log and step is not None:
        return "a logarithmic range has no step"
    return None
