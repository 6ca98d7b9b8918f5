"""Failures that become restarts, and stalls that become failures, through the real server."""

from __future__ import annotations

import asyncio

import pytest

from coordinator.core.model import Cause, ExitReport, Roles, RunPhase, RunSpec
from coordinator.core.policy import RestartPolicy
from coordinator.core.stall_timeouts import StallTimeouts
from coordinator.testing import COMPLETED, STOPPED, FakeGang, ManualClock, Serving
from tests.integration.grpc.conftest import MakeGang

pytestmark = pytest.mark.timeout(60)

KILLED = ExitReport(Cause.KILLED_BY_SIGNAL, signal=9)
FOUR = RunSpec(Roles(worker=4), restart=RestartPolicy(max_restarts=2, backoff=0.0))


async def next_generation(gang: FakeGang, victim: str) -> None:
    """One is killed, the others obey, and another attempt of each gets the cluster spec."""
    await gang[victim].end(KILLED)
    others = [each for each in gang if each is not gang[victim]]
    for each in others:
        assert (await each.told_to_stop()).again
    again = {name: each.copy() for name, each in gang.members.items()}
    early = await again[victim].reserve()
    assert not early.is_granted
    assert early.retry_delay < 1
    for each in others:
        await each.end(STOPPED)
    for each in list(gang):
        await each.drop()
    gang.members.update(again)
    await gang.form()
    await gang.enter()


async def test_one_of_four_is_killed_and_the_gang_goes_on_in_the_next_generation(
    coordinator: Serving, gang_of: MakeGang
) -> None:
    """E2"""
    gang = await gang_of(coordinator, FOUR)
    await gang.form()
    await gang.enter()
    await next_generation(gang, "worker:2")
    assert {each.start.generation for each in gang if each.start} == {2}
    view = coordinator.view(gang.run_id)
    assert (view.phase, view.restart_count) == (RunPhase.RUNNING, 1)
    assert [(each.cause, str(each.member)) for each in view.restarts] == [
        (Cause.KILLED_BY_SIGNAL, "worker:2")
    ]
    assert coordinator.engine.tallies.restarts == {"killed by signal": 1}
    told = [(each.kind, each.subject) for each in coordinator.engine.events.kept]
    assert ("run.restarted", "worker:2") in told
    assert [kind for kind, _ in told if kind in ("run.restarting", "run.reforming")] == [
        "run.restarting",
        "run.reforming",
    ]
    async with asyncio.TaskGroup() as group:
        for each in gang:
            group.create_task(each.end(COMPLETED))
    assert (await coordinator.ended(gang.run_id)).phase is RunPhase.SUCCEEDED


async def test_the_failure_beyond_the_budget_tells_of_those_before(
    coordinator: Serving, gang_of: MakeGang
) -> None:
    gang = await gang_of(coordinator, FOUR)
    await gang.form()
    await gang.enter()
    for victim in ("worker:1", "worker:3"):
        await next_generation(gang, victim)
    await gang["worker:0"].end(KILLED)
    for name in ("worker:1", "worker:2", "worker:3"):
        assert not (await gang[name].told_to_stop()).again
        await gang[name].end(STOPPED)
    run = await coordinator.ended(gang.run_id)
    assert run.phase is RunPhase.FAILED
    assert run.failure is not None
    assert str(run.failure.member) == "worker:0"
    assert run.failure.summary.endswith("2 in a row without a new step or checkpoint)")
    assert [text.partition(":")[0] for text in run.failure.others] == [
        "generation 1, restarted at step 0",
        "generation 2, restarted at step 0",
    ]


async def test_all_are_asked_where_they_stand_and_the_one_that_sleeps_is_named(
    timeless: Serving, clock: ManualClock, gang_of: MakeGang
) -> None:
    """E5"""
    spec = RunSpec(Roles(worker=3), stall=StallTimeouts(step=60.0))
    gang = await gang_of(timeless, spec, beating=False)
    await gang.form()
    await gang.enter()
    for each in gang:
        await each.progress(7)
    await gang.pass_time(clock, 60.0)
    waits = 'Thread 0x1:\n  File "/env/tensorflow/python/eager/execute.py", line 53 in execute'
    await gang["worker:0"].show_stack(waits)
    await gang["worker:2"].show_stack(waits)
    await gang["worker:1"].show_stack('Thread 0x1:\n  File "/job/train.py", line 7 in load')
    for each in gang:
        await each.told_to_stop()
        await each.end(STOPPED)
    run = await timeless.ended(gang.run_id)
    assert run.failure is not None
    assert (run.failure.cause, str(run.failure.member)) == (Cause.STALLED, "worker:1")
    assert "at step 7; it stands in train.py:7 (load)" in run.failure.summary
