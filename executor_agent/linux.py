"""The Linux primitives under supervision that Python has no functions for.

Owns: prctl, dead-man pipes, anonymous and atomic files. Must not know members, agents or policy.
Everything here is unprivileged and works inside ordinary containers.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import signal
from contextlib import suppress

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

# Looked up at import: a lookup between fork and exec would be the wrong moment to fail.
_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, argument: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def become_subreaper() -> None:
    """From now on orphaned descendants become our children, wherever they hid (setsid, double
    fork): the only unprivileged way to keep hold of them."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent_pid: int) -> bool:
    """SIGKILL for us when the thread that forked us ends. False: the parent is gone already.

    Armed after the parent's death the signal would never come, hence the second look. Survives
    exec, not fork. Only ever to be used by children of a single-threaded process: it is bound to
    the thread that forked (O8).
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent_pid


def signal_at_parents_end(number: int) -> None:
    """This signal for us when the thread that forked us ends; not if it has ended already. Survives
    exec, not fork. Raises OSError."""
    _prctl(_PR_SET_PDEATHSIG, number)


def arm_dead_man(read_fd: int, group: int) -> bool:
    """SIGKILL for the whole process group when the last writer of this pipe is gone, sent by the
    kernel, with nobody alive needed. False: the last writer is gone already.

    The caller must have closed its own copies of the write end. Nobody may ever write to the pipe:
    data would fire it as well.
    """
    fcntl.fcntl(read_fd, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(read_fd, fcntl.F_SETOWN, -group)
    fcntl.fcntl(read_fd, fcntl.F_SETFL, fcntl.fcntl(read_fd, fcntl.F_GETFL) | os.O_ASYNC)
    return not hung_up(read_fd)


def hung_up(read_fd: int) -> bool:
    """Whether the other end of this pipe is closed."""
    poll = select.poll()
    poll.register(read_fd, 0)
    return bool(poll.poll(0))


def anonymous_file(name: str, content: bytes) -> int:
    """A memfd holding content, its offset at the start."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def prefer_for_oom(points: int) -> None:
    """Make the kernel's out-of-memory killer choose us before our parent. Needs no privilege, and
    is only advice: a system that refuses changes nothing."""
    with suppress(OSError, ValueError), open("/proc/self/oom_score_adj", "r+") as file:
        wanted = min(1000, int(file.read()) + points)
        file.seek(0)
        file.write(str(wanted))


_FALLOC_FL_KEEP_SIZE = 1
_FALLOC_FL_PUNCH_HOLE = 2


def punch_hole(fd: int, offset: int, size: int) -> None:
    """Gives these bytes of a file back to its file system: they read as zeros from then on, and
    all others stay where they are. Raises OSError: not every file system can."""
    fallocate = _libc.fallocate64 if hasattr(_libc, "fallocate64") else _libc.fallocate
    mode = _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE
    if fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(size)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"fallocate: {os.strerror(number)}")


def boot_id() -> str:
    """Identifies this boot: process identities of another one mean nothing."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def write_atomically(path: str | os.PathLike[str], text: str) -> None:
    """Readers see the whole file or none; only our user may read it."""
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{os.getpid()}")
    with suppress(FileNotFoundError):
        os.unlink(temporary)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(text)
    os.replace(temporary, path)
