"""The client of the record of events: typed, synchronous.

Its callers see domain values and ``TfleaseError``s, never protobuf or ``grpc.RpcError``.
"""

from __future__ import annotations

from collections.abc import Iterator

import grpc

from coordinator.channels import channel
from coordinator.core.access import ClientTls
from coordinator.core.errors import CoordinatorUnavailable
from coordinator.event_log import EventQuery, EventRecord
from coordinator.gpu_wire import timestamp, unix
from coordinator.security import call_metadata
from coordinator.status import error_from_rpc
from coordinator.v1 import event_service_pb2 as pb
from coordinator.v1 import event_service_pb2_grpc as event_grpc


class EventClient:
    """One coordinator's events. Thread-safe."""

    def __init__(self, address: str, token: str, tls: ClientTls | None = None) -> None:
        self._channel = channel(address, tls)
        self._stub = event_grpc.EventServiceStub(self._channel)
        self._metadata = call_metadata(token)

    def watch(
        self, query: EventQuery, *, latest: int = 0, follow: bool = False
    ) -> Iterator[EventRecord]:
        """Those that fit, the oldest first; times in Unix seconds. ``latest``: of what has happened
        already at most so many; 0: all that are kept. ``follow``: and what happens from now on,
        without an end of its own. The query's ``limit`` and ``is_latest`` do not count. Raises
        InvalidRun, Unauthenticated, PermissionDenied, CoordinatorUnavailable."""
        request = pb.WatchEventsRequest(
            run_id=query.run_id,
            kind=query.kind,
            text=query.text,
            since=None if query.since is None else timestamp(query.since),
            until=None if query.until is None else timestamp(query.until),
            after_id=query.after_id,
            limit=latest,
            follow=follow,
        )
        try:
            for response in self._stub.WatchEvents(request, metadata=self._metadata):
                yield from map(_event_from_pb, response.events)
        except grpc.RpcError as error:
            raise error_from_rpc(error) from None
        except ValueError as error:  # grpc's word for a channel that was closed before
            raise CoordinatorUnavailable(str(error)) from None

    def close(self) -> None:
        """Open watches end with CoordinatorUnavailable."""
        self._channel.close()


def _event_from_pb(message: pb.Event) -> EventRecord:
    return EventRecord(
        id=message.id,
        at=unix(message.time),
        run_id=message.run_id,
        subject=message.subject,
        kind=message.kind,
        text=message.text,
    )
