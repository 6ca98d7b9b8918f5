"""The agent's process and what the network gives it: a port, an address, and the way to others."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.core import events
from coordinator.core.model import (
    Cause,
    Endpoint,
    ExitReport,
    IncarnationId,
    MemberId,
    MemberPhase,
    Roles,
    RunPhase,
    RunSpec,
)
from coordinator.testing import FakeExecutor, Serving
from executor_agent.linux import boot_id
from executor_agent.ports import HeldPort
from tests.agent.test_port_range import free_range
from tests.integration import test_agent
from tests.integration.agent_harness import AgentProcess
from tests.integration.test_agent import UNHURRIED, task_of, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

coordinator, agent, home = test_agent.coordinator, test_agent.agent, test_agent.home


async def test_a_member_takes_its_port_from_the_range(
    coordinator: Serving, agent: AgentProcess
) -> None:
    """R8: what a firewall between the executors lets through."""
    first, last = free_range(2)
    with closing(HeldPort((first, first))):
        agent.start(ports=(first, last))
        run = await until(coordinator, agent, MemberPhase.RESERVED)
        assert run.members[0].endpoint == Endpoint("127.0.0.1", last)


async def test_a_range_that_is_used_up_is_an_end_that_names_range_and_host(
    agent: AgentProcess,
) -> None:
    """R8."""
    first, last = free_range(1)
    with closing(HeldPort((first, last))):
        agent.start(ports=(first, last), connect_timeout=0.0)
        asked = await agent.asked()
        assert asked is not None
        assert (asked["command"], asked["grace"]) == ("stop", 0.0)
        text = f"no free port in {first}-{last} on {socket.gethostname()} (1 of 1 taken)"
        assert asked["reason"].startswith(text)
        agent.tell_exited(reason=asked["reason"])
        assert await agent.exit_code() == 0


async def test_a_network_that_the_host_is_not_in_is_an_end_that_names_its_addresses(
    agent: AgentProcess,
) -> None:
    """R9."""
    agent.start(network="203.0.113.0/24")  # for documentation only, by RFC 5737
    asked = await agent.asked()
    assert asked is not None
    text = f"{socket.gethostname()} has no address in 203.0.113.0/24, it has 127.0.0.1 (lo)"
    assert asked["reason"].startswith(text)
    agent.tell_exited(reason=asked["reason"])
    assert await agent.exit_code() == 0


async def test_a_peer_that_is_out_of_reach_ends_the_run_and_both_ends_are_named(
    coordinator: Serving, agent: AgentProcess
) -> None:
    """R9: TensorFlow would hang, and name nobody. The peer is a port whose queue is full."""
    agent.run_id = run_id = coordinator.create_run(replace(UNHURRIED, roles=Roles(worker=2)))
    with ExitStack() as stack:
        full = stack.enter_context(closing(socket.socket()))
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        stack.enter_context(closing(socket.create_connection(full.getsockname(), timeout=5)))
        port = full.getsockname()[1]
        async with FakeExecutor(
            coordinator.address, coordinator.token, run_id, "worker:1"
        ) as other:
            other.info = replace(other.info, boot_id=boot_id())
            other.endpoint = Endpoint("127.0.0.1", port)
            await other.reserve()
            await other.attend()
            await other.ready()
            agent.start(run_id=run_id)
            await agent.say(event="ready", versions={})
            asked = await agent.asked()
            assert asked is not None
            assert (asked["command"], asked["grace"]) == ("stop", 0.0)
            ways = f"worker:1 at 127.0.0.1:{port}: timed out after 5 s: is a firewall"
            here = f"{socket.gethostname()} (127.0.0.1)"
            assert asked["reason"].startswith(f"worker:0 on {here} cannot reach {ways}")
            agent.tell_exited(exit_code=None, signal=9, killed_by_us=True, reason=asked["reason"])
            assert await agent.asked() == {"command": "done"}
            async with asyncio.timeout(30):
                run = await coordinator.until(run_id, lambda run: run.members[0].exit is not None)
    report = run.members[0].exit
    assert report is not None
    assert report.cause is Cause.UNREACHABLE
    assert report.message.startswith(f"from {here} to {ways}")
    assert run.phase is RunPhase.STOPPING


async def test_a_stop_while_peers_are_being_tried_is_obeyed_at_once(
    coordinator: Serving, agent: AgentProcess
) -> None:
    """It is the coordinator's stop that is reported, not what the trying would have found."""
    agent.run_id = run_id = coordinator.create_run(replace(UNHURRIED, roles=Roles(worker=2)))
    async with FakeExecutor(coordinator.address, coordinator.token, run_id, "worker:1") as other:
        other.info = replace(other.info, boot_id=boot_id())
        other.endpoint = Endpoint("255.255.255.255", 1)  # refused by the kernel, and tried again
        await other.reserve()
        await other.attend()
        await other.ready()
        agent.start(run_id=run_id)
        await agent.say(event="ready", versions={})
        await other.started()
        coordinator.engine.feed(events.StopRequested(run_id, "enough of it", 0.0))
        asked = await agent.asked()
        assert asked == {"command": "stop", "grace": 0.0, "reason": "enough of it"}
        agent.tell_exited(exit_code=None, signal=9, killed_by_us=True, reason="enough of it")
        assert await agent.asked() == {"command": "done"}
        assert await agent.exit_code() == 0
        report = coordinator.view(run_id).members[0].exit
    assert report is not None
    assert report.cause is Cause.STOPPED


async def test_a_whole_member_without_a_port_fails_the_run_and_says_why(
    coordinator: Serving, home: Path
) -> None:
    """R8: by way of its row, as it never had a slot to report for."""
    run_id = coordinator.create_run(RunSpec(Roles(worker=1)))
    allowed = free_range(1)
    task = replace(task_of(coordinator, run_id, print), ports=allowed, connect_timeout=0.0)
    with closing(HeldPort(allowed)):
        row = await asyncio.to_thread(task._run, "worker:0", "attempt-1", 1)
    report = ExitReport.from_json(row["report"])
    worker, incarnation = MemberId.parse("worker:0"), IncarnationId("attempt-1")
    coordinator.engine.feed(events.TaskReturned(run_id, worker, incarnation, report))
    run = coordinator.view(run_id)
    assert run.phase is RunPhase.FAILED
    assert run.failure is not None
    assert f"no free port in {allowed[0]}-{allowed[1]} on {socket.gethostname()}" in (
        run.failure.summary
    )
