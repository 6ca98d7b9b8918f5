"""One client process of a ``FakeFleet``: plays its share of the members.

``python -m coordinator.testing.fleet_process`` reads one line of JSON (``Crew``) from standard
input, which stays open for commands and as the lifeline of whoever started it; the token comes
that way too. It answers on standard output, with nothing else there, a message a line. It ends
when its input does, or its parent.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time
from contextlib import AsyncExitStack

from coordinator.core.access import tls_of
from coordinator.core.errors import TfleaseError
from coordinator.core.model import RunId
from coordinator.member_client import ReservationClient
from coordinator.testing.executor import FakeExecutor
from coordinator.testing.gates import Gates
from coordinator.testing.outcome import Crew, MomentSeen, Outcome, line, moments_line
from coordinator.testing.script import Script

_TELL_INTERVAL = 0.05
"""Seconds between two looks at how far the members are: telling must not cost what it measures."""

_PARENT_INTERVAL = 0.5


class _Crew:
    """The members of this process."""

    def __init__(self, crew: Crew, executors: dict[str, FakeExecutor], gates: Gates) -> None:
        self._crew = crew
        self._executors = executors
        self._gates = gates
        self._told = dict.fromkeys(executors, 0)
        self._begun: asyncio.Task[None] | None = None
        self._out: asyncio.WriteTransport | None = None

    async def serve(self) -> None:
        """Until standard input ends. What goes wrong with one member is its outcome."""
        commands, self._out = await _pipes()
        self._say(line({"hello": os.getpid()}))
        while text := await commands.readline():
            command = json.loads(text)
            if "open" in command:
                self._gates.open(command["open"])
            elif "begin" in command and self._begun is None:
                self._begun = asyncio.create_task(self._live_all())
        if self._begun is not None:
            self._begun.cancel()
            await asyncio.wait([self._begun])

    async def _live_all(self) -> None:
        telling = asyncio.create_task(self._keep_telling())
        try:
            async with asyncio.TaskGroup() as group:
                for member in self._executors:
                    group.create_task(self._live(member))
        finally:
            telling.cancel()

    async def _live(self, member: str) -> None:
        executor = self._executors[member]
        script = self._crew.scripts[member] or Script.of(executor.member.role)
        report, error = None, ""
        try:
            report = await executor.live(script)
        except (TfleaseError, OSError, ValueError) as failure:
            error = f"{type(failure).__name__}: {failure}"
        self._tell_moments()
        outcome = Outcome(member, report, error, time.monotonic(), executor.tally)
        self._say(line({"outcome": outcome.to_dict()}))

    async def _keep_telling(self) -> None:
        while True:
            await asyncio.sleep(_TELL_INTERVAL)
            self._tell_moments()

    def _tell_moments(self) -> None:
        news: list[MomentSeen] = []
        for member, executor in self._executors.items():
            for moment, at in list(executor.moments.items())[self._told[member] :]:
                news.append((member, moment, at))
            self._told[member] = len(executor.moments)
        if news:
            self._say(moments_line(news))

    def _say(self, message: bytes) -> None:
        assert self._out is not None
        self._out.write(message)


async def _pipes() -> tuple[asyncio.StreamReader, asyncio.WriteTransport]:
    """Standard input and output without a thread, and without ever blocking. Whatever else prints
    goes to standard error."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await loop.connect_read_pipe(lambda: protocol, os.fdopen(os.dup(0), "rb", 0))
    out = os.fdopen(os.dup(1), "wb", 0)
    os.dup2(2, 1)
    transport, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, out)
    return reader, transport


async def _run(crew: Crew) -> None:
    gates = Gates()
    tls = tls_of(crew.tls)
    async with AsyncExitStack() as stack:
        shared = None
        if crew.shares_connection:
            shared = ReservationClient(crew.address, crew.token, tls)
            stack.push_async_callback(shared.close)
        executors = {
            member: FakeExecutor(
                crew.address,
                crew.token,
                RunId(crew.run_id),
                member,
                python_version=crew.python_version,
                client=shared,
                gates=gates,
                tls=tls,
            )
            for member in crew.scripts
        }
        await _Crew(crew, executors, gates).serve()
        await asyncio.gather(*(executor.close() for executor in executors.values()))


def _die_with(parent_pid: int) -> None:
    """The second line behind the end of standard input, in a thread of its own: nothing that the
    members do, and no fork of the parent's that holds the pipe, keeps this process alive."""

    def watch() -> None:
        while os.getppid() == parent_pid:
            time.sleep(_PARENT_INTERVAL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


def _read_crew() -> Crew:
    """The first line. Nothing follows it before we have said hello, so nothing is lost with the
    buffer."""
    text = sys.stdin.buffer.readline()
    if not text.endswith(b"\n"):
        raise ValueError("standard input ended before the crew")
    return Crew.from_line(text)


def main() -> int:
    """The process. Ignores the terminal's signals: its parent decides, or its end does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        crew = _read_crew()
    except ValueError as error:
        print(f"{__name__}: {error}; it is started by FakeFleet", file=sys.stderr)
        return 2
    _die_with(crew.parent_pid)
    asyncio.run(_run(crew))
    return 0


if __name__ == "__main__":
    sys.exit(main())
