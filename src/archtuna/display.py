"""Lines that a terminal shows and redraws while they change, whatever becomes of its window."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from archtuna.terminal import Screen, speaks_unicode

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

# Cyan and yellow are told apart by everybody; beside its colour each has a sign or a word of its own.
STYLES = (
    (r"^(hypervolume|front|  ?worker|worker)\b", "bold"),
    (r"[━▁▂▃▄▅▆▇█]+|#{2,}", "cyan"),
    (r"^ *\d+\* .*$", "bold yellow"),
    (r"\* knee point|\b(stale|failed|died|waits)\b", "bold yellow"),
    (r"^\(?(and )?\d+ more .*$|╌+", "dim"),
)
"""What is drawn how, by regular expression; ``NO_COLOR`` leaves weights and takes colours."""

REDRAWS = 4
"""A second."""


class Display:
    """Shows lines on a terminal, redraws them while they change, and clears them away in the end; a context manager.

    Args:
        lines: returns what is to be seen now on a screen.
        console: of the terminal.
    """

    def __init__(self, lines: Callable[[Screen], Sequence[str]], console: Console) -> None:
        self.lines, self.console = lines, console
        self._unicode = speaks_unicode(console.file)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._redraw_often, daemon=True)
        self._size = console.size
        self._live = self._new()

    def render(self) -> Text:
        """Return what is to be seen now."""
        return styled(self.lines(Screen(self.console.width, self.console.height, self._unicode)))

    def redraw(self) -> None:
        """Draw what is to be seen now; a window of another size is drawn from its top.

        Terminals break lines anew when their window becomes narrower, so where the last picture began is not known then.
        """
        if self.console.size != self._size:
            from rich.control import Control

            self._size = self.console.size
            self._live.stop()
            self.console.control(Control.clear(), Control.home())
            self._live = self._new()
            self._live.start()
        self._live.refresh()

    def _new(self) -> Live:
        from rich.live import Live

        return Live(get_renderable=self.render, console=self.console, auto_refresh=False, transient=True)

    def _redraw_often(self) -> None:
        while not self._ended.wait(1 / REDRAWS):
            self.redraw()

    def __enter__(self) -> Display:
        self._live.start(refresh=True)
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._ended.set()
        self._thread.join()
        self._live.stop()


def styled(lines: Sequence[str]) -> Text:
    """Return lines with their styles, the first as the title; none is broken or cut by the terminal."""
    from rich.text import Text

    text = Text(no_wrap=True, overflow="crop")
    for i, line in enumerate(lines):
        one = Text(line, style="bold" if i == 0 else "")
        for pattern, style in STYLES:
            one.highlight_regex(pattern, style)
        text.append_text(one).append("\n" if i < len(lines) - 1 else "")
    return text
