"""How `cluster.train` ends early: failures, Ctrl-C, and members that want no more."""

from __future__ import annotations

import signal
import threading
from typing import Any

import pytest

from coordinator.core.errors import (
    CoordinatorUnavailable,
    FeedFailed,
    FeedStalled,
    RunCancelled,
    TrainingFailed,
)
from coordinator.core.model import Cause, ExitReport, Failure, MemberPhase, Roles, RunPhase
from tests.coordinator.spark.feed.conftest import Make
from tests.coordinator.spark.feed.fake_feeding import DataFrame, FeedJob, begin, row, waiting

TEN_ROWS = DataFrame(7, 3, 0)


def test_a_driver_that_stops_it_tells_the_members(scene: Make) -> None:
    """Else their datasets wait for rows that never come."""
    made = scene(waiting)
    training = begin(made)
    assert made.feeding.stop("input", "I have seen enough")
    assert training.result().stopped == "I have seen enough"
    assert made.spark.jobs[0].cancelled.is_set()
    assert [call["reason"] for call in made.keeper.named("end")] == ["I have seen enough"]


# --- it does not ----------------------------------------------------------------------------------


def test_a_failed_run_is_raised_with_its_first_cause_and_the_job_is_cancelled(scene: Make) -> None:
    """F3, E2."""
    made = scene(waiting)
    training = begin(made)
    failure = Failure(Cause.USER_EXCEPTION, "worker:1 raised ValueError: bad labels")
    made.session.change(phase=RunPhase.STOPPING, failure=failure)
    assert made.spark.jobs[0].cancelled.wait(10)  # before the run has settled
    made.session.change(settled=True)
    with pytest.raises(TrainingFailed, match="bad labels"):
        training.result()
    assert not made.keeper.named("end")  # there is nobody to be told


def test_a_broken_feeder_waits_for_the_cause_that_the_run_hears_of(scene: Make) -> None:
    """F3: "connection reset" is what follows from it."""
    failure = Failure(Cause.KILLED_BY_SIGNAL, "worker:1 was killed by SIGKILL")
    made = scene(lambda job: fail())

    def fail() -> list[Any]:
        threading.Thread(
            target=lambda: made.session.change(
                phase=RunPhase.STOPPING, failure=failure, settled=True
            )
        ).start()
        raise RuntimeError("Traceback (most recent call last):\n  x\nFeedBroken: worker:1 is gone")

    with pytest.raises(TrainingFailed, match="SIGKILL"):
        made.feeding.train(TEN_ROWS, 1)


def test_a_member_that_refuses_rows_because_it_failed_is_a_failure(scene: Make) -> None:
    """Its feed closes before anybody else hears why."""
    failure = Failure(Cause.USER_EXCEPTION, "worker:1 raised ValueError: bad labels")
    made = scene(lambda job: refuse())

    def refuse() -> list[Any]:
        threading.Thread(
            target=lambda: made.session.change(
                phase=RunPhase.STOPPING, failure=failure, settled=True
            )
        ).start()
        return [row(0, 0, stopped="main_fun has ended")]

    with pytest.raises(TrainingFailed, match="bad labels"):
        made.feeding.train(TEN_ROWS, 1)


def test_a_stopped_run_is_cancelled(scene: Make) -> None:
    made = scene(waiting)
    training = begin(made)
    made.session.change(phase=RunPhase.STOPPING, stop_reason="enough", settled=True)
    with pytest.raises(RunCancelled, match="enough"):
        training.result()
    assert made.spark.jobs[0].cancelled.is_set()


def test_a_coordinator_that_is_gone_ends_the_feed(scene: Make) -> None:
    made = scene(waiting)
    training = begin(made)
    made.session.lose()
    with pytest.raises(CoordinatorUnavailable):
        training.result()
    assert made.spark.jobs[0].cancelled.is_set()


UDF = """An error occurred while calling o99.collectToPython.
: org.apache.spark.SparkException: Job aborted due to stage failure: Task 1 in stage 3.0 failed
Caused by: org.apache.spark.api.python.PythonException: Traceback (most recent call last):
  File "/app/prepare.py", line 12, in scale
    return 1 / x
ZeroDivisionError: division by zero

\tat org.apache.spark.api.python.BasePythonRunner
"""


def test_a_job_that_fails_by_itself_says_the_line_that_matters(scene: Make) -> None:
    """E2: a function of the user's above the feed."""

    def fail(job: FeedJob) -> list[Any]:
        raise RuntimeError(UDF)

    made = scene(fail)
    with pytest.raises(FeedFailed, match=r"^feeding 'input' failed: ZeroDivisionError: division"):
        made.feeding.train(TEN_ROWS, 1)
    [ended] = made.keeper.named("end")
    assert "ZeroDivisionError" in ended["reason"]
    made.spark._work = lambda job: []  # and the members can be fed again
    made.close_with()
    assert made.feeding.train(DataFrame(), 1).rows == 0
    assert made.keeper.named("open")[-1]["train"] == 2


@pytest.mark.slow
def test_what_does_not_move_is_given_up_with_what_the_keeper_waits_for(scene: Make) -> None:
    """F3: 600 seconds of silence with a reason."""
    made = scene(waiting)
    made.keeper.answers["state"] = {"members": {}, "text": ["worker:1 has not begun to read"]}
    with pytest.raises(FeedStalled, match=r"for 0\.5 s.*worker:1 has not begun to read"):
        made.feeding.train(TEN_ROWS, 1, feed_timeout=0.5)
    assert made.spark.jobs[0].cancelled.is_set()
    assert made.keeper.named("end")


@pytest.mark.slow
def test_an_epoch_that_cannot_be_closed_in_time_is_a_stall(scene: Make) -> None:
    made = scene()

    def late(timeout: float) -> dict[str, Any]:
        threading.Event().wait(timeout)
        return {"error": "worker:1 has not begun to read"}

    made.keeper.answers["close"] = late
    with pytest.raises(FeedStalled, match="closing an epoch of feed 'input': worker:1 has not"):
        made.feeding.train(TEN_ROWS, 1, feed_timeout=0.2)


def test_what_the_keeper_refuses_is_a_failure(scene: Make) -> None:
    made = scene()
    made.keeper.answers["close"] = {"error": "workers disagree about equal steps"}
    with pytest.raises(FeedFailed, match="disagree about equal steps") as raised:
        made.feeding.train(TEN_ROWS, 1)
    assert not isinstance(raised.value, FeedStalled)


def test_ctrl_c_cancels_the_job_and_tells_the_keeper(scene: Make) -> None:
    """O1."""
    made = scene(interrupting)
    with pytest.raises(KeyboardInterrupt):
        made.feeding.train(TEN_ROWS, 1)
    assert made.spark.jobs[0].cancelled.is_set()
    [ended] = made.keeper.named("end")
    assert ended["reason"] == "cancelled"
    made.spark._work = lambda job: [row(0, 10)]  # train again in the same run
    made.close_with(worker_0=10)
    assert made.feeding.train(TEN_ROWS, 1).rows == 10


def interrupting(job: FeedJob) -> list[Any]:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    return job.wait_until_cancelled()


# --- the members want no more ---------------------------------------------------------------------


def test_members_that_have_seen_enough_end_the_job_without_an_error(scene: Make) -> None:
    """F6."""
    made = scene(waiting)
    training = begin(made, TEN_ROWS, 5)
    made.session.count("worker:0", train=1, rows=3, stopped=1)
    made.session.count("worker:1", train=1, rows=4, stopped=1)
    report = training.result()
    assert report.stopped == "worker:0, worker:1 wanted no more rows"
    assert (report.rows, report.epochs, report.unfinished) == (7, (), 7)
    assert made.spark.jobs[0].cancelled.is_set()
    assert len(made.spark.jobs) == 1


def test_one_of_two_ends_it_where_all_take_the_same_steps(scene: Make) -> None:
    """F6: which the keeper knows."""
    made = scene(waiting)
    made.keeper.answers["state"] = {"ended": "worker:1 stopped: it has seen enough", "text": []}
    training = begin(made)
    made.session.count("worker:1", train=1, stopped=1)
    assert training.result().stopped == "worker:1 stopped: it has seen enough"


@pytest.mark.slow
def test_one_of_two_leaves_the_rest_to_the_other_where_they_do_not(scene: Make) -> None:
    made = scene(lambda job: go_on())

    def go_on() -> list[Any]:
        made.session.count("worker:1", train=1, stopped=1)
        made.session.wait_for_looks(10)
        return [row(0, 10)]

    made.keeper.answers["state"] = {"ended": None, "text": []}
    made.close_with(worker_0=10)
    report = made.feeding.train(TEN_ROWS, 1)
    assert (report.stopped, report.rows) == ("", 10)
    assert not made.spark.cancelled
    assert len(made.keeper.named("state")) == 1  # asked once, not at every look


def test_a_stop_of_an_earlier_train_does_not_end_this_one(scene: Make) -> None:
    made = scene()
    made.close_with(worker_0=10)
    made.feeding.train(TEN_ROWS, 1)
    for name in ("worker:0", "worker:1"):
        made.session.count(name, train=1, stopped=1)
    assert made.feeding.train(TEN_ROWS, 1).stopped == ""


def test_the_end_of_main_fun_ends_the_job(scene: Make) -> None:
    """F6."""
    made = scene(waiting, roles=Roles(chief=1, worker=2))
    training = begin(made)
    made.session.change_member("worker:1", phase=MemberPhase.EXITED)
    made.session.change_member("chief:0", phase=MemberPhase.EXITED)
    assert training.result().stopped == "main_fun of chief:0 has ended"
    assert made.spark.jobs[0].cancelled.is_set()


@pytest.mark.slow
def test_a_member_that_ended_with_an_error_is_no_end_of_main_fun(scene: Make) -> None:
    """The run needs a moment for its verdict."""
    failed = ExitReport(Cause.USER_EXCEPTION, message="bad labels")

    def fail(job: FeedJob) -> list[Any]:
        for member in ("worker:0", "worker:1"):
            made.session.change_member(member, phase=MemberPhase.EXITED, exit=failed)
        made.session.wait_for_looks(3)
        failure = Failure(Cause.USER_EXCEPTION, "worker:1 raised ValueError: bad labels")
        made.session.change(phase=RunPhase.STOPPING, failure=failure, settled=True)
        return job.wait_until_cancelled()

    made = scene(fail)
    with pytest.raises(TrainingFailed, match="bad labels"):
        made.feeding.train(TEN_ROWS, 1)


@pytest.mark.slow
def test_members_that_leave_with_the_last_row_have_been_fed_to_the_end(scene: Make) -> None:
    """The keeper's process may be gone before its answer is heard of."""
    made = scene()

    def close(timeout: float) -> dict[str, Any]:
        for member in ("worker:0", "worker:1"):
            made.session.change_member(member, phase=MemberPhase.EXITED)
        made.session.wait_for_looks(1)
        return {"ok": True, "steps": None, "rows": {"worker:0": 10}, "left_out": 0}

    made.keeper.answers["close"] = close
    report = made.feeding.train(TEN_ROWS, 1)
    assert (report.rows, report.stopped) == (10, "")


def test_feeders_that_hear_of_the_stop_first_are_believed(scene: Make) -> None:
    made = scene(lambda job: stop())

    def stop() -> list[Any]:
        made.session.count("worker:0", train=1, stopped=1)
        return [row(0, 3, stopped="it has seen enough")]

    made.keeper.answers["state"] = {"ended": None, "text": []}
    assert made.feeding.train(TEN_ROWS, 4).stopped == "it has seen enough"
