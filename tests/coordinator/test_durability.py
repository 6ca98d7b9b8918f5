"""What is decided is on disk before anybody is told: groups, attempts, and giving up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import pytest

from coordinator import daemon, durability
from coordinator.calls import Call
from coordinator.core import effects, events
from coordinator.core.access import Principal, Role
from coordinator.core.errors import CoordinatorUnavailable
from coordinator.core.log_values import ReadLog
from coordinator.core.model import Endpoint, ExecutorInfo, IncarnationId, MemberId, Roles, RunSpec
from coordinator.daemon_engine import DaemonEngine
from coordinator.durability import Commits, DurableAnswers, durable_soon
from coordinator.engine import Engine
from coordinator.event_log import EventRecord
from coordinator.journal_values import JournalUnusable
from tests.coordinator.fake_disk import NO_ROOM, FakeDisk

pytestmark = pytest.mark.timeout(30)


@dataclass
class Changes:
    put: dict[Any, Any] = field(default_factory=dict)
    removed: tuple[Any, ...] = ()


class Scene:
    """Commits to a store whose writes end when the test says so. Changes are numbers."""

    def __init__(self) -> None:
        self.changes: list[int] = []
        self.writes: list[tuple[list[Any], Future[None]]] = []
        self.given_up = 0
        self.fault: Exception | None = None  # of what does not even come to the disk
        self.commits = Commits(self, self.take, self.take_events, self.give_up)

    def take(self) -> Changes:
        if self.fault is not None:
            raise self.fault
        taken, self.changes = self.changes, []
        return Changes(dict.fromkeys(taken))

    def take_events(self) -> list[EventRecord]:
        return []

    def give_up(self) -> None:
        self.given_up += 1

    def write(self, put: Any, removed: Any, events: Any) -> Future[None]:
        self.writes.append((list(put), Future()))
        return self.writes[-1][1]

    def change(self, number: int) -> asyncio.Task[None]:
        """Who waits for it."""
        self.changes.append(number)
        self.commits.changed()
        return asyncio.create_task(self.commits.durable(self.commits.mark))

    async def until_written(self, times: int) -> Future[None]:
        """The write that is under way then."""
        await becomes_true(lambda: len(self.writes) == times)
        return self.writes[-1][1]

    @property
    def written(self) -> list[list[Any]]:
        return [numbers for numbers, _ in self.writes]


async def becomes_true(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 it is no coroutine's work
            await asyncio.sleep(0)


async def settled() -> None:
    """All that can go on without the disk has done so."""
    for _ in range(20):
        await asyncio.sleep(0)


# --- groups ---------------------------------------------------------------------------------------


async def test_what_comes_while_one_group_is_written_is_the_next_group() -> None:
    scene = Scene()
    first = scene.change(1)
    writing = await scene.until_written(1)
    later = [scene.change(2), scene.change(3)]
    await settled()
    assert scene.written == [[1]]
    assert not first.done()
    writing.set_result(None)
    await first
    writing = await scene.until_written(2)
    assert scene.written == [[1], [2, 3]]
    assert not any(waiter.done() for waiter in later)
    assert scene.commits.backlog == 2
    writing.set_result(None)
    await asyncio.gather(*later)
    assert scene.commits.backlog == 0


async def test_who_asks_for_what_is_on_disk_already_does_not_wait_for_later_changes() -> None:
    scene = Scene()
    first = scene.change(1)
    mark = scene.commits.mark
    (await scene.until_written(1)).set_result(None)
    await first
    later = scene.change(2)
    await scene.until_written(2)
    await scene.commits.durable(mark)
    assert not later.done()
    scene.writes[-1][1].set_result(None)
    await later


async def test_who_does_not_wait_any_more_keeps_nobody_else() -> None:
    scene = Scene()
    impatient, patient = scene.change(1), scene.change(2)
    writing = await scene.until_written(1)
    impatient.cancel()
    await settled()
    writing.set_result(None)
    await patient


async def test_a_full_disk_is_tried_again_with_the_same_and_nobody_is_told_until_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(durability, "RETRY_INTERVAL", 0.0)
    scene = Scene()
    waiter = scene.change(1)
    for attempt in (1, 2, 3):
        (await scene.until_written(attempt)).set_exception(JournalUnusable(NO_ROOM))
    writing = await scene.until_written(4)
    assert scene.commits.problem == NO_ROOM
    assert not waiter.done()
    later = scene.change(2)
    writing.set_result(None)
    await waiter
    (await scene.until_written(5)).set_result(None)
    await later
    assert scene.written == [[1], [1], [1], [1], [2]]
    assert (scene.commits.problem, scene.given_up) == ("", 0)


async def test_who_ends_waits_for_the_disk_but_not_for_ever() -> None:
    scene = Scene()
    assert await scene.commits.end(0.0), "nothing is left to write"
    waiter = scene.change(1)
    writing = await scene.until_written(1)
    assert not await scene.commits.end(0.0)
    await settled()
    assert writing.cancelled()
    waiter.cancel()


# --- writing fails by a bug -----------------------------------------------------------------------


@pytest.mark.parametrize("place", ["before", "in the writer"])
async def test_after_a_group_is_lost_nobody_is_told_anything_ever_more(place: str) -> None:
    """Later changes would pass for all that came before them."""
    scene = Scene()
    if place == "before":
        scene.fault = MemoryError("once")
    lost = scene.change(1)
    if place == "in the writer":
        (await scene.until_written(1)).set_exception(MemoryError("once"))
    await becomes_true(lambda: scene.given_up == 1)
    scene.fault = None
    attempts = len(scene.writes)
    later = scene.change(2)
    await settled()
    assert len(scene.writes) == attempts, "it writes on"
    assert not lost.done()
    assert not later.done()
    assert not scene.commits.is_done(1)
    assert scene.given_up == 1
    assert not await scene.commits.end(0.0), "nor is it said at the end that all is well"
    lost.cancel()
    later.cancel()


async def test_a_daemon_ends_at_once_when_its_journal_fails_by_a_bug(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not in order: what is missing in the journal must reach nobody."""
    codes: list[int] = []
    monkeypatch.setattr(daemon.os, "_exit", codes.append)
    disk = FakeDisk()
    engine = daemon._engine(disk)  # type: ignore[arg-type]
    assert isinstance(engine, DaemonEngine)
    engine.create_run("asked", RunSpec(Roles(worker=1)))
    await engine.durable()
    disk.fault = MemoryError("once")
    run_id = engine.create_run("asked again", RunSpec(Roles(worker=1)))
    answer = asyncio.create_task(engine.durable())
    await becomes_true(lambda: bool(codes))
    assert codes == [daemon._BROKEN]
    disk.fault = None
    engine.tell("run.noted", "something else")
    await settled()
    assert not answer.done()
    assert ("run", run_id) not in disk.texts
    answer.cancel()


async def test_what_was_decided_is_written_also_when_it_cannot_be_carried_out() -> None:
    class Broken:
        def send(self, command: effects.Command | ReadLog) -> None:
            raise RuntimeError("a bug")

        def close(self) -> None:
            pass

    disk = FakeDisk()
    engine = Engine(journal=disk)  # type: ignore[arg-type]
    run_id = engine.create_run("", RunSpec(Roles(worker=1)))
    who = (run_id, MemberId.parse("worker:0"), IncarnationId("attempt"))
    where = ExecutorInfo("host", "boot", 1)
    engine.feed(events.ReservationRequested(*who, where, Endpoint("10.0.0.1", 2222)))
    engine.open_session(*who, Broken())
    await engine.durable()
    before = disk.texts["run", run_id]
    with pytest.raises(RuntimeError, match="a bug"):
        engine.feed(events.StopRequested(run_id, "enough"))
    await engine.durable()
    assert disk.texts["run", run_id] != before
    engine.close()


# --- answers --------------------------------------------------------------------------------------


class Waiting:
    """An engine of which nothing is on disk until the test says so."""

    def __init__(self, problem: str = "") -> None:
        self.journal_problem = problem
        self.written = asyncio.Event()

    async def durable(self, mark: int | None = None) -> None:
        await self.written.wait()


def call(name: str) -> Call:
    return Call(f"/coordinator.v1.{name}", "peer", Principal(Role.OPERATOR))


@pytest.mark.parametrize("problem, why", [(NO_ROOM, NO_ROOM), ("", "the disk is slow")])
async def test_an_answer_that_takes_too_long_is_a_refusal_that_says_why(
    monkeypatch: pytest.MonkeyPatch, problem: str, why: str
) -> None:
    monkeypatch.setattr(durability, "PATIENCE", 0.0)
    with pytest.raises(CoordinatorUnavailable, match=f"cannot write its journal.*: {why}"):
        await durable_soon(Waiting(problem))
    with pytest.raises(CoordinatorUnavailable):
        await DurableAnswers(Waiting()).before_answer(call("RunService/GetRun"))


async def test_an_answer_goes_out_as_soon_as_all_is_written() -> None:
    engine = Waiting()
    answering = asyncio.create_task(DurableAnswers(engine).before_answer(call("RunService/GetRun")))
    await settled()
    assert not answering.done()
    engine.written.set()
    await answering


@pytest.mark.parametrize("name", ["RunService/WatchRun", "RunService/OwnRun"])
async def test_a_stream_waits_for_the_disk_as_long_as_it_takes(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(durability, "PATIENCE", 0.0)
    engine = Waiting(NO_ROOM)
    telling = asyncio.create_task(DurableAnswers(engine).before_answer(call(name)))
    with pytest.raises(CoordinatorUnavailable):
        await durable_soon(engine)
    await settled()
    assert not telling.done()
    engine.written.set()
    await telling
