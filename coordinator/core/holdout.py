"""Whether something still holds of one of many, without looking at all of them each time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

_Item = TypeVar("_Item")


class Holdout(Generic[_Item]):
    """Finds an item of which ``holds`` is true. The one that was found last is looked at first,
    those behind it only when it is none any more: a gang whose members come, or go, one by one is
    gone through once in all, and not once for each of them, in whatever order they do.
    """

    __slots__ = ("_at", "_holds", "_items")

    def __init__(self, items: Iterable[_Item], holds: Callable[[_Item], bool]) -> None:
        self._items = tuple(items)
        self._holds = holds
        self._at = 0

    def find(self) -> _Item | None:
        """None: there is no such item, and all of them were looked at."""
        for _ in self._items:
            item = self._items[self._at]
            if self._holds(item):
                return item
            self._at = (self._at + 1) % len(self._items)
        return None
