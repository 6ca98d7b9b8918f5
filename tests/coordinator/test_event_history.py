"""The record of events: memory and journal read as one, without a gap."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from coordinator import event_history
from coordinator.core.errors import InvalidRun
from coordinator.event_history import EventHistory
from coordinator.event_kinds import EVENTS_MISSED
from coordinator.event_log import KEPT_IN_MEMORY, EventLog, EventQuery, EventRecord, fits
from coordinator.journal import Journal, Retention

ALL = EventQuery()


class Stored:
    """An event log whose events go into a real journal, in the manner of an engine."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.log = EventLog(lambda: 1_000.0, journal.next_event_id)
        self.log.is_journaled = True
        self.history = EventHistory(self.log, journal, self.durable)

    async def durable(self) -> None:
        await asyncio.wrap_future(self.journal.write({}, (), self.log.take_new()))


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[Stored]:
    journal = Journal.open(tmp_path / "journal.sqlite", clock=lambda: 1_000.0)
    yield Stored(journal)
    journal.close()


def in_memory() -> tuple[EventLog, EventHistory]:
    log = EventLog(lambda: 1_000.0)

    async def durable() -> None:
        raise AssertionError("there is nothing to wait for")

    return log, EventHistory(log, None, durable)


def add(log: EventLog, number: int) -> None:
    for _ in range(number):
        log.add("run.noted", f"event {log.newest_id + 1}")


async def read(history: EventHistory, query: EventQuery = ALL, latest: int = 0) -> list[int]:
    pages = [page async for page in history.read(query, latest=latest)]
    assert all(0 < len(page) <= event_history.PAGE + 1 for page in pages)
    return [event.id for page in pages for event in page]


async def test_all_that_is_in_memory_is_read_in_pages() -> None:
    log, history = in_memory()
    assert await read(history) == []
    add(log, 1_234)
    assert await read(history) == list(range(1, 1_235))
    assert await read(history, latest=3) == [1_232, 1_233, 1_234]
    assert await read(history, EventQuery(after_id=1_230)) == [1_231, 1_232, 1_233, 1_234]
    assert await read(history, EventQuery(text="EVENT 77"), latest=2) == [778, 779]


async def test_what_memory_has_lost_is_read_from_the_journal(stored: Stored) -> None:
    add(stored.log, KEPT_IN_MEMORY + 1_200)
    assert stored.log.oldest_id == 1_201
    assert await read(stored.history) == list(range(1, KEPT_IN_MEMORY + 1_201))
    assert await read(stored.history, EventQuery(after_id=1_199)) == list(
        range(1_200, KEPT_IN_MEMORY + 1_201)
    )
    assert await read(stored.history, latest=2) == [KEPT_IN_MEMORY + 1_199, KEPT_IN_MEMORY + 1_200]


async def test_what_was_before_a_restart_is_read_too(stored: Stored) -> None:
    add(stored.log, 700)
    await stored.durable()
    later = EventLog(lambda: 2_000.0, first_id=701)
    later.add("coordinator.restarted", "here again")

    async def durable() -> None:
        pass

    history = EventHistory(later, stored.journal, durable)
    assert await read(history) == list(range(1, 702))


async def test_a_follower_gets_everything_once_and_in_order(stored: Stored) -> None:
    """Stored, in memory, and while it reads."""
    add(stored.log, KEPT_IN_MEMORY + 800)
    seen: list[int] = []
    async with aclosing(stored.history.read(ALL, follow=True)) as pages:
        async for page in pages:
            seen += [event.id for event in page]
            if len(seen) < KEPT_IN_MEMORY + 800:
                add(stored.log, 10)  # as fast as it is read
            elif seen[-1] == stored.log.newest_id:
                if stored.log.newest_id > 12_000:
                    break
                add(stored.log, 700)
    assert seen == list(range(1, stored.log.newest_id + 1))


async def test_one_who_follows_the_latest_misses_nothing_that_comes_meanwhile(
    stored: Stored,
) -> None:
    add(stored.log, 100)
    seen: list[int] = []
    async with aclosing(stored.history.read(ALL, latest=2, follow=True)) as pages:
        async for page in pages:
            seen += [event.id for event in page]
            if seen[-1] == 103:
                break
            add(stored.log, 1)
    assert seen == [99, 100, 101, 102, 103]


async def test_a_slow_follower_without_a_journal_is_told_how_many_it_has_missed() -> None:
    log, history = in_memory()
    add(log, 1)
    told: list[EventRecord] = []
    async with aclosing(history.read(ALL, follow=True)) as pages:
        async for page in pages:
            told += page
            if len(told) > 1:
                break
            add(log, KEPT_IN_MEMORY + 41)
    assert told[1].kind == EVENTS_MISSED
    assert told[1].text.startswith("41 events")
    assert told[2].id == 43


async def test_a_slow_follower_is_told_what_the_journal_has_dropped(tmp_path: Path) -> None:
    retention = Retention(rows=500)
    journal = Journal.open(tmp_path / "j.sqlite", clock=lambda: 1_000.0, retention=retention)
    stored = Stored(journal)
    try:
        for _ in range(KEPT_IN_MEMORY // 500 + 5):
            add(stored.log, 500)
            await stored.durable()
        stored.log.kept.clear()  # so that all of it must come from the journal
        pages = [page async for page in stored.history.read(EventQuery(after_id=10))]
        assert pages[0][0].kind == EVENTS_MISSED
        missed = int(pages[0][0].text.partition(" ")[0])
        assert 0 < missed <= pages[0][1].id - 11, "those that were dropped just now apart"
    finally:
        journal.close()


@pytest.mark.parametrize(
    "query, latest, follow, words",
    [
        (ALL, -1, False, "limit=-1"),
        (ALL, 10_001, False, "limit=10001"),
        (EventQuery(since=2.0, until=1.0), 0, False, "since is later than until"),
        (EventQuery(until=2.0), 0, True, "has no end"),
        (EventQuery(after_id=-1), 0, False, "after_id=-1"),
        (EventQuery(after_id=2), 0, False, "latest event of this coordinator has the id 1"),
    ],
)
async def test_a_filter_that_makes_no_sense_is_refused(
    query: EventQuery, latest: int, follow: bool, words: str
) -> None:
    log, history = in_memory()
    add(log, 1)
    with pytest.raises(InvalidRun, match=words):
        async for _ in history.read(query, latest=latest, follow=follow):
            pass
    assert not log._followers


QUERIES = [
    ALL,
    EventQuery(run_id="a"),
    EventQuery(kind="run"),
    EventQuery(kind="run.failed"),
    EventQuery(kind="ru"),
    EventQuery(since=2.0),
    EventQuery(until=2.0),
    EventQuery(since=2.0, until=2.0),
    EventQuery(text="WORKER"),
    EventQuery(text="100%"),
    EventQuery(text="_"),
    EventQuery(text="ÄRGER"),
    EventQuery(text="ärger"),
    EventQuery(after_id=2),
    EventQuery(kind="gpu", text="gpu-5"),
]


@pytest.mark.parametrize("query", QUERIES, ids=repr)
async def test_memory_chooses_as_the_journal_does(stored: Stored, query: EventQuery) -> None:
    times = iter([1.0, 2.0, 3.0, 4.0])
    stored.log._wall = lambda: next(times)
    stored.log.add("run.failed", "worker:1 has 100% of it", "a")
    stored.log.add("run.failed.early", "Ärger", "b", "worker:2")
    stored.log.add("gpu.granted", "a_b", "a", "GPU-5b2c")
    stored.log.add("running", "none of run", "")
    await stored.durable()
    chosen = [event.id for event in stored.log.kept if fits(event, query)]
    assert chosen == [event.id for event in stored.journal.events(query)]
