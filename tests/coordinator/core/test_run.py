"""A run from its first reservation to a gang at work."""

from __future__ import annotations

import pytest

from coordinator.core import events
from coordinator.core.claims import STAND_BY_DELAY
from coordinator.core.effects import Granted, SendStart, SendStop, StandBy
from coordinator.core.errors import ExecutorUnfit, RunOver, StaleIncarnation
from coordinator.core.model import Cause, Endpoint, MemberPhase, Roles, RunPhase
from tests.coordinator.core.scene import Scene, executor, told_to_start, told_to_stop


def test_the_gang_starts_when_its_last_member_is_ready_and_all_get_one_spec() -> None:
    scene = Scene(Roles(chief=1, worker=2))
    scene.take_slots()
    for one in ("chief:0", "worker:1"):
        assert told_to_start(scene.ready(one)) == []
    assert scene.phase is RunPhase.FORMING
    effects = scene.ready("worker:0")
    assert scene.phase is RunPhase.RUNNING
    assert told_to_start(effects) == ["chief:0", "worker:0", "worker:1"]
    starts = [effect for effect in effects if isinstance(effect, SendStart)]
    assert len({id(start.spec) for start in starts}) == 1
    assert {start.generation for start in starts} == {1}
    assert set(scene.phases().values()) == {MemberPhase.STARTING}


def test_a_reservation_asked_twice_is_granted_twice() -> None:
    """Style rule 10: acquiring is idempotent."""
    scene = Scene()
    first = scene.reserve("worker:0")
    before = scene.view
    again = scene.reserve("worker:0")
    assert isinstance(first[0], Granted)
    assert again == first[:1]
    assert scene.view == before


def test_a_second_attempt_of_a_live_slot_stands_by_and_the_first_is_untouched() -> None:
    """R4"""
    scene = Scene()
    scene.reserve("worker:0", on=executor("node-a"))
    before = scene.view
    (answer,) = scene.reserve("worker:0", "worker:0/2")
    assert isinstance(answer, StandBy)
    assert answer.holder == "worker:0/1 on node-a, reserved"
    assert answer.delay == STAND_BY_DELAY
    assert scene.view == before
    with pytest.raises(StaleIncarnation):
        scene.ready("worker:0", attempt="worker:0/2")


@pytest.mark.parametrize("cause", [Cause.PREEMPTED, Cause.AGENT_LOST, Cause.STOPPED])
def test_while_forming_another_attempt_replaces_one_that_ended_through_no_fault(
    cause: Cause,
) -> None:
    """R3"""
    scene = Scene()
    scene.take_slots()
    scene.ready("worker:0")
    scene.end("worker:0", cause)
    assert scene.phase is RunPhase.FORMING
    assert scene.phases()["worker:0"] is MemberPhase.EXPECTED
    scene.reserve("worker:0", "worker:0/2")
    scene.ready("worker:1")
    assert scene.phase is RunPhase.FORMING, "the one before was ready, this one is not"
    effects = scene.ready("worker:0", attempt="worker:0/2")
    started = {effect.incarnation for effect in effects if isinstance(effect, SendStart)}
    assert started == {"worker:0/2", "worker:1/1"}


def test_an_attempt_whose_end_was_reported_never_gets_the_slot_again() -> None:
    """R3: a delayed duplicate of its reservation would seat a process that is gone."""
    scene = Scene()
    scene.take_slots()
    scene.end("worker:0", Cause.PREEMPTED)
    with pytest.raises(StaleIncarnation, match="held worker:0 and is over"):
        scene.reserve("worker:0")
    scene.reserve("worker:0", "worker:0/2")
    with pytest.raises(StaleIncarnation):
        scene.reserve("worker:0")
    scene.end("worker:0", Cause.PREEMPTED, attempt="worker:0/2")
    with pytest.raises(StaleIncarnation):
        scene.reserve("worker:0")
    assert isinstance(scene.reserve("worker:0", "worker:0/3")[0], Granted)


def test_a_fenced_attempt_never_gets_the_slot_again() -> None:
    """R3"""
    scene = Scene()
    scene.take_slots()
    scene.wait(140, beating=["worker:1"])
    assert scene.phases()["worker:0"] is MemberPhase.FENCED
    with pytest.raises(StaleIncarnation):
        scene.reserve("worker:0")
    (stop,) = scene.say(events.SessionOpened, "worker:0")
    assert isinstance(stop, SendStop)
    assert (stop.reason, stop.grace) == ("fenced", 0.0)
    assert isinstance(scene.reserve("worker:0", "worker:0/2")[0], Granted)


def test_another_attempt_stands_by_until_the_silent_one_is_fenced() -> None:
    """R3, R4"""
    scene = Scene()
    scene.take_slots()
    scene.wait(139, beating=["worker:1"])
    assert isinstance(scene.reserve("worker:0", "worker:0/2")[0], StandBy)
    scene.wait(1, beating=["worker:1"])
    assert isinstance(scene.reserve("worker:0", "worker:0/2")[0], Granted)


def test_a_lost_member_returns_while_the_gang_forms_and_may_complete_it() -> None:
    scene = Scene()
    scene.take_slots()
    scene.ready("worker:0")
    scene.wait(20, beating=["worker:1"])
    assert scene.phases()["worker:0"] is MemberPhase.LOST
    scene.ready("worker:1")
    assert scene.phase is RunPhase.FORMING
    effects = scene.say(events.Heard, "worker:0")
    assert told_to_start(effects) == ["worker:0", "worker:1"]


def test_a_lost_member_that_was_not_ready_returns_as_it_was() -> None:
    scene = Scene()
    scene.take_slots()
    scene.wait(20, beating=["worker:1"])
    scene.beat("worker:0")
    assert scene.phases()["worker:0"] is MemberPhase.RESERVED
    assert scene.member("worker:0").exit is None


def test_the_report_of_its_end_does_not_bring_a_lost_member_back() -> None:
    """R3: the gang must not form with a member that has just said that it is gone."""
    scene = Scene()
    scene.take_slots()
    scene.ready("worker:0")
    scene.wait(20, beating=["worker:1"])
    scene.ready("worker:1")
    effects = scene.end("worker:0", Cause.PREEMPTED, generation=0)
    assert told_to_start(effects) == []
    assert scene.phase is RunPhase.FORMING
    assert scene.phases()["worker:0"] is MemberPhase.EXPECTED


def test_a_closed_session_is_no_sign_of_life() -> None:
    """A dead host's connection closes too, by our own keepalive, after the host was lost."""
    scene = Scene()
    scene.take_slots()
    scene.ready("worker:0")
    scene.wait(10, beating=["worker:1"])
    scene.say(events.SessionClosed, "worker:0")
    scene.wait(5, beating=["worker:1"])
    assert scene.phases()["worker:0"] is MemberPhase.LOST
    scene.ready("worker:1")
    scene.say(events.SessionClosed, "worker:0")
    assert scene.phases()["worker:0"] is MemberPhase.LOST
    assert scene.phase is RunPhase.FORMING


def test_closing_a_session_alone_changes_nothing() -> None:
    scene = Scene()
    scene.form()
    before = scene.view
    assert scene.say(events.SessionClosed, "worker:0") == ()
    assert scene.view == before


def test_commands_are_repeated_on_a_new_session() -> None:
    scene = Scene()
    scene.take_slots()
    assert scene.say(events.SessionOpened, "worker:0") == ()
    scene.ready("worker:0")
    scene.ready("worker:1")
    (start,) = scene.say(events.SessionOpened, "worker:0")
    assert isinstance(start, SendStart)
    scene.enter("worker:0")
    assert scene.say(events.SessionOpened, "worker:0") == ()
    scene.stop(grace=2.0)
    (stop,) = scene.say(events.SessionOpened, "worker:0")
    assert isinstance(stop, SendStop)
    assert (stop.reason, stop.grace, stop.generation) == ("enough", 2.0, 1)


def test_reports_of_another_generation_change_nothing() -> None:
    """R3"""
    scene = Scene()
    scene.form(enter=False)
    before = scene.view
    scene.say(events.MainEntered, "worker:0", 2)
    scene.say(events.ProgressMade, "worker:0", 7, 100)
    scene.end("worker:0", Cause.USER_EXCEPTION, generation=2)
    assert scene.view == before


def test_a_failure_while_forming_ends_the_run() -> None:
    scene = Scene()
    scene.take_slots()
    effects = scene.end("worker:0", Cause.PRELOAD_FAILED, message="cannot import 'tensorflow'")
    assert scene.phase is RunPhase.STOPPING
    assert told_to_stop(effects) == ["worker:1"]
    scene.end("worker:1", Cause.STOPPED)
    assert scene.phase is RunPhase.FAILED
    assert scene.view.failure is not None
    assert scene.view.failure.cause is Cause.PRELOAD_FAILED


def test_a_member_that_leaves_with_success_before_it_was_started_fails_the_run() -> None:
    """E1: a preloaded module that calls sys.exit(0)."""
    scene = Scene(Roles(worker=1))
    scene.take_slots()
    scene.end("worker:0", Cause.COMPLETED, exit_code=0)
    assert scene.phase is RunPhase.FAILED
    assert scene.view.failure is not None
    assert scene.view.failure.summary == (
        "worker:0 on host ended with exit code 0: its process ended before main_fun was entered"
    )


def test_a_member_that_stops_unasked_fails_the_run_instead_of_leaving_it_waiting() -> None:
    """R1: an agent fences itself while the coordinator is frozen, and reports when it wakes."""
    scene = Scene(Roles(worker=1, ps=1))
    scene.form()
    scene.end("worker:0", Cause.STOPPED, reason="fenced")
    scene.end("ps:0", Cause.STOPPED, reason="fenced")
    assert scene.phase is RunPhase.FAILED
    assert scene.view.failure is not None
    assert "was stopped, and not by the coordinator: fenced" in scene.view.failure.summary


def test_the_forming_deadline_covers_the_way_into_main() -> None:
    """R1"""
    scene = Scene(reservation_timeout=60.0)
    scene.form(enter=False)
    scene.enter("worker:0")
    scene.wait(60)
    assert scene.phase is RunPhase.STOPPING
    assert scene.view.failure is not None
    assert scene.view.failure.summary == (
        "the members were not all running within 60 s. Waiting for worker:1: has the cluster "
        "spec, main_fun not entered yet, on host"
    )


def test_once_all_have_entered_there_is_no_deadline_but_silence() -> None:
    scene = Scene(reservation_timeout=60.0)
    scene.form()
    scene.wait(1000)
    assert scene.phase is RunPhase.RUNNING


def test_a_member_that_ends_before_it_was_seen_to_enter_leaves_no_deadline_behind() -> None:
    scene = Scene(Roles(worker=2), reservation_timeout=60.0)
    scene.form(enter=False)
    scene.enter("worker:0")
    scene.end("worker:1", Cause.COMPLETED)
    scene.wait(100)
    assert scene.phase is RunPhase.RUNNING
    scene.end("worker:0", Cause.COMPLETED)
    assert scene.phase is RunPhase.SUCCEEDED


def test_addresses_that_cannot_work_fail_the_run_before_tensorflow_hangs_on_them() -> None:
    """R9"""
    scene = Scene()
    scene.reserve("worker:0", on=executor("a"), endpoint=Endpoint("127.0.0.1", 1))
    scene.reserve("worker:1", on=executor("b"), endpoint=Endpoint("10.0.0.2", 1))
    scene.ready("worker:0")
    effects = scene.ready("worker:1")
    assert told_to_start(effects) == []
    assert scene.phase is RunPhase.STOPPING
    assert scene.view.failure is not None
    assert "advertises 127.0.0.1:1" in scene.view.failure.summary


def test_a_paused_coordinator_blames_nobody_for_its_own_silence() -> None:
    scene = Scene(reservation_timeout=60.0)
    scene.form(enter=False)
    scene.now = 100.0
    scene.handle(events.CoordinatorPaused(100.0))
    scene.handle(events.TimePassed())
    assert scene.phase is RunPhase.RUNNING
    assert scene.machine.next_deadline() == 115.0
    scene.wait(60)
    assert scene.phase is RunPhase.STOPPING, "the forming deadline was extended, not dropped"


def test_a_second_attempt_stands_by_until_the_holder_is_gone_even_in_a_run_that_stops() -> None:
    """R4: had its row come back first, Spark would kill the holder before it has saved."""
    scene = Scene(Roles(chief=1, ps=1))
    scene.form()
    scene.end("chief:0")
    assert scene.phase is RunPhase.STOPPING
    (answer,) = scene.reserve("ps:0", "ps:0/2")
    assert isinstance(answer, StandBy)
    scene.end("ps:0", Cause.STOPPED)
    with pytest.raises(RunOver):
        scene.reserve("ps:0", "ps:0/2")


def test_a_second_attempt_stands_by_even_where_it_could_never_live() -> None:
    """R4: a refusal would be its row, the first one, and the end of the holder."""
    scene = Scene(python_version="3.11.7")
    scene.reserve("worker:0")
    unfit = executor("node-b", python_version="3.12.1")
    (answer,) = scene.reserve("worker:0", "worker:0/2", on=unfit)
    assert isinstance(answer, StandBy)
    with pytest.raises(ExecutorUnfit):
        scene.reserve("worker:1", on=unfit)
