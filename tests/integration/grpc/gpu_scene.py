"""Gangs on a host with GPUs, and what is looked at."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from coordinator.core.gpu import LeaseView
from coordinator.core.model import Roles, RunSpec, RunView
from coordinator.gpu_client import GpuClient
from coordinator.testing import FakeGang, FakeHost, Serving

ONE_EACH = RunSpec(Roles(worker=2), gpus=Roles(worker=1), name="mnist")
LONE = RunSpec(Roles(worker=1), gpus=Roles(worker=1))


@asynccontextmanager
async def gang_on(
    coordinator: Serving, host: FakeHost, spec: RunSpec = LONE, *, beating: bool = True
) -> AsyncIterator[FakeGang]:
    run_id = coordinator.create_run(spec)
    async with FakeGang(
        coordinator.address, coordinator.token, run_id, spec.roles, hosts=host, beating=beating
    ) as gang:
        yield gang


def waits_for_a_gpu(view: RunView) -> bool:
    return any("waits for a GPU" in sentence for sentence in view.diagnosis)


def said(text: str, view: RunView) -> bool:
    return any(text in sentence for sentence in view.diagnosis)


async def gpus_of(client: GpuClient) -> dict[str, LeaseView]:
    return {gpu.uuid: gpu for gpu in await asyncio.to_thread(client.list)}
