"""A coordinator on a real port, with real time or with the test's, and gangs of fakes for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import pytest

from coordinator.core.model import Roles, RunSpec
from coordinator.gpu_client import GpuClient
from coordinator.testing import FakeGang, ManualClock, Serving, serving

MakeGang = Callable[..., Awaitable[FakeGang]]


@pytest.fixture
async def coordinator() -> AsyncIterator[Serving]:
    async with serving() as running:
        yield running


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def timeless(clock: ManualClock) -> AsyncIterator[Serving]:
    """A coordinator for which time passes when the test says so."""
    async with serving(clock=clock) as running:
        yield running


@pytest.fixture
async def gang_of() -> AsyncIterator[MakeGang]:
    """`await gang_of(coordinator, Roles(worker=2))`: a new run, with a fake for each slot."""
    async with AsyncExitStack() as stack:

        async def make(
            coordinator: Serving, what: Roles | RunSpec, *, beating: bool = True
        ) -> FakeGang:
            spec = RunSpec(what) if isinstance(what, Roles) else what
            run_id = coordinator.create_run(spec)
            gang = FakeGang(
                coordinator.address, coordinator.token, run_id, spec.roles, beating=beating
            )
            return await stack.enter_async_context(gang)

        yield make


@pytest.fixture
def gpus(coordinator: Serving) -> Iterator[GpuClient]:
    client = GpuClient(coordinator.address, coordinator.token)
    yield client
    client.close()


@pytest.fixture
def timeless_gpus(timeless: Serving) -> Iterator[GpuClient]:
    client = GpuClient(timeless.address, timeless.token)
    yield client
    client.close()
