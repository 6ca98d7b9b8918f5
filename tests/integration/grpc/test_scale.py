"""A gang as large as we promise, in one process; the coordinator is the same as in production."""

from __future__ import annotations

import asyncio
import time

import pytest

from coordinator.core.model import Roles, RunPhase, RunSpec
from coordinator.testing import FakeGang, Serving

pytestmark = [pytest.mark.timeout(120), pytest.mark.slow]

ROLES = Roles(chief=1, worker=900, ps=99)


async def test_a_thousand_members_form_a_gang_and_end(
    coordinator: Serving, record_property
) -> None:
    run_id = coordinator.create_run(RunSpec(ROLES, beat_interval=10))
    async with FakeGang(coordinator.address, coordinator.token, run_id, ROLES) as gang:
        began = time.monotonic()
        async with asyncio.timeout(60):
            await gang.form()
        formed = time.monotonic() - began
        start = gang["worker:899"].start
        assert all(member.start == start for member in gang)
        assert len(start.cluster_spec["worker"]) == 900
        await gang.enter()
        await gang.beat()
        assert coordinator.view(run_id).phase is RunPhase.RUNNING
        await gang.finish()
        assert (await coordinator.ended(run_id)).phase is RunPhase.SUCCEEDED
    record_property("seconds to form", formed)
    record_property("seconds in all", time.monotonic() - began)
    print(f"formed after {formed:.2f} s, ended after {time.monotonic() - began:.2f} s")
