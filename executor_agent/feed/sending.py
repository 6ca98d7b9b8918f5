"""One feeder's connections: which worker gets what, and what each of them has acknowledged.

Each connection has a thread of its own (`link.py`). The task's thread decides who gets a piece, and
is the only one that calls `PartitionSender`.

A partition is delivered when every piece has been acknowledged. Nothing is sent twice here, except
to another worker what one has not taken because it stopped.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from executor_agent.core import feed_spread
from executor_agent.core.feed_ledger import merged
from executor_agent.core.feed_values import FeedEndpoint, FeedKey, Range
from executor_agent.feed.link import Link, PartitionRefused
from executor_agent.feed.pieces import Piece, pieces_of
from executor_agent.feed.wire import Connection, FeedRefused, dial

if TYPE_CHECKING:
    import pyarrow as pa

DIAL_TIMEOUT = 20.0
"""Seconds for one worker to answer a hello."""

BROKEN_PATIENCE = 30.0
"""Seconds that a feeder with a broken connection leaves the driver, which knows the cause, to
cancel its task before it fails by itself."""

FLUSH_AFTER = 2.0
"""Seconds without any acknowledgement, when all is sent, until workers are told that no more comes.
Not at once: partitions that are small would never wait for room otherwise."""

_AHEAD = 1  # pieces that wait for credit while Spark is asked for more

EPOCH_CLOSED = "the epoch is closed already"
"""Why a partition was not sent: all that belongs to its epoch has been delivered before."""


class FeedBroken(OSError):
    """A worker went away while it was fed, or could not be reached; the text says which."""


class Stopped(Exception):
    """Nobody takes rows of this feed any more; the text says why. No failure."""


@dataclass(slots=True)
class Delivered:
    """What became of a partition's rows. ``rows`` and ``size`` (bytes): acknowledged now.
    ``skipped``: taken from an earlier attempt, and not sent again. ``again``: taken from an earlier
    attempt, and sent again because the order may be another one. ``marks``: by member, how
    many rows of the epoch it had, when it had all of these: who has read so many has read these.
    """

    rows: int = 0
    skipped: int = 0
    again: int = 0
    size: int = 0
    by_member: dict[str, int] = field(default_factory=dict)
    marks: dict[str, int] = field(default_factory=dict)


class PartitionSender:
    """Delivers one partition. Use it as a context manager; `open`, `send`..., `finish`.

    ``hello``: the same for all workers. ``ask_all``: an attempt came before this one, so that every
    worker may have some of its rows.

    Raises:
        Stopped: see there.
        FeedBroken: a worker is gone; raised late (``patience``).
        FeedRefused: a worker does not take this partition, from us or at all.
    """

    def __init__(
        self,
        endpoints: Sequence[FeedEndpoint],
        key: FeedKey,
        hello: Mapping[str, Any],
        *,
        boot_id: str = "",
        ask_all: bool = False,
        patience: float = BROKEN_PATIENCE,
    ) -> None:
        self._endpoints = {endpoint.member: endpoint for endpoint in endpoints}
        self._key = key
        self._hello = hello
        self._boot_id = boot_id
        self._ask_all = ask_all
        self._patience = patience
        self._changed = threading.Condition()
        self._links: dict[str, Link] = {}
        self._ended: dict[str, str] = {}  # members that have stopped, and why
        self._rows_there: dict[str, int] = {}
        self._marks: dict[str, int] = {}  # of those that have rows of earlier attempts
        self._taken: tuple[Range, ...] = ()
        self._schema: pa.Schema | None = None
        self._waiting: deque[Piece] = deque()
        self._offset = 0
        self._skipped = 0
        self._again = 0

    def __enter__(self) -> PartitionSender:
        return self

    def __exit__(self, *_: object) -> None:
        for link in self._links.values():
            link.abort()
        for link in self._links.values():
            link.join()

    def open(self, schema: pa.Schema) -> None:
        """Say hello to the first workers, and to all if there was an attempt before this one."""
        self._schema = schema
        self._open(feed_spread.first_to_open(self._candidates(), self._partition))
        if self._ask_all:
            self._ask_others()

    def send(self, batch: pa.RecordBatch) -> None:
        """The next rows of the partition. On return they are on their way, not delivered."""
        skip = self._taken if self._hello["deterministic"] else ()
        sent = 0
        for piece in pieces_of(batch, self._offset, skip):
            sent += piece.rows
            with self._changed:
                self._waiting.append(piece)
            self._wait_until(lambda: self._has_place and self._is_taken_by_somebody)
        self._skipped += batch.num_rows - sent
        self._offset += batch.num_rows

    def finish(self) -> Delivered:
        """All rows were given to `send`: wait until they are acknowledged."""
        while True:
            self._wait_until(lambda: not self._waiting)
            with self._changed:
                self._assign()
                self._raise_failure()
                if self._is_delivered:
                    break
                if not self._waiting and not self._changed.wait(FLUSH_AFTER):
                    for link in self._links.values():
                        link.flush()
        for link in self._links.values():
            link.end()
        for link in self._links.values():
            link.join()
        return self.so_far()

    def so_far(self) -> Delivered:
        """What is acknowledged by now."""
        with self._changed:
            links = list(self._links.values())
            return Delivered(
                rows=sum(link.acknowledged for link in links),
                skipped=self._skipped + sum(link.dropped for link in links),
                again=self._again,
                size=sum(link.acknowledged_bytes for link in links),
                by_member={link.member: link.acknowledged for link in links if link.acknowledged},
                marks={**self._marks, **{link.member: link.mark for link in links if link.mark}},
            )

    # --- who gets it ------------------------------------------------------------------------------

    @property
    def _has_place(self) -> bool:
        """One piece may wait while Spark is asked for the next: whoever has credit takes it."""
        return len(self._waiting) <= _AHEAD

    @property
    def _is_taken_by_somebody(self) -> bool:
        return any(link.is_open for link in self._links.values())

    @property
    def _is_delivered(self) -> bool:
        return not self._waiting and all(link.is_idle for link in self._links.values())

    def _wait_until(self, is_enough: Callable[[], bool]) -> None:
        """Connects to more workers meanwhile, when those known take nothing."""
        since = time.monotonic()
        while True:
            with self._changed:
                self._assign()
                self._raise_failure()
                if is_enough():
                    return
                left = feed_spread.PATIENCE - (time.monotonic() - since)
                nobody = not self._is_taken_by_somebody
                more = self._next_to_open(nobody or (bool(self._waiting) and left <= 0))
                if nobody and not more:
                    raise Stopped(next(iter(self._ended.values()), "no worker takes rows"))
                if not more:
                    self._changed.wait(left if left > 0 else None)
            self._open(more)

    def _raise_failure(self) -> None:
        for link in self._links.values():
            if link.failure is not None:
                self._give_up(link.member, link.failure)

    def _assign(self) -> None:
        """Who has credit takes what waits. Runs in whichever thread brings a piece or a credit: the
        task's thread may be waiting for Spark."""
        for link in self._links.values():
            if link.stopped is not None and link.member not in self._ended:
                self._ended[link.member] = link.stopped
                self._waiting.extendleft(reversed(link.take_back()))
        while self._waiting:
            targets = [link.as_target() for link in self._links.values()]
            chosen = feed_spread.choose(targets, self._waiting[0].rows)
            if chosen is None:
                break
            self._links[chosen].put(self._waiting.popleft())

    def _next_to_open(self, are_needed: bool) -> tuple[str, ...]:
        known = {*self._links, *self._ended}
        if not are_needed or len(known) == len(self._endpoints):
            return ()
        return feed_spread.next_to_open(
            self._candidates(), known, self._partition, feed_spread.PATIENCE
        )

    def _candidates(self) -> list[feed_spread.Candidate]:
        return [
            feed_spread.Candidate(member, self._is_near(endpoint), self._rows_there.get(member, 0))
            for member, endpoint in self._endpoints.items()
        ]

    def _is_near(self, endpoint: FeedEndpoint) -> bool:
        return bool(self._boot_id) and endpoint.boot_id == self._boot_id

    @property
    def _partition(self) -> int:
        return int(self._hello["partition"])

    # --- hello ------------------------------------------------------------------------------------

    def _open(self, members: Sequence[str]) -> None:
        """Connect. When one of them knows of an attempt at this partition before this one, all are
        asked what they have: Spark counts attempts from 0 again when it repeats a whole stage."""
        earlier = False
        for member in members:
            connection = self._dial(member)
            if connection is None:
                continue
            reply = connection.reply
            earlier = earlier or bool(reply.get("taken") or reply.get("earlier"))
            assert self._schema is not None
            link = Link(connection, self._schema, self._changed, self._assign)
            with self._changed:
                self._links[member] = link
            link.start()
        if earlier:
            self._ask_others()

    def _ask_others(self) -> None:
        """Once. Only what they have: rows go to those that we stay connected to."""
        for member in self._endpoints:
            if member not in self._links and member not in {*self._ended, *self._rows_there}:
                connection = self._dial(member)
                if connection is not None:
                    connection.close()

    def _dial(self, member: str) -> Connection | None:
        """None: the worker has stopped. Its reply is taken down."""
        endpoint = self._endpoints[member]
        try:
            connection = dial(
                endpoint, self._key, self._hello, timeout=DIAL_TIMEOUT, boot_id=self._boot_id
            )
        except OSError as error:
            self._give_up(member, error)
        reply = connection.reply
        match reply.get("action"):
            case "go":
                self._rows_there[member] = int(reply.get("rows", 0))
                if reply.get("taken"):
                    self._marks[member] = self._rows_there[member]
                self._heard_of(reply.get("taken", ()))
                return connection
            case "stop":
                connection.close()
                self._ended[member] = str(reply.get("reason", "stopped"))
                return None
            case "done":
                connection.close()
                raise Stopped(EPOCH_CLOSED)
        connection.close()
        raise PartitionRefused(f"{member}: {reply.get('text') or str(reply)[:80]}")

    def _heard_of(self, taken: Sequence[Sequence[int]]) -> None:
        known = sum(end - start for start, end in self._taken)
        self._taken = merged([*self._taken, *((int(start), int(end)) for start, end in taken)])
        if not self._hello["deterministic"]:
            self._again += sum(end - start for start, end in self._taken) - known

    def _give_up(self, member: str, error: Exception) -> NoReturn:
        """What a worker refuses to us is raised at once; for all else the driver knows a cause."""
        if isinstance(error, FeedRefused) and type(error) is not FeedRefused:
            raise error
        deadline = time.monotonic() + self._patience
        with self._changed:
            while (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)  # a task that is cancelled meanwhile is killed
        rows = self.so_far().rows
        raise FeedBroken(
            f"the feed to {member} broke: {error}; {rows} rows of this partition had been "
            "acknowledged. Why the member is gone is in the run's own error."
        ) from error
