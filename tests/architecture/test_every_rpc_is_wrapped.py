"""Every method of our services passes both interceptors: proven by what a caller sees.

The list of methods is read from the descriptors, so a new one is here on the day it is written.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from coordinator import event_service, file_service, gpu_service, log_service, service
from coordinator.core.errors import StaleIncarnation
from coordinator.security import call_metadata
from coordinator.testing import Serving, serving
from tests.integration.grpc import raw

pytestmark = pytest.mark.timeout(60)

METHODS = raw.methods()
MODULES = {
    "LogService": log_service,
    "GpuLeaseService": gpu_service,
    "EventService": event_service,
    "FileService": file_service,
}
SECRET = "what only our own log may say"


@pytest.fixture(params=METHODS, ids=lambda method: method.name)
def method(request: pytest.FixtureRequest) -> Any:
    return request.param


def break_handler(method: Any, error: Exception, patch: pytest.MonkeyPatch) -> None:
    """The handler of ``method`` raises, in the way in which handlers of its kind do."""

    async def answering(*_: object) -> object:
        raise error

    async def streaming(*_: object) -> AsyncIterator[object]:
        raise error
        yield

    only_answers_stream = method.server_streaming and not method.client_streaming
    name = method.containing_service.name
    servicer = getattr(MODULES.get(name, service), name)
    patch.setattr(servicer, method.name, streaming if only_answers_stream else answering)


async def failure_of(coordinator: Serving, method: Any, *, token: str) -> grpc.RpcError:
    return await raw.failure_of(coordinator.address, method, b"", *call_metadata(token))


def test_the_services_are_those_of_the_contract() -> None:
    names = {method.containing_service.full_name for method in METHODS}
    assert names == {
        "coordinator.v1.RunService",
        "coordinator.v1.ReservationService",
        "coordinator.v1.LogService",
        "coordinator.v1.GpuLeaseService",
        "coordinator.v1.EventService",
        "coordinator.v1.FileService",
    }


async def test_no_handler_runs_without_the_token(
    method: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """R5: the first interceptor."""
    break_handler(method, RuntimeError(SECRET), monkeypatch)
    async with serving() as coordinator:
        error = await failure_of(coordinator, method, token="wrong")
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert not raw.complaints(caplog)


async def test_a_bug_in_the_handler_does_not_tell_its_text(
    method: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The second interceptor: grpc by itself would send UNKNOWN with the exception's text."""
    break_handler(method, RuntimeError(SECRET), monkeypatch)
    async with serving() as coordinator:
        error = await failure_of(coordinator, method, token=coordinator.token)
    assert error.code() is grpc.StatusCode.INTERNAL
    assert SECRET not in f"{error.details()} {error.debug_error_string()}"
    assert raw.info_of(error).reason == "INTERNAL"
    assert SECRET in caplog.text


async def test_an_error_of_ours_arrives_with_its_reason(
    method: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_handler(method, StaleIncarnation("too late", {"member": "ps:0"}), monkeypatch)
    async with serving() as coordinator:
        error = await failure_of(coordinator, method, token=coordinator.token)
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error.details() == "too late"
    info = raw.info_of(error)
    assert (info.reason, info.domain) == ("STALE_INCARNATION", "tflease")
    assert dict(info.metadata) == {"member": "ps:0"}
