"""Batches for those who have no tf.data: NumPy arrays, and TensorFlowOnSpark's rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from executor_agent.feed.columns import FeedMismatch, Ragged
from executor_agent.feed.data_feed import DataFeed, numpy_batches
from executor_agent.feed.inbox import Feed
from executor_agent.feed.results import ResultsMismatch
from tests.feed.fake_feed import FakeFeed, never, numbers


def batches(feed: FakeFeed, size: int, **options: Any) -> list[dict[str, Any]]:
    given = {"equal_steps": False, "spec": None, "drop_remainder": False, "stopping": never}
    return list(numpy_batches(feed, size, **given | options))  # type: ignore[arg-type]


def lists(found: Sequence[dict[str, Any]], name: str = "n") -> list[Any]:
    return [batch[name].tolist() for batch in found]


# --- NumPy ----------------------------------------------------------------------------------------


def test_batches_cross_pieces_and_never_epochs() -> None:
    feed = FakeFeed([numbers(1, 2, 3), numbers(4), numbers(5, 6, 7)], [numbers(8, 9)])
    assert lists(batches(feed, 2)) == [[1, 2], [3, 4], [5, 6], [7], [8, 9]]
    assert feed.opened == [(2, False)]
    assert not feed.is_read


def test_a_piece_may_hold_many_batches() -> None:
    assert lists(batches(FakeFeed([numbers(*range(7))]), 3)) == [[0, 1, 2], [3, 4, 5], [6]]


def test_remainders_are_dropped_when_asked_and_with_equal_steps() -> None:
    epochs = ([numbers(1, 2, 3)], [numbers(4, 5)])
    assert lists(batches(FakeFeed(*epochs), 2, drop_remainder=True)) == [[1, 2], [4, 5]]
    feed = FakeFeed(*epochs)
    assert lists(batches(feed, 2, equal_steps=True)) == [[1, 2], [4, 5]]
    assert feed.opened == [(2, True)]


def test_no_rows_are_no_batches() -> None:
    empty = numbers()
    assert batches(FakeFeed([], [empty], schema=empty.schema), 2) == []
    assert batches(FakeFeed([]), 2) == []
    assert batches(FakeFeed([numbers(1)], stopped=True), 2) == []


def test_arrays_are_the_consumer_s_own() -> None:
    piece = numbers(1, 2, 3, 4)
    first, second = batches(FakeFeed([piece]), 2)
    first["n"][:] = 0
    assert second["n"].tolist() == [3, 4]
    assert piece.column(0).to_pylist() == [1, 2, 3, 4]


def test_ragged_rows_are_joined_at_all_levels() -> None:
    rows = [[[1], [2, 3]], [], [[], [4]], [[5]]]
    pieces = [pa.record_batch({"r": pa.array(part, pa.list_(pa.list_(pa.int64())))})
              for part in (rows[:1], rows[1:3], rows[3:])]  # fmt: skip
    first, second = batches(FakeFeed(pieces), 3)
    assert isinstance(first["r"], Ragged)
    assert [[part.tolist() for part in (row[i] for i in range(len(row)))]
            for row in (first["r"][i] for i in range(3))] == rows[:3]  # fmt: skip
    assert second["r"].flat_values.tolist() == [5]
    assert [splits.tolist() for splits in second["r"].nested_row_splits] == [[0, 1], [0, 1]]
    with pytest.raises(IndexError):
        second["r"][1]


def test_a_spec_chooses_columns_and_types_and_fills_nulls() -> None:
    piece = pa.record_batch({"a": pa.array([1, None, 3]), "b": pa.array(["x", "y", "z"])})
    [batch] = batches(FakeFeed([piece]), 3, spec={"a": ("float32", ())}, defaults={"a": -1})
    assert list(batch) == ["a"]
    assert batch["a"].dtype == np.float32
    assert batch["a"].tolist() == [1, -1, 3]


def test_a_mismatch_is_an_error_before_the_first_row() -> None:
    with pytest.raises(FeedMismatch, match="column 'm'"):
        batches(FakeFeed([numbers(1)]), 1, spec={"m": ("float32", ())})
    untouched = FakeFeed([numbers(1)])
    with pytest.raises(FeedMismatch, match="column 'n'"):
        numpy_batches(untouched, 1, spec={"n": 1}, equal_steps=False, drop_remainder=False,  # type: ignore[arg-type]
                      stopping=never)  # fmt: skip
    with pytest.raises(ValueError, match="batch_size is 0"):
        batches(untouched, 0)
    assert untouched.opened == []


def test_columns_renamed_between_epochs_are_an_error_that_names_them() -> None:
    feed = FakeFeed([numbers(1, 2)], [pa.record_batch({"m": pa.array([3])})])
    with pytest.raises(FeedMismatch, match="column 'n': no such column; there are: 'm'"):
        batches(feed, 2)
    assert not feed.is_read


def test_a_consumer_that_leaves_gives_the_feed_back() -> None:
    feed = FakeFeed([numbers(1, 2), numbers(3, 4)])
    reading = numpy_batches(feed, 2, spec=None, equal_steps=False, drop_remainder=False,  # type: ignore[arg-type]
                            stopping=never)  # fmt: skip
    assert next(reading)["n"].tolist() == [1, 2]
    assert feed.is_read
    reading.close()  # type: ignore[attr-defined]
    assert not feed.is_read


def real_feed(*epochs: Sequence[pa.RecordBatch], steps: int | None = None) -> Feed:
    """All rows are here already; of each epoch, `steps` are to be taken."""
    feed = Feed("input")
    feed.open_train(1, len(epochs))
    for number, batches in enumerate(epochs):
        feed.receive(1, number, batches)
        feed.close_epoch(1, number, steps)
    feed.end_train(1, "")
    return feed


def test_a_real_feed_is_read_to_its_end() -> None:
    found = batches(real_feed([numbers(1, 2, 3), numbers(4, 5)], [], [numbers(6)]), 2)
    assert lists(found) == [[1, 2], [3, 4], [5], [6]]


def test_a_real_feed_gives_the_steps_that_are_released_and_no_more() -> None:
    feed = Feed("input")
    reading = numpy_batches(feed, 2, spec=None, equal_steps=True, drop_remainder=False,
                            stopping=never)  # fmt: skip
    feed.open_train(1, 1)
    feed.receive(1, 0, [numbers(1, 2, 3), numbers(4, 5, 6, 7)])
    feed.release(1, 0, 1)
    assert next(reading)["n"].tolist() == [1, 2]
    feed.close_epoch(1, 0, 3)
    feed.end_train(1, "")
    assert lists(list(reading)) == [[3, 4], [5, 6]]


def test_a_real_feed_ends_for_who_terminates_it() -> None:
    feed = real_feed([numbers(1, 2, 3)])
    rows = data_feed(feed)
    assert rows.next_batch(2) == [(1,), (2,)]
    rows.terminate()
    assert rows.should_stop()
    assert rows.next_batch(2) == []


# --- DataFeed -------------------------------------------------------------------------------------


def data_feed(feed: Any, stopping: Callable[[], bool] = never, **options: Any) -> DataFeed:
    return DataFeed(feed, stopping=stopping, **options)


def test_rows_are_tuples_and_cross_epochs() -> None:
    piece = pa.record_batch({"a": pa.array([1, 2, 3]), "b": pa.array(["x", None, "z"])})
    feed = data_feed(FakeFeed([piece], [piece.slice(0, 1)]))
    assert not feed.should_stop()
    assert feed.next_batch(2) == [(1, "x"), (2, None)]
    assert feed.next_batch(2) == [(3, "z"), (1, "x")]
    assert not feed.should_stop()  # nobody knows yet
    assert feed.next_batch(2) == []
    assert feed.should_stop()
    assert feed.next_batch(2) == []


def test_the_last_batch_may_be_short() -> None:
    feed = data_feed(FakeFeed([pa.record_batch({"value": pa.array([1, 2, 3])})]))
    assert feed.next_batch(2) == [1, 2]  # an RDD of single values
    assert feed.next_batch(2) == [3]
    assert feed.should_stop()


def test_a_mapping_gives_lists_by_tensor() -> None:
    piece = pa.record_batch({"a": pa.array([1, 2]), "b": pa.array([[1.0], [2.0]])})
    feed = data_feed(FakeFeed([piece]), input_mapping={"a": "label", "b": "image"})
    assert feed.next_batch(5) == {"label": [1, 2], "image": [[1.0], [2.0]]}
    assert feed.next_batch(5) == {"label": [], "image": []}


def test_a_mapping_of_no_column_is_an_error() -> None:
    feed = data_feed(FakeFeed([numbers(1)]), input_mapping={"m": "x"})
    with pytest.raises(FeedMismatch, match="'m' of input_mapping: no such column; there are: 'n'"):
        feed.next_batch(1)


def test_vectors_are_lists_of_numbers() -> None:
    kind = pa.struct([("type", pa.int8()), ("size", pa.int32()), ("indices", pa.list_(pa.int32())),
                      ("values", pa.list_(pa.float64()))])  # fmt: skip
    rows = [
        {"type": 1, "size": None, "indices": None, "values": [1.0, 2.0]},
        {"type": 0, "size": 3, "indices": [2], "values": [5.0]},
        None,
    ]
    feed = data_feed(FakeFeed([pa.record_batch({"value": pa.array(rows, kind)})]))
    assert feed.next_batch(3) == [[1.0, 2.0], [0.0, 0.0, 5.0], None]


def test_terminate_ends_the_feed() -> None:
    fed = FakeFeed([numbers(1, 2, 3)])
    feed = data_feed(fed)
    feed.next_batch(1)
    feed.terminate()
    assert fed.terminated is not None
    assert feed.should_stop()
    assert feed.next_batch(1) == []


def test_a_member_that_is_told_to_stop_should_stop() -> None:
    feed = data_feed(FakeFeed([numbers(1)]), lambda: True)
    assert feed.should_stop()
    assert feed.next_batch(1) == []


def test_equal_steps_need_one_batch_size() -> None:
    fed = FakeFeed([numbers(1, 2, 3, 4)])
    feed = data_feed(fed, equal_steps=True)
    assert feed.next_batch(2) == [(1,), (2,)]
    assert fed.opened == [(2, True)]
    with pytest.raises(ValueError, match=r"next_batch\(3\) after next_batch\(2\)"):
        feed.next_batch(3)
    with pytest.raises(ValueError, match="batch_size is 0"):
        feed.next_batch(0)


class FakeInferenceBatch:
    def __init__(self, records: pa.RecordBatch) -> None:
        self.records = records
        self.answer: Any = None

    def send(self, answer: Any) -> None:
        if len(answer) != self.records.num_rows:
            raise ResultsMismatch(f"{len(answer)} results for {self.records.num_rows} rows")
        self.answer = answer


class FakeInferenceFeed:
    def __init__(self, *batches: FakeInferenceBatch) -> None:
        self._batches = list(batches)

    def take(self, batch_size: int, stopping: Callable[[], bool]) -> FakeInferenceBatch | None:
        return None if stopping() or not self._batches else self._batches.pop(0)


def test_results_go_back_with_their_rows() -> None:
    first, second = FakeInferenceBatch(numbers(1, 2)), FakeInferenceBatch(numbers(3))
    feed = data_feed(FakeInferenceFeed(first, second), train_mode=False)
    while not feed.should_stop():
        rows = feed.next_batch(2)
        if rows:
            feed.batch_results([10 * n for (n,) in rows])
    assert first.answer == [10, 20]
    assert second.answer == [30]


def test_results_for_no_batch_are_an_error() -> None:
    with pytest.raises(RuntimeError, match="train_mode=False"):
        data_feed(FakeFeed([])).batch_results([1])
    with pytest.raises(RuntimeError, match="next_batch first"):
        data_feed(FakeInferenceFeed(), train_mode=False).batch_results([1])
    feed = data_feed(FakeInferenceFeed(FakeInferenceBatch(numbers(1))), train_mode=False)
    feed.next_batch(1)
    with pytest.raises(ResultsMismatch, match="2 results for 1 rows"):
        feed.batch_results([1, 2])
