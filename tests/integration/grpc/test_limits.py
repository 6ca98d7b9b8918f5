"""Each limit refuses, or slows down, exactly what is beyond it (R5)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress

import grpc.aio
import pytest

from coordinator import limiting
from coordinator.client import RunClient
from coordinator.core.access import Principal
from coordinator.core.access import Role as AccessRole
from coordinator.core.census import Census
from coordinator.core.errors import CoordinatorUnavailable, InvalidRun, LimitExceeded
from coordinator.core.gpu import GpuSight, Want
from coordinator.core.log_values import LogChunk
from coordinator.core.model import Cause, ExitReport, MemberPhase, Role, Roles, RunSpec
from coordinator.gpu_client import GpuClient
from coordinator.limits import Limits
from coordinator.member_client import ReservationClient
from coordinator.security import Keyring, call_metadata
from coordinator.testing import FakeExecutor, FakeGang
from tests.integration.grpc import raw
from tests.integration.grpc.limited import limited

pytestmark = pytest.mark.timeout(60)

ONE = RunSpec(Roles(worker=1))


# -- what is refused -------------------------------------------------------------------------------


def test_the_streams_are_those_of_the_contract() -> None:
    names = {
        raw.path_of(method).rpartition(".")[2]
        for method in raw.methods()
        if method.server_streaming or method.client_streaming
    }
    assert names == limiting.STREAMS


def assert_refused(refused: LimitExceeded, server, name: str, allowed: object) -> None:
    assert refused.metadata["limit"] == name
    assert refused.metadata["allowed"] == str(allowed)
    assert float(refused.metadata["value"]) > float(refused.metadata["allowed"])
    assert f"--limit {name}=" in refused.message
    assert server.limiter.refused[name] == 1


@pytest.mark.parametrize(
    "spec, name",
    [(RunSpec(Roles(worker=4)), "members_per_run"), (RunSpec(ONE.roles), "runs")],
)
async def test_a_run_beyond_a_limit_is_not_created(spec: RunSpec, name: str) -> None:
    async with limited(runs=2, members_per_run=3) as coordinator:
        client = RunClient(coordinator.address, coordinator.token)
        first = await asyncio.to_thread(client.create, ONE, "first")
        await asyncio.to_thread(client.create, ONE)
        with pytest.raises(LimitExceeded) as refused:
            await asyncio.to_thread(client.create, spec)
        assert_refused(refused.value, coordinator.server, name, {"runs": 2}.get(name, 3))
        assert len(coordinator.engine.views()) == 2
        again = await asyncio.to_thread(client.create, ONE, "first")  # no answer was lost
        assert again.run_id == first.run_id
        await asyncio.to_thread(client.stop, first.run_id, "make room")
        await asyncio.to_thread(client.create, ONE)
        client.close()


async def test_the_members_of_all_runs_together_are_limited() -> None:
    async with limited(members=3) as coordinator:
        coordinator.create_run(RunSpec(Roles(worker=2)))  # before anybody counts
        client = RunClient(coordinator.address, coordinator.token)
        with pytest.raises(LimitExceeded) as refused:
            await asyncio.to_thread(client.create, RunSpec(Roles(worker=2)))
        assert_refused(refused.value, coordinator.server, "members", 3)
        await asyncio.to_thread(client.create, ONE)
        client.close()


async def test_runs_are_not_created_without_end_within_a_minute() -> None:
    async with limited(runs_per_minute=2) as coordinator:
        client = RunClient(coordinator.address, coordinator.token)
        for _ in range(2):
            await asyncio.to_thread(client.create, ONE)
        with pytest.raises(LimitExceeded, match="in a minute") as refused:
            await asyncio.to_thread(client.create, ONE)
        assert_refused(refused.value, coordinator.server, "runs_per_minute", 2)
        client.close()


@pytest.mark.parametrize("limit", ["streams_per_connection", "sessions"])
async def test_a_session_too_many_is_refused_and_room_comes_when_one_ends(limit: str) -> None:
    async with limited(**{limit: 1}) as coordinator:
        run_id = coordinator.create_run(RunSpec(Roles(worker=2)))
        client = ReservationClient(coordinator.address, coordinator.token)
        first, second = (
            FakeExecutor(coordinator.address, "", run_id, f"worker:{index}", client=client)
            for index in range(2)
        )
        await first.reserve()
        await first.attend()
        await second.reserve()
        with pytest.raises(LimitExceeded) as refused:
            await second.attend()
        assert_refused(refused.value, coordinator.server, limit, 1)
        await first.drop()
        await raw.becomes_true(lambda: coordinator.server.limiter.in_use(limit) == 0)
        await second.attend()
        await second.close()
        await client.close()


async def test_what_was_refused_for_another_reason_is_no_way_around_a_limit() -> None:
    """And whoever asks again for a run that there is gets it, whatever the limits are."""
    async with limited(members_per_run=3, runs=1) as coordinator:
        client = RunClient(coordinator.address, coordinator.token)
        with pytest.raises(InvalidRun):
            await asyncio.to_thread(client.create, Broken(Roles(worker=1)), "x")
        with pytest.raises(LimitExceeded):
            await asyncio.to_thread(client.create, RunSpec(Roles(worker=4)), "x")
        first = await asyncio.to_thread(client.create, RunSpec(Roles(worker=1)), "y")
        again = await asyncio.to_thread(client.create, RunSpec(Roles(worker=1)), "y")
        assert again.run_id == first.run_id
        with pytest.raises(LimitExceeded):
            await asyncio.to_thread(client.create, RunSpec(Roles(worker=1)), "z")
        client.close()


class Broken(RunSpec):
    """Makes no sense to anybody but its maker."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "grace", {Role.WORKER: 1e9})


async def test_two_clients_with_the_same_request_id_mean_two_requests() -> None:
    async with limited() as coordinator:
        keyring = Keyring(coordinator.token)
        found = []
        for name in ("alice", "bob", "alice"):
            token = keyring.token_for(Principal(AccessRole.SUBMITTER, name))
            client = RunClient(coordinator.address, token)
            found.append(await asyncio.to_thread(client.create, RunSpec(Roles(worker=1)), "mine"))
            client.close()
        first, other, again = found
        assert (first.run_id, first.owner_token) == (again.run_id, again.owner_token)
        assert other.run_id != first.run_id


async def test_watchers_of_one_run_are_limited() -> None:
    async with limited(watchers_per_run=2) as coordinator:
        run_id, other = coordinator.create_run(ONE), coordinator.create_run(ONE)
        async with AsyncExitStack() as stack:
            for method in ("WatchRun", "WatchRun", "OwnRun", "OwnRun"):  # an owner is no watcher
                await stack.enter_async_context(watching(coordinator, run_id, method))
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                async with watching(coordinator, run_id):
                    pass
            assert raw.info_of(refused.value).reason == "LIMIT_EXCEEDED"
            assert raw.info_of(refused.value).metadata["limit"] == "watchers_per_run"
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            async with watching(coordinator, run_id, "OwnRun"):
                pass
            async with watching(coordinator, other):
                pass
        await raw.becomes_true(lambda: coordinator.server.limiter.in_use("watchers_per_run") == 0)


class watching:
    """One watcher, on a connection of its own, that has got its first picture."""

    def __init__(self, coordinator, run_id: str, method: str = "WatchRun") -> None:
        self._coordinator = coordinator
        self._path = f"/coordinator.v1.RunService/{method}"
        self._request = b"\x0a" + bytes((len(run_id),)) + run_id.encode()  # field 1, a text

    async def __aenter__(self) -> None:
        self._channel = grpc.aio.insecure_channel(self._coordinator.address, options=raw.NO_PROXY)
        metadata = call_metadata(self._coordinator.token)
        self._stream = self._channel.unary_stream(self._path)(self._request, metadata=metadata)
        try:
            await self._stream.read()
            if self._stream.done():
                await self._stream
        except grpc.aio.AioRpcError:
            await self._channel.close()
            raise

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()


@pytest.mark.parametrize("limit", ["calls", "gpu_waits"])
async def test_calls_that_wait_are_limited(limit: str) -> None:
    """A call that waits for GPUs is the only one that a test can keep open."""
    async with limited(**{limit: 1}) as coordinator:
        engine = coordinator.engine
        client = GpuClient(coordinator.address, coordinator.token)
        sight = GpuSight("GPU-1", is_free=True)
        engine.gpus.use(lambda book, now: book.see("host", "boot", (sight,), now))
        engine.gpus.use(lambda book, now: book.quarantine("GPU-1", "not now", now))
        waiting = asyncio.create_task(asyncio.to_thread(acquire, client, "one"))
        await raw.becomes_true(lambda: bool(engine.gpus.waiting))
        with pytest.raises(LimitExceeded) as refused:
            await asyncio.to_thread(acquire, client, "two")
        assert_refused(refused.value, coordinator.server, limit, 1)
        engine.gpus.use(lambda book, now: book.clear("GPU-1", "now", now))
        await waiting
        client.close()


def acquire(client: GpuClient, who: str, patience: float = 30.0) -> object:
    return client.acquire(who, who, [Want("worker:0", ("GPU-1",), 1)], patience)


async def test_too_many_calls_of_one_connection_are_to_be_tried_again() -> None:
    """gRPC refuses them by itself, and the connection goes on."""
    async with limited(calls_per_connection=1, streams_per_connection=1) as coordinator:
        async with grpc.aio.insecure_channel(coordinator.address, options=raw.NO_PROXY) as channel:
            ask = channel.unary_unary("/coordinator.v1.RunService/ListRuns")
            metadata = call_metadata(coordinator.token)
            calls = (ask(b"", metadata=metadata) for _ in range(200))
            answers = await asyncio.gather(*calls, return_exceptions=True)
            refused = [each for each in answers if isinstance(each, grpc.aio.AioRpcError)]
            assert {each.code() for each in refused} <= {grpc.StatusCode.UNAVAILABLE}
            assert len(refused) < len(answers)
            await until_answered(lambda: ask(b"", metadata=metadata))
        assert not coordinator.server.limiter.refused


async def until_answered(ask: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(30):
        while True:
            with suppress(grpc.aio.AioRpcError):
                await ask()
                return


async def test_nobody_waits_for_gpus_without_end() -> None:
    async with limited(gpu_patience=10) as coordinator:
        client = GpuClient(coordinator.address, coordinator.token)
        with pytest.raises(LimitExceeded, match="shorter time") as refused:
            await asyncio.to_thread(acquire, client, "one", 11.0)
        assert_refused(refused.value, coordinator.server, "gpu_patience", 10)
        client.close()


async def test_a_request_too_large_is_refused_in_clear_words() -> None:
    async with limited(request_bytes=1_000) as coordinator:
        client = RunClient(coordinator.address, coordinator.token)
        with pytest.raises(LimitExceeded, match="send less") as refused:
            await asyncio.to_thread(client.create, RunSpec(ONE.roles, name="x" * 2_000))
        assert_refused(refused.value, coordinator.server, "request_bytes", 1_000)
        client.close()


async def test_a_message_too_large_is_not_even_read() -> None:
    async with limited(message_bytes=10_000) as coordinator:
        [create] = [method for method in raw.methods() if method.name == "CreateRun"]
        metadata = call_metadata(coordinator.token)
        error = await raw.failure_of(coordinator.address, create, bytes(20_000), *metadata)
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert not coordinator.server.limiter.refused  # grpc has refused it


async def test_a_report_too_large_ends_the_session_and_changes_nothing() -> None:
    async with limited(report_bytes=1_000) as coordinator:
        run_id = coordinator.create_run(ONE)
        async with FakeGang(coordinator.address, coordinator.token, run_id, ONE.roles) as gang:
            await gang.form()
            await gang.enter()
            worker = gang["worker:0"]
            with pytest.raises(LimitExceeded) as refused:
                await worker.end(ExitReport(Cause.USER_EXCEPTION, traceback="x" * 2_000))
            assert_refused(refused.value, coordinator.server, "report_bytes", 1_000)
            assert coordinator.view(run_id).members[0].phase is MemberPhase.RUNNING
            await worker.attend()


async def test_readers_of_one_log_are_limited() -> None:
    async with limited(log_readers_per_member=1) as coordinator:
        run_id = coordinator.create_run(ONE)
        async with FakeGang(coordinator.address, coordinator.token, run_id, ONE.roles) as gang:
            await gang.form()
            client = RunClient(coordinator.address, coordinator.token)
            member = gang["worker:0"].member
            limiter = coordinator.server.limiter
            reading = asyncio.create_task(asyncio.to_thread(client.read_log, run_id, member))
            await raw.becomes_true(lambda: limiter.in_use("log_readers_per_member") == 1)
            with pytest.raises(LimitExceeded) as refused:
                await asyncio.to_thread(client.read_log, run_id, member)
            assert_refused(refused.value, coordinator.server, "log_readers_per_member", 1)
            [question] = coordinator.engine.logs._waiting
            coordinator.engine.logs.answered(question, LogChunk(0, b"it learns", 9))
            assert (await reading).data == b"it learns"
            client.close()


async def test_the_log_of_all_members_together_is_not_read_faster_than_its_rate() -> None:
    """A turn that would come too late is refused, one that comes soon is waited for, and what was
    not there to be read costs nothing."""
    now = 0.0
    limiter = limiting.Limiter(Limits(log_bytes_per_second=1_000), NoRuns(), lambda: now)
    await limiter.log_turn(1_000)
    await limiter.log_turn(10)
    assert limiter.slowed["log_bytes_per_second"] == 1
    with pytest.raises(LimitExceeded, match="in a few seconds"):
        await limiter.log_turn(2_500)
    limiter.log_spared(1_010)
    await limiter.log_turn(1_000)
    assert limiter.slowed["log_bytes_per_second"] == 1


class NoRuns:
    def census(self) -> Census:
        return Census({}, {}, {})


async def test_a_session_without_a_hello_is_ended_when_the_limit_says() -> None:
    async with limited(hello_timeout=0.05) as coordinator:
        run_id = coordinator.create_run(ONE)
        client = ReservationClient(coordinator.address, coordinator.token)
        async with FakeExecutor(coordinator.address, "", run_id, "worker:0") as quiet:
            session = client.attend(run_id, quiet.member, quiet.incarnation)
            with pytest.raises(CoordinatorUnavailable, match=r"none came within 0\.05 s"):
                await anext(session.commands())
        await client.close()


async def test_connections_beyond_the_limit_are_closed_and_room_comes_back() -> None:
    async with limited(connections=2) as coordinator:
        async with AsyncExitStack() as stack:
            for _ in range(2):
                await stack.enter_async_context(ping(coordinator))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1), ping(coordinator):
                    pass
        async with asyncio.timeout(20), ping(coordinator):
            pass


class ping:
    """A connection on which one call was answered."""

    def __init__(self, coordinator) -> None:
        self._coordinator = coordinator

    async def __aenter__(self) -> None:
        options = (*raw.NO_PROXY, ("grpc.use_local_subchannel_pool", 1))
        self._channel = grpc.aio.insecure_channel(self._coordinator.address, options=options)
        call = self._channel.unary_unary("/coordinator.v1.RunService/ListRuns")
        try:
            await call(b"", metadata=call_metadata(self._coordinator.token), wait_for_ready=True)
        except BaseException:
            await self._channel.close()
            raise

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()
