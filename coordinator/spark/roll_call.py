"""The driver's end of an examination: executors call in, and are told of each other.

Owns one listening socket and one thread. That an executor gets here is the proof of its way to the
driver; the way back is tried at once. Whoever calls says the examination's name, which only its
tasks know, before anything else is read.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

_HELLO_TIMEOUT = 5.0
_KNOCK_TIMEOUT = 5.0
_QUIET_SECONDS = 5.0
"""After so long without a new caller nobody waits for the rest: they may have no slot."""

_MAX_LINE = 1 << 12
_MAX_PEERS = 64  # that one executor tries


@dataclass(slots=True)
class Heard:
    """``addresses``: of hosts, by name. ``unreached``: why the way to them failed."""

    calls: int = 0
    addresses: dict[str, str] = field(default_factory=dict)
    unreached: dict[str, str] = field(default_factory=dict)


class RollCall:
    """Listens when it is made. ``expected``: how many calls there will be. Raises OSError."""

    def __init__(self, host: str, name: str, expected: int) -> None:
        self._name = name
        self._expected = expected
        self._heard = Heard()
        self._socket = socket.create_server(
            (host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=128
        )
        self.port = int(self._socket.getsockname()[1])
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None
        self._changed: asyncio.Condition | None = None
        self._listens = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tflease-roll-call", daemon=True)
        self._thread.start()
        self._listens.wait()

    def close(self) -> Heard:
        """Everything that was heard. Idempotent."""
        loop, end = self._loop, self._end
        if loop is not None and end is not None and self._thread.is_alive():
            with suppress(RuntimeError):  # it has just ended
                loop.call_soon_threadsafe(end.set)
        self._thread.join()
        self._socket.close()
        return self._heard

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        finally:
            self._listens.set()

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        self._changed = asyncio.Condition()
        server = await asyncio.start_server(self._answer, sock=self._socket, limit=_MAX_LINE)
        self._listens.set()
        await self._end.wait()
        server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, ValueError, TimeoutError):  # whoever it was has hung up, or babbles
            try:
                async with asyncio.timeout(_HELLO_TIMEOUT):
                    hello = json.loads(await reader.readline())
                if self._is_known(hello):
                    await self._converse(str(hello["host"]), str(hello["address"]), writer)
            finally:
                writer.close()

    def _is_known(self, hello: object) -> bool:
        if not isinstance(hello, dict) or not {"host", "address"} <= hello.keys():
            return False
        return hmac.compare_digest(str(hello.get("examination")).encode(), self._name.encode())

    async def _converse(self, host: str, address: str, writer: asyncio.StreamWriter) -> None:
        assert self._changed is not None
        async with self._changed:
            self._heard.calls += 1
            if address:
                self._heard.addresses[host] = address
            self._changed.notify_all()
        _write(writer, {"examination": self._name})
        await writer.drain()
        if not address:
            return  # of a host that another task looks at
        problem = await _knock(address)
        if problem:
            self._heard.unreached[host] = problem
        await self._everybody()
        _write(writer, self._others_of(host))
        await writer.drain()

    async def _everybody(self) -> None:
        """Until all have called, or nobody has for a while."""
        assert self._changed is not None
        while (before := self._heard.calls) < self._expected:
            try:
                async with asyncio.timeout(_QUIET_SECONDS), self._changed:
                    await self._changed.wait_for(lambda: self._heard.calls > before)
            except TimeoutError:
                return

    def _others_of(self, host: str) -> dict[str, str]:
        """Those that follow it in a ring, so that of many hosts each is tried by some."""
        names = sorted(self._heard.addresses)
        own = names.index(host)
        ring = (*names[own + 1 :], *names[:own])
        return {name: self._heard.addresses[name] for name in islice(ring, _MAX_PEERS)}


def _write(writer: asyncio.StreamWriter, message: dict[str, str]) -> None:
    writer.write(json.dumps(message).encode() + b"\n")


async def _knock(address: str) -> str:
    """ "" when somebody listens there."""
    try:
        host, _, port = address.rpartition(":")
        async with asyncio.timeout(_KNOCK_TIMEOUT):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        writer.close()
    except TimeoutError:
        return f"{address} timed out after {_KNOCK_TIMEOUT:g} s"
    except (OSError, ValueError) as error:
        return f"{address}: {getattr(error, 'strerror', None) or error}"
    return ""
