"""What an agent still has to deliver, and the fence clock that follows from it. PURE.

Reports are numbered and kept until they are acknowledged, so that a lost session loses none: a new
session starts with ``rewind``. Beats are numbered too, but never repeated. The fence clock counts
from the *sending* of the last message that was acknowledged: only that proves that the coordinator
could hear us at that time (ARCHITECTURE.md, "The two clocks").
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Numbered(Generic[T]):
    """A report under its number; ``report`` is None for a beat."""

    sequence: int
    report: T | None


class Outbox(Generic[T]):
    """Reports in order, at least once each. ``replaceable`` ones only in their latest form."""

    def __init__(self, now: float) -> None:
        self._next = 1
        self._kept: OrderedDict[int, T] = OrderedDict()
        self._unsent: list[Numbered[T]] = []
        self._sent_at: OrderedDict[int, float] = OrderedDict()
        self._replaceable: dict[type, int] = {}  # not sent yet, by kind
        self.proven_at = now
        """The last instant at which the coordinator is proven to have heard us."""

    def add(self, report: T, *, replaceable: bool = False) -> int:
        """Queues a report; returns its number. A replaceable one takes the place of one of its kind
        (its type) that was not sent yet."""
        if replaceable and type(report) in self._replaceable:
            number = self._replaceable[type(report)]
            self._kept[number] = report
            self._unsent = [
                Numbered(number, report) if each.sequence == number else each
                for each in self._unsent
            ]
            return number
        number = self._number()
        self._kept[number] = report
        self._unsent.append(Numbered(number, report))
        if replaceable:
            self._replaceable[type(report)] = number
        return number

    def beat(self) -> None:
        """Queues a beat, unless something that proves as much is waiting to be sent."""
        if not self._unsent:
            self._unsent.append(Numbered(self._number(), None))

    def _number(self) -> int:
        number = self._next
        self._next += 1
        return number

    def take(self, now: float) -> list[Numbered[T]]:
        """What is to be sent now, in order."""
        taken, self._unsent = self._unsent, []
        self._replaceable.clear()
        for each in taken:
            self._sent_at[each.sequence] = now
        return taken

    def rewind(self) -> None:
        """A new session: reports without an acknowledgement go out again."""
        self._unsent = [Numbered(number, report) for number, report in self._kept.items()]
        self._replaceable.clear()
        self._sent_at.clear()

    def acknowledge(self, sequence: int) -> None:
        """All messages up to ``sequence`` were taken."""
        for number in [number for number in self._kept if number <= sequence]:
            del self._kept[number]
        while self._sent_at:
            number, sent_at = next(iter(self._sent_at.items()))
            if number > sequence:
                return
            del self._sent_at[number]
            self.proven_at = max(self.proven_at, sent_at)

    @property
    def is_delivered(self) -> bool:
        """True when every report has been acknowledged."""
        return not self._kept
