"""What Spark tells of tasks and jobs, and what it means for a run."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.core.model import Cause, MemberPhase, Roles, RunPhase, TaskState
from coordinator.core.policy import Action, RestartPolicy
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


# -- with restarts ---------------------------------------------------------------------------------

ABORTED = TaskState(failed=True, message="Job aborted due to stage failure: Task 0 failed 4 times")
CRASHED = TaskState(
    failed=True,
    message="Job aborted ... SparkException: Python worker exited unexpectedly (crashed)",
)
CRASHED_AND_CUT = TaskState(
    failed=True,
    message="Job aborted ... (192.0.2.2 executor driver): org.apache.spark.SparkEx Caused by: "
    "java.net.SocketException: Connection reset",
)
EXECUTOR_LOST = TaskState(
    failed=True,
    message="Job aborted ... (host executor 1): ExecutorLostFailure (executor 1 exited)",
)


def restartable(max_restarts: int = 2, **policy: Any) -> Scene:
    return Scene(restart=RestartPolicy(max_restarts, **policy))


@pytest.mark.parametrize("spark_first", [True, False])
@pytest.mark.parametrize(
    ("cause", "named"),
    [
        (Cause.PREEMPTED, Cause.PREEMPTED),
        (Cause.AGENT_LOST, Cause.AGENT_LOST),
        (Cause.STOPPED, Cause.LOST_CONTACT),
    ],
)
def test_a_member_that_went_with_its_job_before_the_start_costs_one_restart(
    cause: Cause, named: Cause, spark_first: bool
) -> None:
    """Its driver submits another job, as after any restart."""
    scene = restartable()
    scene.take_slots()
    scene.ready("worker:0")
    if spark_first:
        scene.scheduling(tasks={"worker:1": ABORTED})
        scene.end("worker:1", cause)
    else:
        scene.end("worker:1", cause)
        scene.scheduling(tasks={"worker:1": ABORTED})
    assert scene.phase is RunPhase.FORMING
    (restart,) = scene.view.restarts
    assert (restart.cause, str(restart.member), restart.alone) == (named, "worker:1", True)
    assert restart.summary == f"Spark gave up the task of worker:1: {ABORTED.message}"
    scene.scheduling(tasks={"worker:1": ABORTED}, restarts=0)  # the driver has not seen it yet
    assert scene.phases() == {"worker:0": MemberPhase.READY, "worker:1": MemberPhase.EXPECTED}
    scene.another_attempt("worker:1")
    scene.take_slots("worker:1")
    scene.ready("worker:1")
    assert (scene.phase, scene.view.generation) == (RunPhase.RUNNING, 1)


@pytest.mark.parametrize("lost", [CRASHED, CRASHED_AND_CUT, EXECUTOR_LOST])
def test_a_job_whose_process_died_before_its_member_came_costs_one_restart(lost: TaskState) -> None:
    scene = restartable()
    scene.scheduling(tasks={"worker:1": lost})
    assert scene.phase is RunPhase.FORMING
    assert [each.cause for each in scene.view.restarts] == [Cause.PREEMPTED]


def test_a_job_that_failed_by_itself_is_only_submitted_again_by_a_policy_that_says_so() -> None:
    """No pyarrow, no interpreter: it would only come again."""
    scene = restartable()
    scene.scheduling(tasks={"worker:1": ABORTED})
    assert scene.phase is RunPhase.FAILED
    scene = restartable(on={Cause.TASK_FAILED: Action.RESTART})
    scene.scheduling(tasks={"worker:1": ABORTED})
    assert scene.phase is RunPhase.FORMING


@pytest.mark.parametrize("come", [(), ("worker:0",)])
def test_jobs_that_went_together_cost_one_restart_together(come: tuple[str, ...]) -> None:
    """Also one whose agent says so a little later: its driver answers both with another job."""
    scene = restartable(max_restarts=1)
    if come:
        scene.take_slots(*come)
    scene.scheduling(tasks={"worker:0": CRASHED, "worker:1": CRASHED})
    for name in come:
        scene.end(name, Cause.PREEMPTED)
    scene.scheduling(tasks={"worker:0": CRASHED, "worker:1": CRASHED}, restarts=0)
    assert scene.phase is RunPhase.FORMING
    assert len(scene.view.restarts) == 1


def test_the_jobs_of_after_a_restart_were_tried_again_before_they_are_told() -> None:
    """The driver does so three times for each restart."""
    scene = restartable()
    scene.scheduling(tasks={"worker:1": CRASHED})
    scene.scheduling(tasks={"worker:1": CRASHED}, restarts=1)
    assert scene.phase is RunPhase.FAILED


def test_a_cancelled_job_is_not_submitted_again_beside_one_that_is() -> None:
    """O1"""
    cancelled = TaskState(failed=True, message="Job 3 cancelled")
    scene = restartable()
    tasks = {"worker:0": CRASHED, "worker:1": cancelled}
    scene.scheduling(tasks=tasks)
    scene.scheduling(tasks=tasks, restarts=0)
    assert scene.phase is RunPhase.FAILED
    assert scene.view.failure is not None
    assert scene.view.failure.summary.endswith(
        "Job 3 cancelled (after 1 restart, 1 in a row without a new step or checkpoint)"
    )
