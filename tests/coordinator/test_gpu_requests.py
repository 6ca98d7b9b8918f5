"""Calls that wait for GPUs, on an engine without a server."""

from __future__ import annotations

import asyncio

import pytest

from coordinator.core.errors import GpusUnavailable, InvalidRun, LeaseLost, UnknownGpu
from coordinator.core.gpu import GpuSight, LeaseRequest, LeaseState, Want
from coordinator.core.lease_news import Acquired
from coordinator.engine import Engine
from coordinator.gpu_requests import KEPT_EVENTS, GpuRequests
from coordinator.testing import ManualClock

FREE = GpuSight("GPU-a", is_free=True)


def request(request_id: str, patience: float = 1_000.0) -> LeaseRequest:
    return LeaseRequest(request_id, "a test", (Want("me", ("GPU-a",), 1),), 60.0, patience)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def gpus(clock: ManualClock) -> GpuRequests:
    engine = Engine(clock)
    clock.attach(engine)
    engine.gpus.use(lambda book, now: book.see("host", "boot", [FREE], now))
    return engine.gpus


def state(gpus: GpuRequests) -> LeaseState:
    return gpus.use(lambda book, _: book.view("GPU-a")).state


def release(gpus: GpuRequests, request_id: str) -> None:
    gpus.use(lambda book, now: book.release(request_id, "me", [FREE], now))


async def acquire(gpus: GpuRequests, wanted: LeaseRequest) -> Acquired:
    granted = await gpus.acquire(wanted, asker=object())
    gpus.learned(wanted)
    return granted


async def waiting_call(
    gpus: GpuRequests, request_id: str, asker: object = None
) -> asyncio.Task[Acquired]:
    asking = gpus.acquire(request(request_id), asker or object())
    call: asyncio.Task[Acquired] = asyncio.create_task(asking)
    await asyncio.sleep(0)
    assert not call.done()
    return call


async def test_a_grant_wakes_every_call_of_the_request(gpus: GpuRequests) -> None:
    await acquire(gpus, request("first"))
    calls = [await waiting_call(gpus, "second") for _ in range(2)]
    release(gpus, "first")
    one, two = await asyncio.gather(*calls)
    assert one == two == await acquire(gpus, request("second"))
    assert not gpus.waiting


async def test_a_call_that_is_cancelled_as_it_is_granted_gives_back_what_nobody_knows_of(
    gpus: GpuRequests,
) -> None:
    await acquire(gpus, request("first"))
    call = await waiting_call(gpus, "second")
    release(gpus, "first")
    assert state(gpus) is LeaseState.HELD
    call.cancel()
    await asyncio.wait([call])
    assert state(gpus) is LeaseState.FREE
    assert not gpus.waiting


async def test_a_call_that_is_cancelled_takes_nothing_from_another_of_the_same_request(
    gpus: GpuRequests,
) -> None:
    await acquire(gpus, request("first"))
    calls = [await waiting_call(gpus, "second") for _ in range(3)]
    calls[0].cancel()
    await asyncio.wait([calls[0]])
    release(gpus, "first")
    calls[2].cancel()
    await asyncio.wait(calls)
    assert state(gpus) is LeaseState.HELD
    assert calls[1].result()


@pytest.mark.parametrize("gone", [0, 1])
async def test_an_answer_that_is_not_sent_takes_nothing_from_who_asked_for_the_same(
    gpus: GpuRequests, gone: int
) -> None:
    """A client comes back on another stream, and is granted there what it waits for, before it is
    known that its first one is broken: whichever of both was answered last."""
    await acquire(gpus, request("first"))
    askers = [object(), object()]
    calls = [await waiting_call(gpus, "second", asker) for asker in askers]
    release(gpus, "first")
    await asyncio.gather(*calls)
    gpus.broken_off(request("second"), askers[gone])
    assert state(gpus) is LeaseState.HELD
    gpus.broken_off(request("second"), askers[1 - gone])
    assert state(gpus) is LeaseState.FREE


async def test_what_one_has_learned_of_is_its_own_whoever_else_breaks_off(
    gpus: GpuRequests,
) -> None:
    await acquire(gpus, request("first"))
    askers = [object(), object()]
    calls = [await waiting_call(gpus, "second", asker) for asker in askers]
    release(gpus, "first")
    calls[0].cancel()  # in the moment of the grant
    await asyncio.wait(calls)
    gpus.learned(request("second"))
    gpus.broken_off(request("second"), askers[0])
    assert state(gpus) is LeaseState.HELD


async def test_when_the_patience_ends_every_call_is_told_why(
    gpus: GpuRequests, clock: ManualClock
) -> None:
    await acquire(gpus, request("first"))
    calls = [asyncio.create_task(acquire(gpus, request("second", patience=5))) for _ in range(2)]
    await asyncio.sleep(0)
    clock.advance(6)
    for call in calls:
        with pytest.raises(GpusUnavailable, match=r"within 5 s: GPU GPU-a .*held by me of a test"):
            await call
    with pytest.raises(InvalidRun, match="is over"):
        await acquire(gpus, request("second"))


async def test_what_is_refused_at_once_leaves_nothing_behind(gpus: GpuRequests) -> None:
    wants = (Want("me", ("GPU-x",), 1),)
    with pytest.raises(UnknownGpu):
        await acquire(gpus, LeaseRequest("bad", "a test", wants, 60.0, 1.0))
    assert not gpus.waiting


async def test_of_the_history_the_latest_is_kept(gpus: GpuRequests) -> None:
    for number in range(KEPT_EVENTS + 1):
        gpus.note(float(number), f"event {number}")
    assert len(gpus.events) == KEPT_EVENTS
    assert gpus.events[-1].text == f"event {KEPT_EVENTS}"


async def test_a_request_whose_leases_are_over_is_not_answered_with_them_again(
    gpus: GpuRequests, clock: ManualClock
) -> None:
    """G2: one of them may be another's by now."""
    second = GpuSight("GPU-b", is_free=True)
    gpus.use(lambda book, now: book.see("host", "boot", [second], now))
    both = LeaseRequest("both", "a test", (Want("me", ("GPU-a", "GPU-b"), 2),), 60.0, 1_000.0)
    await acquire(gpus, both)
    gpus.use(lambda book, now: book.release("both", "me", [FREE], now))
    assert (await acquire(gpus, request("other"))).uuids == {"me": ("GPU-a",)}
    with pytest.raises(LeaseLost, match="some of its leases are over"):
        await acquire(gpus, both)
    assert state(gpus) is LeaseState.HELD
