"""The agents' client: a member's reservation and its session, on asyncio.

Its callers see domain values and ``TfleaseError``s, never protobuf or ``grpc.RpcError``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
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
from coordinator.core.log_values import LogChunk, ReadLog
from coordinator.core.stall_timeouts import Section
from coordinator.file_sender import FileSending
from coordinator.security import call_metadata
from coordinator.status import error_from_rpc
from coordinator.stream_errors import STREAM_IS_OVER, explain
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
    """Stop the process; ``grace`` in seconds. ``again``: another attempt is likely to follow."""

    generation: int
    reason: str
    grace: float
    again: bool = False


@dataclass(frozen=True, slots=True)
class DumpStack:
    """Tell where the threads of the process stand."""


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


Unpack = Callable[[bytes], Mapping[str, tuple[str, ...]]]

Command = Acknowledged | Start | Stop | DumpStack | ReadLog | InspectGpus | ClaimGpus


class ReservationClient:
    """A member's view of the coordinator, on a connection of its own: gRPC lets all channels of
    a process to one server share one, unless told. Use inside a running event loop. ``unpack``:
    how a cluster spec is read."""

    def __init__(
        self,
        address: str,
        token: str,
        tls: ClientTls | None = None,
        unpack: Unpack = wire.unpack_cluster_spec,
    ) -> None:
        own = [("grpc.use_local_subchannel_pool", 1)]
        self._channel = aio_channel(address, tls, own)
        self._stub = reservation_grpc.ReservationServiceStub(self._channel)
        self._metadata = call_metadata(token)
        self._unpack = unpack

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
            retry_delay=gpu_wire.seconds(response.retry_delay),
            beat_interval=gpu_wire.seconds(response.beat_interval),
            fence_timeout=gpu_wire.seconds(response.fence_timeout),
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
        return Attendance(stream, hello, self._unpack)

    def send_files(
        self, run_id: model.RunId, member: model.MemberId, incarnation: model.IncarnationId
    ) -> FileSending:
        """A stream of files, on the same connection; enter it to say hello."""
        return FileSending(self._channel, self._metadata, run_id, member, incarnation)

    async def close(self) -> None:
        """Open sessions end."""
        await self._channel.close()


class Attendance:
    """One session of a member: reports up, commands down.

    Every method raises StaleIncarnation, UnknownRun, Unauthenticated or CoordinatorUnavailable
    when the session is over; attach again after the last of these.
    """

    def __init__(
        self,
        stream: Any,
        hello: reservation_pb.AgentHello,
        unpack: Unpack = wire.unpack_cluster_spec,
    ) -> None:
        self._stream = stream
        self._unpack = unpack
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
            except STREAM_IS_OVER as error:
                raise await explain(self._stream, error) from None

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
        self,
        sequence: int,
        generation: int,
        step: int,
        metrics: Mapping[str, float],
        section: Section = Section.STEP,
    ) -> None:
        message = reservation_pb.Progress(
            generation=generation, step=step, metrics=metrics, section=f"SECTION_{section.name}"
        )
        await self._send(sequence, progress=message)

    async def stack_dumped(self, sequence: int, text: str) -> None:
        """The answer to ``DumpStack``."""
        dumped = reservation_pb.StackDumped(text=gpu_wire.clean(text))
        await self._send(sequence, stack_dumped=dumped)

    async def process_exited(
        self, sequence: int, generation: int, report: model.ExitReport
    ) -> None:
        message = reservation_pb.ProcessExited(generation=generation, exit=wire.exit_to_pb(report))
        await self._send(sequence, process_exited=message)

    async def log_chunk(self, request_id: str, chunk: LogChunk) -> None:
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
                        spec = self._unpack(response.start.cluster_spec_zlib)
                        yield Start(response.start.generation, spec)
                    case "stop":
                        grace = gpu_wire.seconds(response.stop.grace)
                        told = response.stop
                        yield Stop(told.generation, told.reason, grace, told.again)
                    case "dump_stack":
                        yield DumpStack()
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
                        yield ReadLog(asked.request_id, offset, asked.max_bytes)
                    case _:
                        continue  # a command newer than this agent
        except STREAM_IS_OVER as error:
            raise await explain(self._stream, error) from None
