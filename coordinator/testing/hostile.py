"""Peers that mean harm, or are broken as if they did: HTTP/2 by hand, and less than that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from types import TracebackType

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    0, 1, 3, 4, 6, 7, 8, 9,
)  # fmt: skip
END_STREAM, END_HEADERS, ACK = 1, 4, 1
INITIAL_WINDOW_SIZE = 4  # of the settings
CANCEL = 8  # of the reasons of a reset


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame of HTTP/2, whether it makes sense or not."""
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags))
    return head + stream.to_bytes(4, "big") + payload


def fields(headers: Iterable[tuple[str, str]]) -> bytes:
    """Header fields of HPACK that are neither indexed nor compressed."""
    return b"".join(
        b"\x00" + b"".join(_length(len(text)) + text.encode() for text in item) for item in headers
    )


def _length(number: int) -> bytes:
    """An integer of HPACK, with a prefix of 7 bits."""
    if number < 127:
        return bytes((number,))
    rest, number = b"\x7f", number - 127
    while number >= 128:
        rest += bytes((number % 128 + 128,))
        number //= 128
    return rest + bytes((number,))


def message(body: bytes) -> bytes:
    """A message as gRPC frames it."""
    return b"\x00" + len(body).to_bytes(4, "big") + body


class HostilePeer:
    """One connection, on which nothing happens that the test does not do.

    Connected on entering. What comes is read and forgotten; settings and pings are answered, so
    that the server takes it for alive. The server may send ``window`` bytes of each stream and no
    more: with 0 it is a reader that never reads. ``token``: what its calls say::

        async with HostilePeer(coordinator.address, token) as peer:
            peer.begin()
            peer.call(1, "/coordinator.v1.RunService/ListRuns")
            peer.reset(1)
    """

    def __init__(self, address: str, token: str = "", *, window: int = 65_535) -> None:
        self._address = address
        self._token = token
        self._window = window
        self._writer: asyncio.StreamWriter | None = None
        self._listener: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self.received = 0
        self.ended: set[int] = set()

    async def __aenter__(self) -> HostilePeer:
        host, _, port = self._address.rpartition(":")
        reader, self._writer = await asyncio.open_connection(host.strip("[]"), int(port))
        self._listener = asyncio.create_task(self._listen(reader))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.wait([self._listener])
        if self._writer is not None:
            self._writer.close()
            with suppress(OSError):
                await self._writer.wait_closed()

    def send(self, data: bytes) -> None:
        """Any bytes."""
        if self._writer is None:
            raise RuntimeError("connect first: use it in `async with`")
        self._writer.write(data)

    async def sent(self) -> None:
        """Waits until the connection takes more, or is over."""
        assert self._writer is not None
        with suppress(OSError):
            await self._writer.drain()

    def begin(self, settings: Mapping[int, int] | None = None) -> None:
        """The preface of HTTP/2, with its settings."""
        wanted = {INITIAL_WINDOW_SIZE: self._window, **(settings or {})}
        payload = b"".join(
            key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in wanted.items()
        )
        self.send(PREFACE + frame(SETTINGS, 0, 0, payload))

    def call(
        self, stream: int, path: str, *, headers: Iterable[tuple[str, str]] = (), ends: bool = False
    ) -> None:
        """Opens a call; the numbers of streams are odd and grow."""
        own = [("authorization", f"Bearer {self._token}")] if self._token else []
        every = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", self._address),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            *own,
            *headers,
        ]
        flags = END_HEADERS | (END_STREAM if ends else 0)
        self.send(frame(HEADERS, flags, stream, fields(every)))

    def say(self, stream: int, body: bytes, *, ends: bool = False) -> None:
        """One message of a call."""
        self.send(frame(DATA, END_STREAM if ends else 0, stream, message(body)))

    def reset(self, stream: int) -> None:
        """Takes a call back."""
        self.send(frame(RST_STREAM, 0, stream, CANCEL.to_bytes(4, "big")))

    async def hung_up(self) -> None:
        """Waits until the server has ended the connection."""
        assert self._listener is not None
        await asyncio.wait([self._listener])

    @property
    def is_over(self) -> bool:
        """Whether the server has ended the connection."""
        return self._listener is None or self._listener.done()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits until something has come that makes it true. Raises ConnectionError when the
        connection is over before that."""
        while not condition():
            if self.is_over:
                raise ConnectionError("the coordinator has ended the connection")
            await self._news.wait()
            self._news.clear()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                self._news.set()
                head = await reader.readexactly(9)
                payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
                self.received += len(head) + len(payload)
                kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
                if kind == SETTINGS and not flags & ACK:
                    self.send(frame(SETTINGS, ACK, 0))
                elif kind == PING and not flags & ACK:
                    self.send(frame(PING, ACK, 0, payload))
                elif kind == RST_STREAM or (kind == HEADERS and flags & END_STREAM):
                    self.ended.add(stream)
        self._news.set()
