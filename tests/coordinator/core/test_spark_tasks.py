"""What Spark tells of tasks and jobs, and what it means for a run."""

from __future__ import annotations

import pytest

from coordinator.core.model import Cause, Roles, RunPhase, TaskState
from tests.coordinator.core.scene import Scene, told_to_stop


def test_a_task_that_spark_gave_up_ends_the_wait_for_its_member() -> None:
    """R1"""
    scene = Scene()
    scene.reserve("worker:0")
    failed = TaskState(failed=True, message="Job aborted")
    effects = scene.scheduling(tasks={"worker:1": failed})
    assert told_to_stop(effects) == ["worker:0"]
    scene.end("worker:0", Cause.STOPPED)
    assert scene.view.failure is not None
    assert scene.view.failure.summary == "Spark gave up the task of worker:1: Job aborted"


def test_a_cancelled_job_ends_a_run_at_work_before_spark_has_killed_the_task() -> None:
    """O1: Spark takes 2 to 4 s for that."""
    scene = Scene(Roles(worker=2))
    scene.form()
    cancelled = {"worker:1": TaskState(failed=True, message="Job 3 cancelled")}
    assert set(told_to_stop(scene.scheduling(tasks=cancelled))) == {"worker:0", "worker:1"}
    for name in ("worker:0", "worker:1"):
        scene.end(name, Cause.STOPPED)
    assert scene.phase is RunPhase.FAILED
    failure = scene.view.failure
    assert failure is not None
    assert (failure.cause, str(failure.member)) == (Cause.PREEMPTED, "worker:1")
    assert failure.summary.endswith("lost its Spark task: Job 3 cancelled")


def test_a_job_that_fails_after_its_member_has_ended_says_nothing_new() -> None:
    scene = Scene(Roles(worker=2))
    scene.form()
    scene.end("worker:1", Cause.COMPLETED)
    scene.scheduling(tasks={"worker:1": TaskState(failed=True, message="Job 3 cancelled")})
    assert scene.phase is RunPhase.RUNNING


def test_the_word_of_a_live_agent_outweighs_sparks_until_it_ends() -> None:
    scene = Scene()
    scene.take_slots()
    scene.scheduling(tasks={"worker:1": TaskState(failed=True, message="Job aborted")})
    assert scene.phase is RunPhase.FORMING
    scene.end("worker:1", Cause.PREEMPTED)
    assert scene.phase is RunPhase.STOPPING


@pytest.mark.parametrize("connected", [True, False])
def test_a_task_that_returned_while_the_gang_forms_is_not_waited_for(connected: bool) -> None:
    """R1: Spark does not retry a job that has returned."""
    scene = Scene()
    scene.take_slots("worker:0", *["worker:1"] * connected)
    scene.task_returns("worker:1", Cause.AGENT_LOST, reason="agent died")
    scene.end("worker:0", Cause.STOPPED)
    assert scene.phase is RunPhase.FAILED
    assert scene.view.failure is not None
    assert str(scene.view.failure.member) == "worker:1"
    assert "agent lost: agent died" in scene.view.failure.summary


@pytest.mark.parametrize("connected", [True, False])
def test_a_task_that_returned_with_success_before_the_start_fails_the_run(connected: bool) -> None:
    """E1"""
    scene = Scene(Roles(worker=1))
    if connected:
        scene.take_slots()
    scene.task_returns("worker:0", Cause.COMPLETED, exit_code=0)
    assert scene.phase is RunPhase.FAILED
    assert scene.view.failure is not None
    assert scene.view.failure.cause is Cause.EXIT_CODE
    assert "its process ended before main_fun was entered" in scene.view.failure.summary


def test_a_task_that_stopped_unasked_fails_a_gang_at_work() -> None:
    """R1"""
    scene = Scene(Roles(worker=1))
    scene.form()
    scene.task_returns("worker:0", Cause.STOPPED, reason="sentinel was told to terminate")
    assert scene.phase is RunPhase.FAILED


def test_the_return_of_a_task_completes_a_run_whose_agent_was_lost_with_its_report() -> None:
    """E1"""
    scene = Scene(Roles(worker=1))
    scene.form()
    scene.task_returns("worker:0", Cause.COMPLETED)
    assert scene.phase is RunPhase.SUCCEEDED


def test_the_return_of_another_attempts_task_does_not_touch_the_holder() -> None:
    """R4"""
    scene = Scene()
    scene.take_slots()
    before = scene.view
    assert scene.task_returns("worker:0", Cause.STOPPED, attempt="worker:0/2") == ()
    assert scene.view == before
