"""The daemon is killed at every write to its journal, and started again: no token goes back, no
lease is forgotten, no run is lost."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from coordinator.client import RunClient
from coordinator.core.gpu import LeaseState, LeaseToken, Want
from coordinator.core.model import Roles, RunId, RunPhase, RunSpec
from coordinator.gpu_client import GpuClient
from coordinator.testing import FakeHost
from tests.integration.daemon.persistent import (
    PersistentMember,
    persist,
    persist_in_thread,
)
from tests.integration.daemon.process import Daemon, Home, StartDaemon

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

SPEC = RunSpec(Roles(worker=2, ps=1), gpus=Roles(worker=1), name="durable", owner_timeout=60.0)
MORTAL = Path(__file__).parent / "programs" / "mortal_daemon.py"
WRITES = 30
"""More than the scenario has: the last ones kill nobody, and show that there are no more."""
EVERY = bool(os.environ.get("TFLEASE_EVERY_WRITE"))
"""`make kill-writes` sets it; else a few of them are taken, spread over the scenario."""
NUMBERS = range(1, WRITES + 1) if EVERY else (1, 5, 11)


@dataclass
class Seen:
    """What clients were told, in their order. Nothing of it may turn out not to be so."""

    tokens: dict[str, list[LeaseToken]] = field(default_factory=dict)

    def grant(self, gpu: str, token: LeaseToken) -> None:
        self.tokens.setdefault(gpu, []).append(token)

    def check(self) -> None:
        for tokens in self.tokens.values():
            coordinators = {token.coordinator_id for token in tokens}
            assert len(coordinators) == 1, "it has forgotten who it is"
            numbers = [token.number for token in tokens]
            assert numbers == sorted(set(numbers)), "a token went back"


class Keeper:
    """Starts the daemon again on its port whenever it has died, as systemd does."""

    def __init__(self, start: StartDaemon, first: Daemon) -> None:
        self._start = start
        self.daemon = first
        self.restarts = 0

    async def keep(self) -> None:
        while True:
            while self.daemon.process.poll() is None:  # noqa: ASYNC110 nothing tells of it
                await asyncio.sleep(0.01)
            self.restarts += 1
            self.daemon = await asyncio.to_thread(self._start, self.daemon.port)


@pytest.fixture
def clients(home: Home, first: Daemon) -> Iterator[tuple[RunClient, GpuClient]]:
    with closing(first.client()) as runs, closing(GpuClient(first.address, first.token)) as gpus:
        yield runs, gpus


@pytest.fixture
def first(start: StartDaemon, number: int, moment: str) -> Daemon:
    return start(0, program=(str(MORTAL), str(number), moment))


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("number", NUMBERS)
async def test_a_run_and_leases_go_on(
    number: int,
    moment: str,
    first: Daemon,
    start: StartDaemon,
    clients: tuple[RunClient, GpuClient],
) -> None:
    runs, gpus = clients
    keeper = Keeper(start, first)
    keeping = asyncio.create_task(keeper.keep())
    seen = Seen()
    try:
        host = FakeHost("GPU-a", "GPU-b", "GPU-c")
        run_id = await a_run(first, runs, host, seen)
        await leases_of_a_client(gpus, host, seen)
        await leases_of_a_client(gpus, host, seen)
        run = await persist_in_thread(lambda: runs.get(run_id))
        assert run.phase is RunPhase.SUCCEEDED
        known = await persist_in_thread(runs.list)
        assert [each.run_id for each in known] == [run_id], "asked again, it was created again"
        assert run.generation == 1, "a run that was there was started anew"
        book = await persist_in_thread(gpus.list)
        assert {gpu.uuid: gpu.state for gpu in book} == dict.fromkeys(host.uuids, LeaseState.FREE)
        seen.check()
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
    if number <= 14:  # the scenario has at least so many writes
        assert keeper.restarts == 1


async def a_run(daemon: Daemon, runs: RunClient, host: FakeHost, seen: Seen) -> RunId:
    """From its creation to its success."""
    request_id = uuid.uuid4().hex
    created = await persist_in_thread(lambda: runs.create(SPEC, request_id))
    names = ("worker:0", "worker:1", "ps:0")
    members = [
        PersistentMember(daemon.address, created.agent_token, created.run_id, name, host)
        for name in names
    ]
    try:
        await asyncio.gather(*(member.form() for member in members))
        claimed = [dict(member.executor.gpus) for member in members]
        assert sorted(map(len, claimed)) == [0, 1, 1]
        for leases in claimed:
            for gpu, token in leases.items():
                seen.grant(gpu, token)
        await asyncio.gather(*(member.work(3) for member in members))
        workers, server = members[:2], members[2]
        await asyncio.gather(*(member.end() for member in workers))
        await persist(lambda: told_to_stop(server))
        await server.end()
    finally:
        await asyncio.gather(*(member.close() for member in members))
    return created.run_id


async def told_to_stop(server: PersistentMember) -> None:
    """By whichever session."""
    await server._say(server.executor.told_to_stop)


async def leases_of_a_client(gpus: GpuClient, host: FakeHost, seen: Seen) -> None:
    """All GPUs of the host, and back."""
    request_id = uuid.uuid4().hex
    wants = [Want("job", host.uuids, len(host.uuids))]
    grants, _ = await persist_in_thread(lambda: gpus.acquire(request_id, "job", wants, 20.0))
    for _, gpu, token in grants:
        seen.grant(gpu, token)
    await persist_in_thread(lambda: gpus.renew(request_id, [token for *_, token in grants]))
    await persist_in_thread(lambda: gpus.release(request_id, "job", host.look(host.uuids)))
