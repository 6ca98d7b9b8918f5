"""`cluster.train`, from its call to its report; the members, their keeper and Spark are stand-ins.
What jobs do on a real Spark is tried in tests/spark."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from coordinator.core.errors import CoordinatorUnavailable, FeedMiscounted, InvalidRun
from coordinator.core.model import Roles
from coordinator.spark.feed import watch
from coordinator.spark.feed.feeding import Feeding
from tests.coordinator.spark.feed.conftest import Make
from tests.coordinator.spark.feed.fake_feeding import Background, DataFrame, begin, row, waiting

TEN_ROWS = DataFrame(7, 3, 0)


# --- it goes well ---------------------------------------------------------------------------------


def test_each_epoch_is_a_job_and_the_report_says_what_became_of_its_rows(scene: Make) -> None:
    made = scene()
    made.close_with(steps=2, left_out=2, worker_0=5, worker_1=5)
    report = made.feeding.train(TEN_ROWS, 3)
    assert (report.rows, report.bytes, report.left_out) == (30, 300, 6)
    assert (report.delivery, report.stopped) == ("exactly once", "")
    assert [(each.number, each.steps, each.partitions) for each in report.epochs] == [
        (1, 2, 3),
        (2, 2, 3),
        (3, 2, 3),
    ]
    assert report.epochs[0].members == {"worker:0": 5, "worker:1": 5}
    assert [job.description for job in made.spark.jobs] == [
        f"tflease mnist: feeding input, epoch {epoch}" for epoch in (1, 2, 3)
    ]
    feeder = made.spark.jobs[1].feeder
    assert (feeder.feed, feeder.train, feeder.epoch) == ("input", 1, 2)
    assert feeder.key.private_key == ""
    assert [each.path for each in feeder.endpoints] == ["/w/worker-0/feed", "/w/worker-1/feed"]


def test_the_keeper_hears_of_the_train_and_of_the_end_of_each_epoch(scene: Make) -> None:
    made = scene(roles=Roles(chief=1, worker=1))
    made.close_with(chief_0=4, worker_0=6)
    made.feeding.train(TEN_ROWS, 2)
    assert set(made.keeper.callers) == {"chief:0"}
    assert [request["call"] for request in made.keeper.calls] == ["open", "close", "close"]
    [opened] = made.keeper.named("open")
    assert (opened["feed"], opened["train"], opened["epochs"]) == ("input", 1, 2)
    assert [each["member"] for each in opened["workers"]] == ["chief:0", "worker:0"]
    assert [each["epoch"] for each in made.keeper.named("close")] == [1, 2]


def test_with_parameter_servers_the_workers_alone_are_fed(scene: Make) -> None:
    made = scene(roles=Roles(chief=1, worker=2, ps=1))
    made.close_with(worker_0=4, worker_1=6)
    made.feeding.train(TEN_ROWS, 1)
    [opened] = made.keeper.named("open")
    assert [each["member"] for each in opened["workers"]] == ["worker:0", "worker:1"]
    assert set(made.keeper.callers) == {"chief:0"}


def test_jobs_bear_the_run_s_tag_and_the_train_s_own(scene: Make) -> None:
    """Shutting the run down reaches them, and so does cancelling one train alone."""
    made = scene()
    made.close_with(worker_0=10)
    made.feeding.train(TEN_ROWS, 1)
    made.feeding.train(TEN_ROWS, 1, feed="validation")
    made.feeding.train(TEN_ROWS, 1)
    assert [job.tags for job in made.spark.jobs] == [
        ("tflease-r1", "tflease-r1-feed-input-1"),
        ("tflease-r1", "tflease-r1-feed-validation-1"),
        ("tflease-r1", "tflease-r1-feed-input-2"),
    ]


def test_a_keeper_out_of_the_driver_s_reach_is_called_from_spark(
    scene: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it is known, no time is lost with trying."""
    made = scene()
    made.close_with(worker_0=10)
    made.keeper.is_reached_directly = False
    run_one = made.spark.run_one

    def in_a_task(*args: Any, **more: Any) -> list[Any]:
        monkeypatch.setattr(threading.current_thread(), "name", "spark task")
        try:
            return run_one(*args, **more)
        finally:
            threading.current_thread().name = "driver"

    monkeypatch.setattr(made.spark, "run_one", in_a_task)
    made.feeding.train(TEN_ROWS, 2)
    calls = [task.request["call"] for task, _ in made.spark.control_jobs]
    assert calls == ["open", "close", "close"]
    assert {tags for _, tags in made.spark.control_jobs} == {
        ("tflease-r1", "tflease-r1-feed-input-1")
    }


def test_two_feeds_are_filled_at_once_and_one_is_not_filled_twice(scene: Make) -> None:
    """F7."""
    made = scene(waiting)
    training = begin(made)
    with pytest.raises(InvalidRun, match="feed 'input' is being filled already"):
        made.feeding.train(TEN_ROWS, 1)
    validating = Background(lambda: made.feeding.train(TEN_ROWS, 1, feed="validation"))
    made.session.count("worker:0", train=1, stopped=1)
    made.session.count("worker:1", train=1, stopped=1)
    assert training.result().stopped
    made.session.lose()
    with pytest.raises(CoordinatorUnavailable):
        validating.result()


# --- the rows are counted -------------------------------------------------------------------------


def test_rows_that_an_earlier_attempt_had_delivered_count_once(scene: Make) -> None:
    """F2."""
    made = scene(lambda job: [row(0, 4, skipped=3), row(1, 3)])
    made.close_with(worker_0=10)
    report = made.feeding.train(TEN_ROWS, 1, deterministic=True)
    assert (report.rows, report.delivery) == (10, "exactly once")
    assert made.spark.jobs[0].feeder.deterministic is True


def test_what_may_have_come_twice_is_said(scene: Make) -> None:
    """F2."""
    made = scene(lambda job: [row(0, 7, again=3), row(1, 3)])
    made.close_with(worker_0=13)
    report = made.feeding.train(TEN_ROWS, 1)
    assert made.spark.jobs[0].feeder.deterministic is False  # nobody knows
    assert report.delivery == "at least once: 3 rows may have been taken twice"


@pytest.mark.parametrize("taken, deterministic", [(9, False), (9, True), (11, True)])
def test_a_miscount_is_an_error(
    scene: Make, monkeypatch: pytest.MonkeyPatch, taken: int, deterministic: bool
) -> None:
    monkeypatch.setattr(watch, "_NEWS_TIMEOUT", 0.0)
    made = scene()
    made.close_with(worker_0=taken)
    with pytest.raises(FeedMiscounted, match=f"delivered 10 rows .* the members have {taken}"):
        made.feeding.train(TEN_ROWS, 1, deterministic=deterministic)
    assert made.keeper.named("end")


def test_rows_that_a_member_took_and_stopped_with_are_no_miscount(scene: Make) -> None:
    made = scene()
    made.close_with(worker_0=2, worker_1=10)
    made.session.count("worker:0", train=1, stopped=1)
    report = made.feeding.train(TEN_ROWS, 1, deterministic=True)
    assert report.delivery.startswith("at least once: 2 rows")


# --- for streams ----------------------------------------------------------------------------------


def test_a_train_without_a_last_epoch_is_fed_one_by_one(scene: Make) -> None:
    made = scene()
    made.close_with(worker_0=10)
    feeding: Feeding = made.feeding
    train = feeding.open_train(feed="input", epochs=None)
    for epoch in (0, 1, 7):
        assert feeding.feed_epoch(train, epoch, TEN_ROWS) is not None
    report = feeding.end_train(train, "the stream was stopped")
    assert [each.number for each in report.epochs] == [0, 1, 7]
    [ended] = made.keeper.named("end")
    assert ended["reason"] == "the stream was stopped"


def test_an_epoch_that_comes_again_counts_once(scene: Make) -> None:
    made = scene()
    made.close_with(worker_0=10)
    train = made.feeding.open_train(epochs=None)
    made.feeding.feed_epoch(train, 3, TEN_ROWS)
    made.spark._work = lambda job: [row(0, 0, stopped="the epoch is closed already")]
    again = made.feeding.feed_epoch(train, 3, TEN_ROWS)
    assert again is not None
    assert again.rows == 10
    assert made.feeding.end_train(train).rows == 10
