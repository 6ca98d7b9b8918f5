"""A fake agent: everything that a member says, over real gRPC, with no process behind it."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any

from coordinator.client import (
    Attendance,
    Reservation,
    ReservationClient,
    Start,
    Stop,
)
from coordinator.core.errors import RunOver
from coordinator.core.model import (
    VERSION,
    Endpoint,
    ExecutorInfo,
    ExitReport,
    IncarnationId,
    MemberId,
    Role,
    RunId,
)
from coordinator.testing.script import STOPPED, Moment, Script
from coordinator.testing.session import FakeSession

_ROLES = tuple(Role)
_PORTS_OF_A_ROLE = 13_000


class FakeExecutor:
    """One Spark task attempt that holds, or wants, one slot of a run.

    Every step is a method that returns when the coordinator has acknowledged it, so a test needs
    no waiting: what it looks at next is already there. Methods raise what the coordinator
    refuses them with::

        async with FakeExecutor(address, token, run_id, "worker:0") as worker:
            await worker.reserve()
            await worker.attend()
            await worker.ready()
            start = await worker.started()      # the gang is complete
            await worker.enter()
            await worker.progress(1, loss=0.5)
            await worker.end(COMPLETED)

    ``live`` takes all these steps by a ``Script``. Nothing listens on its ``endpoint``.
    ``client``: share one among many executors; otherwise each has its own.
    """

    def __init__(
        self,
        address: str,
        token: str,
        run_id: RunId,
        member: MemberId | str,
        *,
        incarnation: str = "",
        hostname: str = "fake-host",
        python_version: str = "",
        client: ReservationClient | None = None,
    ) -> None:
        self.run_id = run_id
        self.member = MemberId.parse(member) if isinstance(member, str) else member
        self.incarnation = IncarnationId(incarnation or f"{self.member}/{secrets.token_hex(4)}")
        self.info = ExecutorInfo(
            hostname,
            boot_id=hostname,
            pid=os.getpid(),
            python_version=python_version,
            tflease_version=VERSION,
        )
        port = 10_000 + _ROLES.index(self.member.role) * _PORTS_OF_A_ROLE + self.member.index
        self.endpoint = Endpoint("127.0.0.1", port)
        self.reservation: Reservation | None = None
        self._address = address
        self._token = token
        self._client = client or ReservationClient(address, token)
        self._owns_client = client is None
        self._session: FakeSession | None = None
        self._half_open: list[Attendance] = []

    async def __aenter__(self) -> FakeExecutor:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Drops whatever is open. Idempotent."""
        await self.drop()
        for session in self._half_open:
            await session.__aexit__(None, None, None)
        self._half_open.clear()
        if self._owns_client:
            await self._client.close()

    def copy(
        self, *, member: MemberId | str = "", incarnation: str = "", token: str = ""
    ) -> FakeExecutor:
        """Another executor: as it is, a second attempt of the same slot. For liars, one with
        another member's ``incarnation``, or a forged ``token``."""
        return FakeExecutor(
            self._address,
            token or self._token,
            self.run_id,
            member or self.member,
            incarnation=incarnation,
            hostname=self.info.hostname,
            python_version=self.info.python_version,
            client=None if token or self._owns_client else self._client,
        )

    # -- one step each ---------------------------------------------------------------------

    async def reserve(self) -> Reservation:
        """Claims the slot; look at ``is_granted`` of the answer."""
        self.reservation = await self._client.reserve(
            self.run_id, self.member, self.incarnation, self.info, self.endpoint
        )
        return self.reservation

    async def attend(self, *, beating: bool = True) -> None:
        """Opens a session, in place of the one before. With ``beating`` it beats by itself, as
        often as it was told at the reservation; otherwise only when ``beat`` is called."""
        await self.drop()
        self._session = FakeSession(self._client.attend(self.run_id, self.member, self.incarnation))
        reservation = self.reservation if beating else None
        await self._session.open(reservation.beat_interval if reservation is not None else None)

    async def beat(self) -> None:
        """One heartbeat."""
        await self._in_session().say(Attendance.heartbeat)

    async def ready(self, **versions: str) -> None:
        """The process has imported."""
        await self._in_session().say(Attendance.ready, versions)

    async def started(self) -> Start:
        """Waits for the start command of this session."""
        session = self._in_session()
        await session.until(lambda: session.start is not None)
        assert session.start is not None
        return session.start

    async def enter(self, generation: int | None = None) -> None:
        """``main_fun`` is entered; in another ``generation`` than its own when that is given."""
        await self._in_session().say(Attendance.main_entered, self._generation(generation))

    async def progress(self, step: int, generation: int | None = None, **metrics: float) -> None:
        """``main_fun`` tells how far it is."""
        await self._in_session().say(
            Attendance.progress, self._generation(generation), step, metrics
        )

    async def told_to_stop(self) -> Stop:
        """Waits for the stop command of this session."""
        session = self._in_session()
        await session.until(lambda: session.stop is not None)
        assert session.stop is not None
        return session.stop

    async def end(self, report: ExitReport, generation: int | None = None) -> None:
        """The process ended."""
        await self._in_session().say(
            Attendance.process_exited, self._generation(generation), report
        )

    async def leave(self, reason: str = "done") -> None:
        """Says goodbye, and ends the session."""
        await self._in_session().say(Attendance.goodbye, reason)
        await self.drop()

    async def drop(self) -> None:
        """The connection is lost, without a goodbye; ``attend`` opens a new one."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    def hush(self) -> None:
        """Stops beating, with the connection open: a frozen agent."""
        self._in_session().hush()

    def open_half(self) -> None:
        """Opens one more stream and never says a word on it."""
        self._half_open.append(self._client.attend(self.run_id, self.member, self.incarnation))

    # -- what the coordinator said ---------------------------------------------------------

    @property
    def start(self) -> Start | None:
        """The start command of this session, if it came."""
        return self._session.start if self._session is not None else None

    @property
    def stop(self) -> Stop | None:
        """The stop command of this session, if it came; of several the last."""
        return self._session.stop if self._session is not None else None

    # -- a whole life ----------------------------------------------------------------------

    async def live(self, script: Script | None = None) -> ExitReport | None:
        """Follows the script, by default that of a good member of its role, to the end.

        Returns the report it ended with, or None when it died, fell silent, ignored a stop or
        found the run over.
        """
        script = script or Script.of(self.member.role)
        try:
            return await self._live(script)
        except RunOver:
            return None

    async def work(self, script: Script | None = None) -> ExitReport | None:
        """The part of ``live`` that follows ``enter``: what ``main_fun`` does, to the end."""
        script = script or Script.of(self.member.role)
        for step in range(1, script.steps + 1):
            await self.progress(step)
        if script.serves:
            await self.told_to_stop()
        elif script.works_until is not None:
            await self._until_set(script.works_until)
        if self.stop is not None:
            return await self._obey(script)
        await self.end(script.report)
        await self.leave()
        return script.report

    async def _live(self, script: Script) -> ExitReport | None:
        if script.joins_after is not None:
            await script.joins_after.wait()
        while not (answer := await self.reserve()).is_granted:
            wait = script.stand_by_delay
            await asyncio.sleep(answer.retry_delay if wait is None else wait)
        steps: dict[Moment, Callable[[], Coroutine[Any, Any, object]]] = {
            Moment.ATTENDING: self.attend,
            Moment.READY: self.ready,
            Moment.STARTED: self._started_or_stopped,
            Moment.ENTERED: self.enter,
        }
        if await self._is_gone_at(Moment.RESERVED, script):
            return None
        for moment, step in steps.items():
            await step()
            if await self._is_gone_at(moment, script):
                return None
            if self.stop is not None:
                return await self._obey(script)
        return await self.work(script)

    async def _is_gone_at(self, moment: Moment, script: Script) -> bool:
        if script.dies_at is moment:
            await self.drop()
        if script.silent_from is moment:
            self.hush()
        return moment in (script.dies_at, script.silent_from)

    async def _started_or_stopped(self) -> None:
        session = self._in_session()
        await session.until(lambda: session.start is not None or session.stop is not None)

    async def _until_set(self, event: asyncio.Event) -> None:
        """Or until told to stop."""
        waits = {asyncio.create_task(event.wait()), asyncio.create_task(self.told_to_stop())}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in waits:
                task.cancel()
            await asyncio.wait(waits)

    async def _obey(self, script: Script) -> ExitReport | None:
        if not script.obeys_stop:
            return None
        await self.end(STOPPED)
        await self.leave()
        return STOPPED

    def _generation(self, generation: int | None) -> int:
        if generation is not None:
            return generation
        return self.start.generation if self.start is not None else 0

    def _in_session(self) -> FakeSession:
        if self._session is None:
            raise RuntimeError(f"{self.member} has no session: attend first")
        return self._session
