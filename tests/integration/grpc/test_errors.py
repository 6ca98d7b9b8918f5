"""How a refusal travels: one canonical code, one ErrorInfo, one class at the other end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc
import pytest

from coordinator import status, wire
from coordinator.client import RunClient
from coordinator.core import errors
from coordinator.core.model import (
    Cause,
    ExitReport,
    MemberId,
    Role,
    Roles,
    RunId,
    RunSpec,
    Slots,
    TaskState,
)
from coordinator.engine import Engine
from coordinator.security import call_metadata
from coordinator.server import Server
from coordinator.testing import FakeExecutor, Serving, serving
from tests.integration.grpc import raw

pytestmark = pytest.mark.timeout(60)

CANONICAL = {
    errors.InvalidRun: grpc.StatusCode.INVALID_ARGUMENT,
    errors.InvalidReservation: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.LimitExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.UnknownRun: grpc.StatusCode.NOT_FOUND,
    errors.RunOver: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ExecutorUnfit: grpc.StatusCode.FAILED_PRECONDITION,
    errors.StaleIncarnation: grpc.StatusCode.FAILED_PRECONDITION,
    errors.LogUnavailable: grpc.StatusCode.FAILED_PRECONDITION,
    errors.LeaseLost: grpc.StatusCode.ABORTED,
    errors.UnknownGpu: grpc.StatusCode.NOT_FOUND,
    errors.GpuHeld: grpc.StatusCode.FAILED_PRECONDITION,
    errors.GpusUnavailable: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.CoordinatorUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.TfleaseError: grpc.StatusCode.INTERNAL,
}

[GET_RUN] = [method for method in raw.methods() if method.name == "GetRun"]


def raising(error: Exception) -> Callable[..., object]:
    def view(*_: object) -> object:
        raise error

    return view


@pytest.fixture
def owner(coordinator: Serving):
    client = RunClient(coordinator.address, coordinator.token)
    yield client
    client.close()


def test_every_error_that_travels_is_tried_here() -> None:
    assert set(CANONICAL) == set(status.CODES)


@pytest.mark.parametrize("kind", CANONICAL, ids=lambda kind: kind.__name__)
async def test_an_error_arrives_with_its_code_its_reason_and_as_its_class(
    kind: type[errors.TfleaseError],
    coordinator: Serving,
    owner: RunClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = kind("it went wrong: so är es", {"member": "worker:1"})
    monkeypatch.setattr(coordinator.engine, "view", raising(error))
    failed = await raw.failure_of(
        coordinator.address, GET_RUN, b"", *call_metadata(coordinator.token)
    )
    assert failed.code() is CANONICAL[kind]
    assert failed.details() == error.message
    info = raw.info_of(failed)
    assert (info.reason, info.domain) == (kind.reason, "tflease")
    assert dict(info.metadata) == {"member": "worker:1"}
    with pytest.raises(kind) as caught:
        await asyncio.to_thread(owner.get, RunId("any"))
    assert type(caught.value) is kind
    assert (caught.value.message, caught.value.metadata) == (error.message, error.metadata)


async def test_a_bug_in_a_handler_does_not_tell_its_text(
    coordinator: Serving,
    owner: RunClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(coordinator.engine, "view", raising(KeyError("a secret of the driver")))
    failed = await raw.failure_of(
        coordinator.address, GET_RUN, b"", *call_metadata(coordinator.token)
    )
    assert failed.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in str(failed)
    assert raw.info_of(failed).reason == "INTERNAL"
    assert "a secret of the driver" in caplog.text  # our own log has it
    with pytest.raises(errors.TfleaseError, match="internal error"):
        await asyncio.to_thread(owner.get, RunId("any"))


@pytest.mark.parametrize("text", ["x" * 100_000, "ü" * 50_000], ids=["ascii", "multibyte"])
async def test_an_error_whose_text_is_too_long_for_a_status_still_arrives(
    text: str, owner: RunClient
) -> None:
    with pytest.raises(errors.UnknownRun):
        await asyncio.to_thread(owner.get, RunId(text))


async def test_a_run_that_nobody_knows_is_unknown_to_every_call(
    coordinator: Serving, owner: RunClient
) -> None:
    nowhere = RunId("nowhere")
    calls: list[Callable[[], object]] = [
        lambda: owner.get(nowhere),
        lambda: list(owner.watch(nowhere)),
        lambda: owner.stop(nowhere, "because"),
        lambda: owner.report_scheduling(nowhere, Slots(1, 1), {}),
    ]
    for call in calls:
        with pytest.raises(errors.UnknownRun):
            await asyncio.to_thread(call)
    async with FakeExecutor(coordinator.address, coordinator.token, nowhere, "worker:0") as lost:
        with pytest.raises(errors.UnknownRun):
            await lost.reserve()
        with pytest.raises(errors.UnknownRun):
            await lost.attend()


async def test_an_executor_with_another_python_is_refused_by_name(coordinator: Serving) -> None:
    run_id = coordinator.create_run(RunSpec(Roles(worker=1), python_version="3.11"))
    async with FakeExecutor(
        coordinator.address, coordinator.token, run_id, "worker:0", python_version="3.12.1"
    ) as other:
        with pytest.raises(errors.ExecutorUnfit, match=r"3\.12\.1.*PYSPARK_PYTHON") as refused:
            await other.reserve()
        assert refused.value.metadata["executor_python"] == "3.12.1"


async def test_a_slot_that_the_run_does_not_have_cannot_be_claimed(coordinator: Serving) -> None:
    run_id = coordinator.create_run(RunSpec(Roles(worker=1)))
    for member in ("worker:1", "worker:-1", "ps:0"):
        async with FakeExecutor(coordinator.address, coordinator.token, run_id, member) as stranger:
            with pytest.raises(errors.InvalidReservation, match=member):
                await stranger.reserve()


@pytest.mark.parametrize("grace", [float("nan"), -1.0])
async def test_a_time_to_stop_that_makes_no_sense_is_refused_and_changes_nothing(
    grace: float, coordinator: Serving, owner: RunClient
) -> None:
    run_id = coordinator.create_run(RunSpec(Roles(worker=1)))
    with pytest.raises(errors.InvalidRun, match="grace"):
        await asyncio.to_thread(owner.stop, run_id, "because", grace)
    assert coordinator.view(run_id).stop_reason == ""


async def test_a_run_without_members_is_refused(coordinator: Serving) -> None:
    [create] = [method for method in raw.methods() if method.name == "CreateRun"]
    spec = wire.spec_to_pb(RunSpec(Roles(worker=1)))
    spec.roles.worker = 0
    request = create.input_type._concrete_class(spec=spec)
    for payload in (b"", request.SerializeToString()):
        failed = await raw.failure_of(
            coordinator.address, create, payload, *call_metadata(coordinator.token)
        )
        assert failed.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert raw.info_of(failed).reason == "INVALID_RUN"
    assert coordinator.engine.views() == []


async def test_what_spark_says_reaches_the_diagnosis(
    coordinator: Serving, owner: RunClient
) -> None:
    """R1: "waiting" says for whom, and why."""
    run_id = coordinator.create_run(RunSpec(Roles(worker=3)))
    tasks = {MemberId(Role.WORKER, 1): TaskState(running=True)}
    await asyncio.to_thread(owner.report_scheduling, run_id, Slots(4, 4), tasks)
    told = (await asyncio.to_thread(owner.get, run_id)).diagnosis
    assert told[0] == "worker:0, worker:2: task not scheduled, 4 of 4 slots busy"
    assert told[1] == "worker:1: its Spark task has started, its agent not yet"


async def test_a_report_with_text_that_is_no_unicode_arrives(coordinator: Serving, gang_of) -> None:
    """E1: file names may hold any bytes; the report is worth more than its exact text."""
    gang = await gang_of(coordinator, Roles(worker=1))
    await gang.form()
    broken = "cannot open /data/\udcff.tfrecord"
    await gang["worker:0"].end(
        ExitReport(
            Cause.USER_EXCEPTION,
            exception_type="OSError",
            message=broken,
            traceback=broken,
            log_tail=broken,
            survivors=(broken,),
        )
    )
    run = await coordinator.ended(gang.run_id)
    assert run.failure is not None
    assert r"/data/\udcff.tfrecord" in run.failure.summary


async def test_a_port_in_use_is_a_clear_error() -> None:
    """Two servers never share a port: half of the calls would go to the wrong one."""
    async with serving() as first:
        port = int(first.address.rpartition(":")[2])
        second = Server(Engine(), "token")
        with pytest.raises(
            errors.CoordinatorUnavailable, match=f"cannot listen on 127.0.0.1:{port}"
        ):
            await second.start(port=port)
        await second.stop()


async def test_a_coordinator_that_is_not_there_is_unavailable() -> None:
    async with serving() as gone:
        pass
    owner = RunClient(gone.address, gone.token)
    with pytest.raises(errors.CoordinatorUnavailable):
        await asyncio.to_thread(owner.list)
    owner.close()
    for call in (owner.list, lambda: list(owner.watch(RunId("any")))):
        with pytest.raises(errors.CoordinatorUnavailable, match=r"(?i)closed"):
            await asyncio.to_thread(call)
    async with FakeExecutor(gone.address, gone.token, RunId("any"), "worker:0") as worker:
        with pytest.raises(errors.CoordinatorUnavailable):
            await worker.reserve()
        with pytest.raises(errors.CoordinatorUnavailable):
            await worker.attend()
