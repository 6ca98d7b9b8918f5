"""The feeds of a worker: rows come in from feeders, and go out to the consumer in `main_fun`.

Owns: the lock of each feed, and who waits for what. Must not know sockets: `intake` brings rows,
`peer` brings what the keeper says, and both are woken by what happens here.

A feed holds a bounded number of bytes. A sender that finds no room keeps its batch, and is woken
when there is; so back-pressure is that a batch is not acknowledged.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from executor_agent.core import feed_ledger
from executor_agent.feed.patience import Patience
from executor_agent.feed.sender import Sender, columns_in_words, refusal
from executor_agent.feed.stream import Waker
from executor_agent.feed.train import EpochReader, FeedInUse, FeedLost, Opening, Said, Train
from executor_agent.feed.train import finished as finished_trains

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["EpochReader", "Feed", "FeedInUse", "FeedLost", "Said", "Train"]

MAX_BYTES = 64 * 1024 * 1024
"""Of the rows that wait in one feed of one worker; more only where the rules of steps need it."""


class Feed:
    """One named feed. ``changed``: the lock, and the consumer's bell."""

    def __init__(self, name: str, tell: Callable[[], None] = lambda: None) -> None:
        self.name = name
        self.changed = threading.Condition()
        self._tell = tell
        self._trains: deque[Train] = deque()  # not consumed, oldest first
        self._latest: Train | None = None
        self._opening: Opening | None = None  # of a consumer that is here before its train
        self._last_opening: Opening | None = None
        self._is_read = False
        self._senders: set[Sender] = set()
        self._watchers: set[Waker] = set()
        self._closed: str | None = None
        self.patience = Patience(name, self.changed)
        self._stopped_train = 0

    # --- for the consumer -------------------------------------------------------------------------

    def open(self, batch_size: int | None, equal_steps: bool) -> None:
        """Say how the next train will be read. Raises FeedInUse, ValueError."""
        if equal_steps and not batch_size:
            raise ValueError("equal steps need a batch_size: say how many rows a step takes")
        with self.changed:
            self._refuse_second_reader()
            self._last_opening = self._opening = Opening(batch_size, equal_steps)
            while self._trains and (self._trains[0].ended or self._trains[0].stopped is not None):
                self._trains.popleft()  # who would have read its last rows is gone
            if self._trains:
                self._trains[0].opening = None  # another reader has given it up
            self._assign()

    def wait_for_train(self, stopping: Callable[[], bool]) -> Train | None:
        """The next `cluster.train` call that has rows for us, once it has begun; None: told to
        stop. A train that was not read to its end is given again."""
        with self.changed:
            while self._trains and self._trains[0].stopped is not None:
                self._trains.popleft()
            if self._opening is None and not (self._trains and self._trains[0].opening):
                self._opening = self._last_opening or Opening(None, False)
            self._assign()
            if not self.wait("cluster.train", lambda: bool(self._trains), stopping):
                return None
            train = self._trains[0]
            train.read_by(stopping)
            return train

    def first_epoch(self, stopping: Callable[[], bool]) -> int:
        """The epoch with which the next train begins here, once it has begun; 1: told to stop."""
        with self.changed:
            self.wait("cluster.train", lambda: bool(self._trains), stopping)
            return self._trains[0].first if self._trains else 1

    def terminate(self, reason: str = "the consumer has seen enough") -> None:
        """No more rows of this train: feeders are told to stop, and the reader's epochs end. With
        equal steps the other workers' end, too."""
        with self.changed:
            if not self._trains or self._trains[0].opening is None:
                return  # the train that it is about has been read to its end
            train = self._trains[0]
            if train.takes_rows:
                train.stopped = reason
                self._stopped_train = train.number
                self._dismiss(train, {"stop": reason})
            train.clear()
            self.made_room()
            self._ring()
        self._tell()

    def counters(self) -> dict[str, float]:
        """``rows`` and ``bytes`` that entered in the latest train, its ``epoch``, whole ``steps``
        that the consumer was given, ``train``, the train that a consumer has ``stopped``, and what
        ``Train.reading`` tells; and ``Patience.counters``."""
        with self.changed:
            train, waited = self._latest, self.patience.counters
            if train is None:
                return waited
            return {
                **waited,
                "rows": train.rows,
                "bytes": train.bytes,
                "epoch": train.last_epoch,
                "steps": train.steps,
                "train": train.number,
                "stopped": self._stopped_train,
                **train.reading(),
            }

    # --- for the reader (Train) -------------------------------------------------------------------

    def wait(
        self,
        what: str,
        is_ready: Callable[[], bool],
        stopping: Callable[[], bool],
        within: float = math.inf,
    ) -> bool | None:
        """Under the lock; see ``Patience.wait``."""
        return self.patience.wait(
            what, is_ready, lambda: self._closed is not None or stopping(), within
        )

    @property
    def is_closed(self) -> bool:
        return self._closed is not None

    def acquire_reader(self) -> None:
        with self.changed:
            self._refuse_second_reader()
            self._is_read = True

    def release_reader(self) -> None:
        with self.changed:
            self._is_read = False

    def _refuse_second_reader(self) -> None:
        if self._is_read:
            raise FeedInUse(
                f"feed {self.name!r} is being read already: go through one dataset (or DataFeed) "
                "at a time, to its end, or give each its own feed=..."
            )

    def consumed(self, train: Train) -> None:
        """The reader has come to its end."""
        with self.changed:
            if train in self._trains:
                self._trains.remove(train)
            train.clear()
            self.made_room()

    def made_room(self) -> None:
        """Under the lock."""
        for sender in self._senders:
            if sender.wants_room:
                sender.wants_room = False
                sender.room.set()

    # --- for feeders (intake) ---------------------------------------------------------------------

    def begin(self, hello: Mapping[str, Any], schema: pa.Schema) -> Sender | dict[str, Any]:
        """A feeder's hello: its right to send, or the reply that denies it."""
        number, epoch = int(hello["train"]), int(hello["epoch"])
        partition, attempt = int(hello["partition"]), int(hello["attempt"])
        with self.changed:
            train = self._latest
            if self._closed is not None:
                return {"action": "stop", "reason": self._closed}
            if train is None or number > train.number:
                return refusal(f"train {number} of feed {self.name!r} is not open here")
            if number < train.number:
                return {"action": "stop", "reason": f"train {train.number} has begun"}
            if not train.takes_rows:
                reason = train.stopped if train.stopped is not None else train.ended
                return {"action": "stop", "reason": reason or "the train has ended"}
            known = train.known_schema
            if known is not None and not known.equals(schema, check_metadata=False):
                return refusal(
                    f"all rows of a train have the same columns: partition {partition} has "
                    f"{columns_in_words(schema)}, and before it came {columns_in_words(known)}"
                )
            begun = train.ledger.begin(epoch, partition, attempt, bool(hello["deterministic"]))
            match begun:
                case feed_ledger.Closed():
                    return {"action": "done"}
                case feed_ledger.Stale(attempt=younger):
                    return refusal(f"attempt {younger} of partition {partition} has taken over")
            for other in self._senders:
                if (other.train, other.epoch, other.partition) == (train, epoch, partition):
                    # The same attempt may call again: then its first call is dead.
                    other.decide({"error": f"attempt {attempt} of the partition has taken over"})
            queue = train.queue(epoch)
            sender = Sender(train, epoch, partition, attempt, begun, queue.rows)
            self._senders.add(sender)
            train.known_schema = schema
            self._ring()
            return sender

    def put(
        self, sender: Sender, batch: pa.RecordBatch, start: int, *, without_room: bool = False
    ) -> tuple[int, int] | None:
        """How many rows were taken (none that are here already), and how many this worker has of
        the epoch by now. None: there is no room (yet), or the sender has a verdict. Raises
        ValueError for numbers that cannot be."""
        with self.changed:
            if sender.verdict is not None:
                return None
            train = sender.train
            queue = train.queue(sender.epoch)
            size = batch.get_total_buffer_size()
            held = sum(each.held_bytes for each in {*self._trains, train})
            is_full = held and held + size > MAX_BYTES
            if is_full and not train.must_take(queue, is_last=without_room):
                sender.wants_room = True
                return None
            if train.ledger.took(
                sender.epoch, sender.partition, sender.attempt, start, batch.num_rows
            ):
                queue.put(batch)
                train.drop_left(queue)
                train.rows += batch.num_rows
                train.bytes += size
                self._ring()
                return batch.num_rows, queue.rows
            return 0, queue.rows

    def leave(self, sender: Sender) -> None:
        """The connection is done with."""
        with self.changed:
            self._senders.discard(sender)
        sender.room.close()
        sender.stop.close()

    def _dismiss(self, train: Train, verdict: dict[str, Any]) -> None:
        for sender in self._senders:
            if sender.train is train:
                sender.decide(verdict)

    # --- for the keeper's link (peer) -------------------------------------------------------------

    def open_train(self, number: int, epochs: int | None, first: int = 1, earlier: int = 0) -> None:
        """Feeders may send rows of it from now on. It ends the one before. Said twice is once.

        After a restart of the gang it goes on with epoch ``first``, and there were ``earlier``
        trains: each is here without rows, so that a program comes to this one in its turn."""
        with self.changed:
            before = self._latest
            if before is not None and number <= before.number:
                return
            if before is not None:
                self._end(before, f"train {number} has begun")
            self._trains.extend(finished_trains(self, earlier if before is None else 0))
            self._latest = Train(self, number, epochs, first)
            self._trains.append(self._latest)
            self._assign()
            self._ring()

    def release(self, number: int, epoch: int, steps: int) -> None:
        """The consumer may take so many steps of the epoch."""
        with self.changed:
            if train := self._current(number):
                queue = train.queue(epoch)
                queue.steps = max(queue.steps, steps)
                train.drop_left(queue)
                self.made_room()
                self._ring()

    def freeze(self, number: int, epoch: int) -> int:
        """From now on only other workers' rows enter the epoch; how many it has."""
        with self.changed:
            if (train := self._current(number)) is None:
                return 0
            train.ledger.close(epoch)
            for sender in self._senders:
                if sender.train is train and sender.epoch <= epoch:
                    sender.decide({"error": f"epoch {epoch} is closed"})
            return train.queue(epoch).rows

    def give(self, number: int, epoch: int, rows: int) -> list[pa.RecordBatch]:
        """The youngest rows of the epoch that are not released, to be sent to another worker."""
        with self.changed:
            train = self._current(number)
            if train is None:
                return []
            queue = train.queue(epoch)
            return queue.give(rows, train.unreleased_from(queue))

    def receive(self, number: int, epoch: int, batches: Sequence[pa.RecordBatch]) -> int:
        """Another worker's rows, or our own that it did not want. There is always room for them."""
        with self.changed:
            train = self._current(number)
            if train is None or train.queue(epoch).is_closed:
                return 0
            for batch in batches:
                train.known_schema = train.known_schema or batch.schema
                train.queue(epoch).put(batch)
            train.drop_left(train.queue(epoch))
            self._ring()
            return sum(batch.num_rows for batch in batches)

    def close_epoch(self, number: int, epoch: int, steps: int | None) -> None:
        """No more rows of the epoch; the consumer has the first ``steps`` steps of it (None: all
        that is there)."""
        with self.changed:
            if train := self._current(number):
                train.ledger.close(epoch)
                train.close_epoch(epoch, steps)
                self.made_room()
                self._ring()

    def end_train(self, number: int, reason: str) -> None:
        """ "": it was delivered to its end. Else the consumer gets what was released, no more."""
        with self.changed:
            if train := self._current(number):
                self._end(train, reason)
                self.made_room()
                self._ring()

    def lose_train(self, number: int, text: str) -> None:
        """The keeper is gone without a word about the train."""
        with self.changed:
            if (train := self._current(number)) and train.ended is None:
                train.lost, train.lost_at = text, time.monotonic()
                self._dismiss(train, {"error": text})
                self._ring()

    def said(self, number: int) -> Said:
        """What the keeper should know of the train by now."""
        with self.changed:
            train = self._current(number)
            is_closed = self._closed is not None
            if train is None:
                return Said(None, {}, self._closed, is_closed)
            stopped = train.stopped if train.stopped is not None else self._closed
            queues = (queue for queue in train.queues.values() if not queue.is_closed)
            arrived = {queue.number: queue.rows for queue in queues}
            return Said(train.opening, arrived, stopped, is_closed)

    def watch(self, waker: Waker) -> None:
        """Set it whenever ``said`` may have changed."""
        with self.changed:
            self._watchers.add(waker)

    def unwatch(self, waker: Waker) -> None:
        with self.changed:
            self._watchers.discard(waker)

    # --- ends -------------------------------------------------------------------------------------

    def close(self, reason: str) -> None:
        """Nobody reads or sends any more. The second time changes nothing."""
        with self.changed:
            if self._closed is None:
                self._closed = reason
                for sender in self._senders:
                    sender.decide({"stop": reason})
                self._ring()

    def _end(self, train: Train, reason: str) -> None:
        if train.ended is None:
            train.ended = reason
            self._dismiss(train, {"stop": reason or "the train has ended"})
            for queue in train.queues.values():
                if not queue.is_closed:
                    queue.close(train.limit(queue))
            if reason and train.opening is None and train in self._trains:
                train.clear()
                self._trains.remove(train)  # nobody came to read it

    def _current(self, number: int) -> Train | None:
        return self._latest if self._latest is not None and self._latest.number == number else None

    def _assign(self) -> None:
        """Tell the oldest train how it will be read."""
        if self._opening is not None and self._trains and self._trains[0].opening is None:
            self._trains[0].opening, self._opening = self._opening, None
            self.made_room()  # its batches may be larger than what was let in so far
            self._ring()

    def _ring(self) -> None:
        self.changed.notify_all()
        for waker in self._watchers:
            waker.set()
