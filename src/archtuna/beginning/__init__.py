"""A search file for pictures that were looked at: proposals, a trial run, and what fits into the time there is."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from archtuna.beginning.advice import (
    AS_ASKED,
    DEFAULT_TIME,
    Advice,
    Proposal,
    Wishes,
    advise,
    limits_for,
    seconds_asked,
    space_for,
)
from archtuna.beginning.inventory import Inventory, inventory_of
from archtuna.beginning.outlook import ENOUGH, PLENTY, Outlook, Pace, Room, least_fraction, outlook, said, tightened
from archtuna.beginning.outlook import lines_of as outlook_lines
from archtuna.errors import DataError, SpecError, TrialError
from archtuna.schedule import SHORTEST
from archtuna.starter import ReadySpace, check_side, filled, named, training_of, with_advice

if TYPE_CHECKING:
    from archtuna.data import Data, Split

log = logging.getLogger("archtuna")

SECONDS = 30.0
"""Of a trial run, at most."""
LEAST_EPOCHS = SHORTEST
"""A training of fewer epochs is not worth a comparison, and not stopped early."""
SMALLEST = 32
"""Side below which spaces no longer stride in their first layer, and get slower."""
LONGEST = 60
"""Epochs that spare time goes into."""


@dataclass(frozen=True)
class Beginning:
    """A search file and how it came about.

    Attributes:
        text: the file.
        space: name of the ready space, or None for rows that fit.
        inventory: of the pictures, or None where none were named.
        advice: every proposal.
        pace: what the trial run measured, or None where there was none.
        outlook: of the search, or None.
        notes: what else somebody should know.
    """

    text: str
    space: str | None
    inventory: Inventory | None
    advice: Advice
    pace: Pace | None = None
    outlook: Outlook | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "data": self.inventory.to_dict() if self.inventory else None,
            "proposals": {name: {"value": p.value, "reason": p.reason} for name, p in self.advice.items()},
            "trial_run": self.pace.to_dict() if self.pace else None,
            "estimate": self.outlook.to_dict() if self.outlook else None,
            "notes": list(self.notes),
        }


def begin(
    data: Any, wishes: Wishes, *, space: str | None = None, classes: int | None = None, seconds: float | None = SECONDS
) -> Beginning:
    """Look at pictures, try out what to propose for them, and return a search file.

    Args:
        data: what ``Data.open`` takes, or None.
        wishes: what was asked for.
        space: a ready space, instead of the one for the place where the network will run.
        classes: instead of the data's.
        seconds: of the trial run, at most about so many; None leaves it out, and with it the bound on the time.

    Raises:
        UnknownNameError: no ready space has that name.
        SpecError: neither says how many classes there are, or both and not the same; the size is below what the space is for.
        DataError: the data cannot be opened, or a class has too few pictures to learn from and to choose by.
    """
    if data is None:
        return _without_pictures(wishes, space, classes)
    from archtuna.data import Data

    pictures = Data.open(data)
    found = inventory_of(pictures)
    split, without_test = _split(pictures)
    chosen = Proposal(space, AS_ASKED) if space else space_for(wishes.place, found)
    ready = None if chosen.value is None else named(chosen.value)
    there = len(pictures.classes)
    if classes not in (None, there):
        raise SpecError(f"{classes} classes were asked for, and the pictures have {there}", hint="leave --classes out")
    draft = _Draft(data, found, ready, there)
    advice = {"space": chosen, **draft.advise(wishes, without_test)}
    if seconds is None:
        return Beginning(draft.text(advice), chosen.value, found, advice)
    return _with_trial_run(_Tried(draft, found, pictures, split, wishes.place), advice, seconds)


def _without_pictures(wishes: Wishes, space: str | None, classes: int | None) -> Beginning:
    if classes is None:
        raise SpecError("how many classes?", hint="name the pictures with --data, or say --classes N")
    chosen = Proposal(space, AS_ASKED) if space else space_for(wishes.place, None)
    draft = _Draft(None, None, None if chosen.value is None else named(chosen.value), classes)
    advice = {"space": chosen, **draft.advise(wishes, False)}
    return Beginning(draft.text(advice), chosen.value, None, advice)


def _split(data: Data) -> tuple[Split, bool]:
    """Return a split, and whether it has no test part because a class has too few different pictures for one.

    Raises:
        DataError: a class has too few even so.
    """
    try:
        return data.split(), False
    except DataError:
        return data.split(test=0.0), True


@dataclass(frozen=True)
class _Draft:
    """What a file is made of, before its values are known."""

    source: Any
    found: Inventory | None
    ready: ReadySpace | None
    classes: int

    def advise(self, wishes: Wishes, without_test: bool) -> Advice:
        if self.ready is not None and wishes.input_size is not None:
            given = wishes.input_size
            check_side(self.ready, min(given) if isinstance(given, tuple) else given)
        training = training_of(self.plain(self.usual_size))
        return advise(wishes, self.found, self.ready, training, self.sizes(), without_test=without_test)

    @property
    def usual_size(self) -> str:
        """The input's size that the networks come with, as a file says it."""
        return self.ready.input_size if self.ready else "64"

    def sizes(self) -> tuple[tuple[int, int], ...]:
        """The sizes that these are, as (height, width)."""
        from archtuna.space import SearchSpace

        return SearchSpace.read(self.plain(self.usual_size)).input_sizes()

    def plain(self, size: str) -> str:
        """Return the file without advice."""
        channels = self.found.channels if self.found else 3
        return filled(self.ready, classes=self.classes, channels=channels, size=size)

    def text(self, advice: Advice, expected: Sequence[str] = ()) -> str:
        from archtuna.beginning.inventory import lines_of

        size = advice["input_size"].value if "input_size" in advice else self.usual_size
        about = [f"The pictures: {self.found.source}", *lines_of(self.found)] if self.found else []
        if about and advice["space"].reason:
            about.append(f"The networks: {advice['space'].reason}.")
        return with_advice(self.plain(size), advice, data=self.source, about=about, outlook=expected)


# --- the trial run -----------------------------------------------------------------------------------


def _with_trial_run(tried: _Tried, advice: Advice, seconds: float) -> Beginning:
    """Measure, and change what has to be changed for enough trials to fit, or may be for better ones."""
    draft, name = tried.draft, advice["space"].value
    advice = {**advice, "time": advice.get("time", Proposal(DEFAULT_TIME))}
    log.info("trial run of about %s: how long does a training take here? (--no-trial-run leaves it out)", said(seconds))
    try:
        pace = tried.pace(advice, 0.6 * seconds)
        changed = tried.fitted(advice, pace)
        if changed["input_size"].value != advice["input_size"].value:
            pace = tried.pace(changed, 0.4 * seconds)
            smaller = {name: changed[name] for name in ("input_size", "limits")}
            changed = tried.fitted({**advice, **smaller}, pace, keep_size=True)
    except TrialError as error:
        log.warning("no estimate: %s", error.message)
        return Beginning(draft.text(advice), name, draft.found, advice, notes=(f"No estimate: {error.message}.",))
    expected = tried.outlook(changed, pace)
    changed["trials"] = Proposal(expected.trials)
    lines = outlook_lines(expected, pace, changed["workers"].value, seconds_asked(changed["time"].value))
    notes = _notes(expected, changed)
    return Beginning(draft.text(changed, [*lines, *notes]), name, draft.found, changed, pace, expected, notes)


@dataclass(frozen=True)
class _Tried:
    """A draft that is tried out on its pictures, for networks that run at a place."""

    draft: _Draft
    found: Inventory
    data: Data
    split: Split
    place: str | None

    def pace(self, advice: Advice, seconds: float) -> Pace:
        from archtuna.beginning.trial_run import trial_run
        from archtuna.space import SearchSpace

        space = SearchSpace.read(self.draft.text(advice))
        return trial_run(space, self.data, self.split, workers=advice["workers"].value, seconds=seconds)

    def outlook(self, advice: Advice, pace: Pace) -> Outlook:
        train, seconds = round(_fraction(advice) * len(self.split.train)), seconds_asked(advice["time"].value)
        return outlook(
            pace, pictures=len(self.data), train=train, val=len(self.split.val), epochs=advice["epochs"].value,
            workers=advice["workers"].value, seconds=seconds,
        )  # fmt: skip

    def fitted(self, advice: Advice, pace: Pace, keep_size: bool = False) -> Advice:
        """Return the advice with what lets enough trials fit into the time, or with longer trainings where there is room."""
        expected, time, epochs = self.outlook(advice, pace), advice["time"].value, advice["epochs"].value
        part = max(1e-3, (seconds_asked(time) - expected.start) / expected.trial[1])  # Of a trial, where none fits.
        fitting = expected.fitting[1] or part
        longer = min(LONGEST, 3 * epochs, int(epochs * fitting / PLENTY))
        if longer > epochs:
            return {**advice, "epochs": Proposal(longer, f"{time} has room for longer trainings than {epochs} epochs")}
        if fitting >= ENOUGH:
            return dict(advice)
        room = self.room(advice, keep_size)
        changed = _changed(advice, room, tightened(room, ENOUGH / fitting), time)
        if changed["input_size"] != advice["input_size"]:
            size = changed["input_size"].value
            changed["limits"] = limits_for(self.place, self.draft.ready, self.draft.sizes(), size)
        return changed

    def room(self, advice: Advice, keep_size: bool) -> Room:
        """Return what may be changed; a size that somebody asked for stays."""
        epochs, fixed = advice["epochs"].value, keep_size or advice["input_size"].reason == AS_ASKED
        side = None if fixed else max(int(size) for size in advice["input_size"].value.split("|"))
        return Room(
            side=side, smallest=max(SMALLEST, self.draft.ready.smallest if self.draft.ready else 0),
            fraction=_fraction(advice), least_fraction=least_fraction(self.found), epochs=epochs,
            usual_epochs=int(training_of(self.draft.plain("64"))["epochs"]), least_epochs=min(epochs, LEAST_EPOCHS),
        )  # fmt: skip


def _fraction(advice: Advice) -> float:
    return float(advice["fraction"].value) if "fraction" in advice else 1.0


def _changed(advice: Advice, before: Room, after: Room, time: str) -> Advice:
    """Return the advice with values that were made smaller, each with its reason."""
    changed, why = dict(advice), f"smaller for the sake of the time: more trials in {time}"
    if after.side != before.side and after.side is not None:
        options = [int(size) for size in advice["input_size"].value.split("|")]
        kept = [size for size in options if size <= after.side] or [after.side]
        changed["input_size"] = Proposal("|".join(map(str, kept)), f"{why}; these pictures deserve {before.side}")
    if after.fraction != before.fraction:
        reason = f"a part of the training pictures, for more trials in {time}; `archtuna train` takes all"
        changed["fraction"] = Proposal(after.fraction, reason)
    if after.epochs != before.epochs:
        reason = f"fewer for the sake of the time: more trials in {time}; these pictures deserve {before.epochs}"
        changed["epochs"] = Proposal(after.epochs, reason)
    return changed


def _notes(expected: Outlook, advice: Advice) -> tuple[str, ...]:
    notes = []
    fitting, time = expected.fitting[1], advice["time"].value
    if fitting < 0.8 * ENOUGH:
        seconds = seconds_asked(time) - expected.start
        needed = expected.start + ENOUGH * seconds / fitting if fitting else expected.start + ENOUGH * expected.trial[1]
        notes.append(
            f"{time} is little: fewer than {ENOUGH} trials hardly say which networks are good. {ENOUGH} take about "
            f"{said(needed)} (--time)."
        )
    if "latency_ms" in advice["objectives"].value:
        notes.append("Exporting and measuring each network comes on top of that: some seconds a trial.")
    return tuple(notes)
