"""Self-fencing, with a real tree: an agent that is cut off from its coordinator, in whatever way,
stops its member and everything below it; one that is only slowed down does not."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from coordinator.client import RunClient
from coordinator.core import events
from coordinator.core.model import (
    Cause,
    ExitReport,
    IncarnationId,
    MemberId,
    MemberPhase,
    Proof,
    Role,
    Roles,
    RunId,
    RunPhase,
    RunSpec,
    RunView,
)
from coordinator.testing import ManualClock, Serving, serving
from executor_agent.core.supervision import Tombstone
from tests.integration.attending_tree import INCARNATION, NAME, AttendingTree
from tests.integration.grpc.embedded import EmbeddedProcess
from tests.integration.line import Line, line_to
from tests.integration.sentinel_helpers import Member, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
WHO = MemberId.parse(NAME), IncarnationId(INCARNATION)


def timed(beat: float, lost: float, fence: float, workers: int = 1) -> RunSpec:
    return RunSpec(
        Roles(worker=workers),
        beat_interval=beat,
        liveness_ttl=lost,
        fence_timeout=fence,
        grace={Role.WORKER: 0.0},
    )


# Lost when it is fenced and not before, so that the coordinator does not stop first who is to fence
# itself; and a fence that comes soon, for those who wait for it.
SOON = timed(0.1, 2.5, 2.5)
# For those who are to live: time for a busy machine and for gRPC to connect again.
LATER = timed(0.2, 6.0, 6.0)
# As in production: lost long before it is fenced.
LOST_FIRST = timed(0.1, 1.5, 60.0)
# Nothing happens by the clock, unless the test turns it.
UNHURRIED = timed(0.1, 60.0, 60.0)


@pytest.fixture
async def coordinator() -> AsyncIterator[Serving]:
    async with serving() as running:
        yield running


@pytest.fixture
async def line(coordinator: Serving) -> AsyncIterator[Line]:
    async with line_to(coordinator.address) as line:
        yield line


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[AttendingTree]:
    member = Member(tmp_path)
    yield AttendingTree(member)
    member.close()


async def running(coordinator: Serving, line: Line, tree: AttendingTree, spec: RunSpec) -> RunId:
    """The tree is there, and the coordinator knows it."""
    run_id = coordinator.create_run(spec)
    await tree.start(run_id, line.address, coordinator.token)
    await coordinator.until(run_id, lambda run: run.members[0].phase is MemberPhase.RUNNING)
    return run_id


async def fenced(tree: AttendingTree, address: str) -> Tombstone:
    """It has fenced itself: nothing is left, and the tombstone says so."""
    tombstone = await tree.gone()
    assert tombstone.reason.startswith(f"fenced: cut off from the coordinator at {address} for ")
    assert (tombstone.signal, tombstone.killed_by_us) == (signal.SIGKILL, True)
    return tombstone


async def outlives_its_fence(
    coordinator: Serving, tree: AttendingTree, run_id: RunId, spec: RunSpec
) -> None:
    """Nothing has stopped it when its fence had to have come, and it still attends."""
    await asyncio.sleep(spec.fence_timeout * 1.25)  # not to be safe: this is what is tested
    assert tree.lives()
    coordinator.engine.feed(events.StopRequested(run_id, "seen enough", 0.0))
    assert (await tree.gone()).reason == "seen enough"
    run = await coordinator.ended(run_id)
    assert run.phase is RunPhase.CANCELLED
    report = run.members[0].exit
    assert report is not None
    assert report.cause is Cause.STOPPED


def row_of(tombstone: Tombstone) -> ExitReport:
    """What the task returns and the driver passes on."""
    return ExitReport(Cause.PREEMPTED, reason=tombstone.reason, proof=Proof.KERNEL)


def ended(client: RunClient, run_id: RunId) -> RunView:
    def look() -> RunView | None:
        run = client.get(run_id)
        return run if run.phase.is_terminal else None

    return eventually(look, "the run to end")


# Cut off.


async def test_a_line_that_swallows_everything_is_a_fence(
    coordinator: Serving, line: Line, tree: AttendingTree
) -> None:
    """O13: no connection ever breaks, no error ever comes."""
    run_id = await running(coordinator, line, tree, SOON)
    line.lose()
    await fenced(tree, line.address)
    assert line.accepted == 1
    member = coordinator.view(run_id).members[0]
    assert member.exit is not None
    assert member.exit.cause is Cause.LOST_CONTACT


async def test_a_line_that_swallows_what_comes_down_is_a_fence(
    coordinator: Serving, line: Line, tree: AttendingTree
) -> None:
    """O13: the coordinator hears every beat and sees nothing wrong; only the agent can know. It
    reports no more then: the proof comes with the task's row."""
    run_id = await running(coordinator, line, tree, SOON)
    line.lose("down")
    tombstone = await fenced(tree, line.address)
    assert coordinator.view(run_id).members[0].exit is None, "it has not even been missed yet"
    coordinator.engine.feed(events.TaskReturned(run_id, *WHO, row_of(tombstone)))
    run = await coordinator.ended(run_id)
    assert run.failure is not None
    assert "fenced: cut off from the coordinator" in run.failure.summary


async def test_a_line_that_swallows_what_goes_up_is_a_fence(
    coordinator: Serving, line: Line, tree: AttendingTree
) -> None:
    """O13: in a run that is still forming nobody says a word to whom it misses."""
    run_id = coordinator.create_run(timed(0.1, 1.0, 2.5, workers=2))
    await tree.start(run_id, line.address, coordinator.token, forming=True)
    await coordinator.until(run_id, lambda run: run.members[0].phase is MemberPhase.READY)
    line.lose("up")
    await fenced(tree, line.address)
    assert coordinator.view(run_id).members[0].phase is MemberPhase.LOST


async def test_who_is_lost_and_still_hears_is_stopped_before_its_fence(
    coordinator: Serving, line: Line, tree: AttendingTree
) -> None:
    """O13: only what goes up is swallowed, so that the coordinator's stop comes through."""
    run_id = await running(coordinator, line, tree, LOST_FIRST)
    line.lose("up")
    tombstone = await tree.gone()
    assert tombstone.reason.startswith("worker:0 failed: lost contact")
    report = coordinator.view(run_id).members[0].exit
    assert report is not None
    assert report.cause is Cause.LOST_CONTACT


async def test_a_line_that_takes_longer_than_the_fence_is_a_fence(
    coordinator: Serving, line: Line, tree: AttendingTree
) -> None:
    """What arrives too late proves nothing: the clock runs from the sending."""
    await running(coordinator, line, tree, SOON)
    line.delay = 2 * SOON.fence_timeout
    await fenced(tree, line.address)


async def test_a_line_that_is_cut_and_stays_so_is_a_fence(
    coordinator: Serving, line: Line, tree: AttendingTree
) -> None:
    """O13: every call is refused."""
    await running(coordinator, line, tree, SOON)
    line.is_up = False
    line.cut()
    await line.refused.wait()
    await fenced(tree, line.address)


async def test_a_connection_that_is_only_half_closed_and_then_silent_is_a_fence(
    coordinator: Serving, line: Line, tree: AttendingTree
) -> None:
    """The coordinator has seen the end of it and is done; the agent's half stays open."""
    await running(coordinator, line, tree, SOON)
    line.lose("down")
    line.half_close("up")
    await fenced(tree, line.address)
    assert line.accepted == 1


# Not cut off.


async def test_a_line_that_delays_every_byte_for_some_beats_costs_nobody_anything(
    coordinator: Serving, line: Line, tree: AttendingTree
) -> None:
    run_id = await running(coordinator, line, tree, LATER)
    line.delay = 4 * LATER.beat_interval
    await outlives_its_fence(coordinator, tree, run_id, LATER)
    assert line.accepted == 1


async def test_a_line_that_comes_back_within_the_fence_costs_nobody_anything(
    coordinator: Serving, line: Line, tree: AttendingTree
) -> None:
    """R1: a switch that was started again."""
    run_id = await running(coordinator, line, tree, LATER)
    line.is_up = False
    line.cut()
    await line.refused.wait()
    line.is_up = True
    await outlives_its_fence(coordinator, tree, run_id, LATER)
    assert line.accepted > 1


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_half_closed_connection_is_replaced_by_another(
    coordinator: Serving, line: Line, tree: AttendingTree, direction: str
) -> None:
    run_id = await running(coordinator, line, tree, LATER)
    line.half_close(direction)
    await outlives_its_fence(coordinator, tree, run_id, LATER)
    assert line.accepted > 1


# Frozen.


async def test_an_agent_that_slept_longer_than_its_fence_stops_its_member_when_it_wakes(
    coordinator: Serving, line: Line, tree: AttendingTree
) -> None:
    """O13: nobody else can know: its sentinel sees a process that is there, the line is whole."""
    run_id = await running(coordinator, line, tree, SOON)
    tree.signal_agent(signal.SIGSTOP)
    await coordinator.until(run_id, lambda run: run.members[0].phase is MemberPhase.LOST)
    await asyncio.sleep(SOON.fence_timeout)  # so that it has passed for whoever sleeps
    assert tree.lives()
    before = coordinator.view(run_id)
    tree.signal_agent(signal.SIGCONT)
    tombstone = await tree.gone()
    # The coordinator's stop has waited for it as long: which it sees first is open.
    assert tombstone.reason.startswith(("fenced: cut off", "worker:0 failed: lost contact"))
    after = coordinator.view(run_id)
    assert before.failure is not None
    assert after.failure == before.failure, "a late report changes no verdict"


async def test_what_an_agent_says_after_it_was_given_up_changes_nothing(
    tree: AttendingTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R3: by then another attempt may have its slot."""
    clock = ManualClock()
    async with serving(clock=clock) as coordinator, line_to(coordinator.address) as line:
        run_id = await running(coordinator, line, tree, UNHURRIED)
        tree.signal_agent(signal.SIGSTOP)
        clock.advance(3600.0)
        given_up = coordinator.view(run_id)
        assert given_up.members[0].phase is MemberPhase.FENCED
        assert given_up.phase is RunPhase.FAILED
        heard: list[events.Event] = []
        feed = coordinator.engine.feed

        def record(event: events.Event) -> Any:
            heard.append(event)
            return feed(event)

        monkeypatch.setattr(coordinator.engine, "feed", record)
        tree.signal_agent(signal.SIGCONT)
        await tree.gone()
        assert any(isinstance(event, events.ProcessEnded) for event in heard)
        after = coordinator.view(run_id)
        assert (after.phase, after.failure) == (given_up.phase, given_up.failure)
        assert after.members == given_up.members


async def test_a_frozen_coordinator_is_a_fence_and_hears_of_it_by_the_row_when_it_wakes(
    tree: AttendingTree, tmp_path: Path
) -> None:
    """O13: its connections stay open all the while, and the kernel takes what is sent to it."""
    with EmbeddedProcess(tmp_path / "coordinator.log") as process:
        client = process.client()
        try:
            run_id = (await asyncio.to_thread(client.create, SOON)).run_id
            await tree.start(run_id, process.address, process.token, tls=process.tls)
            process.signal(signal.SIGSTOP)
            tombstone = await fenced(tree, process.address)
            process.signal(signal.SIGCONT)
            row = row_of(tombstone)
            await asyncio.to_thread(client.report_task_end, run_id, *WHO, row)
            run = await asyncio.to_thread(ended, client, run_id)
        finally:
            client.close()
    assert run.phase is RunPhase.FAILED
    assert run.failure is not None
    assert run.members[0].exit == row
