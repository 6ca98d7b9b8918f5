"""A connection that a test can freeze, cut, slow down and lose bytes on: TCP, forwarded byte by
byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Line:
    """Between a member and its coordinator. ``address`` is where the member calls."""

    def __init__(self, host: str, port: int) -> None:
        self._upstream = (host, port)
        self._flows = {"up": asyncio.Event(), "down": asyncio.Event()}
        self._lost: set[str] = set()  # directions whose bytes vanish
        self._targets: dict[str, set[asyncio.StreamWriter]] = {"up": set(), "down": set()}
        self._half_closed: set[asyncio.StreamWriter] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.address = ""
        self.accepted = 0
        self.is_up = True
        self.delay = 0.0  # seconds that every byte takes, either way; never to be lowered
        self.refused = asyncio.Event()  # set by a call while the line is not up
        for flow in self._flows.values():
            flow.set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def freeze(self, *directions: str) -> None:
        """Bytes of these directions ("up": to the coordinator) stay where they are; both if none
        is named. Connections stay open, and can even be made."""
        for direction in directions or ("up", "down"):
            self._flows[direction].clear()

    def thaw(self) -> None:
        for flow in self._flows.values():
            flow.set()

    def lose(self, *directions: str) -> None:
        """Bytes of these directions vanish from now on, as `freeze` names them; so does the word
        that a connection has ended. As a firewall does that forgets."""
        self._lost.update(directions or ("up", "down"))

    def half_close(self, direction: str) -> None:
        """Every connection that is there says this way that nothing more will come, and the other
        way goes on."""
        for target in tuple(self._targets[direction]):
            self._half_closed.add(target)
            target.write_eof()

    def cut(self) -> None:
        """Every connection breaks."""
        for writer in self._writers:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        if not self.is_up:
            writer.transport.abort()
            self.refused.set()
            return
        self.accepted += 1
        upstream_reader, upstream_writer = await asyncio.open_connection(*self._upstream)
        self._writers.add(upstream_writer)
        for direction, source, target in (
            ("up", reader, upstream_writer),
            ("down", upstream_reader, writer),
        ):
            task = asyncio.create_task(self._pump(direction, source, target))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(
        self, direction: str, source: asyncio.StreamReader, target: asyncio.StreamWriter
    ) -> None:
        self._targets[direction].add(target)
        with suppress(OSError):
            while data := await source.read(65536):
                await self._flows[direction].wait()
                if direction in self._lost or target in self._half_closed:
                    continue
                if self.delay:  # nothing overtakes: all take the same time
                    asyncio.get_running_loop().call_later(self.delay, target.write, data)
                else:
                    target.write(data)
        self._targets[direction].discard(target)
        if direction not in self._lost:
            target.transport.abort()


@asynccontextmanager
async def line_to(address: str) -> AsyncIterator[Line]:
    host, _, port = address.rpartition(":")
    line = Line(host, int(port))
    await line.open()
    try:
        yield line
    finally:
        await line.close()
