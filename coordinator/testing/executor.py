"""A fake agent: everything that a member says, over real gRPC, with no process behind it."""

from __future__ import annotations

import asyncio
import os
import secrets
from contextlib import suppress
from functools import lru_cache
from types import TracebackType

from coordinator import wire
from coordinator.core.access import ClientTls
from coordinator.core.errors import CoordinatorUnavailable
from coordinator.core.gpu import LeaseToken
from coordinator.core.model import (
    VERSION,
    Cause,
    Endpoint,
    ExecutorInfo,
    ExitReport,
    IncarnationId,
    MemberId,
    Role,
    RunId,
)
from coordinator.member_client import Attendance, Reservation, ReservationClient, Start, Stop
from coordinator.testing.gates import Gates
from coordinator.testing.gpu_conduct import GpuConduct
from coordinator.testing.host import FakeHost
from coordinator.testing.life import Life
from coordinator.testing.peer import HalfMessage
from coordinator.testing.script import Moment, Script
from coordinator.testing.session import FakeSession
from coordinator.testing.tally import Tally

_FALSE_STEP = 10**9
_ROLES = tuple(Role)
_PORTS_OF_A_ROLE = 13_000

_unpack = lru_cache(maxsize=1)(wire.unpack_cluster_spec)
"""Thousands of members in one process read the same cluster spec: a copy of its thousands of
addresses for each would cost more than all that the coordinator does."""


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

    ``live`` takes all these steps by a ``Script``; ``gates`` are what the script may wait at,
    ``moments`` when (``time.monotonic``) it got how far, ``tally`` what became of its faults.
    Nothing listens on its ``endpoint``. ``host``: where it runs, with the GPUs that it offers; it
    looks at them and claims them by itself as it is told to, renews with its beats what it holds
    (``gpus``), and reports with its end how they look. ``client``: share one, and its connection,
    among many executors; otherwise each has its own.
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
        host: FakeHost | None = None,
        python_version: str = "",
        client: ReservationClient | None = None,
        gates: Gates | None = None,
        tls: ClientTls | None = None,
    ) -> None:
        self.run_id = run_id
        self.member = MemberId.parse(member) if isinstance(member, str) else member
        self.incarnation = IncarnationId(incarnation or f"{self.member}/{secrets.token_hex(4)}")
        hostname = host.name if host is not None else hostname
        self.conduct = GpuConduct(str(self.incarnation), host)
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
        self.gates = gates or Gates()
        self.tally = Tally()
        self.moments: dict[Moment, float] = {}
        self._address = address
        self._token = token
        self._tls = tls
        self._client = client or ReservationClient(address, token, tls, _unpack)
        self._owns_client = client is None
        self._session: FakeSession | None = None
        self._half_open: list[Attendance] = []
        self._half_messages: list[HalfMessage] = []

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
        for half in self._half_messages:
            half.close()
        self._half_messages.clear()
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
            host=self.conduct.host,
            python_version=self.info.python_version,
            client=None if token or self._owns_client else self._client,
            tls=self._tls,
            gates=self.gates,
        )

    # -- one step each ---------------------------------------------------------------------

    async def reserve(self, *, attempts: int = 1) -> Reservation:
        """Claims the slot; look at ``is_granted`` of the answer. Asks so many times when the
        coordinator is too busy to answer in time, as an agent does: a claim is idempotent."""
        for _ in range(attempts - 1):
            with suppress(CoordinatorUnavailable):
                return await self._reserve()
        return await self._reserve()

    async def _reserve(self) -> Reservation:
        self.reservation = await self._client.reserve(
            self.run_id,
            self.member,
            self.incarnation,
            self.info,
            self.endpoint,
            self.conduct.offer(),
        )
        return self.reservation

    async def attend(self, *, beating: bool = True) -> None:
        """Opens a session, in place of the one before. With ``beating`` it beats by itself, as
        often as it was told at the reservation; otherwise only when ``beat`` is called."""
        await self.drop()
        attendance = self._client.attend(self.run_id, self.member, self.incarnation)
        self._session = FakeSession(attendance, self.conduct)
        reservation = self.reservation if beating else None
        await self._session.open(reservation.beat_interval if reservation is not None else None)

    async def beat(self) -> None:
        """One heartbeat, which renews its leases."""
        await self._in_session().say(Attendance.heartbeat, self.conduct.tokens())

    async def ready(self, **versions: str) -> None:
        """The process has imported."""
        await self._in_session().say(Attendance.ready, versions)

    async def started(self) -> Start:
        """Waits for the start command of this session."""
        session = self._in_session()
        await session.until(lambda: session.start is not None)
        assert session.start is not None
        return session.start

    async def started_or_stopped(self) -> None:
        """Waits for the first command of this session: ``start`` or ``stop`` has it then."""
        session = self._in_session()
        await session.until(lambda: session.start is not None or session.stop is not None)

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

    async def show_stack(self, text: str) -> None:
        """Waits until it is asked where its process stands, and says so."""
        session = self._in_session()
        await session.until(lambda: session.is_asked_for_stack)
        session.is_asked_for_stack = False
        await session.say(Attendance.stack_dumped, text)

    async def end(self, report: ExitReport, generation: int | None = None) -> ExitReport:
        """The process ended. Returns the report as it was sent: with how its GPUs look since."""
        if generation is None:
            report = self.conduct.end(report)
        await self._in_session().say(
            Attendance.process_exited, self._generation(generation), report
        )
        return report

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

    # -- without manners -------------------------------------------------------------------

    def open_half(self) -> None:
        """Opens one more stream and never says a word on it."""
        self._half_open.append(self._client.attend(self.run_id, self.member, self.incarnation))

    async def send_half(self, *, stranger: bool = False) -> None:
        """One more connection, on which half a message is sent; a ``stranger`` has no token."""
        half = HalfMessage(self._address, "" if stranger else self._token)
        self._half_messages.append(half)
        await half.send()
        self.tally.half_sent += 1

    async def lie(self, offset: int) -> int:
        """Reports an entry, a step and a crash, all of another generation than its own, so far
        from it. Returns how many reports that were; each has been acknowledged. Raises ValueError
        for a generation that would be no lie: below 1 there is none yet, and an end counts."""
        wrong = self._generation(None) + offset
        if offset == 0 or wrong < 1:
            raise ValueError(f"generation {wrong} would be no lie")
        await self.enter(wrong)
        await self.progress(_FALSE_STEP, wrong)
        await self.end(ExitReport(Cause.USER_EXCEPTION, message="a lie"), wrong)
        return 3

    async def flood(self, messages: int, until: asyncio.Event | None = None) -> int:
        """Beats and steps, as fast as the connection takes them; fewer when ``until`` is set or it
        is told to stop. Returns how many were sent; the last one has been acknowledged."""
        session = self._in_session()
        for number in range(1, messages + 1):
            if session.stop is not None or (until is not None and until.is_set()):
                return number - 1
            if number % 2:
                await session.shout(Attendance.heartbeat)
            else:
                await session.shout(Attendance.progress, self._generation(None), number, {})
        await self.beat()
        return messages

    # -- what the coordinator said ---------------------------------------------------------

    @property
    def start(self) -> Start | None:
        """The start command of this session, if it came."""
        return self._session.start if self._session is not None else None

    @property
    def stop(self) -> Stop | None:
        """The stop command of this session, if it came; of several the last."""
        return self._session.stop if self._session is not None else None

    @property
    def gpus(self) -> dict[str, LeaseToken]:
        """What it has claimed on its host, and with which lease."""
        return self.conduct.held

    # -- a whole life ----------------------------------------------------------------------

    async def live(self, script: Script | None = None) -> ExitReport | None:
        """Follows the script, by default that of a good member of its role, to the end.

        Returns the report it ended with, or None when it died, fell silent, ignored a stop or
        found the run over.
        """
        return await Life(self, script or Script.of(self.member.role)).live()

    async def work(self, script: Script | None = None) -> ExitReport | None:
        """The part of ``live`` that follows ``enter``: what ``main_fun`` does, to the end."""
        return await Life(self, script or Script.of(self.member.role)).work()

    def _generation(self, generation: int | None) -> int:
        if generation is not None:
            return generation
        return self.start.generation if self.start is not None else 0

    def _in_session(self) -> FakeSession:
        if self._session is None:
            raise RuntimeError(f"{self.member} has no session: attend first")
        return self._session
