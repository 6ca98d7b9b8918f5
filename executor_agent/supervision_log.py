"""Where supervision's lines go: the executor's stderr, and ``supervision.log`` beside the member's.

Owns: the writing, which never fails and never waits for whoever reads stderr. That is a pipe to a
JVM, which may be frozen, and a full pipe would hold its writer for as long. Must not know what the
lines say.
"""

from __future__ import annotations

import os
import select
import socket
import stat
import time
from collections import deque
from contextlib import suppress

from executor_agent.core.story import SUPERVISION_LOG, Line, formatted

_MOST_KEPT = 1000  # lines: a disk that does not answer must not cost memory without end


class SupervisionLog:
    """One process's part of its member's story. The correlation id is the member's marker."""

    def __init__(self, directory: str, marker: str, who: str) -> None:
        self._path = os.path.join(directory, SUPERVISION_LOG)
        self._marker = marker
        self._who = who
        self._kept: deque[bytes] = deque(maxlen=_MOST_KEPT)

    def tell(self, line: Line) -> None:
        """To stderr at once, unless it is routine; to the file with the next `flush`."""
        for text in line.text.splitlines():
            formed = formatted(_stamp(time.time()), self._marker, self._who, text)
            self._kept.append(formed)
            if not line.routine:
                write_to_stderr(formed)

    def say(self, text: str) -> None:
        """`tell` for what people should see."""
        self.tell(Line(text))

    def note(self, text: str) -> None:
        """`tell` for what they need only when they look."""
        self.tell(Line(text, routine=True))

    def flush(self) -> None:
        """Append what is kept to the file. A disk may be slow: to be called where that is no harm.
        What it refuses is lost. May run in several threads."""
        if not self._kept:
            return
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with suppress(OSError, IndexError):
            fd = os.open(self._path, flags, 0o600)
            try:
                while True:
                    os.write(fd, self._kept.popleft())  # one write a line: others append, too
            finally:
                os.close(fd)


def first_line(marker: str, who: str) -> bytes:
    """What stands first in a log of somebody else's: whose it is, and where it ran."""
    text = f"pid {os.getpid()} on {os.uname().nodename}"
    return formatted(_stamp(time.time()), marker, who, text)


def write_to_stderr(line: bytes) -> None:
    """Write it or drop it, but do not wait. At most `LONGEST_LINE` bytes."""
    with suppress(OSError):
        mode = os.fstat(2).st_mode
        if stat.S_ISSOCK(mode):
            with socket.socket(fileno=os.dup(2)) as stderr:
                stderr.send(line, socket.MSG_DONTWAIT)
            return
        if not (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
            _write_if_ready(line)
            return
        try:
            # A description of our own: O_NONBLOCK on the one we inherited would hold for all who
            # share it, the executor's JVM included.
            fd = os.open(
                "/proc/self/fd/2", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
            )
        except PermissionError:  # made by another user
            _write_if_ready(line)
            return
        try:
            os.write(fd, line)  # below PIPE_BUF: all of it, or EAGAIN
        finally:
            os.close(fd)


def _write_if_ready(line: bytes) -> None:
    """Next best: another writer may fill a pipe between the look and the write."""
    poll = select.poll()
    poll.register(2, select.POLLOUT)
    if any(events & select.POLLOUT for _, events in poll.poll(0)):
        os.write(2, line)


def label_of(pid: int) -> str:
    """A process for people to read: "457 sleep (state D)". Zombies have a name, too."""
    found = {}
    with suppress(OSError), open(f"/proc/{pid}/status", errors="replace") as file:
        for row in file:
            name, _, value = row.partition(":")
            if name in ("Name", "State"):
                found[name] = value.strip()
    if "State" not in found:
        return f"{pid} (gone)"
    state = found["State"][:1]
    return f"{pid} {found['Name']}" + ("" if state in "ZX" else f" (state {state})")


def _stamp(at: float) -> str:
    """UTC, milliseconds."""
    milliseconds = int(at * 1000)
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(milliseconds // 1000))
    return f"{seconds}.{milliseconds % 1000:03d}Z"
