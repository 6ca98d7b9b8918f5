"""A bad network between members and the coordinator: a TCP relay that delays and cuts.

``python -m benchmarks.relay`` is told where to relay to and says on which port it listens; then
``{"cut": true}`` closes every connection, and ``{"delay": 1.0, "seconds": 5.0}`` holds back all
that is sent in the next five seconds for one second. Each is answered when it is in force.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from benchmarks.client_process import Commands, say

_CHUNK = 2**16


class Relay:
    """Use inside one event loop."""

    def __init__(self, host: str, port: int) -> None:
        self._where = (host, port)
        self._delay = 0.0
        self._delayed_until = 0.0
        self._relaying: set[asyncio.Task[None]] = set()

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either side ends it or it is cut."""
        task = asyncio.current_task()
        assert task is not None
        self._relaying.add(task)
        try:
            await self._both_ways(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # who relays nothing closes: that is all that a network tells
        finally:
            self._relaying.discard(task)
            writer.transport.abort()

    async def _both_ways(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._where)
        try:
            ways = {
                asyncio.ensure_future(self._pump(reader, back)),
                asyncio.ensure_future(self._pump(there, writer)),
            }
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.wait(ways)
        finally:
            back.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await reader.read(_CHUNK):
                if asyncio.get_running_loop().time() < self._delayed_until:
                    await asyncio.sleep(self._delay)
                writer.write(chunk)
                await writer.drain()

    def obey(self, command: Mapping[str, Any]) -> None:
        """Takes effect at once."""
        if "delay" in command:
            self._delay = command["delay"]
            self._delayed_until = asyncio.get_running_loop().time() + command["seconds"]
        if "cut" in command:
            for task in self._relaying:
                task.cancel()
        say({"relaying": len(self._relaying)})


async def _serve(commands: Commands) -> None:
    config = commands.first()
    relay = Relay(config["host"], config["port"])
    server = await asyncio.start_server(relay.relay, "127.0.0.1", 0, backlog=1024)
    has_news = asyncio.Event()
    asyncio.get_running_loop().add_reader(commands.fileno(), has_news.set)
    say({"port": server.sockets[0].getsockname()[1]})
    while not commands.is_over:
        await has_news.wait()
        has_news.clear()
        for command in commands.take() if commands.has_come else ():
            relay.obey(command)
    server.close()
    relay.obey({"cut": True})


def main() -> int:
    """The process."""
    asyncio.run(_serve(Commands()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
