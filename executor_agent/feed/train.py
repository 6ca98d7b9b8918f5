"""One train of a feed in a worker: its epochs, and the consumer that goes through them.

Everything here happens under the feed's lock, which ``Feed`` owns; ``Train`` and ``EpochReader``
are what the consumer holds in its hands.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from executor_agent.core.feed_ledger import Ledger
from executor_agent.feed.epoch_queue import EpochQueue

if TYPE_CHECKING:
    import pyarrow as pa

    from executor_agent.feed.inbox import Feed

_PATIENCE = 30.0
"""Seconds between the loss of the member that keeps the steps and an error of ours: whoever knows
the cause stops us in that time, and then it is the cause that the user sees."""


_IDLE = EpochQueue(-1)
"""Nothing has come for a while."""


class FeedInUse(RuntimeError):
    """A feed has one reader at a time."""


class FeedLost(RuntimeError):
    """The member that keeps the steps of all workers is gone; the text says which."""


@dataclass(frozen=True, slots=True)
class Opening:
    """How the consumer reads: rows of a step of this worker, and whether all workers take the same
    number of steps."""

    batch_size: int | None
    equal: bool


@dataclass(frozen=True, slots=True)
class Said:
    """A worker's side of one train, for the keeper. ``arrived``: rows by epoch, of open ones.
    ``is_closed``: it has no more to say, ever."""

    reads: Opening | None
    arrived: Mapping[int, int]
    stopped: str | None
    is_closed: bool


class Train:
    """The rows of one `cluster.train` call. ``epochs``: how many there will be; None: unknown.
    ``first``: the one that it begins with here; later than 1 when the gang was restarted."""

    def __init__(self, feed: Feed, number: int, epochs: int | None, first: int = 1) -> None:
        self.number = number
        self.epochs = epochs
        self.first = first
        self._feed = feed
        self._stopping: Callable[[], bool] = lambda: False
        self._consumed_epoch: int | None = None
        self._consumed_steps = 0
        self._finished_epoch = 0
        self._broken_off: EpochQueue | None = None
        self.held = 0  # rows that a reader without a batch size has not handed on when it asks
        # The rest is for this room only, under the feed's lock.
        self.ledger = Ledger()
        self.queues: dict[int, EpochQueue] = {}
        self.opening: Opening | None = None
        self.known_schema: pa.Schema | None = None
        self.ended: str | None = None  # why; "": delivered to its end
        self.stopped: str | None = None  # why the consumer wants no more
        self.lost: str | None = None
        self.lost_at = 0.0
        self.rows = 0
        self.bytes = 0

    # --- for the consumer -------------------------------------------------------------------------

    @property
    def schema(self) -> pa.Schema | None:
        """None: no row has been announced yet."""
        return self.known_schema

    def wait_for_schema(self) -> pa.Schema | None:
        """None: the train ended, or we are told to stop, before any row was announced. Raises
        FeedLost."""
        feed = self._feed
        with feed.changed:
            feed.wait(
                f"the first rows of train {self.number}",
                lambda: self.known_schema is not None or self._is_over(),
                self._stopping,
            )
            if self.known_schema is None:
                self._raise_if_lost()  # an end without rows would look like a train without any
            if self.known_schema is None and self.ended is not None:
                feed.consumed(self)  # there is nothing to read, and another train may come
            return self.known_schema

    def epoch_readers(self) -> Iterator[EpochReader]:
        """One for each epoch, in order, as soon as something is known of it. Rows of an epoch that
        are not read when the next one is asked for are for nobody.

        Raises FeedInUse, and FeedLost.
        """
        return (reader for reader in self.readers(math.inf) if reader is not None)

    def readers(self, idle: float) -> Iterator[EpochReader | None]:
        """As ``epoch_readers``, with None whenever nothing has come for so many seconds: for a
        consumer that has to look up now and then."""
        feed = self._feed
        feed.acquire_reader()
        try:
            while (queue := self._next_queue(idle)) is not None:
                if queue is _IDLE:
                    yield None
                    continue
                yield EpochReader(self, queue)
                with feed.changed:
                    self._leave(queue)
            feed.consumed(self)
        finally:
            feed.release_reader()

    def _next_queue(self, idle: float) -> EpochQueue | None:
        feed = self._feed
        with feed.changed:
            followed = feed.wait(
                f"the next epoch of train {self.number}",
                lambda: self._first_unread() is not None or self._is_over(),
                self._stopping,
                idle,
            )
            if followed is None:
                return _IDLE
            queue = self._first_unread() if followed else None
            if queue is None:
                self._raise_if_lost()
            return queue

    def _first_unread(self) -> EpochQueue | None:
        left = [
            number
            for number in self.queues
            if self._consumed_epoch is None or number > self._consumed_epoch
        ]
        return self.queues[min(left)] if left and self.stopped is None else None

    def _leave(self, queue: EpochQueue) -> None:
        is_read = queue.is_complete and queue.given >= queue.rows
        if is_read or not (self._is_over() or self._feed.is_closed or self._stopping()):
            self._finished_epoch = queue.number
        elif self._broken_off is None:  # by somebody else's wish
            self._broken_off = queue
        self._consumed_epoch = queue.number
        queue.is_left = True
        self.drop_left(queue)
        self._forget(queue)

    def _forget(self, queue: EpochQueue) -> None:
        """What is closed and left is not needed any more: a stream has epochs without end."""
        left = self._consumed_epoch is not None and queue.number <= self._consumed_epoch
        if left and queue.is_closed and self.queues.pop(queue.number, None) is not None:
            self._consumed_steps += self._steps_of(queue)

    def next_piece(self, queue: EpochQueue, idle: float) -> tuple[pa.RecordBatch | None, bool]:
        """The consumer's next rows of an epoch, or none yet; and whether it goes on. For
        EpochReader."""
        feed = self._feed
        with feed.changed:
            self._note_used(queue)
            if self.limit(queue) is None and self._stopping():
                return None, False  # with equal steps all workers take those that are released
            piece: pa.RecordBatch | None = None

            def is_decided() -> bool:
                nonlocal piece
                piece = queue.take(self.limit(queue))
                return piece is not None or queue.is_closed or self._is_over()

            what = f"rows of epoch {queue.number} of train {self.number}"
            followed = feed.wait(what, is_decided, self._stopping, idle)
            if not followed:
                return None, followed is None
            if piece is None:
                if not queue.is_closed:
                    self._raise_if_lost()
                return None, False
            feed.made_room()
            return piece, True

    def _note_used(self, queue: EpochQueue) -> None:
        """Whoever asks for more has done with what he had, but for a batch that is not full."""
        size = self.opening.batch_size if self.opening else None
        queue.used = max(queue.used, queue.given - (queue.given % size if size else self.held))

    def _is_over(self) -> bool:
        return any(reason is not None for reason in (self.ended, self.stopped, self.lost))

    def _raise_if_lost(self) -> None:
        if self.lost is None or self.ended is not None or self.stopped is not None:
            return
        if (
            self._feed.wait(
                "the reason of that loss",
                lambda: time.monotonic() >= self.lost_at + _PATIENCE or self.ended is not None,
                self._stopping,
            )
            and self.ended is None
        ):
            raise FeedLost(self.lost)

    # --- for the feed, under its lock -------------------------------------------------------------

    def read_by(self, stopping: Callable[[], bool]) -> None:
        self._stopping = stopping

    @property
    def takes_rows(self) -> bool:
        return self.ended is None and self.stopped is None

    @property
    def held_bytes(self) -> int:
        return sum(queue.bytes for queue in self.queues.values())

    def queue(self, epoch: int) -> EpochQueue:
        return self.queues.setdefault(epoch, EpochQueue(epoch))

    def limit(self, queue: EpochQueue) -> int | None:
        """How many rows of the epoch the consumer may have; None: all that come."""
        if self.opening is None or not self.opening.equal:
            return None
        return queue.steps * (self.opening.batch_size or 0)

    def drop_left(self, queue: EpochQueue) -> None:
        """Of an epoch that the consumer has left early. What is not released stays: with equal
        steps another worker may need it, and may not have left."""
        if queue.is_left:
            queue.drop(self.limit(queue))
            self._feed.made_room()

    def lacks_rows(self, queue: EpochQueue) -> bool:
        """Whether all workers wait for this one: then nothing may keep its rows from it."""
        opening = self.opening
        if opening is None or not opening.equal or not opening.batch_size:
            return False
        return queue.rows - queue.steps * opening.batch_size < opening.batch_size

    def must_take(self, queue: EpochQueue, *, is_last: bool) -> bool:
        """Whether a batch enters a full feed. ``is_last``: its feeder has no more for anybody."""
        return self.lacks_rows(queue) or (is_last and self._is_stuck)

    @property
    def _is_stuck(self) -> bool:
        """Whether the consumer has read all that it may: then only the epoch's end makes room. As
        long as there is something to read for it, reading does, however slow it is."""
        limits = [(queue, self.limit(queue)) for queue in self.queues.values()]
        return all(
            limit is not None and queue.read >= min(limit, queue.rows) for queue, limit in limits
        )

    def unreleased_from(self, queue: EpochQueue) -> int:
        """The first row of the epoch that may still go to another worker."""
        limit = self.limit(queue)
        return queue.rows if limit is None else limit

    def close_epoch(self, epoch: int, steps: int | None) -> None:
        queue = self.queue(epoch)
        queue.is_complete = True
        if steps is not None:
            queue.steps = steps
        queue.close(None if steps is None else self.limit(queue))
        self.drop_left(queue)
        self._forget(queue)

    def clear(self) -> None:
        for queue in self.queues.values():
            queue.clear()

    @property
    def last_epoch(self) -> int:
        """The youngest epoch that anything is known of; 0: none."""
        return max(self.queues, default=self._consumed_epoch or 0)

    def reading(self) -> dict[str, float]:
        """How far the consumer is, for a driver that may have to feed the rest again: the last
        epoch that it has ``finished``, and the one that is to be read now with its rows that are
        ``used``. Rows that it has in its hands are not."""
        queue = self._broken_off or self._first_unread()
        current = {"epoch_read": queue.number, "used": queue.used} if queue is not None else {}
        return {"finished": self._finished_epoch, "epoch_read": 0, "used": 0, **current}

    @property
    def steps(self) -> int:
        """Batches that the consumer has been given, whole ones only."""
        return self._consumed_steps + sum(map(self._steps_of, self.queues.values()))

    def _steps_of(self, queue: EpochQueue) -> int:
        size = self.opening.batch_size if self.opening else None
        return queue.given // size if size else 0


def finished(feed: Feed, count: int) -> Iterator[Train]:
    """Trains without rows, for a gang that comes after them."""
    for _ in range(count):
        train = Train(feed, 0, 0)
        train.ended = ""
        yield train


class EpochReader:
    """One epoch, for the consumer. ``number``: as the driver counts."""

    def __init__(self, train: Train, queue: EpochQueue) -> None:
        self.number = queue.number
        self._train = train
        self._queue = queue

    def chunks(self) -> Iterator[pa.RecordBatch]:
        """Rows in pieces, as they may be used. Ends with the epoch, when the train ends, or when
        this member is told to stop. Raises FeedLost."""
        return (piece for piece in self.pieces(math.inf) if piece is not None)

    def pieces(self, idle: float) -> Iterator[pa.RecordBatch | None]:
        """As ``chunks``, with None whenever nothing has come for so many seconds."""
        goes_on = True
        while goes_on:
            piece, goes_on = self._train.next_piece(self._queue, idle)
            if goes_on:
                yield piece
