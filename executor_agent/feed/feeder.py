"""What a Spark task runs to feed a partition: record batches in, one row about it out.

Runs on the main thread of a PySpark worker. Light to import, because the driver pickles it and
every Python worker loads it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from executor_agent.core.feed_values import FeedEndpoint, FeedKey
from executor_agent.linux import boot_id

if TYPE_CHECKING:
    import pyarrow as pa

    from executor_agent.feed.sending import Delivered

FEED_ROW_SCHEMA = (
    "partition int, attempt long, rows long, skipped long, again long, bytes long, "
    "seconds double, stopped string, workers string, marks string"
)
"""Spark's DDL of the row that a feeder returns. ``rows`` and ``bytes``: sent and acknowledged by
this attempt. ``skipped``: taken from an earlier one. ``again``: taken from an earlier one and sent
again, since the order may have changed. ``stopped``: null, or why not all was sent. ``workers``:
JSON, the acknowledged rows by member. ``marks``: JSON, see `Delivered`."""


@dataclass(frozen=True, slots=True)
class TaskIdentity:
    """``attempt_number``: 0, 1, ... of this partition. ``attempt``: of the whole Spark application,
    growing, so that the younger of two attempts is known by it."""

    partition: int
    attempt_number: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Feeder:
    """Sends the partition that it is called with. ``key``: made by `FeedKey.for_feeders`.

    ``deterministic``: a retried task gets the same rows in the same order, so that it may skip what
    an earlier attempt has delivered. ``patience``: seconds that a feeder with a broken connection
    leaves the driver to cancel it. ``leave_out``: partitions that an earlier generation of the gang
    has read to their end. ``account``: an accumulator of Spark's, for a driver that must know what
    was delivered although the job does not come to its end.
    """

    endpoints: tuple[FeedEndpoint, ...]
    key: FeedKey
    feed: str
    train: int
    epoch: int
    deterministic: bool
    patience: float = 30.0
    leave_out: frozenset[int] = frozenset()
    account: Any = None

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """For ``DataFrame.mapInArrow``: yields one row of `FEED_ROW_SCHEMA`."""
        import pyarrow as pa

        yield pa.RecordBatch.from_pylist([self.deliver(batches, this_task())], _arrow_schema())

    def rows(self, rows: Iterator[Any]) -> Iterator[dict[str, Any]]:
        """For ``RDD.mapPartitions``: yields one row of `FEED_ROW_SCHEMA`, as a dict."""
        from executor_agent.feed.rows import to_batches

        yield self.deliver(to_batches(rows), this_task())

    def deliver(self, batches: Iterator[pa.RecordBatch], task: TaskIdentity) -> dict[str, Any]:
        """A row of `FEED_ROW_SCHEMA`. Whatever is left of ``batches`` after a stop is not read: the
        driver cancels the job, which is what ends Spark's own work on it."""
        from executor_agent.feed.sending import Delivered, PartitionSender, Stopped

        started_at = time.monotonic()
        if task.partition in self.leave_out:
            return _row(task, Delivered(), started_at, None)  # Spark computes what is read only
        first = next((batch for batch in batches if batch.num_rows), None)
        if first is None:  # nothing to say, and no schema to say it with
            return self._noted(_row(task, Delivered(), started_at, None))
        hello = self._hello(first.schema, task)
        stopped = None
        with PartitionSender(
            self.endpoints,
            self.key,
            hello,
            boot_id=boot_id(),
            ask_all=task.attempt_number > 0,
            patience=self.patience,
        ) as sender:
            try:
                sender.open(first.schema)
                sender.send(first)
                for batch in batches:
                    sender.send(batch)
                sent = sender.finish()
            except Stopped as reason:
                stopped, sent = str(reason), sender.so_far()
        return self._noted(_row(task, sent, started_at, stopped))

    def _noted(self, row: dict[str, Any]) -> dict[str, Any]:
        if self.account is not None:  # of a task that fails after this, Spark counts nothing
            what = {"feed": self.feed, "train": self.train, "epoch": self.epoch}
            self.account.add([{**row, **what}])
        return row

    def _hello(self, schema: pa.Schema, task: TaskIdentity) -> dict[str, Any]:
        from base64 import b64encode

        return {
            "kind": "feed",
            "feed": self.feed,
            "train": self.train,
            "epoch": self.epoch,
            "partition": task.partition,
            "attempt": task.attempt,
            "deterministic": self.deterministic,
            "schema": b64encode(schema.serialize()).decode(),
        }


class Account:
    """How Spark adds up what feeders note: in lists on their way, and with the driver in whatever
    can be extended, which takes out what has come. Of a task that has failed nothing is added."""

    def zero(self, value: Any) -> list[Any]:
        """What a task begins with."""
        return []

    def addInPlace(self, value1: Any, value2: Iterable[Any]) -> Any:  # Spark's name
        """One more part."""
        value1.extend(value2)
        return value1


def this_task() -> TaskIdentity:
    """Raises RuntimeError outside a Spark task."""
    from pyspark import TaskContext

    context = TaskContext.get()
    if context is None:
        raise RuntimeError("not in a Spark task")
    return TaskIdentity(context.partitionId(), context.attemptNumber(), context.taskAttemptId())


def _row(
    task: TaskIdentity, sent: Delivered, started_at: float, stopped: str | None
) -> dict[str, Any]:
    return {
        "partition": task.partition,
        "attempt": task.attempt,
        "rows": sent.rows,
        "skipped": sent.skipped,
        "again": sent.again,
        "bytes": sent.size,
        "seconds": time.monotonic() - started_at,
        "stopped": stopped,
        "workers": json.dumps(sent.by_member),
        "marks": json.dumps(sent.marks),
    }


def _arrow_schema() -> pa.Schema:
    import pyarrow as pa

    types = {
        "int": pa.int32(),
        "long": pa.int64(),
        "double": pa.float64(),
        "string": pa.string(),
    }
    fields = (column.split() for column in FEED_ROW_SCHEMA.split(", "))
    return pa.schema([(name, types[kind]) for name, kind in fields])
