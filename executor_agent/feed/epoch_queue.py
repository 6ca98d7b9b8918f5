"""The rows of one epoch that are in a worker, in the order in which they came.

Owns: where the epoch's rows begin and end for the consumer. Must not know locks: it is the feed's.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


class EpochQueue:
    """``rows``: here, whether read or not; ``read``: of these, by the consumer, or dropped;
    ``given``: to the consumer; ``used``: of these, those that it has done with; ``bytes``: of
    those that are not read; ``steps``: released to the consumer; ``is_closed``: no more come,
    and ``is_complete``: because all have; ``is_left``: the consumer wants no more."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.rows = 0
        self.read = 0
        self.given = 0
        self.used = 0
        self.bytes = 0
        self.steps = 0
        self.is_closed = False
        self.is_complete = False
        self.is_left = False
        self._batches: deque[tuple[pa.RecordBatch, int]] = deque()

    def put(self, batch: pa.RecordBatch) -> None:
        """At the end."""
        if batch.num_rows:
            self.rows += batch.num_rows
            size = batch.get_total_buffer_size()
            self._batches.append((batch, size))
            self.bytes += size

    def take(self, limit: int | None) -> pa.RecordBatch | None:
        """The next piece among the first ``limit`` rows of the epoch (None: of all); None: there is
        none (yet)."""
        piece = self._take(limit)
        self.given += piece.num_rows if piece is not None else 0
        return piece

    def drop(self, limit: int | None) -> None:
        """Nobody will read the first ``limit`` rows. The others may still go to another worker."""
        while self._take(limit) is not None:
            pass

    def _take(self, limit: int | None) -> pa.RecordBatch | None:
        count = (self.rows if limit is None else min(limit, self.rows)) - self.read
        if count <= 0:
            return None
        batch, size = self._batches.popleft()
        if batch.num_rows > count:
            rest = size * (batch.num_rows - count) // batch.num_rows
            self._batches.appendleft((batch.slice(count), rest))
            batch, size = batch.slice(0, count), size - rest
        self.read += batch.num_rows
        self.bytes -= size
        return batch

    def give(self, rows: int, keep: int) -> list[pa.RecordBatch]:
        """The youngest rows, as many as asked for or as there are beyond the first ``keep`` and
        beyond what is read. They are here no longer."""
        rows = max(0, min(rows, self.rows - max(keep, self.read)))
        given: deque[pa.RecordBatch] = deque()
        while rows:
            batch, size = self._batches.pop()
            kept = max(0, batch.num_rows - rows)
            if kept:
                rest = size * kept // batch.num_rows
                self._batches.append((batch.slice(0, kept), rest))
                batch, size = batch.slice(kept), size - rest
            given.appendleft(batch)
            rows -= batch.num_rows
            self.rows -= batch.num_rows
            self.bytes -= size
        return list(given)

    def close(self, final: int | None) -> None:
        """No more rows come; those beyond the first ``final`` (None: none) are for nobody."""
        self.is_closed = True
        if final is not None:
            self.give(self.rows, final)

    def clear(self) -> None:
        """Nobody will read what is left."""
        self._batches.clear()
        self.bytes = 0
        self.read = self.rows
