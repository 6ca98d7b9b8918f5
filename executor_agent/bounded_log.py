"""A member's log that takes no more than so much of the disk, however much is printed (E3).

The member has the file open with O_APPEND, and never learns of it: the blocks of what is oldest are
given back to the file system, and the file is a sparse one from then on, so that every byte keeps
its offset. Where the file system has no holes, the file is emptied now and then and its last part
kept beside it. Offsets are those of all that was ever printed, in both cases.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from executor_agent.linux import punch_hole

VARIABLE = "TFLEASE_MEMBER_LOG_BYTES"
"""In an executor's environment: bytes that are kept of each member's log; 0: all of it."""

DEFAULT_BYTES = 256 * 1024 * 1024
LEAST_BYTES = 1024 * 1024

_BLOCK = 64 * 1024
_INTERVAL = 1.0
_HAS_NO_HOLES = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV, errno.EPERM)
_COPY_BYTES = 1024 * 1024


def bytes_kept(environment: Mapping[str, str]) -> int:
    """What the executor's environment asks for. Raises ValueError."""
    text = environment.get(VARIABLE, "").strip()
    if not text:
        return DEFAULT_BYTES
    if not text.isascii() or not text.isdecimal() or (0 < int(text) < LEAST_BYTES):
        raise ValueError(
            f"{VARIABLE}={text!r}: give a number of bytes, at least {LEAST_BYTES:,}, or 0 to keep "
            "all that members print"
        )
    return int(text)


class BoundedLog:
    """Reads the log, and bounds it. Thread-safe."""

    def __init__(self, path: Path, limit: int = 0) -> None:
        """``limit``: bytes that are kept; 0: all."""
        self.path = path
        self._limit = limit
        self._lock = threading.Lock()
        self._first = 0  # what is before this is gone
        self._emptied = 0  # so much had been printed when the file was emptied last
        self._beside = beside(path)
        self._first_beside = 0
        self._beside_end = 0  # what was printed up to here is beside it
        self._has_holes = True

    @classmethod
    def of(
        cls, path: Path, environment: Mapping[str, str], complain: Callable[[str], object]
    ) -> BoundedLog:
        """As the executor's environment asks for; a number that makes no sense is told."""
        try:
            return cls(path, bytes_kept(environment))
        except ValueError as error:
            complain(f"{error}; {DEFAULT_BYTES:,} bytes are kept now")
            return cls(path, DEFAULT_BYTES)

    def read(self, offset: int, max_bytes: int) -> tuple[int, bytes, int]:
        """From ``offset`` on, or from the first byte that is left behind it: where that is, the
        bytes, and the size of all that was ever printed. Raises OSError."""
        with self._lock:
            size = self._emptied + self.path.stat().st_size
            if size < self._first:  # somebody has emptied it
                self._first = self._emptied
            start = min(max(offset, self._first), size)
            if start < self._beside_end:
                data = _piece(self._beside, start - self._first_beside, max_bytes)
            else:
                start = max(start, self._emptied)
                data = _piece(self.path, start - self._emptied, max_bytes)
        return start, data, max(size, start + len(data))

    def size(self) -> int:
        """Of all that was ever printed. Raises OSError."""
        with self._lock:
            return self._emptied + self.path.stat().st_size

    def trim(self) -> int:
        """Gives back what is beyond the limit; how many bytes. Raises OSError."""
        if not self._limit:
            return 0
        with self._lock:
            # For a moment only: who has it open for writing is taken for a part of the member.
            fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                size = self._emptied + os.fstat(fd).st_size
                self._first = self._first if self._first <= size else self._emptied
                before = self._first
                if size - before <= self._limit + self._limit // 8:
                    return 0
                if self._has_holes and self._make_hole(fd, size - self._limit):
                    return self._first - before
                if os.fstat(fd).st_size > self._limit:
                    self._empty(fd)
                return self._first - before
            finally:
                os.close(fd)

    def _make_hole(self, fd: int, until: int) -> bool:
        """False: this file system has none."""
        start, end = self._first // _BLOCK * _BLOCK, until // _BLOCK * _BLOCK
        try:
            punch_hole(fd, start, end - start)
        except OSError as error:
            if error.errno not in _HAS_NO_HOLES:
                raise
            self._has_holes = False
            return False
        self._first = end
        return True

    def _empty(self, fd: int) -> None:
        """What is printed between the last copied byte and the emptying, microseconds, is lost."""
        size = os.fstat(fd).st_size
        start = at = size - self._limit // 2
        with suppress(FileNotFoundError):
            self._beside.unlink()
        copy = os.open(self._beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(copy, "wb") as file:
            while data := os.pread(fd, _COPY_BYTES, at):
                file.write(data)
                at += len(data)
        size = os.fstat(fd).st_size
        os.ftruncate(fd, 0)
        self._first = self._first_beside = self._emptied + start
        self._beside_end = self._emptied + at
        self._emptied += size


def beside(path: Path) -> Path:
    """Where the last part of a log is that was emptied."""
    return path.with_name(f"{path.name}.1")


def _piece(path: Path, offset: int, max_bytes: int) -> bytes:
    with path.open("rb") as file:
        return os.pread(file.fileno(), max_bytes, offset)


class LogTrimmer:
    """Bounds a log all the while, on a thread of its own: a disk that hangs stops nothing else."""

    def __init__(self, log: BoundedLog, complain: Callable[[str], object]) -> None:
        self._log = log
        self._complain = complain
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log-trimmer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Returns at once."""
        self._closed.set()

    def _run(self) -> None:
        has_complained = False
        while not self._closed.wait(_INTERVAL):
            try:
                self._log.trim()
            except OSError as error:
                if not has_complained:
                    has_complained = True
                    self._complain(f"the member's log cannot be bounded: {error}")
