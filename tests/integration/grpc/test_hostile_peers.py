"""What a broken or hostile peer does on the port is its own business: a gang beside it forms, beats
and ends as if it were alone, and what the peer cost is given back (R5)."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest

from coordinator.client import RunClient
from coordinator.core.model import Roles, RunSpec
from coordinator.security import call_metadata
from coordinator.testing import FakeExecutor, FakeFleet, Moment, Script, Serving
from coordinator.testing.hostile import (
    CONTINUATION,
    HEADERS,
    PREFACE,
    HostilePeer,
    frame,
)
from tests.integration.grpc import raw
from tests.integration.grpc.limited import limited, resident_mib, undisturbed

pytestmark = [pytest.mark.timeout(120), pytest.mark.slow]

LIST = "/coordinator.v1.RunService/ListRuns"
WATCH = "/coordinator.v1.RunService/WatchRun"
ATTEND = "/coordinator.v1.ReservationService/Attend"
SESSIONS = 1_000  # of one connection; a few more are refused
GIVEN_BACK = 100  # MiB that may stay: allocators keep some of what they had


# -- what is no call at all ------------------------------------------------------------------------

NOISE = random.Random(7).randbytes(100_000)
SPEECHES = {
    "nothing": b"",
    "random bytes": NOISE,
    "HTTP/1": b"GET / HTTP/1.1\r\nHost: coordinator\r\n\r\n" * 100,
    "an endless line": b"A" * 1_000_000,
    "TLS, where none is spoken": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + NOISE[:500],
    "half a preface": PREFACE[:10],
    "a preface and noise": PREFACE + NOISE,
    "a preface and a frame that never ends": PREFACE + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",
    "frames of unknown kinds": PREFACE + frame(4, 0, 0) + frame(200, 255, 77, NOISE[:999]) * 500,
    "data of no call": PREFACE + frame(4, 0, 0) + frame(0, 0, 5, b"x" * 1_000) * 100,
    "a window of nothing": PREFACE + frame(4, 0, 0) + frame(8, 0, 0, bytes(4)) * 100,
    "pings without end": PREFACE + frame(4, 0, 0) + frame(6, 0, 0, bytes(8)) * 20_000,
    "settings without end": PREFACE + frame(4, 0, 0, b"\x00\x03\x00\x00\x00\x00") * 20_000,
    "headers that are no headers": PREFACE + frame(4, 0, 0) + frame(1, 5, 1, NOISE[:5_000]),
    "headers without end": PREFACE
    + frame(4, 0, 0)
    + frame(HEADERS, 0, 1, b"\x00\x01a\x01b")
    + frame(CONTINUATION, 0, 1, b"\x00\x01a\x01b" * 2_000) * 200,
}


@pytest.mark.parametrize("speech", SPEECHES.values(), ids=SPEECHES)
async def test_whatever_is_said_on_the_port_nobody_notices(
    speech: bytes, coordinator: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    async with undisturbed(coordinator), AsyncExitStack() as stack:
        for _ in range(20):
            peer = await stack.enter_async_context(HostilePeer(coordinator.address))
            peer.send(speech)
    assert not raw.complaints(caplog)


async def test_connections_that_say_nothing_are_closed_in_the_end() -> None:
    """R5: half open, as a port scan or a load balancer leaves them."""
    async with (
        limited(handshake_timeout=0.5) as coordinator,
        undisturbed(coordinator),
        AsyncExitStack() as stack,
    ):
        peers = [
            await stack.enter_async_context(HostilePeer(coordinator.address)) for _ in range(50)
        ]
        for peer in peers[::2]:
            peer.send(PREFACE[:5])
        async with asyncio.timeout(30):
            for peer in peers:
                await peer.hung_up()


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"])
async def test_handshakes_of_tls_that_are_not_finished_are_given_up(said: bytes) -> None:
    async with (
        limited(has_tls=True, handshake_timeout=0.5) as coordinator,
        undisturbed(coordinator),
        AsyncExitStack() as stack,
    ):
        peers = [
            await stack.enter_async_context(HostilePeer(coordinator.address)) for _ in range(50)
        ]
        for peer in peers:
            peer.send(said)
        async with asyncio.timeout(30):
            for peer in peers:
                await peer.hung_up()


async def test_thousands_of_idle_connections_cost_nobody_anything(coordinator: Serving) -> None:
    """R5: each takes two descriptors here, because both ends are in this process."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(5_000, (soft - 500) // 2)
    if wanted < 1_000:
        pytest.skip(f"ulimit -n is {soft}: not enough for a thousand connections and their peers")
    host, _, port = coordinator.address.rpartition(":")
    async with undisturbed(coordinator):
        writers = []
        try:
            for _ in range(wanted):
                _, writer = await asyncio.open_connection(host, int(port))
                writers.append(writer)
        finally:
            for writer in writers:
                writer.close()
    open_before = len(os.listdir("/proc/self/fd"))
    assert open_before < wanted


# -- calls -----------------------------------------------------------------------------------------


async def test_calls_that_are_taken_back_at_once_delay_nobody(coordinator: Serving) -> None:
    """CVE-2023-44487: streams are opened and reset as fast as they can be written. More than a
    few calls of others are answered meanwhile, and nothing piles up."""
    before = resident_mib()
    owner = RunClient(coordinator.address, coordinator.token)
    async with undisturbed(coordinator), resetting(coordinator):
        for _ in range(50):
            await asyncio.to_thread(owner.list)
    owner.close()
    assert resident_mib() - before < 3 * GIVEN_BACK
    await raw.becomes_true(lambda: coordinator.server.limiter.in_use("calls") == 0)


@asynccontextmanager
async def resetting(coordinator: Serving) -> AsyncIterator[None]:
    """Without end, in a process of its own."""
    code = "import sys; from tests.integration.grpc import resetting; resetting.main(*sys.argv[1:])"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, coordinator.address, coordinator.token,
        stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"resetting\n"
        yield
    finally:
        process.kill()
        await process.wait()


@pytest.mark.parametrize("path", [LIST, WATCH, ATTEND])
@pytest.mark.parametrize("has_token", [True, False])
async def test_calls_that_are_opened_and_forgotten_are_given_up(
    path: str, has_token: bool, coordinator: Serving
) -> None:
    limiter = coordinator.server.limiter
    async with undisturbed(coordinator):
        token = coordinator.token if has_token else ""
        async with HostilePeer(coordinator.address, token) as peer:
            peer.begin()
            for number in range(SESSIONS):
                peer.call(2 * number + 1, path)
            await peer.sent()
            if has_token and path == ATTEND:
                await raw.becomes_true(lambda: limiter.in_use("sessions") == SESSIONS + 6)
    await raw.becomes_true(lambda: limiter.in_use("sessions") == limiter.in_use("calls") == 0)


async def test_silent_sessions_are_ended_by_the_clock() -> None:
    async with (
        limited(hello_timeout=0.5) as coordinator,
        undisturbed(coordinator),
        HostilePeer(coordinator.address, coordinator.token) as peer,
    ):
        peer.begin()
        for number in range(SESSIONS):
            peer.call(2 * number + 1, ATTEND)
        async with asyncio.timeout(30):
            await peer.until(lambda: len(peer.ended) == SESSIONS)


async def test_headers_too_large_are_refused(coordinator: Serving) -> None:
    options = (*raw.NO_PROXY, ("grpc.absolute_max_metadata_size", 10**6))
    async with (
        undisturbed(coordinator),
        grpc.aio.insecure_channel(coordinator.address, options=options) as channel,
    ):
        metadata = (*call_metadata(coordinator.token), ("x-large", "x" * 100_000))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary(LIST)(b"", metadata=metadata)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_watcher_that_does_not_read_costs_one_picture(coordinator: Serving) -> None:
    """R5: what it does not read is not kept for it."""
    async with undisturbed(coordinator) as gang, AsyncExitStack() as stack:
        body = b"\x0a" + bytes((len(gang.run_id),)) + gang.run_id.encode()
        deaf = []
        for _ in range(20):
            peer = HostilePeer(coordinator.address, coordinator.token, window=0)
            await stack.enter_async_context(peer)
            peer.begin()
            peer.call(1, WATCH)
            peer.say(1, body, ends=True)
            deaf.append(peer)
        limiter = coordinator.server.limiter
        await raw.becomes_true(lambda: limiter.in_use("watchers_per_run") == 20)
        before = resident_mib()
        metrics = {f"metric {number}": 1.0 for number in range(500)}
        for step in range(1, 200):
            await gang["worker:0"].progress(step, **metrics)
        assert resident_mib() - before < GIVEN_BACK
        assert sum(peer.received for peer in deaf) < 20_000


# -- a flood ---------------------------------------------------------------------------------------


async def test_beats_beside_a_flood_are_answered_as_before(
    coordinator: Serving, record_property
) -> None:
    """R5: others' beats go to and fro while a peer with a token says all it can, with three
    sessions and more calls than it can be answered."""
    async with undisturbed(coordinator) as gang:
        quiet = await round_trips(gang["worker:1"], 200)
        async with flooding(coordinator):
            beside = await round_trips(gang["worker:1"], 200)
    record_property("p99 of a beat, quiet, ms", quiet)
    record_property("p99 of a beat beside a flood, ms", beside)
    print(f"p99 of a beat: quiet {quiet:.1f} ms, beside a flood {beside:.1f} ms")
    assert coordinator.server.limiter.slowed["messages_per_second"] > 0


async def round_trips(executor: FakeExecutor, count: int) -> float:
    """The 99th percentile, in milliseconds."""
    times = []
    for _ in range(count):
        began_at = time.perf_counter()
        await executor.beat()
        times.append(1_000 * (time.perf_counter() - began_at))
        await asyncio.sleep(0.005)
    return statistics.quantiles(times, n=100)[98]


@asynccontextmanager
async def flooding(coordinator: Serving) -> AsyncIterator[None]:
    """In a process of its own, as the real one would be."""
    roles = Roles(worker=3)
    run_id = coordinator.create_run(RunSpec(roles))
    endless = Script(floods=10**9, works_until="enough")
    scripts = {f"worker:{index}": endless for index in range(3)}
    fleet = FakeFleet(
        coordinator.address, coordinator.token, run_id, roles, scripts=scripts, processes=2
    )
    async with fleet:
        fleet.begin()
        await fleet.until(Moment.ENTERED)
        await raw.becomes_true(lambda: coordinator.server.limiter.slowed["messages_per_second"] > 0)
        yield


# -- what it costs ---------------------------------------------------------------------------------


async def silent_sessions(coordinator: Serving) -> None:
    async with HostilePeer(coordinator.address, coordinator.token) as peer:
        peer.begin()
        for number in range(SESSIONS):
            peer.call(2 * number + 1, ATTEND)
        await peer.sent()
        await raw.becomes_true(lambda: coordinator.server.limiter.in_use("sessions") == SESSIONS)


async def large_messages(coordinator: Serving) -> None:
    """Announced, never finished: what has come of them is kept until the peer goes."""
    async with AsyncExitStack() as stack:
        for _ in range(20):
            peer = HostilePeer(coordinator.address, coordinator.token)
            await stack.enter_async_context(peer)
            peer.begin()
            peer.call(1, LIST)
            peer.send(frame(0, 0, 1, b"\x00" + (10**6).to_bytes(4, "big") + bytes(60_000)))
            await peer.sent()


async def absurd_requests(coordinator: Serving) -> None:
    metadata = call_metadata(coordinator.token)
    async with grpc.aio.insecure_channel(coordinator.address, options=raw.NO_PROXY) as channel:
        for method in raw.methods():
            if not method.client_streaming and not method.server_streaming:
                call = channel.unary_unary(raw.path_of(method))
                for _ in range(5):
                    with pytest.raises(grpc.aio.AioRpcError):
                        await call(b"\x0a" + b"\xff\xff\xff\x03" + bytes(2**20), metadata=metadata)


ATTACKS: dict[str, Callable[[Serving], Awaitable[None]]] = {
    "silent sessions": silent_sessions,
    "large messages": large_messages,
    "absurd requests": absurd_requests,
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
async def test_memory_is_given_back(attack, coordinator: Serving) -> None:
    for _ in range(4):  # allocators keep what they once needed
        await attack(coordinator)
    before = resident_mib()
    for _ in range(10):
        await attack(coordinator)
    assert resident_mib() - before < GIVEN_BACK
    limiter = coordinator.server.limiter
    await raw.becomes_true(lambda: limiter.in_use("sessions") == limiter.in_use("calls") == 0)
