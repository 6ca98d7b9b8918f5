"""The record of events over the wire: who gets what, and that a follower misses nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from coordinator.core.access import Principal, Role
from coordinator.core.errors import CoordinatorUnavailable, InvalidRun, PermissionDenied
from coordinator.core.model import Roles, RunId, RunPhase
from coordinator.engine import Engine
from coordinator.event_client import EventClient
from coordinator.event_log import EventQuery, EventRecord
from coordinator.journal import Journal
from coordinator.journal_values import JournalUnusable
from coordinator.security import Keyring
from coordinator.testing import Serving, serving
from tests.integration.grpc.conftest import MakeGang

pytestmark = pytest.mark.timeout(60)

ALL = EventQuery()


@asynccontextmanager
async def client_of(coordinator: Serving, token: str = "") -> AsyncIterator[EventClient]:
    client = EventClient(coordinator.address, token or coordinator.token)
    try:
        yield client
    finally:
        client.close()


async def read(client: EventClient, query: EventQuery = ALL, latest: int = 0) -> list[EventRecord]:
    return await asyncio.to_thread(lambda: list(client.watch(query, latest=latest)))


class Following:
    """Reads in a thread, until it has been told what it waits for."""

    def __init__(self, client: EventClient, query: EventQuery, latest: int = 0) -> None:
        self.seen: list[EventRecord] = []
        self._events: Iterator[EventRecord] = client.watch(query, latest=latest, follow=True)
        self._begun = threading.Event()

    async def until(self, enough: Callable[[EventRecord], bool]) -> None:
        def follow() -> None:
            for event in self._events:
                self.seen.append(event)
                self._begun.set()
                if enough(event):
                    return
            raise AssertionError("the coordinator has ended the stream")

        await asyncio.to_thread(follow)

    async def has_begun(self) -> None:
        assert await asyncio.to_thread(self._begun.wait, 30)


async def test_the_story_of_a_run_is_told_to_whoever_asks(
    coordinator: Serving, gang_of: MakeGang
) -> None:
    gang = await gang_of(coordinator, Roles(worker=2))
    await gang.form()
    await gang.enter()
    await gang.finish()
    await coordinator.ended(gang.run_id)
    async with client_of(coordinator) as client:
        told = await read(client, EventQuery(run_id=gang.run_id, kind="run."))
        assert [event.kind for event in told] == ["run.created", "run.formed", "run.succeeded"]
        assert told[0].at <= told[1].at <= told[2].at
        [last] = await read(client, EventQuery(kind="member"), latest=1)
        assert (last.run_id, last.kind) == (gang.run_id, "member.completed")
        assert last.subject in ("worker:0", "worker:1")
        assert await read(client, EventQuery(text="nobody has said this")) == []
        assert [each.id for each in await read(client, EventQuery(after_id=told[-1].id))] == []


async def test_a_follower_sees_what_happens_meanwhile(
    coordinator: Serving, gang_of: MakeGang
) -> None:
    gang = await gang_of(coordinator, Roles(worker=1))
    async with client_of(coordinator) as client:
        following = Following(client, EventQuery(run_id=gang.run_id))
        reading = asyncio.create_task(following.until(lambda event: event.kind == "run.succeeded"))
        await following.has_begun()
        await gang.form()
        await gang.enter()
        await gang.finish()
        await reading
    assert [event.kind for event in following.seen] == [
        "run.created", "member.reserved", "run.formed", "member.completed", "run.succeeded",
    ]  # fmt: skip


async def test_one_who_goes_away_is_forgotten(coordinator: Serving) -> None:
    async with client_of(coordinator) as client:
        following = Following(client, ALL)
        await following.until(lambda _: True)
    async with asyncio.timeout(30):
        while coordinator.engine.events._followers:  # noqa: ASYNC110 nothing tells of it
            await asyncio.sleep(0.01)


async def test_a_filter_that_makes_no_sense_is_refused(coordinator: Serving) -> None:
    async with client_of(coordinator) as client:
        with pytest.raises(InvalidRun, match="since is later"):
            await read(client, EventQuery(since=2.0, until=1.0))
        with pytest.raises(InvalidRun, match="limit=99999"):
            await read(client, latest=99_999)
        await read(client, EventQuery(text="x" * 1_000))
        with pytest.raises(InvalidRun, match="text has 60000 characters: give at most 1000"):
            await read(client, EventQuery(text="x" * 60_000))
        with pytest.raises(InvalidRun, match="kind has 1001 characters"):
            await read(client, EventQuery(kind="x" * 1_001))


async def test_a_runs_own_token_opens_the_events_of_that_run_alone(
    coordinator: Serving, gang_of: MakeGang
) -> None:
    mine = await gang_of(coordinator, Roles(worker=1))
    other = await gang_of(coordinator, Roles(worker=1))
    keyring = Keyring(coordinator.token)
    owner = keyring.token_for(Principal(Role.OWNER, mine.run_id))
    async with client_of(coordinator, owner) as client:
        assert await read(client, EventQuery(run_id=mine.run_id))
        for run_id in (other.run_id, ""):
            with pytest.raises(PermissionDenied):
                await read(client, EventQuery(run_id=run_id))
    agent = keyring.token_for(Principal(Role.AGENT, mine.run_id))
    async with client_of(coordinator, agent) as client:
        with pytest.raises(PermissionDenied):
            await read(client, EventQuery(run_id=mine.run_id))


async def test_events_outlive_the_coordinator(tmp_path: Path, gang_of: MakeGang) -> None:
    path = tmp_path / "journal.sqlite"
    run_id = await one_run(path, gang_of)
    journal = Journal.open(path)
    try:
        async with serving(Engine(journal=journal)) as again, client_of(again) as client:
            told = await read(client)
            kinds = [event.kind for event in told]
            assert kinds[0] == "coordinator.started"
            assert kinds[-1] == "coordinator.restarted"
            assert "run.succeeded" in kinds
            assert [event.id for event in told] == list(range(1, len(told) + 1))
            of_run = await read(client, EventQuery(run_id=run_id))
            assert {event.run_id for event in of_run} == {run_id}
            assert again.view(run_id).phase is RunPhase.SUCCEEDED
    finally:
        journal.close()


async def test_a_journal_that_cannot_be_read_is_no_bug(
    tmp_path: Path,
    gang_of: MakeGang,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its reader is told why, and nobody else."""
    path = tmp_path / "journal.sqlite"
    await one_run(path, gang_of)

    def unreadable(journal: Journal, query: EventQuery) -> list[EventRecord]:
        raise JournalUnusable("the journal cannot be used: disk I/O error")

    journal = Journal.open(path)
    try:
        async with serving(Engine(journal=journal)) as again, client_of(again) as client:
            monkeypatch.setattr(Journal, "events", unreadable)
            for latest in (0, 10):
                with pytest.raises(CoordinatorUnavailable, match="cannot be used: disk I/O error"):
                    await read(client, latest=latest)
            with pytest.raises(CoordinatorUnavailable, match="cannot be used: disk I/O error"):
                await read(client, EventQuery(after_id=1))
    finally:
        journal.close()
    assert "bug" not in caplog.text


async def one_run(path: Path, gang_of: MakeGang) -> RunId:
    journal = Journal.open(path)
    try:
        async with serving(Engine(journal=journal)) as coordinator:
            gang = await gang_of(coordinator, Roles(worker=1))
            await gang.form()
            await gang.enter()
            await gang.finish()
            await coordinator.ended(gang.run_id)
            await gang.close()
            return gang.run_id
    finally:
        journal.close()
