"""One process has a journal at a time: an ``flock`` on the file PATH.lock, beside it."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from contextlib import suppress
from pathlib import Path

from coordinator.journal_values import JournalUnusable

# Whoever only asks if a journal is in use holds its lock for an instant.
_LOCK_ATTEMPTS = 5
_LOCK_INTERVAL = 0.1


class Lock:
    """Of one journal, held while the process lives or until ``close``. The kernel frees it; the
    lock file stays, because removing it would give two holders an instant each of their own."""

    def __init__(self, path: Path) -> None:
        """Raises JournalUnusable naming the process that has it."""
        try:
            self._descriptor = os.open(
                lock_path(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
        except OSError as error:
            raise JournalUnusable(
                f"the journal {path} cannot be locked: {error.strerror}: {lock_path(path)}"
            ) from None
        self._path = lock_path(path)
        try:
            self._take(path)
        except BaseException:
            self.close()
            raise

    def _take(self, path: Path) -> None:
        for attempt in range(_LOCK_ATTEMPTS):
            if attempt:
                time.sleep(_LOCK_INTERVAL)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            except OSError as error:
                raise JournalUnusable(
                    f"the journal {path} cannot be locked: {error.strerror}: a local file system "
                    "is needed"
                ) from None
            return
        raise JournalUnusable(
            f"the journal {path} is in use by {_named_in(self._descriptor)}: stop that one, or "
            "name another journal"
        )

    def is_in_place(self) -> bool:
        """Whether whoever else opens the journal finds this lock."""
        try:
            found, ours = os.stat(self._path), os.fstat(self._descriptor)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino)

    def sign(self) -> None:
        """Says who has it, to whoever asks. Only once the journal is known to be one: what is
        called like a lock may be somebody else's file."""
        with suppress(OSError):  # no room: it is for people
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)

    def close(self) -> None:
        """Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def holder(path: Path) -> str:
    """Who has the journal open, in words; empty when nobody has."""
    try:
        descriptor = os.open(lock_path(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return ""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _named_in(descriptor)
    except OSError:
        return ""
    finally:
        os.close(descriptor)
    return ""


def lock_path(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def _named_in(descriptor: int) -> str:
    pid, _, host = os.pread(descriptor, 300, 0).decode(errors="replace").strip().partition(" ")
    if not pid.isdecimal():  # it has the lock, and has not yet written who it is
        return "another process"
    return f"process {pid}" if host == socket.gethostname() else f"process {pid} on {host}"
