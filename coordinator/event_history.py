"""Reads the record of events, from the journal and from memory as if it were one.

Whoever reads has a position, the id of the last event that he knows of. A page is what comes next.
Nothing is kept for a reader: one that is slow finds what he has missed in the journal, or is told
how much of it is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Protocol

from coordinator.core.errors import CoordinatorUnavailable, InvalidRun
from coordinator.event_kinds import EVENTS_MISSED
from coordinator.event_log import EventLog, EventQuery, EventRecord, fits
from coordinator.journal_values import JournalUnusable

PAGE = 500
"""So many events go into one message."""

LONGEST_LIMIT = 10_000
"""Whoever asks for the latest events gets at most so many."""

LONGEST_TEXT = 1_000
"""Characters of what is looked for; SQLite takes no pattern that is very long."""

FOLLOW_INTERVAL = 0.1
"""Seconds at least between two messages to one who follows."""


class EventStore(Protocol):
    """A journal, as far as it is asked here."""

    def events(self, query: EventQuery) -> list[EventRecord]:
        """In the order of their ids; may be called from any thread."""


@dataclass(frozen=True, slots=True)
class _Page:
    """``position``: all up to this event has been looked at."""

    events: list[EventRecord]
    position: int


class EventHistory:
    """``durable``: returns when all events up to now are in the store."""

    def __init__(
        self, log: EventLog, store: EventStore | None, durable: Callable[[], Awaitable[None]]
    ) -> None:
        self._log = log
        self._store = store
        self._durable = durable

    async def read(
        self, query: EventQuery, *, latest: int = 0, follow: bool = False
    ) -> AsyncGenerator[list[EventRecord], None]:
        """What fits, the oldest first, in pages; ``latest``: of what has happened already at most
        so many, the latest; 0: all. With ``follow`` it ends with its reader. Raises InvalidRun, and
        CoordinatorUnavailable when the store cannot be read."""
        self._check(query, latest, follow=follow)
        changed = asyncio.Event()
        stop_following = self._log.follow(changed.set)
        try:
            position, end = query.after_id, self._log.newest_id
            if latest:
                position, newest = end, await self._latest(query, latest, end)
                for start in range(0, len(newest), PAGE):
                    yield newest[start : start + PAGE]
            while follow or position < end:
                changed.clear()
                page = await self._page(replace(query, after_id=position))
                position = page.position
                told = [event for event in page.events if follow or event.id <= end]
                if told:
                    yield told
                if follow and position >= self._log.newest_id:
                    await changed.wait()
                    await asyncio.sleep(FOLLOW_INTERVAL)  # what comes in a burst goes together
        finally:
            stop_following()

    def _check(self, query: EventQuery, latest: int, *, follow: bool) -> None:
        if not 0 <= latest <= LONGEST_LIMIT:
            raise InvalidRun(f"limit={latest}: must be from 0 (all of them) to {LONGEST_LIMIT}")
        for name, text in (("text", query.text), ("kind", query.kind)):
            if len(text) > LONGEST_TEXT:
                raise InvalidRun(f"{name} has {len(text)} characters: give at most {LONGEST_TEXT}")
        if query.since is not None and query.until is not None and query.since > query.until:
            raise InvalidRun("since is later than until: nothing can be in between")
        if follow and query.until is not None:
            raise InvalidRun("what is followed has no end: leave until out, or follow")
        if query.after_id < 0 or query.after_id > self._log.newest_id:
            raise InvalidRun(
                f"after_id={query.after_id}: the latest event of this coordinator has the id "
                f"{self._log.newest_id}; one without a journal begins anew at 1"
            )

    async def _latest(self, query: EventQuery, number: int, end: int) -> list[EventRecord]:
        kept = {event.id: event for event in self._log.kept if fits(event, query)}
        if self._store is not None and len(kept) < number and self._log.oldest_id > 1:
            wanted = replace(query, limit=number, is_latest=True)
            stored = await self._stored(self._store, wanted)
            kept |= {event.id: event for event in stored}
        # What has come since is its follower's, by way of the pages.
        return [kept[each] for each in sorted(kept) if each <= end][-number:]

    async def _page(self, query: EventQuery) -> _Page:
        """The next events after ``query.after_id`` that fit, and how far that goes."""
        if self._store is None or self._log.oldest_id <= query.after_id + 1:
            return self._page_of_memory(query)
        # What is no longer in memory is in the store, at the latest when all up to now is.
        stored_up_to = self._log.oldest_id - 1
        await self._durable()
        missed = await self._missed_in_store(query.after_id)
        found = await self._stored(self._store, replace(query, limit=PAGE))
        is_cut_off = len(found) == PAGE
        position = found[-1].id if is_cut_off else max([stored_up_to, *(each.id for each in found)])
        return _Page([*missed, *found], position)

    async def _stored(self, store: EventStore, query: EventQuery) -> list[EventRecord]:
        try:
            return await asyncio.to_thread(store.events, query)
        except JournalUnusable as error:
            raise CoordinatorUnavailable(str(error)) from None

    def _page_of_memory(self, query: EventQuery) -> _Page:
        later = self._log.after(query.after_id)
        found = [event for event in later if fits(event, query)]
        missed = self._missed(query.after_id, self._log.oldest_id)
        if len(found) > PAGE:
            return _Page([*missed, *found[:PAGE]], found[PAGE - 1].id)
        return _Page([*missed, *found], self._log.newest_id)

    async def _missed_in_store(self, position: int) -> list[EventRecord]:
        assert self._store is not None
        oldest = await self._stored(self._store, EventQuery(limit=1))
        return self._missed(position, oldest[0].id) if oldest else []

    def _missed(self, position: int, oldest: int) -> list[EventRecord]:
        """A word for him who had read up to ``position`` and finds a gap; whoever has only just
        come has missed nothing."""
        missed = oldest - position - 1
        if not position or missed <= 0:
            return []
        text = f"{missed} events that came before this are no longer kept"
        at = self._log.kept[0].at if self._log.kept else 0.0
        return [EventRecord(oldest - 1, at, "", "", EVENTS_MISSED, text)]
