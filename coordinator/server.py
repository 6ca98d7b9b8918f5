"""The gRPC server around an engine: interceptors, health, reflection, limits, graceful stop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from coordinator.calls import Aspect, CallInterceptor, OpenCalls
from coordinator.channels import server_credentials
from coordinator.core.access import ServerTls
from coordinator.core.errors import CoordinatorUnavailable
from coordinator.core.model import Endpoint
from coordinator.durability import DurableAnswers
from coordinator.engine import Engine
from coordinator.event_service import EventService
from coordinator.file_relay import FileRelay
from coordinator.file_service import FileService
from coordinator.gpu_service import GpuLeaseService
from coordinator.limiting import Limiter
from coordinator.limits import Limits, connections_within
from coordinator.log_service import LogService
from coordinator.security import Authorization, Keyring, TokenInterceptor
from coordinator.service import ReservationService, RunService
from coordinator.v1 import (
    event_service_pb2,
    event_service_pb2_grpc,
    file_service_pb2,
    file_service_pb2_grpc,
    gpu_lease_service_pb2,
    gpu_lease_service_pb2_grpc,
    log_service_pb2,
    log_service_pb2_grpc,
    reservation_service_pb2,
    reservation_service_pb2_grpc,
    run_service_pb2,
    run_service_pb2_grpc,
)

_log = logging.getLogger("tflease.coordinator")

OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.so_reuseport", 0),  # otherwise a second server binds the same port, silently
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Windows stay small: what a session sends too fast waits with its sender, not in our memory.
    ("grpc.http2.bdp_probe", 0),
)


def options(limits: Limits) -> list[tuple[str, int]]:
    """gRPC's side of the limits. It refuses without a word of ours, so what we refuse in clear
    words comes first."""
    streams = limits.calls_per_connection + limits.streams_per_connection
    handshake = round(limits.handshake_timeout * 1000)
    return [
        *OPTIONS,
        ("grpc.max_receive_message_length", limits.message_bytes),
        ("grpc.max_send_message_length", limits.answer_bytes),
        ("grpc.max_metadata_size", limits.metadata_bytes),
        ("grpc.absolute_max_metadata_size", limits.metadata_bytes),
        # A gang calls all at once: with the defaults (1,000 and 3,000) calls are lost as CANCELLED.
        ("grpc.server.max_pending_requests", limits.calls),
        ("grpc.server.max_pending_requests_hard_limit", limits.calls),
        # Also what stops a peer that opens calls and takes them back (CVE-2023-44487): without it
        # calls of others waited for 10 s, and 2 GB were used.
        ("grpc.max_concurrent_streams", streams),
        ("grpc.max_allowed_incoming_connections", connections_within(limits)),
        ("grpc.server_handshake_timeout_ms", handshake),
        ("grpc.http2.settings_timeout", handshake),
    ]


FLUSH_TIME = 10.0
"""Seconds that a stopping server gives to the disk."""

ENDING_TIME = 1.0
"""Seconds that a stopping server gives to calls that it has told to end; grpc cancels them then."""

SERVICE_NAMES = (
    run_service_pb2.DESCRIPTOR.services_by_name["RunService"].full_name,
    reservation_service_pb2.DESCRIPTOR.services_by_name["ReservationService"].full_name,
    log_service_pb2.DESCRIPTOR.services_by_name["LogService"].full_name,
    gpu_lease_service_pb2.DESCRIPTOR.services_by_name["GpuLeaseService"].full_name,
    event_service_pb2.DESCRIPTOR.services_by_name["EventService"].full_name,
    file_service_pb2.DESCRIPTOR.services_by_name["FileService"].full_name,
)


class Server:
    """One engine behind one port. ``token``: the operator's. ``aspects``: what else surrounds each
    call, the outermost first. ``limits``: None for the usual ones; ``limiter`` counts what was
    refused by them."""

    def __init__(
        self,
        engine: Engine,
        token: str,
        tls: ServerTls | None = None,
        aspects: Sequence[Aspect] = (),
        limits: Limits | None = None,
    ) -> None:
        self.engine = engine
        self.limiter = Limiter(limits or Limits(), engine)
        self._tls = tls
        self._calls = OpenCalls()
        keyring = Keyring(token)
        around = (*aspects, Authorization(), self.limiter, DurableAnswers(engine))
        self._server = grpc.aio.server(
            interceptors=(TokenInterceptor(keyring), CallInterceptor(self._calls, around)),
            options=options(self.limiter.limits),
        )
        run_service_pb2_grpc.add_RunServiceServicer_to_server(
            RunService(engine, keyring), self._server
        )
        reservation_service_pb2_grpc.add_ReservationServiceServicer_to_server(
            ReservationService(engine, self.limiter), self._server
        )
        log_service_pb2_grpc.add_LogServiceServicer_to_server(
            LogService(engine, self.limiter), self._server
        )
        gpu_lease_service_pb2_grpc.add_GpuLeaseServiceServicer_to_server(
            GpuLeaseService(engine, self.limiter), self._server
        )
        event_service_pb2_grpc.add_EventServiceServicer_to_server(
            EventService(engine), self._server
        )
        self.files = FileRelay()
        file_service_pb2_grpc.add_FileServiceServicer_to_server(
            FileService(engine, self.limiter, self.files), self._server
        )
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*SERVICE_NAMES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listens, and returns the port. Raises CoordinatorUnavailable when it cannot."""
        address = Endpoint(host, port).address
        try:
            if self._tls is None:
                bound = self._server.add_insecure_port(address)
            else:
                bound = self._server.add_secure_port(address, server_credentials(self._tls))
        except RuntimeError as error:
            raise CoordinatorUnavailable(f"cannot listen on {address}: {error}") from None
        await self._server.start()
        await self.set_serving("", True)
        await self.set_ready(True)
        self.engine.start()
        return int(bound)

    async def set_ready(self, is_ready: bool) -> None:
        """What health says of our services; that of the process itself ("") is liveness."""
        for name in SERVICE_NAMES:
            await self.set_serving(name, is_ready)

    async def set_serving(self, name: str, is_serving: bool) -> None:
        """What health says of one name."""
        health_status = health_pb2.HealthCheckResponse
        state = health_status.SERVING if is_serving else health_status.NOT_SERVING
        await self._health.set(name, state)

    async def stop(self, grace: float = 1.0) -> None:
        """Refuses new calls, gives open ones ``grace`` seconds and then ends them with
        CoordinatorUnavailable; on return nothing listens, and what was decided is durable."""
        await self._health.enter_graceful_shutdown()
        stopping = asyncio.ensure_future(self._server.stop(grace + ENDING_TIME))
        await self._calls.end(grace)
        await asyncio.shield(stopping)
        self.engine.close()
        if not await self.engine.flush(FLUSH_TIME):
            _log.error(
                "what was decided last could not be written: %s", self.engine.journal_problem
            )
