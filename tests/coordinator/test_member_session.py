"""What is to be written to one member: when it may be, in which order, and who writes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from coordinator.core.effects import SendStop
from coordinator.core.errors import LimitExceeded
from coordinator.core.log_values import ReadLog
from coordinator.core.model import IncarnationId, MemberId, RunId
from coordinator.limiting import Limiter
from coordinator.limits import Limits
from coordinator.member_session import MemberSession
from coordinator.service import ReservationService

pytestmark = pytest.mark.timeout(30)

RUN, WORKER = RunId("run"), MemberId.parse("worker:0")


def session_of(room: int = 10) -> MemberSession:
    return MemberSession(RUN, WORKER, "attempt", room)


def stop(reason: str) -> SendStop:
    return SendStop(RUN, WORKER, IncarnationId("attempt"), 1, reason, 5.0)


def question(request_id: str) -> ReadLog:
    return ReadLog(request_id, 0, 10)


def up_to(done: int) -> Callable[[int], bool]:
    return lambda mark: mark <= done


# --- marks ----------------------------------------------------------------------------------------


def test_a_command_waits_for_what_it_rests_on_and_for_nothing_later() -> None:
    """What that is is counted when somebody asks first, after the event."""
    session = session_of()
    session.send(stop("first"))
    assert session.waits_for(3) == 3
    assert session.take_commands(5, up_to(2)) == []
    session.send(stop("second"))
    assert session.take_commands(7, up_to(2)) == []
    assert session.waits_for(9) == 3
    assert session.take_commands(9, up_to(6)) == [stop("first")]
    assert session.waits_for(9) == 7
    assert session.take_commands(9, up_to(7)) == [stop("second")]
    assert not session.has_something


def test_a_question_rests_on_nothing_but_passes_no_command() -> None:
    session = session_of()
    session.send(question("alone"))
    assert session.take_commands(5, up_to(0)) == [question("alone")]
    session.send(stop("now"))
    session.send(question("behind"))
    assert session.take_commands(5, up_to(4)) == []
    assert session.take_commands(8, up_to(5)) == [stop("now"), question("behind")]


def test_a_beat_is_acknowledged_unless_a_report_before_it_waits_for_the_disk() -> None:
    session = session_of()
    session.acknowledge(1, None)
    session.beat_at = 11.0
    assert session.take_acknowledgement(up_to(0)) == (1, 11.0)
    assert session.take_acknowledgement(up_to(0)) == (None, 0.0), "once"
    session.acknowledge(2, 4)
    session.acknowledge(3, None)
    assert session.take_acknowledgement(up_to(3)) == (None, 0.0)
    assert session.waits_for(9) == 4
    assert session.take_acknowledgement(up_to(4)) == (3, 0.0)


def test_a_command_that_waits_does_not_keep_an_acknowledgement() -> None:
    session = session_of()
    session.acknowledge(1, None)
    session.send(stop("now"))
    assert session.waits_for(5) == 0, "there is something to write at once"
    assert session.take_commands(5, up_to(4)) == []
    assert session.take_acknowledgement(up_to(4)) == (1, 0.0)
    assert session.waits_for(6) == 5


def test_who_does_not_read_is_told_to_end_once() -> None:
    session = session_of(room=2)
    ends: list[str] = []
    session.on_end = lambda: ends.append("end")
    for number in range(5):
        session.send(question(str(number)))
    session.close()
    assert session.is_overfull
    assert ends == ["end"]
    assert session.take_commands(0, up_to(0)) == [question("0"), question("1")]


# --- who writes -----------------------------------------------------------------------------------


class Disk:
    """An engine with one change that is not written yet."""

    mark = 1

    def __init__(self) -> None:
        self.written = asyncio.get_running_loop().create_future()

    def is_durable(self, mark: int) -> bool:
        return mark < 1 or self.written.done()

    async def durable(self, mark: int | None = None) -> None:
        await self.written


class Context:
    """A stream on which nothing comes in. ``fault``: of whatever is written."""

    def __init__(self, *, is_read: bool = True, fault: Exception | None = None) -> None:
        self.written: list[str] = []
        self._is_read = is_read
        self._fault = fault

    async def read(self) -> None:
        await asyncio.Event().wait()

    async def write(self, message: Any) -> None:
        if self._fault is not None:
            raise self._fault
        if not self._is_read:
            await asyncio.Event().wait()
        self.written.append(str(message.WhichOneof("message")))


def serve(session: MemberSession, disk: Disk, context: Context) -> asyncio.Task[None]:
    service = ReservationService(disk, Limiter(Limits(commands=2), None))  # type: ignore[arg-type]
    return asyncio.create_task(service._serve(session, context))


async def turns(number: int = 20) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("turn", range(5))
async def test_a_command_is_written_whenever_it_comes_about_the_end_of_the_writer(
    turn: int,
) -> None:
    """Also in the turn of the event loop in which the writer has just ended."""
    session, disk, context = session_of(), Disk(), Context()
    session.acknowledge(0, 1)
    serving = serve(session, disk, context)
    await turns()
    assert context.written == []
    disk.written.set_result(None)
    await turns(turn)
    asyncio.get_running_loop().call_soon(session.send, question("q"))
    await turns()
    assert context.written == ["acknowledgement", "read_log"]
    await cancelled(serving)


async def test_a_session_that_is_told_to_end_bears_more_commands_until_it_has_ended() -> None:
    """Whoever sends them has an event to go on with."""
    session, disk, context = session_of(room=2), Disk(), Context(is_read=False)
    disk.written.set_result(None)
    session.acknowledge(0, 0)
    serving = serve(session, disk, context)
    await turns()
    while not serving.done():
        session.send(question("q"))
        await asyncio.sleep(0)
    with pytest.raises(LimitExceeded):
        await serving
    session.send(question("late"))


async def test_a_writer_that_fails_ends_its_session() -> None:
    """What it had taken is lost: the member is told again when it attends."""
    session, disk = session_of(), Disk()
    session.acknowledge(0, 1)
    serving = serve(session, disk, Context(fault=RuntimeError("the stream is over")))
    await turns()
    assert not serving.done()
    disk.written.set_result(None)
    with suppress(RuntimeError):
        async with asyncio.timeout(20):
            await serving
    assert serving.done()
