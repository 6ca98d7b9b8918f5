"""Clients of the book of GPUs, and operators, through real gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import grpc
import pytest

from coordinator import durability, gpu_client, gpu_wire
from coordinator.channels import aio_channel
from coordinator.core.errors import (
    CoordinatorUnavailable,
    GpuHeld,
    GpusUnavailable,
    InvalidRun,
    LeaseLost,
    UnknownGpu,
)
from coordinator.core.gpu import GpuSight, LeaseState, Want
from coordinator.core.lease_book import LeaseBook
from coordinator.core.lease_entry import REVOKE_AFTER
from coordinator.engine import Engine
from coordinator.gpu_client import GpuClient
from coordinator.gpu_stream import LEASE_TTL
from coordinator.security import call_metadata
from coordinator.testing import FakeHost, ManualClock, Serving, serving
from coordinator.v1 import gpu_lease_service_pb2_grpc as lease_grpc
from tests.coordinator.fake_disk import NO_ROOM, FakeDisk
from tests.integration.grpc import raw
from tests.integration.grpc.gpu_scene import gang_on, gpus_of, waits_for_a_gpu

pytestmark = pytest.mark.timeout(60)


FREE_A, FREE_B = GpuSight("GPU-a", is_free=True, index=0), GpuSight("GPU-b", is_free=True, index=1)
BUSY_A = GpuSight("GPU-a", is_free=False, holder="a notebook", pids=(4711,))


async def report(gpus: GpuClient, *sights: GpuSight, number: int = 0) -> None:
    await asyncio.to_thread(gpus.report, "host", "host", sights, number)


async def acquire(gpus: GpuClient, request_id: str, *uuids: str, patience: float = 0) -> object:
    wants = [Want("me", uuids, len(uuids))]
    return await asyncio.to_thread(gpus.acquire, request_id, "a test", wants, patience)


async def test_a_client_acquires_renews_and_releases(coordinator: Serving, gpus: GpuClient) -> None:
    await report(gpus, FREE_A, FREE_B)
    wants = [Want("one", ("GPU-a", "GPU-b"), 1), Want("two", ("GPU-a",), 1)]
    grants, ttl = await asyncio.to_thread(gpus.acquire, "mine", "a test", wants, 0)
    assert {(who, uuid) for who, uuid, _ in grants} == {("one", "GPU-b"), ("two", "GPU-a")}
    assert ttl == LEASE_TTL
    again, _ = await asyncio.to_thread(gpus.acquire, "mine", "a test", wants, 0)
    assert sorted(again) == sorted(grants), "the same request has the same answer"
    await asyncio.to_thread(gpus.renew, "mine", [token for *_, token in grants])
    await asyncio.to_thread(gpus.release, "mine", "one", [FREE_B])
    await asyncio.to_thread(gpus.release, "mine", "two")
    await asyncio.to_thread(gpus.release, "mine", "two")
    states = {uuid: gpu.state for uuid, gpu in (await gpus_of(gpus)).items()}
    assert states == {"GPU-a": LeaseState.UNPROVEN, "GPU-b": LeaseState.FREE}
    with pytest.raises(LeaseLost):
        await asyncio.to_thread(gpus.renew, "mine", [token for *_, token in grants])


async def test_only_an_answer_that_is_younger_than_the_lease_proves(gpus: GpuClient) -> None:
    await report(gpus, FREE_A)
    stale, coordinator_id = await asyncio.to_thread(gpus.inspect, ["GPU-a"])
    [(_, _, token)], _ = await acquire(gpus, "mine", "GPU-a")  # type: ignore[misc]
    assert (token.coordinator_id, token.number) > (coordinator_id, stale)
    await asyncio.to_thread(gpus.release, "mine", "me")
    for number in (0, stale):
        await report(gpus, FREE_A, number=number)
        assert (await gpus_of(gpus))["GPU-a"].state is LeaseState.UNPROVEN
    number, _ = await asyncio.to_thread(gpus.inspect, ["GPU-a"])
    await report(gpus, BUSY_A, number=number)
    assert (await gpus_of(gpus))["GPU-a"].reason == "a notebook"
    await report(gpus, FREE_A, number=number)
    assert (await gpus_of(gpus))["GPU-a"].state is LeaseState.FREE


async def test_who_waits_in_vain_is_told_who_has_it(gpus: GpuClient) -> None:
    """G5."""
    await report(gpus, FREE_A)
    await acquire(gpus, "first", "GPU-a")
    with pytest.raises(GpusUnavailable, match=r"within 0\.05 s: .*held by me of a test"):
        await acquire(gpus, "second", "GPU-a", patience=0.05)


async def test_who_waits_gets_it_as_soon_as_it_is_free(gpus: GpuClient) -> None:
    await report(gpus, FREE_A)
    await acquire(gpus, "first", "GPU-a")
    waiting = asyncio.create_task(acquire(gpus, "second", "GPU-a", patience=30))
    twice = asyncio.create_task(acquire(gpus, "second", "GPU-a", patience=30))
    await until_waiting(gpus, "GPU-a", "third")
    await asyncio.to_thread(gpus.release, "first", "me", [FREE_A])
    grants = await waiting
    assert grants == await twice, "idempotent while it waits, too"
    await asyncio.to_thread(gpus.release, "second", "me", [FREE_A])


async def until_waiting(gpus: GpuClient, uuid: str, probe: str) -> None:
    """Somebody waits for it already: another one is told so, or who has it."""
    with pytest.raises(GpusUnavailable):
        await acquire(gpus, probe, uuid)


@pytest.mark.parametrize("way", ["cancelled", "lost"])
async def test_a_client_that_is_gone_gives_up_its_place(
    way: str, coordinator: Serving, gpus: GpuClient
) -> None:
    await report(gpus, FREE_A)
    await acquire(gpus, "first", "GPU-a")
    impatient = GpuClient(coordinator.address, coordinator.token)
    waiting = impatient._stub.AcquireGpus.future(
        _request("second", "GPU-a"), metadata=impatient._metadata
    )
    requests = coordinator.engine.gpus
    await raw.becomes_true(lambda: "client/second" in requests.waiting)
    if way == "cancelled":
        waiting.cancel()
    impatient.close()
    await raw.becomes_true(lambda: not requests.waiting)
    await asyncio.to_thread(gpus.release, "first", "me", [FREE_A])
    assert (await gpus_of(gpus))["GPU-a"].state is LeaseState.FREE
    with pytest.raises(InvalidRun, match="is over: choose another id"):
        await acquire(gpus, "second", "GPU-a")


def _request(request_id: str, uuid: str) -> object:
    request = gpu_client.pb.AcquireGpusRequest(
        request_id=request_id, patience=gpu_wire.duration(30)
    )
    request.wants.add(who="me", uuids=[uuid], count=1)
    return request


async def test_a_lease_that_is_not_renewed_lapses_and_is_never_free_by_that(
    timeless: Serving, clock: ManualClock, timeless_gpus: GpuClient
) -> None:
    gpus = timeless_gpus
    await report(gpus, FREE_A)
    [(_, _, token)], ttl = await acquire(gpus, "mine", "GPU-a")  # type: ignore[misc]
    clock.advance(ttl - 1)
    await asyncio.to_thread(gpus.renew, "mine", [token])
    clock.advance(ttl + 1)
    with pytest.raises(LeaseLost, match="lapsed"):
        await asyncio.to_thread(gpus.renew, "mine", [token])
    assert (await gpus_of(gpus))["GPU-a"].state is LeaseState.HELD, "told first"
    clock.advance(REVOKE_AFTER)
    assert (await gpus_of(gpus))["GPU-a"].state is LeaseState.UNPROVEN
    clock.advance(10_000)
    assert (await gpus_of(gpus))["GPU-a"].state is LeaseState.QUARANTINED


async def test_an_operators_word(coordinator: Serving, gpus: GpuClient) -> None:
    await report(gpus, FREE_A)
    put_aside = await asyncio.to_thread(gpus.quarantine, "GPU-a", "its\nfan  is loud")
    assert (put_aside.state, put_aside.reason) == (LeaseState.QUARANTINED, "its fan is loud")
    with pytest.raises(GpusUnavailable, match="its fan is loud"):
        await acquire(gpus, "mine", "GPU-a")
    assert (await asyncio.to_thread(gpus.clear, "GPU-a", "mended")).state is LeaseState.FREE
    await acquire(gpus, "another", "GPU-a")
    for word in (gpus.clear, gpus.quarantine):
        with pytest.raises(GpuHeld, match="held by me of a test: stop that first"):
            await asyncio.to_thread(word, "GPU-a", "now")
        with pytest.raises(UnknownGpu, match="GPU-x"):
            await asyncio.to_thread(word, "GPU-x", "now")
        with pytest.raises(InvalidRun, match="say why"):
            await asyncio.to_thread(word, "GPU-a", " \n")
    history = [event.text for event in coordinator.engine.gpus.events]
    assert any("put aside by an operator: its fan is loud" in text for text in history)
    assert any("cleared by an operator: mended" in text for text in history)


async def test_an_operators_word_starts_the_run_that_waits_for_it(
    coordinator: Serving, gpus: GpuClient
) -> None:
    host = FakeHost("GPU-a")
    await asyncio.to_thread(gpus.report, host.name, host.name, host.look(["GPU-a"]))
    await asyncio.to_thread(gpus.quarantine, "GPU-a", "fan")
    async with gang_on(coordinator, host) as gang:
        forming = asyncio.create_task(gang.form())
        view = await coordinator.until(gang.run_id, waits_for_a_gpu)
        assert "quarantined" in view.diagnosis[0]
        assert "fan" in view.diagnosis[0]
        await asyncio.to_thread(gpus.clear, "GPU-a", "mended")
        await forming


async def test_requests_that_make_no_sense_are_refused_by_name(gpus: GpuClient) -> None:
    await report(gpus, FREE_A)
    with pytest.raises(InvalidRun, match="no request_id"):
        await acquire(gpus, "", "GPU-a")
    with pytest.raises(UnknownGpu, match="GPU-x"):
        await acquire(gpus, "a", "GPU-x")
    with pytest.raises(UnknownGpu, match="GPU-x"):
        await asyncio.to_thread(gpus.inspect, ["GPU-x"])
    for wants in ([], [Want("me", ("GPU-a",), 2)], [Want("me", ("GPU-a",), 1)] * 2):
        with pytest.raises(InvalidRun):
            await asyncio.to_thread(gpus.acquire, "b", "a test", wants, 0)
    with pytest.raises(InvalidRun, match="patience"):
        await acquire(gpus, "c", "GPU-a", patience=-1)
    with pytest.raises(InvalidRun, match="the host and its boot"):
        await asyncio.to_thread(gpus.report, "", "", [FREE_A])
    with pytest.raises(InvalidRun, match="without a UUID"):
        await asyncio.to_thread(gpus.report, "host", "boot", [GpuSight("", is_free=True)])


async def test_a_client_cannot_take_the_place_of_a_runs_gang(
    coordinator: Serving, gpus: GpuClient
) -> None:
    """Whatever id it chooses: also that of a run, or of a gang's request."""
    host = FakeHost("GPU-a", "GPU-b")
    async with gang_on(coordinator, host) as gang:
        await gang.form()
        [token] = gang["worker:0"].gpus.values()
        for request_id in (gang.run_id, f"{gang.run_id}/1"):
            grants, _ = await acquire(gpus, request_id, "GPU-b")  # type: ignore[misc]
            assert [uuid for _, uuid, _ in grants] == ["GPU-b"]
            with pytest.raises(LeaseLost):
                await asyncio.to_thread(gpus.renew, request_id, [token])
            sights = [GpuSight("GPU-a", is_free=True), GpuSight("GPU-b", is_free=True)]
            for who in ("me", "worker:0"):
                await asyncio.to_thread(gpus.release, request_id, who, sights)
        assert (await gpus_of(gpus))["GPU-a"].state is LeaseState.HELD


async def test_members_and_clients_wait_in_one_queue(coordinator: Serving, gpus: GpuClient) -> None:
    host = FakeHost("GPU-a", name="host")
    await report(gpus, FREE_A)
    await acquire(gpus, "first", "GPU-a")
    async with gang_on(coordinator, host) as gang:
        forming = asyncio.create_task(gang.form())
        view = await coordinator.until(gang.run_id, waits_for_a_gpu)
        assert "held by me of a test" in view.diagnosis[0]
        await asyncio.to_thread(gpus.release, "first", "me", [FREE_A])
        await forming
        with pytest.raises(GpusUnavailable, match=f"held by worker:0 of run {gang.run_id}"):
            await acquire(gpus, "second", "GPU-a", patience=0.01)


async def test_the_end_of_the_coordinator_ends_the_wait() -> None:
    async with serving() as ending:
        gpus = GpuClient(ending.address, ending.token)
        await report(gpus, BUSY_A)
        waiting = asyncio.create_task(acquire(gpus, "mine", "GPU-a", patience=30))
        await raw.becomes_true(lambda: bool(ending.engine.gpus.waiting))
    with pytest.raises(CoordinatorUnavailable):
        await waiting
    gpus.close()


# --- while the disk is slow or full ---------------------------------------------------------------


@pytest.fixture
async def disk() -> FakeDisk:
    return FakeDisk()


@pytest.fixture
async def durable(disk: FakeDisk) -> AsyncIterator[Serving]:
    """With a GPU in its book."""
    async with serving(Engine(journal=disk)) as coordinator:
        coordinator.engine.gpus.use(lambda book, now: book.see("host", "host", [FREE_A], now))
        await coordinator.engine.durable()
        yield coordinator
        disk.is_full = False
        disk.go_on()


def is_in(coordinator: Serving, state: LeaseState) -> Callable[[], bool]:
    def look(book: LeaseBook, _: float) -> bool:
        return book.view("GPU-a").state is state

    return lambda: coordinator.engine.gpus.use(look)


def asked(stub: lease_grpc.GpuLeaseServiceStub, way: str, metadata: object) -> grpc.aio.Call:
    """For the GPU, by a call of its own or by stream."""
    request = _request("mine", "GPU-a")
    if way == "call":
        return stub.AcquireGpus(request, metadata=metadata)

    async def questions() -> AsyncIterator[object]:
        yield gpu_client.pb.UseGpusRequest(
            questions=[gpu_client.pb.GpuQuestion(number=1, acquire=request)]
        )
        await asyncio.Event().wait()

    return stub.UseGpus(questions(), metadata=metadata)


@pytest.mark.parametrize("way", ["call", "stream"])
async def test_a_client_that_leaves_while_its_grant_waits_for_the_disk_gives_it_back(
    way: str, durable: Serving, disk: FakeDisk
) -> None:
    """Nobody else knows of it, and nobody would ever release it."""
    disk.is_slow = True
    async with aio_channel(durable.address) as channel:
        stub = lease_grpc.GpuLeaseServiceStub(channel)
        call = asked(stub, way, call_metadata(durable.token))
        await raw.becomes_true(is_in(durable, LeaseState.HELD))
        call.cancel()
        await raw.becomes_true(is_in(durable, LeaseState.FREE))
    disk.go_on()
    await durable.engine.durable()
    assert ("grant", "client/mine") not in disk.texts


@pytest.mark.parametrize("way", ["call", "stream"])
async def test_who_has_asked_again_meanwhile_keeps_the_grant(
    way: str, durable: Serving, disk: FakeDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a client does that has lost its connection."""
    disk.is_slow = True
    requests = durable.engine.gpus
    async with aio_channel(durable.address) as channel:
        stub = lease_grpc.GpuLeaseServiceStub(channel)
        first = asked(stub, way, call_metadata(durable.token))
        await raw.becomes_true(is_in(durable, LeaseState.HELD))
        reached = spy_on(monkeypatch, requests, "acquire")
        again = asked(stub, "call", call_metadata(durable.token))
        await reached.wait()
        gone = spy_on(monkeypatch, requests, "broken_off")
        first.cancel()
        await gone.wait()
        disk.go_on()
        assert [grant.uuid for grant in (await again).grants] == ["GPU-a"]
    assert is_in(durable, LeaseState.HELD)()
    await durable.engine.durable()
    assert ("grant", "client/mine") in disk.texts


async def test_a_grant_waits_for_no_later_group(durable: Serving, disk: FakeDisk) -> None:
    """Who left during a second wait would leave its GPU to nobody."""
    disk.is_slow = True
    async with aio_channel(durable.address) as channel:
        stub = lease_grpc.GpuLeaseServiceStub(channel)
        call = asked(stub, "call", call_metadata(durable.token))
        await raw.becomes_true(lambda: disk.is_waiting)
        durable.engine.tell("run.noted", "somebody else's change")
        disk.go_on()
        disk.is_slow = True
        assert [grant.uuid for grant in (await call).grants] == ["GPU-a"]
        await raw.becomes_true(lambda: disk.is_waiting)


def spy_on(monkeypatch: pytest.MonkeyPatch, thing: object, name: str) -> asyncio.Event:
    """Set when it is called."""
    called, real = asyncio.Event(), getattr(thing, name)

    def method(*args: object) -> object:
        called.set()
        return real(*args)

    monkeypatch.setattr(thing, name, method)
    return called


async def test_who_is_refused_because_the_disk_is_full_holds_nothing(
    durable: Serving, disk: FakeDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durability, "PATIENCE", 0.05)
    monkeypatch.setattr(durability, "RETRY_INTERVAL", 0.005)
    disk.is_full = True
    client = GpuClient(durable.address, durable.token)
    with pytest.raises(CoordinatorUnavailable, match=NO_ROOM):
        await acquire(client, "mine", "GPU-a")
    assert is_in(durable, LeaseState.FREE)()
    disk.is_full = False
    await acquire(client, "another", "GPU-a")
    client.close()
