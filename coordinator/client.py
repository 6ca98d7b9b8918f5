"""Typed clients: the driver's (synchronous, survives a user who forks) and the agents' (asyncio).

Both see domain values and ``TfleaseError``s, never protobuf or ``grpc.RpcError``.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import grpc
import grpc.aio

from coordinator import wire
from coordinator.core import model
from coordinator.core.errors import CoordinatorUnavailable
from coordinator.security import call_metadata
from coordinator.status import error_from_rpc
from coordinator.v1 import log_service_pb2 as log_pb
from coordinator.v1 import log_service_pb2_grpc as log_grpc
from coordinator.v1 import reservation_service_pb2 as reservation_pb
from coordinator.v1 import reservation_service_pb2_grpc as reservation_grpc
from coordinator.v1 import run_service_pb2 as run_pb
from coordinator.v1 import run_service_pb2_grpc as run_grpc

CALL_TIMEOUT = 10.0
"""Seconds that a unary call may take."""

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.enable_http_proxy", 0),  # with http_proxy set gRPC fails even on loopback
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
)


class RunClient:
    """The owner's view of one coordinator. Thread-safe."""

    def __init__(self, address: str, token: str) -> None:
        self._channel = grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
        self._stub = run_grpc.RunServiceStub(self._channel)
        self._logs = log_grpc.LogServiceStub(self._channel)
        self._metadata = call_metadata(token)

    def create(self, spec: model.RunSpec, request_id: str | None = None) -> model.RunView:
        """Raises InvalidRun, Unauthenticated, CoordinatorUnavailable."""
        request = run_pb.CreateRunRequest(
            request_id=request_id or uuid.uuid4().hex, spec=wire.spec_to_pb(spec)
        )
        return wire.run_from_pb(self._call("CreateRun", request).run)

    def get(self, run_id: model.RunId) -> model.RunView:
        """Raises UnknownRun, Unauthenticated, CoordinatorUnavailable."""
        return wire.run_from_pb(self._call("GetRun", run_pb.GetRunRequest(run_id=run_id)).run)

    def list(self) -> list[model.RunView]:
        """Newest last. Raises Unauthenticated, CoordinatorUnavailable."""
        response = self._call("ListRuns", run_pb.ListRunsRequest())
        return [wire.run_from_pb(run) for run in response.runs]

    def watch(self, run_id: model.RunId) -> Iterator[model.RunView]:
        """The run now and after changes, until it has ended; has no deadline of its own, ends
        with CoordinatorUnavailable when the coordinator does. Raises UnknownRun."""
        return self._views("WatchRun", run_pb.WatchRunRequest(run_id=run_id))

    def own(self, run_id: model.RunId) -> Iterator[model.RunView]:
        """As ``watch``, and says all the while that the run's owner is there."""
        return self._views("OwnRun", run_pb.OwnRunRequest(run_id=run_id))

    def _views(self, method: str, request: Any) -> Iterator[model.RunView]:
        try:
            for response in getattr(self._stub, method)(request, metadata=self._metadata):
                yield wire.run_from_pb(response.run)
        except grpc.RpcError as error:
            raise error_from_rpc(error) from None
        except ValueError as error:  # grpc's word for a channel that was closed before
            raise CoordinatorUnavailable(str(error)) from None

    def read_log(
        self,
        run_id: model.RunId,
        member: model.MemberId,
        offset: int | None = None,
        max_bytes: int = 0,
    ) -> model.LogChunk:
        """A piece of a member's log from byte ``offset`` on, or its end; 0: as much as one answer
        holds. Raises UnknownRun, InvalidReservation, LogUnavailable, Unauthenticated,
        CoordinatorUnavailable."""
        request = log_pb.ReadLogRequest(
            run_id=run_id,
            member=wire.member_id_to_pb(member),
            offset=offset,
            max_bytes=max_bytes,
        )
        return wire.log_chunk_from_pb(self._call("ReadLog", request, self._logs))

    def stop(self, run_id: model.RunId, reason: str, grace: float | None = None) -> model.RunView:
        """Idempotent. Raises UnknownRun, Unauthenticated, CoordinatorUnavailable."""
        request = run_pb.StopRunRequest(run_id=run_id, reason=reason, grace_seconds=grace)
        return wire.run_from_pb(self._call("StopRun", request).run)

    def report_scheduling(
        self,
        run_id: model.RunId,
        slots: model.Slots,
        tasks: Mapping[model.MemberId, model.TaskState],
    ) -> None:
        """Raises UnknownRun, Unauthenticated, CoordinatorUnavailable."""
        request = run_pb.ReportSchedulingRequest(
            run_id=run_id, total_slots=slots.total, busy_slots=slots.busy
        )
        for member, task in tasks.items():
            request.tasks.add(
                member=wire.member_id_to_pb(member),
                running=task.running,
                failed=task.failed,
                message=task.message,
            )
        self._call("ReportScheduling", request)

    def report_task_end(
        self,
        run_id: model.RunId,
        member: model.MemberId,
        incarnation: model.IncarnationId,
        report: model.ExitReport,
    ) -> None:
        """Raises UnknownRun, InvalidReservation, Unauthenticated, CoordinatorUnavailable."""
        request = run_pb.ReportTaskEndRequest(
            run_id=run_id,
            member=wire.member_id_to_pb(member),
            incarnation=incarnation,
            exit=wire.exit_to_pb(report),
        )
        self._call("ReportTaskEnd", request)

    def _call(self, method: str, request: Any, stub: Any = None) -> Any:
        try:
            return getattr(stub or self._stub, method)(
                request, metadata=self._metadata, timeout=CALL_TIMEOUT
            )
        except grpc.RpcError as error:
            raise error_from_rpc(error) from None
        except ValueError as error:  # grpc's word for a channel that was closed before
            raise CoordinatorUnavailable(str(error)) from None

    def close(self) -> None:
        """Open watches end with CoordinatorUnavailable."""
        self._channel.close()


@dataclass(frozen=True, slots=True)
class Reservation:
    """The answer to a claim. ``holder``: who has the slot when it was not granted."""

    is_granted: bool
    holder: str
    retry_delay: float
    beat_interval: float
    fence_timeout: float


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """All messages up to ``sequence`` have been taken."""

    sequence: int


@dataclass(frozen=True, slots=True)
class Start:
    """Start the user's function."""

    generation: int
    cluster_spec: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop the process; ``grace`` in seconds."""

    generation: int
    reason: str
    grace: float


Command = Acknowledged | Start | Stop | model.ReadLog


class ReservationClient:
    """A member's view of the coordinator, on a connection of its own: gRPC lets all channels of
    a process to one server share one, unless told. Use inside a running event loop."""

    def __init__(self, address: str, token: str) -> None:
        options = (*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1))
        self._channel = grpc.aio.insecure_channel(address, options=options)
        self._stub = reservation_grpc.ReservationServiceStub(self._channel)
        self._metadata = call_metadata(token)

    async def reserve(
        self,
        run_id: model.RunId,
        member: model.MemberId,
        incarnation: model.IncarnationId,
        executor: model.ExecutorInfo,
        endpoint: model.Endpoint,
    ) -> Reservation:
        """Raises UnknownRun, RunOver, ExecutorUnfit, InvalidReservation, Unauthenticated,
        CoordinatorUnavailable."""
        request = reservation_pb.ReserveRequest(
            run_id=run_id,
            member=wire.member_id_to_pb(member),
            incarnation=incarnation,
            executor=wire.executor_to_pb(executor),
            endpoint=wire.endpoint_to_pb(endpoint),
        )
        try:
            response = await self._stub.Reserve(
                request, metadata=self._metadata, timeout=CALL_TIMEOUT
            )
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from None
        except grpc.aio.UsageError as error:  # grpc's word for a channel that was closed before
            raise CoordinatorUnavailable(str(error)) from None
        return Reservation(
            is_granted=response.outcome == reservation_pb.ReserveResponse.OUTCOME_GRANTED,
            holder=response.holder,
            retry_delay=wire.seconds(response.retry_delay),
            beat_interval=wire.seconds(response.beat_interval),
            fence_timeout=wire.seconds(response.fence_timeout),
        )

    def attend(
        self, run_id: model.RunId, member: model.MemberId, incarnation: model.IncarnationId
    ) -> Attendance:
        """A new session; enter it to say hello. Raises CoordinatorUnavailable after ``close``."""
        try:
            stream = self._stub.Attend(metadata=self._metadata)
        except grpc.aio.UsageError as error:
            raise CoordinatorUnavailable(str(error)) from None
        hello = reservation_pb.AgentHello(
            run_id=run_id, member=wire.member_id_to_pb(member), incarnation=incarnation
        )
        return Attendance(stream, hello)

    async def close(self) -> None:
        """Open sessions end."""
        await self._channel.close()


_SESSION_IS_OVER = (
    grpc.aio.AioRpcError,
    asyncio.InvalidStateError,  # a write after the end
    asyncio.CancelledError,  # this side ended the stream: the client was closed
)


class Attendance:
    """One session of a member: reports up, commands down.

    Every method raises StaleIncarnation, UnknownRun, Unauthenticated or CoordinatorUnavailable
    when the session is over; attach again after the last of these.
    """

    def __init__(self, stream: Any, hello: reservation_pb.AgentHello) -> None:
        self._stream = stream
        self._hello = hello
        self._writing = asyncio.Lock()  # a stream takes one message at a time

    async def __aenter__(self) -> Attendance:
        await self._send(0, hello=self._hello)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.cancel()

    async def _send(self, sequence: int, **message: Any) -> None:
        request = reservation_pb.AttendRequest(sequence=sequence, **message)
        async with self._writing:
            try:
                await self._stream.write(request)
            except _SESSION_IS_OVER as error:
                raise await self._explain(error) from None

    async def _explain(self, error: BaseException) -> BaseException:
        """The one error tree for the three ways in which grpc tells that a stream is over."""
        task = asyncio.current_task()
        if isinstance(error, grpc.aio.AioRpcError):
            return error_from_rpc(error)
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            return error  # it is the caller who was cancelled, not the stream
        if not self._stream.done() or self._stream.cancelled():
            return CoordinatorUnavailable("this side has ended the session")
        if await self._stream.code() is grpc.StatusCode.OK:
            return CoordinatorUnavailable("the coordinator has ended the session")
        return error_from_rpc(
            grpc.aio.AioRpcError(
                await self._stream.code(),
                await self._stream.initial_metadata(),
                await self._stream.trailing_metadata(),
                await self._stream.details(),
            )
        )

    async def heartbeat(self, sequence: int) -> None:
        await self._send(sequence, heartbeat=reservation_pb.Heartbeat())

    async def ready(self, sequence: int, versions: Mapping[str, str]) -> None:
        await self._send(sequence, process_ready=reservation_pb.ProcessReady(versions=versions))

    async def main_entered(self, sequence: int, generation: int) -> None:
        await self._send(sequence, main_entered=reservation_pb.MainEntered(generation=generation))

    async def progress(
        self, sequence: int, generation: int, step: int, metrics: Mapping[str, float]
    ) -> None:
        message = reservation_pb.Progress(generation=generation, step=step, metrics=metrics)
        await self._send(sequence, progress=message)

    async def process_exited(
        self, sequence: int, generation: int, report: model.ExitReport
    ) -> None:
        message = reservation_pb.ProcessExited(generation=generation, exit=wire.exit_to_pb(report))
        await self._send(sequence, process_exited=message)

    async def log_chunk(self, request_id: str, chunk: model.LogChunk) -> None:
        """The answer to a ``ReadLog``; not numbered, because it is not sent again."""
        message = reservation_pb.LogChunk(
            request_id=request_id, offset=chunk.offset or 0, data=chunk.data, size=chunk.size
        )
        await self._send(0, log_chunk=message)

    async def log_refused(self, request_id: str, why: str) -> None:
        """The other answer to a ``ReadLog``."""
        await self._send(0, log_chunk=reservation_pb.LogChunk(request_id=request_id, error=why))

    async def goodbye(self, sequence: int, reason: str) -> None:
        """Says that nothing more will come, and ends the session."""
        await self._send(sequence, goodbye=reservation_pb.Goodbye(reason=reason))
        await self._stream.done_writing()

    async def commands(self) -> AsyncIterator[Command]:
        """What the coordinator says, until it ends the session."""
        try:
            async for response in self._stream:
                match response.WhichOneof("message"):
                    case "acknowledgement":
                        yield Acknowledged(response.acknowledgement.sequence)
                    case "start":
                        spec = wire.unpack_cluster_spec(response.start.cluster_spec_zlib)
                        yield Start(response.start.generation, spec)
                    case "stop":
                        grace = wire.seconds(response.stop.grace)
                        yield Stop(response.stop.generation, response.stop.reason, grace)
                    case "read_log":
                        asked = response.read_log
                        offset = asked.offset if asked.HasField("offset") else None
                        yield model.ReadLog(asked.request_id, offset, asked.max_bytes)
                    case _:
                        continue  # a command newer than this agent
        except _SESSION_IS_OVER as error:
            raise await self._explain(error) from None
