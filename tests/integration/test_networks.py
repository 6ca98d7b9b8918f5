"""Hosts with several networks, and firewalls: real agents on machines made of network namespaces,
which have their own names, links and addresses (R9)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from coordinator.core.model import Cause, Roles, RunId, RunPhase, RunSpec, RunView
from coordinator.engine import Engine
from coordinator.security import new_token
from coordinator.server import Server
from coordinator.testing import Serving
from executor_agent.member_directory import HOME_VARIABLE
from executor_agent.ports import HeldPort
from executor_agent.spark_task import MemberTask
from tests.agent.test_ports import needs_version_6
from tests.integration import namespaces
from tests.integration.agent_harness import AgentProcess
from tests.integration.namespaces import Machine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

machines = namespaces.machines

TWO = RunSpec(Roles(worker=2), beat_interval=60.0, liveness_ttl=120.0, fence_timeout=240.0)
DATA = "10.2.0.0/24"


class Site:
    """Two hosts with two networks, and a coordinator on the first."""

    def __init__(self, one: Machine, two: Machine, coordinator: Serving) -> None:
        self.hosts = (one, two)
        self.coordinator = coordinator
        self.run_id = coordinator.create_run(TWO)

    async def until(self, condition: Callable[[RunView], bool]) -> RunView:
        async with asyncio.timeout(30):
            return await self.coordinator.until(self.run_id, condition)


@asynccontextmanager
async def coordinator_on(machine: Machine | None, host: str, told: str) -> AsyncIterator[Serving]:
    """Listens on ``host``; members are told ``told``."""
    engine, token = Engine(), new_token()
    with ExitStack() as stack:
        if machine is not None:
            stack.enter_context(machine.inside())
        server = Server(engine, token)
        port = await server.start(host)
    try:
        yield Serving(f"{told}:{port}", token, engine, server)
        engine.check_invariants()
    finally:
        await server.stop(grace=0.0)


@pytest.fixture
async def site(machines: Callable[[str], Machine]) -> AsyncIterator[Site]:
    one, two = machines("host-one"), machines("host-two")
    namespaces.connect(one, two, "management", ("10.1.0.1", "10.1.0.2"))
    namespaces.connect(one, two, "data", ("10.2.0.1", "10.2.0.2"))
    async with coordinator_on(one, "0.0.0.0", "10.1.0.1") as coordinator:
        yield Site(one, two, coordinator)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))


@asynccontextmanager
async def agents(site: Site, folder: Path, **changes: Any) -> AsyncIterator[list[AgentProcess]]:
    """One on each host, with the ports 7100 and 7101; the test plays what is around them."""
    async with AsyncExitStack() as stack:
        started = []
        for index, host in enumerate(site.hosts):
            directory = folder / str(index)
            directory.mkdir()
            serving = site.coordinator
            agent = AgentProcess(directory, serving.address, serving.token, site.run_id)
            with host.inside():
                agent.start(
                    member=f"worker:{index}",
                    incarnation=f"attempt-{index}",
                    ports=(7100 + index, 7100 + index),
                    **changes,
                )
            stack.callback(agent.close)
            started.append(agent)
        yield started


def advertised(run: RunView) -> list[str]:
    return [member.endpoint.host if member.endpoint else "" for member in run.members]


# -- whole members ------------------------------------------------------------------------------


def meet(args: Any, ctx: Any) -> tuple[str, str]:
    """Worker 1 calls worker 0 where that one is said to be: the two ends, as each saw them."""
    import socket
    import time

    host, _, port = ctx.cluster_spec["worker"][0].rpartition(":")
    address = (host.strip("[]"), int(port))
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    give_up_at = time.monotonic() + 30
    if ctx.task_index == 0:
        with socket.create_server(address, family=family, reuse_port=True) as listening:
            listening.settimeout(30)
            while True:  # the other one's agent may still be knocking
                connection, peer = listening.accept()
                with connection:
                    if connection.recv(5) == b"hello":
                        return str(connection.getsockname()[0]), str(peer[0])
    while True:
        try:
            with socket.create_connection(address, timeout=30) as connection:
                connection.sendall(b"hello")
                return str(connection.getpeername()[0]), str(connection.getsockname()[0])
        except ConnectionRefusedError:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(0.05)


def task_of(coordinator: Serving, run_id: RunId, **changes: Any) -> MemberTask:
    def main_fun(args: Any, ctx: Any) -> tuple[str, str]:
        return met(args, ctx)

    met = meet
    task = MemberTask(
        members=("worker:0", "worker:1"),
        run_id=run_id,
        coordinator=coordinator.address,
        token=coordinator.token,
        payload=cloudpickle.dumps((main_fun, None)),
        grace={"worker": 0.0},
        preload=(),
        connect_timeout=20.0,
    )
    return replace(task, **changes)


async def rows_of(task: MemberTask, hosts: tuple[Machine, ...] = ()) -> list[dict[str, Any]]:
    """Both members at once, each on its host (or here), from their task to their row."""

    def run(index: int) -> dict[str, Any]:
        with ExitStack() as stack:
            if hosts:
                stack.enter_context(hosts[index].inside())
            return task._run(f"worker:{index}", f"attempt-{index}", 1)

    async with asyncio.timeout(90):
        return await asyncio.gather(*(asyncio.to_thread(run, index) for index in (0, 1)))


async def test_members_meet_in_the_network_that_is_asked_for(site: Site) -> None:
    """R9: the coordinator is in another one."""
    rows = await rows_of(task_of(site.coordinator, site.run_id, network=DATA), site.hosts)
    run = site.coordinator.view(site.run_id)
    assert run.phase is RunPhase.SUCCEEDED, run.failure
    assert advertised(run) == ["10.2.0.1", "10.2.0.2"]
    assert {member.executor.hostname for member in run.members if member.executor} == {
        "host-one",
        "host-two",
    }
    assert [cloudpickle.loads(row["result"]) for row in rows] == 2 * [("10.2.0.1", "10.2.0.2")]


async def test_members_that_cannot_meet_end_the_run_before_main_fun(site: Site) -> None:
    """R9: the data network is down on one host, which still has its address there."""
    site.hosts[1].ip("link set data down")
    rows = await rows_of(task_of(site.coordinator, site.run_id, network=DATA), site.hosts)
    run = site.coordinator.view(site.run_id)
    assert run.phase is RunPhase.FAILED
    assert run.failure is not None
    assert run.failure.cause is Cause.UNREACHABLE
    ends = ["worker:0 on host-one", "worker:1 on host-two"]
    assert run.failure.summary.startswith(tuple(ends))
    assert "cannot reach its peers: from host-" in run.failure.summary
    assert "(10.2.0.1)" in run.failure.summary or "(10.2.0.2)" in run.failure.summary
    assert " to worker:" in run.failure.summary
    assert [row["result"] for row in rows] == [None, None]


@needs_version_6
async def test_members_meet_by_version_6() -> None:
    async with coordinator_on(None, "::1", "[::1]") as coordinator:
        run_id = coordinator.create_run(TWO)
        rows = await rows_of(task_of(coordinator, run_id))
        run = coordinator.view(run_id)
    assert run.phase is RunPhase.SUCCEEDED, run.failure
    assert [cloudpickle.loads(row["result"]) for row in rows] == 2 * [("::1", "::1")]


# -- addresses and ways between them ------------------------------------------------------------


async def test_without_a_network_members_advertise_the_address_that_reaches_the_coordinator(
    site: Site, tmp_path: Path
) -> None:
    """R9."""
    async with agents(site, tmp_path):
        run = await site.until(lambda run: all(advertised(run)))
    assert advertised(run) == ["10.1.0.1", "10.1.0.2"]


async def test_a_firewall_between_two_executors_is_found_and_both_ends_are_named(
    site: Site, tmp_path: Path
) -> None:
    """R9: in one direction only. The member that reaches everybody goes on."""
    site.hosts[1].drop(7101)
    async with agents(site, tmp_path, network=DATA) as (one, two):
        for agent in (one, two):
            await agent.say(event="ready", versions={})
        assert (await two.told())["command"] == "start"
        asked = await one.asked()
        assert asked is not None
        assert asked["reason"].startswith(
            "worker:0 on host-one (10.2.0.1) cannot reach worker:1 at 10.2.0.2:7101: "
            "timed out after 5 s: is a firewall between the executors"
        )
        one.tell_exited(exit_code=None, signal=9, killed_by_us=True, reason=asked["reason"])
        told = await two.asked()  # by the coordinator: the run has failed
        assert told is not None
        two.tell_exited(exit_code=None, signal=9, killed_by_us=True, reason=told["reason"])
        run = await site.until(lambda run: run.phase.is_terminal)
    assert run.failure is not None
    assert run.failure.cause is Cause.UNREACHABLE
    assert run.failure.summary.startswith(
        "worker:0 on host-one (executor 7) cannot reach its peers: from host-one (10.2.0.1) to "
        "worker:1 at 10.2.0.2:7101: timed out after 5 s"
    )
    assert [member.exit.cause for member in run.members if member.exit is not None] == [
        Cause.UNREACHABLE,
        Cause.STOPPED,
    ]


# -- the way to the coordinator -----------------------------------------------------------------


async def end_of_an_executor(site: Site, folder: Path, coordinator: str) -> str:
    """Of the one on the other host, which has a second's patience: why it ends."""
    serving = site.coordinator
    agent = AgentProcess(folder, coordinator, serving.token, site.run_id)
    with site.hosts[1].inside():
        agent.start(connect_timeout=1.0)
    try:
        asked = await agent.asked()
    finally:
        agent.close()
    assert asked is not None
    assert asked["command"] == "stop"
    return str(asked["reason"])


async def test_a_firewall_before_the_coordinator_is_an_end_that_names_both_ends(
    site: Site, tmp_path: Path
) -> None:
    """R1, R9: what is sent to its port is dropped."""
    address = site.coordinator.address
    site.hosts[0].drop(int(address.rpartition(":")[2]))
    reason = await end_of_an_executor(site, tmp_path, address)
    assert f"the coordinator at {address} could not be reached from host-two" in reason
    assert "open that port between executors and driver" in reason


async def test_a_port_on_which_no_coordinator_listens_is_an_end_that_says_so(
    site: Site, tmp_path: Path
) -> None:
    """R1."""
    reason = await end_of_an_executor(site, tmp_path, "10.1.0.1:7787")
    assert "the coordinator at 10.1.0.1:7787 could not be reached from host-two" in reason
    assert "refused" in reason.lower()


async def test_a_host_without_a_route_to_the_coordinator_is_named(
    site: Site, tmp_path: Path
) -> None:
    """R9."""
    reason = await end_of_an_executor(site, tmp_path, "10.9.0.1:7787")
    assert reason.startswith("no route from host-two to the coordinator at 10.9.0.1:7787: ")
    assert "Network is unreachable" in reason


# -- ports --------------------------------------------------------------------------------------


async def test_the_kernel_gives_no_port_that_is_held_to_anybody_who_asks_for_any(
    machines: Callable[[str], Machine],
) -> None:
    """R8: not even to a program of the same user that would share it. Four ports are all it has."""
    machine = machines("narrow")
    machine.set_kernel("ipv4/ip_local_port_range", "40000 40003")
    with ExitStack() as stack:
        stack.enter_context(machine.inside())
        held = [stack.enter_context(closing(HeldPort())).port for _ in range(4)]
        assert sorted(held) == [40000, 40001, 40002, 40003]
        for option in (None, socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            with closing(socket.socket()) as another:
                if option is not None:
                    another.setsockopt(socket.SOL_SOCKET, option, 1)
                with pytest.raises(OSError, match="in use"):
                    another.bind(("0.0.0.0", 0))
        with pytest.raises(OSError, match="in use"):
            HeldPort()
