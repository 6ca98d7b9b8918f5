"""E3, E4: a log is read when somebody asks, and reading it harms nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NoReturn

import pytest

from coordinator.client import RunClient
from coordinator.core.errors import InvalidReservation, LogUnavailable, UnknownRun
from coordinator.core.file_values import Receiver
from coordinator.core.log_values import LogChunk, ReadLog
from coordinator.core.model import Cause, ExitReport, MemberId, MemberPhase, Role, Roles, RunId
from coordinator.member_client import Attendance, ReservationClient
from coordinator.testing import FakeGang, Serving
from tests.integration.grpc.conftest import MakeGang

pytestmark = pytest.mark.timeout(60)

WORKER = MemberId(Role.WORKER, 0)


@asynccontextmanager
async def owner_of(coordinator: Serving) -> AsyncIterator[RunClient]:
    owner = RunClient(coordinator.address, coordinator.token)
    try:
        yield owner
    finally:
        owner.close()


@asynccontextmanager
async def agent_of(coordinator: Serving, gang: FakeGang) -> AsyncIterator[Attendance]:
    """Somebody who attends for worker 0, and answers when the test says so."""
    worker = gang["worker:0"]
    await worker.reserve()
    client = ReservationClient(coordinator.address, coordinator.token)
    async with client.attend(gang.run_id, WORKER, worker.incarnation) as session:
        yield session
    await client.close()


async def question(session: Attendance) -> ReadLog:
    async for command in session.commands():
        if isinstance(command, ReadLog):
            return command
    raise AssertionError("the session ended")


async def test_a_piece_of_a_log_comes_from_the_agent(
    coordinator: Serving, gang_of: MakeGang
) -> None:
    gang = await gang_of(coordinator, Roles(worker=1))
    async with owner_of(coordinator) as owner, agent_of(coordinator, gang) as session:
        asked = asyncio.create_task(asyncio.to_thread(owner.read_log, gang.run_id, WORKER, 5, 10))
        command = await question(session)
        assert (command.offset, command.max_bytes) == (5, 10)
        await session.log_chunk(command.request_id, LogChunk(5, b"\xff bytes", 100))
        assert await asked == LogChunk(5, b"\xff bytes", 100)
        assert coordinator.view(gang.run_id).members[0].phase is MemberPhase.RESERVED


async def test_an_agent_that_cannot_read_says_why(coordinator: Serving, gang_of: MakeGang) -> None:
    gang = await gang_of(coordinator, Roles(worker=1))
    async with owner_of(coordinator) as owner, agent_of(coordinator, gang) as session:
        asked = asyncio.create_task(asyncio.to_thread(owner.read_log, gang.run_id, WORKER))
        command = await question(session)
        assert command.offset is None
        await session.log_refused(command.request_id, "no such file")
        with pytest.raises(LogUnavailable, match="no such file"):
            await asked


async def test_an_agent_that_does_not_answer_costs_the_reader_alone(
    coordinator: Serving, gang_of: MakeGang, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E4"""
    monkeypatch.setattr("coordinator.log_requests.ANSWER_TIMEOUT", 0.2)
    gang = await gang_of(coordinator, Roles(worker=1))
    async with owner_of(coordinator) as owner, agent_of(coordinator, gang) as session:
        with pytest.raises(LogUnavailable, match=r"did not answer within 0\.2 s"):
            await asyncio.to_thread(owner.read_log, gang.run_id, WORKER)
        late = await question(session)
        await session.log_chunk(late.request_id, LogChunk(0, b"late", 4))
        await session.heartbeat(1)
        asked = asyncio.create_task(asyncio.to_thread(owner.read_log, gang.run_id, WORKER))
        again = await question(session)
        await session.log_chunk(again.request_id, LogChunk(0, b"in time", 7))
        assert (await asked).data == b"in time"


async def test_of_a_member_that_has_ended_the_tail_is_left(
    coordinator: Serving, gang_of: MakeGang
) -> None:
    gang = await gang_of(coordinator, Roles(worker=1))
    await gang.form()
    await gang.enter()
    worker = gang["worker:0"]
    await worker.end(ExitReport(Cause.USER_EXCEPTION, log_tail="the last words"))
    await worker.leave()
    await coordinator.ended(gang.run_id)
    async with owner_of(coordinator) as owner:
        chunk = await asyncio.to_thread(owner.read_log, gang.run_id, WORKER)
    assert chunk == LogChunk(None, b"the last words", 14)


async def test_where_there_is_nobody_to_ask_the_error_says_so(
    coordinator: Serving, gang_of: MakeGang
) -> None:
    gang = await gang_of(coordinator, Roles(worker=1))
    async with owner_of(coordinator) as owner:
        with pytest.raises(LogUnavailable, match="no executor yet"):
            await asyncio.to_thread(owner.read_log, gang.run_id, WORKER)
        await gang["worker:0"].reserve()
        with pytest.raises(LogUnavailable, match=r"member\.log on fake-host"):
            await asyncio.to_thread(owner.read_log, gang.run_id, WORKER)
        with pytest.raises(InvalidReservation, match="ps:0"):
            await asyncio.to_thread(owner.read_log, gang.run_id, MemberId(Role.PS, 0))
        with pytest.raises(InvalidReservation, match="offset"):
            await asyncio.to_thread(owner.read_log, gang.run_id, WORKER, -1)
        with pytest.raises(UnknownRun):
            await asyncio.to_thread(owner.read_log, RunId("never"), WORKER)


async def test_a_question_about_one_member_makes_no_picture_of_all(
    coordinator: Serving, gang_of: MakeGang, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of ten thousand it would cost more than the answer."""
    gang = await gang_of(coordinator, Roles(worker=1))

    def refuse(run_id: RunId) -> NoReturn:
        raise AssertionError("a picture of the run")

    async with owner_of(coordinator) as owner, agent_of(coordinator, gang) as session:
        with monkeypatch.context() as patched:
            patched.setattr(coordinator.engine, "view", refuse)
            asked = asyncio.create_task(asyncio.to_thread(owner.read_log, gang.run_id, WORKER))
            command = await question(session)
            await session.log_chunk(command.request_id, LogChunk(0, b"text", 4))
            assert (await asked).data == b"text"
            client = ReservationClient(coordinator.address, coordinator.token)
            who = (gang.run_id, WORKER, gang["worker:0"].incarnation)
            async with client.send_files(*who) as stream:
                assert await anext(stream.answers()) == Receiver(is_there=False)
            await client.close()
