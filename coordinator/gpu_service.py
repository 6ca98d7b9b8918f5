"""The gRPC service of the book of GPUs: protobuf in, the book asked, protobuf out."""

from __future__ import annotations

import asyncio
from typing import Any

from coordinator import gpu_wire
from coordinator.calls import CALL
from coordinator.core.errors import InvalidRun, TfleaseError
from coordinator.core.lease_book import LeaseBook
from coordinator.durability import durable_soon
from coordinator.engine import Engine
from coordinator.gpu_stream import GpuStream, granted_to_pb, internal, request_from_pb
from coordinator.limiting import Limiter
from coordinator.v1 import gpu_lease_service_pb2 as pb
from coordinator.v1 import gpu_lease_service_pb2_grpc as lease_grpc

_LONGEST_REASON = 500  # characters


class GpuLeaseService(lease_grpc.GpuLeaseServiceServicer):
    """For operators, and for whoever else wants GPUs of the same book."""

    def __init__(self, engine: Engine, limiter: Limiter) -> None:
        self._engine = engine
        self._limiter = limiter
        self._gpus = engine.gpus

    async def ListGpus(self, request: pb.ListGpusRequest, context: Any) -> pb.ListGpusResponse:
        views = self._gpus.use(lambda book, _: book.views())
        offset = self._engine.wall_offset
        response = pb.ListGpusResponse(gpus=[gpu_wire.lease_to_pb(view, offset) for view in views])
        if request.with_events:
            for event in self._gpus.events:
                told = response.events.add(text=gpu_wire.clean(event.text))
                told.time.CopyFrom(gpu_wire.timestamp(event.at))
        return response

    async def ReportGpus(
        self, request: pb.ReportGpusRequest, context: Any
    ) -> pb.ReportGpusResponse:
        if not request.hostname or not request.boot_id:
            raise InvalidRun("a report of GPUs must name the host and its boot")
        where = (request.hostname, request.boot_id)
        sights = gpu_wire.sights_from_pb(request.gpus)

        def report(book: LeaseBook, now: float) -> None:
            if request.number:
                book.inspected(*where, request.number, sights, now)
            else:
                book.see(*where, sights, now)

        self._gpus.use(report)
        return pb.ReportGpusResponse()

    async def InspectGpus(
        self, request: pb.InspectGpusRequest, context: Any
    ) -> pb.InspectGpusResponse:
        def look(book: LeaseBook, _: float) -> pb.InspectGpusResponse:
            number = book.look(request.uuids)
            return pb.InspectGpusResponse(number=number, coordinator_id=book.coordinator_id)

        return self._gpus.use(look)

    async def AcquireGpus(
        self, request: pb.AcquireGpusRequest, context: Any
    ) -> pb.AcquireGpusResponse:
        wanted, asker = request_from_pb(request), object()
        granted = await self._gpus.acquire(wanted, asker)
        mark = self._engine.mark
        if (call := CALL.get()) is not None:
            call.mark = mark  # a second wait, for what others change meanwhile, we would not see
        try:
            await durable_soon(self._engine, mark)
        except (asyncio.CancelledError, TfleaseError):  # its client will never know of the grant
            self._gpus.broken_off(wanted, asker)
            raise
        self._gpus.learned(wanted)
        return granted_to_pb(granted)

    async def UseGpus(self, request_iterator: Any, context: Any) -> None:
        stream = GpuStream(self._engine, self._limiter, context, self.renew, self.release)
        await stream.serve()

    async def RenewGpus(self, request: pb.RenewGpusRequest, context: Any) -> pb.RenewGpusResponse:
        return self.renew(request)

    def renew(self, request: pb.RenewGpusRequest) -> pb.RenewGpusResponse:
        """Also by way of a stream."""
        request_id = internal(request.request_id)
        tokens = [gpu_wire.token_from_pb(token) for token in request.tokens]
        self._gpus.use(lambda book, now: book.renew(request_id, tokens, now))
        return pb.RenewGpusResponse()

    async def ReleaseGpus(
        self, request: pb.ReleaseGpusRequest, context: Any
    ) -> pb.ReleaseGpusResponse:
        return self.release(request)

    def release(self, request: pb.ReleaseGpusRequest) -> pb.ReleaseGpusResponse:
        """Also by way of a stream."""
        request_id = internal(request.request_id)
        sights = gpu_wire.sights_from_pb(request.gpus)
        self._gpus.use(lambda book, now: book.release(request_id, request.who, sights, now))
        return pb.ReleaseGpusResponse()

    async def QuarantineGpu(
        self, request: pb.QuarantineGpuRequest, context: Any
    ) -> pb.QuarantineGpuResponse:
        reason = _reason(request.reason)
        self._gpus.use(lambda book, now: book.quarantine(request.uuid, reason, now))
        return pb.QuarantineGpuResponse(gpu=self._lease(request.uuid))

    async def ClearGpu(self, request: pb.ClearGpuRequest, context: Any) -> pb.ClearGpuResponse:
        reason = _reason(request.reason)
        self._gpus.use(lambda book, now: book.clear(request.uuid, reason, now))
        return pb.ClearGpuResponse(gpu=self._lease(request.uuid))

    def _lease(self, uuid: str) -> Any:
        """As it stands now: the next in the queue may have it already."""
        view = self._gpus.use(lambda book, _: book.view(uuid))
        return gpu_wire.lease_to_pb(view, self._engine.wall_offset)


def _reason(text: str) -> str:
    """One line of the operator's, for the record."""
    reason = " ".join(text.split())[:_LONGEST_REASON]
    if not reason:
        raise InvalidRun("say why: the reason is kept in the record of the GPU")
    return reason
