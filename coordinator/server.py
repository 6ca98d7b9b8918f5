"""The gRPC server around an engine: interceptors, health, reflection, limits, graceful stop."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from coordinator import status
from coordinator.core.errors import (
    CoordinatorUnavailable,
    InvalidReservation,
    InvalidRun,
    TfleaseError,
)
from coordinator.core.model import Endpoint
from coordinator.engine import Engine
from coordinator.gpu_service import GpuLeaseService
from coordinator.log_service import LogService
from coordinator.security import TokenInterceptor
from coordinator.service import ReservationService, RunService
from coordinator.v1 import (
    gpu_lease_service_pb2,
    gpu_lease_service_pb2_grpc,
    log_service_pb2,
    log_service_pb2_grpc,
    reservation_service_pb2,
    reservation_service_pb2_grpc,
    run_service_pb2,
    run_service_pb2_grpc,
)

_log = logging.getLogger("tflease.coordinator")

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""The largest message taken; an exit report with its log tail is a few KiB."""

OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.so_reuseport", 0),  # otherwise a second server binds the same port, silently
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # A gang calls all at once: with the defaults (1,000 and 3,000) calls are lost as CANCELLED.
    ("grpc.server.max_pending_requests", 131_072),
    ("grpc.server.max_pending_requests_hard_limit", 131_072),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
)

ENDING_TIME = 1.0
"""Seconds that a stopping server gives to calls that it has told to end; grpc cancels them then."""

SERVICE_NAMES = (
    run_service_pb2.DESCRIPTOR.services_by_name["RunService"].full_name,
    reservation_service_pb2.DESCRIPTOR.services_by_name["ReservationService"].full_name,
    log_service_pb2.DESCRIPTOR.services_by_name["LogService"].full_name,
    gpu_lease_service_pb2.DESCRIPTOR.services_by_name["GpuLeaseService"].full_name,
)


class OpenCalls:
    """The calls that are being answered. A stopping server ends them by itself: grpc would cancel
    them, which their callers could not tell from a crash, and log a traceback for each."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_ending = False

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Around one call. Raises CoordinatorUnavailable in it when it is ended."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if not self._is_ending:
                raise
            task.uncancel()
            raise CoordinatorUnavailable("the coordinator has ended") from None
        finally:
            self._tasks.discard(task)

    async def end(self, grace: float) -> None:
        """Calls that are not over by themselves within ``grace`` seconds are told to be."""
        if self._tasks:
            await asyncio.wait(self._tasks.copy(), timeout=grace)
        self._is_ending = True
        for task in self._tasks:
            task.cancel()


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Maps our errors to rich status, and hides what a bug would tell a stranger."""

    def __init__(self, calls: OpenCalls) -> None:
        self._calls = calls

    async def intercept_service(
        self,
        continuation: Callable[[Any], Awaitable[Any]],
        handler_call_details: Any,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        # A single request is parsed inside the wrapper, so that what cannot be parsed is refused
        # there too; a stream's messages are parsed when its handler reads them.
        serialize = handler.response_serializer
        parse = _parser(handler.request_deserializer, handler_call_details.method)
        if handler.unary_unary:
            unary = self._wrap(handler.unary_unary, parse)
            return grpc.unary_unary_rpc_method_handler(unary, response_serializer=serialize)
        if handler.unary_stream:
            streaming = self._wrap(handler.unary_stream, parse)
            return grpc.unary_stream_rpc_method_handler(streaming, response_serializer=serialize)
        if handler.stream_stream:
            both = self._wrap(handler.stream_stream, _as_it_is)
            return grpc.stream_stream_rpc_method_handler(both, parse, serialize)
        raise AssertionError(f"{handler_call_details.method} is of a kind that is not wrapped")

    def _wrap(
        self, call: Callable[[Any, Any], Any], parse: Callable[[Any], Any]
    ) -> Callable[[Any, Any], Any]:
        """Handlers are coroutines or, if they like, generators where they answer a stream."""

        async def answering(request: Any, context: Any) -> Any:
            try:
                with self._calls.answering():
                    return await call(parse(request), context)
            except Exception as error:
                await _abort(context, error)

        async def generating(request: Any, context: Any) -> AsyncIterator[Any]:
            try:
                with self._calls.answering():
                    async with aclosing(call(parse(request), context)) as responses:
                        async for response in responses:
                            yield response
            except Exception as error:
                await _abort(context, error)

        return generating if inspect.isasyncgenfunction(call) else answering


def _parser(parse: Callable[[bytes], Any], method: str) -> Callable[[Any], Any]:
    by_members = "ReservationService/" in method or "LogService/" in method
    refusal = InvalidReservation if by_members else InvalidRun

    def parse_or_refuse(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError as error:
            raise refusal(f"not a message of this call: {error}") from None

    return parse_or_refuse


def _as_it_is(request: Any) -> Any:
    return request


async def _abort(context: Any, error: Exception) -> None:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if not isinstance(error, TfleaseError):
        _log.exception("a call failed by a bug of the coordinator", exc_info=error)
        error = TfleaseError(f"internal error ({type(error).__name__}); see the coordinator's log")
    await context.abort(
        status.code_of(error),
        status.text_of(error),
        trailing_metadata=status.trailing_metadata(error),
    )


class Server:
    """One engine behind one port."""

    def __init__(self, engine: Engine, token: str) -> None:
        self.engine = engine
        self._calls = OpenCalls()
        self._server = grpc.aio.server(
            interceptors=(TokenInterceptor(token), ErrorInterceptor(self._calls)), options=OPTIONS
        )
        run_service_pb2_grpc.add_RunServiceServicer_to_server(RunService(engine), self._server)
        reservation_service_pb2_grpc.add_ReservationServiceServicer_to_server(
            ReservationService(engine), self._server
        )
        log_service_pb2_grpc.add_LogServiceServicer_to_server(LogService(engine), self._server)
        gpu_lease_service_pb2_grpc.add_GpuLeaseServiceServicer_to_server(
            GpuLeaseService(engine), self._server
        )
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*SERVICE_NAMES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listens, and returns the port. Raises CoordinatorUnavailable when it cannot."""
        address = Endpoint(host, port).address
        try:
            bound = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise CoordinatorUnavailable(f"cannot listen on {address}: {error}") from None
        await self._server.start()
        for name in ("", *SERVICE_NAMES):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        self.engine.start()
        return int(bound)

    async def stop(self, grace: float = 1.0) -> None:
        """Refuses new calls, gives open ones ``grace`` seconds and then ends them with
        CoordinatorUnavailable; on return nothing listens."""
        await self._health.enter_graceful_shutdown()
        stopping = asyncio.ensure_future(self._server.stop(grace + ENDING_TIME))
        await self._calls.end(grace)
        await asyncio.shield(stopping)
        self.engine.close()
