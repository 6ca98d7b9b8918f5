"""What members print, followed by the driver: lines for a loop, or printed on standard error."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

from coordinator import log_following
from coordinator.core.errors import TfleaseError
from coordinator.core.log_values import LogChunk
from coordinator.core.model import IncarnationId, MemberId, RunView
from coordinator.spark.outlet import Outlet
from coordinator.spark.session import RunSession

JOIN_TIMEOUT = 5.0
"""Seconds to print what is left when the cluster is shut down: a standard error that nobody reads
must not hold that up."""


Read = Callable[[MemberId, int, int | None], LogChunk]
"""A piece of a member's log: so many bytes, from an offset on."""


_PICTURES = 16
"""That are kept for a reader who looks at none for a while."""


class DriversLogs:
    """The run as its driver follows it. A ``log_following.LogSource``.

    How members have ended is kept until it was looked at, also while whoever reads the lines does
    something else: the next attempt may be there a moment later, and nothing tells how the last one
    ended then. Of very many ends the latest are kept.
    """

    def __init__(self, session: RunSession, read: Read) -> None:
        self._session = session
        self._read = read
        self._pictures: deque[RunView] = deque(maxlen=_PICTURES)
        self._ended: dict[MemberId, IncarnationId | None] = {}
        self._pictures.appendleft(session.tell(self))

    def saw(self, run: RunView) -> None:
        """The session has a new picture."""
        news = [
            each
            for each in run.members
            if each.phase.has_ended and self._ended.get(each.id) != each.incarnation
        ]
        self._ended.update((each.id, each.incarnation) for each in news)
        if news and not run.phase.is_terminal:  # which is the last one, and stays
            self._pictures.append(replace(run, members=tuple(news)))

    def view(self) -> RunView:
        return self._pictures.popleft() if self._pictures else self._session.view

    def read(self, member: MemberId, offset: int | None, max_bytes: int) -> LogChunk:
        """Raises LogUnavailable, LimitExceeded, CoordinatorUnavailable."""
        return self._read(member, max_bytes, offset)

    def lost(self) -> str:
        return "" if self._pictures else str(self._session.lost or "")

    def wait(self, seconds: float) -> object:
        return self._session.wait_for(
            lambda run: bool(self._pictures) or run.phase.is_terminal, seconds
        )


def lines(session: RunSession, read: Read, member: str | None = None) -> Iterator[str]:
    """From the first line on; ends with the run. Raises InvalidRun."""
    return log_following.follow(DriversLogs(session, read), member)


class LogPrinter:
    """Prints lines as they come, on a thread of its own. A standard error that nobody reads stops
    this thread and nothing else (E4)."""

    def __init__(self, lines: Iterator[str], write: Callable[[str], object] | None = None) -> None:
        """``write`` takes a line without its end; default: to standard error."""
        self._lines = lines
        self._write = write or print_line
        self._thread = threading.Thread(target=self._print, name="tflease-logs", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self, timeout: float = JOIN_TIMEOUT) -> bool:
        """Once the run has ended: waits until all was printed. False when it was not in time."""
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _print(self) -> None:
        try:
            for line in self._lines:
                self._write(line)
        except TfleaseError as error:
            self._write(f"[tflease] members' logs are not printed any more: {error}")


def print_line(line: str) -> None:
    """On standard error; waits until all of it is written, with no lock that others need. One that
    is closed, or takes no such characters, harms nobody."""
    outlet = Outlet(sys.stderr)
    with suppress(AttributeError, OSError, ValueError):
        rest = outlet.write(outlet.encoded(f"{line}\n"))
        while rest and outlet.wait():
            rest = outlet.write(rest)
