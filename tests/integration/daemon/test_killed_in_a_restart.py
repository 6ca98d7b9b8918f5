"""The daemon is killed while a run restarts, and goes on with it from its journal."""

from __future__ import annotations

import asyncio

import pytest

from coordinator.core.model import Cause, ExitReport, Roles, RunId, RunPhase, RunSpec
from coordinator.core.policy import RestartPolicy
from coordinator.testing import COMPLETED, STOPPED, FakeGang
from tests.integration.daemon.persistent import persist, persist_in_thread
from tests.integration.daemon.process import Daemon, StartDaemon

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

KILLED = ExitReport(Cause.KILLED_BY_SIGNAL, signal=9)
TWO = Roles(worker=2)
RUN = RunSpec(TWO, restart=RestartPolicy(max_restarts=2))


def gang_of(daemon: Daemon, run_id: RunId) -> FakeGang:
    return FakeGang(daemon.address, daemon.token, run_id, TWO)


@pytest.mark.parametrize("after_the_verdict", [False, True])
async def test_a_restart_goes_on_after_the_daemon_was_killed_in_it(
    after_the_verdict: bool, start: StartDaemon
) -> None:
    daemon = start()
    client = daemon.client()
    run_id = (await asyncio.to_thread(client.create, RUN)).run_id
    client.close()
    async with gang_of(daemon, run_id) as gang:
        await gang.form()
        await gang.enter()
        await gang["worker:1"].end(KILLED)
        assert (await gang["worker:0"].told_to_stop()).again
        if after_the_verdict:
            await gang["worker:0"].end(STOPPED, generation=1)
        await asyncio.to_thread(daemon.kill)
        daemon = await asyncio.to_thread(start, daemon.port)
        if not after_the_verdict:
            await persist(gang["worker:0"].attend)
            assert (await gang["worker:0"].told_to_stop()).again, "it is told again"
            await gang["worker:0"].end(STOPPED, generation=1)
    client = daemon.client()
    async with gang_of(daemon, run_id) as gang:
        await gang.form()
        await gang.enter()
        view = await persist_in_thread(lambda: client.get(run_id))
        assert (view.phase, view.generation) == (RunPhase.RUNNING, 2)
        assert [(each.cause, str(each.member)) for each in view.restarts] == [
            (Cause.KILLED_BY_SIGNAL, "worker:1")
        ]
        for worker in gang:
            await worker.end(COMPLETED)
    view = await asyncio.to_thread(client.get, run_id)
    client.close()
    assert view.phase is RunPhase.SUCCEEDED
