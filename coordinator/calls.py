"""What surrounds every call: who calls, whether it may, how it ends, and what it costs.

A concern of all calls is an ``Aspect``, in a file of its own. The interceptor here goes through
them in order, and maps our errors to rich status.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from coordinator import status
from coordinator.core.access import Principal, Role
from coordinator.core.errors import (
    CoordinatorUnavailable,
    InvalidReservation,
    InvalidRun,
    TfleaseError,
)

_log = logging.getLogger("tflease.coordinator")

OUR_SERVICES = "/coordinator.v1."
"""Health and reflection are not ours: no aspect looks at them, so that they always answer."""

NOBODY = Principal(Role.READER, "nobody")

PRINCIPAL: ContextVar[Principal] = ContextVar("PRINCIPAL", default=NOBODY)
"""Who makes the call that this task answers; set before anything of it is parsed."""


def scoped(request_id: str) -> str:
    """A client's id of a request, as we keep it: two clients that choose the same one mean two
    requests, and nobody gets hold of another's. Empty stays empty."""
    principal = PRINCIPAL.get()
    if not request_id or principal.role is Role.OPERATOR:
        return request_id
    return f"{principal.name}/{request_id}"


@dataclass(slots=True, eq=False)
class Call:
    """One call that is being answered. ``started_at``: ``time.perf_counter``, in seconds.
    ``mark``: what its answer rests on; None: all that has changed until it is given."""

    method: str
    peer: str
    principal: Principal
    started_at: float = field(default_factory=time.perf_counter)
    mark: int | None = None

    @property
    def name(self) -> str:
        """Without the package: "RunService/CreateRun"."""
        return self.method.rpartition(".")[2]


CALL: ContextVar[Call | None] = ContextVar("CALL", default=None)
"""The call that this task answers, for services that decide by who calls."""


class Aspect:
    """One concern of all calls of our services. What is not overridden does nothing."""

    def begin(self, call: Call) -> None:
        """Before its request is parsed. Whoever raises a TfleaseError refuses it, and ``end`` of
        this aspect is not called."""

    def parsed(self, call: Call, request: Any) -> None:
        """A single request, before its handler sees it. May raise a TfleaseError. The messages of
        a client's stream are their handler's business."""

    async def before_answer(self, call: Call) -> None:
        """Before a message or an error goes out. May raise a TfleaseError, which goes instead."""

    def end(self, call: Call, code: grpc.StatusCode) -> None:
        """It is over, however that came."""


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


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Takes each call through the aspects, maps our errors to rich status, and hides what a bug
    would tell a stranger."""

    def __init__(self, calls: OpenCalls, aspects: Sequence[Aspect] = ()) -> None:
        self._calls = calls
        self._aspects = tuple(aspects)
        self._wrapped: dict[str, tuple[Any, Any]] = {}  # by method: the handler, and ours

    async def intercept_service(
        self,
        continuation: Callable[[Any], Awaitable[Any]],
        handler_call_details: Any,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = str(handler_call_details.method)
        wrapped = self._wrapped.get(method)
        if wrapped is None or wrapped[0] is not handler:
            wrapped = self._wrapped[method] = (handler, self._around(handler, method))
        return wrapped[1]

    def _around(self, handler: Any, method: str) -> Any:
        # A single request is parsed inside the wrapper, so that what cannot be parsed is refused
        # there too; a stream's messages are parsed when its handler reads them.
        serialize = handler.response_serializer
        parse = _parser(handler.request_deserializer, method)
        if handler.unary_unary:
            unary = self._wrap(handler.unary_unary, method, parse)
            return grpc.unary_unary_rpc_method_handler(unary, response_serializer=serialize)
        if handler.unary_stream:
            streaming = self._wrap(handler.unary_stream, method, parse)
            return grpc.unary_stream_rpc_method_handler(streaming, response_serializer=serialize)
        if handler.stream_stream:
            both = self._wrap(handler.stream_stream, method, None)
            return grpc.stream_stream_rpc_method_handler(both, parse, serialize)
        raise AssertionError(f"{method} is of a kind that is not wrapped")

    def _wrap(
        self, handle: Callable[[Any, Any], Any], method: str, parse: Callable[[Any], Any] | None
    ) -> Callable[[Any, Any], Any]:
        """Handlers are coroutines or, if they like, generators where they answer a stream.
        ``parse`` None: the request is a stream."""
        aspects = self._aspects if method.startswith(OUR_SERVICES) else ()

        async def answering(request: Any, context: Any) -> Any:
            passage = _Passage(aspects, method, context)
            with passage:
                try:
                    with self._calls.answering():
                        answer = await handle(passage.open(request, parse), context)
                        await passage.before_answer()
                        return answer
                except Exception as error:
                    await passage.abort(error)

        async def generating(request: Any, context: Any) -> AsyncIterator[Any]:
            passage = _Passage(aspects, method, context)
            with passage:
                try:
                    with self._calls.answering():
                        opened = passage.open(request, parse)
                        async with aclosing(handle(opened, context)) as responses:
                            async for response in responses:
                                await passage.before_answer()
                                yield response
                except Exception as error:
                    await passage.abort(error)

        return generating if inspect.isasyncgenfunction(handle) else answering


class _Passage:
    """One call on its way through the aspects."""

    __slots__ = ("_aspects", "_begun", "_call", "_code", "_context")

    def __init__(self, aspects: Sequence[Aspect], method: str, context: Any) -> None:
        self._aspects = aspects
        self._begun: list[Aspect] = []
        self._context = context
        self._code = grpc.StatusCode.OK
        self._call = Call(method, context.peer(), PRINCIPAL.get()) if aspects else None

    def __enter__(self) -> None:
        CALL.set(self._call)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._call is None:
            return
        if kind is not None and self._code is grpc.StatusCode.OK:
            self._code = grpc.StatusCode.CANCELLED
        for aspect in reversed(self._begun):
            aspect.end(self._call, self._code)

    def open(self, request: Any, parse: Callable[[Any], Any] | None) -> Any:
        """The parsed request, or the stream of them. Raises what an aspect refuses it with."""
        if self._call is None:
            return request if parse is None else parse(request)
        for aspect in self._aspects:
            aspect.begin(self._call)
            self._begun.append(aspect)
        if parse is None:
            return request
        parsed = parse(request)
        for aspect in self._aspects:
            aspect.parsed(self._call, parsed)
        return parsed

    async def before_answer(self) -> None:
        if self._call is not None:
            for aspect in self._begun:
                await aspect.before_answer(self._call)

    async def abort(self, error: Exception) -> None:
        """Ends the call with this error, or with a worse one."""
        if isinstance(error, grpc.aio.AbortError):
            raise error
        if not isinstance(error, TfleaseError):
            _log.exception("a call failed by a bug of the coordinator", exc_info=error)
            text = f"internal error ({type(error).__name__}); see the coordinator's log"
            error = TfleaseError(text)
        if not isinstance(error, CoordinatorUnavailable):  # which says nothing of what was decided
            try:
                await self.before_answer()
            except TfleaseError as worse:
                error = worse
        self._code = status.code_of(error)
        await self._context.abort(
            self._code, status.text_of(error), trailing_metadata=status.trailing_metadata(error)
        )


_OF_MEMBERS = ("ReservationService", "LogService", "FileService")


def _parser(parse: Callable[[bytes], Any], method: str) -> Callable[[Any], Any]:
    by_members = any(f"{name}/" in method for name in _OF_MEMBERS)
    refusal = InvalidReservation if by_members else InvalidRun

    def parse_or_refuse(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError as error:
            raise refusal(f"not a message of this call: {error}") from None

    return parse_or_refuse
