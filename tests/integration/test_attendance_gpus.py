"""What a membership says and hears of GPUs, against a real coordinator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from coordinator.core import events
from coordinator.core.gpu import GpuOffer, GpuSight, LeaseToken
from coordinator.core.model import MemberPhase, Roles, RunId, RunView
from coordinator.member_client import ClaimGpus, InspectGpus
from coordinator.testing import Serving, serving
from executor_agent.member_reports import Claimed, Entered, Inspected, Progressed, Ready
from tests.integration.membership import UNHURRIED, Member

pytestmark = pytest.mark.timeout(60)

FREE = GpuSight("GPU-a", True)
BUSY = GpuSight("GPU-a", False, holder="somebody", pids=(7,))
SPEC = replace(UNHURRIED, gpus=Roles(worker=1), beat_interval=0.05)


@pytest.fixture
async def coordinator() -> AsyncIterator[Serving]:
    async with serving() as running:
        yield running


class Pair:
    """A run, and its only member."""

    def __init__(self, coordinator: Serving, sight: GpuSight) -> None:
        self.coordinator = coordinator
        self.run_id: RunId = coordinator.create_run(SPEC)
        offer = GpuOffer((sight,))
        self.member = Member(coordinator.address, coordinator.token, self.run_id, gpus=offer)

    async def until(self, phase: MemberPhase) -> RunView:
        async with asyncio.timeout(30):
            return await self.coordinator.until(
                self.run_id, lambda run: run.members[0].phase is phase
            )

    async def command(self) -> InspectGpus | ClaimGpus:
        async with asyncio.timeout(30):
            return await self.member.about_gpus.get()

    async def running(self) -> LeaseToken:
        """With its GPU, whose lease it renews."""
        self.member.report(Ready({}))
        claim = await self.command()
        assert isinstance(claim, ClaimGpus)
        self.member.leases = list(claim.grants.values())
        self.member.report(Claimed(claim.number))
        await self.until(MemberPhase.STARTING)
        self.member.report(Entered(1))
        await self.until(MemberPhase.RUNNING)
        return claim.grants["GPU-a"]


async def test_a_gpu_in_use_is_looked_at_and_claimed_once_it_is_free(coordinator: Serving) -> None:
    pair = Pair(coordinator, BUSY)
    try:
        pair.member.report(Ready({}))
        look = await pair.command()
        assert isinstance(look, InspectGpus)
        assert look.uuids == ("GPU-a",)
        pair.member.report(Inspected(look.number, (BUSY,)))
        pair.member.report(Inspected(look.number, (FREE,)))
        claim = await pair.command()
        assert isinstance(claim, ClaimGpus)
        assert claim.grants["GPU-a"].number > look.number
        assert claim.grants["GPU-a"].coordinator_id == look.coordinator_id
    finally:
        await pair.member.close()


async def test_who_reports_all_the_time_renews_its_leases_all_the_same(
    coordinator: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Progress renews none, and beats were left out when something else was sent."""
    heard: list[events.Event] = []
    feed = coordinator.engine.feed
    monkeypatch.setattr(
        coordinator.engine, "feed", lambda event: (heard.append(event), feed(event))[1]
    )
    pair = Pair(coordinator, FREE)
    try:
        token = await pair.running()

        def renewals() -> int:
            return sum(isinstance(each, events.Heard) and token in each.leases for each in heard)

        async with asyncio.timeout(30):
            step, before = 0, renewals()
            while renewals() < before + 5:
                step += 1
                pair.member.report(Progressed(1, step))
                await asyncio.sleep(SPEC.beat_interval / 10)
    finally:
        await pair.member.close()


async def test_a_lease_that_is_not_known_any_more_ends_it(coordinator: Serving) -> None:
    """A stale incarnation renews: it must stop."""
    pair = Pair(coordinator, FREE)
    try:
        token = await pair.running()
        pair.member.leases = [replace(token, number=token.number + 1)]
        why = await pair.member.must_stop()
        assert "refused by the coordinator" in why
        assert f"the lease {token.coordinator_id}/{token.number + 1}" in why
    finally:
        await pair.member.close()
