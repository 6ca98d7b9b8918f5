"""The journal, with its commits timed."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from coordinator.journal_values import EventRecord, Key
from coordinator.tallies import Tallies

if TYPE_CHECKING:
    from coordinator.journal import Journal


class MeasuredJournal:
    """Where an engine's commits go. Whoever opened the journal closes it."""

    def __init__(self, journal: Journal, tallies: Tallies) -> None:
        self._journal = journal
        self._tallies = tallies

    def write(
        self,
        put: Mapping[Key, Mapping[str, Any]],
        removed: Collection[Key],
        events: Sequence[EventRecord],
    ) -> Future[None]:
        """Counts when it is done, in the thread that has done it."""
        began_at = time.perf_counter()

        def count(done: Future[None]) -> None:
            if done.exception() is None:
                self._tallies.commits.since(began_at)
            else:
                self._tallies.failed_commits += 1

        writing = self._journal.write(put, removed, events)
        writing.add_done_callback(count)
        return writing
