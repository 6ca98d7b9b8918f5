"""A feeder's connection to one worker, and the thread that alone reads and writes it.

So a worker that does not read holds up nobody else, and Spark's own stream is read while rows
travel.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from executor_agent.core.feed_spread import CREDIT, Target
from executor_agent.feed.pieces import Piece
from executor_agent.feed.sender import FLUSH
from executor_agent.feed.stream import Interrupted, Waker
from executor_agent.feed.wire import Connection, FeedRefused, Message

if TYPE_CHECKING:
    import pyarrow as pa

_LAST_WORDS_TIMEOUT = 1.0


class PartitionRefused(FeedRefused):
    """A worker does not go on with this partition: a younger attempt is at it, or it makes no
    sense to the worker."""


class Link:
    """A connection to one worker, and the thread that owns it. All that both threads see is guarded
    by ``changed``, which is notified whenever something is acknowledged or comes to its end; before
    that ``assign`` is called, which may put the next piece here."""

    def __init__(
        self,
        connection: Connection,
        schema: pa.Schema,
        changed: threading.Condition,
        assign: Callable[[], None],
    ) -> None:
        self.member = connection.member
        self.is_local = connection.is_local
        self.rows_there = int(connection.reply.get("rows", 0))
        self.acknowledged = 0
        self.dropped = 0  # the worker had them already
        self.mark = 0  # its rows of the epoch, when it had the last of ours
        self.acknowledged_bytes = 0
        self.stopped: str | None = None
        self.failure: Exception | None = None
        self._connection = connection
        self._schema = schema
        self._changed = changed
        self._assign = assign
        self._waker = Waker()
        self._outbox: deque[Piece] = deque()
        self._in_flight: deque[Piece] = deque()  # the outbox, and what was sent
        self._must_flush = self._is_flushed = False
        self._is_ending = False
        name = f"tflease-feed-to-{self.member}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, piece: Piece) -> None:
        """Call it with ``changed`` held, and only while there is credit."""
        self._outbox.append(piece)
        self._in_flight.append(piece)
        self._must_flush = self._is_flushed = False
        self._waker.set()

    def as_target(self) -> Target:
        rows = self.rows_there + sum(piece.rows for piece in self._in_flight)
        credit = CREDIT - len(self._in_flight) if self.is_open else 0
        return Target(self.member, rows, credit, self.is_local)

    @property
    def is_open(self) -> bool:
        return self.stopped is None and self.failure is None

    @property
    def is_idle(self) -> bool:
        return not self._in_flight

    def take_back(self) -> list[Piece]:
        """Of one that stopped: what it has not taken, for others."""
        pieces, self._in_flight = list(self._in_flight), deque()
        return pieces

    def flush(self) -> None:
        """Call it with ``changed`` held. Tell the worker that nothing follows what it was sent: it
        is to take that even where it has no room. Once is enough."""
        if self.is_open and self._in_flight and not self._is_flushed:
            self._is_flushed = self._must_flush = True
            self._waker.set()

    def end(self) -> None:
        """All is acknowledged: close the Arrow stream, then the connection."""
        with self._changed:
            self._is_ending = True
        self._waker.set()

    def abort(self) -> None:
        """Whatever its thread is doing there, it ends."""
        with self._changed:
            self._is_ending = True
            if self._thread.is_alive():
                self._connection.abort()
        self._waker.set()

    def join(self) -> None:
        """True on return: thread and connection are gone."""
        self._thread.join()
        self._waker.close()

    # --- the link's own thread --------------------------------------------------------------------

    def _run(self) -> None:
        failure: Exception | None = None
        try:
            self._converse()
        except Exception as error:
            failure = error
            with suppress(Exception):  # it may have said why
                self._last_words()
        with self._changed:
            if self.stopped is None and self.failure is None and not self._is_ending:
                self.failure = failure
            self._connection.close()
            self._changed.notify_all()

    def _converse(self) -> None:
        writer = self._connection.writer(self._schema)
        while self.is_open:
            piece, flushed = self._next_piece()
            if piece is not None:
                writer.write_batch(piece.batch, custom_metadata={"offset": str(piece.offset)})
            elif flushed is not None:
                writer.write_batch(flushed.batch.slice(0, 0), custom_metadata={FLUSH: "1"})
            elif self._is_ending:
                writer.close()
                return
            elif self._wait():
                self._hear(self._connection.receive())

    def _next_piece(self) -> tuple[Piece | None, Piece | None]:
        """What to send, or the last one that was sent, where a flush is to follow it."""
        with self._changed:
            self._waker.clear()
            if self._outbox:
                return self._outbox.popleft(), None
            must_flush, self._must_flush = self._must_flush, False
            return None, self._in_flight[-1] if must_flush and self._in_flight else None

    def _wait(self) -> bool:
        """Until the worker says something (True), or there is something to do."""
        self._connection.listen_to(self._waker)
        try:
            return self._connection.wait_readable()
        except Interrupted:
            return False
        finally:
            self._connection.listen_to(None)

    def _last_words(self) -> None:
        while self.is_open:
            self._hear(self._connection.receive(_LAST_WORDS_TIMEOUT))

    def _hear(self, message: Message | None) -> None:
        if message is None:
            raise ConnectionError("it closed the connection")
        with self._changed:
            if "stop" in message:
                self.stopped = str(message["stop"])
            elif "error" in message:
                self.failure = PartitionRefused(f"{self.member}: {message['error']}")
            elif "took" in message and self._in_flight:
                self._acknowledge(int(message["took"]), int(message["rows"]))
            else:
                raise ConnectionError(f"it sent what was not expected: {str(message)[:80]}")
            self._assign()
            self._changed.notify_all()

    def _acknowledge(self, took: int, rows_there: int) -> None:
        piece = self._in_flight.popleft()
        self.rows_there = self.mark = rows_there
        self.acknowledged += took
        self.dropped += piece.rows - took
        if took:
            self.acknowledged_bytes += piece.batch.nbytes
