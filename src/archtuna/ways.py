"""In how many ways choices can be taken, where what is answered decides on what else is asked, and choices are shared."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from archtuna.choice import Choice, Slot

Ways = dict[frozenset[tuple[str, Any]], int]
"""How many ways there are to decide, by what is known of shared choices in them: of each that is asked its name, with the
answer where that decides on what else is asked, else None."""
MANY_ANSWERS = 20_000
"""Answers that are compared in joining ways; where there are more, what follows from them is not followed any further."""


def ways_of(choices: Iterable[Choice], shared: set[str]) -> Ways:
    """Return in how many ways choices can be taken, those of shared names left to be counted at the end."""
    counted = {choice.name: choice.count() or 1 for choice in choices}
    met = frozenset((name, None) for name in counted if name in shared)
    return {met: math.prod(count for name, count in counted.items() if name not in shared)}


def repeated(repeat: Slot, inside: Ways, shared: set[str]) -> Ways:
    """Return the ways of what is repeated: without copies one, whatever the choices inside."""
    choice = repeat.choice
    if choice is None or 0 not in repeat.candidates():
        return both(ways_of(repeat.choices(), shared), inside)
    some = answered(choice, True, (choice.count() or 1) - 1, shared)
    return either(both(some, inside), answered(choice, False, 1, shared))


def answered(choice: Choice | None, answer: Any, count: int, shared: set[str]) -> Ways:
    """Return the ways of a choice that has one of so many answers which all lead to the same."""
    if choice is not None and choice.name in shared:
        return {frozenset({(choice.name, answer)}): 1}
    return {frozenset(): count}


def either(first: Ways, second: Ways) -> Ways:
    """Return the ways to decide on one of two."""
    return {known: first.get(known, 0) + second.get(known, 0) for known in first | second}


def both(first: Ways, second: Ways) -> Ways:
    """Return the ways to decide on both of two, a shared choice having one answer."""
    if sum(map(len, first)) * len(second) + sum(map(len, second)) * len(first) > MANY_ANSWERS:
        first, second = _roughly(first), _roughly(second)
    found: Ways = {}
    for some, m in first.items():
        for others, n in second.items():
            known = _agreed(some, others)
            if known is not None:
                found[known] = found.get(known, 0) + m * n
    return found


def _agreed(some: frozenset[tuple[str, Any]], others: frozenset[tuple[str, Any]]) -> frozenset[tuple[str, Any]] | None:
    """Return what is known of shared choices by both, or None where they do not have the same answer."""
    known = dict(some)
    for name, answer in others:
        before = known.get(name)
        if before is not None and answer is not None and before != answer:
            return None
        known[name] = before if answer is None else answer
    return frozenset(known.items())


def _roughly(ways: Ways) -> Ways:
    """Return at least as many ways, as if each asked every shared choice and nothing followed from the answers."""
    return {frozenset((name, None) for known in ways for name, _ in known): sum(ways.values())}


def total(ways: Ways, shared: Iterable[Choice]) -> int:
    """Return the number of ways, with each shared choice that is asked counted once."""
    counts = {choice.name: choice.count() or 1 for choice in shared}
    return sum(n * math.prod(_left(counts[name], answer) for name, answer in known) for known, n in ways.items())


def _left(count: int, answer: Any) -> int:
    """Return how many answers of a choice lead there: all, all but no copies, or one."""
    return count if answer is None else count - 1 if answer is True else 1
