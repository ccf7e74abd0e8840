"""A worker's part in measuring networks: the devices of its study, what is expected of candidates, one reading a trial.

A study begins with a few networks that are measured and not trained: by them the first candidates are judged, and the
hypervolume has an end. It keeps what names its devices, and refuses others: a latency of one device says nothing of another.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from archtuna.architecture import Architecture
from archtuna.devices import machine_lock
from archtuna.errors import ArchtunaError, LatencyError, ModelRefused, ShapeError, StudyError
from archtuna.forecast import Forecast
from archtuna.gauge import HERE, Gauge, Reading
from archtuna.ledger import Ledger
from archtuna.parts import parts_of
from archtuna.space import SearchSpace
from archtuna.storage import Attr

if TYPE_CHECKING:
    from archtuna.study import Study

log = logging.getLogger("archtuna")

PROBES = 8
"""Networks that are measured before a search begins: the file's own, the smallest, the largest, and random ones."""

PATIENCE = 30.0
"""Seconds that a worker waits for a quiet machine, or for a device, before it trains first and measures afterwards."""


class Measuring:
    """What a worker knows of costs that have to be measured.

    Args:
        study: whose objectives and limits say which.
        gauge: which measures.
        emit: told of each event.
    """

    def __init__(self, study: Study, gauge: Gauge, emit: Callable[[dict[str, Any]], None]) -> None:
        self.study, self.gauge, self.emit = study, gauge, emit
        self.forecast = Forecast(gauge.names, parts_of)
        self._readings: dict[str, Reading] = {}
        self._learnt = 0
        self._open: list[int] = []
        if self.needed:
            self._begin()

    @property
    def needed(self) -> bool:
        """Whether anything has to be measured."""
        return bool(self.gauge.names)

    def costs(self, architecture: Architecture) -> Mapping[str, float]:
        """Return what a network takes, or is expected to."""
        return self.forecast.costs(architecture) if self.needed else {}

    def doubt(self, name: str) -> float | None:
        """Return the relative error of what is expected of a cost; None for one that is known."""
        return self.forecast.error(name) if name in self.gauge.names else None

    def learn(self, ledger: Ledger) -> None:
        """Take note of what other workers measured since the last time."""
        if not self.needed:
            return
        waiting = [*self._open, *range(self._learnt, len(ledger.trials))]
        self._learnt, self._open = len(ledger.trials), []
        for number in waiting:
            trial = ledger.trials[number]
            plain = trial.user_attrs.get(Attr.READING)
            if plain is not None:
                text, reading = trial.user_attrs[Attr.ARCHITECTURE], Reading.from_dict(plain)
                # Of another device it says nothing here.
                if reading.fingerprints == self._there:
                    self._learn(Architecture.from_dict(json.loads(text)), reading)
            elif not trial.state.is_finished():
                self._open.append(number)

    def read(self, architecture: Architecture, patience: float = PATIENCE) -> Reading:
        """Measure a network; what another trial with the same network has shown is taken as it is.

        Raises:
            ModelRefused: a device does not run it.
            LatencyError: it cannot be measured now.
            ExportError: it cannot be exported.
            StudyError: the device is another one than the study's.
        """
        known = self._readings.get(architecture.key)
        if known is not None:
            return replace(known, seconds=0.0)
        reading = self.gauge.read(architecture, patience=patience)
        self._refuse_others(reading.fingerprints)
        self._learn(architecture, reading)
        return reading

    def _learn(self, architecture: Architecture, reading: Reading) -> None:
        self._readings.setdefault(architecture.key, reading)
        self.forecast.learn(architecture, reading.values, reading.units)

    # the study's devices and first networks

    def _begin(self) -> None:
        # Workers of one machine begin at the same moment.
        with machine_lock(f"probes-{self.study.optuna._study_id}"):
            record = self._record
            if record is None:
                probed = self._probed()
                # A worker of another machine may have been as long about it, and was first.
                if self._record is None:
                    self.study.optuna.set_user_attr(Attr.MEASURED, probed)
                record = self._record or probed
        self._there = {name: one["fingerprint"] for name, one in record["devices"].items()}
        self._refuse_others(self.gauge.fingerprints())
        for probe in record["probes"]:
            self._learn(Architecture.from_dict(probe["architecture"]), Reading.from_dict(probe))

    @property
    def _record(self) -> dict[str, Any] | None:
        return self.study.optuna.user_attrs.get(Attr.MEASURED)

    def _probed(self) -> dict[str, Any]:
        """Measure the study's first networks."""
        networks = first_networks(self.study.space(), PROBES)
        log.info("measuring %d networks, to know how long networks take", len(networks))
        probes: list[dict[str, Any]] = []
        devices: dict[str, Any] = {}
        problem: ArchtunaError | None = None
        for architecture in networks:
            try:
                reading = self.gauge.read(architecture, patience=10 * PATIENCE)
            except ArchtunaError as error:
                if isinstance(error, LatencyError) and not isinstance(error, ModelRefused):
                    raise
                # It does not export, or does not run there: other networks of the space may.
                problem = error
                continue
            probes.append({"architecture": architecture.to_dict(), **reading.to_dict()})
            devices = devices or {name: _described(latency) for name, latency in reading.latencies.items()}
            self.emit({"event": "probe", "values": dict(reading.values), "seconds": reading.seconds})
        if len(probes) < min(3, len(networks)):
            raise problem or StudyError(
                "the space has too few networks to measure", hint="offer more choices, or leave latency and energy out"
            )
        return {"devices": devices, "probes": probes}

    def _refuse_others(self, fingerprints: Mapping[str, str]) -> None:
        """Refuse to mix latencies of several devices.

        Raises:
            StudyError: a device is not the one that the study was begun with.
        """
        for name, fingerprint in fingerprints.items():
            there = self._there.get(name)
            if there != fingerprint:
                was = (self._record or {}).get("devices", {}).get(name, {}).get("described", "another")
                where = "this machine" if name == HERE else f"the device '{name}'"
                raise StudyError(
                    f"the study's latencies were measured on {was}, and {where} is another (fingerprint {fingerprint})",
                    hint="measure on one device from every machine: latency_ms@NAME, see archtuna device --help",
                )


def _described(latency: Mapping[str, Any]) -> dict[str, Any]:
    device = dict(latency["device"])
    threads = f"{device['threads']} thread{'s' if device['threads'] > 1 else ''}"
    words = f"{device['processor']} with {device['runtime']}, {threads}, batch {device['batch']}"
    return {"fingerprint": latency["fingerprint"], "described": words, **device}


def first_networks(space: SearchSpace, count: int) -> list[Architecture]:
    """Return networks to measure before anything is known: the default, the extremes, and random ones, each once."""
    draws, found = random.Random(0), dict[str, Architecture]()
    ways = [space.default, space.smallest, space.largest, *[lambda: space.random(draws)] * (4 * count)]
    for way in ways:
        if len(found) == count:
            break
        try:
            architecture = way().architecture
        except ShapeError:
            continue
        found.setdefault(architecture.key, architecture)
    return list(found.values())
