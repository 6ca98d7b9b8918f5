"""Domain <-> protobuf for GPUs and their leases; the rest is in ``wire``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from coordinator.core.errors import InvalidRun
from coordinator.core.gpu import (
    GpuOffer,
    GpuSight,
    LeaseState,
    LeaseToken,
    LeaseView,
    Want,
)
from coordinator.v1 import gpu_lease_service_pb2 as lease_pb
from coordinator.v1 import gpu_pb2 as pb
from coordinator.v1 import reservation_service_pb2 as reservation_pb

_PREFIX = "LEASE_STATE_"
_LATEST = 253_402_300_799  # the end of the year 9999, beyond which there are no Timestamps


def token_to_pb(token: LeaseToken) -> pb.LeaseToken:
    return pb.LeaseToken(coordinator_id=token.coordinator_id, number=token.number)


def token_from_pb(message: pb.LeaseToken) -> LeaseToken:
    return LeaseToken(message.coordinator_id, message.number)


def sight_to_pb(sight: GpuSight) -> pb.GpuSight:
    return pb.GpuSight(
        uuid=sight.uuid,
        is_free=sight.is_free,
        index=sight.index,
        name=sight.name,
        memory_total=sight.memory_total,
        memory_used=sight.memory_used,
        holder=clean(sight.holder),
        pids=sight.pids,
    )


def sight_from_pb(message: pb.GpuSight) -> GpuSight:
    """Raises InvalidRun when it names no GPU."""
    if not message.uuid:
        raise InvalidRun("a GPU without a UUID")
    return GpuSight(
        uuid=message.uuid,
        is_free=message.is_free,
        index=message.index,
        name=message.name,
        memory_total=message.memory_total,
        memory_used=message.memory_used,
        holder=message.holder,
        pids=tuple(message.pids),
    )


def sights_from_pb(messages: Iterable[pb.GpuSight]) -> tuple[GpuSight, ...]:
    return tuple(map(sight_from_pb, messages))


def offer_to_pb(offer: GpuOffer) -> pb.GpuOffer:
    return pb.GpuOffer(
        gpus=map(sight_to_pb, offer.gpus), is_assigned=offer.is_assigned, problem=offer.problem
    )


def offer_from_pb(message: pb.GpuOffer) -> GpuOffer:
    return GpuOffer(sights_from_pb(message.gpus), message.is_assigned, message.problem)


def grants_to_pb(grants: Mapping[str, LeaseToken]) -> list[reservation_pb.GpuGrant]:
    return [
        reservation_pb.GpuGrant(uuid=uuid, token=token_to_pb(token))
        for uuid, token in grants.items()
    ]


def grants_from_pb(messages: Iterable[reservation_pb.GpuGrant]) -> dict[str, LeaseToken]:
    return {each.uuid: token_from_pb(each.token) for each in messages}


def want_from_pb(message: lease_pb.GpuWant) -> Want:
    return Want(message.who, tuple(message.uuids), message.count)


def want_to_pb(want: Want) -> lease_pb.GpuWant:
    return lease_pb.GpuWant(who=want.who, uuids=want.uuids, count=want.count)


def lease_to_pb(view: LeaseView, wall_offset: float) -> pb.GpuLease:
    """``wall_offset``: what to add to the machine's clock to have Unix time."""
    expires = None if view.expires_at is None else timestamp(view.expires_at + wall_offset)
    return pb.GpuLease(
        uuid=view.uuid,
        state=_PREFIX + view.state.name,
        hostname=view.hostname,
        boot_id=view.boot_id,
        name=view.name,
        token=token_to_pb(view.token) if view.token else None,
        holder=view.holder,
        who=view.who,
        state_time=timestamp(view.since + wall_offset),
        expire_time=expires,
        reason=view.reason,
        pids=view.pids,
    )


def lease_from_pb(message: pb.GpuLease) -> LeaseView:
    """Times in the view are Unix seconds. A state that is unknown here counts as unproven."""
    name = pb.LeaseState.Name(message.state) if message.state in pb.LeaseState.values() else ""
    state = LeaseState.__members__.get(name.removeprefix(_PREFIX), LeaseState.UNPROVEN)
    return LeaseView(
        uuid=message.uuid,
        state=state,
        hostname=message.hostname,
        boot_id=message.boot_id,
        name=message.name,
        token=token_from_pb(message.token) if message.HasField("token") else None,
        holder=message.holder,
        who=message.who,
        since=unix(message.state_time),
        expires_at=unix(message.expire_time) if message.HasField("expire_time") else None,
        reason=message.reason,
        pids=tuple(message.pids),
    )


def timestamp(unix_seconds: float) -> Timestamp:
    message = Timestamp()
    message.FromNanoseconds(round(min(unix_seconds, _LATEST) * 1e9))
    return message


def unix(message: Timestamp) -> float:
    """Raises InvalidRun for what is no time."""
    try:
        return message.ToNanoseconds() / 1e9
    except ValueError as error:
        raise InvalidRun(str(error)) from None


def clean(text: str) -> str:
    """Paths and messages may hold bytes that are no UTF-8 (surrogates): a report is worth more
    than its exact text, and protobuf would refuse it."""
    return text.encode(errors="backslashreplace").decode()


def duration(seconds: float) -> Duration:
    """Float seconds -> Duration."""
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


def seconds(message: Duration) -> float:
    """Duration -> float seconds."""
    return message.ToNanoseconds() / 1e9
