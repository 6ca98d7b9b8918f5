"""Inference in a Spark task: a partition's rows go to a member, and its results come back.

The task's own thread takes results and hands them to Spark; another one takes rows from Spark and
sends them, so that neither waits for the other. Nothing is held here but what is on its way. No
TensorFlow, no gRPC. What is said on the two connections is in ``inference_streams``.
"""

from __future__ import annotations

import secrets
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from executor_agent.core.feed_values import FeedEndpoint, FeedKey
from executor_agent.linux import boot_id

if TYPE_CHECKING:
    import pyarrow as pa

    from executor_agent.feed.wire import Connection, Message

_DIAL_TIMEOUT = 30.0
_RETRY_INTERVAL = 0.5
_SLICE_BYTES = 4 << 20  # of rows in one message
_JOIN_TIMEOUT = 5.0  # for a sender that has nothing left to do


class InferenceFailed(RuntimeError):
    """Results that did not come, or not as they should; the text names the member."""


@dataclass(frozen=True, slots=True)
class InferenceTask:
    """For ``DataFrame.mapInArrow``: one partition.

    ``schema``: of the results, an Arrow schema as bytes. ``timeout``: seconds that a member may
    take from one result to the next. ``patience``: seconds in which a gang that is restarted may be
    back; a partition that finds nobody there asks all members in turn until then.
    """

    endpoints: tuple[FeedEndpoint, ...]
    key: FeedKey = field(repr=False)
    feed: str
    schema: bytes = field(repr=False)
    timeout: float
    patience: float = 0.0

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext

        context = TaskContext.get()
        if context is None:
            raise RuntimeError("not in a Spark task")
        yield from self.infer(batches, context.partitionId(), context.attemptNumber())

    def infer(
        self, batches: Iterator[pa.RecordBatch], partition: int, attempt: int
    ) -> Iterator[pa.RecordBatch]:
        """The results of the partition's rows, in their order."""
        import pyarrow as pa

        began_at = time.monotonic()
        first = next((batch for batch in batches if batch.num_rows), None)
        if first is None:
            return  # nothing to ask anybody for
        schema = pa.ipc.read_schema(pa.py_buffer(self.schema))
        rows = 0
        with self._exchange(partition, attempt) as exchange:
            exchange.start(first, batches)
            for batch in exchange.results(schema):
                rows += batch.num_rows
                yield batch
        seconds = max(time.monotonic() - began_at, 1e-6)
        print(
            f"tflease: inference of partition {partition} by {exchange.member}: {rows:,} rows in "
            f"{seconds:.2f} s, {rows / seconds:,.0f} rows/s",
            file=sys.stderr,
        )

    def _exchange(self, partition: int, attempt: int) -> _Exchange:
        """With the first member that is there."""
        deadline = time.monotonic() + self.patience
        while True:
            endpoint = choose(self.endpoints, boot_id(), partition, attempt)
            try:
                return _Exchange(self, endpoint)
            except InferenceFailed:
                if time.monotonic() >= deadline:
                    raise
            attempt += 1
            time.sleep(_RETRY_INTERVAL)


def choose(
    endpoints: tuple[FeedEndpoint, ...], boot: str, partition: int, attempt: int
) -> FeedEndpoint:
    """The member that answers a partition: one on this host if there is any. A task that is tried
    again asks another one."""
    here = [endpoint for endpoint in endpoints if boot and endpoint.boot_id == boot]
    among = here or list(endpoints)
    first = among[partition % len(among)]
    return endpoints[(endpoints.index(first) + attempt) % len(endpoints)]


class _Exchange:
    """The two connections of one stream, and the thread that sends."""

    def __init__(self, task: InferenceTask, endpoint: FeedEndpoint) -> None:
        from executor_agent.feed.stream import Waker
        from executor_agent.feed.wire import FeedUnreachable, dial

        self.member = endpoint.member
        self._timeout = task.timeout
        self._sent = 0  # rows; written by the sender only
        self._is_all_sent = False
        self._sender_error: BaseException | None = None
        self._state = ""  # what the member said last
        hello = {"feed": task.feed, "stream": secrets.token_hex(16)}

        def connect(kind: str) -> Connection:
            said = {"kind": kind, **hello}
            try:
                return dial(endpoint, task.key, said, timeout=_DIAL_TIMEOUT, boot_id=boot_id())
            except FeedUnreachable as error:
                raise InferenceFailed(
                    f"{error}: if its main_fun has ended, cluster.wait() says how"
                ) from None

        self._results = connect("results")
        try:
            self._rows = connect("infer")
        except BaseException:
            self._results.close()
            raise
        self._waker = Waker()  # of the thread that takes results
        self._thread: threading.Thread | None = None

    def __enter__(self) -> _Exchange:
        return self

    def __exit__(self, *_: object) -> None:
        """The sender is gone afterwards, unless Spark holds it: then the task has failed, and Spark
        ends this process."""
        self._rows.abort()
        if self._thread is not None:
            self._thread.join(_JOIN_TIMEOUT)
        if self._thread is None or not self._thread.is_alive():
            self._rows.close()
        self._results.close()
        self._waker.close()

    # -- the sender ------------------------------------------------------------------------

    def start(self, first: pa.RecordBatch, others: Iterator[pa.RecordBatch]) -> None:
        self._results.listen_to(self._waker)
        self._thread = threading.Thread(
            target=self._send, args=(first, others), name="tflease-feed-infer", daemon=True
        )
        self._thread.start()

    def _send(self, first: pa.RecordBatch, others: Iterator[pa.RecordBatch]) -> None:
        try:
            with self._rows.writer(first.schema) as writer:
                self._write(writer, first)
                for batch in others:
                    self._write(writer, batch)
            self._is_all_sent = True  # before the member can know it
            self._rows.send({"rows": self._sent})
        except OSError:
            pass  # the member has ended the connection, and says why on the other one
        except BaseException as error:  # Spark's: the rows could not be computed
            self._sender_error = error
            self._waker.set()

    def _write(self, writer: Any, batch: pa.RecordBatch) -> None:
        for part in sliced(batch):
            self._sent += part.num_rows  # first: results may come before the call returns
            writer.write_batch(part)

    # -- the task's own thread -------------------------------------------------------------

    def results(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """All of them, once each. Raises InferenceFailed."""
        from executor_agent.feed.results import cast

        received = 0
        while (said := self._next(received)).get("say") != "end":
            batch = self._read(said)
            received += batch.num_rows
            if received > self._sent:
                break
            yield cast(batch, schema)
        if received != self._sent or not self._is_all_sent:
            raise InferenceFailed(
                f"{self.member} gave {received:,} results for {self._sent:,} rows"
            )

    def _next(self, received: int) -> Message:
        """What the member says that is no mere state."""
        from executor_agent.feed.stream import Interrupted

        deadline = time.monotonic() + self._timeout
        while True:
            try:
                said = self._results.receive(max(0.0, deadline - time.monotonic()))
            except Interrupted:
                assert self._sender_error is not None
                raise self._sender_error from None
            except TimeoutError:
                if received < self._sent:
                    raise self._stalled(received) from None
                deadline = time.monotonic() + self._timeout  # it is Spark that takes its time
                continue
            except OSError as error:
                raise self._gone(received, str(error)) from None
            if said is None:
                raise self._gone(received, "it has ended the connection")
            if said.get("say") == "error":
                raise InferenceFailed(str(said.get("text")))
            if said.get("say") != "state":
                return said
            self._state = str(said.get("text"))

    def _read(self, said: Message) -> pa.RecordBatch:
        """The Arrow stream that follows."""
        import pyarrow as pa

        from executor_agent.feed.stream import Interrupted

        try:
            table = self._results.reader().read_all()
        except Interrupted:
            assert self._sender_error is not None
            raise self._sender_error from None
        except (OSError, pa.ArrowInvalid) as error:
            raise self._gone(0, str(error)) from None
        if table.num_rows != said.get("rows"):
            raise self._gone(table.num_rows, "its results end in the middle")
        [batch] = table.combine_chunks().to_batches()
        return batch

    def _gone(self, received: int, why: str) -> InferenceFailed:
        return InferenceFailed(
            f"{self.member} is gone: {why}. {received:,} results had come for {self._sent:,} rows;"
            " cluster.wait() says what has happened to it"
        )

    def _stalled(self, received: int) -> InferenceFailed:
        state = f" ({self._state})" if self._state else ""
        return InferenceFailed(
            f"{self.member} gave no result for {self._timeout:g} s{state}: {received:,} results "
            f"had come for {self._sent:,} rows. main_fun must answer each batch of "
            "ctx.inference_batches(); give a larger timeout if one takes that long"
        )


def sliced(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """In parts of about 4 MiB; a larger row goes alone."""
    rows = batch.num_rows
    if not rows:
        return
    step = max(1, rows * _SLICE_BYTES // max(1, batch.nbytes))
    for start in range(0, rows, step):
        yield batch.slice(start, step)
