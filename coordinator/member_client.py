"""The agents' client: a member's reservation and its session, on asyncio.

Its callers see domain values and ``TfleaseError``s, never protobuf or ``grpc.RpcError``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import grpc
import grpc.aio

from coordinator import gpu_wire, wire
from coordinator.channels import aio_channel
from coordinator.client import CALL_TIMEOUT
from coordinator.core import model
from coordinator.core.access import ClientTls
from coordinator.core.errors import CoordinatorUnavailable
from coordinator.core.gpu import NO_GPUS, GpuOffer, GpuSight, LeaseToken
from coordinator.security import call_metadata
from coordinator.status import error_from_rpc
from coordinator.v1 import reservation_service_pb2 as reservation_pb
from coordinator.v1 import reservation_service_pb2_grpc as reservation_grpc


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


@dataclass(frozen=True, slots=True)
class InspectGpus:
    """Look whether these GPUs are free, until they are or another command comes. Tokens of
    ``coordinator_id`` up to ``number`` are to be refused by the host from then on."""

    number: int
    coordinator_id: str
    uuids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClaimGpus:
    """Claim exactly these GPUs (token by UUID) on the host, and let go of all others."""

    number: int
    grants: Mapping[str, LeaseToken]


Command = Acknowledged | Start | Stop | model.ReadLog | InspectGpus | ClaimGpus


class ReservationClient:
    """A member's view of the coordinator, on a connection of its own: gRPC lets all channels of
    a process to one server share one, unless told. Use inside a running event loop."""

    def __init__(self, address: str, token: str, tls: ClientTls | None = None) -> None:
        own = [("grpc.use_local_subchannel_pool", 1)]
        self._channel = aio_channel(address, tls, own)
        self._stub = reservation_grpc.ReservationServiceStub(self._channel)
        self._metadata = call_metadata(token)

    async def reserve(
        self,
        run_id: model.RunId,
        member: model.MemberId,
        incarnation: model.IncarnationId,
        executor: model.ExecutorInfo,
        endpoint: model.Endpoint,
        gpus: GpuOffer = NO_GPUS,
    ) -> Reservation:
        """Raises UnknownRun, RunOver, ExecutorUnfit, InvalidReservation, Unauthenticated,
        CoordinatorUnavailable."""
        request = reservation_pb.ReserveRequest(
            run_id=run_id,
            member=wire.member_id_to_pb(member),
            incarnation=incarnation,
            executor=wire.executor_to_pb(executor),
            endpoint=wire.endpoint_to_pb(endpoint),
            gpus=gpu_wire.offer_to_pb(gpus),
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

    async def heartbeat(self, sequence: int, leases: Iterable[LeaseToken] = ()) -> None:
        """Renews the leases, too."""
        message = reservation_pb.Heartbeat(leases=map(gpu_wire.token_to_pb, leases))
        await self._send(sequence, heartbeat=message)

    async def gpus_inspected(self, sequence: int, number: int, sights: Iterable[GpuSight]) -> None:
        """The answer to ``InspectGpus``."""
        gpus = map(gpu_wire.sight_to_pb, sights)
        message = reservation_pb.GpusInspected(number=number, gpus=gpus)
        await self._send(sequence, gpus_inspected=message)

    async def gpus_claimed(
        self, sequence: int, number: int, refused: Iterable[GpuSight] = ()
    ) -> None:
        """The answer to ``ClaimGpus``: all are claimed, but for those that somebody else has."""
        message = reservation_pb.GpusClaimed(
            number=number, refused=map(gpu_wire.sight_to_pb, refused)
        )
        await self._send(sequence, gpus_claimed=message)

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
                    case "inspect_gpus":
                        look = response.inspect_gpus
                        uuids = tuple(look.uuids)
                        yield InspectGpus(look.number, look.coordinator_id, uuids)
                    case "claim_gpus":
                        claim = response.claim_gpus
                        yield ClaimGpus(claim.number, gpu_wire.grants_from_pb(claim.grants))
                    case "read_log":
                        asked = response.read_log
                        offset = asked.offset if asked.HasField("offset") else None
                        yield model.ReadLog(asked.request_id, offset, asked.max_bytes)
                    case _:
                        continue  # a command newer than this agent
        except _SESSION_IS_OVER as error:
            raise await self._explain(error) from None
