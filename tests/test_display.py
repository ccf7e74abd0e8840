from __future__ import annotations

import io
import re
import sys
import time

import pytest
from rich.console import Console

from archtuna.display import Display, styled


class Window(Console):
    """A terminal whose window is resized by whoever holds it."""

    def __init__(self, width: int, height: int, **options) -> None:
        super().__init__(file=io.StringIO(), force_terminal=True, width=width, height=height, _environ={}, **options)

    def resize(self, width: int, height: int) -> None:
        self.size = (width, height)

    def written(self) -> str:
        return self.file.getvalue()


def lines(screen):
    return [f"{screen.width}x{screen.height}", "worker", "━━━╌╌", "   3*  0.9"]


def test_it_draws_for_the_window_and_clears_itself_away_in_the_end():
    window = Window(80, 24)
    with Display(lines, window):
        assert "80x24" in window.written()
        assert "\x1b[?25l" in window.written()
    end = window.written()
    assert end.rindex("\x1b[?25h") > end.rindex("\x1b[?25l"), "the cursor is back"
    assert end.endswith("\x1b[1A\x1b[2K"), "what was drawn is gone"


def test_another_window_is_drawn_from_its_top():
    window = Window(80, 24)
    with Display(lines, window) as display:
        before = len(window.written())
        window.resize(40, 10)
        display.redraw()
        new = window.written()[before:]
        assert new.index("\x1b[2J\x1b[H") < new.rindex("40x10")
        after = len(window.written())
        display.redraw()
        assert "\x1b[2J" not in window.written()[after:]


def test_what_is_printed_meanwhile_stands_above():
    window = Window(80, 24)
    with Display(lines, window):
        print("a note", file=sys.stderr)
    written = window.written()
    assert "a note" in written
    assert written.rindex("80x24") > written.index("a note")


def test_it_goes_on_drawing_while_lines_change():
    window, counted = Window(80, 24), iter(range(1000))
    with Display(lambda screen: [f"picture {next(counted)}"], window):
        deadline = time.monotonic() + 10
        while "picture 3" not in window.written() and time.monotonic() < deadline:
            time.sleep(0.05)
    assert "picture 3" in window.written()


def test_an_error_in_between_gives_the_cursor_back():
    window = Window(80, 24)
    with pytest.raises(KeyboardInterrupt), Display(lines, window):
        raise KeyboardInterrupt
    assert window.written().rindex("\x1b[?25h") > window.written().rindex("\x1b[?25l")


def test_colours_are_left_out_where_nobody_wants_them_and_say_nothing_alone():
    def drawn(**options):
        window = Window(80, 24, **options)
        window.print(styled(lines(Window(80, 24))))
        return window.written()

    def without(text):
        return re.sub(r"\x1b\[[\d;]*m", "", text)

    assert "\x1b[36m" in drawn(color_system="standard")
    assert not re.search(r"\x1b\[[\d;]*3\d", drawn(no_color=True, color_system="standard"))
    assert without(drawn(color_system="standard")) == without(drawn(no_color=True))
