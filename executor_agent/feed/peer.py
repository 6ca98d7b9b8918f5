"""A worker's end of what workers say to each other: the keeper's link, and rows that move.

The keeper (``keeper.py``, in the process of rank 0) holds one connection for each train to each
worker. What it says is done here; what happens in the feed meanwhile is said to it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from executor_agent.core.feed_values import FeedEndpoint
from executor_agent.feed.stream import Interrupted, Waker
from executor_agent.feed.wire import Connection, Message, dial

if TYPE_CHECKING:
    import pyarrow as pa

    from executor_agent.feed.inbox import Feed, Said
    from executor_agent.feed.server import FeedServer

KEEPER, MOVE = "keeper", "move"
"""Kinds of connections."""

_MOVE_TIMEOUT = 60.0
"""Seconds that a move may take: it is less than one step of all workers, or what a queue holds."""


def follow_keeper(server: FeedServer, hello: Mapping[str, Any], connection: Connection) -> None:
    """All of one connection of kind "keeper": one train of one feed."""
    feed = server.feeds[str(hello["feed"])]
    connection.send({"ok": True})
    waker = Waker()
    feed.watch(waker)
    try:
        _Follower(server, feed, int(hello["train"]), connection, waker).run()
    except Exception as error:
        feed.lose_train(int(hello["train"]), f"the member that keeps the steps is gone: {error}")
        raise
    finally:
        feed.unwatch(waker)
        connection.listen_to(None)
        waker.close()


class _Follower:
    """Says only what has changed, and of what has changed often, how it is now."""

    def __init__(
        self, server: FeedServer, feed: Feed, train: int, connection: Connection, waker: Waker
    ) -> None:
        self._server = server
        self._feed = feed
        self._train = train
        self._connection = connection
        self._waker = waker
        self._arrived: Mapping[int, int] = {}
        self._reads: object = None
        self._is_stopped = False

    def run(self) -> None:
        """Until the keeper has ended the train, or this worker's feed is closed."""
        while True:
            self._waker.clear()
            said = self._feed.said(self._train)
            self._say(said)
            if said.is_closed:
                return
            if not self._wait():
                continue
            message = self._connection.receive()
            if message is None:
                raise ConnectionError("it closed the connection")
            self._do(message)
            if message.get("say") == "end":
                return

    def _wait(self) -> bool:
        """True: the keeper says something. False: there is something to say."""
        self._connection.listen_to(self._waker)
        try:
            return self._connection.wait_readable()
        except Interrupted:
            return False
        finally:
            self._connection.listen_to(None)

    def _say(self, said: Said) -> None:
        if said.reads is not None and said.reads != self._reads:
            self._reads = said.reads
            reads = {"batch_size": said.reads.batch_size, "equal": said.reads.equal}
            self._connection.send({"say": "reads", **reads})
        for epoch, rows in said.arrived.items():
            if rows != self._arrived.get(epoch, 0):
                self._connection.send({"say": "arrived", "epoch": epoch, "rows": rows})
        self._arrived = said.arrived
        if said.stopped is not None and not self._is_stopped:
            self._is_stopped = True
            self._connection.send({"say": "stopped", "reason": said.stopped})

    def _do(self, message: Message) -> None:
        feed, train = self._feed, self._train
        match message:
            case {"say": "open", "epochs": epochs}:
                first, earlier = message.get("first", 1), message.get("earlier", 0)
                feed.open_train(train, epochs, int(first), int(earlier))
                self._connection.send({"say": "opened"})
            case {"say": "release", "epoch": epoch, "steps": steps}:
                feed.release(train, epoch, steps)
            case {"say": "freeze", "epoch": epoch}:
                rows = feed.freeze(train, epoch)
                self._connection.send({"say": "frozen", "epoch": epoch, "rows": rows})
            case {"say": "move", "epoch": epoch, "to": to, "rows": rows}:
                moved = self._move(epoch, FeedEndpoint.from_json(to), rows)
                self._say(feed.said(train))  # that it has stopped, before rows are missed
                self._connection.send({"say": "moved", "epoch": epoch, **moved})
            case {"say": "closed", "epoch": epoch, "steps": steps}:
                feed.close_epoch(train, epoch, steps)
            case {"say": "end", "reason": reason}:
                feed.end_train(train, reason)
            case _:
                raise ConnectionError(f"it says what is not known here: {str(message)[:80]}")

    def _move(self, epoch: int, to: FeedEndpoint, rows: int) -> dict[str, Any]:
        batches = self._feed.give(self._train, epoch, rows)
        try:
            took = self._send_rows(epoch, to, batches) if batches else 0
        except OSError as error:
            # Whether it has them we cannot know: the keeper takes fewer than asked for as an error.
            return {"rows": 0, "why": str(error)}
        return {"rows": took}

    def _send_rows(self, epoch: int, to: FeedEndpoint, batches: list[pa.RecordBatch]) -> int:
        rows = sum(batch.num_rows for batch in batches)
        hello = {"kind": MOVE, "feed": self._feed.name, "train": self._train, "epoch": epoch}
        connection = dial(
            to,
            self._server.key,
            {**hello, "rows": rows},
            timeout=_MOVE_TIMEOUT,
            boot_id=self._server.boot_id,
        )
        # A taker that stands still would hold us in a write, deaf to the keeper.
        timer = threading.Timer(_MOVE_TIMEOUT, connection.abort)
        timer.daemon = True
        timer.start()
        try:
            with connection.writer(batches[0].schema) as writer:
                for batch in batches:
                    writer.write_batch(batch)
            answer = connection.receive(_MOVE_TIMEOUT)
            return int((answer or {}).get("took", 0))
        finally:
            timer.cancel()
            connection.close()


def receive_move(feed: Feed, hello: Mapping[str, Any], connection: Connection) -> None:
    """All of one connection of kind "move": rows of another worker, all of them or none."""
    import pyarrow as pa

    connection.send({"ok": True})
    try:
        batches = list(connection.reader())
    except pa.ArrowInvalid as error:
        raise ConnectionError(f"the rows broke off: {error}") from None
    rows = sum(batch.num_rows for batch in batches)
    took = 0
    if rows == int(hello["rows"]):  # an Arrow stream that broke off may look as if it had ended
        took = feed.receive(int(hello["train"]), int(hello["epoch"]), batches)
    connection.send({"took": took})
