"""A peer without manners: HTTP/2 by hand, half a message, and then nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import TracebackType

ATTEND = "/coordinator.v1.ReservationService/Attend"
"""The call that a member's session is."""


class HalfMessage:
    """Calls the coordinator, announces a message, sends its beginning and never the rest.

    Nothing of gRPC's client is involved: no library would send this. ``token`` empty: a stranger,
    who is to be refused although his message is not complete::

        async with HalfMessage(coordinator.address) as stranger:
            assert await stranger.is_answered()

    With the run's token it is a peer that froze in the middle; the coordinator waits for it, and
    nobody else may have to. A coordinator that gives up such a peer is noticed by ``is_answered``.
    """

    def __init__(
        self,
        address: str,
        token: str = "",
        *,
        method: str = ATTEND,
        sent: bytes = b"half",
        announced: int = 100,
    ) -> None:
        self._address = address
        self._token = token
        self._method = method
        self._message = b"\x00" + announced.to_bytes(4, "big") + sent
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> HalfMessage:
        await self.send()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def send(self) -> None:
        """Connects and says its half. Raises OSError when nobody listens."""
        host, _, port = self._address.rpartition(":")
        self._reader, self._writer = await asyncio.open_connection(host.strip("[]"), int(port))
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", self._method),
            (":authority", self._address),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ]
        if self._token:
            headers.append(("authorization", f"Bearer {self._token}"))
        self._writer.write(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + _frame(_SETTINGS, 0, 0, b"")
            + _frame(_HEADERS, _END_HEADERS, 1, _literals(headers))
            + _frame(_DATA, 0, 1, self._message)
        )
        await self._writer.drain()

    async def is_answered(self) -> bool:
        """Waits until the coordinator has ended the call (True) or hung up without a word."""
        if self._reader is None:
            raise RuntimeError("send first")
        try:
            while True:
                head = await self._reader.readexactly(9)
                await self._reader.readexactly(int.from_bytes(head[:3], "big"))
                if head[3] == _HEADERS and head[4] & _END_STREAM:
                    return True
        except (asyncio.IncompleteReadError, OSError):
            return False

    def reset(self) -> None:
        """The machine is gone: no goodbye on any layer."""
        if self._writer is not None:
            self._writer.transport.abort()

    def close(self) -> None:
        """Idempotent."""
        if self._writer is not None:
            self._writer.close()


_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_END_STREAM, _END_HEADERS = 1, 4


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return (
        len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload
    )


def _literals(headers: Iterable[tuple[str, str]]) -> bytes:
    """Header fields of HPACK that are neither indexed nor compressed."""
    return b"".join(
        b"\x00" + b"".join(bytes((len(text),)) + text.encode() for text in item) for item in headers
    )
