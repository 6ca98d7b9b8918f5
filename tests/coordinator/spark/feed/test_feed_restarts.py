"""`cluster.train` while the gang is restarted; members, their keeper and Spark are stand-ins."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from coordinator.core.errors import FeedFailed, InvalidRun, TrainingFailed
from coordinator.core.model import Cause, Endpoint, Failure, MemberPhase, RunPhase
from coordinator.core.policy import RestartPolicy
from coordinator.spark.feed import homecoming
from coordinator.spark.feed.watch import INTERVAL
from tests.coordinator.spark.feed.conftest import Make
from tests.coordinator.spark.feed.fake_feeding import Background, DataFrame, FeedJob, Scene, row

DATA = DataFrame(4, 4, 4)
TIMEOUT = 30.0
FAILURE = Failure(Cause.KILLED_BY_SIGNAL, "worker:1 was killed by SIGKILL")


class Gang:
    """A run whose gang comes and goes. ``work``: what each of its jobs does, in turn; the last for
    all that follow."""

    def __init__(self, make: Make) -> None:
        self.work: list[Callable[[FeedJob], list[Any]]] = [self.deliver]
        self.made: Scene = make(self._next)
        spec = replace(self.made.session.view.spec, restart=RestartPolicy(max_restarts=5))
        self.made.session.change(spec=spec)
        self.made.close_with(worker_0=8, worker_1=4)

    @property
    def jobs(self) -> list[FeedJob]:
        return self.made.spark.jobs

    def _next(self, job: FeedJob) -> list[Any]:
        return (self.work.pop(0) if len(self.work) > 1 else self.work[0])(job)

    def deliver(self, job: FeedJob) -> list[Any]:
        """Worker 0 gets partitions 0 and 2, worker 1 the other."""
        marks = [{"worker:0": 4}, {"worker:1": 4}, {"worker:0": 8}]
        sent = [index for index in range(3) if index not in job.feeder.leave_out]
        return [
            row(index, 4 if index in sent else 0, marks=json.dumps(marks[index]))
            for index in range(3)
        ]

    def deliver_and_read(self, job: FeedJob) -> list[Any]:
        """So that nobody waits for the members."""
        self.read(job.feeder.train, finished=job.feeder.epoch)
        return self.deliver(job)

    def read(self, train: int, *, finished: int = 0, **used: int) -> None:
        """How far the members tell that they are in epoch 1, or that they have finished one."""
        for name in ("worker:0", "worker:1"):
            rows = used.get(name.replace(":", "_"), 0)
            told = {"train": train, "finished": finished, "epoch_read": 1, "used": rows}
            self.made.session.count(name, **told)

    def fail(self) -> None:
        self.made.session.change(phase=RunPhase.RESTARTING)

    def form_again(self) -> None:
        """At another port, as it may be."""
        run = self.made.session.view
        generation = run.generation + 1
        members = tuple(
            replace(
                each,
                phase=MemberPhase.RUNNING,
                metrics={},
                endpoint=Endpoint("10.0.0.1", 2000, 4000 + generation),
            )
            for each in run.members
        )
        change = {"members": members, "generation": generation, "restart_count": generation - 1}
        self.made.session.change(phase=RunPhase.RUNNING, **change)

    def restart(self) -> None:
        self.fail()
        self.form_again()

    def fail_and_wait(self, job: FeedJob) -> list[Any]:
        """A job that is cut short by a restart."""
        self.fail()
        try:
            return job.wait_until_cancelled()
        finally:
            self.form_again()

    def wait_for_jobs(self, count: int) -> None:
        made = self.made.spark
        with made._submitted:
            assert made._submitted.wait_for(lambda: len(made.jobs) >= count, TIMEOUT)

    def opened(self) -> list[tuple[int, int, int]]:
        """Of each call to open a train: its number, its first epoch, and the trains before it."""
        calls = self.made.keeper.named("open")
        return [(each["train"], each["first"], each["earlier"]) for each in calls]

    def train(self, *args: Any, **more: Any) -> Background:
        return Background(lambda: self.made.feeding.train(*(args or (DATA, 1)), **more))


@pytest.fixture
def gang(scene: Make, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gang]:
    """Its data comes in the same partitions each time."""
    monkeypatch.setattr(homecoming, "partitioning", lambda data, deterministic: "as it is")
    made = Gang(scene)
    yield made
    made.made.session.change(phase=RunPhase.SUCCEEDED, settled=True)


def wait_until_delivered(gang: Gang, jobs: int = 1) -> None:
    """The job is done and the epoch closed: the members' reading is waited for."""
    gang.wait_for_jobs(jobs)
    session, keeper = gang.made.session, gang.made.keeper
    while len(keeper.named("close")) < jobs:
        session.wait_for_looks(1)
    session.wait_for_looks(3)


@pytest.mark.slow
def test_what_was_not_read_is_sent_to_the_next_generation(gang: Gang) -> None:
    training = gang.train(on_restart="resume")
    wait_until_delivered(gang)
    gang.read(1, worker_0=4, worker_1=4)  # partition 2 waits in worker 0
    gang.made.session.wait_for_looks(4)
    gang.work = [gang.deliver_and_read]
    gang.made.close_with(worker_0=4)
    gang.restart()
    report = training.result()
    assert [job.feeder.leave_out for job in gang.jobs] == [frozenset(), {0, 1}]
    assert [job.feeder.train for job in gang.jobs] == [1, 2]
    assert {each.port for each in gang.jobs[1].feeder.endpoints} == {4002}
    assert gang.opened() == [(1, 1, 0), (2, 1, 0)]
    assert [(each.number, each.rows) for each in report.epochs] == [(1, 12)]
    assert report.delivery == "at least once: 4 rows may have been taken twice"


@pytest.mark.slow
def test_the_epoch_begins_again_where_that_is_asked_for(gang: Gang) -> None:
    training = gang.train(on_restart="repeat")
    wait_until_delivered(gang)
    gang.read(1, worker_0=4, worker_1=4)
    gang.work = [gang.deliver_and_read]
    gang.restart()
    report = training.result()
    assert [job.feeder.leave_out for job in gang.jobs] == [frozenset(), frozenset()]
    assert report.rows == 12
    assert report.delivery == "at least once: 12 rows may have been taken twice"


@pytest.mark.slow
def test_a_job_is_cut_short_and_the_remaining_epochs_follow(gang: Gang) -> None:
    """Nothing is known of it: the whole epoch comes again, and the next one as well."""
    gang.work = [gang.deliver_and_read, gang.fail_and_wait, gang.deliver_and_read]
    report = gang.train(DATA, 3).result()
    assert [job.feeder.epoch for job in gang.jobs] == [1, 2, 2, 3]
    assert gang.jobs[1].cancelled.is_set()
    assert gang.opened() == [(1, 1, 0), (2, 2, 0)]
    assert [(each.number, each.rows, each.again) for each in report.epochs] == [
        (1, 12, 0),
        (2, 12, 12),
        (3, 12, 0),
    ]


@pytest.mark.slow
def test_a_restart_that_takes_long_is_no_stall(gang: Gang) -> None:
    training = gang.train(DATA, 1, feed_timeout=3 * INTERVAL)
    wait_until_delivered(gang)
    gang.work = [gang.deliver_and_read]
    gang.fail()
    gang.made.session.wait_for_looks(12)  # each of them INTERVAL after the one before
    gang.form_again()
    assert training.result().rows == 12


@pytest.mark.slow
def test_generations_may_fail_one_after_the_other(gang: Gang) -> None:
    gang.work = [gang.fail_and_wait, gang.fail_and_wait, gang.deliver_and_read]
    report = gang.train().result()
    assert [job.feeder.train for job in gang.jobs] == [1, 2, 3]
    assert report.rows == 12


@pytest.mark.slow
def test_without_a_restart_left_the_first_cause_is_raised(gang: Gang) -> None:
    training = gang.train()
    wait_until_delivered(gang)
    gang.fail()
    gang.made.session.wait_for_looks(2)
    gang.made.session.change(phase=RunPhase.STOPPING, failure=FAILURE, settled=True)
    with pytest.raises(TrainingFailed, match="SIGKILL"):
        training.result()
    assert len(gang.jobs) == 1


@pytest.mark.slow
def test_it_can_be_stopped_while_there_is_no_gang(gang: Gang) -> None:
    training = gang.train()
    wait_until_delivered(gang)
    gang.fail()
    gang.made.session.wait_for_looks(2)
    assert gang.made.feeding.stop("input", "I have seen enough")
    assert training.result().stopped == "I have seen enough"
    assert len(gang.jobs) == 1


@pytest.mark.slow
def test_rows_are_delivered_when_they_are_read(gang: Gang) -> None:
    """What waits in a queue goes with its process: a train whose gang may be restarted lasts until
    then."""
    training = gang.train()
    wait_until_delivered(gang)
    assert gang.made.feeding.finished_feeds() == []
    gang.read(1, finished=1)
    assert training.result().delivery == "exactly once"


@pytest.mark.slow
def test_members_that_read_no_further_keep_nobody_waiting(gang: Gang) -> None:
    """They may have had as many steps as they wanted."""
    assert gang.train(DATA, 1, feed_timeout=0.5).result().rows == 12


@pytest.mark.slow
def test_a_gang_that_comes_after_the_last_train_hears_that_all_are_over(gang: Gang) -> None:
    """Else its datasets wait for ever, and the run with them."""
    gang.work = [gang.deliver_and_read]
    for _ in range(2):
        gang.train().result()
    gang.restart()
    session = gang.made.session
    while len(gang.made.keeper.named("open")) < 3:
        session.wait_for_looks(1)
    assert gang.opened() == [(1, 1, 0), (2, 1, 1), (3, 1, 1)]
    assert gang.made.keeper.named("open")[-1]["over"]


@pytest.mark.slow
def test_a_micro_batch_that_was_not_read_comes_again_as_a_whole(gang: Gang) -> None:
    feeding = gang.made.feeding
    train = feeding.open_train(epochs=None)
    feeding_batch = Background(lambda: feeding.feed_batch(train, 7, DATA))
    wait_until_delivered(gang)
    gang.work = [gang.deliver_and_read]
    gang.restart()
    feeding_batch.result()
    assert [(job.feeder.epoch, job.feeder.leave_out) for job in gang.jobs] == [(7, frozenset())] * 2
    assert [(each.number, each.again) for each in train.reports] == [(7, 12)]
    feeding.feed_batch(train, 8, DATA)
    assert feeding.end_train(train).rows == 24


@pytest.mark.slow
def test_a_feeder_s_error_after_a_failure_is_no_failure_of_the_feed(gang: Gang) -> None:
    """F3: it breaks before anybody hears why."""

    def break_off(job: FeedJob) -> list[Any]:
        gang.fail()
        gang.form_again()
        raise RuntimeError("Traceback (most recent call last):\n  x\nFeedBroken: worker:1 is gone")

    def break_by_itself(job: FeedJob) -> list[Any]:
        raise RuntimeError("Traceback (most recent call last):\n  x\nZeroDivisionError: by zero")

    gang.work = [break_off, gang.deliver_and_read]
    assert gang.train().result().rows == 12
    gang.work = [break_by_itself]
    with pytest.raises(FeedFailed, match="by zero"):
        gang.train().result()


def test_what_cannot_be_meant_is_refused(gang: Gang) -> None:
    with pytest.raises(InvalidRun, match="on_restart='again'"):
        gang.train(on_restart="again").result()
