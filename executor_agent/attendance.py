"""The agent's side of the coordinator: reserve the slot, attend, beat, fence.

Owns the session and the outbox. What comes down is handed to callbacks; what goes up is queued by
``report`` and delivered at least once. Must not know processes or the sentinel.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from coordinator.core import errors
from coordinator.core.gpu import NO_GPUS, GpuOffer, LeaseToken
from coordinator.core.log_values import LogChunk, ReadLog
from coordinator.core.model import (
    LAST_GENERATION,
    Endpoint,
    ExecutorInfo,
    IncarnationId,
    MemberId,
    RunId,
)
from coordinator.member_client import (
    Acknowledged,
    Attendance,
    ClaimGpus,
    Command,
    DumpStack,
    InspectGpus,
    Reservation,
    ReservationClient,
    Start,
    Stop,
)
from executor_agent.core.outbox import Outbox
from executor_agent.core.story import Line
from executor_agent.member_reports import (
    REPLACEABLE,
    Dumped,
    Leaving,
    Report,
    send,
)

_RETRY_MIN, _RETRY_MAX = 0.2, 1.0
_JITTER = 0.1
_FENCE_MARGIN = 30.0  # seconds, for a member to be stopped once it is fenced

_YIELDING_SECONDS = 5.0
"""What an attempt that has stood by leaves to the one that held the slot, once the run is over:
of two attempts Spark takes the row that comes first and kills the other. Both hear of the end at
the same time, and the holder, which has a tree to prove gone and a result to hand over, needs a
fraction of this."""


class MustStop(Exception):
    """The member has no business running any more; the text says why."""


class Membership:
    """One incarnation's life with the coordinator."""

    def __init__(
        self,
        client: ReservationClient,
        who: tuple[RunId, MemberId, IncarnationId],
        *,
        coordinator: str,
        connect_timeout: float,
        on_start: Callable[[Start], None],
        on_stop: Callable[[Stop], None],
        read_log: Callable[[ReadLog], LogChunk],
        on_reserved: Callable[[], None] = lambda: None,
        on_gpus: Callable[[InspectGpus | ClaimGpus], None] = lambda command: None,
        dump_stack: Callable[[], str] = str,
        leases: Callable[[], Iterable[LeaseToken]] = tuple,
        tell: Callable[[Line], None] = lambda line: None,
        predecessor: str = "",
    ) -> None:
        """``read_log``, ``dump_stack`` may take their time: they are called in a thread, and raise
        OSError. ``dump_stack``: where the threads of the member's process stand.
        ``leases``: what is held, and renewed with every beat. ``tell``: what becomes of the
        session, for people; must not block. ``predecessor``: the incarnation of the same task that
        had the slot before; empty: none had."""
        self._client = client
        self._who = who
        self._coordinator = coordinator
        self._connect_timeout = connect_timeout
        self._on_start = on_start
        self._on_stop = on_stop
        self._on_reserved = on_reserved
        self._read_log = read_log
        self._on_gpus = on_gpus
        self._dump_stack = dump_stack
        self._leases = leases
        self._tell = tell
        self._predecessor = predecessor
        self._lost_at: float | None = None  # set while the coordinator is out of reach
        self._answers: set[asyncio.Task[None]] = set()
        self._outbox: Outbox[Report] = Outbox(time.monotonic())
        self._queued = asyncio.Event()
        self._acknowledged = asyncio.Event()
        self.is_reserved = False

    def report(self, report: Report) -> None:
        """Queues a report; never blocks."""
        self._outbox.add(report, replaceable=isinstance(report, REPLACEABLE))
        self._queued.set()

    async def delivered(self) -> None:
        """Returns when every report has been acknowledged."""
        while not self._outbox.is_delivered:
            self._acknowledged.clear()
            await self._acknowledged.wait()

    async def run(
        self, executor: ExecutorInfo, endpoint: Endpoint, gpus: GpuOffer = NO_GPUS
    ) -> None:
        """Reserve, then attend until cancelled. Raises MustStop."""
        reservation = await self._reserve(executor, endpoint, gpus)
        self.is_reserved = True
        self._on_reserved()
        self._tell(Line(f"reserved the slot with the coordinator at {self._coordinator}", True))
        attending = asyncio.create_task(self._keep_attending(reservation))
        try:
            await self._until_fenced(attending, reservation.fence_timeout)
            attending.result()
        finally:
            attending.cancel()
            await asyncio.wait((attending,))
            attending.cancelled() or attending.exception()

    async def _until_fenced(self, attending: asyncio.Task[None], fence_timeout: float) -> None:
        """Beside the session, which may hang in a send or go on without being answered."""
        while not attending.done():
            silence = time.monotonic() - self._outbox.proven_at
            if silence >= fence_timeout:
                raise MustStop(
                    f"fenced: cut off from the coordinator at {self._coordinator} for "
                    f"{silence:.0f} s"
                )
            await asyncio.wait((attending,), timeout=fence_timeout - silence)

    async def _keep_attending(self, reservation: Reservation) -> None:
        """One session after the other. Raises MustStop."""
        pause = _RETRY_MIN
        while True:
            self._outbox.rewind()
            began = time.monotonic()
            try:
                await self._attend(reservation.beat_interval)
            except (errors.CoordinatorUnavailable, errors.LimitExceeded) as error:
                self._lose(error)  # the fence clock bounds this
            except errors.TfleaseError as error:
                raise MustStop(f"refused by the coordinator: {error}") from None
            pause = _RETRY_MIN if time.monotonic() - began > _RETRY_MAX else pause
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, _RETRY_MAX)

    def _lose(self, error: errors.TfleaseError) -> None:
        if self._lost_at is None:
            self._lost_at = time.monotonic()
            self._tell(Line(f"lost the coordinator at {self._coordinator}: {error}"))

    def _regain(self) -> None:
        if self._lost_at is not None:
            away, self._lost_at = time.monotonic() - self._lost_at, None
            self._tell(Line(f"regained the coordinator at {self._coordinator} after {away:.1f} s"))

    async def _reserve(
        self, executor: ExecutorInfo, endpoint: Endpoint, gpus: GpuOffer
    ) -> Reservation:
        """Raises MustStop; when it stood by for another attempt until the run was over, only
        after that one had its time to be first (R4)."""
        give_up_at = time.monotonic() + self._connect_timeout
        pause = _RETRY_MIN
        has_stood_by = yields = False
        while True:
            asked_at = time.monotonic()
            try:
                reservation = await self._client.reserve(*self._who, executor, endpoint, gpus)
            except (errors.CoordinatorUnavailable, errors.LimitExceeded) as error:
                if time.monotonic() >= give_up_at and isinstance(error, errors.LimitExceeded):
                    raise MustStop(f"refused by the coordinator: {error}") from None
                if time.monotonic() >= give_up_at:
                    raise MustStop(
                        f"the coordinator at {self._coordinator} could not be reached from "
                        f"{executor.hostname} ({endpoint.host}) for {self._connect_timeout:g} s "
                        f"({error}): open that port between executors and driver"
                    ) from None
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, _RETRY_MAX)
            except errors.TfleaseError as error:
                if yields and isinstance(error, errors.RunOver):
                    await asyncio.sleep(_YIELDING_SECONDS)
                raise MustStop(f"refused by the coordinator: {error}") from None
            else:
                if reservation.is_granted:
                    self._outbox.proven_at = asked_at
                    return reservation
                if not has_stood_by:
                    self._tell(Line(f"stands by, the slot is not free: {reservation.holder}"))
                has_stood_by = True
                yields = yields or not self._waits_for_its_own(reservation)
                # It must outlast the holder, which a coordinator that is away does not end before
                # its fence: who returns first wins.
                patience = max(self._connect_timeout, reservation.fence_timeout + _FENCE_MARGIN)
                give_up_at = time.monotonic() + patience
                await asyncio.sleep(reservation.retry_delay * random.uniform(0.8, 1.2))

    def _waits_for_its_own(self, reservation: Reservation) -> bool:
        """For the attempt before it in the same task, whose row is this task's, or for the gang to
        form again: there is nobody to leave anything to."""
        if not self._predecessor:
            return False
        holder, *_ = reservation.holder.split(" ")
        return holder == self._predecessor or reservation.holder == LAST_GENERATION

    async def _attend(self, beat_interval: float) -> None:
        """One session. Raises what ends it: CoordinatorUnavailable when it breaks."""
        async with self._client.attend(*self._who) as session:
            reader = asyncio.create_task(self._read(session))
            writer = asyncio.create_task(self._write(session, beat_interval))
            try:
                await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
                if reader.done():  # what the coordinator said last explains the end
                    reader.result()
                else:
                    writer.result()
            finally:
                tasks = (reader, writer, *self._answers)
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
                for task in tasks:
                    task.cancelled() or task.exception()

    async def _read(self, session: Attendance) -> None:
        async for command in session.commands():
            if isinstance(command, ReadLog):  # beside the rest: a disk may be slow
                answer = asyncio.create_task(self._answer(session, command))
                self._answers.add(answer)
                answer.add_done_callback(self._answers.discard)
            else:
                self._obey(command)
        raise errors.CoordinatorUnavailable("the coordinator ended the session")

    async def _answer(self, session: Attendance, question: ReadLog) -> None:
        """Whatever becomes of it, the session does not depend on it (E4)."""
        with suppress(errors.TfleaseError):
            try:
                chunk = await asyncio.to_thread(self._read_log, question)
            except OSError as error:
                await session.log_refused(question.request_id, f"cannot read the log: {error}")
            else:
                await session.log_chunk(question.request_id, chunk)

    async def _dump(self) -> None:
        """An answer in any case: somebody waits for it."""
        try:
            text = await asyncio.to_thread(self._dump_stack)
        except OSError as error:
            text = ""
            self._tell(Line(f"cannot tell where the process stands: {error}"))
        self.report(Dumped(text))

    def _obey(self, command: Command) -> None:
        match command:
            case Acknowledged(sequence=sequence):
                self._regain()
                self._outbox.acknowledge(sequence)
                self._acknowledged.set()
            case Start():
                self._on_start(command)
            case Stop():
                self._on_stop(command)
            case DumpStack():
                dumping = asyncio.create_task(self._dump())
                self._answers.add(dumping)
                dumping.add_done_callback(self._answers.discard)
            case InspectGpus() | ClaimGpus():
                self._on_gpus(command)

    async def _write(self, session: Attendance, beat_interval: float) -> None:
        # By the clock, whatever else is sent: beats alone renew leases, and who reports its
        # progress all the time would never send one.
        beat_at = _next_beat(beat_interval)
        while True:
            self._queued.clear()  # before the taking: what is queued while we send must wake us
            for numbered in self._outbox.take(time.monotonic()):
                if numbered.report is None:
                    await session.heartbeat(numbered.sequence, self._leases())
                else:
                    await send(session, numbered.sequence, numbered.report)
                if isinstance(numbered.report, Leaving):
                    return await self.delivered()
            try:
                async with asyncio.timeout_at(beat_at):
                    await self._queued.wait()
            except TimeoutError:
                self._outbox.beat()
                beat_at = _next_beat(beat_interval)


def _next_beat(interval: float) -> float:
    """On the event loop's clock."""
    spread = random.uniform(1 - _JITTER, 1 + _JITTER)
    return asyncio.get_running_loop().time() + interval * spread
