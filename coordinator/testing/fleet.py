"""Thousands of fake members from several client processes."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import TracebackType

import coordinator
from coordinator.core import roster
from coordinator.core.access import ClientTls
from coordinator.core.model import Roles, RunId
from coordinator.testing.outcome import Crew, Outcome, line, moments_of
from coordinator.testing.script import Moment, Script

_PACKAGE_ROOT = str(Path(coordinator.__file__).resolve().parent.parent)
_START_TIMEOUT = 60.0
_END_TIMEOUT = 15.0
_LINE_LIMIT = 2**24
_NAMED = 5  # members in a sentence


class FleetFailed(AssertionError):
    """The fleet did not do what was waited for; the text says who has not done what."""


class FakeFleet:
    """All members of a run, played by ``processes`` client processes, each with its share.

    ::

        scripts = {"worker:7": Script(joins_after="late"), "worker:8": Script(duplicates=2)}
        async with FakeFleet(address, token, run_id, roles, scripts=scripts) as fleet:
            fleet.begin()
            await fleet.until(Moment.READY, without=["worker:7"])
            fleet.open("late")
            outcomes = await fleet.finish()

    Every member has a connection of its own unless ``shares_connections``, which leaves one for
    each process. Whatever is waited for has a ``timeout`` in seconds; then, and when a client
    process ends by itself, the wait ends with ``FleetFailed``. On leaving all connections are
    dropped and all processes gone; they also go when this process does, however it ends.
    """

    def __init__(
        self,
        address: str,
        token: str,
        run_id: RunId,
        roles: Roles,
        *,
        scripts: Mapping[str, Script] | None = None,
        processes: int = 4,
        shares_connections: bool = False,
        python_version: str = "",
        tls: ClientTls | None = None,
    ) -> None:
        scripts = scripts or {}
        members = [str(member) for member in roster.members(roles)]
        unknown = scripts.keys() - set(members)
        if unknown:
            raise ValueError(f"scripts for members that do not exist: {', '.join(unknown)}")
        if processes < 1:
            raise ValueError(f"processes={processes}: it takes one at least")
        self.outcomes: dict[str, Outcome] = {}
        self.moments: dict[str, dict[Moment, float]] = {member: {} for member in members}
        shares = [members[first::processes] for first in range(processes)]
        self._clients = [
            _ClientProcess(
                f"client process {number} of {processes}",
                Crew(
                    address=address,
                    token=token,
                    run_id=run_id,
                    parent_pid=os.getpid(),
                    shares_connection=shares_connections,
                    python_version=python_version,
                    tls=None if tls is None else tls.to_plain(),
                    scripts={member: scripts.get(member) for member in share},
                ).to_line(),
                self._take,
            )
            for number, share in enumerate(shares, 1)
        ]
        self._news = asyncio.Event()

    async def __aenter__(self) -> FakeFleet:
        try:
            starts = (client.start() for client in self._clients)
            # All, so that ``close`` knows of every process before one that failed is told of.
            for failure in await asyncio.gather(*starts, return_exceptions=True):
                if isinstance(failure, BaseException):
                    raise failure
            await self._wait(
                _START_TIMEOUT,
                lambda: [client.name for client in self._clients if not client.is_up],
                lambda late: f"{', '.join(late)} did not start",
            )
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """On return all processes are gone. Idempotent."""
        await asyncio.gather(*(client.close() for client in self._clients))

    @property
    def pids(self) -> list[int]:
        """The client processes."""
        return [client.pid for client in self._clients]

    def begin(self) -> None:
        """All members begin to live by their scripts. Idempotent."""
        for client in self._clients:
            client.tell(line({"begin": True}))

    def open(self, gate: str) -> None:
        """Lets everybody through who waits at this gate, now and later."""
        for client in self._clients:
            client.tell(line({"open": gate}))

    async def until(
        self, moment: Moment, *, without: Collection[str] = (), timeout: float = 60.0
    ) -> float:
        """Waits until all but ``without`` have got so far; returns when the last one had, on the
        clock of ``time.monotonic``. Raises FleetFailed, at once when somebody's life has ended
        before that."""
        chosen = [member for member in self.moments if member not in without]

        def missing() -> list[str]:
            left = [member for member in chosen if moment not in self.moments[member]]
            ended = [member for member in left if member in self.outcomes]
            if ended:
                raise FleetFailed(
                    f"{self._named(ended)} ended before the moment {moment.name} ({moment.value})"
                )
            return left

        def diagnosis(left: list[str]) -> str:
            of = f"{len(left)} of {len(chosen)} members"
            return f"{of} have not come to {moment.name} ({moment.value}): {self._named(left)}"

        await self._wait(timeout, missing, diagnosis)
        return max(self.moments[member][moment] for member in chosen)

    async def form(self, *, timeout: float = 60.0) -> float:
        """All begin, and have the cluster spec on return; returns when the last one had it."""
        self.begin()
        return await self.until(Moment.STARTED, timeout=timeout)

    async def finish(self, *, timeout: float = 60.0) -> dict[str, Outcome]:
        """Waits until all lives have ended. Connections of the silent, and half messages, stay
        until the fleet is left."""
        await self._wait(
            timeout,
            lambda: [member for member in self.moments if member not in self.outcomes],
            lambda left: (
                f"{len(left)} of {len(self.moments)} lives have not ended: {self._named(left)}"
            ),
        )
        return self.outcomes

    async def live(self, *, timeout: float = 60.0) -> dict[str, Outcome]:
        """From the beginning to the end."""
        self.begin()
        return await self.finish(timeout=timeout)

    # -- what the processes tell -----------------------------------------------------------

    def _take(self, text: bytes) -> None:
        message = json.loads(text) if text else {}
        if "outcome" in message:
            outcome = Outcome.from_dict(message["outcome"])
            self.outcomes[outcome.member] = outcome
        elif "moments" in message:
            for member, moment, at in moments_of(message):
                self.moments[member][moment] = at
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _wait(
        self,
        timeout: float,
        missing: Callable[[], list[str]],
        diagnosis: Callable[[list[str]], str],
    ) -> None:
        try:
            async with asyncio.timeout(timeout):
                while left := missing():
                    for client in self._clients:
                        client.check()
                    await self._news.wait()
        except TimeoutError:
            raise FleetFailed(f"after {timeout:g} s {diagnosis(left)}") from None

    def _named(self, members: list[str]) -> str:
        """Who, and how far each is: some of them, and how many more there are."""
        named = ", ".join(f"{member} ({self._state(member)})" for member in members[:_NAMED])
        more = len(members) - _NAMED
        return f"{named} and {more} more" if more > 0 else named

    def _state(self, member: str) -> str:
        outcome = self.outcomes.get(member)
        if outcome is not None and outcome.error:
            return outcome.error
        if outcome is not None:
            return f"ended: {outcome.report.cause.value}" if outcome.report else "vanished"
        moments = self.moments[member]
        return f"last seen at {max(moments, key=moments.__getitem__).name}" if moments else "unseen"


class _ClientProcess:
    """One child, and the pipes to it. ``take`` gets every line that it says, and b"" at its end."""

    def __init__(self, name: str, crew: bytes, take: Callable[[bytes], None]) -> None:
        self.name = name
        self.is_up = False
        self._crew = crew
        self._take = take
        self._process: asyncio.subprocess.Process | None = None
        self._listener: asyncio.Task[None] | None = None
        self._trouble = ""

    async def start(self) -> None:
        inherited = os.environ.get("PYTHONPATH")
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "coordinator.testing.fleet_process",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LINE_LIMIT,
            env={
                **os.environ,
                "GRPC_ENABLE_FORK_SUPPORT": "0",
                "PYTHONPATH": os.pathsep.join(filter(None, (_PACKAGE_ROOT, inherited))),
                "PYTHONSAFEPATH": "1",  # else a random.py in the working directory is ours
            },
        )
        self.tell(self._crew)
        self._listener = asyncio.create_task(self._listen(self._process))

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("the fleet has not been entered")
        return self._process.pid

    def tell(self, message: bytes) -> None:
        if self._process is None:
            raise RuntimeError("the fleet has not been entered")
        assert self._process.stdin is not None
        self._process.stdin.write(message)

    def check(self) -> None:
        """Raises FleetFailed when it is gone."""
        if self._trouble:
            raise FleetFailed(self._trouble)

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        try:
            while text := await process.stdout.readline():
                if self.is_up:
                    self._take(text)
                else:
                    self.is_up = "hello" in json.loads(text)
                    self._take(b"")
        finally:
            code = await process.wait()
            self._trouble = (
                f"{self.name} ended with exit code {code}; it may have said why on standard error"
            )
            self._take(b"")

    async def close(self) -> None:
        process, listener = self._process, self._listener
        if process is None or listener is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait([listener], timeout=_END_TIMEOUT)
        finally:
            if process.returncode is None:
                process.kill()
            await asyncio.wait([listener])
