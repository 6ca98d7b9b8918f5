"""A coordinator with limits of the test's own, and a healthy gang that must not notice them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from coordinator.core.model import MemberPhase, Roles, RunPhase, RunSpec
from coordinator.limits import Limits
from coordinator.testing import FakeGang, Serving, serving

ROLES = Roles(chief=1, worker=5)


@asynccontextmanager
async def limited(*, has_tls: bool = False, **limits: float) -> AsyncIterator[Serving]:
    """``limits``: those that are not as usual."""
    async with serving(tls=has_tls, limits=Limits(**limits)) as coordinator:
        yield coordinator


@asynccontextmanager
async def undisturbed(coordinator: Serving, ttl: float = 10.0) -> AsyncIterator[FakeGang]:
    """A gang that was there before lives through what happens inside, and one that comes while it
    lasts forms and ends well."""
    spec = RunSpec(ROLES, beat_interval=ttl / 20, liveness_ttl=ttl)
    run_id = coordinator.create_run(spec)
    where = (coordinator.address, coordinator.token)
    async with FakeGang(*where, run_id, ROLES, tls=coordinator.tls) as gang:
        await gang.form()
        await gang.enter()
        yield gang
        late_id = coordinator.create_run(spec)
        async with FakeGang(*where, late_id, ROLES, tls=coordinator.tls) as late:
            await late.live()
        assert (await coordinator.ended(late_id)).phase is RunPhase.SUCCEEDED
        await gang.beat()
        members = coordinator.view(run_id).members
        assert {member.phase for member in members} == {MemberPhase.RUNNING}
        await gang.finish()
        assert (await coordinator.ended(run_id)).phase is RunPhase.SUCCEEDED


def resident_mib() -> float:
    """The memory of this process, the coordinator's and its clients'."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20
