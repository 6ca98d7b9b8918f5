"""The task's connection to its executor's JVM: whether Spark still wants what this task does.

Spark ends the tasks that it cancels with SIGKILL to their Python worker, two seconds after the
cancel. It leaves that out when the JVM's side of the task is over by then: it closes the connection
and counts on the worker to run into that, which a worker that waits for a member never does. A
speculative copy that was called off as it started lived on that way, with agent and process.
"""

from __future__ import annotations

import os
import select
import socket
import stat
from contextlib import suppress
from pathlib import Path


class JvmConnection:
    """The socket to the JVM, which is pyspark's: it is only looked at."""

    def __init__(self, fd: int) -> None:
        self._poll = select.poll()
        self._poll.register(fd, select.POLLRDHUP)  # POLLHUP and POLLERR are always told

    @classmethod
    def of_this_worker(cls) -> JvmConnection | None:
        """None when there is none. pyspark.daemon hands it over at the fork, so its descriptor is
        lower than that of any socket that a user's function has opened since."""
        fd = _lowest_connection()
        return None if fd is None else cls(fd)

    @property
    def is_closed(self) -> bool:
        """True once the JVM has closed its end: nobody is left to take what the task returns."""
        gone = select.POLLRDHUP | select.POLLHUP | select.POLLERR
        return any(events & gone for _, events in self._poll.poll(0))


def _lowest_connection() -> int | None:
    with suppress(OSError):
        for fd in sorted(int(entry.name) for entry in Path("/proc/self/fd").iterdir()):
            if _is_connected(fd):
                return fd
    return None


def _is_connected(fd: int) -> bool:
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return False
        with socket.socket(fileno=os.dup(fd)) as same:
            same.getpeername()
    except OSError:
        return False
    return True
