"""Errors <-> gRPC status, in one table (Google AIP-193: canonical code + ErrorInfo)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2

from coordinator.core import errors

DOMAIN = "tflease"
_DETAILS = "grpc-status-details-bin"

MAX_TEXT_BYTES = 1024
"""Of each text in a status: peers refuse a status of more than 8 to 16 KiB, and the error that it
carries with it."""

CODES: dict[type[errors.TfleaseError], grpc.StatusCode] = {
    errors.TfleaseError: grpc.StatusCode.INTERNAL,
    errors.InvalidRun: grpc.StatusCode.INVALID_ARGUMENT,
    errors.InvalidReservation: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.LimitExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.UnknownRun: grpc.StatusCode.NOT_FOUND,
    errors.RunOver: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ExecutorUnfit: grpc.StatusCode.FAILED_PRECONDITION,
    errors.LogUnavailable: grpc.StatusCode.FAILED_PRECONDITION,
    errors.StaleIncarnation: grpc.StatusCode.FAILED_PRECONDITION,
    errors.CoordinatorUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.LeaseLost: grpc.StatusCode.ABORTED,
    errors.UnknownGpu: grpc.StatusCode.NOT_FOUND,
    errors.GpuHeld: grpc.StatusCode.FAILED_PRECONDITION,
    errors.GpusUnavailable: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""Errors that travel; the others are raised and caught in one process."""

_BY_REASON = {kind.reason: kind for kind in CODES}


def code_of(error: errors.TfleaseError) -> grpc.StatusCode:
    """The canonical code of an error that travels."""
    return CODES.get(type(error), grpc.StatusCode.INTERNAL)


def text_of(error: errors.TfleaseError) -> str:
    """The error's message, as much of it as travels."""
    return _short(error.message)


def _short(text: str) -> str:
    raw = text.encode(errors="replace")
    if len(raw) <= MAX_TEXT_BYTES:
        return raw.decode()
    return raw[:MAX_TEXT_BYTES].decode(errors="ignore") + "..."


def trailing_metadata(error: errors.TfleaseError) -> tuple[tuple[str, bytes], ...]:
    """The rich half of a status: ``google.rpc.Status`` with ErrorInfo."""
    metadata = {key: _short(value) for key, value in error.metadata.items()}
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)
    detail = AnyMessage()
    detail.Pack(info)
    status = status_pb2.Status(
        code=code_of(error).value[0], message=text_of(error), details=[detail]
    )
    return ((_DETAILS, status.SerializeToString()),)


def error_from_rpc(error: grpc.RpcError) -> errors.TfleaseError:
    """What a failed call means: the error that the coordinator raised, or that it is not there."""
    code = error.code()
    details = str(error.details() or "")
    for info in _infos(error):
        kind = _BY_REASON.get(info.reason)
        if info.domain == DOMAIN and kind is not None:
            return kind(details, dict(info.metadata))
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return errors.Unauthenticated(details)
    return errors.CoordinatorUnavailable(f"{code.name}: {details}", {"code": code.name})


def _infos(error: grpc.RpcError) -> Iterator[error_details_pb2.ErrorInfo]:
    for item in error.trailing_metadata() or ():
        key, value = cast("tuple[str, str | bytes]", item)
        if key != _DETAILS or not isinstance(value, bytes):
            continue
        for detail in status_pb2.Status.FromString(value).details:
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info):
                yield info
