"""A membership under test: its client, its reports, and what it was told."""

from __future__ import annotations

import asyncio

import pytest

from coordinator.core.gpu import NO_GPUS, GpuOffer, LeaseToken
from coordinator.core.log_values import LogChunk, ReadLog
from coordinator.core.model import (
    Endpoint,
    ExecutorInfo,
    IncarnationId,
    MemberId,
    Roles,
    RunId,
    RunSpec,
)
from coordinator.member_client import ClaimGpus, InspectGpus, ReservationClient, Start, Stop
from executor_agent.attendance import Membership, MustStop
from executor_agent.member_reports import Report

WORKER = MemberId.parse("worker:0")
EXECUTOR = ExecutorInfo("executor-host", boot_id="boot", pid=1)
ENDPOINT = Endpoint("127.0.0.1", 7077)
# Nothing happens by the clock, unless a test wants it to.
UNHURRIED = RunSpec(Roles(worker=1), beat_interval=60.0, liveness_ttl=120.0, fence_timeout=240.0)
HURRIED = RunSpec(Roles(worker=1), beat_interval=0.05, liveness_ttl=0.2, fence_timeout=0.4)


class Member:
    """A membership, its client, and what it was told."""

    def __init__(
        self,
        address: str,
        token: str,
        run_id: RunId,
        client: ReservationClient | None = None,
        connect_timeout: float = 20.0,
        gpus: GpuOffer = NO_GPUS,
        predecessor: str = "",
    ) -> None:
        self.run_id = run_id
        self.incarnation = IncarnationId("attempt-1")
        self.starts: asyncio.Queue[Start] = asyncio.Queue()
        self.stops: asyncio.Queue[Stop] = asyncio.Queue()
        self.about_gpus: asyncio.Queue[InspectGpus | ClaimGpus] = asyncio.Queue()
        self.leases: list[LeaseToken] = []
        self.reserved = asyncio.Event()
        self.log: bytes | None = None
        self.client = client or ReservationClient(address, token)
        self.membership = Membership(
            self.client,
            (run_id, WORKER, self.incarnation),
            coordinator=address,
            connect_timeout=connect_timeout,
            on_start=self.starts.put_nowait,
            on_stop=self.stops.put_nowait,
            read_log=self._read_log,
            on_gpus=self.about_gpus.put_nowait,
            leases=lambda: self.leases,
            on_reserved=self.reserved.set,
            predecessor=predecessor,
        )
        self.running = asyncio.create_task(self.membership.run(EXECUTOR, ENDPOINT, gpus))

    def _read_log(self, asked: ReadLog) -> LogChunk:
        if self.log is None:
            raise FileNotFoundError("no log")
        return LogChunk(0, self.log[: asked.max_bytes], len(self.log))

    def report(self, *reports: Report) -> None:
        for report in reports:
            self.membership.report(report)

    async def must_stop(self) -> str:
        """Waits for the end that it gives itself; why."""
        with pytest.raises(MustStop) as caught:
            async with asyncio.timeout(30):
                await self.running
        return str(caught.value)

    async def close(self) -> None:
        self.running.cancel()
        await asyncio.wait((self.running,))
        await self.client.close()
