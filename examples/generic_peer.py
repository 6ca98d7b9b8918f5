"""A member and its driver in one, written from the contract alone: no module of tflease is used.

Asks the coordinator for its contract (gRPC server reflection, as grpcurl does), then creates a run
with one worker, reserves its slot, attends, gets a GPU by a lease of its own, and stops the run.
Another language does the same with stubs made from proto/coordinator/v1/*.proto.

    tflease serve --listen 127.0.0.1:7787 &
    python examples/generic_peer.py 127.0.0.1:7787 ~/.config/tflease/token
"""

from __future__ import annotations

import queue
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

PACKAGE = "coordinator.v1"
WORKER = 2  # Role.ROLE_WORKER
STOPPED = 13  # Cause.CAUSE_STOPPED
DEADLINE = 20.0


class _Details(NamedTuple):
    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class _WithToken(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Every call carries the token, those of reflection too."""

    def __init__(self, token: str) -> None:
        self._token = token

    def _go_on(self, proceed: Callable[..., Any], details: Any, request: Any) -> Any:
        metadata = [*(details.metadata or ()), ("authorization", f"Bearer {self._token}")]
        told = _Details(details.method, details.timeout, metadata, details.credentials, None, None)
        return proceed(told, request)

    intercept_unary_unary = intercept_unary_stream = intercept_stream_stream = _go_on


class Contract:
    """What the coordinator says that it can do."""

    def __init__(self, address: str, token: str) -> None:
        options = [("grpc.enable_http_proxy", 0)]
        self._channel = grpc.insecure_channel(address, options=options)
        self._authorized = grpc.intercept_channel(self._channel, _WithToken(token))
        self._pool = DescriptorPool(ProtoReflectionDescriptorDatabase(self._authorized))

    def message(self, kind: str, /, **fields: Any) -> Any:
        """One of its messages."""
        return GetMessageClass(self._pool.FindMessageTypeByName(f"{PACKAGE}.{kind}"))(**fields)

    def call(self, service: str, method: str, /, **fields: Any) -> Any:
        """A unary call."""
        found = self._method(service, method)
        request = GetMessageClass(found.input_type)(**fields)
        stub = self._authorized.unary_unary(
            f"/{PACKAGE}.{service}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(found.output_type).FromString,
        )
        return stub(request, timeout=DEADLINE)

    def converse(self, service: str, method: str, requests: Iterator[Any]) -> Any:
        """A call with a stream in each direction."""
        found = self._method(service, method)
        stub = self._authorized.stream_stream(
            f"/{PACKAGE}.{service}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(found.output_type).FromString,
        )
        return stub(requests, timeout=DEADLINE)

    def _method(self, service: str, method: str) -> MethodDescriptor:
        return self._pool.FindServiceByName(f"{PACKAGE}.{service}").methods_by_name[method]

    def close(self) -> None:
        self._channel.close()


def play(address: str, token: str) -> None:
    """Each step is printed."""
    operator = Contract(address, token)
    roles = operator.message("RoleCounts", worker=1)
    spec = operator.message("RunSpec", name="from the contract", roles=roles)
    for field, seconds in (
        ("reservation_timeout", 60), ("liveness_ttl", 15), ("fence_timeout", 120),
        ("beat_interval", 3),
    ):  # fmt: skip
        getattr(spec, field).seconds = seconds
    created = operator.call("RunService", "CreateRun", request_id=uuid.uuid4().hex, spec=spec)
    run_id = created.run.run_id
    print("created run", run_id)

    agent = Contract(address, created.agent_token)
    incarnation = uuid.uuid4().hex
    reserved = agent.call(
        "ReservationService", "Reserve", run_id=run_id, incarnation=incarnation,
        member=agent.message("MemberId", role=WORKER, index=0),
        executor=agent.message("ExecutorInfo", hostname="here", boot_id="boot", pid=1),
        endpoint=agent.message("Endpoint", host="127.0.0.1", port=2222),
    )  # fmt: skip
    print("reserved, outcome", reserved.outcome)
    started = threading.Event()
    attending = threading.Thread(target=attend, args=(agent, run_id, incarnation, started))
    attending.start()
    started.wait(DEADLINE)

    uuids = ["GPU-of-the-contract"]
    sight = operator.message("GpuSight", uuid=uuids[0], is_free=True)
    operator.call("GpuLeaseService", "ReportGpus", hostname="here", boot_id="boot", gpus=[sight])
    want = operator.message("GpuWant", who="me", uuids=uuids, count=1)
    request_id = uuid.uuid4().hex
    acquired = operator.call("GpuLeaseService", "AcquireGpus", request_id=request_id, wants=[want])
    print("leased", acquired.grants[0].uuid, "with token", acquired.grants[0].token.number)
    operator.call(
        "GpuLeaseService", "ReleaseGpus", request_id=request_id, who="me", gpus=[sight]
    )  # fmt: skip

    owner = Contract(address, created.owner_token)
    owner.call("RunService", "StopRun", run_id=run_id, reason="seen enough")
    attending.join(DEADLINE)
    run = owner.call("RunService", "GetRun", run_id=run_id).run
    print("stopped, phase", run.phase)  # 6: RUN_PHASE_CANCELLED
    for contract in (operator, agent, owner):
        contract.close()


def attend(agent: Contract, run_id: str, incarnation: str, started: threading.Event) -> None:
    """Hello, ready; told to start: entered, a beat; told to stop: ended, goodbye."""
    sayings: queue.Queue[Any] = queue.Queue()

    def say(sequence: int, **what: Any) -> None:
        sayings.put(agent.message("AttendRequest", sequence=sequence, **what))

    member = agent.message("MemberId", role=WORKER, index=0)
    hello = {"run_id": run_id, "member": member, "incarnation": incarnation}
    say(0, hello=agent.message("AgentHello", **hello))
    say(1, process_ready=agent.message("ProcessReady", versions={"anything": "1.0"}))
    for answer in agent.converse("ReservationService", "Attend", iter(sayings.get, None)):
        if answer.WhichOneof("message") == "start":
            print("started, generation", answer.start.generation)
            say(2, main_entered=agent.message("MainEntered", generation=answer.start.generation))
            say(3, heartbeat=agent.message("Heartbeat"))
            started.set()
        elif answer.WhichOneof("message") == "stop":
            report = agent.message("ExitReport", cause=STOPPED, killed_by_us=True)
            say(4, process_exited=agent.message("ProcessExited", generation=1, exit=report))
            say(5, goodbye=agent.message("Goodbye", reason="that was all"))
        elif answer.acknowledgement.sequence == 5:
            sayings.put(None)
    print("attended")


if __name__ == "__main__":
    play(sys.argv[1], Path(sys.argv[2]).read_text().strip())
