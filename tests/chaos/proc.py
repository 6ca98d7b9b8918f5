"""What runs on this machine, read from /proc and from nothing else.

The matrix judges the product with this: no line of the product's code, and no process tree of a
library's, stands between a survivor and the table.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MARKER = "TFLEASE_MEMBER"
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Process:
    """Exactly this process, not whoever has its number later. ``started``: in clock ticks."""

    pid: int
    started: int

    @property
    def started_at(self) -> float:
        """Seconds since the machine's start, as ``now`` counts them; to a clock tick."""
        return self.started / _TICKS


@dataclass(frozen=True, slots=True)
class Entry:
    """A process as a scan saw it. ``marker``: of the member that it belongs to, if any."""

    process: Process
    parent: int
    state: str
    command: str
    marker: str

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def lives(self) -> bool:
        """A zombie holds nothing: it only waits for its parent."""
        return self.state not in ("Z", "X")


Scan = Mapping[int, Entry]
"""All processes by pid."""


def now() -> float:
    """Seconds since the machine's start."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def scan() -> dict[int, Entry]:
    """Everything but kernel threads and this process, zombies included."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with suppress(OSError, ValueError):  # it ended while we looked
                entry = _read(int(name))
                if entry.parent != 2:
                    found[entry.pid] = entry
    return found


def find(pid: int) -> Process:
    """Who has this number now. Raises ProcessLookupError."""
    try:
        return Process(pid, int(_stat(pid)[19]))
    except FileNotFoundError:
        raise ProcessLookupError(f"no process {pid}") from None


def _read(pid: int) -> Entry:
    fields = _stat(pid)
    marker = ""
    if fields[0] not in ("Z", "X"):
        variables: list[bytes] = []
        with suppress(PermissionError):
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        wanted = f"{MARKER}=".encode()
        marker = next((v[len(wanted) :].decode() for v in variables if v.startswith(wanted)), "")
    command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
    return Entry(
        Process(pid, int(fields[19])),
        int(fields[1]),
        fields[0],
        command.decode(errors="replace").strip(),
        marker,
    )


def _stat(pid: int) -> list[str]:
    text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    # After the command's name, which may itself hold spaces and parentheses.
    return text[text.rindex(")") + 2 :].split()


def below(seen: Scan, root: int) -> list[Entry]:
    """The descendants of a process, itself not included."""
    children: dict[int, list[Entry]] = {}
    for entry in seen.values():
        children.setdefault(entry.parent, []).append(entry)
    found: list[Entry] = []
    waiting = [root]
    while waiting:
        for entry in children.get(waiting.pop(), ()):
            found.append(entry)
            waiting.append(entry.pid)
    return found


def is_alive(process: Process) -> bool:
    """Whether it runs, or could; a zombie does not."""
    try:
        fields = _stat(process.pid)
    except OSError:
        return False
    return int(fields[19]) == process.started and fields[0] not in ("Z", "X")


def state_of(process: Process) -> str:
    """The kernel's letter; "" when it is gone."""
    try:
        return _stat(process.pid)[0]
    except OSError:
        return ""


def send(process: Process, number: int) -> bool:
    """Signals exactly this process; False when it is gone."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        if find(process.pid) != process:
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


class Watch:
    """Pidfds of processes, opened before something happens to them; when each was gone."""

    def __init__(self, processes: Iterable[Process]) -> None:
        self._poller = select.epoll()
        self._open: dict[int, Process] = {}
        self.gone: dict[Process, float] = {}
        for process in processes:
            self.add(process)

    def add(self, process: Process) -> None:
        """One that is gone already counts as gone now."""
        if process in self.gone or process in self._open.values():
            return
        try:
            descriptor = os.pidfd_open(process.pid)
        except ProcessLookupError:
            self.gone[process] = now()
            return
        if not is_alive(process):
            os.close(descriptor)
            self.gone[process] = now()
            return
        self._open[descriptor] = process
        self._poller.register(descriptor, select.EPOLLIN)

    def wait(self, timeout: float) -> list[Process]:
        """Until all are gone, at most so many seconds; who is left."""
        give_up_at = now() + timeout
        while self._open:
            patience = max(0.0, give_up_at - now())
            for descriptor, _ in self._poller.poll(patience):
                self.gone[self._open.pop(descriptor)] = now()
                self._poller.unregister(descriptor)
                os.close(descriptor)
            if now() >= give_up_at:
                break
        return list(self._open.values())

    def close(self) -> None:
        for descriptor in self._open:
            os.close(descriptor)
        self._open.clear()
        self._poller.close()
