from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from archtuna.errors import DataError
from archtuna.tables import Case, Scores, read_table, read_tables


def own(path: Path, **changes: object) -> Path:
    """A table of 3 x 2 x 2 networks, one of which lacks a value; the error falls with the width."""
    codes = np.array([(a, b, c) for a in range(3) for b in range(2) for c in range(2)])
    width = 1.0 + codes[:, 0] + codes[:, 1]
    values = np.stack([10.0 / width + codes[:, 2], width, width**2], axis=1)
    values[3, 0] = np.nan
    content = {
        "codes": codes, "decisions": ["width", "deep", "gate"], "ordered": [True, True, False], "values": values,
        "columns": ["error", "ms", "params"], "known": [False, True, True],
    } | changes  # fmt: skip
    np.savez(path, **content)
    return path


def test_a_table_of_our_own_layout(tmp_path: Path) -> None:
    table = read_table(own(tmp_path / "toy.npz"))
    assert table is not None
    assert (table.name, table.sizes, table.ordered) == ("toy", (3, 2, 2), (True, True, False))
    assert len(table.codes) == 11  # what lacks a value cannot be searched
    assert table.known == {"ms", "params"}
    assert [case.name for case in table.cases] == ["error x ms", "error x params"]
    assert table.column("ms")[table.row((2, 1, 0))] == 4.0


def test_what_is_not_in_a_sample_is_the_nearest_that_is(tmp_path: Path) -> None:
    table = read_table(own(tmp_path / "toy.npz"))
    assert table is not None
    row = table.row((0, 1, 1))
    assert (table.codes[row] != (0, 1, 1)).sum() == 1
    assert table.row((0, 1, 1)) == row


def test_the_score_is_the_share_of_the_whole_front(tmp_path: Path) -> None:
    table = read_table(own(tmp_path / "toy.npz"))
    assert table is not None
    scores = Scores(table, Case(("error", "ms"), {"error": 11.0}))
    best, rows = list(range(len(table.codes))), [table.row((2, 1, 0))]
    assert scores.of(best) == pytest.approx(1.0)
    assert 0.0 <= scores.of(rows) < 1.0
    few = [table.row((a, b, 0)) for a, b in ((0, 0), (1, 0), (2, 0), (2, 1))]
    assert scores.of([*few, few[0]]) == pytest.approx(1.0)  # its front, found twice or not


def test_one_objective_is_scored_by_what_is_reported(tmp_path: Path) -> None:
    table = read_table(own(tmp_path / "toy.npz"))
    assert table is not None
    scores = Scores(table, Case(("error",), report="ms"))
    assert scores.of([table.row((2, 1, 0)), table.row((0, 0, 0))]) == 0.0  # the widest has the least error, the most ms
    assert scores.of([table.row((0, 0, 0))]) == 1.0


@pytest.mark.parametrize(
    ("case", "text"),
    [
        (Case(("error", "ms"), {"error": 0.0}), "no network lies below the worst values that count\nhint: --worst"),
        (Case(("error",), report="same"), "'same' is the same for all networks"),
    ],
)
def test_a_table_in_which_nothing_counts_has_no_score(tmp_path: Path, case: Case, text: str) -> None:
    table = read_table(own(tmp_path / "toy.npz"))
    assert table is not None
    columns = {**table.columns, "same": np.ones(len(table.codes))}
    with pytest.raises(DataError, match=text):
        Scores(replace(table, columns=columns), case)


def test_a_folder_without_tables(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no benchmark table in .*\nhint: docs/bench.md"):
        read_tables(tmp_path)
    np.savez(tmp_path / "pictures.npz", x=np.zeros(3))
    with pytest.raises(DataError, match="no benchmark table"):
        read_tables(tmp_path)
    with pytest.raises(DataError, match="no folder"):
        read_tables(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"decisions": ["width", "deep"]}, r"toy.npz: codes \(12, 3\), decisions \(2,\)"),
        ({"known": [False, True]}, "toy.npz"),
        ({"values": np.zeros((5, 3))}, "do not fit"),
    ],
)
def test_a_table_that_does_not_fit(tmp_path: Path, changes: dict[str, object], text: str) -> None:
    with pytest.raises(DataError, match=text):
        read_table(own(tmp_path / "toy.npz", **changes))


def test_a_broken_file_and_one_with_code_in_it(tmp_path: Path) -> None:
    (tmp_path / "cut.npz").write_bytes(own(tmp_path / "toy.npz").read_bytes()[:300])
    with pytest.raises(DataError, match=r"cut.npz"):
        read_table(tmp_path / "cut.npz")
    own(tmp_path / "code.npz", decisions=np.array([print, print, print], dtype=object))
    with pytest.raises(DataError, match="allow_pickle"):
        read_table(tmp_path / "code.npz")


def test_an_unknown_column_is_answered_with_a_near_one(tmp_path: Path) -> None:
    table = read_table(own(tmp_path / "toy.npz"))
    assert table is not None
    with pytest.raises(DataError, match=r"no column 'eror'\nhint: did you mean 'error'"):
        Case(("eror",)).points(table)


def test_a_column_below_zero_has_no_score(tmp_path: Path) -> None:
    path = own(tmp_path / "toy.npz")
    with np.load(path) as content:
        values = content["values"]
    values[:, 0] = -values[:, 0]
    table = read_table(own(path, values=values, columns=["-accuracy", "ms", "params"]))
    assert table is not None
    with pytest.raises(
        DataError, match=r"'-accuracy' of the table toy goes below zero \(-11\)\nhint: .*100 - accuracy"
    ):
        Scores(table, Case(("-accuracy", "ms")))
    assert Scores(table, Case(("params",), report="-accuracy")).of([0]) >= 0.0, "what is only reported may be"


def nasbench(path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(
        path, ops=rng.integers(0, 5, (30, 6)).astype(np.int8), edges=[f"{i}" for i in range(6)],
        datasets=["cifar10", "cifar100", "ImageNet16-120"], test_acc_200ep=np.full((30, 3), 70.0),
        val_acc_12ep=np.full((30, 3), 60.0), latency_ms=rng.random((30, 2)), latency_devices=["raspi4", "eyeriss"],
        params_M=rng.random((30, 3)), flops_M=rng.random((30, 3)),
    )  # fmt: skip


def test_the_layout_of_nasbench201(tmp_path: Path) -> None:
    nasbench(tmp_path / "n.npz")
    (table,) = read_tables(tmp_path)
    assert set(table.column("error_imagenet16_120")) == {30.0}
    assert {"ms_raspi4", "params_M"} < table.known
    assert len(table.cases) == 4
    for case in table.cases:
        assert case.points(table).shape == (30, len(case.objectives))


def test_the_layout_of_accel_nasbench(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arch = rng.integers(0, 3, (20, 7, 4)).astype(np.int8)
    arch[1] = arch[0]
    measured = rng.random((20, 3)) + 1.0
    measured[2, 0] = np.nan
    np.savez(
        tmp_path / "a.npz", arch=arch, arch_dims=["e", "k", "l", "se"], perf_mean=measured,
        perf_names=["latency_zcu102", "throughput_a100", "throughput_tpuv3"], val_top1=np.full(20, 60.0),
        params_M=rng.random(20), macs_M=rng.random(20),
    )  # fmt: skip
    (table,) = read_tables(tmp_path)
    assert len(table.codes) == 18  # one twice, one not measured
    assert table.column("ms_image_a100")[0] == pytest.approx(1000.0 / measured[0, 1])
    assert table.decisions[:5] == ("e0", "k0", "l0", "se0", "e1")
