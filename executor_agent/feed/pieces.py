"""A partition's record batches in pieces that are sent whole, without what is taken already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from executor_agent.core.feed_values import Range

if TYPE_CHECKING:
    import pyarrow as pa

MAX_PIECE_BYTES = 4 << 20
"""What is sent and acknowledged as one. A row larger than this goes alone."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of a partition. ``offset``: the first one's place in it."""

    offset: int
    batch: pa.RecordBatch

    @property
    def rows(self) -> int:
        return int(self.batch.num_rows)


def pieces_of(
    batch: pa.RecordBatch, offset: int, skip: Sequence[Range], limit: int = MAX_PIECE_BYTES
) -> Iterator[Piece]:
    """What is to be sent of a batch whose first row is ``offset``: views, nothing is copied.
    ``skip``: rows of the partition, disjoint and in order."""
    for start, end in _outside(skip, offset, offset + batch.num_rows):
        yield from _halved(batch.slice(start - offset, end - start), start, limit)


def _outside(ranges: Sequence[Range], start: int, end: int) -> Iterator[Range]:
    for first, after in ranges:
        if start >= end or first >= end:
            break
        if after <= start:
            continue
        if first > start:
            yield start, first
        start = after
    if start < end:
        yield start, end


def _halved(batch: pa.RecordBatch, offset: int, limit: int) -> Iterator[Piece]:
    """Into equal parts; those that are too large still, because rows differ, again."""
    rows, size = batch.num_rows, batch.nbytes
    if rows <= 1 or size <= limit:
        yield Piece(offset, batch)
        return
    step = max(1, rows // -(-size // limit))
    for start in range(0, rows, step):
        yield from _halved(batch.slice(start, step), offset + start, limit)
