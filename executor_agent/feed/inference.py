"""Inference in a member's process: rows of many Spark tasks become batches for ``main_fun``, and
its results go back to the task that each row came from, in the order of its rows.

Owns: what ``main_fun`` gets and gives. What waits is in ``inference_queue``, what is said on the
connections in ``inference_streams``, the other end of them in ``inference_task``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from executor_agent.feed import columns, results
from executor_agent.feed.inference_queue import InferenceQueue, Pieces

if TYPE_CHECKING:
    from executor_agent.feed.server import FeedServer


class InferenceBatch(dict[str, Any]):
    """NumPy arrays by column. Must be answered by ``send`` before the next batch is taken."""

    records: pa.RecordBatch
    """The same rows, as they came."""

    _queue: InferenceQueue
    _pieces: Pieces
    _is_answered = True  # of a copy, which has no rows of Spark's

    @classmethod
    def of(cls, queue: InferenceQueue, pieces: Pieces, records: pa.RecordBatch) -> InferenceBatch:
        """Without arrays yet."""
        batch = cls()
        batch.records, batch._queue, batch._pieces = records, queue, pieces
        batch._is_answered = False
        return batch

    @property
    def rows(self) -> int:
        """How many results are expected."""
        return int(self.records.num_rows)

    @property
    def is_answered(self) -> bool:
        """Whether its results, or a refusal, are on their way."""
        return self._is_answered

    def send(self, answer: Any) -> None:
        """One result for each row, in the same order: an array (a tensor, a list), or a mapping of
        such by column. Never waits for Spark.

        Raises:
            ResultsMismatch: not one result for each row (F8); the Spark tasks that the rows came
                from fail with the same text.
            RuntimeError: this batch has been answered already.
        """
        if self._is_answered:
            raise RuntimeError("this batch has been answered already")
        self._is_answered = True
        try:
            batch = results.to_batch(answer, self.rows)
        except Exception as error:
            self._queue.refuse(self._pieces, str(error))
            raise
        self._queue.give(self._pieces, batch)

    def refuse(self, why: str) -> None:
        """Instead of ``send``: the Spark tasks that the rows came from fail, with this text; the
        feed goes on."""
        if not self._is_answered:
            self._is_answered = True
            self._queue.refuse(self._pieces, why)


class InferenceFeed:
    """One inference feed, as ``main_fun`` reads it."""

    def __init__(self, queue: InferenceQueue) -> None:
        self._queue = queue
        self._taken: InferenceBatch | None = None

    def batches(
        self,
        batch_size: int,
        spec: Mapping[str, Any] | None = None,
        defaults: Mapping[str, Any] | None = None,
        *,
        stopping: Callable[[], bool],
    ) -> Iterator[InferenceBatch]:
        """Until the member is told to stop. See ``Context.inference_batches``."""
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}: it must be at least 1")
        if spec is not None:
            columns.make_specs(spec, defaults)  # what is wrong is an error before the first row
        return self._batches(batch_size, spec, defaults, stopping)

    def _batches(
        self,
        batch_size: int,
        spec: Mapping[str, Any] | None,
        defaults: Mapping[str, Any] | None,
        stopping: Callable[[], bool],
    ) -> Iterator[InferenceBatch]:
        convert: columns.Converter | None = None
        schema: pa.Schema | None = None
        while (batch := self.take(batch_size, stopping)) is not None:
            try:
                if convert is None or batch.records.schema != schema:
                    schema = batch.records.schema
                    convert = columns.Converter(columns.specs_for(schema, spec, defaults))
                batch.update(convert(batch.records))
            except columns.FeedMismatch as error:
                # Who sends rows that the model does not take must not end it for all others.
                batch.refuse(str(error))
                continue
            try:
                yield batch
            except GeneratorExit:
                batch.refuse("main_fun has left the loop over ctx.inference_batches()")
                raise

    def take(self, batch_size: int, stopping: Callable[[], bool]) -> InferenceBatch | None:
        """The next rows, at most ``batch_size``, in ``records`` alone. None: the member is told to
        stop.

        Raises:
            ResultsMismatch: the last batch has not been answered.
        """
        if not (stopping() or self._queue.is_closed):
            self._check_answered()
        pieces, parts = self._queue.take(batch_size, stopping)
        if not pieces:
            return None
        records = parts[0] if len(parts) == 1 else _joined(parts)
        self._taken = InferenceBatch.of(self._queue, pieces, records)
        return self._taken

    def _check_answered(self) -> None:
        """A row without a result would leave its Spark task waiting for ever (F8)."""
        batch, self._taken = self._taken, None
        if batch is not None and not batch.is_answered:
            text = (
                f"0 results for a batch of {batch.rows:,} rows: "
                "call batch.send(results) once for every batch"
            )
            batch.refuse(text)
            raise results.ResultsMismatch(text)


def _joined(parts: list[pa.RecordBatch]) -> pa.RecordBatch:
    [batch] = pa.Table.from_batches(parts).combine_chunks().to_batches()
    return batch


class InferenceFeeds:
    """The inference feeds of one member, by name."""

    def __init__(self, member: str) -> None:
        self._member = member
        self._lock = threading.Lock()
        self._queues: dict[str, InferenceQueue] = {}
        self._feeds: dict[str, InferenceFeed] = {}
        self._closed = ""

    def queue(self, name: str) -> InferenceQueue:
        """What waits in the feed of that name, which need not be read yet."""
        with self._lock:
            if name not in self._queues:
                self._queues[name] = InferenceQueue(self._member)
                if self._closed:
                    self._queues[name].close(self._closed)
            return self._queues[name]

    def __getitem__(self, name: str) -> InferenceFeed:
        queue = self.queue(name)
        with self._lock:
            return self._feeds.setdefault(name, InferenceFeed(queue))

    def counters(self) -> dict[str, float]:
        """Of all feeds: "inference/rows" is how many rows of the feed "inference" were answered."""
        with self._lock:
            queues = list(self._queues.items())
        return {
            f"{name}/{counter}": value
            for name, queue in queues
            for counter, value in queue.counters().items()
        }

    def close(self, why: str) -> None:
        """``main_fun`` has ended, or the server is to: see ``InferenceQueue.close``."""
        with self._lock:
            self._closed = self._closed or why
            queues = list(self._queues.values())
        for queue in queues:
            queue.close(why)


def inference_batches(
    server: FeedServer,
    batch_size: int,
    *,
    spec: Mapping[str, Any] | None,
    feed: str,
    defaults: Mapping[str, Any] | None,
    stopping: Callable[[], bool],
) -> Iterator[InferenceBatch]:
    """See ``Context.inference_batches``."""
    return server.inference[feed].batches(batch_size, spec, defaults, stopping=stopping)
