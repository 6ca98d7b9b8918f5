"""How runs end: in order, with the first cause, and always."""

from __future__ import annotations

import pytest

from coordinator.core import events
from coordinator.core.effects import SendStop
from coordinator.core.liveness import STOP_BOUND
from coordinator.core.model import Cause, MemberPhase, Role, Roles, RunPhase
from tests.coordinator.core.scene import Scene, told_to_start, told_to_stop

FULL = Roles(chief=1, worker=2, ps=1, evaluator=1)


def failure_of(scene: Scene) -> tuple[str, Cause]:
    failure = scene.view.failure
    assert failure is not None
    return str(failure.member), failure.cause


def test_the_end_goes_stage_by_stage_trainers_evaluator_ps() -> None:
    """E6"""
    scene = Scene(FULL)
    scene.form()
    assert told_to_stop(scene.end("chief:0")) == ["worker:0", "worker:1"]
    assert told_to_stop(scene.end("worker:0", Cause.STOPPED)) == []
    assert told_to_stop(scene.end("worker:1", Cause.STOPPED)) == ["evaluator:0"]
    assert told_to_stop(scene.end("evaluator:0", Cause.STOPPED)) == ["ps:0"]
    scene.end("ps:0", Cause.STOPPED)
    assert scene.phase is RunPhase.SUCCEEDED


def test_without_ps_the_run_waits_for_chief_and_all_workers() -> None:
    """E6"""
    scene = Scene(Roles(chief=1, worker=2))
    scene.form()
    scene.end("chief:0")
    scene.end("worker:1")
    assert scene.phase is RunPhase.RUNNING
    scene.end("worker:0")
    assert scene.phase is RunPhase.SUCCEEDED


def test_a_failure_of_a_bystander_after_completion_does_not_change_the_outcome() -> None:
    scene = Scene(FULL)
    scene.form()
    scene.end("chief:0")
    scene.end("worker:0", Cause.PEER_LOST)
    scene.end("worker:1", Cause.KILLED_BY_SIGNAL, signal=9)
    scene.end("evaluator:0", Cause.USER_EXCEPTION)
    scene.end("ps:0", Cause.STOPPED)
    assert scene.phase is RunPhase.SUCCEEDED
    assert scene.view.failure is None


def test_who_does_not_leave_in_time_is_lost_and_the_next_stage_goes_on() -> None:
    """E6"""
    scene = Scene(Roles(chief=1, worker=1, ps=1))
    scene.form()
    scene.end("chief:0")
    assert told_to_stop(scene.wait(5 + STOP_BOUND - 1)) == []
    assert told_to_stop(scene.wait(1)) == ["ps:0"]
    assert scene.phases()["worker:0"] is MemberPhase.LOST
    assert scene.member("worker:0").exit is not None


def test_a_lost_peer_decides_nothing_until_the_culprit_shows() -> None:
    """E2"""
    scene = Scene(Roles(worker=3))
    scene.form()
    effects = scene.end("worker:0", Cause.PEER_LOST)
    assert told_to_stop(effects) == []
    assert scene.phase is RunPhase.STOPPING
    scene.wait(1)
    effects = scene.end("worker:2", Cause.OUT_OF_MEMORY)
    assert told_to_stop(effects) == ["worker:1"]
    scene.end("worker:1", Cause.PEER_LOST)
    assert scene.phase is RunPhase.FAILED
    assert failure_of(scene) == ("worker:2", Cause.OUT_OF_MEMORY)
    assert scene.view.failure is not None
    assert len(scene.view.failure.others) == 2


def test_a_culprit_on_a_dead_host_is_found_by_its_silence() -> None:
    """E2"""
    scene = Scene(Roles(worker=3))
    scene.form()
    scene.end("worker:0", Cause.PEER_LOST)
    scene.wait(15, beating=["worker:1"])
    scene.end("worker:1", Cause.STOPPED)
    assert scene.view.settled
    assert failure_of(scene) == ("worker:2", Cause.LOST_CONTACT)
    assert scene.phase is RunPhase.STOPPING, "its fence has not come"
    scene.wait(125, beating=[])
    assert scene.phase is RunPhase.FAILED


def test_a_culprit_that_never_shows_is_a_hang_and_what_the_stop_does_is_no_cause() -> None:
    """E2, E5"""
    scene = Scene(Roles(worker=2))
    scene.form()
    scene.end("worker:0", Cause.PEER_LOST)
    assert told_to_stop(scene.wait(14)) == []
    assert told_to_stop(scene.wait(1)) == ["worker:1"]
    scene.end("worker:1", Cause.KILLED_BY_SIGNAL, signal=9)
    assert failure_of(scene) == ("worker:0", Cause.PEER_LOST)
    assert scene.view.failure is not None
    assert "one may hang" in scene.view.failure.summary


def test_the_cause_that_ended_the_run_outranks_a_member_lost_earlier_while_forming() -> None:
    """E2: a lost one was being replaced; the run ended for another reason."""
    scene = Scene(Roles(worker=2))
    scene.take_slots()
    scene.wait(140, beating=["worker:1"])
    assert scene.phases()["worker:0"] is MemberPhase.FENCED
    scene.end("worker:1", Cause.PRELOAD_FAILED, message="cannot import")
    assert scene.phase is RunPhase.FAILED
    assert failure_of(scene) == ("worker:1", Cause.PRELOAD_FAILED)
    assert scene.view.stop_reason == "worker:1 failed: preload failed"


def test_a_stop_while_forming_ends_at_once_what_has_not_begun() -> None:
    """R2"""
    scene = Scene(Roles(worker=2))
    scene.reserve("worker:0")
    (stop,) = [effect for effect in scene.stop() if isinstance(effect, SendStop)]
    assert stop.grace == 0.0, "a process that has not begun needs no time"
    assert scene.phases()["worker:1"] is MemberPhase.STOPPED
    scene.end("worker:0", Cause.STOPPED)
    assert scene.phase is RunPhase.CANCELLED


def test_members_that_get_ready_after_the_stop_do_not_start() -> None:
    """R2: "ready" and "stop" cross on the wire."""
    scene = Scene(Roles(worker=2))
    scene.take_slots()
    scene.stop()
    assert scene.ready("worker:0") != ()
    assert told_to_start(scene.ready("worker:1")) == []
    assert scene.phase is RunPhase.STOPPING


def test_a_stop_of_a_run_without_members_is_its_end() -> None:
    scene = Scene(FULL)
    scene.stop()
    assert scene.phase is RunPhase.CANCELLED
    assert scene.machine.next_deadline() == float("inf")


def test_a_second_stop_hurries_those_who_were_told_already() -> None:
    scene = Scene(Roles(worker=2), grace={Role.WORKER: 300.0})
    scene.form()
    assert told_to_stop(scene.stop()) == ["worker:0", "worker:1"]
    scene.end("worker:0", Cause.STOPPED)
    hurried = [effect for effect in scene.stop(grace=1.0) if isinstance(effect, SendStop)]
    assert [(str(stop.member), stop.grace) for stop in hurried] == [("worker:1", 1.0)]
    scene.wait(1 + STOP_BOUND)
    assert scene.phases()["worker:1"] is MemberPhase.LOST


def test_a_second_stop_never_gives_more_time() -> None:
    scene = Scene(Roles(worker=1), grace={Role.WORKER: 10.0})
    scene.form()
    scene.stop(grace=2.0)
    assert told_to_stop(scene.stop(grace=9.0)) == []
    assert told_to_stop(scene.stop()) == []
    scene.wait(2 + STOP_BOUND)
    assert scene.phases()["worker:0"] is MemberPhase.LOST


def test_a_stop_does_not_hurry_the_search_for_the_culprit() -> None:
    """E2"""
    scene = Scene(Roles(worker=2))
    scene.form()
    scene.end("worker:0", Cause.PEER_LOST)
    assert told_to_stop(scene.stop(grace=0.0)) == []
    scene.end("worker:1", Cause.USER_EXCEPTION)
    assert scene.phase is RunPhase.FAILED
    assert failure_of(scene) == ("worker:1", Cause.USER_EXCEPTION)


def test_a_lost_member_that_comes_back_to_an_ending_run_is_told_to_stop() -> None:
    """O13: its beats are acknowledged again, so it would never fence itself."""
    scene = Scene(Roles(worker=2))
    scene.form()
    effects = scene.wait(15, beating=["worker:0"])
    assert told_to_stop(effects) == ["worker:0", "worker:1"], "its stream may be open still"
    assert told_to_stop(scene.say(events.SessionOpened, "worker:1")) == ["worker:1"]
    scene.end("worker:1", Cause.STOPPED)
    scene.end("worker:0", Cause.STOPPED)
    assert scene.phase is RunPhase.FAILED


def test_a_lost_ps_that_comes_back_is_not_stopped_before_its_stage() -> None:
    """E6"""
    scene = Scene(Roles(chief=1, worker=1, ps=1), grace={Role.WORKER: 60.0})
    scene.form()
    scene.end("chief:0")
    scene.wait(20, beating=["worker:0"])
    assert scene.phases()["ps:0"] is MemberPhase.LOST
    assert told_to_stop(scene.say(events.SessionOpened, "ps:0")) == []
    assert told_to_stop(scene.end("worker:0", Cause.STOPPED)) == ["ps:0"]
    scene.end("ps:0", Cause.STOPPED)
    assert scene.phase is RunPhase.SUCCEEDED


def test_a_lost_member_that_beats_again_does_not_put_off_its_fence() -> None:
    scene = Scene(Roles(worker=2))
    scene.form()
    scene.wait(15, beating=["worker:0"])
    scene.end("worker:0", Cause.STOPPED)
    scene.wait(125, beating=["worker:1"])
    assert scene.phase is RunPhase.FAILED


def test_a_member_lost_at_a_stages_deadline_is_not_fenced_in_the_same_breath() -> None:
    """Two deadlines in one tick: the first member's end must not fence the second."""
    scene = Scene(Roles(worker=2), beat_interval=1.0, liveness_ttl=20.0)
    scene.form()
    scene.wait(5)
    scene.stop()  # grace 5 s: the stage ends at 30 s, worker:0's silence at 25 s
    scene.now = 12.0
    scene.beat("worker:1")
    scene.now = 32.0  # a late tick: both are silent, and the stage is over
    scene.handle(events.TimePassed())
    assert scene.phases() == {"worker:0": MemberPhase.LOST, "worker:1": MemberPhase.LOST}
    assert scene.phase is RunPhase.STOPPING


def test_of_two_silent_members_the_longer_silent_is_blamed_and_neither_for_our_stop() -> None:
    """E2: one late tick finds both."""
    scene = Scene(Roles(worker=2))
    scene.form()
    scene.now = 1.0
    scene.beat("worker:0")
    scene.now = 17.0
    scene.handle(events.TimePassed())
    assert failure_of(scene) == ("worker:1", Cause.LOST_CONTACT)
    assert scene.view.settled


def test_who_is_silent_when_its_stage_comes_was_so_before_it_was_told() -> None:
    """E2: the ps behind a hang goes dark in the very tick that stops it."""
    scene = Scene(Roles(chief=1, worker=1, ps=1))
    scene.form()
    scene.end("chief:0", Cause.PEER_LOST)
    scene.wait(15)  # nobody shows: worker:0 is told to stop
    scene.now = 31.0  # worker:0 and ps:0 have both been silent for 16 s
    scene.handle(events.TimePassed())
    assert failure_of(scene) == ("ps:0", Cause.LOST_CONTACT)


def test_after_a_timeout_all_slots_are_given_back() -> None:
    """R1, R2"""
    scene = Scene(Roles(worker=2), reservation_timeout=30.0)
    scene.take_slots("worker:0")
    scene.ready("worker:0")
    assert told_to_stop(scene.wait(30)) == ["worker:0"]
    assert scene.phases()["worker:1"] is MemberPhase.STOPPED
    scene.end("worker:0", Cause.STOPPED)
    assert scene.phase is RunPhase.FAILED
    assert scene.view.failure is not None
    assert scene.view.failure.summary == (
        "the members were not all running within 30 s. Waiting for worker:1: task not scheduled"
    )


def test_the_owner_gone_cancels_the_run() -> None:
    """O13"""
    scene = Scene(Roles(worker=1, ps=1))
    scene.form()
    effects = scene.handle(events.OwnerLost(scene.run_id, "the driver is gone"))
    assert told_to_stop(effects) == ["worker:0"]
    assert told_to_stop(scene.end("worker:0", Cause.STOPPED)) == ["ps:0"]
    scene.end("ps:0", Cause.STOPPED)
    assert scene.phase is RunPhase.CANCELLED
    assert scene.view.stop_reason == "the driver is gone"
    assert scene.view.failure is None


def test_a_pause_during_the_end_extends_the_stage() -> None:
    scene = Scene(Roles(worker=1))
    scene.form()
    scene.stop()
    scene.now = 100.0
    scene.handle(events.CoordinatorPaused(100.0))
    scene.handle(events.TimePassed())
    assert scene.phases()["worker:0"] is MemberPhase.RUNNING
    scene.wait(25)
    assert scene.phases()["worker:0"] is MemberPhase.LOST


@pytest.mark.parametrize("roles", [Roles(worker=1), Roles(worker=2, ps=1), FULL])
def test_in_silence_every_run_ends(roles: Roles) -> None:
    """R1"""
    scene = Scene(roles)
    scene.form()
    scene.wait(1000, beating=[])
    assert scene.phase is RunPhase.FAILED
    assert scene.machine.next_deadline() == float("inf")


def test_nothing_changes_a_run_that_has_ended() -> None:
    scene = Scene(Roles(worker=1))
    scene.form()
    scene.end("worker:0")
    before = scene.view
    scene.stop()
    scene.handle(events.OwnerLost(scene.run_id, "gone"))
    scene.end("worker:0", Cause.USER_EXCEPTION)
    scene.beat("worker:0")
    scene.ready("worker:0")
    scene.scheduling()
    scene.wait(1000)
    assert scene.view == before
    assert told_to_stop(scene.say(events.SessionOpened, "worker:0")) == ["worker:0"]
