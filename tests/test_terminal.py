from __future__ import annotations

import io
import itertools
from types import SimpleNamespace

import pytest

from archtuna.terminal import (
    ENDLESS,
    Column,
    Screen,
    amount,
    bar,
    can_redraw,
    flowing,
    paragraph,
    screen_of,
    shortened,
    sparkline,
    speaks_unicode,
    spread_over,
    table,
    value_of,
)

ASCII = Screen(unicode=False)


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0"), (7, "7"), (812, "812"), (999.7, "1k"), (4_210_998, "4.21M"), (412_345, "412k"), (999_600, "1M"), (2.5e9, "2.5G"), (7e13, "70,000G")],
)  # fmt: skip
def test_counts_have_three_digits_and_the_units_of_limits(value, said):
    assert amount(value) == said


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("f1", 0.81234, "0.8123"), ("loss", 2.0, "2.0000"), ("loss", 12345.6, "1.235e+04"), ("params", 34_882, "34.9k"),
        ("latency_ms", 3.1, "3.1 ms"), ("latency_ms@pi4", 1234.5, "1,230 ms"), ("energy_mj", 0.0123, "0.0123 mJ"),
        ("size_mb", 15.98, "16 MB"),
    ],
)  # fmt: skip
def test_values_have_their_units(name, value, said):
    assert value_of(name, value) == said


def test_a_long_line_keeps_both_ends_and_fits():
    path = "archtuna search, /very/long/path/to/where/runs/are/photos"
    for width in (10, 40, 56):
        found = shortened(path, Screen(width))
        assert len(found) == width
        assert found.endswith("tos")
        assert "…" in found
    assert shortened(path, Screen(80)) == path
    assert shortened(path, Screen(40, unicode=False)).isascii()


def test_pieces_are_never_cut_between_lines():
    pieces = [f"{n} of something" for n in range(9)]
    for width in (16, 40, 80):
        lines = flowing(pieces, Screen(width))
        assert max(map(len, lines)) <= width
        assert ", ".join(lines) == ", ".join(pieces)


def test_a_paragraph_says_that_it_goes_on():
    text = "many words " * 40
    lines = paragraph(text, Screen(40))
    assert (len(lines), max(map(len, lines)) <= 40, lines[-1][-1]) == (2, True, "…")
    assert paragraph("few", ENDLESS) == ["few"]


def test_bars_are_as_long_as_the_work_is_done():
    assert bar(0.5, 8, Screen()) == "━━━━╌╌╌╌"
    assert bar(0.25, 8, ASCII) == "##......"
    assert (bar(0, 4, ASCII), bar(1, 4, ASCII), bar(7, 4, ASCII)) == ("....", "####", "####")


def test_a_sparkline_goes_from_the_lowest_to_the_highest():
    assert sparkline([0.1, 0.2, 0.8], 10, Screen()) == "▁▂█"
    assert sparkline([0.1, 0.2, 0.8], 10, ASCII) == ".:@"
    assert sparkline([3.0, 3.0], 10, Screen()) == "▁▁"
    assert sparkline([], 10, Screen()) == ""
    long = sparkline(list(range(1000)), 8, Screen())
    assert long == "▁▂▃▄▅▆▇█"
    assert sparkline([0.0] * 999 + [1.0], 5, Screen()) == "▁▁▁▁█"


@pytest.mark.parametrize(("count", "most"), [(3, 5), (30, 12), (5000, 20), (13, 12), (7, 3)])
def test_rows_that_are_shown_are_spread_and_keep_both_ends_and_the_knee(count, most):
    for knee in range(0, count, max(1, count // 50)):
        shown = spread_over(count, most, keep=(knee,))
        assert len(shown) == min(count, most)
        assert {0, count - 1, knee} <= set(shown)
        assert shown == sorted(shown)
        gaps = [b - a for a, b in itertools.pairwise(shown)]
        assert max(gaps, default=0) <= 2.5 * count / most + 1


COLUMNS = [
    Column("trial", ["1", "22*"]),
    Column("latency_ms (min)", ["3.1 ms", "12 ms"], short="latency_ms"),
    Column("f1 (max)", ["0.8123", "0.9"], short="f1"),
    Column("network", ["8 blocks", "12 blocks"], left=True, extra=True),
]


def test_a_table_gives_way_step_by_step():
    wide = table(COLUMNS, Screen(80))
    assert wide[0] == "trial  latency_ms (min)  f1 (max)  network"
    assert wide[2] == "  22*             12 ms       0.9  12 blocks"
    assert table(COLUMNS, Screen(34))[0] == "trial  latency_ms (min)  f1 (max)"
    assert table(COLUMNS, Screen(30))[0] == "trial  latency_ms      f1"
    assert table(COLUMNS, Screen(22))[0] == "trial  laten…      f1"
    assert table(COLUMNS, Screen(14)) == [
        "trial  laten…",
        "    1  3.1 ms",
        "  22*   12 ms",
        "(1 more column in a wider window)",
    ]
    assert "more" not in "".join(table(COLUMNS, Screen(22)))


def test_what_a_terminal_is(monkeypatch):
    terminal = SimpleNamespace(isatty=lambda: True, encoding="utf-8")
    assert can_redraw(terminal, {"TERM": "xterm"})
    assert not can_redraw(terminal, {"TERM": "dumb"})
    assert not can_redraw(terminal, {"CI": "true"})
    assert not can_redraw(io.StringIO(), {})
    assert screen_of(io.StringIO()).width == ENDLESS.width


@pytest.mark.parametrize(
    ("environment", "unicode"),
    [
        ({"LANG": "C"}, False), ({}, False), ({"LANG": "de_DE.UTF-8"}, True), ({"LC_ALL": "C", "LANG": "de_DE.UTF-8"}, False),
        ({"LC_ALL": "C.UTF-8"}, True), ({"LC_CTYPE": "C.UTF-8", "LANG": "C"}, False), ({"LC_CTYPE": "UTF-8"}, True),
        ({"LANG": "de_DE.ISO-8859-1"}, False), ({"LANG": "C", "PYTHONUTF8": "1"}, True), ({"PYTHONIOENCODING": "utf-8"}, True),
        ({"LC_CTYPE": "C.UTF-8", "LANG": "en_US.utf8"}, True),
    ],
)  # fmt: skip
def test_only_a_locale_that_says_so_gets_more_than_ascii(environment, unicode):
    assert speaks_unicode(SimpleNamespace(encoding="utf-8"), environment) is unicode
    assert not speaks_unicode(SimpleNamespace(encoding="ascii"), environment)
