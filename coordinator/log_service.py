"""The gRPC service for members' logs: protobuf in, a question to the agent, protobuf out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from coordinator import wire
from coordinator.core.errors import InvalidReservation, LogUnavailable
from coordinator.core.log_values import LogChunk
from coordinator.core.model import MemberView, RunId
from coordinator.engine import Engine
from coordinator.limiting import Limiter
from coordinator.log_requests import wanted_bytes
from coordinator.v1 import log_service_pb2 as pb
from coordinator.v1 import log_service_pb2_grpc as log_grpc


class LogService(log_grpc.LogServiceServicer):
    """For whoever wants to read."""

    def __init__(self, engine: Engine, limiter: Limiter) -> None:
        self._engine = engine
        self._limiter = limiter

    async def ReadLog(self, request: pb.ReadLogRequest, context: Any) -> pb.ReadLogResponse:
        run_id, wanted = RunId(request.run_id), wire.member_id_from_pb(request.member)
        member = self._engine.member_view(run_id, wanted)
        if request.HasField("offset") and request.offset < 0:
            raise InvalidReservation(f"offset {request.offset}: must be 0 or more")
        session = self._engine.session(run_id, member.incarnation)
        if session is None or member.phase.has_ended:  # its agent is about to leave
            return wire.log_chunk_to_pb(_of(member, _what_is_left(member)))
        offset = request.offset if request.HasField("offset") else None
        size = wanted_bytes(request.max_bytes)
        await self._limiter.log_turn(size)
        came = 0
        try:
            chunk = await self._engine.logs.ask(session.send, offset, size)
            came = len(chunk.data)
        finally:
            self._limiter.log_spared(size - came)
        return wire.log_chunk_to_pb(_of(member, chunk))


def _of(member: MemberView, chunk: LogChunk) -> LogChunk:
    """With whose log it is: an attempt's that comes in between has another one."""
    return replace(chunk, incarnation=member.incarnation or "")


def _what_is_left(member: MemberView) -> LogChunk:
    """Nobody attends for the member: it has ended, is cut off, or has not come yet."""
    if member.exit is not None and member.exit.log_tail:
        data = member.exit.log_tail.encode()
        return LogChunk(None, data, len(data))
    if member.executor is None:
        raise LogUnavailable(f"{member.id} has no executor yet, and so no log")
    raise LogUnavailable(
        f"nobody attends for {member.id}, which is {member.phase.value}; its log, if any, is "
        f"{member.executor.directory}/member.log on {member.executor}"
    )
