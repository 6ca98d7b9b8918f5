"""Who is to blame, who is told to stop when, and what the owner sees of it."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from coordinator.client import RunClient
from coordinator.core import events
from coordinator.core.errors import CoordinatorUnavailable
from coordinator.core.model import (
    Cause,
    ExitReport,
    Proof,
    Role,
    Roles,
    RunPhase,
    RunSpec,
)
from coordinator.testing import (
    COMPLETED,
    STOPPED,
    FakeExecutor,
    ManualClock,
    Script,
    Serving,
    drive,
    serving,
)
from tests.integration.grpc import raw

pytestmark = pytest.mark.timeout(60)

CRASH = ExitReport(Cause.USER_EXCEPTION, exception_type="ValueError", message="bad labels")
PEER_LOST = ExitReport(Cause.PEER_LOST, exception_type="UnavailableError", message="Socket closed")


async def obey(*executors: FakeExecutor) -> None:
    for executor in executors:
        await executor.told_to_stop()
        await executor.end(STOPPED)


@pytest.mark.parametrize("culprit_first", [True, False])
async def test_the_first_cause_wins_over_lost_peers_in_both_orders(
    culprit_first: bool, coordinator: Serving, gang_of
) -> None:
    """E2: innocents raise before the culprit's own end is seen, too."""
    gang = await gang_of(coordinator, Roles(worker=3))
    await gang.form()
    await gang.enter()
    ends = [("worker:1", CRASH), ("worker:0", PEER_LOST)]
    for name, report in ends if culprit_first else reversed(ends):
        await gang[name].end(report)
    await obey(gang["worker:2"])
    run = await coordinator.ended(gang.run_id)
    assert run.phase is RunPhase.FAILED
    assert (run.failure.cause, str(run.failure.member)) == (Cause.USER_EXCEPTION, "worker:1")
    assert run.failure.summary == "worker:1 on fake-host raised ValueError: bad labels"
    assert run.failure.exit == CRASH
    assert run.failure.others == (
        "worker:0 on fake-host lost a peer: UnavailableError: Socket closed",
    )


async def test_after_a_lost_peer_nobody_is_stopped_before_the_culprit_has_shown_itself(
    timeless: Serving, clock: ManualClock, gang_of
) -> None:
    """E2: told to stop too early, the culprit would look like one more victim."""
    gang = await gang_of(timeless, Roles(worker=3), beating=False)
    await gang.form()
    await gang.enter()
    await gang["worker:0"].end(PEER_LOST)
    await gang.pass_time(clock, 12, silent={"worker:1"})
    assert [executor.stop for executor in gang] == [None, None, None]
    await gang.pass_time(clock, 3, silent={"worker:1"})  # the culprit hangs: its silence tells
    await obey(gang["worker:2"])
    run = timeless.view(gang.run_id)
    assert run.settled
    assert (run.failure.cause, str(run.failure.member)) == (Cause.LOST_CONTACT, "worker:1")


async def test_what_stopping_does_to_the_others_is_nobodys_fault(
    coordinator: Serving,
) -> None:
    """E2: a member that crashes while it is told to stop is only attached."""
    async with asyncio.timeout(10):
        run_id = coordinator.create_run(RunSpec(Roles(worker=2)))
        async with (
            FakeExecutor(coordinator.address, coordinator.token, run_id, "worker:0") as first,
            FakeExecutor(coordinator.address, coordinator.token, run_id, "worker:1") as second,
        ):
            living = asyncio.create_task(first.live(Script(report=CRASH)))
            await second.reserve()
            await second.attend()
            await second.ready()
            await second.told_to_stop()
            await second.end(ExitReport(Cause.KILLED_BY_SIGNAL, signal=11))
            await living
            run = await coordinator.ended(run_id)
    assert str(run.failure.member) == "worker:0"
    assert run.failure.others == ("worker:1 on fake-host was killed by signal 11",)


async def test_members_are_told_to_stop_in_stages_and_parameter_servers_last(
    coordinator: Serving, gang_of
) -> None:
    """E6: whoever saves a model needs the parameter servers until it has."""
    gang = await gang_of(coordinator, Roles(chief=1, worker=1, ps=1, evaluator=1))
    await gang.form()
    await gang.enter()
    coordinator.engine.feed(events.StopRequested(gang.run_id, "enough"))
    chief, worker, evaluator, ps = (
        gang[name] for name in ("chief:0", "worker:0", "evaluator:0", "ps:0")
    )
    await chief.told_to_stop()
    await worker.told_to_stop()
    await chief.end(STOPPED)
    await evaluator.beat()  # a round trip: a stop that was sent would have come
    assert evaluator.stop is None
    await worker.end(COMPLETED)
    await evaluator.told_to_stop()
    await ps.beat()
    assert ps.stop is None
    await evaluator.end(STOPPED)
    assert (await ps.told_to_stop()).grace == 0
    await ps.end(STOPPED)
    assert (await coordinator.ended(gang.run_id)).phase is RunPhase.CANCELLED


async def test_completion_of_the_chief_stops_the_workers_then_the_parameter_servers(
    coordinator: Serving, gang_of
) -> None:
    """O2, E6."""
    gang = await gang_of(coordinator, Roles(chief=1, worker=1, ps=1))
    await gang.form()
    await gang.enter()
    await gang["chief:0"].end(COMPLETED)
    assert (await gang["worker:0"].told_to_stop()).reason == "training is complete"
    await gang["ps:0"].beat()
    assert gang["ps:0"].stop is None
    await gang["worker:0"].end(STOPPED)
    await obey(gang["ps:0"])
    assert (await coordinator.ended(gang.run_id)).phase is RunPhase.SUCCEEDED


async def test_stop_is_idempotent_and_the_first_reason_stays(coordinator: Serving, gang_of) -> None:
    gang = await gang_of(coordinator, Roles(worker=1))
    await gang.form()
    owner = RunClient(coordinator.address, coordinator.token)
    for reason in ("first", "second"):
        run = await asyncio.to_thread(owner.stop, gang.run_id, reason)
        assert run.stop_reason == "first"
    await obey(gang["worker:0"])
    await coordinator.ended(gang.run_id)
    run = await asyncio.to_thread(owner.stop, gang.run_id, "third")
    assert (run.phase, run.stop_reason) == (RunPhase.CANCELLED, "first")
    owner.close()


async def test_a_watch_shows_the_latest_and_ends_when_the_run_has(
    coordinator: Serving, gang_of
) -> None:
    gang = await gang_of(coordinator, Roles(worker=1))
    owner = RunClient(coordinator.address, coordinator.token)
    watching = asyncio.create_task(asyncio.to_thread(list, owner.watch(gang.run_id)))
    await gang.form()
    await gang.enter()
    worker = gang["worker:0"]
    for step in range(1, 301):
        await worker.progress(step, loss=1 / step)
    await coordinator.until(gang.run_id, lambda run: run.members[0].step == 300)
    await worker.end(COMPLETED)
    pictures = await watching
    owner.close()
    assert pictures[-1].phase is RunPhase.SUCCEEDED
    assert pictures[-1].members[0].step == 300
    assert pictures[-1].members[0].metrics == {"loss": 1 / 300}
    revisions = [picture.revision for picture in pictures]
    assert revisions == sorted(set(revisions))
    assert len(pictures) < 30  # of more than 300 changes


async def test_a_watch_of_an_ended_run_shows_it_once(coordinator: Serving) -> None:
    run = await drive(coordinator, RunSpec(Roles(worker=1)))
    owner = RunClient(coordinator.address, coordinator.token)
    [picture] = await asyncio.to_thread(list, owner.watch(run.run_id))
    assert picture.phase is RunPhase.SUCCEEDED
    owner.close()


async def test_many_watchers_all_see_the_end_and_none_is_kept(coordinator: Serving) -> None:
    run_id = coordinator.create_run(RunSpec(Roles(worker=1)))
    owner = RunClient(coordinator.address, coordinator.token)
    watches = [owner.watch(run_id) for _ in range(8)]
    for watch in watches:
        await asyncio.to_thread(next, watch)
    abandoned = watches.pop()
    abandoned.close()
    async with FakeExecutor(coordinator.address, coordinator.token, run_id, "worker:0") as worker:
        await worker.live()
    for watch in watches:
        assert (await asyncio.to_thread(list, watch))[-1].phase is RunPhase.SUCCEEDED
    owner.close()
    with pytest.raises(Exception, match="knows no run"):
        await coordinator.until("nowhere", lambda _: True)
    await raw.becomes_true(lambda: not coordinator.engine._watchers)


async def test_nothing_of_a_session_is_kept_after_it(coordinator: Serving, gang_of) -> None:
    gang = await gang_of(coordinator, Roles(worker=3))
    await gang.form()
    sessions = [weakref.ref(each) for each in coordinator.engine._sessions.values()]
    assert len(sessions) == 3
    for executor in gang:
        await executor.enter()
        await executor.end(COMPLETED)
        await executor.leave()
    await raw.becomes_true(lambda: not coordinator.engine._sessions)

    def are_collected() -> bool:
        gc.collect()
        return all(each() is None for each in sessions)

    await raw.becomes_true(are_collected)


async def test_exit_reports_with_a_traceback_of_a_megabyte_arrive_whole(
    coordinator: Serving, gang_of
) -> None:
    """E1: the evidence, also when there is too much of it."""
    gang = await gang_of(coordinator, Roles(worker=4))
    await gang.form()
    await gang.enter()
    report = ExitReport(
        Cause.USER_EXCEPTION,
        exit_code=1,
        reason="main_fun raised",
        exception_type="RecursionError",
        message="maximum recursion depth exceeded",
        traceback='  File "train.py", line 1, in f\n' * 32_768,
        log_tail="epoch ü\n" * 100,
        proof=Proof.SWEEP,
        survivors=("77 tee",),
        max_rss_bytes=5 * 2**30,
        stop_seconds=0.25,
    )
    assert len(report.traceback) >= 2**20
    async with asyncio.TaskGroup() as group:
        for executor in gang:
            group.create_task(executor.end(report))
    owner = RunClient(coordinator.address, coordinator.token)
    run = (await asyncio.to_thread(list, owner.watch(gang.run_id)))[-1]
    owner.close()
    assert run.failure.exit == report
    assert [member.exit for member in run.members] == [report] * 4


@pytest.mark.parametrize(
    "report, summary",
    [
        (ExitReport(Cause.EXIT_CODE, exit_code=3), "ended with exit code 3"),
        (ExitReport(Cause.KILLED_BY_SIGNAL, signal=9), "was killed by signal 9"),
        (ExitReport(Cause.OUT_OF_MEMORY, signal=9), "memory limit was reached"),
        (ExitReport(Cause.AGENT_LOST, reason="its agent was killed"), "its agent was killed"),
        (ExitReport(Cause.PREEMPTED, reason="executor removed"), "lost its Spark task"),
        (ExitReport(Cause.PAYLOAD_FAILED, message="No module named 'x'"), "No module named 'x'"),
    ],
    ids=lambda value: value.cause.name if isinstance(value, ExitReport) else "",
)
async def test_every_way_to_end_is_told_in_words(
    report: ExitReport, summary: str, coordinator: Serving
) -> None:
    """E1."""
    run = await drive(
        coordinator,
        RunSpec(Roles(worker=2, ps=1)),
        {
            "worker:1": Script(report=report),
            "worker:0": Script(serves=True),
        },
    )
    assert run.phase is RunPhase.FAILED
    assert (run.failure.cause, run.failure.member.role) == (report.cause, Role.WORKER)
    assert summary in run.failure.summary
    assert "worker:1 on fake-host" in run.failure.summary


async def test_a_server_that_stops_tells_everybody_and_leaves_nothing_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A member in its session, a watcher and a stream that said nothing: grpc by itself would
    cancel them, which looks like a crash, and log a traceback for each."""
    before = asyncio.all_tasks()
    async with serving() as coordinator:
        run_id = coordinator.create_run(RunSpec(Roles(worker=1)))
        executor = FakeExecutor(coordinator.address, coordinator.token, run_id, "worker:0")
        owner = RunClient(coordinator.address, coordinator.token)
        await executor.reserve()
        await executor.attend()
        executor.open_half()
        watch = owner.watch(run_id)
        await asyncio.to_thread(next, watch)
    with pytest.raises(CoordinatorUnavailable, match="the coordinator has ended"):
        await asyncio.to_thread(list, watch)
    with pytest.raises(CoordinatorUnavailable, match="the coordinator has ended"):
        await executor.started()
    await executor.close()
    owner.close()
    await raw.becomes_true(lambda: asyncio.all_tasks() == before)
    assert not raw.complaints(caplog)
