"""The gRPC service of the book of GPUs: protobuf in, the book asked, protobuf out."""

from __future__ import annotations

from typing import Any

from coordinator import gpu_wire, wire
from coordinator.core.errors import InvalidRun
from coordinator.core.gpu import LeaseRequest
from coordinator.core.lease_book import LeaseBook
from coordinator.engine import Engine
from coordinator.v1 import gpu_lease_service_pb2 as pb
from coordinator.v1 import gpu_lease_service_pb2_grpc as lease_grpc

LEASE_TTL = 60.0
"""Seconds of silence after which a lease lapses that was acquired here. Those of a run's members
have the run's fence timeout."""

_LONGEST_REASON = 500  # characters


class GpuLeaseService(lease_grpc.GpuLeaseServiceServicer):
    """For operators, and for whoever else wants GPUs of the same book."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
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
        patience = wire.seconds(request.patience)
        if patience < 0:
            raise InvalidRun(f"patience={patience:g}: must be 0 or more")
        acquired = await self._gpus.acquire(
            LeaseRequest(
                request_id=_internal(request.request_id),
                holder=request.holder or f"request {request.request_id}",
                wants=tuple(map(gpu_wire.want_from_pb, request.wants)),
                ttl=LEASE_TTL,
                patience=patience,
            )
        )
        response = pb.AcquireGpusResponse(ttl=wire.duration(LEASE_TTL))
        for who, uuids in acquired.uuids.items():
            for uuid in uuids:
                token = gpu_wire.token_to_pb(acquired.tokens[uuid])
                response.grants.add(who=who, uuid=uuid, token=token)
        return response

    async def RenewGpus(self, request: pb.RenewGpusRequest, context: Any) -> pb.RenewGpusResponse:
        request_id = _internal(request.request_id)
        tokens = [gpu_wire.token_from_pb(token) for token in request.tokens]
        self._gpus.use(lambda book, now: book.renew(request_id, tokens, now))
        return pb.RenewGpusResponse()

    async def ReleaseGpus(
        self, request: pb.ReleaseGpusRequest, context: Any
    ) -> pb.ReleaseGpusResponse:
        request_id = _internal(request.request_id)
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


def _internal(request_id: str) -> str:
    """The requests of clients have a room of their own: whatever id they choose, it is never that
    of a run's gang."""
    if not request_id:
        raise InvalidRun("the request has no request_id")
    return f"client/{request_id}"


def _reason(text: str) -> str:
    """One line of the operator's, for the record."""
    reason = " ".join(text.split())[:_LONGEST_REASON]
    if not reason:
        raise InvalidRun("say why: the reason is kept in the record of the GPU")
    return reason
