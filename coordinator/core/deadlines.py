"""The next of many deadlines, without looking at all of them: a heap that is lazy.

A deadline that moves later needs no word: it is looked at again when the old one comes up. One that
moves earlier does (``arm``).
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Generic, Protocol, TypeVar

_NEVER = float("inf")


class _HasDeadline(Protocol):
    def next_deadline(self) -> float:
        """Infinity when it has none."""


_Item = TypeVar("_Item", bound=_HasDeadline)


class Deadlines(Generic[_Item]):
    """``_armed``: for each item a lower bound of its deadline; what the heap says else is void."""

    def __init__(self) -> None:
        self._items: dict[str, _Item] = {}
        self._armed: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []

    def arm(self, key: str, item: _Item) -> None:
        """Its deadline may be earlier than before. Cheap when it is not."""
        at = item.next_deadline()
        if at < self._armed.get(key, _NEVER):
            self._items[key] = item
            self._armed[key] = at
            heappush(self._heap, (at, key))

    def drop(self, key: str) -> None:
        """It has none any more, for ever."""
        self._armed.pop(key, None)
        self._items.pop(key, None)

    def next(self) -> float:
        """The earliest of all."""
        while self._heap:
            at, key = self._heap[0]
            if self._armed.get(key) == at:
                item = self._items[key]
                if item.next_deadline() <= at:
                    return at
                self.drop(key)
                self.arm(key, item)  # later, so that this one is still the first
            heappop(self._heap)
        return _NEVER

    def due(self, now: float) -> list[_Item]:
        """Those whose deadline has come, the earliest first. They stay due until they move on."""
        found: dict[str, float] = {}
        while self.next() <= now:
            at, key = heappop(self._heap)
            found[key] = at
        for key, at in found.items():
            heappush(self._heap, (at, key))
        return [self._items[key] for key in found]
