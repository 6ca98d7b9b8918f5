"""What is counted while the coordinator works: cheap enough for every beat.

Plain numbers, written by the event loop and read by whoever serves them; that thread may see a
count that is one ahead of its sum, and nothing worse. What things are called outside is in
``metrics``.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence

FAST = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
)  # fmt: skip
"""Upper bounds of buckets, in seconds."""


class Distribution:
    """How often values fell between bounds; ``counts`` has one more, for those beyond the last."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = FAST) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """A bound belongs to the bucket below it."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def since(self, began_at: float) -> None:
        """Observes the time from an instant of ``time.perf_counter`` until now."""
        self.observe(time.perf_counter() - began_at)


class Tallies:
    """All counts of one coordinator. Methods and codes come from our own contract, so that there
    are few of them."""

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, str]] = Counter()
        """Ended calls, by method and code."""
        self.open_calls: Counter[str] = Counter()
        self.durations: defaultdict[str, Distribution] = defaultdict(Distribution)
        """Of calls that are one question and one answer, in seconds."""
        self.restarts: Counter[str] = Counter()
        """By the cause of the failure."""
        self.beats = 0
        self.beat_answers = Distribution()
        """From a beat's arrival to its acknowledgement's writing."""
        self.lag = Distribution()
        """How late the event loop comes to what is due."""
        self.commits = Distribution()
        self.failed_commits = 0
