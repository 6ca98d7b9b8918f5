"""Which waiting rows make the next batch of an inference feed. PURE.

Rows come in streams, one for each Spark task, and results go back the way the rows came. A batch
takes the oldest rows, of as many streams as it needs. A stream whose results are not fetched is
passed over: its task is slow, and the others must not wait for it. So nothing ever blocks the
consumer, and what a stream holds is bounded: its input, and its results up to one batch more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

INPUT_LIMIT = 8 << 20
"""Bytes of rows that wait in one stream; more only while they do not make up a batch."""

RESULT_LIMIT = 8 << 20
"""Bytes of results that wait for one task before its stream is passed over."""

LINGER = 0.05
"""Seconds that rows wait for others to make up a whole batch, while others may come."""


@dataclass(frozen=True, slots=True)
class Piece:
    """The next ``rows`` rows of a stream."""

    stream: str
    rows: int


@dataclass(slots=True)
class _Chunk:
    rows: int
    size: int
    order: int
    arrived_at: float


@dataclass(slots=True)
class _Stream:
    kind: str
    chunks: deque[_Chunk] = field(default_factory=deque)
    ended: bool = False
    result_bytes: int = 0
    rows: int = 0
    """Of all chunks, as is ``size``: there may be many of them."""
    size: int = 0

    @property
    def is_slow(self) -> bool:
        return self.result_bytes >= RESULT_LIMIT


class Batching:
    """The book of one feed's streams. Rows of different kinds (schemas) share no batch."""

    def __init__(self) -> None:
        self._streams: dict[str, _Stream] = {}
        self._order = 0

    def open(self, stream: str, kind: str) -> None:
        """A new stream, without rows."""
        self._streams[stream] = _Stream(kind)

    def arrived(self, stream: str, rows: int, size: int, now: float) -> None:
        """``rows`` rows of ``size`` bytes came."""
        self._order += 1
        known = self._streams[stream]
        known.chunks.append(_Chunk(rows, size, self._order, now))
        known.rows += rows
        known.size += size

    def ended(self, stream: str) -> None:
        """No more rows will come."""
        self._streams[stream].ended = True

    def results(self, stream: str, change: int) -> None:
        """So many bytes of results more (or fewer) wait for the task."""
        if stream in self._streams:
            self._streams[stream].result_bytes += change

    def forget(self, stream: str) -> None:
        """The task is gone, or has everything. Idempotent."""
        self._streams.pop(stream, None)

    def accepts(self, stream: str, batch_size: int) -> bool:
        """Whether more rows of the stream may be read from its connection."""
        known = self._streams[stream]
        if known.size < INPUT_LIMIT:
            return True
        return not known.is_slow and self._rows(known.kind) < batch_size

    def take(self, batch_size: int, now: float) -> tuple[Piece, ...]:
        """The next batch, of at most ``batch_size`` rows; () while it is better to wait."""
        for kind in self._kinds():
            if self._is_ready(kind, batch_size, now):
                return tuple(self._pieces(kind, batch_size))
        return ()

    def next_deadline(self) -> float | None:
        """When rows will have waited long enough; None: nothing waits that may be taken."""
        heads = [stream.chunks[0].arrived_at for stream in self._takeable()]
        return min(heads) + LINGER if heads else None

    @property
    def waiting(self) -> int:
        """Rows of all streams."""
        return sum(stream.rows for stream in self._streams.values())

    def _takeable(self, kind: str | None = None) -> list[_Stream]:
        return [
            stream
            for stream in self._streams.values()
            if stream.chunks and not stream.is_slow and kind in (None, stream.kind)
        ]

    def _kinds(self) -> Iterable[str]:
        """Those that have rows, the oldest first."""
        ordered = sorted(self._takeable(), key=lambda stream: stream.chunks[0].order)
        return dict.fromkeys(stream.kind for stream in ordered)

    def _rows(self, kind: str) -> int:
        return sum(stream.rows for stream in self._takeable(kind))

    def _is_ready(self, kind: str, batch_size: int, now: float) -> bool:
        if self._rows(kind) >= batch_size:
            return True
        same = [stream for stream in self._streams.values() if stream.kind == kind]
        if all(stream.ended or stream.is_slow for stream in same):
            return True  # nobody is left who could add to it
        oldest = min(stream.chunks[0].arrived_at for stream in self._takeable(kind))
        return now >= oldest + LINGER

    def _pieces(self, kind: str, wanted: int) -> Iterable[Piece]:
        taken: dict[str, int] = {}  # one piece for each stream
        while wanted > 0:
            heads = [
                (stream.chunks[0].order, name)
                for name, stream in self._streams.items()
                if stream.chunks and not stream.is_slow and stream.kind == kind
            ]
            if not heads:
                break
            _, name = min(heads)
            rows = self._shorten(self._streams[name], wanted)
            taken[name] = taken.get(name, 0) + rows
            wanted -= rows
        return [Piece(name, rows) for name, rows in taken.items()]

    @staticmethod
    def _shorten(stream: _Stream, wanted: int) -> int:
        """Takes from the oldest chunk."""
        head = stream.chunks[0]
        rows = min(wanted, head.rows)
        size = head.size * rows // head.rows
        head.rows, head.size = head.rows - rows, head.size - size
        stream.rows, stream.size = stream.rows - rows, stream.size - size
        if head.rows == 0:
            stream.chunks.popleft()
        return rows
