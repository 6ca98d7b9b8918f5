"""Who may call, and what a caller without manners can do to the others (R5)."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from coordinator import service
from coordinator.client import RunClient
from coordinator.core.errors import CoordinatorUnavailable, Unauthenticated
from coordinator.core.model import (
    IncarnationId,
    MemberId,
    MemberPhase,
    Roles,
    RunId,
    RunPhase,
    RunSpec,
)
from coordinator.limits import Limits
from coordinator.member_client import ReservationClient
from coordinator.security import Keyring, call_metadata
from coordinator.testing import FakeExecutor, Serving, drive, serving
from tests.integration.grpc import raw
from tests.integration.grpc.limited import limited

pytestmark = pytest.mark.timeout(60)

METHODS = [pytest.param(method, id=method.name) for method in raw.methods()]
FORGED = {
    "no token": (),
    "another token": call_metadata("another"),
    "an empty token": call_metadata(""),
    "another scheme": (("authorization", "Basic secret"),),
    "half of the token": call_metadata("secre"),
    "bytes that are no text": (("authorization-bin", b"\xff"),),
}


async def attend_until_told_why_not(executor: FakeExecutor) -> None:
    for _ in range(raw.ATTEMPTS):
        try:
            await executor.attend()
        except CoordinatorUnavailable as error:
            if raw.STATUS_LOST not in error.message:  # an agent would attend again, too
                raise


async def read_to_the_end(stream) -> None:
    while await stream.read():
        pass


@pytest.fixture
async def guarded():
    async with serving(token="secret") as running:
        yield running


def test_there_are_methods_to_try() -> None:
    names = {method.name for method in raw.methods()}
    assert {"CreateRun", "WatchRun", "StopRun", "Reserve", "Attend"} <= names


@pytest.mark.parametrize("metadata", FORGED.values(), ids=FORGED)
@pytest.mark.parametrize("method", METHODS)
async def test_a_stranger_is_refused_before_anything_is_parsed(method, metadata, guarded) -> None:
    """R5: the bytes are no message, and nobody noticed."""
    error = await raw.failure_of(guarded.address, method, raw.GARBAGE, *metadata)
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert raw.info_of(error).reason == "UNAUTHENTICATED"


@pytest.mark.parametrize("method", METHODS)
async def test_a_stranger_is_refused_before_the_message_is_complete(method, guarded) -> None:
    """R5: the call is over although its message never came."""
    half = raw.half_message(guarded.address, method)
    assert await asyncio.to_thread(half.is_answered)
    half.close()


async def test_a_stranger_learns_nothing_of_methods_that_do_not_exist(guarded) -> None:
    async with grpc.aio.insecure_channel(guarded.address, options=raw.NO_PROXY) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary("/coordinator.v1.RunService/NoSuchMethod")(b"")
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_client_with_a_wrong_token_is_told_so(coordinator: Serving) -> None:
    owner = RunClient(coordinator.address, "wrong")
    with pytest.raises(Unauthenticated):
        await asyncio.to_thread(owner.list)
    with pytest.raises(Unauthenticated):
        await asyncio.to_thread(list, owner.watch(RunId("any")))
    owner.close()
    run_id = coordinator.create_run(RunSpec(Roles(worker=1)))
    async with FakeExecutor(coordinator.address, "wrong", run_id, "worker:0") as liar:
        with pytest.raises(Unauthenticated):
            await liar.reserve()
        with pytest.raises(Unauthenticated):
            await attend_until_told_why_not(liar)
    assert coordinator.view(run_id).members[0].phase is MemberPhase.EXPECTED


def test_a_server_without_a_token_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="empty token"):
        Keyring("")


@pytest.mark.parametrize("method", METHODS)
async def test_garbage_with_a_valid_token_is_an_invalid_argument(
    method, guarded, caplog: pytest.LogCaptureFixture
) -> None:
    error = await raw.failure_of(guarded.address, method, raw.GARBAGE, *call_metadata("secret"))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert raw.info_of(error).domain == "tflease"
    assert not raw.complaints(caplog)  # nobody can fill the log with tracebacks


async def test_garbage_in_the_middle_of_a_session_ends_it_and_not_the_member(
    coordinator: Serving, gang_of
) -> None:
    gang = await gang_of(coordinator, Roles(worker=2))
    await gang.form()
    worker = gang["worker:0"]
    hello = service.reservation_pb.AttendRequest()
    hello.hello.run_id, hello.hello.incarnation = gang.run_id, worker.incarnation
    hello.hello.member.role = 2
    async with grpc.aio.insecure_channel(coordinator.address, options=raw.NO_PROXY) as channel:
        stream = channel.stream_stream("/coordinator.v1.ReservationService/Attend")(
            metadata=call_metadata(coordinator.token)
        )
        await stream.write(hello.SerializeToString())
        await stream.read()
        await stream.write(raw.GARBAGE)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await read_to_the_end(stream)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    await worker.attend()
    assert (await worker.started()).generation == 1


async def test_streams_that_say_nothing_or_half_a_message_delay_nobody(
    coordinator: Serving,
) -> None:
    """R5: in TensorFlowOnSpark one of these blocked every other client."""
    metadata = call_metadata(coordinator.token)
    halves = [
        raw.half_message(coordinator.address, method, *given)
        for method in raw.methods()
        for given in (metadata, ())
    ]
    run_id = coordinator.create_run(RunSpec(Roles(worker=1)))
    async with FakeExecutor(coordinator.address, coordinator.token, run_id, "worker:0") as rude:
        for _ in range(50):
            rude.open_half()
        async with asyncio.timeout(Limits().hello_timeout / 2):
            run = await drive(coordinator, RunSpec(Roles(worker=3)))
    assert run.phase is RunPhase.SUCCEEDED
    for half in halves:
        half.close()


@pytest.mark.slow
async def test_a_stream_that_says_nothing_is_ended_and_told_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And may come again: maybe it was the coordinator that did not run."""
    async with limited(hello_timeout=0.05) as coordinator:
        client = ReservationClient(coordinator.address, coordinator.token)
        session = client.attend(RunId("any"), MemberId.parse("worker:0"), IncarnationId("any"))
        with pytest.raises(CoordinatorUnavailable, match="must begin with a hello"):
            await anext(session.commands())
        await client.close()
    assert not raw.complaints(caplog)


@pytest.mark.parametrize("kind", ["heartbeat", "process_exited", "goodbye"])
async def test_a_session_that_does_not_begin_with_a_hello_is_refused(
    kind: str, guarded: Serving
) -> None:
    message = service.reservation_pb.AttendRequest(sequence=1)
    getattr(message, kind).SetInParent()
    [attend] = [method for method in raw.methods() if method.name == "Attend"]
    error = await raw.failure_of(
        guarded.address, attend, message.SerializeToString(), *call_metadata("secret")
    )
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "must be a hello" in error.details()


async def test_health_is_answered_without_a_token_and_ends_with_the_server() -> None:
    request = health_pb2.HealthCheckRequest(service="coordinator.v1.RunService")
    async with (
        serving() as coordinator,
        grpc.aio.insecure_channel(coordinator.address, options=raw.NO_PROXY) as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)
        answer = await health.Check(request)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        watch = health.Watch(request)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        await coordinator.server.stop(grace=0.2)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_a_stranger_cannot_fill_the_log_through_the_health_check(
    guarded: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    """R5: health is answered to anybody, so its garbage must be cheap, too."""
    services = health_pb2.DESCRIPTOR.services_by_name.values()
    for method in (method for each in services for method in each.methods):
        if method.name in ("Check", "Watch"):
            error = await raw.failure_of(guarded.address, method, raw.GARBAGE)
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not raw.complaints(caplog)


async def test_reflection_needs_the_token_and_lists_our_services(guarded: Serving) -> None:
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    async with grpc.aio.insecure_channel(guarded.address, options=raw.NO_PROXY) as channel:
        ask = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ask(iter([request])).read()
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        answer = await ask(iter([request]), metadata=call_metadata("secret")).read()
    names = {each.name for each in answer.list_services_response.service}
    assert {method.containing_service.full_name for method in raw.methods()} <= names
