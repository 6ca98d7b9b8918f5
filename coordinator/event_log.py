"""The record of events: what has happened, in sentences for people and words for programs.

The latest are in memory, for whoever follows; a daemon's journal keeps more of them. What the words
are is in ``event_kinds``, who writes the sentences is ``chronicle``.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

from coordinator.journal_values import EventQuery, EventRecord

__all__ = ["KEPT_IN_MEMORY", "EventLog", "EventQuery", "EventRecord", "fits"]

KEPT_IN_MEMORY = 10_000
"""So many events can be asked for without a journal."""


class EventLog:
    """The events of one coordinator. ``first_id``: greater than all that were given before."""

    def __init__(self, wall: Callable[[], float], first_id: int = 1) -> None:
        self._wall = wall
        self._next_id = first_id
        self._new: list[EventRecord] = []
        self.kept: deque[EventRecord] = deque(maxlen=KEPT_IN_MEMORY)
        self.counts: Counter[str] = Counter()
        """How many there were of each kind since the process began."""
        self._followers: set[Callable[[], None]] = set()
        self.is_journaled = False

    def add(self, kind: str, text: str, run_id: str = "", subject: str = "") -> None:
        """Something has happened, now."""
        line = " ".join(text.split())
        event = EventRecord(self._next_id, self._wall(), run_id, subject, kind, line)
        self._next_id += 1
        self.kept.append(event)
        self.counts[kind] += 1
        if self.is_journaled:
            self._new.append(event)
        for follower in self._followers:
            follower()

    @property
    def newest_id(self) -> int:
        """Of the event that was added last; one less than the first when there is none yet."""
        return self._next_id - 1

    @property
    def oldest_id(self) -> int:
        """Of the oldest that is in memory; the next one's when there is none."""
        return self.kept[0].id if self.kept else self._next_id

    def after(self, event_id: int) -> list[EventRecord]:
        """Those in memory that are later than the event of this id."""
        found = []
        for event in reversed(self.kept):  # mostly the last few are wanted
            if event.id <= event_id:
                break
            found.append(event)
        return found[::-1]

    @property
    def has_new(self) -> bool:
        """Whether there is something to be written to the journal."""
        return bool(self._new)

    def take_new(self) -> list[EventRecord]:
        """For the journal: those since the last time."""
        taken, self._new = self._new, []
        return taken

    def follow(self, told: Callable[[], None]) -> Callable[[], None]:
        """``told`` is called after each event; call what is returned to end that."""
        self._followers.add(told)
        return lambda: self._followers.discard(told)


def fits(event: EventRecord, query: EventQuery) -> bool:
    """As the journal chooses them, the limit apart."""
    return (
        event.id > query.after_id
        and query.run_id in ("", event.run_id)
        and (query.since is None or event.at >= query.since)
        and (query.until is None or event.at <= query.until)
        and (not query.kind or f"{event.kind}.".startswith(f"{query.kind}."))
        and (not query.text or _contains(event, _lower(query.text)))
    )


def _contains(event: EventRecord, wanted: str) -> bool:
    return wanted in _lower(event.text) or wanted in _lower(event.subject)


def _lower(text: str) -> str:
    """Of ASCII letters alone, which is what SQLite's LIKE knows."""
    return "".join(char.lower() if char.isascii() else char for char in text)
