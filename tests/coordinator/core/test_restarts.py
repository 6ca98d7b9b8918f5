"""A failure becomes a restart of the gang (others: ``test_restarts_alone``)."""

from __future__ import annotations

import pytest

from coordinator.core import events
from coordinator.core.effects import Effect, Granted, Restarted, SendStop, StandBy
from coordinator.core.errors import StaleIncarnation
from coordinator.core.liveness import STOP_BOUND
from coordinator.core.model import (
    Cause,
    MemberPhase,
    Roles,
    RunPhase,
    TaskState,
)
from coordinator.core.policy import Action, RestartPolicy
from coordinator.core.restarts import KEPT_SUMMARY
from tests.coordinator.core.scene import Scene

KILLED = Cause.KILLED_BY_SIGNAL


def at_work(roles: Roles | None = None, max_restarts: int = 3, **policy: object) -> Scene:
    restart = RestartPolicy(max_restarts, **policy)  # type: ignore[arg-type]
    scene = Scene(roles or Roles(worker=2), restart=restart)
    scene.form()
    return scene


def fail_and_form(scene: Scene, which: str = "worker:1", cause: Cause = KILLED) -> None:
    scene.end(which, cause)
    scene.stop_all()
    scene.wait(RestartPolicy().max_backoff)
    scene.form_again()


def stops(effects: tuple[Effect, ...]) -> list[SendStop]:
    return [each for each in effects if isinstance(each, SendStop)]


# -- the gang --------------------------------------------------------------------------------------


def test_a_killed_member_costs_a_generation_and_not_the_run() -> None:
    """E2: the others are told that it goes on."""
    scene = at_work()
    (told,) = stops(scene.end("worker:1", KILLED, signal=9))
    assert (str(told.member), told.again) == ("worker:0", True)
    assert scene.phase is RunPhase.RESTARTING
    assert (scene.view.settled, scene.view.failure) == (False, None)
    effects = scene.end("worker:0", Cause.STOPPED)
    assert [each.restart.cause for each in effects if isinstance(each, Restarted)] == [KILLED]
    assert scene.phase is RunPhase.FORMING
    assert set(scene.phases().values()) == {MemberPhase.EXPECTED}
    scene.form_again()
    assert (scene.phase, scene.view.generation) == (RunPhase.RUNNING, 2)
    (restart,) = scene.view.restarts
    assert (restart.generation, str(restart.member), restart.host) == (1, "worker:1", "host")
    for name in ("worker:0", "worker:1"):
        scene.end(name)
    assert scene.phase is RunPhase.SUCCEEDED


def test_the_only_member_of_a_run_restarts_within_one_event() -> None:
    scene = at_work(Roles(worker=1))
    effects = scene.end("worker:0", KILLED)
    assert [type(each) for each in effects if isinstance(each, Restarted)] == [Restarted]
    assert scene.phase is RunPhase.FORMING


def test_who_comes_early_stands_by_and_who_was_there_before_never_comes_again() -> None:
    """R3"""
    scene = at_work()
    scene.end("worker:1", KILLED)
    (answer,) = scene.reserve("worker:1", "worker:1/2")
    assert isinstance(answer, StandBy)
    assert answer.delay < 1
    with pytest.raises(StaleIncarnation):
        scene.reserve("worker:1", "worker:1/1")
    scene.stop_all()
    with pytest.raises(StaleIncarnation):
        scene.reserve("worker:0", "worker:0/1")
    assert isinstance(scene.reserve("worker:1", "worker:1/2")[0], Granted)


def test_the_first_cause_decides_and_not_the_peer_that_complained_first() -> None:
    """E2"""
    scene = at_work()
    scene.end("worker:0", Cause.PEER_LOST)
    scene.end("worker:1", Cause.USER_EXCEPTION, exception_type="ValueError", message="no")
    assert scene.phase is RunPhase.FAILED
    assert scene.view.failure is not None
    assert scene.view.failure.cause is Cause.USER_EXCEPTION
    assert not scene.view.restarts


@pytest.mark.parametrize("on_peer_lost", list(Action))
def test_peer_lost_does_not_decide_whatever_the_policy_says_of_it(on_peer_lost: Action) -> None:
    scene = at_work(on={Cause.PEER_LOST: on_peer_lost})
    scene.end("worker:0", Cause.PEER_LOST)
    scene.end("worker:1", KILLED)
    assert scene.phase is RunPhase.FORMING
    assert [each.cause for each in scene.view.restarts] == [KILLED]


def test_the_failure_that_has_no_restart_left_tells_of_all_before() -> None:
    scene = at_work(max_restarts=2)
    for signal in (9, 11):
        scene.end("worker:1", KILLED, signal=signal)
        scene.stop_all()
        scene.wait(2.0)
        scene.form_again()
    scene.end("worker:1", KILLED, signal=6)
    scene.stop_all()
    failure = scene.view.failure
    assert scene.phase is RunPhase.FAILED
    assert failure is not None
    assert failure.summary.endswith(
        "killed by signal 6 (after 2 restarts, 2 in a row without a new step or checkpoint)"
    )
    assert [text.rpartition(" ")[2] for text in failure.others] == ["9", "11"]


def test_a_failure_after_progress_is_not_said_to_lack_it() -> None:
    scene = at_work()
    fail_and_form(scene)
    scene.step("worker:0", 5)
    scene.end("worker:0", Cause.USER_EXCEPTION, exception_type="ValueError")
    scene.stop_all()
    assert scene.view.failure is not None
    assert scene.view.failure.summary.endswith("(after 1 restart)")


def test_a_cause_that_is_not_restarted_ends_the_run_in_any_generation() -> None:
    scene = at_work()
    fail_and_form(scene)
    (told,) = stops(scene.end("worker:1", Cause.USER_EXCEPTION, exception_type="ValueError"))
    assert not told.again
    scene.stop_all()
    assert scene.phase is RunPhase.FAILED


# -- the budget ------------------------------------------------------------------------------------


def test_a_new_step_refills_the_budget_and_an_old_one_does_not() -> None:
    scene = at_work(max_restarts=1)
    scene.step("worker:0", 10)
    fail_and_form(scene)
    scene.step("worker:0", 11)
    fail_and_form(scene)
    scene.step("worker:0", 11)
    scene.end("worker:0", KILLED)
    scene.stop_all()
    assert scene.phase is RunPhase.FAILED
    assert scene.view.restart_count == 2


def test_a_newer_checkpoint_refills_it_too_also_when_other_metrics_come_after_it() -> None:
    scene = at_work(max_restarts=1)
    for number in (1.0, 2.0):
        scene.step("worker:0", 0, **{"checkpoint/saved_at": 1000.0 + number})
        scene.step("worker:0", 0, loss=0.5)
        fail_and_form(scene)
    assert scene.phase is RunPhase.RUNNING


def test_who_saves_and_never_restores_gets_no_further() -> None:
    scene = at_work(max_restarts=1)
    scene.step("worker:0", 3, **{"checkpoint/saved_at": 1001.0})
    fail_and_form(scene)
    scene.step("worker:0", 3, **{"checkpoint/saved_at": 1002.0})
    scene.end("worker:0", KILLED)
    scene.stop_all()
    assert scene.phase is RunPhase.FAILED


def test_without_refill_all_restarts_count() -> None:
    scene = at_work(max_restarts=2, progress_refills=False)
    for step in (1, 2):
        scene.step("worker:0", step)
        fail_and_form(scene)
    scene.step("worker:0", 3)
    scene.end("worker:0", KILLED)
    scene.stop_all()
    assert scene.phase is RunPhase.FAILED


def test_the_second_restart_in_a_row_waits_and_is_then_due_without_any_event() -> None:
    scene = at_work(backoff=8.0)
    fail_and_form(scene)
    scene.end("worker:1", KILLED)
    scene.stop_all()
    assert scene.phase is RunPhase.RESTARTING
    assert scene.view.restart_at == scene.now + 8.0
    scene.wait(7.0)
    assert scene.phase is RunPhase.RESTARTING
    scene.wait(1.0)
    assert scene.phase is RunPhase.FORMING


# -- the lost --------------------------------------------------------------------------------------


def test_a_lost_member_is_fenced_before_the_next_generation_forms() -> None:
    """R3: until then it may still write. Nothing spins meanwhile (``Scene.wait``)."""
    scene = at_work()
    scene.wait(scene.spec.liveness_ttl, beating={"worker:0"})
    assert scene.phase is RunPhase.RESTARTING
    scene.stop_all()
    assert scene.phases() == {"worker:0": MemberPhase.STOPPED, "worker:1": MemberPhase.LOST}
    assert scene.view.restart_count == 1
    wait = scene.spec.fence_timeout + STOP_BOUND - scene.spec.liveness_ttl
    scene.wait(wait - 1.0)
    assert scene.phase is RunPhase.RESTARTING
    scene.wait(1.0)
    assert scene.phase is RunPhase.FORMING


def test_the_proof_of_a_lost_member_shortens_the_wait_and_changes_nothing_else() -> None:
    scene = at_work()
    scene.wait(scene.spec.liveness_ttl, beating={"worker:0"})
    scene.stop_all()
    scene.end("worker:1", Cause.USER_EXCEPTION)
    assert scene.phase is RunPhase.FORMING
    assert [each.cause for each in scene.view.restarts] == [Cause.LOST_CONTACT]


def test_a_fenced_member_that_speaks_again_is_told_to_stop_for_good() -> None:
    scene = at_work()
    scene.wait(scene.spec.liveness_ttl, beating={"worker:0"})
    scene.stop_all()
    scene.wait(scene.spec.fence_timeout + STOP_BOUND)
    (told,) = stops(scene.say(events.SessionOpened, "worker:1"))
    assert (told.reason, told.again) == ("fenced", False)
    assert scene.step("worker:1", 1000) == ()
    assert scene.member("worker:1").step == 0


# -- somebody wants the end ------------------------------------------------------------------------


@pytest.mark.parametrize("owner", [True, False])
@pytest.mark.parametrize("during", ["stopping", "backoff", "forming"])
def test_a_stop_during_a_restart_cancels_the_run(during: str, owner: bool) -> None:
    """O1, O13"""
    scene = at_work(backoff=8.0)
    fail_and_form(scene)
    scene.end("worker:1", KILLED)
    if during != "stopping":
        scene.stop_all()
    if during == "forming":
        scene.wait(8.0)
        scene.another_attempt("worker:0")
        scene.reserve("worker:0")
    if owner:
        scene.handle(events.OwnerLost(scene.run_id, "the driver is gone"))
    else:
        scene.stop()
    scene.stop_all()
    assert scene.phase is RunPhase.CANCELLED
    assert scene.view.failure is None
    assert scene.view.restart_at is None


def test_an_owner_that_stays_away_during_the_backoff_ends_the_run() -> None:
    policy = RestartPolicy(3, backoff=600.0, max_backoff=600.0)
    scene = Scene(restart=policy, owner_timeout=30.0)
    scene.handle(events.OwnerCame(scene.run_id))
    scene.form()
    fail_and_form(scene)
    scene.handle(events.OwnerLeft(scene.run_id))
    scene.end("worker:1", KILLED)
    scene.stop_all()
    scene.wait(31.0)
    assert scene.phase is RunPhase.CANCELLED


def test_a_restart_that_was_called_off_in_its_backoff_is_said_to_be() -> None:
    scene = at_work(backoff=8.0)
    fail_and_form(scene)
    scene.end("worker:1", KILLED, signal=9)
    scene.stop_all()
    scene.stop(reason="the user\nhas seen enough")
    assert scene.phase is RunPhase.CANCELLED
    first, last = (each.summary for each in scene.view.restarts)
    assert "called off" not in first
    assert last.endswith(
        "was killed by signal 9 (this restart was called off: the user has seen enough)"
    )
    assert scene.view.restart_count == 2, "it never falls"


def test_a_stop_before_the_verdict_calls_nothing_off() -> None:
    scene = at_work()
    fail_and_form(scene)
    scene.end("worker:1", KILLED)
    scene.stop()
    scene.stop_all()
    (restart,) = scene.view.restarts
    assert "called off" not in restart.summary


def test_a_cause_of_any_length_leaves_room_for_why_its_restart_was_called_off() -> None:
    """The last restart is also the only one here: none has taken place, so none is counted."""
    scene = at_work(roles=Roles(worker=1), on={Cause.USER_EXCEPTION: Action.RESTART})
    scene.wait(scene.spec.liveness_ttl, beating=())
    summary = scene.view.restarts[0].summary
    scene.scheduling(
        tasks={"worker:0": TaskState(failed=True, message=f"{CANCELLED[0]} {'x' * 5000}")}
    )
    scene.wait(scene.spec.fence_timeout + STOP_BOUND, beating=())
    assert scene.phase is RunPhase.FAILED
    (restart,) = scene.view.restarts
    assert restart.summary.startswith(f"{summary} (this restart was called off: ")
    assert len(restart.summary) <= KEPT_SUMMARY
    failure = scene.view.failure
    assert failure is not None
    assert "(after" not in failure.summary
    assert failure.others[-1].endswith(restart.summary), "the restarts come last"


CANCELLED = [
    "Job 3 cancelled",
    "org.apache.spark.SparkException: Job 3 cancelled part of cancelled job group tflease",
    "Job 3 cancelled because Stage 5 was cancelled",
    "Job cancelled because SparkContext was shut down",
]


@pytest.mark.parametrize("message", CANCELLED)
@pytest.mark.parametrize("killed_first", [True, False])
def test_a_cancelled_job_ends_the_run_whichever_is_seen_first(
    message: str, killed_first: bool
) -> None:
    """O1: the driver's word may be of before the restart that its own kill has caused."""
    scene = at_work()
    tasks = {"worker:1": TaskState(failed=True, message=message)}
    if killed_first:
        scene.end("worker:1", Cause.PREEMPTED)
    scene.scheduling(tasks=tasks, restarts=0)
    scene.stop_all()
    assert scene.phase is RunPhase.FAILED
    assert scene.view.failure is not None
    assert message in scene.view.failure.summary


@pytest.mark.parametrize("after", ["the verdict", "the reform"])
def test_a_cancelled_job_ends_a_run_that_was_to_restart_already(after: str) -> None:
    scene = at_work(backoff=8.0)
    fail_and_form(scene)
    scene.end("worker:1", Cause.PREEMPTED)
    scene.stop_all()
    scene.wait(8.0 if after == "the reform" else 1.0)
    scene.scheduling(tasks={"worker:1": TaskState(failed=True, message=CANCELLED[0])}, restarts=1)
    assert scene.phase is RunPhase.FAILED
    assert scene.view.failure is not None
    assert CANCELLED[0] in scene.view.failure.summary


def test_a_job_that_spark_gave_up_is_restarted_and_its_old_word_is_not_heard_again() -> None:
    scene = at_work()
    failed = {"worker:1": TaskState(failed=True, message="Job aborted due to stage failure")}
    scene.scheduling(tasks=failed)
    scene.stop_all()
    assert scene.phase is RunPhase.FORMING
    scene.scheduling(tasks=failed, restarts=0)
    assert scene.phase is RunPhase.FORMING
    scene.scheduling(tasks=failed)
    assert scene.phase is RunPhase.FAILED
