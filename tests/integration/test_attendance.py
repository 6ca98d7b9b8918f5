"""A member's membership against a real coordinator: what is reported arrives, and who is cut off
stops by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from coordinator.core import events
from coordinator.core.model import (
    Cause,
    ExitReport,
    IncarnationId,
    MemberId,
    MemberPhase,
    Proof,
    RunId,
    RunPhase,
    RunSpec,
)
from coordinator.member_client import Attendance, Reservation, ReservationClient
from coordinator.testing import COMPLETED, Serving, serving
from executor_agent.member_reports import Ended, Entered, Leaving, Progressed, Ready, report_from
from tests.integration.line import Line, line_to
from tests.integration.membership import HURRIED, UNHURRIED, Member

pytestmark = pytest.mark.timeout(60)

PREEMPTED = ExitReport(Cause.PREEMPTED, reason="executor died", proof=Proof.SWEEP)


MakeMember = Callable[..., Member]


@pytest.fixture
async def coordinator() -> AsyncIterator[Serving]:
    async with serving() as running:
        yield running


@pytest.fixture
async def line(coordinator: Serving) -> AsyncIterator[Line]:
    async with line_to(coordinator.address) as line:
        yield line


@pytest.fixture
async def member_of(coordinator: Serving) -> AsyncIterator[MakeMember]:
    """`member_of(spec)`: a new run and its only member, which begins to attend."""
    async with AsyncExitStack() as stack:

        def make(spec: RunSpec, address: str = "", token: str = "", **more: Any) -> Member:
            run_id = coordinator.create_run(spec)
            address, token = address or coordinator.address, token or coordinator.token
            member = Member(address, token, run_id, **more)
            stack.push_async_callback(member.close)
            return member

        yield make
    left = [task for task in asyncio.all_tasks() if "Membership" in repr(task.get_coro())]
    assert not left


@pytest.fixture
def fed(coordinator: Serving, monkeypatch: pytest.MonkeyPatch) -> list[events.Event]:
    """Every event that reaches the core."""
    seen: list[events.Event] = []
    feed = coordinator.engine.feed

    def record(event: events.Event) -> Any:
        seen.append(event)
        return feed(event)

    monkeypatch.setattr(coordinator.engine, "feed", record)
    return seen


def run_of(member: Member) -> RunId:
    return member.membership._who[0]


def phase_is(phase: MemberPhase) -> Callable[[Any], bool]:
    return lambda run: run.members[0].phase is phase


async def test_a_member_from_its_claim_to_its_end(
    coordinator: Serving, member_of: MakeMember
) -> None:
    member = member_of(UNHURRIED)
    run_id = run_of(member)
    member.report(Ready({"python": "3.11"}))
    start = await member.starts.get()
    assert start.cluster_spec == {"worker": ("127.0.0.1:7077",)}
    member.report(Entered(start.generation))
    await coordinator.until(run_id, phase_is(MemberPhase.RUNNING))
    member.report(Progressed(start.generation, 3, {"loss": 0.5}))
    run = await coordinator.until(run_id, lambda run: run.members[0].step == 3)
    assert run.members[0].metrics == {"loss": 0.5}
    member.report(Ended(start.generation, COMPLETED), Leaving("done"))
    await member.membership.delivered()
    assert coordinator.view(run_id).phase is RunPhase.SUCCEEDED


async def test_what_is_queued_while_another_report_is_sent_goes_out_at_once(
    coordinator: Serving, member_of: MakeMember, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It used to wait for the next beat: here, for a minute."""
    ready = Attendance.ready
    member = member_of(UNHURRIED)

    async def ready_and_more(self: Attendance, sequence: int, versions: Any) -> None:
        member.report(Ended(0, PREEMPTED))
        await ready(self, sequence, versions)

    monkeypatch.setattr(Attendance, "ready", ready_and_more)
    member.report(Ready({}))
    async with asyncio.timeout(20):
        await member.membership.delivered()
    assert coordinator.view(run_of(member)).members[0].exit == PREEMPTED


async def test_what_was_reported_while_the_line_was_down_arrives_once(
    coordinator: Serving, member_of: MakeMember, line: Line, fed: list[events.Event]
) -> None:
    member = member_of(UNHURRIED, line.address)
    member.report(Ready({}))
    start = await member.starts.get()
    await member.membership.delivered()
    line.is_up = False
    line.cut()
    member.report(
        Entered(start.generation), Progressed(start.generation, 1), Progressed(start.generation, 2)
    )
    await line.refused.wait()
    line.is_up = True
    await member.membership.delivered()
    assert coordinator.view(run_of(member)).members[0].phase is MemberPhase.RUNNING
    kinds = (events.ProcessReady, events.MainEntered, events.ProgressMade)
    arrived = [event for event in fed if isinstance(event, kinds)]
    assert [type(event) for event in arrived] == list(kinds)
    assert getattr(arrived[-1], "step", None) == 2  # of two reports of progress the later one


async def test_a_lost_acknowledgement_has_the_report_repeated_and_changes_nothing(
    coordinator: Serving, member_of: MakeMember, line: Line, fed: list[events.Event]
) -> None:
    member = member_of(UNHURRIED, line.address)
    member.report(Ready({}))
    start = await member.starts.get()
    member.report(Entered(start.generation))
    await member.membership.delivered()
    line.freeze("down")
    member.report(Ended(start.generation, COMPLETED))
    run = await coordinator.ended(run_of(member))
    assert not member.membership._outbox.is_delivered
    line.cut()
    line.thaw()
    await member.membership.delivered()
    assert sum(isinstance(event, events.ProcessEnded) for event in fed) == 2
    assert coordinator.view(run_of(member)).members == run.members


async def test_a_lost_start_command_is_said_again(
    coordinator: Serving, member_of: MakeMember, line: Line
) -> None:
    member = member_of(UNHURRIED, line.address)
    await coordinator.until(run_of(member), phase_is(MemberPhase.RESERVED))
    line.freeze("down")
    member.report(Ready({}))
    await coordinator.until(run_of(member), phase_is(MemberPhase.STARTING))
    assert member.starts.empty()
    line.cut()
    line.thaw()
    assert (await member.starts.get()).generation == 1


async def test_silence_is_filled_with_beats(
    coordinator: Serving, member_of: MakeMember, fed: list[events.Event]
) -> None:
    member = member_of(HURRIED)
    run_id = run_of(member)
    await coordinator.until(run_id, phase_is(MemberPhase.RESERVED))
    deadline = time.monotonic() + 10
    while sum(isinstance(event, events.Heard) for event in fed) < 5:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    assert coordinator.view(run_id).members[0].phase is MemberPhase.RESERVED


async def test_a_stop_is_handed_on_with_its_grace(
    coordinator: Serving, member_of: MakeMember
) -> None:
    member = member_of(UNHURRIED)
    member.report(Ready({}))
    start = await member.starts.get()
    coordinator.engine.feed(events.StopRequested(run_of(member), "enough of it", 2.5))
    stop = await member.stops.get()
    assert (stop.reason, stop.grace) == ("enough of it", 2.5)
    member.report(Ended(start.generation, ExitReport(Cause.STOPPED, proof=Proof.KERNEL)))
    assert (await coordinator.ended(run_of(member))).phase is RunPhase.CANCELLED


async def test_an_unreachable_coordinator_is_told_with_both_ends(
    member_of: MakeMember, line: Line
) -> None:
    """R1: a firewall between executors and driver."""
    line.is_up = False
    member = member_of(UNHURRIED, line.address, connect_timeout=0.3)
    why = await member.must_stop()
    assert line.address in why
    assert "executor-host" in why
    assert "for 0.3 s" in why
    assert "open that port" in why


async def test_a_coordinator_that_comes_late_is_waited_for(
    coordinator: Serving, member_of: MakeMember, line: Line
) -> None:
    line.is_up = False
    member = member_of(UNHURRIED, line.address)
    member.report(Ready({}))
    await line.refused.wait()
    line.is_up = True
    await member.starts.get()


async def test_a_wrong_token_is_refused_at_once(member_of: MakeMember) -> None:
    """R5."""
    why = await member_of(UNHURRIED, token="forged").must_stop()
    assert "refused by the coordinator" in why
    assert "token" in why


async def test_a_run_that_is_over_has_no_place_left(
    coordinator: Serving, member_of: MakeMember
) -> None:
    member = member_of(UNHURRIED)  # does not run before the next await
    coordinator.engine.feed(events.StopRequested(run_of(member), "enough", None))
    assert "nothing to join" in await member.must_stop()


async def test_who_has_lost_the_slot_is_refused_when_it_attends(
    member_of: MakeMember, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R3: whether the refusal comes with the hello or after it."""
    attend = ReservationClient.attend

    def as_another(self: ReservationClient, run_id: RunId, member: MemberId, _: Any) -> Attendance:
        return attend(self, run_id, member, IncarnationId("another"))

    monkeypatch.setattr(ReservationClient, "attend", as_another)
    why = await member_of(UNHURRIED).must_stop()
    assert why.startswith("refused by the coordinator: ")
    assert "not held by another" in why


async def test_who_is_cut_off_fences_itself(member_of: MakeMember, line: Line) -> None:
    """O13, R3: by then the coordinator gives the slot to another attempt."""
    member = member_of(HURRIED, line.address)
    member.report(Ready({}))
    await member.membership.delivered()
    line.is_up = False
    line.cut()
    why = await member.must_stop()
    assert why.startswith("fenced: cut off from the coordinator")
    assert line.address in why


async def test_a_connection_that_stays_open_and_silent_is_a_cut_too(
    member_of: MakeMember, line: Line
) -> None:
    """O13: a partition, or a coordinator that was stopped. No error ever comes."""
    member = member_of(HURRIED, line.address)
    member.report(Ready({}))
    await member.membership.delivered()
    line.freeze()
    assert "fenced" in await member.must_stop()
    assert line.accepted == 1


async def test_a_talkative_member_fences_itself_as_well(member_of: MakeMember, line: Line) -> None:
    """It never waits for a beat: the clock must not depend on that."""
    member = member_of(HURRIED, line.address)
    member.report(Ready({}))
    await member.membership.delivered()
    line.freeze()

    async def talk() -> None:
        while True:
            member.report(Progressed(1, 1))
            await asyncio.sleep(0.01)

    talking = asyncio.create_task(talk())
    try:
        assert "fenced" in await member.must_stop()
    finally:
        talking.cancel()
        await asyncio.wait((talking,))


async def test_the_fence_counts_from_the_asking_for_the_slot(coordinator: Serving) -> None:
    """The coordinator counts from the receipt of the claim, so we may not begin later."""

    class SlowClient(ReservationClient):
        async def reserve(self, *claim: Any) -> Reservation:
            answer = await super().reserve(*claim)
            await asyncio.sleep(answer.fence_timeout)
            return answer

    run_id = coordinator.create_run(HURRIED)
    address, token = coordinator.address, coordinator.token
    member = Member(address, token, run_id, client=SlowClient(address, token))
    try:
        assert "fenced" in await member.must_stop()
    finally:
        await member.close()


async def test_names_that_cannot_travel_are_made_to(
    coordinator: Serving, member_of: MakeMember
) -> None:
    """A report that gRPC refuses would be tried again for ever."""
    member = member_of(UNHURRIED)
    names = {"\udcff" * 3: 1.0, "x" * 10_000: 2.0, **{f"metric {n}": 0.0 for n in range(100_000)}}
    for message in (
        {"event": "ready", "versions": {"\udcff": "\udcff"}},
        {"event": "progress", "step": 1, "metrics": names},
    ):
        report = report_from(message, 1)
        assert report is not None
        member.report(report)
    async with asyncio.timeout(20):
        await member.membership.delivered()
