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
import struct
from contextlib import suppress
from itertools import islice
from pathlib import Path

from executor_agent.processes import ProcessIdentity, identity_of, name_of

_CREDENTIALS = struct.calcsize("3i")


class JvmConnection:
    """The socket to the JVM, which is pyspark's: it is only looked at."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLRDHUP)  # POLLHUP and POLLERR are always told

    @classmethod
    def of_this_worker(cls) -> JvmConnection | None:
        """None when there is none. pyspark.daemon hands it over at the fork, so its descriptor is
        lower than that of any socket that a user's function has opened since; but the daemon's own
        may be lower still (a tracer's, a remote log's), which do not lead to a JVM."""
        found = [cls(fd) for fd in _connections()]
        if len(found) > 1:
            peers = ((each, each.peer()) for each in found)
            jvms = (each for each, who in peers if who and name_of(who.pid) == "java")
            return next(jvms, found[0])
        return found[0] if found else None

    @property
    def is_closed(self) -> bool:
        """True once the JVM has closed its end: nobody is left to take what the task returns."""
        gone = select.POLLRDHUP | select.POLLHUP | select.POLLERR
        return any(events & gone for _, events in self._poll.poll(0))

    def peer(self) -> ProcessIdentity | None:
        """The JVM itself; None where it cannot be told. For a worker whose daemon was killed: Spark
        uses it again, and nothing above it says any more to which executor it belongs."""
        with suppress(OSError), socket.socket(fileno=os.dup(self._fd)) as same:
            if same.family == socket.AF_UNIX:
                credentials = same.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS)
                return identity_of(struct.unpack("3i", credentials)[0])
            inode = _inode_of(same.getpeername()[1], same.getsockname()[1])
            pid = None if inode is None else _holder_of(f"socket:[{inode}]")
            return None if pid is None else identity_of(pid)
        return None


def _inode_of(local_port: int, remote_port: int) -> str | None:
    """Of a TCP connection on this machine, both ends of which are in the kernel's table."""
    for table in ("tcp", "tcp6"):
        with suppress(OSError), open(f"/proc/self/net/{table}") as file:
            for fields in (line.split() for line in islice(file, 1, None)):
                ends = tuple(int(end.rpartition(":")[2], 16) for end in fields[1:3])
                if ends == (local_port, remote_port) and fields[9] != "0":
                    return fields[9]
    return None


def _holder_of(target: str) -> int | None:
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError):
            folder = f"/proc/{name}/fd"
            for fd in os.listdir(folder):
                if os.readlink(f"{folder}/{fd}") == target:
                    return int(name)
    return None


def _connections() -> list[int]:
    """Lowest first."""
    try:
        descriptors = sorted(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
    except OSError:
        return []
    return [fd for fd in descriptors if _is_connected(fd)]


def _is_connected(fd: int) -> bool:
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return False
        with socket.socket(fileno=os.dup(fd)) as same:
            same.getpeername()
    except OSError:
        return False
    return True
