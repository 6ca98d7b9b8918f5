"""Runs that come and go, and other users of GPUs, while a soak goes on."""

from __future__ import annotations

import asyncio
import itertools
import time

from benchmarks.client_process import ClientTrouble
from benchmarks.daemon import Daemon
from coordinator.client import RunClient
from coordinator.core import lease_requests, machine
from coordinator.core.gpu import GpuSight, Want
from coordinator.core.model import Roles, RunId, RunPhase, RunSpec
from coordinator.event_log import KEPT_IN_MEMORY
from coordinator.gpu_client import GpuClient
from coordinator.testing import FakeGang

ROLES = Roles(chief=1, worker=6, ps=1)

_EVENTS_OF_A_RUN = 2 * ROLES.total + 4  # a place and an end for each, and the run's own
FILLING_RUNS = max(machine.KEPT_RUNS, KEPT_IN_MEMORY // _EVENTS_OF_A_RUN)
LEASES_EACH = -(-lease_requests.KEPT_OVER // FILLING_RUNS)
"""What it takes until all that a coordinator remembers of what is over is at its bound."""

_FILLING_PACE = 0.15  # seconds for each: a daemon takes 300 new runs, then 5 a second

_GPUS = 8
_END_TIMEOUT = 60.0


class Churn:
    """One cycle at a time: a whole run of a few members, and a lease that comes and goes."""

    def __init__(self, daemon: Daemon, owner: RunClient, book: GpuClient) -> None:
        self._daemon = daemon
        self._owner = owner
        self._book = book
        self._numbers = itertools.count()
        self._last = 0  # the highest token so far
        self._loop = asyncio.Runner()  # one for all cycles: gRPC's clients belong to their loop

    def fill(self) -> None:
        """As much as the coordinator remembers, and quickly. Raises what ``cycle`` raises."""
        for _ in range(FILLING_RUNS):
            began_at = time.monotonic()
            self._run()
            for _ in range(LEASES_EACH):
                self._lease()
            time.sleep(max(0.0, began_at + _FILLING_PACE - time.monotonic()))

    def cycle(self) -> None:
        """Raises TfleaseError, and ClientTrouble for what must not be."""
        self._run()
        self._lease()

    def _run(self) -> None:
        run_id = self._owner.create(RunSpec(ROLES)).run_id
        self._loop.run(self._live(run_id))
        for view in self._owner.watch(run_id):
            if view.phase.is_terminal and view.phase is not RunPhase.SUCCEEDED:
                raise ClientTrouble(f"a run without faults has {view.phase.value}: {view.failure}")

    def close(self) -> None:
        """No more cycles."""
        self._loop.close()

    async def _live(self, run_id: RunId) -> None:
        async with (
            asyncio.timeout(_END_TIMEOUT),
            FakeGang(self._daemon.address, self._daemon.token, run_id, ROLES) as gang,
        ):
            await gang.live()

    def _lease(self) -> None:
        number = next(self._numbers)
        uuid = f"GPU-churn-{number % _GPUS}"
        free = [GpuSight(uuid, True)]
        self._book.report("churn", "boot", free)
        request = f"churn-{number}"
        [grant], _ = self._book.acquire(request, "churn", [Want("one", (uuid,), 1)], 5.0)
        if grant[2].number <= self._last:
            raise ClientTrouble(f"token {grant[2].number} after {self._last}: it must only grow")
        self._last = grant[2].number
        self._book.release(request, "one", free)
