"""A socket, plain or TLS, that one thread reads and writes, and that others can wake.

The socket never blocks: every wait is a poll with a deadline and an ear for whoever wants the
thread's attention. So a thread in the middle of a message learns at once that it is to stop, and
nobody has to touch a TLS session that another thread is using.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

_KEEPALIVE = (
    # A host that is gone without a word is noticed after about half a minute. No TCP_USER_TIMEOUT:
    # it would also end a connection whose other end is alive and reads nothing for that long, as
    # a member does in a long step, and a Spark task whose results nobody takes.
    (socket.TCP_KEEPIDLE, 15),
    (socket.TCP_KEEPINTVL, 5),
    (socket.TCP_KEEPCNT, 3),
)


class Interrupted(Exception):
    """Somebody wants the attention of the thread that was waiting on a connection."""


class Waker:
    """Wakes a thread that polls. Any thread may set it, at any time, closed or not."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._is_set = False

    def fileno(self) -> int:
        return self._fd

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        with self._lock:
            if not self._is_set and self._fd >= 0:
                self._is_set = True
                os.eventfd_write(self._fd, 1)

    def clear(self) -> None:
        with self._lock:
            if self._is_set and self._fd >= 0:
                self._is_set = False
                os.eventfd_read(self._fd)

    def close(self) -> None:
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1


class ByteStream:
    """Bytes in both directions. ``deadline``: on the monotonic clock; None waits for ever.

    Every call raises OSError when the connection failed, TimeoutError (which is one) at the
    deadline, and Interrupted when ``waker`` is set and something would have to be waited for.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._raw: Any = sock  # SSLSocket.shutdown would forget the session another thread uses
        self.waker: Waker | None = None
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEPALIVE:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def is_local(self) -> bool:
        """Whether both ends are on one host, and nobody can listen in."""
        return self._socket.family == socket.AF_UNIX

    def secure(
        self, context: ssl.SSLContext, deadline: float | None, *, server_name: str = ""
    ) -> None:
        """From here on all is TLS; ``server_name``: what the other end must be, "" if we serve."""
        self._socket = context.wrap_socket(
            self._socket,
            server_side=not server_name,
            server_hostname=server_name or None,
            do_handshake_on_connect=False,
        )
        self._raw = self._socket
        self._when_ready(self._socket.do_handshake, select.POLLIN, deadline)

    def read_some(self, into: memoryview, deadline: float | None = None) -> int:
        """At least one byte; 0 at the end of the stream."""
        return int(self._when_ready(lambda: self._socket.recv_into(into), select.POLLIN, deadline))

    def read_exactly(self, into: memoryview, deadline: float | None = None) -> int:
        """How many bytes came: fewer than asked for only when the stream ended."""
        done = 0
        while done < len(into):
            count = self.read_some(into[done:], deadline)
            if not count:
                break
            done += count
        return done

    def write(self, data: memoryview, deadline: float | None = None) -> None:
        """All of it."""
        while data:
            rest = data
            sent = self._when_ready(lambda: self._socket.send(rest), select.POLLOUT, deadline)  # noqa: B023
            data = data[int(sent) :]

    def _when_ready(self, operation: Callable[[], Any], events: int, deadline: float | None) -> Any:
        """Do it when it can be done without waiting."""
        while True:
            if self.waker is not None and self.waker.is_set():
                raise Interrupted
            try:
                return operation()
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
                needed = events
                if isinstance(error, ssl.SSLWantReadError):
                    needed = select.POLLIN
                elif isinstance(error, ssl.SSLWantWriteError):
                    needed = select.POLLOUT
            if not self._wait(needed, deadline):
                raise TimeoutError("the other end of the connection was silent for too long")

    def wait_readable(self, deadline: float | None = None) -> bool:
        """Whether there is something to read, the end included, before the deadline."""
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            return True
        return self._wait(select.POLLIN, deadline)

    def wait_for_end(self) -> None:
        """Until the other end has closed; what it has sent does not count."""
        self._wait(select.POLLRDHUP, None)

    def _wait(self, events: int, deadline: float | None) -> bool:
        poller = select.poll()
        poller.register(self._socket, events)
        if self.waker is not None:
            poller.register(self.waker, select.POLLIN)
        left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        ready = poller.poll(left)
        if self.waker is not None and self.waker.is_set():
            raise Interrupted
        return bool(ready)

    def end_writing(self) -> None:
        """The other end reads to here and then sees the end."""
        self._shut(socket.SHUT_WR)

    def abort(self) -> None:
        """Both ends see the end at once. From any thread."""
        self._shut(socket.SHUT_RDWR)

    def _shut(self, how: int) -> None:
        with suppress(OSError):  # it is gone already
            socket.socket.shutdown(self._raw, how)

    def close(self) -> None:
        self._socket.close()


class SockFile:
    """What Arrow needs of a file to read a stream from a connection, or to write one."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._position = 0
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        return bytes(memoryview(self.read_buffer(size)))

    def read_buffer(self, size: int = -1) -> Any:
        """Straight into memory of Arrow's: the body of a batch is not copied after this."""
        import pyarrow as pa

        buffer = pa.allocate_buffer(max(0, size))
        count = self._stream.read_exactly(memoryview(buffer)) if size > 0 else 0
        self._position += count
        return buffer if count == size else buffer.slice(0, count)

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._stream.write(view)
        self._position += len(view)
        return len(view)

    def tell(self) -> int:
        return self._position

    def flush(self) -> None:
        """Nothing is held back."""

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        """The connection outlives the Arrow stream on it."""
        self.closed = True
