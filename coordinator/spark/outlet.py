"""Text on a stream, mostly standard error, that nobody may read (E4).

A pipe that is full, or a terminal that hangs, stops whoever writes to it; and whoever then waits
for a lock that the writer has. So nothing here waits for longer than it was asked to: pipes and
terminals are written to without waiting, through a descriptor that is opened anew for it. The
stream's own is shared with other processes, and stays as it is.
"""

from __future__ import annotations

import io
import os
import select
import stat
import time
from typing import TextIO

_PIECE = select.PIPE_BUF
"""Bytes that a pipe takes without waiting when it says that it takes any."""

_MOMENT = 0.01


class Outlet:
    """Raises OSError, ValueError when the stream is closed or takes no such characters. ``stream``
    None: a process without standard error."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._is_stuck = False

    def encoded(self, text: str) -> bytes:
        """For ``write``."""
        if _descriptor(self._stream) is None:
            return text.encode(errors="surrogatepass")
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        return text.encode(encoding, getattr(self._stream, "errors", None) or "strict")

    def write(self, data: bytes, patience: float = 0.0) -> bytes:
        """What it did not take. ``patience``: seconds to wait for it, unless that was in vain the
        last time."""
        if self._stream is None:
            return b""
        descriptor = _descriptor(self._stream)
        if descriptor is None:
            self._stream.write(data.decode(errors="surrogatepass"))
            self._stream.flush()
            return b""
        rest = _write_now(descriptor, data)
        while rest and patience > 0 and not self._is_stuck and self.wait(patience):
            rest = _write_now(descriptor, rest)
        self._is_stuck = bool(rest) and (patience > 0 or self._is_stuck)
        return rest

    def wait(self, timeout: float | None = None) -> bool:
        """Until something can be written, or for so many seconds."""
        descriptor = _descriptor(self._stream)
        if descriptor is None:
            return True
        is_ready = _is_ready(descriptor, timeout)
        if is_ready:  # a terminal says so of room that is too small for an end of a line
            time.sleep(_MOMENT)
        return is_ready


def _descriptor(stream: TextIO | None) -> int | None:
    """Of a pipe, a socket or a terminal; None: of anything else, which nobody has to read. Raises
    ValueError: the stream is closed."""
    if not isinstance(stream, io.TextIOWrapper):
        return None  # a notebook's: what it says of descriptors is about others
    try:
        descriptor = stream.fileno()
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return None
    is_read = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)
    return descriptor if is_read else None


def _is_ready(descriptor: int, timeout: float | None) -> bool:
    """Also when nobody is there to read any more, which the next write tells."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(None if timeout is None else timeout * 1000))


def _write_now(descriptor: int, data: bytes) -> bytes:
    """What is left when it takes no more."""
    try:
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        own = os.open(f"/proc/self/fd/{descriptor}", flags)
    except OSError:  # a socket, or somebody else's pipe
        return _write_pieces(descriptor, data)
    try:
        while data:
            data = data[os.write(own, data) :]
    except BlockingIOError:
        pass  # what is left is told
    finally:
        os.close(own)
    return data


def _write_pieces(descriptor: int, data: bytes) -> bytes:
    while data and _is_ready(descriptor, 0.0):
        data = data[os.write(descriptor, data[:_PIECE]) :]
    return data
