"""The gRPC service for the record of events: protobuf in, the history read, protobuf out."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from coordinator.engine import Engine
from coordinator.event_history import EventHistory, EventStore
from coordinator.event_log import EventQuery, EventRecord
from coordinator.gpu_wire import clean, timestamp, unix
from coordinator.v1 import event_service_pb2 as pb
from coordinator.v1 import event_service_pb2_grpc as event_grpc


class EventService(event_grpc.EventServiceServicer):
    """For whoever wants to know what has happened."""

    def __init__(self, engine: Engine) -> None:
        store: EventStore | None = engine.journal
        self._history = EventHistory(engine.events, store, engine.durable)

    async def WatchEvents(
        self, request: pb.WatchEventsRequest, context: Any
    ) -> AsyncGenerator[pb.WatchEventsResponse, None]:
        pages = self._history.read(_query(request), latest=request.limit, follow=request.follow)
        async with aclosing(pages):
            async for page in pages:
                yield pb.WatchEventsResponse(events=map(_event_to_pb, page))


def _query(request: pb.WatchEventsRequest) -> EventQuery:
    return EventQuery(
        run_id=request.run_id,
        since=unix(request.since) if request.HasField("since") else None,
        until=unix(request.until) if request.HasField("until") else None,
        text=request.text,
        kind=request.kind.rstrip("."),  # "run." is "run": all that begin with it
        after_id=request.after_id,
    )


def _event_to_pb(event: EventRecord) -> pb.Event:
    return pb.Event(
        id=event.id,
        time=timestamp(event.at),
        run_id=event.run_id,
        subject=clean(event.subject),
        kind=event.kind,
        text=clean(event.text),
    )
