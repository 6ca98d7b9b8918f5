"""What a user sees while members are fed: one line, as while they form and run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from coordinator.core.model import RunPhase, RunView
from coordinator.spark.progress import ProgressLine

PLAIN_INTERVAL = 10.0
"""Seconds between two lines where nothing can be overwritten."""

_RATE_SPAN = 5.0
"""Seconds over which rows per second are taken: what is fed now, not since the beginning."""


class FeedLine(ProgressLine):
    """A run's line of progress that also shows what is fed, in place of the run's own news while it
    is at work. ``show`` goes on to tell of trouble."""

    _fed = ""

    def show(self, run: RunView) -> None:
        is_restarting = run.phase in (RunPhase.RESTARTING, RunPhase.FORMING)
        if not self._fed or is_restarting or run.failure is not None or run.phase.is_terminal:
            super().show(run)
        else:
            with self._lock:  # a notebook shows both
                self._draw(run, self._fed)

    def feed(self, text: str, *, is_news: bool) -> None:
        """``is_news``: to be told at once where lines cannot be overwritten."""
        with self._lock:
            self._fed, text = text, f"[{self._name}] {text}"
            if self._display is not None:
                self._draw(self._latest, self._fed, is_news=is_news)
            elif self._is_terminal:
                self._overwrite(text)
            elif is_news or self._is_due(text):
                self._print(text)

    def fed(self) -> None:
        """The run's own news again."""
        with self._lock:
            self._fed = ""

    def _is_due(self, text: str) -> bool:
        return text != self._shown and time.monotonic() - self._shown_at >= PLAIN_INTERVAL


class FeedProgress:
    """One train's progress, from counters to text."""

    def __init__(
        self,
        line: ProgressLine | None,
        feed: str,
        epochs: int | None,
        workers: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._line = line if isinstance(line, FeedLine) else None
        self._feed = feed
        self._epochs = epochs
        self._workers = workers
        self._clock = clock
        self._lock = threading.Lock()
        self._epoch: int | None = None
        self._seen: list[tuple[float, int]] = []

    def show(self, epoch: int, rows: int) -> None:
        """``rows``: that have arrived in this train."""
        with self._lock:
            is_news, self._epoch = epoch != self._epoch, epoch
            now = self._clock()
            recent = [each for each in self._seen if now - each[0] <= _RATE_SPAN]
            self._seen = [*(recent or self._seen[-1:]), (now, rows)]
            text = self._text(epoch, rows)
        if self._line is not None:
            self._line.feed(text, is_news=is_news)

    def _text(self, epoch: int, rows: int) -> str:
        number = f"{epoch}" if self._epochs is None else f"{epoch}/{self._epochs}"
        (began_at, began_rows), (ended_at, ended_rows) = self._seen[0], self._seen[-1]
        seconds = ended_at - began_at
        rate = f", {(ended_rows - began_rows) / seconds:,.0f} rows/s" if seconds > 0 else ""
        workers = f"{self._workers} worker{'' if self._workers == 1 else 's'}"
        return f"feeding {self._feed}: epoch {number}, {rows:,} rows{rate}, {workers}"

    def close(self) -> None:
        """The run's own news again."""
        if self._line is not None:
            self._line.fed()
