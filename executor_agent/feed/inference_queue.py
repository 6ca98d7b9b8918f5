"""What waits in one inference feed of a member: rows for ``main_fun``, results for Spark tasks.

Each task has a *stream* of two connections, each with a thread: "infer" puts rows in, "results"
takes results out. ``main_fun`` takes rows of all streams and gives their results back. Putting rows
in waits for room; giving results never waits. Which rows make a batch, and what is room, is decided
in ``core.feed_batching``.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from executor_agent.core.feed_batching import Batching, Piece
from executor_agent.feed.patience import told_of

_POLL = 0.2  # seconds between two looks at whether the member is to stop
_QUIET = 60.0  # seconds of waiting for rows after which a line on stderr says so
_BATCH_SIZE = 1024  # rows that make a batch, until somebody has asked for one

Pieces = tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Ending:
    """The last word to a task: all results are on their way, or why no more will come."""

    rows: int
    failure: str = ""


@dataclass(slots=True, eq=False)
class Stream:
    """One Spark task's rows and results. Its queue's lock guards it."""

    chunks: deque[pa.RecordBatch] = field(default_factory=deque)
    results: deque[pa.RecordBatch] = field(default_factory=deque)
    halves: set[str] = field(default_factory=set)
    rows: int = 0  # that came
    given: int = 0  # whose results are on their way
    ended: bool = False  # all rows have come
    failure: str = ""  # nothing more will come of it, and why

    def pull(self, rows: int) -> Iterator[pa.RecordBatch]:
        """Its oldest ``rows`` rows."""
        while rows > 0:
            head = self.chunks.popleft()
            if head.num_rows > rows:
                self.chunks.appendleft(head.slice(rows))
                head = head.slice(0, rows)
            rows -= head.num_rows
            yield head


class InferenceQueue:
    """Thread-safe; one reader."""

    def __init__(self, member: str) -> None:
        self._member = member
        self._condition = threading.Condition()
        self._closed = ""  # why nobody will answer any more
        self._batching = Batching()
        self._streams: dict[str, Stream] = {}
        self._batch_size = _BATCH_SIZE
        self._read_at: float | None = None  # when the reader last took rows
        self._is_waiting = False
        self._counters = {"rows": 0.0, "bytes": 0.0, "batches": 0.0, "streams": 0.0}
        self._waited = 0.0  # seconds, of the reader

    # -- the reader ------------------------------------------------------------------------

    def take(
        self, batch_size: int, stopping: Callable[[], bool]
    ) -> tuple[Pieces, list[pa.RecordBatch]]:
        """The oldest rows, up to ``batch_size`` of one schema; none: it is over."""
        quiet_at = time.monotonic() + _QUIET
        with self._condition:
            self._batch_size, self._is_waiting = batch_size, True
            self._condition.notify_all()  # a larger batch may be room for more
            while not (stopping() or self._closed):
                now = time.monotonic()
                pieces = self._batching.take(batch_size, now)
                if pieces:
                    self._read_at, self._is_waiting = now, False
                    self._condition.notify_all()  # there is room for more
                    return pieces, [
                        part
                        for each in pieces
                        for part in self._streams[each.stream].pull(each.rows)
                    ]
                if now >= quiet_at:
                    quiet_at = now + _QUIET
                    print(f"tflease: {self._member} waits for rows to infer", file=sys.stderr)
                deadline = self._batching.next_deadline()
                self._condition.wait(_POLL if deadline is None else min(_POLL, deadline - now))
                self._waited += time.monotonic() - now
        return (), []

    def give(self, pieces: Pieces, results: pa.RecordBatch) -> None:
        """The results of those rows, to whom the rows came from."""
        start = 0
        with self._condition:
            for piece in pieces:
                part, start = results.slice(start, piece.rows), start + piece.rows
                stream = self._streams.get(piece.stream)
                if stream is not None:  # else its task is gone
                    stream.results.append(part)
                    self._batching.results(piece.stream, part.nbytes)
            self._counters["batches"] += 1
            self._counters["rows"] += results.num_rows
            self._condition.notify_all()

    def refuse(self, pieces: Pieces, why: str) -> None:
        """The tasks that those rows came from fail."""
        for piece in pieces:
            self.drop(piece.stream, f"{self._member}: {why}")

    # -- the streams' connections ----------------------------------------------------------

    def join(self, name: str, half: str) -> Stream:
        """The stream of that name, made by the half that comes first. Raises ValueError when it has
        that half."""
        with self._condition:
            stream = self._streams.setdefault(name, Stream())
            if half in stream.halves:
                raise ValueError(f"stream {name!r} has its {half!r} connection already")
            stream.halves.add(half)
            return stream

    def open(self, name: str, schema: pa.Schema) -> bool:
        """Rows of that schema are about to come. False: nobody wants them any more."""
        with self._condition:
            if name not in self._streams:
                return False
            self._batching.open(name, schema.serialize().to_pybytes().hex())
            self._counters["streams"] += 1
            return True

    def put(self, name: str, batch: pa.RecordBatch) -> bool:
        """Waits for room. False: nobody wants the rows any more."""
        with self._condition:
            while not self._closed and name in self._streams:
                if self._batching.accepts(name, self._batch_size):
                    stream = self._streams[name]
                    stream.chunks.append(batch)
                    stream.rows += batch.num_rows
                    self._batching.arrived(name, batch.num_rows, batch.nbytes, time.monotonic())
                    self._counters["bytes"] += batch.nbytes
                    self._condition.notify_all()
                    return True
                self._condition.wait()
        return False

    def end(self, name: str) -> None:
        """All of the stream's rows have come."""
        with self._condition:
            if name in self._streams:
                self._streams[name].ended = True
                self._batching.ended(name)
                self._condition.notify_all()

    def drop(self, name: str, why: str) -> None:
        """The stream is over: nothing of it is answered from here on. Idempotent."""
        with self._condition:
            stream = self._streams.pop(name, None)
            if stream is not None:
                stream.failure = why
                stream.chunks.clear()
                self._batching.forget(name)
                self._condition.notify_all()

    def next_results(
        self, stream: Stream, limit: int, timeout: float
    ) -> list[pa.RecordBatch] | Ending | None:
        """Results to be sent, of one schema and about ``limit`` bytes at most, after which ``sent``
        must be called; None: none for ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        with self._condition:
            while True:
                if stream.failure:
                    return Ending(stream.given, stream.failure)
                if stream.results:
                    return _pop(stream.results, limit)
                if stream.ended and stream.given == stream.rows:
                    return Ending(stream.given)
                if self._closed:
                    return Ending(stream.given, f"{self._member}: {self._closed}")
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                self._condition.wait(left)

    def sent(self, name: str, stream: Stream, batches: list[pa.RecordBatch]) -> None:
        """The task has them, or its connection's buffer."""
        with self._condition:
            stream.given += sum(batch.num_rows for batch in batches)
            self._batching.results(name, -sum(batch.nbytes for batch in batches))
            self._condition.notify_all()

    def close(self, why: str) -> None:
        """Nobody answers any more: streams without all of their results fail with ``why``, and the
        reader is at its end. Idempotent."""
        with self._condition:
            self._closed = self._closed or why
            self._condition.notify_all()

    # -- what is going on ------------------------------------------------------------------

    @property
    def is_closed(self) -> bool:
        """Whether nobody is to answer any more."""
        return bool(self._closed)

    def counters(self) -> dict[str, float]:
        """How much has been taken and answered."""
        with self._condition:
            waited = told_of(self._waited)
            return {**self._counters, **({"waited": waited} if waited else {})}

    def describe(self) -> str:
        """What the reader is doing, for a task that waits for it."""
        with self._condition:
            waiting = f"{self._batching.waiting:,} rows wait for main_fun of {self._member}"
            if self._is_waiting:
                return f"{waiting}, which is reading"
            if self._read_at is None:
                return f"{waiting}, which has not asked for ctx.inference_batches()"
            seconds = time.monotonic() - self._read_at
            return f"{waiting}, which took its last batch {seconds:.0f} s ago"


def _pop(waiting: deque[pa.RecordBatch], limit: int) -> list[pa.RecordBatch]:
    popped = [waiting.popleft()]
    size = popped[0].nbytes
    while waiting and waiting[0].schema == popped[0].schema:
        size += waiting[0].nbytes
        if size > limit:
            break
        popped.append(waiting.popleft())
    return popped
