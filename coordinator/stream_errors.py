"""The one error tree for the three ways in which grpc.aio tells a client that a stream is over."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio

from coordinator.core.errors import CoordinatorUnavailable
from coordinator.status import error_from_rpc

STREAM_IS_OVER = (
    grpc.aio.AioRpcError,
    asyncio.InvalidStateError,  # a write after the end
    asyncio.CancelledError,  # this side ended the stream: the client was closed
)


async def explain(stream: Any, error: BaseException) -> BaseException:
    """What to raise instead of one of these."""
    task = asyncio.current_task()
    if isinstance(error, grpc.aio.AioRpcError):
        return error_from_rpc(error)
    if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
        return error  # it is the caller who was cancelled, not the stream
    if not stream.done() or stream.cancelled():
        return CoordinatorUnavailable("this side has ended the session")
    if await stream.code() is grpc.StatusCode.OK:
        return CoordinatorUnavailable("the coordinator has ended the session")
    return error_from_rpc(
        grpc.aio.AioRpcError(
            await stream.code(),
            await stream.initial_metadata(),
            await stream.trailing_metadata(),
            await stream.details(),
        )
    )
