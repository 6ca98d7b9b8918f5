"""The client of the book of GPUs: typed, synchronous.

Its callers see domain values and ``TfleaseError``s, never protobuf or ``grpc.RpcError``. Members
of runs need none of it: theirs come by way of their sessions.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Iterable
from typing import Any

import grpc

from coordinator import gpu_wire
from coordinator.channels import channel
from coordinator.client import CALL_TIMEOUT
from coordinator.core.access import ClientTls
from coordinator.core.errors import CoordinatorUnavailable, InvalidRun
from coordinator.core.gpu import GpuSight, LeaseToken, LeaseView, Want
from coordinator.security import call_metadata
from coordinator.status import error_from_rpc
from coordinator.v1 import gpu_lease_service_pb2 as pb
from coordinator.v1 import gpu_lease_service_pb2_grpc as lease_grpc

Grant = tuple[str, str, LeaseToken]
"""Who, which GPU, and its lease."""


class GpuClient:
    """One coordinator's GPUs. Thread-safe. Every method raises Unauthenticated and
    CoordinatorUnavailable, too."""

    def __init__(self, address: str, token: str, tls: ClientTls | None = None) -> None:
        self._channel = channel(address, tls)
        self._stub = lease_grpc.GpuLeaseServiceStub(self._channel)
        self._metadata = call_metadata(token)

    # -- for operators ---------------------------------------------------------------------

    def list(self) -> list[LeaseView]:
        """By host and index; times in Unix seconds."""
        return [gpu_wire.lease_from_pb(gpu) for gpu in self._call("ListGpus").gpus]

    def events(self) -> builtins.list[tuple[float, str]]:
        """What has happened to them, the oldest first: Unix time and a sentence. The coordinator
        keeps the latest thousand."""
        events = self._call("ListGpus", with_events=True).events
        return [(gpu_wire.unix(event.time), event.text) for event in events]

    def clear(self, uuid: str, reason: str) -> LeaseView:
        """An operator's word that it is free. Raises UnknownGpu, InvalidRun (no reason), and
        GpuHeld while somebody has it."""
        return gpu_wire.lease_from_pb(self._call("ClearGpu", uuid=uuid, reason=reason).gpu)

    def quarantine(self, uuid: str, reason: str) -> LeaseView:
        """An operator's word that it must not be used. Raises as ``clear``."""
        return gpu_wire.lease_from_pb(self._call("QuarantineGpu", uuid=uuid, reason=reason).gpu)

    # -- for holders -----------------------------------------------------------------------

    def acquire(
        self, request_id: str, holder: str, wants: Iterable[Want], patience: float
    ) -> tuple[builtins.list[Grant], float]:
        """All of it or nothing, after at most ``patience`` seconds; with the seconds of silence
        after which the leases lapse. Idempotent by ``request_id``, which is never to be used for
        another request; a call that is given up gives back its place in the queue. Raises
        GpusUnavailable (the text says who has them), UnknownGpu, InvalidRun."""
        if not 0 <= patience < math.inf:
            raise InvalidRun(f"patience={patience}: must be 0 or more seconds, and finite")
        response = self._call(
            "AcquireGpus",
            request_id=request_id,
            holder=holder,
            wants=map(gpu_wire.want_to_pb, wants),
            patience=gpu_wire.duration(patience),
            timeout=patience + CALL_TIMEOUT,
        )
        grants = [
            (each.who, each.uuid, gpu_wire.token_from_pb(each.token)) for each in response.grants
        ]
        return grants, gpu_wire.seconds(response.ttl)

    def renew(self, request_id: str, tokens: Iterable[LeaseToken]) -> None:
        """The holder is alive. Raises LeaseLost: whoever uses the GPUs must stop."""
        self._call("RenewGpus", request_id=request_id, tokens=map(gpu_wire.token_to_pb, tokens))

    def release(self, request_id: str, who: str, sights: Iterable[GpuSight] = ()) -> None:
        """The holder has ended; what was seen free since is free. Idempotent."""
        gpus = map(gpu_wire.sight_to_pb, sights)
        self._call("ReleaseGpus", request_id=request_id, who=who, gpus=gpus)

    # -- for whoever looks at a host -------------------------------------------------------

    def report(
        self, hostname: str, boot_id: str, sights: Iterable[GpuSight], number: int = 0
    ) -> None:
        """What there is on a host; with the ``number`` of an inspection also that it is free.
        Raises InvalidRun."""
        gpus = map(gpu_wire.sight_to_pb, sights)
        self._call("ReportGpus", hostname=hostname, boot_id=boot_id, gpus=gpus, number=number)

    def inspect(self, uuids: Iterable[str]) -> tuple[int, str]:
        """Begins an inspection: its number, and the id of the coordinator whose number that is.
        Raises UnknownGpu."""
        response = self._call("InspectGpus", uuids=uuids)
        return response.number, response.coordinator_id

    def _call(self, method: str, *, timeout: float = CALL_TIMEOUT, **fields: Any) -> Any:
        request = getattr(pb, f"{method}Request")(**fields)
        try:
            return getattr(self._stub, method)(request, metadata=self._metadata, timeout=timeout)
        except grpc.RpcError as error:
            raise error_from_rpc(error) from None
        except ValueError as error:  # grpc's word for a channel that was closed before
            raise CoordinatorUnavailable(str(error)) from None

    def close(self) -> None:
        """Open calls end with CoordinatorUnavailable."""
        self._channel.close()
