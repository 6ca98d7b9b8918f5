"""What a worker has taken of one train, partition by partition. PURE.

Owns: the rules by which a row enters an epoch once. Must not know sockets, queues or threads.

A partition of an epoch is sent by one attempt of a Spark task at a time. When a younger attempt
says hello, the older ones are fenced: nothing of theirs enters any more, so what the younger one
is told to be taken cannot grow behind its back. Attempts of deterministic data skip what is taken;
those of other data send all again, because their rows may come in another order.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field

from executor_agent.core.feed_values import Range


@dataclass(frozen=True, slots=True)
class Begun:
    """The attempt may send. ``taken``: rows of the partition that are here, merged and in order.
    ``fences``: lower attempts that may not send any more; their connections are to be closed."""

    taken: tuple[Range, ...]
    fences: tuple[int, ...]

    @property
    def rows(self) -> int:
        """How many rows of the partition are here."""
        return sum(end - start for start, end in self.taken)


@dataclass(frozen=True, slots=True)
class Stale:
    """The attempt may not send: ``attempt`` is younger."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Closed:
    """Nobody may send: the epoch is closed."""

    epoch: int


@dataclass(slots=True)
class _Partition:
    attempt: int
    ranges: list[Range] = field(default_factory=list)  # disjoint, in order, none touches the next


@dataclass(slots=True)
class _Epoch:
    rows: int = 0
    partitions: dict[int, _Partition] = field(default_factory=dict)


class Ledger:
    """One worker's book of one train. Epochs are closed in the order of their numbers."""

    def __init__(self) -> None:
        self._epochs: dict[int, _Epoch] = {}
        self._last_closed: int | None = None
        self._rows_of_last_closed = 0

    def begin(
        self, epoch: int, partition: int, attempt: int, deterministic: bool = True
    ) -> Begun | Stale | Closed:
        """An attempt says hello; the same one may do so again.

        Without ``deterministic`` a younger attempt starts with nothing taken: ``Begun.taken`` still
        says what the one before it left here, but the same ranges may come again.
        """
        if self._is_closed(epoch):
            return Closed(epoch)
        partitions = self._epochs.setdefault(epoch, _Epoch()).partitions
        known = partitions.setdefault(partition, _Partition(attempt))
        if attempt < known.attempt:
            return Stale(known.attempt)
        taken = tuple(known.ranges)
        if attempt == known.attempt:
            return Begun(taken, ())
        fenced, known.attempt = known.attempt, attempt
        if not deterministic:
            known.ranges = []
        return Begun(taken, (fenced,))

    def is_fenced(self, epoch: int, partition: int, attempt: int) -> bool:
        """Whether nothing of the attempt may enter (any more)."""
        known = self._known(epoch, partition)
        return known is None or known.attempt != attempt

    def took(self, epoch: int, partition: int, attempt: int, start: int, rows: int) -> bool:
        """Write down a batch; call it under the lock under which the batch enters the queue.

        False: the batch is to be dropped, because the attempt is fenced, or because all its rows
        are here already. Raises ValueError when only some of them are: the sender's numbers are
        wrong, and neither taking nor dropping the batch would be right.
        """
        known = self._known(epoch, partition)
        if known is None or known.attempt != attempt:
            return False
        if start < 0 or rows < 0:
            raise ValueError(f"no rows of a partition: {rows} from {start}")
        if rows and not _add(known.ranges, start, start + rows):
            return False
        self._epochs[epoch].rows += rows
        return True

    def rows(self, epoch: int) -> int:
        """Rows taken of an epoch; of closed ones only the last one's are remembered."""
        if epoch == self._last_closed:
            return self._rows_of_last_closed
        book = self._epochs.get(epoch)
        return book.rows if book else 0

    def close(self, epoch: int) -> None:
        """Nothing more enters this epoch, nor one before it; what was taken is forgotten."""
        if self._is_closed(epoch):
            return
        self._rows_of_last_closed = self.rows(epoch)
        self._last_closed = epoch
        for number in [number for number in self._epochs if number <= epoch]:
            del self._epochs[number]

    def _is_closed(self, epoch: int) -> bool:
        return self._last_closed is not None and epoch <= self._last_closed

    def _known(self, epoch: int, partition: int) -> _Partition | None:
        book = self._epochs.get(epoch)
        return book.partitions.get(partition) if book else None


def merged(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """The same rows in as few ranges as possible, in order: what several workers have taken of one
    partition, put together. Ranges may overlap."""
    together: list[Range] = []
    for start, end in sorted(ranges):
        if start >= end:
            continue
        if together and start <= together[-1][1]:
            together[-1] = (together[-1][0], max(end, together[-1][1]))
        else:
            together.append((start, end))
    return tuple(together)


def _add(ranges: list[Range], start: int, end: int) -> bool:
    """Put rows in. False: all of them are there. Raises ValueError when some of them are."""
    # Everything before `left` ends before our start, everything from `right` on begins after our
    # end; what touches us lies between them.
    left = bisect_left(ranges, start, key=lambda known: known[1])
    right = bisect_left(ranges, end + 1, lo=left, key=lambda known: known[0])
    touching = ranges[left:right]
    if any(known[0] <= start and end <= known[1] for known in touching):
        return False
    if any(start < known[1] and known[0] < end for known in touching):
        raise ValueError(f"rows {start} to {end} of a partition overlap with {touching}")
    first = min(start, touching[0][0]) if touching else start
    last = max(end, touching[-1][1]) if touching else end
    ranges[left:right] = [(first, last)]
    return True
