"""What is decided is on disk before anybody is told.

Changes of the machine are written in groups: all that have come while the last group was being
written. Whoever answers waits for the group that holds what the answer rests on. A write that
fails is tried again, for instance until a full disk has room; until then nobody is told anything
new, but members that beat are told that they are heard.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Protocol

from coordinator.calls import Aspect, Call
from coordinator.core.durable import STATE_VERSION, Changes, migrate
from coordinator.core.errors import CoordinatorUnavailable
from coordinator.journal_values import EventRecord, JournalUnusable, Key
from coordinator.limiting import STREAMS

if TYPE_CHECKING:
    from coordinator.journal import Journal

_log = logging.getLogger("tflease.coordinator")

PATIENCE = 8.0
"""Seconds that an answer waits for the disk: less than a client waits for an answer."""

RETRY_INTERVAL = 1.0
"""Seconds between two attempts to write what could not be written."""


class Store(Protocol):
    """Where it is written to: the journal."""

    def write(
        self,
        put: Mapping[Key, Mapping[str, Any]],
        removed: Collection[Key],
        events: Sequence[EventRecord],
    ) -> Future[None]:
        """All of it or nothing, in another thread."""


def recover(journal: Journal) -> Mapping[Key, Mapping[str, Any]]:
    """The records, brought to the present version, and written as such before they are used.
    Raises JournalUnusable."""
    old = journal.load()
    if not old or journal.state_version == STATE_VERSION:
        return old
    try:
        new = migrate(old, journal.state_version)
    except ValueError as error:
        raise JournalUnusable(str(error)) from None
    removed = [key for key in old if key not in new]
    journal.write(new, removed, [], state_version=STATE_VERSION).result()
    return new


class Commits:
    """Use inside one event loop. ``take``: all changes since it was called last. ``give_up``: is
    called when writing fails by a bug, so that what was taken is lost: the process must end, since
    the journal is sound and nobody has been told of what is missing in it."""

    def __init__(
        self,
        store: Store,
        take: Callable[[], Changes],
        take_events: Callable[[], list[EventRecord]],
        give_up: Callable[[], None],
    ) -> None:
        self._store = store
        self._take = take
        self._take_events = take_events
        self._give_up = give_up
        self._wanted = 0
        self._done = 0
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []  # a heap: the oldest mark
        self._order = itertools.count()  # of two with one mark: futures cannot be compared
        self._writing: asyncio.Task[None] | None = None
        self.problem = ""
        self._is_broken = False

    @property
    def mark(self) -> int:
        """Stands for all that has changed up to now."""
        return self._wanted

    @property
    def backlog(self) -> int:
        """So many changes are not on disk yet."""
        return self._wanted - self._done

    def is_done(self, mark: int) -> bool:
        """Whether all that had changed up to ``mark`` is on disk."""
        return mark <= self._done

    def changed(self) -> None:
        """Something has changed, and is to be written."""
        self._wanted += 1
        if self._writing is None and not self._is_broken:
            self._writing = asyncio.get_running_loop().create_task(self._write_all())

    async def _write_all(self) -> None:
        try:
            while self._done < self._wanted:
                mark, batch, told = self._wanted, self._take(), self._take_events()
                await self._write(batch, told)
                self._done, self.problem = mark, ""
                while self._waiting and self._waiting[0][0] <= mark:
                    *_, waiter = heapq.heappop(self._waiting)
                    if not waiter.done():
                        waiter.set_result(None)
        except Exception:
            _log.critical("the journal cannot be written, by a bug; ending at once", exc_info=True)
            self._is_broken = True  # what comes later must not pass for all that came before
            self._give_up()
        finally:
            self._writing = None

    async def _write(self, batch: Changes, told: list[EventRecord]) -> None:
        while True:
            try:
                await asyncio.wrap_future(self._store.write(batch.put, batch.removed, told))
            except JournalUnusable as error:
                if not self.problem:
                    _log.error("%s; trying again, and deciding nothing until then", error)
                self.problem = str(error)
                await asyncio.sleep(RETRY_INTERVAL)
            else:
                if self.problem:
                    _log.warning("the journal is written again")
                return

    async def durable(self, mark: int | None = None) -> None:
        """Returns when all that had changed up to ``mark`` is on disk; None: up to now."""
        wanted = self._wanted if mark is None else mark
        if wanted <= self._done:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (wanted, next(self._order), waiter))
        await waiter

    async def end(self, patience: float) -> bool:
        """Waits for what is still to be written. False: it could not be in so many seconds."""
        try:
            async with asyncio.timeout(patience):
                await self.durable()
        except TimeoutError:
            if self._writing is not None:
                self._writing.cancel()
            return False
        return True


class Durable(Protocol):
    """What answers wait for: an engine."""

    @property
    def journal_problem(self) -> str: ...

    async def durable(self, mark: int | None = None) -> None: ...


async def durable_soon(engine: Durable, mark: int | None = None) -> None:
    """For an answer that somebody waits for. Raises CoordinatorUnavailable, with the reason, when
    it takes too long."""
    try:
        async with asyncio.timeout(PATIENCE):
            await engine.durable(mark)
    except TimeoutError:
        why = engine.journal_problem or "the disk is slow"
        raise CoordinatorUnavailable(
            f"the coordinator cannot write its journal, and answers nothing until it can: {why}"
        ) from None


class DurableAnswers(Aspect):
    """Nothing is answered before what it rests on is on disk."""

    def __init__(self, engine: Durable) -> None:
        self._engine = engine

    async def before_answer(self, call: Call) -> None:
        # A stream has no deadline: who follows a run waits for the disk, as its members do.
        if call.name in STREAMS:
            await self._engine.durable()
        else:
            await durable_soon(self._engine, call.mark)
