"""A disk that is full for a while: nothing new is said, nobody is given up, and all is said after.

Journals are in memory, so that a disk is full when the test says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from coordinator import durability, wire
from coordinator.channels import aio_channel
from coordinator.core import events
from coordinator.core.log_values import ReadLog
from coordinator.core.model import Cause, ExitReport, Roles, RunId, RunPhase, RunSpec
from coordinator.engine import Engine
from coordinator.member_client import Acknowledged, Attendance, ReservationClient, Start, Stop
from coordinator.security import call_metadata
from coordinator.testing import FakeExecutor, Serving, serving
from coordinator.v1 import run_service_pb2 as run_pb
from coordinator.v1 import run_service_pb2_grpc as run_grpc
from tests.coordinator.fake_disk import NO_ROOM, FakeDisk
from tests.integration.grpc import raw

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def disk(monkeypatch: pytest.MonkeyPatch) -> FakeDisk:
    monkeypatch.setattr(durability, "RETRY_INTERVAL", 0.005)
    return FakeDisk()


@pytest.fixture
async def engine(disk: FakeDisk) -> Engine:
    return Engine(journal=disk)  # type: ignore[arg-type]


@pytest.fixture
async def coordinator(disk: FakeDisk, engine: Engine) -> AsyncIterator[Serving]:
    async with serving(engine) as running:
        yield running
        disk.is_full = False


class Member:
    """The one of a run, that says what the test says, and keeps what it is told."""

    def __init__(self, coordinator: Serving, run_id: RunId) -> None:
        self._client = ReservationClient(coordinator.address, coordinator.token)
        self._executor = FakeExecutor(
            coordinator.address, coordinator.token, run_id, "worker:0", client=self._client
        )
        self.who = (run_id, self._executor.member, self._executor.incarnation)
        self.heard: list[Any] = []
        self._listening: asyncio.Task[None] | None = None

    async def reserve(self) -> None:
        assert (await self._executor.reserve()).is_granted

    async def attend(self) -> Attendance:
        session = self._client.attend(*self.who)
        await session.__aenter__()
        self._listening = asyncio.create_task(self._listen(session))
        return session

    async def _listen(self, session: Attendance) -> None:
        async for command in session.commands():
            self.heard.append(command)

    @property
    def acknowledged(self) -> int:
        return max(
            (each.sequence for each in self.heard if isinstance(each, Acknowledged)), default=-1
        )

    @property
    def commands(self) -> list[Any]:
        return [each for each in self.heard if not isinstance(each, Acknowledged)]

    async def until_acknowledged(self, sequence: int) -> None:
        await raw.becomes_true(lambda: self.acknowledged >= sequence)

    async def work(self) -> Attendance:
        """Up to its ``main_fun``; the next message is number 3."""
        await self.reserve()
        session = await self.attend()
        await session.ready(1, {})
        await raw.becomes_true(lambda: any(isinstance(each, Start) for each in self.heard))
        await session.main_entered(2, 1)
        await self.until_acknowledged(2)
        self.heard.clear()
        return session

    async def close(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait([self._listening])
        await self._client.close()


@pytest.fixture
async def member(coordinator: Serving) -> AsyncIterator[Member]:
    found = Member(coordinator, coordinator.create_run(RunSpec(Roles(worker=1))))
    yield found
    await found.close()


async def fill(disk: FakeDisk, engine: Engine) -> None:
    """From now on, with something that is to be written."""
    await engine.durable()
    disk.is_full = True
    engine.create_run("", RunSpec(Roles(worker=1)))
    await disk.refuses_again()


# --- members --------------------------------------------------------------------------------------


async def test_beats_are_acknowledged_also_after_progress_was_reported(
    coordinator: Serving, disk: FakeDisk, member: Member
) -> None:
    """Its fence would stop a member that trains well."""
    session = await member.work()
    await coordinator.engine.durable()
    disk.is_full = True
    await session.progress(3, 1, 5, {"loss": 0.5})
    for sequence in range(4, 7):
        await session.heartbeat(sequence)
        await member.until_acknowledged(sequence)
    await disk.refuses_again()
    disk.is_full = False
    await coordinator.engine.durable()
    assert '"step": 5' in disk.texts["member", f"{member.who[0]}/worker:0"]


async def test_who_attends_anew_is_heard(
    coordinator: Serving, disk: FakeDisk, member: Member
) -> None:
    """A session is no decision; a member that has lost its connection has not lost its slot."""
    await member.reserve()
    await fill(disk, coordinator.engine)
    session = await member.attend()
    await member.until_acknowledged(0)
    await session.heartbeat(1)
    await member.until_acknowledged(1)


async def test_commands_wait_for_the_disk_and_keep_no_acknowledgement(
    coordinator: Serving, disk: FakeDisk, member: Member
) -> None:
    session = await member.work()
    run_id, _, incarnation = member.who
    await fill(disk, coordinator.engine)
    coordinator.engine.feed(events.StopRequested(run_id, "enough"))
    told = coordinator.engine.session(run_id, incarnation)
    assert told is not None
    told.send(ReadLog("q", None, 10))
    for sequence in range(3, 6):
        await session.heartbeat(sequence)
        await member.until_acknowledged(sequence)
    await disk.refuses_again()
    assert member.commands == []
    disk.is_full = False
    await raw.becomes_true(lambda: len(member.commands) == 2)
    assert [type(each) for each in member.commands] == [Stop, ReadLog], "in their order"


async def test_a_report_is_acknowledged_when_it_is_on_disk_and_nothing_after_it_before(
    coordinator: Serving, disk: FakeDisk, member: Member
) -> None:
    session = await member.work()
    await fill(disk, coordinator.engine)
    await session.process_exited(3, 1, ExitReport(Cause.COMPLETED))
    await session.heartbeat(4)
    await coordinator.ended(member.who[0])
    await disk.refuses_again()
    assert member.heard == []
    disk.is_full = False
    await member.until_acknowledged(4)
    assert '"succeeded"' in disk.texts["run", member.who[0]]


# --- owners and watchers --------------------------------------------------------------------------


@pytest.fixture
async def stub(coordinator: Serving) -> AsyncIterator[Any]:
    async with aio_channel(coordinator.address) as channel:
        yield run_grpc.RunServiceStub(channel)


async def refusal_of(stub: Any, token: str, run_id: str) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stub.GetRun(run_pb.GetRunRequest(run_id=run_id), metadata=call_metadata(token))
    return error.value


@pytest.mark.parametrize("way", ["WatchRun", "OwnRun"])
async def test_who_follows_a_run_waits_as_long_as_it_takes(
    way: str,
    coordinator: Serving,
    disk: FakeDisk,
    member: Member,
    stub: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An owner whose stream ends has gone, says its run."""
    monkeypatch.setattr(durability, "PATIENCE", 0.05)
    run_id = member.who[0]
    await fill(disk, coordinator.engine)
    request = getattr(run_pb, f"{way}Request")(run_id=run_id)
    following = getattr(stub, way)(request, metadata=call_metadata(coordinator.token))
    pictures = asyncio.create_task(phases(following))
    await raw.becomes_true(lambda: coordinator.engine.has_watchers(run_id))
    for _ in range(2):  # longer than anybody else waits
        await refusal_of(stub, coordinator.token, run_id)
    assert not pictures.done()
    coordinator.engine.feed(events.StopRequested(run_id, "enough"))
    disk.is_full = False
    assert await pictures == [RunPhase.FORMING, RunPhase.CANCELLED]


async def phases(following: Any) -> list[RunPhase]:
    """All that it tells, until the run has ended."""
    return [wire.run_from_pb(response.run).phase async for response in following]


@pytest.mark.parametrize("known", [True, False])
async def test_a_call_is_refused_with_the_reason_after_one_wait(
    known: bool,
    coordinator: Serving,
    disk: FakeDisk,
    member: Member,
    stub: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its client would not wait for another one. Also a refusal rests on what is on disk."""
    monkeypatch.setattr(durability, "PATIENCE", 0.05)
    await fill(disk, coordinator.engine)
    waits = 0
    durable = coordinator.engine.durable

    async def counting(mark: int | None = None) -> None:
        nonlocal waits
        waits += 1
        await durable(mark)

    monkeypatch.setattr(coordinator.engine, "durable", counting)
    run_id = member.who[0] if known else RunId("nobody-knows-it")
    error = await refusal_of(stub, coordinator.token, run_id)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert f"cannot write its journal, and answers nothing until it can: {NO_ROOM}" in str(
        error.details()
    )
    assert waits == 1
