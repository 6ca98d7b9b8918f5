"""Runs that come and go, and other users of GPUs, while a soak goes on."""

from __future__ import annotations

import asyncio

from benchmarks.client_process import ClientTrouble
from benchmarks.daemon import Daemon
from coordinator.client import RunClient
from coordinator.core.gpu import GpuSight, Want
from coordinator.core.model import Roles, RunId, RunPhase, RunSpec
from coordinator.gpu_client import GpuClient
from coordinator.testing import FakeGang

ROLES = Roles(chief=1, worker=6, ps=1)
_GPUS = 8
_END_TIMEOUT = 60.0


class Churn:
    """One cycle at a time: a whole run of a few members, and a lease that comes and goes."""

    def __init__(self, daemon: Daemon, owner: RunClient, book: GpuClient) -> None:
        self._daemon = daemon
        self._owner = owner
        self._book = book
        self._last = 0  # the highest token so far
        self._loop = asyncio.Runner()  # one for all cycles: gRPC's clients belong to their loop

    def cycle(self, number: int) -> None:
        """Raises TfleaseError, and ClientTrouble for what must not be."""
        run_id = self._owner.create(RunSpec(ROLES)).run_id
        self._loop.run(self._live(run_id))
        for view in self._owner.watch(run_id):
            if view.phase.is_terminal and view.phase is not RunPhase.SUCCEEDED:
                raise ClientTrouble(f"a run without faults has {view.phase.value}: {view.failure}")
        self._lease(number)

    def close(self) -> None:
        """No more cycles."""
        self._loop.close()

    async def _live(self, run_id: RunId) -> None:
        async with (
            asyncio.timeout(_END_TIMEOUT),
            FakeGang(self._daemon.address, self._daemon.token, run_id, ROLES) as gang,
        ):
            await gang.live()

    def _lease(self, number: int) -> None:
        uuid = f"GPU-churn-{number % _GPUS}"
        free = [GpuSight(uuid, True)]
        self._book.report("churn", "boot", free)
        request = f"churn-{number}"
        [grant], _ = self._book.acquire(request, "churn", [Want("one", (uuid,), 1)], 5.0)
        if grant[2].number <= self._last:
            raise ClientTrouble(f"token {grant[2].number} after {self._last}: it must only grow")
        self._last = grant[2].number
        self._book.release(request, "one", free)
