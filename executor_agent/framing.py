"""Length-prefixed JSON messages over a stream socket between a member's agent and its process.

Owns: the frame (4 bytes of big-endian length, then one UTF-8 JSON object), the incremental
`Decoder` that any reader can feed, asyncio's included, and the blocking `Channel` that the
bootstrap uses. Knows nothing of what the messages mean.

Descriptors may come with a message (SCM_RIGHTS): `send_with_descriptors` and
`Channel.take_descriptors`.

JSON, not pickle, because neither side may run code that the other one sends. NaN and infinity
pass as Python's `json` writes them: a loss that became NaN is exactly what a progress report
has to be able to say.
"""

import array
import json
import select
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

Message = dict[str, Any]

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""Largest body accepted or sent: a cluster spec of 10,000 members is 1.4 MB."""

MAX_DESCRIPTORS = 253
"""What the kernel lets go with one message (SCM_MAX_FD)."""

_HEADER_BYTES = 4
_DESCRIPTOR_BYTES = array.array("i").itemsize
_RECEIVE_BYTES = 64 * 1024


class FramingError(ValueError):
    """The byte stream is not a sequence of our messages; the connection is of no use any more."""


def encode(message: Mapping[str, object]) -> bytes:
    """The bytes of one message.

    Raises:
        FramingError: the message is over `MAX_MESSAGE_BYTES`, or nested too deeply.
        TypeError: it holds something JSON has no form for.
    """
    try:
        body = json.dumps(message, separators=(",", ":")).encode()
    except RecursionError:
        raise FramingError("a message is nested too deeply to be sent") from None
    if len(body) > MAX_MESSAGE_BYTES:
        raise FramingError(
            f"a message of {len(body)} bytes is over the limit of {MAX_MESSAGE_BYTES} bytes"
        )
    return len(body).to_bytes(_HEADER_BYTES, "big") + body


def send_with_descriptors(sock: socket.socket, data: bytes, descriptors: Sequence[int]) -> int:
    """Send the beginning of `data` without blocking, the descriptors beside its first byte; how
    many bytes of it went. The caller sends the rest, and may close its copies at once.

    Raises:
        OSError: nothing was sent, for instance because the peer is gone.
    """
    if not descriptors:
        return 0
    flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
    rights = array.array("i", descriptors)
    return sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)], flags)


class Decoder:
    """Turns chunks of a byte stream, cut anywhere, into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """The messages that `data` completes, oldest first.

        Raises:
            FramingError: a length over the limit, or a body that is no JSON object. The decoder
                must not be fed again.
        """
        self._buffer += data
        messages: list[Message] = []
        while len(self._buffer) >= _HEADER_BYTES:
            size = int.from_bytes(self._buffer[:_HEADER_BYTES], "big")
            if size > MAX_MESSAGE_BYTES:
                raise FramingError(
                    f"the peer announces a message of {size} bytes, over the limit of "
                    f"{MAX_MESSAGE_BYTES} bytes: it does not speak this protocol"
                )
            end = _HEADER_BYTES + size
            if len(self._buffer) < end:
                break
            body = bytes(self._buffer[_HEADER_BYTES:end])
            del self._buffer[:end]
            messages.append(_decode_body(body))
        return messages

    def finish(self) -> None:
        """Call at end of stream.

        Raises:
            FramingError: the stream ended inside a message.
        """
        if self._buffer:
            raise FramingError(
                f"the stream ended inside a message ({len(self._buffer)} bytes of it had come)"
            )


def _decode_body(body: bytes) -> Message:
    try:
        message = json.loads(body)
    except ValueError as error:
        raise FramingError(f"a message is not JSON: {error}") from error
    except RecursionError:
        raise FramingError("a message is nested too deeply to be read") from None
    if not isinstance(message, dict):
        raise FramingError(f"a message is a JSON {type(message).__name__}, not an object")
    return message


class Channel:
    """The blocking end of the socket. `send` may be called from any thread, `receive` from one."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._decoder = Decoder()
        self._received: list[Message] = []
        self._descriptors: list[int] = []
        self._send_lock = threading.Lock()
        self._cut = False  # a frame went out in part: nothing after it could be understood

    def send(self, message: Mapping[str, object], timeout: float | None = None) -> None:
        """Send one message whole.

        Args:
            message: what to send.
            timeout: seconds to wait for a peer that does not read; None waits for ever.

        Raises:
            TimeoutError: the peer did not read in time.
            OSError: the peer is gone.
            FramingError: see `encode`.
        """
        data = memoryview(encode(message))
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self._send_lock.acquire(timeout=-1 if timeout is None else timeout):
            raise TimeoutError("another message is still waiting for the peer to read")
        try:
            if self._cut:
                raise BrokenPipeError("an earlier message was cut short by a timeout")
            self._send_all(data, deadline)
        finally:
            self._send_lock.release()

    def _send_all(self, data: memoryview, deadline: float | None) -> None:
        poller = select.poll()
        poller.register(self._socket, select.POLLOUT)
        total = len(data)
        while data:
            left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            if not poller.poll(left):
                self._cut = len(data) < total
                raise TimeoutError(f"the peer did not read: {len(data)} bytes not sent")
            try:
                sent = self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except BlockingIOError:
                continue
            data = data[sent:]

    def receive(self) -> Message | None:
        """The next message, or None once the peer has closed its end.

        Raises:
            FramingError: the stream is broken or ended inside a message.
            OSError: the connection failed.
        """
        while not self._received:
            data = self._receive_some()
            if not data:
                self._decoder.finish()
                return None
            self._received.extend(self._decoder.feed(data))
        return self._received.pop(0)

    def _receive_some(self) -> bytes:
        # Not socket.recv_fds, which drops its flags (Python 3.11). Not kept over exec: a helper
        # that user code starts must not hold a GPU's claim for its whole life.
        space = socket.CMSG_SPACE(MAX_DESCRIPTORS * _DESCRIPTOR_BYTES)
        data, rights, flags, _ = self._socket.recvmsg(
            _RECEIVE_BYTES, space, socket.MSG_CMSG_CLOEXEC
        )
        for level, kind, content in rights:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                whole = len(content) - len(content) % _DESCRIPTOR_BYTES
                self._descriptors += array.array("i", content[:whole])
        if flags & socket.MSG_CTRUNC:
            raise OSError("descriptors were lost: this process may not open so many files")
        return data

    def take_descriptors(self) -> list[int]:
        """Those that came with what was received. They are the caller's, who has to close them."""
        taken, self._descriptors = self._descriptors, []
        return taken
