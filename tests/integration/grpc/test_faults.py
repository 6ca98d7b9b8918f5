"""One fault after another beside members that behave: these form, run and end well (R3, R4, R5).

Every fault is a ``Script``; ``test_scale`` mixes them among a thousand members.
"""

from __future__ import annotations

import asyncio
import time

import pytest

from coordinator.core.model import MemberPhase, Roles, RunPhase, RunSpec
from coordinator.limits import Limits
from coordinator.testing import (
    COMPLETED,
    FakeFleet,
    FakeGang,
    HalfMessage,
    ManualClock,
    Moment,
    Script,
    Serving,
    drive,
)
from tests.integration.grpc import raw
from tests.integration.grpc.limited import limited

pytestmark = pytest.mark.timeout(120)

ROLES = Roles(worker=4)
GOOD = [f"worker:{index}" for index in range(1, 4)]

FAULTS = {
    "late": Script(joins_after_seconds=0.2),
    "with duplicates": Script(duplicates=3, stand_by_delay=0.0),
    "with impostors": Script(impostors=3),
    "of other generations": Script(wrong_generations=(1, 6)),
    "flooding": Script(floods=500),
    "half open": Script(half_open=20),
    "with half messages": Script(half_messages=20),
    "all at once": Script(
        joins_after_seconds=0.1,
        duplicates=1,
        stand_by_delay=0.0,
        impostors=1,
        wrong_generations=(2,),
        floods=100,
        half_open=5,
        half_messages=5,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("script", FAULTS.values(), ids=FAULTS)
async def test_the_gang_of_a_member_with_this_fault_forms_and_ends_well(
    script: Script, coordinator: Serving, gang_of
) -> None:
    gang = await gang_of(coordinator, ROLES)
    assert set((await gang.live({"worker:0": script})).values()) == {COMPLETED}
    run = coordinator.view(gang.run_id)
    assert run.phase is RunPhase.SUCCEEDED
    assert run.generation == 1
    assert {member.step for member in run.members[1:]} == {0}
    assert run.members[0].step <= script.floods  # no step of another generation
    tally = gang["worker:0"].tally
    assert tally.stood_by >= script.duplicates
    assert tally.refused == 2 * script.impostors
    assert tally.lies == 2 * 3 * len(script.wrong_generations)
    assert (tally.flooded, tally.half_sent) == (script.floods, script.half_messages)
    assert (tally.usurped, tally.admitted) == (0, 0)


async def test_a_duplicate_of_a_live_slot_changes_nothing_of_it(
    coordinator: Serving, gang_of
) -> None:
    """R4: before the gang is formed, and while it runs."""
    gang = await gang_of(coordinator, Roles(worker=1))
    living = asyncio.create_task(
        gang.live({"worker:0": Script(duplicates=2, stand_by_delay=0.0, works_until="seen")})
    )
    worker = gang["worker:0"]
    entered = await coordinator.until(
        gang.run_id, lambda run: run.members[0].phase is MemberPhase.RUNNING
    )
    stood_by = worker.tally.stood_by
    # Asked again while it is in main_fun, both of them.
    await raw.becomes_true(lambda: worker.tally.stood_by >= stood_by + 4)
    assert coordinator.view(gang.run_id).members == entered.members
    gang.gates.open("seen")
    assert await living == {"worker:0": COMPLETED}
    assert worker.tally.usurped == 0


async def test_a_silent_member_costs_its_own_run_and_no_other(
    timeless: Serving, clock: ManualClock, gang_of
) -> None:
    silent = await gang_of(timeless, Roles(worker=2))
    spec = RunSpec(Roles(worker=2))
    scripts = {"worker:0": Script(silent_from=Moment.READY), "worker:1": Script(works_until="end")}
    living = asyncio.create_task(silent.live(scripts))
    ready = [MemberPhase.STARTING, MemberPhase.RUNNING]
    await timeless.until(silent.run_id, lambda run: [m.phase for m in run.members] == ready)
    clock.advance(spec.liveness_ttl - 1)
    await silent["worker:1"].beat()
    clock.advance(1)
    assert (await drive(timeless, spec)).phase is RunPhase.SUCCEEDED
    run = timeless.view(silent.run_id)
    assert run.members[0].phase is MemberPhase.LOST
    assert run.phase is RunPhase.STOPPING
    await living


@pytest.mark.parametrize("count", [1, 40])
async def test_a_stranger_with_half_a_message_is_answered_and_waited_for_by_nobody(
    count: int, coordinator: Serving
) -> None:
    """R5: the token is looked at first, the rest of the message is never missed."""
    for token in ["", "forged"] * count:
        # Sooner than one would be who has the token and is waited for.
        async with asyncio.timeout(Limits().hello_timeout / 2):
            async with HalfMessage(coordinator.address, token) as stranger:
                assert await stranger.is_answered()
    assert (await drive(coordinator, RunSpec(ROLES))).phase is RunPhase.SUCCEEDED


async def test_a_peer_that_froze_in_mid_message_is_given_up() -> None:
    async with (
        asyncio.timeout(30),
        limited(hello_timeout=0.05) as coordinator,
        HalfMessage(coordinator.address, coordinator.token) as frozen,
    ):
        assert await frozen.is_answered()


@pytest.mark.parametrize("ending", ["reset", "close"])
async def test_a_peer_that_froze_in_mid_message_may_go_as_it_likes(
    ending: str, coordinator: Serving
) -> None:
    peers = [HalfMessage(coordinator.address, coordinator.token) for _ in range(20)]
    for peer in peers:
        await peer.send()
    assert (await drive(coordinator, RunSpec(ROLES))).phase is RunPhase.SUCCEEDED
    for peer in peers:
        getattr(peer, ending)()
    assert (await drive(coordinator, RunSpec(ROLES))).phase is RunPhase.SUCCEEDED


async def test_a_half_message_that_was_never_sent_has_no_answer(coordinator: Serving) -> None:
    with pytest.raises(RuntimeError, match="send first"):
        await HalfMessage(coordinator.address).is_answered()


async def test_a_lie_that_would_be_none_is_refused(coordinator: Serving, gang_of) -> None:
    """Below 1 there is no generation, and the end of a member that has none counts."""
    gang = await gang_of(coordinator, Roles(worker=1))
    await gang.form()
    for offset in (0, -1):
        with pytest.raises(ValueError, match="would be no lie"):
            await gang["worker:0"].lie(offset)


async def test_a_flood_ends_when_its_member_is_told_to_stop(coordinator: Serving, gang_of) -> None:
    gang: FakeGang = await gang_of(coordinator, Roles(chief=1, worker=1, ps=1))
    endless = 10**9
    outcomes = await gang.live({"worker:0": Script(floods=endless, works_until="never")})
    assert outcomes["chief:0"] == COMPLETED
    assert gang["worker:0"].tally.flooded < endless
    assert (await coordinator.ended(gang.run_id)).phase is RunPhase.SUCCEEDED


@pytest.mark.slow
async def test_floods_of_other_processes_delay_nobodys_beats_into_a_loss(
    coordinator: Serving,
) -> None:
    """R5: four members at full speed for longer than the liveness time. A member whose beats came
    too late would be lost, and its run would fail."""
    roles = Roles(worker=24)
    spec = RunSpec(roles, beat_interval=0.5, liveness_ttl=4.0)
    run_id = coordinator.create_run(spec)
    loud = [f"worker:{index}" for index in range(4)]
    scripts = {f"worker:{index}": Script(works_until="later") for index in range(24)}
    scripts |= {name: Script(floods=10**9, works_until="later") for name in loud}
    async with FakeFleet(
        coordinator.address, coordinator.token, run_id, roles, scripts=scripts, processes=3
    ) as fleet:
        began_at = await fleet.form()
        await fleet.until(Moment.ENTERED)
        left = began_at + 1.5 * spec.liveness_ttl - time.monotonic()
        await asyncio.sleep(max(0.0, left))  # the liveness time has to pass for real
        run = coordinator.view(run_id)
        assert {member.phase for member in run.members} == {MemberPhase.RUNNING}
        assert all(run.members[index].step > 100 for index in range(4))
        fleet.open("later")
        outcomes = await fleet.finish()
    assert {outcome.report for outcome in outcomes.values()} == {COMPLETED}
    assert (await coordinator.ended(run_id)).phase is RunPhase.SUCCEEDED
