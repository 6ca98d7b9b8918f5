"""A journal in memory, whose disk is slow, full or broken when the test says so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from coordinator.core.durable import STATE_VERSION
from coordinator.event_log import EventQuery, EventRecord
from coordinator.journal_values import JournalUnusable, Key

NO_ROOM = "there is no room for it"


class FakeDisk:
    """Writes at once. ``is_slow``: writes wait for ``go_on``. ``is_full``: they fail, to be tried
    again. ``fault``: they fail with it, as by a bug. ``refused``: how often they have failed."""

    def __init__(self) -> None:
        self.path = Path("journal.sqlite")
        self.coordinator_id, self.state_version, self.next_event_id = "book", STATE_VERSION, 1
        self.texts: dict[Key, str] = {}
        self.batches: list[Collection[Key]] = []
        self.events_written: list[EventRecord] = []
        self.is_slow = self.is_full = False
        self.fault: Exception | None = None
        self.refused = 0
        self._waiting: list[tuple[Future[None], Callable[[], None]]] = []

    def load(self) -> Mapping[Key, Mapping[str, Any]]:
        return {key: json.loads(text) for key, text in self.texts.items()}

    def events(self, query: EventQuery) -> list[EventRecord]:
        return []

    def write(
        self,
        put: Mapping[Key, Mapping[str, Any]],
        removed: Collection[Key],
        events: Sequence[EventRecord],
    ) -> Future[None]:
        done: Future[None] = Future()
        done.set_running_or_notify_cancel()
        if self.is_full or self.fault is not None:
            self.refused += 1
            done.set_exception(self.fault or JournalUnusable(NO_ROOM))
            return done

        def apply() -> None:
            self.batches.append(put.keys())
            self.texts.update((key, json.dumps(record)) for key, record in put.items())
            for key in removed:
                self.texts.pop(key, None)
            self.events_written += events

        if self.is_slow:
            self._waiting.append((done, apply))
        else:
            apply()
            done.set_result(None)
        return done

    @property
    def is_waiting(self) -> bool:
        """A write is under way."""
        return bool(self._waiting)

    def go_on(self) -> None:
        """What waits is written, and what comes later at once."""
        self.is_slow = False
        waiting, self._waiting = self._waiting, []
        for done, apply in waiting:
            apply()
            done.set_result(None)

    async def refuses_again(self) -> None:
        """Two attempts later, when all that need not wait for the disk has long happened."""
        before = self.refused
        async with asyncio.timeout(30):
            while self.refused < before + 2:  # noqa: ASYNC110 it is no coroutine's work
                await asyncio.sleep(0.001)
