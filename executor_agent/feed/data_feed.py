"""A feed without TensorFlow: batches of NumPy arrays, and TensorFlowOnSpark's `DataFeed`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from executor_agent.feed.column_types import is_vector
from executor_agent.feed.columns import Converter, make_specs, specs_for
from executor_agent.feed.ragged import Values, join, take

if TYPE_CHECKING:
    import pyarrow as pa

    from executor_agent.feed.inbox import EpochReader, Feed, Train
    from executor_agent.feed.inference import InferenceBatch, InferenceFeed


def numpy_batches(
    feed: Feed,
    batch_size: int,
    *,
    equal_steps: bool,
    spec: Mapping[str, Any] | None,
    drop_remainder: bool,
    stopping: Callable[[], bool],
    defaults: Mapping[str, Any] | None = None,
) -> Iterator[dict[str, Values]]:
    """The next train of the feed, all of its epochs. Each batch has `batch_size` rows in arrays of
    its own, which may be written to; the last one of an epoch may have fewer."""
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: it must be at least 1")
    if spec is not None:
        make_specs(spec, defaults)  # what is wrong is an error before the first row
    feed.open(batch_size, equal_steps)

    def batches() -> Iterator[dict[str, Values]]:
        train = feed.wait_for_train(stopping)
        schema = train.wait_for_schema() if train is not None else None
        if train is None or schema is None:
            return
        convert = Converter(specs_for(schema, spec, defaults))
        for reader in train.epoch_readers():
            yield from _of_one_epoch(reader, convert, batch_size, drop_remainder or equal_steps)

    return batches()


def _of_one_epoch(
    reader: EpochReader, convert: Converter, size: int, drop_remainder: bool
) -> Iterator[dict[str, Values]]:
    waiting: list[dict[str, Values]] = []  # fewer rows than a batch, together
    rows = 0
    for chunk in reader.chunks():
        columns = convert(chunk)
        start = 0
        while rows + chunk.num_rows - start >= size:
            stop = start + size - rows
            yield _joined([*waiting, _rows(columns, start, stop)])
            waiting, rows, start = [], 0, stop
        if start < chunk.num_rows:
            waiting.append(_rows(columns, start, chunk.num_rows))
            rows += chunk.num_rows - start
    if waiting and not drop_remainder:
        yield _joined(waiting)


def _rows(columns: Mapping[str, Values], start: int, stop: int) -> dict[str, Values]:
    return {name: take(values, start, stop) for name, values in columns.items()}


def _joined(pieces: Sequence[Mapping[str, Values]]) -> dict[str, Values]:
    return {name: join([piece[name] for piece in pieces]) for name in pieces[0]}


class DataFeed:
    """Rows one by one, as TensorFlowOnSpark's class of this name gives them.

    A row is a tuple of its columns' values, or the value itself where there is but one column,
    named "value" (an RDD of single values). With `input_mapping` (column to tensor name) a batch
    is a dict of lists. Epochs follow each other without a break. Slow by its nature: every value
    becomes a Python object.

    Args:
        feed: of `cluster.train`, or of `cluster.inference` where `train_mode` is False.
        qname_out: unused; results go back to where the rows came from.
        equal_steps: as in `ctx.dataset`; then `next_batch` is always asked for as many rows.
    """

    def __init__(
        self,
        feed: Feed | InferenceFeed,
        train_mode: bool = True,
        qname_out: str = "output",
        input_mapping: Mapping[str, str] | None = None,
        *,
        stopping: Callable[[], bool],
        equal_steps: bool = False,
    ) -> None:
        self._feed: Any = feed
        self._train_mode = train_mode
        self._mapping = dict(input_mapping) if input_mapping else None
        self._stopping = stopping
        self._equal_steps = equal_steps
        self._chunks: Generator[pa.RecordBatch] | None = None
        self._waiting: deque[pa.RecordBatch] = deque()
        self._batch_size = 0
        self._inference: InferenceBatch | None = None
        self._train: Train | None = None
        self._is_done = False

    def next_batch(self, batch_size: int) -> list[Any] | dict[str, list[Any]]:
        """The next rows; waits for them. Fewer than `batch_size`, maybe none: the feed has ended,
        and `should_stop()` is true. An inference feed gives what there is, at least one row.

        Raises:
            FeedMismatch: a column of `input_mapping` does not exist.
            ResultsMismatch: the last batch of an inference feed was not answered by
                `batch_results`.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}: it must be at least 1")
        pieces = self._trained(batch_size) if self._train_mode else self._inferred(batch_size)
        if self._mapping is None:
            return [row for piece in pieces for row in _tuples(piece)]
        found: dict[str, list[Any]] = {tensor: [] for tensor in self._mapping.values()}
        for piece in pieces:
            for column, tensor in self._mapping.items():
                found[tensor] += _objects(piece, column)
        return found

    def should_stop(self) -> bool:
        """Whether no more rows come: the train has ended, `terminate` was called, or the member is
        told to stop."""
        return self._is_done or self._stopping()

    def batch_results(self, results: Sequence[Any]) -> None:
        """Answer the last batch: as many results as it had rows.

        Raises:
            ResultsMismatch: there are more or fewer; the Spark task fails with the same text.
            RuntimeError: this is no feed of `cluster.inference`, or nothing waits for an answer.
        """
        if self._train_mode:
            raise RuntimeError(
                "results go back for cluster.inference only: ctx.get_data_feed(train_mode=False)"
            )
        batch, self._inference = self._inference, None
        if batch is None:
            raise RuntimeError("no batch waits for results: call next_batch first")
        batch.send(results)

    def terminate(self) -> None:
        """No more rows: the Spark job of this `cluster.train` ends early, without an error."""
        self._is_done = True
        self._waiting.clear()
        if self._train_mode:
            self._feed.terminate()
            if self._chunks is not None:
                with suppress(ValueError):  # another thread is reading: that one sees the end
                    self._chunks.close()  # the feed has room for another reader
        elif self._inference is not None:
            self._inference.refuse("main_fun has called terminate()")
            self._inference = None

    def _trained(self, batch_size: int) -> list[pa.RecordBatch]:
        if self._is_done:
            return []
        if self._chunks is None:
            self._batch_size = batch_size
            self._feed.open(batch_size if self._equal_steps else None, self._equal_steps)
            self._chunks = self._all_chunks()
        if self._equal_steps and batch_size != self._batch_size:
            raise ValueError(
                f"next_batch({batch_size}) after next_batch({self._batch_size}): with equal_steps "
                "each step has as many rows"
            )
        pieces: list[pa.RecordBatch] = []
        missing = batch_size
        while missing:
            if not self._waiting and not self._receive(batch_size - missing):
                break
            piece = self._waiting.popleft()
            if piece.num_rows > missing:
                self._waiting.append(piece.slice(missing))
                piece = piece.slice(0, missing)
            missing -= piece.num_rows
            pieces.append(piece)
        return pieces

    def _receive(self, held: int) -> bool:
        """False: the train has ended. ``held``: rows that nobody has got yet."""
        assert self._chunks is not None
        if self._train is not None:
            self._train.held = held
        for chunk in self._chunks:
            self._waiting.append(chunk)
            return True
        self._is_done = True
        return False

    def _all_chunks(self) -> Generator[pa.RecordBatch]:
        self._train = self._feed.wait_for_train(self._stopping)
        for reader in self._train.epoch_readers() if self._train is not None else ():
            yield from reader.chunks()

    def _inferred(self, batch_size: int) -> list[pa.RecordBatch]:
        if self._is_done:
            return []
        self._inference = self._feed.take(batch_size, self._stopping)
        if self._inference is None:
            self._is_done = True
            return []
        return [self._inference.records]


def _tuples(batch: pa.RecordBatch) -> list[Any]:
    columns = [_values(array) for array in batch.columns]
    if batch.schema.names == ["value"]:
        return columns[0]
    return list(zip(*columns, strict=True))


def _objects(batch: pa.RecordBatch, column: str) -> list[Any]:
    if batch.schema.get_field_index(column) < 0:
        from executor_agent.feed.columns import FeedMismatch

        names = ", ".join(map(repr, batch.schema.names))
        raise FeedMismatch(
            [f"column {column!r} of input_mapping: no such column; there are: {names}"]
        )
    return _values(batch.column(column))


def _values(array: pa.Array) -> list[Any]:
    values: list[Any] = array.to_pylist()
    return [_vector(value) for value in values] if is_vector(array.type) else values


def _vector(value: Mapping[str, Any] | None) -> list[float] | None:
    """Spark ML's vector as the list of all of its numbers."""
    if value is None:
        return None
    if value["indices"] is None:
        return list(value["values"])
    numbers = [0.0] * value["size"]
    for index, number in zip(value["indices"], value["values"], strict=True):
        numbers[index] = number
    return numbers
