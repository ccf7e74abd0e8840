"""Benchmark tables: spaces whose every network was measured, so that a search can be replayed in minutes.

Three layouts of ``.npz`` are read (docs/bench.md): our own, NAS-Bench-201 and Accel-NASBench. A ``Case`` names what is
searched in a table and how the result is scored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from archtuna.errors import DataError, nearest
from archtuna.objective import hypervolume, nondominated

REMEMBERED = 200_000


@dataclass(frozen=True, eq=False)
class Table:
    """Networks and what was measured of them.

    Attributes:
        name: of the file.
        decisions: names of the decisions.
        ordered: whether each decision's options have an order.
        codes: networks × decisions, the option of each as a number from 0.
        columns: by name a value of each network, smaller is better; what is minimised is never below zero.
        known: the columns that are known before training.
        cases: what is searched when nothing else is asked for.
    """

    name: str
    decisions: tuple[str, ...]
    ordered: tuple[bool, ...]
    codes: np.ndarray
    columns: Mapping[str, np.ndarray]
    known: frozenset[str]
    cases: tuple[Case, ...] = ()
    _nearest: dict[tuple[int, ...], int] = field(default_factory=dict, repr=False)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """How many options each decision has."""
        return tuple(int(n) + 1 for n in self.codes.max(axis=0))

    @cached_property
    def _rows(self) -> dict[tuple[int, ...], int]:
        rows: dict[tuple[int, ...], int] = {}
        for row, codes in enumerate(map(tuple, self.codes.tolist())):
            rows.setdefault(codes, row)
        return rows

    def row(self, codes: Sequence[int]) -> int:
        """Return the row of a network: of a space that was only sampled, the row that differs in the fewest decisions."""
        wanted = tuple(codes)
        found = self._rows.get(wanted, self._nearest.get(wanted))
        if found is None:
            if len(self._nearest) > REMEMBERED:
                self._nearest.clear()
            apart = (self._small != np.array(wanted, dtype=np.int16)).sum(axis=1)
            found = self._nearest[wanted] = int(apart.argmin())
        return found

    @cached_property
    def _small(self) -> np.ndarray:
        return self.codes.astype(np.int16)

    def column(self, name: str) -> np.ndarray:
        """Return a column.

        Raises:
            DataError: there is none of that name.
        """
        if name not in self.columns:
            hint = nearest(name, self.columns) or f"it has {', '.join(self.columns)}"
            raise DataError(f"the table {self.name} has no column '{name}'", hint=hint)
        return self.columns[name]


@dataclass(frozen=True)
class Case:
    """What is searched in a table and how the result is scored.

    Attributes:
        objectives: columns that are minimised together.
        worst: by column the worst value that counts, by default the worst in the table.
        report: with one objective, the column that is reported of the best network, in place of the hypervolume.
    """

    objectives: tuple[str, ...]
    worst: Mapping[str, float] = field(default_factory=dict)
    report: str | None = None

    @property
    def name(self) -> str:
        return " x ".join(self.objectives) + (f", reported by {self.report}" if self.report else "")

    def points(self, table: Table) -> np.ndarray:
        """Return the objectives of every network, networks × objectives.

        Raises:
            DataError: the table lacks one, or has values below zero, which is the best that the score knows.
        """
        found = np.stack([table.column(name) for name in self.objectives], axis=1).astype(float)
        for name, least in zip(self.objectives, found.min(axis=0), strict=True):
            if least < 0:
                raise DataError(
                    f"the column '{name}' of the table {table.name} goes below zero ({least:g})",
                    hint="where more is better, write down what is missing: 100 - accuracy instead of -accuracy",
                )
        return found

    def reference(self, table: Table) -> np.ndarray:
        """Return the worst value of each objective that counts."""
        return np.array([self.worst.get(name, float(table.column(name).max())) for name in self.objectives])


class Scores:
    """Scores searches of one case, 0 to 1.

    The score is the share of the hypervolume of the table's own front; with a reported column it is where the reported value
    of the best network lies between the column's worst and its best.

    Raises:
        DataError: nothing in the table counts, or the reported column says nothing.
    """

    def __init__(self, table: Table, case: Case) -> None:
        self.points, self.reference = case.points(table), case.reference(table)
        self.reported = None if case.report is None else table.column(case.report)
        front = self.points[nondominated(self.points)]
        self.whole = self._volume(front)
        if not self.whole > 0:
            raise DataError(
                f"{table.name}: no network lies below the worst values that count", hint="--worst COLUMN=VALUE"
            )
        if self.reported is not None and not np.ptp(self.reported) > 0:
            raise DataError(f"{table.name}: '{case.report}' is the same for all networks", hint="report another column")

    def _volume(self, points: np.ndarray) -> float:
        return hypervolume(points, np.zeros(len(self.reference)), self.reference)

    def of(self, rows: Sequence[int]) -> float:
        """Return the score of the networks that a search evaluated."""
        if self.reported is not None:
            chosen = min(rows, key=lambda row: self.points[row, 0])
            return float((self.reported.max() - self.reported[chosen]) / np.ptp(self.reported))
        return self._volume(self.points[np.unique(rows)]) / self.whole


# --- reading ------------------------------------------------------------------------------------------


def read_tables(folder: str | Path) -> list[Table]:
    """Read every table of a folder, by name; files that hold something else are left out.

    Raises:
        DataError: there is none, or one is broken.
    """
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise DataError(f"no folder {place}", hint="name the folder that holds the tables, see docs/bench.md")
    tables = [table for path in sorted(place.glob("*.npz")) if (table := read_table(path)) is not None]
    if not tables:
        raise DataError(
            f"no benchmark table in {place}", hint="docs/bench.md says which .npz files are read and how to make one"
        )
    return tables


def read_table(path: Path) -> Table | None:
    """Read one table, or return None where the file is of no layout that is known here.

    Raises:
        DataError: the file is broken, or its parts do not fit each other.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            for keys, read in LAYOUTS:
                if keys <= set(data.files):
                    return read(path.stem, data)
    except (OSError, ValueError, KeyError, IndexError, BadZipFile) as error:
        raise DataError(f"{path}: {error}", hint="docs/bench.md describes the layouts") from None
    return None


def _own(name: str, data: Any) -> Table:
    codes, columns, values = data["codes"], [str(c) for c in data["columns"]], np.asarray(data["values"], dtype=float)
    decisions = tuple(str(d) for d in data["decisions"])
    if codes.shape != (len(values), len(decisions)) or values.shape[1] != len(columns):
        raise ValueError(
            f"codes {codes.shape}, decisions ({len(decisions)},), values {values.shape}, columns ({len(columns)},) do not fit"
        )
    ordered = tuple(map(bool, data["ordered"])) if "ordered" in data.files else (False,) * len(decisions)
    known = frozenset(c for c, k in zip(columns, data["known"], strict=True) if k)
    kept = np.isfinite(values).all(axis=1)
    found = {c: values[kept, i] for i, c in enumerate(columns)}
    qualities = [c for c in columns if c not in known]
    cases = tuple(Case((q, c)) for q in qualities for c in columns if c in known)
    return Table(name, decisions, ordered, codes[kept].astype(int), found, known, cases)


def _nasbench201(name: str, data: Any) -> Table:
    sets = [str(s).lower().replace("-", "_") for s in data["datasets"]]
    columns: dict[str, np.ndarray] = {}
    for i, dataset in enumerate(sets):
        columns[f"error_{dataset}"] = 100.0 - data["test_acc_200ep"][:, i]
        columns[f"error12_{dataset}"] = 100.0 - data["val_acc_12ep"][:, i]
    costs = {"params_M": data["params_M"][:, 0], "macs_M": data["flops_M"][:, 0]}
    costs |= {f"ms_{device}": data["latency_ms"][:, i] for i, device in enumerate(data["latency_devices"])}
    cases = (
        Case(("error_cifar100", "ms_raspi4"), {"error_cifar100": 50.0}),
        Case(("error_cifar10", "ms_eyeriss"), {"error_cifar10": 20.0}),
        Case(("error_cifar100", "ms_raspi4", "params_M"), {"error_cifar100": 50.0}),
        Case(("error12_cifar100",), report="error_cifar100"),
    )
    edges = tuple(str(edge) for edge in data["edges"])
    return Table(name, edges, (False,) * len(edges), data["ops"].astype(int), columns | costs, frozenset(costs), cases)


def _accel_nasbench(name: str, data: Any) -> Table:
    arch = data["arch"].reshape(len(data["arch"]), -1)
    codes = np.stack([np.unique(column, return_inverse=True)[1] for column in arch.T], axis=1)
    measured = {str(n): data["perf_mean"][:, i] for i, n in enumerate(data["perf_names"])}
    costs = {"params_M": data["params_M"], "macs_M": data["macs_M"]}
    for column, value in measured.items():
        kind, device = column.split("_", 1)
        costs[f"ms_{device}" if kind == "latency" else f"ms_image_{device}"] = (
            value if kind == "latency" else 1000.0 / value
        )
    columns = {"error": 100.0 - data["val_top1"], **costs}
    _, first = np.unique(codes, axis=0, return_index=True)
    kept = np.sort(first[np.isfinite(np.stack(list(columns.values()))).all(axis=0)[first]])
    decisions = tuple(f"{d}{block}" for block in range(data["arch"].shape[1]) for d in data["arch_dims"])
    cases = (Case(("error", "ms_image_a100", "ms_zcu102")), Case(("error", "ms_image_tpuv3")))
    return Table(
        name, decisions, (True,) * len(decisions), codes[kept], {c: v[kept] for c, v in columns.items()},
        frozenset(costs), cases,
    )  # fmt: skip


LAYOUTS = (
    ({"codes", "decisions", "values", "columns", "known"}, _own),
    (
        {
            "ops",
            "edges",
            "test_acc_200ep",
            "val_acc_12ep",
            "latency_ms",
            "latency_devices",
            "params_M",
            "flops_M",
            "datasets",
        },
        _nasbench201,
    ),
    ({"arch", "arch_dims", "perf_mean", "perf_names", "val_top1", "params_M", "macs_M"}, _accel_nasbench),
)
"""Keys by which a layout is known, and what reads it."""
