"""What a client of ours never sends: bytes that are no message, half messages, forged metadata."""

from __future__ import annotations

import asyncio
import importlib
import logging
import pkgutil
import socket
import struct
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.rpc import error_details_pb2, status_pb2

import coordinator.v1

NO_PROXY = (("grpc.enable_http_proxy", 0),)
STATUS_LOST = "Internal error from Core"
"""What grpc.aio's client says, once in some hundred calls on a loaded machine, when its write meets
the end of the call: the server's status is lost, and asking again is all that helps."""
ATTEMPTS = 5
GARBAGE = b"\xff\xff\xff\xff"


def methods() -> list[MethodDescriptor]:
    """Every method of every service of ours, by reflection over the descriptors."""
    return [
        method
        for module in pkgutil.iter_modules(coordinator.v1.__path__)
        if module.name.endswith("_pb2")
        for service in importlib.import_module(
            f"coordinator.v1.{module.name}"
        ).DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]


def path_of(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


async def failure_of(
    address: str, method: MethodDescriptor, payload: bytes, *metadata: tuple[str, str]
) -> grpc.aio.AioRpcError:
    """Calls a method with these bytes and returns how it failed."""
    for _ in range(ATTEMPTS):
        async with grpc.aio.insecure_channel(address, options=NO_PROXY) as channel:
            try:
                answer = await _call(channel, method, payload, metadata)
            except grpc.aio.AioRpcError as error:
                if error.details() != STATUS_LOST:
                    return error
            else:
                raise AssertionError(f"{path_of(method)} answered {answer!r}")
    raise AssertionError(f"{path_of(method)} failed, and the client never learned how")


async def _call(channel: Any, method: MethodDescriptor, payload: bytes, metadata: Any) -> object:
    path = path_of(method)
    if method.client_streaming:
        stream = channel.stream_stream(path)(iter([payload]), metadata=metadata)
        return [message async for message in stream]
    if method.server_streaming:
        stream = channel.unary_stream(path)(payload, metadata=metadata)
        return [message async for message in stream]
    return await channel.unary_unary(path)(payload, metadata=metadata)


def info_of(error: grpc.RpcError) -> error_details_pb2.ErrorInfo:
    """The ErrorInfo that a status carries."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            [detail] = status_pb2.Status.FromString(value).details
            info = error_details_pb2.ErrorInfo()
            assert detail.Unpack(info)
            return info
    raise AssertionError(f"no details in {error!r}")


def complaints(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What the coordinator, or grpc for it, has logged. asyncio's own records are left out: when
    the event loop of an earlier test is closed, grpc complains about it in that of the next."""
    return [record for record in caplog.records if record.name.startswith(("tflease", "grpc"))]


async def becomes_true(condition: Callable[[], bool]) -> None:
    """For what has no event of its own: the coordinator's memory of what is over."""
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it did not become true")


class Call:
    """A call, spoken in HTTP/2 by hand, that sends one message and never ends its stream."""

    def __init__(
        self,
        address: str,
        path: str,
        *metadata: tuple[str, str],
        message: bytes,
        announced: int | None = None,
    ) -> None:
        host, _, port = address.rpartition(":")
        headers = (
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", address),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            *metadata,
        )
        size = len(message) if announced is None else announced
        self._socket = socket.create_connection((host, int(port)))
        self._socket.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + _frame(_SETTINGS, 0, 0, b"")
            + _frame(_HEADERS, _END_HEADERS, 1, b"".join(_literal(*item) for item in headers))
            + _frame(_DATA, 0, 1, b"\x00" + size.to_bytes(4, "big") + message)
        )

    def is_answered(self) -> bool:
        """Reads, blocking, until the server has ended the call or the connection."""
        stream = self._socket.makefile("rb")
        while head := stream.read(9):
            stream.read(int.from_bytes(head[:3], "big"))
            if head[3] == _HEADERS and head[4] & _END_STREAM:
                return True
        return False

    def reset(self) -> None:
        """The machine is gone: no goodbye on any layer."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def close(self) -> None:
        self._socket.close()


def half_message(address: str, method: MethodDescriptor, *metadata: tuple[str, str]) -> Call:
    """A call that announces 100 bytes and sends four."""
    return Call(address, path_of(method), *metadata, message=b"half", announced=100)


_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_END_STREAM, _END_HEADERS = 1, 4


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return (
        len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload
    )


def _literal(name: str, value: str) -> bytes:
    """A header field of HPACK that is not indexed and not compressed."""
    return b"\x00" + b"".join(bytes((len(text),)) + text.encode() for text in (name, value))
