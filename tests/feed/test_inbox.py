"""A feed without sockets: what the consumer gets, and when."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from executor_agent.feed import patience
from executor_agent.feed.epoch_queue import EpochQueue
from executor_agent.feed.inbox import Feed
from executor_agent.feed.sender import Sender
from executor_agent.feed.table import FeedTable
from executor_agent.feed.train import Train
from tests.feed.feed_scene import SCHEMA, Background, batch_of, eventually, read_all, values


def never() -> bool:
    return False


def hello(**changes: Any) -> dict[str, Any]:
    return {"train": 1, "epoch": 1, "partition": 0, "attempt": 1, "deterministic": True, **changes}


def sender_of(feed: Feed, **changes: Any) -> Sender:
    begun = feed.begin(hello(**changes), SCHEMA)
    assert isinstance(begun, Sender)
    return begun


def put(feed: Feed, start: int, rows: int, **changes: Any) -> None:
    sender = sender_of(feed, **changes)
    assert feed.put(sender, batch_of(start, rows), start) is not None
    feed.leave(sender)


@pytest.fixture
def feed() -> Feed:
    """Its first train is open."""
    feed = Feed("input")
    feed.open_train(1, None)
    return feed


def reading(feed: Feed) -> Train:
    train = feed.wait_for_train(never)
    assert train is not None
    return train


# --- one epoch's rows -----------------------------------------------------------------------------


@pytest.fixture
def queue() -> EpochQueue:
    """Ten rows in three batches."""
    queue = EpochQueue(1)
    for start, rows in ((0, 4), (4, 1), (5, 5)):
        queue.put(batch_of(start, rows))
    return queue


def taken(queue: EpochQueue, limit: int | None = None) -> list[int]:
    pieces: list[pa.RecordBatch] = []
    while (piece := queue.take(limit)) is not None:
        pieces.append(piece)
    return values(pieces)


def test_a_queue_gives_its_rows_in_order_up_to_a_limit(queue: EpochQueue) -> None:
    assert taken(queue, 0) == []
    assert taken(queue, 2) == [0, 1]
    assert taken(queue, 6) == [2, 3, 4, 5]
    assert queue.bytes == 4 * 8
    assert taken(queue) == [6, 7, 8, 9]
    assert (queue.rows, queue.read, queue.bytes) == (10, 10, 0)


def test_a_queue_gives_away_its_youngest_rows_but_none_that_is_kept(queue: EpochQueue) -> None:
    assert values(queue.give(7, keep=0)) == [3, 4, 5, 6, 7, 8, 9]
    assert values(queue.give(7, keep=2)) == [2]
    assert taken(queue) == [0, 1]
    assert queue.bytes == 0


def test_a_queue_gives_nothing_away_that_was_read(queue: EpochQueue) -> None:
    taken(queue, 6)
    assert values(queue.give(100, keep=0)) == [6, 7, 8, 9]
    assert queue.give(100, keep=0) == []


def test_a_queue_that_is_closed_drops_what_is_for_nobody(queue: EpochQueue) -> None:
    queue.close(8)
    assert taken(queue) == list(range(8))
    assert queue.is_closed


def test_a_queue_that_nobody_reads_any_more_counts_and_drops(queue: EpochQueue) -> None:
    queue.is_left = True
    queue.put(batch_of(10, 3))
    queue.drop(None)
    assert taken(queue) == []
    assert (queue.rows, queue.bytes) == (13, 0)


def test_an_empty_batch_leaves_no_trace() -> None:
    queue = EpochQueue(1)
    queue.put(batch_of(0, 0))
    assert queue.take(None) is None


# --- the consumer ---------------------------------------------------------------------------------


def test_a_consumer_that_is_told_to_stop_gets_no_train() -> None:
    feed = Feed("input")
    assert feed.wait_for_train(lambda: True) is None


def test_a_consumer_that_is_told_to_stop_ends_in_the_middle_of_an_epoch(feed: Feed) -> None:
    stop = False
    put(feed, 0, 3)
    feed.open(None, False)
    train = feed.wait_for_train(lambda: stop)
    assert train is not None
    got = Background(lambda: [values(list(epoch.chunks())) for epoch in train.epoch_readers()])
    eventually(lambda: train.queues[1].read == 3)
    assert not got.is_done
    stop = True
    assert got.result() == [[0, 1, 2]]


def test_a_consumer_that_is_told_to_stop_leaves_the_rows_that_wait(feed: Feed) -> None:
    stop = False
    feed.open(None, False)
    put(feed, 0, 3)
    put(feed, 3, 3)
    train = feed.wait_for_train(lambda: stop)
    assert train is not None
    pieces = next(train.epoch_readers()).chunks()
    assert values([next(pieces)]) == [0, 1, 2]
    stop = True
    assert list(pieces) == []


def test_equal_steps_without_a_batch_size_are_refused() -> None:
    with pytest.raises(ValueError, match="batch_size"):
        Feed("input").open(None, True)


def test_rows_that_are_left_in_an_epoch_do_not_reach_the_next_one(feed: Feed) -> None:
    """`steps_per_epoch` may be smaller than what there is."""
    feed.open(None, False)
    put(feed, 0, 4)
    put(feed, 4, 4)
    epochs = reading(feed).epoch_readers()
    assert values([next(next(epochs).chunks())]) == [0, 1, 2, 3]
    put(feed, 0, 2, epoch=2)
    second = next(epochs)
    assert second.number == 2
    put(feed, 8, 2)  # of the first epoch, which nobody reads any more
    feed.close_epoch(1, 1, None)
    assert values([next(second.chunks())]) == [0, 1]
    assert feed.counters()["rows"] == 12


def test_a_train_that_a_reader_gave_up_goes_on_with_the_next_reader(feed: Feed) -> None:
    feed.open(None, False)
    put(feed, 0, 2)
    put(feed, 2, 2)
    first = reading(feed).epoch_readers()
    next(next(first).chunks())
    first.close()  # type: ignore[attr-defined]
    feed.close_epoch(1, 1, None)
    feed.end_train(1, "")
    assert read_all(feed, None, False) == [[2, 3]]


def test_terminate_after_the_last_row_does_not_stop_the_next_train(feed: Feed) -> None:
    feed.open(None, False)
    feed.end_train(1, "")
    assert list(reading(feed).epoch_readers()) == []
    feed.open_train(2, 1)
    feed.terminate()
    assert feed.counters()["stopped"] == 0
    put(feed, 0, 1, train=2)


def test_a_train_that_was_stopped_is_not_given_again(feed: Feed) -> None:
    feed.open(None, False)
    reading(feed)
    feed.terminate("enough")
    feed.open(None, False)
    feed.open_train(2, 1)
    assert reading(feed).number == 2


def test_a_cancelled_train_that_nobody_read_is_forgotten(feed: Feed) -> None:
    put(feed, 0, 5)
    feed.end_train(1, "cancelled")
    feed.open_train(2, 1)
    feed.open(None, False)
    assert reading(feed).number == 2


def test_one_opening_serves_for_several_trains(feed: Feed) -> None:
    """TensorFlowOnSpark's DataFeed reads whatever comes."""
    feed.open(7, True)
    feed.end_train(1, "")
    list(reading(feed).epoch_readers())
    feed.open_train(2, 1)
    assert feed.said(2).reads is None, "who will read it is not known yet"
    reading(feed)
    opening = feed.said(2).reads
    assert opening is not None
    assert (opening.batch_size, opening.equal) == (7, True)


def test_waiting_for_long_is_said_once(
    feed: Feed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(patience, "_SAY_AFTER", 0.0)
    monkeypatch.setattr(patience, "_LOOK_INTERVAL", 0.001)
    feed.open(None, False)
    got = Background(list, reading(feed).epoch_readers())
    said = eventually(lambda: capsys.readouterr().err)
    assert said == "feed 'input': still waiting for the next epoch of train 1\n"
    feed.end_train(1, "")
    assert got.result() == []
    assert capsys.readouterr().err == ""


# --- counters and ends ----------------------------------------------------------------------------


def test_counters_tell_how_far_the_latest_train_is(feed: Feed) -> None:
    feed.open(2, True)
    put(feed, 0, 5)
    put(feed, 0, 3, epoch=2)
    feed.release(1, 1, 2)
    epochs = reading(feed).epoch_readers()
    list_of = next(epochs).chunks()
    assert values([next(list_of)]) == [0, 1, 2, 3]
    counted = feed.counters()
    assert counted.pop("bytes") == 8 * 8
    read = {"finished": 0, "epoch_read": 1, "used": 0}
    assert counted == {"rows": 8, "epoch": 2, "steps": 2, "train": 1, "stopped": 0, **read}
    feed.close_epoch(1, 1, 2)
    next(epochs)
    feed.close_epoch(1, 2, 1)
    assert feed.counters()["steps"] == 2, "an epoch that was read still counts"


def test_counters_of_feeds_carry_their_names() -> None:
    table = FeedTable()
    assert table["input"] is table["input"]
    table["validation"].open_train(3, 1)
    assert table.counters()["validation/train"] == 3


def test_a_feed_that_is_named_after_the_end_is_closed() -> None:
    table = FeedTable()
    table.close("over")
    assert table["input"].begin(hello(), SCHEMA) == {"action": "stop", "reason": "over"}


def test_moved_rows_enter_whole_and_never_after_the_end(feed: Feed) -> None:
    feed.open(4, True)
    put(feed, 0, 3)
    assert feed.freeze(1, 1) == 3
    assert feed.begin(hello(attempt=2), SCHEMA) == {"action": "done"}
    assert feed.receive(1, 1, [batch_of(100, 5)]) == 5
    assert feed.receive(7, 1, [batch_of(100, 5)]) == 0
    feed.close_epoch(1, 1, 2)
    assert feed.receive(1, 1, [batch_of(100, 5)]) == 0
    feed.end_train(1, "")
    assert [values(list(epoch.chunks())) for epoch in reading(feed).epoch_readers()] == [
        [0, 1, 2, 100, 101, 102, 103, 104]
    ]


def test_only_rows_that_are_not_released_may_move(feed: Feed) -> None:
    feed.open(2, True)
    put(feed, 0, 7)
    feed.release(1, 1, 2)
    assert values(feed.give(1, 1, 100)) == [4, 5, 6]


def test_a_train_without_rows_is_over_once() -> None:
    """F4: whoever goes on to the next train must not get this one again."""
    feed = Feed("input")
    feed.open_train(1, 1)
    feed.end_train(1, "")
    train = feed.wait_for_train(lambda: False)
    assert train is not None
    assert train.wait_for_schema() is None
    feed.open_train(2, 1)
    following = feed.wait_for_train(lambda: False)
    assert following is not None
    assert following.number == 2
