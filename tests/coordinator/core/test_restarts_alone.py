"""Restarts of one member alone: before the start, and under parameter servers; and of GPUs."""

from __future__ import annotations

import pytest

from coordinator.core.effects import Effect, Granted, SendStart, StandBy
from coordinator.core.errors import RunOver, StaleIncarnation
from coordinator.core.gpu import LeaseState
from coordinator.core.liveness import STOP_BOUND
from coordinator.core.model import (
    Cause,
    Endpoint,
    MemberPhase,
    Role,
    Roles,
    RunPhase,
    TaskState,
)
from coordinator.core.policy import Action, RestartPolicy
from coordinator.core.restarts import AVOID_SECONDS
from tests.coordinator.core.gpu_scene import GpuScene, busy, claims, free, inspections
from tests.coordinator.core.scene import Scene, executor, told_to_start, told_to_stop
from tests.coordinator.core.test_restarts import KILLED, at_work, fail_and_form

PS = Roles(chief=1, worker=2, ps=1)

# -- while it forms --------------------------------------------------------------------------------


def forming(max_restarts: int = 2, backoff: float = 0.0) -> Scene:
    scene = Scene(restart=RestartPolicy(max_restarts, backoff=backoff))
    scene.take_slots()
    return scene


@pytest.mark.parametrize("by_spark", [True, False])
def test_a_failure_before_the_start_costs_nobody_else_anything(by_spark: bool) -> None:
    scene = forming()
    report = scene.task_returns if by_spark else scene.end
    assert told_to_stop(report("worker:1", KILLED)) == []
    assert scene.phases() == {"worker:0": MemberPhase.RESERVED, "worker:1": MemberPhase.EXPECTED}
    (restart,) = scene.view.restarts
    assert (restart.alone, restart.generation) == (True, 0)
    scene.another_attempt("worker:1")
    scene.reserve("worker:1")
    scene.ready("worker:0")
    assert told_to_start(scene.ready("worker:1")) == ["worker:0", "worker:1"]


def test_failures_before_the_start_end_with_the_budget() -> None:
    scene = forming(max_restarts=2)
    for _ in range(2):
        scene.end("worker:1", KILLED)
        scene.another_attempt("worker:1")
        scene.reserve("worker:1")
    scene.end("worker:1", KILLED)
    scene.stop_all()
    assert scene.phase is RunPhase.FAILED


def test_the_second_in_a_row_waits_before_the_start_too_and_never_past_half_of_the_time() -> None:
    scene = forming(backoff=8.0)
    for _ in range(2):
        scene.end("worker:1", KILLED)
        scene.another_attempt("worker:1")
        (answer, *_) = scene.reserve("worker:1")
    assert isinstance(answer, StandBy)
    scene.wait(8.0)
    assert isinstance(scene.reserve("worker:1")[0], Granted)


def test_an_agent_that_had_fenced_itself_before_the_start_is_replaced() -> None:
    """Its task returns, and nobody else would ever come."""
    scene = forming()
    scene.end("worker:1", Cause.STOPPED)
    scene.task_returns("worker:1", Cause.STOPPED)
    assert scene.phase is RunPhase.FORMING
    assert [each.cause for each in scene.view.restarts] == [Cause.LOST_CONTACT]


def test_a_member_killed_while_the_next_generation_forms_is_replaced() -> None:
    scene = at_work(backoff=0.0)
    scene.end("worker:1", KILLED)
    scene.stop_all()
    for name in scene.slots:
        scene.another_attempt(name)
        scene.reserve(name)
    scene.end("worker:0", Cause.OUT_OF_MEMORY)
    assert scene.phase is RunPhase.FORMING
    scene.another_attempt("worker:0")
    scene.reserve("worker:0")
    for name in scene.slots:
        scene.ready(name)
    assert (scene.phase, scene.view.generation) == (RunPhase.RUNNING, 2)


def test_late_words_of_an_old_generation_change_nothing() -> None:
    scene = at_work()
    fail_and_form(scene)
    with pytest.raises(StaleIncarnation):
        scene.end("worker:1", KILLED, attempt="worker:1/1")
    assert scene.task_returns("worker:1", KILLED, attempt="worker:1/1") == ()
    assert scene.end("worker:1", KILLED, generation=1) == ()
    assert scene.phase is RunPhase.RUNNING


def test_a_task_that_returns_between_generations_fails_nobody() -> None:
    """The driver answers it with another job."""
    scene = at_work()
    scene.end("worker:1", KILLED)
    scene.stop_all()
    scene.task_returns("worker:1", KILLED)
    scene.task_returns("worker:0", Cause.STOPPED)
    assert scene.phase is RunPhase.FORMING


@pytest.mark.parametrize("other", ["good", "bad"])
def test_a_host_that_failed_twice_is_left_alone_for_a_while_if_there_is_another(other: str) -> None:
    scene = Scene(restart=RestartPolicy(3, backoff=0.0))
    scene.reserve("worker:0", on=executor(other))
    for _ in range(2):
        assert isinstance(scene.reserve("worker:1", on=executor("bad"))[0], Granted)
        scene.end("worker:1", KILLED)
        scene.another_attempt("worker:1")
    (answer, *_) = scene.reserve("worker:1", on=executor("bad"))
    assert isinstance(answer, StandBy) == (other == "good")
    told = any("has failed repeatedly: another host" in line for line in scene.view.diagnosis)
    assert told == (other == "good")
    scene.wait(AVOID_SECONDS)
    assert isinstance(scene.reserve("worker:1", on=executor("bad"))[0], Granted)


# -- a worker under parameter servers --------------------------------------------------------------


def comes_back(scene: Scene, which: str = "worker:1", host: str = "10.0.0.1") -> tuple[Effect, ...]:
    known = scene.member(which).endpoint
    assert known is not None
    scene.another_attempt(which)
    return scene.reserve(which, endpoint=Endpoint(host, known.port))


def test_a_worker_under_parameter_servers_comes_back_alone_at_its_address() -> None:
    scene = at_work(PS, backoff=0.0)
    for _ in range(2):
        assert told_to_stop(scene.end("worker:1", KILLED)) == []
        assert scene.phase is RunPhase.RUNNING
        comes_back(scene)
        (start,) = [each for each in scene.ready("worker:1") if isinstance(each, SendStart)]
        assert (str(start.member), start.generation) == ("worker:1", 1)
        scene.enter("worker:1")
    assert [each.alone for each in scene.view.restarts] == [True, True]
    scene.end("chief:0")
    scene.stop_all()
    scene.stop_all()
    assert scene.phase is RunPhase.SUCCEEDED


@pytest.mark.parametrize("who", ["ps:0", "chief:0"])
def test_a_lost_ps_or_chief_restarts_the_gang(who: str) -> None:
    scene = at_work(PS)
    scene.end(who, KILLED)
    assert scene.phase is RunPhase.RESTARTING


def test_a_worker_that_lost_its_ps_is_not_restarted_alone() -> None:
    """E2: one failure costs one restart, also when its victim is seen first."""
    scene = at_work(PS, max_restarts=1)
    scene.end("worker:1", Cause.PEER_LOST)
    assert scene.phase is RunPhase.RESTARTING
    scene.end("ps:0", KILLED)
    scene.stop_all()
    assert scene.phase is RunPhase.FORMING
    assert [str(each.member) for each in scene.view.restarts] == ["ps:0"]


def test_a_worker_that_comes_back_elsewhere_restarts_the_gang_for_the_same_price() -> None:
    scene = at_work(PS, max_restarts=1)
    scene.end("worker:1", KILLED, signal=9)
    (answer, *_) = comes_back(scene, host="10.0.0.2")
    assert isinstance(answer, StandBy)
    assert scene.phase is RunPhase.RESTARTING
    scene.stop_all()
    scene.stop_all()
    assert scene.phase is RunPhase.FORMING
    (restart,) = scene.view.restarts
    assert (restart.alone, restart.cause, scene.view.restart_count) == (False, KILLED, 2)
    assert "killed by signal 9; worker:1 comes back at 10.0.0.2" in restart.summary
    scene.form_again()
    assert scene.view.generation == 2


def test_the_chief_fails_while_a_worker_comes_back() -> None:
    scene = at_work(PS)
    scene.end("worker:1", KILLED)
    comes_back(scene)
    scene.end("chief:0", KILLED)
    assert scene.phase is RunPhase.RESTARTING
    scene.stop_all()
    scene.stop_all()
    scene.wait(2.0)
    assert scene.phase is RunPhase.FORMING
    scene.form_again()
    assert scene.view.generation == 2


def test_the_run_completes_while_a_worker_comes_back() -> None:
    scene = at_work(PS)
    scene.end("worker:1", KILLED)
    scene.end("chief:0")
    assert scene.member("worker:1").phase is MemberPhase.STOPPED
    with pytest.raises(RunOver):
        comes_back(scene)
    scene.stop_all()
    scene.stop_all()
    assert scene.phase is RunPhase.SUCCEEDED


def test_a_worker_that_does_not_come_back_is_not_waited_for_for_ever() -> None:
    scene = at_work(PS)
    scene.end("worker:1", KILLED)
    scene.wait(scene.spec.reservation_timeout)
    assert scene.phase is RunPhase.RESTARTING


def test_a_worker_whose_jobs_all_failed_is_not_waited_for() -> None:
    """R1"""
    scene = at_work(PS)
    scene.end("worker:1", KILLED)
    scene.scheduling(tasks={"worker:1": TaskState(failed=True, message="no executor")})
    scene.stop_all()
    scene.stop_all()
    assert scene.view.failure is not None
    assert scene.view.failure.summary.startswith("Spark gave up the task of worker:1: no executor")


def test_a_worker_that_counts_or_that_the_policy_binds_to_the_gang_is_not_alone() -> None:
    counting = Scene(PS, restart=RestartPolicy(3), completion=frozenset({Role.WORKER}))
    bound = Scene(PS, restart=RestartPolicy(3, on={KILLED: Action.RESTART_GANG}))
    fed = Scene(PS, restart=RestartPolicy(3, alone=False))
    for scene in (counting, bound, fed):
        scene.form()
        scene.end("worker:1", KILLED)
        assert scene.phase is RunPhase.RESTARTING


# -- GPUs ------------------------------------------------------------------------------------------


def gpus_at_work() -> GpuScene:
    scene = GpuScene({"worker:0": "a", "worker:1": "b"}, restart=RestartPolicy(3))
    scene.start()
    return scene


def next_claims(scene: GpuScene) -> list[str]:
    for one in scene.slots:
        scene.another_attempt(one)
    return list(claims(scene.all_ready()))


def test_the_next_generation_asks_anew_for_gpus_that_the_last_one_has_proven_free() -> None:
    scene = gpus_at_work()
    old = {uuid: scene.gpu(uuid).token for uuid in "ab"}
    scene.end("worker:1", KILLED, gpus=(free("b"),))
    scene.end("worker:0", Cause.STOPPED, gpus=(free("a"),))
    assert set(scene.states().values()) == {LeaseState.FREE}
    assert next_claims(scene) == ["worker:0", "worker:1"]
    assert set(scene.states().values()) == {LeaseState.HELD}
    assert not {scene.gpu(uuid).token for uuid in "ab"} & set(old.values())


def test_a_gpu_of_a_fenced_member_is_granted_when_it_is_proven_free_and_not_before() -> None:
    """G1: the fence is a promise, not a look."""
    scene = gpus_at_work()
    scene.wait(scene.spec.liveness_ttl, beating={"worker:0"})
    scene.end("worker:0", Cause.STOPPED, gpus=(free("a"),))
    scene.wait(scene.spec.fence_timeout + STOP_BOUND)
    assert scene.phase is RunPhase.FORMING
    assert scene.gpu("b").state is not LeaseState.FREE
    for one in scene.slots:
        scene.another_attempt(one)
    scene.reserve("worker:0")
    scene.reserve("worker:1", sights=[busy("b", "its last holder", 77)])
    done = [effect for one in scene.slots for effect in scene.ready(one)]
    assert not claims(done)
    (look,) = inspections(done)
    assert list(claims(scene.inspected(look, free("b")))) == ["worker:0", "worker:1"]
