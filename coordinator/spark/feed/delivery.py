"""What of a train the members have read, for the day on which the gang is restarted. PURE.

A row that a member has acknowledged waits in its queue, and is gone with its process. So a
partition counts as delivered only when every member has read as far as its last row: members tell
by counters how far they are, and feeders by *marks* how many rows of the epoch a member had when it
had their last one. What is not known to be read is not delivered. Counters come late, never early.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from coordinator.spark.feed.accounts import Closed, FeederRow
from coordinator.spark.feed.counters import Counters


@dataclass(frozen=True, slots=True)
class Reading:
    """How far one member is: the last epoch that it has ``finished``, and the one after it that it
    reads, ``used`` rows of which it has done with."""

    finished: int = 0
    epoch: int = 0
    used: int = 0


def readings(counters: Counters) -> dict[str, Reading]:
    """By member; without those of which nothing is known in this train."""
    return {
        str(who): Reading(
            int(counts.get("finished", 0)),
            int(counts.get("epoch_read", 0)),
            int(counts.get("used", 0)),
        )
        for who, counts in counters.members
        if counts.get("train") == counters.train
    }


@dataclass(slots=True)
class _Epoch:
    """``rows``: of the generation at work, by partition; ``closed``: the keeper's word on them.
    ``delivered``: by partition, by the generations before; ``generations``: that had a part in it;
    ``partitioning``: how Spark had cut the data."""

    partitioning: object
    generations: int = 1
    rows: dict[int, FeederRow] = field(default_factory=dict)
    closed: Closed | None = None
    delivered: dict[int, FeederRow] = field(default_factory=dict)


class Delivery:
    """Of one train. Mutable; thread-safe, for an epoch begins on a thread of Spark's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._epochs: dict[int, _Epoch] = {}

    def begin(self, epoch: int, partitioning: object) -> frozenset[int]:
        """An epoch is fed, maybe not for the first time: the partitions that need not be sent.
        ``partitioning``: something that is another when the same rows may come in other partitions;
        None when that cannot be told: then nothing is left out."""
        with self._lock:
            known = self._epochs.setdefault(epoch, _Epoch(partitioning))
            if partitioning is None or known.partitioning != partitioning:
                known.delivered.clear()
                known.partitioning = partitioning
            return frozenset(known.delivered)

    def note(self, epoch: int, rows: Iterable[FeederRow]) -> None:
        """Feeders have ended, and this is what they say."""
        known = self._epochs.get(epoch)
        if known is not None:
            known.rows.update({row.partition: row for row in rows if not row.stopped})

    def close(self, epoch: int, closed: Closed) -> None:
        """All of an epoch is in the members."""
        known = self._epochs.get(epoch)
        if known is not None:
            known.closed = closed

    def before(self, epoch: int) -> tuple[FeederRow, ...]:
        """What earlier generations have read of it, by partition."""
        known = self._epochs.get(epoch)
        return tuple(known.delivered.values()) if known is not None else ()

    def was_begun_before(self, epoch: int) -> bool:
        """Whether an earlier generation had a part in it."""
        known = self._epochs.get(epoch)
        return known is not None and known.generations > 1

    def is_read(self, epoch: int, found: Mapping[str, Reading]) -> bool:
        """Whether it is closed, and all members have come to its end."""
        known = self._epochs.get(epoch)
        if known is None:
            return True
        closed = known.closed
        return closed is not None and all(
            _has_read_all(one, epoch, who, closed) for who, one in found.items()
        )

    def forget_read(self, found: Mapping[str, Reading]) -> None:
        """Of what all have read, nothing needs to be known any more."""
        with self._lock:
            for epoch in [each for each in self._epochs if self.is_read(each, found)]:
                del self._epochs[epoch]

    def restart(self, found: Mapping[str, Reading], *, repeat: bool) -> int | None:
        """The gang is gone; ``found``: how far each of its members had come. The epoch with which
        the next one begins; None: with the next one that is to be fed, all others are read.
        ``repeat``: epochs that are not read to their end begin again."""
        self.forget_read(found)
        with self._lock:
            for number, epoch in self._epochs.items():
                if repeat or epoch.partitioning is None:
                    epoch.delivered.clear()
                else:
                    epoch.delivered |= _read(number, epoch, found)
                epoch.rows, epoch.closed = {}, None
                epoch.generations += 1
            return min(self._epochs, default=None)


def _read(number: int, epoch: _Epoch, found: Mapping[str, Reading]) -> dict[int, FeederRow]:
    """The partitions that were read to their end, of those that this generation was sent."""
    return {
        partition: row
        for partition, row in epoch.rows.items()
        if partition not in epoch.delivered
        and all(
            _has_read(found.get(who, Reading()), number, who, mark, epoch.closed)
            for who, mark in row.marks.items()
        )
    }


def _has_read(one: Reading, epoch: int, who: str, mark: int, closed: Closed | None) -> bool:
    """Whether a member has read its first ``mark`` rows of an epoch. At an epoch's end its youngest
    may have moved to another member: then it never had so many."""
    if one.finished >= epoch:
        return closed is not None and closed.rows.get(who, 0) >= mark
    return one.epoch == epoch and one.used >= mark


def _has_read_all(one: Reading, epoch: int, who: str, closed: Closed) -> bool:
    if one.finished >= epoch:
        return True
    if closed.steps is not None:  # what is left out, nobody reads
        return False
    return one.epoch == epoch and one.used >= closed.rows.get(who, 0)
