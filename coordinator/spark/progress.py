"""What a user sees while a run forms and runs: one line on a terminal, a table in a notebook, a
few lines elsewhere."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from contextlib import suppress
from typing import TextIO

from coordinator.core import diagnosis
from coordinator.core.model import RunPhase, RunView
from coordinator.spark import notebook, views
from coordinator.spark.outlet import Outlet

_PLAIN_INTERVAL = 10.0
"""Seconds between two lines where nothing can be overwritten: a log file."""

_NOTEBOOK_INTERVAL = 0.3
"""Seconds between two pictures of a run at work, in a notebook."""

_PATIENCE = 0.5
"""Seconds that a line of progress waits for a stream that is slow. One that nobody reads costs the
line, and never the run that it tells of."""


class ProgressLine:
    """Shows the state of a run on ``stream``. Thread-safe.

    On a terminal the line is overwritten. A notebook has a table, which is updated in place, where
    no ``stream`` is asked for. Elsewhere a new line is printed when the phase changes,
    and while the run waits for something at most every 10 seconds.
    """

    def __init__(self, name: str, stream: TextIO | None = None) -> None:
        self._display = notebook.Display() if stream is None and notebook.is_running() else None
        stream = stream if stream is not None else sys.stderr
        self._outlet = Outlet(stream)
        self._is_terminal = _is_terminal(stream)
        self._name = name
        self._lock = threading.Condition()
        self._is_halfway = False  # in somebody else's line: what is written now would cut it
        self._is_stuck = False  # so it was the last time, for as long as one waits
        self._shown = ""
        self._shown_phase: RunPhase | None = None
        self._shown_at = float("-inf")
        self._latest: RunView | None = None  # what a notebook shows

    def show(self, run: RunView) -> None:
        """The run as it is now."""
        headline = diagnosis.headline(run, time.time())
        text = f"[{self._name}] {headline}"
        with self._lock:
            if self._display is not None:
                self._draw(run, headline)
            elif not self._is_free():
                return
            elif self._is_terminal:
                self._overwrite(text)
            elif self._is_news(run, text):
                self._print(text)
                self._shown_phase = run.phase

    def say(self, text: str) -> None:
        """A sentence of its own, for instance what is waited for before there is a run."""
        with self._lock:
            if self._is_free():
                self._clear()
                self._print(f"[{self._name}] {text}")

    def print_line(self, line: str) -> None:
        """A line of somebody else's: a member's. The line of progress stays the last one. Waits
        until all of it is written, and keeps nobody else from writing meanwhile."""
        with suppress(OSError, ValueError):
            rest = self._outlet.encoded(f"{line}\n")
            try:
                with self._lock:
                    self._clear()
                    rest = self._write_line(rest)
                while rest and self._outlet.wait():
                    with self._lock:
                        rest = self._write_line(rest)
            finally:
                with self._lock:
                    self._is_halfway = False
                    self._lock.notify_all()

    def _write_line(self, rest: bytes) -> bytes:
        rest = self._outlet.write(rest)
        self._is_halfway = bool(rest)
        if self._is_terminal and self._shown and not rest:
            self._write(self._shown)
        return rest

    def _is_free(self) -> bool:
        """Waits for the end of a line that is half written, unless that was in vain before."""
        patience = 0.0 if self._is_stuck else _PATIENCE
        self._is_stuck = not self._lock.wait_for(lambda: not self._is_halfway, patience)
        return not self._is_stuck

    def close(self) -> None:
        """Leaves the last line standing."""
        with self._lock:
            if self._is_terminal and self._shown and self._is_free():
                self._write("\n")
                self._shown = ""

    def _draw(self, run: RunView | None, headline: str, *, is_news: bool = False) -> None:
        """In a notebook: at once when the phase changes, else not more often than is read."""
        if self._display is None or run is None:
            return
        self._latest = run
        is_news = is_news or run.phase is not RunPhase.RUNNING or run.phase is not self._shown_phase
        if is_news or time.monotonic() - self._shown_at >= _NOTEBOOK_INTERVAL:
            self._display.show(views.run(run, headline), f"[{self._name}] {headline}")
            self._shown_at, self._shown_phase = time.monotonic(), run.phase

    def _is_news(self, run: RunView, text: str) -> bool:
        if text == self._shown:
            return False
        due = time.monotonic() - self._shown_at >= _PLAIN_INTERVAL
        return run.phase is not self._shown_phase or due

    def _overwrite(self, text: str) -> None:
        # Only what is in one row can be overwritten; the last column would begin the next one.
        text = " ".join(text.split())[: max(20, shutil.get_terminal_size().columns - 1)]
        if text != self._shown:
            self._clear()
            self._write(text)
            self._shown = text

    def _clear(self) -> None:
        if self._is_terminal and self._shown:
            self._write("\r\x1b[2K")

    def _print(self, text: str) -> None:
        self._write(text + "\n")
        self._shown = "" if self._is_terminal else text
        self._shown_at = time.monotonic()

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError):  # a closed terminal must not end a training
            self._outlet.write(self._outlet.encoded(text), _PATIENCE)


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except (AttributeError, ValueError):  # no stream of Python's, or a closed one
        return False
