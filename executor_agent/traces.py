"""By what a member's processes are recognised once their sentinel is gone.

Owns: the search through /proc. Two kinds of evidence, each inherited and nothing a stranger has:
the marker in the environment, and a descriptor that only the member was given (its log, open for
writing; the reading end of its dead-man pipe), which also finds who has cleared its environment.
Somebody who merely reads the log is no descendant. Must not decide whom to kill.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass

from executor_agent.core.supervision import MARKER_VARIABLE
from executor_agent.processes import ProcessIdentity, identity_of, is_running, living_threads

_PREFIX = f"{MARKER_VARIABLE}=".encode()


@dataclass(frozen=True, slots=True)
class Trace:
    """What one member has left. ``log``: the path of its log file. ``pipe``: the inode of D1.
    ``since``: nobody who started before that is its (seconds since boot). ``known``: who was
    written down as its."""

    marker: str
    log: str
    pipe: int | None = None
    since: float = 0.0
    known: frozenset[ProcessIdentity] = frozenset()


@dataclass(frozen=True, slots=True)
class Found:
    """A process that belongs to a member, and the evidence for it in words."""

    identity: ProcessIdentity
    marker: str
    evidence: str


def search(traces: Collection[Trace]) -> list[Found]:
    """Our user's processes, except ourselves and the dead, that carry one of these traces. Costs
    some milliseconds for a hundred processes."""
    wanted = _Wanted(traces)
    found = []
    for pid in _our_pids():
        identity = identity_of(pid)
        if identity is None:
            continue
        evidence = wanted.evidence(identity)
        # Nobody else has had the number since, or what we have read is another's.
        if evidence is not None and is_running(identity):
            found.append(Found(identity, *evidence))
    return found


def marked() -> list[Found]:
    """Everybody of our user's, except ourselves and the dead, that carries any marker."""
    found = []
    for pid in _our_pids():
        identity, marker = identity_of(pid), marker_of(pid)
        if identity is not None and marker is not None and is_running(identity):
            found.append(Found(identity, marker, "marker"))
    return found


def marker_of(pid: int) -> str | None:
    """The marker with which this process was started; None also when it cannot be read."""
    with suppress(OSError), open(f"{_view(pid)}/environ", "rb") as file:
        for entry in file.read().split(b"\0"):
            if entry.startswith(_PREFIX):
                return os.fsdecode(entry[len(_PREFIX) :])
    return None


class _Wanted:
    """Traces, by what a process is asked for: one look at it does for all of them."""

    def __init__(self, traces: Collection[Trace]) -> None:
        self._known = {who: trace.marker for trace in traces for who in trace.known}
        self._markers = {trace.marker for trace in traces}
        # The kernel names a file by its real path, and says so when it has been removed.
        logs = [(os.path.realpath(trace.log), trace) for trace in traces if trace.log]
        self._logs = {name: trace for log, trace in logs for name in (log, f"{log} (deleted)")}
        piped = (trace for trace in traces if trace.pipe is not None)
        self._pipes = {f"pipe:[{trace.pipe}]": trace for trace in piped}
        self._since = min((trace.since for trace in traces), default=0.0)

    def evidence(self, identity: ProcessIdentity) -> tuple[str, str] | None:
        """Whose it is, and why we say so."""
        if identity in self._known:
            return self._known[identity], "claimed"
        marker = marker_of(identity.pid)
        if marker is not None:
            return (marker, "marker") if marker in self._markers else None
        if identity.create_time < self._since or not (self._logs or self._pipes):
            return None
        for target, descriptor in _descriptors(identity.pid):
            log, pipe = self._logs.get(target), self._pipes.get(target)
            if log is None and pipe is None:
                continue
            reads, writes = _access(descriptor)
            if log is not None and writes and identity.create_time >= log.since:
                return log.marker, "writes to its log"
            if pipe is not None and reads and not writes and identity.create_time >= pipe.since:
                return pipe.marker, "holds its pipe"
        return None


def _descriptors(pid: int) -> Iterator[tuple[str, str]]:
    """What is open, and where the kernel tells more about the descriptor."""
    view = _view(pid)
    with suppress(OSError):  # gone meanwhile, or not ours to look at
        for name in os.listdir(f"{view}/fd"):
            with suppress(OSError):
                yield os.readlink(f"{view}/fd/{name}"), f"{view}/fdinfo/{name}"


def _access(descriptor: str) -> tuple[bool, bool]:
    """Whether it is open for reading, and for writing. The mode of the link in /proc says so on
    Linux, but not on gVisor."""
    with suppress(OSError, ValueError), open(descriptor) as file:
        for line in file:
            name, _, value = line.partition(":")
            if name == "flags":
                mode = int(value, 8) & os.O_ACCMODE
                return mode != os.O_WRONLY, mode != os.O_RDONLY
    return False, False


def _view(pid: int) -> str:
    """Where /proc shows what the process has: when its main thread has ended (pthread_exit), the
    others still have it."""
    for thread in living_threads(pid):
        return f"/proc/{pid}/task/{thread}"
    return f"/proc/{pid}"


def _our_pids() -> Iterator[int]:
    uid, me = os.geteuid(), os.getpid()
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) != me:
            with suppress(OSError):
                if os.stat(f"/proc/{name}").st_uid == uid:
                    yield int(name)
