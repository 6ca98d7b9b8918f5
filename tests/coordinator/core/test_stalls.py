"""E5: alive but stuck. Who is late is asked where it stands, and one of them is named."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from coordinator.core import events
from coordinator.core.effects import DumpStack, Effect
from coordinator.core.errors import InvalidRun
from coordinator.core.model import Cause, Failure, Roles, RunPhase
from coordinator.core.policy import RestartPolicy
from coordinator.core.stall_timeouts import Section, StallTimeouts
from coordinator.core.stalls import ANSWER_TIMEOUT
from tests.coordinator.core.scene import Scene

OWN = 'Thread 0x1 (most recent call first):\n  File "/job/train.py", line 7 in load\n'
WAITING = (
    "Thread 0x1 (most recent call first):\n"
    '  File "/env/tensorflow/python/eager/execute.py", line 53 in quick_execute\n'
    '  File "/job/train.py", line 9 in train\n'
)


def scene_of(workers: int = 3, **timeouts: float | None) -> Scene:
    asked = StallTimeouts(**{"step": 60.0, **timeouts})
    scene = Scene(Roles(worker=workers), stall=asked)
    scene.form()
    return scene


def asked(effects: Iterable[Effect]) -> list[str]:
    return [str(each.member) for each in effects if isinstance(each, DumpStack)]


def stacks(scene: Scene, **by_name: str) -> None:
    for name, stack in by_name.items():
        scene.say(events.StackDumped, name.replace("_", ":"), stack)


def failure(scene: Scene) -> Failure:
    scene.stop_all()
    assert scene.view.failure is not None
    return scene.view.failure


def test_all_are_asked_and_the_one_whose_own_code_runs_is_blamed() -> None:
    """In a collective all are late, each by some milliseconds; the first of them says nothing."""
    scene = scene_of()
    for number, name in enumerate(scene.slots):
        scene.step(name, 4)
        scene.now += 0.01 * number
    assert asked(scene.wait(60.0)) == ["worker:0", "worker:1", "worker:2"]
    stacks(scene, worker_0=WAITING, worker_1=OWN)
    assert scene.phase is RunPhase.RUNNING
    stacks(scene, worker_2=WAITING)
    assert scene.phase is RunPhase.STOPPING
    found = failure(scene)
    assert (found.cause, str(found.member)) == (Cause.STALLED, "worker:1")
    assert "stuck: no progress for 60 s in section 'step' at step 4" in found.summary
    assert "it stands in train.py:7 (load)" in found.summary
    assert found.exit is not None
    assert found.exit.traceback == OWN
    assert (
        "worker:0: no progress either, section 'step' at step 4, in train.py:9" in found.others[0]
    )


def test_of_several_the_one_that_is_a_step_behind_is_blamed() -> None:
    scene = scene_of()
    for name, step in (("worker:0", 5), ("worker:1", 5), ("worker:2", 4)):
        scene.step(name, step)
    scene.wait(60.0)
    stacks(scene, worker_0=OWN, worker_1=WAITING, worker_2=WAITING)
    assert str(failure(scene).member) == "worker:2"


def test_who_goes_on_is_not_blamed_however_far_behind() -> None:
    """Under parameter servers each worker has its own pace."""
    scene = scene_of()
    scene.step("worker:0", 50)
    scene.wait(59.5)
    scene.step("worker:1", 3)
    scene.step("worker:2", 2)
    assert asked(scene.wait(1.0))[0] == "worker:0"
    stacks(scene, worker_0=WAITING, worker_1=OWN, worker_2=OWN)
    assert str(failure(scene).member) == "worker:0"


def test_who_never_reports_is_found_by_where_it_stands() -> None:
    scene = scene_of(2)
    scene.step("worker:0", 5)
    scene.wait(60.0)
    stacks(scene, worker_0=WAITING, worker_1=OWN)
    assert str(failure(scene).member) == "worker:1"


def test_a_late_evaluator_is_alone() -> None:
    scene = Scene(Roles(worker=1, evaluator=1), stall=StallTimeouts(evaluation=30.0))
    scene.form()
    scene.step("evaluator:0", 1, Section.EVALUATION)
    scene.wait(30.0)
    scene.say(events.StackDumped, "evaluator:0", WAITING)
    scene.say(events.StackDumped, "worker:0", OWN)
    assert str(scene.view.failure and scene.view.failure.member) == "evaluator:0"


def test_stacks_are_not_waited_for_longer_than_promised() -> None:
    scene = scene_of()
    scene.step("worker:0", 1)
    scene.wait(60.0)
    stacks(scene, worker_0="")
    assert scene.phase is RunPhase.RUNNING
    scene.wait(ANSWER_TIMEOUT)
    assert failure(scene).summary.endswith("its stack could not be had")


def test_a_member_that_moves_on_while_it_is_asked_is_not_blamed() -> None:
    scene = scene_of()
    scene.step("worker:0", 1)
    assert asked(scene.wait(60.0))
    scene.step("worker:0", 2)
    stacks(scene, worker_0=OWN, worker_1=OWN, worker_2=OWN)
    assert scene.phase is RunPhase.RUNNING
    assert not asked(scene.wait(59.0))
    assert asked(scene.wait(1.0))


def test_stacks_that_come_when_the_gang_restarts_already_change_nothing() -> None:
    """A member is killed while the others are asked."""
    scene = Scene(
        Roles(worker=2), stall=StallTimeouts(step=60.0), restart=RestartPolicy(max_restarts=1)
    )
    scene.form()
    scene.step("worker:0", 1)
    scene.wait(60.0)
    scene.end("worker:1", Cause.KILLED_BY_SIGNAL)
    assert scene.phase is RunPhase.RESTARTING
    stacks(scene, worker_0=OWN)
    scene.wait(ANSWER_TIMEOUT)
    assert scene.phase is RunPhase.RESTARTING
    scene.stop_all()
    assert [each.cause for each in scene.view.restarts] == [Cause.KILLED_BY_SIGNAL]
    scene.form_again()
    assert not asked(scene.wait(100.0))


def test_a_stall_is_restarted_as_other_failures_are() -> None:
    scene = Scene(
        Roles(worker=2), stall=StallTimeouts(step=60.0), restart=RestartPolicy(max_restarts=1)
    )
    scene.form()
    scene.step("worker:1", 1)
    scene.wait(60.0 + ANSWER_TIMEOUT)
    scene.stop_all()
    assert scene.phase is RunPhase.FORMING
    (restart,) = scene.view.restarts
    assert (restart.cause, str(restart.member)) == (Cause.STALLED, "worker:1")


@pytest.mark.parametrize(
    ("section", "patience"),
    [(Section.STEP, 60.0), (Section.CHECKPOINT, 300.0), (Section.EVALUATION, 600.0)],
)
def test_each_section_has_its_own_patience(section: Section, patience: float) -> None:
    scene = scene_of(1, checkpoint=300.0, evaluation=600.0)
    scene.step("worker:0", 1, section)
    assert not asked(scene.wait(patience - 1.0))
    assert asked(scene.wait(1.0)) == ["worker:0"]


def test_who_is_idle_or_has_not_begun_is_never_late() -> None:
    scene = scene_of(2)
    scene.step("worker:0", 1, Section.IDLE)
    assert not asked(scene.wait(10_000.0))


def test_the_start_has_a_time_only_when_one_is_set() -> None:
    scene = scene_of(1, start=30.0)
    assert asked(scene.wait(30.0)) == ["worker:0"]


def test_a_pause_of_the_coordinator_makes_nobody_late() -> None:
    """S4"""
    scene = scene_of(1)
    scene.step("worker:0", 1)
    scene.now += 1000.0
    scene.handle(events.CoordinatorPaused(1000.0))
    assert not asked(scene.wait(59.0))
    assert asked(scene.wait(1.0))


def test_an_unasked_stack_is_no_reason_for_anything() -> None:
    scene = scene_of(1)
    stacks(scene, worker_0=OWN)
    assert scene.phase is RunPhase.RUNNING


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_a_timeout_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(InvalidRun, match="stall timeout step"):
        StallTimeouts(step=seconds)


def test_nobody_can_set_the_time_of_the_start_in_the_belief_that_it_is_that_of_a_step() -> None:
    with pytest.raises(TypeError, match="positional"):
        StallTimeouts(60.0)  # type: ignore[misc]
