"""A feed in a gang that was restarted: what it tells of how far it is, and how the next begins."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from executor_agent.feed.data_feed import DataFeed, numpy_batches
from executor_agent.feed.inbox import Feed
from executor_agent.feed.train import Train
from tests.feed.feed_scene import Scene, a_scene, batch_of, eventually, give, read, read_all, values
from tests.feed.test_inbox import never, put

READ = ("finished", "epoch_read", "used")


class Stop:
    """A member that is told to stop."""

    is_told = False

    def __call__(self) -> bool:
        return self.is_told


@pytest.fixture
def scene() -> Iterator[Scene]:
    with a_scene() as made:
        yield made


@pytest.fixture
def feed() -> Feed:
    feed = Feed("input")
    feed.open_train(1, None)
    feed.open(None, False)
    return feed


def train_of(feed: Feed, stop: Stop | None = None) -> Train:
    train = feed.wait_for_train(stop or never)
    assert train is not None
    return train


def told(feed: Feed) -> tuple[float, ...]:
    counted = feed.counters()
    return tuple(counted[name] for name in READ)


def test_rows_are_used_when_the_reader_asks_for_more(feed: Feed) -> None:
    put(feed, 0, 4)
    put(feed, 4, 3)
    assert told(feed) == (0, 1, 0)
    epochs = train_of(feed).epoch_readers()
    pieces = next(epochs).chunks()
    assert values([next(pieces)]) == [0, 1, 2, 3]
    assert told(feed) == (0, 1, 0)
    next(pieces)
    assert told(feed) == (0, 1, 4)
    feed.close_epoch(1, 1, None)
    assert list(pieces) == []
    assert told(feed) == (0, 1, 7)
    put(feed, 0, 2, epoch=2)
    next(epochs)
    assert told(feed) == (1, 2, 0)


def test_rows_of_a_batch_that_is_not_full_are_not_used(feed: Feed) -> None:
    """They wait for the rest of it, and nobody has seen them."""
    feed.open(3, False)
    put(feed, 0, 4)
    put(feed, 4, 1)
    batches = numpy_batches(
        feed, 3, equal_steps=False, spec=None, drop_remainder=False, stopping=never
    )
    assert next(batches)["x"].tolist() == [0, 1, 2]
    put(feed, 5, 1)
    assert next(batches)["x"].tolist() == [3, 4, 5]
    assert told(feed) == (0, 1, 3)
    feed.close_epoch(1, 1, None)
    feed.end_train(1, "")
    assert list(batches) == []
    assert told(feed)[0] == 1


def test_rows_that_a_data_feed_has_not_handed_on_are_not_used() -> None:
    feed = Feed("input")
    feed.open_train(1, None)
    for start in range(5):
        put(feed, start, 1)
    found = DataFeed(feed, stopping=never)
    assert len(found.next_batch(3)) == 3
    assert told(feed) == (0, 1, 0)
    put(feed, 5, 1)
    assert len(found.next_batch(3)) == 3
    assert told(feed) == (0, 1, 3)


def test_an_epoch_that_is_broken_off_by_a_stop_is_not_finished(feed: Feed) -> None:
    """The driver would take its rows for delivered."""
    stop = Stop()
    put(feed, 0, 4)
    put(feed, 4, 3)
    put(feed, 0, 5, epoch=2)
    feed.close_epoch(1, 1, None)
    epochs = train_of(feed, stop).epoch_readers()
    pieces = next(epochs).chunks()
    next(pieces)
    stop.is_told = True
    assert list(pieces) == []
    assert [each.number for each in epochs] == [2]  # which it opens and reads nothing of
    assert told(feed) == (0, 1, 4)


def test_an_epoch_that_was_read_to_its_end_is_finished_whatever_follows(feed: Feed) -> None:
    stop = Stop()
    put(feed, 0, 4)
    feed.close_epoch(1, 1, None)
    epochs = train_of(feed, stop).epoch_readers()
    assert values(list(next(epochs).chunks())) == [0, 1, 2, 3]
    stop.is_told = True
    assert list(epochs) == []
    assert told(feed)[0] == 1


def test_an_epoch_that_ends_with_its_train_is_not_finished(feed: Feed) -> None:
    """Rank 0 fails, and its keeper ends the train for all: more rows were to come."""
    put(feed, 0, 4)
    epochs = train_of(feed).epoch_readers()
    pieces = next(epochs).chunks()
    next(pieces)
    feed.end_train(1, "main_fun has ended")
    assert list(pieces) == []
    assert list(epochs) == []
    assert told(feed) == (0, 1, 4)


def test_an_epoch_that_its_reader_leaves_early_is_finished(feed: Feed) -> None:
    """It is its own wish that the rest is for nobody."""
    put(feed, 0, 4)
    put(feed, 0, 4, epoch=2)
    epochs = train_of(feed).epoch_readers()
    next(epochs)
    next(epochs)
    assert told(feed) == (1, 2, 0)


def test_a_program_comes_to_a_later_train_in_its_turn() -> None:
    """The second dataset of a program is the second one again, and goes on in the middle."""
    feed = Feed("input")
    feed.open_train(5, 3, first=2, earlier=1)
    assert read_all(feed, 2, True) == []
    assert feed.first_epoch(never) == 2
    put(feed, 0, 4, train=5, epoch=2)
    feed.close_epoch(5, 2, None)
    feed.end_train(5, "")
    assert read_all(feed, None, False) == [[0, 1, 2, 3]]


def test_trains_before_are_of_another_gang_s_time_only() -> None:
    """The gang that has read them has them behind itself."""
    feed = Feed("input")
    feed.open_train(1, 1)
    feed.end_train(1, "")
    assert read_all(feed, None, False) == []
    feed.open_train(2, 1, earlier=1)
    assert [train.number for train in feed._trains] == [2]


def test_who_is_told_to_stop_need_not_know_the_first_epoch() -> None:
    stop = Stop()
    stop.is_told = True
    assert Feed("input").first_epoch(stop) == 1


def test_a_finished_feed_is_over_for_those_that_come_later(scene: Scene) -> None:
    """They come to the end of their programs, with nothing to read."""
    workers = scene.workers(2)
    readers = [read(worker, 4, True) for worker in workers]
    endpoints = [each.to_json() for each in scene.endpoints()]
    more = {"epochs": 0, "first": 1, "earlier": 1, "over": True}
    assert scene.control("open", train=3, workers=endpoints, **more)["ok"]
    assert [each.result() for each in readers] == [[], []]  # the train before
    assert [read(worker, 4, True).result() for worker in workers] == [[], []]


def test_a_train_goes_on_with_a_later_epoch(scene: Scene) -> None:
    workers = scene.workers(2)
    readers = [read(worker, None, False) for worker in workers]
    endpoints = [each.to_json() for each in scene.endpoints()]
    more = {"epochs": 3, "first": 3, "earlier": 0}
    assert scene.control("open", train=2, workers=endpoints, **more)["ok"]
    assert eventually(lambda: workers[0].feeds["input"].first_epoch(never)) == 3
    feeder = scene.feeder(workers[0], train=2, epoch=3)
    feeder.feed(batch_of(1000, 4), 0)
    feeder.end()
    assert scene.control("close", train=2, epoch=3)["rows"] == {"worker:0": 4, "worker:1": 0}
    assert [each.result() for each in readers] == [[[1000, 1001, 1002, 1003]], [[]]]


def test_a_feed_tells_whether_its_reader_waits(scene: Scene) -> None:
    """A member that waits for rows is not the one that is late."""
    [worker] = scene.workers(1)
    assert not worker.feeds.is_waiting
    reader = read(worker, None, False)
    eventually(lambda: worker.feeds.is_waiting)
    scene.open()
    give(scene, worker, 3, partition=0)
    assert scene.control("close", epoch=1)["ok"]
    reader.result()
    assert not worker.feeds.is_waiting
