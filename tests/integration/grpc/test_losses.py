"""Silence, deadlines and pauses, on a clock that the test moves: nothing here waits for time."""

from __future__ import annotations

import pytest

from coordinator.core import events
from coordinator.core.liveness import STOP_BOUND
from coordinator.core.model import (
    Cause,
    ExitReport,
    MemberPhase,
    Role,
    Roles,
    RunPhase,
    RunSpec,
    RunView,
    Slots,
    TaskState,
)
from coordinator.member_client import Stop
from coordinator.testing import STOPPED, FakeExecutor, ManualClock, Serving

pytestmark = pytest.mark.timeout(60)

SPEC = RunSpec(Roles(worker=3), reservation_timeout=600, liveness_ttl=15, fence_timeout=120)
TWO = RunSpec(Roles(worker=2), reservation_timeout=600, liveness_ttl=15, fence_timeout=120)


def phases(run: RunView) -> list[str]:
    return [member.phase.value for member in run.members]


async def stopped_by(executor: FakeExecutor) -> Stop:
    """Obeys the stop, and returns it."""
    stop = await executor.told_to_stop()
    await executor.end(STOPPED)
    return stop


async def test_a_missing_member_is_named_at_the_deadline_and_the_others_give_their_slots_back(
    timeless: Serving, clock: ManualClock, gang_of
) -> None:
    """R1, R2: who, why, and nothing left."""
    gang = await gang_of(timeless, SPEC, beating=False)
    await gang.form(without={"worker:1"})
    scheduling = events.SchedulingReported(gang.run_id, Slots(2, 2))
    timeless.engine.feed(scheduling)
    for _ in range(200):
        clock.advance(3)
        if timeless.view(gang.run_id).phase is not RunPhase.FORMING:
            break
        await gang.beat(without={"worker:1"})
    for name in ("worker:0", "worker:2"):
        assert "not all running within 600 s" in (await stopped_by(gang[name])).reason
    run = await timeless.ended(gang.run_id)
    assert run.phase is RunPhase.FAILED
    assert phases(run) == ["stopped", "stopped", "stopped"]
    assert run.failure is not None
    assert "worker:1: task not scheduled, 2 of 2 slots busy" in run.failure.summary
    assert "worker:0" not in run.failure.summary


async def test_the_deadline_names_who_connected_and_who_only_runs(
    timeless: Serving, clock: ManualClock, gang_of
) -> None:
    """R1: each of the ways to be missing has its own sentence."""
    gang = await gang_of(timeless, SPEC, beating=False)
    importing = gang["worker:0"]
    await importing.reserve()
    await importing.attend(beating=False)
    running = {gang["worker:1"].member: TaskState(running=True)}
    timeless.engine.feed(events.SchedulingReported(gang.run_id, Slots(), running))
    while timeless.view(gang.run_id).phase is RunPhase.FORMING:
        await importing.beat()
        clock.advance(3)
    summary = timeless.view(gang.run_id).failure.summary
    assert "worker:0: connected, its process is still importing, on fake-host" in summary
    assert "worker:1: its Spark task runs but has not connected" in summary
    assert "worker:2: task not scheduled" in summary
    await stopped_by(importing)


async def test_a_member_that_never_enters_main_is_named_at_the_deadline(
    timeless: Serving, clock: ManualClock, gang_of
) -> None:
    gang = await gang_of(timeless, TWO, beating=False)
    await gang.form()
    await gang["worker:0"].enter()
    for _ in range(200):
        await gang.beat()
        clock.advance(3)
    run = timeless.view(gang.run_id)
    assert run.phase is RunPhase.STOPPING
    assert "worker:1: has the cluster spec, main_fun not entered yet" in run.failure.summary
    for worker in gang:
        await stopped_by(worker)


async def test_a_silent_member_is_lost_and_named_and_the_others_are_told_to_stop(
    timeless: Serving, clock: ManualClock, gang_of
) -> None:
    gang = await gang_of(timeless, SPEC, beating=False)
    await gang.form()
    await gang.enter()
    await gang.pass_time(clock, 60)  # everybody beats: nothing happens
    assert timeless.view(gang.run_id).phase is RunPhase.RUNNING
    await gang.pass_time(clock, 15, silent={"worker:1"})
    assert phases(timeless.view(gang.run_id)) == ["running", "lost", "running"]
    for name in ("worker:0", "worker:2"):
        assert "worker:1 failed: lost contact" in (await stopped_by(gang[name])).reason
    run = timeless.view(gang.run_id)
    assert run.settled  # the driver may know, although one may still be there
    assert run.phase is RunPhase.STOPPING
    assert (run.failure.cause, str(run.failure.member)) == (Cause.LOST_CONTACT, "worker:1")
    assert "on fake-host" in run.failure.summary
    clock.advance(120 + STOP_BOUND)  # by now its own agent has stopped it
    run = await timeless.ended(gang.run_id)
    assert phases(run) == ["stopped", "fenced", "stopped"]


async def test_a_lost_member_whose_agent_comes_back_is_told_to_stop_and_ends_the_run_sooner(
    timeless: Serving, clock: ManualClock, gang_of
) -> None:
    gang = await gang_of(timeless, TWO, beating=False)
    await gang.form()
    await gang.pass_time(clock, 15, silent={"worker:1"})
    await stopped_by(gang["worker:0"])
    back = gang["worker:1"]
    await back.attend(beating=False)
    await stopped_by(back)
    run = await timeless.ended(gang.run_id)
    assert phases(run) == ["stopped", "stopped"]
    assert run.failure.cause is Cause.LOST_CONTACT


async def test_while_the_gang_forms_a_lost_member_may_come_back(
    timeless: Serving, clock: ManualClock, gang_of
) -> None:
    gang = await gang_of(timeless, TWO, beating=False)
    await gang.form(without={"worker:1"})
    clock.advance(15)
    assert phases(timeless.view(gang.run_id)) == ["lost", "expected"]
    await gang["worker:0"].beat()
    assert phases(timeless.view(gang.run_id)) == ["ready", "expected"]
    assert timeless.view(gang.run_id).phase is RunPhase.FORMING


async def test_the_slot_of_a_silent_member_is_taken_over_only_after_its_fence(
    timeless: Serving, clock: ManualClock, gang_of
) -> None:
    """R3: silence alone proves nothing; the fence does."""
    gang = await gang_of(timeless, TWO, beating=False)
    await gang.form(without={"worker:1"})
    async with gang["worker:0"].copy() as second:
        clock.advance(15)
        assert not (await second.reserve()).is_granted
        clock.advance(120 + STOP_BOUND - 15)
        assert (await second.reserve()).is_granted
        assert phases(timeless.view(gang.run_id)) == ["reserved", "expected"]


async def test_beats_of_a_gang_that_trains_for_a_day_are_enough(
    timeless: Serving, clock: ManualClock, gang_of
) -> None:
    gang = await gang_of(timeless, TWO, beating=False)
    await gang.form()
    await gang.enter()
    for _ in range(24):
        await gang.pass_time(clock, 3)
        clock.pause_coordinator(3600)  # a laptop sleeps: nobody's silence means anything
        await gang.beat()
    assert timeless.view(gang.run_id).phase is RunPhase.RUNNING


@pytest.mark.parametrize(
    "first",
    ["time", "a beat", "a report of the driver", "a reservation", "a lost stream", "progress"],
)
async def test_a_coordinator_that_was_paused_loses_nobody_whatever_it_hears_first(
    first: str, timeless: Serving, clock: ManualClock, gang_of
) -> None:
    gang = await gang_of(timeless, TWO, beating=False)
    await gang.form()
    await gang.enter()
    clock.advance(3)  # the last beats are 3 s old when it is paused
    clock.pause_coordinator(3600)
    worker = gang["worker:0"]
    match first:
        case "time":
            timeless.engine.feed(events.TimePassed())
        case "a beat":
            await worker.beat()
        case "a report of the driver":
            timeless.engine.feed(events.SchedulingReported(gang.run_id, Slots()))
        case "a reservation":
            async with worker.copy() as second:
                assert not (await second.reserve()).is_granted
        case "a lost stream":
            await worker.drop()
            await worker.attend(beating=False)
        case "progress":
            await worker.progress(1)
    clock.advance(10)  # the pause is known to within a tick of a second
    assert phases(timeless.view(gang.run_id)) == ["running", "running"]
    clock.advance(5)  # and from then on silence counts again
    assert "lost" in phases(timeless.view(gang.run_id))


async def test_a_paused_coordinator_extends_the_reservation_deadline_too(
    timeless: Serving, clock: ManualClock
) -> None:
    run_id = timeless.create_run(RunSpec(Roles(worker=1), reservation_timeout=60))
    clock.advance(50)
    clock.pause_coordinator(3600)
    clock.advance(9)
    assert timeless.view(run_id).phase is RunPhase.FORMING
    clock.advance(1)
    assert (await timeless.ended(run_id)).phase is RunPhase.FAILED


async def test_who_is_told_to_stop_and_does_not_is_lost_after_its_grace_and_the_stop_bound(
    timeless: Serving, clock: ManualClock, gang_of
) -> None:
    spec = RunSpec(Roles(worker=2), grace={Role.WORKER: 10})
    gang = await gang_of(timeless, spec, beating=False)
    await gang.form()
    timeless.engine.feed(events.StopRequested(gang.run_id, "enough"))
    assert (await stopped_by(gang["worker:0"])).grace == 10
    stubborn = gang["worker:1"]
    for _ in range(9):
        clock.advance(3)
        await stubborn.beat()
    assert timeless.view(gang.run_id).members[1].phase is MemberPhase.STARTING
    clock.advance(3)
    run = timeless.view(gang.run_id)
    assert run.members[1].phase is MemberPhase.LOST
    assert run.settled
    clock.advance(120 + STOP_BOUND)
    assert (await timeless.ended(gang.run_id)).phase is RunPhase.CANCELLED


async def test_spark_giving_up_a_task_that_never_connected_ends_the_wait_at_once(
    timeless: Serving, gang_of
) -> None:
    """R1: nobody waits ten minutes for what cannot come."""
    gang = await gang_of(timeless, TWO, beating=False)
    await gang.form(without={"worker:1"})
    failed = {gang["worker:1"].member: TaskState(failed=True, message="executor lost")}
    timeless.engine.feed(events.SchedulingReported(gang.run_id, Slots(), failed))
    await stopped_by(gang["worker:0"])
    run = await timeless.ended(gang.run_id)
    assert run.failure.summary == "Spark gave up the task of worker:1: executor lost"


async def test_an_agent_that_fenced_itself_is_a_lost_contact(timeless: Serving, gang_of) -> None:
    gang = await gang_of(timeless, TWO, beating=False)
    await gang.form()
    await gang.enter()
    fenced = ExitReport(Cause.STOPPED, killed_by_us=True, reason="fenced: cut off for 121 s")
    await gang["worker:1"].end(fenced)
    await stopped_by(gang["worker:0"])
    run = await timeless.ended(gang.run_id)
    assert run.failure.cause is Cause.LOST_CONTACT
    assert "fenced: cut off for 121 s" in run.failure.summary
