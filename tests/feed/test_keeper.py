"""Several members in one process: equal steps, tails that move, trains that end, over sockets."""

from __future__ import annotations

import random

import pytest

from executor_agent.feed import inbox
from executor_agent.feed import train as train_module
from executor_agent.feed.sending import PartitionSender
from executor_agent.feed.train import FeedInUse, FeedLost
from executor_agent.linux import boot_id
from tests.feed.feed_scene import (
    DEADLINE,
    SCHEMA,
    Background,
    Scene,
    batch_of,
    eventually,
    give,
    read,
    values,
)


@pytest.mark.parametrize(
    "rows", [(25, 25), (50, 0), (0, 3), (3, 4), (0, 0), (61, 20, 7), (0, 100, 0)]
)
def test_all_workers_get_the_same_number_of_whole_steps(
    scene: Scene, rows: tuple[int, ...]
) -> None:
    """F4: whoever got too much by chance gives to the others at the end."""
    workers = scene.workers(len(rows))
    batch_sizes = [3, 4, 5][: len(rows)]
    scene.open(epochs=2)
    reading = [read(each, size, True) for each, size in zip(workers, batch_sizes, strict=True)]
    total = sum(rows)
    steps = total // sum(batch_sizes)
    for epoch in (1, 2):
        for number, (worker, count) in enumerate(zip(workers, rows, strict=True)):
            give(scene, worker, count, partition=number, epoch=epoch)
        closed = scene.control("close", epoch=epoch)
        assert closed["steps"] == steps
        assert closed["left_out"] == total - steps * sum(batch_sizes)
        assert sum(closed["rows"].values()) == total
    got = [each.result() for each in reading]
    for size, epochs in zip(batch_sizes, got, strict=True):
        assert [len(epoch) for epoch in epochs] == [steps * size] * 2
    for epoch in (0, 1):
        together = [row for epochs in got for row in epochs[epoch]]
        assert len(set(together)) == len(together), "no row twice"


def test_rows_are_released_before_the_epoch_is_over(scene: Scene) -> None:
    one, two = scene.workers(2)
    scene.open()
    for each in (one, two):
        each.feeds["input"].open(4, True)
    give(scene, one, 30, partition=0)
    train = one.feeds["input"].wait_for_train(lambda: False)
    assert train is not None
    give(scene, two, 9, partition=1)  # two steps of four
    chunks = next(train.epoch_readers()).chunks()
    got: list[int] = []
    while len(got) < 8:
        got += values([next(chunks)])
    assert got == list(range(8)), "as many steps as the worker with the fewest rows can take"


def test_without_equal_steps_every_row_is_delivered_where_it_came(scene: Scene) -> None:
    one, two = scene.workers(2)
    scene.open()
    reading = [read(one, 4, False), read(two, None, False)]
    give(scene, one, 11, partition=0)
    closed = scene.control("close", epoch=1)
    assert closed == {
        "ok": True,
        "steps": None,
        "rows": {"worker:0": 11, "worker:1": 0},
        "left_out": 0,
        "stopped": "",
    }
    assert [each.result() for each in reading] == [[list(range(11))], [[]]]


def test_a_feeder_that_has_no_more_rows_is_not_kept_waiting_for_room(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F4: one worker is full of rows that wait for a step of the other, for which no row is left.
    Only the epoch's end helps them, and that comes when all rows are acknowledged."""
    monkeypatch.setattr(inbox, "MAX_BYTES", 800)
    one, two = scene.workers(2)
    scene.open()
    reading = [read(each, 10, True) for each in (one, two)]
    feeder = scene.feeder(one)
    feeder.feed(batch_of(0, 100), 0)
    feeder.send(batch_of(100, 50), 100)
    feeder.send(batch_of(150, 50), 150)
    assert not feeder.connection.wait_readable(0.2)
    feeder.flush()
    assert [feeder.answer()["rows"], feeder.answer()["rows"]] == [150, 200]
    feeder.end()
    assert scene.control("close", epoch=1)["steps"] == 10
    assert [len(each.result()[0]) for each in reading] == [100, 100]


@pytest.mark.slow
def test_many_feeders_and_a_small_feed_still_come_to_equal_ends(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F4, with back-pressure: real feeders, and feeds that hold a hundred rows."""
    monkeypatch.setattr(inbox, "MAX_BYTES", 800)
    workers = scene.workers(3)
    scene.open()
    sizes = (8, 16, 24)
    reading = [read(each, size, True) for each, size in zip(workers, sizes, strict=True)]

    def feed(partition: int) -> None:
        chance = random.Random(partition)
        hello = scene.hello(partition=partition)
        key = scene.key.for_feeders()
        with PartitionSender(scene.endpoints(), key, hello, boot_id=boot_id()) as sender:
            sender.open(SCHEMA)
            offset = 0
            while offset < 600:
                rows = chance.randrange(1, 20)
                sender.send(batch_of(10000 * partition + offset, rows))
                offset += rows
            sender.finish()

    for each in [Background(feed, number) for number in range(4)]:
        each.result()
    closed = scene.control("close", epoch=1)
    total = sum(closed["rows"].values())
    assert closed["steps"] == total // 48
    got = [each.result()[0] for each in reading]
    assert [len(rows) for rows in got] == [closed["steps"] * size for size in sizes]
    together = [row for rows in got for row in rows]
    assert len(set(together)) == len(together)


def test_a_move_that_breaks_off_moves_nothing(scene: Scene) -> None:
    """Cut between two batches, an Arrow stream looks as if it had ended."""
    [one] = scene.workers(1)
    scene.open()
    hello = {"kind": "move", "feed": "input", "train": 1, "epoch": 1, "rows": 8}
    for rows, took in ((5, 0), (8, 8)):
        moving = scene.dial(one, hello)
        with moving.writer(SCHEMA) as writer:
            writer.write_batch(batch_of(0, rows))
        assert moving.receive(DEADLINE) == {"took": took}
        assert scene.feeder(one).reply["rows"] == took


# --- ends -----------------------------------------------------------------------------------------


def test_with_equal_steps_one_that_stops_ends_it_for_all_after_as_many_steps(scene: Scene) -> None:
    """F6."""
    one, two = scene.workers(2)
    scene.open(epochs=5)
    reading = read(one, 2, True)
    two.feeds["input"].open(2, True)
    feeder = scene.feeder(one)
    feeder.feed(batch_of(0, 10), 0)
    give(scene, two, 4, partition=1)
    eventually(lambda: one.feeds["input"]._trains[0].queues[1].steps == 2, "two steps are released")
    two.feeds["input"].terminate("loss is small")
    assert reading.result() == [[0, 1, 2, 3]]
    assert scene.control("close", epoch=1)["stopped"] == "worker:1 stopped: loss is small"
    assert feeder.answer() == {"stop": "worker:1 stopped: loss is small"}


def test_without_equal_steps_the_others_go_on_until_all_have_stopped(scene: Scene) -> None:
    one, two = scene.workers(2)
    scene.open()
    reading = read(one, None, False)
    two.feeds["input"].open(None, False)
    give(scene, one, 3, partition=0)
    two.feeds["input"].terminate("enough")
    assert scene.feeder(two, partition=1).reply == {"action": "stop", "reason": "enough"}
    feeder = scene.feeder(one, partition=1)
    feeder.feed(batch_of(3, 3), 0)
    feeder.end()
    assert scene.control("close", epoch=1)["rows"] == {"worker:0": 6, "worker:1": 0}
    assert reading.result() == [[0, 1, 2, 3, 4, 5]]


def test_end_with_a_reason_gives_what_was_released_and_no_more(scene: Scene) -> None:
    one, two = scene.workers(2)
    scene.open(epochs=3)
    reading = [read(each, 2, True) for each in (one, two)]
    give(scene, one, 7, partition=0)
    give(scene, two, 5, partition=1)
    scene_ended = scene.control("end", reason="cancelled")
    assert scene_ended == {"ok": True}
    got = [each.result() for each in reading]
    assert len(got[0][0]) == len(got[1][0]) <= 4
    assert len(got[0][0]) % 2 == 0
    assert scene.control("close", epoch=1)["stopped"] == "cancelled"


def test_a_worker_that_has_ended_stops_the_train(scene: Scene) -> None:
    one, two = scene.workers(2)
    scene.open()
    reading = read(one, 2, True)
    two.feeds["input"].open(2, True)
    two.close("main_fun has returned")
    stopped = scene.control("close", epoch=1)["stopped"]
    assert stopped == "worker:1 stopped: main_fun has returned"
    assert not any(reading.result())


def test_a_worker_that_is_gone_is_an_error_which_names_it(scene: Scene) -> None:
    """F3: at once, not after a timeout."""
    one, two = scene.workers(2)
    scene.open()
    one.feeds["input"].open(2, True)
    closing = Background(lambda: scene.control("close", epoch=1))  # waits for the other reader
    for stream in list(two._threads.values()):
        stream.abort()
    assert "worker:1 is gone" in closing.result()["error"]


def test_a_worker_that_loses_the_keeper_waits_for_the_cause_and_then_raises(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F3: rows that nobody releases any more are no end of the input."""
    monkeypatch.setattr(train_module, "_PATIENCE", 0.0)
    _, two = scene.workers(2)
    scene.open()
    reading = read(two, 2, True)
    give(scene, two, 10, partition=0)
    for stream in list(two._threads.values()):
        stream.abort()
    with pytest.raises(FeedLost, match="keeps the steps is gone"):
        reading.result()


def test_a_worker_that_is_told_to_stop_after_that_loss_just_ends(scene: Scene) -> None:
    _, two = scene.workers(2)
    scene.open()
    stopping = False
    feed = two.feeds["input"]
    feed.open(2, True)
    train = feed.wait_for_train(lambda: stopping)
    assert train is not None
    reading = Background(list, train.epoch_readers())
    for stream in list(two._threads.values()):
        stream.abort()
    eventually(lambda: train.lost, "it has noticed")
    assert not reading.is_done
    stopping = True
    assert reading.result() == []


def test_the_end_of_rank_0_ends_the_feed_of_all(scene: Scene) -> None:
    one, two = scene.workers(2)
    scene.open()
    reading = read(two, 2, True)
    give(scene, two, 3, partition=0)
    one.close("main_fun has returned")
    assert reading.result() == [[]]
    assert scene.feeder(two, partition=1).reply["reason"] == "main_fun has returned"


# --- the consumer's side of it --------------------------------------------------------------------


def test_two_readers_at_once_are_refused(scene: Scene) -> None:
    [one] = scene.workers(1)
    scene.open()
    give(scene, one, 3, partition=0)
    feed = one.feeds["input"]
    feed.open(None, False)
    train = feed.wait_for_train(lambda: False)
    assert train is not None
    first = train.epoch_readers()
    next(first)
    with pytest.raises(FeedInUse, match="is being read already"):
        feed.open(None, False)
    with pytest.raises(FeedInUse):
        next(train.epoch_readers())
    first.close()  # type: ignore[attr-defined]
    feed.open(None, False)


def test_schema_is_known_with_the_first_hello_or_never(scene: Scene) -> None:
    [one] = scene.workers(1)
    scene.open()
    feed = one.feeds["input"]
    feed.open(None, False)
    train = feed.wait_for_train(lambda: False)
    assert train is not None
    waiting = Background(train.wait_for_schema)
    scene.feeder(one)
    assert waiting.result() == SCHEMA
    scene.open(train=2)
    list(train.epoch_readers())
    empty = feed.wait_for_train(lambda: False)
    assert empty is not None
    scene.control("end", train=2, reason="nothing to feed")
    assert empty.wait_for_schema() is None
