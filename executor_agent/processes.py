"""Who is who among the processes of this machine, and how to signal only who was meant.

Owns: process identities and states, and the descendants of a process. Reads /proc by itself: the
sentinel starts before every member, and psutil takes longer to import than all of this. Must not
decide whom to kill or when.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable

from executor_agent.core.claim import State
from executor_agent.core.record import Record

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class ProcessIdentity(Record):
    """A process, not a number that another process may get later.

    create_time is in seconds since boot, not on the wall clock: a machine that corrects its clock
    must not turn its processes into strangers. It means nothing under another boot id.
    """

    pid: int
    create_time: float


class _Stat(Record):
    name: str
    state: str
    parent: int
    create_time: float
    threads: int

    @property
    def is_over(self) -> bool:
        """A zombie; not one that merely has ended its main thread (pthread_exit)."""
        return self.state in "ZX" and self.threads <= 1


def identity_of(pid: int) -> ProcessIdentity | None:
    """Who has this number now; None when nobody has. A zombie still is somebody."""
    stat = _stat(pid)
    return None if stat is None else ProcessIdentity(pid, stat.create_time)


def my_identity() -> ProcessIdentity:
    """Who we are."""
    mine = identity_of(os.getpid())
    if mine is None:
        raise RuntimeError("/proc is not mounted")
    return mine


def is_running(identity: ProcessIdentity) -> bool:
    """Whether exactly this process lives. A zombie does not."""
    return state_of(identity) != "gone"


def state_of(identity: ProcessIdentity) -> State:
    """Whether exactly this process lives and can act. A zombie is gone."""
    stat = _stat(identity.pid)
    if stat is None or stat.create_time != identity.create_time or stat.is_over:
        return "gone"
    return "stopped" if stat.state in "Tt" else "runs"


def parent_of(pid: int) -> int | None:
    """None when it is gone; 0 where the parent is outside of what we can see."""
    stat = _stat(pid)
    return None if stat is None else stat.parent


def living_threads(pid: int) -> list[int]:
    """Of a process whose main thread has ended; of any other none is named."""
    stat = _stat(pid)
    if stat is None or stat.state not in "ZX" or stat.is_over:
        return []
    try:
        threads = [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return []
    return [thread for thread in threads if thread != pid]


def name_of(pid: int) -> str:
    """The kernel's short name of a process, for people to read; "?" when it is gone."""
    stat = _stat(pid)
    return "?" if stat is None else stat.name


def open_pidfd(identity: ProcessIdentity) -> int | None:
    """A descriptor that becomes readable when this process ends. None: the kernel or a seccomp
    profile refuses pidfds, and the caller has to look at `is_running` instead.

    ProcessLookupError when it is gone. The start time is compared after opening: from then on
    nobody else can have the number.
    """
    fd: int | None
    try:
        fd = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        raise
    except (OSError, AttributeError):  # the kernel refuses, or this Python was built without
        fd = None
    if identity_of(identity.pid) == identity:
        return fd
    if fd is not None:
        os.close(fd)
    raise ProcessLookupError(f"{identity} is gone")


def signal_if_same(identity: ProcessIdentity, number: int) -> bool:
    """Signal exactly this process. False: it is gone, or not ours to signal.

    Where the kernel refuses pidfds, comparing the start time just before has to do.
    """
    try:
        fd = open_pidfd(identity)
        if fd is None:
            os.kill(identity.pid, number)
            return True
        try:
            signal.pidfd_send_signal(fd, number)
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EPERM):  # a seccomp profile
                raise
            os.kill(identity.pid, number)
        finally:
            os.close(fd)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def descendants(
    root: int,
    without: int | None = None,
    children: Callable[[ProcessIdentity], list[int]] = lambda parent: children_of(parent.pid),
) -> list[ProcessIdentity]:
    """Everything below root, zombies included; `without` and what is below it are left out.
    `children`: the pids below each of them; for who knows some already.

    One reading may miss a process whose parent dies meanwhile: it is adopted by the nearest
    subreaper. Who needs certainty is that subreaper, and reads until waitpid says ECHILD.
    """
    found: dict[int, ProcessIdentity] = {}
    above: list[ProcessIdentity] = []
    pids = children_of(root)
    while pids or above:
        for pid in pids:
            if pid == without or pid in found:
                continue
            stat = _stat(pid)
            # The number may have passed to a stranger since it was listed: only who really has a
            # parent among ours is ours. Who has just been orphaned is found by the next reading.
            if stat is not None and (stat.parent == root or stat.parent in found):
                found[pid] = ProcessIdentity(pid, stat.create_time)
                above.append(found[pid])
        pids = children(above.pop()) if above else []
    return list(found.values())


def children_of(pid: int) -> list[int]:
    """The pids of its children now, zombies included."""
    children: list[int] = []
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return children
    for task in tasks:
        try:
            with open(f"/proc/{pid}/task/{task}/children") as file:
                children.extend(int(number) for number in file.read().split())
        except FileNotFoundError:
            if os.path.exists(f"/proc/{pid}/task/{task}"):  # a kernel without CONFIG_PROC_CHILDREN
                return _children_by_search(pid)
        except OSError:
            continue  # the thread, or all of them, has just ended
    return children


def _children_by_search(pid: int) -> list[int]:
    numbers = (int(name) for name in os.listdir("/proc") if name.isdecimal())
    return [number for number in numbers if parent_of(number) == pid]


def _stat(pid: int) -> _Stat | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            raw = file.read()
    except OSError:
        return None
    # The name stands in parentheses and may itself contain any character, parentheses included.
    name = raw[raw.index(b"(") + 1 : raw.rindex(b")")].decode(errors="replace")
    rest = raw[raw.rindex(b")") + 2 :].split()
    return _Stat(
        name=name,
        state=rest[0].decode(),
        parent=int(rest[1]),
        create_time=int(rest[19]) / _TICKS_PER_SECOND,
        threads=int(rest[17]),
    )
