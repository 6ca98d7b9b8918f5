"""The member's log: copied to the executor's stderr, and its tail for reports (E3).

TensorFlow writes to a file opened O_APPEND, so that no reader, slow or stopped, ever blocks it.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

from coordinator.core.log_values import LogChunk
from executor_agent.bounded_log import BoundedLog, beside

TAIL_BYTES = 8 * 1024
"""How much of a log travels with a report."""

_POLL_INTERVAL = 0.2
_CHUNK_BYTES = 256 * 1024
_MAX_LINE_BYTES = 64 * 1024
"""A longer line is cut in pieces: a progress bar that never ends its line must not pile up."""


def tail(path: Path, limit: int = TAIL_BYTES) -> str:
    """The last whole lines of a log, at most ``limit`` bytes, or the end of its last line when
    that alone is longer; "" when there is no log."""
    try:
        size, data = _end(path, limit)
    except OSError:
        return ""
    if size < limit and (before := beside(path)).exists():  # a log that was emptied just now
        with suppress(OSError):
            more, end = _end(before, limit - len(data))
            size, data = size + more, end + data
    if size > limit:
        data = data.partition(b"\n")[2].strip() or data
    return data.decode(errors="replace").rstrip()


def _end(path: Path, limit: int) -> tuple[int, bytes]:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - limit))
        return size, file.read(limit)


def read(log: Path | BoundedLog, offset: int | None, max_bytes: int) -> LogChunk:
    """A piece of a log from byte ``offset`` on, or from the first one behind it that is left; None:
    its end, from the beginning of a line where there is one. Raises OSError."""
    log = log if isinstance(log, BoundedLog) else BoundedLog(log)
    wanted = max(0, log.size() - max_bytes) if offset is None else offset
    start, data, size = log.read(wanted, max_bytes)
    if offset is None and start > 0:
        cut = data.find(b"\n") + 1
        if cut < len(data):
            start, data = start + cut, data[cut:]
    return LogChunk(start, data, size)


class LogCopier:
    """Copies a growing file to a descriptor, each line with a prefix.

    On a thread of its own, because the descriptor is a pipe to the executor's JVM: a JVM that
    stopped reading blocks this thread and nothing else. Losing a line harms nobody, and is said
    (E4): what a bounded log has lost before it could be copied.
    """

    def __init__(self, log: Path | BoundedLog, prefix: str, target: int = 2) -> None:
        self._log = log if isinstance(log, BoundedLog) else BoundedLog(log)
        self._prefix = prefix.encode()
        self._target = target
        self._finished = threading.Event()
        self._thread = threading.Thread(target=self._copy, name="log-copier", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self, timeout: float) -> None:
        """Copies what is left, for at most ``timeout`` seconds."""
        self._finished.set()
        self._thread.join(timeout)

    def _copy(self) -> None:
        rest, position = b"", 0
        with suppress(OSError):
            while True:
                last_round = self._finished.wait(_POLL_INTERVAL)
                while True:
                    start, chunk, _ = self._log.read(position, _CHUNK_BYTES)
                    if start > position:
                        self._write([*([rest] if rest else []), _gone(start - position)])
                        rest = b""
                    position = start + len(chunk)
                    if not chunk:
                        break
                    *lines, rest = (rest + chunk).split(b"\n")
                    if len(rest) > _MAX_LINE_BYTES:
                        lines.append(rest)
                        rest = b""
                    self._write(lines)
                if last_round:
                    self._write([rest] if rest else [])
                    return

    def _write(self, lines: list[bytes]) -> None:
        data = b"".join(self._prefix + line + b"\n" for line in lines)
        while data:
            data = data[os.write(self._target, data) :]


def _gone(count: int) -> bytes:
    return b"(%d bytes of the log were not copied: they came faster than they were read)" % count
