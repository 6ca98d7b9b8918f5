"""The driver's client: typed, synchronous, survives a user who forks.

Its callers see domain values and ``TfleaseError``s, never protobuf or ``grpc.RpcError``. That of
the agents is in ``member_client``.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc

from coordinator import wire
from coordinator.channels import channel
from coordinator.core import model
from coordinator.core.access import ClientTls
from coordinator.core.errors import CoordinatorUnavailable
from coordinator.core.log_values import LogChunk
from coordinator.security import call_metadata
from coordinator.status import error_from_rpc
from coordinator.v1 import log_service_pb2 as log_pb
from coordinator.v1 import log_service_pb2_grpc as log_grpc
from coordinator.v1 import run_service_pb2 as run_pb
from coordinator.v1 import run_service_pb2_grpc as run_grpc

CALL_TIMEOUT = 10.0
"""Seconds that a unary call may take."""


@dataclass(frozen=True, slots=True)
class CreatedRun:
    """A new run. ``owner_token``: opens this run for its driver, ``agent_token`` for its members'
    agents, and neither opens any other."""

    view: model.RunView
    owner_token: str = field(repr=False)
    agent_token: str = field(repr=False)

    @property
    def run_id(self) -> model.RunId:
        return self.view.run_id


class RunClient:
    """The owner's view of one coordinator. Thread-safe."""

    def __init__(self, address: str, token: str, tls: ClientTls | None = None) -> None:
        self._channel = channel(address, tls)
        self._stub = run_grpc.RunServiceStub(self._channel)
        self._logs = log_grpc.LogServiceStub(self._channel)
        self._metadata = call_metadata(token)

    def use_token(self, token: str) -> None:
        """From the next call on."""
        self._metadata = call_metadata(token)

    def create(self, spec: model.RunSpec, request_id: str | None = None) -> CreatedRun:
        """Raises InvalidRun, LimitExceeded, Unauthenticated, CoordinatorUnavailable."""
        request = run_pb.CreateRunRequest(
            request_id=request_id or uuid.uuid4().hex, spec=wire.spec_to_pb(spec)
        )
        response = self._call("CreateRun", request)
        view = wire.run_from_pb(response.run)
        return CreatedRun(view, response.owner_token, response.agent_token)

    def get(self, run_id: model.RunId) -> model.RunView:
        """Raises UnknownRun, Unauthenticated, CoordinatorUnavailable."""
        return wire.run_from_pb(self._call("GetRun", run_pb.GetRunRequest(run_id=run_id)).run)

    def list(self) -> list[model.RunView]:
        """Newest last. Raises Unauthenticated, CoordinatorUnavailable."""
        response = self._call("ListRuns", run_pb.ListRunsRequest())
        return [wire.run_from_pb(run) for run in response.runs]

    def watch(self, run_id: model.RunId) -> Iterator[model.RunView]:
        """The run now and after changes, until it has ended; has no deadline of its own, ends
        with CoordinatorUnavailable when the coordinator does. Raises UnknownRun."""
        return self._views("WatchRun", run_pb.WatchRunRequest(run_id=run_id))

    def own(self, run_id: model.RunId) -> Iterator[model.RunView]:
        """As ``watch``, and says all the while that the run's owner is there."""
        return self._views("OwnRun", run_pb.OwnRunRequest(run_id=run_id))

    def _views(self, method: str, request: Any) -> Iterator[model.RunView]:
        try:
            for response in getattr(self._stub, method)(request, metadata=self._metadata):
                yield wire.run_from_pb(response.run)
        except grpc.RpcError as error:
            raise error_from_rpc(error) from None
        except ValueError as error:  # grpc's word for a channel that was closed before
            raise CoordinatorUnavailable(str(error)) from None

    def read_log(
        self,
        run_id: model.RunId,
        member: model.MemberId,
        offset: int | None = None,
        max_bytes: int = 0,
    ) -> LogChunk:
        """A piece of a member's log from byte ``offset`` on, or its end; 0: as much as one answer
        holds. Raises UnknownRun, InvalidReservation, LogUnavailable, Unauthenticated,
        CoordinatorUnavailable."""
        request = log_pb.ReadLogRequest(
            run_id=run_id,
            member=wire.member_id_to_pb(member),
            offset=offset,
            max_bytes=max_bytes,
        )
        return wire.log_chunk_from_pb(self._call("ReadLog", request, self._logs))

    def stop(self, run_id: model.RunId, reason: str, grace: float | None = None) -> model.RunView:
        """Idempotent. Raises UnknownRun, Unauthenticated, CoordinatorUnavailable."""
        request = run_pb.StopRunRequest(run_id=run_id, reason=reason, grace_seconds=grace)
        return wire.run_from_pb(self._call("StopRun", request).run)

    def report_scheduling(
        self,
        run_id: model.RunId,
        slots: model.Slots,
        tasks: Mapping[model.MemberId, model.TaskState],
        restarts: int = 0,
    ) -> None:
        """``restarts``: how many of the run are known here.

        Raises UnknownRun, Unauthenticated, CoordinatorUnavailable."""
        request = run_pb.ReportSchedulingRequest(
            run_id=run_id,
            total_slots=slots.total,
            busy_slots=slots.busy,
            restart_count=restarts,
        )
        for member, task in tasks.items():
            request.tasks.add(
                member=wire.member_id_to_pb(member),
                running=task.running,
                failed=task.failed,
                message=task.message,
            )
        self._call("ReportScheduling", request)

    def report_task_end(
        self,
        run_id: model.RunId,
        member: model.MemberId,
        incarnation: model.IncarnationId,
        report: model.ExitReport,
    ) -> None:
        """Raises UnknownRun, InvalidReservation, Unauthenticated, CoordinatorUnavailable."""
        request = run_pb.ReportTaskEndRequest(
            run_id=run_id,
            member=wire.member_id_to_pb(member),
            incarnation=incarnation,
            exit=wire.exit_to_pb(report),
        )
        self._call("ReportTaskEnd", request)

    def _call(self, method: str, request: Any, stub: Any = None) -> Any:
        try:
            return getattr(stub or self._stub, method)(
                request, metadata=self._metadata, timeout=CALL_TIMEOUT
            )
        except grpc.RpcError as error:
            raise error_from_rpc(error) from None
        except ValueError as error:  # grpc's word for a channel that was closed before
            raise CoordinatorUnavailable(str(error)) from None

    def close(self) -> None:
        """Open watches end with CoordinatorUnavailable."""
        self._channel.close()
