"""What a list of runs holds, and what it leaves to the question for one."""

from __future__ import annotations

import asyncio

from coordinator.client import RunClient
from coordinator.core.model import Cause, ExitReport, Roles, RunPhase
from coordinator.testing import Serving
from tests.integration.grpc.conftest import MakeGang

CRASH = ExitReport(
    Cause.USER_EXCEPTION,
    exception_type="ValueError",
    message="bad labels" + "!" * 8000,
    traceback="Traceback ...",
    log_tail="the last lines",
)


async def test_a_list_leaves_out_logs_and_tracebacks_which_one_run_has(
    coordinator: Serving, gang_of: MakeGang
) -> None:
    """A daemon remembers a hundred runs: with them the list would not fit into a message, and no
    run could be found to be stopped."""
    gang = await gang_of(coordinator, Roles(worker=1))
    await gang.form()
    await gang.enter()
    await gang["worker:0"].end(CRASH)
    await coordinator.ended(gang.run_id)
    client = RunClient(coordinator.address, coordinator.token)
    (listed,) = await asyncio.to_thread(client.list)
    whole = await asyncio.to_thread(client.get, gang.run_id)
    client.close()
    assert listed.phase is whole.phase is RunPhase.FAILED
    for run, is_whole in ((listed, False), (whole, True)):
        assert run.failure is not None
        for report in (run.members[0].exit, run.failure.exit):
            assert report is not None
            assert report.exception_type == "ValueError"
            assert report.message.startswith("bad labels")
            assert (len(report.message) > 1000) is is_whole
            assert bool(report.traceback) is is_whole
            assert bool(report.log_tail) is is_whole
