"""How a gang forms: reservations, sessions that break and come back, attempts that compete."""

from __future__ import annotations

import asyncio

import pytest

from coordinator.client import RunClient
from coordinator.core.errors import CoordinatorUnavailable, RunOver, StaleIncarnation
from coordinator.core.model import (
    Cause,
    ExitReport,
    MemberPhase,
    Roles,
    RunPhase,
    RunSpec,
)
from coordinator.member_client import Acknowledged, ReservationClient
from coordinator.security import call_metadata
from coordinator.testing import COMPLETED, STOPPED, FakeExecutor, Serving, drive
from tests.integration.grpc import raw

pytestmark = pytest.mark.timeout(60)

PREEMPTED = ExitReport(Cause.PREEMPTED, reason="Spark cancelled the task")


def phase_of(coordinator: Serving, executor: FakeExecutor) -> MemberPhase:
    [member] = [
        member
        for member in coordinator.view(executor.run_id).members
        if member.id == executor.member
    ]
    return member.phase


async def test_a_gang_forms_and_everybody_gets_the_same_spec(coordinator: Serving, gang_of) -> None:
    gang = await gang_of(coordinator, Roles(chief=1, worker=2, ps=2, evaluator=1))
    await gang.form()
    starts = [await executor.started() for executor in gang]
    assert all(start == starts[0] for start in starts)
    assert starts[0].generation == 1
    assert starts[0].cluster_spec == {
        "chief": (gang["chief:0"].endpoint.address,),
        "worker": tuple(gang[f"worker:{index}"].endpoint.address for index in range(2)),
        "ps": tuple(gang[f"ps:{index}"].endpoint.address for index in range(2)),
        "evaluator": (gang["evaluator:0"].endpoint.address,),
    }
    await gang.enter()
    assert coordinator.view(gang.run_id).phase is RunPhase.RUNNING


async def test_nobody_is_started_while_one_is_missing(coordinator: Serving, gang_of) -> None:
    gang = await gang_of(coordinator, Roles(worker=3))
    await gang.form(without={"worker:1"})
    await gang.beat(without={"worker:1"})  # a round trip: what was sent has arrived
    assert [executor.start for executor in gang] == [None, None, None]
    assert coordinator.view(gang.run_id).diagnosis == ("worker:1: task not scheduled",)


async def test_a_run_of_good_members_succeeds(coordinator: Serving) -> None:
    run = await drive(coordinator, RunSpec(Roles(chief=1, worker=2, ps=1, evaluator=1)))
    assert run.phase is RunPhase.SUCCEEDED
    assert run.failure is None


async def test_a_second_run_after_a_failed_one_just_works(coordinator: Serving, gang_of) -> None:
    """R6: in TensorFlowOnSpark one failed run poisoned the process."""
    gang = await gang_of(coordinator, Roles(worker=1))
    await gang.form()
    await gang["worker:0"].end(ExitReport(Cause.EXIT_CODE, exit_code=1))
    assert (await coordinator.ended(gang.run_id)).phase is RunPhase.FAILED
    assert (await drive(coordinator, RunSpec(Roles(worker=1)))).phase is RunPhase.SUCCEEDED


async def test_two_runs_at_once_do_not_mix(coordinator: Serving, gang_of) -> None:
    ours, theirs = [await gang_of(coordinator, Roles(worker=1)) for _ in range(2)]
    await ours.form()
    stranger = theirs["worker:0"].copy(incarnation=ours["worker:0"].incarnation)
    with pytest.raises(StaleIncarnation):
        await stranger.attend()
    assert coordinator.view(theirs.run_id).phase is RunPhase.FORMING


async def test_create_is_idempotent_by_request_id(coordinator: Serving) -> None:
    spec = RunSpec(Roles(worker=1))
    owner = RunClient(coordinator.address, coordinator.token)
    runs = [
        await asyncio.to_thread(owner.create, spec, request_id)
        for request_id in ("one", "one", "two", None, None)
    ]
    ids = [run.run_id for run in runs]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 4
    assert [run.run_id for run in await asyncio.to_thread(owner.list)] == ids[1:]
    owner.close()


async def test_reserve_is_idempotent_by_incarnation(coordinator: Serving, gang_of) -> None:
    gang = await gang_of(coordinator, Roles(worker=2))
    worker = gang["worker:0"]
    answers = [await worker.reserve() for _ in range(3)]
    assert all(answer.is_granted for answer in answers)
    await worker.attend()
    await worker.ready()
    assert (await worker.reserve()).is_granted  # it asks again although it is further
    assert phase_of(coordinator, worker) is MemberPhase.READY


async def test_a_second_session_of_an_incarnation_ends_the_first(
    coordinator: Serving, gang_of
) -> None:
    gang = await gang_of(coordinator, Roles(worker=2))
    first = gang["worker:0"]
    await first.reserve()
    await first.attend()
    async with first.copy(incarnation=first.incarnation) as second:
        await second.attend()
        with pytest.raises(CoordinatorUnavailable, match="ended the session"):
            await first.started()
        with pytest.raises(CoordinatorUnavailable, match="ended the session"):
            await first.beat()
        await second.ready()
        assert phase_of(coordinator, second) is MemberPhase.READY


async def test_a_lost_stream_is_not_a_lost_member_and_the_start_command_comes_again(
    coordinator: Serving, gang_of
) -> None:
    gang = await gang_of(coordinator, Roles(worker=2))
    await gang.form()
    worker = gang["worker:0"]
    before = await worker.started()
    for _ in range(3):
        await worker.drop()
        await worker.attend()
        assert await worker.started() == before
    await worker.enter()
    assert phase_of(coordinator, worker) is MemberPhase.RUNNING
    await worker.attend()
    await worker.beat()
    assert worker.start is None  # it has entered: nobody starts it twice


async def test_a_stop_that_was_missed_comes_again_with_the_next_session(
    coordinator: Serving, gang_of
) -> None:
    gang = await gang_of(coordinator, Roles(worker=2))
    await gang.form()
    worker = gang["worker:0"]
    await worker.drop()
    owner = RunClient(coordinator.address, coordinator.token)
    await asyncio.to_thread(owner.stop, gang.run_id, "enough", 2.0)
    owner.close()
    await worker.attend()
    stop = await worker.told_to_stop()
    assert (stop.reason, stop.grace) == ("enough", 2.0)


async def test_a_second_attempt_stands_by_while_the_first_lives(
    coordinator: Serving, gang_of
) -> None:
    """R4: the attempt that returns first wins in Spark, so the second must not even fail."""
    gang = await gang_of(coordinator, Roles(worker=2))
    first = gang["worker:0"]
    await first.reserve()
    await first.attend()
    async with first.copy() as second:
        for step in (first.ready, gang["worker:1"].reserve):
            answer = await second.reserve()
            assert not answer.is_granted
            assert answer.retry_delay > 0
            assert first.incarnation in answer.holder
            await step()
        with pytest.raises(StaleIncarnation):
            await second.attend()
        await gang["worker:1"].attend()
        await gang["worker:1"].ready()
        await first.started()
        assert not (await second.reserve()).is_granted  # also while it runs
    assert phase_of(coordinator, first) is MemberPhase.STARTING


async def test_a_retried_attempt_takes_over_once_the_first_is_proven_gone(
    coordinator: Serving, gang_of
) -> None:
    """R3: a retry is a new incarnation of the same slot, in the same gang of two."""
    gang = await gang_of(coordinator, Roles(worker=2))
    first = gang["worker:0"]
    await first.reserve()
    await first.attend()
    await first.ready()
    async with first.copy() as second:
        assert not (await second.reserve()).is_granted
        await first.end(PREEMPTED)
        assert (await second.reserve()).is_granted
        await second.attend()
        await second.ready()
        await gang["worker:1"].reserve()
        await gang["worker:1"].attend()
        await gang["worker:1"].ready()
        start = await second.started()
        assert len(start.cluster_spec["worker"]) == 2
        with pytest.raises(StaleIncarnation):  # the old one says something late
            await first.ready()
        with pytest.raises(StaleIncarnation):
            await first.reserve()
        await first.drop()
        assert phase_of(coordinator, second) is MemberPhase.STARTING


async def test_the_late_end_of_a_replaced_session_disturbs_nobody(
    coordinator: Serving, gang_of, caplog: pytest.LogCaptureFixture
) -> None:
    """R3: the stream of the attempt before ends only when the next one holds the slot."""
    gang = await gang_of(coordinator, Roles(worker=2))
    first = gang["worker:0"]
    await first.reserve()
    client = ReservationClient(coordinator.address, coordinator.token)
    async with client.attend(gang.run_id, first.member, first.incarnation) as session:
        commands = session.commands()
        await session.process_exited(1, 0, PREEMPTED)
        while await anext(commands) != Acknowledged(1):
            pass
        async with first.copy() as second:
            assert (await second.reserve()).is_granted
            await second.attend()
            await session.goodbye(2, "done")
            # A clean end, not a refusal.
            assert [command async for command in commands] == [Acknowledged(2)]
            await second.ready()
            assert phase_of(coordinator, second) is MemberPhase.READY
    await client.close()
    assert not raw.complaints(caplog)


async def test_reports_of_another_generation_change_nothing(coordinator: Serving, gang_of) -> None:
    """R3: a liar, or a message that was long on its way."""
    gang = await gang_of(coordinator, Roles(worker=2))
    await gang.form()
    worker = gang["worker:0"]
    await worker.enter(generation=7)
    assert phase_of(coordinator, worker) is MemberPhase.STARTING
    await worker.enter()
    await worker.progress(5, generation=7)
    await worker.end(COMPLETED, generation=7)
    assert phase_of(coordinator, worker) is MemberPhase.RUNNING
    assert coordinator.view(gang.run_id).members[0].step == 0


async def test_another_members_incarnation_opens_no_session(coordinator: Serving, gang_of) -> None:
    gang = await gang_of(coordinator, Roles(worker=2))
    await gang.form()
    victim = gang["worker:1"]
    async with gang["worker:0"].copy(incarnation=victim.incarnation) as liar:
        assert not (await liar.reserve()).is_granted
        with pytest.raises(StaleIncarnation):
            await liar.attend()
    await victim.beat()
    assert phase_of(coordinator, victim) is MemberPhase.STARTING


async def test_nobody_joins_a_run_that_is_ending(coordinator: Serving, gang_of) -> None:
    gang = await gang_of(coordinator, Roles(worker=2))
    await gang.form(without={"worker:1"})
    owner = RunClient(coordinator.address, coordinator.token)
    await asyncio.to_thread(owner.stop, gang.run_id, "enough")
    with pytest.raises(RunOver):
        await gang["worker:1"].reserve()
    await gang["worker:0"].told_to_stop()
    await gang["worker:0"].end(STOPPED)
    assert (await coordinator.ended(gang.run_id)).phase is RunPhase.CANCELLED
    with pytest.raises(RunOver):
        await gang["worker:1"].reserve()
    owner.close()


async def test_what_two_tasks_say_at_once_on_one_session_arrives(
    coordinator: Serving, gang_of
) -> None:
    gang = await gang_of(coordinator, Roles(worker=2))
    worker = gang["worker:0"]
    await worker.reserve()
    await worker.attend()
    async with asyncio.TaskGroup() as group:
        for _ in range(50):
            group.create_task(worker.beat())
    await worker.ready()


async def test_an_agent_whose_client_is_closed_is_told_so_and_not_cancelled(
    coordinator: Serving, gang_of
) -> None:
    gang = await gang_of(coordinator, Roles(worker=1))
    worker = gang["worker:0"]
    await worker.reserve()
    client = ReservationClient(coordinator.address, coordinator.token)
    async with client.attend(gang.run_id, worker.member, worker.incarnation) as session:
        commands = session.commands()
        await anext(commands)
        reading = asyncio.create_task(anext(commands))
        await asyncio.sleep(0)  # it waits for the next command by now
        await client.close()
        with pytest.raises(CoordinatorUnavailable):
            await reading
        with pytest.raises(CoordinatorUnavailable):
            await session.heartbeat(1)
    with pytest.raises(CoordinatorUnavailable):
        await client.reserve(
            gang.run_id, worker.member, worker.incarnation, worker.info, worker.endpoint
        )
    with pytest.raises(CoordinatorUnavailable):
        client.attend(gang.run_id, worker.member, worker.incarnation)


async def test_a_member_whose_machine_is_cut_off_leaves_no_session_and_no_noise(
    coordinator: Serving, gang_of, caplog: pytest.LogCaptureFixture
) -> None:
    """A reset in the middle of what the coordinator writes; the member may attend again."""
    gang = await gang_of(coordinator, Roles(worker=2))
    worker = gang["worker:0"]
    await worker.reserve()
    [attend] = [method for method in raw.methods() if method.name == "Attend"]
    hello = attend.input_type._concrete_class()
    hello.hello.run_id, hello.hello.incarnation = gang.run_id, worker.incarnation
    hello.hello.member.role = 2
    calls = [
        raw.Call(
            coordinator.address,
            raw.path_of(attend),
            *call_metadata(coordinator.token),
            message=hello.SerializeToString(),
        )
        for _ in range(5)
    ]
    for call in calls:
        await raw.becomes_true(lambda: bool(coordinator.engine._sessions))
        call.reset()
    await worker.attend()
    await worker.ready()
    assert phase_of(coordinator, worker) is MemberPhase.READY
    assert len(coordinator.engine._sessions) == 1
    assert not raw.complaints(caplog)
