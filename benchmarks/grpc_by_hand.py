"""gRPC as a cheap client speaks it: HTTP/2 by hand, so that the server is what is measured.

A client of grpc's own needs more of the processor than the coordinator does; ten thousand of them
would measure themselves. Knows nothing of the coordinator: paths, metadata and bytes are given. It
does not wait for the server's flow control: only for calls with small messages.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass

_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_ACK, _END_STREAM, _END_HEADERS, _PADDED = 1, 1, 4, 8
_INITIAL_WINDOW_SIZE = 4
_ENOUGH = 2**30  # bytes: nobody ever waits for us
_CHUNK = 2**18
_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


@dataclass(frozen=True, slots=True)
class Message:
    """A whole message of a stream."""

    stream: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """The server has ended a stream, for good or ill."""

    stream: int


class ConnectionLost(OSError):
    """The server has closed the connection, or says that it will."""


class Connection:
    """One connection, whose socket (``fileno``) the caller polls for input.

    ``metadata`` goes with every call. Sending never blocks: what the socket does not take at once
    goes out with the next call of ``send``, ``flush`` or ``receive``.
    """

    def __init__(
        self,
        host: str,
        port: int,
        metadata: Iterable[tuple[str, str]] = (),
        tls: ssl.SSLContext | None = None,
        server_name: str = "",
    ) -> None:
        """Connects; ``server_name``: the one in the certificate, where that is not the host's.
        Raises OSError."""
        plain = socket.create_connection((host, port), timeout=30.0)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = plain if tls is None else _over_tls(plain, tls, server_name or host)
        self._socket.setblocking(False)
        self._metadata = tuple(metadata)
        self._authority = f"{host}:{port}"
        self._scheme = "http" if tls is None else "https"
        self._next_stream = 1
        self._in = bytearray()
        self._out = bytearray(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + _frame(_SETTINGS, 0, 0, _INITIAL_WINDOW_SIZE.to_bytes(2, "big") + _window())
            + _frame(_WINDOW_UPDATE, 0, 0, _window())
        )
        self._messages: dict[int, bytearray] = {}

    def fileno(self) -> int:
        return self._socket.fileno()

    def call(self, path: str) -> int:
        """Begins a call; its stream."""
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        headers = (
            (":method", "POST"),
            (":scheme", self._scheme),
            (":path", path),
            (":authority", self._authority),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            *self._metadata,
        )
        self._out += _frame(_HEADERS, _END_HEADERS, stream, _literals(headers))
        return stream

    def send(self, stream: int, message: bytes, *, is_last: bool = False) -> None:
        """A message of ours; the last one of a unary call ends our side of it."""
        flags = _END_STREAM if is_last else 0
        prefix = b"\x00" + len(message).to_bytes(4, "big")
        self._out += _frame(_DATA, flags, stream, prefix + message)
        self.flush()

    def ask(self, path: str, message: bytes) -> int:
        """A unary call; its stream."""
        stream = self.call(path)
        self.send(stream, message, is_last=True)
        return stream

    def flush(self) -> None:
        """Sends what can be sent now. Raises ConnectionLost."""
        try:
            while self._out:
                del self._out[: self._socket.send(self._out)]
        except _NOT_NOW:
            pass
        except OSError as error:
            raise ConnectionLost(str(error)) from None

    def receive(self) -> list[Message | Ended]:
        """What has come since. Raises ConnectionLost."""
        while True:
            try:
                chunk = self._socket.recv(_CHUNK)
            except _NOT_NOW:
                break
            except OSError as error:
                raise ConnectionLost(str(error)) from None
            if not chunk:
                raise ConnectionLost("the server has closed the connection")
            self._in += chunk
            if len(chunk) < _CHUNK and not isinstance(self._socket, ssl.SSLSocket):
                break  # most often there is no more: spare the call that would say so
        news: list[Message | Ended] = []
        self._take_frames(news)
        self.flush()
        return news

    def _take_frames(self, news: list[Message | Ended]) -> None:
        at, data = 0, self._in
        while len(data) - at >= 9:
            end = at + 9 + int.from_bytes(data[at : at + 3], "big")
            if len(data) < end:
                break
            stream = int.from_bytes(data[at + 5 : at + 9], "big")
            self._take(data[at + 3], data[at + 4], stream, bytes(data[at + 9 : end]), news)
            at = end
        del data[:at]

    def _take(
        self, kind: int, flags: int, stream: int, payload: bytes, news: list[Message | Ended]
    ) -> None:
        if kind == _DATA:
            if flags & _PADDED:
                payload = payload[1 : len(payload) - payload[0]]
            self._take_data(stream, payload, news)
        if (kind in (_DATA, _HEADERS) and flags & _END_STREAM) or kind == _RESET:
            self._messages.pop(stream, None)
            news.append(Ended(stream))
        elif kind == _SETTINGS and not flags & _ACK:
            self._out += _frame(_SETTINGS, _ACK, 0, b"")
        elif kind == _PING and not flags & _ACK:
            self._out += _frame(_PING, _ACK, 0, payload)
        elif kind == _GOAWAY:
            raise ConnectionLost("the server goes away")

    def _take_data(self, stream: int, payload: bytes, news: list[Message | Ended]) -> None:
        data = self._messages.setdefault(stream, bytearray())
        data += payload
        while len(data) >= 5:
            end = 5 + int.from_bytes(data[1:5], "big")
            if len(data) < end:
                return
            news.append(Message(stream, bytes(data[5:end])))
            del data[:end]

    def close(self) -> None:
        """Without a goodbye. Idempotent."""
        self._socket.close()


def _over_tls(plain: socket.socket, tls: ssl.SSLContext, name: str) -> ssl.SSLSocket:
    return tls.wrap_socket(plain, server_hostname=name)


def _window() -> bytes:
    return _ENOUGH.to_bytes(4, "big")


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return (
        len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload
    )


def _literals(headers: Iterable[tuple[str, str]]) -> bytes:
    """Header fields of HPACK that are neither indexed nor compressed."""
    return b"".join(
        b"\x00" + b"".join(_text(text.encode()) for text in header) for header in headers
    )


def _text(data: bytes) -> bytes:
    if len(data) < 127:
        return bytes((len(data),)) + data
    rest, length = len(data) - 127, bytearray((127,))
    while rest >= 128:
        length.append(rest % 128 + 128)
        rest //= 128
    return bytes((*length, rest)) + data
