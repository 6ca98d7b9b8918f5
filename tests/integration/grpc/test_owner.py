"""O13: with a daemon the owner is known by its session alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from coordinator.client import RunClient
from coordinator.core.errors import UnknownRun
from coordinator.core.model import Roles, RunId, RunPhase, RunSpec, RunView
from coordinator.testing import ManualClock, Serving
from tests.integration.grpc.conftest import MakeGang

ROLES = Roles(worker=1)
SPEC = RunSpec(ROLES, reservation_timeout=3600, owner_timeout=300)


def is_here(owner: Iterator[RunView]) -> RunView:
    """The session is open when its first picture has come; it stays open as long as ``owner``."""
    return next(owner)


async def test_an_owner_sees_its_run_from_creation_to_its_end(
    coordinator: Serving, gang_of: MakeGang
) -> None:
    gang = await gang_of(coordinator, SPEC)
    owner = RunClient(coordinator.address, coordinator.token)
    seen = asyncio.create_task(asyncio.to_thread(lambda: list(owner.own(gang.run_id))))
    await gang.form()
    await gang.enter()
    await gang.finish()
    phases = [view.phase for view in await seen]
    owner.close()
    assert phases[0] is RunPhase.FORMING
    assert phases[-1] is RunPhase.SUCCEEDED


async def test_a_session_that_breaks_begins_the_clock_and_a_new_one_ends_it(
    timeless: Serving, clock: ManualClock, gang_of: MakeGang
) -> None:
    gang = await gang_of(timeless, SPEC, beating=False)
    await gang.form()
    await gang.enter()
    for _ in range(2):
        owner = RunClient(timeless.address, timeless.token)
        session = owner.own(gang.run_id)
        await asyncio.to_thread(is_here, session)
        await gang.pass_time(clock, 400)
        assert timeless.view(gang.run_id).phase is RunPhase.RUNNING, "the owner is there"
        owner.close()
        await until_left(timeless, gang.run_id)
        await gang.pass_time(clock, 290)
        assert timeless.view(gang.run_id).phase is RunPhase.RUNNING, "it may come back"
    await gang.pass_time(clock, 10)
    run = timeless.view(gang.run_id)
    assert run.phase is RunPhase.STOPPING
    assert run.stop_reason == "its owner, the driver, was away for 300 s"


async def until_left(coordinator: Serving, run_id: RunId) -> None:
    """The server learns of the end of a session a moment after it was closed."""
    async with asyncio.timeout(10):
        while coordinator.engine.has_watchers(run_id):  # noqa: ASYNC110 nothing tells of it
            await asyncio.sleep(0.01)


async def test_nobody_owns_a_run_that_is_not_known(coordinator: Serving) -> None:
    owner = RunClient(coordinator.address, coordinator.token)
    with pytest.raises(UnknownRun, match="never"):
        await asyncio.to_thread(is_here, owner.own(RunId("never")))
    owner.close()
