"""`tflease leases`, as a shell runs it, and a daemon that is killed in the middle of a grant."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator

import pytest

from coordinator.core.errors import CoordinatorUnavailable, UnknownRun
from coordinator.core.gpu import GpuSight, LeaseState
from coordinator.core.model import Roles, RunSpec, RunView
from coordinator.gpu_client import GpuClient
from coordinator.testing import FakeGang, FakeHost, Script
from tests.integration.daemon.process import DEADLINE, Daemon, Home, StartDaemon

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

TWO = RunSpec(Roles(worker=2), gpus=Roles(worker=1), name="mnist")
ONE = RunSpec(Roles(worker=1), gpus=Roles(worker=1))

LEASE_KEYS = {
    "uuid", "state", "since", "host", "boot_id", "name", "holder", "who", "token", "expires_at",
    "reason", "pids",
}  # fmt: skip


async def gang_in(daemon: Daemon, spec: RunSpec, host: FakeHost) -> FakeGang:
    client = daemon.client()
    run = await asyncio.to_thread(client.create, spec)
    client.close()
    return FakeGang(daemon.address, daemon.token, run.run_id, spec.roles, hosts=host)


async def until(daemon: Daemon, gang: FakeGang, condition: Callable[[RunView], bool]) -> RunView:
    """Looks on until the run is like that."""
    client = daemon.client()

    def watch() -> RunView:
        return next(view for view in client.watch(gang.run_id) if condition(view))

    try:
        async with asyncio.timeout(DEADLINE):
            return await asyncio.to_thread(watch)
    finally:
        client.close()


async def over(forming: asyncio.Task[None]) -> None:
    """Its coordinator is gone."""
    with pytest.raises((CoordinatorUnavailable, BaseExceptionGroup)):
        await forming


def waits_for_a_gpu(view: RunView) -> bool:
    return any("waits for a GPU" in sentence for sentence in view.diagnosis)


@pytest.fixture
def gpus(daemon: Daemon) -> Iterator[GpuClient]:
    client = GpuClient(daemon.address, daemon.token)
    yield client
    client.close()


async def test_leases_shows_who_has_which_gpu_and_status_shows_it_too(
    daemon: Daemon, home: Home
) -> None:
    assert "no GPUs" in (await home.tflease("leases")).out
    host = FakeHost("GPU-a", "GPU-b", "GPU-c")
    host.occupy("GPU-c", "a notebook", 4711)
    async with await gang_in(daemon, TWO, host) as gang:
        await gang.form()
        table = await home.tflease("leases")
        assert table.code == 0
        rows = {line.split()[0]: line for line in table.out.splitlines()[1:]}
        [mine] = gang["worker:0"].gpus
        assert "held" in rows[mine]
        assert f"worker:0 of run {gang.run_id} (mnist)" in rows[mine]
        assert "in use by a notebook (pid 4711)" in rows["GPU-c"]

        done = await home.tflease("leases", "--json")
        found = json.loads(done.out)
        assert found["coordinator"] == daemon.address
        assert all(gpu.keys() == LEASE_KEYS for gpu in found["gpus"])
        by_uuid = {gpu["uuid"]: gpu for gpu in found["gpus"]}
        assert by_uuid[mine]["token"] == str(gang["worker:0"].gpus[mine])
        assert by_uuid[mine]["expires_at"] > by_uuid[mine]["since"]
        assert (by_uuid["GPU-c"]["state"], by_uuid["GPU-c"]["pids"]) == ("free", [4711])

        status = json.loads((await home.tflease("status", gang.run_id, "--json")).out)["run"]
        assert (status["gpus_granted"], status["gpus_total"]) == (2, 2)
        assert status["members"][0]["gpus"] == [mine]
        assert status["members"][0]["gpu_obstacles"] == []
        assert mine in (await home.tflease("status", gang.run_id)).out
        await gang.enter()
        await gang.finish()
    ended = json.loads((await home.tflease("status", gang.run_id, "--json")).out)["run"]
    [seen] = ended["members"][0]["exit"]["gpus"]
    assert seen == {"uuid": mine, "free": True, "holder": None, "pids": []}


async def test_an_operator_puts_a_gpu_aside_and_clears_it(
    daemon: Daemon, home: Home, gpus: GpuClient
) -> None:
    sights = [GpuSight("GPU-a1", is_free=True), GpuSight("GPU-a2", is_free=True)]
    await asyncio.to_thread(gpus.report, "one", "boot", sights)
    aside = await home.tflease("leases", "quarantine", "a1", "--reason", "ECC errors")
    assert aside.code == 0, aside.err
    assert aside.out == "GPU-a1 on one: quarantined; ECC errors\n"
    ambiguous = await home.tflease("leases", "clear", "GPU-a", "--reason", "mended")
    assert ambiguous.code == 2
    assert "GPU-a1 on one, GPU-a2 on one" in ambiguous.err
    cleared = await home.tflease(
        "leases", "--coordinator", daemon.address, "clear", "GPU-a1", "--reason", "mended"
    )
    assert cleared.out == "GPU-a1 on one: free\n"
    assert "put aside by an operator: ECC errors" in daemon.log
    assert "cleared by an operator: mended" in daemon.log
    history = (await home.tflease("leases", "--events")).out.splitlines()
    assert [line.partition("  ")[2] for line in history] == [
        "GPU GPU-a1 on one was put aside by an operator: ECC errors",
        "GPU GPU-a1 on one was cleared by an operator: mended",
    ]
    told = json.loads((await home.tflease("leases", "--events", "--json")).out)["events"]
    assert [f"{each['time']}  {each['text']}" for each in told] == history


async def test_what_cannot_be_said_of_a_gpu(daemon: Daemon, home: Home) -> None:
    async with await gang_in(daemon, ONE, FakeHost("GPU-a")) as gang:
        await gang.form()
        held = await home.tflease("leases", "clear", "GPU-a", "--reason", "now")
        assert held.code == 1
        assert f"held by worker:0 of run {gang.run_id}" in held.err
    unknown = await home.tflease("leases", "clear", "GPU-x", "--reason", "now")
    assert unknown.code == 3
    assert "knows no GPU 'GPU-x'" in unknown.err
    for words in (
        ["clear", "GPU-a"],
        ["clear", "GPU-a", "--reason", " "],
        ["--json", "clear"],
        ["--events", "clear"],
    ):
        assert (await home.tflease("leases", *words)).code == 2


async def test_nobody_there_is_exit_code_1(home: Home) -> None:
    assert (await home.tflease("leases")).code == 1


# --- a coordinator that is killed -----------------------------------------------------------------


async def test_what_was_claimed_under_a_killed_coordinator_is_not_granted_by_the_next(
    start: StartDaemon,
) -> None:
    """In the middle of a grant: one member has claimed, the other has not. The new coordinator
    knows nothing of it; the host does."""
    host = FakeHost("GPU-a", "GPU-b")
    old = start(0, "--in-memory")
    async with await gang_in(old, TWO, host) as first:
        first["worker:1"].conduct.follow(Script(answers_for_gpus=False))
        forming = asyncio.create_task(first.form())
        async with asyncio.timeout(DEADLINE):
            while not host.users:
                await host.news.wait()
        old.kill()
        new = start(old.port, "--in-memory")
        await over(forming)
        async with await gang_in(new, TWO, host) as second:
            formed = asyncio.create_task(second.form())
            view = await until(new, second, waits_for_a_gpu)
            assert f"in use by {first['worker:0'].incarnation}" in str(view.diagnosis)
            with pytest.raises(UnknownRun):
                await first["worker:0"].attend()
            assert list(host.users.values()) == [first["worker:0"].incarnation]
            host.let_go(first["worker:0"].incarnation)  # refused, its agent has stopped its tree
            await formed
            assert set(host.users.values()) == {each.incarnation for each in second}


async def test_a_grant_of_a_killed_coordinator_that_is_claimed_late_is_refused_by_the_host(
    start: StartDaemon,
) -> None:
    """Tokens of two coordinators are never compared: the claim decides."""
    host = FakeHost("GPU-a")
    old = start(0, "--in-memory")
    async with await gang_in(old, ONE, host) as first:
        first["worker:0"].conduct.follow(Script(answers_for_gpus=False))
        forming = asyncio.create_task(first.form())
        view = await until(old, first, lambda view: bool(view.members[0].gpus))
        client = GpuClient(old.address, old.token)
        [lease] = await asyncio.to_thread(client.list)
        client.close()
        assert (lease.state, view.members[0].gpus) == (LeaseState.HELD, ("GPU-a",))
        assert lease.token is not None
        old.kill()
        new = start(old.port, "--in-memory")
        await over(forming)
        async with await gang_in(new, ONE, host) as second:
            await second.form()
            [refusal] = host.claim({"GPU-a": lease.token}, first["worker:0"].incarnation)
            assert refusal.holder == second["worker:0"].incarnation
            assert list(host.users.values()) == [second["worker:0"].incarnation]
