"""Feeders and the workers' real side, over real sockets and TLS."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from executor_agent.feed import inbox, sending
from executor_agent.feed.feeder import Feeder, TaskIdentity
from executor_agent.feed.link import PartitionRefused
from executor_agent.feed.sending import EPOCH_CLOSED
from tests.feed.feed_scene import Background, Scene, batch_of, eventually, read_all

TASK = TaskIdentity(partition=0, attempt_number=0, attempt=1)
RETRY = replace(TASK, attempt_number=1, attempt=2)


def feeder(scene: Scene, *, local: bool = True, **changes: Any) -> Feeder:
    endpoints = tuple(scene.endpoints())
    if not local:
        endpoints = tuple(replace(each, path="", boot_id="another") for each in endpoints)
    made = Feeder(endpoints, scene.key.for_feeders(), "input", 1, 1, True, patience=0.01)
    return replace(made, **changes)


def rows(count: int, size: int = 10, first: int = 0) -> Iterator[pa.RecordBatch]:
    for start in range(0, count, size):
        yield batch_of(first + start, min(size, count - start))


@pytest.mark.parametrize("local", [True, False])
def test_rows_reach_two_consumers_once(scene: Scene, local: bool) -> None:
    workers = scene.workers(2)
    scene.open()
    reading = [Background(read_all, each.feeds["input"], 3, False) for each in workers]
    feeding = [
        Background(
            feeder(scene, local=local).deliver,
            rows(500, first=1000 * partition),
            replace(TASK, partition=partition, attempt=partition),
        )
        for partition in range(4)
    ]
    assert [each.result()["rows"] for each in feeding] == [500] * 4
    assert sum(scene.control("close", epoch=1)["rows"].values()) == 2000
    got = [n for each in reading for epoch in each.result() for n in epoch]
    assert sorted(got) == [n + 1000 * partition for partition in range(4) for n in range(500)]


def test_a_retry_after_an_attempt_that_died_delivers_the_rest(scene: Scene) -> None:
    """F2."""
    workers = scene.workers(2)
    scene.open()
    reading = [Background(read_all, each.feeds["input"], None, False) for each in workers]

    def dying() -> Iterator[pa.RecordBatch]:
        yield from rows(200)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        feeder(scene).deliver(dying(), TASK)
    row = feeder(scene).deliver(rows(500), RETRY)
    assert row["rows"] + row["skipped"] == 500
    assert row["skipped"] > 0
    assert sum(scene.control("close", epoch=1)["rows"].values()) == 500
    got = [n for each in reading for epoch in each.result() for n in epoch]
    assert sorted(got) == list(range(500))


def test_an_older_attempt_is_refused_once_a_younger_one_is_there(scene: Scene) -> None:
    """F2: a task that Spark believes dead may still be running."""
    worker = scene.member()
    scene.open()
    reading = Background(read_all, worker.feeds["input"], None, False)
    is_under_way, may_go_on = threading.Event(), threading.Event()

    def held_up() -> Iterator[pa.RecordBatch]:
        yield batch_of(0, 10)
        is_under_way.set()
        assert may_go_on.wait(20)
        yield from rows(90, first=10)

    older = Background(feeder(scene, patience=1e9).deliver, held_up(), TASK)
    assert is_under_way.wait(20)
    assert feeder(scene).deliver(rows(100), RETRY)["stopped"] is None
    may_go_on.set()
    with pytest.raises(PartitionRefused, match="attempt 2 of the partition has taken over"):
        older.result()
    assert scene.control("close", epoch=1)["rows"] == {"worker:0": 100}
    assert sorted(reading.result()[0]) == list(range(100))


def test_terminate_reaches_a_feeder_that_waits_for_room(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F6."""
    monkeypatch.setattr(inbox, "MAX_BYTES", 800)
    worker = scene.member()
    scene.open()
    feed = worker.feeds["input"]
    feed.open(10, False)
    feeding = Background(feeder(scene).deliver, rows(100_000, 100), TASK)
    eventually(lambda: feed.counters().get("rows"), "rows have come")
    feed.terminate("loss is small")
    row = feeding.result()
    assert row["stopped"]
    assert 0 < row["rows"] < 1000


def test_a_closed_epoch_takes_nothing_more(scene: Scene) -> None:
    worker = scene.member()
    scene.open(epochs=2)
    reading = Background(read_all, worker.feeds["input"], None, False)
    assert feeder(scene).deliver(rows(20), TASK)["rows"] == 20
    scene.control("close", epoch=1)
    row = feeder(scene).deliver(rows(20), RETRY)
    assert (row["stopped"], row["rows"]) == (EPOCH_CLOSED, 0)
    assert scene.control("close", epoch=2)["rows"] == {"worker:0": 0}
    assert reading.result()[0] == list(range(20))


def test_full_workers_that_wait_for_a_step_of_each_other_get_the_last_rows(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F4: steps of 1 and of 40 rows. One is full of rows that it may not use yet, the other has
    none; what was sent to the first is acknowledged nevertheless, and moves when the epoch ends."""
    monkeypatch.setattr(inbox, "MAX_BYTES", 800)
    monkeypatch.setattr(sending, "FLUSH_AFTER", 0.01)
    one, two = scene.workers(2)
    scene.open()
    reading = [
        Background(read_all, one.feeds["input"], 1, True),
        Background(read_all, two.feeds["input"], 400, True),
    ]
    row = feeder(scene).deliver(rows(410, 50), TASK)
    assert row["rows"] == 410
    closed = scene.control("close", epoch=1)
    assert (closed["steps"], closed["left_out"]) == (1, 9)
    assert [len(each.result()[0]) for each in reading] == [1, 400]
