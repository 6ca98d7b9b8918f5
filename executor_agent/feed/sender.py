"""A feeder's connection at the worker's end: batches are read, put into the feed, acknowledged."""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from executor_agent.core.feed_ledger import Begun
from executor_agent.feed.stream import Interrupted, Waker

if TYPE_CHECKING:
    import pyarrow as pa

    from executor_agent.feed.inbox import Feed
    from executor_agent.feed.train import Train
    from executor_agent.feed.wire import Connection

CREDIT = 2
"""Batches that a feeder may send without acknowledgement. They are read even while the feed has no
room for them: a feeder that were stuck in a send could not serve the workers that lack rows."""

FLUSH = "flush"
"""Of an empty batch: the feeder has no more rows for anybody, and waits. Then what is here goes in
without room: nobody will ever make some, when all workers wait for a step that only what comes
after this epoch's end, rows that move, can complete."""


class Sender:
    """One connection's right to put rows of one partition into a feed.

    ``taken``: ranges of it that were here before; ``is_retry``: another attempt was; ``rows``: of
    the epoch. ``room``: set when it may be worth another try; ``stop``: set when there is a
    ``verdict``, the last message to send.
    """

    def __init__(
        self,
        train: Train,
        epoch: int,
        partition: int,
        attempt: int,
        begun: Begun,
        rows: int,
    ) -> None:
        self.train = train
        self.epoch = epoch
        self.partition = partition
        self.attempt = attempt
        self.taken = begun.taken
        self.is_retry = bool(begun.fences)
        self.rows = rows
        self.room = Waker()
        self.wants_room = False
        self.stop = Waker()
        self.verdict: dict[str, Any] | None = None

    def decide(self, verdict: dict[str, Any]) -> None:
        """No more rows. The first verdict stands."""
        if self.verdict is None:
            self.verdict = verdict
            self.stop.set()
            self.room.set()


def serve_feeder(feed: Feed, hello: Mapping[str, Any], connection: Connection) -> None:
    """All of one connection of kind "feed". Raises OSError when the feeder is gone, or has only
    asked, or does not keep to the protocol: what was acknowledged stays."""
    import pyarrow as pa

    try:
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(str(hello["schema"]))))
        begun = feed.begin(hello, schema)
    except (KeyError, TypeError, ValueError, pa.ArrowException) as error:
        connection.send({"action": "error", "text": f"a hello not understood: {error!r}"})
        return
    if isinstance(begun, dict):
        connection.send(begun)
        return
    try:
        go = {"taken": begun.taken, "rows": begun.rows, "earlier": begun.is_retry}
        connection.send({"action": "go", **go})
        _Intake(feed, begun, connection, schema).run()
    except pa.ArrowInvalid as error:  # cut off, most likely
        raise ConnectionError(f"the feeder's rows cannot be read: {error}") from None
    except Interrupted:
        connection.listen_to(None)
        connection.send(begun.verdict or {"error": "the connection was interrupted"})
    finally:
        connection.listen_to(None)
        feed.leave(begun)


class _Intake:
    """Reads batches ahead as far as the credit goes, and puts them in when there is room."""

    def __init__(
        self, feed: Feed, sender: Sender, connection: Connection, schema: pa.Schema
    ) -> None:
        self._feed = feed
        self._sender = sender
        self._connection = connection
        self._schema = schema
        self._waiting: deque[tuple[pa.RecordBatch, int]] = deque()
        self._reader: pa.RecordBatchStreamReader | None = None
        self._is_at_end = False
        self._is_flushing = False

    def run(self) -> None:
        """Until the feeder has sent all; raises Interrupted when there is a verdict."""
        while not (self._is_at_end and not self._waiting):
            self._sender.room.clear()  # before the looks at what it is set for
            if self._sender.verdict is not None:
                raise Interrupted
            if self._waiting and self._put():
                continue
            if self._may_read():
                self._read()

    def _put(self) -> bool:
        batch, start = self._waiting[0]
        try:
            done = self._feed.put(self._sender, batch, start, without_room=self._is_flushing)
        except ValueError as error:
            self._sender.decide({"error": str(error)})
            raise Interrupted from None
        if done is None:
            return False
        self._waiting.popleft()
        self._is_flushing = self._is_flushing and bool(self._waiting)
        self._listen(self._sender.stop)
        took, rows = done
        self._connection.send({"took": took, "rows": rows})
        return True

    def _may_read(self) -> bool:
        """Waits for the next batch to begin to arrive, or for room for one that is here."""
        self._listen(self._sender.room)
        try:
            if self._is_at_end:
                self._connection.wait_for_end()
                raise ConnectionError("the feeder is gone")
            return self._connection.wait_readable()
        except Interrupted:
            return False

    def _read(self) -> None:
        self._listen(self._sender.stop)
        if self._reader is None:
            self._reader = self._connection.reader()
            if not self._reader.schema.equals(self._schema, check_metadata=False):
                self._sender.decide({"error": "the rows have other columns than the hello said"})
                raise Interrupted
        try:
            read = self._reader.read_next_batch_with_custom_metadata()
        except StopIteration:
            self._is_at_end = True
            return
        if FLUSH in (read.custom_metadata or {}):
            self._is_flushing = bool(self._waiting)
            return
        if len(self._waiting) == CREDIT:
            self._sender.decide({"error": f"more than {CREDIT} batches without acknowledgement"})
            raise Interrupted
        try:
            start = int(read.custom_metadata["offset"])
        except (KeyError, TypeError, ValueError):
            self._sender.decide({"error": "a batch without an offset"})
            raise Interrupted from None
        self._waiting.append((read.batch, start))

    def _listen(self, waker: Waker) -> None:
        self._connection.listen_to(waker)


def refusal(text: str) -> dict[str, Any]:
    """The reply to a hello that makes no sense."""
    return {"action": "error", "text": text}


def columns_in_words(schema: pa.Schema) -> str:
    """Names and types."""
    return ", ".join(f"{field.name}: {field.type}" for field in schema)
