"""What members print, followed by the driver: lines for a loop, or printed on standard error."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator

from coordinator import log_following
from coordinator.core.errors import TfleaseError
from coordinator.core.log_values import LogChunk
from coordinator.core.model import IncarnationId, MemberId, RunView
from coordinator.spark.session import RunSession

JOIN_TIMEOUT = 5.0
"""Seconds to print what is left when the cluster is shut down: a standard error that nobody reads
must not hold that up."""


Read = Callable[[MemberId, int, int | None], LogChunk]
"""A piece of a member's log: so many bytes, from an offset on."""


_PICTURES = 16


class DriversLogs:
    """The run as its driver follows it. A ``log_following.LogSource``.

    Pictures in which a member has just ended are kept until they were looked at: the next attempt
    may be there a moment later, and nothing tells how the last one ended then.
    """

    def __init__(self, session: RunSession, read: Read) -> None:
        self._session = session
        self._read = read
        self._pictures: deque[RunView] = deque(maxlen=_PICTURES)
        self._ended: dict[MemberId, IncarnationId | None] = {}

    def view(self) -> RunView:
        return self._pictures.popleft() if self._pictures else self._session.view

    def read(self, member: MemberId, offset: int | None, max_bytes: int) -> LogChunk:
        """Raises LogUnavailable, LimitExceeded, CoordinatorUnavailable."""
        return self._read(member, max_bytes, offset)

    def lost(self) -> str:
        return "" if self._pictures else str(self._session.lost or "")

    def wait(self, seconds: float) -> object:
        return self._session.wait_for(self._is_worth_a_look, seconds)

    def _is_worth_a_look(self, run: RunView) -> bool:
        ended = {each.id: each.incarnation for each in run.members if each.phase.has_ended}
        if any(self._ended.get(member) != attempt for member, attempt in ended.items()):
            self._pictures.append(run)
        self._ended.update(ended)
        return bool(self._pictures) or run.phase.is_terminal


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
    """On standard error. One that is closed, or takes no such characters, harms nobody."""
    stream = sys.stderr
    try:
        stream.write(f"{line}\n")
        stream.flush()
    except (AttributeError, OSError, ValueError):
        pass
